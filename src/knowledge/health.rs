//! Probes the database every few seconds, whether or not there are rows to write.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::{LedgerError, LedgerReason};
use super::{Shared, within};

/// Pause between two probes. With [`PROBE_LIMIT`] a change is detected after at most 6 s; [`super::Ledger::health`] promises 10 s.
const PROBE_EVERY: Duration = Duration::from_secs(3);

/// Time limit of a probe, connecting included.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// Shortest pause between two probes, after a failed write.
const PROBE_LEAST: Duration = Duration::from_millis(500);

/// Whether rows can be written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LedgerHealth {
    /// Not checked yet.
    #[default]
    Unknown,
    Available,
    Unavailable {
        reason: LedgerReason,
        /// Observation and fix, for a person. No secret, at most 512 characters.
        message: String,
    },
}

impl LedgerHealth {
    pub fn is_available(&self) -> bool {
        *self == Self::Available
    }
}

impl From<Result<(), LedgerError>> for LedgerHealth {
    fn from(probe: Result<(), LedgerError>) -> Self {
        match probe {
            Ok(()) => Self::Available,
            Err(error) => Self::Unavailable { reason: error.reason(), message: error.message().to_owned() },
        }
    }
}

/// Probes until `ended`.
pub(super) async fn run(shared: &Shared, health: &watch::Sender<LedgerHealth>, ended: &CancellationToken) {
    let probes = async {
        loop {
            let probe = within(PROBE_LIMIT, "a response of the database", shared.database.check()).await;
            publish(health, probe.and_then(|()| shared.recent_fault().map_or(Ok(()), Err)).into());
            tokio::time::sleep(PROBE_LEAST).await;
            let _ = tokio::time::timeout(PROBE_EVERY - PROBE_LEAST, shared.suspicion.notified()).await;
        }
    };
    ended.run_until_cancelled(probes).await;
}

fn publish(health: &watch::Sender<LedgerHealth>, now: LedgerHealth) {
    health.send_if_modified(|before| {
        if *before == now {
            return false;
        }
        match &now {
            LedgerHealth::Available => tracing::info!("ledger: available"),
            LedgerHealth::Unavailable { reason, message } => tracing::warn!(
                %reason,
                "ledger: unavailable: {message}; healing continues, rows wait; next attempt within 3 s"
            ),
            LedgerHealth::Unknown => {}
        }
        *before = now;
        true
    });
}
