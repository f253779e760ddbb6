use std::sync::Arc;

use tokio::sync::broadcast;

use crate::analyze::observation::{Measured, UnknownReason, Unmeasured, Workload};

/// A Deployment about which something that matters to its health changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Changed {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// What the watches know.
pub struct ClusterIndex {
    changes: broadcast::Sender<Changed>,
}

impl Default for ClusterIndex {
    fn default() -> Self {
        Self { changes: broadcast::channel(4096).0 }
    }
}

impl ClusterIndex {
    /// A receiver of what changes from now on. One that lags (`RecvError::Lagged`) should look at everything.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    pub fn workload(&self, _namespace: &str, _name: &str) -> Measured<Workload> {
        Measured::Unknown(Unmeasured::new(UnknownReason::Unsettled, "not built yet"))
    }
}
