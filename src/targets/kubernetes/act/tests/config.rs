//! Snapshots have the assessed configuration, which is restored key by key.

use std::collections::BTreeSet;

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::OwnerReference};

use super::*;
use crate::{
    analyze::tracker::GoodState,
    api::{ConfigChange, ConfigKind, ConfigObject, ConfigRollback, MISSING},
    targets::kubernetes::{Named, SnapshotOf, config::config_digest, fake_server::post},
};

const MAP: &str = "/api/v1/namespaces/shop/configmaps/app";
const COPY: &str = "/apis/apps/v1/namespaces/shop/controllerrevisions/copy";

fn map(data: Value) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "app", "namespace": NS, "resourceVersion": "7"}, "data": data})
}

fn digest_of(data: Value) -> String {
    config_digest(&parse::<ConfigMap>(map(data))).to_string()
}

fn good_data() -> Value {
    json!({"mode": "good", "same": "x", "gone": "y"})
}

fn bad_data() -> Value {
    json!({"mode": "bad", "same": "x", "new": "z"})
}

fn way() -> ConfigRollback {
    let (from, to) = (digest_of(bad_data()), digest_of(good_data()));
    ConfigRollback {
        state: "copy".into(),
        objects: vec![ConfigChange { kind: ConfigKind::ConfigMap, name: "app".into(), from, to }],
    }
}

fn copy(data: Value) -> Exchange {
    let kept = json!({"template": template("v1"), "configMaps": {"app": {"data": data}}});
    let metadata = json!({"name": "copy", "namespace": NS});
    get(
        COPY,
        200,
        json!({"kind": "ControllerRevision", "apiVersion": "apps/v1", "metadata": metadata, "revision": 1, "data": kept}),
    )
}

fn list(plural: &str, kind: &str, items: Vec<Value>) -> Exchange {
    let group = if plural == "pods" { "/api/v1" } else { "/apis/apps/v1" };
    let list = json!({"kind": format!("{kind}List"), "apiVersion": "v1", "metadata": {}, "items": items});
    get(&format!("{group}/namespaces/shop/{plural}?"), 200, list)
}

/// The users: only `api`, and this pod of a Job.
fn users(pods: Vec<Value>) -> [Exchange; 4] {
    let api = with(
        deployment(2, "v2", 3),
        "/spec/template/spec/volumes",
        json!([{"name": "a", "configMap": {"name": "app"}}]),
    );
    [
        list("deployments", "Deployment", vec![api]),
        list("statefulsets", "StatefulSet", Vec::new()),
        list("daemonsets", "DaemonSet", Vec::new()),
        list("pods", "Pod", pods),
    ]
}

async fn put_back(script: Vec<Exchange>) -> (Result<Outcome, ActError>, Vec<Seen>) {
    let (client, task) = server(script);
    let named: Named = BTreeSet::from([(WorkloadKind::Deployment, NAME.to_owned())]);
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    let outcome = Kubernetes::new(client).on(API).rollback_config(Some(&bad()), &way(), &named, at).await;
    (outcome, task.await.unwrap())
}

#[tokio::test]
async fn the_keys_that_differ_are_written_under_the_version_read_and_then_pods_are_replaced() {
    let mut script = vec![copy(good_data()), get(MAP, 200, map(bad_data()))];
    script.extend(users(Vec::new()));
    script.push(patch(MAP, 200, map(good_data())));
    script.extend([read(deployment(2, "v2", 3)), written()]);
    let (outcome, seen) = put_back(script).await;
    assert_eq!(outcome, Ok(Outcome::Done { generation: 7 }));
    let keys = json!({"mode": "good", "gone": "y", "new": null});
    assert_eq!(seen[6].body, json!({"metadata": {"resourceVersion": "7"}, "data": keys}));
    // A second call, after a crash between the two writes.
    let again = vec![copy(good_data()), get(MAP, 200, map(good_data())), read(deployment(2, "v2", 3)), written()];
    assert_eq!(put_back(again).await.0, Ok(Outcome::Done { generation: 7 }));
}

