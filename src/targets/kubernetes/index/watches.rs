//! The state of the watches.

use jiff::Timestamp;

#[derive(Default)]
pub(super) struct Watch {
    /// Its first listing is complete.
    pub synced: bool,
    /// The running listing.
    pub listing: u32,
    pub failing: Option<Failing>,
}

pub(super) struct Failing {
    pub since: Timestamp,
    pub hindrance: Hindrance,
    pub message: String,
}

/// Why a watch fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// May recover without action.
    Passing,
    /// The API server responds with 403.
    Forbidden,
    /// The cluster has no such kind.
    NotInstalled,
}

impl Watch {
    /// No facts of this kind before a person changes the operator's role or the cluster.
    pub fn is_barred(&self) -> bool {
        self.failing.as_ref().is_some_and(|failing| failing.hindrance != Hindrance::Passing)
    }
}
