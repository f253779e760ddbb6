//! Secrets are kept beside the copy that names them, and put back as ConfigMaps are.

use std::collections::BTreeSet;

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};

use super::*;
use crate::{
    analyze::tracker::GoodState,
    api::{ConfigChange, ConfigKind, ConfigObject, ConfigRollback, MISSING},
    targets::kubernetes::{Named, SnapshotOf, digest_key::DigestKey, fake_server::post},
};

const SECRETS: &str = "/api/v1/namespaces/shop/secrets";
const APP: &str = "/api/v1/namespaces/shop/secrets/app";
const REVISIONS: &str = "/apis/apps/v1/namespaces/shop/controllerrevisions";

fn key() -> DigestKey {
    DigestKey::of(&[7; 32])
}

fn secret(data: Value) -> Value {
    json!({"kind": "Secret", "apiVersion": "v1", "type": "Opaque", "metadata": {"name": "app", "namespace": NS, "resourceVersion": "7"}, "data": data})
}

fn good() -> Value {
    json!({"password": "Z29vZA==", "same": "eA=="})
}

fn broken() -> Value {
    json!({"password": "YmFk", "same": "eA==", "new": "eg=="})
}

fn digest(data: Value) -> String {
    key().secret_digest(&parse::<Secret>(secret(data))).unwrap().to_string()
}

/// The ControllerRevision, and the Secret beside it that holds this of `app`.
fn copy(app: &Value) -> Vec<Exchange> {
    let metadata = json!({"name": "copy", "namespace": NS});
    let state = json!({"template": template("v1"), "configMaps": {}, "secretCopy": "copy"});
    let revision = json!({"kind": "ControllerRevision", "apiVersion": "apps/v1", "metadata": metadata, "revision": 1, "data": state});
    let held: Secret = Secret {
        data: Some([("app".to_owned(), k8s_openapi::ByteString(app.to_string().into_bytes()))].into()),
        ..Secret::default()
    };
    vec![
        get(&format!("{REVISIONS}/copy"), 200, revision),
        get(&format!("{SECRETS}/copy"), 200, serde_json::to_value(held).unwrap()),
    ]
}

fn users() -> Vec<Exchange> {
    let list = |group: &str, plural: &str, kind: &str| {
        let list = json!({"kind": format!("{kind}List"), "apiVersion": "v1", "metadata": {}, "items": []});
        get(&format!("{group}/namespaces/shop/{plural}?"), 200, list)
    };
    vec![
        list("/apis/apps/v1", "deployments", "Deployment"),
        list("/apis/apps/v1", "statefulsets", "StatefulSet"),
        list("/apis/apps/v1", "daemonsets", "DaemonSet"),
        list("/api/v1", "pods", "Pod"),
    ]
}

async fn put_back(from: String, script: Vec<Exchange>) -> (Result<Outcome, ActError>, Vec<Seen>) {
    let (client, task) = server(script);
    let change = ConfigChange { kind: ConfigKind::Secret, name: "app".into(), from, to: digest(good()) };
    let way = ConfigRollback { state: "copy".into(), objects: vec![change] };
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    let kubernetes = Kubernetes::new(client).with_key(key());
    let outcome = kubernetes.on(API).rollback_config(Some(&bad()), &way, &Named::default(), at).await;
    drop(kubernetes);
    (outcome, task.await.unwrap())
}

fn kept(extra: Value) -> Value {
    let mut kept = json!({"data": good(), "type": "Opaque"});
    kept.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    kept
}

#[tokio::test]
async fn the_keys_that_differ_are_written_or_the_whole_deleted_object() {
    let mut script = copy(&kept(json!({})));
    script.push(get(APP, 200, secret(broken())));
    script.extend(users());
    script.extend([patch(APP, 200, secret(good())), read(deployment(2, "v2", 3)), written()]);
    let (outcome, seen) = put_back(digest(broken()), script).await;
    assert_eq!(outcome, Ok(Outcome::Done { generation: 7 }));
    let keys = json!({"password": "Z29vZA==", "new": null});
    assert_eq!(seen[7].body, json!({"metadata": {"resourceVersion": "7"}, "data": keys}));

    let mut script = copy(&kept(json!({})));
    script.push(get(APP, 404, failure(404, "NotFound", "not found")));
    script.extend(users());
    script.extend([post(SECRETS, 201, secret(good())), read(deployment(2, "v2", 3)), written()]);
    let (outcome, seen) = put_back(MISSING.to_owned(), script).await;
    assert_eq!(outcome, Ok(Outcome::Done { generation: 7 }));
    let made =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "app"}, "type": "Opaque", "data": good()});
    assert_eq!(seen[7].body, made);
}

