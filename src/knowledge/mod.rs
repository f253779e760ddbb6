//! Knowledge: the SQL ledger, in PostgreSQL or an embedded SQLite file.
//!
//! **Guarantees.** An unreachable database never stops healing: [`Ledger::start`] always succeeds at once, [`Ledger::offer`]
//! never waits, and every other call has a time limit. A row is in its table once, however often it is written: ids are
//! derived ([`row_id`], [`check_id`]), and an insert of an existing id does nothing. The rows of a Remediation
//! ([`Ledger::record`]) are in the database when the call returns [`Recorded::Written`]; the caller retries until then,
//! and keeps the Remediation until then. [`Recorded::Spooled`] rows are on the operator's disk and reach the database in the
//! order of recording, even if the caller ends.
//!
//! **Accounting.** Rows of checks and cycles ([`Ledger::offer`]) wait in the spool ([`SpoolOptions`]) while the database is
//! unreachable, until newer rows or healing rows need the room. Every row offered by any process with the same spool is in the
//! database, in the spool, in [`LedgerStats::rows_dropped`] or in [`LedgerStats::rows_refused`], except for rows that were in
//! memory at a SIGKILL: usually those of the last half second, never more than [`QUEUE_ROWS`] and the backlog.
//!
//! **Tables** (created on first use, never altered): `unified_brain`, `ai_proactive_health`, `ai_rollback_history`. JSON is
//! `jsonb` in PostgreSQL and text in SQLite; a time is `timestamptz`, or RFC 3339 text with six decimals, which sorts as the
//! time does. Existing tables are used when they have the needed columns; otherwise [`LedgerHealth`] names the fault. The
//! [`views`] are created beside them if the user has the right to; the operator does not need them.
//!
//! **Reading.** [`Reader`] runs the [`queries`] and reads an [`incident`], beside the process that writes and without a right
//! to write.
//!
//! **Growth.** A check writes two rows of about 0.5 kB together with their index entries: 1,000 components at one check a
//! minute are 2.9 million rows and about 1.5 GB a day. [`LedgerOptions::retention`] removes older rows.
//!
//! **Not here.** No decision, no Kubernetes type, no retry of `record`.

mod backlog;
mod connection;
mod database;
mod error;
mod health;
mod history;
pub mod incident;
mod postgres;
pub mod queries;
mod reader;
mod retention;
mod row;
mod schema;
mod spool;
mod sqlite;
mod stats;
pub mod summary;
pub mod views;
mod writer;

use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use database::{Database, User};
pub use error::{LedgerError, LedgerReason};
pub use health::LedgerHealth;
pub use history::HistoryPoint;
pub use reader::{Filter, QUERY_LIMIT, Reader};
pub use row::{
    ActionType, Agent, BrainRow, COMPONENT_KEY, HealthRow, Metadata, RollbackRow, Row, check_id, cycle_id, outcome_id,
    row_id,
};
pub use schema::Dialect;
use spool::{Kind, Spool};
pub use spool::{SPOOL_BYTES, SpoolOptions};
pub use stats::LedgerStats;
pub use writer::FLUSH_LIMIT;

/// Rows that wait for the writer. A check has two rows and all of 1,000 components may be checked in the same second, so 2,000
/// at once, and as many in reserve.
pub const QUEUE_ROWS: usize = 4096;

/// Time limit of [`Ledger::record`] for the database; the spool, when it is needed, takes at most 2 s more.
pub const RECORD_LIMIT: Duration = Duration::from_secs(5);

/// Time limit of [`Ledger::history`], which runs at a start, for each component.
pub const HISTORY_LIMIT: Duration = Duration::from_secs(10);

/// Pause before `record` retries with a busy database.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// How long a fault of writing is reported without a later success: waiting rows are retried at least every 9 s (a pause and
/// the limit of a batch).
const FAULT_LASTS: Duration = Duration::from_secs(15);

