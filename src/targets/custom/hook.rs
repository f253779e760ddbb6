//! Endpoints of a team's own, called over HTTP: a component's cleanup here, a remedy in [`super::webhook`].

use std::time::Duration;

use jiff::SignedDuration;
use reqwest::{Client, Method, RequestBuilder, StatusCode, header::HeaderMap, redirect};
use url::Url;

use super::{
    super::fetch::{Body, MAX_BODY, USER_AGENT, beginning, body, cause, shown},
    in_flight::InFlight,
    webhook::Report,
};
use crate::api::{Hook, HookMethod, RemediationReason, Retry, Span};

/// Calls that failed for reasons that may pass are made anew, this many times in all.
const TRIES: u32 = 3;
/// The wait before the second try; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Calls hooks and webhooks. One for the whole operator.
#[derive(Default)]
pub struct Hooks {
    pub(super) http: HookClient,
    /// Calls of hooks, by the Remediation's uid.
    pub(super) calls: InFlight<Result<HookAnswer, HookError>>,
    /// Deliveries to webhooks, and requests for their progress.
    pub(super) deliveries: InFlight<Result<Report, HookError>>,
}

impl Hooks {
    /// Starts no call any more, and waits for those that run; whether every answer was read.
    pub async fn drain(&self, limit: Duration) -> bool {
        let (calls, deliveries) = tokio::join!(self.calls.drain(limit), self.deliveries.drain(limit));
        calls && deliveries
    }
}

/// The HTTP client of hooks and webhooks.
#[derive(Clone)]
pub struct HookClient {
    client: Result<Client, String>,
}

/// What a hook said of itself; all of it may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct HookAnswer {
    pub objects_collected: Option<i64>,
    /// Megabytes (10^6 bytes).
    pub memory_freed_mb: Option<f64>,
}

/// Why a hook did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    #[error("the hook cannot be called: {0}")]
    Invalid(String),
    #[error("{at} answered {status} instead of 200 to 299{said}")]
    Refused { at: String, status: u16, said: String },
    #[error("{at} could not be reached: {why}")]
    Unreachable { at: String, why: String },
    /// Whether it did anything is not known.
    #[error("{at} did not answer within {limit:?}")]
    Timeout { at: String, limit: Duration },
    /// The call has ended without an answer. Whether it did anything is not known.
    #[error("the call ended without an answer: {0}; it may have had its effect")]
    Lost(String),
}

impl HookError {
    pub fn reason(&self) -> RemediationReason {
        match self {
            Self::Invalid(_) => RemediationReason::HookInvalid,
            Self::Refused { .. } => RemediationReason::HookRefused,
            Self::Unreachable { .. } => RemediationReason::HookUnreachable,
            Self::Timeout { .. } | Self::Lost(_) => RemediationReason::HookTimeout,
        }
    }

    /// When the same call is worth another attempt.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. }
            | Self::Refused { status: 429 | 502..=504, .. }
            | Self::Timeout { .. }
            | Self::Lost(_) => Retry::Backoff,
            Self::Invalid(_) | Self::Refused { .. } => Retry::Never,
        }
    }

    /// The same call is made again at once. A call that timed out took its whole time already.
    fn is_repeated(&self) -> bool {
        self.retry() == Retry::Backoff && !matches!(self, Self::Timeout { .. } | Self::Lost(_))
    }
}

/// The time that all attempts of one call take at most.
pub fn longest(limit: &Span) -> SignedDuration {
    let waits = FIRST_WAIT * ((1 << (TRIES - 1)) - 1);
    let limit = limit.parse().unwrap_or(SignedDuration::ZERO);
    limit * i32::try_from(TRIES).unwrap_or(i32::MAX) + SignedDuration::try_from(waits).unwrap_or_default()
}

impl Default for HookClient {
    fn default() -> Self {
        // A redirected POST would arrive as a GET, somewhere else.
        let client = Client::builder().user_agent(USER_AGENT).redirect(redirect::Policy::none()).build();
        Self { client: client.map_err(|error| cause(&error)) }
    }
}

impl HookClient {
    /// Calls it. `key` names the action: the same key is the same call, made again. At most three times the hook's own
    /// time limit, and 3 s.
    ///
    /// # Errors
    /// See [`HookError`].
    pub async fn call(&self, hook: &Hook, key: &str) -> Result<HookAnswer, HookError> {
        let url = Url::parse(&hook.url).map_err(|why| HookError::Invalid(format!("{:?}: {why}", hook.url)))?;
        let method = match hook.method {
            HookMethod::Get => Method::GET,
            HookMethod::Post => Method::POST,
            HookMethod::Put => Method::PUT,
        };
        let key = [("idempotency-key", key.to_owned())];
        Ok(answered(&self.ask(method, &url, &hook.timeout, &key, None).await?.body))
    }

    /// The answer, which is a success; asked again, with the same words, when what went wrong may pass.
    pub(super) async fn ask(
        &self,
        method: Method,
        url: &Url,
        limit: &Span,
        headers: &[(&'static str, String)],
        body: Option<&str>,
    ) -> Result<Answer, HookError> {
        let client = self.client.as_ref().map_err(|why| HookError::Invalid(why.clone()))?;
        let limit = limit
            .parse()
            .ok()
            .and_then(|limit| Duration::try_from(limit).ok())
            .ok_or_else(|| HookError::Invalid(format!("timeout {limit} is no duration")))?;
        let ask = || {
            let request = client.request(method.clone(), url.clone());
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
            let request = body.iter().fold(request, |request, body| request.body((*body).to_owned()));
            once(request, url, limit)
        };
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            match ask().await {
                Err(error) if error.is_repeated() => tracing::info!(%error, "it is called again"),
                ended => return ended,
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        ask().await
    }
}

/// A success.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Empty when it was too long to be read.
    pub body: Vec<u8>,
}

async fn once(request: RequestBuilder, url: &Url, limit: Duration) -> Result<Answer, HookError> {
    let at = shown(url);
    let answer = tokio::time::timeout(limit, async {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok::<_, reqwest::Error>((status, headers, body(response, MAX_BODY).await?))
    });
    match answer.await {
        Err(_) => Err(HookError::Timeout { at, limit }),
        Ok(Err(error)) if error.is_timeout() => Err(HookError::Timeout { at, limit }),
        Ok(Err(error)) => Err(HookError::Unreachable { at, why: cause(&error) }),
        Ok(Ok((status, headers, body))) if status.is_success() => {
            let body = match body {
                Body::Whole(body) => body,
                Body::TooLong => Vec::new(),
            };
            Ok(Answer { status, headers, body })
        }
        Ok(Ok((status, _, body))) => Err(HookError::Refused { at, status: status.as_u16(), said: said(status, &body) }),
    }
}

fn said(status: StatusCode, body: &Body) -> String {
    match body {
        _ if status.is_redirection() => ": redirects are not followed".to_owned(),
        Body::Whole(body) if !body.is_empty() => format!(": {:?}", beginning(body)),
        _ => String::new(),
    }
}

/// What is not there, or is no number, is left out: the status code alone is the contract.
fn answered(body: &[u8]) -> HookAnswer {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    HookAnswer {
        objects_collected: json["objects_collected"].as_i64(),
        memory_freed_mb: json["memory_freed_mb"].as_f64(),
    }
}
