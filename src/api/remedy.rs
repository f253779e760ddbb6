//! The rungs of a ladder: what can be done, for which causes.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Hook, JobRemedy, McpRemedy, Reconnect, ScaleRemedy, SessionSelector, WebhookRemedy};

/// One rung of the ladder.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[x_kube(validation = ("has(self.scale) == (self.action == 'Scale')", "the action Scale needs scale, and no other has it"))]
#[x_kube(validation = ("has(self.job) == (self.action == 'Job')", "the action Job needs job, and no other has it"))]
#[x_kube(validation = ("has(self.webhook) == (self.action == 'Webhook')", "the action Webhook needs webhook, and no other has it"))]
#[x_kube(validation = ("has(self.mcp) == (self.action == 'Mcp')", "the action Mcp needs mcp, and no other has it"))]
#[x_kube(validation = ("!has(self.hook) || self.action == 'CleanupMemory'", "only CleanupMemory calls a hook; take hook out, or change the action"))]
#[x_kube(validation = ("self.action != 'CleanupMemory' || !has(self.__for__) || self.__for__.all(cause, cause == 'Exhaustion')", "CleanupMemory only helps against memory that runs out; write for: [Exhaustion], or leave it out"))]
#[x_kube(validation = ("self.action != 'RollbackPreviousState' || !has(self.__for__) || self.__for__.all(cause, cause in ['ReleaseRegression', 'ConfigRegression'])", "RollbackPreviousState only helps against a bad release or bad configuration; write for: [ReleaseRegression, ConfigRegression], or leave it out"))]
#[x_kube(validation = ("self.action != 'RollbackConfig' || !has(self.__for__) || self.__for__.all(cause, cause == 'ConfigRegression')", "RollbackConfig only helps against configuration that turned it bad; write for: [ConfigRegression], or leave it out"))]
#[x_kube(validation = ("self.action != 'RollbackDeployment' || !has(self.__for__) || self.__for__.all(cause, cause == 'ReleaseRegression')", "RollbackDeployment only helps against a bad release; write for: [ReleaseRegression], or leave it out"))]
#[x_kube(validation = ("self.action != 'RecoverConnections' || !has(self.__for__) || self.__for__.all(cause, cause == 'Unreachable')", "RecoverConnections only helps against a database that takes no connection; write for: [Unreachable], or leave it out"))]
#[x_kube(validation = ("!(self.action in ['ReleaseConnections', 'CancelLongQueries']) || !has(self.__for__) || self.__for__.all(cause, cause in ['Exhaustion', 'Errors'])", "ReleaseConnections and CancelLongQueries only help against connections that run out or sessions that hold others up; write for: [Exhaustion, Errors], or leave it out"))]
#[x_kube(validation = ("self.action != 'Failover' || !has(self.__for__) || self.__for__.all(cause, cause in ['Unreachable', 'Errors'])", "Failover only helps against a database that does not serve, or badly: the standby has the same disk and memory; write for: [Unreachable, Errors], or leave it out"))]
#[x_kube(validation = ("!has(self.reconnect) || self.action == 'RecoverConnections'", "only RecoverConnections has reconnect; take it out, or change the action"))]
#[x_kube(validation = ("!has(self.sessions) || self.action in ['ReleaseConnections', 'CancelLongQueries']", "only ReleaseConnections and CancelLongQueries have sessions; take it out, or change the action"))]
#[x_kube(validation = ("self.action != 'CancelLongQueries' || (has(self.sessions) && has(self.sessions.runningLongerThan) && !has(self.sessions.idleLongerThan) && !has(self.sessions.idleInTransactionLongerThan))", "CancelLongQueries needs sessions.runningLongerThan, and no other age: what is idle has no query to cancel"))]
#[x_kube(validation = ("self.action != 'ReleaseConnections' || !has(self.sessions) || !has(self.sessions.runningLongerThan)", "ReleaseConnections ends idle sessions; for running queries write the action CancelLongQueries"))]
pub struct Remedy {
    /// RollbackDeployment: back to the pinned last known good template, of whichever kind the workload is.
    /// RollbackConfig: back to the content that the ConfigMaps and Secrets had when it was last seen healthy, the
    /// changed keys of the changed ones, then new pods. RollbackPreviousState: back to the whole state that was seen
    /// healthy last; it comes before RollbackDeployment when template and configuration both changed. Of a service that
    /// Render hosts, the template is its commit and the configuration its environment variables, which are put back one by
    /// one, and then deployed. CleanupMemory: of
    /// a component whose memory leaks or has grown by more than half, the hook is called, or without one the leaking
    /// pods are evicted one at a time, the fullest first, within their PodDisruptionBudgets; it is passed over when
    /// there is no second pod. Restart: a rolling restart. Job: a Job of your own is run. Webhook: an endpoint of your
    /// own is called. Mcp: a tool of an MCP server is called. Scale: more or fewer pods. Of a database: RecoverConnections connects anew until it gets through,
    /// ReleaseConnections ends idle sessions, CancelLongQueries cancels queries, Restart restarts the workload that it runs in. Of
    /// a Render Postgres: Restart restarts it, Failover has its standby take over.
    pub action: ActionKind,
    /// Causes that this remedy is for. Left out: all but Unknown; RollbackDeployment only ever applies to
    /// ReleaseRegression, RollbackConfig to ConfigRegression, RollbackPreviousState to both of these, CleanupMemory to
    /// Exhaustion, RecoverConnections to Unreachable, ReleaseConnections and CancelLongQueries to Exhaustion and Errors, Failover
    /// to Unreachable and Errors.
    #[serde(default, rename = "for", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub causes: Vec<Cause>,
    /// Required: a person must approve, even in mode Auto. Default AsMode.
    #[serde(default)]
    pub approval: RemedyApproval,
    /// Of CleanupMemory: what to call instead of evicting pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
    /// Of Scale: by how much, and within which bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleRemedy>,
    /// Of Job: what is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRemedy>,
    /// Of Webhook: what is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookRemedy>,
    /// Of Mcp: which tool is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<McpRemedy>,
    /// Of RecoverConnections: when it is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect: Option<Reconnect>,
    /// Of ReleaseConnections and CancelLongQueries: which sessions. Left out of ReleaseConnections: at most ten that have been
    /// idle in a transaction for over a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionSelector>,
}

