//! Who else uses a ConfigMap or a Secret: going back would change it for them too.

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    core::v1::{Pod, PodTemplateSpec},
};
use kube::{Api, Resource, ResourceExt as _, api::ListParams};
use serde::de::DeserializeOwned;

use super::{
    ActError, Call, Kubernetes,
    config::{MAX_LISTED, Named},
    limited,
};
use crate::{
    api::{ConfigKind, WorkloadKind},
    targets::kubernetes::{config::references, template::ROLLOUT_HASH},
};

/// Others named in a message.
const NAMED: usize = 3;

/// The Rollout that a pod belongs to, by the name of its ReplicaSet: where there are none, or they are not ours to see,
/// nothing has to be asked for.
fn rollout_of(pod: &Pod) -> Option<String> {
    let hash = pod.labels().get(ROLLOUT_HASH)?;
    let set =
        pod.owner_references().iter().find(|owner| owner.controller == Some(true) && owner.kind == "ReplicaSet")?;
    Some(set.name.strip_suffix(hash.as_str())?.strip_suffix('-')?.to_owned())
}

impl Kubernetes {
    /// # Errors
    /// Shared, when a workload that the policy does not name, or a pod of none, uses the object.
    pub(super) async fn alone(
        &self,
        namespace: &str,
        (config, object): (ConfigKind, &str),
        named: &Named,
    ) -> Result<(), ActError> {
        let uses = |template: &PodTemplateSpec| {
            references(template).iter().any(|reference| reference.kind == config && &*reference.name == object)
        };
        let mut strangers = Vec::new();
        let mut look = |kind: WorkloadKind, found: Vec<(String, PodTemplateSpec)>| {
            for (name, template) in found {
                if uses(&template) && !named.contains(&(kind, name.clone())) {
                    strangers.push(format!("{kind}/{name}"));
                }
            }
        };
        let of = |deployment: Deployment| Some((deployment.name_any(), deployment.spec?.template));
        look(WorkloadKind::Deployment, self.all(namespace, "deployments").await?.into_iter().filter_map(of).collect());
        let of = |set: StatefulSet| Some((set.name_any(), set.spec?.template));
        look(
            WorkloadKind::StatefulSet,
            self.all(namespace, "statefulsets").await?.into_iter().filter_map(of).collect(),
        );
        let of = |set: DaemonSet| Some((set.name_any(), set.spec?.template));
        look(WorkloadKind::DaemonSet, self.all(namespace, "daemonsets").await?.into_iter().filter_map(of).collect());
        for pod in self.all::<Pod>(namespace, "pods").await? {
            const OURS: [&str; 3] = ["ReplicaSet", "StatefulSet", "DaemonSet"];
            let of_workload = pod.owner_references().iter().any(|owner| OURS.contains(&owner.kind.as_str()));
            let rollout = rollout_of(&pod).filter(|rollout| !named.contains(&(WorkloadKind::Rollout, rollout.clone())));
            let name = pod.name_any();
            let template = PodTemplateSpec { metadata: None, spec: pod.spec };
            if !uses(&template) {
                continue;
            }
            match rollout {
                Some(rollout) => strangers.push(format!("{}/{rollout}", WorkloadKind::Rollout)),
                None if !of_workload => strangers.push(format!("Pod/{name}")),
                None => {}
            }
        }
        if strangers.is_empty() {
            return Ok(());
        }
        strangers.dedup();
        let more = strangers.len().saturating_sub(NAMED);
        strangers.truncate(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(ActError::Shared(format!(
            "{config} {object} is also used by {}{more}, which the policy does not name: going back would change it for them too; add them as components, or put its content back by hand",
            strangers.join(", ")
        )))
    }

    async fn all<K>(&self, namespace: &str, plural: &'static str) -> Result<Vec<K>, ActError>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let listed = limited(Call::list(plural), api.list(&ListParams::default().limit(MAX_LISTED))).await?;
        if listed.metadata.continue_.as_ref().is_some_and(|more| !more.is_empty()) {
            let message = format!(
                "more than {MAX_LISTED} {plural} are in {namespace}: who else uses its configuration is not looked for; put their content back by hand"
            );
            return Err(ActError::Shared(message));
        }
        Ok(listed.items)
    }
}
