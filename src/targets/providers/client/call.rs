//! Sending a call: its turn, its tries, its answer.

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
    error::{CallError, Failure},
    etag_cache::{EtagCache, LONGEST},
    headers::{Told, again_in, told},
    quota::{Credential, Quota, Quotas},
    retry::wait_before_next,
};
use crate::api::{CircuitState, CircuitStatus};
use crate::targets::fetch::{Body, MAX_BODY, USER_AGENT, beginning, body, cause, shown};

/// For connecting, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Breakers that are remembered before those without content are looked for.
const MANY: usize = 256;

/// Calls one provider's API. One for the whole operator, so that its limits hold for all that use it.
pub struct ApiClient {
    /// Or why no request can be made at all.
    http: Result<Client, String>,
    base: BaseUrl,
    manner: Manner,
    kept: Mutex<EtagCache>,
    quotas: Mutex<Quotas>,
    breakers: Mutex<HashMap<String, Breaker>>,
    /// One moment on both clocks, so that another one is always told by the same words.
    began: (Instant, Timestamp),
}

/// How a provider wants to be spoken to.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The media type of its answers.
    pub accept: &'static str,
    /// Further headers of each call.
    pub headers: &'static [(&'static str, &'static str)],
    /// What was read before is asked for with its `ETag`, and not sent again when it is the same.
    pub conditional: bool,
    /// How long to wait when a rate limit does not say it.
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
    /// Twice is as good as once: it only reads, or sets what it sets.
    Always,
    /// Only when it is certain that it had no effect: the connection was refused, or the answer was 429.
    IfNotDone,
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimits {
    /// One request and its whole answer.
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
    /// What it counts against.
    pub quotas: &'a [Quota],
    /// Whose health it depends on.
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
    pub fn new(base: BaseUrl) -> Self {
        Self::with_manner(base, Manner::default())
    }

    pub fn with_manner(base: BaseUrl, manner: Manner) -> Self {
        let http = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_LIMIT)
            // A credential goes nowhere else.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| cause(&error));
        let (kept, quotas, breakers) = (Mutex::default(), Mutex::default(), Mutex::default());
        let began = (Instant::now(), Timestamp::now());
        Self { http, base, manner, kept, quotas, breakers, began }
    }

    /// How the breaker of this name stands; none while it is closed.
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

    /// Takes up how it stood in an earlier life of the operator; a probe that was under way then is made anew.
    pub fn restore_circuit(&self, breaker: &str, shown: &CircuitStatus, limits: BreakerLimits) {
        let left = shown.retry_at.map(|at| at.duration_since(Timestamp::now()));
        let left = left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default();
        self.breakers.lock().entry(breaker.to_owned()).or_default().restore(left, limits, Instant::now());
    }

    /// What the answer holds, as `T`.
    ///
    /// # Errors
    /// See [`Failure`]; [`Failure::not_done`] tells whether it had no effect for certain.
    pub async fn read<T: DeserializeOwned>(&self, token: &SecretString, call: &Call<'_>) -> Result<T, CallError> {
        let Answer { status, json, attempts } = self.send(token, call).await?;
        serde_path_to_error::deserialize(json).map_err(|why| {
            let why = format!("{}: {}", why.path(), why.inner());
            self.error(call, attempts, Failure::BadAnswer { status, why })
        })
    }

    /// Sends it when it is its turn, and again where that is safe. Takes `call.time.total` at most.
    ///
    /// # Errors
    /// See [`Failure`]; [`Failure::not_done`] tells whether it had no effect for certain.
    pub async fn send(&self, token: &SecretString, call: &Call<'_>) -> Result<Answer, CallError> {
        let deadline = Instant::now() + call.time.total;
        let request = self.request(token, call).map_err(|why| self.error(call, 0, Failure::Invalid(why)))?;
        let mut permit = self.permit(call).map_err(|wait| self.error(call, 0, Failure::CircuitOpen { wait }))?;
        let credential = Credential::of(token);
        let place = self.may_keep(call).then(|| (credential, self.place(call)));
        let known = place.as_ref().and_then(|place| self.kept.lock().get(place));
        let request = match &known {
            Some((tag, _)) => request.header(IF_NONE_MATCH, tag),
            None => request,
        };
        let mut attempts = 0;
        loop {
            let turn = match self.turn(credential, call, deadline).await {
                Ok(turn) => turn,
                Err(kind) => {
                    return Err(self.error(call, attempts, kind));
                }
            };
            attempts += 1;
            permit.end = End::Failed;
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(request) = request.try_clone() else {
                return Err(self.error(call, attempts, Failure::Invalid("its body can be sent once only".into())));
            };
            let tried = once(request, call.time.attempt.min(left), &self.manner).await;
            let unchanged = matches!(&tried, Ok(Tried { content: Content::Unchanged, .. }));
            turn.ended(tried.as_ref().map_or_else(|failed| failed.told, |answer| answer.told), unchanged);
            let kind = match (tried, &known) {
                (Ok(Tried { content: Content::Unchanged, status, .. }), Some((_, json))) => {
                    permit.end = End::Well;
                    return Ok(Answer { status, json: json.clone(), attempts });
                }
                // Nobody asked whether it is.
                (Ok(Tried { content: Content::Unchanged, status, .. }), None) => {
                    permit.end = End::Well;
                    let (said, after) = (String::new(), None);
                    return Err(self.error(call, attempts, Failure::Status { status, said, after }));
                }
                (Ok(Tried { status, content: Content::Json { json, tag }, .. }), _) => {
                    permit.end = End::Well;
                    if let (Some(place), Some(tag)) = (place, tag) {
                        self.kept.lock().keep(place, tag, json.clone());
                    }
                    return Ok(Answer { status, json, attempts });
                }
                (Err(Failed { kind, .. }), _) => kind,
            };
            permit.end = if kind.is_failure() { End::Failed } else { End::Well };
            let random = fastrand::f64();
            let wait =
                wait_before_next(&kind, call.repeat, attempts, random).filter(|_| permit.admission == Admission::Usual);
            let Some(wait) = wait.filter(|wait| Instant::now() + *wait < deadline) else {
                return Err(self.error(call, attempts, kind));
            };
            // Not what the answer says: it may hold what was sent.
            tracing::debug!(call = call.what, status = kind.status(), wait_ms = wait.as_millis(), "it is sent again");
            tokio::time::sleep(wait).await;
        }
    }

    fn request(&self, token: &SecretString, call: &Call<'_>) -> Result<RequestBuilder, String> {
        let http = self.http.as_ref().map_err(|why| format!("no HTTP client could be made: {why}"))?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret().trim()))
            .map_err(|_| "the API key holds characters that no key has".to_owned())?;
        bearer.set_sensitive(true);
        let request = http
            .request(call.method.clone(), self.base.join(call.path))
            .query(call.query)
            .header(AUTHORIZATION, bearer)
            .header(ACCEPT, self.manner.accept);
        let request = self.manner.headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Ok(match call.json {
            Some(json) => request.json(json),
            None => request,
        })
    }

    fn may_keep(&self, call: &Call<'_>) -> bool {
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
        Ok(Permit { cloud: self, name, limits, admission, end: End::NotMade })
    }

    /// Waits until its quotas let it be sent.
    async fn turn<'a>(
        &'a self,
        credential: Credential,
        call: &'a Call<'_>,
        deadline: Instant,
    ) -> Result<Turn<'a>, Failure> {
        // What gets its turn has the time for an answer, or it would not be known what came of it.
        let latest = deadline.checked_sub(call.time.attempt).unwrap_or(deadline);
        loop {
            let now = Instant::now();
            let taken = self.quotas.lock().take(credential, call.quotas, now);
            match taken {
                Ok(()) => return Ok(Turn { cloud: self, credential, quotas: call.quotas, ended: false }),
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

/// A place in the count of calls that are under way, given back whatever becomes of the call.
struct Turn<'a> {
    cloud: &'a ApiClient,
    credential: Credential,
    quotas: &'a [Quota],
    ended: bool,
}

impl Turn<'_> {
    fn ended(mut self, told: Option<Told>, unchanged: bool) {
        self.ended = true;
        self.cloud.quotas.lock().ended(self.credential, self.quotas, (told, unchanged), Instant::now());
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.cloud.quotas.lock().ended(self.credential, self.quotas, (None, false), Instant::now());
        }
    }
}

