//! The configuration of a good state is kept, and put back.
//!
//! A copy of a state is a ControllerRevision of ours: immutable by the API server's own rules, in the workload's
//! namespace, and gone with its policy. Putting back writes the changed keys of the changed objects and nothing else, each
//! object as it was read (resourceVersion), after every object was found to be what was judged; then the pods are rolled
//! anew. What was put back already is left, so a crash between any two writes and a second call are harmless.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet, Deployment, StatefulSet},
        core::v1::{ConfigMap, Pod, PodTemplateSpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        runtime::RawExtension,
    },
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{ActError, Call, Kubernetes, Outcome, WorkloadRef, limited};
use crate::{
    analyze::tracker::GoodState,
    api::{ConfigChange, ConfigRollback, MISSING, REMEDIATION_MANAGER, TemplateRef, WorkloadKind},
    platforms::kubernetes::config::{config_digest, references},
};

/// A copy that is larger is not kept, in bytes: etcd takes 1.5 MiB with all that is around it.
const MAX_COPY: usize = 1_000_000;
/// Copies that are made at the same time: a thousand components are good in the same moment when an operator is new, and
/// what a copy takes while it is made is not all given back.
pub(super) const COPIES_AT_ONCE: usize = 4;
/// Objects read of one kind when it is looked for who else uses a ConfigMap.
const MAX_LISTED: u32 = 500;
/// Others named in a message.
const NAMED: usize = 3;

/// Which ControllerRevision a copy becomes.
#[derive(Debug, Clone)]
pub struct CopyOf {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Its policy.
    pub owner: OwnerReference,
}

/// The workloads that the policy names: who else uses a ConfigMap is a stranger.
pub type Named = BTreeSet<(WorkloadKind, String)>;

