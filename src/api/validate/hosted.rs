//! Targets that a provider hosts.

use std::time::Duration;

use super::{Checker, ValidTarget};
use crate::api::{CircuitBreaker, KeyRef, RenderTarget};

/// A service that Render hosts, and the key to ask with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderService {
    pub service_id: String,
    /// None: the operator's own.
    pub key: Option<KeyRef>,
    /// Failed calls in a row after which the API is left alone: `safety.circuitBreaker.failureThreshold`.
    pub failure_threshold: u32,
    /// For how long: `safety.circuitBreaker.recoveryTimeout`.
    pub recovery_timeout: Duration,
}

/// Looks at a hosted service follow each other no faster: each is several calls, of which there are so many a minute.
const HOSTED_PAUSE: Duration = Duration::from_secs(4);

impl ValidTarget {
    /// Looks follow each other no faster than this, whatever calls for them.
    pub fn least_pause(&self) -> Duration {
        match self {
            Self::Render(_) => HOSTED_PAUSE,
            Self::Workload { .. } | Self::Postgres(_) | Self::Http(_) => Duration::ZERO,
        }
    }
}

impl Checker {
    pub(super) fn render(&mut self, render: &RenderTarget, breaker: &CircuitBreaker) -> Option<RenderService> {
        let id = &render.service_id;
        let fits = |character: char| character.is_ascii_alphanumeric() || character == '-';
        if !(5..=64).contains(&id.len()) || !id.chars().all(fits) {
            self.bad("target.render.serviceId", format!("{id:?} is no id of a service; it is like srv-d1x2y3z4"));
            return None;
        }
        // Checked with the policy's other limits.
        let recovery = breaker.recovery_timeout.parse().ok().and_then(|length| Duration::try_from(length).ok());
        Some(RenderService {
            service_id: id.clone(),
            key: render.api_key_secret_ref.clone(),
            failure_threshold: breaker.failure_threshold,
            recovery_timeout: recovery.unwrap_or_default(),
        })
    }
}