/// The breaker's leave. It hears how the call ended, also when nobody waited for its end.
struct Permit<'a> {
    cloud: &'a ApiClient,
    name: String,
    limits: BreakerLimits,
    admission: Admission,
    /// If it ended now.
    end: End,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(breaker) = self.cloud.breakers.lock().get_mut(&self.name) {
            breaker.ended(self.admission, self.end, self.limits, Instant::now());
        }
    }
}

struct Tried {
    status: u16,
    content: Content,
    told: Option<Told>,
}

enum Content {
    /// Null when it is empty. With its `ETag`, if it is short enough to be kept.
    Json { json: Value, tag: Option<HeaderValue> },
    /// It is what it was.
    Unchanged,
}

struct Failed {
    kind: Failure,
    told: Option<Told>,
}

async fn once(request: RequestBuilder, limit: Duration, manner: &Manner) -> Result<Tried, Failed> {
    let failed = |kind| Failed { kind, told: None };
    let answer = tokio::time::timeout(limit, async {
        let response = request.send().await.map_err(|error| failed(not_sent_or_broken(&error)))?;
        read(response, manner).await
    });
    answer.await.unwrap_or_else(|_| Err(failed(Failure::Timeout(limit))))
}

fn not_sent_or_broken(error: &reqwest::Error) -> Failure {
    if error.is_connect() || error.is_builder() {
        return Failure::Unreachable(cause(error));
    }
    Failure::Broken(cause(error))
}

