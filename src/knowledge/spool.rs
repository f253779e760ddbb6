//! Rows that wait on disk while the database is away.
//!
//! One SQLite file, used by one operator at a time (it is held locked). An entry is one row, with a checksum; its order is
//! the order of spooling. Everything that [`Spool::append`] has returned for is on disk (WAL, `synchronous = FULL`) and
//! outlives SIGKILL and the loss of power.
//!
//! **Bound.** [`SpoolOptions::max_bytes`] of entries; the file is a few percent larger. When it is full, health rows
//! make room, oldest first after the batch that may be on its way, and are counted in the file itself, in the transaction
//! that removes them. Healing rows are never removed before they are in the database: an append of them that has no room
//! fails.
//!
//! **Damage.** An entry that is not what had been written is skipped and counted. A file that SQLite cannot read is kept beside
//! its place under another name, for a person, and a new one is begun.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tokio::sync::{Mutex, MutexGuard};

use super::backlog::{BATCH_BYTES, BATCH_ROWS};
use super::error::{LedgerError, LedgerReason};
use super::row::Row;
use super::stats::LedgerStats;
use super::within;

/// Bound of the entries when none is given, in bytes: about 350,000 rows of looks, so 3 hours of 1,000 components at one
/// look a minute.
pub const SPOOL_BYTES: u64 = 256 * 1024 * 1024;

/// How long one use of the spool may take. It is a local file; a disk that is slower is as good as none.
const SPOOL_LIMIT: Duration = Duration::from_secs(2);

/// How long an opening waits for the lock: a connection that was given up on closes in its own time.
const BUSY_TIMEOUT: Duration = Duration::from_millis(1500);

/// What an entry takes beside its payload, in bytes: its other columns, and its part of three indexes.
const ENTRY_BYTES: u64 = 100;

const FILE: &str = "spool.sqlite";

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS entries (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        -- 0 of a Remediation, 1 of a look or a cycle, 2 of a Remediation and refused by the database.
        kind INTEGER NOT NULL,
        -- Table and id of a healing row, which is kept once however often it is recorded.
        key TEXT UNIQUE,
        bytes INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        payload BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS entries_kind ON entries (kind, seq, bytes);
    CREATE TABLE IF NOT EXISTS counters (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL);
    INSERT OR IGNORE INTO counters VALUES ('dropped', 0), ('corrupt', 0);
    -- What the database refused is tried again by each life of the operator: a person may have changed the database.
    UPDATE entries SET kind = 0 WHERE kind = 2;";

const INSERT: &str = "INSERT INTO entries (kind, key, bytes, checksum, payload) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (key) DO NOTHING";

/// Where rows wait, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolOptions {
    /// The folder; made when it is missing.
    pub folder: PathBuf,
    /// Bound of the entries, in bytes.
    pub max_bytes: u64,
}

impl SpoolOptions {
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), max_bytes: SPOOL_BYTES }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of a Remediation.
    Healing = 0,
    /// Of a look or a cycle.
    Health = 1,
}

/// The oldest entries, healing rows first.
#[derive(Debug, Default)]
pub(super) struct Oldest {
    pub rows: Vec<Row>,
    /// How many of the rows, the first ones, are healing rows.
    pub healing: usize,
    /// What [`Spool::remove`] removes, with what was skipped between: up to here, of each kind.
    healing_until: i64,
    health_until: i64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    healing: u64,
    health: u64,
    bytes: u64,
}

struct Open {
    connection: SqliteConnection,
    totals: Totals,
}

pub(super) struct Spool {
    path: PathBuf,
    max_bytes: u64,
    open: Mutex<Option<Open>>,
    stats: LedgerStats,
    /// The counts of earlier lives are in the stats.
    counted: AtomicBool,
}

