//! A stateful stand-in for Render's public API (<https://api-docs.render.com>), with its shapes, statuses, limits and
//! refusals. Time moves: a restart takes a while, a deploy passes through its statuses. Faults are put in by a handle, or
//! over HTTP below `/_fake` when it runs as a program (`cargo run --example render-fake`).
//!
//! What the documents do not say is assumed, and marked "(assumed)" where it stands.

mod door;
mod routes;
mod world;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle};

pub use door::{Fault, Limits};
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
#[derive(Clone, Default)]
struct Shared {
    world: Arc<Mutex<World>>,
    door: Arc<Mutex<door::Door>>,
}

impl Shared {
    /// The world as it is by now.
    fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.advance(jiff::Timestamp::now());
        world
    }

    fn door(&self) -> MutexGuard<'_, door::Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeRender {
    /// On a free port of this machine.
    pub async fn start() -> Self {
        Self::listen(([127, 0, 0, 1], 0).into()).await
    }

    pub async fn listen(address: SocketAddr) -> Self {
        let shared = Shared::default();
        shared.door().keys.insert(API_KEY.to_owned());
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

    /// The next calls of an endpoint, as in `POST /services/{id}/restart` or `POST /services/srv-1/restart`, go wrong so many
    /// times; `*` is every endpoint.
    pub fn fault(&self, endpoint: &str, times: u32, fault: Fault) {
        self.shared.door().add_fault(endpoint, times, fault);
    }

    /// All is well again.
    pub fn clear_faults(&self) {
        self.shared.door().clear_faults();
    }

    /// How often an endpoint was called, whatever the answer.
    pub fn calls(&self, endpoint: &str) -> usize {
        self.shared.door().calls(endpoint)
    }

    /// All calls so far.
    pub fn all_calls(&self) -> usize {
        self.shared.door().all_calls()
    }

    /// Answers 429 that it gave by its own limits.
    pub fn refused_by_limit(&self) -> usize {
        self.shared.door().refused
    }

    pub fn set_limits(&self, limits: Limits) {
        self.shared.door().limits = limits;
    }

    /// Restarts of a service that it did.
    pub fn restarts(&self, service: &str) -> u32 {
        self.with(|world| world.services[service].restarts)
    }

    /// Waits until an endpoint has been called so often.
    pub async fn wait_calls(&self, endpoint: &str, times: usize, limit: Duration) {
        super::wait::until(&format!("{times} calls of {endpoint}"), limit, async || match self.calls(endpoint) {
            seen if seen >= times => Ok(()),
            seen => Err(format!("{seen} calls")),
        })
        .await;
    }
}

impl Drop for FakeRender {
    fn drop(&mut self) {
        self.server.abort();
    }
}
