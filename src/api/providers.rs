//! Common parts of the providers that host or deploy services (Render, Vercel, GitHub): access, circuit breaker, and names of
//! releases.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CircuitBreaker, KeyRef, KnownBad, KnownGood, ReleaseStatus, TemplateRef};

/// The shortest time between two checks of a hosted service: each check needs several calls, and providers limit their rate.
pub const HOSTED_PAUSE: Duration = Duration::from_secs(4);

/// The API key of a provider, and the circuit breaker of its API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// None: the key of the operator.
    pub key: Option<KeyRef>,
    /// Consecutive failed calls that open the circuit breaker: `safety.circuitBreaker.failureThreshold`.
    pub failure_threshold: u32,
    /// How long the circuit breaker stays open: `safety.circuitBreaker.recoveryTimeout`.
    pub recovery_timeout: Duration,
}

impl Access {
    pub(crate) fn new(key: &Option<KeyRef>, breaker: &CircuitBreaker) -> Self {
        // Validated with the other limits of the policy.
        let recovery = breaker.recovery_timeout.parse().ok().and_then(|length| Duration::try_from(length).ok());
        Self {
            key: key.clone(),
            failure_threshold: breaker.failure_threshold,
            recovery_timeout: recovery.unwrap_or_default(),
        }
    }
}

/// The circuit breaker of a provider's API for one service, while it is not closed: calls kept failing, so none is sent until a
/// probe succeeds.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CircuitStatus {
    pub state: CircuitState,
    /// When one call is let through, whose result closes or opens the circuit. Absent while that call is running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

/// State of a circuit breaker that is not closed.
#[derive(
    Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::IntoStaticStr,
)]
pub enum CircuitState {
    /// No call is sent.
    Open,
    /// One call is running.
    HalfOpen,
}

/// `revision 3` of a workload, `deploy dep-…` of a target whose deploys have no number.
pub fn release_name(revision: i64, id: &str) -> String {
    if revision > 0 { format!("revision {revision}") } else { format!("deploy {id}") }
}

macro_rules! shown_as_release {
    ($($type:ty: $id:ident),*) => {
        $(impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&release_name(self.revision, &self.$id))
            }
        })*
    };
}
shown_as_release!(TemplateRef: hash, ReleaseStatus: hash, KnownGood: hash, KnownBad: digest);
