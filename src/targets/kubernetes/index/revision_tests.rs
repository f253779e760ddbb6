//! StatefulSets and DaemonSets: the same facts as of Deployments, by ControllerRevisions.

use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::Pod};
use serde_json::{Value, json};

use super::*;
use crate::{
    analyze::observation::FaultKind,
    targets::kubernetes::fixtures::{
        NAME, NS, broken_pod, controller_revision, deployment, ended, node, now, owned_by, parse, pod, replica_set,
        revisioned, see, synced, template, waiting, with,
    },
};

const BOTH: [WorkloadKind; 2] = [WorkloadKind::StatefulSet, WorkloadKind::DaemonSet];

fn name(kind: WorkloadKind, number: usize) -> String {
    if kind == WorkloadKind::StatefulSet { format!("{NAME}-{number}") } else { format!("{NAME}-abcd{number}") }
}

/// What the pods of a revision are labelled with.
fn hash(kind: WorkloadKind, hash: &str) -> String {
    if kind == WorkloadKind::StatefulSet { format!("{NAME}-{hash}") } else { hash.to_owned() }
}

fn healthy_pod(kind: WorkloadKind, number: usize, hash: &str) -> Value {
    owned_by(kind, pod(hash, "1"), &name(kind, number), hash)
}

fn crashing(kind: WorkloadKind, number: usize, hash: &str) -> Value {
    let broken = broken_pod(hash, "1", 3, waiting("CrashLoopBackOff"), ended(1, "Error", 5));
    owned_by(kind, broken, &name(kind, number), hash)
}

/// Three ready pods of revision 1, image `v1`, hash `aaa`.
fn healthy(kind: WorkloadKind) -> ClusterIndex {
    let index = synced();
    see(&index, revisioned(kind, 1, "v1", "aaa", 3));
    see(&index, controller_revision(kind, 1, "v1", "aaa"));
    (0..3).for_each(|number| see(&index, healthy_pod(kind, number, "aaa")));
    index
}

/// On top of it image `v2`, hash `bbb`; of the status nothing is updated yet.
fn updated(kind: WorkloadKind) -> Value {
    let mut object = revisioned(kind, 2, "v2", "bbb", 3);
    for count in ["updatedReplicas", "updatedNumberScheduled"] {
        if !object["status"][count].is_null() {
            object["status"][count] = 0.into();
        }
    }
    object
}

#[track_caller]
fn workload(kind: WorkloadKind, index: &ClusterIndex) -> Workload {
    match index.workload_at(kind, NS, NAME, now()) {
        Measured::Known(workload) => workload,
        Measured::Unknown(why) => panic!("{kind}: {why:?}"),
    }
}

#[track_caller]
fn unknown(kind: WorkloadKind, index: &ClusterIndex) -> (UnknownReason, String) {
    match index.workload_at(kind, NS, NAME, now()) {
        Measured::Unknown(why) => (why.reason, why.message),
        Measured::Known(workload) => panic!("{kind}: {workload:?}"),
    }
}

#[test]
fn healthy_ones() {
    for kind in BOTH {
        let workload = workload(kind, &healthy(kind));
        assert_eq!((workload.desired, workload.replicas, workload.updated, workload.available), (3, 3, 3, 3), "{kind}");
        assert_eq!((workload.release.revision, workload.release.hash), (1, hash(kind, "aaa")));
        // Of the template in the workload, not of the patch around it.
        assert_eq!(workload.release.digest, super::super::digest(&parse(template("v1"))).to_string());
        assert_eq!((workload.images, workload.faults), (vec!["main=api:v1".to_owned()], vec![]));
        assert!(!workload.progress_deadline_exceeded && !workload.paused);
    }
}

