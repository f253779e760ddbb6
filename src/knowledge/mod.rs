//! Knowledge: the SQL ledger, in PostgreSQL or an embedded SQLite file.
//!
//! **Promises.** A dead database never stops healing: [`Ledger::start`] always succeeds at once, [`Ledger::offer`] never
//! waits, and everything else has a time limit. A row is in its table once, however often it is written, because ids are
//! derived ([`row_id`], [`check_id`]) and an insert of an id that is there does nothing. The rows of a Remediation
//! ([`Ledger::record`]) are in the database when the call returns [`Recorded::WriteTracker`]; its caller retries until then,
//! and keeps the Remediation until then. [`Recorded::Spooled`] rows are on the operator's disk and are brought to the
//! database in the order of recording, whatever becomes of the caller.
//!
//! **Accounting.** Rows of looks and cycles ([`Ledger::offer`]) that the database does not take wait in the spool
//! ([`SpoolOptions`]) until that is full of newer ones or of healing rows. Of all rows offered in all lives of one spool,
//! those that are in the database, in the spool, in [`LedgerStats::rows_dropped`] and in [`LedgerStats::rows_refused`]
//! are all, except for those that were in memory at a SIGKILL: the last ones offered, usually of half a second, never more
//! than [`QUEUE_ROWS`] and the backlog.
//!
//! **Tables** (made on first use, never altered): `unified_brain`, `ai_proactive_health`, `ai_rollback_history`. JSON is
//! `jsonb` in PostgreSQL and text in SQLite; a time is `timestamptz`, or RFC 3339 text with six decimals that sorts as the
//! time does. Existing tables are used when they have the needed columns; otherwise [`LedgerHealth`] says what is wrong.
//! [`views`] are made beside them where that is allowed; nothing here needs them.
//!
//! **Reading.** [`Reader`] asks [`queries`] and tells an [`incident`], beside whoever writes and without a right to.
//!
//! **Growth.** A look writes two rows of about 0.5 kB together with their index entries: 1,000 components at one look a
//! minute are 2.9 million rows and about 1.5 GB a day. [`LedgerOptions::retention`] removes what is older.
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

/// Rows that wait for the writer to look up from what it does. A look is two rows and all of 1,000 components may be
/// looked at in the same second, so 2,000 at once, and as many again in reserve.
pub const QUEUE_ROWS: usize = 4096;

/// How long [`Ledger::record`] may take with the database; the spool, when it is needed, takes 2 s more at most.
pub const RECORD_LIMIT: Duration = Duration::from_secs(5);

/// How long [`Ledger::history`] may take. It runs at a start, for each component.
pub const HISTORY_LIMIT: Duration = Duration::from_secs(10);

/// How long a busy database is left alone before `record` asks again.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// How long a fault of writing stands when no later write refutes it: rows that wait are tried again at least every 9 s
/// (a pause and the limit of a batch).
const FAULT_LASTS: Duration = Duration::from_secs(15);

