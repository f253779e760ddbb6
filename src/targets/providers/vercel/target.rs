//! A project of Vercel as a target.

use async_trait::async_trait;
use jiff::SignedDuration;

use super::Vercel;
use crate::{
    analyze::observation::TargetState,
    api::{ActionPlan, CircuitStatus, Intent, ProviderProgress, TemplateRef, VERCEL_KIND, VercelProject},
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

const WORDS: DeployWords = DeployWords {
    provider: ProviderWords {
        provider: VERCEL_KIND,
        pages: "Vercel's dashboard",
        settles_within: SignedDuration::from_secs(30),
    },
    // Production is pointed at what was built before.
    limit: SignedDuration::from_mins(15),
    brings: |_, to| to.to_owned(),
    others: "other rollbacks or promotions have come",
    left_behind: "; new deployments do not go live by themselves until you promote one (Undo Rollback or Promote in Vercel's dashboard, or vercel promote)",
};

/// A project that Vercel hosts.
#[derive(Clone, Copy)]
pub struct VercelTarget<'a> {
    pub vercel: &'a Vercel,
    pub project: &'a VercelProject,
}

#[async_trait]
impl<'a> Target<'a> for VercelTarget<'a> {
    async fn observe(&self, namespace: &str) -> Observed<TargetState> {
        self.vercel.observe(namespace, self.project).await.map(hosted_state)
    }

    fn executor(&self, order: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        let plan = order.plan;
        let Intent::Rollback { to } = &plan.intent else { return None };
        let procedure = rollback(&self.project.project_id, plan.action, WORDS, plan.release.as_ref(), to);
        Some(Box::new(DeployExecutor::new(*self, order, procedure)))
    }

    fn circuit(&self) -> Option<CircuitStatus> {
        self.vercel.cloud.circuit(&self.project.project_id)
    }

    fn restore_circuit(&self, shown: &CircuitStatus) {
        let VercelProject { project_id, access, .. } = self.project;
        self.vercel.cloud.restore_circuit(project_id, shown, breaker_limits(access));
    }
}

#[async_trait]
impl DeployApi for VercelTarget<'_> {
    async fn preflight_deploy(&self, namespace: &str, plan: &ActionPlan) -> Result<(), ActError> {
        let to = plan.intent.template().map(|to| to.hash.as_str());
        self.vercel.preflight_rollback(namespace, self.project, to).await
    }

    async fn before(&self, namespace: &str) -> Result<Before, HostedError> {
        self.vercel.before(namespace, self.project).await
    }

    async fn send(&self, namespace: &str, plan: &ActionPlan) -> Result<(Option<String>, u16), HostedError> {
        let TemplateRef { hash, .. } = rolls_back_to(plan)?;
        let status = self.vercel.roll_back(namespace, self.project, hash).await?;
        Ok((Some(hash.clone()), status))
    }

    async fn deploy_state(
        &self,
        namespace: &str,
        plan: &ActionPlan,
        sent: &ProviderProgress,
    ) -> Result<DeployState, HostedError> {
        let to = rolls_back_to(plan)?;
        self.vercel.rolled_back(namespace, self.project, &to.hash, sent.newest_before.as_deref()).await
    }
}
