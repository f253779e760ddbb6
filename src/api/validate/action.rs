//! The action of a remedy with its parameters.

use crate::api::{
    ActionKind, Hook, Intent, JobRemedy, McpRemedy, Reconnect, ScaleRemedy, SessionSelector, WebhookRemedy,
};

/// The action of a remedy whose every parameter is usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidAction {
    Rollback,
    RollbackConfig,
    RollbackState,
    CleanupMemory { hook: Option<Hook> },
    Restart,
    Scale(ScaleRemedy),
    Job(JobRemedy),
    Webhook(WebhookRemedy),
    Mcp(McpRemedy),
    RecoverConnections(Reconnect),
    ReleaseConnections(SessionSelector),
    CancelQueries(SessionSelector),
    Failover,
}

impl ValidAction {
    pub fn kind(&self) -> ActionKind {
        match self {
            Self::Rollback => ActionKind::Rollback,
            Self::RollbackConfig => ActionKind::RollbackConfig,
            Self::RollbackState => ActionKind::RollbackState,
            Self::CleanupMemory { .. } => ActionKind::CleanupMemory,
            Self::Restart => ActionKind::Restart,
            Self::Scale(_) => ActionKind::Scale,
            Self::Job(_) => ActionKind::Job,
            Self::Webhook(_) => ActionKind::Webhook,
            Self::Mcp(_) => ActionKind::Mcp,
            Self::RecoverConnections(_) => ActionKind::RecoverConnections,
            Self::ReleaseConnections(_) => ActionKind::ReleaseConnections,
            Self::CancelQueries(_) => ActionKind::CancelQueries,
            Self::Failover => ActionKind::Failover,
        }
    }

    /// Whether the remedy still allows a plan with this intent. The numbers and templates of an intent are decided again each
    /// time, so they are not compared.
    pub fn allows(&self, intent: &Intent) -> bool {
        match (self, intent) {
            (Self::CleanupMemory { hook }, Intent::CleanupMemory { hook: planned, .. }) => hook == planned,
            (Self::Job(job), Intent::Job(planned)) => job == planned,
            (Self::Webhook(webhook), Intent::Webhook(planned)) => webhook == planned,
            (Self::Mcp(mcp), Intent::Mcp(planned)) => mcp == planned,
            (Self::RecoverConnections(schedule), Intent::RecoverConnections(planned)) => schedule == planned,
            (Self::ReleaseConnections(sessions), Intent::ReleaseConnections(planned))
            | (Self::CancelQueries(sessions), Intent::CancelQueries(planned)) => sessions == planned,
            (action, intent) => action.kind() == intent.action(),
        }
    }
}
