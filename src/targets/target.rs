//! The interface of a target. Each target implements it in its own folder.

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

    /// None when the target does not support the intent.
    fn executor(&self, order: Order<'a>) -> Option<Box<dyn Executor + 'a>>;

    /// The circuit breaker of the API behind the target, while it is not closed.
    fn circuit(&self) -> Option<CircuitStatus> {
        None
    }

    /// Restores the circuit breaker that an earlier operator process reported as [`Self::circuit`].
    fn restore_circuit(&self, _: &CircuitStatus) {}

    /// Stores a snapshot of a state that was observed healthy; none when the target has no snapshots.
    async fn snapshot(&self, _namespace: &str, _of: SnapshotOf, _good: &GoodState) -> Option<Result<(), ActError>> {
        None
    }
}

/// Why an action has no executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoExecutor {
    pub reason: RemediationReason,
    pub message: String,
}

/// What an action leaves open when it cannot be followed to its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unfinished {
    /// A call was sent that may have had an effect.
    pub may_have_effect: bool,
    /// Changes that remain, for a person; empty, or "; …".
    pub left: String,
}

impl Unfinished {
    pub fn of(progress: &Progress) -> Self {
        let (may_have_effect, left) = match progress {
            Progress::Provider(provider) => return super::providers::unfinished(provider),
            Progress::Mcp(mcp) => (mcp.called_at.is_some(), String::new()),
            Progress::Webhook(webhook) => (webhook.called_at.is_some(), String::new()),
            Progress::Sessions(sessions) => (sessions.ended.is_some(), String::new()),
            Progress::Connections(connections) => match connections.attempts {
                0 => (false, String::new()),
                1 => (false, "; 1 attempt to connect failed before".to_owned()),
                attempts => (false, format!("; {attempts} attempts to connect failed before")),
            },
            Progress::Cleanup(_) | Progress::Job(_) => (false, String::new()),
        };
        Self { may_have_effect, left }
    }
}
