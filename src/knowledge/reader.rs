//! Reading the ledger, for people and tools, beside the process that writes.
//!
//! A [`Reader`] has no task and writes nothing: in Postgres it uses a read-only transaction and needs no right but SELECT; it
//! opens a SQLite file read-only.

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
use super::schema::Dialect;
use super::summary::{RemedyOutcomes, summarize};
use super::within;

/// Time limit of a query, connecting included.
pub const QUERY_LIMIT: Duration = Duration::from_secs(30);

/// How long a statement on a SQLite file waits for a writer with an exclusive lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Restricts a query to some rows; without values: all.
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

/// A row that both databases can return.
pub(super) trait Fetched:
    for<'r> sqlx::FromRow<'r, PgRow> + for<'r> sqlx::FromRow<'r, SqliteRow> + Send + Unpin
{
}

impl<T> Fetched for T where T: for<'r> sqlx::FromRow<'r, PgRow> + for<'r> sqlx::FromRow<'r, SqliteRow> + Send + Unpin {}

/// Each query returns within [`QUERY_LIMIT`] or fails.
impl Reader {
    /// Does not connect yet.
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

    pub(super) fn dialect(&self) -> Dialect {
        match self.source {
            Source::Postgres(_) => Dialect::Postgres,
            Source::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// Actions by type; of the last 24 hours when the filter has no time.
    pub async fn actions(&self, filter: &Filter) -> Result<Vec<ActionCount>, LedgerError> {
        let dialect = self.dialect();
        let (mut sql, values) = filtered(ACTIONS_LAST_DAY, dialect, filter);
        if filter.since.is_some() {
            let always = Query { postgres: "'-infinity'", sqlite: "''" };
            sql = sql.replace(A_DAY_AGO.sql(dialect), always.sql(dialect));
        }
        self.fetch(sql, &values).await
    }

    pub async fn interventions_by_component(
        &self,
        filter: &Filter,
    ) -> Result<Vec<ComponentInterventions>, LedgerError> {
        self.run(INTERVENTIONS_BY_COMPONENT, filter).await
    }

    pub async fn success_by_action(&self, filter: &Filter) -> Result<Vec<ActionSuccess>, LedgerError> {
        self.run(SUCCESS_BY_ACTION, filter).await
    }

    /// Success rate of each remedy, by cause and component.
    pub async fn remedies_by_cause(&self, filter: &Filter) -> Result<Vec<RemedyOutcomes>, LedgerError> {
        Ok(summarize(&self.run(REMEDIES_BY_CAUSE, filter).await?))
    }

    pub async fn accuracy_by_day(&self, filter: &Filter) -> Result<Vec<DayAccuracy>, LedgerError> {
        self.run(ACCURACY_BY_DAY, filter).await
    }

    async fn run<T: Fetched>(&self, query: Query, filter: &Filter) -> Result<Vec<T>, LedgerError> {
        let (sql, values) = filtered(query, self.dialect(), filter);
        self.fetch(sql, &values).await
    }

    /// The values are called `$1`, `$2`, … in both dialects, all of them texts.
    pub(super) async fn fetch<T: Fetched>(&self, sql: String, values: &[String]) -> Result<Vec<T>, LedgerError> {
        within(QUERY_LIMIT, "the query", async {
            match &self.source {
                Source::Postgres(postgres) => fetch_postgres(postgres, sql, values)
                    .await
                    .map_err(|error| explained(postgres.located(error.into()))),
                Source::Sqlite(path) => fetch_sqlite(path, sql, values).await.map_err(|error| {
                    explained(LedgerError::from(error).at(&format!("SQLite file {}", path.display())))
                }),
            }
        })
        .await
    }
}

async fn fetch_postgres<T: Fetched>(
    postgres: &Postgres,
    sql: String,
    values: &[String],
) -> Result<Vec<T>, sqlx::Error> {
    let mut connection: PgConnection = postgres.options().connect().await?;
    let mut transaction = connection.begin_with("BEGIN READ ONLY").await?;
    // The server stops the query at the same time.
    let limit = format!("SET LOCAL statement_timeout = {}", QUERY_LIMIT.as_millis());
    transaction.execute(AssertSqlSafe(limit)).await?;
    let query = values.iter().fold(sqlx::query_as(AssertSqlSafe(sql)), |query, value| query.bind(value));
    let rows = query.fetch_all(&mut *transaction).await?;
    transaction.rollback().await?;
    connection.close().await?;
    Ok(rows)
}

async fn fetch_sqlite<T: Fetched>(path: &PathBuf, sql: String, values: &[String]) -> Result<Vec<T>, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
    let mut connection = options.connect().await?;
    let query = values.iter().fold(sqlx::query_as(AssertSqlSafe(sql)), |query, value| query.bind(value));
    let rows = query.fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(rows)
}

/// Adds the fix for a reader.
fn explained(error: LedgerError) -> LedgerError {
    let fix = match error.reason() {
        LedgerReason::WrongSchema => {
            "; the operator creates missing tables if its user has the right to; `panacea brain schema` prints their SQL"
        }
        LedgerReason::Forbidden => "; fix: GRANT SELECT on the tables of the ledger TO this user",
        _ => return error,
    };
    LedgerError::new(error.reason(), format!("{}{fix}", error.message()))
}

/// The query about the filtered rows, which replace the table; and its values.
fn filtered(query: Query, dialect: Dialect, filter: &Filter) -> (String, Vec<String>) {
    let sql = query.sql(dialect);
    let Conditions { sql: condition, values, .. } = Conditions::new(dialect, filter);
    if values.is_empty() {
        return (sql.to_owned(), values);
    }
    let rows = format!("FROM (SELECT * FROM unified_brain WHERE {condition}) AS unified_brain");
    (sql.replacen("FROM unified_brain", &rows, 1), values)
}

/// The conditions on a row of `unified_brain`, and the values that they name.
pub(super) struct Conditions {
    dialect: Dialect,
    pub sql: String,
    pub values: Vec<String>,
}

impl Conditions {
    pub(super) fn new(dialect: Dialect, filter: &Filter) -> Self {
        let mut conditions = Self { dialect, sql: "TRUE".to_owned(), values: Vec::new() };
        if let Some(since) = filter.since {
            conditions.time(">=", since);
        }
        if let Some(namespace) = &filter.namespace {
            conditions.and("metadata ->> 'namespace' = ?", namespace);
        }
        if let Some(policy) = &filter.policy {
            conditions.and("metadata ->> 'policy' = ?", policy);
        }
        conditions
    }