/// Which database.
#[derive(Debug, Clone)]
pub enum LedgerConfig {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`, special characters percent-encoded.
    Postgres(SecretString),
    /// The file; it and its folder are created when they are missing.
    Sqlite(PathBuf),
}

/// The configuration of a ledger.
#[derive(Debug, Clone)]
pub struct LedgerOptions {
    pub config: LedgerConfig,
    /// Where rows wait while the database is unreachable; `None`: in memory.
    pub spool: Option<SpoolOptions>,
    /// Panacea's older rows are deleted; `None`: no row is deleted.
    pub retention: Option<Duration>,
}

impl From<LedgerConfig> for LedgerOptions {
    /// No spool, no retention.
    fn from(config: LedgerConfig) -> Self {
        Self { config, spool: None, retention: None }
    }
}

/// Where the rows of a call of [`Ledger::record`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// In the database.
    Written,
    /// On the operator's disk, and later in the database: call again to check.
    Spooled,
}

/// A handle on the ledger. Cheap to clone; all clones share one ledger.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    database: Database,
    spool: Option<Spool>,
    /// Wakes the writer: healing rows wait in the spool.
    spooled: Notify,
    queue: mpsc::Sender<Row>,
    health: watch::Receiver<LedgerHealth>,
    /// Wakes the probe after a failure.
    suspicion: Arc<Notify>,
    stats: LedgerStats,
    lost: writer::LostRows,
    fault: Mutex<Option<(Instant, LedgerError)>>,
}

impl Ledger {
    /// Starts the writer and the probe. Never fails and never waits: [`Ledger::health`] reports whether the database can be used.
    ///
    /// The task ends after `shutdown`, when the offered rows are written or spooled, or after [`FLUSH_LIMIT`]. `record` works
    /// until the last handle is dropped.
    pub fn start(options: impl Into<LedgerOptions>, shutdown: CancellationToken) -> (Self, JoinHandle<()>) {
        let options = options.into();
        let (queue, rows) = mpsc::channel(QUEUE_ROWS);
        let (publish, health) = watch::channel(LedgerHealth::Unknown);
        let stats = LedgerStats::default();
        let suspicion = Arc::new(Notify::new());
        let lost = writer::LostRows::new(stats.clone());
        let database = Database::new(options.config);
        let spool = options.spool.map(|spool| Spool::new(spool, stats.clone()));
        let spooled = Notify::new();
        let fault = Mutex::new(None);
        let shared = Arc::new(Shared { database, spool, spooled, queue, health, suspicion, stats, lost, fault });
        let ledger = Self { shared: Arc::clone(&shared) };
        let task = tokio::spawn(async move {
            let ended = CancellationToken::new();
            let write = async {
                writer::run(&shared, rows, &shutdown).await;
                ended.cancel();
            };
            // The probe continues during the last flush, so that the health is correct to the end.
            let probe = health::run(&shared, &publish, &ended);
            tokio::join!(write, probe, retention::run(&shared, options.retention, &shutdown));
        });
        (ledger, task)
    }

    /// Queues a row of a check or a cycle. Never waits: when [`QUEUE_ROWS`] are waiting, the row is dropped and counted.
    pub fn offer(&self, row: impl Into<Row>) {
        self.shared.stats.rows_waiting.inc();
        if self.shared.queue.try_send(row.into()).is_err() {
            self.shared.stats.rows_waiting.dec();
            self.shared.lost.dropped(1, "the queue is full, or the operator is stopping");
        }
    }

    /// Writes the rows of a Remediation, all or none, and returns when they are durable: in the database, or in the spool when
    /// the database is unreachable or lacks the rows of an earlier call. Existing rows stay unchanged, so the call may be
    /// repeated with the same rows.
    ///
    /// # Errors
    /// Neither the database nor the spool stored them, within [`RECORD_LIMIT`] and 2 s. The rows may or may not be written;
    /// call again until it succeeds, unless [`LedgerError::may_pass`] is false.
    pub async fn record(&self, rows: Vec<Row>) -> Result<Recorded, LedgerError> {
        if rows.is_empty() {
            return Ok(Recorded::Written);
        }
        let shared = &self.shared;
        let has_others = match &shared.spool {
            // Rows of earlier processes come first.
            Some(spool) => match spool.take_up().await {
                Ok(()) => shared.stats.healing_spooled() > 0,
                Err(error) => {
                    shared.lost.spool_failed(&error);
                    false
                }
            },
            None => false,
        };
        if has_others && shared.spool_healing(&rows).await {
            return Ok(Recorded::Spooled);
        }
        let write = patiently(|| shared.database.insert(User::Records, &rows));
        match within(RECORD_LIMIT, "writing the rows", write).await {
            Ok(new) => {
                shared.wrote(new);
                Ok(Recorded::Written)
            }
            Err(error) => {
                shared.suspect(&error);
                if error.may_pass() && shared.spool_healing(&rows).await { Ok(Recorded::Spooled) } else { Err(error) }
            }
        }
    }

    /// Whether the ledger can be used. Up to date within 10 s; a full disk is detected by the first write.
    pub fn health(&self) -> watch::Receiver<LedgerHealth> {
        self.shared.health.clone()
    }

    pub fn stats(&self) -> &LedgerStats {
        &self.shared.stats
    }
}

impl Shared {
    /// Puts healing rows into the spool. `false`: there is no spool, or it failed, which is logged.
    async fn spool_healing(&self, rows: &[Row]) -> bool {
        let Some(spool) = &self.spool else { return false };
        match spool.append(Kind::Healing, rows).await {
            Ok(()) => {
                self.spooled.notify_one();
                true
            }
            Err(error) => {
                self.lost.spool_failed(&error);
                false
            }
        }
    }

    /// Counts inserted rows, which also ends a [`Shared::recent_fault`].
    fn wrote(&self, new: u64) {
        self.stats.rows_written.inc_by(new);
        *self.fault.lock() = None;
    }

    /// Counts a failure and wakes the probe.
    fn suspect(&self, error: &LedgerError) {
        self.stats.batches_failed.inc();
        if !error.may_pass() {
            return;
        }
        if error.is_of_writing() {
            *self.fault.lock() = Some((Instant::now(), error.clone()));
        }
        self.suspicion.notify_one();
    }

    /// A fault that only writing detects (a full disk), without a later success.
    fn recent_fault(&self) -> Option<LedgerError> {
        let fault = self.fault.lock();
        fault.as_ref().filter(|(at, _)| at.elapsed() < FAULT_LASTS).map(|(_, error)| error.clone())
    }
}

/// Retries while another session has locked the database. When two processes begin to use a SQLite file, this error comes at
/// once, without the time that a statement waits.
async fn patiently<T, F>(operation: impl Fn() -> F) -> Result<T, LedgerError>
where
    F: Future<Output = Result<T, LedgerError>>,
{
    loop {
        match operation().await {
            Err(error) if error.reason() == LedgerReason::Busy => tokio::time::sleep(BUSY_PAUSE).await,
            done => return done,
        }
    }
}

/// Limits the time of an operation, which is dropped with all that it uses.
async fn within<T>(
    limit: Duration,
    what: &str,
    operation: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    tokio::time::timeout(limit, operation).await.unwrap_or_else(|_| {
        Err(LedgerError::new(LedgerReason::Timeout, format!("{what} took longer than {} s", limit.as_secs())))
    })
}
