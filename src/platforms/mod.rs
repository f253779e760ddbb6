//! One room a platform, each offering `observe` and `act`. They return data and outcomes; only `plan` decides.

pub mod kubernetes;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::Client;
use url::Url;

use crate::{
    analyze::observation::{Measured, Observation, TargetState, UnknownReason, Unmeasured},
    api::{ValidComponent, ValidTarget},
};
use kubernetes::{ClusterIndex, Kubernetes};

/// Everything that can be looked at and acted on. One for the whole operator.
pub struct Platforms {
    /// The actions on workloads.
    pub kubernetes: Kubernetes,
    index: Arc<ClusterIndex>,
}

impl Platforms {
    /// `prometheus_url` is asked by metrics that name none of their own.
    pub fn new(client: Client, index: Arc<ClusterIndex>, prometheus_url: Option<Url>) -> Self {
        let _ = prometheus_url;
        Self { kubernetes: Kubernetes::new(client), index }
    }

    /// One look at a component: its target and all its metrics, at the same time. Never fails: what could not be
    /// measured is `Unknown` with the reason.
    pub async fn observe(&self, namespace: &str, component: &ValidComponent, _release_watch: bool) -> Observation {
        let target = match &component.target {
            ValidTarget::Deployment { name } => match self.index.workload(namespace, name) {
                Measured::Known(workload) => Measured::Known(TargetState::Workload(workload)),
                Measured::Unknown(why) => Measured::Unknown(why),
            },
            ValidTarget::Http(_) => Measured::Unknown(Unmeasured::new(UnknownReason::Unsettled, "not built yet")),
        };
        Observation { at: Timestamp::now(), target, metrics: BTreeMap::new() }
    }
}
