//! Targets that a provider hosts.

use std::time::Duration;

use super::{Checker, ValidTarget};
use crate::api::{CircuitBreaker, KeyRef, RenderTarget, VercelTarget};

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

/// A service that Render hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderService {
    pub service_id: String,
    /// Its environment variables are a configuration of their own, which a remedy puts back.
    pub env_vars: bool,
    pub access: Access,
}

/// A project that Vercel hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VercelProject {
    pub project_id: String,
    /// None: the token's own account.
    pub team_id: Option<String>,
    pub access: Access,
}

/// Looks at a hosted service follow each other no faster: each is several calls, of which there are so many a minute.
const HOSTED_PAUSE: Duration = Duration::from_secs(4);

impl ValidTarget {
    /// Looks follow each other no faster than this, whatever calls for them.
    pub fn least_pause(&self) -> Duration {
        match self {
            Self::Render(_) | Self::Vercel(_) => HOSTED_PAUSE,
            Self::Workload { .. } | Self::Postgres(_) | Self::Http(_) => Duration::ZERO,
        }
    }
}

impl Checker {
    pub(super) fn render(&mut self, render: &RenderTarget, breaker: &CircuitBreaker) -> Option<RenderService> {
        let id = &render.service_id;
        self.is_id("target.render.serviceId", id, "", "a service; it is like srv-d1x2y3z4").then(|| RenderService {
            service_id: id.clone(),
            env_vars: false,
            access: access(&render.api_key_secret_ref, breaker),
        })
    }

    pub(super) fn vercel(&mut self, vercel: &VercelTarget, breaker: &CircuitBreaker) -> Option<VercelProject> {
        let VercelTarget { project_id, team_id, token_secret_ref } = vercel;
        let project = self.is_id("target.vercel.projectId", project_id, "prj_", "a project; it is like prj_a1B2c3");
        let team = team_id.as_ref().is_none_or(|team| {
            self.is_id("target.vercel.teamId", team, "team_", "a team; it is like team_a1B2c3, not the team's name")
        });
        (project && team).then(|| VercelProject {
            project_id: project_id.clone(),
            team_id: team_id.clone(),
            access: access(token_secret_ref, breaker),
        })
    }

    fn is_id(&mut self, field: &str, id: &str, prefix: &str, of_what: &str) -> bool {
        let fits = |character: char| character.is_ascii_alphanumeric() || character == '-';
        let rest = id.strip_prefix(prefix);
        let is = (5..=64).contains(&id.len()) && rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(fits));
        if !is {
            self.bad(field, format!("{id:?} is no id of {of_what}"));
        }
        is
    }
}

fn access(key: &Option<KeyRef>, breaker: &CircuitBreaker) -> Access {
    // Checked with the policy's other limits.
    let recovery = breaker.recovery_timeout.parse().ok().and_then(|length| Duration::try_from(length).ok());
    Access {
        key: key.clone(),
        failure_threshold: breaker.failure_threshold,
        recovery_timeout: recovery.unwrap_or_default(),
    }
}
