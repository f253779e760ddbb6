//! What the ledger counts about itself. `server/` gives these to Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start, each only rising. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct LedgerStats(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    rows_written: AtomicU64,
    rows_dropped: AtomicU64,
    rows_refused: AtomicU64,
    batches_failed: AtomicU64,
}

impl LedgerStats {
    /// Rows that are in the database because of us; a duplicate is not counted again.
    pub fn rows_written(&self) -> u64 {
        self.0.rows_written.load(Ordering::Relaxed)
    }

    /// Offered rows that were lost: the queue or the backlog was full, or the operator stopped with the database away.
    pub fn rows_dropped(&self) -> u64 {
        self.0.rows_dropped.load(Ordering::Relaxed)
    }

    /// Offered rows that were lost because the database refused them for what they hold.
    pub fn rows_refused(&self) -> u64 {
        self.0.rows_refused.load(Ordering::Relaxed)
    }

    /// Attempts to write (batches, and calls of `record`) that failed, however often they were retried.
    pub fn batches_failed(&self) -> u64 {
        self.0.batches_failed.load(Ordering::Relaxed)
    }

    pub(super) fn written(&self, rows: u64) {
        self.0.rows_written.fetch_add(rows, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, rows: u64) {
        self.0.rows_dropped.fetch_add(rows, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, rows: u64) {
        self.0.rows_refused.fetch_add(rows, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.0.batches_failed.fetch_add(1, Ordering::Relaxed);
    }
}
