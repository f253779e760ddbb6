//! A stateful stand-in for Vercel's public API (<https://vercel.com/docs/rest-api>), with its shapes, statuses and refusals.
//! Time moves: a deployment is built, a rollback is pending before production has moved. Faults are put in by a handle, or over
//! HTTP below `/_fake` when it runs as a program (`cargo run --example stand-ins`). Below `/_fake/prometheus` it answers as
//! the Prometheus of a team would that measures its projects: what is asked is a project's id, the answer its share of failing
//! requests.
//!
//! Vercel's own client (@vercel/sdk 1.28) works against it. What the documents do not say is assumed, and marked "(assumed)" where it stands.

mod routes;
mod world;

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
pub const TOKEN: &str = "vcl_fakeToken0123456789abcdef";

/// A running stand-in.
pub type FakeVercel = StandIn<World>;

type Shared = door::Shared<World>;

impl door::World for World {
    const PROVIDER: Provider = VERCEL;
    const KEY: &'static str = TOKEN;

    fn pass_time(&mut self, now: Timestamp) {
        self.advance(now);
    }

    fn router(shared: Shared) -> Router {
        routes::router(shared)
    }
}

const VERCEL: Provider = Provider {
    prefix: "",
    error: |status, message| error(status, "fake", message),
    schemes: &["Bearer "],
    headers: ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
    limited: StatusCode::TOO_MANY_REQUESTS,
    writes: |_, _| Writes::Any,
};

/// An error as Vercel writes it.
fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({"error": {"code": code, "message": message}}))).into_response()
}

impl FakeVercel {
    /// Where the shares of failing requests are asked for, as a Prometheus.
    pub fn prometheus(&self) -> String {
        format!("{}/prometheus", self.control_url())
    }

    /// The deployment that serves.
    pub fn live(&self, project: &str) -> String {
        self.with(|world| world.projects[project].production.clone())
    }

    /// Rollbacks of a project that have started.
    pub fn rollbacks(&self, project: &str) -> u32 {
        self.with(|world| world.projects[project].rollbacks)
    }
}
