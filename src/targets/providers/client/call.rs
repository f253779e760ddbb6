//! Sending a call: its turn, its tries, its response.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, ETAG, HeaderValue, IF_NONE_MATCH},
    redirect,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    base::BaseUrl,
    breaker::{Admission, Breaker, BreakerLimits, End, State},
    cache::cache,
    error::{CallError, Failure},
    headers::{Reported, again_in, reported},
    quota::{Credential, Quota, Quotas},
    retry::wait_before_next,
};
use crate::api::{CircuitState, CircuitStatus};
use crate::targets::fetch::{Body, MAX_BODY, USER_AGENT, beginning, body, cause, shown};

/// For connecting, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Breakers that are remembered before those without content are removed.
const MANY: usize = 256;
/// Responses that are cached, and the longest one in bytes.
const CACHED: usize = 2048;
const LONGEST: usize = 128 * 1024;

/// Calls one provider's API. One for the whole operator, so that its limits hold for all that use it.
pub struct ApiClient {
    /// Or why no request can be made at all.
    http: Result<Client, String>,
    base: BaseUrl,
    manner: Manner,
    /// Responses with their `ETag`, by credential and URL.
    cached: Mutex<HashMap<(Credential, String), (HeaderValue, Value)>>,
    quotas: Mutex<Quotas>,
    breakers: Mutex<HashMap<String, Breaker>>,
    /// One moment on both clocks, to convert others always alike.
    began: (Instant, Timestamp),
}

/// The conventions of a provider's API.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The media type of its responses.
    pub accept: &'static str,
    /// Further headers of each call.
    pub headers: &'static [(&'static str, &'static str)],
    /// Repeated reads send the `ETag`, and the provider does not send an unchanged response again.
    pub conditional: bool,
    /// The wait at a rate limit that does not say when it resets.
    pub limited_for: Option<Duration>,
}

impl Default for Manner {
    fn default() -> Self {
        Self { accept: "application/json", headers: &[], conditional: false, limited_for: None }
    }
}

/// When a call may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// The call is idempotent.
    Always,
    /// Only when the call certainly had no effect: the connection was refused, or the status was 429.
    IfNotDone,
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimits {
    /// One request and its whole response.
    pub attempt: Duration,
    /// The call with its tries and waits, those for its turn included.
    pub total: Duration,
}

/// One call of an API.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// In words, for messages: "restart service srv-1".
    pub what: &'a str,
    pub method: Method,
    /// Segments of its path, not yet escaped.
    pub path: &'a [&'a str],
    pub query: &'a [(&'a str, String)],
    pub json: Option<&'a Value>,
    pub repeat: Repeat,
    /// The quotas it counts against.
    pub quotas: &'a [Quota],
    /// The circuit breaker, by its name.
    pub breaker: &'a str,
    pub breaker_limits: BreakerLimits,
    pub time: TimeLimits,
}

/// A success: 200 to 299.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// Null when it is empty.
    pub json: Value,
    /// Requests that were sent for it.
    pub attempts: u32,
}

