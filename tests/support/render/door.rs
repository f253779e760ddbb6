//! What every call passes: the count, the key, the rate limits, and the faults that a test puts in.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::Shared;

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

#[derive(Default)]
pub struct Door {
    pub keys: BTreeSet<String>,
    pub limits: Limits,
    /// Answers 429 by these limits.
    pub refused: usize,
    /// Each as the route has it, and as it was asked: `GET /services/{id}`, `GET /services/srv-1`.
    calls: Vec<[String; 2]>,
    faults: Vec<(String, u32, Fault)>,
    /// By key and kind of call: since when, and how many.
    windows: BTreeMap<(String, String), (Instant, u32)>,
}

/// The limit headers of an answer.
#[derive(Clone, Copy)]
struct Told {
    limit: u32,
    left: u32,
    reset: u64,
}

impl Door {
    pub fn add_fault(&mut self, endpoint: &str, times: u32, fault: Fault) {
        self.faults.push((endpoint.to_owned(), times, fault));
    }

    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    pub fn calls(&self, endpoint: &str) -> usize {
        self.calls.iter().filter(|call| call.iter().any(|name| name == endpoint)).count()
    }

    pub fn by_endpoint(&self) -> BTreeMap<&str, usize> {
        self.calls.iter().map(|[route, _]| (route.as_str(), self.calls(route))).collect()
    }

    pub fn all_calls(&self) -> usize {
        self.calls.len()
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
        let service = path.split('/').nth(3).unwrap_or_default();
        let (kind, limit) = match endpoint {
            "PATCH /services/{id}"
            | "POST /services/{id}/deploys"
            | "POST /services/{id}/resume"
            | "POST /services/{id}/suspend" => (format!("deploy {service}"), deploy),
            _ if endpoint.starts_with("GET ") => ("get".to_owned(), get),
            _ => ("write".to_owned(), write),
        };
        let now = Instant::now();
        let window = self.windows.entry((key.to_owned(), kind)).or_insert((now, 0));
        if now.duration_since(window.0) >= WINDOW {
            *window = (now, 0);
        }
        window.1 += 1;
        let wait = (WINDOW - now.duration_since(window.0)).as_secs() + 1;
        let reset = if reset_is_a_time { jiff::Timestamp::now().as_second() as u64 + wait } else { wait };
        let told = Told { limit, left: limit.saturating_sub(window.1), reset };
        if window.1 > limit {
            self.refused += 1;
            return Err(told);
        }
        Ok(told)
    }
}

/// An error as Render writes it.
pub fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"id": "fake", "message": message}))).into_response()
}

fn with_limits(mut response: Response, told: Told) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        ("ratelimit-limit", u64::from(told.limit)),
        ("ratelimit-remaining", u64::from(told.left)),
        ("ratelimit-reset", told.reset),
    ] {
        headers.insert(name, HeaderValue::from(value));
    }
    response
}

/// Around every route.
pub async fn pass(State(shared): State<Shared>, path: MatchedPath, request: Request, next: Next) -> Response {
    let names = [path.as_str(), request.uri().path()]
        .map(|path| format!("{} {}", request.method(), path.trim_start_matches("/v1")));
    let said = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = said.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
    let (counted, fault) = {
        let mut door = shared.door();
        door.calls.push(names.clone());
        if !door.keys.contains(&key) {
            return error(StatusCode::UNAUTHORIZED, "Unauthorized");
        }
        (door.count(&key, &names[0], request.uri().path()), door.next_fault(&names))
    };
    let told = match counted {
        Ok(told) => told,
        Err(told) => return with_limits(error(StatusCode::TOO_MANY_REQUESTS, "rate limit exceeded"), told),
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
            return with_limits(error(StatusCode::TOO_MANY_REQUESTS, "rate limit exceeded"), told);
        }
    };
    with_limits(response, told)
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Begins to answer, and breaks the connection.
fn broken() -> Response {
    let chunks = [Ok("{\"id\": "), Err(io::Error::other("reset"))];
    Body::from_stream(futures::stream::iter(chunks)).into_response()
}
