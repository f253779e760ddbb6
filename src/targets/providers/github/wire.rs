//! GitHub's responses, as far as they are read (<https://docs.github.com/rest>). Fields that may be absent are optional.

use jiff::Timestamp;
use serde::Deserialize;

/// `GET /repos/{owner}/{repo}/deployments`, and one of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Deployment {
    pub id: u64,
    /// The recorded commit.
    pub sha: String,
    #[serde(default)]
    pub task: String,
    pub description: Option<String>,
    pub created_at: Timestamp,
}

/// `GET …/deployments/{id}/statuses`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    pub id: u64,
    /// `pending`, `queued`, `waiting` (for approval), `in_progress`, `success`, `failure`, `error`, `inactive`.
    pub state: String,
    /// Of a deployment by a workflow: `…/actions/runs/{id}/job/{id}`.
    pub log_url: Option<String>,
}

/// `GET …/actions/workflows/{file}`.
#[derive(Debug, Clone, Deserialize)]
pub struct Workflow {
    /// `active`, `disabled_manually`, `disabled_inactivity`, …
    #[serde(default)]
    pub state: String,
}

/// `GET …/actions/workflows/{file}/runs`.
#[derive(Debug, Clone, Deserialize)]
pub struct Runs {
    pub workflow_runs: Vec<Run>,
}

/// `GET …/actions/runs/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Run {
    pub id: u64,
    /// `queued`, `requested`, `waiting` (for approval), `pending`, `in_progress`, `completed`.
    pub status: Option<String>,
    /// Of a completed run: `success`, `failure`, `cancelled`, `timed_out`, `action_required`, `skipped`, `stale`, …
    pub conclusion: Option<String>,
    #[serde(default)]
    pub html_url: String,
    /// By the workflow's `run-name`.
    pub display_title: Option<String>,
    #[serde(default)]
    pub event: String,
    /// `.github/workflows/rollback.yml`, with `@` and the ref after it or without.
    #[serde(default)]
    pub path: String,
    /// Of the branch that the run was dispatched for.
    #[serde(default)]
    pub head_sha: String,
}
