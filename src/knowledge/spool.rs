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
use file::{Added, Open, Totals};
pub(super) use file::{Kind, Oldest};

/// Bound of the entries when none is given, in bytes: about 350,000 rows of looks, so 3 hours of 1,000 components at one
/// look a minute.
pub const SPOOL_BYTES: u64 = 256 * 1024 * 1024;

/// How long one use of the spool may take. It is a local file; a disk that is slower is as good as none.
const SPOOL_LIMIT: Duration = Duration::from_secs(2);

/// How long an opening waits for the lock: a connection that was given up on closes in its own time.
const BUSY_TIMEOUT: Duration = Duration::from_millis(1500);

const FILE: &str = "spool.sqlite";

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

pub(super) struct Spool {
    path: PathBuf,
    max_bytes: u64,
    open: Mutex<Option<Open>>,
    stats: LedgerStats,
    taken_up: AtomicBool,
    /// The counts of earlier lives are in the stats.
    counted: AtomicBool,
}

impl Spool {
    pub(super) fn new(options: SpoolOptions, stats: LedgerStats) -> Self {
        let SpoolOptions { folder, max_bytes } = options;
        let (open, taken_up, counted) = (Mutex::new(None), AtomicBool::new(false), AtomicBool::new(false));
        Self { path: folder.join(FILE), max_bytes, open, stats, taken_up, counted }
    }

    /// Whether it is known what an earlier life left.
    pub(super) fn is_taken_up(&self) -> bool {
        self.taken_up.load(Ordering::Relaxed)
    }

    /// Takes up what an earlier life left, and shows whether the spool can be used before it is needed.
    pub(super) async fn take_up(&self) -> Result<(), LedgerError> {
        if self.is_taken_up() {
            return Ok(());
        }
        let open = async { self.lease().await.map(|(mut slot, open)| *slot = Some(open)) };
        within(SPOOL_LIMIT, "opening the spool", open).await?;
        self.taken_up.store(true, Ordering::Relaxed);
        Ok(())
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
            let done = open.append(kind, rows, self.max_bytes, unsaved).await;
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
            let done = open.oldest().await;
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
            let done = open.remove(written, refused).await;
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
        let (open, counts) = Open::new(options.connect().await?).await?;
        if !self.counted.swap(true, Ordering::Relaxed) {
            self.stats.corrupt(counts.corrupt);
            self.stats.dropped_and_saved(counts.dropped);
        }
        self.tell(open.totals);
        Ok(open)
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

/// SQLite says that the file is not, or no longer, a database: <https://www.sqlite.org/rescode.html#corrupt>, `notadb`.
fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}
