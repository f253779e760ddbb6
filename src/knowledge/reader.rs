//! Reading the ledger: for people and tools, beside whoever writes it.
//!
//! A [`Reader`] has no task and writes nothing: in Postgres it asks in a read-only transaction, so that SELECT is the only
//! right it needs; of a SQLite file it asks for reading alone.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use super::LedgerConfig;
use super::database::Backend as _;
use super::error::{LedgerError, LedgerReason};
use super::postgres::Postgres;
use super::queries::{
    A_DAY_AGO, ACCURACY_BY_DAY, ACTIONS_LAST_DAY, ActionCount, ActionSuccess, ComponentInterventions, DayAccuracy,
    INTERVENTIONS_BY_COMPONENT, Query, REMEDIES_BY_CAUSE, SUCCESS_BY_ACTION,
};
use super::row::sqlite_moment;
use super::summary::{RemedyOutcomes, summarize};
use super::within;

/// How long an answer may take, connecting included.
pub const QUERY_LIMIT: Duration = Duration::from_secs(30);

/// How long a statement on a SQLite file waits for a writer that has it to itself.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Which rows a question is about; left out: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Rows of this time and later.
    pub since: Option<Timestamp>,
    pub namespace: Option<String>,
    pub policy: Option<String>,
}

/// A ledger that is read.
pub struct Reader {
    source: Source,
}

enum Source {
    Postgres(Box<Postgres>),
    Sqlite(PathBuf),
}

/// A row of an answer that can be read from both.
pub(super) trait Fetched:
    for<'r> sqlx::FromRow<'r, PgRow> + for<'r> sqlx::FromRow<'r, SqliteRow> + Send + Unpin
{
}

impl<T> Fetched for T where T: for<'r> sqlx::FromRow<'r, PgRow> + for<'r> sqlx::FromRow<'r, SqliteRow> + Send + Unpin {}

/// A question with what it asks for: `$1`, `$2`, … in both dialects, all of them texts.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub postgres: String,
    pub sqlite: String,
    pub values: Vec<String>,
}

/// Each answers within [`QUERY_LIMIT`] or fails.
impl Reader {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// `InvalidConfiguration`.
    pub fn new(config: &LedgerConfig) -> Result<Self, LedgerError> {
        let source = match config {
            LedgerConfig::Postgres(url) => Source::Postgres(Box::new(Postgres::new(url)?)),
            LedgerConfig::Sqlite(path) => Source::Sqlite(path.clone()),
        };
        Ok(Self { source })
    }

    /// Actions by type; of the last 24 hours when the filter names no time.
    pub async fn actions(&self, filter: &Filter) -> Result<Vec<ActionCount>, LedgerError> {
        let mut question = Question::filtered(ACTIONS_LAST_DAY, filter);
        if filter.since.is_some() {
            question.postgres = question.postgres.replace(A_DAY_AGO.postgres, "'-infinity'");
            question.sqlite = question.sqlite.replace(A_DAY_AGO.sqlite, "''");
        }
        self.ask(question).await
    }

    pub async fn interventions_by_component(
        &self,
        filter: &Filter,
    ) -> Result<Vec<ComponentInterventions>, LedgerError> {
        self.ask(Question::filtered(INTERVENTIONS_BY_COMPONENT, filter)).await
    }

    pub async fn success_by_action(&self, filter: &Filter) -> Result<Vec<ActionSuccess>, LedgerError> {
        self.ask(Question::filtered(SUCCESS_BY_ACTION, filter)).await
    }

    /// How well each remedy works, by cause and component.
    pub async fn remedies_by_cause(&self, filter: &Filter) -> Result<Vec<RemedyOutcomes>, LedgerError> {
        Ok(summarize(&self.ask(Question::filtered(REMEDIES_BY_CAUSE, filter)).await?))
    }

    pub async fn accuracy_by_day(&self, filter: &Filter) -> Result<Vec<DayAccuracy>, LedgerError> {
        self.ask(Question::filtered(ACCURACY_BY_DAY, filter)).await
    }

    pub(super) async fn ask<T: Fetched>(&self, question: Question) -> Result<Vec<T>, LedgerError> {
        within(QUERY_LIMIT, "the answer", async {
            match &self.source {
                Source::Postgres(postgres) => {
                    ask_postgres(postgres, &question).await.map_err(|error| explained(postgres.sort(&error)))
                }
                Source::Sqlite(path) => ask_sqlite(path, &question).await.map_err(|error| {
                    explained(LedgerError::from_sqlx(&error, &format!("SQLite file {}", path.display())))
                }),
            }
        })
        .await
    }
}

