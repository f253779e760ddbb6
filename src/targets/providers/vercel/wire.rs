//! Vercel's responses, as far as they are read (<https://vercel.com/docs/rest-api>). Fields that may be absent are optional.

use serde::Deserialize;
use serde_json::Value;

use crate::targets::providers::common::commit_label;

/// `GET /v9/projects/{id}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    #[serde(default)]
    pub paused: bool,
    pub targets: Option<Targets>,
    /// The last rollback or promotion; null without one.
    pub last_alias_request: Option<AliasRequest>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Targets {
    pub production: Option<Production>,
}

/// What production points at.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Production {
    pub id: String,
    /// `READY`, `BUILDING`, `ERROR`, `INITIALIZING`, `QUEUED`, `CANCELED`.
    #[serde(default)]
    pub ready_state: String,
    #[serde(default)]
    pub meta: Value,
}

/// A rollback or a promotion.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AliasRequest {
    pub to_deployment_id: String,
    /// `pending`, `in-progress`, `succeeded`, `failed`, `skipped`.
    pub job_status: String,
    /// Milliseconds since 1970.
    pub requested_at: f64,
    /// `rollback`, `promote`.
    #[serde(rename = "type", default)]
    pub kind: String,
}

impl AliasRequest {
    pub fn is_under_way(&self) -> bool {
        matches!(self.job_status.as_str(), "pending" | "in-progress")
    }
}

/// `GET /v7/deployments`, the newest first.
#[derive(Debug, Clone, Deserialize)]
pub struct Page {
    pub deployments: Vec<Deployment>,
    pub pagination: Option<Pagination>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Pagination {
    /// `until` of the next page.
    pub next: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Deployment {
    pub uid: String,
    /// As `readyState` of a project's production.
    #[serde(default)]
    pub state: String,
    #[serde(default)]
    pub meta: Value,
}

/// The commit of a deployment, from the Git provider's entries in its `meta`.
pub fn label(meta: &Value) -> String {
    let of = |what: &str| {
        let mut found =
            ["github", "gitlab", "bitbucket"].iter().filter_map(|git| meta[format!("{git}{what}")].as_str());
        found.next().unwrap_or_default()
    };
    match of("CommitSha") {
        "" => "no commit".to_owned(),
        id => commit_label(id, of("CommitMessage")),
    }
}
