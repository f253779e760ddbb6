//! StatefulSets and DaemonSets: the template comes from a ControllerRevision, and a StatefulSet's stuck pods go.

use super::*;
use crate::targets::kubernetes::{
    fake_server::delete,
    fixtures::{broken_pod, controller_revision, ended, owned_by, pod, revisioned, waiting},
};

const DB: WorkloadRef<'_> = WorkloadRef { kind: WorkloadKind::StatefulSet, namespace: NS, name: NAME };
const AGENT: WorkloadRef<'_> = WorkloadRef { kind: WorkloadKind::DaemonSet, namespace: NS, name: NAME };
const PODS: &str = "/api/v1/namespaces/shop/pods?&labelSelector=app%3Dapi";

fn path(workload: WorkloadRef<'_>) -> String {
    format!("/apis/apps/v1/namespaces/shop/{}/api", workload.kind.plural())
}

fn of(workload: WorkloadRef<'_>, revision: i64, tag: &str, hash: &str) -> TemplateRef {
    let hash = if workload.kind == WorkloadKind::StatefulSet { format!("{NAME}-{hash}") } else { hash.to_owned() };
    TemplateRef { hash, ..reference(revision, tag, "") }
}

fn object(workload: WorkloadRef<'_>, generation: i64, tag: &str, hash: &str) -> Value {
    revisioned(workload.kind, generation, tag, hash, 3)
}

fn read(workload: WorkloadRef<'_>, object: Value) -> Exchange {
    get(&path(workload), 200, object)
}

fn revisions(items: Vec<Value>) -> Exchange {
    let list = json!({"kind": "ControllerRevisionList", "apiVersion": "apps/v1", "metadata": {}, "items": items});
    get("/apis/apps/v1/namespaces/shop/controllerrevisions?&labelSelector=app%3Dapi", 200, list)
}

fn both(workload: WorkloadRef<'_>) -> Exchange {
    let revision = |number, tag, hash| controller_revision(workload.kind, number, tag, hash);
    revisions(vec![revision(1, "v1", "aaa"), revision(2, "v2", "bbb")])
}

fn written(workload: WorkloadRef<'_>) -> Exchange {
    patch(&format!("{}?&fieldManager=panacea-remediation", path(workload)), 200, object(workload, 3, "v1", "aaa"))
}

