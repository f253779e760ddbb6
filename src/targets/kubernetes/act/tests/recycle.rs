//! Which pods of a list are left, and how an eviction is answered.

use super::*;
use crate::{
    api::{ActionKind, LeakingPod, RemediationReason},
    targets::kubernetes::{Evicted, PodsSeen, fake_server::post, fixtures::pod},
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

async fn pods_left(script: Vec<Exchange>, ids: &[&str]) -> Result<PodsSeen, ActError> {
    let (client, task) = server(script);
    let outcome = Kubernetes::new(client).on(API).pods_left(Some(&bad()), &plan(ids)).await;
    task.await.unwrap();
    outcome
}

fn left(missing: Option<&str>, ids: &[&str]) -> PodsSeen {
    let left = ids.iter().map(|id| format!("uid-{id}")).collect();
    PodsSeen { superseded: None, missing: missing.map(str::to_owned), left }
}

async fn evict(status: u16, answer: Value) -> (Result<Evicted, ActError>, Vec<Seen>) {
    let (client, task) = server(vec![evicted("pod-a", status, answer)]);
    let outcome = Kubernetes::new(client).on(API).evict_pod(&plan(&["a"])[0]).await;
    (outcome, task.await.unwrap())
}

fn then(mut script: Vec<Exchange>, last: Exchange) -> Vec<Exchange> {
    script.push(last);
    script
}

#[tokio::test]
async fn the_pods_of_the_list_that_exist_are_left_in_its_order() {
    assert_eq!(pods_left(observe(three()), &["gone", "b", "a"]).await, Ok(left(None, &["b", "a"])));
    assert_eq!(pods_left(observe(three()), &["gone", "gone too"]).await, Ok(left(None, &[])));
    let strange = observe(vec![ours("a"), ours("b"), ours("c"), of_another(ours("d"))]);
    assert_eq!(pods_left(strange, &["d"]).await, Ok(left(None, &[])), "the pod of another workload is never evicted");
}

#[tokio::test]
async fn a_pod_that_is_missing_not_ready_or_terminating_is_reported() {
    for (pods, words) in [
        (vec![ours("a"), ours("b")], "3 pods to be ready, of which 2 are"),
        (vec![ours("a"), ours("b"), not_ready(ours("c"))], "3 pods to be ready, of which 2 are"),
        (vec![ours("a"), ours("b"), ours("c"), leaving(ours("d"))], "pod pod-d to be gone"),
    ] {
        assert_eq!(pods_left(observe(pods.clone()), &["a"]).await, Ok(left(Some(words), &["a"])));
        // Also when no pod of the list is left: the last replacement has to be ready.
        assert_eq!(pods_left(observe(pods), &["gone"]).await, Ok(left(Some(words), &[])));
    }
    let terminating = observe(vec![leaving(ours("a")), ours("b"), ours("c")]);
    assert_eq!(pods_left(terminating, &["a", "b"]).await, Ok(left(Some("pod pod-a to be gone"), &["b"])));
}

#[tokio::test]
async fn an_eviction_names_the_uid_and_tells_a_budget_from_a_busy_api_server() {
    let (outcome, seen) = evict(201, done()).await;
    assert_eq!(outcome, Ok(Evicted::Yes));
    let eviction = &seen[0].body;
    assert_eq!(eviction["deleteOptions"]["preconditions"], json!({"uid": "uid-a"}), "{eviction}");
    let budget = Evicted::No("The disruption budget api needs 3 healthy pods and has 3 currently".into());
    assert_eq!(evict(429, too_few()).await.0, Ok(budget));
    let error = evict(429, failure(429, "TooManyRequests", "too many requests")).await.0.unwrap_err();
    assert_eq!((error.reason(), error.retryable()), (RemediationReason::Unreachable, true));
    let two = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    assert_eq!(evict(500, failure(500, "InternalError", two)).await.0, Ok(Evicted::No(two.into())));
    assert_eq!(evict(409, failure(409, "Conflict", "uid in precondition: uid-a")).await.0, Ok(Evicted::Gone));
}

#[tokio::test]
async fn another_template_is_another_release() {
    let mut third = observe(three());
    third[0] = read(deployment(3, "v3", 3));
    let seen = pods_left(third, &["a"]).await.unwrap();
    assert!(matches!(seen.superseded, Some(ActError::Superseded { .. })), "{seen:?}");
    assert_eq!(seen.left, ["uid-a"]);
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
    let outcome = Kubernetes::new(client).on(API).preflight(action, (Some(&bad()), None), None).await;
    (outcome, task.await.unwrap())
}

#[tokio::test]
async fn a_refusal_is_detected_before_the_action_starts() {
    for (action, verb, resource, subresource) in [
        (ActionKind::Restart, "patch", "deployments", Value::Null),
        (ActionKind::Rollback, "patch", "deployments", Value::Null),
        (ActionKind::CleanupMemory, "create", "pods", json!("eviction")),
    ] {
        let (outcome, seen) = preflight(action, vec![access(false)]).await;
        let error = outcome.unwrap_err();
        assert_eq!((error.reason(), error.retryable()), (RemediationReason::Forbidden, false));
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
    assert_eq!(error.reason(), RemediationReason::DisruptionBudget);
}
