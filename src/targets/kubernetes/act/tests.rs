use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};

use super::*;
use crate::targets::kubernetes::{
    digest,
    fake_server::{Exchange, Seen, failure, get, hangs, patch, server},
    fixtures::{NAME, NS, deployment, parse, replica_set, template, with},
};

mod config;
mod recycle;
mod revisions;
mod rollouts;
mod secrets;
mod suspend;

const API: WorkloadRef<'_> = WorkloadRef { kind: WorkloadKind::Deployment, namespace: NS, name: NAME };
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/api";
const SETS: &str = "/apis/apps/v1/namespaces/shop/replicasets?&labelSelector=app%3Dapi";
const MANAGER: &str = "/apis/apps/v1/namespaces/shop/deployments/api?&fieldManager=panacea-remediation";

fn reference(revision: i64, tag: &str, hash: &str) -> TemplateRef {
    TemplateRef { revision, hash: hash.into(), digest: digest(&parse::<PodTemplateSpec>(template(tag))).to_string() }
}

fn good() -> TemplateRef {
    reference(1, "v1", "aaa")
}

fn bad() -> TemplateRef {
    reference(2, "v2", "bbb")
}

fn read(object: Value) -> Exchange {
    get(DEPLOYMENT, 200, object)
}

fn sets(items: Vec<Value>) -> Exchange {
    get(SETS, 200, json!({"kind": "ReplicaSetList", "apiVersion": "apps/v1", "metadata": {}, "items": items}))
}

fn both() -> Exchange {
    sets(vec![replica_set(1, "v1", "aaa"), replica_set(2, "v2", "bbb")])
}

fn written() -> Exchange {
    patch(MANAGER, 200, with(deployment(3, "v1", 3), "/metadata/generation", 7.into()))
}

fn conflict() -> Exchange {
    patch(MANAGER, 409, failure(409, "Conflict", "the object has been modified"))
}

/// Rolls `v2` back to `v1` on a server with that script; nothing else may be asked.
async fn rollback(script: Vec<Exchange>) -> (Result<Outcome, ActError>, Vec<Seen>) {
    let (client, task) = server(script);
    let outcome = Kubernetes::new(client).on(API).rollback(&bad(), &good()).await;
    (outcome, task.await.unwrap())
}

async fn restart(script: Vec<Exchange>, from: Option<TemplateRef>) -> (Result<Outcome, ActError>, Vec<Seen>) {
    let (client, task) = server(script);
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    let outcome = Kubernetes::new(client).on(API).restart(from.as_ref(), at).await;
    (outcome, task.await.unwrap())
}

/// No write: the script has none.
#[track_caller]
fn refused(outcome: Result<Outcome, ActError>, reason: &str, retryable: bool) {
    let error = outcome.unwrap_err();
    assert_eq!((error.reason().name(), error.retryable()), (reason, retryable), "{error}");
}

#[tokio::test]
async fn a_rollback_writes_the_old_template_and_nothing_else() {
    let strange = |set: Value| with(set, "/spec/template/spec/fieldOfTomorrow", 1.into());
    let script = vec![
        read(deployment(2, "v2", 3)),
        sets(vec![strange(replica_set(1, "v1", "aaa")), replica_set(2, "v2", "bbb")]),
        written(),
    ];
    let (outcome, seen) = rollback(script).await;
    assert_eq!(outcome, Ok(Outcome::Done { generation: 7 }));
    assert_eq!(seen[2].content_type, "application/json-patch+json");
    assert_eq!(
        seen[2].body,
        json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": "100"},
            {"op": "replace", "path": "/spec/template", "value": with(template("v1"), "/spec/fieldOfTomorrow", 1.into())},
        ]),
        "no pod-template-hash, and what this version does not know is kept"
    );
    assert!(seen[1].path.contains("limit=500"));
}