#[tokio::test]
async fn overwritten_or_unassessed_secrets_are_not_written() {
    let with_live = |live: Value| {
        let mut script = copy(&kept(json!({})));
        script.push(get(APP, 200, live));
        script
    };
    let owner = json!([{"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "name": "vault", "uid": "u", "controller": true}]);
    let owned = with(secret(broken()), "/metadata/ownerReferences", owner);
    let why = put_back(digest(broken()), with_live(owned)).await.0.unwrap_err();
    assert_eq!(why.reason().name(), "Overwritten");
    let words = "Secret app is written by ExternalSecret vault, which would overwrite a rollback: change the content at its source";
    assert_eq!(why.to_string(), words);
    let mut gone = copy(&kept(json!({"overwrittenBy": "ExternalSecret vault"})));
    gone.push(get(APP, 404, failure(404, "NotFound", "not found")));
    assert_eq!(put_back(MISSING.to_owned(), gone).await.0.unwrap_err().to_string(), words);
    let immutable = with(secret(broken()), "/immutable", true.into());
    let why = put_back(digest(broken()), with_live(immutable)).await.0.unwrap_err();
    assert_eq!(why.reason().name(), "Immutable");
    assert!(why.to_string().contains("kubectl get secret copy -o jsonpath='{.data.app}' | base64 -d"), "{why}");
    refused(put_back(digest(broken()), with_live(secret(json!({"third": "eA=="})))).await.0, "Superseded", false);
    // Somebody else's copy.
    refused(put_back(digest(broken()), copy(&json!({"data": {"password": "eA=="}}))).await.0, "TargetGone", false);
    let mut lost = copy(&Value::Null);
    lost[1] = get(&format!("{SECRETS}/copy"), 404, failure(404, "NotFound", "not found"));
    refused(put_back(digest(broken()), lost).await.0, "TargetGone", false);
}

async fn keep(data: Value, more: Vec<Exchange>) -> (Result<(), ActError>, Vec<Seen>) {
    let mut script = vec![read(deployment(2, "v2", 3)), get(APP, 200, secret(data.clone()))];
    script.extend(more);
    let (client, task) = server(script);
    let owner = OwnerReference { name: "shop".into(), ..OwnerReference::default() };
    let copy = SnapshotOf { name: "copy".into(), labels: [("l".into(), "m".into())].into(), owner };
    let object = ConfigObject { kind: ConfigKind::Secret, name: "app".into(), digest: digest(data) };
    let state = GoodState { template: bad().digest, objects: vec![object] };
    let kubernetes = Kubernetes::new(client).with_key(key());
    let outcome = kubernetes.on(API).snapshot(copy, &state).await;
    drop(kubernetes);
    (outcome, task.await.unwrap())
}

#[tokio::test]
async fn the_content_of_secrets_is_stored_beside_the_snapshot_and_not_in_it() {
    let revision = json!({"kind": "ControllerRevision", "apiVersion": "apps/v1", "metadata": {}, "revision": 1});
    let exists = failure(409, "AlreadyExists", "secrets \"copy\" already exists");
    for of_secrets in [post(SECRETS, 201, secret(json!({}))), post(SECRETS, 409, exists)] {
        let (outcome, seen) = keep(good(), vec![of_secrets, post(REVISIONS, 201, revision.clone())]).await;
        assert_eq!(outcome, Ok(()));
        let made: Secret = parse(seen[2].body.clone());
        assert_eq!((made.immutable, made.type_.as_deref()), (Some(true), Some("Opaque")));
        assert_eq!(made.metadata.labels.unwrap()["l"], "m");
        assert_eq!(made.metadata.owner_references.unwrap()[0].name, "shop");
        let held: Value = serde_json::from_slice(&made.data.unwrap()["app"].0).unwrap();
        assert_eq!(held, kept(json!({})));
        assert_eq!(seen[3].body["data"]["secretCopy"], json!("copy"));
        let names: BTreeSet<&String> = seen[3].body["data"].as_object().unwrap().keys().collect();
        assert!(!seen[3].body.to_string().contains("Z29vZA"), "{names:?}");
    }
    let large = json!({"password": "eHh4".repeat(250_001)});
    let why = keep(large, vec![]).await.0.unwrap_err();
    assert!(why.to_string().contains("its Secrets are 1"), "{why}");
}