impl Spool {
    pub(super) fn new(options: SpoolOptions, stats: LedgerStats) -> Self {
        let SpoolOptions { folder, max_bytes } = options;
        Self { path: folder.join(FILE), max_bytes, open: Mutex::new(None), stats, counted: AtomicBool::new(false) }
    }

    /// Takes up what an earlier life left. Makes no file.
    pub(super) async fn take_up(&self) -> Result<(), LedgerError> {
        if self.counted.load(Ordering::Relaxed) || !tokio::fs::try_exists(&self.path).await.unwrap_or(true) {
            return Ok(());
        }
        let use_it = async {
            let (mut slot, open) = self.lease().await?;
            *slot = Some(open);
            Ok(())
        };
        within(SPOOL_LIMIT, "opening the spool", use_it).await
    }

    /// Adds rows at the end; they are on disk when it returns. Healing rows: all or none; one that is there already is
    /// kept where it is. Health rows: those for which nothing older can make room are dropped and counted.
    ///
    /// # Errors
    /// No room for healing rows, or the file cannot be used; then nothing was added.
    pub(super) async fn append(&self, kind: Kind, rows: &[Row]) -> Result<(), LedgerError> {
        let unsaved = self.stats.take_unsaved();
        let add = async {
            let (mut slot, mut open) = self.lease().await?;
            let done = append(&mut open, kind, rows, self.max_bytes, unsaved).await;
            let added = self.settle(&mut slot, open, done).await?;
            self.stats.dropped_and_saved(added.dropped);
            Ok(added)
        };
        let done = within(SPOOL_LIMIT, "writing to the spool", add).await;
        match done {
            Ok(Added { no_room: false, .. }) => Ok(()),
            // Nothing was changed.
            Ok(_) => {
                self.stats.give_back_unsaved(unsaved);
                let limit = self.max_bytes;
                let message =
                    format!("the spool {} is full of rows of remediations ({limit} bytes)", self.path.display());
                Err(LedgerError::new(LedgerReason::Full, message))
            }
            Err(error) => {
                self.stats.give_back_unsaved(unsaved);
                Err(error)
            }
        }
    }

    /// A batch of the oldest entries. Corrupt ones are removed.
    pub(super) async fn oldest(&self) -> Result<Oldest, LedgerError> {
        let read = async {
            let (mut slot, mut open) = self.lease().await?;
            let done = oldest(&mut open).await;
            let (found, corrupt) = self.settle(&mut slot, open, done).await?;
            if let Some(seq) = corrupt.first() {
                self.stats.corrupt(corrupt.len() as u64);
                let (count, path) = (corrupt.len(), self.path.display());
                tracing::error!(count, seq, "ledger: entries of the spool {path} are damaged and were skipped");
            }
            Ok(found)
        };
        within(SPOOL_LIMIT, "reading the spool", read).await
    }

    /// Removes what is in the database now. `refused`: healing rows of it that are not, because the database refuses them.
    pub(super) async fn remove(&self, written: &Oldest, refused: &[Row]) -> Result<(), LedgerError> {
        let remove = async {
            let (mut slot, mut open) = self.lease().await?;
            let done = remove(&mut open, written, refused).await;
            self.settle(&mut slot, open, done).await
        };
        within(SPOOL_LIMIT, "removing from the spool", remove).await
    }

    /// The file, opened when it is not. Give it back with [`Spool::settle`]; dropped, and opened anew, otherwise.
    async fn lease(&self) -> Result<(MutexGuard<'_, Option<Open>>, Open), LedgerError> {
        let mut slot = self.open.lock().await;
        let open = match slot.take() {
            Some(open) => open,
            None => match self.open().await {
                Err(error) if is_damage(&error) => {
                    self.set_aside(&error);
                    self.open().await.map_err(|error| self.sort(&error))?
                }
                opened => opened.map_err(|error| self.sort(&error))?,
            },
        };
        Ok((slot, open))
    }

