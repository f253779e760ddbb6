//! Writes offered rows to the database, or to the spool while the database is unreachable, and later from the spool to the
//! database; counts lost rows.
//!
//! Rows keep their order: while the spool contains rows, offered rows are appended to it. There is one attempt at a time, and
//! in the meantime the queue is emptied into the backlog.

use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures::future::OptionFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use super::database::User;
use super::error::{LedgerError, LedgerReason};
use super::row::Row;
use super::spool::{Kind, Spool};
use super::stats::LedgerStats;
use super::{Shared, within};

/// Time limit of a batch; then its connection is dropped.
const BATCH_LIMIT: Duration = Duration::from_secs(5);

/// Time limit for the last offered rows at the end; then they are spooled, or counted as lost.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// The part of it for the database, when there is a spool.
const FLUSH_BEFORE_SPOOL: Duration = Duration::from_secs(3);

/// Pause between two attempts: from the first to the last, doubled each time, with jitter. The last is short, so that writing
/// resumes soon after an outage.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LAST: Duration = Duration::from_secs(4);

/// Pause between two updates of the count of lost rows in the spool without other entries.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Pause between two log lines about lost rows, and between two about a failing spool.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Allows a log line at most once in [`WARN_EVERY`].
#[derive(Default)]
struct LogLimit(Mutex<Option<Instant>>);

impl LogLimit {
    fn allows(&self) -> bool {
        let mut last = self.0.lock();
        let allows = last.is_none_or(|last| last.elapsed() >= WARN_EVERY);
        if allows {
            *last = Some(Instant::now());
        }
        allows
    }
}

/// Counts lost rows, with a log line at most once a minute.
pub(super) struct LostRows {
    stats: LedgerStats,
    rows: LogLimit,
    spool: LogLimit,
}

impl LostRows {
    pub(super) fn new(stats: LedgerStats) -> Self {
        Self { stats, rows: LogLimit::default(), spool: LogLimit::default() }
    }

    pub(super) fn dropped(&self, rows: u64, why: &str) {
        self.stats.dropped(rows);
        if self.rows.allows() {
            let total = self.stats.rows_dropped();
            tracing::warn!(
                total,
                "ledger: rows of checks or cycles dropped: {why}; rows of remediations are not affected"
            );
        }
    }

    fn refused(&self, row: &Row, error: &LedgerError, fate: &str) {
        self.stats.rows_refused.inc();
        if self.rows.allows() {
            let (table, id, total) = (row.table(), row.id(), self.stats.rows_refused());
            tracing::warn!(table, %id, total, "ledger: the database refused a row, which {fate}: {}", error.message());
        }
    }

    pub(super) fn spool_failed(&self, error: &LedgerError) {
        if self.spool.allows() {
            tracing::warn!(
                "{error}; while the database is unreachable, rows of checks wait in memory, and remediations stay until \
                 their rows are written"
            );
        }
    }
}

/// The result of an attempt.
enum Done {
    /// All its rows are in the database, or counted as refused.
    Written,
    /// All its rows are in the spool. With the error of the database, if the attempt included it.
    Spooled(Option<LedgerError>),
    /// Rows of the backlog that were not stored, in order.
    Left(Vec<Row>, LedgerError),
    /// The spool could not be used.
    SpoolFailed(Vec<Row>),
    /// The rows of the spool stay there.
    NotDrained(LedgerError),
}

type Attempt<'a> = Pin<Box<dyn Future<Output = Done> + Send + 'a>>;

struct Writer<'a> {
    shared: &'a Shared,
    backlog: Backlog,
    attempt: Option<Attempt<'a>>,
    /// The rows of the backlog in the attempt.
    in_attempt: Arc<[Row]>,
    retries: ExponentialBackoff,
    not_before: Instant,
    /// The last attempt to write failed.
    unreachable: bool,
    spool_not_before: Instant,
    save_not_before: Instant,
    /// The last attempt appended to the spool: next, its entries go to the database.
    spooled_last: bool,
}

/// Writes until `shutdown`, and then the remaining rows for at most [`FLUSH_LIMIT`].
pub(super) async fn run(shared: &Shared, mut queue: mpsc::Receiver<Row>, shutdown: &CancellationToken) {
    let mut writer = Writer::new(shared);
    loop {
        let due = writer.due();
        tokio::select! {
            () = shutdown.cancelled() => break,
            row = queue.recv() => match row {
                Some(row) => writer.keep(row),
                None => break,
            },
            Some(done) = OptionFuture::from(writer.attempt.as_mut()) => writer.settle(done),
            // Rows of a Remediation were spooled, which changes the due time.
            () = shared.spooled.notified() => {}
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => writer.begin(),
        }
    }
    queue.close();
    while let Some(row) = queue.recv().await {
        writer.keep(row);
    }
    let limit = if shared.spool.is_some() { FLUSH_BEFORE_SPOOL } else { FLUSH_LIMIT };
    if tokio::time::timeout(limit, writer.flush()).await.is_err() {
        writer.abandon().await;
    }
    if let Some(spool) = writer.spool().filter(|_| writer.has_to_save()) {
        put_into_spool(shared, spool, [].into(), None).await;
    }
}

