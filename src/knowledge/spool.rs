//! Rows that wait on disk while the database is unreachable.
//!
//! One SQLite file, used by one operator at a time (it stays locked). An entry is one row with a checksum, in the order of
//! spooling. All rows are on disk when [`Spool::append`] returns (WAL, `synchronous = FULL`), and survive SIGKILL and a power
//! failure.
//!
//! **Bound.** [`SpoolOptions::max_bytes`] of entries; the file is a few percent larger. When it is full, health rows are
//! removed, oldest first after the batch that may be in progress, and counted in the file, in the same transaction. Healing
//! rows are never removed before they are in the database: an append of healing rows without room fails.
//!
//! **Damage.** A damaged entry is skipped and counted. A file that SQLite cannot read is renamed and stays for a person; a new
//! file replaces it.

mod file;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous};
use tokio::sync::{Mutex, MutexGuard};

use super::error::{LedgerError, LedgerReason};
use super::row::Row;
use super::stats::LedgerStats;
use super::within;
pub(super) use file::{Kind, Oldest};
use file::{Open, Totals};

/// Default bound of the entries, in bytes: about 350,000 rows of checks, so 3 hours of 1,000 components at one check a minute.
pub const SPOOL_BYTES: u64 = 256 * 1024 * 1024;

/// Time limit of one use of the spool. It is a local file; a slower disk is of no use.
const SPOOL_LIMIT: Duration = Duration::from_secs(2);

/// How long opening waits for the lock: a cancelled connection closes later.
const BUSY_TIMEOUT: Duration = Duration::from_millis(1500);

const FILE: &str = "spool.sqlite";

/// Where rows wait, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolOptions {
    /// The folder; created when it is missing.
    pub folder: PathBuf,
    /// Bound of the entries, in bytes.
    pub max_bytes: u64,
}

impl SpoolOptions {
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), max_bytes: SPOOL_BYTES }
    }
}

pub(super) struct Spool {
    path: PathBuf,
    max_bytes: u64,
    open: Mutex<Option<Open>>,
    stats: LedgerStats,
    taken_up: AtomicBool,
    /// The stats include the counts of earlier processes.
    counted: AtomicBool,
}

impl Spool {
    pub(super) fn new(options: SpoolOptions, stats: LedgerStats) -> Self {
        let SpoolOptions { folder, max_bytes } = options;
        let (open, taken_up, counted) = (Mutex::new(None), AtomicBool::new(false), AtomicBool::new(false));
        Self { path: folder.join(FILE), max_bytes, open, stats, taken_up, counted }
    }

    /// Whether the rows of earlier processes are known.
    pub(super) fn is_taken_up(&self) -> bool {
        self.taken_up.load(Ordering::Relaxed)
    }

