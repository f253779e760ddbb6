//! Services that a provider hosts: Render, Vercel. What a policy names, and how far an action on one is.

use std::fmt;

use jiff::Timestamp;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KeyRef, KnownBad, KnownGood, ReleaseStatus, TemplateRef};

/// `spec.target.kind` of a Remediation whose target Render hosts.
pub const RENDER_KIND: &str = "Render";
/// `spec.target.kind` of a Remediation whose target Vercel hosts.
pub const VERCEL_KIND: &str = "Vercel";
/// All kinds of hosted targets.
pub const HOSTED_KINDS: [&str; 2] = [RENDER_KIND, VERCEL_KIND];

/// A service that Render hosts: a web service, a private service or a background worker. What it is, its deploys, its
/// instances, events and metrics are asked for at every look.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RenderTarget {
    /// The service's id, as its page in the dashboard has it: srv-…
    #[schemars(length(min = 5, max = 64), regex(pattern = "^[a-z]+-[a-zA-Z0-9-]+$"))]
    pub service_id: String,
    /// A Secret of the policy's namespace whose key holds a Render API key. Read at each look and before each action; the
    /// operator's role needs the right (`rbac.readCredentials` of the chart). Left out: the operator's own key
    /// (RENDER_API_KEY).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<KeyRef>,
}

/// A project that Vercel hosts. Its production deployment is asked for at every look. Vercel tells no error rate and no
/// latency: what metrics measures decides whether a deployment is healthy.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VercelTarget {
    /// The project's id, from its settings (General): prj_…
    #[schemars(length(min = 5, max = 64), regex(pattern = "^prj_[a-zA-Z0-9]+$"))]
    pub project_id: String,
    /// The id of the team that owns it, from the team's settings: team_…. Left out: the token's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 6, max = 64), regex(pattern = "^team_[a-zA-Z0-9]+$"))]
    pub team_id: Option<String>,
    /// A Secret of the policy's namespace whose key holds a Vercel access token. Read at each look and before each action;
    /// the operator's role needs the right (`rbac.readCredentials` of the chart). Left out: the operator's own token
    /// (VERCEL_TOKEN).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<KeyRef>,
}

/// The circuit breaker of a provider's API for one service, while it is not closed: its calls kept failing, and none is made
/// until one has gone well.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CircuitStatus {
    pub state: CircuitState,
    /// When one call is let through, on which it depends what comes next; absent while that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

/// How a circuit breaker that is not closed stands.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum CircuitState {
    /// No call is made.
    Open,
    /// One call is under way.
    HalfOpen,
}

/// How far an action on a hosted service is. What is about to be done is stored here before it is.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct HostedStatus {
    /// When the call was about to be sent. Left out: it is certain that none was that had an effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
    /// How often it was sent, or was about to be when the operator died.
    pub attempts: u32,
    /// How often it had no clear answer, and nothing came of it.
    pub without_effect: u32,
    /// It is known that the provider has begun.
    pub begun: bool,
    /// HTTP status of the last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// The newest restart that the provider told of, the newest deploy, or when production was last asked to move (Vercel;
    /// ms since 1970), before the call: what is newer came after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub newest_before: Option<String>,
    /// Of Restart: the instances before the call, which a restart replaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 128)))]
    pub instances_before: Vec<String>,
    /// Of a rollback: the deploy that it has made, or that it puts live again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub deploy: Option<String>,
    /// Of a rollback: what auto-deploy was before it was switched off, `commit` or `checksPass`. It stays off, since the next
    /// commit would be what was rolled back; switch it on again when that is mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub auto_deploy_was: Option<String>,
    /// Of RollbackConfig and RollbackPreviousState: the names of the environment variables that are put back, or taken away
    /// since they were not there. Stored before the first is. Their values are in the copy alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 256)))]
    pub env_vars: Vec<String>,
}

/// `revision 3` of a workload, `deploy dep-…` of what has no numbers.
pub fn release_name(revision: i64, id: &str) -> String {
    if revision > 0 { format!("revision {revision}") } else { format!("deploy {id}") }
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&release_name(self.revision, &self.hash))
    }
}

impl fmt::Display for ReleaseStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&release_name(self.revision, &self.hash))
    }
}

impl fmt::Display for KnownGood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&release_name(self.revision, &self.hash))
    }
}

impl fmt::Display for KnownBad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&release_name(self.revision, &self.digest))
    }
}
