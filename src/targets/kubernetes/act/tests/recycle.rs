//! Pods are evicted one at a time, within their budgets, and each once.

use super::*;
use crate::{
    api::{ActionKind, LeakingPod},
    targets::kubernetes::{Recycled, Waits, fake_server::post, fixtures::pod},
};

const PODS: &str = "/api/v1/namespaces/shop/pods?&labelSelector=app%3Dapi";
const ACCESS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// A ready pod of the Deployment, named `pod-ID` with uid `uid-ID`.
fn ours(id: &str) -> Value {
    let pod = with(pod("bbb", id), "/metadata/name", format!("pod-{id}").into());
    with(pod, "/metadata/uid", format!("uid-{id}").into())
}

fn not_ready(pod: Value) -> Value {
    with(pod, "/status/conditions", json!([{"type": "Ready", "status": "False"}]))
}

fn leaving(pod: Value) -> Value {
    with(pod, "/metadata/deletionTimestamp", "2026-01-01T00:00:00Z".into())
}

fn of_another(pod: Value) -> Value {
    with(pod, "/metadata/ownerReferences/0/uid", "somebody".into())
}

/// What is read before anything is done: the Deployment of three pods, its ReplicaSets, the pods.
fn observe(pods: Vec<Value>) -> Vec<Exchange> {
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods});
    vec![read(deployment(2, "v2", 3)), both(), get(PODS, 200, list)]
}

fn three() -> Vec<Value> {
    ["a", "b", "c"].map(ours).into()
}

fn evicted(name: &str, status: u16, answer: Value) -> Exchange {
    post(&format!("/api/v1/namespaces/shop/pods/{name}/eviction?"), status, answer)
}

fn done() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201})
}

fn too_few() -> Value {
    let mut answer =
        failure(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
    let words = "The disruption budget api needs 3 healthy pods and has 3 currently";
    answer["details"] = json!({"causes": [{"reason": "DisruptionBudget", "message": words}]});
    answer
}

fn plan(ids: &[&str]) -> Vec<LeakingPod> {
    let pod = |id: &&str| LeakingPod { name: format!("pod-{id}"), uid: format!("uid-{id}"), value: None };
    ids.iter().map(pod).collect()
}

async fn recycle(script: Vec<Exchange>, ids: &[&str]) -> (Result<Recycled, ActError>, Vec<Seen>) {
    let (client, task) = server(script);
    let outcome = Kubernetes::new(client).recycle_one(API, Some(&bad()), &plan(ids)).await;
    (outcome, task.await.unwrap())
}

fn then(mut script: Vec<Exchange>, last: Exchange) -> Vec<Exchange> {
    script.push(last);
    script
}

#[tokio::test]
async fn the_first_pod_of_the_plan_that_is_still_there_is_evicted_as_it_was_seen() {
    let (outcome, seen) = recycle(then(observe(three()), evicted("pod-b", 201, done())), &["gone", "b", "a"]).await;
    assert_eq!(outcome, Ok(Recycled::One { pod: "pod-b".into(), left: 1 }));
    let eviction = &seen[3].body;
    assert_eq!(eviction["deleteOptions"]["preconditions"], json!({"uid": "uid-b"}), "{eviction}");
    assert_eq!(recycle(observe(three()), &["gone", "gone too"]).await.0, Ok(Recycled::All));
    let strange = observe(vec![ours("a"), ours("b"), ours("c"), of_another(ours("d"))]);
    assert_eq!(recycle(strange, &["d"]).await.0, Ok(Recycled::All), "another one's pod is never touched");
}

#[tokio::test]
async fn none_is_evicted_while_another_one_is_missing() {
    for (pods, words) in [
        (vec![ours("a"), ours("b")], "3 pods to be ready, of which 2 are"),
        (vec![ours("a"), ours("b"), not_ready(ours("c"))], "3 pods to be ready, of which 2 are"),
        (vec![ours("a"), ours("b"), ours("c"), leaving(ours("d"))], "pod pod-d to be gone"),
    ] {
        let waits = Recycled::Waits(Waits::Pods(words.to_owned()));
        assert_eq!(recycle(observe(pods.clone()), &["a"]).await.0, Ok(waits.clone()));
        // Also not over when the plan is done: the last replacement has to be ready.
        assert_eq!(recycle(observe(pods), &["gone"]).await.0, Ok(waits));
    }
}

#[tokio::test]
async fn a_budget_that_says_no_is_heard_and_a_busy_api_server_is_not_a_budget() {
    let budget = Waits::Budget("The disruption budget api needs 3 healthy pods and has 3 currently".into());
    let refused = then(observe(three()), evicted("pod-a", 429, too_few()));
    assert_eq!(recycle(refused, &["a"]).await.0, Ok(Recycled::Waits(budget)));
    let busy = then(observe(three()), evicted("pod-a", 429, failure(429, "TooManyRequests", "too many requests")));
    let error = recycle(busy, &["a"]).await.0.unwrap_err();
    assert_eq!((error.reason().name(), error.retryable()), ("Unreachable", true));
    let two = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    let several = then(observe(three()), evicted("pod-a", 500, failure(500, "InternalError", two)));
    assert_eq!(recycle(several, &["a"]).await.0, Ok(Recycled::Waits(Waits::Budget(two.into()))));
    let gone = then(observe(three()), evicted("pod-a", 409, failure(409, "Conflict", "uid in precondition: uid-a")));
    assert_eq!(recycle(gone, &["a"]).await.0, Ok(Recycled::Waits(Waits::Pods("pod pod-a to be gone".into()))));
}

#[tokio::test]
async fn another_template_is_somebody_elses_release() {
    let third = vec![read(deployment(3, "v3", 3))];
    assert_eq!(recycle(third, &["a"]).await.0.unwrap_err().reason().name(), "Superseded");
}

/// The answer to: may I?
fn access(allowed: bool) -> Exchange {
    post(
        ACCESS,
        201,
        json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {}, "status": {"allowed": allowed}}),
    )
}

