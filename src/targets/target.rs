//! What the rest of the code asks of a target. Each target implements this in its own folder.

use async_trait::async_trait;

use super::{
    Observed,
    executor::{Executor, Order},
    kubernetes::{ActError, SnapshotOf},
};
use crate::{
    analyze::{observation::TargetState, tracker::GoodState},
    api::{CircuitStatus, Progress, RemediationReason},
};

/// One target of one component, with the client that reaches it.
#[async_trait]
pub trait Target<'a>: Send + Sync {
    /// One observation of the target itself and of the metrics that it brings. Never fails: what could not be observed is
    /// `Unknown` with the reason. Takes at most 10 s.
    async fn observe(&self, namespace: &str) -> Observed<TargetState>;

    /// Who carries out this action; none when the target does not support the intent.
    fn executor(&self, order: Order<'a>) -> Option<Box<dyn Executor + 'a>>;

    /// The circuit breaker of the API behind the target, while it is not closed.
    fn circuit(&self) -> Option<CircuitStatus> {
        None
    }

    /// Takes up the circuit breaker that an earlier operator process reported as [`Self::circuit`].
    fn restore_circuit(&self, _: &CircuitStatus) {}

    /// Stores a snapshot of a state that was seen healthy; none when the target has no snapshots.
    ///
    /// # Errors
    /// See [`ActError`].
    async fn snapshot(&self, _namespace: &str, _of: SnapshotOf, _good: &GoodState) -> Option<Result<(), ActError>> {
        None
    }
}

/// Why nobody can carry an action out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoExecutor {
    pub reason: RemediationReason,
    pub message: String,
}

/// What an action leaves open when nobody can follow it any more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unfinished {
    /// A call was sent that may have had an effect.
    pub may_have_effect: bool,
    /// What stays changed, for a person; empty, or "; …".
    pub left: String,
}

impl Unfinished {
    /// What this progress leaves open.
    pub fn of(progress: &Progress) -> Self {
        match progress {
            Progress::Provider(provider) => super::providers::unfinished(provider),
            Progress::Mcp(mcp) => Self { may_have_effect: mcp.called_at.is_some(), left: String::new() },
            Progress::Webhook(webhook) => Self { may_have_effect: webhook.called_at.is_some(), left: String::new() },
            Progress::Sessions(sessions) => Self { may_have_effect: sessions.ended.is_some(), left: String::new() },
            Progress::Connections(connections) if connections.attempts > 0 => {
                let left = format!("; {} attempts to connect failed before", connections.attempts);
                Self { may_have_effect: false, left }
            }
            Progress::Cleanup(_) | Progress::Job(_) | Progress::Connections(_) => Self::default(),
        }
    }
}
