//! The action to perform: one type from the plan through the Remediation's spec to the executor.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumDiscriminants, EnumIter, IntoStaticStr};

use super::{
    ConfigRollback, Hook, JobRemedy, McpRemedy, MemoryGrowth, Reconnect, Scaling, SessionSelector, TemplateRef,
    WebhookRemedy,
};

impl ActionKind {
    /// The action restores known good configuration, so Panacea keeps snapshots of the configuration.
    pub fn needs_snapshots(self) -> bool {
        matches!(self, Self::RollbackConfig | Self::RollbackState)
    }

    /// The action replaces the template of the workload.
    pub fn replaces_template(self) -> bool {
        matches!(self, Self::Rollback | Self::RollbackState)
    }

    /// A GitOps controller that owns the target may revert the action, so the owner is suspended before the action where the
    /// policy allows it.
    pub fn is_undone_by_owner(self) -> bool {
        matches!(self, Self::Rollback | Self::RollbackConfig | Self::RollbackState)
    }

    /// The side effect of the action, for the approver.
    pub fn cost(self) -> Option<&'static str> {
        let lost = "writes of the last seconds may be lost, since the standby lags behind";
        (self == Self::Failover).then_some(lost)
    }

    /// The action ends sessions of a database, which are listed before approval is requested.
    pub fn ends_sessions(self) -> bool {
        matches!(self, Self::ReleaseConnections | Self::CancelQueries)
    }
}

/// The action to perform, with all its parameters. Exactly one field is set.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, EnumDiscriminants)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[strum_discriminants(
    name(ActionKind),
    derive(Serialize, Deserialize, JsonSchema, PartialOrd, Ord, Hash, Display, EnumIter, IntoStaticStr),
    doc = "The kind of an action; the discriminator of [`Intent`]."
)]
pub enum Intent {
    /// Restore this template (as kubectl rollout undo).
    #[strum_discriminants(serde(alias = "RollbackDeployment"))]
    Rollback { to: TemplateRef },
    /// Restore the last known good content of these ConfigMaps, Secrets or environment variables, then restart.
    RollbackConfig { config: ConfigRollback },
    /// Restore the last known good state from a snapshot: template, strategy, replicas (unless an autoscaler manages the
    /// number) and configuration.
    #[strum_discriminants(serde(alias = "RollbackPreviousState"))]
    RollbackState { to: TemplateRef, config: ConfigRollback },
    /// Reclaim memory: by the hook, or without a hook by evicting the pods that use the most, one at a time.
    CleanupMemory {
        /// The memory that grows.
        memory: MemoryGrowth,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hook: Option<Hook>,
    },
    /// Restart all pods or instances (as kubectl rollout restart).
    Restart {},
    /// Change the number of pods or instances.
    Scale(Scaling),
    /// Run this Job.
    Job(JobRemedy),
    /// Call this webhook.
    Webhook(WebhookRemedy),
    /// Call this tool of an MCP server.
    Mcp(McpRemedy),
    /// Reconnect to the database by this schedule.
    RecoverConnections(Reconnect),
    /// End these idle sessions of the database.
    ReleaseConnections(SessionSelector),
    /// Cancel the long-running queries of these sessions.
    #[strum_discriminants(serde(alias = "CancelLongQueries"))]
    CancelQueries(SessionSelector),
    /// Promote the standby of a highly available Render Postgres.
    Failover {},
}

impl Intent {
    pub fn action(&self) -> ActionKind {
        self.into()
    }

    /// The template to restore.
    pub fn template(&self) -> Option<&TemplateRef> {
        match self {
            Self::Rollback { to } | Self::RollbackState { to, .. } => Some(to),
            _ => None,
        }
    }

    /// The configuration to restore.
    pub fn config(&self) -> Option<&ConfigRollback> {
        match self {
            Self::RollbackConfig { config } | Self::RollbackState { config, .. } => Some(config),
            _ => None,
        }
    }

    /// The memory to reclaim.
    pub fn memory(&self) -> Option<&MemoryGrowth> {
        match self {
            Self::CleanupMemory { memory, .. } => Some(memory),
            _ => None,
        }
    }

    /// The change of the number of pods or instances.
    pub fn scaling(&self) -> Option<Scaling> {
        match self {
            Self::Scale(scaling) => Some(*scaling),
            _ => None,
        }
    }

    /// The sessions to end, or whose queries to cancel.
    pub fn sessions(&self) -> Option<&SessionSelector> {
        match self {
            Self::ReleaseConnections(sessions) | Self::CancelQueries(sessions) => Some(sessions),
            _ => None,
        }
    }
}
