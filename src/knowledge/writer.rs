//! Writes offered rows in batches, keeps them while the database is away, and counts what it has to give up.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::database::User;
use super::error::{LedgerError, LedgerReason};
use super::stats::LedgerStats;
use super::{Shared, within};

use super::row::Row;

/// A batch is written when its oldest row has waited this long, so that a row is seen in SQL within a second,
const BATCH_AGE: Duration = Duration::from_millis(500);
/// or when it has this many rows, about what PostgreSQL takes in 20 ms,
const BATCH_ROWS: usize = 500;
/// or this many bytes, about as much as is copied a few times on the way.
const BATCH_BYTES: usize = 1024 * 1024;

/// Rows kept while the database is away, oldest dropped first: 4 minutes of 1,000 components at one look a minute.
const BACKLOG_ROWS: usize = 8192;
/// And in bytes, since the operator is to live in 60 MB.
const BACKLOG_BYTES: usize = 16 * 1024 * 1024;

/// How long one batch may take, before its connection is given up.
const BATCH_LIMIT: Duration = Duration::from_secs(5);

/// How long the last offered rows may take at the end, before they are given up and counted.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// Between two attempts: from the first to the last, doubled each time, with jitter. The last is short enough that rows
/// flow again soon after the database is back.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LAST: Duration = Duration::from_secs(4);

/// Between two log lines about lost rows.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Counts lost rows, and says so at most once a minute.
pub(super) struct LostRows {
    stats: LedgerStats,
    warned: Mutex<Option<Instant>>,
}

impl LostRows {
    pub(super) fn new(stats: LedgerStats) -> Self {
        Self { stats, warned: Mutex::new(None) }
    }

    pub(super) fn dropped(&self, rows: u64, why: &str) {
        self.stats.dropped(rows);
        if self.may_warn() {
            let total = self.stats.rows_dropped();
            tracing::warn!(
                total,
                "ledger: rows of looks or cycles dropped: {why}; rows of remediations are not affected"
            );
        }
    }

    fn refused(&self, row: &Row, error: &LedgerError) {
        self.stats.refused(1);
        if self.may_warn() {
            let (table, id, total) = (row.table(), row.id(), self.stats.rows_refused());
            tracing::warn!(table, %id, total, "ledger: a row was refused and is lost: {}", error.message());
        }
    }

    fn may_warn(&self) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let may = warned.is_none_or(|last| last.elapsed() >= WARN_EVERY);
        if may {
            *warned = Some(Instant::now());
        }
        may
    }
}

/// Rows that wait, oldest first.
#[derive(Default)]
struct Backlog {
    rows: VecDeque<(Row, usize, Instant)>,
    bytes: usize,
}

impl Backlog {
    fn push(&mut self, row: Row) {
        let weight = row.weight();
        self.bytes += weight;
        self.rows.push_back((row, weight, Instant::now()));
    }

    /// Drops the oldest rows beyond the limits. Returns how many.
    fn shed(&mut self) -> u64 {
        let mut shed = 0;
        while self.rows.len() > BACKLOG_ROWS || self.bytes > BACKLOG_BYTES {
            let Some((_, weight, _)) = self.rows.pop_front() else { break };
            self.bytes -= weight;
            shed += 1;
        }
        shed
    }

    /// When the next batch is due; `None` when nothing waits.
    fn due(&self) -> Option<Instant> {
        let (_, _, since) = self.rows.front()?;
        let full = self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES;
        Some(if full { *since } else { *since + BATCH_AGE })
    }

    fn take_batch(&mut self) -> Vec<Row> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some((_, weight, _)) = self.rows.front() {
            if batch.len() == BATCH_ROWS || (!batch.is_empty() && bytes + weight > BATCH_BYTES) {
                break;
            }
            let Some((row, weight, _)) = self.rows.pop_front() else { break };
            bytes += weight;
            batch.push(row);
        }
        self.bytes -= bytes;
        batch
    }

    /// Puts back, in front, what could not be written.
    fn put_back(&mut self, rows: Vec<Row>) {
        let now = Instant::now();
        for row in rows.into_iter().rev() {
            let weight = row.weight();
            self.bytes += weight;
            self.rows.push_front((row, weight, now));
        }
    }
}

/// What could not be written now, in order.
struct Left {
    rows: Vec<Row>,
    error: LedgerError,
}

type Attempt<'a> = Pin<Box<dyn Future<Output = Option<Left>> + Send + 'a>>;

struct Writer<'a> {
    shared: &'a Shared,
    backlog: Backlog,
    /// At most one batch is on its way; meanwhile the queue is emptied into the backlog.
    attempt: Option<Attempt<'a>>,
    rows_on_their_way: usize,
    retries: ExponentialBackoff,
    not_before: Instant,
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
            left = finished(&mut writer.attempt) => writer.settle(left),
            () = reached(due) => writer.begin(),
        }
    }
    queue.close();
    while let Some(row) = queue.recv().await {
        writer.keep(row);
    }
    if tokio::time::timeout(FLUSH_LIMIT, writer.flush()).await.is_err() {
        let lost = writer.rows_on_their_way + writer.backlog.rows.len();
        shared.lost.dropped(lost as u64, "the operator stops and the database is not there");
    }
}