#[tokio::test]
async fn unassessed_content_is_never_overwritten() {
    let third = vec![copy(good_data()), get(MAP, 200, map(json!({"mode": "third"})))];
    refused(put_back(third).await.0, "Superseded", false);
    let other_copy = vec![copy(json!({"mode": "what else"}))];
    refused(put_back(other_copy).await.0, "TargetGone", false);
    let no_copy = vec![get(COPY, 404, failure(404, "NotFound", "not found"))];
    refused(put_back(no_copy).await.0, "TargetGone", false);
    let job = json!({"metadata": {"name": "job-1", "namespace": NS}, "spec": {"containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "app"}}]}]}});
    let mut shared = vec![copy(good_data()), get(MAP, 200, map(bad_data()))];
    shared.extend(users(vec![job]));
    let error = put_back(shared).await.0.unwrap_err();
    assert!(error.reason().name() == "Shared" && error.to_string().contains("Pod/job-1"), "{error}");
    // Somebody writes between our reading and our writing.
    let mut raced = vec![copy(good_data()), get(MAP, 200, map(bad_data()))];
    raced.extend(users(Vec::new()));
    raced.push(patch(MAP, 409, failure(409, "Conflict", "the object has been modified")));
    refused(put_back(raced).await.0, "Conflict", true);
}

fn good_state(digest: String) -> GoodState {
    let object = |name: &str, digest: String| ConfigObject { kind: ConfigKind::ConfigMap, name: name.into(), digest };
    GoodState { template: bad().digest, objects: vec![object("absent", MISSING.into()), object("app", digest)] }
}

async fn keep(script: Vec<Exchange>, digest: String) -> (Result<(), ActError>, Vec<Seen>) {
    let (client, task) = server(script);
    let copy =
        SnapshotOf { name: "copy".into(), labels: [("l".into(), "m".into())].into(), owner: OwnerReference::default() };
    let outcome = Kubernetes::new(client).on(API).snapshot(copy, &good_state(digest)).await;
    (outcome, task.await.unwrap())
}

#[tokio::test]
async fn a_snapshot_has_the_assessed_content_and_nothing_else() {
    let made = |status| {
        post(
            "/apis/apps/v1/namespaces/shop/controllerrevisions?",
            status,
            json!({"kind": "ControllerRevision", "apiVersion": "apps/v1", "metadata": {}, "revision": 1}),
        )
    };
    let script = |data: Value| vec![read(deployment(2, "v2", 3)), get(MAP, 200, map(data))];
    let mut whole = script(good_data());
    whole.push(made(201));
    let (outcome, seen) = keep(whole, digest_of(good_data())).await;
    assert_eq!(outcome, Ok(()));
    let kept = &seen[2].body["data"];
    assert_eq!(kept["configMaps"], json!({"app": {"data": good_data(), "binaryData": null}}));
    assert_eq!(kept["template"], template("v2"));
    let mut there = script(good_data());
    let exists = failure(409, "AlreadyExists", "controllerrevisions.apps \"copy\" already exists");
    there.push(post("/apis/apps/v1/namespaces/shop/controllerrevisions?", 409, exists));
    assert_eq!(keep(there, digest_of(good_data())).await.0, Ok(()), "kept before a crash");
    let reason = |outcome: Result<(), ActError>| outcome.unwrap_err().reason().name();
    assert_eq!(reason(keep(script(bad_data()), digest_of(good_data())).await.0), "Superseded");
    assert_eq!(reason(keep(vec![read(deployment(3, "v3", 3))], digest_of(good_data())).await.0), "Superseded");
    let large = json!({"text": "x".repeat(1_000_001)});
    assert_eq!(reason(keep(script(large.clone()), digest_of(large)).await.0), "WriteRejected");
}
