//! Carries restarts, scaling and recoveries out through Render's API.

use std::time::Duration;

use async_trait::async_trait;

use super::{Render, database::by_status};
use crate::{
    api::{ProviderProgress, RenderPostgres, RenderService},
    plan::guard::Permit,
    targets::{
        executor::{Effects, Moment, Order},
        kubernetes::ActError,
        providers::{
            call::CallState,
            common::{HostedError, Stands},
            deploy_executor::PREFLIGHT_INTERVAL,
            recover::{Recover, RecoverSeen, SendRecovery, Standing},
            restart::{Restart, RestartSeen, SendRestart},
            scale::{Scale, ScaleSeen, SendScale},
        },
    },
};

/// Restarts a service.
pub(super) struct RestartExecutor<'a> {
    pub render: &'a Render,
    pub service: &'a RenderService,
    pub order: Order<'a>,
    pub procedure: Restart,
}

/// Sets the number of instances of a service.
pub(super) struct ScaleExecutor<'a> {
    pub render: &'a Render,
    pub service: &'a RenderService,
    pub order: Order<'a>,
    pub procedure: Scale,
}

/// Restarts a Postgres, or fails it over.
pub(super) struct RecoverExecutor<'a> {
    pub render: &'a Render,
    pub postgres: &'a RenderPostgres,
    pub order: Order<'a>,
    pub procedure: Recover,
}

#[async_trait]
impl Effects for RestartExecutor<'_> {
    type Procedure = Restart;

    fn procedure(&self) -> Restart {
        self.procedure.clone()
    }

    async fn preflight(&self) -> Result<(), ActError> {
        self.render.preflight(self.order.namespace, self.service, self.order.plan.action).await
    }

    fn preflight_interval(&self) -> Duration {
        PREFLIGHT_INTERVAL
    }

    async fn observe(&self, progress: &ProviderProgress, moment: &Moment) -> RestartSeen {
        let namespace = self.order.namespace;
        if CallState::of(progress) != CallState::NotSent {
            let (instances, newest) = (&progress.instances_before, progress.newest_before.as_deref());
            return RestartSeen::After(self.render.restarted(namespace, self.service, instances, newest).await);
        }
        match moment.withdrawn {
            Some(_) => RestartSeen::NotRead,
            None => RestartSeen::Before(self.render.before(namespace, self.service).await),
        }
    }

    async fn perform(&self, _: &SendRestart, _: &ProviderProgress, _: &Permit) -> Result<u16, HostedError> {
        self.render.restart(self.order.namespace, self.service).await
    }
}

#[async_trait]
impl Effects for ScaleExecutor<'_> {
    type Procedure = Scale;

    fn procedure(&self) -> Scale {
        self.procedure.clone()
    }

    async fn preflight(&self) -> Result<(), ActError> {
        self.render.preflight(self.order.namespace, self.service, self.order.plan.action).await
    }

    fn preflight_interval(&self) -> Duration {
        PREFLIGHT_INTERVAL
    }

    async fn observe(&self, progress: &ProviderProgress, moment: &Moment) -> ScaleSeen {
        let namespace = self.order.namespace;
        if CallState::of(progress) != CallState::NotSent {
            return ScaleSeen::After(self.render.size(namespace, self.service).await);
        }
        if moment.withdrawn.is_some() {
            return ScaleSeen::NotRead;
        }
        let read = async {
            let before = self.render.before(namespace, self.service).await?;
            Ok((before, self.render.size(namespace, self.service).await?))
        };
        ScaleSeen::Before(read.await)
    }

    async fn perform(&self, _: &SendScale, _: &ProviderProgress, _: &Permit) -> Result<u16, HostedError> {
        self.render.scale(self.order.namespace, self.service, self.procedure.scaling.to).await
    }
}

#[async_trait]
impl Effects for RecoverExecutor<'_> {
    type Procedure = Recover;

    fn procedure(&self) -> Recover {
        self.procedure.clone()
    }

    async fn preflight(&self) -> Result<(), ActError> {
        self.render.preflight_recovery(self.order.namespace, self.postgres, self.order.plan.action).await
    }

    fn preflight_interval(&self) -> Duration {
        PREFLIGHT_INTERVAL
    }

    async fn observe(&self, progress: &ProviderProgress, moment: &Moment) -> RecoverSeen {
        let (namespace, before) = (self.order.namespace, progress.newest_before.as_deref());
        match CallState::of(progress) {
            CallState::Unclear { sent_at } | CallState::Accepted { sent_at } => {
                RecoverSeen::After(self.render.since(namespace, self.postgres, sent_at, before).await)
            }
            CallState::NotSent if moment.withdrawn.is_some() => RecoverSeen::NotRead,
            CallState::NotSent => {
                let before = self.render.before_recovery(namespace, self.postgres).await;
                RecoverSeen::Before(before.map(|before| {
                    let status = before.newest_restart.unwrap_or_default();
                    let stands: Stands = by_status(&status);
                    Standing { status, stands }
                }))
            }
        }
    }

    async fn perform(&self, _: &SendRecovery, _: &ProviderProgress, _: &Permit) -> Result<u16, HostedError> {
        self.render.recover(self.order.namespace, self.postgres, self.order.plan.action).await
    }
}