async fn ask_postgres<T: Fetched>(postgres: &Postgres, question: &Question) -> Result<Vec<T>, sqlx::Error> {
    let mut connection: PgConnection = postgres.options().connect().await?;
    let mut transaction = connection.begin_with("BEGIN READ ONLY").await?;
    // The server gives up when we do.
    let limit = format!("SET LOCAL statement_timeout = {}", QUERY_LIMIT.as_millis());
    transaction.execute(AssertSqlSafe(limit)).await?;
    let mut query = sqlx::query_as(AssertSqlSafe(question.postgres.clone()));
    for value in &question.values {
        query = query.bind(value);
    }
    let answer = query.fetch_all(&mut *transaction).await?;
    transaction.rollback().await?;
    connection.close().await?;
    Ok(answer)
}

async fn ask_sqlite<T: Fetched>(path: &PathBuf, question: &Question) -> Result<Vec<T>, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
    let mut connection = options.connect().await?;
    let mut query = sqlx::query_as(AssertSqlSafe(question.sqlite.clone()));
    for value in &question.values {
        query = query.bind(value);
    }
    let answer = query.fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(answer)
}

/// With what helps a reader: the database's own words tell a writer.
fn explained(error: LedgerError) -> LedgerError {
    let help = match error.reason() {
        LedgerReason::WrongSchema => {
            "; the operator makes what is missing when it has the right to, and `panacea brain schema` prints it"
        }
        LedgerReason::Forbidden => "; fix: GRANT SELECT on the tables of the ledger TO this user",
        _ => return error,
    };
    LedgerError::new(error.reason(), format!("{}{help}", error.message()))
}

impl Question {
    /// The same question about the filtered rows: they take the place of the table.
    fn filtered(query: Query, filter: &Filter) -> Self {
        let mut question =
            Self { postgres: query.postgres.to_owned(), sqlite: query.sqlite.to_owned(), values: Vec::new() };
        let conditions = question.conditions(filter);
        if !question.values.is_empty() {
            for (text, condition) in
                [(&mut question.postgres, &conditions.postgres), (&mut question.sqlite, &conditions.sqlite)]
            {
                let rows = format!("FROM (SELECT * FROM unified_brain WHERE {condition}) AS unified_brain");
                *text = text.replacen("FROM unified_brain", &rows, 1);
            }
        }
        question
    }

    /// What a row has to be to pass; takes the values in.
    pub(super) fn conditions(&mut self, filter: &Filter) -> Conditions {
        let mut conditions = Conditions { postgres: "TRUE".to_owned(), sqlite: "TRUE".to_owned() };
        if let Some(since) = filter.since {
            conditions.since(self.value(sqlite_moment(since)));
        }
        for (key, wanted) in [("namespace", &filter.namespace), ("policy", &filter.policy)] {
            if let Some(wanted) = wanted {
                conditions.metadata(key, self.value(wanted.clone()));
            }
        }
        conditions
    }

    /// Takes a value in, and says by which number it is called.
    pub(super) fn value(&mut self, value: String) -> usize {
        self.values.push(value);
        self.values.len()
    }
}

/// The same conditions in both dialects.
pub(super) struct Conditions {
    pub postgres: String,
    pub sqlite: String,
}

impl Conditions {
    /// One that is the same in both.
    pub(super) fn and(&mut self, condition: &str) {
        for text in [&mut self.postgres, &mut self.sqlite] {
            text.push_str(" AND ");
            text.push_str(condition);
        }
    }

    pub(super) fn metadata(&mut self, key: &str, value: usize) {
        self.and(&format!("metadata ->> '{key}' = ${value}"));
    }

    pub(super) fn since(&mut self, value: usize) {
        self.time(">=", value);
    }

    pub(super) fn until(&mut self, value: usize) {
        self.time("<=", value);
    }

    fn time(&mut self, compared: &str, value: usize) {
        self.postgres.push_str(&format!(" AND executed_at {compared} (${value}::text)::timestamptz"));
        self.sqlite.push_str(&format!(" AND executed_at {compared} ${value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_narrows_the_rows_and_leaves_the_question_as_it_is() {
        let all = Question::filtered(SUCCESS_BY_ACTION, &Filter::default());
        assert_eq!((all.postgres.as_str(), all.values.len()), (SUCCESS_BY_ACTION.postgres, 0));
        let filter = Filter {
            since: Some("2026-11-01T00:00:00Z".parse().unwrap()),
            namespace: None,
            policy: Some("it's; DROP".into()),
        };
        let some = Question::filtered(SUCCESS_BY_ACTION, &filter);
        assert_eq!(some.values, ["2026-11-01T00:00:00.000000Z", "it's; DROP"]);
        for text in [&some.postgres, &some.sqlite] {
            assert!(text.contains("metadata ->> 'policy' = $2) AS unified_brain\nWHERE agent_name"), "{text}");
            assert!(!text.contains("DROP"), "{text}");
        }
    }
}
