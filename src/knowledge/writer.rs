//! Takes offered rows to the database, or to the spool while the database is away, and what is in the spool to the
//! database when it is back; counts what it has to give up.
//!
//! Rows keep their order: while the spool holds rows, what is offered goes in behind them. One thing is done at a time,
//! and meanwhile the queue is emptied into the backlog.

use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
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

/// How long one batch may take, before its connection is given up.
const BATCH_LIMIT: Duration = Duration::from_secs(5);

/// How long the last offered rows may take at the end, before they are spooled, or given up and counted.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// Of it, how long they may take into the database when there is a spool to put them into after that.
const FLUSH_BEFORE_SPOOL: Duration = Duration::from_secs(3);

/// Between two attempts: from the first to the last, doubled each time, with jitter. The last is short enough that rows
/// flow again soon after the database is back.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LAST: Duration = Duration::from_secs(4);

/// Between two times that a raised count of lost rows alone is saved in the spool.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Between two log lines about lost rows, and two about a spool that cannot be used.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Says something at most once in [`WARN_EVERY`].
#[derive(Default)]
struct Sometimes(Mutex<Option<Instant>>);

impl Sometimes {
    fn may(&self) -> bool {
        let mut said = self.0.lock();
        let may = said.is_none_or(|last| last.elapsed() >= WARN_EVERY);
        if may {
            *said = Some(Instant::now());
        }
        may
    }
}

/// Counts lost rows, and says so at most once a minute.
pub(super) struct LostRows {
    stats: LedgerStats,
    warn: Sometimes,
    warn_of_spool: Sometimes,
}

impl LostRows {
    pub(super) fn new(stats: LedgerStats) -> Self {
        Self { stats, warn: Sometimes::default(), warn_of_spool: Sometimes::default() }
    }

    pub(super) fn dropped(&self, rows: u64, why: &str) {
        self.stats.dropped(rows);
        if self.warn.may() {
            let total = self.stats.rows_dropped();
            tracing::warn!(
                total,
                "ledger: rows of looks or cycles dropped: {why}; rows of remediations are not affected"
            );
        }
    }

    fn refused(&self, row: &Row, error: &LedgerError, fate: &str) {
        self.stats.refused(1);
        if self.warn.may() {
            let (table, id, total) = (row.table(), row.id(), self.stats.rows_refused());
            tracing::warn!(table, %id, total, "ledger: a row was refused and {fate}: {}", error.message());
        }
    }

    pub(super) fn spool_failed(&self, error: &LedgerError) {
        if self.warn_of_spool.may() {
            tracing::warn!(
                "{error}; while the database is away, rows of looks wait in memory, and remediations are kept until theirs are written"
            );
        }
    }
}

/// What one attempt came to.
enum Done {
    /// What it was given is in the database, or counted as refused.
    WriteTracker,
    /// In the spool, or nothing had to be brought anywhere. With why the database did not take it, if it was asked.
    Spooled(Option<LedgerError>),
    /// Rows of the backlog that could not be brought anywhere, in order.
    Left(Vec<Row>, LedgerError),
    /// The spool could not be used.
    SpoolFailed(Vec<Row>),
    /// What the spool holds stays there.
    NotDrained(LedgerError),
}

type Attempt<'a> = Pin<Box<dyn Future<Output = Done> + Send + 'a>>;

struct Writer<'a> {
    shared: &'a Shared,
    backlog: Backlog,
    attempt: Option<Attempt<'a>>,
    /// The rows of the backlog that are on their way.
    under_way: Arc<[Row]>,
    retries: ExponentialBackoff,
    not_before: Instant,
    /// The database was not there when it was last asked.
    away: bool,
    spool_not_before: Instant,
    save_not_before: Instant,
    /// The last attempt was to the spool: what is in it has its turn as well.
    spooled_last: bool,
}

