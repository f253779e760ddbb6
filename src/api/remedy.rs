//! The rungs of a ladder: what can be done, for which causes.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ActionKind, Cause, Hook, JobRemedy, McpRemedy, Reconnect, ScaleRemedy, SessionSelector, WebhookRemedy};

/// One rung of the ladder.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[x_kube(validation = ("self.action != 'CancelQueries' || !has(self.sessions) || (has(self.sessions.runningLongerThan) && !has(self.sessions.idleLongerThan) && !has(self.sessions.idleInTransactionLongerThan))", "CancelQueries needs sessions.runningLongerThan, and no other age: what is idle has no query to cancel"))]
#[x_kube(validation = ("self.action != 'ReleaseConnections' || !has(self.sessions) || !has(self.sessions.runningLongerThan)", "ReleaseConnections ends idle sessions; for running queries write the action CancelQueries"))]
pub struct Remedy {
    /// Rollback: back to the pinned last known good template, of whichever kind the workload is.
    /// RollbackConfig: back to the content that the ConfigMaps and Secrets had when it was last seen healthy, the
    /// changed keys of the changed ones, then new pods. RollbackState: back to the whole state that was seen
    /// healthy last; it comes before Rollback when template and configuration both changed. Of a service that
    /// Render hosts, the template is its commit and the configuration its environment variables, which are put back one by
    /// one, and then deployed. CleanupMemory: of
    /// a component whose memory leaks or has grown by more than half, the hook is called, or without one the leaking
    /// pods are evicted one at a time, the fullest first, within their PodDisruptionBudgets; it is passed over when
    /// there is no second pod. Restart: a rolling restart. Job: a Job of your own is run. Webhook: an endpoint of your
    /// own is called. Mcp: a tool of an MCP server is called. Scale: more or fewer pods. Of a database: RecoverConnections connects anew until it gets through,
    /// ReleaseConnections ends idle sessions, CancelQueries cancels queries, Restart restarts the workload that it runs in. Of
    /// a Render Postgres: Restart restarts it, Failover has its standby take over.
    pub action: ActionKind,
    /// Causes that this remedy is for. Left out: all that the action can help against, but Unknown.
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
    /// Of ReleaseConnections and CancelQueries: which sessions. Left out of ReleaseConnections: at most ten that have been
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

impl Remedy {
    /// A remedy with nothing but its action and causes, as the default ladders have them.
    pub(super) fn plain(action: ActionKind, causes: &[Cause]) -> Self {
        Self {
            action,
            causes: causes.to_vec(),
            approval: RemedyApproval::AsMode,
            hook: None,
            scale: None,
            job: None,
            webhook: None,
            mcp: None,
            reconnect: None,
            sessions: None,
        }
    }

    /// The parameters that it has, by field.
    pub(super) fn parameters(&self) -> Vec<&'static str> {
        [
            ("hook", self.hook.is_some()),
            ("scale", self.scale.is_some()),
            ("job", self.job.is_some()),
            ("webhook", self.webhook.is_some()),
            ("mcp", self.mcp.is_some()),
            ("reconnect", self.reconnect.is_some()),
            ("sessions", self.sessions.is_some()),
        ]
        .into_iter()
        .filter_map(|(field, is_set)| is_set.then_some(field))
        .collect()
    }
}
