//! Targets that a provider hosts.

use std::time::Duration;

use super::{Checker, ValidTarget};
use crate::api::{CircuitBreaker, GithubTarget, GithubWorkflow, KeyRef, RenderTarget, VercelTarget};

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

/// A Postgres that Render hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderPostgres {
    pub postgres_id: String,
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

/// What is deployed to an environment of a GitHub repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GithubEnvironment {
    /// `owner/name:environment`.
    pub id: String,
    pub owner: String,
    /// The repository's, without its owner.
    pub name: String,
    pub environment: String,
    /// What rolls back; none: a deployment does.
    pub workflow: Option<GithubWorkflow>,
    pub access: Access,
}

/// What the id of a Render Postgres begins with.
const POSTGRES_PREFIX: &str = "dpg-";

/// Looks at a hosted service follow each other no faster: each is several calls, of which there are so many a minute.
const HOSTED_PAUSE: Duration = Duration::from_secs(4);

impl ValidTarget {
    /// Looks follow each other no faster than this, whatever calls for them.
    pub fn min_check_interval(&self) -> Duration {
        match self {
            Self::Render(_) | Self::RenderPostgres(_) | Self::Vercel(_) | Self::Github(_) => HOSTED_PAUSE,
            Self::Workload { .. } | Self::Postgres(_) | Self::Http(_) => Duration::ZERO,
        }
    }
}

impl Checker {
    pub(super) fn render(&mut self, render: &RenderTarget, breaker: &CircuitBreaker) -> Option<ValidTarget> {
        let RenderTarget { service_id, postgres_id, api_key_secret_ref } = render;
        let access = access(api_key_secret_ref, breaker);
        let (service, postgres) = ("target.render.serviceId", "target.render.postgresId");
        match (service_id, postgres_id) {
            (Some(id), None) if id.starts_with(POSTGRES_PREFIX) => {
                self.bad(service, format!("{id:?} is the id of a Postgres; write postgresId"));
                None
            }
            (Some(id), None) => {
                let is = self.is_id(service, id, "", "a service; it is like srv-d1x2y3z4");
                is.then(|| ValidTarget::Render(RenderService { service_id: id.clone(), env_vars: false, access }))
            }
            (None, Some(id)) => {
                let is = self.is_id(postgres, id, POSTGRES_PREFIX, "a Postgres; it is like dpg-d1x2y3z4-a");
                is.then(|| ValidTarget::RenderPostgres(RenderPostgres { postgres_id: id.clone(), access }))
            }
            _ => {
                self.bad("target.render", "must name exactly one of serviceId and postgresId".to_owned());
                None
            }
        }
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

    pub(super) fn github(&mut self, github: &GithubTarget, breaker: &CircuitBreaker) -> Option<GithubEnvironment> {
        let GithubTarget { repository, environment, workflow, token_secret_ref } = github;
        let fits = |text: &str, more: &str| {
            !text.is_empty()
                && text.chars().all(|character| character.is_ascii_alphanumeric() || more.contains(character))
        };
        let parts = repository.split_once('/').filter(|(owner, name)| {
            fits(owner, "-_") && fits(name, "-_.") && !matches!(*name, "." | "..") && repository.len() <= 140
        });
        if parts.is_none() {
            let message = format!("{repository:?} is no repository; it is like octo-org/shop, as in its address");
            self.bad("target.github.repository", message);
        }
        let named = !environment.trim().is_empty()
            && environment.chars().count() <= 100
            && !environment.contains(|character: char| character.is_control() || "'\"`,;\\".contains(character));
        if !named {
            let message = format!("{environment:?} is no name of an environment; it is like production");
            self.bad("target.github.environment", message);
        }
        let workflow_fits = workflow.as_ref().is_none_or(|workflow| self.github_workflow(workflow));
        let (owner, name) = parts.filter(|_| named && workflow_fits)?;
        Some(GithubEnvironment {
            id: format!("{repository}:{environment}"),
            owner: owner.to_owned(),
            name: name.to_owned(),
            environment: environment.clone(),
            workflow: workflow.clone(),
            access: access(token_secret_ref, breaker),
        })
    }

    fn github_workflow(&mut self, workflow: &GithubWorkflow) -> bool {
        let GithubWorkflow { file, git_ref, sha_input, inputs } = workflow;
        let before = self.found.len();
        let mut bad = |field: &str, message| self.bad(&format!("target.github.workflow.{field}"), message);
        if file.contains('/') || !(file.ends_with(".yml") || file.ends_with(".yaml")) {
            bad("file", format!("{file:?} is no file of .github/workflows; it is like rollback.yml"));
        }
        let is_sha = git_ref.len() == 40 && git_ref.chars().all(|digit| digit.is_ascii_hexdigit());
        if git_ref.trim().is_empty() || is_sha {
            bad("ref", format!("{git_ref:?} is no branch or tag, which alone can be dispatched; it is like main"));
        }
        if sha_input.is_empty() || inputs.contains_key(sha_input) {
            bad("shaInput", format!("{sha_input:?} takes the commit to go back to; take it out of inputs"));
        }
        if inputs.len() > 24 {
            bad(
                "inputs",
                format!("has {} entries; a workflow takes 25 inputs, and shaInput is one of them", inputs.len()),
            );
        }
        self.found.len() == before
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
