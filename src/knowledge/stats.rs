//! What the ledger counts about itself. `server/` gives these to Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start, each only rising, and gauges where it is said. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct LedgerStats(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    rows_written: AtomicU64,
    rows_dropped: AtomicU64,
    /// Of `rows_dropped`, what is not yet in the spool's own count.
    dropped_unsaved: AtomicU64,
    rows_refused: AtomicU64,
    batches_failed: AtomicU64,
    rows_waiting: AtomicU64,
    healing_spooled: AtomicU64,
    health_spooled: AtomicU64,
    spool_bytes: AtomicU64,
    entries_corrupt: AtomicU64,
    rows_expired: AtomicU64,
    retentions_failed: AtomicU64,
}

impl LedgerStats {
    /// Rows that are in the database because of us; a duplicate is not counted again.
    pub fn rows_written(&self) -> u64 {
        self.0.rows_written.load(Ordering::Relaxed)
    }

    /// Offered rows that were lost: the queue, the backlog or the spool was full, or the operator stopped with the database
    /// away. With a spool, of its earlier lives as well: the count is kept there. Rows that were in memory at a SIGKILL,
    /// the last [`LedgerStats::rows_waiting`] that were offered, are in no count.
    pub fn rows_dropped(&self) -> u64 {
        self.0.rows_dropped.load(Ordering::Relaxed)
    }

    /// Rows that the database refused for what they hold: offered ones are lost, recorded ones stay in the spool.
    pub fn rows_refused(&self) -> u64 {
        self.0.rows_refused.load(Ordering::Relaxed)
    }

    /// Attempts to write (batches, and calls of `record`) that failed, however often they were retried.
    pub fn batches_failed(&self) -> u64 {
        self.0.batches_failed.load(Ordering::Relaxed)
    }

    /// Gauge: offered rows that are in memory, neither written nor spooled nor lost.
    pub fn rows_waiting(&self) -> u64 {
        self.0.rows_waiting.load(Ordering::Relaxed)
    }

    /// Gauge: rows of Remediations that wait in the spool to be written.
    pub fn healing_spooled(&self) -> u64 {
        self.0.healing_spooled.load(Ordering::Relaxed)
    }

    /// Gauge: rows of looks and cycles that wait in the spool.
    pub fn health_spooled(&self) -> u64 {
        self.0.health_spooled.load(Ordering::Relaxed)
    }

    /// Gauge: what the entries of the spool take of its bound, in bytes.
    pub fn spool_bytes(&self) -> u64 {
        self.0.spool_bytes.load(Ordering::Relaxed)
    }

    /// Entries of the spool, of its earlier lives as well, that were not what had been written there, and were skipped.
    pub fn entries_corrupt(&self) -> u64 {
        self.0.entries_corrupt.load(Ordering::Relaxed)
    }

    /// Rows that were deleted because they were older than the retention.
    pub fn rows_expired(&self) -> u64 {
        self.0.rows_expired.load(Ordering::Relaxed)
    }

    /// Passes of the retention that did not get to their end.
    pub fn retentions_failed(&self) -> u64 {
        self.0.retentions_failed.load(Ordering::Relaxed)
    }

    pub(super) fn written(&self, rows: u64) {
        self.0.rows_written.fetch_add(rows, Ordering::Relaxed);
    }

    /// Lost, and to be added to the count of the spool.
    pub(super) fn dropped(&self, rows: u64) {
        self.0.dropped_unsaved.fetch_add(rows, Ordering::Relaxed);
        self.0.rows_dropped.fetch_add(rows, Ordering::Relaxed);
    }

    /// Lost, and in the count of the spool already.
    pub(super) fn dropped_and_saved(&self, rows: u64) {
        self.0.rows_dropped.fetch_add(rows, Ordering::Relaxed);
    }

    /// What the count of the spool is to be raised by; whoever takes it gives back what could not be saved.
    pub(super) fn take_unsaved(&self) -> u64 {
        self.0.dropped_unsaved.swap(0, Ordering::Relaxed)
    }

    pub(super) fn give_back_unsaved(&self, rows: u64) {
        self.0.dropped_unsaved.fetch_add(rows, Ordering::Relaxed);
    }

    pub(super) fn has_unsaved(&self) -> bool {
        self.0.dropped_unsaved.load(Ordering::Relaxed) > 0
    }

    pub(super) fn refused(&self, rows: u64) {
        self.0.rows_refused.fetch_add(rows, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.0.batches_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn waits(&self, rows: u64) {
        self.0.rows_waiting.fetch_add(rows, Ordering::Relaxed);
    }

    pub(super) fn waits_no_more(&self, rows: u64) {
        self.0.rows_waiting.fetch_sub(rows, Ordering::Relaxed);
    }

    pub(super) fn spooled(&self, healing: u64, health: u64, bytes: u64) {
        self.0.healing_spooled.store(healing, Ordering::Relaxed);
        self.0.health_spooled.store(health, Ordering::Relaxed);
        self.0.spool_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn corrupt(&self, entries: u64) {
        self.0.entries_corrupt.fetch_add(entries, Ordering::Relaxed);
    }

    pub(super) fn expired(&self, rows: u64) {
        self.0.rows_expired.fetch_add(rows, Ordering::Relaxed);
    }

    pub(super) fn retention_failed(&self) {
        self.0.retentions_failed.fetch_add(1, Ordering::Relaxed);
    }
}
