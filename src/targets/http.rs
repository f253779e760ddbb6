//! A plain HTTP service, observed by one GET.
//!
//! A service that refuses the connection, does not respond in time or responds wrongly was measured: it is down. When the
//! request could not even be sent (the name does not resolve, TLS cannot be set up), the state of the service is unknown.

pub mod spec;

use std::time::Instant;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::{Client, StatusCode, redirect};

use super::fetch::{Body, MAX_BODY, beginning, body, cause, causes, client, shown};
use super::{
    Observed, Target,
    executor::{Executor, Order},
};
use crate::{
    analyze::observation::{HttpState, Measured, Reading, TargetState, UnknownReason, Unmeasured},
    api::HttpCheck,
};

/// Redirects that are followed; more of them are most likely a loop.
const MAX_REDIRECTS: usize = 5;
/// The metric that an http target provides, in milliseconds.
pub(super) const LATENCY: &str = "latency_ms";

/// Observes HTTP services. One for the whole operator.
pub struct Http {
    following: Result<Client, String>,
    /// For checks that expect a redirect.
    staying: Result<Client, String>,
}

impl Default for Http {
    fn default() -> Self {
        // A connection that stays open would hide that the service accepts no new one.
        let client = |policy| client(|builder| builder.redirect(policy).pool_max_idle_per_host(0));
        Self { following: client(redirect::Policy::limited(MAX_REDIRECTS)), staying: client(redirect::Policy::none()) }
    }
}

impl Http {
    /// One observation. Never takes longer than the check's own time limit.
    pub async fn observe(&self, check: &HttpCheck) -> Measured<HttpState> {
        let at = shown(&check.url);
        let unreachable =
            |why: String| Measured::Unknown(Unmeasured::new(UnknownReason::Unreachable, format!("{at}: {why}")));
        let expects_redirect = check.expected_statuses.iter().any(|status| (300..400).contains(status));
        let client = match if expects_redirect { &self.staying } else { &self.following } {
            Ok(client) => client,
            Err(why) => return unreachable(format!("no HTTP client can be created: {why}")),
        };
        let started = Instant::now();
        let response = tokio::time::timeout(check.timeout, async {
            let response = client.get(check.url.clone()).send().await?;
            let status = response.status();
            Ok::<_, reqwest::Error>((status, body(response, MAX_BODY).await?))
        })
        .await;
        let latency_ms = started.elapsed().as_secs_f64() * 1000.0;
        let failure = match response {
            Ok(Ok((status, body))) => {
                let failure = wrong_status(check, status, &body).or_else(|| wrong_json(check, &body));
                return Measured::Known(HttpState { failure, latency_ms: Some(latency_ms) });
            }
            Ok(Err(error)) if !error.is_timeout() => match () {
                () if failed_before_request(&error) => return unreachable(cause(&error)),
                () if error.is_redirect() => format!("more than {MAX_REDIRECTS} redirects"),
                () => cause(&error),
            },
            _ => format!("no response within {:?}", check.timeout),
        };
        Measured::Known(HttpState { failure: Some(failure), latency_ms: None })
    }
}

/// The name did not resolve, or TLS failed before the first byte of the service: the fault may be the operator's. The
/// libraries below have no types for these cases.
fn failed_before_request(error: &reqwest::Error) -> bool {
    const WORDS: [&str; 6] = ["dns error", "failed to lookup", "certificate", "tls", "handshake", "corrupt message"];
    let is_one = |text: String| WORDS.iter().any(|word| text.contains(word));
    error.is_builder() || (error.is_connect() && causes(error).any(|cause| is_one(cause.to_string().to_lowercase())))
}

fn wrong_status(check: &HttpCheck, status: StatusCode, body: &Body) -> Option<String> {
    let (status, expected) = (status.as_u16(), &check.expected_statuses);
    let (is_expected, expected) = if expected.is_empty() {
        ((200..400).contains(&status), "200 to 399".to_owned())
    } else {
        (expected.contains(&status), expected.iter().map(u16::to_string).collect::<Vec<_>>().join(", "))
    };
    if is_expected {
        return None;
    }
    let said = match body {
        Body::Whole(body) if !body.is_empty() => format!(": {:?}", beginning(body)),
        _ => String::new(),
    };
    Some(format!("status {status} instead of {expected}{said}"))
}

fn wrong_json(check: &HttpCheck, body: &Body) -> Option<String> {
    let (path, expected) = check.json.as_ref()?;
    let Body::Whole(body) = body else {
        return Some(format!("the response is longer than {MAX_BODY} bytes"));
    };
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else {
        return Some(format!("the response is not JSON: {:?}", beginning(body)));
    };
    let Some(value) = path.select(&json) else {
        return Some(format!("{path} selects no value"));
    };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    (text != *expected).then(|| format!("{path} is {:?} instead of {expected:?}", beginning(text.as_bytes())))
}

/// A plain HTTP service. Only custom remedies act on it.
pub struct HttpTarget<'a> {
    pub http: &'a Http,
    pub check: &'a HttpCheck,
}

#[async_trait]
impl<'a> Target<'a> for HttpTarget<'a> {
    async fn observe(&self, _: &str) -> Observed<TargetState> {
        let state = self.http.observe(self.check).await;
        let latency = state.known().and_then(|state| state.latency_ms);
        let metrics = latency.map(|value| (LATENCY, Reading::new(Measured::Known(value), false))).into_iter().collect();
        Observed { at: Timestamp::now(), target: state.map(TargetState::Http), metrics }
    }

    fn executor(&self, _: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        None
    }
}