impl<'a> Writer<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            backlog: Backlog::default(),
            attempt: None,
            in_attempt: [].into(),
            retries: schedule(),
            not_before: Instant::now(),
            unreachable: false,
            spool_not_before: Instant::now(),
            save_not_before: Instant::now(),
            spooled_last: false,
        }
    }

    fn keep(&mut self, row: Row) {
        self.backlog.push(row);
        self.shed();
    }

    fn shed(&mut self) {
        let shed = self.backlog.shed();
        if shed > 0 {
            self.shared.stats.rows_waiting.dec_by(shed);
            self.shared.lost.dropped(shed, "the database was unreachable for too long and the backlog is full");
        }
    }

    /// The spool, unless it failed less than [`RETRY_LAST`] ago.
    fn spool(&self) -> Option<&'a Spool> {
        self.shared.spool.as_ref().filter(|_| self.spool_not_before <= Instant::now())
    }

    fn spool_has_rows(&self) -> bool {
        !self.shared.stats.is_spool_empty()
    }

    /// When the next attempt is due; `None` without rows or during an attempt.
    fn due(&self) -> Option<Instant> {
        if self.attempt.is_some() {
            return None;
        }
        let drain = self.spool_has_rows().then(|| self.not_before.max(self.spool_not_before));
        let write = self.backlog.due().map(|due| if self.is_spooling() { due } else { due.max(self.not_before) });
        let save = self.has_to_save().then(|| self.save_not_before.max(self.spool_not_before));
        let take_up = self.has_to_take_up().then_some(self.spool_not_before);
        drain.into_iter().chain(write).chain(save).chain(take_up).min()
    }

    /// Offered rows go into the spool now: the database is unreachable, or the spool has older rows.
    fn is_spooling(&self) -> bool {
        self.spool().is_some() && (self.unreachable || self.spool_has_rows())
    }

    fn has_to_take_up(&self) -> bool {
        self.shared.spool.as_ref().is_some_and(|spool| !spool.is_taken_up())
    }

    fn has_to_save(&self) -> bool {
        self.shared.spool.is_some() && self.shared.stats.dropped_unsaved.get() > 0
    }

    fn begin(&mut self) {
        let (now, shared, spool) = (Instant::now(), self.shared, self.spool());
        let append = self.is_spooling() && self.backlog.due().is_some_and(|due| due <= now);
        let drain = self.spool_has_rows() && self.not_before <= now;
        let attempt: Attempt<'a> = match spool {
            Some(spool) if self.has_to_take_up() => Box::pin(take_up(shared, spool)),
            Some(spool) if self.has_to_save() && self.save_not_before <= now => {
                self.save_not_before = now + SAVE_EVERY;
                Box::pin(put_into_spool(shared, spool, [].into(), None))
            }
            Some(spool) if append && !(drain && self.spooled_last) => {
                self.spooled_last = true;
                Box::pin(put_into_spool(shared, spool, self.take_batch(), None))
            }
            Some(spool) if drain => {
                self.spooled_last = false;
                Box::pin(drain_spool(shared, spool))
            }
            _ if !self.backlog.is_empty() => Box::pin(write_or_spool(shared, spool, self.take_batch())),
            _ => return,
        };
        self.attempt = Some(attempt);
    }

    fn take_batch(&mut self) -> Arc<[Row]> {
        self.in_attempt = self.backlog.take_batch().into();
        Arc::clone(&self.in_attempt)
    }

    fn settle(&mut self, done: Done) {
        self.attempt = None;
        let in_attempt = std::mem::replace(&mut self.in_attempt, [].into()).len();
        let mut back = Vec::new();
        match done {
            Done::Written => {
                self.unreachable = false;
                self.retries = schedule();
                self.not_before = Instant::now();
            }
            Done::Spooled(None) => {}
            Done::Spooled(Some(error)) | Done::NotDrained(error) => self.database_failed(&error),
            Done::SpoolFailed(rows) => {
                self.spool_not_before = Instant::now() + RETRY_LAST;
                back = rows;
            }
            Done::Left(rows, error) => {
                self.database_failed(&error);
                back = rows;
            }
        }
        self.shared.stats.rows_waiting.dec_by((in_attempt - back.len()) as u64);
        self.backlog.put_back(back);
        self.shed();
    }

    fn database_failed(&mut self, error: &LedgerError) {
        self.unreachable = true;
        self.shared.suspect(error);
        self.not_before = Instant::now() + self.retries.next().unwrap_or(RETRY_LAST);
    }

    /// Until no offered row is in memory. The rows of the spool stay there for the next process.
    async fn flush(&mut self) {
        loop {
            if let Some(attempt) = &mut self.attempt {
                let done = attempt.await;
                self.settle(done);
            }
            if self.backlog.is_empty() {
                return;
            }
            let (shared, rows) = (self.shared, self.take_batch());
            self.attempt = Some(match self.spool().filter(|_| self.is_spooling()) {
                Some(spool) => Box::pin(put_into_spool(shared, spool, rows, None)),
                None => {
                    tokio::time::sleep_until(self.not_before).await;
                    Box::pin(write_or_spool(shared, self.spool(), rows))
                }
            });
        }
    }

    /// The database took too long: spools the remaining rows, or counts them as lost.
    async fn abandon(&mut self) {
        self.attempt = None;
        let in_attempt = std::mem::replace(&mut self.in_attempt, [].into());
        self.backlog.put_back(in_attempt.to_vec());
        let mut lost = 0;
        while !self.backlog.is_empty() {
            let rows = self.backlog.take_batch();
            self.shared.stats.rows_waiting.dec_by(rows.len() as u64);
            let kept = match self.spool() {
                Some(spool) => spool.append(Kind::Health, &rows).await,
                None => Err(LedgerError::new(LedgerReason::Unreachable, "there is no spool")),
            };
            if kept.is_err() {
                // Do not let the next batch wait as long.
                self.spool_not_before = Instant::now() + RETRY_LAST;
                lost += rows.len() as u64;
            }
        }
        if lost > 0 {
            self.shared.lost.dropped(lost, "the operator is stopping and the database is unreachable");
        }
    }
}

