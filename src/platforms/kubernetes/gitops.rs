//! Who would undo our writes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Argo CD: written on every resource of an Application with annotation tracking; `APP:GROUP/KIND:NS/NAME`.
const ARGO_TRACKING: &str = "argocd.argoproj.io/tracking-id";
/// Argo CD with label tracking under its own key. The older default `app.kubernetes.io/instance` is also what Helm
/// writes everywhere, so it says nothing.
const ARGO_INSTANCE: &str = "argocd.argoproj.io/instance";

/// The GitOps controller that owns the object's spec, in words; none when no sign of one is there.
///
/// Signs: the labels and annotations that Argo CD and Flux use to find their objects again, and failing those, field
/// managers of theirs that own a part of `spec`, or of a ConfigMap's data.
pub fn owner(metadata: &ObjectMeta) -> Option<String> {
    let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key));
    if let Some(id) = metadata.annotations.as_ref().and_then(|annotations| annotations.get(ARGO_TRACKING)) {
        return Some(format!("Argo CD Application {}", id.split(':').next().unwrap_or(id)));
    }
    if let Some(app) = label(ARGO_INSTANCE) {
        return Some(format!("Argo CD Application {app}"));
    }
    for (group, kind) in [("kustomize", "Kustomization"), ("helm", "HelmRelease")] {
        if let Some(name) = label(&format!("{group}.toolkit.fluxcd.io/name")) {
            let namespace =
                label(&format!("{group}.toolkit.fluxcd.io/namespace")).map(|ns| format!("{ns}/")).unwrap_or_default();
            return Some(format!("Flux {kind} {namespace}{name}"));
        }
    }
    metadata.managed_fields.iter().flatten().find_map(|entry| {
        let manager = entry.manager.as_deref()?;
        let who = match manager {
            "kustomize-controller" => "a Flux Kustomization",
            "helm-controller" => "a Flux HelmRelease",
            "argocd-controller" | "argocd-application-controller" => "an Argo CD Application",
            _ => return None,
        };
        // A ConfigMap has no spec.
        let fields = &entry.fields_v1.as_ref()?.0;
        ["f:spec", "f:data", "f:binaryData"].iter().find_map(|part| fields.get(part))?;
        Some(format!("{who} (field manager {manager})"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(metadata: Value, expected: Option<&str>) {
        let parsed: ObjectMeta = serde_json::from_value(metadata.clone()).unwrap();
        assert_eq!(owner(&parsed).as_deref(), expected, "{metadata}");
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
}
