//! `panacea brain`: queries the ledger. Writes nothing, needs no cluster.

mod show;

use std::{io::stdout, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::{
    config::{LEDGER_FILE, LedgerArgs, duration},
    print,
};
use crate::knowledge::{
    Dialect, Filter, LedgerConfig, Reader,
    incident::{Incident, NoIncident},
    views,
};

#[derive(Debug, Args)]
pub(super) struct BrainArgs {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// Number of actions by type in the last 24 hours, or since --since
    Actions(AskArgs),
    /// Components by number of interventions, carried out or attempted
    Components(AskArgs),
    /// Success rates of actions
    SuccessRates {
        /// By action type, or for each remedy by cause and component, with the lower bound of its success rate
        #[arg(long, default_value = "type")]
        by: By,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Accuracy of warnings, by the day on which the outcome became known
    Accuracy(AskArgs),
    /// One incident as a timeline: proposal, decision, action, verification, rollback, and the checks around it. Exit
    /// code 1: the ledger contains nothing of the Remediation
    Show {
        /// The Remediation. Default: list the newest ones
        #[arg(value_name = "REMEDIATION")]
        remediation: Option<String>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Print the SQL of the tables, indexes and views, for an administrator
    Schema {
        /// The database
        #[arg(long, default_value = "postgres")]
        dialect: Database,
    },
}

/// The ledger, the rows, and the output format.
#[derive(Debug, Args)]
struct AskArgs {
    /// Output format
    #[arg(short = 'o', long, default_value = "table")]
    output: Output,
    /// Only rows since a time such as 2026-03-01T10:00:00Z, or a duration ago such as 7d
    #[arg(long, value_name = "TIME|DURATION")]
    since: Option<String>,
    /// Only rows of this namespace
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// Only rows of this policy
    #[arg(long)]
    policy: Option<String>,
    #[command(flatten)]
    ledger: LedgerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Type,
    Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Database {
    Postgres,
    Sqlite,
}

pub(super) async fn brain(args: BrainArgs) -> anyhow::Result<ExitCode> {
    let text = match args.question {
        Question::Actions(ask) => {
            let (reader, filter) = ask.open()?;
            ask.show(&reader.actions(&filter).await?)?
        }
        Question::Components(ask) => {
            let (reader, filter) = ask.open()?;
            ask.show(&reader.interventions_by_component(&filter).await?)?
        }
        Question::SuccessRates { by, ask } => {
            let (reader, filter) = ask.open()?;
            match by {
                By::Type => ask.show(&reader.success_by_action(&filter).await?)?,
                By::Cause => ask.show(&reader.remedies_by_cause(&filter).await?)?,
            }
        }
        Question::Accuracy(ask) => {
            let (reader, filter) = ask.open()?;
            ask.show(&reader.accuracy_by_day(&filter).await?)?
        }
        Question::Show { remediation: None, ask } => {
            let (reader, filter) = ask.open()?;
            ask.show(&reader.remediations(&filter).await?)?
        }
        Question::Show { remediation: Some(name), ask } => {
            if ask.since.is_some() || ask.policy.is_some() {
                bail!("--since and --policy do not apply to one remediation: leave them out, or leave out {name}");
            }
            let (reader, _) = ask.open()?;
            match reader.incident(&name, ask.namespace.as_deref()).await {
                Ok(incident) => ask.show_incident(&incident)?,
                Err(unknown @ NoIncident::Unknown(_)) => {
                    eprintln!(
                        "panacea: {unknown}; `panacea brain show` lists the newest remediations of the ledger, `kubectl get rem -A` \
                         the remediations of the cluster"
                    );
                    return Ok(ExitCode::from(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Question::Schema { dialect: Database::Postgres } => views::ddl(Dialect::Postgres),
        Question::Schema { dialect: Database::Sqlite } => views::ddl(Dialect::Sqlite),
    };
    print(stdout().lock(), &text).context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

impl AskArgs {
    fn open(&self) -> anyhow::Result<(Reader, Filter)> {
        let since = self.since.as_deref().map(|since| moment(since, Timestamp::now())).transpose()?;
        let filter = Filter { since, namespace: self.namespace.clone(), policy: self.policy.clone() };
        let config = self.ledger.config()?;
        // The operator creates the file; without it there is nothing to read.
        if let LedgerConfig::Sqlite(file) = &config
            && !file.exists()
        {
            bail!(
                "no ledger: no database is configured and the file {} does not exist; name the operator's database with \
                 --database-url (DATABASE_URL) or --db-host (DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_PASSWORD), or the \
                 folder of its {LEDGER_FILE} with --data-dir (PANACEA_DATA_DIR)",
                file.display()
            );
        }
        Ok((Reader::new(&config)?, filter))
    }

    fn show<T: show::Shown>(&self, rows: &[T]) -> anyhow::Result<String> {
        match self.output {
            Output::Table => show::table(rows),
            Output::Json => Ok(serde_json::to_string_pretty(rows)?),
            Output::Csv => show::csv(rows),
        }
    }

    fn show_incident(&self, incident: &Incident) -> anyhow::Result<String> {
        match self.output {
            Output::Json => Ok(serde_json::to_string_pretty(incident)?),
            Output::Csv => show::csv(&incident.events),
            Output::Table => show::timeline(incident),
        }
    }
}

/// A time, or a duration before `now`.
fn moment(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let Ok(ago) = duration(text) else {
        bail!("--since {text:?} is neither a time nor a duration; write for example 2026-03-01T10:00:00Z or 7d");
    };
    now.checked_sub(ago).with_context(|| format!("--since {text:?} is too long ago"))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn since_is_a_time_or_a_duration() {
        let now: Timestamp = "2026-03-08T10:00:00Z".parse().unwrap();
        assert_eq!(moment("2026-03-01T10:00:00Z", now).unwrap(), moment("7d", now).unwrap());
        assert_eq!(moment("90m", now).unwrap(), now - SignedDuration::from_mins(90));
        for bad in ["", "yesterday", "7", "99999999d"] {
            assert!(moment(bad, now).unwrap_err().to_string().contains("--since"), "{bad}");
        }
    }
}
