//! Services that a provider hosts or deploys: Render, Vercel, GitHub. What a policy names, and how far an action on one is.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KeyRef, KnownBad, KnownGood, ReleaseStatus, TemplateRef};

/// `spec.target.kind` of a Remediation whose target Render hosts.
pub const RENDER_KIND: &str = "Render";
/// `spec.target.kind` of a Remediation whose target Vercel hosts.
pub const VERCEL_KIND: &str = "Vercel";
/// `spec.target.kind` of a Remediation whose target is what is deployed to an environment of a GitHub repository.
pub const GITHUB_KIND: &str = "GitHub";
/// All kinds of hosted targets.
pub const HOSTED_KINDS: [&str; 3] = [RENDER_KIND, VERCEL_KIND, GITHUB_KIND];

/// A service that Render hosts: a web service, a private service or a background worker; or a Postgres of it. Exactly one of
/// serviceId and postgresId is set. What it is, its deploys, its instances, events and metrics are asked for at every look.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.serviceId) != has(self.postgresId)", "render must name exactly one of: serviceId, postgresId"))]
pub struct RenderTarget {
    /// The service's id, as its page in the dashboard has it: srv-…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 64), regex(pattern = "^[a-z]+-[a-zA-Z0-9-]+$"))]
    pub service_id: Option<String>,
    /// The id of a Render Postgres, as its page in the dashboard has it: dpg-…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 64), regex(pattern = "^dpg-[a-zA-Z0-9-]+$"))]
    pub postgres_id: Option<String>,
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
#[derive(
    Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::IntoStaticStr,
)]
pub enum CircuitState {
    /// No call is made.
    Open,
    /// One call is under way.
    HalfOpen,
}

/// What is deployed to an environment of a GitHub repository, as its deployments tell. GitHub tells no error rate and no
/// latency: what metrics measures decides whether a deployment is healthy.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GithubTarget {
    /// The repository, as in its address: owner/name.
    #[schemars(length(min = 3, max = 140), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9._-]+$"))]
    pub repository: String,
    /// The environment that is deployed to, by its name in the repository's settings (Environments): production.
    #[schemars(
        length(min = 1, max = 100),
        regex(pattern = "^[^\\s'\"`,;\\\\]([^\\t\\r\\n'\"`,;\\\\]*[^\\s'\"`,;\\\\])?$")
    )]
    pub environment: String,
    /// The workflow that rolls back: it is dispatched with the commit to go back to. Left out: a deployment of that commit is
    /// made (task deploy:rollback), for whatever carries out the repository's deployments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<GithubWorkflow>,
    /// A Secret of the policy's namespace whose key holds a GitHub token: fine-grained with the repository's permissions
    /// Deployments and, where workflow is set, Actions (read and write). Read at each look and before each action; the
    /// operator's role needs the right (`rbac.readCredentials` of the chart). Left out: the operator's own token
    /// (GITHUB_TOKEN).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<KeyRef>,
}

/// A workflow that deploys the commit it is given. Its run-name has to hold that commit, as in
/// `run-name: Roll back to ${{ inputs.sha }}`: the deployment of a dispatched run is recorded with the commit of the branch.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.inputs) || !(self.shaInput in self.inputs)", "inputs must not name the input of shaInput: it takes the commit to go back to"))]
pub struct GithubWorkflow {
    /// Its file in .github/workflows of the repository: rollback.yml. It has to be there on the default branch, with
    /// `on: workflow_dispatch`.
    #[schemars(length(min = 5, max = 128), regex(pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*\\.ya?ml$"))]
    pub file: String,
    /// The branch or tag whose version of the workflow runs. Default main.
    #[serde(rename = "ref", default = "default_ref")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[^\\s~^:?*\\[\\\\]+$"))]
    pub git_ref: String,
    /// The input that takes the commit to go back to, as its full SHA. Default sha.
    #[serde(default = "default_sha_input")]
    #[schemars(length(min = 1, max = 100), regex(pattern = "^[A-Za-z_][A-Za-z0-9_-]*$"))]
    pub sha_input: String,
    /// Further inputs and their values, at most 24. No secrets: everyone who may read the policy or the run sees them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 24))]
    pub inputs: BTreeMap<String, String>,
}

fn default_ref() -> String {
    "main".to_owned()
}

fn default_sha_input() -> String {
    "sha".to_owned()
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