/// Whether a remedy needs a person's approval.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RemedyApproval {
    /// As the policy's mode says.
    #[default]
    AsMode,
    /// Always.
    Required,
}

/// What can be done to a component.
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
    strum::EnumString,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
pub enum ActionKind {
    /// Put the last known good template back (kubectl's undo, template only).
    RollbackDeployment,
    /// Put the last known good content of the changed ConfigMaps and Secrets back, then roll all pods anew.
    RollbackConfig,
    /// Put the whole last known good state back: template, strategy, replicas (where no autoscaler has them) and the
    /// content of ConfigMaps and Secrets, from a copy that was kept.
    RollbackPreviousState,
    /// Have leaked memory given back: by the component's own hook, or by new pods one at a time.
    CleanupMemory,
    /// Roll all pods anew (kubectl rollout restart).
    Restart,
    /// More or fewer pods.
    Scale,
    /// Run a Job of the team's own.
    Job,
    /// Call an endpoint of the team's own.
    Webhook,
    /// Call a tool of an MCP server.
    Mcp,
    /// Connect to the database anew, by a schedule.
    RecoverConnections,
    /// End sessions of the database that hold connections and do nothing.
    ReleaseConnections,
    /// Cancel queries of the database that run for too long.
    CancelLongQueries,
    /// Have the standby of a highly available Render Postgres take over.
    Failover,
}

impl ActionKind {
    /// It is of the team's own: what it does is theirs to know.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Job | Self::Webhook | Self::Mcp)
    }

    /// It goes back to configuration that was seen healthy, so copies of that are kept.
    pub fn needs_config(self) -> bool {
        matches!(self, Self::RollbackConfig | Self::RollbackPreviousState)
    }

    /// What it costs beside what is meant, for whoever is asked.
    pub fn cost(self) -> Option<&'static str> {
        let lost = "what was written to it in the last seconds may be lost, for its standby is behind";
        (self == Self::Failover).then_some(lost)
    }

    /// It is about sessions of a database, which are listed before anything is done.
    pub fn is_of_sessions(self) -> bool {
        matches!(self, Self::ReleaseConnections | Self::CancelLongQueries)
    }
}

/// Why a component is unhealthy, as far as the signals tell.
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
    strum::EnumString,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
pub enum Cause {
    /// It turned bad with its newest template, and the one before was good.
    ReleaseRegression,
    /// It turned bad after a ConfigMap or Secret changed that its template names, and the template did not change.
    ConfigRegression,
    /// Containers crash or cannot start.
    Crash,
    /// A database takes no connection, though there is room for one.
    Unreachable,
    /// A resource runs out: memory, CPU, connections, storage.
    Exhaustion,
    /// It runs, and answers wrongly or too slowly.
    Errors,
    /// None of these.
    Unknown,
}