impl<'a> Writer<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            backlog: Backlog::default(),
            attempt: None,
            rows_on_their_way: 0,
            retries: schedule(),
            not_before: Instant::now(),
        }
    }

    fn keep(&mut self, row: Row) {
        self.backlog.push(row);
        self.shed();
    }

    fn shed(&mut self) {
        let shed = self.backlog.shed();
        if shed > 0 {
            self.shared.lost.dropped(shed, "the database has been away for longer than the backlog lasts");
        }
    }

    /// When the next batch is to be written; `None` when nothing waits or one is on its way.
    fn due(&self) -> Option<Instant> {
        if self.attempt.is_some() {
            return None;
        }
        self.backlog.due().map(|due| due.max(self.not_before))
    }

    fn begin(&mut self) {
        let batch = self.backlog.take_batch();
        self.rows_on_their_way = batch.len();
        self.attempt = Some(Box::pin(write(self.shared, batch)));
    }

    fn settle(&mut self, left: Option<Left>) {
        self.attempt = None;
        self.rows_on_their_way = 0;
        match left {
            None => {
                self.retries = schedule();
                self.not_before = Instant::now();
            }
            Some(Left { rows, error }) => {
                self.shared.suspect(&error);
                self.backlog.put_back(rows);
                self.shed();
                self.not_before = Instant::now() + self.retries.next().unwrap_or(RETRY_LAST);
            }
        }
    }

    async fn flush(&mut self) {
        while self.attempt.is_some() || !self.backlog.rows.is_empty() {
            if self.attempt.is_none() {
                tokio::time::sleep_until(self.not_before).await;
                self.begin();
            }
            let left = finished(&mut self.attempt).await;
            self.settle(left);
        }
    }
}

async fn finished(attempt: &mut Option<Attempt<'_>>) -> Option<Left> {
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

/// Writes a batch. When a row of it is refused the batch is halved until that row is alone, so that the others get in.
async fn write(shared: &Shared, batch: Vec<Row>) -> Option<Left> {
    // A stack: the part to be written next is the last.
    let mut parts = vec![batch];
    while let Some(mut part) = parts.pop() {
        match within(BATCH_LIMIT, "writing a batch", shared.database.insert(User::Batches, &part)).await {
            Ok(new) => shared.wrote(new),
            Err(error) if error.reason() == LedgerReason::RowRefused => {
                shared.stats.failed();
                if let [row] = part.as_slice() {
                    shared.lost.refused(row, &error);
                } else {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                }
            }
            Err(error) => {
                let rows = part.into_iter().chain(parts.into_iter().rev().flatten()).collect();
                return Some(Left { rows, error });
            }
        }
    }
    None
}

fn schedule() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(RETRY_FIRST)
        .with_max_delay(RETRY_LAST)
        .without_max_times()
        .with_jitter()
        .build()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::knowledge::{HealthRow, look_id};

    fn row(number: i64, text: usize) -> Row {
        let at = Timestamp::from_second(number).unwrap();
        HealthRow {
            id: look_id("shop", "web", "api", at),
            namespace: "shop".into(),
            policy: "web".into(),
            component: "api".into(),
            score: Some(1.0),
            trend: None,
            predicted_failure_time: None,
            failure_probability: None,
            metrics: [].into(),
            warnings: vec!["x".repeat(text)],
            at,
        }
        .into()
    }

    fn ids(rows: &[Row]) -> Vec<uuid::Uuid> {
        rows.iter().map(Row::id).collect()
    }

    #[test]
    fn the_backlog_sheds_the_oldest_by_rows_and_by_bytes() {
        let mut backlog = Backlog::default();
        (0..BACKLOG_ROWS as i64 + 3).for_each(|number| backlog.push(row(number, 1)));
        assert_eq!(backlog.shed(), 3);
        assert_eq!(backlog.take_batch()[0].id(), row(3, 1).id());

        let mut backlog = Backlog::default();
        (0..5).for_each(|number| backlog.push(row(number, BACKLOG_BYTES / 4)));
        assert_eq!(backlog.shed(), 2);
        assert!(backlog.bytes <= BACKLOG_BYTES);
    }

    #[test]
    fn batches_are_bounded_and_what_is_put_back_comes_first() {
        let mut backlog = Backlog::default();
        (0..BATCH_ROWS as i64 + 10).for_each(|number| backlog.push(row(number, 1)));
        let first = backlog.take_batch();
        assert_eq!(first.len(), BATCH_ROWS);
        let expected = ids(&first);
        backlog.put_back(first);
        assert_eq!(ids(&backlog.take_batch()), expected);
        assert_eq!(backlog.take_batch().len(), 10);
        assert_eq!((backlog.bytes, backlog.due()), (0, None));

        // A row larger than the limit goes alone instead of never.
        (0..2).for_each(|number| backlog.push(row(number, BATCH_BYTES + 1)));
        assert_eq!(backlog.take_batch().len(), 1);
    }
}
