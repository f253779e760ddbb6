//! A service of Render as a target.

use async_trait::async_trait;
use jiff::SignedDuration;
use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;

use super::{
    Render,
    act::autoscaled,
    wire::{self},
};
use crate::{
    analyze::{observation::TargetState, tracker::GoodState},
    api::{ActionPlan, CircuitStatus, Intent, ProviderProgress, RENDER_KIND, RenderService},
    targets::{
        Observed, Target,
        executor::{Executor, Order},
        kubernetes::{ActError, SnapshotOf},
        providers::{
            call::{Caller, ProviderWords},
            call_executor::CallExecutor,
            client::Repeat,
            common::{Before, DeployState, HostedError},
            deploy::{Deploy, DeployWords, Desired},
            deploy_executor::{DeployApi, DeployExecutor},
            env_vars::{EnvChanges, EnvError},
            hosted_state,
            restart::Restart,
            scale::Scale,
        },
    },
};

pub const WORDS: ProviderWords = ProviderWords {
    provider: RENDER_KIND,
    pages: "Render's dashboard",
    settles_within: SignedDuration::from_secs(30),
    auto_deploy_off: |trigger| {
        format!(
            "; auto-deploy stays off until you switch it on again: Settings → Auto-Deploy in Render's dashboard, or PATCH of the service with {{\"autoDeployTrigger\": {trigger:?}}}"
        )
    },
};

const DEPLOY_WORDS: DeployWords = DeployWords {
    provider: WORDS,
    // A rollback is not built again.
    limit: SignedDuration::from_mins(15),
    brings: |id, to| format!("deploy {id} of what {to} was"),
    others: "other deploys were made",
    left_behind: "",
};

/// A service that Render hosts.
#[derive(Clone, Copy)]
pub struct RenderServiceTarget<'a> {
    pub render: &'a Render,
    pub service: &'a RenderService,
}

#[async_trait]
impl<'a> Target<'a> for RenderServiceTarget<'a> {
    async fn observe(&self, namespace: &str) -> Observed<TargetState> {
        let key = self.key(namespace);
        self.render.services.observe(&key, self.hosted(namespace, &key)).await.map(hosted_state)
    }

    fn executor(&self, order: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        let (api, plan, id) = (*self, order.plan, &self.service.service_id);
        let caller = Caller::new(plan, id, WORDS);
        let desired = match &plan.intent {
            Intent::Restart {} => return Some(Box::new(CallExecutor { api, order, procedure: Restart { caller } })),
            Intent::Scale(scaling) => {
                let procedure = Scale { caller, scaling: *scaling, autoscaled: autoscaled(id) };
                return Some(Box::new(CallExecutor { api, order, procedure }));
            }
            Intent::Rollback { to } | Intent::RollbackState { to, .. } => Desired::Rollback(to.clone()),
            Intent::RollbackConfig { .. } => Desired::Redeploy(plan.release.clone()?),
            _ => return None,
        };
        Some(Box::new(DeployExecutor::new(api, order, Deploy::new(plan, id, DEPLOY_WORDS, desired))))
    }

    fn circuit(&self) -> Option<CircuitStatus> {
        self.render.api.circuit(&self.service.service_id)
    }

    fn restore_circuit(&self, shown: &CircuitStatus) {
        self.render.api.restore_circuit(&self.service.service_id, &self.service.access, shown);
    }

    async fn snapshot(&self, namespace: &str, of: SnapshotOf, good: &GoodState) -> Option<Result<(), ActError>> {
        Some(self.keep(namespace, of, good).await)
    }
}

#[async_trait]
impl DeployApi for RenderServiceTarget<'_> {
    async fn preflight(&self, namespace: &str, plan: &ActionPlan) -> Result<(), ActError> {
        self.may_act(namespace, plan.action).await?;
        self.may_restore_env(namespace, plan).await
    }

    async fn before(&self, namespace: &str) -> Result<Before, HostedError> {
        self.before_call(namespace).await
    }

    async fn send(&self, namespace: &str, desired: &Desired) -> Result<(Option<String>, u16), HostedError> {
        let account = self.account(namespace).await?;
        let to = match desired {
            Desired::Rollback(to) => &to.hash,
            Desired::Redeploy(of) => return self.deploy_again(namespace, &account, &of.hash).await,
        };
        let (what, json) = (format!("roll service {} back to {to}", account.id), json!({"deployId": to}));
        let sent = self.post_deploy(namespace, &account, (&what, "rollback"), &json).await?;
        if let Some(deploy) = &sent.0 {
            self.note_target(deploy, to);
        }
        Ok(sent)
    }

    async fn deploy_state(
        &self,
        namespace: &str,
        desired: &Desired,
        sent: &ProviderProgress,
    ) -> Result<DeployState, HostedError> {
        let account = self.account(namespace).await?;
        if let Some(deploy) = &sent.deploy {
            return Ok(state_of(&self.deploy(&account, deploy).await?));
        }
        let deploys = self.deploys(&account).await?;
        let newer = deploys.iter().take_while(|deploy| Some(&deploy.id) != sent.newest_before.as_ref());
        let newer: Vec<&wire::Deploy> = newer.collect();
        match desired {
            Desired::Rollback(to) => {
                for deploy in &newer {
                    if self.rollback_target(&account, deploy, &[]).await?.as_ref() == Some(&to.hash) {
                        return Ok(state_of(deploy));
                    }
                }
            }
            Desired::Redeploy(of) => {
                let source = self.deploy(&account, &of.hash).await?.source();
                // The oldest: deploys after it are somebody else's.
                let ours = newer.iter().rev().find(|one| one.trigger == "api" && one.source() == source);
                if let Some(ours) = ours {
                    return Ok(state_of(ours));
                }
            }
        }
        Ok(DeployState::without_ours(newer.is_empty()))
    }

    async fn set_auto_deploy(&self, namespace: &str, trigger: &str) -> Result<(), HostedError> {
        let account = self.account(namespace).await?;
        let id = account.id;
        let (what, json) = (format!("set auto-deploy of {id} to {trigger}"), json!({"autoDeployTrigger": trigger}));
        let call = (what.as_str(), &["services", id][..]);
        self.render.change(&account, Method::PATCH, call, Some(&json), Repeat::Always).await.map(drop)
    }

    async fn env_changes(&self, namespace: &str, plan: &ActionPlan, begun: &[String]) -> Result<EnvChanges, EnvError> {
        self.changed_env(namespace, plan, begun).await
    }

    async fn set_env_var(&self, namespace: &str, name: &str, value: Option<&SecretString>) -> Result<(), HostedError> {
        self.put_env_var(namespace, name, value).await
    }
}

fn state_of(deploy: &wire::Deploy) -> DeployState {
    let (id, status) = (deploy.id.clone(), deploy.status.clone());
    DeployState::Deploy { id, status, live: deploy.is_live(), over: deploy.is_over() }
}
