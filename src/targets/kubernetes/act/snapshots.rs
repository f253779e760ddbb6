//! Snapshots of good states: what a rollback restores.
//!
//! A snapshot is a ControllerRevision of ours: immutable by the API server's own rules, in the workload's namespace, and
//! deleted with its policy. The content of Secrets is in a Secret of the same name, immutable too, which the
//! ControllerRevision names: permission to read the one does not imply permission to read the other.

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
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Map, Value, json};

use super::{
    ActError, Call, Kubernetes, Namespaced, OnWorkload,
    config::{MAX_LISTED, changed},
    created, limited,
};
use crate::{
    analyze::tracker::GoodState,
    api::{ConfigKind, MISSING},
    targets::kubernetes::overwritten,
};

/// The largest ControllerRevision, and the largest Secret, of a snapshot, in bytes: etcd takes 1.5 MiB with the overhead.
pub(super) const MAX_COPY: usize = 1_000_000;
/// Snapshots taken at the same time: with a new operator a thousand components may be good in the same moment, and not all
/// of the memory is reclaimed.
pub(super) const COPIES_AT_ONCE: usize = 4;
/// In a snapshot: the name of its Secret.
const SECRET_COPY: &str = "secretCopy";
/// In a snapshot: the controller that would overwrite the object.
pub(super) const OVERWRITTEN_BY: &str = "overwrittenBy";

/// The ControllerRevision, and the Secret, of a snapshot.
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

/// The Secret of a snapshot.
pub(super) fn secret_copy(metadata: ObjectMeta, data: BTreeMap<String, ByteString>) -> Secret {
    Secret { metadata, immutable: Some(true), data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() }
}

/// The content of a snapshot, with the values of Secrets: no Debug, so that nothing prints them.
pub(super) struct Snapshot {
    pub state: Value,
    secrets: BTreeMap<String, ByteString>,
}

impl Snapshot {
    /// One of its objects; null when there is none.
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
    /// Removes the snapshots with these labels that are not among `keep`.
    pub async fn delete_old_snapshots(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        keep: &[String],
    ) -> Result<(), ActError> {
        let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let params = ListParams::default().labels(&selector.join(",")).limit(MAX_LISTED);
        let revisions: Api<ControllerRevision> = self.namespaced(namespace);
        deleted("controllerrevisions", &revisions, &params, keep).await?;
        // Without the right to Secrets there are none, or they are deleted with their policy.
        if self.key.is_known() {
            deleted("secrets", &self.namespaced::<Secret>(namespace), &params, keep).await?;
        }
        Ok(())
    }

    /// A snapshot without its Secrets.
    pub(super) async fn snapshot_of(&self, namespace: &str, name: &str) -> Result<Value, ActError> {
        let api: Api<ControllerRevision> = self.namespaced(namespace);
        let read = limited(Call::get("controllerrevisions"), api.get(name)).await;
        Ok(exists("ControllerRevision", name, read)?.data.map(|data| data.0).unwrap_or_default())
    }

    pub(super) async fn secret_snapshot(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<BTreeMap<String, ByteString>, ActError> {
        let read = limited(Call::GET_SECRET, self.namespaced::<Secret>(namespace).get(name)).await;
        Ok(exists("Secret", name, read)?.data.unwrap_or_default())
    }

    /// The whole snapshot, when `secrets` is true.
    pub(super) async fn whole_snapshot(
        &self,
        namespace: &str,
        name: &str,
        secrets: bool,
    ) -> Result<Snapshot, ActError> {
        let state = self.snapshot_of(namespace, name).await?;
        let secrets = match state[SECRET_COPY].as_str().filter(|_| secrets) {
            Some(name) => self.secret_snapshot(namespace, name).await?,
            None => BTreeMap::new(),
        };
        Ok(Snapshot { state, secrets })
    }
}

impl OnWorkload<'_> {
    /// Takes a snapshot of this state, if it is still the current one.
    ///
    /// # Errors
    /// Superseded when something changed in the meantime, Rejected when the snapshot would be too large.
    pub async fn snapshot(&self, copy: SnapshotOf, good: &GoodState) -> Result<(), ActError> {
        let _turn = self.copying.acquire().await;
        let live = self.read_any().await?;
        if live.digest != good.template {
            return Err(changed("template", &good.template, &live.digest));
        }
        let mut maps = Map::new();
        let mut secrets = BTreeMap::new();
        for object in good.objects.iter().filter(|object| object.digest != MISSING) {
            let live = self.config(self.workload.namespace, object.kind, &object.name).await?;
            let digest = self.digest_of(object.kind, live.as_ref())?;
            let Some(live) = live.filter(|_| digest == object.digest) else {
                return Err(changed(&object.to_string(), &object.digest, &digest));
            };
            let is_map = object.kind == ConfigKind::ConfigMap;
            let field = if is_map { "binaryData" } else { "type" };
            let mut fields = json!({"data": live.content["data"], field: live.content[field]});
            // Nothing else shows the controller when the object is deleted.
            if let Some(owner) = overwritten::by(&live.metadata) {
                fields[OVERWRITTEN_BY] = owner.into();
            }
            if is_map {
                maps.insert(object.name.clone(), fields);
            } else {
                secrets.insert(object.name.clone(), ByteString(fields.to_string().into_bytes()));
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
                let message = format!("{what} are {size} bytes; a snapshot holds at most {MAX_COPY}");
                return Err(ActError::Rejected(message));
            }
        }
        let metadata = copy.metadata();
        // First, so that no snapshot names a Secret that does not exist.
        if !secrets.is_empty() {
            let secret = secret_copy(metadata.clone(), secrets);
            created(Call::CREATE_SECRET, &self.namespaced(self.workload.namespace), &secret, false).await?;
        }
        let revision = ControllerRevision { metadata, data: Some(RawExtension(data)), revision: 1 };
        created(Call::create("controllerrevisions"), &self.namespaced(self.workload.namespace), &revision, false).await
    }
}

fn exists<T>(kind: &str, name: &str, read: Result<T, ActError>) -> Result<T, ActError> {
    read.map_err(|error| match error {
        ActError::NotFound(_) => ActError::TargetGone(format!("{kind} {name} does not exist")),
        error => error,
    })
}

async fn deleted<K: Namespaced>(
    resource: &'static str,
    api: &Api<K>,
    which: &ListParams,
    keep: &[String],
) -> Result<(), ActError> {
    // Names are enough; the content is not read.
    let listed = limited(Call::list(resource), api.list_metadata(which)).await?;
    for name in listed.items.iter().map(ResourceExt::name_any).filter(|name| !keep.contains(name)) {
        match limited(Call { verb: "delete", resource }, api.delete(&name, &DeleteParams::default())).await {
            Ok(_) | Err(ActError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