    /// A further condition; `?` is the value.
    pub(super) fn and(&mut self, condition: &str, value: &str) {
        self.values.push(value.to_owned());
        let place = format!("${}", self.values.len());
        self.sql.push_str(&format!(" AND {}", condition.replace('?', &place)));
    }

    pub(super) fn time(&mut self, compared: &str, at: Timestamp) {
        let value = Query { postgres: "(?::text)::timestamptz", sqlite: "?" }.sql(self.dialect);
        self.and(&format!("executed_at {compared} {value}"), &sqlite_moment(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_narrows_the_rows_and_leaves_the_query_unchanged() {
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            let (sql, values) = filtered(SUCCESS_BY_ACTION, dialect, &Filter::default());
            assert_eq!((sql.as_str(), values.len()), (SUCCESS_BY_ACTION.sql(dialect), 0));
            let filter = Filter {
                since: Some("2026-11-01T00:00:00Z".parse().unwrap()),
                namespace: None,
                policy: Some("it's; DROP".into()),
            };
            let (sql, values) = filtered(SUCCESS_BY_ACTION, dialect, &filter);
            assert_eq!(values, ["2026-11-01T00:00:00.000000Z", "it's; DROP"]);
            assert!(sql.contains("metadata ->> 'policy' = $2) AS unified_brain\nWHERE agent_name"), "{sql}");
            assert!(!sql.contains("DROP"), "{sql}");
        }
    }
}
