//! Pods replaced one at a time, by eviction: their PodDisruptionBudgets are respected, and none is evicted while another
//! one is missing. <https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/>
//!
//! Nothing is remembered: a pod of the plan that is not there any more was recycled, by whomever. The next one waits until
//! as many pods are ready as the workload wants.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{core::v1::Pod, policy::v1::Eviction},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
};
use kube::{ResourceExt as _, api::PostParams};
use serde_json::Value;
use tokio::time::timeout;

use super::{ActError, CALL_LIMIT, Call, Kubernetes, WorkloadRef, limited, live::Live, stuck::is_ready};
use crate::api::{LeakingPod, TemplateRef, WorkloadKind};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recycled {
    /// Every pod of the plan is gone and replaced.
    All,
    /// This pod was evicted; so many of the plan are left.
    One { pod: String, left: usize },
    /// Not yet; what is waited for.
    Waits(Waits),
}

/// What the next eviction waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits {
    /// A pod is not there or not ready; in words.
    Pods(String),
    /// A PodDisruptionBudget says no; in its words.
    Budget(String),
}

impl Kubernetes {
    /// The pods of the workload, ready ones only, which are worth recycling.
    ///
    /// # Errors
    /// See [`ActError`]; Superseded when another template than `from` runs by now.
    pub async fn ready_pods(
        &self,
        workload: WorkloadRef<'_>,
        from: Option<&TemplateRef>,
    ) -> Result<Vec<Pod>, ActError> {
        let live = self.judged(workload, from).await?;
        let pods = self.pods_of(workload, &live).await?;
        Ok(pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod)).collect())
    }

    /// Evicts the first pod of the plan that is still there, if no other one is missing. At most 15 s.
    ///
    /// # Errors
    /// As [`Self::ready_pods`].
    pub async fn recycle_one(
        &self,
        workload: WorkloadRef<'_>,
        from: Option<&TemplateRef>,
        plan: &[LeakingPod],
    ) -> Result<Recycled, ActError> {
        let live = self.judged(workload, from).await?;
        let pods = self.pods_of(workload, &live).await?;
        if let Some(going) = pods.iter().find(|pod| pod.metadata.deletion_timestamp.is_some()) {
            return Ok(Recycled::Waits(Waits::Pods(format!("pod {} to be gone", going.name_any()))));
        }
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        if ready < live.desired {
            let message = format!("{} pods to be ready, of which {ready} are", live.desired);
            return Ok(Recycled::Waits(Waits::Pods(message)));
        }
        let mut left = still_there(plan, &pods);
        let Some(next) = left.next() else { return Ok(Recycled::All) };
        let left = left.count();
        Ok(match self.evict(workload, &next.name, &next.uid, false).await? {
            Evicted::Yes => Recycled::One { pod: next.name.clone(), left },
            Evicted::Gone => Recycled::Waits(Waits::Pods(format!("pod {} to be gone", next.name))),
            Evicted::No(budget) => Recycled::Waits(Waits::Budget(budget)),
        })
    }

    /// How many pods of the plan are still there.
    ///
    /// # Errors
    /// See [`ActError`].
    pub async fn left_of(&self, workload: WorkloadRef<'_>, plan: &[LeakingPod]) -> Result<usize, ActError> {
        let live = self.read(workload).await?;
        let mut pods = self.pods_of(workload, &live).await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(still_there(plan, &pods).count())
    }

    /// Whether a pod of the workload could be evicted now: asks, and evicts none.
    ///
    /// # Errors
    /// As [`Self::ready_pods`]; Budget when a PodDisruptionBudget says no.
    pub async fn preflight_eviction(
        &self,
        workload: WorkloadRef<'_>,
        from: Option<&TemplateRef>,
    ) -> Result<(), ActError> {
        let pods = self.ready_pods(workload, from).await?;
        let Some(pod) = pods.first() else { return Ok(()) };
        match self.evict(workload, &pod.name_any(), &pod.uid().unwrap_or_default(), true).await? {
            Evicted::Yes | Evicted::Gone => Ok(()),
            Evicted::No(budget) => Err(ActError::Budget(budget)),
        }
    }

    async fn judged(&self, workload: WorkloadRef<'_>, from: Option<&TemplateRef>) -> Result<Live, ActError> {
        let live = self.read(workload).await?;
        from.map_or(Ok(()), |from| live.must_be(from))?;
        Ok(live)
    }

    /// Of a Deployment or a Rollout: those of its ReplicaSets.
    pub(super) async fn pods_of(&self, workload: WorkloadRef<'_>, live: &Live) -> Result<Vec<Pod>, ActError> {
        let mut owners: Vec<String> = live.metadata.uid.clone().into_iter().collect();
        if matches!(workload.kind, WorkloadKind::Deployment | WorkloadKind::Rollout) {
            owners = self.held(workload, live, "replicasets").await?.iter().filter_map(|set| set.uid()).collect();
        }
        let is_ours = |pod: &Pod| {
            let mut of = pod.owner_references().iter();
            of.any(|owner| owner.controller == Some(true) && owners.contains(&owner.uid))
        };
        let over = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        let pods = limited(Call::list("pods"), self.pods(workload).list(&live.selected(workload)?)).await?;
        Ok(pods.items.into_iter().filter(|pod| is_ours(pod) && !over(pod)).collect())
    }

    pub(super) async fn evict(
        &self,
        workload: WorkloadRef<'_>,
        pod: &str,
        uid: &str,
        only_ask: bool,
    ) -> Result<Evicted, ActError> {
        // Not by kube's own `evict`: it names the field delete_options, which the API server does not know.
        let eviction = Eviction {
            metadata: ObjectMeta { name: Some(pod.to_owned()), ..ObjectMeta::default() },
            delete_options: Some(DeleteOptions {
                preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
                ..DeleteOptions::default()
            }),
        };
        let params = PostParams { dry_run: only_ask, ..PostParams::default() };
        let pods = self.pods(workload);
        match timeout(CALL_LIMIT, pods.create_subresource::<Eviction, Value>("eviction", pod, &params, &eviction)).await
        {
            Err(_) => Err(Call::EVICT_POD.timeout(CALL_LIMIT)),
            Ok(Ok(_)) => Ok(Evicted::Yes),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(Evicted::Gone),
            Ok(Err(kube::Error::Api(status))) if status.code == 429 && is_of_a_budget(&status) => {
                Ok(Evicted::No(budget_words(&status)))
            }
            // Two budgets select the pod (pkg/registry/core/pod/storage/eviction.go): nobody can evict it.
            Ok(Err(kube::Error::Api(status))) if status.message.contains("more than one PodDisruptionBudget") => {
                Ok(Evicted::No(status.message.clone()))
            }
            Ok(Err(error)) => Err(Call::EVICT_POD.failed(&error)),
        }
    }
}

fn still_there<'a>(plan: &'a [LeakingPod], pods: &[Pod]) -> impl Iterator<Item = &'a LeakingPod> + use<'a> {
    let there: BTreeSet<String> = pods.iter().filter_map(Pod::uid).collect();
    plan.iter().filter(move |pod| there.contains(&pod.uid))
}

pub(super) enum Evicted {
    Yes,
    /// It is gone, or another pod has its name.
    Gone,
    /// A PodDisruptionBudget's no.
    No(String),
}

/// The API server itself answers 429 as well, when it is busy.
fn is_of_a_budget(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "DisruptionBudget")
}

/// "The disruption budget NAME needs 3 healthy pods and has 3 currently".
fn budget_words(status: &kube::core::Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let said: Vec<&str> = causes.filter(|cause| !cause.message.is_empty()).map(|cause| &*cause.message).collect();
    if said.is_empty() { status.message.clone() } else { said.join("; ") }
}
