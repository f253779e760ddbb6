//! What stands in the way of a StatefulSet's new template.
//!
//! With OrderedReady, the default, its controller replaces no pod while one is not ready, not even the broken one itself:
//! a good template alone heals nothing (<https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback>).
//! So after the write, pods of the template that was judged are deleted while they are not ready: one at a time, each only
//! as it was seen (uid and resourceVersion), and only when the controller has seen the write, or it would make the same
//! pod again. The highest ordinal goes first: where the strategy says nothing of a partition, the controller makes pods
//! anew with the template of before up to the number that still has it (stateful_set_utils.go,
//! `newVersionedStatefulSetPod`). One that comes back with the bad template all the same is given the time of a call to
//! get ready, so that nothing is deleted in a loop. A pod that is ready, of another template or of another owner is never touched. Nothing is remembered: a
//! second call finds what is left.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Preconditions},
};
use tokio::time::{sleep, timeout};

use super::{
    ActError, CALL_LIMIT, Call, Kubernetes, WorkloadRef, limited,
    live::{Live, digest_of},
};
use crate::{
    api::{TemplateRef, WorkloadKind},
    targets::kubernetes::template::REVISION_HASH,
};

/// For the controller to see the write, and all pods in the way to be gone. A call that takes longer is made again.
pub(super) const WAY_LIMIT: Duration = Duration::from_secs(15);
/// Between two looks.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// One look at what is in the way.
enum Way {
    /// Nothing is, or it is not ours to clear.
    Free,
    /// Not yet; what is waited for.
    Wait(String),
}

impl Kubernetes {
    /// Deletes pods of `from` that keep the template with the digest `wanted` from being rolled out.
    pub(super) async fn make_way(
        &self,
        workload: WorkloadRef<'_>,
        from: &TemplateRef,
        wanted: &str,
    ) -> Result<(), ActError> {
        if workload.kind != WorkloadKind::StatefulSet {
            return Ok(());
        }
        let mut waits_for = "the state of its pods".to_owned();
        let mut deleted = BTreeSet::new();
        let all = async {
            loop {
                match self.clear_one(workload, from, wanted, &mut deleted).await? {
                    Way::Free => return Ok(()),
                    Way::Wait(what) => waits_for = what,
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        let ended = timeout(WAY_LIMIT, all).await;
        ended.unwrap_or_else(|_| Err(ActError::Blocked(format!("{workload} waits for {waits_for}"))))
    }

    /// `deleted`: the names of the pods that were, in this call.
    async fn clear_one(
        &self,
        workload: WorkloadRef<'_>,
        from: &TemplateRef,
        wanted: &str,
        deleted: &mut BTreeSet<String>,
    ) -> Result<Way, ActError> {
        let live = self.read(workload).await?;
        // Another template by now is somebody else's release.
        if !live.ordered || live.digest != wanted {
            return Ok(Way::Free);
        }
        if !live.observed {
            return Ok(Way::Wait("its controller to see the template".to_owned()));
        }
        let mut stuck = self.stuck_pods(workload, &live, from).await?;
        if let Some(going) = stuck.iter().find(|pod| pod.metadata.deletion_timestamp.is_some()) {
            return Ok(Way::Wait(format!("pod {} to be gone", going.name_any())));
        }
        stuck.sort_by_key(|pod| Reverse(ordinal(pod)));
        let Some(pod) = stuck.first() else { return Ok(Way::Free) };
        let name = pod.name_any();
        if deleted.contains(&name) {
            return Ok(Way::Wait(format!("pod {name}, which came back with the template of before, to be ready")));
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: pod.resource_version() }),
            ..DeleteParams::default()
        };
        match timeout(CALL_LIMIT, self.pods(workload).delete(&name, &params)).await {
            Err(_) => return Err(Call::DELETE_POD.timeout(CALL_LIMIT)),
            Ok(Ok(_)) => {
                tracing::info!(
                    namespace = workload.namespace,
                    workload = workload.name,
                    pod = name,
                    "deleted a pod that was not ready: it kept the StatefulSet's template from being rolled out"
                );
                deleted.insert(name.clone());
            }
            // It has changed, or is gone: looked at again.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {}
            Ok(Err(error)) => {
                return Err(match Call::DELETE_POD.failed(&error) {
                    ActError::Forbidden { verb, resource, message } => {
                        let message = format!(
                            "{message}; {workload} has its template, and pod {name} keeps it from being rolled out: delete that pod"
                        );
                        ActError::Forbidden { verb, resource, message }
                    }
                    other => other,
                });
            }
        }
        Ok(Way::Wait(format!("pod {name} to be gone")))
    }

    /// Those of the judged template that are not ready. After a restart that template has several revisions; pods of the
    /// newest are what is wanted.
    async fn stuck_pods(
        &self,
        workload: WorkloadRef<'_>,
        live: &Live,
        from: &TemplateRef,
    ) -> Result<Vec<Pod>, ActError> {
        let mut bad = vec![from.hash.clone()];
        for past in self.history(workload, live).await? {
            if digest_of(&past.template)? == from.digest {
                bad.push(past.hash);
            }
        }
        bad.retain(|hash| Some(hash) != live.update_revision.as_ref());
        let pods = limited(Call::list("pods"), self.pods(workload).list(&live.selected(workload)?)).await?;
        let is_stuck = |pod: &Pod| {
            let hash = pod.labels().get(REVISION_HASH);
            live.controls(&pod.metadata) && hash.is_some_and(|hash| bad.contains(hash)) && !is_ready(pod)
        };
        Ok(pods.items.into_iter().filter(is_stuck).collect())
    }

    pub(super) fn pods(&self, workload: WorkloadRef<'_>) -> Api<Pod> {
        Api::namespaced(self.client.clone(), workload.namespace)
    }
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn ordinal(pod: &Pod) -> Option<u64> {
    pod.metadata.name.as_ref()?.rsplit('-').next()?.parse().ok()
}
