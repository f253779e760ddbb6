//! How far a running action is. Written before each call to the outside, so that no crash repeats or loses a call.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LeakingPod, SessionRef};

/// How far the action is. Exactly one field is set: the one of its executor.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum Progress {
    /// Of CleanupMemory.
    Cleanup(CleanupProgress),
    /// Of Job.
    Job(JobProgress),
    /// Of Webhook.
    Webhook(WebhookProgress),
    /// Of Mcp.
    Mcp(McpProgress),
    /// Of an action on a service that a provider hosts.
    Provider(ProviderProgress),
    /// Of RecoverConnections.
    Connections(ConnectionProgress),
    /// Of ReleaseConnections and CancelQueries.
    Sessions(SessionProgress),
}

macro_rules! accessors {
    ($($name:ident: $variant:ident($type:ty)),* $(,)?) => {
        impl Progress {
            $(pub fn $name(&self) -> Option<&$type> {
                match self {
                    Self::$variant(progress) => Some(progress),
                    _ => None,
                }
            })*
        }

        $(impl From<$type> for Progress {
            fn from(progress: $type) -> Self {
                Self::$variant(progress)
            }
        }

        impl Stored for $type {
            fn stored(progress: &Progress) -> Option<&Self> {
                progress.$name()
            }

            fn into_progress(self) -> Option<Progress> {
                Some(self.into())
            }
        })*
    };
}

/// The progress of one executor, as stored in the status.
pub trait Stored: Clone + Default + PartialEq {
    /// None when another executor stored the progress.
    fn stored(progress: &Progress) -> Option<&Self>;

    /// None when there is nothing to store.
    fn into_progress(self) -> Option<Progress>;
}

/// Of an executor that reads its progress from the outside again.
impl Stored for () {
    fn stored(_: &Progress) -> Option<&Self> {
        None
    }

    fn into_progress(self) -> Option<Progress> {
        None
    }
}

accessors! {
    cleanup: Cleanup(CleanupProgress),
    job: Job(JobProgress),
    webhook: Webhook(WebhookProgress),
    mcp: Mcp(McpProgress),
    provider: Provider(ProviderProgress),
    connections: Connections(ConnectionProgress),
    sessions: Sessions(SessionProgress),
}

/// How far a cleanup is, and its result.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct CleanupProgress {
    /// The pods to replace, in this order: stored before the first eviction. Empty when a hook is called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub pods: Vec<LeakingPod>,
    /// When the last pod was evicted; before that, when the pods were chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progressed_at: Option<Timestamp>,
    /// When the hook was called: stored before the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub called_at: Option<Timestamp>,
    /// The metric's value at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<f64>,
    /// `objects_collected` in the hook's response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects_collected: Option<i64>,
    /// `memory_freed_mb` in the hook's response, in 10^6 bytes.
    #[serde(rename = "memoryFreedMB", skip_serializing_if = "Option::is_none")]
    pub memory_freed_mb: Option<f64>,
}

/// How far a Job is.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct JobProgress {
    /// Name of the Job, once it exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub job: Option<String>,
}

/// How far a webhook is.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookProgress {
    /// When the delivery was started: stored before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub called_at: Option<Timestamp>,
    /// The URL at which a webhook that responded with 202 reports its progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub poll_url: Option<String>,
}

/// How far a call of a tool is.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct McpProgress {
    /// When the tool was called: stored before the call, so that the tool is called at most once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub called_at: Option<Timestamp>,
}

/// How far an action on a hosted service is. Every call is stored here before it is sent.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderProgress {
    /// When the call was about to be sent. Absent: no call that may have had an effect was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
    /// How many calls were sent, or were about to be sent when the operator process ended.
    pub attempts: u32,
    /// How many calls had no clear response and no effect.
    pub without_effect: u32,
    /// The provider has accepted the call.
    pub begun: bool,
    /// HTTP status of the last response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// The newest entry that the provider listed before the call: a restart event, a deploy, the time of the last production
    /// change (Vercel; ms since 1970), a workflow run (GitHub). A newer entry was created after the call. Of a Render
    /// Postgres: its status before the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub newest_before: Option<String>,
    /// Of Restart: the instances before the call, which a restart replaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 128)))]
    pub instances_before: Vec<String>,
    /// Of a rollback: the deploy that the rollback created, the workflow run that performs it (GitHub), or the deploy that it
    /// makes live.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub deploy: Option<String>,
    /// Of a rollback: the auto-deploy trigger before it was switched off, `commit` or `checksPass`. Auto-deploy stays off,
    /// since the next commit would release the fault again; switch auto-deploy on again when the fault is fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub auto_deploy_was: Option<String>,
    /// Of RollbackConfig and RollbackState: the names of the environment variables that are restored or removed. Stored
    /// before the first change. The values are in the snapshot alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 256)))]
    pub env_vars: Vec<String>,
}

/// How far reconnecting is.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionProgress {
    /// Attempts so far.
    pub attempts: u32,
    /// When the last attempt ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
    /// The error of each failed attempt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), inner(length(max = 512)))]
    pub errors: Vec<String>,
}

/// How far ending sessions, or cancelling queries, is.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionProgress {
    /// The sessions that match the selector, stored before the first one is ended. No other session is changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub sessions: Vec<SessionRef>,
    /// The server processes whose session was ended, or whose query was cancelled. Absent: not performed yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub ended: Option<Vec<i32>>,
}
