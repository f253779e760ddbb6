//! Counters and gauges of the ledger; `server/` exposes them as metrics.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::{counter::Counter, gauge};

type Gauge = gauge::Gauge<u64, AtomicU64>;

/// Counters since the start, and gauges where the method says so. Cheap to clone; clones share their values.
#[derive(Debug, Clone, Default)]
pub struct LedgerStats {
    pub(super) rows_written: Counter,
    pub(super) rows_dropped: Counter,
    /// Part of `rows_dropped` that the spool's own count does not include yet.
    pub(super) dropped_unsaved: Gauge,
    pub(super) rows_refused: Counter,
    pub(super) batches_failed: Counter,
    pub(super) rows_waiting: Gauge,
    pub(super) healing_spooled: Gauge,
    pub(super) health_spooled: Gauge,
    pub(super) spool_bytes: Gauge,
    pub(super) entries_corrupt: Counter,
    pub(super) rows_expired: Counter,
    pub(super) retentions_failed: Counter,
}

impl LedgerStats {
    /// Rows that this process inserted; duplicates are not counted.
    pub fn rows_written(&self) -> u64 {
        self.rows_written.get()
    }

    /// Offered rows that were lost: the queue, the backlog or the spool was full, or the operator stopped while the database
    /// was unreachable. With a spool, this includes earlier processes: the spool stores the count. Rows that were in memory
    /// at a SIGKILL (the last [`LedgerStats::rows_waiting`] rows offered) are in no count.
    pub fn rows_dropped(&self) -> u64 {
        self.rows_dropped.get()
    }

    /// Rows that the database refused because of their content: offered rows are lost, recorded rows stay in the spool.
    pub fn rows_refused(&self) -> u64 {
        self.rows_refused.get()
    }

    /// Failed attempts to write (batches, and calls of `record`), retries included.
    pub fn batches_failed(&self) -> u64 {
        self.batches_failed.get()
    }

    /// Gauge: offered rows in memory, neither written nor spooled nor lost.
    pub fn rows_waiting(&self) -> u64 {
        self.rows_waiting.get()
    }

    /// Gauge: rows of Remediations in the spool.
    pub fn healing_spooled(&self) -> u64 {
        self.healing_spooled.get()
    }

    /// Gauge: rows of health checks and cycles in the spool.
    pub fn health_spooled(&self) -> u64 {
        self.health_spooled.get()
    }

    /// Gauge: size of the spool's entries, in bytes, as counted against its limit.
    pub fn spool_bytes(&self) -> u64 {
        self.spool_bytes.get()
    }

    /// Damaged entries of the spool that were skipped, earlier processes included.
    pub fn entries_corrupt(&self) -> u64 {
        self.entries_corrupt.get()
    }

    /// Rows deleted because they were older than the retention.
    pub fn rows_expired(&self) -> u64 {
        self.rows_expired.get()
    }

    /// Passes of the retention over a table that failed.
    pub fn retentions_failed(&self) -> u64 {
        self.retentions_failed.get()
    }

    /// Counts lost rows that the spool's count does not include yet.
    pub(super) fn dropped(&self, rows: u64) {
        self.dropped_unsaved.inc_by(rows);
        self.rows_dropped.inc_by(rows);
    }

    pub(super) fn is_spool_empty(&self) -> bool {
        self.healing_spooled() + self.health_spooled() == 0
    }
}
