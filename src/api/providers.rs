//! What the providers that host or deploy services (Render, Vercel, GitHub) have in common: access, circuit breaker, and how
//! releases are called.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CircuitBreaker, KeyRef, KnownBad, KnownGood, ReleaseStatus, TemplateRef};

/// Looks at a hosted service follow each other no faster: each is several calls, of which there are so many a minute.
pub const HOSTED_PAUSE: Duration = Duration::from_secs(4);

/// With which key a provider is asked, and when it is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// None: the operator's own.
    pub key: Option<KeyRef>,
    /// Failed calls in a row after which the API is left alone: `safety.circuitBreaker.failureThreshold`.
    pub failure_threshold: u32,
    /// For how long: `safety.circuitBreaker.recoveryTimeout`.
    pub recovery_timeout: Duration,
}

impl Access {
    pub(crate) fn new(key: &Option<KeyRef>, breaker: &CircuitBreaker) -> Self {
        // Checked with the policy's other limits.
        let recovery = breaker.recovery_timeout.parse().ok().and_then(|length| Duration::try_from(length).ok());
        Self {
            key: key.clone(),
            failure_threshold: breaker.failure_threshold,
            recovery_timeout: recovery.unwrap_or_default(),
        }
    }
}

/// The circuit breaker of a provider's API for one service, while it is not closed: its calls kept failing, and none is made
/// until one has gone well.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CircuitStatus {
    pub state: CircuitState,
    /// When one call is let through, on which it depends what comes next; absent while that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

/// How a circuit breaker that is not closed stands.
#[derive(
    Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::IntoStaticStr,
)]
pub enum CircuitState {
    /// No call is made.
    Open,
    /// One call is under way.
    HalfOpen,
}

/// `revision 3` of a workload, `deploy dep-…` of what has no numbers.
pub fn release_name(revision: i64, id: &str) -> String {
    if revision > 0 { format!("revision {revision}") } else { format!("deploy {id}") }
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&release_name(self.revision, &self.hash))
    }
}

impl fmt::Display for ReleaseStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&release_name(self.revision, &self.hash))
    }
}

impl fmt::Display for KnownGood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&release_name(self.revision, &self.hash))
    }
}

impl fmt::Display for KnownBad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&release_name(self.revision, &self.digest))
    }
}
