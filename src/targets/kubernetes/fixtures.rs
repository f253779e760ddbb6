//! Objects as a real API server shows them, cut to what matters, for tests.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    core::v1::{Node, Pod},
};
use serde_json::{Value, json};
use strum::IntoEnumIterator as _;

use super::{ClusterIndex, Kind, REVISION_HASH, facts::Rollout};
use crate::api::WorkloadKind;

pub const NS: &str = "shop";
pub const NAME: &str = "api";

/// The time of every check in the tests.
pub fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

pub fn ago(seconds: i64) -> String {
    now().checked_sub(SignedDuration::from_secs(seconds)).unwrap().to_string()
}

/// Sets each `pointer` to a value, making objects on the way.
pub fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let mut at = &mut object;
    for key in pointer.trim_start_matches('/').split('/') {
        let key = key.replace("~1", "/");
        at = match key.parse::<usize>() {
            Ok(index) if at.is_array() => &mut at[index],
            _ => &mut at[key],
        };
    }
    *at = value;
    object
}

pub fn template(tag: &str) -> Value {
    json!({"metadata": {"labels": {"app": NAME}}, "spec": {"containers": [{"name": "main", "image": format!("api:{tag}")}]}})
}

/// Settled, with `pods` pods that are all available.
pub fn deployment(revision: i64, tag: &str, pods: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": NAME, "namespace": NS, "uid": "d-1", "generation": revision, "resourceVersion": "100",
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string()},
        },
        "spec": {
            "replicas": pods, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": NAME}}, "template": template(tag),
        },
        "status": {
            "observedGeneration": revision, "replicas": pods, "updatedReplicas": pods, "availableReplicas": pods,
            "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
        },
    })
}

/// The ReplicaSet `api-HASH` of that revision.
pub fn replica_set(revision: i64, tag: &str, hash: &str) -> Value {
    let template = with(template(tag), "/metadata/labels/pod-template-hash", hash.into());
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{NAME}-{hash}"), "namespace": NS, "uid": format!("rs-{hash}"), "resourceVersion": "90",
            "labels": {"app": NAME, "pod-template-hash": hash},
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string()},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME, "uid": "d-1", "controller": true}],
        },
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": NAME, "pod-template-hash": hash}}, "template": template},
    })
}

/// A StatefulSet or DaemonSet with `pods` pods of the template `tag`, all available. Settled.
pub fn revisioned(kind: WorkloadKind, generation: i64, tag: &str, hash: &str, pods: i32) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind.to_string(),
        "metadata": {
            "name": NAME, "namespace": NS, "uid": "w-1", "generation": generation, "resourceVersion": "100",
        },
        "spec": {
            "selector": {"matchLabels": {"app": NAME}}, "template": template(tag),
            "updateStrategy": {"type": "RollingUpdate"},
        },
        "status": {"observedGeneration": generation},
    });
    if kind == WorkloadKind::StatefulSet {
        object["spec"]["replicas"] = pods.into();
        object["spec"]["serviceName"] = NAME.into();
        object["spec"]["podManagementPolicy"] = "OrderedReady".into();
        for count in ["replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas"] {
            object["status"][count] = pods.into();
        }
        for revision in ["currentRevision", "updateRevision"] {
            object["status"][revision] = format!("{NAME}-{hash}").into();
        }
    } else {
        object["status"]["numberMisscheduled"] = 0.into();
        for count in ["desiredNumberScheduled", "currentNumberScheduled", "updatedNumberScheduled"] {
            object["status"][count] = pods.into();
        }
        for count in ["numberReady", "numberAvailable"] {
            object["status"][count] = pods.into();
        }
    }
    object
}

/// The ControllerRevision `api-HASH` with that number, as the controllers of Kubernetes write it.
pub fn controller_revision(kind: WorkloadKind, revision: i64, tag: &str, hash: &str) -> Value {
    let mut labels = json!({"app": NAME});
    let key = if kind == WorkloadKind::DaemonSet { REVISION_HASH } else { "controller.kubernetes.io/hash" };
    labels[key] = hash.into();
    let template = with(template(tag), "/$patch", "replace".into());
    json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": revision,
        "metadata": {
            "name": format!("{NAME}-{hash}"), "namespace": NS, "uid": format!("cr-{hash}"), "labels": labels,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind.to_string(), "name": NAME, "uid": "w-1", "controller": true}],
        },
        "data": {"spec": {"template": with(template, "/metadata/creationTimestamp", Value::Null)}},
    })
}

/// Makes a pod of a Deployment one of such a workload.
pub fn owned_by(kind: WorkloadKind, pod: Value, name: &str, hash: &str) -> Value {
    let hash = if kind == WorkloadKind::StatefulSet { format!("{NAME}-{hash}") } else { hash.to_owned() };
    let pod = with(pod, "/metadata/name", name.into());
    let pod = with(pod, "/metadata/uid", format!("pod-{name}").into());
    let pod = with(pod, "/metadata/labels", json!({"app": NAME, REVISION_HASH: hash}));
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": kind.to_string(), "name": NAME, "uid": "w-1", "controller": true}]);
    with(pod, "/metadata/ownerReferences", owner)
}

