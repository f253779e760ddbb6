//! Carries a deploy out through the API of any provider.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use secrecy::SecretString;

use super::{
    call::CallState,
    common::{Before, DeployState, HostedError},
    deploy::{Deploy, DeployAnswer, DeployEffect, DeploySeen, EnvChange},
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

/// A refused preflight may be asked again after this time, for the provider's rate limits.
pub(super) const PREFLIGHT_INTERVAL: Duration = Duration::from_secs(15);

/// What a provider offers for deploys of one service.
#[async_trait]
pub trait DeployApi: Send + Sync {
    /// # Errors
    /// BadRemedy or Forbidden, for a person; an error that may pass is no reason.
    async fn preflight_deploy(&self, namespace: &str, plan: &ActionPlan) -> Result<(), ActError>;

    /// What is there before the call.
    ///
    /// # Errors
    /// See [`HostedError`].
    async fn before(&self, namespace: &str) -> Result<Before, HostedError>;

    /// Asks for the deploy of the plan; the deploy, where the answer names it, and the status of the answer.
    ///
    /// # Errors
    /// See [`HostedError`]; [`HostedError::not_done`] tells whether it had no effect for certain.
    async fn send(&self, namespace: &str, plan: &ActionPlan) -> Result<(Option<String>, u16), HostedError>;

    /// How far the deploy of the plan is, since it was sent.
    ///
    /// # Errors
    /// See [`HostedError`].
    async fn deploy_state(
        &self,
        namespace: &str,
        plan: &ActionPlan,
        sent: &ProviderProgress,
    ) -> Result<DeployState, HostedError>;

    /// Has new commits deployed on `trigger` (`commit`, `checksPass`), or on nothing (`off`). Idempotent. A provider without
    /// auto-deploy never reports that it is on.
    ///
    /// # Errors
    /// See [`HostedError`].
    async fn set_auto_deploy(&self, _namespace: &str, _trigger: &str) -> Result<(), HostedError> {
        Ok(())
    }

    /// The environment variables of the plan that differ. `begun`: those of which some are restored already.
    ///
    /// # Errors
    /// See [`EnvError`].
    async fn env_changes(
        &self,
        _namespace: &str,
        _plan: &ActionPlan,
        _begun: &[String],
    ) -> Result<EnvChanges, EnvError> {
        Ok(EnvChanges::new())
    }

    /// Sets one environment variable, or removes it. Idempotent.
    ///
    /// # Errors
    /// See [`HostedError`].
    async fn set_env_var(
        &self,
        _namespace: &str,
        _name: &str,
        _value: Option<&SecretString>,
    ) -> Result<(), HostedError> {
        Ok(())
    }
}

/// Carries one deploy out.
pub struct DeployExecutor<'a, A> {
    api: A,
    order: Order<'a>,
    procedure: Deploy,
    /// The values of the variables that differ, as last read. In no progress, effect or message.
    values: Mutex<BTreeMap<String, Option<SecretString>>>,
}

impl<'a, A: DeployApi> DeployExecutor<'a, A> {
    pub fn new(api: A, order: Order<'a>, procedure: Deploy) -> Self {
        Self { api, order, procedure, values: Mutex::default() }
    }

    async fn env_changes(&self, begun: &[String]) -> Result<Vec<EnvChange>, EnvError> {
        let changes = self.api.env_changes(self.order.namespace, self.order.plan, begun).await?;
        let names = changes.iter().map(|(name, value)| EnvChange { name: name.clone(), removed: value.is_none() });
        let names = names.collect();
        *self.values.lock() = changes.into_iter().collect();
        Ok(names)
    }

    async fn restore_env(&self, names: &[String]) -> Result<(), HostedError> {
        for name in names {
            let value = self.values.lock().get(name).cloned();
            if let Some(value) = value {
                self.api.set_env_var(self.order.namespace, name, value.as_ref()).await?;
            }
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
        self.api.preflight_deploy(self.order.namespace, self.order.plan).await
    }

    fn preflight_interval(&self) -> Duration {
        PREFLIGHT_INTERVAL
    }

    async fn observe(&self, progress: &ProviderProgress, moment: &Moment) -> DeploySeen {
        let Order { namespace, plan, .. } = self.order;
        if CallState::of(progress) != CallState::NotSent {
            return DeploySeen::After(self.api.deploy_state(namespace, plan, progress).await);
        }
        if moment.withdrawn.is_some() && progress.env_vars.is_empty() {
            return DeploySeen::NotRead;
        }
        match self.api.before(namespace).await {
            Ok(before) => DeploySeen::Before(Ok(before), self.env_changes(&progress.env_vars).await),
            Err(error) => DeploySeen::Before(Err(error), Ok(Vec::new())),
        }
    }

    async fn perform(&self, effect: &DeployEffect, _: &ProviderProgress, _: &Permit) -> DeployAnswer {
        let Order { namespace, plan, .. } = self.order;
        match effect {
            DeployEffect::RestoreEnv(names) => DeployAnswer::Changed(self.restore_env(names).await),
            DeployEffect::SwitchAutoDeployOff { .. } => {
                DeployAnswer::Changed(self.api.set_auto_deploy(namespace, "off").await)
            }
            DeployEffect::RestoreAutoDeploy { trigger, .. } => {
                DeployAnswer::Changed(self.api.set_auto_deploy(namespace, trigger).await)
            }
            DeployEffect::Send => DeployAnswer::Sent(self.api.send(namespace, plan).await),
            DeployEffect::Finish(_) | DeployEffect::Report => DeployAnswer::Changed(Ok(())),
        }
    }
}
