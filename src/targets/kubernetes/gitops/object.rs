//! A GitOps object: whether it is suspended, the patches that suspend and resume it, and the revision of its source. Pure.
//!
//! Flux has `spec.suspend`. Of an Argo CD Application `spec.syncPolicy.automated` is removed, which all versions support;
//! its value is stored in an annotation in the same write.

use std::fmt;

use kube::{
    ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};

use super::{Owner, OwnerKind, applied, owner};
use crate::api::{SUSPENDED_AT_REVISION, SUSPENDED_BY, SUSPENDED_PREVIOUS};

/// The object applies nothing automatically.
pub fn is_off(kind: OwnerKind, object: &DynamicObject) -> bool {
    let value = switch(kind, object);
    match kind {
        OwnerKind::Application => value.is_null() || value["enabled"] == false,
        OwnerKind::Kustomization | OwnerKind::HelmRelease => *value == true,
    }
}

/// The field that suspends and resumes.
fn switch(kind: OwnerKind, object: &DynamicObject) -> &Value {
    match kind {
        OwnerKind::Application => &object.data["spec"]["syncPolicy"]["automated"],
        OwnerKind::Kustomization | OwnerKind::HelmRelease => &object.data["spec"]["suspend"],
    }
}

/// An object that a GitOps object applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Empty: core.
    pub group: &'static str,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Whether the object reports that it applies the item. Marks alone are no proof: with them, a person who may label a workload
/// could suspend any GitOps object in any namespace.
pub fn applies(kind: OwnerKind, object: &DynamicObject, item: &Item) -> bool {
    let Item { group, kind: what, namespace, name } = item;
    let (spec, status) = (&object.data["spec"], &object.data["status"]);
    match kind {
        OwnerKind::Kustomization => {
            let id = format!("{namespace}_{name}_{group}_{what}");
            let entries = status["inventory"]["entries"].as_array();
            entries.into_iter().flatten().any(|entry| entry["id"] == id.as_str())
        }
        OwnerKind::Application => status["resources"].as_array().into_iter().flatten().any(|one| {
            let text = |field: &str| one[field].as_str().unwrap_or_default();
            [text("group"), text("kind"), text("namespace"), text("name")] == [*group, what, namespace, name]
        }),
        // It has no list; at least the namespace must match.
        OwnerKind::HelmRelease => {
            let target = spec["targetNamespace"].as_str().or(object.metadata.namespace.as_deref());
            target == Some(namespace.as_str())
        }
    }
}

/// The Remediation that suspended the object.
pub fn by(object: &DynamicObject) -> Option<&str> {
    object.annotations().get(SUSPENDED_BY).map(String::as_str)
}

/// A sync is running. Flux does not report that.
pub fn is_busy(object: &DynamicObject) -> bool {
    let phase = &object.data["status"]["operationState"]["phase"];
    object.data["operation"].is_object() || phase == "Running" || phase == "Terminating"
}

/// Merge patch that suspends the object for the Remediation `by`.
pub fn off(kind: OwnerKind, object: &DynamicObject, by: &str, revision: Option<&str>) -> Value {
    let previous = switch(kind, object);
    let previous = (!previous.is_null()).then(|| previous.to_string());
    let value = if kind == OwnerKind::Application { Value::Null } else { true.into() };
    json!({
        "metadata": {
            "resourceVersion": object.resource_version(),
            "annotations": {SUSPENDED_BY: by, SUSPENDED_AT_REVISION: revision, SUSPENDED_PREVIOUS: previous},
        },
        "spec": field(kind, value),
    })
}

/// Merge patch that restores the previous value. None: the value is unknown, so a person has to resume the object.
pub fn on(kind: OwnerKind, object: &DynamicObject) -> Option<Value> {
    let previous = match (kind, object.annotations().get(SUSPENDED_PREVIOUS)) {
        (OwnerKind::Application, None) => return None,
        (_, None) => Value::Null,
        (_, Some(text)) => serde_json::from_str(text).ok()?,
    };
    let mut patch = unmark(object);
    patch["spec"] = field(kind, previous);
    Some(patch)
}

/// Merge patch that removes our annotations.
pub fn unmark(object: &DynamicObject) -> Value {
    json!({"metadata": {
        "resourceVersion": object.resource_version(),
        "annotations": {SUSPENDED_BY: null, SUSPENDED_AT_REVISION: null, SUSPENDED_PREVIOUS: null},
    }})
}

