//! When two pod templates are the same.

use k8s_openapi::{api::core::v1::PodTemplateSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::Value;
use uuid::Uuid;

use super::facts::cut;
use crate::api::{IRREVERSIBLE, RESTARTED_AT};

/// Label that the deployment controller adds to a ReplicaSet's template and pods.
pub const TEMPLATE_HASH: &str = "pod-template-hash";
/// The same of a Rollout's ReplicaSets.
pub const ROLLOUT_HASH: &str = "rollouts-pod-template-hash";
/// Label on the pods of StatefulSets and DaemonSets: the ControllerRevision's name, or its own label of this key.
pub const REVISION_HASH: &str = "controller-revision-hash";

/// Never changes: digests are stored in the ledger and in Remediations across versions of the operator.
const NAMESPACE: Uuid = Uuid::from_u128(0x7d0f_6a0e_52c4_4a53_9b1c_1e3c_86aa_60d5);

/// The same for a workload's template and for that of its ReplicaSet or ControllerRevision, and unchanged by `kubectl rollout restart`.
///
/// UUID version 5 (SHA-1) of the JSON with sorted keys, without the annotation `kubectl.kubernetes.io/restartedAt` and
/// the labels `pod-template-hash` and `rollouts-pod-template-hash`. Not for security.
pub fn digest(template: &PodTemplateSpec) -> Uuid {
    let mut template = template.clone();
    if let Some(metadata) = &mut template.metadata {
        let drop = |map: &mut Option<std::collections::BTreeMap<String, String>>, key: &str| {
            if let Some(entries) = map {
                entries.remove(key);
                if entries.is_empty() {
                    *map = None;
                }
            }
        };
        drop(&mut metadata.annotations, RESTARTED_AT);
        drop(&mut metadata.labels, TEMPLATE_HASH);
        drop(&mut metadata.labels, ROLLOUT_HASH);
        // Some clients write `null`; never meaningful in a template.
        metadata.creation_timestamp = None;
    }
    let mut text = String::with_capacity(2048);
    // These types always have a JSON form.
    canonical(&serde_json::to_value(&template).unwrap_or_default(), &mut text);
    Uuid::new_v5(&NAMESPACE, text.as_bytes())
}

/// The pod template in a ControllerRevision's data, which is a strategic merge patch of the workload that replaces its
/// template (kubernetes/pkg/controller/statefulset/stateful_set_utils.go, `getPatch`).
pub(super) fn of_revision(data: &Value) -> Option<Value> {
    let mut template = data.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    Some(template)
}

/// The label of the pods of a ControllerRevision: a DaemonSet's has it as a label, a StatefulSet's as its name.
pub(super) fn revision_hash(metadata: &ObjectMeta) -> &str {
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_HASH));
    label.or(metadata.name.as_ref()).map_or("", String::as_str)
}

/// The last restart, as `kubectl rollout restart` writes it.
pub(super) fn restarted_at(template: &PodTemplateSpec) -> Option<&str> {
    template.metadata.as_ref()?.annotations.as_ref()?.get(RESTARTED_AT).map(String::as_str)
}

/// Why a template must not be rolled back, if it says so.
pub(super) fn irreversible(template: &PodTemplateSpec) -> Option<&str> {
    template.metadata.as_ref()?.annotations.as_ref()?.get(IRREVERSIBLE).map(|why| cut(why, 200))
}

/// Keys sorted, whatever features of serde_json some dependency switches on.
pub(super) fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in entries {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(a: Value, b: Value, equal: bool) {
        let parse = |value: Value| -> PodTemplateSpec { serde_json::from_value(value).unwrap() };
        assert_eq!(digest(&parse(a.clone())) == digest(&parse(b.clone())), equal, "{a}\n{b}");
    }

    #[test]
    fn restarts_and_the_hash_label_do_not_count() {
        let plain =
            json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
        let mut of_replica_set = plain.clone();
        of_replica_set["metadata"]["labels"][TEMPLATE_HASH] = "abc".into();
        of_replica_set["metadata"]["labels"][ROLLOUT_HASH] = "abc".into();
        of_replica_set["metadata"]["creationTimestamp"] = Value::Null;
        check(plain.clone(), of_replica_set, true);
        let mut restarted = plain.clone();
        restarted["metadata"]["annotations"] = json!({RESTARTED_AT: "2026-01-01T00:00:00Z"});
        check(plain.clone(), restarted, true);
        let mut annotated = plain.clone();
        annotated["metadata"]["annotations"] = json!({"checksum/config": "1"});
        check(plain.clone(), annotated, false);
        let mut image = plain.clone();
        image["spec"]["containers"][0]["image"] = "i:2".into();
        check(plain, image, false);
    }

    #[test]
    fn a_digest_never_changes_between_versions() {
        let template: PodTemplateSpec = serde_json::from_value(json!({
            "metadata": {"labels": {"app": "a", "b": "c"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]},
        }))
        .unwrap();
        assert_eq!(digest(&template).to_string(), "5c7dc3a7-72a2-5955-8464-a87cdf4450bf");
    }
}