#[test]
fn a_broken_pod_of_the_newest_template_is_distinguished_from_the_others() {
    for kind in BOTH {
        let index = healthy(kind);
        see(&index, updated(kind));
        see(&index, controller_revision(kind, 2, "v2", "bbb"));
        see(&index, crashing(kind, 2, "bbb"));
        let seen = workload(kind, &index);
        assert_eq!((seen.release.revision, seen.release.hash.clone()), (2, hash(kind, "bbb")), "{kind}");
        assert_eq!((seen.faulty_pods, seen.faulty_release_pods), (1, 1));
        assert_eq!((seen.faults[0].kind, seen.faults[0].of_release), (FaultKind::CrashLoop, true));
        assert!(!seen.rollout_complete());
        see(&index, crashing(kind, 0, "aaa"));
        let seen = workload(kind, &index);
        assert_eq!((seen.faulty_pods, seen.faulty_release_pods), (2, 1));
    }
}

#[test]
fn a_view_that_lags_behind_is_unsettled() {
    for kind in BOTH {
        let index = healthy(kind);
        see(&index, with(revisioned(kind, 1, "v1", "aaa", 3), "/metadata/generation", 2.into()));
        let (reason, message) = unknown(kind, &index);
        assert_eq!(reason, UnknownReason::Unsettled);
        assert!(message.contains(&format!("the controller of {kind}s has observed generation 1")), "{message}");
        see(&index, updated(kind));
        let (reason, message) = unknown(kind, &index);
        assert_eq!(reason, UnknownReason::Unsettled);
        assert!(message.contains("was not observed yet"), "{message}");
        see(&index, controller_revision(kind, 2, "v2", "bbb"));
        assert_eq!(workload(kind, &index).release.revision, 2);
    }
    let fresh = with(revisioned(BOTH[0], 1, "v1", "aaa", 3), "/status", Value::Null);
    let index = synced();
    see(&index, with(fresh, "/metadata/generation", 0.into()));
    assert_eq!(unknown(BOTH[0], &index), (UnknownReason::Unsettled, "shop/api has no revision yet".to_owned()));
}

#[test]
fn a_restart_is_the_same_template_under_another_hash() {
    for kind in BOTH {
        let index = healthy(kind);
        let before = workload(kind, &index).release;
        let stamp = |object, at: &str| {
            with(object, &format!("{at}/metadata/annotations"), json!({crate::api::RESTARTED_AT: "now"}))
        };
        see(&index, stamp(revisioned(kind, 2, "v1", "ccc", 3), "/spec/template"));
        assert_eq!(unknown(kind, &index).0, UnknownReason::Unsettled, "{kind}: not the revision before it");
        see(&index, stamp(controller_revision(kind, 2, "v1", "ccc"), "/data/spec/template"));
        let after = workload(kind, &index).release;
        assert_eq!((after.digest, after.revision, after.hash), (before.digest, 2, hash(kind, "ccc")));
    }
}

#[test]
fn a_rollback_gives_the_old_revision_a_new_number() {
    for kind in BOTH {
        let index = healthy(kind);
        see(&index, updated(kind));
        see(&index, controller_revision(kind, 2, "v2", "bbb"));
        see(&index, revisioned(kind, 3, "v1", "aaa", 3));
        see(&index, controller_revision(kind, 3, "v1", "aaa"));
        let back = workload(kind, &index).release;
        assert_eq!((back.revision, back.hash), (3, hash(kind, "aaa")), "{kind}");
    }
}

