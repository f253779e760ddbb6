//! SQLite: the embedded default, one file, any number of operators on one machine.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::connection::NOTHING_YET;
use super::database::{Backend, Look};
use super::error::{LedgerError, LedgerReason};
use super::retention::Expiring;
use super::row::{BrainRow, HealthRow, RollbackRow, Row, clean_json, clean_text, finite, sqlite_moment};
use super::schema::{self, Dialect, FoundColumn, FoundTable};
use super::views;

/// How long a statement waits for another writer. Below the limits of `record` and of a probe, so that they can say
/// "busy" instead of "timed out".
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// `?1` is a JSON array of table names.
const CHECK_COLUMNS: &str = r#"
    SELECT t.value AS table_name, c.name AS column_name, c.type AS column_type,
           c."notnull" AND c.dflt_value IS NULL AS demanding
    FROM json_each(?1) AS t JOIN pragma_table_info(t.value) AS c"#;

const CHECK_TABLES: &str = r#"
    SELECT t.value AS table_name,
           (SELECT group_concat(name) FROM pragma_table_info(t.value) WHERE pk > 0) IS 'id'
           OR EXISTS (
               SELECT 1 FROM pragma_index_list(t.value) AS i
               WHERE i."unique" AND NOT i.partial
                     AND (SELECT group_concat(name) FROM pragma_index_info(i.name)) IS 'id'
           ) AS id_is_unique,
           FALSE AS id_and_time_are_unique, TRUE AS may_insert, TRUE AS may_select
    FROM json_each(?1) AS t"#;

/// Rows a statement, when there are that many: each statement is a message to the thread that runs SQLite and one back, which
/// takes as long as five rows do.
const ROWS_A_STATEMENT: usize = 50;

/// A table, its columns, and a place for each of them.
const INTO_BRAIN: [&str; 2] = [
    "unified_brain (id, agent_name, action_type, input_data, output_data, success, metadata, executed_at)",
    "(?, ?, ?, ?, ?, ?, ?, ?)",
];
const INTO_HEALTH: [&str; 2] = [
    "ai_proactive_health (id, component, health_score, trend, predicted_failure_time, failure_probability, metrics,
         warnings, created_at, updated_at)",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
];
const INTO_ROLLBACKS: [&str; 2] = [
    "ai_rollback_history (id, component, rollback_type, from_state, to_state, success, error_message, executed_at)",
    "(?, ?, ?, ?, ?, ?, ?, ?)",
];

/// `?1` is the oldest time that is kept, `?2` how many rows at most.
fn delete_expired(what: Expiring) -> &'static str {
    match what {
        Expiring::Rollbacks => {
            "DELETE FROM ai_rollback_history WHERE id IN (
                SELECT rollback.id FROM unified_brain AS action JOIN ai_rollback_history AS rollback USING (id)
                WHERE action.agent_name IN ('self_healing_system', 'enhanced_self_healing', 'self_healing_reconciler')
                      AND action.executed_at < ?1
                LIMIT ?2)"
        }
        Expiring::Brain => {
            "DELETE FROM unified_brain WHERE id IN (
                SELECT id FROM unified_brain
                WHERE agent_name IN ('self_healing_system', 'enhanced_self_healing', 'self_healing_reconciler')
                      AND executed_at < ?1
                LIMIT ?2)"
        }
        Expiring::Health => {
            "DELETE FROM ai_proactive_health WHERE id IN (
                SELECT id FROM ai_proactive_health
                WHERE json_extract(metrics, '$.\"panacea.dev/component\"') IS NOT NULL AND created_at < ?1
                LIMIT ?2)"
        }
    }
}

/// With the key quoted: SQLite before 3.45 reads the dot of `->> 'panacea.dev/component'` as a path, and the file may be
/// opened with an older `sqlite3`. The expression is the one of the index.
const HISTORY: &str = "
    SELECT created_at, health_score, metrics FROM ai_proactive_health
    WHERE json_extract(metrics, '$.\"panacea.dev/component\"') = ?1 AND health_score IS NOT NULL
    ORDER BY created_at DESC LIMIT ?2";

pub(super) struct Sqlite {
    path: PathBuf,
    options: SqliteConnectOptions,
    place: String,
}