#[tokio::test]
async fn a_performed_rollback_writes_nothing() {
    // The deployment controller has made the old ReplicaSet the newest.
    let done = vec![read(deployment(3, "v1", 3)), sets(vec![replica_set(3, "v1", "aaa"), replica_set(2, "v2", "bbb")])];
    assert_eq!(rollback(done).await.0, Ok(Outcome::AlreadyDone));
    // It has not seen our write yet.
    let fresh = with(deployment(2, "v1", 3), "/metadata/generation", 3.into());
    assert_eq!(rollback(vec![read(fresh), both()]).await.0, Ok(Outcome::AlreadyDone));
}

#[tokio::test]
async fn a_newer_release_is_never_overwritten() {
    let third = || read(deployment(3, "v3", 3));
    let all = || sets(vec![replica_set(1, "v1", "aaa"), replica_set(2, "v2", "bbb"), replica_set(3, "v3", "ccc")]);
    refused(rollback(vec![third(), all()]).await.0, "Superseded", false);
    // Between our reading and our writing.
    refused(
        rollback(vec![read(deployment(2, "v2", 3)), both(), conflict(), third(), all()]).await.0,
        "Superseded",
        false,
    );
}

#[tokio::test]
async fn a_conflict_over_another_field_is_retried() {
    let scaled = with(deployment(2, "v2", 5), "/metadata/resourceVersion", "101".into());
    let script = vec![read(deployment(2, "v2", 3)), both(), conflict(), read(scaled), both(), written()];
    let (outcome, seen) = rollback(script).await;
    assert_eq!(outcome, Ok(Outcome::Done { generation: 7 }));
    assert_eq!(seen[5].body[0]["value"], "101");
    let lost = (0..5).flat_map(|_| [read(deployment(2, "v2", 3)), both(), conflict()]).collect();
    refused(rollback(lost).await.0, "Conflict", true);
}

#[tokio::test]
async fn a_restarted_bad_template_is_as_bad_as_before() {
    let restarted = with(deployment(3, "v2", 3), "/spec/template/metadata/annotations", json!({RESTARTED_AT: "x"}));
    let script = vec![
        read(restarted),
        sets(vec![replica_set(1, "v1", "aaa"), replica_set(2, "v2", "bbb"), replica_set(3, "v2", "ccc")]),
        written(),
    ];
    assert_eq!(rollback(script).await.0, Ok(Outcome::Done { generation: 7 }));
}

#[tokio::test]
async fn rollbacks_that_are_refused() {
    let paused = with(deployment(2, "v2", 3), "/spec/paused", true.into());
    refused(rollback(vec![read(paused)]).await.0, "Paused", false);
    let owned = with(deployment(2, "v2", 3), "/metadata/labels", json!({"helm.toolkit.fluxcd.io/name": "api"}));
    refused(rollback(vec![read(owned)]).await.0, "GitOpsOwned", false);
    let going = with(deployment(2, "v2", 3), "/metadata/deletionTimestamp", "2026-01-01T00:00:00Z".into());
    refused(rollback(vec![read(going)]).await.0, "NotFound", false);
    let missing = get(DEPLOYMENT, 404, failure(404, "NotFound", "deployments.apps \"api\" not found"));
    refused(rollback(vec![missing]).await.0, "NotFound", false);
}

#[tokio::test]
async fn a_target_that_is_gone() {
    let check = async |set: Vec<Value>| {
        refused(rollback(vec![read(deployment(2, "v2", 3)), sets(set)]).await.0, "TargetGone", false);
    };
    check(vec![replica_set(2, "v2", "bbb")]).await;
    // Of an earlier Deployment of this name.
    check(vec![with(replica_set(1, "v1", "aaa"), "/metadata/ownerReferences/0/uid", "d-0".into())]).await;
    // Not what was seen healthy.
    check(vec![replica_set(1, "v0", "aaa")]).await;
}

