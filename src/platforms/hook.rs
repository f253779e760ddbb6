//! A component's own cleanup, called over HTTP.

use std::time::Duration;

use reqwest::{Client, Method, StatusCode, redirect};
use url::Url;

use super::fetch::{Body, MAX_BODY, USER_AGENT, beginning, body, cause, shown};
use crate::api::{Hook, HookMethod};

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

    fn may_pass(&self) -> bool {
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
        let limit = hook.timeout.parse().ok().and_then(|limit| Duration::try_from(limit).ok());
        let limit = limit.ok_or_else(|| HookError::Invalid(format!("timeout {} is no duration", hook.timeout)))?;
        let client = self.client.as_ref().map_err(|why| HookError::Invalid(why.clone()))?;
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            match once(client, &url, hook.method, limit, key).await {
                Err(error) if error.may_pass() => tracing::info!(%error, "the hook is called again"),
                ended => return ended,
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        once(client, &url, hook.method, limit, key).await
    }
}

async fn once(
    client: &Client,
    url: &Url,
    method: HookMethod,
    limit: Duration,
    key: &str,
) -> Result<HookAnswer, HookError> {
    let at = shown(url);
    let method = match method {
        HookMethod::Get => Method::GET,
        HookMethod::Post => Method::POST,
        HookMethod::Put => Method::PUT,
    };
    let answer = tokio::time::timeout(limit, async {
        let response = client.request(method, url.clone()).header("Idempotency-Key", key).send().await?;
        let status = response.status();
        Ok::<_, reqwest::Error>((status, body(response, MAX_BODY).await?))
    });
    match answer.await {
        Err(_) => Err(HookError::Timeout { at, limit }),
        Ok(Err(error)) if error.is_timeout() => Err(HookError::Timeout { at, limit }),
        Ok(Err(error)) => Err(HookError::Unreachable { at, why: cause(&error) }),
        Ok(Ok((status, body))) if status.is_success() => Ok(answered(&body)),
        Ok(Ok((status, body))) => Err(HookError::Refused { at, status: status.as_u16(), said: said(status, &body) }),
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
fn answered(body: &Body) -> HookAnswer {
    let Body::Whole(body) = body else { return HookAnswer::default() };
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    HookAnswer {
        objects_collected: json["objects_collected"].as_i64(),
        memory_freed_mb: json["memory_freed_mb"].as_f64(),
    }
}