/// A Rollout with `pods` pods, all of the template `current` and available: settled when that is `stable` too. Of its
/// template only the tag is known, since it has no defaults.
pub fn rollout(generation: i64, tag: &str, (current, stable): (&str, &str), pods: i32) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": {
            "name": NAME, "namespace": NS, "uid": "r-1", "generation": generation, "resourceVersion": "100",
            "annotations": {"rollout.argoproj.io/revision": generation.to_string()},
        },
        "spec": {
            "replicas": pods, "selector": {"matchLabels": {"app": NAME}}, "template": template(tag),
            "strategy": {"canary": {"steps": [{"setWeight": 25}, {"pause": {}}]}},
        },
        "status": {
            "observedGeneration": generation.to_string(), "currentPodHash": current, "stableRS": stable,
            "replicas": pods, "updatedReplicas": pods, "availableReplicas": pods, "selector": format!("app={NAME}"),
            "phase": "Healthy", "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
        },
    })
}

/// The template as its ReplicaSets have it: filled in by the API server.
pub fn defaulted(tag: &str) -> Value {
    with(template(tag), "/spec/restartPolicy", "Always".into())
}

/// The ReplicaSet `api-HASH` of that revision.
pub fn rollout_set(revision: i64, tag: &str, hash: &str) -> Value {
    let template = with(defaulted(tag), "/metadata/labels/rollouts-pod-template-hash", hash.into());
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{NAME}-{hash}"), "namespace": NS, "uid": format!("rs-{hash}"), "resourceVersion": "90",
            "labels": {"app": NAME, "rollouts-pod-template-hash": hash},
            "annotations": {"rollout.argoproj.io/revision": revision.to_string()},
            "ownerReferences": [{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": NAME, "uid": "r-1", "controller": true}],
        },
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": NAME}}, "template": template},
    })
}

/// Makes a pod of a Deployment one of a Rollout.
pub fn of_rollout(pod: Value, hash: &str) -> Value {
    with(pod, "/metadata/labels", json!({"app": NAME, "rollouts-pod-template-hash": hash}))
}

/// Running on node `n1` and ready for half an hour.
pub fn pod(hash: &str, id: &str) -> Value {
    json!({
        "metadata": {
            "name": format!("{NAME}-{hash}-{id}"), "namespace": NS, "uid": format!("pod-{id}"), "resourceVersion": "95",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{NAME}-{hash}"), "uid": format!("rs-{hash}"), "controller": true}],
        },
        "spec": {"nodeName": "n1", "containers": []},
        "status": {
            "phase": "Running", "startTime": ago(1805),
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "True", "lastTransitionTime": ago(1800)},
            ],
            "containerStatuses": [container("main", true, 0, json!({"running": {"startedAt": ago(1803)}}), json!({}))],
        },
    })
}

pub fn container(name: &str, ready: bool, restarts: i32, state: Value, last: Value) -> Value {
    json!({"name": name, "ready": ready, "restartCount": restarts, "state": state, "lastState": last, "image": "", "imageID": ""})
}

/// A pod that is not ready, and whose container is in that state.
pub fn broken_pod(hash: &str, id: &str, restarts: i32, state: Value, last: Value) -> Value {
    let pod = with(pod(hash, id), "/status/containerStatuses/0", container("main", false, restarts, state, last));
    let pod = with(pod, "/status/conditions/1/status", "False".into());
    // Never was ready: the kubelet wrote the condition with the first status.
    with(pod, "/status/conditions/1/lastTransitionTime", ago(1805).into())
}

pub fn waiting(reason: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": "back-off 10s restarting failed container"}})
}

pub fn ended(code: i32, reason: &str, seconds_ago: i64) -> Value {
    json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": ago(seconds_ago)}})
}

pub fn node(name: &str, ready: bool) -> Value {
    json!({"metadata": {"name": name}, "status": {"conditions": [
        {"type": "Ready", "status": if ready { "True" } else { "Unknown" }, "lastHeartbeatTime": ago(1)},
    ]}})
}

/// An index whose first listings were empty and complete, with node `n1`.
pub fn synced() -> ClusterIndex {
    let index = ClusterIndex::default();
    index.watching(&[]);
    for kind in Kind::iter() {
        index.listing(kind, "");
        index.listed(kind, "");
    }
    see(&index, node("n1", true));
    index
}

/// Three ready pods of revision 1, image `v1`, hash `aaa`.
pub fn healthy() -> ClusterIndex {
    let index = synced();
    see(&index, deployment(1, "v1", 3));
    see(&index, replica_set(1, "v1", "aaa"));
    for id in ["1", "2", "3"] {
        see(&index, pod("aaa", id));
    }
    index
}

/// A second release on top of [`healthy`]: revision 2, image `v2`, hash `bbb`, with one of its pods given.
pub fn releasing(new_pod: Value) -> ClusterIndex {
    let index = healthy();
    let rolling = with(deployment(2, "v2", 3), "/status/updatedReplicas", 1.into());
    see(&index, with(rolling, "/status/replicas", 4.into()));
    see(&index, replica_set(2, "v2", "bbb"));
    see(&index, new_pod);
    index
}

/// Applies an object of whichever kind it is.
pub fn see(index: &ClusterIndex, object: Value) {
    match object["kind"].as_str() {
        Some("Deployment") => index.apply(&parse::<Deployment>(object)),
        Some("StatefulSet") => index.apply(&parse::<StatefulSet>(object)),
        Some("DaemonSet") => index.apply(&parse::<DaemonSet>(object)),
        Some("Rollout") => index.apply(&parse::<Rollout>(object)),
        Some("ControllerRevision") => index.apply(&parse::<ControllerRevision>(object)),
        Some("ReplicaSet") => index.apply(&parse::<ReplicaSet>(object)),
        _ if object["spec"].is_null() => index.apply(&parse::<Node>(object)),
        _ => index.apply_at(&parse::<Pod>(object), now()),
    }
}

pub fn parse<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}
