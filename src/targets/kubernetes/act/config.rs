//! The configuration of a good state is restored.
//!
//! The changed keys of the changed objects are written and nothing else, each object under the resourceVersion that was
//! read, after every object was found to have the assessed content; then all pods are replaced. Restored objects are
//! skipped, so a crash between any two writes and a second call are harmless. The objects read here have the values of
//! Secrets: these are neither printed nor put into an error.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Map, Value, json};

use super::{ActError, Call, Kubernetes, OnWorkload, Outcome, WorkloadRef, limited, snapshots::OVERWRITTEN_BY};
use crate::{
    api::{ConfigChange, ConfigKind, ConfigRollback, MISSING, REMEDIATION_MANAGER, TemplateRef, WorkloadKind},
    targets::kubernetes::overwritten,
};

/// Objects of one kind read of one namespace: snapshots, or possible users of an object.
pub(super) const MAX_LISTED: u32 = 500;

/// The workloads that the policy names; others must not use the ConfigMaps and Secrets that are written.
pub type Named = BTreeSet<(WorkloadKind, String)>;

/// A ConfigMap or a Secret. No Debug, so that nothing prints values.
pub(super) struct Live {
    pub metadata: ObjectMeta,
    /// All but the metadata.
    pub content: Value,
}

impl Kubernetes {
    pub(super) async fn config(&self, namespace: &str, kind: ConfigKind, name: &str) -> Result<Option<Live>, ActError> {
        let read = limited(Call::get(kind.plural()), self.configs(namespace, kind).get_opt(name)).await?;
        Ok(read.map(|object| Live { metadata: object.metadata, content: object.data }))
    }

    pub(super) fn digest_of(&self, kind: ConfigKind, live: Option<&Live>) -> Result<String, ActError> {
        let digest = live.map(|live| self.key.digest(kind, &live.content)).transpose()?;
        Ok(digest.map_or_else(|| MISSING.to_owned(), |digest| digest.to_string()))
    }

    fn configs(&self, namespace: &str, kind: ConfigKind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource(kind))
    }
}

