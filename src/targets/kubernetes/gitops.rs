//! GitOps controllers that would undo our writes, and how these are suspended and resumed.

pub(super) mod object;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, GroupVersionKind};

use crate::analyze::observation::GitOpsOwner;

/// Argo CD: on every resource of an Application with annotation tracking; `APP:GROUP/KIND:NS/NAME`.
const ARGO_TRACKING: &str = "argocd.argoproj.io/tracking-id";
/// Argo CD with label tracking under its own key. The older default `app.kubernetes.io/instance` is also written by Helm, so
/// it proves nothing.
const ARGO_INSTANCE: &str = "argocd.argoproj.io/instance";

#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::EnumString, strum::IntoStaticStr)]
pub enum OwnerKind {
    Kustomization,
    HelmRelease,
    Application,
}

impl OwnerKind {
    /// Group, version, plural, and name in messages.
    fn names(self) -> [&'static str; 4] {
        match self {
            Self::Kustomization => ["kustomize.toolkit.fluxcd.io", "v1", "kustomizations", "Flux Kustomization"],
            Self::HelmRelease => ["helm.toolkit.fluxcd.io", "v2", "helmreleases", "Flux HelmRelease"],
            Self::Application => ["argoproj.io", "v1alpha1", "applications", "Argo CD Application"],
        }
    }

    pub fn group(self) -> &'static str {
        self.names()[0]
    }

    pub fn plural(self) -> &'static str {
        self.names()[2]
    }

    pub fn resource(self) -> ApiResource {
        let [group, version, plural, _] = self.names();
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, self.into()), plural)
    }

    fn words(self) -> &'static str {
        self.names()[3]
    }
}

/// The GitOps object that applied an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// An Application in Argo CD's own namespace has no namespace here.
    Named { kind: OwnerKind, namespace: Option<String>, name: String },
    /// Only the controller is known.
    Applied { kind: OwnerKind, manager: String },
}

impl Owner {
    /// Kind, namespace and name, if known; `argocd` is Argo CD's own namespace.
    pub fn place(&self, argocd: &str) -> Option<(OwnerKind, String, String)> {
        let Self::Named { kind, namespace, name } = self else { return None };
        let default = (*kind == OwnerKind::Application).then_some(argocd);
        Some((*kind, namespace.as_deref().or(default)?.to_owned(), name.clone()))
    }

    fn application(name: &str) -> Self {
        // The mark of an Application outside Argo CD's own namespace is NAMESPACE_NAME; names have no underscore.
        let (namespace, name) = match name.split_once('_') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, name),
        };
        Self::Named { kind: OwnerKind::Application, namespace, name: name.to_owned() }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { kind, namespace: Some(namespace), name } => write!(f, "{} {namespace}/{name}", kind.words()),
            Self::Named { kind, namespace: None, name } => write!(f, "{} {name}", kind.words()),
            Self::Applied { kind, manager } => {
                let article = if *kind == OwnerKind::Application { "an" } else { "a" };
                write!(f, "{article} {} (field manager {manager})", kind.words())
            }
        }
    }
}

impl From<&Owner> for GitOpsOwner {
    fn from(owner: &Owner) -> Self {
        Self { words: owner.to_string(), known: owner.place("").is_some() }
    }
}

/// The GitOps object that owns the object's spec: by the labels and annotations of Argo CD and Flux, else by their field
/// managers that own a part of `spec`, or of a ConfigMap's data.
pub fn owner(metadata: &ObjectMeta) -> Option<Owner> {
    let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key));
    if let Some(id) = metadata.annotations.as_ref().and_then(|annotations| annotations.get(ARGO_TRACKING)) {
        return Some(Owner::application(id.split(':').next().unwrap_or(id)));
    }
    if let Some(app) = label(ARGO_INSTANCE) {
        return Some(Owner::application(app));
    }
    for kind in [OwnerKind::Kustomization, OwnerKind::HelmRelease] {
        if let Some(name) = label(&format!("{}/name", kind.group())) {
            let namespace = label(&format!("{}/namespace", kind.group())).cloned();
            return Some(Owner::Named { kind, namespace, name: name.clone() });
        }
    }
    // A ConfigMap has no spec.
    let (manager, kind) = ["/f:spec", "/f:data", "/f:binaryData"].iter().find_map(|part| applied(metadata, part))?;
    Some(Owner::Applied { kind, manager })
}