/// Which database.
#[derive(Debug, Clone)]
pub enum LedgerConfig {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`, special characters percent-encoded.
    Postgres(SecretString),
    /// The file; it and its folder are made when they are missing.
    Sqlite(PathBuf),
}

/// Which database, and what else a ledger needs to know.
#[derive(Debug, Clone)]
pub struct LedgerOptions {
    pub config: LedgerConfig,
    /// Where rows wait while the database is away; `None`: in memory.
    pub spool: Option<SpoolOptions>,
    /// Our rows that are older are deleted; `None`: none ever is.
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
    WriteTracker,
    /// On the operator's disk, from where they go to the database: call again to learn whether they are there.
    Spooled,
}

/// A handle on the ledger. Cheap to clone; all clones are one ledger.
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
    /// Wakes the probe: somebody saw a failure.
    suspicion: Arc<Notify>,
    stats: LedgerStats,
    lost: writer::LostRows,
    fault: Mutex<Option<(Instant, LedgerError)>>,
}

impl Ledger {
    /// Starts the writer and the probe. Never fails and waits for nothing: whether the database can be used is told by
    /// [`Ledger::health`].
    ///
    /// The task ends after `shutdown`, when what was offered is written or spooled, or [`FLUSH_LIMIT`] is over. `record`
    /// works until the handle is gone.
    pub fn start(options: impl Into<LedgerOptions>, shutdown: CancellationToken) -> (Self, JoinHandle<()>) {
        let options = options.into();
        let (queue, rows) = mpsc::channel(QUEUE_ROWS);
        let (say, health) = watch::channel(LedgerHealth::Unknown);
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
            // The probe goes on during the last flush, so that the health is true to the end.
            let probe = health::run(&shared, &say, &ended);
            tokio::join!(write, probe, retention::run(&shared, options.retention, &shutdown));
        });
        (ledger, task)
    }

    /// Hands over a row of a look or a cycle. Never waits: when [`QUEUE_ROWS`] are waiting the row is dropped and counted.
    pub fn offer(&self, row: impl Into<Row>) {
        self.shared.stats.waits(1);
        if self.shared.queue.try_send(row.into()).is_err() {
            self.shared.stats.waits_no_more(1);
            self.shared.lost.dropped(1, "the queue is full, or the operator is stopping");
        }
    }

    /// Writes the rows of a Remediation, all or none, and returns when they are durable: in the database, or, when that
    /// is away or does not have the rows of an earlier call yet, in the spool. Rows that are there already are left as
    /// they are, so calling it again with the same rows is always right.
    ///
    /// # Errors
    /// Neither the database nor the spool took them, within [`RECORD_LIMIT`] and 2 s. The rows may or may not be written
    /// then; call again until it succeeds, unless [`LedgerError::may_pass`] says that it never will.
    pub async fn record(&self, rows: Vec<Row>) -> Result<Recorded, LedgerError> {
        if rows.is_empty() {
            return Ok(Recorded::WriteTracker);
        }
        let shared = &self.shared;
        let has_others = match &shared.spool {
            // What an earlier life left comes before.
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
                Ok(Recorded::WriteTracker)
            }
            Err(error) => {
                shared.suspect(&error);
                if error.may_pass() && shared.spool_healing(&rows).await { Ok(Recorded::Spooled) } else { Err(error) }
            }
        }
    }

    /// Whether the ledger can be used. Wrong for at most about 10 s after a change; a full disk shows with the first write.
    pub fn health(&self) -> watch::Receiver<LedgerHealth> {
        self.shared.health.clone()
    }

    pub fn stats(&self) -> &LedgerStats {
        &self.shared.stats
    }
}

impl Shared {
    /// Puts healing rows into the spool. `false`: there is none, or it cannot take them, which is logged.
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

    /// Counts rows that are in, which also ends a [`Shared::recent_fault`].
    fn wrote(&self, new: u64) {
        self.stats.written(new);
        *self.fault.lock() = None;
    }

    /// Counts a failure and lets the probe find out what it means.
    fn suspect(&self, error: &LedgerError) {
        self.stats.failed();
        if !error.may_pass() {
            return;
        }
        if error.is_of_writing() {
            *self.fault.lock() = Some((Instant::now(), error.clone()));
        }
        self.suspicion.notify_one();
    }

    /// A fault that only writing shows (a full disk) and that no later write has refuted.
    fn recent_fault(&self) -> Option<LedgerError> {
        let fault = self.fault.lock();
        fault.as_ref().filter(|(at, _)| at.elapsed() < FAULT_LASTS).map(|(_, error)| error.clone())
    }
}

/// Asks again for as long as somebody else has the database. A SQLite file that two begin to use says so at once, without the
/// time that a statement waits.
async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, LedgerError>
where
    F: Future<Output = Result<T, LedgerError>>,
{
    loop {
        match ask().await {
            Err(error) if error.reason() == LedgerReason::Busy => tokio::time::sleep(BUSY_PAUSE).await,
            done => return done,
        }
    }
}

/// Bounds an operation. What it used is dropped with it, so nothing goes on behind our back.
async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(LedgerError::timeout(what, limit)),
    }
}
