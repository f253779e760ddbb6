//! A plain HTTP service, looked at with one GET.
//!
//! A service that refuses the connection, does not answer in time or answers wrongly was measured: it is down. When we
//! could not even ask (its name does not resolve, TLS cannot be set up), nothing is known about it.

pub mod spec;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::{Client, StatusCode, redirect};

use super::fetch::{Body, MAX_BODY, USER_AGENT, beginning, body, cause, chain_says, shown};
use super::{
    Observed, Target,
    executor::{Executor, Order},
};
use crate::{
    analyze::observation::{HttpState, Measured, TargetState, UnknownReason, Unmeasured},
    api::HttpCheck,
};

/// Redirects that are followed; a service that sends us further is going round in circles.
const MAX_REDIRECTS: usize = 5;

/// Looks at HTTP services. One for the whole operator.
pub struct Http {
    following: Result<Client, String>,
    /// For checks that expect a redirect.
    staying: Result<Client, String>,
}

impl Default for Http {
    fn default() -> Self {
        let client = |policy| {
            Client::builder()
                .user_agent(USER_AGENT)
                .redirect(policy)
                // A connection kept open would hide that nobody accepts new ones.
                .pool_max_idle_per_host(0)
                .build()
                .map_err(|error: reqwest::Error| cause(&error))
        };
        Self { following: client(redirect::Policy::limited(MAX_REDIRECTS)), staying: client(redirect::Policy::none()) }
    }
}

impl Http {
    /// One look. Never takes longer than the check's own time limit.
    pub async fn observe(&self, check: &HttpCheck) -> Measured<HttpState> {
        let at = shown(&check.url);
        let unreachable =
            |why: String| Measured::Unknown(Unmeasured::new(UnknownReason::Unreachable, format!("{at}: {why}")));
        let expects_redirect = check.expected_statuses.iter().any(|status| (300..400).contains(status));
        let client = match if expects_redirect { &self.staying } else { &self.following } {
            Ok(client) => client,
            Err(why) => return unreachable(format!("no HTTP client could be made: {why}")),
        };
        let started = Instant::now();
        let answer = tokio::time::timeout(check.timeout, async {
            let response = client.get(check.url.clone()).send().await?;
            let status = response.status();
            Ok::<_, reqwest::Error>((status, body(response, MAX_BODY).await?))
        })
        .await;
        let latency_ms = started.elapsed().as_secs_f64() * 1000.0;
        let down = |failure: String| Measured::Known(HttpState { failure: Some(failure), latency_ms: None });
        match answer {
            Err(_) => down(too_late(check.timeout)),
            Ok(Err(error)) if error.is_timeout() => down(too_late(check.timeout)),
            Ok(Err(error)) if failed_before_request(&error) => unreachable(cause(&error)),
            Ok(Err(error)) if error.is_redirect() => down(format!("more than {MAX_REDIRECTS} redirects")),
            Ok(Err(error)) => down(cause(&error)),
            Ok(Ok((status, body))) => Measured::Known(HttpState {
                failure: wrong_status(check, status, &body).or_else(|| wrong_json(check, &body)),
                latency_ms: Some(latency_ms),
            }),
        }
    }
}

fn too_late(limit: Duration) -> String {
    format!("no answer within {limit:?}")
}

/// The name did not resolve, or TLS failed before a byte of the service was seen: it may be our side's fault.
fn failed_before_request(error: &reqwest::Error) -> bool {
    error.is_builder()
        || (error.is_connect()
            && chain_says(
                error,
                &["dns error", "failed to lookup", "certificate", "tls", "handshake", "corrupt message"],
            ))
}

fn wrong_status(check: &HttpCheck, status: StatusCode, body: &Body) -> Option<String> {
    let expected = &check.expected_statuses;
    let fine =
        if expected.is_empty() { (200..400).contains(&status.as_u16()) } else { expected.contains(&status.as_u16()) };
    if fine {
        return None;
    }
    let wanted = if expected.is_empty() {
        "200 to 399".to_owned()
    } else {
        expected.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
    };
    let said = match body {
        Body::Whole(body) if !body.is_empty() => format!(": {:?}", beginning(body)),
        _ => String::new(),
    };
    Some(format!("status {} instead of {wanted}{said}", status.as_u16()))
}

fn wrong_json(check: &HttpCheck, body: &Body) -> Option<String> {
    let (path, wanted) = check.json.as_ref()?;
    let Body::Whole(body) = body else {
        return Some(format!("the answer is longer than {MAX_BODY} bytes"));
    };
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else {
        return Some(format!("the answer is not JSON: {:?}", beginning(body)));
    };
    let Some(value) = path.select(&json) else {
        return Some(format!("{path} selects no value"));
    };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    (text != *wanted).then(|| format!("{path} is {:?} instead of {wanted:?}", beginning(text.as_bytes())))
}

/// A plain HTTP service: only custom remedies heal it.
pub struct HttpTarget<'a> {
    pub http: &'a Http,
    pub check: &'a HttpCheck,
}

#[async_trait]
impl<'a> Target<'a> for HttpTarget<'a> {
    async fn observe(&self, _: &str) -> Observed<TargetState> {
        let target = self.http.observe(self.check).await.map(TargetState::Http);
        Observed { at: Timestamp::now(), target, metrics: Vec::new() }
    }

    fn executor(&self, _: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        None
    }
}
