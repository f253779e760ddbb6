//! Copies of good states: what goes back is kept as it was judged.
//!
//! A copy is a ControllerRevision of ours: immutable by the API server's own rules, in the workload's namespace, and gone
//! with its policy. What Secrets held is not in it but in a Secret beside it, of the same name and as immutable, which the
//! ControllerRevision names: who may read the one may not always read the other.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::{apps::v1::ControllerRevision, core::v1::Secret},
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        runtime::RawExtension,
    },
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{
    ActError, Call, Kubernetes, WorkloadRef,
    config::{MAX_LISTED, changed},
    limited,
};
use crate::{
    analyze::tracker::GoodState,
    api::{ConfigKind, MISSING, REMEDIATION_MANAGER},
    targets::kubernetes::overwritten,
};

/// A copy that is larger is not kept, in bytes, nor is one of Secrets: etcd takes 1.5 MiB with all that is around it.
pub(super) const MAX_COPY: usize = 1_000_000;
/// Copies that are made at the same time: a thousand components are good in the same moment when an operator is new, and
/// what a copy takes while it is made is not all given back.
pub(super) const COPIES_AT_ONCE: usize = 4;
/// Where a copy names the Secret beside it.
const SECRET_COPY: &str = "secretCopy";

/// Which ControllerRevision, and Secret, a copy becomes.
#[derive(Debug, Clone)]
pub struct SnapshotOf {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Its policy.
    pub owner: OwnerReference,
}

impl SnapshotOf {
    pub(super) fn metadata(self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name),
            labels: Some(self.labels),
            owner_references: Some(vec![self.owner]),
            ..ObjectMeta::default()
        }
    }
}

/// The Secret that holds what a copy may not show.
pub(super) fn secret_copy(metadata: ObjectMeta, data: BTreeMap<String, ByteString>) -> Secret {
    Secret { metadata, immutable: Some(true), data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() }
}

/// What a copy holds, with the values of Secrets: not to be printed, so no Debug.
pub(super) struct Kept {
    pub state: Value,
    secrets: BTreeMap<String, ByteString>,
}

impl Kept {
    /// One of its objects; null when it is not in it.
    pub(super) fn object(&self, kind: ConfigKind, name: &str) -> Value {
        match kind {
            ConfigKind::ConfigMap => self.state["configMaps"][name].clone(),
            ConfigKind::Secret | ConfigKind::EnvVars => {
                let secret = self.secrets.get(name);
                secret.and_then(|secret| serde_json::from_slice(&secret.0).ok()).unwrap_or_default()
            }
        }
    }
}

impl Kubernetes {
    /// Keeps a copy of this state, if it is still the one that runs.
    ///
    /// # Errors
    /// Superseded when something changed meanwhile, Rejected when the copy would be too large; else see [`ActError`].
    pub async fn keep(&self, workload: WorkloadRef<'_>, copy: SnapshotOf, good: &GoodState) -> Result<(), ActError> {
        let _turn = self.copying.acquire().await;
        let live = self.read_any(workload).await?;
        if live.digest != good.template {
            return Err(changed("template", &good.template, &live.digest));
        }
        let mut maps = Map::new();
        let mut secrets = BTreeMap::new();
        for object in good.objects.iter().filter(|object| object.digest != MISSING) {
            let live = self.config(workload.namespace, object.kind, &object.name).await?;
            let digest = self.digest_of(object.kind, live.as_ref())?;
            let Some(live) = live.filter(|_| digest == object.digest) else {
                return Err(changed(&object.to_string(), &object.digest, &digest));
            };
            let mut fields = match object.kind {
                ConfigKind::ConfigMap => {
                    json!({"data": live.content["data"], "binaryData": live.content["binaryData"]})
                }
                ConfigKind::Secret | ConfigKind::EnvVars => {
                    json!({"data": live.content["data"], "type": live.content["type"]})
                }
            };
            // Should it be deleted, nothing else tells.
            if let Some(owner) = overwritten::by(&live.metadata) {
                fields[OVERWRITTEN_BY] = owner.into();
            }
            match object.kind {
                ConfigKind::ConfigMap => drop(maps.insert(object.name.clone(), fields)),
                ConfigKind::Secret | ConfigKind::EnvVars => {
                    drop(secrets.insert(object.name.clone(), ByteString(fields.to_string().into_bytes())));
                }
            }
        }
        let mut data = json!({
            "template": live.template, "strategy": live.strategy, "replicas": live.replicas, "configMaps": maps,
        });
        if !secrets.is_empty() {
            data[SECRET_COPY] = copy.name.as_str().into();
        }
        let of_secrets = secrets.values().map(|secret| secret.0.len()).sum();
        for (what, size) in [("the template and its ConfigMaps", data.to_string().len()), ("its Secrets", of_secrets)] {
            if size > MAX_COPY {
                let message = format!("{what} are {size} bytes, more than the {MAX_COPY} that are kept");
                return Err(ActError::Rejected(message));
            }
        }
        let metadata = copy.metadata();
        // First, so that no copy names one that is not there.
        if !secrets.is_empty() {
            let secret = secret_copy(metadata.clone(), secrets);
            made(Call::CREATE_SECRET, &self.of_secrets(workload.namespace), &secret).await?;
        }
        let revision = ControllerRevision { metadata, data: Some(RawExtension(data)), revision: 1 };
        made(Call::KEEP, &self.copies(workload.namespace), &revision).await
    }