    async fn settle<T>(
        &self,
        slot: &mut MutexGuard<'_, Option<Open>>,
        open: Open,
        done: Result<T, sqlx::Error>,
    ) -> Result<T, LedgerError> {
        match done {
            Ok(done) => {
                self.tell(open.totals);
                **slot = Some(open);
                Ok(done)
            }
            Err(error) => {
                let lost = open.totals.health;
                // Before its file is moved.
                drop(open);
                if is_damage(&error) {
                    self.set_aside(&error);
                    self.stats.dropped(lost);
                    self.tell(Totals::default());
                }
                Err(self.sort(&error))
            }
        }
    }

    fn tell(&self, totals: Totals) {
        self.stats.spooled(totals.healing, totals.health, totals.bytes);
    }

    async fn open(&self) -> Result<Open, sqlx::Error> {
        if let Some(folder) = self.path.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(sqlx::Error::Io)?;
        }
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT)
            .locking_mode(SqliteLockingMode::Exclusive)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let mut connection = options.connect().await?;
        connection.execute(TABLES).await?;
        let totals =
            "SELECT count(*) FILTER (WHERE kind = 0), count(*) FILTER (WHERE kind = 1), coalesce(sum(bytes), 0)
                      FROM entries";
        let (healing, health, bytes): (i64, i64, i64) = sqlx::query_as(totals).fetch_one(&mut connection).await?;
        let totals =
            Totals { healing: healing.cast_unsigned(), health: health.cast_unsigned(), bytes: bytes.cast_unsigned() };
        if !self.counted.swap(true, Ordering::Relaxed) {
            let counters = "SELECT value FROM counters ORDER BY name";
            let counters: Vec<i64> = sqlx::query_scalar(counters).fetch_all(&mut connection).await?;
            if let [corrupt, dropped] = counters.as_slice() {
                self.stats.corrupt(corrupt.cast_unsigned());
                self.stats.dropped_and_saved(dropped.cast_unsigned());
            }
        }
        self.tell(totals);
        Ok(Open { connection, totals })
    }

    fn sort(&self, error: &sqlx::Error) -> LedgerError {
        LedgerError::from_sqlx(error, &format!("spool {}", self.path.display()))
    }

    /// Out of the way, over an earlier one, with what belongs to it.
    fn set_aside(&self, error: &sqlx::Error) {
        let aside = self.path.with_extension("sqlite.damaged");
        tracing::error!(
            "ledger: the spool {} cannot be read ({error}) and is kept as {}: rows of looks that waited in it are lost, those of remediations are recorded anew",
            self.path.display(),
            aside.display()
        );
        for end in ["", "-wal"] {
            let name = |path: &PathBuf| PathBuf::from(format!("{}{end}", path.display()));
            if let Err(error) = std::fs::rename(name(&self.path), name(&aside))
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::error!("ledger: {} cannot be moved: {error}", name(&self.path).display());
            }
        }
    }
}

#[derive(Default)]
struct Added {
    dropped: u64,
    no_room: bool,
}