impl OnWorkload<'_> {
    /// Restores the content of the snapshot and replaces all pods.
    ///
    /// # Errors
    /// Immutable, Shared, GitOpsOwned, Overwritten and Superseded before the first write; after others some of the objects
    /// may be restored.
    pub async fn rollback_config(
        &self,
        from: Option<&TemplateRef>,
        to: &ConfigRollback,
        named: &Named,
        at: Timestamp,
    ) -> Result<Outcome, ActError> {
        let writes = self.config_writes(to, named).await?;
        self.write_all(writes).await?;
        self.restart(from, at).await
    }

    pub(super) async fn write_all(&self, writes: Vec<Write>) -> Result<(), ActError> {
        for Write { kind, name, change } in writes {
            let api = self.configs(self.workload.namespace, kind);
            match change {
                Change::Create(content) => {
                    let params = PostParams { field_manager: Some(REMEDIATION_MANAGER.to_owned()), dry_run: false };
                    let object = DynamicObject::new(&name, &resource(kind)).data(content);
                    limited(Call::create(kind.plural()), api.create(&params, &object)).await?;
                }
                Change::Patch(patch) => {
                    let fields = ["data", "binaryData"].into_iter().filter_map(|field| patch[field].as_object());
                    let keys: Vec<&String> = fields.flat_map(Map::keys).collect();
                    let WorkloadRef { namespace, name: workload, .. } = self.workload;
                    tracing::info!(namespace, workload, %kind, %name, ?keys, "restoring keys");
                    let (params, patch) = (PatchParams::apply(REMEDIATION_MANAGER), Patch::Merge(patch));
                    limited(Call::patch(kind.plural()), api.patch(&name, &params, &patch)).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether at least one of the objects is restored.
    pub async fn is_restoring_config(&self, to: &ConfigRollback) -> Result<bool, ActError> {
        for change in &to.objects {
            let live = self.config(self.workload.namespace, change.kind, &change.name).await?;
            if self.digest_of(change.kind, live.as_ref())? == change.to {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The writes of the objects that are not restored yet. Writes nothing.
    pub(super) async fn config_writes(&self, to: &ConfigRollback, named: &Named) -> Result<Vec<Write>, ActError> {
        let secrets = to.objects.iter().any(|change| change.kind == ConfigKind::Secret);
        let snapshot = self.whole_snapshot(self.workload.namespace, &to.state, secrets).await?;
        let mut writes = Vec::new();
        for change in &to.objects {
            let ConfigChange { kind, name, .. } = change;
            let good = snapshot.object(*kind, name);
            if self.key.digest(*kind, &good)?.to_string() != change.to {
                return Err(ActError::TargetGone(format!("the snapshot {} has another {kind} {name}", to.state)));
            }
            let live = self.config(self.workload.namespace, *kind, name).await?;
            let digest = self.digest_of(*kind, live.as_ref())?;
            if digest == change.to {
                continue;
            }
            if digest != change.from {
                return Err(changed(&format!("{kind} {name}"), &change.from, &digest));
            }
            let owner = match &live {
                Some(live) => {
                    may_be_written(live, change, &to.state)?;
                    self.not_owned(&live.metadata, Some(&format!("{kind} {name}")))?;
                    overwritten::by(&live.metadata)
                }
                None => good[OVERWRITTEN_BY].as_str().map(str::to_owned),
            };
            if let Some(owner) = owner {
                return Err(ActError::Overwritten(format!("{kind} {name} is written by {owner}")));
            }
            self.alone(self.workload.namespace, (*kind, name), named).await?;
            writes.push(Write { kind: *kind, name: name.clone(), change: Change::new(live.as_ref(), &good) });
        }
        Ok(writes)
    }
}

/// One write of a ConfigMap or a Secret. No Debug, so that nothing prints values.
pub(super) struct Write {
    kind: ConfigKind,
    name: String,
    change: Change,
}

enum Change {
    /// The content.
    Create(Value),
    Patch(Value),
}

impl Change {
    fn new(live: Option<&Live>, good: &Value) -> Self {
        let Some(live) = live else {
            let present = ["data", "binaryData", "type"].into_iter().filter(|field| !good[*field].is_null());
            return Self::Create(present.map(|field| (field.to_owned(), good[field].clone())).collect());
        };
        let mut patch = json!({"metadata": {"resourceVersion": live.metadata.resource_version}});
        for field in ["data", "binaryData"] {
            let keys = keys_to_write(&live.content[field], &good[field]);
            if !keys.is_empty() {
                patch[field] = Value::Object(keys);
            }
        }
        Self::Patch(patch)
    }
}

fn resource(kind: ConfigKind) -> ApiResource {
    match kind {
        ConfigKind::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
        // No workload has environment variables of a service.
        ConfigKind::Secret | ConfigKind::EnvVars => ApiResource::erase::<Secret>(&()),
    }
}

/// The keys that differ, with their good values; null removes.
fn keys_to_write(now: &Value, then: &Value) -> Map<String, Value> {
    let empty = Map::new();
    let (now, then) = (now.as_object().unwrap_or(&empty), then.as_object().unwrap_or(&empty));
    let changed = then.iter().filter(|(key, value)| now.get(*key) != Some(value));
    let added = now.keys().filter(|key| !then.contains_key(*key)).map(|key| (key, &Value::Null));
    changed.chain(added).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Immutable, when the API server would refuse a write.
fn may_be_written(live: &Live, change: &ConfigChange, state: &str) -> Result<(), ActError> {
    let ConfigChange { kind, name, .. } = change;
    if live.content["immutable"] == json!(true) {
        let escaped = name.replace('.', "\\.");
        let good = match kind {
            ConfigKind::ConfigMap => {
                format!("kubectl get controllerrevision {state} -o jsonpath='{{.data.configMaps.{escaped}}}'")
            }
            ConfigKind::Secret | ConfigKind::EnvVars => {
                format!("kubectl get secret {state} -o jsonpath='{{.data.{escaped}}}' | base64 -d")
            }
        };
        return Err(ActError::Immutable(format!(
            "{kind} {name} is immutable: create a {kind} of another name with the good content ({good}), and release a template that names the new {kind}"
        )));
    }
    Ok(())
}

pub(super) fn changed(what: &str, expected: &str, found: &str) -> ActError {
    ActError::Superseded { expected: format!("{what} ({expected})"), found: format!("{what} ({found})") }
}
