//! What is to be done: one type from the plan through the Remediation's spec to the executor.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ConfigRollback, Hook, JobRemedy, McpRemedy, MemoryGrowth, Reconnect, Scaling, SessionSelector, TemplateRef,
    WebhookRemedy,
};

/// The kind of an action; the discriminator of [`Intent`].
#[derive(
    Serialize,
    Deserialize,
    JsonSchema,
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
pub enum ActionKind {
    /// Put the last known good template back (kubectl rollout undo, template only).
    #[serde(alias = "RollbackDeployment")]
    Rollback,
    /// Put the last known good content of the changed ConfigMaps and Secrets back, then restart all pods.
    RollbackConfig,
    /// Put the whole last known good state back from a snapshot: template, strategy, replicas (unless an autoscaler
    /// manages them) and the content of ConfigMaps and Secrets.
    #[serde(alias = "RollbackPreviousState")]
    RollbackState,
    /// Reclaim leaked memory: by the component's own hook, or by replacing pods one at a time.
    CleanupMemory,
    /// Restart all pods (kubectl rollout restart).
    Restart,
    /// Change the number of pods.
    Scale,
    /// Run a Job.
    Job,
    /// Call a webhook.
    Webhook,
    /// Call a tool of an MCP server.
    Mcp,
    /// Reconnect to the database, by a schedule.
    RecoverConnections,
    /// End idle sessions of the database that hold connections.
    ReleaseConnections,
    /// Cancel long-running queries of the database.
    #[serde(alias = "CancelLongQueries")]
    CancelQueries,
    /// Promote the standby of a highly available Render Postgres.
    Failover,
}

impl ActionKind {
    /// The team defines what the action does.
    pub fn is_custom(self) -> bool {
        matches!(self, Self::Job | Self::Webhook | Self::Mcp)
    }

    /// The action restores configuration that was seen healthy, so Panacea keeps snapshots of that configuration.
    pub fn needs_snapshots(self) -> bool {
        matches!(self, Self::RollbackConfig | Self::RollbackState)
    }

    /// The action replaces the template of the workload.
    pub fn replaces_template(self) -> bool {
        matches!(self, Self::Rollback | Self::RollbackState)
    }

    /// A GitOps controller that owns the target may undo the action, so the owner is suspended before where the policy says so.
    pub fn is_undone_by_owner(self) -> bool {
        matches!(self, Self::Rollback | Self::RollbackConfig | Self::RollbackState)
    }

    /// What the action costs beside its purpose, for the approver.
    pub fn cost(self) -> Option<&'static str> {
        let lost = "writes of the last seconds may be lost, since the standby lags behind";
        (self == Self::Failover).then_some(lost)
    }

    /// The sessions of a database that the action ends are listed before a person is asked.
    pub fn ends_sessions(self) -> bool {
        matches!(self, Self::ReleaseConnections | Self::CancelQueries)
    }
}

/// What is to be done, with all that it needs. Exactly one field is set.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Intent {
    /// Put this template back.
    Rollback { to: TemplateRef },
    /// Put the content of these ConfigMaps, Secrets or environment variables back.
    RollbackConfig { config: ConfigRollback },
    /// Put this template and this configuration back.
    RollbackState { to: TemplateRef, config: ConfigRollback },
    /// Reclaim memory: by the hook, or without one by evicting the pods that hold the most.
    CleanupMemory {
        /// The memory that grows.
        memory: MemoryGrowth,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hook: Option<Hook>,
    },
    /// Restart all pods or instances.
    Restart {},
    /// Change the number of pods or instances.
    Scale(Scaling),
    /// Run this Job.
    Job(JobRemedy),
    /// Call this webhook.
    Webhook(WebhookRemedy),
    /// Call this tool.
    Mcp(McpRemedy),
    /// Reconnect by this schedule.
    RecoverConnections(Reconnect),
    /// End these sessions.
    ReleaseConnections(SessionSelector),
    /// Cancel the queries of these sessions.
    CancelQueries(SessionSelector),
    /// Promote the standby.
    Failover {},
}

impl Intent {
    pub fn action(&self) -> ActionKind {
        match self {
            Self::Rollback { .. } => ActionKind::Rollback,
            Self::RollbackConfig { .. } => ActionKind::RollbackConfig,
            Self::RollbackState { .. } => ActionKind::RollbackState,
            Self::CleanupMemory { .. } => ActionKind::CleanupMemory,
            Self::Restart {} => ActionKind::Restart,
            Self::Scale(_) => ActionKind::Scale,
            Self::Job(_) => ActionKind::Job,
            Self::Webhook(_) => ActionKind::Webhook,
            Self::Mcp(_) => ActionKind::Mcp,
            Self::RecoverConnections(_) => ActionKind::RecoverConnections,
            Self::ReleaseConnections(_) => ActionKind::ReleaseConnections,
            Self::CancelQueries(_) => ActionKind::CancelQueries,
            Self::Failover {} => ActionKind::Failover,
        }
    }

    /// The template to put back.
    pub fn template(&self) -> Option<&TemplateRef> {
        match self {
            Self::Rollback { to } | Self::RollbackState { to, .. } => Some(to),
            _ => None,
        }
    }

    /// The configuration to put back.
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