    /// Removes the copies with these labels that are not among `keep`.
    ///
    /// # Errors
    /// See [`ActError`].
    pub async fn delete_old_snapshots(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        keep: &[String],
    ) -> Result<(), ActError> {
        let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let params = ListParams::default().labels(&selector.join(",")).limit(MAX_LISTED);
        forgotten(Call::FORGET, &self.copies(namespace), &params, keep).await?;
        // Without the right to Secrets there are none, or they go with their policy.
        if self.key.is_known() {
            forgotten(Call::DELETE_SECRET, &self.of_secrets(namespace), &params, keep).await?;
        }
        Ok(())
    }

    /// What a copy holds, Secrets apart.
    pub(super) async fn snapshot_of(&self, namespace: &str, name: &str) -> Result<Value, ActError> {
        let copy = there("ControllerRevision", name, limited(Call::GET_COPY, self.copies(namespace).get(name)).await)?;
        Ok(copy.data.map(|data| data.0).unwrap_or_default())
    }

    /// All of it, when `secrets` are asked for.
    pub(super) async fn kept(&self, namespace: &str, name: &str, secrets: bool) -> Result<Kept, ActError> {
        let state = self.snapshot_of(namespace, name).await?;
        let secrets = match state[SECRET_COPY].as_str().filter(|_| secrets) {
            Some(name) => {
                let read = limited(Call::GET_SECRET, self.of_secrets(namespace).get(name)).await;
                there("Secret", name, read)?.data.unwrap_or_default()
            }
            None => BTreeMap::new(),
        };
        Ok(Kept { state, secrets })
    }

    fn copies(&self, namespace: &str) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(super) fn of_secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// In a copy: the controller that would not let a write last.
pub(super) const OVERWRITTEN_BY: &str = "overwrittenBy";

pub(super) fn there<T>(kind: &str, name: &str, read: Result<T, ActError>) -> Result<T, ActError> {
    read.map_err(|error| match error {
        ActError::NotFound(_) => ActError::TargetGone(format!("{kind} {name} does not exist")),
        error => error,
    })
}

pub(super) async fn made<K>(call: Call, api: &Api<K>, object: &K) -> Result<(), ActError>
where
    K: Resource + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let params = PostParams { field_manager: Some(REMEDIATION_MANAGER.to_owned()), ..PostParams::default() };
    match limited(call, api.create(&params, object)).await {
        // The name says what is in it.
        Ok(_) | Err(ActError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn forgotten<K>(call: Call, api: &Api<K>, which: &ListParams, keep: &[String]) -> Result<(), ActError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    // Names are enough; what is in them stays where it is.
    let listed = limited(call.listing(), api.list_metadata(which)).await?;
    for name in listed.items.iter().map(ResourceExt::name_any).filter(|name| !keep.contains(name)) {
        match limited(call, api.delete(&name, &DeleteParams::default())).await {
            Ok(_) | Err(ActError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
