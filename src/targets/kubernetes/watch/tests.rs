use serde_json::{Value, json};

use super::*;
use crate::{
    analyze::observation::{Measured, UnknownReason},
    api::WorkloadKind,
    targets::kubernetes::{
        fake_server::{Exchange, failure, get, hangs, server_with_end, watch},
        fixtures::{NAME, NS, deployment, replica_set, see, synced, with},
    },
};

const LIST: &str = "/apis/apps/v1/deployments?&limit=100";
const WATCH: &str = "/apis/apps/v1/deployments?&watch=true&timeoutSeconds=25&allowWatchBookmarks=true&resourceVersion=";

fn page(path: &str, metadata: Value, items: Vec<Value>) -> Exchange {
    get(path, 200, json!({"kind": "DeploymentList", "apiVersion": "apps/v1", "metadata": metadata, "items": items}))
}

fn list(version: &str, items: Vec<Value>) -> Exchange {
    page(LIST, json!({"resourceVersion": version}), items)
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn from(version: &str, events: &[Value]) -> Exchange {
    watch(&format!("{WATCH}{version}"), events)
}

fn at(version: &str) -> Value {
    with(deployment(1, "v1", 3), "/metadata/resourceVersion", version.into())
}

/// Runs the watch of Deployments against a script until its last request has come; it gets no answer.
async fn follow_script(index: &ClusterIndex, mut script: Vec<Exchange>) {
    let last = script.pop().map(hangs);
    script.extend(last);
    let (client, task, ended) = server_with_end(script);
    tokio::select! {
        () = keep::<Deployment>(Api::all(client), "", index) => {}
        ended = timeout(Duration::from_secs(20), ended) => match ended {
            Ok(Ok(())) => {}
            // The server found something wrong with a request: its panic says what.
            _ => drop(task.await.unwrap()),
        }
    }
}

/// With the ReplicaSet there, so that a Deployment is known as soon as it is seen.
fn prepared() -> ClusterIndex {
    let index = synced();
    see(&index, replica_set(1, "v1", "aaa"));
    index
}

fn reason(index: &ClusterIndex) -> Option<UnknownReason> {
    match index.workload(WorkloadKind::Deployment, NS, NAME) {
        Measured::Known(_) => None,
        Measured::Unknown(why) => Some(why.reason),
    }
}

#[tokio::test]
async fn lists_in_pages_then_watches_from_there() {
    let index = prepared();
    let next = format!("{LIST}&continue=token");
    let script = vec![
        page(LIST, json!({"resourceVersion": "10", "continue": "token"}), vec![at("3")]),
        page(&next, json!({"resourceVersion": "10"}), vec![]),
        from(
            "10",
            &[
                event("MODIFIED", at("11")),
                event(
                    "BOOKMARK",
                    json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"resourceVersion": "15"}}),
                ),
            ],
        ),
        from("15", &[]),
        from("15", &[]),
    ];
    follow_script(&index, script).await;
    assert_eq!(reason(&index), None);
}

#[tokio::test]
async fn a_deletion_is_observed() {
    let index = prepared();
    let script = vec![list("10", vec![at("3")]), from("10", &[event("DELETED", at("12"))]), from("12", &[])];
    follow_script(&index, script).await;
    assert_eq!(reason(&index), Some(UnknownReason::TargetNotFound));
}

#[tokio::test]
async fn after_an_error_the_watch_continues_from_its_version() {
    let index = prepared();
    let script = vec![
        list("10", vec![at("3")]),
        from("10", &[event("MODIFIED", at("11"))]),
        get(&format!("{WATCH}11"), 500, failure(500, "InternalError", "etcd is unavailable")),
        from("11", &[]),
        from("11", &[]),
    ];
    follow_script(&index, script).await;
    assert_eq!(reason(&index), None);
}

#[tokio::test]
async fn an_expired_version_is_listed_again_and_deleted_objects_are_gone() {
    let index = prepared();
    let expired = event("ERROR", failure(410, "Expired", "too old resource version"));
    let script = vec![list("10", vec![at("3")]), from("10", &[expired]), list("90", vec![]), from("90", &[])];
    follow_script(&index, script).await;
    assert_eq!(reason(&index), Some(UnknownReason::TargetNotFound));
}

#[tokio::test]
async fn a_refused_listing_is_forbidden_until_it_is_allowed() {
    let index = prepared();
    let refused = || get(LIST, 403, failure(403, "Forbidden", "deployments.apps is forbidden"));
    follow_script(&index, vec![refused(), list("10", vec![])]).await;
    assert_eq!(reason(&index), Some(UnknownReason::Forbidden));
    let Measured::Unknown(why) = index.workload(WorkloadKind::Deployment, NS, NAME) else { panic!("known") };
    assert_eq!(why.message, "not allowed to watch Deployments: HTTP 403: deployments.apps is forbidden");
    follow_script(&index, vec![refused(), list("10", vec![at("3")]), from("10", &[]), from("10", &[])]).await;
    assert_eq!(reason(&index), None);
}
