//! What every call of a stand-in for a provider's API passes: the count, the key, the rate limits, and the faults that a test
//! puts in. And a stand-in itself: a world behind such a door.

use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::SocketAddr,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use super::wait;

/// What a provider does in its own way.
#[derive(Debug, Clone, Copy)]
pub struct Provider {
    /// What all its paths begin with, and endpoints leave out.
    pub prefix: &'static str,
    /// An error as it writes it.
    pub error: fn(StatusCode, &str) -> Response,
    /// What stands before a key: `Bearer `.
    pub schemes: &'static [&'static str],
    /// The headers of limit, what is left, and reset.
    pub headers: [&'static str; 3],
    /// How it refuses what is over its limit.
    pub limited: StatusCode,
    /// What a call that is not a GET counts against, from its route and its path.
    pub writes: fn(&str, &str) -> Writes,
}

/// Which limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writes {
    Any,
    /// Of this service's deploys.
    Deploy(String),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Refused before anything is done.
    Status(u16),
    /// It is done, and answered with this.
    DoneAndStatus(u16),
    /// It is done, and answered so many milliseconds later.
    DelayMs(u64),
    /// It is not done, and never answered.
    Hang,
    /// It is done, and never answered.
    DoneAndHang,
    /// It is done, and the connection breaks in the middle of the answer.
    DoneAndReset,
    /// It is not done, and the connection breaks.
    Reset,
    /// A proxy's page, with status 200.
    Html,
    /// 429, free again in so many seconds.
    Limited(u64),
}

/// Calls a minute.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub get: u32,
    pub write: u32,
    /// For each service.
    pub deploy: u32,
    /// `Ratelimit-Reset` is a time since 1970 instead of seconds from now: the documents say one and show the other.
    pub reset_is_a_time: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { get: 400, write: 30, deploy: 10, reset_is_a_time: false }
    }
}

const WINDOW: Duration = Duration::from_secs(60);

/// A handle: all clones are one door.
#[derive(Clone)]
pub struct Door(Arc<Mutex<Counts>>);

struct Counts {
    provider: Provider,
    keys: BTreeSet<String>,
    limits: Limits,
    /// Answers 429 by these limits.
    refused: usize,
    /// Each as the route has it, and as it was asked: `GET /services/{id}`, `GET /services/srv-1`.
    calls: Vec<[String; 2]>,
    faults: Vec<(String, u32, Fault)>,
    /// By key and kind of call: since when, and how many.
    windows: BTreeMap<(String, String), (Instant, u32)>,
    /// When calls of these came, and the most that any minute held, wherever it began.
    minutes: BTreeMap<(String, String), (VecDeque<Instant>, usize)>,
}

/// The limit headers of an answer.
#[derive(Clone, Copy)]
struct Told {
    limit: u32,
    left: u32,
    reset: u64,
}