impl ApiClient {
    pub fn new(base: BaseUrl, manner: Manner) -> Self {
        let http = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_LIMIT)
            // A credential goes nowhere else.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| cause(&error));
        let (cached, quotas, breakers) = (Mutex::default(), Mutex::default(), Mutex::default());
        let began = (Instant::now(), Timestamp::now());
        Self { http, base, manner, cached, quotas, breakers, began }
    }

    /// The state of this breaker; none while it is closed.
    pub fn circuit(&self, breaker: &str) -> Option<CircuitStatus> {
        let (state, retry_at) = match self.breakers.lock().get(breaker)?.state() {
            State::Closed => return None,
            State::HalfOpen => (CircuitState::HalfOpen, None),
            State::Open { until } => {
                let (began, at) = self.began;
                (CircuitState::Open, at.checked_add(until.saturating_duration_since(began)).ok())
            }
        };
        Some(CircuitStatus { state, retry_at })
    }

    /// Restores the state of an earlier operator process; a probe that was under way then is sent again.
    pub fn restore_circuit(&self, breaker: &str, shown: &CircuitStatus, limits: BreakerLimits) {
        let left = shown.retry_at.map(|at| at.duration_since(Timestamp::now()));
        let left = left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default();
        self.breakers.lock().entry(breaker.to_owned()).or_default().restore(left, limits, Instant::now());
    }

    /// The content of the response.
    ///
    /// # Errors
    /// [`Failure::not_done`] reports whether the call certainly had no effect.
    pub async fn read<T: DeserializeOwned>(&self, token: &SecretString, call: &Call<'_>) -> Result<T, CallError> {
        let Answer { status, json, attempts } = self.send(token, call).await?;
        serde_path_to_error::deserialize(json).map_err(|why| {
            let why = format!("{}: {}", why.path(), why.inner());
            self.error(call, attempts, Failure::BadAnswer { status, why })
        })
    }

    /// Sends the call in its turn, and again where that is safe. Takes `call.time.total` at most.
    ///
    /// # Errors
    /// [`Failure::not_done`] reports whether the call certainly had no effect.
    pub async fn send(&self, token: &SecretString, call: &Call<'_>) -> Result<Answer, CallError> {
        let deadline = Instant::now() + call.time.total;
        let mut attempts = 0;
        let mut permit = self.permit(call).map_err(|wait| self.error(call, 0, Failure::CircuitOpen { wait }))?;
        let credential = Credential::of(token);
        let place = self.may_cache(call).then(|| (credential, self.place(call)));
        let known = place.as_ref().and_then(|place| self.cached.lock().get(place).cloned());
        loop {
            let error = |attempts, kind| self.error(call, attempts, kind);
            let request = self.request(token, call, known.as_ref().map(|(tag, _)| tag));
            let request = request.map_err(|why| error(attempts, Failure::Invalid(why)))?;
            let mut turn = self.turn(credential, call, deadline).await.map_err(|kind| error(attempts, kind))?;
            attempts += 1;
            permit.end = End::Failed;
            let left = deadline.saturating_duration_since(Instant::now());
            let (reported, received) = once(request, call.time.attempt.min(left), &self.manner).await;
            turn.outcome = (reported, matches!(&received, Ok(Received { json: None, .. })));
            drop(turn);
            let failed = received.as_ref().is_err_and(Failure::is_failure);
            permit.end = if failed { End::Failed } else { End::Healthy };
            let kind = match (received, &known) {
                (Ok(Received { status, json: Some(json), tag }), _) => {
                    if let (Some(place), Some(tag)) = (place, tag) {
                        cache(&mut self.cached.lock(), CACHED, place, (tag, json.clone()));
                    }
                    return Ok(Answer { status, json, attempts });
                }
                (Ok(Received { status, json: None, .. }), Some((_, json))) => {
                    return Ok(Answer { status, json: json.clone(), attempts });
                }
                // Unchanged, although no earlier response was named.
                (Ok(Received { status, .. }), None) => Failure::Status { status, said: String::new(), after: None },
                (Err(kind), _) => kind,
            };
            let wait = wait_before_next(&kind, call.repeat, attempts, fastrand::f64());
            let wait = wait.filter(|wait| permit.admission == Admission::Usual && Instant::now() + *wait < deadline);
            let Some(wait) = wait else { return Err(error(attempts, kind)) };
            // Not the message of the response, which may hold what was sent.
            tracing::debug!(call = call.what, status = kind.status(), wait_ms = wait.as_millis(), "retrying the call");
            tokio::time::sleep(wait).await;
        }
    }

    fn request(
        &self,
        token: &SecretString,
        call: &Call<'_>,
        known: Option<&HeaderValue>,
    ) -> Result<RequestBuilder, String> {
        let http = self.http.as_ref().map_err(|why| format!("no HTTP client could be made: {why}"))?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret().trim()))
            .map_err(|_| "the API key holds characters that no key has".to_owned())?;
        bearer.set_sensitive(true);
        let mut request = http
            .request(call.method.clone(), self.base.join(call.path))
            .query(call.query)
            .header(AUTHORIZATION, bearer)
            .header(ACCEPT, self.manner.accept);
        for (name, value) in self.manner.headers {
            request = request.header(*name, *value);
        }
        if let Some(tag) = known {
            request = request.header(IF_NONE_MATCH, tag);
        }
        Ok(call.json.into_iter().fold(request, RequestBuilder::json))
    }

    fn may_cache(&self, call: &Call<'_>) -> bool {
        self.manner.conditional && call.method == Method::GET
    }

    fn place(&self, call: &Call<'_>) -> String {
        let mut url = self.base.join(call.path);
        url.query_pairs_mut().extend_pairs(call.query);
        url.into()
    }

    fn permit(&self, call: &Call<'_>) -> Result<Permit<'_>, Duration> {
        let mut breakers = self.breakers.lock();
        if breakers.len() > MANY {
            breakers.retain(|_, breaker| !breaker.is_new());
        }
        let admission = breakers.entry(call.breaker.to_owned()).or_default().admit(Instant::now())?;
        let (name, limits) = (call.breaker.to_owned(), call.breaker_limits);
        Ok(Permit { client: self, name, limits, admission, end: End::NotMade })
    }

    /// Waits until the quotas allow the call.
    async fn turn<'a>(
        &'a self,
        credential: Credential,
        call: &'a Call<'_>,
        deadline: Instant,
    ) -> Result<Turn<'a>, Failure> {
        // A call in its turn has the time for a response: else its outcome would be unknown.
        let latest = deadline.checked_sub(call.time.attempt).unwrap_or(deadline);
        loop {
            let now = Instant::now();
            let taken = self.quotas.lock().take(credential, call.quotas, now);
            match taken {
                Ok(()) => {
                    return Ok(Turn { client: self, credential, quotas: call.quotas, outcome: (None, false) });
                }
                Err(wait) if now + wait > latest => return Err(Failure::Throttled { wait }),
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    fn error(&self, call: &Call<'_>, attempts: u32, kind: Failure) -> CallError {
        let url = shown(&self.base.join(call.path));
        CallError { call: format!("{} ({} {url})", call.what, call.method), attempts, kind }
    }
}

/// A place in the count of calls that are under way, released in any case.
struct Turn<'a> {
    client: &'a ApiClient,
    credential: Credential,
    quotas: &'a [Quota],
    /// What the response reports of the limit, and whether it was 304.
    outcome: (Option<Reported>, bool),
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.client.quotas.lock().ended(self.credential, self.quotas, self.outcome, Instant::now());
    }
}