fn pods(items: Vec<Value>) -> Exchange {
    get(PODS, 200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn stuck(name: &str, hash: &str) -> Value {
    owned_by(DB.kind, broken_pod(hash, "1", 3, waiting("CrashLoopBackOff"), ended(1, "Error", 5)), name, hash)
}

fn ready(name: &str, hash: &str) -> Value {
    owned_by(DB.kind, pod(hash, "1"), name, hash)
}

fn deleted(name: &str, status: u16) -> Exchange {
    let answer = if status == 200 { stuck(name, "bbb") } else { failure(status, "", "no") };
    delete(&format!("/api/v1/namespaces/shop/pods/{name}?"), status, answer)
}

/// One check for blocking pods, after v1 is restored and its controller has observed the template.
fn observe(found: Vec<Value>) -> [Exchange; 3] {
    let revision = |number, tag, hash| controller_revision(DB.kind, number, tag, hash);
    let history = revisions(vec![revision(3, "v1", "aaa"), revision(2, "v2", "bbb")]);
    [read(DB, object(DB, 3, "v1", "aaa")), history, pods(found)]
}

async fn rollback(workload: WorkloadRef<'_>, script: Vec<Exchange>) -> (Result<Outcome, ActError>, Vec<Seen>) {
    let (client, task) = server(script);
    let (from, to) = (of(workload, 2, "v2", "bbb"), of(workload, 1, "v1", "aaa"));
    let outcome = Kubernetes::new(client).on(workload).rollback(&from, &to).await;
    (outcome, task.await.unwrap())
}

/// The write, and what comes before it.
fn write(workload: WorkloadRef<'_>) -> Vec<Exchange> {
    vec![read(workload, object(workload, 2, "v2", "bbb")), both(workload), written(workload)]
}

#[tokio::test]
async fn the_template_of_the_revision_is_restored_without_the_patch_around_it() {
    for workload in [DB, AGENT] {
        let mut script = write(workload);
        if workload == DB {
            script.extend(observe(vec![ready("api-2", "bbb"), stuck("api-1", "aaa")]));
        }
        let (outcome, seen) = rollback(workload, script).await;
        assert_eq!(outcome, Ok(Outcome::Done { generation: 3 }), "{workload}");
        assert_eq!(
            seen[2].body,
            json!([
                {"op": "replace", "path": "/metadata/resourceVersion", "value": "100"},
                {"op": "replace", "path": "/spec/template", "value": with(template("v1"), "/metadata/creationTimestamp", Value::Null)},
            ])
        );
        assert_eq!(seen[2].content_type, "application/json-patch+json");
    }
}

#[tokio::test]
async fn only_the_blocking_pod_is_deleted_under_preconditions() {
    let others = || {
        let of_another = with(stuck("api-7", "bbb"), "/metadata/ownerReferences/0/uid", "w-0".into());
        vec![ready("api-3", "bbb"), stuck("api-0", "aaa"), of_another]
    };
    let all = |mut more: Vec<Value>| {
        more.extend(others());
        more
    };
    let going = with(stuck("api-10", "bbb"), "/metadata/deletionTimestamp", "2026-01-01T00:00:00Z".into());
    let mut script = write(DB);
    // Before its controller has seen the write, the same pod would come again.
    script.push(read(DB, with(object(DB, 3, "v1", "aaa"), "/status/observedGeneration", 2.into())));
    script.extend(observe(all(vec![stuck("api-10", "bbb"), stuck("api-2", "bbb")])));
    script.push(deleted("api-10", 200));
    // One at a time.
    script.extend(observe(all(vec![going, stuck("api-2", "bbb")])));
    script.extend(observe(all(vec![ready("api-10", "aaa"), stuck("api-2", "bbb")])));
    script.push(deleted("api-2", 200));
    // It came back with the bad template: not in a loop.
    script.extend(observe(all(vec![stuck("api-2", "bbb")])));
    script.extend(observe(all(vec![])));
    let (outcome, seen) = rollback(DB, script).await;
    assert_eq!(outcome, Ok(Outcome::Done { generation: 3 }));
    let preconditions = json!({"uid": "pod-api-2", "resourceVersion": "95"});
    assert_eq!(seen.iter().find(|seen| seen.path.contains("pods/api-2")).unwrap().body["preconditions"], preconditions);
}

#[tokio::test]
async fn a_crash_between_the_write_and_the_deletion_leaves_nothing_undone() {
    // The second life finds the template back, and the pod still there.
    let mut script = vec![
        read(DB, object(DB, 3, "v1", "aaa")),
        revisions(vec![controller_revision(DB.kind, 3, "v1", "aaa"), controller_revision(DB.kind, 2, "v2", "bbb")]),
    ];
    script.extend(observe(vec![stuck("api-2", "bbb")]));
    script.push(deleted("api-2", 200));
    script.extend(observe(vec![]));
    assert_eq!(rollback(DB, script).await.0, Ok(Outcome::AlreadyDone));
}

#[tokio::test]
async fn a_pod_that_changed_in_the_meantime_is_checked_again() {
    for status in [404, 409] {
        let mut script = write(DB);
        script.extend(observe(vec![stuck("api-2", "bbb")]));
        script.push(deleted("api-2", status));
        script.extend(observe(vec![ready("api-2", "bbb")]));
        assert_eq!(rollback(DB, script).await.0, Ok(Outcome::Done { generation: 3 }), "{status}");
    }
}

#[tokio::test]
async fn a_missing_right_to_delete_pods_is_reported() {
    let mut script = write(DB);
    script.extend(observe(vec![stuck("api-2", "bbb")]));
    script.push(deleted("api-2", 403));
    let error = rollback(DB, script).await.0.unwrap_err();
    assert_eq!((error.reason().name(), error.retryable()), ("Forbidden", false));
    assert!(error.to_string().starts_with("not allowed to delete pods: no; StatefulSet shop/api"), "{error}");
}

#[tokio::test]
async fn nothing_is_deleted_without_ordered_replacement_or_after_a_newer_release() {
    let parallel = |generation, tag: &str, hash: &str| {
        with(object(DB, generation, tag, hash), "/spec/podManagementPolicy", "Parallel".into())
    };
    let script = vec![read(DB, parallel(2, "v2", "bbb")), both(DB), written(DB), read(DB, parallel(3, "v1", "aaa"))];
    assert_eq!(rollback(DB, script).await.0, Ok(Outcome::Done { generation: 3 }));
    let mut script = write(DB);
    script.push(read(DB, object(DB, 4, "v3", "ccc")));
    assert_eq!(rollback(DB, script).await.0, Ok(Outcome::Done { generation: 3 }));
}

#[tokio::test]
async fn a_pod_that_still_blocks_ends_the_call_in_time_with_a_retry() {
    let (client, task) = server(write(DB).into_iter().chain([hangs(read(DB, Value::Null))]).collect());
    let started = std::time::Instant::now();
    let (from, to) = (of(DB, 2, "v2", "bbb"), of(DB, 1, "v1", "aaa"));
    let error = Kubernetes::new(client).on(DB).rollback(&from, &to).await.unwrap_err();
    assert!(error.retryable() && started.elapsed().as_secs() < 30, "{error}");
    drop(task);
}

#[tokio::test]
async fn rollbacks_that_are_refused() {
    for workload in [DB, AGENT] {
        let third = read(workload, object(workload, 3, "v3", "ccc"));
        refused(rollback(workload, vec![third, both(workload)]).await.0, "Superseded", false);
        let gone = revisions(vec![controller_revision(workload.kind, 2, "v2", "bbb")]);
        refused(
            rollback(workload, vec![read(workload, object(workload, 2, "v2", "bbb")), gone]).await.0,
            "TargetGone",
            false,
        );
        let on_delete = with(object(workload, 2, "v2", "bbb"), "/spec/updateStrategy/type", "OnDelete".into());
        refused(rollback(workload, vec![read(workload, on_delete)]).await.0, "OnDelete", false);
        let owned =
            with(object(workload, 2, "v2", "bbb"), "/metadata/labels", json!({"helm.toolkit.fluxcd.io/name": "api"}));
        refused(rollback(workload, vec![read(workload, owned)]).await.0, "GitOpsOwned", false);
        let missing = get(&path(workload), 404, failure(404, "NotFound", "not found"));
        let error = rollback(workload, vec![missing]).await.0.unwrap_err();
        assert_eq!(error.to_string(), format!("{workload} does not exist"));
    }
}

#[tokio::test]
async fn a_restart_replaces_pods_that_block_the_rollout() {
    let stamp = |object, pointer: &str| {
        with(object, &format!("{pointer}/metadata/annotations"), json!({RESTARTED_AT: "2026-01-01T00:00:00Z"}))
    };
    let after = || stamp(object(DB, 3, "v2", "ccc"), "/spec/template");
    let history = || {
        let new = stamp(controller_revision(DB.kind, 3, "v2", "ccc"), "/data/spec/template");
        revisions(vec![controller_revision(DB.kind, 2, "v2", "bbb"), new])
    };
    let script = vec![
        read(DB, object(DB, 2, "v2", "bbb")),
        written(DB),
        read(DB, after()),
        history(),
        // The new one is only starting.
        pods(vec![stuck("api-0", "bbb"), stuck("api-1", "ccc")]),
        deleted("api-0", 200),
        read(DB, after()),
        history(),
        pods(vec![stuck("api-0", "ccc"), stuck("api-1", "ccc")]),
    ];
    let (client, task) = server(script);
    let from = of(DB, 2, "v2", "bbb");
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    let outcome = Kubernetes::new(client).on(DB).restart(Some(&from), at).await;
    task.await.unwrap();
    assert_eq!(outcome, Ok(Outcome::Done { generation: 3 }));
}
