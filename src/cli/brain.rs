//! `panacea brain`: asks the ledger. Writes nothing, needs no cluster.

mod show;

use std::{
    io::{ErrorKind, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::{
    backtest::duration,
    config::{LEDGER_FILE, LedgerArgs},
};
use crate::knowledge::{Dialect, Filter, LedgerConfig, Reader, incident::NoIncident, views};

#[derive(Debug, Args)]
pub(super) struct BrainArgs {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// How often each type of action came in the last 24 hours, or since --since
    Actions(AskArgs),
    /// The components to which most was done, or tried
    Components(AskArgs),
    /// How often actions succeeded
    SuccessRates {
        /// By action type, or each remedy by cause and component, with the share that it helps with at the least
        #[arg(long, default_value = "type")]
        by: By,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// By the day it became known: how many warnings were right
    Accuracy(AskArgs),
    /// One incident as a timeline: proposal, decision, action, verification, rollback, and the looks around it. Exit
    /// code 1: the ledger holds nothing of it
    Show {
        /// The Remediation; left out: the newest ones are listed
        #[arg(value_name = "REMEDIATION")]
        remediation: Option<String>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Print the SQL that makes tables, indexes and views, for an administrator
    Schema {
        /// Of which database
        #[arg(long, default_value = "postgres")]
        dialect: Database,
    },
}

/// Which ledger, which rows, and how it is printed.
#[derive(Debug, Args)]
struct AskArgs {
    /// How to print
    #[arg(short = 'o', long, default_value = "table")]
    output: Output,
    /// Only rows since then: a time such as 2026-03-01T10:00:00Z, or how long ago, such as 7d
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
    let (text, code) = match args.question {
        Question::Actions(ask) => {
            let (reader, filter) = ask.open()?;
            (ask.show(&reader.actions(&filter).await?)?, ExitCode::SUCCESS)
        }
        Question::Components(ask) => {
            let (reader, filter) = ask.open()?;
            (ask.show(&reader.interventions_by_component(&filter).await?)?, ExitCode::SUCCESS)
        }
        Question::SuccessRates { by, ask } => {
            let (reader, filter) = ask.open()?;
            let text = match by {
                By::Type => ask.show(&reader.success_by_action(&filter).await?)?,
                By::Cause => ask.show(&reader.remedies_by_cause(&filter).await?)?,
            };
            (text, ExitCode::SUCCESS)
        }
        Question::Accuracy(ask) => {
            let (reader, filter) = ask.open()?;
            (ask.show(&reader.accuracy_by_day(&filter).await?)?, ExitCode::SUCCESS)
        }
        Question::Show { remediation: None, ask } => {
            let (reader, filter) = ask.open()?;
            (ask.show(&reader.remediations(&filter).await?)?, ExitCode::SUCCESS)
        }
        Question::Show { remediation: Some(name), ask } => {
            if ask.since.is_some() || ask.policy.is_some() {
                bail!("--since and --policy are not for one remediation: leave them out, or leave out {name}");
            }
            let (reader, _) = ask.open()?;
            match reader.incident(&name, ask.namespace.as_deref()).await {
                Ok(incident) => (ask.show_incident(&incident)?, ExitCode::SUCCESS),
                Err(unknown @ NoIncident::Unknown(_)) => {
                    eprintln!(
                        "panacea: {unknown}; `panacea brain show` lists the newest ones, `kubectl get rem -A` those of the cluster"
                    );
                    return Ok(ExitCode::from(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Question::Schema { dialect: Database::Postgres } => (views::ddl(Dialect::Postgres), ExitCode::SUCCESS),
        Question::Schema { dialect: Database::Sqlite } => (views::ddl(Dialect::Sqlite), ExitCode::SUCCESS),
    };
    print(&text).context("the answer cannot be written")?;
    Ok(code)
}

/// Who reads may have seen enough, as `head` does.
fn print(text: &str) -> std::io::Result<()> {
    let written = writeln!(std::io::stdout().lock(), "{}", text.trim_end_matches('\n'));
    written.or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

impl AskArgs {
    fn open(&self) -> anyhow::Result<(Reader, Filter)> {
        let since = self.since.as_deref().map(|since| moment(since, Timestamp::now())).transpose()?;
        let filter = Filter { since, namespace: self.namespace.clone(), policy: self.policy.clone() };
        let config = self.ledger.config()?;
        // The operator makes one; a question would be answered from an empty one.
        if let LedgerConfig::Sqlite(file) = &config
            && !file.exists()
        {
            bail!(
                "no ledger: no database is named and there is no file {}; name the database as the operator has it, with \
                 --database-url (DATABASE_URL) or --db-host (DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_PASSWORD), or the \
                 folder that holds its {LEDGER_FILE} with --data-dir (PANACEA_DATA_DIR)",
                file.display()
            );
        }
        Ok((Reader::new(&config)?, filter))
    }

    fn show<T: show::Shown>(&self, rows: &[T]) -> anyhow::Result<String> {
        match self.output {
            Output::Table => Ok(show::table(rows)),
            Output::Json => Ok(serde_json::to_string_pretty(rows)?),
            Output::Csv => show::csv(rows),
        }
    }

    fn show_incident(&self, incident: &crate::knowledge::incident::Incident) -> anyhow::Result<String> {
        match self.output {
            Output::Json => Ok(serde_json::to_string_pretty(incident)?),
            Output::Csv => show::csv(&incident.events),
            Output::Table => Ok(show::timeline(incident)),
        }
    }
}

/// A time, or a length of time before `now`.
fn moment(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let Ok(ago) = duration("--since", text) else {
        bail!("--since {text:?} is neither a time nor a duration; write for example 2026-03-01T10:00:00Z or 7d");
    };
    now.checked_sub(ago).with_context(|| format!("--since {text:?} is too long ago"))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn since_is_a_time_or_a_length_of_time() {
        let now: Timestamp = "2026-03-08T10:00:00Z".parse().unwrap();
        assert_eq!(moment("2026-03-01T10:00:00Z", now).unwrap(), moment("7d", now).unwrap());
        assert_eq!(moment("90m", now).unwrap(), now - SignedDuration::from_mins(90));
        for bad in ["", "yesterday", "7", "99999999d"] {
            assert!(moment(bad, now).unwrap_err().to_string().contains("--since"), "{bad}");
        }
    }
}
