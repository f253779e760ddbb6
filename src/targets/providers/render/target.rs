//! Services and databases of Render as targets.

use async_trait::async_trait;
use jiff::SignedDuration;
use secrecy::SecretString;

use super::{
    Render,
    executors::{RecoverExecutor, RestartExecutor, ScaleExecutor},
    scale::autoscaled,
};
use crate::{
    analyze::{observation::TargetState, tracker::GoodState},
    api::{
        ActionPlan, Cause, CircuitStatus, Intent, ProviderProgress, RENDER_KIND, RenderPostgres, RenderService,
        TemplateRef,
    },
    targets::{
        Observed, Target,
        executor::{Executor, Order},
        kubernetes::{ActError, SnapshotOf},
        providers::{
            call::{Caller, ProviderWords},
            common::{Before, DeployState, HostedError, breaker_limits},
            deploy::{DeployWords, redeploy, rollback},
            deploy_executor::{DeployApi, DeployExecutor},
            env_vars::{EnvChanges, EnvError},
            hosted_state,
            recover::Recover,
            restart::Restart,
            rolls_back_to,
            scale::Scale,
        },
    },
};

const WORDS: ProviderWords =
    ProviderWords { provider: RENDER_KIND, pages: "Render's dashboard", settles_within: SignedDuration::from_secs(30) };

const DEPLOY_WORDS: DeployWords = DeployWords {
    provider: WORDS,
    // A rollback is not built again.
    limit: SignedDuration::from_mins(15),
    brings: |id, to| format!("deploy {id} of what {to} was"),
    others: "other deploys have come",
    left_behind: "",
};

/// How to switch auto-deploy on again, which was on `trigger`.
pub fn auto_deploy_left_off(trigger: &str) -> String {
    format!(
        "; auto-deploy stays off until you switch it on again: Settings → Auto-Deploy in Render's dashboard, or PATCH of the service with {{\"autoDeployTrigger\": {trigger:?}}}"
    )
}

/// A service that Render hosts.
#[derive(Clone, Copy)]
pub struct RenderServiceTarget<'a> {
    pub render: &'a Render,
    pub service: &'a RenderService,
}

#[async_trait]
impl<'a> Target<'a> for RenderServiceTarget<'a> {
    async fn observe(&self, namespace: &str) -> Observed<TargetState> {
        self.render.observe(namespace, self.service).await.map(hosted_state)
    }

    fn executor(&self, order: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        let Self { render, service } = *self;
        let (plan, id) = (order.plan, service.service_id.clone());
        let judged = || plan.release.as_ref().map(|release| release.hash.clone());
        let caller = Caller { action: plan.action, id, words: WORDS };
        let procedure = match &plan.intent {
            Intent::Restart {} => {
                let procedure = Restart { caller, judged: judged() };
                return Some(Box::new(RestartExecutor { render, service, order, procedure }));
            }
            Intent::Scale(scaling) => {
                let autoscaled = autoscaled(&service.service_id);
                let procedure = Scale { caller, judged: judged(), scaling: *scaling, autoscaled };
                return Some(Box::new(ScaleExecutor { render, service, order, procedure }));
            }
            Intent::Rollback { to } | Intent::RollbackState { to, .. } => {
                rollback(&caller.id, plan.action, DEPLOY_WORDS, plan.release.as_ref(), to)
            }
            Intent::RollbackConfig { .. } => redeploy(&caller.id, DEPLOY_WORDS, plan.release.as_ref()?),
            _ => return None,
        };
        Some(Box::new(DeployExecutor::new(*self, order, procedure)))
    }

    fn circuit(&self) -> Option<CircuitStatus> {
        self.render.cloud.circuit(&self.service.service_id)
    }

    fn restore_circuit(&self, shown: &CircuitStatus) {
        let RenderService { service_id, access, .. } = self.service;
        self.render.cloud.restore_circuit(service_id, shown, breaker_limits(access));
    }

    async fn snapshot(&self, namespace: &str, of: SnapshotOf, good: &GoodState) -> Option<Result<(), ActError>> {
        Some(self.render.keep(namespace, self.service, of, good).await)
    }
}

