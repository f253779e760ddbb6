//! What the index makes of the state of its watches, and whom it wakes.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use serde_json::Value;
use tokio::sync::broadcast::error::TryRecvError;

use super::tests::{check_healthy, unknown, workload};
use super::*;
use crate::targets::kubernetes::fixtures::{
    NAME, NS, broken_pod, deployment, ended, healthy, node, now, parse, pod, releasing, replica_set, see, synced,
    waiting, with,
};

#[test]
fn nothing_is_known_before_the_first_listings_are_complete() {
    let index = ClusterIndex::default();
    unknown(&index, UnknownReason::Unsettled);
    index.watching(&[]);
    for kind in [Kind::Deployments, Kind::ReplicaSets, Kind::Pods, Kind::Nodes] {
        assert!(unknown(&index, UnknownReason::Unsettled).contains(&kind.to_string()));
        assert!(!index.ready());
        index.listing(kind, "");
        index.listed(kind, "");
    }
    // A Deployment stands on these; the others are still on their way.
    unknown(&index, UnknownReason::TargetNotFound);
    assert!(!index.ready());
    index.watch_fails(Kind::Rollouts, "", Hindrance::NotInstalled, "404".into(), now());
    for kind in [Kind::StatefulSets, Kind::DaemonSets, Kind::ControllerRevisions, Kind::ConfigMaps, Kind::Secrets] {
        assert!(!index.ready());
        index.listing(kind, "");
        index.listed(kind, "");
    }
    assert!(index.ready());
}

#[test]
fn a_namespace_that_is_not_watched_is_reported() {
    let index = ClusterIndex::default();
    index.watching(&["other".to_owned()]);
    assert!(unknown(&index, UnknownReason::NotConfigured).contains("it watches other"));
}

#[test]
fn a_watch_that_fails_makes_stale_facts_unknown() {
    let index = healthy();
    let since = now().checked_sub(SignedDuration::from_secs(STALE_AFTER_S)).unwrap();
    index.watch_fails(Kind::Pods, "", Hindrance::Passing, "connection refused".into(), since);
    check_healthy(&index);
    let earlier = since.checked_sub(SignedDuration::from_secs(1)).unwrap();
    index.watch_works(Kind::Pods, "");
    index.watch_fails(Kind::Pods, "", Hindrance::Passing, "connection refused".into(), earlier);
    // Failing since then, whatever the last message.
    index.watch_fails(Kind::Pods, "", Hindrance::Passing, "timed out".into(), now());
    assert!(unknown(&index, UnknownReason::Unreachable).contains("timed out"));
    index.watch_works(Kind::Pods, "");
    check_healthy(&index);
}

#[test]
fn a_refused_watch_is_forbidden_at_once() {
    let index = healthy();
    index.watch_fails(Kind::ReplicaSets, "", Hindrance::Forbidden, "replicasets.apps is forbidden".into(), now());
    assert!(unknown(&index, UnknownReason::Forbidden).contains("replicasets.apps is forbidden"));
}

#[test]
fn objects_deleted_during_an_outage_go_with_the_next_listing() {
    let index = releasing(broken_pod("bbb", "9", 3, waiting("CrashLoopBackOff"), ended(1, "Error", 5)));
    index.listing(Kind::Pods, "");
    for id in ["1", "2", "3"] {
        see(&index, pod("aaa", id));
    }
    assert_eq!(workload(&index).faulty_pods, 1, "kept until the listing is complete");
    index.listed(Kind::Pods, "");
    check_healthy(&index);
    index.listing(Kind::Deployments, "");
    index.listed(Kind::Deployments, "");
    unknown(&index, UnknownReason::TargetNotFound);
}

#[test]
fn a_listing_of_one_namespace_leaves_the_others_alone() {
    let index = ClusterIndex::default();
    index.watching(&[NS.to_owned(), "other".to_owned()]);
    for scope in [NS, "other", ""] {
        for kind in [Kind::Deployments, Kind::ReplicaSets, Kind::Pods, Kind::Nodes] {
            if scope.is_empty() == (kind == Kind::Nodes) {
                index.listing(kind, scope);
                index.listed(kind, scope);
            }
        }
    }
    see(&index, deployment(1, "v1", 3));
    see(&index, replica_set(1, "v1", "aaa"));
    index.listing(Kind::Deployments, "other");
    index.listed(Kind::Deployments, "other");
    check_healthy(&index);
    index.listing(Kind::Deployments, NS);
    index.listed(Kind::Deployments, NS);
    unknown(&index, UnknownReason::TargetNotFound);
}

