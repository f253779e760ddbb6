//! Offered rows that wait in memory, oldest first.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::row::Row;

/// A batch is due when its oldest row has waited this long, so that a row is visible in SQL within a second,
const BATCH_AGE: Duration = Duration::from_millis(500);
/// or when there are this many rows: a larger batch costs less per row, but no row has to wait for it.
const BATCH_DUE: usize = 500;

/// Most rows in a batch. Rows gather while a batch is being written, so batches grow with the load: at 4,000 rows SQLite
/// writes half as many pages as at 500, since ids hit its index everywhere. PostgreSQL inserts this many in 100 ms.
pub(super) const BATCH_ROWS: usize = 4000;
/// Most bytes in a batch, which is copied a few times.
pub(super) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Most rows, oldest dropped first: 4 minutes of 1,000 components at one check a minute. With a spool they are only here
/// while one batch is being written.
const BACKLOG_ROWS: usize = 8192;
/// Most bytes: the operator should need at most 60 MB.
const BACKLOG_BYTES: usize = 16 * 1024 * 1024;

#[derive(Default)]
pub(super) struct Backlog {
    rows: VecDeque<(Row, usize, Instant)>,
    bytes: usize,
}

impl Backlog {
    pub(super) fn push(&mut self, row: Row) {
        let weight = row.weight();
        self.bytes += weight;
        self.rows.push_back((row, weight, Instant::now()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn pop(&mut self) -> Option<Row> {
        let (row, weight, _) = self.rows.pop_front()?;
        self.bytes -= weight;
        Some(row)
    }

    /// Drops the oldest rows beyond the limits. Returns how many.
    pub(super) fn shed(&mut self) -> u64 {
        let mut shed = 0;
        while (self.rows.len() > BACKLOG_ROWS || self.bytes > BACKLOG_BYTES) && self.pop().is_some() {
            shed += 1;
        }
        shed
    }

    /// When the next batch is due; `None` without rows.
    pub(super) fn due(&self) -> Option<Instant> {
        let (_, _, since) = self.rows.front()?;
        let full = self.rows.len() >= BATCH_DUE || self.bytes >= BATCH_BYTES;
        Some(if full { *since } else { *since + BATCH_AGE })
    }

    pub(super) fn take_batch(&mut self) -> Vec<Row> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some((_, weight, _)) = self.rows.front().filter(|_| batch.len() < BATCH_ROWS) {
            bytes += weight;
            if bytes > BATCH_BYTES && !batch.is_empty() {
                break;
            }
            batch.extend(self.pop());
        }
        batch
    }

    /// Puts rows that could not be written back to the front.
    pub(super) fn put_back(&mut self, rows: Vec<Row>) {
        let now = Instant::now();
        for row in rows.into_iter().rev() {
            let weight = row.weight();
            self.bytes += weight;
            self.rows.push_front((row, weight, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::knowledge::{HealthRow, check_id};

    fn row(number: i64, text: usize) -> Row {
        let at = Timestamp::from_second(number).unwrap();
        HealthRow {
            id: check_id("shop", "web", "api", at),
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
    fn batches_are_bounded_and_rows_that_are_put_back_come_first() {
        let mut backlog = Backlog::default();
        (0..BATCH_ROWS as i64 + 10).for_each(|number| backlog.push(row(number, 1)));
        let first = backlog.take_batch();
        assert_eq!(first.len(), BATCH_ROWS);
        let expected = ids(&first);
        backlog.put_back(first);
        assert_eq!(ids(&backlog.take_batch()), expected);
        assert_eq!(backlog.take_batch().len(), 10);
        assert_eq!((backlog.bytes, backlog.due()), (0, None));

        // A row larger than the limit is one batch.
        (0..2).for_each(|number| backlog.push(row(number, BATCH_BYTES + 1)));
        assert_eq!(backlog.take_batch().len(), 1);
    }
}
