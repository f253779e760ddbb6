//! Custom endpoints, called over HTTP: the cleanup of a component here, a remedy in [`super::webhook`].

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use jiff::SignedDuration;
use reqwest::{Client, Method, RequestBuilder, StatusCode, header::HeaderMap};
use url::Url;

use super::{
    super::fetch::{Body, MAX_BODY, beginning, body, cause, client, shown},
    in_flight::InFlight,
    webhook::Report,
};
use crate::api::{Hook, HookMethod, RemediationReason, Retry, Span};

/// Calls after a temporary failure are repeated, this many in all.
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
    /// See [`InFlight::drain`].
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

impl Default for HookClient {
    fn default() -> Self {
        Self { client: client(|builder| builder) }
    }
}

/// The response of a hook; every field is optional.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct HookAnswer {
    pub objects_collected: Option<i64>,
    /// Megabytes (10^6 bytes).
    pub memory_freed_mb: Option<f64>,
}

/// Why a hook or webhook failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    #[error("the hook cannot be called: {0}")]
    Invalid(String),
    #[error("{at} responded {status} instead of 200 to 299{said}")]
    Refused { at: String, status: u16, said: String },
    #[error("{at} could not be reached: {why}")]
    Unreachable { at: String, why: String },
    /// The effect is unknown.
    #[error("{at} did not respond within {limit:?}")]
    Timeout { at: String, limit: Duration },
    /// The call has ended without a response. The effect is unknown.
    #[error("the call ended without a response: {0}; it may have had its effect")]
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

    /// The same call is repeated at once.
    fn is_repeated(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { status: 429 | 502..=504, .. })
    }

    /// When the same call is worth another attempt.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Timeout { .. } | Self::Lost(_) => Retry::Backoff,
            error if error.is_repeated() => Retry::Backoff,
            _ => Retry::Never,
        }
    }
}

/// The time that all attempts of one call take at most.
pub fn longest(limit: &Span) -> SignedDuration {
    let waits = FIRST_WAIT * ((1 << (TRIES - 1)) - 1);
    let limit = limit.parse().unwrap_or(SignedDuration::ZERO);
    limit * i32::try_from(TRIES).unwrap_or(i32::MAX) + SignedDuration::try_from(waits).unwrap_or_default()
}

impl HookClient {
    /// Calls the hook. `key` identifies the action: a repeated call has the same key. Takes at most three times the hook's
    /// own time limit, and 3 s.
    pub async fn call(&self, hook: &Hook, key: &str) -> Result<HookAnswer, HookError> {
        let url = parsed(&hook.url)?;
        let method = match hook.method {
            HookMethod::Get => Method::GET,
            HookMethod::Post => Method::POST,
            HookMethod::Put => Method::PUT,
        };
        let key = [("idempotency-key", key.to_owned())];
        let response = self.send(method, &url, &hook.timeout, &key, None).await?;
        // The status code alone is the contract: a field that is missing, or of another type, is left out.
        let json: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
        Ok(HookAnswer {
            objects_collected: json["objects_collected"].as_i64(),
            memory_freed_mb: json["memory_freed_mb"].as_f64(),
        })
    }

    /// A response with a status from 200 to 299. The same request is repeated after a temporary failure.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        limit: &Span,
        headers: &[(&'static str, String)],
        body: Option<&str>,
    ) -> Result<Answer, HookError> {
        let client = self.client.as_ref().map_err(|why| HookError::Invalid(why.clone()))?;
        let limit = limit.parse().and_then(|limit| Duration::try_from(limit).map_err(|why| why.to_string()));
        let limit = limit.map_err(|why| HookError::Invalid(format!("timeout: {why}")))?;
        let send = || {
            let request = client.request(method.clone(), url.clone());
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
            let request = body.iter().fold(request, |request, body| request.body((*body).to_owned()));
            once(request, url, limit)
        };
        send.retry(ExponentialBuilder::new().with_min_delay(FIRST_WAIT).with_max_times(TRIES as usize - 1))
            .when(HookError::is_repeated)
            .notify(|error, after| tracing::info!(%error, "repeating the call in {after:?}"))
            .await
    }
}

/// The text as a URL.
pub(super) fn parsed(url: &str) -> Result<Url, HookError> {
    Url::parse(url).map_err(|why| HookError::Invalid(format!("{url:?}: {why}")))
}

/// A response with a status from 200 to 299.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Empty when it was too long to be read.
    pub body: Vec<u8>,
}

async fn once(request: RequestBuilder, url: &Url, limit: Duration) -> Result<Answer, HookError> {
    let at = shown(url);
    let response = tokio::time::timeout(limit, async {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok::<_, reqwest::Error>((status, headers, body(response, MAX_BODY).await?))
    });
    let (status, headers, body) = match response.await {
        Ok(Ok((status, headers, Body::Whole(body)))) => (status, headers, body),
        Ok(Ok((status, headers, Body::TooLong))) => (status, headers, Vec::new()),
        Ok(Err(error)) if !error.is_timeout() => return Err(HookError::Unreachable { at, why: cause(&error) }),
        _ => return Err(HookError::Timeout { at, limit }),
    };
    let said = match status {
        status if status.is_success() => return Ok(Answer { status, headers, body }),
        status if status.is_redirection() => ": redirects are not followed".to_owned(),
        _ if body.is_empty() => String::new(),
        _ => format!(": {:?}", beginning(&body)),
    };
    Err(HookError::Refused { at, status: status.as_u16(), said })
}
