//! Pods of a list, evicted by the rules of their PodDisruptionBudgets. <https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/>
//!
//! A pod of the list that does not exist any more was replaced. `cleanup` decides which pod is evicted when.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{core::v1::Pod, policy::v1::Eviction},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
};
use kube::{ResourceExt as _, api::PostParams};
use serde_json::Value;
use tokio::time::timeout;

use super::{ActError, CALL_LIMIT, Call, OnWorkload, live::Live, stuck::is_ready};
use crate::api::{LeakingPod, TemplateRef, WorkloadKind};

/// The workload and the pods of a list, before an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodsSeen {
    /// Another template runs than the assessed one.
    pub superseded: Option<ActError>,
    /// What the next eviction waits for: a pod that is terminating, missing or not ready.
    pub missing: Option<String>,
    /// The pods of the list that are not terminating, in its order, by their uids.
    pub left: Vec<String>,
}

/// The answer to an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evicted {
    Yes,
    /// The pod does not exist any more, or another pod has its name.
    Gone,
    /// A PodDisruptionBudget refuses the eviction; its message.
    No(String),
}

impl OnWorkload<'_> {
    /// The ready pods of the workload. Superseded when another template than `from` runs.
    pub async fn ready_pods(&self, from: Option<&TemplateRef>) -> Result<Vec<Pod>, ActError> {
        let live = self.read().await?;
        live.must_be(from)?;
        let pods = self.pods_of(&live).await?;
        Ok(pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod)).collect())
    }

    /// Which pods of a list exist, and which pod the workload misses. Superseded is a part of the result.
    pub async fn pods_left(&self, from: Option<&TemplateRef>, list: &[LeakingPod]) -> Result<PodsSeen, ActError> {
        let live = self.read().await?;
        let superseded = match live.must_be(from) {
            Ok(()) => None,
            Err(error @ ActError::Superseded { .. }) => Some(error),
            Err(error) => return Err(error),
        };
        let (terminating, pods): (Vec<Pod>, Vec<Pod>) =
            self.pods_of(&live).await?.into_iter().partition(|pod| pod.metadata.deletion_timestamp.is_some());
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        let missing = match terminating.first() {
            Some(pod) => Some(format!("pod {} to be gone", pod.name_any())),
            None if ready < live.desired => Some(format!("{} pods to be ready, of which {ready} are", live.desired)),
            None => None,
        };
        let uids: BTreeSet<String> = pods.iter().filter_map(Pod::uid).collect();
        let left = list.iter().filter(|pod| uids.contains(&pod.uid)).map(|pod| pod.uid.clone()).collect();
        Ok(PodsSeen { superseded, missing, left })
    }

    /// Evicts the pod with this uid. At most 5 s.
    pub async fn evict_pod(&self, pod: &LeakingPod) -> Result<Evicted, ActError> {
        self.evict(&pod.name, &pod.uid, false).await
    }

    /// Whether a pod of the workload could be evicted now; evicts none. Budget when a PodDisruptionBudget refuses.
    pub async fn preflight_eviction(&self, from: Option<&TemplateRef>) -> Result<(), ActError> {
        let pods = self.ready_pods(from).await?;
        let Some(pod) = pods.first() else { return Ok(()) };
        match self.evict(&pod.name_any(), &pod.uid().unwrap_or_default(), true).await? {
            Evicted::Yes | Evicted::Gone => Ok(()),
            Evicted::No(budget) => Err(ActError::Budget(budget)),
        }
    }

    /// The pods of the workload; of a Deployment or a Rollout the pods of its ReplicaSets.
    pub(super) async fn pods_of(&self, live: &Live) -> Result<Vec<Pod>, ActError> {
        let mut owners: Vec<String> = live.metadata.uid.clone().into_iter().collect();
        if matches!(self.workload.kind, WorkloadKind::Deployment | WorkloadKind::Rollout) {
            owners = self.templates(live).await?.iter().filter_map(|set| set.uid()).collect();
        }
        let is_ours = |pod: &Pod| {
            let mut of = pod.owner_references().iter();
            of.any(|owner| owner.controller == Some(true) && owners.contains(&owner.uid))
        };
        let over = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        let pods = self.selected_pods(live).await?;
        Ok(pods.into_iter().filter(|pod| is_ours(pod) && !over(pod)).collect())
    }

    pub(super) async fn evict(&self, pod: &str, uid: &str, dry_run: bool) -> Result<Evicted, ActError> {
        // Not by kube's own `evict`: it names the field delete_options, which the API server does not know.
        let eviction = Eviction {
            metadata: ObjectMeta { name: Some(pod.to_owned()), ..ObjectMeta::default() },
            delete_options: Some(DeleteOptions {
                preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
                ..DeleteOptions::default()
            }),
        };
        let params = PostParams { dry_run, ..PostParams::default() };
        let pods = self.namespaced::<Pod>(self.workload.namespace);
        let request = pods.create_subresource::<Eviction, Value>("eviction", pod, &params, &eviction);
        match timeout(CALL_LIMIT, request).await {
            Err(_) => Err(Call::EVICT_POD.timeout(CALL_LIMIT)),
            Ok(Ok(_)) => Ok(Evicted::Yes),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(Evicted::Gone),
            Ok(Err(kube::Error::Api(status))) if status.code == 429 && is_of_a_budget(&status) => {
                Ok(Evicted::No(budget_words(&status)))
            }
            // Two budgets select the pod (pkg/registry/core/pod/storage/eviction.go): it cannot be evicted.
            Ok(Err(kube::Error::Api(status))) if status.message.contains("more than one PodDisruptionBudget") => {
                Ok(Evicted::No(status.message.clone()))
            }
            Ok(Err(error)) => Err(Call::EVICT_POD.failed(&error)),
        }
    }
}

/// A busy API server responds with 429 as well.
fn is_of_a_budget(status: &kube::core::Status) -> bool {
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == "DisruptionBudget")
}

/// "The disruption budget NAME needs 3 healthy pods and has 3 currently".
fn budget_words(status: &kube::core::Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let messages: Vec<&str> = causes.map(|cause| &*cause.message).filter(|message| !message.is_empty()).collect();
    if messages.is_empty() { status.message.clone() } else { messages.join("; ") }
}
