//! A service of Render as a target.

use async_trait::async_trait;
use jiff::SignedDuration;

use super::{Render, act::autoscaled};
use crate::{
    analyze::{observation::TargetState, tracker::GoodState},
    api::{CircuitStatus, Intent, RENDER_KIND, RenderService},
    targets::{
        Observed, Target,
        executor::{Executor, Order},
        kubernetes::{ActError, SnapshotOf},
        providers::{
            call::{Caller, ProviderWords},
            call_executor::CallExecutor,
            deploy::{Deploy, DeployWords, Desired},
            deploy_executor::DeployExecutor,
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
        self.render.api.client.circuit(&self.service.service_id)
    }

    fn restore_circuit(&self, shown: &CircuitStatus) {
        self.render.api.restore_circuit(&self.service.service_id, &self.service.access, shown);
    }

    async fn snapshot(&self, namespace: &str, of: SnapshotOf, good: &GoodState) -> Option<Result<(), ActError>> {
        Some(self.keep(namespace, of, good).await)
    }
}