#[test]
fn a_template_that_waits_for_a_person_is_no_release_before_it_has_a_pod() {
    let on_delete = |object| with(object, "/spec/updateStrategy", json!({"type": "OnDelete"}));
    let canary = |object| {
        with(object, "/spec/updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}))
    };
    let held: [(WorkloadKind, &dyn Fn(Value) -> Value); 3] =
        [(BOTH[0], &on_delete), (BOTH[1], &on_delete), (BOTH[0], &canary)];
    for (kind, held) in held {
        let index = healthy(kind);
        see(&index, held(updated(kind)));
        see(&index, controller_revision(kind, 2, "v2", "bbb"));
        let waits = workload(kind, &index);
        assert_eq!((waits.release.revision, waits.updated, waits.faulty_pods), (1, 3, 0), "{kind}");
        assert!(waits.rollout_complete());
        see(&index, crashing(kind, 2, "bbb"));
        let began = workload(kind, &index);
        assert_eq!((began.release.revision, began.faulty_release_pods), (2, 1), "{kind}");
        assert!(!began.rollout_complete());
    }
}

#[test]
fn a_recreated_workload_has_none_of_the_old_pods() {
    for kind in BOTH {
        let index = healthy(kind);
        see(&index, crashing(kind, 2, "aaa"));
        see(&index, with(revisioned(kind, 1, "v1", "aaa", 3), "/metadata/uid", "w-2".into()));
        assert_eq!(unknown(kind, &index).0, UnknownReason::Unsettled);
        let owner = "/metadata/ownerReferences/0/uid";
        see(&index, with(controller_revision(kind, 1, "v1", "aaa"), owner, "w-2".into()));
        assert_eq!(workload(kind, &index).faulty_pods, 0, "{kind}");
    }
}

#[test]
fn kinds_of_the_same_name_are_distinguished() {
    let index = healthy(BOTH[0]);
    see(&index, deployment(1, "v9", 1));
    see(&index, replica_set(1, "v9", "aaa"));
    see(&index, crashing(BOTH[0], 1, "aaa"));
    assert_eq!(workload(BOTH[0], &index).faulty_pods, 1);
    assert_eq!(workload(WorkloadKind::Deployment, &index).faulty_pods, 0);
    assert_eq!(unknown(BOTH[1], &index).0, UnknownReason::TargetNotFound);
}

#[test]
fn a_watch_that_is_refused_concerns_its_kinds_alone() {
    let index = healthy(BOTH[0]);
    see(&index, deployment(1, "v1", 0));
    see(&index, replica_set(1, "v1", "aaa"));
    index.watch_fails(
        Kind::ControllerRevisions,
        "",
        Hindrance::Forbidden,
        "controllerrevisions.apps is forbidden".into(),
        now(),
    );
    assert_eq!(unknown(BOTH[0], &index).0, UnknownReason::Forbidden);
    workload(WorkloadKind::Deployment, &index);
}

#[test]
fn changes_wake_the_right_workload() {
    for kind in BOTH {
        let index = healthy(kind);
        let mut changes = index.changes();
        let heard = |changes: &mut broadcast::Receiver<Changed>| {
            let heard: Vec<Changed> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
            assert!(heard.iter().all(|changed| (changed.kind, &*changed.name) == (kind, NAME)), "{heard:?}");
            heard.len()
        };
        for object in
            [crashing(kind, 0, "aaa"), updated(kind), controller_revision(kind, 2, "v2", "bbb"), node("n1", false)]
        {
            see(&index, object.clone());
            assert_eq!(heard(&mut changes), 1, "{object:#}");
            see(&index, object);
            assert_eq!(heard(&mut changes), 0);
        }
        index.delete(&parse::<ControllerRevision>(controller_revision(kind, 2, "v2", "bbb")));
        assert_eq!(heard(&mut changes), 1);
    }
}

#[test]
fn revisions_deleted_during_an_outage_go_with_the_next_listing() {
    for kind in BOTH {
        let index = healthy(kind);
        index.listing(Kind::ControllerRevisions, "");
        index.listed(Kind::ControllerRevisions, "");
        assert_eq!(unknown(kind, &index).0, UnknownReason::Unsettled, "{kind}");
    }
}

#[test]
fn patterns_name_all_pods() {
    for (kind, expected) in [(BOTH[0], "api-[0-9]+"), (BOTH[1], "api-[a-z0-9]{5}")] {
        let index = healthy(kind);
        for of_release in [false, true] {
            let pattern = index.pods_pattern(kind, NS, NAME, of_release).unwrap();
            assert_eq!((pattern.regex.as_str(), pattern.of_release), (expected, false));
        }
        (0..3).for_each(|number| index.delete(&parse::<Pod>(healthy_pod(kind, number, "aaa"))));
        assert_eq!(index.pods_pattern(kind, NS, NAME, false).unwrap_err().reason, UnknownReason::NoData);
    }
}
