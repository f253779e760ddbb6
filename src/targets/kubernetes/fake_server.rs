//! An API server that follows a script, for tests: it answers the requests in their order and refuses all others.

use std::{fmt, pin::pin, time::Duration};

use axum::http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};

/// One request that must come next, and the answer.
pub struct Exchange {
    method: Method,
    /// Beginning of path and query.
    path: String,
    status: u16,
    body: String,
    hang: bool,
}

/// A request as it came.
pub struct Seen {
    pub path: String,
    pub content_type: String,
    pub body: Value,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.method, self.path, self.status)
    }
}

pub fn get(path: &str, status: u16, body: Value) -> Exchange {
    Exchange { method: Method::GET, path: path.into(), status, body: body.to_string(), hang: false }
}

pub fn patch(path: &str, status: u16, body: Value) -> Exchange {
    Exchange { method: Method::PATCH, ..get(path, status, body) }
}

pub fn post(path: &str, status: u16, body: Value) -> Exchange {
    Exchange { method: Method::POST, ..get(path, status, body) }
}

pub fn delete(path: &str, status: u16, body: Value) -> Exchange {
    Exchange { method: Method::DELETE, ..get(path, status, body) }
}

/// The answer to a watch: one event a line, then the end.
pub fn watch(path: &str, events: &[Value]) -> Exchange {
    let lines = events.iter().map(|event| format!("{event}\n")).collect();
    Exchange { body: lines, ..get(path, 200, Value::Null) }
}

/// The last request of a script; it gets no answer.
pub fn hangs(mut exchange: Exchange) -> Exchange {
    exchange.hang = true;
    exchange
}

pub fn failure(status: u16, reason: &str, message: &str) -> Value {
    serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason, "message": message})
}

/// A client, and the script's end: what was asked. It panics when another request came, or too few.
pub fn server(script: Vec<Exchange>) -> (Client, JoinHandle<Vec<Seen>>) {
    let (client, task, _) = server_with_end(script);
    (client, task)
}

/// The same, and what tells when the last request of the script came.
pub fn server_with_end(script: Vec<Exchange>) -> (Client, JoinHandle<Vec<Seen>>, oneshot::Receiver<()>) {
    let (end, ended) = oneshot::channel();
    let (service, handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let task = tokio::spawn(async move {
        let mut handle = pin!(handle);
        let mut seen = Vec::new();
        for expected in script {
            let next = tokio::time::timeout(Duration::from_secs(20), handle.next_request()).await;
            let Ok(Some((request, respond))) = next else { panic!("{expected:?} was never asked") };
            let path = request.uri().to_string();
            assert!(
                request.method() == expected.method && path.starts_with(&expected.path),
                "{} {path} instead of {expected:?}",
                request.method()
            );
            let header = request.headers().get("content-type").and_then(|value| value.to_str().ok());
            let content_type = header.unwrap_or_default().to_owned();
            let body = request.into_body().collect_bytes().await.unwrap();
            seen.push(Seen { path, content_type, body: serde_json::from_slice(&body).unwrap_or_default() });
            if expected.hang {
                std::mem::forget(respond);
                continue;
            }
            let response = Response::builder().status(expected.status).header("content-type", "application/json");
            respond.send_response(response.body(Body::from(expected.body.into_bytes())).unwrap());
        }
        let _ = end.send(());
        if let Some((request, _)) = handle.next_request().await {
            panic!("nothing more should be asked, but {} {} was", request.method(), request.uri());
        }
        seen
    });
    (Client::new(service, "default"), task, ended)
}
