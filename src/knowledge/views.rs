//! The queries as views, for SQL clients: created beside the tables when the user has the right to. The operator does not
//! need them.
//!
//! A view of Panacea is marked, and replaced when this version defines it differently. A relation of that name without the
//! mark belongs to another program: it stays, and the log names it.

use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

use super::postgres::CREATE_LOCK;
use super::queries::{ACCURACY_BY_DAY, ACTIONS_LAST_DAY, INTERVENTIONS_BY_COMPONENT, Query, SUCCESS_BY_ACTION};
use super::schema::{self, Dialect};

/// Each view and its query.
pub const VIEWS: [(&str, Query); 4] = [
    ("panacea_actions_24h", ACTIONS_LAST_DAY),
    ("panacea_component_interventions", INTERVENTIONS_BY_COMPONENT),
    ("panacea_success_rate", SUCCESS_BY_ACTION),
    ("panacea_prediction_accuracy", ACCURACY_BY_DAY),
];

/// Identifies a view as Panacea's: the beginning of its comment in Postgres, a part of its text in SQLite.
const MARK: &str = "Made by Panacea";

/// The relation by the name of a view.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// As this version defines it.
    Current,
    /// Created by another version.
    Outdated,
    Foreign,
}

/// Whether the relation is a view, and the text that may contain the mark: the comment, or the SQL.
type Relation = Option<(bool, Option<String>)>;

impl Found {
    fn of(relation: &Relation, current: &str) -> Self {
        match relation {
            None => Self::Nothing,
            Some((true, Some(text))) if text == current => Self::Current,
            Some((true, Some(text))) if text.contains(MARK) => Self::Outdated,
            _ => Self::Foreign,
        }
    }

    /// Whether to create this version's view; logs why not.
    fn needs_creation(&self, view: &str, place: &str) -> bool {
        if *self == Self::Foreign {
            tracing::warn!(
                view,
                "ledger: {place} has a relation of this name that Panacea did not create; it stays unchanged"
            );
        }
        matches!(self, Self::Nothing | Self::Outdated)
    }
}

/// The comment on a view in Postgres, which stores the query in another form.
fn comment(query: Query) -> String {
    let digest = Sha256::digest(query.postgres);
    let version: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{MARK}, definition {version}; replaced by a Panacea that defines it otherwise")
}

fn create_postgres(view: &str, query: Query) -> [String; 2] {
    // OR REPLACE keeps the grants, and fails when the columns differ.
    [
        format!("CREATE OR REPLACE VIEW {view} AS\n{}", query.postgres),
        format!("COMMENT ON VIEW {view} IS '{}'", comment(query)),
    ]
}

/// As SQLite stores it.
fn create_sqlite(view: &str, query: Query) -> String {
    format!("CREATE VIEW {view} AS /* {MARK} */\n{}", query.sqlite)
}

/// Creates missing and outdated views, under the lock for the creation of tables.
pub(super) async fn create_in_postgres(connection: &mut PgConnection, place: &str) -> Result<(), sqlx::Error> {
    let found = check_postgres(connection).await?;
    if found.iter().all(|(view, _, found)| !found.needs_creation(view, place)) {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    // Less than the limit of a probe: a session that has locked the tables delays nothing.
    transaction.execute("SET LOCAL lock_timeout = '1s'").await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(CREATE_LOCK).execute(&mut *transaction).await?;
    for (view, query, found) in check_postgres(&mut transaction).await? {
        if matches!(found, Found::Nothing | Found::Outdated) {
            for statement in create_postgres(view, query) {
                transaction.execute(AssertSqlSafe(statement)).await?;
            }
            tracing::info!(view, "ledger: created the view in {place}");
        }
    }
    transaction.commit().await
}

async fn check_postgres(connection: &mut PgConnection) -> Result<Vec<(&'static str, Query, Found)>, sqlx::Error> {
    let relation = "SELECT relkind = 'v', obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass($1)";
    let mut views = Vec::new();
    for (view, query) in VIEWS {
        let found = sqlx::query_as(relation).bind(view).fetch_optional(&mut *connection).await?;
        views.push((view, query, Found::of(&found, &comment(query))));
    }
    Ok(views)
}

/// The same in SQLite.
pub(super) async fn create_in_sqlite(connection: &mut SqliteConnection, place: &str) -> Result<(), sqlx::Error> {
    let found = check_sqlite(connection).await?;
    if found.iter().all(|(view, _, found)| !found.needs_creation(view, place)) {
        return Ok(());
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for (view, query, found) in check_sqlite(&mut transaction).await? {
        if matches!(found, Found::Nothing | Found::Outdated) {
            transaction.execute(AssertSqlSafe(format!("DROP VIEW IF EXISTS {view}"))).await?;
            transaction.execute(AssertSqlSafe(create_sqlite(view, query))).await?;
            tracing::info!(view, "ledger: created the view in {place}");
        }
    }
    transaction.commit().await
}

async fn check_sqlite(connection: &mut SqliteConnection) -> Result<Vec<(&'static str, Query, Found)>, sqlx::Error> {
    let relation = "SELECT type = 'view', sql FROM sqlite_schema WHERE name = ?1";
    let mut views = Vec::new();
    for (view, query) in VIEWS {
        let found = sqlx::query_as(relation).bind(view).fetch_optional(&mut *connection).await?;
        views.push((view, query, Found::of(&found, &create_sqlite(view, query))));
    }
    Ok(views)
}

/// The whole SQL of the ledger, for an administrator; may be run again.
pub fn ddl(dialect: Dialect) -> String {
    let tables = schema::TABLES.into_iter().flat_map(|table| schema::statements(dialect, table));
    let views = VIEWS.into_iter().flat_map(|(view, query)| match dialect {
        Dialect::Postgres => create_postgres(view, query),
        Dialect::Sqlite => [format!("DROP VIEW IF EXISTS {view}"), create_sqlite(view, query)],
    });
    let statements: Vec<String> = tables.chain(views).collect();
    statements.join(";\n\n") + ";"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_view_with_the_mark_is_replaced() {
        let of = |is_view, text: Option<&str>| {
            Found::of(&Some((is_view, text.map(str::to_owned))), "Made by Panacea, definition 2")
        };
        assert_eq!(Found::of(&None, "x"), Found::Nothing);
        assert_eq!(of(true, Some("Made by Panacea, definition 2")), Found::Current);
        assert_eq!(of(true, Some("Made by Panacea, definition 1")), Found::Outdated);
        for (is_view, said) in [(true, None), (true, Some("manual")), (false, Some("Made by Panacea, definition 2"))] {
            assert_eq!(of(is_view, said), Found::Foreign);
        }
    }
}