async fn append(open: &mut Open, kind: Kind, rows: &[Row], max_bytes: u64, unsaved: u64) -> Result<Added, sqlx::Error> {
    let mut totals = open.totals;
    let mut dropped = 0;
    let mut first = 0;
    let mut transaction = open.connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let key = (kind == Kind::Healing).then(|| key(row));
        let known = "SELECT EXISTS (SELECT 1 FROM entries WHERE key = ?1)";
        if key.is_some() && sqlx::query_scalar(known).bind(&key).fetch_one(&mut *transaction).await? {
            continue;
        }
        let payload = serde_json::to_vec(row).map_err(|error| sqlx::Error::Encode(error.into()))?;
        entries.push((key, payload));
    }
    let needed: u64 = entries.iter().map(|(_, payload)| entry_bytes(payload)).sum();
    if totals.bytes + needed > max_bytes {
        let (thinned, freed) = thin(&mut transaction, (totals.bytes + needed) - max_bytes).await?;
        totals.health -= thinned;
        totals.bytes -= freed;
        dropped += thinned;
        let mut short = (totals.bytes + needed).saturating_sub(max_bytes);
        if short > 0 && kind == Kind::Healing {
            transaction.rollback().await?;
            return Ok(Added { no_room: true, ..Added::default() });
        }
        while let Some((_, payload)) = entries.get(first).filter(|_| short > 0) {
            short = short.saturating_sub(entry_bytes(payload));
            first += 1;
        }
        dropped += first as u64;
    }
    for (key, payload) in entries.iter().skip(first) {
        let bytes = entry_bytes(payload);
        let done = sqlx::query(INSERT)
            .bind(kind as i64)
            .bind(key)
            .bind(bytes.cast_signed())
            .bind(checksum(kind, payload))
            .bind(payload.as_slice())
            .execute(&mut *transaction)
            .await?;
        let added = done.rows_affected();
        match kind {
            Kind::Health => totals.health += added,
            Kind::Healing => totals.healing += added,
        }
        totals.bytes += bytes * added;
    }
    if dropped + unsaved > 0 {
        raise(&mut transaction, "dropped", dropped + unsaved).await?;
    }
    transaction.commit().await?;
    open.totals = totals;
    Ok(Added { dropped, no_room: false })
}

/// Removes the oldest health rows after the head, of at least so many bytes if there are. Returns how many, and their bytes.
///
/// The head is what one batch takes: it may be on its way, or be in the database already with nobody having been told. A
/// row that is counted as dropped was not written.
async fn thin(connection: &mut SqliteConnection, bytes: u64) -> Result<(u64, u64), sqlx::Error> {
    let head = "SELECT coalesce(max(seq), 0) FROM (
            SELECT seq, row_number() OVER (ORDER BY seq) AS number, sum(bytes - ?1) OVER (ORDER BY seq) AS weight
            FROM (SELECT seq, bytes FROM entries WHERE kind = 1 ORDER BY seq LIMIT ?2)
        ) WHERE number = 1 OR weight <= ?3";
    let head: i64 = sqlx::query_scalar(head)
        .bind(ENTRY_BYTES.cast_signed())
        .bind(BATCH_ROWS as i64)
        .bind(BATCH_BYTES as i64)
        .fetch_one(&mut *connection)
        .await?;
    let oldest = "SELECT count(*), coalesce(sum(bytes), 0), coalesce(max(seq), 0) FROM (
            SELECT seq, bytes, sum(bytes) OVER (ORDER BY seq) - bytes AS before FROM (
                SELECT seq, bytes FROM entries WHERE kind = 1 AND seq > ?3 ORDER BY seq LIMIT 1 + ?1 / ?2
            )
        ) WHERE before < ?1";
    let (rows, freed, until): (i64, i64, i64) = sqlx::query_as(oldest)
        .bind(bytes.cast_signed())
        .bind(ENTRY_BYTES.cast_signed())
        .bind(head)
        .fetch_one(&mut *connection)
        .await?;
    let gone = sqlx::query("DELETE FROM entries WHERE kind = 1 AND seq > ?1 AND seq <= ?2").bind(head).bind(until);
    gone.execute(connection).await?;
    Ok((rows.cast_unsigned(), freed.cast_unsigned()))
}

async fn raise(connection: &mut SqliteConnection, counter: &str, by: u64) -> Result<(), sqlx::Error> {
    let raise = sqlx::query("UPDATE counters SET value = value + ?2 WHERE name = ?1");
    raise.bind(counter).bind(by.cast_signed()).execute(connection).await?;
    Ok(())
}