/// The breaker's permission. The breaker is informed of the end of the call, also when the caller was dropped.
struct Permit<'a> {
    client: &'a ApiClient,
    name: String,
    limits: BreakerLimits,
    admission: Admission,
    /// If the call ended now.
    end: End,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(breaker) = self.client.breakers.lock().get_mut(&self.name) {
            breaker.ended(self.admission, self.end, self.limits, Instant::now());
        }
    }
}

struct Received {
    status: u16,
    /// Null when the response is empty; none when it is unchanged.
    json: Option<Value>,
    /// Of a response that is short enough for the cache.
    tag: Option<HeaderValue>,
}

/// The response to one request, and what it reports of the limit.
type Tried = (Option<Reported>, Result<Received, Failure>);

async fn once(request: RequestBuilder, limit: Duration, manner: &Manner) -> Tried {
    let read = async {
        match request.send().await {
            Ok(response) => read(response, manner).await,
            Err(error) if error.is_connect() || error.is_builder() => (None, Err(Failure::Unreachable(cause(&error)))),
            Err(error) => (None, Err(Failure::Broken(cause(&error)))),
        }
    };
    tokio::time::timeout(limit, read).await.unwrap_or((None, Err(Failure::Timeout(limit))))
}

async fn read(response: Response, manner: &Manner) -> Tried {
    let (code, now) = (response.status(), Timestamp::now());
    let (status, reported) = (code.as_u16(), reported(response.headers(), now));
    let after = again_in(response.headers(), now);
    let tag = response.headers().get(ETAG).cloned();
    let bad = |why| (reported, Err(Failure::BadAnswer { status, why }));
    if code == StatusCode::NOT_MODIFIED {
        return (reported, Ok(Received { status, json: None, tag: None }));
    }
    let content = match body(response, MAX_BODY).await {
        Ok(Body::Whole(content)) => content,
        Ok(Body::TooLong) if code.is_success() => return bad(format!("the response is longer than {MAX_BODY} bytes")),
        Ok(Body::TooLong) => Vec::new(),
        // A refusal counts also without its message.
        Err(_) if code.is_client_error() => Vec::new(),
        Err(error) => return (reported, Err(Failure::Broken(cause(&error)))),
    };
    if !code.is_success() {
        let (limit, failure) = refused(code, said(&content), after, manner);
        return (limit.or(reported), Err(failure));
    }
    let tag = tag.filter(|_| content.len() <= LONGEST);
    if content.iter().all(u8::is_ascii_whitespace) {
        return (reported, Ok(Received { status, json: Some(Value::Null), tag }));
    }
    match serde_json::from_slice(&content) {
        Ok(json) => (reported, Ok(Received { status, json: Some(json), tag })),
        Err(_) => bad(format!("the response is not JSON: {:?}", beginning(&content))),
    }
}

/// A rate limit stops the calls that count against it, for the time that the response says.
fn refused(status: StatusCode, said: String, after: Option<Duration>, manner: &Manner) -> (Option<Reported>, Failure) {
    // A 403 has two meanings: the key has no permission, and (GitHub) the rate limit is used up.
    let of_rate = match status.as_u16() {
        429 => true,
        403 => after.is_some() || said.to_lowercase().contains("rate limit"),
        _ => false,
    };
    let after = if of_rate { after.or(manner.limited_for) } else { after.filter(|_| status != StatusCode::FORBIDDEN) };
    let limit = after.filter(|_| of_rate).map(|resets_in| Reported { left: 0, resets_in });
    (limit, Failure::Status { status: status.as_u16(), said, after })
}

/// The message of an error response; empty without one.
fn said(content: &[u8]) -> String {
    let json: Value = serde_json::from_slice(content).unwrap_or_default();
    let message = json["message"].as_str().or_else(|| json["error"]["message"].as_str());
    match message.map_or_else(|| beginning(content), |message| beginning(message.as_bytes())) {
        words if words.is_empty() => String::new(),
        words => format!(": {words:?}"),
    }
}

#[cfg(test)]
mod tests;
