//! A stateful stand-in for Vercel's public API (<https://vercel.com/docs/rest-api>), with its shapes, statuses and refusals.
//! Time moves: a deployment is built, a rollback is pending before production has moved. Faults are put in by a handle, or over
//! HTTP below `/_fake` when it runs as a program (`cargo run --example vercel-fake`). Below `/_fake/prometheus` it answers as
//! the Prometheus of a team would that measures its projects: what is asked is a project's id, the answer its share of failing
//! requests.
//!
//! What the documents do not say is assumed, and marked "(assumed)" where it stands.

mod routes;
mod world;

use std::{
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use super::door::{Door, Provider, Writes};
pub use world::World;

/// A token that it accepts.
pub const TOKEN: &str = "vcl_fakeToken0123456789abcdef";

/// A running fake; it ends when it is dropped.
pub struct FakeVercel {
    shared: Shared,
    address: SocketAddr,
    server: JoinHandle<()>,
}

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    world: Arc<Mutex<World>>,
    door: Door,
}

const VERCEL: Provider = Provider {
    prefix: "",
    error: |status, message| error(status, "fake", message),
    headers: ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
    writes: |_, _| Writes::Any,
};

/// An error as Vercel writes it.
fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({"error": {"code": code, "message": message}}))).into_response()
}

impl Shared {
    /// The world as it is by now.
    fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.advance(jiff::Timestamp::now());
        world
    }
}

impl FakeVercel {
    /// On a free port of this machine.
    pub async fn start() -> Self {
        Self::listen(([127, 0, 0, 1], 0).into()).await
    }

    pub async fn listen(address: SocketAddr) -> Self {
        let shared = Shared { world: Arc::default(), door: Door::new(VERCEL, TOKEN) };
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().expect("it is bound");
        let router = routes::router(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { shared, address, server }
    }

    /// What VERCEL_BASE_URL is to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where the shares of failing requests are asked for, as a Prometheus.
    pub fn prometheus(&self) -> String {
        format!("http://{}/_fake/prometheus", self.address)
    }

    /// Looks at the world, or changes it.
    pub fn with<T>(&self, what: impl FnOnce(&mut World) -> T) -> T {
        what(&mut self.shared.world())
    }

    /// The deployment that serves.
    pub fn live(&self, project: &str) -> String {
        self.with(|world| world.projects[project].production.clone())
    }

    /// Rollbacks of a project that were begun.
    pub fn rollbacks(&self, project: &str) -> u32 {
        self.with(|world| world.projects[project].rollbacks)
    }
}

/// The calls that it got, and faults for them.
impl Deref for FakeVercel {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.shared.door
    }
}

impl Drop for FakeVercel {
    fn drop(&mut self) {
        self.server.abort();
    }
}