/// Writes until `shutdown`, then what is left for at most [`FLUSH_LIMIT`].
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
            done = finished(&mut writer.attempt) => writer.settle(done),
            // Rows of a Remediation were spooled: a new moment is due.
            () = shared.spooled.notified() => {}
            () = reached(due) => writer.begin(),
        }
    }
    queue.close();
    while let Some(row) = queue.recv().await {
        writer.keep(row);
    }
    let limit = if shared.spool.is_some() { FLUSH_BEFORE_SPOOL } else { FLUSH_LIMIT };
    if tokio::time::timeout(limit, writer.flush()).await.is_err() {
        writer.give_up().await;
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
            under_way: [].into(),
            retries: schedule(),
            not_before: Instant::now(),
            away: false,
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
            self.shared.stats.waits_no_more(shed);
            self.shared.lost.dropped(shed, "the database has been away for longer than the backlog lasts");
        }
    }

    /// The spool, unless it could not be used a moment ago.
    fn spool(&self) -> Option<&'a Spool> {
        self.shared.spool.as_ref().filter(|_| self.spool_not_before <= Instant::now())
    }

    fn holds_rows(&self) -> bool {
        self.shared.stats.healing_spooled() + self.shared.stats.health_spooled() > 0
    }

    /// When the next attempt is due; `None` when nothing waits or one is on its way.
    fn due(&self) -> Option<Instant> {
        if self.attempt.is_some() {
            return None;
        }
        let drain = self.holds_rows().then(|| self.not_before.max(self.spool_not_before));
        let write = self.backlog.due().map(|due| if self.is_spooling() { due } else { due.max(self.not_before) });
        let save = self.has_to_save().then(|| self.save_not_before.max(self.spool_not_before));
        let take_up = self.has_to_take_up().then_some(self.spool_not_before);
        drain.into_iter().chain(write).chain(save).chain(take_up).min()
    }

    /// Offered rows go into the spool now: the database is away, or others are in there before them.
    fn is_spooling(&self) -> bool {
        self.spool().is_some() && (self.away || self.holds_rows())
    }

    fn has_to_take_up(&self) -> bool {
        self.shared.spool.as_ref().is_some_and(|spool| !spool.is_taken_up())
    }

    fn has_to_save(&self) -> bool {
        self.shared.spool.is_some() && self.shared.stats.has_unsaved()
    }

    fn begin(&mut self) {
        let now = Instant::now();
        let shared = self.shared;
        if let Some(spool) = self.spool().filter(|_| self.has_to_take_up()) {
            self.attempt = Some(Box::pin(take_up(shared, spool)));
            return;
        }
        if let Some(spool) = self.spool().filter(|_| self.has_to_save() && self.save_not_before <= now) {
            self.save_not_before = now + SAVE_EVERY;
            self.attempt = Some(Box::pin(put_into_spool(shared, spool, [].into(), None)));
            return;
        }
        let drain = self.spool().filter(|_| self.holds_rows() && self.not_before <= now);
        let spool = self.spool().filter(|_| self.is_spooling() && self.backlog.due().is_some_and(|due| due <= now));
        match (spool, drain) {
            (Some(spool), drain) if drain.is_none() || !self.spooled_last => {
                let rows = self.take_batch();
                self.spooled_last = true;
                self.attempt = Some(Box::pin(put_into_spool(shared, spool, rows, None)));
            }
            (_, Some(spool)) => {
                self.spooled_last = false;
                self.attempt = Some(Box::pin(drain_spool(shared, spool)));
            }
            _ if !self.backlog.is_empty() => {
                let rows = self.take_batch();
                self.attempt = Some(Box::pin(write_or_spool(shared, self.spool(), rows)));
            }
            _ => {}
        }
    }

    fn take_batch(&mut self) -> Arc<[Row]> {
        self.under_way = self.backlog.take_batch().into();
        Arc::clone(&self.under_way)
    }

    fn settle(&mut self, done: Done) {
        self.attempt = None;
        let under_way = std::mem::replace(&mut self.under_way, [].into()).len();
        let mut back = 0;
        match done {
            Done::WriteTracker => {
                self.away = false;
                self.retries = schedule();
                self.not_before = Instant::now();
            }
            Done::Spooled(None) => {}
            Done::Spooled(Some(error)) | Done::NotDrained(error) => self.database_failed(&error),
            Done::SpoolFailed(rows) => {
                self.spool_not_before = Instant::now() + RETRY_LAST;
                back = self.put_back(rows);
            }
            Done::Left(rows, error) => {
                self.database_failed(&error);
                back = self.put_back(rows);
            }
        }
        self.shared.stats.waits_no_more((under_way - back) as u64);
        self.shed();
    }

    fn put_back(&mut self, rows: Vec<Row>) -> usize {
        let back = rows.len();
        self.backlog.put_back(rows);
        back
    }

    fn database_failed(&mut self, error: &LedgerError) {
        self.away = true;
        self.shared.suspect(error);
        self.not_before = Instant::now() + self.retries.next().unwrap_or(RETRY_LAST);
    }

    /// Until no offered row is in memory. What is in the spool stays there for the next life.
    async fn flush(&mut self) {
        while self.attempt.is_some() || !self.backlog.is_empty() {
            if self.attempt.is_none() {
                let (shared, rows) = (self.shared, self.take_batch());
                self.attempt = Some(match self.spool().filter(|_| self.is_spooling()) {
                    Some(spool) => Box::pin(put_into_spool(shared, spool, rows, None)),
                    None => {
                        tokio::time::sleep_until(self.not_before).await;
                        Box::pin(write_or_spool(shared, self.spool(), rows))
                    }
                });
            }
            let done = finished(&mut self.attempt).await;
            self.settle(done);
        }
    }

    /// The database took too long: into the spool with what is left, or out with it.
    async fn give_up(&mut self) {
        self.attempt = None;
        let under_way = std::mem::replace(&mut self.under_way, [].into());
        self.backlog.put_back(under_way.to_vec());
        let mut lost = 0;
        while !self.backlog.is_empty() {
            let rows = self.backlog.take_batch();
            self.shared.stats.waits_no_more(rows.len() as u64);
            let kept = match self.spool() {
                Some(spool) => spool.append(Kind::Health, &rows).await,
                None => Err(LedgerError::new(LedgerReason::Unreachable, "there is no spool")),
            };
            if kept.is_err() {
                // The next batch would wait as long.
                self.spool_not_before = Instant::now() + RETRY_LAST;
                lost += rows.len() as u64;
            }
        }
        if lost > 0 {
            self.shared.lost.dropped(lost, "the operator stops and the database is not there");
        }
    }
}

async fn finished(attempt: &mut Option<Attempt<'_>>) -> Done {
    match attempt {
        Some(attempt) => attempt.await,
        None => std::future::pending().await,
    }
}

async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What became of a batch.
struct Outcome {
    /// Refused for what they hold; the others got in.
    refused: Vec<(Row, LedgerError)>,
    /// What was not written, in order.
    left: Option<(Vec<Row>, LedgerError)>,
}

/// Writes a batch. When a row of it is refused the batch is halved until that row is alone, so that the others get in.
async fn write(shared: &Shared, batch: &[Row]) -> Outcome {
    let mut refused = Vec::new();
    // A stack: the part to be written next is the last.
    let mut parts = vec![batch];
    while let Some(part) = parts.pop() {
        match within(BATCH_LIMIT, "writing a batch", shared.database.insert(User::Batches, part)).await {
            Ok(new) => shared.wrote(new),
            Err(error) if error.reason() == LedgerReason::RowRefused => {
                shared.stats.failed();
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
        (None, _) => Done::WriteTracker,
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

/// `error`: why not into the database, if that was tried.
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
        Ok(()) => Done::WriteTracker,
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