#[tokio::test]
async fn refusals_of_the_api_server() {
    let check = async |status: u16, message: &str, reason: &str, retryable: bool| {
        let answer = patch(MANAGER, status, failure(status, "", message));
        refused(rollback(vec![read(deployment(2, "v2", 3)), both(), answer]).await.0, reason, retryable);
    };
    check(403, "deployments.apps \"api\" is forbidden: cannot patch", "Forbidden", false).await;
    check(403, "admission webhook \"policy.example\" denied the request", "WriteRejected", false).await;
    check(422, "Deployment.apps \"api\" is invalid", "WriteRejected", false).await;
    check(400, "bad request", "WriteRejected", false).await;
    check(429, "too many requests", "Unreachable", true).await;
    check(503, "etcd is unavailable", "Unreachable", true).await;
    let forbidden = get(DEPLOYMENT, 403, failure(403, "Forbidden", "no"));
    let error = rollback(vec![forbidden]).await.0.unwrap_err();
    assert_eq!(error.to_string(), "not allowed to get deployments: no");
}

#[tokio::test]
async fn a_write_without_a_response_ends_in_time() {
    let (client, task) = server(vec![read(deployment(2, "v2", 3)), both(), hangs(written())]);
    let started = std::time::Instant::now();
    refused(Kubernetes::new(client).on(API).rollback(&bad(), &good()).await, "Timeout", true);
    assert!(started.elapsed() < ACTION_LIMIT);
    drop(task);
}

#[tokio::test]
async fn a_restart_sets_the_annotation() {
    let (outcome, seen) = restart(vec![read(deployment(2, "v2", 3)), written()], Some(bad())).await;
    assert_eq!(outcome, Ok(Outcome::Done { generation: 7 }));
    assert_eq!(seen[1].content_type, "application/merge-patch+json");
    assert_eq!(
        seen[1].body,
        json!({
            "metadata": {"resourceVersion": "100"},
            "spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: "2026-01-01T00:00:00Z"}}}},
        })
    );
}

#[tokio::test]
async fn a_restart_happens_once() {
    let stamped =
        |at: &str| with(deployment(2, "v2", 3), "/spec/template/metadata/annotations", json!({RESTARTED_AT: at}));
    let done = vec![read(stamped("2026-01-01T00:00:00Z"))];
    assert_eq!(restart(done, Some(bad())).await.0, Ok(Outcome::AlreadyDone));
    let earlier = vec![read(stamped("2025-01-01T00:00:00Z")), written()];
    assert_eq!(restart(earlier, None).await.0, Ok(Outcome::Done { generation: 7 }));
    let after_conflict = vec![read(deployment(2, "v2", 3)), conflict(), read(stamped("2026-01-01T00:00:00Z"))];
    assert_eq!(restart(after_conflict, None).await.0, Ok(Outcome::AlreadyDone));
}

#[tokio::test]
async fn restarts_that_are_refused() {
    let paused = with(deployment(2, "v2", 3), "/spec/paused", true.into());
    refused(restart(vec![read(paused)], None).await.0, "Paused", false);
    refused(restart(vec![read(deployment(3, "v3", 3))], Some(bad())).await.0, "Superseded", false);
}

#[tokio::test]
async fn a_performed_action_is_detected_without_a_write() {
    for (tag, made) in [("v2", false), ("v1", true)] {
        let revision = if made { 1 } else { 2 };
        let (client, task) = server(vec![read(deployment(revision, tag, 3)), both()]);
        let kubernetes = Kubernetes::new(client);
        assert_eq!(kubernetes.on(API).is_rolled_back(&bad(), &good()).await, Ok(made), "{tag}");
        drop(kubernetes);
        task.await.unwrap();
        let (client, task) = server(vec![read(deployment(revision, tag, 3))]);
        let kubernetes = Kubernetes::new(client);
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(kubernetes.on(API).is_restarted(None, at).await, Ok(false), "{tag}");
        drop(kubernetes);
        task.await.unwrap();
    }
}
