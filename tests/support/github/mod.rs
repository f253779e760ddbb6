//! A stateful stand-in for GitHub's public API (<https://docs.github.com/rest>), as far as deployments and workflows go, with its
//! shapes, statuses and refusals. Time moves: a run is queued, in progress and completed, and its job with an `environment`
//! leaves a deployment with statuses, recorded with the commit of the branch. Faults are put in by a handle, or over HTTP
//! below `/_fake` when it runs as a program (`cargo run --example stand-ins`). Below `/_fake/prometheus` it answers as the
//! Prometheus of a team would: what is asked is `owner/name`, the answer the share of failing requests of what serves there.
//!
//! GitHub's own client (@octokit/rest 22) works against it. What the documents do not say is assumed, and marked "(assumed)" where it stands.

mod routes;
pub mod world;

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use serde_json::json;

use super::door::{self, Provider, StandIn, Writes};
pub use world::World;

/// A token that it accepts.
pub const TOKEN: &str = "github_pat_fakeToken0123456789abcdef";

/// A running stand-in.
pub type FakeGithub = StandIn<World>;

type Shared = door::Shared<World>;

impl door::World for World {
    const PROVIDER: Provider = GITHUB;
    const KEY: &'static str = TOKEN;

    fn pass_time(&mut self, now: Timestamp) {
        self.advance(now);
    }

    fn router(shared: Shared) -> Router {
        routes::router(shared)
    }
}

const GITHUB: Provider = Provider {
    // As an Enterprise Server has it.
    prefix: "/api/v3",
    error,
    schemes: &["Bearer ", "token "],
    headers: ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
    limited: StatusCode::FORBIDDEN,
    writes: |_, _| Writes::Any,
};

/// An error as GitHub writes it.
fn error(status: StatusCode, message: &str) -> Response {
    let body =
        json!({"message": message, "documentation_url": "https://docs.github.com/rest", "status": status.as_str()});
    (status, Json(body)).into_response()
}

impl FakeGithub {
    /// Where the shares of failing requests are asked for, as a Prometheus.
    pub fn prometheus(&self) -> String {
        format!("{}/prometheus", self.control_url())
    }

    /// The commit that serves.
    pub fn serves(&self, repository: &str) -> String {
        self.with(|world| world.repositories[repository].serves.clone())
    }

    /// Runs of the rollback workflow that have started.
    pub fn dispatched(&self, repository: &str) -> usize {
        self.with(|world| world.repositories[repository].runs.len())
    }

    /// Deployments with the task of a rollback.
    pub fn rollbacks(&self, repository: &str) -> usize {
        self.with(|world| {
            let deployments = world.repositories[repository].deployments.iter();
            deployments.filter(|deployment| deployment.task == "deploy:rollback").count()
        })
    }
}
