//! The steps of a ladder: actions with their causes.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ActionKind, Cause, Hook, JobRemedy, McpRemedy, Reconnect, ScaleRemedy, SessionSelector, WebhookRemedy};

/// One step of the ladder.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[x_kube(validation = ("self.action != 'CancelQueries' || !has(self.sessions) || (has(self.sessions.runningLongerThan) && !has(self.sessions.idleLongerThan) && !has(self.sessions.idleInTransactionLongerThan))", "CancelQueries needs sessions.runningLongerThan, and no other age: an idle session has no query to cancel"))]
#[x_kube(validation = ("self.action != 'ReleaseConnections' || !has(self.sessions) || !has(self.sessions.runningLongerThan)", "ReleaseConnections ends idle sessions; for running queries write the action CancelQueries"))]
pub struct Remedy {
    /// Rollback: restores the last known good template. RollbackConfig: restores the last known good content of changed keys
    /// in ConfigMaps and Secrets, then replaces the pods. RollbackState: restores the last known good template and
    /// configuration together; it precedes Rollback when both changed. Of a Render service, the template is the commit and the
    /// configuration the environment variables, which are restored one by one and then deployed. CleanupMemory: for memory that
    /// leaks or has grown by more than half; calls the hook, or evicts the leaking pods one at a time, the fullest first, within
    /// their PodDisruptionBudgets; skipped when there is no second pod. Restart: a rolling restart. Scale: more or fewer pods.
    /// Job, Webhook, Mcp: custom remedies; run a Job, call an endpoint, call a tool of an MCP server. Of a PostgreSQL database:
    /// RecoverConnections reconnects until it succeeds, ReleaseConnections ends idle sessions, CancelQueries cancels queries,
    /// Restart restarts the workload of the database. Of a Render Postgres: Restart restarts it, Failover promotes its standby.
    pub action: ActionKind,
    /// Causes that this remedy is for. Default: all causes that the action can help against, except Unknown.
    #[serde(default, rename = "for", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub causes: Vec<Cause>,
    /// Required: a person must approve, even in mode Auto. AsMode: as spec.mode. Default AsMode.
    #[serde(default)]
    pub approval: RemedyApproval,
    /// Of CleanupMemory: the endpoint to call instead of evicting pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
    /// Of Scale: the step and its bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleRemedy>,
    /// Of Job: the Job to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRemedy>,
    /// Of Webhook: the endpoint to call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookRemedy>,
    /// Of Mcp: the tool to call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<McpRemedy>,
    /// Of RecoverConnections: the schedule of the attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect: Option<Reconnect>,
    /// Of ReleaseConnections and CancelQueries: the sessions to end or cancel. Default for ReleaseConnections: at most ten
    /// sessions that have been idle in a transaction for more than a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionSelector>,
}

/// Whether a remedy needs a person's approval.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RemedyApproval {
    /// As spec.mode.
    #[default]
    AsMode,
    /// Always.
    Required,
}

impl Remedy {
    /// A remedy with only its action and causes, as in the default ladders.
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

    /// The fields of the parameters that are set.
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
