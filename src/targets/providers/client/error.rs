//! Why a call failed.

use std::time::Duration;

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {kind}{}", tries(*.attempts))]
pub struct CallError {
    /// In words: "restart service srv-1 (POST https://…)".
    pub call: String,
    /// Requests that were sent for it.
    pub attempts: u32,
    pub kind: Failure,
}

fn tries(attempts: u32) -> String {
    if attempts > 1 { format!(" ({attempts} tries)") } else { String::new() }
}

/// Never holds a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request cannot be built.
    #[error("{0}")]
    Invalid(String),
    /// A quota is used up for longer than the call can wait. Nothing was sent.
    #[error("the rate limit is used up and free again in {}; raise spec.interval, or use another API key", seconds(*.wait))]
    Throttled { wait: Duration },
    /// The last calls failed, so none is sent for a while. Nothing was sent.
    #[error("the circuit breaker is open, since the last calls failed; next call in {}", seconds(*.wait))]
    CircuitOpen { wait: Duration },
    /// No connection could be made, so nothing was sent.
    #[error("the API is unreachable: {0}")]
    Unreachable(String),
    /// The connection broke after the request was sent, at the latest in the middle of the response.
    #[error("the connection broke before the response was complete: {0}")]
    Broken(String),
    #[error("no response within {0:?}")]
    Timeout(Duration),
    /// Anything but 200 to 299.
    #[error("status {status}{said}; {}", advice(*.status, *.after))]
    Status {
        status: u16,
        said: String,
        /// When a retry is allowed. Of a 403: the rate limit is used up.
        after: Option<Duration>,
    },
    /// A success by its status, and not the documented format: HTML of a proxy, cut JSON, too long.
    #[error("status {status}, and {why}; is there a proxy between?")]
    BadAnswer { status: u16, why: String },
}

impl Failure {
    /// The call certainly had no effect.
    pub fn not_done(&self) -> bool {
        match self {
            Self::Invalid(_) | Self::Throttled { .. } | Self::CircuitOpen { .. } | Self::Unreachable(_) => true,
            Self::Status { status, .. } => (400..=499).contains(status),
            Self::Broken(_) | Self::Timeout(_) | Self::BadAnswer { .. } => false,
        }
    }

    /// The service is unhealthy: counts for the circuit breaker.
    pub(super) fn is_failure(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Timeout(_) | Self::BadAnswer { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            Self::Invalid(_) | Self::Throttled { .. } | Self::CircuitOpen { .. } => false,
        }
    }

    /// Waiting may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Invalid(_) => false,
            Self::Status { status, .. } => self.is_limit() || *status >= 500,
            _ => true,
        }
    }

    /// Only the rate was refused: 429, or a 403 that says when a retry is allowed, as of GitHub.
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::Status { status: 429, .. } | Self::Status { status: 403, after: Some(_), .. })
    }

    /// The status of the response, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } | Self::BadAnswer { status, .. } => Some(*status),
            _ => None,
        }
    }
}

fn seconds(wait: Duration) -> String {
    format!("{} s", wait.as_secs_f64().ceil())
}

fn advice(status: u16, after: Option<Duration>) -> String {
    match (status, after) {
        (300..=399, _) => "redirects are not followed with an API key; check the base URL".to_owned(),
        (401, _) => "the API key is not valid, or not any more".to_owned(),
        (402, _) => "the provider requires a payment first".to_owned(),
        (403 | 429, Some(after)) => format!("the rate limit is used up and free again in {}", seconds(after)),
        (403, None) => "the API key may not do this".to_owned(),
        (404 | 410, _) => "it does not exist, or the API key may not see it".to_owned(),
        (429, None) => "the rate limit is used up".to_owned(),
        (500.., _) => "the provider has a fault; check its status page if it lasts".to_owned(),
        _ => "the provider refuses the call".to_owned(),
    }
}