impl Door {
    pub fn new(provider: Provider, key: &str) -> Self {
        Self(Arc::new(Mutex::new(Counts {
            provider,
            keys: BTreeSet::from([key.to_owned()]),
            limits: Limits::default(),
            refused: 0,
            calls: Vec::new(),
            faults: Vec::new(),
            windows: BTreeMap::new(),
            minutes: BTreeMap::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock()
    }

    /// The next calls of an endpoint, as in `POST /services/{id}/restart` or `POST /services/srv-1/restart`, go wrong so many
    /// times; `*` is every endpoint.
    pub fn fault(&self, endpoint: &str, times: u32, fault: Fault) {
        self.lock().faults.push((endpoint.to_owned(), times, fault));
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// How often an endpoint was called, whatever the answer.
    pub fn calls(&self, endpoint: &str) -> usize {
        self.lock().calls(endpoint)
    }

    /// All calls so far.
    pub fn all_calls(&self) -> usize {
        self.lock().calls.len()
    }

    /// Answers 429 that it gave by its own limits.
    pub fn refused_by_limit(&self) -> usize {
        self.lock().refused
    }

    /// One more key that it accepts.
    pub fn accept(&self, key: &str) {
        self.lock().keys.insert(key.to_owned());
    }

    /// The most calls of this kind (`get`, `write`) that any 60 s held, by key.
    pub fn fullest_minutes(&self, kind: &str) -> BTreeMap<String, usize> {
        let minutes = &self.lock().minutes;
        minutes.iter().filter(|((_, of), _)| of == kind).map(|((key, _), (_, most))| (key.clone(), *most)).collect()
    }

    pub fn set_limits(&self, limits: Limits) {
        self.lock().limits = limits;
    }

    /// Waits until an endpoint has been called so often.
    pub async fn wait_calls(&self, endpoint: &str, times: usize, limit: Duration) {
        wait::until(&format!("{times} calls of {endpoint}"), limit, async || match self.calls(endpoint) {
            seen if seen >= times => Ok(()),
            seen => Err(format!("{seen} calls")),
        })
        .await;
    }

    /// Faults, limits and the count, over HTTP.
    pub fn control(&self) -> Router {
        Router::new()
            .route("/_fake/faults", post(add_fault))
            .route("/_fake/limits", post(put_limits))
            .route("/_fake/calls", get(count_calls))
            .with_state(self.clone())
    }
}

impl Counts {
    fn calls(&self, endpoint: &str) -> usize {
        self.calls.iter().filter(|call| call.iter().any(|name| name == endpoint)).count()
    }

    fn next_fault(&mut self, names: &[String; 2]) -> Option<Fault> {
        self.faults.retain(|(_, times, _)| *times > 0);
        let found = self.faults.iter_mut().find(|(wanted, ..)| wanted == "*" || names.contains(wanted))?;
        found.1 -= 1;
        Some(found.2)
    }

    /// Counts a call against its limit.
    fn count(&mut self, key: &str, endpoint: &str, path: &str) -> Result<Told, Told> {
        let Limits { get, write, deploy, reset_is_a_time } = self.limits;
        let (kind, limit) = match (self.provider.writes)(endpoint, path) {
            _ if endpoint.starts_with("GET ") => ("get".to_owned(), get),
            Writes::Deploy(service) => (format!("deploy {service}"), deploy),
            Writes::Any => ("write".to_owned(), write),
        };
        let now = Instant::now();
        let (minute, most) = self.minutes.entry((key.to_owned(), kind.clone())).or_default();
        while minute.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            minute.pop_front();
        }
        minute.push_back(now);
        *most = minute.len().max(*most);
        let window = self.windows.entry((key.to_owned(), kind)).or_insert((now, 0));
        if now.duration_since(window.0) >= WINDOW {
            *window = (now, 0);
        }
        window.1 += 1;
        let wait = (WINDOW - now.duration_since(window.0)).as_secs() + 1;
        let reset = if reset_is_a_time { Timestamp::now().as_second() as u64 + wait } else { wait };
        let told = Told { limit, left: limit.saturating_sub(window.1), reset };
        if window.1 > limit {
            self.refused += 1;
            return Err(told);
        }
        Ok(told)
    }
}

fn with_limits(mut response: Response, told: Told, names: [&'static str; 3]) -> Response {
    let headers = response.headers_mut();
    for (name, value) in names.into_iter().zip([u64::from(told.limit), u64::from(told.left), told.reset]) {
        headers.insert(name, HeaderValue::from(value));
    }
    response
}

/// Around every route.
pub async fn pass(State(door): State<Door>, path: MatchedPath, request: Request, next: Next) -> Response {
    let Provider { prefix, error, schemes, headers, limited, .. } = door.lock().provider;
    let names = [path.as_str(), request.uri().path()]
        .map(|path| format!("{} {}", request.method(), path.strip_prefix(prefix).unwrap_or(path)));
    let said = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = said.and_then(|value| schemes.iter().find_map(|scheme| value.strip_prefix(scheme)));
    let key = key.unwrap_or_default().to_owned();
    let (counted, fault) = {
        let mut door = door.lock();
        door.calls.push(names.clone());
        if !door.keys.contains(&key) {
            return error(StatusCode::UNAUTHORIZED, "Unauthorized");
        }
        (door.count(&key, &names[0], request.uri().path()), door.next_fault(&names))
    };
    let told = match counted {
        Ok(told) => told,
        Err(told) => return with_limits(error(limited, "API rate limit exceeded"), told, headers),
    };
    let response = match fault {
        None => next.run(request).await,
        Some(Fault::Status(status)) => error(code(status), "a fault"),
        Some(Fault::DoneAndStatus(status)) => {
            next.run(request).await;
            error(code(status), "a fault")
        }
        Some(Fault::DelayMs(time)) => {
            let answer = next.run(request).await;
            tokio::time::sleep(Duration::from_millis(time)).await;
            answer
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::DoneAndHang) => {
            next.run(request).await;
            std::future::pending().await
        }
        Some(Fault::DoneAndReset) => {
            next.run(request).await;
            broken()
        }
        Some(Fault::Reset) => broken(),
        Some(Fault::Html) => {
            ([(header::CONTENT_TYPE, "text/html")], "<html><body>Please log in</body></html>").into_response()
        }
        Some(Fault::Limited(seconds)) => {
            let told = Told { left: 0, reset: seconds, ..told };
            return with_limits(error(limited, "API rate limit exceeded"), told, headers);
        }
    };
    with_limits(response, told, headers)
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Begins to answer, and breaks the connection.
fn broken() -> Response {
    let chunks = [Ok("{\"id\": "), Err(io::Error::other("reset"))];
    Body::from_stream(futures::stream::iter(chunks)).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFault {
    endpoint: String,
    times: u32,
    fault: Fault,
}

async fn add_fault(State(door): State<Door>, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(NewFault { endpoint, times, fault }) => {
            door.fault(&endpoint, times, fault);
            StatusCode::OK.into_response()
        }
        Err(why) => (StatusCode::BAD_REQUEST, why.to_string()).into_response(),
    }
}

async fn put_limits(State(door): State<Door>, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(limits) => {
            door.set_limits(limits);
            StatusCode::OK.into_response()
        }
        Err(why) => (StatusCode::BAD_REQUEST, why.to_string()).into_response(),
    }
}

async fn count_calls(State(door): State<Door>) -> Response {
    let counts = door.lock();
    let routes: BTreeSet<&String> = counts.calls.iter().map(|[route, _]| route).collect();
    let calls: BTreeMap<&String, usize> = routes.into_iter().map(|route| (route, counts.calls(route))).collect();
    Json(json!({"calls": calls, "refused": counts.refused})).into_response()
}

/// What a provider has, and how it is asked for it.
pub trait World: Default + Send + Sized + 'static {
    const PROVIDER: Provider;
    /// A key that it accepts.
    const KEY: &'static str;

    /// Time has passed until now.
    fn pass_time(&mut self, now: Timestamp);

    fn router(shared: Shared<Self>) -> Router;
}

/// What the handlers share.
pub struct Shared<W> {
    world: Arc<Mutex<W>>,
    pub door: Door,
}

impl<W> Clone for Shared<W> {
    fn clone(&self) -> Self {
        Self { world: Arc::clone(&self.world), door: self.door.clone() }
    }
}

impl<W: World> Shared<W> {
    /// The world as it is by now.
    pub fn world(&self) -> MutexGuard<'_, W> {
        let mut world = self.world.lock();
        world.pass_time(Timestamp::now());
        world
    }
}

/// A running stand-in; it ends when it is dropped.
pub struct StandIn<W> {
    shared: Shared<W>,
    pub address: SocketAddr,
    server: JoinHandle<()>,
}

impl<W: World> StandIn<W> {
    /// On a free port of this machine.
    pub async fn start() -> Self {
        Self::listen(([127, 0, 0, 1], 0).into()).await
    }

    pub async fn listen(address: SocketAddr) -> Self {
        let shared = Shared { world: Arc::default(), door: Door::new(W::PROVIDER, W::KEY) };
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().expect("it is bound");
        let router = W::router(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { shared, address, server }
    }

    /// Where a test changes the state that it represents.
    pub fn control_url(&self) -> String {
        format!("http://{}/_fake", self.address)
    }

    /// What its base URL is to be.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, W::PROVIDER.prefix)
    }

    /// Reads the world, or changes it.
    pub fn with<T>(&self, what: impl FnOnce(&mut W) -> T) -> T {
        what(&mut self.shared.world())
    }
}

/// The calls that it got, and faults for them.
impl<W> Deref for StandIn<W> {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.shared.door
    }
}

impl<W> Drop for StandIn<W> {
    fn drop(&mut self) {
        self.server.abort();
    }
}