/// The field manager of a GitOps controller that wrote this part of the object.
fn applied(metadata: &ObjectMeta, part: &str) -> Option<(String, OwnerKind)> {
    metadata.managed_fields.iter().flatten().find_map(|entry| {
        let manager = entry.manager.as_deref()?;
        let kind = match manager {
            "kustomize-controller" => OwnerKind::Kustomization,
            "helm-controller" => OwnerKind::HelmRelease,
            "argocd-controller" | "argocd-application-controller" => OwnerKind::Application,
            _ => return None,
        };
        entry.fields_v1.as_ref()?.0.pointer(part)?;
        Some((manager.to_owned(), kind))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(metadata: Value, expected: Option<&str>) {
        let parsed: ObjectMeta = serde_json::from_value(metadata.clone()).unwrap();
        assert_eq!(owner(&parsed).map(|owner| owner.to_string()).as_deref(), expected, "{metadata}");
    }

    #[test]
    fn owners_are_found_by_their_marks() {
        check(json!({}), None);
        check(json!({"labels": {"app.kubernetes.io/instance": "shop", "app.kubernetes.io/managed-by": "Helm"}}), None);
        check(
            json!({"annotations": {ARGO_TRACKING: "shop:apps/Deployment:prod/api"}}),
            Some("Argo CD Application shop"),
        );
        check(json!({"labels": {ARGO_INSTANCE: "shop"}}), Some("Argo CD Application shop"));
        check(
            json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "storefront", "kustomize.toolkit.fluxcd.io/namespace": "shop"}}),
            Some("Flux Kustomization shop/storefront"),
        );
        check(json!({"labels": {"helm.toolkit.fluxcd.io/name": "api"}}), Some("Flux HelmRelease api"));
        check(
            json!({"annotations": {ARGO_TRACKING: "teams_shop:apps/Deployment:prod/api"}}),
            Some("Argo CD Application teams/shop"),
        );
    }

    #[test]
    fn a_field_manager_counts_when_it_owns_spec() {
        let managed =
            |manager: &str, fields: Value| json!({"managedFields": [{"manager": manager, "fieldsV1": fields}]});
        check(
            managed("argocd-controller", json!({"f:spec": {"f:template": {}}})),
            Some("an Argo CD Application (field manager argocd-controller)"),
        );
        check(managed("kustomize-controller", json!({"f:metadata": {}})), None);
        check(managed("kubectl-client-side-apply", json!({"f:spec": {}})), None);
    }

    #[test]
    fn only_what_has_a_name_and_a_namespace_can_be_found() {
        let place = |metadata: Value| owner(&serde_json::from_value(metadata).unwrap()).unwrap().place("argo");
        let at = |kind, namespace: &str, name: &str| Some((kind, namespace.to_owned(), name.to_owned()));
        assert_eq!(place(json!({"labels": {ARGO_INSTANCE: "shop"}})), at(OwnerKind::Application, "argo", "shop"));
        assert_eq!(
            place(json!({"labels": {ARGO_INSTANCE: "teams_shop"}})),
            at(OwnerKind::Application, "teams", "shop")
        );
        assert_eq!(place(json!({"labels": {"helm.toolkit.fluxcd.io/name": "api"}})), None);
        let applied = json!({"managedFields": [{"manager": "helm-controller", "fieldsV1": {"f:spec": {}}}]});
        assert_eq!(place(applied), None);
    }
}