impl Kubernetes {
    /// Keeps a copy of this state, if it is still the one that runs.
    ///
    /// # Errors
    /// Superseded when something changed meanwhile, Rejected when the copy would be too large; else see [`ActError`].
    pub async fn keep(&self, workload: WorkloadRef<'_>, copy: CopyOf, good: &GoodState) -> Result<(), ActError> {
        let _turn = self.copying.acquire().await;
        let live = self.read_any(workload).await?;
        if live.digest != good.template {
            return Err(changed("template", &good.template, &live.digest));
        }
        let mut maps = Map::new();
        for object in good.objects.iter().filter(|object| object.digest != MISSING) {
            let map = self.config_map(workload.namespace, &object.name).await?;
            let digest = digest_of(map.as_ref());
            if digest != object.digest {
                return Err(changed(&object.name, &object.digest, &digest));
            }
            let map = map.unwrap_or_default();
            maps.insert(object.name.clone(), json!({"data": map.data, "binaryData": map.binary_data}));
        }
        let data = json!({
            "template": live.template, "strategy": live.strategy, "replicas": live.replicas, "configMaps": maps,
        });
        let size = data.to_string().len();
        if size > MAX_COPY {
            return Err(ActError::Rejected(format!(
                "the template and its ConfigMaps are {size} bytes, more than the {MAX_COPY} that are kept"
            )));
        }
        let revision = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(copy.name),
                labels: Some(copy.labels),
                owner_references: Some(vec![copy.owner]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data)),
            revision: 1,
        };
        let params = PostParams { field_manager: Some(REMEDIATION_MANAGER.to_owned()), ..PostParams::default() };
        match limited(Call::KEEP, self.copies(workload.namespace).create(&params, &revision)).await {
            // The name says what is in it.
            Ok(_) | Err(ActError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes the copies with these labels that are not among `keep`.
    ///
    /// # Errors
    /// See [`ActError`].
    pub async fn forget_copies(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        keep: &[String],
    ) -> Result<(), ActError> {
        let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let params = ListParams::default().labels(&selector.join(",")).limit(MAX_LISTED);
        let copies = self.copies(namespace);
        for old in limited(Call::list("controllerrevisions"), copies.list(&params)).await?.items {
            if keep.contains(&old.name_any()) {
                continue;
            }
            match limited(Call::FORGET, copies.delete(&old.name_any(), &DeleteParams::default())).await {
                Ok(_) | Err(ActError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts the kept content back and rolls all pods anew.
    ///
    /// # Errors
    /// See [`ActError`]: Immutable, Shared, GitOpsOwned and Superseded before anything was written; after others some of
    /// the objects may be back.
    pub async fn rollback_config(
        &self,
        workload: WorkloadRef<'_>,
        from: Option<&TemplateRef>,
        to: &ConfigRollback,
        named: &Named,
        at: Timestamp,
    ) -> Result<Outcome, ActError> {
        let writes = self.config_writes(workload, to, named).await?;
        self.write_all(workload, writes).await?;
        self.restart(workload, from, at).await
    }

    pub(super) async fn write_all(&self, workload: WorkloadRef<'_>, writes: Vec<Write>) -> Result<(), ActError> {
        for write in writes {
            let call = write.call();
            if let Write::Patch { name, patch } = &write {
                let keys: Vec<&String> = ["data", "binaryData"]
                    .into_iter()
                    .flat_map(|field| patch[field].as_object().into_iter().flat_map(Map::keys))
                    .collect();
                let namespace = workload.namespace;
                tracing::info!(namespace, workload = workload.name, config_map = name, ?keys, "putting keys back");
            }
            limited(call, self.write_config(workload.namespace, write)).await?;
        }
        Ok(())
    }

    /// How many of the objects are not back yet.
    ///
    /// # Errors
    /// See [`ActError`].
    pub async fn config_left(&self, workload: WorkloadRef<'_>, to: &ConfigRollback) -> Result<usize, ActError> {
        let mut left = 0;
        for change in &to.objects {
            let live = self.config_map(workload.namespace, &change.name).await?;
            left += usize::from(digest_of(live.as_ref()) != change.to);
        }
        Ok(left)
    }

    /// What is to be written; what is back already is left out. Writes nothing.
    pub(super) async fn config_writes(
        &self,
        workload: WorkloadRef<'_>,
        to: &ConfigRollback,
        named: &Named,
    ) -> Result<Vec<Write>, ActError> {
        let kept = self.copy_of(workload.namespace, &to.state).await?;
        let mut writes = Vec::new();
        for change in &to.objects {
            let good: ConfigMap = serde_json::from_value(kept["configMaps"][&change.name].clone()).unwrap_or_default();
            if digest_of(Some(&good)) != change.to {
                let message = format!("ControllerRevision {} holds another ConfigMap {}", to.state, change.name);
                return Err(ActError::TargetGone(message));
            }
            let live = self.config_map(workload.namespace, &change.name).await?;
            let digest = digest_of(live.as_ref());
            if digest == change.to {
                continue;
            }
            if digest != change.from {
                return Err(changed(&format!("ConfigMap {}", change.name), &change.from, &digest));
            }
            if let Some(live) = &live {
                may_be_written(live, change, &to.state)?;
                self.not_owned(&live.metadata, Some(&format!("ConfigMap {}", change.name)))?;
            }
            self.alone(workload.namespace, &change.name, named).await?;
            writes.push(Write::new(&change.name, live.as_ref(), good));
        }
        Ok(writes)
    }

    /// What a copy holds.
    pub(super) async fn copy_of(&self, namespace: &str, name: &str) -> Result<Value, ActError> {
        match limited(Call::GET_COPY, self.copies(namespace).get(name)).await {
            Err(ActError::NotFound(_)) => {
                Err(ActError::TargetGone(format!("ControllerRevision {name} does not exist")))
            }
            Ok(copy) => Ok(copy.data.map(|data| data.0).unwrap_or_default()),
            Err(error) => Err(error),
        }
    }

    async fn write_config(&self, namespace: &str, write: Write) -> kube::Result<ConfigMap> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        match write {
            Write::Create(map) => {
                let params = PostParams { field_manager: Some(REMEDIATION_MANAGER.to_owned()), ..Default::default() };
                api.create(&params, &map).await
            }
            Write::Patch { name, patch } => {
                let params = PatchParams { field_manager: Some(REMEDIATION_MANAGER.to_owned()), ..Default::default() };
                api.patch(&name, &params, &Patch::Merge(patch)).await
            }
        }
    }

    pub(super) async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ActError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        limited(Call::GET_CONFIG, api.get_opt(name)).await
    }

    /// # Errors
    /// Shared, when a workload that the policy does not name, or a pod of none, uses the ConfigMap.
    async fn alone(&self, namespace: &str, map: &str, named: &Named) -> Result<(), ActError> {
        let mut strangers = Vec::new();
        let mut look = |kind: WorkloadKind, found: Vec<(String, PodTemplateSpec)>| {
            for (name, template) in found {
                let uses = references(&template).iter().any(|reference| &*reference.name == map);
                if uses && !named.contains(&(kind, name.clone())) {
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
            let name = pod.name_any();
            let template = PodTemplateSpec { metadata: None, spec: pod.spec };
            if !of_workload && references(&template).iter().any(|reference| &*reference.name == map) {
                strangers.push(format!("Pod/{name}"));
            }
        }
        if strangers.is_empty() {
            return Ok(());
        }
        let more = strangers.len().saturating_sub(NAMED);
        strangers.truncate(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(ActError::Shared(format!(
            "ConfigMap {map} is also used by {}{more}, which the policy does not name: going back would change it for them too; add them as components, or put its content back by hand",
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
                "more than {MAX_LISTED} {plural} are in {namespace}: who else uses its ConfigMaps is not looked for; put their content back by hand"
            );
            return Err(ActError::Shared(message));
        }
        Ok(listed.items)
    }

    fn copies(&self, namespace: &str) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// One write of a ConfigMap.
pub(super) enum Write {
    Create(Box<ConfigMap>),
    Patch { name: String, patch: Value },
}

impl Write {
    fn new(name: &str, live: Option<&ConfigMap>, good: ConfigMap) -> Self {
        let Some(live) = live else {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            return Self::Create(Box::new(ConfigMap { metadata, ..good }));
        };
        let binary = |map: &ConfigMap| serde_json::to_value(&map.binary_data).unwrap_or_default();
        let text = |map: &ConfigMap| serde_json::to_value(&map.data).unwrap_or_default();
        let mut patch = json!({"metadata": {"resourceVersion": live.metadata.resource_version}});
        for (field, now, then) in [("data", text(live), text(&good)), ("binaryData", binary(live), binary(&good))] {
            let keys = keys_to_write(&now, &then);
            if !keys.is_empty() {
                patch[field] = Value::Object(keys);
            }
        }
        Self::Patch { name: name.to_owned(), patch }
    }

    fn call(&self) -> Call {
        match self {
            Self::Create(_) => Call::CREATE_CONFIG,
            Self::Patch { .. } => Call::PATCH_CONFIG,
        }
    }
}

/// The keys that differ, with their good values; null removes.
fn keys_to_write(now: &Value, then: &Value) -> Map<String, Value> {
    let empty = Map::new();
    let (now, then) = (now.as_object().unwrap_or(&empty), then.as_object().unwrap_or(&empty));
    let mut keys: Map<String, Value> = then
        .iter()
        .filter(|(key, value)| now.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    keys.extend(now.keys().filter(|key| !then.contains_key(*key)).map(|key| (key.clone(), Value::Null)));
    keys
}

/// # Errors
/// When the API server would not take a write.
fn may_be_written(live: &ConfigMap, change: &ConfigChange, state: &str) -> Result<(), ActError> {
    if live.immutable == Some(true) {
        return Err(ActError::Immutable(format!(
            "ConfigMap {} is immutable: make one of another name with the good content (kubectl get controllerrevision {state} -o jsonpath='{{.data.configMaps.{}}}'), and release a template that names it",
            change.name, change.name
        )));
    }
    Ok(())
}

fn digest_of(map: Option<&ConfigMap>) -> String {
    map.map_or_else(|| MISSING.to_owned(), |map| config_digest(map).to_string())
}

fn changed(what: &str, expected: &str, found: &str) -> ActError {
    ActError::Superseded { expected: format!("{what} ({expected})"), found: format!("{what} ({found})") }
}
