//! A stateful stand-in for Render's public API (<https://api-docs.render.com>), with its shapes, statuses, limits and
//! refusals. Time moves: a restart takes a while, a deploy passes through its statuses. Faults are put in by a handle, or
//! over HTTP below `/_fake` when it runs as a program (`cargo run --example stand-ins`).
//!
//! What the documents do not say is assumed, and marked "(assumed)" where it stands.

mod postgres;
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
pub use postgres::Postgres;
pub use world::World;

/// A key that it accepts.
pub const API_KEY: &str = "rnd_fakeKey0123456789abcdefghij";

/// A running stand-in.
pub type FakeRender = StandIn<World>;

type Shared = door::Shared<World>;

impl door::World for World {
    const PROVIDER: Provider = RENDER;
    const KEY: &'static str = API_KEY;

    fn pass_time(&mut self, now: Timestamp) {
        self.advance(now);
    }

    fn router(shared: Shared) -> Router {
        routes::router(shared)
    }
}

const RENDER: Provider = Provider {
    prefix: "/v1",
    error,
    schemes: &["Bearer "],
    headers: ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
    limited: StatusCode::TOO_MANY_REQUESTS,
    writes: |endpoint, path| match endpoint {
        "PATCH /services/{id}"
        | "POST /services/{id}/deploys"
        | "POST /services/{id}/resume"
        | "POST /services/{id}/suspend" => Writes::Deploy(path.split('/').nth(3).unwrap_or_default().to_owned()),
        _ => Writes::Any,
    },
};

/// An error as Render writes it.
fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"id": "fake", "message": message}))).into_response()
}

impl FakeRender {
    /// A service with one live deploy.
    pub fn add(&self, id: &str, kind: &str) {
        self.with(|world| world.add_service(id, kind));
    }

    /// A Postgres, with a standby or without one.
    pub fn add_postgres(&self, id: &str, standby: bool) {
        self.with(|world| world.add_postgres(id, standby));
    }

    /// An action on a Postgres.
    pub fn postgres<T>(&self, id: &str, with: impl FnOnce(&mut Postgres) -> T) -> T {
        self.with(|world| with(world.databases.get_mut(id).expect("it is there")))
    }

    /// A commit is pushed: deployed where auto-deploy is on. The share of its requests that fails, 0 to 1.
    pub fn push(&self, service: &str, commit: &str, failing: f64) -> Option<String> {
        self.with(|world| world.push(service, commit, failing))
    }

    /// Restarts of a service that it did.
    pub fn restarts(&self, service: &str) -> u32 {
        self.with(|world| world.services[service].restarts)
    }
}
