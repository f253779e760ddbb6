//! GitHub's answers, as far as they are read (<https://docs.github.com/rest>). What need not be there is optional.

use jiff::Timestamp;
use serde::Deserialize;

/// `GET /repos/{owner}/{repo}/deployments`, and one of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Deployment {
    pub id: u64,
    /// The commit that it is recorded with.
    pub sha: String,
    #[serde(default)]
    pub task: String,
    #[serde(default)]
    pub description: Option<String>,
    pub created_at: Timestamp,
}

/// `GET …/deployments/{id}/statuses`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    pub id: u64,
    /// `pending`, `queued`, `waiting` (for approval), `in_progress`, `success`, `failure`, `error`, `inactive`.
    pub state: String,
    /// Of one that a workflow has made: `…/actions/runs/{id}/job/{id}`.
    #[serde(default)]
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
    #[serde(default)]
    pub status: Option<String>,
    /// Of a completed one: `success`, `failure`, `cancelled`, `timed_out`, `action_required`, `skipped`, `stale`, …
    #[serde(default)]
    pub conclusion: Option<String>,
    #[serde(default)]
    pub html_url: String,
    /// What the workflow's `run-name` says.
    #[serde(default)]
    pub display_title: Option<String>,
    #[serde(default)]
    pub event: String,
    /// `.github/workflows/rollback.yml`, with `@` and the ref after it or without.
    #[serde(default)]
    pub path: String,
    /// Of the branch that it was dispatched for.
    #[serde(default)]
    pub head_sha: String,
}

/// The answer 200 to a dispatch.
#[derive(Debug, Clone, Deserialize)]
pub struct Dispatched {
    pub workflow_run_id: u64,
}