/// How often a change woke the Deployment.
fn woken(index: &ClusterIndex, change: impl FnOnce()) -> usize {
    let mut changes = index.changes();
    change();
    let mut count = 0;
    loop {
        match changes.try_recv() {
            Ok(changed) => {
                assert_eq!((&*changed.namespace, changed.kind, &*changed.name), (NS, WorkloadKind::Deployment, NAME));
                count += 1;
            }
            Err(TryRecvError::Empty) => return count,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn only_what_matters_to_health_wakes() {
    let index = healthy();
    let heartbeat = |object: Value| with(object, "/metadata/resourceVersion", "101".into());
    let never = [
        heartbeat(deployment(1, "v1", 3)),
        with(deployment(1, "v1", 3), "/metadata/annotations/note", "x".into()),
        heartbeat(replica_set(1, "v1", "aaa")),
        heartbeat(pod("aaa", "1")),
        with(pod("aaa", "1"), "/status/podIP", "10.0.0.1".into()),
        heartbeat(node("n1", true)),
        node("n2", true),
    ];
    for object in never {
        assert_eq!(woken(&index, || see(&index, object.clone())), 0, "{object:#}");
    }
    let once = [
        with(deployment(1, "v1", 3), "/status/availableReplicas", 2.into()),
        with(pod("aaa", "1"), "/status/conditions/1/status", "False".into()),
        broken_pod("aaa", "2", 1, waiting("CrashLoopBackOff"), ended(1, "Error", 5)),
        pod("aaa", "new"),
        replica_set(2, "v2", "bbb"),
        deployment(2, "v2", 3),
        node("n1", false),
    ];
    for object in once {
        assert_eq!(woken(&index, || see(&index, object.clone())), 1, "{object:#}");
    }
    assert_eq!(woken(&index, || index.delete(&parse::<Pod>(pod("aaa", "3")))), 1);
    assert_eq!(woken(&index, || index.delete(&parse::<Pod>(pod("aaa", "3")))), 0);
    assert_eq!(woken(&index, || index.delete(&parse::<Deployment>(deployment(1, "v1", 3)))), 1);
}

#[test]
fn every_workload_is_sent_once_when_the_first_listings_are_complete() {
    let index = ClusterIndex::default();
    index.watching(&[]);
    let sent = woken(&index, || {
        for kind in
            [Kind::Deployments, Kind::ReplicaSets, Kind::StatefulSets, Kind::Nodes, Kind::Pods, Kind::DaemonSets]
        {
            index.listing(kind, "");
            match kind {
                Kind::Deployments => see(&index, deployment(1, "v1", 3)),
                Kind::ReplicaSets => see(&index, replica_set(1, "v1", "aaa")),
                Kind::Pods => see(&index, pod("aaa", "1")),
                Kind::Nodes => see(&index, node("n1", true)),
                _ => {}
            }
            index.listed(kind, "");
        }
    });
    assert_eq!(sent, 1);
}

#[test]
fn a_watch_that_recovers_wakes_everything() {
    let index = healthy();
    index.watch_fails(Kind::Pods, "", Hindrance::Passing, "refused".into(), now());
    assert_eq!(woken(&index, || assert!(index.watch_works(Kind::Pods, ""))), 1);
    assert_eq!(woken(&index, || assert!(!index.watch_works(Kind::Pods, ""))), 0);
}

#[test]
fn patterns_name_the_pods_by_template() {
    let check = |index: &ClusterIndex, of_release, expected: &str| {
        let pattern = index.pods_pattern(WorkloadKind::Deployment, NS, NAME, of_release).unwrap();
        assert_eq!((pattern.regex.as_str(), pattern.of_release), (expected, of_release));
    };
    let index = releasing(pod("bbb", "9"));
    check(&index, false, "(api-aaa-.*|api-bbb-.*)");
    check(&index, true, "api-bbb-.*");
    index.delete(&parse::<Pod>(pod("bbb", "9")));
    check(&index, false, "api-aaa-.*");
    let why = index.pods_pattern(WorkloadKind::Deployment, NS, NAME, true).unwrap_err();
    assert_eq!((why.reason, why.message.as_str()), (UnknownReason::NoData, "no pod of the new template yet"));
    let index = synced();
    see(&index, deployment(1, "v1", 0));
    see(&index, replica_set(1, "v1", "aaa"));
    assert_eq!(
        index.pods_pattern(WorkloadKind::Deployment, NS, NAME, false).unwrap_err().reason,
        UnknownReason::NoData
    );
}
