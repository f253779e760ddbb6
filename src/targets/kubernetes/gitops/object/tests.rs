use super::*;

use OwnerKind::{Application, HelmRelease, Kustomization};

fn object(value: Value) -> DynamicObject {
    let mut whole = json!({"metadata": {"name": "shop", "namespace": "flux-system", "resourceVersion": "7"}});
    merge(&mut whole, &value);
    serde_json::from_value(whole).unwrap()
}

/// JSON merge patch (RFC 7396), as the API server applies it.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn patched(object: &DynamicObject, patch: &Value) -> DynamicObject {
    let mut value = serde_json::to_value(object).unwrap();
    merge(&mut value, patch);
    serde_json::from_value(value).unwrap()
}

#[test]
fn an_owner_reports_the_objects_that_it_applies() {
    let item =
        |group, kind: &str, name: &str| Item { group, kind: kind.into(), namespace: "shop".into(), name: name.into() };
    let flux = object(
        json!({"status": {"inventory": {"entries": [{"id": "shop_api_apps_Deployment", "v": "v1"}, {"id": "shop_app__ConfigMap", "v": "v1"}]}}}),
    );
    let argo = object(json!({"status": {"resources": [
        {"group": "apps", "kind": "Deployment", "namespace": "shop", "name": "api"},
        {"kind": "ConfigMap", "namespace": "shop", "name": "app"},
    ]}}));
    for (kind, owner) in [(Kustomization, &flux), (Application, &argo)] {
        assert!(applies(kind, owner, &item("apps", "Deployment", "api")), "{kind}");
        assert!(applies(kind, owner, &item("", "ConfigMap", "app")), "{kind}");
        for other in [item("apps", "Deployment", "web"), item("apps", "StatefulSet", "api"), item("", "Secret", "app")]
        {
            assert!(!applies(kind, owner, &other), "{kind} {other}");
        }
        assert!(!applies(kind, &object(json!({})), &item("apps", "Deployment", "api")), "{kind}");
    }
    let api = item("apps", "Deployment", "api");
    assert!(applies(HelmRelease, &object(json!({"spec": {"targetNamespace": "shop"}})), &api));
    assert!(!applies(HelmRelease, &object(json!({"spec": {}})), &api), "it is for flux-system");
}

#[track_caller]
fn off_and_on(kind: OwnerKind, spec: Value) {
    let before = object(json!({"spec": spec}));
    assert!(!is_off(kind, &before), "{spec}");
    let patch = off(kind, &before, "shop/rem", Some("main@1"));
    assert_eq!(patch["metadata"]["resourceVersion"], "7");
    let between = patched(&before, &patch);
    assert!(is_off(kind, &between), "{spec}");
    assert_eq!(by(&between), Some("shop/rem"));
    assert_eq!(between.annotations()[SUSPENDED_AT_REVISION], "main@1");
    let after = patched(&between, &on(kind, &between).unwrap());
    assert_eq!(after.data, before.data, "{spec}");
    assert!(after.annotations().is_empty());
}

#[test]
fn a_resumed_owner_is_exactly_as_before_the_suspension() {
    for kind in [Kustomization, HelmRelease] {
        off_and_on(kind, json!({"path": "./deploy"}));
        off_and_on(kind, json!({"suspend": false}));
    }
    let automated =
        |automated: Value| json!({"project": "default", "syncPolicy": {"automated": automated, "retry": {"limit": 2}}});
    off_and_on(Application, automated(json!({"prune": true, "selfHeal": true})));
    off_and_on(Application, automated(json!({"enabled": true, "allowEmpty": false})));
    off_and_on(Application, automated(json!({})));
}

#[test]
fn off_is_off_whichever_writer_suspended_it() {
    assert!(is_off(Kustomization, &object(json!({"spec": {"suspend": true}}))));
    assert!(is_off(Application, &object(json!({"spec": {"syncPolicy": {}}}))));
    assert!(is_off(Application, &object(json!({"spec": {"syncPolicy": {"automated": {"enabled": false}}}}))));
    let touched = object(json!({"spec": {}, "metadata": {"annotations": {SUSPENDED_BY: "shop/rem"}}}));
    assert_eq!(on(Application, &touched), None, "what to put back is not known");
}

