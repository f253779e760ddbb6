//! Endpoints of a team's own, called over HTTP: a component's cleanup here, a remedy in [`super::webhook`].

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode, header::HeaderMap, redirect};
use url::Url;

use super::super::fetch::{Body, MAX_BODY, USER_AGENT, beginning, body, cause, shown};
use crate::api::{Hook, HookMethod, Span};

/// Calls that failed for reasons that may pass are made anew, this many times in all.
const TRIES: u32 = 3;
/// The wait before the second try; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Calls hooks. One for the whole operator.
pub struct Hooks {
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
}

impl HookError {
    /// CamelCase, from a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "HookInvalid",
            Self::Refused { .. } => "HookRefused",
            Self::Unreachable { .. } => "HookUnreachable",
            Self::Timeout { .. } => "HookTimeout",
        }
    }

    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { status: 429 | 502..=504, .. })
    }
}

impl Default for Hooks {
    fn default() -> Self {
        // A redirected POST would arrive as a GET, somewhere else.
        let client = Client::builder().user_agent(USER_AGENT).redirect(redirect::Policy::none()).build();
        Self { client: client.map_err(|error| cause(&error)) }
    }
}

impl Hooks {
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
                Err(error) if error.may_pass() => tracing::info!(%error, "it is called again"),
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
