//! Carries out a procedure of one call through the API of any provider.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    call::{CallSeen, OneCall, SendCall},
    common::{HostedError, PREFLIGHT_INTERVAL},
};
use crate::{
    api::{ActionPlan, ProviderProgress},
    plan::guard::Permit,
    targets::{
        executor::{Effects, Moment, Order},
        kubernetes::ActError,
    },
};

/// The call of a procedure, in a provider's API.
#[async_trait]
pub trait CallApi<P: OneCall>: Send + Sync {
    /// # Errors
    /// BadRemedy, Forbidden, Autoscaled or OwnerBusy, for a person. An error that may pass refuses nothing.
    async fn preflight(&self, namespace: &str, plan: &ActionPlan) -> Result<(), ActError>;

    async fn before(&self, namespace: &str) -> Result<P::Before, HostedError>;

    async fn after(&self, namespace: &str, sent: &ProviderProgress) -> Result<P::After, HostedError>;

    /// Sends the call; the status of the response.
    ///
    /// # Errors
    /// [`HostedError::not_done`] reports whether the call certainly had no effect.
    async fn send(&self, namespace: &str, procedure: &P) -> Result<u16, HostedError>;
}

pub struct CallExecutor<'a, A, P> {
    pub api: A,
    pub order: Order<'a>,
    pub procedure: P,
}

#[async_trait]
impl<P: OneCall, A: CallApi<P>> Effects for CallExecutor<'_, A, P> {
    type Procedure = P;

    fn procedure(&self) -> P {
        self.procedure.clone()
    }

    async fn preflight(&self) -> Result<(), ActError> {
        self.api.preflight(self.order.namespace, self.order.plan).await
    }

    fn preflight_interval(&self) -> Duration {
        PREFLIGHT_INTERVAL
    }

    async fn observe(&self, progress: &ProviderProgress, moment: &Moment) -> CallSeen<P::Before, P::After> {
        let namespace = self.order.namespace;
        CallSeen::read(progress, moment, self.api.before(namespace), self.api.after(namespace, progress)).await
    }

    async fn perform(&self, _: &SendCall, _: &ProviderProgress, _: &Permit) -> Result<u16, HostedError> {
        self.api.send(self.order.namespace, &self.procedure).await
    }
}
