//! Rollouts of Argo Rollouts: aborted, undone, promoted, restarted.

use super::*;
use crate::targets::kubernetes::{
    fake_server::post,
    fixtures::{broken_pod, defaulted, ended, of_rollout, pod, rollout, rollout_set, waiting},
};

const WEB: WorkloadRef<'_> = WorkloadRef { kind: WorkloadKind::Rollout, namespace: NS, name: NAME };
const PATH: &str = "/apis/argoproj.io/v1alpha1/namespaces/shop/rollouts/api";
const SPEC: &str = "/apis/argoproj.io/v1alpha1/namespaces/shop/rollouts/api?&fieldManager=panacea-remediation";
const STATUS: &str = "/apis/argoproj.io/v1alpha1/namespaces/shop/rollouts/api/status?&fieldManager=panacea-remediation";

fn of(revision: i64, tag: &str, hash: &str) -> TemplateRef {
    let template = parse::<PodTemplateSpec>(defaulted(tag));
    TemplateRef { revision, hash: hash.into(), digest: digest(&template).to_string() }
}

fn sets() -> Exchange {
    super::sets(vec![rollout_set(1, "v1", "aaa"), rollout_set(2, "v2", "bbb")])
}

/// One read: the Rollout, and its ReplicaSets for the digest.
fn observe(object: &Value) -> [Exchange; 2] {
    [get(PATH, 200, object.clone()), sets()]
}

/// The reads of a rollback before a write.
fn reads(object: &Value) -> Vec<Exchange> {
    observe(object).into_iter().chain([sets()]).collect()
}

fn bad_canary() -> Value {
    rollout(2, "v2", ("bbb", "aaa"), 3)
}

/// After the template was written; its controller has seen it when `current` is said.
fn undone(current: Option<&str>) -> Value {
    let object = rollout(3, "v1", (current.unwrap_or("bbb"), "aaa"), 3);
    let object = with(object, "/spec/template", defaulted("v1"));
    with(object, "/status/observedGeneration", if current.is_some() { "3" } else { "2" }.into())
}

async fn rollback(script: Vec<Exchange>) -> (Result<Outcome, ActError>, Vec<Seen>) {
    let (client, task) = server(script);
    let outcome = Kubernetes::new(client).on(WEB).rollback(&of(2, "v2", "bbb"), &of(1, "v1", "aaa")).await;
    (outcome, task.await.unwrap())
}

#[tokio::test]
async fn a_running_update_is_aborted_and_its_template_restored() {
    let aborted = with(bad_canary(), "/status/abort", true.into());
    let mut script = reads(&bad_canary());
    script.extend(observe(&bad_canary()));
    script.push(patch(STATUS, 200, aborted.clone()));
    script.extend(reads(&aborted));
    script.push(patch(SPEC, 200, undone(None)));
    script.extend(observe(&undone(Some("aaa"))));
    let (outcome, seen) = rollback(script).await;
    assert_eq!(outcome, Ok(Outcome::Done { generation: 3 }));
    assert_eq!(seen[5].content_type, "application/merge-patch+json");
    assert_eq!(seen[5].body, json!({"metadata": {"resourceVersion": "100"}, "status": {"abort": true}}));
    assert_eq!(
        seen[9].body,
        json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": "100"},
            {"op": "replace", "path": "/spec/template", "value": defaulted("v1")},
        ]),
        "without the label of the hash"
    );
}

#[tokio::test]
async fn a_performed_action_is_not_repeated() {
    // Aborted, and not undone yet: the template alone.
    let aborted = with(bad_canary(), "/status/abort", true.into());
    let mut script = reads(&aborted);
    script.extend(observe(&aborted));
    script.extend(reads(&aborted));
    script.push(patch(SPEC, 200, undone(None)));
    script.extend(observe(&undone(Some("aaa"))));
    assert_eq!(rollback(script).await.0, Ok(Outcome::Done { generation: 3 }));
    // Undone, and its controller has seen it.
    let mut script = reads(&undone(Some("aaa")));
    script.extend(reads(&undone(Some("aaa"))));
    script.extend(observe(&undone(Some("aaa"))));
    assert_eq!(rollback(script).await.0, Ok(Outcome::AlreadyDone));
    // Undone, and its controller has not.
    let fresh = || vec![get(PATH, 200, undone(None)), sets()];
    let mut script = fresh();
    script.extend(fresh());
    script.extend([get(PATH, 200, undone(None))]);
    script.extend(observe(&undone(Some("aaa"))));
    assert_eq!(rollback(script).await.0, Ok(Outcome::AlreadyDone));
}

#[tokio::test]
async fn an_unstable_template_is_promoted_past_all_steps() {
    let stable = rollout(2, "v2", ("bbb", "bbb"), 3);
    let under_way = with(undone(Some("aaa")), "/status/stableRS", "bbb".into());
    let mut script = reads(&stable);
    script.extend(observe(&stable));
    script.extend(reads(&stable));
    script.push(patch(SPEC, 200, under_way.clone()));
    script.extend(observe(&under_way));
    script.push(patch(STATUS, 200, under_way.clone()));
    let (outcome, seen) = rollback(script).await;
    assert_eq!(outcome, Ok(Outcome::Done { generation: 3 }));
    let body = &seen.last().unwrap().body;
    assert_eq!(*body, json!({"metadata": {"resourceVersion": "100"}, "status": {"promoteFull": true}}));
    // The next life does not do it again.
    let promoted = with(under_way, "/status/promoteFull", true.into());
    let mut script = reads(&promoted);
    script.extend(reads(&promoted));
    script.extend(observe(&promoted));
    assert_eq!(rollback(script).await.0, Ok(Outcome::AlreadyDone));
}