async fn read(response: Response, manner: &Manner) -> Result<Tried, Failed> {
    let (status, now) = (response.status(), Timestamp::now());
    let told = told(response.headers(), now);
    let after = again_in(response.headers(), now);
    let tag = response.headers().get(ETAG).cloned();
    let failed = |kind| Failed { kind, told };
    if status == StatusCode::NOT_MODIFIED {
        return Ok(Tried { status: status.as_u16(), content: Content::Unchanged, told });
    }
    let content = match body(response, MAX_BODY).await {
        Ok(Body::Whole(content)) => content,
        Ok(Body::TooLong) if status.is_success() => {
            let why = format!("the answer is longer than {MAX_BODY} bytes");
            return Err(failed(Failure::BadAnswer { status: status.as_u16(), why }));
        }
        Ok(Body::TooLong) => Vec::new(),
        // What refuses is refused, whether its words arrive or not.
        Err(_) if status.is_client_error() => Vec::new(),
        Err(error) => return Err(failed(Failure::Broken(cause(&error)))),
    };
    if !status.is_success() {
        return Err(refused(status, said(&content), after, told, manner));
    }
    let tag = tag.filter(|_| content.len() <= LONGEST);
    if content.iter().all(u8::is_ascii_whitespace) {
        return Ok(Tried { status: status.as_u16(), content: Content::Json { json: Value::Null, tag }, told });
    }
    match serde_json::from_slice(&content) {
        Ok(json) => Ok(Tried { status: status.as_u16(), content: Content::Json { json, tag }, told }),
        Err(_) => {
            let why = format!("the answer is not JSON: {:?}", beginning(&content));
            Err(failed(Failure::BadAnswer { status: status.as_u16(), why }))
        }
    }
}

/// What is refused for its rate stops the calls that count against the same, for as long as it says.
fn refused(status: StatusCode, said: String, after: Option<Duration>, told: Option<Told>, manner: &Manner) -> Failed {
    // A 403 says two things: that the key may not, and (GitHub) that the rate limit is used up.
    let of_rate = match status.as_u16() {
        429 => true,
        403 => after.is_some() || said.to_lowercase().contains("rate limit"),
        _ => false,
    };
    let after = if of_rate { after.or(manner.limited_for) } else { after.filter(|_| status != StatusCode::FORBIDDEN) };
    let limit = after.filter(|_| of_rate).map(|resets_in| Told { left: 0, resets_in });
    Failed { kind: Failure::Status { status: status.as_u16(), said, after }, told: limit.or(told) }
}

/// The message of an error, as far as one is there.
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
