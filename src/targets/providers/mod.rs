//! The providers that host services, and a service of any of them: one call here is the call of the provider whose it is.

pub mod client;
pub mod common;
pub mod env_vars;
pub mod github;
pub mod render;
pub mod vercel;

use async_trait::async_trait;
use jiff::SignedDuration;

use super::{
    Observed, Target, Unfinished,
    executor::{Executor, Order},
    kubernetes::{ActError, Kubernetes, SnapshotOf},
};
use crate::{
    analyze::{
        observation::{Hosted, TargetState},
        tracker::GoodState,
    },
    api::{
        Access, ActionKind, CircuitStatus, GITHUB_KIND, GithubEnvironment, ProviderProgress, RENDER_KIND,
        RenderPostgres, RenderService, TemplateRef, VERCEL_KIND, VercelProject,
    },
};
use client::ApiClient;
use common::{Before, DeployState, HostedError, ProviderConfig, Seen, breaker_limits};
use github::Github;
use render::Render;
use vercel::Vercel;

/// How the providers' APIs are reached.
#[derive(Debug, Clone)]
pub struct HostingConfig {
    pub render: ProviderConfig,
    pub vercel: ProviderConfig,
    pub github: ProviderConfig,
}

/// The providers. One for the whole operator.
pub struct Hosting {
    pub render: Render,
    pub vercel: Vercel,
    pub github: Github,
}

impl Hosting {
    pub fn new(config: HostingConfig, kubernetes: &Kubernetes) -> Self {
        let HostingConfig { render, vercel, github } = config;
        Self {
            render: Render::new(render, kubernetes.clone()),
            vercel: Vercel::new(vercel, kubernetes.clone()),
            github: Github::new(github, kubernetes.clone()),
        }
    }
}

/// A service that can be acted on, and who hosts it. Calls are on the heap: one is larger than what calls it, and stands on the
/// stack of everything above it.
#[derive(Clone, Copy)]
pub enum HostedService<'a> {
    Render(&'a Render, &'a RenderService),
    RenderPostgres(&'a Render, &'a RenderPostgres),
    Vercel(&'a Vercel, &'a VercelProject),
    Github(&'a Github, &'a GithubEnvironment),
}

/// What is asked of a provider that has no instances.
const NO_INSTANCES: HostedError =
    HostedError::Unsupported("it has no instances that could be restarted; nothing was done");
/// What is asked of a database.
const NO_DEPLOYS: HostedError = HostedError::Unsupported("it has no deploys; nothing was done");

fn state(hosted: Hosted) -> TargetState {
    TargetState::Hosted(Box::new(hosted))
}

