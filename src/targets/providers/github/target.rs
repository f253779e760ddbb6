//! An environment of a GitHub repository as a target.

use async_trait::async_trait;
use jiff::SignedDuration;

use super::Github;
use crate::{
    analyze::observation::TargetState,
    api::{ActionPlan, CircuitStatus, GITHUB_KIND, GithubEnvironment, Intent, ProviderProgress},
    targets::{
        Observed, Target,
        executor::{Executor, Order},
        kubernetes::ActError,
        providers::{
            call::ProviderWords,
            common::{Before, DeployState, HostedError, breaker_limits},
            deploy::{DeployWords, rollback},
            deploy_executor::{DeployApi, DeployExecutor},
            hosted_state, rolls_back_to,
        },
    },
};

/// GitHub promises no time within which a dispatch becomes a run.
const SETTLES_WITHIN: SignedDuration = SignedDuration::from_secs(90);
/// It may be built again, and wait for a runner and an approval.
const LIMIT: SignedDuration = SignedDuration::from_hours(1);
const LEFT_BEHIND: &str =
    "; the next deployment may bring the bad commit back: revert it, or hold deployments until it is mended";

/// Of a rollback by a workflow.
const BY_WORKFLOW: DeployWords = DeployWords {
    provider: ProviderWords {
        provider: GITHUB_KIND,
        pages: "the repository's Actions",
        settles_within: SETTLES_WITHIN,
    },
    limit: LIMIT,
    brings: |id, to| format!("the commit of {to} (by run {id})"),
    others: "other runs of the workflow have come",
    left_behind: LEFT_BEHIND,
};

/// Of a rollback by a deployment.
const BY_DEPLOYMENT: DeployWords = DeployWords {
    provider: ProviderWords {
        provider: GITHUB_KIND,
        pages: "the repository's Deployments",
        settles_within: SETTLES_WITHIN,
    },
    limit: LIMIT,
    brings: |id, to| format!("the commit of {to} (by deployment {id})"),
    others: "other deployments have come",
    left_behind: LEFT_BEHIND,
};

/// What is deployed to an environment.
#[derive(Clone, Copy)]
pub struct GithubTarget<'a> {
    pub github: &'a Github,
    pub environment: &'a GithubEnvironment,
}

#[async_trait]
impl<'a> Target<'a> for GithubTarget<'a> {
    async fn observe(&self, namespace: &str) -> Observed<TargetState> {
        self.github.observe(namespace, self.environment).await.map(hosted_state)
    }

    fn executor(&self, order: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        let plan = order.plan;
        let Intent::Rollback { to } = &plan.intent else { return None };
        let words = if self.environment.workflow.is_some() { BY_WORKFLOW } else { BY_DEPLOYMENT };
        let procedure = rollback(&self.environment.id, plan.action, words, plan.release.as_ref(), to);
        Some(Box::new(DeployExecutor::new(*self, order, procedure)))
    }

    fn circuit(&self) -> Option<CircuitStatus> {
        self.github.cloud.circuit(&self.environment.id)
    }

    fn restore_circuit(&self, shown: &CircuitStatus) {
        let GithubEnvironment { id, access, .. } = self.environment;
        self.github.cloud.restore_circuit(id, shown, breaker_limits(access));
    }
}

#[async_trait]
impl DeployApi for GithubTarget<'_> {
    async fn preflight_deploy(&self, namespace: &str, plan: &ActionPlan) -> Result<(), ActError> {
        self.github.preflight_rollback(namespace, self.environment, plan.intent.template()).await
    }

    async fn before(&self, namespace: &str) -> Result<Before, HostedError> {
        self.github.before(namespace, self.environment).await
    }

    async fn send(&self, namespace: &str, plan: &ActionPlan) -> Result<(Option<String>, u16), HostedError> {
        self.github.roll_back(namespace, self.environment, rolls_back_to(plan)?).await
    }

    async fn deploy_state(
        &self,
        namespace: &str,
        plan: &ActionPlan,
        sent: &ProviderProgress,
    ) -> Result<DeployState, HostedError> {
        let (ours, before) = (sent.deploy.as_deref(), sent.newest_before.as_deref());
        self.github.rolled_back(namespace, self.environment, rolls_back_to(plan)?, ours, before).await
    }
}