fn field(kind: OwnerKind, value: Value) -> Value {
    match kind {
        OwnerKind::Application => json!({"syncPolicy": {"automated": value}}),
        OwnerKind::Kustomization | OwnerKind::HelmRelease => json!({"suspend": value}),
    }
}

/// The parent that would resume the object, because it applies this very object; in words.
///
/// Flux applies only the fields of its manifests, and Argo CD compares only those: so `spec.suspend` is reset only when one
/// of them wrote the field. An applied Application has `automated` from its manifest, and an ApplicationSet restores the
/// whole spec.
pub fn parent(kind: OwnerKind, object: &DynamicObject) -> Option<String> {
    let marked = owner(&object.metadata).filter(|parent| !is_same(parent, kind, object));
    if kind != OwnerKind::Application {
        let (manager, _) = applied(&object.metadata, "/f:spec/f:suspend")?;
        return Some(marked.map_or_else(|| format!("field manager {manager}"), |parent| parent.to_string()));
    }
    let set = object.owner_references().iter().find(|owner| owner.kind == "ApplicationSet");
    if let Some(set) = set {
        return Some(format!("Argo CD ApplicationSet {}", set.name));
    }
    // Argo CD's own writes to its Applications do not prove a parent.
    let own = matches!(&marked, Some(Owner::Applied { manager, .. }) if manager == "argocd-application-controller");
    marked.filter(|_| !own).map(|parent| parent.to_string())
}

/// The object applies itself, as Flux's own Kustomization: not while it is suspended.
fn is_same(parent: &Owner, kind: OwnerKind, object: &DynamicObject) -> bool {
    let namespace = object.namespace().unwrap_or_default();
    parent.place(&namespace) == Some((kind, namespace, object.name_any()))
}

/// The source of a Flux object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl Source {
    /// None for an unknown kind.
    pub fn plural(&self) -> Option<&'static str> {
        Some(match self.kind.as_str() {
            "GitRepository" => "gitrepositories",
            "OCIRepository" => "ocirepositories",
            "Bucket" => "buckets",
            "HelmChart" => "helmcharts",
            "ExternalArtifact" => "externalartifacts",
            _ => return None,
        })
    }

    pub fn resource(&self) -> Option<ApiResource> {
        let gvk = GroupVersionKind::gvk("source.toolkit.fluxcd.io", "v1", &self.kind);
        Some(ApiResource::from_gvk_with_plural(&gvk, self.plural()?))
    }
}

/// None when the object does not name a source.
pub fn source(kind: OwnerKind, object: &DynamicObject) -> Option<Source> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let own = object.namespace().unwrap_or_default();
    let reference = match kind {
        OwnerKind::Application => return None,
        OwnerKind::Kustomization => &object.data["spec"]["sourceRef"],
        OwnerKind::HelmRelease => &object.data["spec"]["chartRef"],
    };
    if let (Some(kind), Some(name)) = (text(&reference["kind"]), text(&reference["name"])) {
        return Some(Source { kind, namespace: text(&reference["namespace"]).unwrap_or(own), name });
    }
    let (namespace, name) = object.data["status"]["helmChart"].as_str()?.split_once('/')?;
    Some(Source { kind: "HelmChart".into(), namespace: namespace.into(), name: name.into() })
}

/// The revision that a Kustomization applied last. An existing newer revision counts as newer.
pub fn attempted(kind: OwnerKind, object: &DynamicObject) -> Option<&str> {
    // A HelmRelease writes the version of its chart in another form than the chart.
    let status = (kind == OwnerKind::Kustomization).then(|| &object.data["status"])?;
    status["lastAttemptedRevision"].as_str().or_else(|| status["lastAppliedRevision"].as_str())
}

/// The revisions of its sources that an Application was compared with last; a suspended Application is compared too.
pub fn compared(object: &DynamicObject) -> Option<String> {
    let sync = &object.data["status"]["sync"];
    if let Some(revisions) = sync["revisions"].as_array().filter(|all| !all.is_empty()) {
        let all: Vec<&str> = revisions.iter().filter_map(Value::as_str).collect();
        return Some(all.join(","));
    }
    sync["revision"].as_str().filter(|revision| !revision.is_empty()).map(str::to_owned)
}

/// The spec of a HelmRelease has its values: a change of the spec is a newer release, whatever the chart's version.
pub fn is_changed(kind: OwnerKind, object: &DynamicObject, generation: Option<i64>) -> bool {
    kind == OwnerKind::HelmRelease && generation.is_some() && object.metadata.generation != generation
}

#[cfg(test)]
mod tests;