impl<'a> HostedService<'a> {
    /// `Render`, `Vercel`, `GitHub`: the kind of the target as well.
    pub fn provider(self) -> &'static str {
        match self {
            Self::Render(..) | Self::RenderPostgres(..) => RENDER_KIND,
            Self::Vercel(..) => VERCEL_KIND,
            Self::Github(..) => GITHUB_KIND,
        }
    }

    pub fn id(self) -> &'a str {
        match self {
            Self::Render(_, service) => &service.service_id,
            Self::RenderPostgres(_, postgres) => &postgres.postgres_id,
            Self::Vercel(_, project) => &project.project_id,
            Self::Github(_, environment) => &environment.id,
        }
    }

    /// Where a person looks.
    pub fn pages(self) -> &'static str {
        match self {
            Self::Render(..) | Self::RenderPostgres(..) => "Render's dashboard",
            Self::Vercel(..) => "Vercel's dashboard",
            Self::Github(_, GithubEnvironment { workflow: Some(_), .. }) => "the repository's Actions",
            Self::Github(..) => "the repository's Deployments",
        }
    }

    /// A call that was done shows within this time.
    pub fn settles_within(self) -> SignedDuration {
        match self {
            Self::Render(..) | Self::RenderPostgres(..) | Self::Vercel(..) => SignedDuration::from_secs(30),
            // GitHub promises no time within which a dispatch becomes a run.
            Self::Github(..) => SignedDuration::from_secs(90),
        }
    }

    /// So long after the call a rollback is live.
    pub fn rollback_limit(self) -> SignedDuration {
        match self {
            // It is not built again.
            Self::Render(..) | Self::RenderPostgres(..) | Self::Vercel(..) => SignedDuration::from_mins(15),
            // It may be built again, and wait for a runner and an approval.
            Self::Github(..) => SignedDuration::from_hours(1),
        }
    }

    /// One look. Takes at most 9 s.
    pub async fn observe(self, namespace: &str) -> Observed<TargetState> {
        match self {
            Self::Render(render, service) => Box::pin(render.observe(namespace, service)).await.map(state),
            Self::RenderPostgres(render, postgres) => {
                Box::pin(render.observe_postgres(namespace, postgres)).await.map(TargetState::Database)
            }
            Self::Vercel(vercel, project) => Box::pin(vercel.observe(namespace, project)).await.map(state),
            Self::Github(github, environment) => Box::pin(github.observe(namespace, environment)).await.map(state),
        }
    }

    /// The circuit breaker of its API for it, in words for the status; none while it is closed.
    pub fn circuit(self) -> Option<CircuitStatus> {
        self.cloud().0.circuit(self.id())
    }

    /// Takes up what an earlier life of the operator has shown as [`Self::circuit`].
    pub fn restore_circuit(self, shown: &CircuitStatus) {
        let (cloud, access) = self.cloud();
        cloud.restore_circuit(self.id(), shown, breaker_limits(access));
    }

    fn cloud(self) -> (&'a ApiClient, &'a Access) {
        match self {
            Self::Render(render, service) => (&render.cloud, &service.access),
            Self::RenderPostgres(render, postgres) => (&render.cloud, &postgres.access),
            Self::Vercel(vercel, project) => (&vercel.cloud, &project.access),
            Self::Github(github, environment) => (&github.cloud, &environment.access),
        }
    }

    /// In words what a rollback brings live: the deploy `id` itself, or a new one of what `to` was.
    pub fn brought(self, id: &str, to: &str) -> String {
        match self {
            Self::Render(..) | Self::RenderPostgres(..) => format!("deploy {id} of what {to} was"),
            Self::Vercel(..) => to.to_owned(),
            Self::Github(_, GithubEnvironment { workflow: Some(_), .. }) => format!("the commit of {to} (by run {id})"),
            Self::Github(..) => format!("the commit of {to} (by deployment {id})"),
        }
    }

    /// In words what came since a rollback was asked for, when it is not that.
    pub fn others(self) -> &'static str {
        match self {
            Self::Render(..) | Self::RenderPostgres(..) => "other deploys have come",
            Self::Vercel(..) => "other rollbacks or promotions have come",
            Self::Github(_, GithubEnvironment { workflow: Some(_), .. }) => "other runs of the workflow have come",
            Self::Github(..) => "other deployments have come",
        }
    }

    /// What a rollback that came about leaves behind, for a person.
    pub fn left_behind(self) -> &'static str {
        match self {
            Self::Render(..) | Self::RenderPostgres(..) => "",
            Self::Vercel(..) => {
                "; new deployments do not go live by themselves until you promote one (Undo Rollback or Promote in Vercel's dashboard, or vercel promote)"
            }
            Self::Github(..) => {
                "; the next deployment may bring the bad commit back: revert it, or hold deployments until it is mended"
            }
        }
    }

    /// Whether an action can be done at all.
    ///
    /// # Errors
    /// BadRemedy, Forbidden or Autoscaled, in words for a person; what may pass is no reason.
    pub async fn preflight(
        self,
        namespace: &str,
        action: ActionKind,
        to: Option<&TemplateRef>,
    ) -> Result<(), ActError> {
        match self {
            Self::Render(render, service) => Box::pin(render.preflight(namespace, service, action)).await,
            Self::RenderPostgres(render, postgres) => {
                Box::pin(render.preflight_recovery(namespace, postgres, action)).await
            }
            Self::Vercel(..) | Self::Github(..) if action == ActionKind::Restart => {
                Err(ActError::BadRemedy(NO_INSTANCES.to_string()))
            }
            Self::Vercel(vercel, project) => {
                Box::pin(vercel.preflight_rollback(namespace, project, to.map(|to| to.hash.as_str()))).await
            }
            Self::Github(github, environment) => Box::pin(github.preflight_rollback(namespace, environment, to)).await,
        }
    }

    /// What is there before the call.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn before(self, namespace: &str) -> Result<Before, HostedError> {
        match self {
            Self::Render(render, service) => Box::pin(render.before(namespace, service)).await,
            Self::RenderPostgres(render, postgres) => Box::pin(render.before_recovery(namespace, postgres)).await,
            Self::Vercel(vercel, project) => Box::pin(vercel.before(namespace, project)).await,
            Self::Github(github, environment) => Box::pin(github.before(namespace, environment)).await,
        }
    }

    /// Asks for a restart, which has begun when this is answered; the answer's status.
    ///
    /// # Errors
    /// See [`HostedError`]; [`HostedError::not_done`] tells whether it had no effect for certain.
    pub async fn restart(self, namespace: &str) -> Result<u16, HostedError> {
        match self {
            Self::Render(render, service) => Box::pin(render.restart(namespace, service)).await,
            Self::RenderPostgres(..) | Self::Vercel(..) | Self::Github(..) => Err(NO_INSTANCES),
        }
    }

    /// What has become of a restart since it was sent.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn restarted(self, namespace: &str, sent: &ProviderProgress) -> Result<Seen, HostedError> {
        match self {
            Self::Render(render, service) => {
                Box::pin(render.restarted(namespace, service, &sent.instances_before, sent.newest_before.as_deref()))
                    .await
            }
            Self::RenderPostgres(..) | Self::Vercel(..) | Self::Github(..) => Err(NO_INSTANCES),
        }
    }

    /// Has new commits deployed on `trigger` (`commit`, `checksPass`), or on nothing (`off`).
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn set_auto_deploy(self, namespace: &str, trigger: &str) -> Result<(), HostedError> {
        match self {
            Self::Render(render, service) => Box::pin(render.set_auto_deploy(namespace, service, trigger)).await,
            // None has it to switch, see `left_behind`.
            Self::RenderPostgres(..) | Self::Vercel(..) | Self::Github(..) => Ok(()),
        }
    }

    /// Asks for a rollback; the deploy that is to be live or the run that makes it, where that is known, and the answer's status.
    ///
    /// # Errors
    /// See [`HostedError`]; [`HostedError::not_done`] tells whether it had no effect for certain.
    pub async fn roll_back(self, namespace: &str, to: &TemplateRef) -> Result<(Option<String>, u16), HostedError> {
        let deploy = to.hash.as_str();
        match self {
            Self::Render(render, service) => Box::pin(render.roll_back(namespace, service, deploy)).await,
            Self::RenderPostgres(..) => Err(NO_DEPLOYS),
            Self::Vercel(vercel, project) => {
                let status = Box::pin(vercel.roll_back(namespace, project, deploy)).await?;
                Ok((Some(deploy.to_owned()), status))
            }
            Self::Github(github, environment) => Box::pin(github.roll_back(namespace, environment, to)).await,
        }
    }

    /// What has become of a rollback to `to` since it was sent.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn rolled_back(
        self,
        namespace: &str,
        sent: &ProviderProgress,
        to: &TemplateRef,
    ) -> Result<DeployState, HostedError> {
        let (newest_before, back) = (sent.newest_before.as_deref(), to.hash.as_str());
        match self {
            Self::Render(render, service) => match &sent.deploy {
                Some(deploy) => Box::pin(render.rollback_state(namespace, service, deploy)).await,
                None => Box::pin(render.find_rollback(namespace, service, back, newest_before)).await,
            },
            Self::RenderPostgres(..) => Err(NO_DEPLOYS),
            Self::Vercel(vercel, project) => {
                Box::pin(vercel.rolled_back(namespace, project, back, newest_before)).await
            }
            Self::Github(github, environment) => {
                let ours = sent.deploy.as_deref();
                Box::pin(github.rolled_back(namespace, environment, to, ours, newest_before)).await
            }
        }
    }
}

/// What an action leaves open when nobody can follow it any more.
pub fn unfinished(progress: &ProviderProgress) -> Unfinished {
    Unfinished { may_have_effect: progress.sent_at.is_some(), left: String::new() }
}

#[async_trait]
impl<'a> Target<'a> for HostedService<'a> {
    async fn observe(&self, namespace: &str) -> Observed<TargetState> {
        HostedService::observe(*self, namespace).await
    }

    fn executor(&self, _: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        None
    }

    fn circuit(&self) -> Option<CircuitStatus> {
        HostedService::circuit(*self)
    }

    fn restore_circuit(&self, shown: &CircuitStatus) {
        HostedService::restore_circuit(*self, shown);
    }

    async fn snapshot(&self, namespace: &str, of: SnapshotOf, good: &GoodState) -> Option<Result<(), ActError>> {
        match self {
            Self::Render(render, service) => Some(render.keep(namespace, service, of, good).await),
            _ => None,
        }
    }
}
