//! Pods that block the rollout of a StatefulSet's new template.
//!
//! With OrderedReady, the default, its controller replaces no pod while one is not ready, not even the broken pod itself:
//! a good template alone heals nothing (<https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback>).
//! So after the write, pods of the bad template are deleted while they are not ready: one at a time, each with uid and
//! resourceVersion as preconditions, and only after the controller has observed the write, or it would recreate the same
//! pod. The highest ordinal comes first: without a partition, the controller creates pods from the previous template up to
//! the number that still has that template (stateful_set_utils.go, `newVersionedStatefulSetPod`). A pod that comes back
//! with the bad template has until the end of the call to get ready, so that nothing is deleted in a loop. A pod that is
//! ready, has another template or another owner is never touched. Nothing is stored: a second call finds what is left.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Preconditions},
};
use tokio::time::{sleep, timeout};

use super::{
    ActError, Call, OnWorkload, limited,
    live::{Live, digest_of},
};
use crate::{
    api::{TemplateRef, WorkloadKind},
    targets::kubernetes::template::REVISION_HASH,
};

/// For the controller to observe the write and for all blocking pods to be gone. After this time the call is repeated.
pub(super) const WAY_LIMIT: Duration = Duration::from_secs(15);
/// Between two checks.
pub(super) const RECHECK: Duration = Duration::from_millis(200);

impl OnWorkload<'_> {
    /// Deletes pods of `from` that block the rollout of the template with the digest `wanted`.
    pub(super) async fn make_way(&self, from: &TemplateRef, wanted: &str) -> Result<(), ActError> {
        let workload = self.workload;
        if workload.kind != WorkloadKind::StatefulSet {
            return Ok(());
        }
        let mut waits_for = "the state of its pods".to_owned();
        let mut deleted = BTreeSet::new();
        let all = async {
            while let Some(what) = self.clear_one(from, wanted, &mut deleted).await? {
                waits_for = what;
                sleep(RECHECK).await;
            }
            Ok(())
        };
        let ended = timeout(WAY_LIMIT, all).await;
        ended.unwrap_or_else(|_| Err(ActError::Blocked(format!("{workload} waits for {waits_for}"))))
    }

    /// Deletes one pod. Returns what the rollout waits for; none when no pod blocks the rollout, or another template runs.
    /// `deleted`: the names of the pods that this call deleted.
    async fn clear_one(
        &self,
        from: &TemplateRef,
        wanted: &str,
        deleted: &mut BTreeSet<String>,
    ) -> Result<Option<String>, ActError> {
        let workload = self.workload;
        let live = self.read().await?;
        // Another template is a newer release.
        if !live.ordered || live.digest != wanted {
            return Ok(None);
        }
        if !live.observed {
            return Ok(Some("its controller to observe the template".to_owned()));
        }
        let mut stuck = self.stuck_pods(&live, from).await?;
        if let Some(going) = stuck.iter().find(|pod| pod.metadata.deletion_timestamp.is_some()) {
            return Ok(Some(format!("pod {} to be gone", going.name_any())));
        }
        stuck.sort_by_key(|pod| Reverse(ordinal(pod)));
        let Some(pod) = stuck.first() else { return Ok(None) };
        let name = pod.name_any();
        if deleted.contains(&name) {
            return Ok(Some(format!("pod {name}, which came back with the previous template, to be ready")));
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: pod.resource_version() }),
            ..DeleteParams::default()
        };
        let pods = self.namespaced::<Pod>(workload.namespace);
        match limited(Call::DELETE_POD, pods.delete(&name, &params)).await {
            Ok(_) => {
                tracing::info!(
                    namespace = workload.namespace,
                    workload = workload.name,
                    pod = name,
                    "deleted a pod that was not ready: it blocked the rollout of the StatefulSet's template"
                );
                deleted.insert(name.clone());
            }
            // Changed or gone: checked again.
            Err(ActError::NotFound(_) | ActError::Conflict { .. }) => {}
            Err(ActError::Forbidden { message, .. }) => {
                return Err(Call::DELETE_POD.forbidden(format!(
                    "{message}; {workload} has its template, and pod {name} blocks the rollout: delete that pod"
                )));
            }
            Err(error) => return Err(error),
        }
        Ok(Some(format!("pod {name} to be gone")))
    }

    /// The pods of the bad template that are not ready. After a restart that template has several revisions; pods of the
    /// newest revision are as desired.
    async fn stuck_pods(&self, live: &Live, from: &TemplateRef) -> Result<Vec<Pod>, ActError> {
        let mut bad = vec![from.hash.clone()];
        for past in self.history(live).await? {
            if digest_of(&past.template)? == from.digest {
                bad.push(past.hash);
            }
        }
        bad.retain(|hash| Some(hash) != live.update_revision.as_ref());
        let pods = self.selected_pods(live).await?;
        let is_stuck = |pod: &Pod| {
            let hash = pod.labels().get(REVISION_HASH);
            live.controls(&pod.metadata) && hash.is_some_and(|hash| bad.contains(hash)) && !is_ready(pod)
        };
        Ok(pods.into_iter().filter(is_stuck).collect())
    }

    pub(super) async fn selected_pods(&self, live: &Live) -> Result<Vec<Pod>, ActError> {
        let (pods, selected) = (self.namespaced::<Pod>(self.workload.namespace), live.selected(self.workload)?);
        Ok(limited(Call::list("pods"), pods.list(&selected)).await?.items)
    }
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn ordinal(pod: &Pod) -> Option<u64> {
    pod.metadata.name.as_ref()?.rsplit('-').next()?.parse().ok()
}