impl Sqlite {
    pub(super) fn new(path: PathBuf) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT)
            // Readers never wait for the writer, and the writer never for them.
            .journal_mode(SqliteJournalMode::Wal)
            // In pages; four times the usual, since a page that many batches change is then written into the file once.
            .pragma("wal_autocheckpoint", "4000")
            // In KiB, of a connection: ids are random, so a batch touches pages all over the indexes of a large file.
            .pragma("cache_size", "-16384")
            // WAL with NORMAL may lose the last commits with the power; `record` promises otherwise.
            .synchronous(SqliteSynchronous::Full);
        let place = format!("SQLite file {}", path.display());
        Self { path, options, place }
    }

    async fn look(connection: &mut SqliteConnection) -> Result<(Vec<FoundColumn>, Vec<FoundTable>), sqlx::Error> {
        let names = serde_json::json!(schema::TABLES).to_string();
        let columns = sqlx::query_as(CHECK_COLUMNS).bind(&names).fetch_all(&mut *connection).await?;
        let tables = sqlx::query_as(CHECK_TABLES).bind(&names).fetch_all(&mut *connection).await?;
        Ok((columns, tables))
    }

    async fn create(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        // Another starter may have been here while we waited.
        let (columns, _) = Self::look(&mut transaction).await?;
        for table in schema::missing(&columns) {
            for statement in schema::statements(Dialect::Sqlite, table) {
                transaction.execute(*statement).await?;
            }
            tracing::info!(table, "ledger: table made in {}", self.place);
        }
        transaction.commit().await
    }
}

impl Backend for Sqlite {
    type Connection = SqliteConnection;

    fn options(&self) -> &SqliteConnectOptions {
        &self.options
    }

    fn sort(&self, error: &sqlx::Error) -> LedgerError {
        LedgerError::from_sqlx(error, &self.place)
    }

    /// The file's inode: a connection to a file that was removed or replaced goes on writing into nowhere. It cannot be
    /// given to another file while such a connection holds it.
    async fn ready_place(&self) -> Result<u64, LedgerError> {
        if let Ok(file) = tokio::fs::metadata(&self.path).await {
            return Ok(file.ino());
        }
        if let Some(folder) = self.path.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(|error| {
                let reason = match error.kind() {
                    ErrorKind::PermissionDenied => LedgerReason::Forbidden,
                    ErrorKind::ReadOnlyFilesystem => LedgerReason::ReadOnly,
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded => LedgerReason::Full,
                    _ => LedgerReason::Unreachable,
                };
                LedgerError::new(reason, format!("{}: its folder cannot be made: {error}", self.place))
            })?;
        }
        Ok(NOTHING_YET)
    }

    async fn check(&self, connection: &mut SqliteConnection) -> Result<(), LedgerError> {
        let (mut columns, mut tables) = Self::look(connection).await.map_err(|error| self.sort(&error))?;
        if !schema::missing(&columns).is_empty() {
            self.create(connection).await.map_err(|error| self.sort(&error))?;
            (columns, tables) = Self::look(connection).await.map_err(|error| self.sort(&error))?;
        }
        schema::judge(Dialect::Sqlite, &columns, &tables)
    }

    async fn make_views(&self, connection: &mut SqliteConnection) {
        if let Err(error) = views::make_sqlite(connection, &self.place).await {
            tracing::info!(
                "ledger: the views were not made, nothing else needs them; `panacea brain schema` prints them: {}",
                self.sort(&error)
            );
        }
    }

    async fn insert(&self, connection: &mut SqliteConnection, rows: &[Row]) -> Result<u64, LedgerError> {
        insert(connection, rows).await.map_err(|error| self.sort(&error))
    }

    async fn history(
        &self,
        connection: &mut SqliteConnection,
        component_key: &str,
        limit: i64,
    ) -> Result<Vec<Look>, LedgerError> {
        let looks: Vec<(String, f64, String)> = sqlx::query_as(HISTORY)
            .bind(component_key)
            .bind(limit)
            .fetch_all(connection)
            .await
            .map_err(|error| self.sort(&error))?;
        let read = |(at, score, metrics): (String, f64, String)| {
            let at: Timestamp = at.parse().map_err(|_| self.unreadable("created_at"))?;
            let metrics = serde_json::from_str(&metrics).map_err(|_| self.unreadable("metrics"))?;
            Ok((at, score, metrics))
        };
        looks.into_iter().map(read).collect()
    }

    async fn expire(
        &self,
        connection: &mut SqliteConnection,
        what: Expiring,
        before: Timestamp,
        limit: i64,
    ) -> Result<u64, LedgerError> {
        let delete = sqlx::query(delete_expired(what)).bind(sqlite_moment(before)).bind(limit);
        let done = delete.execute(connection).await.map_err(|error| self.sort(&error))?;
        Ok(done.rows_affected())
    }
}

