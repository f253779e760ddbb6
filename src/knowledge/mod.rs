//! Knowledge: the SQL ledger, in PostgreSQL or an embedded SQLite file.
//!
//! **Promises.** A dead database never stops healing: [`Ledger::start`] always succeeds at once, [`Ledger::offer`] never
//! waits, and everything else has a time limit. A row is in its table once, however often it is written, because ids are
//! derived ([`row_id`], [`look_id`]) and an insert of an id that is there does nothing. The rows of a Remediation
//! ([`Ledger::record`]) are in the database when the call returns `Ok`; its caller retries until then, and keeps the
//! Remediation until then. Rows of looks and cycles ([`Ledger::offer`]) may be lost when the database is away for longer
//! than the backlog lasts; each lost row is counted in [`LedgerStats`].
//!
//! **Tables** (made on first use, never altered): `unified_brain`, `ai_proactive_health`, `ai_rollback_history`. JSON is
//! `jsonb` in PostgreSQL and text in SQLite; a time is `timestamptz`, or RFC 3339 text with six decimals that sorts as the
//! time does. Existing tables are used when they have the needed columns; otherwise [`LedgerHealth`] says what is wrong.
//! [`views`] are made beside them where that is allowed; nothing here needs them.
//!
//! **Reading.** [`Reader`] asks [`queries`] and tells an [`incident`], beside whoever writes and without a right to.
//!
//! **Growth.** A look writes two rows of about 0.5 kB together with their index entries: 1,000 components at one look a
//! minute are 2.9 million rows and about 1.5 GB a day. Nothing is removed here yet; until there is a retention, delete by
//! `executed_at` and `created_at`.
//!
//! **Not here.** No decision, no Kubernetes type, no retry of `record`, no spool on disk (rows that wait are in memory).

mod database;
mod error;
mod health;
mod history;
pub mod incident;
mod line;
mod postgres;
pub mod queries;
mod reader;
mod row;
mod schema;
mod sqlite;
mod stats;
pub mod summary;
pub mod views;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
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
    ActionType, Agent, BrainRow, COMPONENT_KEY, HealthRow, Metadata, RollbackRow, Row, cycle_id, look_id, outcome_id,
    row_id,
};
pub use schema::Dialect;
pub use stats::LedgerStats;
pub use writer::FLUSH_LIMIT;

/// Rows that wait for the writer to look up from what it does. A look is two rows and all of 1,000 components may be
/// looked at in the same second, so 2,000 at once, and as many again in reserve.
pub const QUEUE_ROWS: usize = 4096;

/// How long [`Ledger::record`] may take.
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

/// A handle on the ledger. Cheap to clone; all clones are one ledger.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    database: Database,
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
    /// The task ends after `shutdown`, when what was offered is written or [`FLUSH_LIMIT`] is over. `record`
    /// works until the handle is gone.
    pub fn start(config: LedgerConfig, shutdown: CancellationToken) -> (Self, JoinHandle<()>) {
        let (queue, rows) = mpsc::channel(QUEUE_ROWS);
        let (say, health) = watch::channel(LedgerHealth::Unknown);
        let stats = LedgerStats::default();
        let suspicion = Arc::new(Notify::new());
        let lost = writer::LostRows::new(stats.clone());
        let database = Database::new(config);
        let fault = Mutex::new(None);
        let shared = Arc::new(Shared { database, queue, health, suspicion, stats, lost, fault });
        let ledger = Self { shared: Arc::clone(&shared) };
        let task = tokio::spawn(async move {
            let ended = CancellationToken::new();
            let write = async {
                writer::run(&shared, rows, &shutdown).await;
                ended.cancel();
            };
            // The probe goes on during the last flush, so that the health is true to the end.
            tokio::join!(write, health::run(&shared, &say, &ended));
        });
        (ledger, task)
    }

    /// Hands over a row of a look or a cycle. Never waits: when [`QUEUE_ROWS`] are waiting the row is dropped and counted.
    pub fn offer(&self, row: impl Into<Row>) {
        if self.shared.queue.try_send(row.into()).is_err() {
            self.shared.lost.dropped(1, "the queue is full, or the operator is stopping");
        }
    }

    /// Writes the rows of a Remediation, all or none, and returns when they are durable. Rows that are there already
    /// are left as they are, so calling it again with the same rows is always right.
    ///
    /// # Errors
    /// Within [`RECORD_LIMIT`], whatever the database does. The rows may or may not be written then; call again until
    /// it succeeds, unless [`LedgerError::may_pass`] says that it never will.
    pub async fn record(&self, rows: Vec<Row>) -> Result<(), LedgerError> {
        if rows.is_empty() {
            return Ok(());
        }
        let write = patiently(|| self.shared.database.insert(User::Records, &rows));
        let done = within(RECORD_LIMIT, "writing the rows", write).await;
        match &done {
            Ok(new) => self.shared.wrote(*new),
            Err(error) => self.shared.suspect(error),
        }
        done.map(|_| ())
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
    /// Counts rows that are in, which also ends a [`Shared::recent_fault`].
    fn wrote(&self, new: u64) {
        self.stats.written(new);
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Counts a failure and lets the probe find out what it means.
    fn suspect(&self, error: &LedgerError) {
        self.stats.failed();
        if !error.may_pass() {
            return;
        }
        if error.is_of_writing() {
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), error.clone()));
        }
        self.suspicion.notify_one();
    }

    /// A fault that only writing shows (a full disk) and that no later write has refuted.
    fn recent_fault(&self) -> Option<LedgerError> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
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
