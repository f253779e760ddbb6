//! Which other workloads use a ConfigMap or a Secret: a rollback would change the object for them too.

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    core::v1::{Pod, PodTemplateSpec},
};
use kube::{ResourceExt as _, api::ListParams};

use super::{
    ActError, Call, Kubernetes, Namespaced,
    config::{MAX_LISTED, Named},
    limited,
};
use crate::{
    api::{ConfigKind, WorkloadKind},
    targets::kubernetes::{config::references, template::ROLLOUT_HASH},
};

/// Other workloads named in a message.
const NAMED: usize = 3;

/// The Rollout that a pod belongs to, by the name of its ReplicaSet: Rollouts may be absent or forbidden to read.
fn rollout_of(pod: &Pod) -> Option<String> {
    let hash = pod.labels().get(ROLLOUT_HASH)?;
    let set =
        pod.owner_references().iter().find(|owner| owner.controller == Some(true) && owner.kind == "ReplicaSet")?;
    Some(set.name.strip_suffix(hash.as_str())?.strip_suffix('-')?.to_owned())
}

impl Kubernetes {
    /// Shared, when a workload that the policy does not name, or a pod without workload, uses the object.
    pub(super) async fn alone(
        &self,
        namespace: &str,
        (config, object): (ConfigKind, &str),
        named: &Named,
    ) -> Result<(), ActError> {
        let uses = |template: &PodTemplateSpec| {
            references(template).iter().any(|reference| reference.kind == config && &*reference.name == object)
        };
        let deployments = self.all::<Deployment>(namespace, "deployments").await?.into_iter();
        let deployments =
            deployments.filter_map(|one| Some((WorkloadKind::Deployment, one.name_any(), one.spec?.template)));
        let stateful = self.all::<StatefulSet>(namespace, "statefulsets").await?.into_iter();
        let stateful = stateful.filter_map(|one| Some((WorkloadKind::StatefulSet, one.name_any(), one.spec?.template)));
        let daemons = self.all::<DaemonSet>(namespace, "daemonsets").await?.into_iter();
        let daemons = daemons.filter_map(|one| Some((WorkloadKind::DaemonSet, one.name_any(), one.spec?.template)));
        let mut others: Vec<String> = deployments
            .chain(stateful)
            .chain(daemons)
            .filter(|(kind, name, template)| uses(template) && !named.contains(&(*kind, name.clone())))
            .map(|(kind, name, _)| format!("{kind}/{name}"))
            .collect();
        for pod in self.all::<Pod>(namespace, "pods").await? {
            const OURS: [&str; 3] = ["ReplicaSet", "StatefulSet", "DaemonSet"];
            let of_workload = pod.owner_references().iter().any(|owner| OURS.contains(&owner.kind.as_str()));
            let rollout = rollout_of(&pod).filter(|rollout| !named.contains(&(WorkloadKind::Rollout, rollout.clone())));
            let name = pod.name_any();
            if !uses(&PodTemplateSpec { metadata: None, spec: pod.spec }) {
                continue;
            }
            match rollout {
                Some(rollout) => others.push(format!("{}/{rollout}", WorkloadKind::Rollout)),
                None if !of_workload => others.push(format!("Pod/{name}")),
                None => {}
            }
        }
        if others.is_empty() {
            return Ok(());
        }
        others.dedup();
        let more = others.len().saturating_sub(NAMED);
        others.truncate(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(ActError::Shared(format!(
            "{config} {object} is also used by {}{more}, which the policy does not name and a rollback would change; add them as components, or restore the {config} manually",
            others.join(", ")
        )))
    }

    async fn all<K: Namespaced>(&self, namespace: &str, plural: &'static str) -> Result<Vec<K>, ActError> {
        let params = ListParams::default().limit(MAX_LISTED);
        let listed = limited(Call::list(plural), self.namespaced::<K>(namespace).list(&params)).await?;
        if listed.metadata.continue_.as_ref().is_some_and(|more| !more.is_empty()) {
            let message = format!(
                "namespace {namespace} has more than {MAX_LISTED} {plural}, too many to check whether others use its configuration; restore the configuration manually"
            );
            return Err(ActError::Shared(message));
        }
        Ok(listed.items)
    }
}