/// The result of writing a batch.
struct Outcome {
    /// Rows refused because of their content; the others were inserted.
    refused: Vec<(Row, LedgerError)>,
    /// Rows that were not written, in order.
    left: Option<(Vec<Row>, LedgerError)>,
}

/// Writes a batch. When a row is refused, the batch is halved until that row is alone, so that the others are inserted.
async fn write(shared: &Shared, batch: &[Row]) -> Outcome {
    let mut refused = Vec::new();
    // A stack: the part to be written next is the last.
    let mut parts = vec![batch];
    while let Some(part) = parts.pop() {
        match within(BATCH_LIMIT, "writing a batch", shared.database.insert(User::Batches, part)).await {
            Ok(new) => shared.wrote(new),
            Err(error) if error.reason() == LedgerReason::RowRefused => {
                shared.stats.batches_failed.inc();
                if let [row] = part {
                    refused.push((row.clone(), error));
                } else {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
            Err(error) => {
                let rows = part.iter().chain(parts.into_iter().rev().flatten()).cloned().collect();
                return Outcome { refused, left: Some((rows, error)) };
            }
        }
    }
    Outcome { refused, left: None }
}

async fn write_or_spool(shared: &Shared, spool: Option<&Spool>, rows: Arc<[Row]>) -> Done {
    let Outcome { refused, left } = write(shared, &rows).await;
    for (row, error) in &refused {
        shared.lost.refused(row, error, "is lost");
    }
    match (left, spool) {
        (None, _) => Done::Written,
        (Some((rows, error)), Some(spool)) => put_into_spool(shared, spool, rows.into(), Some(error)).await,
        (Some((rows, error)), None) => Done::Left(rows, error),
    }
}

async fn take_up(shared: &Shared, spool: &Spool) -> Done {
    match spool.take_up().await {
        Ok(()) => Done::Spooled(None),
        Err(error) => spool_failed(shared, &error, Vec::new()),
    }
}

fn spool_failed(shared: &Shared, error: &LedgerError, rows: Vec<Row>) -> Done {
    shared.lost.spool_failed(error);
    Done::SpoolFailed(rows)
}

/// `error`: the error of the database, if the attempt included it.
async fn put_into_spool(shared: &Shared, spool: &Spool, rows: Arc<[Row]>, error: Option<LedgerError>) -> Done {
    let Err(why) = spool.append(Kind::Health, &rows).await else { return Done::Spooled(error) };
    let failed = spool_failed(shared, &why, rows.to_vec());
    match error {
        Some(error) => Done::Left(rows.to_vec(), error),
        None => failed,
    }
}

async fn drain_spool(shared: &Shared, spool: &Spool) -> Done {
    let oldest = match spool.oldest().await {
        Ok(oldest) if oldest.rows.is_empty() => return Done::Spooled(None),
        Ok(oldest) => oldest,
        Err(error) => return spool_failed(shared, &error, Vec::new()),
    };
    let Outcome { refused, left } = write(shared, &oldest.rows).await;
    if let Some((_, error)) = left {
        return Done::NotDrained(error);
    }
    let mut kept = Vec::new();
    for (row, error) in refused {
        if oldest.rows[..oldest.healing].contains(&row) {
            shared.lost.refused(&row, &error, "stays in the spool");
            kept.push(row);
        } else {
            shared.lost.refused(&row, &error, "is lost");
        }
    }
    match spool.remove(&oldest, &kept).await {
        Ok(()) => Done::Written,
        Err(error) => spool_failed(shared, &error, Vec::new()),
    }
}

fn schedule() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(RETRY_FIRST)
        .with_max_delay(RETRY_LAST)
        .without_max_times()
        .with_jitter()
        .build()
}
