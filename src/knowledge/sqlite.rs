//! SQLite: the embedded default, one file, any number of operators on one machine.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::connection::NOTHING_YET;
use super::database::{Backend, StoredCheck};
use super::error::{LedgerError, LedgerReason};
use super::retention::Expiring;
use super::row::{Cell, Row, sqlite_moment};
use super::schema::{self, Dialect, FoundColumn, FoundTable};
use super::views;

/// How long a statement waits for another writer. Below the limits of `record` and of a probe, so that their error is
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

/// Rows in a statement, when there are that many: each statement is a message to the thread that runs SQLite and one back,
/// which takes as long as five rows do.
const ROWS_A_STATEMENT: usize = 50;

/// The expression of the index. With the key quoted: SQLite before 3.45 reads the dot of `->> 'panacea.dev/component'` as a
/// path, and an older `sqlite3` may open the file.
const COMPONENT: &str = "json_extract(metrics, '$.\"panacea.dev/component\"')";

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
            // In pages; four times the default: a page that many batches change is then written into the file once.
            .pragma("wal_autocheckpoint", "4000")
            // In KiB, of a connection: ids are random, so a batch touches pages all over the indexes of a large file.
            .pragma("cache_size", "-16384")
            // WAL with NORMAL may lose the last commits at a power failure; `record` promises durability.
            .synchronous(SqliteSynchronous::Full);
        let place = format!("SQLite file {}", path.display());
        Self { path, options, place }
    }
}

impl Backend for Sqlite {
    const DIALECT: Dialect = Dialect::Sqlite;
    type Connection = SqliteConnection;

    fn options(&self) -> &SqliteConnectOptions {
        &self.options
    }

    fn located(&self, error: LedgerError) -> LedgerError {
        error.at(&self.place)
    }

    /// The file's inode: a connection to a file that was removed or replaced would write into the old file. No other file can
    /// get the inode while such a connection holds it.
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
                LedgerError::new(reason, format!("its folder cannot be created: {error}"))
            })?;
        }
        Ok(NOTHING_YET)
    }

    async fn inspect(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<(Vec<FoundColumn>, Vec<FoundTable>), LedgerError> {
        let names = serde_json::json!(schema::TABLES).to_string();
        let columns = sqlx::query_as(CHECK_COLUMNS).bind(&names).fetch_all(&mut *connection).await?;
        let tables = sqlx::query_as(CHECK_TABLES).bind(&names).fetch_all(connection).await?;
        Ok((columns, tables))
    }

    async fn create(&self, connection: &mut SqliteConnection) -> Result<(), LedgerError> {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        // Another operator may have created them while this one waited.
        let (columns, _) = self.inspect(&mut transaction).await?;
        for table in schema::missing(&columns) {
            for statement in schema::statements(Dialect::Sqlite, table) {
                transaction.execute(AssertSqlSafe(statement)).await?;
            }
            tracing::info!(table, "ledger: created the table in {}", self.place);
        }
        Ok(transaction.commit().await?)
    }

    async fn create_views(&self, connection: &mut SqliteConnection) -> Result<(), LedgerError> {
        Ok(views::create_in_sqlite(connection, &self.place).await?)
    }

    async fn insert(&self, connection: &mut SqliteConnection, rows: &[Row]) -> Result<u64, LedgerError> {
        // IMMEDIATE takes the write lock at once: a transaction that begins as a reader cannot wait for it later.
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut new = 0;
        for table in schema::TABLES {
            let names = schema::column_names(table);
            let places = format!("({})", vec!["?"; schema::columns(table).len()].join(", "));
            let rows: Vec<&Row> = rows.iter().filter(|row| row.table() == table).collect();
            // Then one row in each statement: two texts, so that both stay prepared.
            let chunks = rows.chunks_exact(ROWS_A_STATEMENT);
            let left = chunks.remainder().chunks(1);
            for chunk in chunks.chain(left) {
                let values = vec![places.as_str(); chunk.len()].join(", ");
                let text = format!("INSERT INTO {table} ({names}) VALUES {values} ON CONFLICT (id) DO NOTHING");
                let cells = chunk.iter().flat_map(|row| row.cells());
                let insert = cells.fold(sqlx::query::<sqlx::Sqlite>(AssertSqlSafe(text)), |insert, cell| match cell {
                    Cell::Text(text) => insert.bind(text),
                    Cell::Bool(value) => insert.bind(value),
                    Cell::Double(value) => insert.bind(value),
                });
                new += insert.execute(&mut *transaction).await?.rows_affected();
            }
        }
        transaction.commit().await?;
        Ok(new)
    }

    async fn history(
        &self,
        connection: &mut SqliteConnection,
        component_key: &str,
        limit: i64,
    ) -> Result<Vec<StoredCheck>, LedgerError> {
        let history = sqlx::query_as(AssertSqlSafe(super::history::select(COMPONENT))).bind(component_key).bind(limit);
        Ok(history.fetch_all(connection).await?)
    }

    async fn expire(
        &self,
        connection: &mut SqliteConnection,
        what: Expiring,
        before: Timestamp,
        limit: i64,
    ) -> Result<u64, LedgerError> {
        let delete = sqlx::query(AssertSqlSafe(what.delete(COMPONENT))).bind(sqlite_moment(before)).bind(limit);
        Ok(delete.execute(connection).await?.rows_affected())
    }
}