#[async_trait]
impl DeployApi for RenderServiceTarget<'_> {
    async fn preflight_deploy(&self, namespace: &str, plan: &ActionPlan) -> Result<(), ActError> {
        self.render.preflight(namespace, self.service, plan.action).await?;
        match plan.intent.config() {
            Some(config) => self.render.preflight_env(namespace, self.service, config).await,
            None => Ok(()),
        }
    }

    async fn before(&self, namespace: &str) -> Result<Before, HostedError> {
        self.render.before(namespace, self.service).await
    }

    async fn send(&self, namespace: &str, plan: &ActionPlan) -> Result<(Option<String>, u16), HostedError> {
        if matches!(plan.intent, Intent::RollbackConfig { .. }) {
            return self.render.deploy_again(namespace, self.service, &judged(plan)?.hash).await;
        }
        self.render.roll_back(namespace, self.service, &rolls_back_to(plan)?.hash).await
    }

    async fn deploy_state(
        &self,
        namespace: &str,
        plan: &ActionPlan,
        sent: &ProviderProgress,
    ) -> Result<DeployState, HostedError> {
        let Self { render, service } = *self;
        let newest_before = sent.newest_before.as_deref();
        if matches!(plan.intent, Intent::RollbackConfig { .. }) {
            let which = (judged(plan)?.hash.as_str(), sent.deploy.as_deref(), newest_before);
            return render.deployed_again(namespace, service, which).await;
        }
        match &sent.deploy {
            Some(deploy) => render.rollback_state(namespace, service, deploy).await,
            None => render.find_rollback(namespace, service, &rolls_back_to(plan)?.hash, newest_before).await,
        }
    }

    async fn set_auto_deploy(&self, namespace: &str, trigger: &str) -> Result<(), HostedError> {
        self.render.set_auto_deploy(namespace, self.service, trigger).await
    }

    async fn env_changes(&self, namespace: &str, plan: &ActionPlan, begun: &[String]) -> Result<EnvChanges, EnvError> {
        match plan.intent.config() {
            Some(config) => self.render.env_changes(namespace, self.service, config, begun).await,
            None => Ok(EnvChanges::new()),
        }
    }

    async fn set_env_var(&self, namespace: &str, name: &str, value: Option<&SecretString>) -> Result<(), HostedError> {
        self.render.set_env_var(namespace, self.service, name, value).await
    }
}

fn judged(plan: &ActionPlan) -> Result<&TemplateRef, HostedError> {
    let none = HostedError::Unsupported("the remediation names no state to go back to");
    plan.release.as_ref().ok_or(none)
}

/// A Postgres that Render hosts.
#[derive(Clone, Copy)]
pub struct RenderPostgresTarget<'a> {
    pub render: &'a Render,
    pub postgres: &'a RenderPostgres,
}

#[async_trait]
impl<'a> Target<'a> for RenderPostgresTarget<'a> {
    async fn observe(&self, namespace: &str) -> Observed<TargetState> {
        self.render.observe_postgres(namespace, self.postgres).await.map(TargetState::Database)
    }

    fn executor(&self, order: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        let Self { render, postgres } = *self;
        let plan = order.plan;
        if !matches!(plan.intent, Intent::Restart {} | Intent::Failover {}) {
            return None;
        }
        let caller = Caller { action: plan.action, id: postgres.postgres_id.clone(), words: WORDS };
        let procedure = Recover { caller, unreachable: plan.cause == Cause::Unreachable };
        Some(Box::new(RecoverExecutor { render, postgres, order, procedure }))
    }

    fn circuit(&self) -> Option<CircuitStatus> {
        self.render.cloud.circuit(&self.postgres.postgres_id)
    }

    fn restore_circuit(&self, shown: &CircuitStatus) {
        let RenderPostgres { postgres_id, access, .. } = self.postgres;
        self.render.cloud.restore_circuit(postgres_id, shown, breaker_limits(access));
    }
}
