//! Carries out a deploy through the API of any provider.

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use secrecy::SecretString;

use super::{
    common::{Before, DeployState, HostedError, PREFLIGHT_INTERVAL},
    deploy::{Deploy, DeployAnswer, DeployEffect, DeploySeen, Desired},
    env_vars::{EnvChanges, EnvError},
};
use crate::{
    api::{ActionPlan, ProviderProgress},
    plan::guard::Permit,
    targets::{
        executor::{Effects, Moment, Order},
        kubernetes::ActError,
    },
};

/// The deploys of one service, in a provider's API.
#[async_trait]
pub trait DeployApi: Send + Sync {
    /// # Errors
    /// BadRemedy or Forbidden, for a person. An error that may pass refuses nothing.
    async fn preflight(&self, namespace: &str, plan: &ActionPlan) -> Result<(), ActError>;

    /// The service before the call.
    async fn before(&self, namespace: &str) -> Result<Before, HostedError>;

    /// Requests the deploy; its id, where the response names it, and the status of the response.
    ///
    /// # Errors
    /// [`HostedError::not_done`] reports whether the call certainly had no effect.
    async fn send(&self, namespace: &str, desired: &Desired) -> Result<(Option<String>, u16), HostedError>;

    /// How far the deploy is, since it was sent.
    async fn deploy_state(
        &self,
        namespace: &str,
        desired: &Desired,
        sent: &ProviderProgress,
    ) -> Result<DeployState, HostedError>;

    /// Has new commits deployed on `trigger` (`commit`, `checksPass`), or on nothing (`off`). Idempotent. A provider without
    /// auto-deploy never reports that it is on.
    async fn set_auto_deploy(&self, _namespace: &str, _trigger: &str) -> Result<(), HostedError> {
        Ok(())
    }

    /// The environment variables of the plan that differ. `begun`: those of which some are restored already.
    async fn env_changes(&self, _: &str, _plan: &ActionPlan, _begun: &[String]) -> Result<EnvChanges, EnvError> {
        Ok(EnvChanges::new())
    }

    /// Sets one environment variable, or removes it. Idempotent.
    async fn set_env_var(&self, _: &str, _name: &str, _: Option<&SecretString>) -> Result<(), HostedError> {
        Ok(())
    }
}

pub struct DeployExecutor<'a, A> {
    api: A,
    order: Order<'a>,
    procedure: Deploy,
    /// The environment variables that differ, as last read. Their values are in no progress, effect or message.
    changes: Mutex<EnvChanges>,
}

impl<'a, A: DeployApi> DeployExecutor<'a, A> {
    pub fn new(api: A, order: Order<'a>, procedure: Deploy) -> Self {
        Self { api, order, procedure, changes: Mutex::default() }
    }

    async fn restore_env(&self, names: &[String]) -> Result<(), HostedError> {
        let changes = self.changes.lock().clone();
        for (name, value) in changes.iter().filter(|(name, _)| names.contains(name)) {
            self.api.set_env_var(self.order.namespace, name, value.as_ref()).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl<A: DeployApi> Effects for DeployExecutor<'_, A> {
    type Procedure = Deploy;

    fn procedure(&self) -> Deploy {
        self.procedure.clone()
    }

    async fn preflight(&self) -> Result<(), ActError> {
        self.api.preflight(self.order.namespace, self.order.plan).await
    }

    fn preflight_interval(&self) -> Duration {
        PREFLIGHT_INTERVAL
    }

    async fn observe(&self, progress: &ProviderProgress, moment: &Moment) -> DeploySeen {
        let (namespace, desired) = (self.order.namespace, &self.procedure.desired);
        let before = async {
            let before = self.api.before(namespace).await?;
            let changes = self.api.env_changes(namespace, self.order.plan, &progress.env_vars).await;
            *self.changes.lock() = changes.clone().unwrap_or_default();
            Ok((before, changes))
        };
        DeploySeen::read(progress, moment, before, self.api.deploy_state(namespace, desired, progress)).await
    }

    async fn perform(&self, effect: &DeployEffect, _: &ProviderProgress, _: &Permit) -> DeployAnswer {
        let namespace = self.order.namespace;
        match effect {
            DeployEffect::RestoreEnv(names) => DeployAnswer::Changed(self.restore_env(names).await),
            DeployEffect::SwitchAutoDeployOff { .. } => {
                DeployAnswer::Changed(self.api.set_auto_deploy(namespace, "off").await)
            }
            DeployEffect::RestoreAutoDeploy { trigger, .. } => {
                DeployAnswer::Changed(self.api.set_auto_deploy(namespace, trigger).await)
            }
            DeployEffect::Send => DeployAnswer::Sent(self.api.send(namespace, &self.procedure.desired).await),
            DeployEffect::Finish(_) | DeployEffect::Report => DeployAnswer::Changed(Ok(())),
        }
    }
}
