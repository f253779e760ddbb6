//! The questions as views, for whoever has a SQL client: made beside the tables when there is the right to, and never
//! needed.
//!
//! A view of ours says so, and is replaced when this version defines it otherwise. A relation of that name which does not
//! say so is somebody else's: it is left alone, and told in the log.

use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

use super::queries::{ACCURACY_BY_DAY, ACTIONS_LAST_DAY, INTERVENTIONS_BY_COMPONENT, Query, SUCCESS_BY_ACTION};
use super::schema::{self, Dialect};

/// Each view and the question that it holds.
pub const VIEWS: [(&str, Query); 4] = [
    ("panacea_actions_24h", ACTIONS_LAST_DAY),
    ("panacea_component_interventions", INTERVENTIONS_BY_COMPONENT),
    ("panacea_success_rate", SUCCESS_BY_ACTION),
    ("panacea_prediction_accuracy", ACCURACY_BY_DAY),
];

/// By what a view is known as ours: begins its comment in Postgres, is in its text in SQLite.
const MARK: &str = "Made by Panacea";

/// What is there by the name of a view.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// As this version makes it.
    Current,
    /// Made by another version.
    Outdated,
    Foreign,
}

impl Found {
    /// `said` is where our mark would be: the comment, or the text.
    fn of(there: bool, is_view: bool, said: Option<&str>, current: &str) -> Self {
        match said {
            _ if !there => Self::Nothing,
            Some(said) if is_view && said == current => Self::Current,
            Some(said) if is_view && said.contains(MARK) => Self::Outdated,
            _ => Self::Foreign,
        }
    }

    /// Whether this version's view is to be put there; tells when it cannot be.
    fn is_ours_to_make(&self, view: &str, place: &str) -> bool {
        if *self == Self::Foreign {
            tracing::warn!(
                view,
                "ledger: {place} has a relation of this name that Panacea did not make; it is left alone"
            );
        }
        matches!(self, Self::Nothing | Self::Outdated)
    }
}

/// The comment on a view in Postgres, which keeps its text in its own words.
fn comment(query: Query) -> String {
    let digest = Sha256::digest(query.postgres);
    let version: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{MARK}, definition {version}; replaced by a Panacea that defines it otherwise")
}

fn create_postgres(view: &str, query: Query) -> [String; 2] {
    // OR REPLACE keeps the grants, and fails when the columns are other ones.
    [
        format!("CREATE OR REPLACE VIEW {view} AS\n{}", query.postgres),
        format!("COMMENT ON VIEW {view} IS '{}'", comment(query)),
    ]
}

/// As SQLite keeps it.
fn create_sqlite(view: &str, query: Query) -> String {
    format!("CREATE VIEW {view} AS /* {MARK} */\n{}", query.sqlite)
}

/// Puts the views there that are missing, or are of another version, under the lock that tables are made with.
pub(super) async fn make_postgres(
    connection: &mut PgConnection,
    place: &str,
    create_lock: i64,
) -> Result<(), sqlx::Error> {
    let looked = check_postgres(connection).await?;
    if looked.iter().all(|(view, _, found)| !found.is_ours_to_make(view, place)) {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    // Less than a probe may take: somebody who works on the tables holds nothing up.
    transaction.execute("SET LOCAL lock_timeout = '1s'").await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(create_lock).execute(&mut *transaction).await?;
    for (view, query, found) in check_postgres(&mut transaction).await? {
        if !matches!(found, Found::Nothing | Found::Outdated) {
            continue;
        }
        for statement in create_postgres(view, query) {
            transaction.execute(AssertSqlSafe(statement)).await?;
        }
        tracing::info!(view, "ledger: view made in {place}");
    }
    transaction.commit().await
}

async fn check_postgres(connection: &mut PgConnection) -> Result<Vec<(&'static str, Query, Found)>, sqlx::Error> {
    let mut looked = Vec::new();
    for (view, query) in VIEWS {
        let found: Option<(bool, Option<String>)> = sqlx::query_as(
            "SELECT relkind = 'v', obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass($1)",
        )
        .bind(view)
        .fetch_optional(&mut *connection)
        .await?;
        let (is_view, said) = found.clone().unwrap_or_default();
        looked.push((view, query, Found::of(found.is_some(), is_view, said.as_deref(), &comment(query))));
    }
    Ok(looked)
}

/// The same in SQLite.
pub(super) async fn make_sqlite(connection: &mut SqliteConnection, place: &str) -> Result<(), sqlx::Error> {
    let looked = check_sqlite(connection).await?;
    if looked.iter().all(|(view, _, found)| !found.is_ours_to_make(view, place)) {
        return Ok(());
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for (view, query, found) in check_sqlite(&mut transaction).await? {
        match found {
            Found::Current | Found::Foreign => continue,
            Found::Outdated => {
                transaction.execute(AssertSqlSafe(format!("DROP VIEW {view}"))).await?;
            }
            Found::Nothing => {}
        }
        transaction.execute(AssertSqlSafe(create_sqlite(view, query))).await?;
        tracing::info!(view, "ledger: view made in {place}");
    }
    transaction.commit().await
}

async fn check_sqlite(connection: &mut SqliteConnection) -> Result<Vec<(&'static str, Query, Found)>, sqlx::Error> {
    let mut looked = Vec::new();
    for (view, query) in VIEWS {
        let found: Option<(bool, Option<String>)> =
            sqlx::query_as("SELECT type = 'view', sql FROM sqlite_schema WHERE name = ?1")
                .bind(view)
                .fetch_optional(&mut *connection)
                .await?;
        let (is_view, said) = found.clone().unwrap_or_default();
        looked.push((view, query, Found::of(found.is_some(), is_view, said.as_deref(), &create_sqlite(view, query))));
    }
    Ok(looked)
}

/// All that the ledger has in a database, for an administrator who makes it; may be run again.
pub fn ddl(dialect: Dialect) -> String {
    let mut ddl = String::new();
    let mut add = |statement: &str| {
        ddl.push_str(statement);
        ddl.push_str(";\n\n");
    };
    for table in schema::TABLES {
        for statement in schema::statements(dialect, table) {
            // As indented as its first line.
            let lines: Vec<&str> = statement.lines().collect();
            let least = lines.iter().skip(1).map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
            let outdent = least.saturating_sub(if lines.last().is_some_and(|line| line.trim() == ")") { 0 } else { 4 });
            let lines: Vec<&str> =
                lines.iter().enumerate().map(|(at, line)| if at == 0 { line } else { &line[outdent..] }).collect();
            add(&lines.join("\n"));
        }
    }
    for (view, query) in VIEWS {
        match dialect {
            Dialect::Postgres => create_postgres(view, query).iter().for_each(|statement| add(statement)),
            Dialect::Sqlite => {
                add(&format!("DROP VIEW IF EXISTS {view}"));
                add(&create_sqlite(view, query));
            }
        }
    }
    ddl.truncate(ddl.trim_end().len());
    ddl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_that_it_is_ours_is_replaced() {
        let of = |is_view, said| Found::of(true, is_view, said, "Made by Panacea, definition 2");
        assert_eq!(Found::of(false, false, None, "x"), Found::Nothing);
        assert_eq!(of(true, Some("Made by Panacea, definition 2")), Found::Current);
        assert_eq!(of(true, Some("Made by Panacea, definition 1")), Found::Outdated);
        for (is_view, said) in [(true, None), (true, Some("by hand")), (false, Some("Made by Panacea, definition 2"))] {
            assert_eq!(of(is_view, said), Found::Foreign);
        }
    }
}
