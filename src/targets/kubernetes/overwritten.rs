//! Controllers that write a ConfigMap or a Secret from another source, so that our write would be overwritten.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Marks of controllers that do not always set an owner reference: label or annotation, and the kind of its owner.
const MARKS: [(&str, &str); 4] = [
    // cert-manager, on the Secret of a Certificate.
    ("cert-manager.io/certificate-name", "Certificate"),
    // External Secrets Operator, also with `creationPolicy: Merge`.
    ("reconcile.external-secrets.io/created-by", "ExternalSecret"),
    ("reconcile.external-secrets.io/data-hash", "ExternalSecret"),
    // emberstack's reflector: a copy of a Secret or ConfigMap elsewhere.
    ("reflector.v1.k8s.emberstack.com/reflects", "reflected object"),
];

/// The controller that owns the object, in words.
pub(super) fn by(metadata: &ObjectMeta) -> Option<String> {
    let mut references = metadata.owner_references.iter().flatten();
    if let Some(owner) = references.find(|owner| owner.controller == Some(true)) {
        return Some(format!("{} {}", owner.kind, owner.name));
    }
    let mark = |key: &str| {
        let label = metadata.labels.as_ref().and_then(|labels| labels.get(key));
        label.or_else(|| metadata.annotations.as_ref()?.get(key))
    };
    MARKS.iter().find_map(|(key, kind)| {
        let value = mark(key)?;
        // The other values are hashes.
        let name = if key.ends_with("certificate-name") || key.ends_with("reflects") { value.as_str() } else { "" };
        Some(format!("{kind} {name}").trim_end().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(metadata: Value, expected: Option<&str>) {
        let parsed: ObjectMeta = serde_json::from_value(metadata.clone()).unwrap();
        assert_eq!(by(&parsed).as_deref(), expected, "{metadata}");
    }

    #[test]
    fn controllers_are_found_by_their_marks() {
        let owner = |controller: bool| json!({"ownerReferences": [{"apiVersion": "x/v1", "kind": "SealedSecret", "name": "app", "uid": "u", "controller": controller}]});
        check(json!({}), None);
        check(owner(true), Some("SealedSecret app"));
        check(owner(false), None);
        check(json!({"annotations": {"cert-manager.io/certificate-name": "shop"}}), Some("Certificate shop"));
        check(json!({"labels": {"reconcile.external-secrets.io/created-by": "0f3a"}}), Some("ExternalSecret"));
        check(json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}}), None);
    }
}