/// What was found, and the corrupt entries before its end.
async fn oldest(open: &mut Open) -> Result<(Oldest, Vec<i64>), sqlx::Error> {
    let oldest = "SELECT seq, kind, checksum, payload FROM entries WHERE kind < 2 ORDER BY kind, seq LIMIT ?1";
    let found: Vec<(i64, i64, i64, Vec<u8>)> =
        sqlx::query_as(oldest).bind(BATCH_ROWS as i64).fetch_all(&mut open.connection).await?;
    let (mut taken, mut corrupt, mut weight) = (Oldest::default(), Vec::new(), 0);
    for (seq, kind, sum, payload) in found {
        let kind = if kind == 0 { Kind::Healing } else { Kind::Health };
        weight += payload.len();
        if weight > BATCH_BYTES && !taken.rows.is_empty() {
            break;
        }
        let row = Some(payload).filter(|payload| checksum(kind, payload) == sum);
        match row.and_then(|payload| serde_json::from_slice::<Row>(&payload).ok()) {
            Some(row) => taken.rows.push(row),
            None => {
                corrupt.push(seq);
                continue;
            }
        }
        match kind {
            Kind::Healing => {
                taken.healing += 1;
                taken.healing_until = seq;
            }
            Kind::Health => taken.health_until = seq,
        }
    }
    if !corrupt.is_empty() {
        let mut transaction = open.connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut totals = open.totals;
        for seq in &corrupt {
            let gone = "DELETE FROM entries WHERE seq = ?1 RETURNING kind, bytes";
            let gone: (i64, i64) = sqlx::query_as(gone).bind(seq).fetch_one(&mut *transaction).await?;
            totals.forget(gone.0 == 0, 1, gone.1.cast_unsigned());
        }
        raise(&mut transaction, "corrupt", corrupt.len() as u64).await?;
        transaction.commit().await?;
        open.totals = totals;
    }
    Ok((taken, corrupt))
}

async fn remove(open: &mut Open, written: &Oldest, refused: &[Row]) -> Result<(), sqlx::Error> {
    let mut totals = open.totals;
    let mut transaction = open.connection.begin_with("BEGIN IMMEDIATE").await?;
    for row in refused {
        let keep = sqlx::query("UPDATE entries SET kind = 2 WHERE key = ?1").bind(key(row));
        totals.healing -= keep.execute(&mut *transaction).await?.rows_affected();
    }
    for (kind, until) in [(Kind::Healing, written.healing_until), (Kind::Health, written.health_until)] {
        let of = "SELECT count(*), coalesce(sum(bytes), 0) FROM entries WHERE kind = ?1 AND seq <= ?2";
        let (rows, bytes): (i64, i64) =
            sqlx::query_as(of).bind(kind as i64).bind(until).fetch_one(&mut *transaction).await?;
        let gone = sqlx::query("DELETE FROM entries WHERE kind = ?1 AND seq <= ?2").bind(kind as i64).bind(until);
        gone.execute(&mut *transaction).await?;
        totals.forget(kind == Kind::Healing, rows.cast_unsigned(), bytes.cast_unsigned());
    }
    transaction.commit().await?;
    open.totals = totals;
    if totals.healing + totals.health == 0 {
        // Gives the disk back what the outage took. Whether it works is no matter to what is in it.
        open.connection.execute("PRAGMA incremental_vacuum").await?;
        open.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
    }
    Ok(())
}

impl Totals {
    fn forget(&mut self, healing: bool, rows: u64, bytes: u64) {
        let of = if healing { &mut self.healing } else { &mut self.health };
        *of = of.saturating_sub(rows);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

fn key(row: &Row) -> String {
    format!("{} {}", row.table(), row.id())
}

fn entry_bytes(payload: &[u8]) -> u64 {
    payload.len() as u64 + ENTRY_BYTES
}

fn checksum(kind: Kind, payload: &[u8]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[u8::from(kind == Kind::Health)]);
    hasher.update(payload);
    i64::from(hasher.finalize())
}

/// SQLite says that the file is not, or no longer, a database: <https://www.sqlite.org/rescode.html#corrupt>, `notadb`.
fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}
