//! A stateful stand-in for Render's public API (<https://api-docs.render.com>), with its shapes, statuses, limits and
//! refusals. Time moves: a restart takes a while, a deploy passes through its statuses. Faults are put in by a handle, or
//! over HTTP below `/_fake` when it runs as a program (`cargo run --example render-fake`).
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

/// A key that it accepts.
pub const API_KEY: &str = "rnd_fakeKey0123456789abcdefghij";

/// A running fake; it ends when it is dropped.
pub struct FakeRender {
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

const RENDER: Provider = Provider {
    prefix: "/v1",
    error,
    headers: ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
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

impl Shared {
    /// The world as it is by now.
    fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.advance(jiff::Timestamp::now());
        world
    }
}

impl FakeRender {
    /// On a free port of this machine.
    pub async fn start() -> Self {
        Self::listen(([127, 0, 0, 1], 0).into()).await
    }

    pub async fn listen(address: SocketAddr) -> Self {
        let shared = Shared { world: Arc::default(), door: Door::new(RENDER, API_KEY) };
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().expect("it is bound");
        let router = routes::router(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { shared, address, server }
    }

    /// What RENDER_BASE_URL is to be.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Looks at the world, or changes it.
    pub fn with<T>(&self, what: impl FnOnce(&mut World) -> T) -> T {
        what(&mut self.shared.world())
    }

    /// A service with one live deploy.
    pub fn add(&self, id: &str, kind: &str) {
        self.with(|world| world.add_service(id, kind));
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

/// The calls that it got, and faults for them.
impl Deref for FakeRender {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.shared.door
    }
}

impl Drop for FakeRender {
    fn drop(&mut self) {
        self.server.abort();
    }
}