#[tokio::test]
async fn rollbacks_that_are_refused() {
    let first = |object: Value| observe(&object).into();
    let only = |object: Value| vec![get(PATH, 200, object)];
    refused(rollback(first(with(bad_canary(), "/spec/paused", true.into()))).await.0, "Paused", false);
    let owned = with(bad_canary(), "/metadata/labels", json!({"argocd.argoproj.io/instance": "shop"}));
    refused(rollback(first(owned)).await.0, "GitOpsOwned", false);
    let source = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let elsewhere = with(with(bad_canary(), "/spec/workloadRef", source), "/spec/selector", Value::Null);
    let (outcome, seen) = rollback(first(elsewhere)).await;
    assert!(outcome.clone().unwrap_err().to_string().contains("from Deployment web"), "{outcome:?}");
    refused(outcome, "TemplateElsewhere", false);
    assert!(seen[1].path.contains("labelSelector=app%3Dapi"), "by the selector in its status");
    // Another release, which its controller has not observed: unknown, so the action is retried.
    let unseen = with(rollout(3, "v3", ("bbb", "aaa"), 3), "/status/observedGeneration", "2".into());
    let mut script = only(unseen);
    script.push(sets());
    refused(rollback(script).await.0, "CouldNotMeasure", true);
    let third = rollout(3, "v3", ("ccc", "aaa"), 3);
    let all =
        || super::sets(vec![rollout_set(1, "v1", "aaa"), rollout_set(2, "v2", "bbb"), rollout_set(3, "v3", "ccc")]);
    refused(rollback(vec![get(PATH, 200, third), all(), all()]).await.0, "Superseded", false);
    let missing = get(PATH, 404, failure(404, "NotFound", "the server could not find the requested resource"));
    refused(rollback(vec![missing]).await.0, "NotFound", false);
}

#[tokio::test]
async fn a_started_rollback_is_detected_by_its_abort() {
    let aborted = |manager: &str| {
        let fields = json!([{"manager": manager, "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {"f:abort": {}}}}]);
        with(with(bad_canary(), "/status/abort", true.into()), "/metadata/managedFields", fields)
    };
    for (manager, begun) in [("panacea-remediation", true), ("kubectl", false)] {
        let mut script = reads(&aborted(manager));
        script.extend(observe(&aborted(manager)));
        let (client, task) = server(script);
        let kubernetes = Kubernetes::new(client);
        assert_eq!(
            kubernetes.on(WEB).is_rolled_back(&of(2, "v2", "bbb"), &of(1, "v1", "aaa")).await,
            Ok(begun),
            "{manager}"
        );
        drop(kubernetes);
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_restart_is_a_time_in_whole_seconds_and_broken_pods_are_evicted() {
    let at = "2026-01-01T00:00:00.250Z".parse().unwrap();
    let restart = async |script: Vec<Exchange>| {
        let (client, task) = server(script);
        let outcome = Kubernetes::new(client).on(WEB).restart(None, at).await;
        (outcome, task.await.unwrap())
    };
    let settled = rollout(1, "v1", ("aaa", "aaa"), 3);
    let mut script: Vec<Exchange> = observe(&settled).into();
    let done = with(settled.clone(), "/spec/restartAt", "2026-01-01T00:00:01Z".into());
    script.push(patch(SPEC, 200, done.clone()));
    script.extend(observe(&done));
    script.push(sets());
    let made = |pod: Value, hash: &str, at: &str| with(of_rollout(pod, hash), "/metadata/creationTimestamp", at.into());
    let broken = |id: &str| broken_pod("aaa", id, 3, waiting("CrashLoopBackOff"), ended(1, "Error", 5));
    let old = "2025-12-31T00:00:00Z";
    let items = json!([
        made(pod("aaa", "1"), "aaa", old),
        made(broken("2"), "aaa", old),
        made(broken("3"), "aaa", "2026-01-01T00:00:01Z"),
    ]);
    let pods = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    script.push(get("/api/v1/namespaces/shop/pods?&labelSelector=app%3Dapi", 200, pods));
    script.push(post(
        "/api/v1/namespaces/shop/pods/api-aaa-2/eviction?",
        201,
        json!({"kind": "Status", "apiVersion": "v1"}),
    ));
    let (outcome, seen) = restart(script).await;
    assert_eq!(outcome, Ok(Outcome::Done { generation: 1 }));
    let body = json!({"metadata": {"resourceVersion": "100"}, "spec": {"restartAt": "2026-01-01T00:00:01Z"}});
    assert_eq!(seen[2].body, body);
    // Written already, and no pod is broken.
    let mut script: Vec<Exchange> = observe(&done).into();
    script.extend(observe(&done));
    script.push(sets());
    script.push(get(
        "/api/v1/namespaces/shop/pods?",
        200,
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}),
    ));
    assert_eq!(restart(script).await.0, Ok(Outcome::AlreadyDone));
}