async fn preflight(action: ActionKind, script: Vec<Exchange>) -> (Result<(), ActError>, Vec<Seen>) {
    let (client, task) = server(script);
    let outcome = Kubernetes::new(client).preflight(API, action, (Some(&bad()), None), None).await;
    (outcome, task.await.unwrap())
}

#[tokio::test]
async fn what_would_be_refused_is_known_before_anything_is_begun() {
    for (action, verb, resource, subresource) in [
        (ActionKind::Restart, "patch", "deployments", Value::Null),
        (ActionKind::Rollback, "patch", "deployments", Value::Null),
        (ActionKind::CleanupMemory, "create", "pods", json!("eviction")),
    ] {
        let (outcome, seen) = preflight(action, vec![access(false)]).await;
        let error = outcome.unwrap_err();
        assert_eq!((error.reason().name(), error.retryable()), ("Forbidden", false));
        assert!(error.to_string().contains(&format!("not allowed to {verb} {resource}")), "{error}");
        let asked = &seen[0].body["spec"]["resourceAttributes"];
        assert_eq!((&asked["verb"], &asked["resource"]), (&json!(verb), &json!(resource)), "{asked}");
        assert_eq!((&asked["subresource"], &asked["namespace"]), (&subresource, &json!(NS)), "{asked}");
    }
    assert_eq!(preflight(ActionKind::Restart, vec![access(true)]).await.0, Ok(()));
    let asked = |status, answer| {
        let mut script = vec![access(true)];
        script.extend(then(observe(three()), evicted("pod-a", status, answer)));
        script
    };
    let (outcome, seen) = preflight(ActionKind::CleanupMemory, asked(201, done())).await;
    assert_eq!(outcome, Ok(()));
    assert!(seen[4].path.contains("dryRun=All"), "nothing is evicted: {}", seen[4].path);
    let error = preflight(ActionKind::CleanupMemory, asked(429, too_few())).await.0.unwrap_err();
    assert_eq!(error.reason().name(), "DisruptionBudget");
}