impl Sqlite {
    fn unreadable(&self, column: &str) -> LedgerError {
        let message = format!("{}: a row of ai_proactive_health has an unreadable {column}", self.place);
        LedgerError::new(LedgerReason::Failed, message)
    }
}

async fn insert(connection: &mut SqliteConnection, rows: &[Row]) -> Result<u64, sqlx::Error> {
    let (mut brain, mut health, mut rollbacks) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        match row {
            Row::Brain(row) => brain.push(row),
            Row::Health(row) => health.push(row),
            Row::Rollback(row) => rollbacks.push(row),
        }
    }
    // IMMEDIATE takes the write lock at once: a transaction that begins as a reader cannot wait for it later.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut new = 0;
    new += insert_into(&mut transaction, INTO_BRAIN, &brain, bind_brain).await?;
    new += insert_into(&mut transaction, INTO_HEALTH, &health, bind_health).await?;
    new += insert_into(&mut transaction, INTO_ROLLBACKS, &rollbacks, bind_rollback).await?;
    transaction.commit().await?;
    Ok(new)
}

/// Many rows a statement, and one a statement for those that are left: two texts, so that both stay prepared.
async fn insert_into<R>(
    connection: &mut SqliteConnection,
    [table, places]: [&str; 2],
    rows: &[&R],
    bind: impl Fn(Insert, &R) -> Insert,
) -> Result<u64, sqlx::Error> {
    let mut new = 0;
    let chunks = rows.chunks_exact(ROWS_A_STATEMENT);
    let left = chunks.remainder().chunks(1);
    for chunk in chunks.chain(left) {
        let places = vec![places; chunk.len()].join(", ");
        let text = format!("INSERT INTO {table} VALUES {places} ON CONFLICT (id) DO NOTHING");
        let insert = chunk.iter().fold(sqlx::query(AssertSqlSafe(text)), |insert, row| bind(insert, row));
        new += insert.execute(&mut *connection).await?.rows_affected();
    }
    Ok(new)
}

type Insert = sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments>;

fn bind_brain(insert: Insert, row: &BrainRow) -> Insert {
    insert
        .bind(row.id.to_string())
        .bind(row.action.agent().as_str())
        .bind(row.action.as_str())
        .bind(clean_json(&row.input).to_string())
        .bind(clean_json(&row.output).to_string())
        .bind(row.success)
        .bind(clean_json(&row.metadata.json()).to_string())
        .bind(sqlite_moment(row.executed_at))
}

fn bind_health(insert: Insert, row: &HealthRow) -> Insert {
    let at = sqlite_moment(row.at);
    insert
        .bind(row.id.to_string())
        .bind(clean_text(&row.component))
        .bind(finite(row.score))
        .bind(row.trend.as_deref().map(clean_text))
        .bind(row.predicted_failure_time.map(sqlite_moment))
        .bind(finite(row.failure_probability))
        .bind(row.metrics_json().to_string())
        .bind(row.warnings_json().to_string())
        .bind(at.clone())
        .bind(at)
}

fn bind_rollback(insert: Insert, row: &RollbackRow) -> Insert {
    insert
        .bind(row.id.to_string())
        .bind(clean_text(&row.component))
        .bind(clean_text(&row.rollback_type))
        .bind(clean_json(&row.from_state).to_string())
        .bind(clean_json(&row.to_state).to_string())
        .bind(row.success)
        .bind(row.error_message.as_deref().map(clean_text))
        .bind(sqlite_moment(row.executed_at))
}