    /// Reads how many rows earlier processes left, which shows whether the spool can be used before it is needed.
    pub(super) async fn take_up(&self) -> Result<(), LedgerError> {
        if self.is_taken_up() {
            return Ok(());
        }
        let open = async { self.lease().await.map(|(mut slot, open)| *slot = Some(open)) };
        within(SPOOL_LIMIT, "opening the spool", open).await?;
        self.taken_up.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Adds rows at the end; they are on disk when it returns. Healing rows: all or none; a row that exists keeps its place.
    /// Health rows: rows without room are dropped and counted.
    ///
    /// # Errors
    /// No room for healing rows, or the file cannot be used; then nothing was added.
    pub(super) async fn append(&self, kind: Kind, rows: &[Row]) -> Result<(), LedgerError> {
        let unsaved = self.stats.dropped_unsaved.set(0);
        let add = async {
            let (mut slot, mut open) = self.lease().await?;
            let done = open.append(kind, rows, self.max_bytes, unsaved).await;
            let Some(dropped) = self.settle(&mut slot, open, done)? else {
                let (path, limit) = (self.path.display(), self.max_bytes);
                let message = format!("the spool {path} is full of rows of remediations ({limit} bytes)");
                return Err(LedgerError::new(LedgerReason::Full, message));
            };
            self.stats.rows_dropped.inc_by(dropped);
            Ok(())
        };
        let done = within(SPOOL_LIMIT, "writing to the spool", add).await;
        if done.is_err() {
            self.stats.dropped_unsaved.inc_by(unsaved);
        }
        done
    }

    /// A batch of the oldest entries. Corrupt ones are removed.
    pub(super) async fn oldest(&self) -> Result<Oldest, LedgerError> {
        let read = async {
            let (mut slot, mut open) = self.lease().await?;
            let done = open.oldest().await;
            let (found, corrupt) = self.settle(&mut slot, open, done)?;
            if let Some(seq) = corrupt.first() {
                self.stats.entries_corrupt.inc_by(corrupt.len() as u64);
                let (count, path) = (corrupt.len(), self.path.display());
                tracing::error!(count, seq, "ledger: skipped damaged entries of the spool {path}");
            }
            Ok(found)
        };
        within(SPOOL_LIMIT, "reading the spool", read).await
    }

    /// Removes entries that are in the database now. `refused`: the healing rows among them that the database refused.
    pub(super) async fn remove(&self, written: &Oldest, refused: &[Row]) -> Result<(), LedgerError> {
        let remove = async {
            let (mut slot, mut open) = self.lease().await?;
            let done = open.remove(written, refused).await;
            self.settle(&mut slot, open, done)
        };
        within(SPOOL_LIMIT, "removing from the spool", remove).await
    }

    /// The file, opened if necessary. Return it with [`Spool::settle`]; dropped, and opened again, otherwise.
    async fn lease(&self) -> Result<(MutexGuard<'_, Option<Open>>, Open), LedgerError> {
        let mut slot = self.open.lock().await;
        let mut opened = match slot.take() {
            Some(open) => Ok(open),
            None => self.open().await,
        };
        if let Err(error) = &opened
            && is_damage(error)
        {
            self.set_aside(error);
            opened = self.open().await;
        }
        opened.map(|open| (slot, open)).map_err(|error| self.located(error))
    }

    fn settle<T>(&self, slot: &mut Option<Open>, open: Open, done: Result<T, sqlx::Error>) -> Result<T, LedgerError> {
        if let Err(error) = &done {
            let lost = open.totals.health;
            // Before its file is moved.
            drop(open);
            if is_damage(error) {
                self.set_aside(error);
                self.stats.dropped(lost);
                self.publish(Totals::default());
            }
        } else {
            self.publish(open.totals);
            *slot = Some(open);
        }
        done.map_err(|error| self.located(error))
    }

    fn publish(&self, totals: Totals) {
        self.stats.healing_spooled.set(totals.healing);
        self.stats.health_spooled.set(totals.health);
        self.stats.spool_bytes.set(totals.bytes);
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
        let (open, dropped, corrupt) = Open::new(options.connect().await?).await?;
        if !self.counted.swap(true, Ordering::Relaxed) {
            self.stats.entries_corrupt.inc_by(corrupt);
            self.stats.rows_dropped.inc_by(dropped);
        }
        self.publish(open.totals);
        Ok(open)
    }

    fn located(&self, error: sqlx::Error) -> LedgerError {
        LedgerError::from(error).at(&format!("spool {}", self.path.display()))
    }

    /// Renames the file and its WAL, over those of an earlier time.
    fn set_aside(&self, error: &sqlx::Error) {
        let aside = self.path.with_extension("sqlite.damaged");
        tracing::error!(
            "ledger: the spool {} cannot be read ({error}) and is renamed to {}: its rows of checks are lost, rows of remediations \
             are recorded again",
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

/// SQLite reports that the file is not, or no longer, a database: <https://www.sqlite.org/rescode.html#corrupt>, `notadb`.
fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}
