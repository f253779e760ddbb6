//! Is the database there? Asked every few seconds, whether or not rows flow.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::{LedgerError, LedgerReason};
use super::{Shared, within};

/// Pause between two probes. With [`PROBE_LIMIT`] a change is seen after at most 6 s, within the 10 s that are promised.
const PROBE_EVERY: Duration = Duration::from_secs(3);

/// How long one probe may take, connecting included.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// Least pause between two probes, when failing writes ask for one.
const PROBE_LEAST: Duration = Duration::from_millis(500);

/// Whether rows can be written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LedgerHealth {
    /// Not looked at yet.
    #[default]
    Unknown,
    Available,
    Unavailable {
        reason: LedgerReason,
        /// What was seen and what would help, for a person. No secret, at most 512 characters.
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
pub(super) async fn run(shared: &Shared, say: &watch::Sender<LedgerHealth>, ended: &CancellationToken) {
    loop {
        let probe = within(PROBE_LIMIT, "an answer of the database", shared.database.check());
        let Some(done) = ended.run_until_cancelled(probe).await else { return };
        tell(say, done.and_then(|()| shared.recent_fault().map_or(Ok(()), Err)).into());
        let pause = async {
            tokio::time::sleep(PROBE_LEAST).await;
            let _ = tokio::time::timeout(PROBE_EVERY - PROBE_LEAST, shared.suspicion.notified()).await;
        };
        if ended.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

fn tell(say: &watch::Sender<LedgerHealth>, now: LedgerHealth) {
    say.send_if_modified(|before| {
        if *before == now {
            return false;
        }
        match &now {
            LedgerHealth::Available => tracing::info!("ledger: available"),
            LedgerHealth::Unavailable { reason, message } => tracing::warn!(
                %reason,
                "ledger: unavailable: {message}; healing goes on, rows wait, the next look is in a few seconds"
            ),
            LedgerHealth::Unknown => {}
        }
        *before = now;
        true
    });
}