#[test]
fn a_parent_counts_when_it_would_resume_the_object() {
    let managed = |manager: &str, fields: Value| json!([{"manager": manager, "fieldsV1": fields}]);
    let labels = |name: &str| json!({"kustomize.toolkit.fluxcd.io/name": name, "kustomize.toolkit.fluxcd.io/namespace": "flux-system"});
    let applied = |fields: Value| {
        object(json!({"metadata": {"labels": labels("all"), "managedFields": managed("kustomize-controller", fields)}}))
    };
    // Flux's own way: a Kustomization of Kustomizations that says nothing of suspend.
    assert_eq!(parent(Kustomization, &applied(json!({"f:spec": {"f:path": {}}}))), None);
    let says = applied(json!({"f:spec": {"f:suspend": {}}}));
    assert_eq!(parent(HelmRelease, &says).as_deref(), Some("Flux Kustomization flux-system/all"));

    let app = |metadata: Value| object(json!({"metadata": metadata}));
    let tracked = |id: &str| app(json!({"annotations": {"argocd.argoproj.io/tracking-id": id}}));
    assert_eq!(
        parent(Application, &tracked("apps:argoproj.io/Application:argocd/shop")).as_deref(),
        Some("Argo CD Application apps")
    );
    assert_eq!(parent(Application, &tracked("shop:argoproj.io/Application:argocd/shop")), None, "itself");
    let own = managed("argocd-application-controller", json!({"f:spec": {}}));
    assert_eq!(parent(Application, &app(json!({"managedFields": own}))), None);
    let set = json!([{"apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet", "name": "all", "uid": "1"}]);
    let set = parent(Application, &app(json!({"ownerReferences": set})));
    assert_eq!(set.as_deref(), Some("Argo CD ApplicationSet all"));
}

#[test]
fn sources_and_revisions_are_found() {
    let found =
        |kind, value: Value| source(kind, &object(value)).map(|s| format!("{} {}/{}", s.kind, s.namespace, s.name));
    let git = json!({"spec": {"sourceRef": {"kind": "GitRepository", "name": "shop"}}});
    assert_eq!(found(Kustomization, git).as_deref(), Some("GitRepository flux-system/shop"));
    let oci = json!({"spec": {"chartRef": {"kind": "OCIRepository", "name": "api", "namespace": "charts"}}});
    assert_eq!(found(HelmRelease, oci).as_deref(), Some("OCIRepository charts/api"));
    let chart = json!({"spec": {"chart": {"spec": {"chart": "api"}}}, "status": {"helmChart": "charts/shop-api"}});
    assert_eq!(found(HelmRelease, chart).as_deref(), Some("HelmChart charts/shop-api"));
    assert_eq!(found(HelmRelease, json!({})), None);

    let app = |sync: Value| compared(&object(json!({"status": {"sync": sync}})));
    assert_eq!(app(json!({"revision": "abc"})).as_deref(), Some("abc"));
    assert_eq!(app(json!({"revisions": ["abc", "1.2.3"]})).as_deref(), Some("abc,1.2.3"));
    assert_eq!(app(json!({})), None);
    let status = json!({"status": {"lastAppliedRevision": "main@1", "lastAttemptedRevision": "main@2"}});
    assert_eq!(attempted(Kustomization, &object(status.clone())), Some("main@2"));
    assert_eq!(attempted(HelmRelease, &object(status)), None);
}

#[test]
fn a_running_sync_is_not_interrupted() {
    assert!(is_busy(&object(json!({"operation": {"sync": {}}}))));
    assert!(is_busy(&object(json!({"status": {"operationState": {"phase": "Running"}}}))));
    assert!(!is_busy(&object(json!({"status": {"operationState": {"phase": "Succeeded"}}}))));
}

#[test]
fn new_values_are_a_newer_release_of_a_helm_release() {
    let at = |generation: i64| object(json!({"metadata": {"generation": generation}}));
    assert!(is_changed(HelmRelease, &at(4), Some(3)) && !is_changed(HelmRelease, &at(3), Some(3)));
    assert!(!is_changed(HelmRelease, &at(4), None) && !is_changed(Kustomization, &at(4), Some(3)));
}
