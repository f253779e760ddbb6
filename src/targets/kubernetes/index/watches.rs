//! How the watches are doing.

use jiff::Timestamp;

/// How one watch is doing.
#[derive(Default)]
pub(super) struct Watch {
    /// Its first listing is complete.
    pub synced: bool,
    /// The listing that is under way.
    pub listing: u32,
    pub failing: Option<Failing>,
}

pub(super) struct Failing {
    pub since: Timestamp,
    pub hindrance: Hindrance,
    pub message: String,
}

/// Why a watch does not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// It may get better by itself.
    Passing,
    /// The API server said 403: it will not.
    Forbidden,
    /// The cluster has no such kind.
    NotInstalled,
}

impl Watch {
    /// Nothing will be known of this kind before somebody changes the operator's role or the cluster.
    pub fn is_barred(&self) -> bool {
        self.failing.as_ref().is_some_and(|failing| failing.hindrance != Hindrance::Passing)
    }
}
