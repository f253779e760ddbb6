//! Rollouts of Argo Rollouts: the same facts as of Deployments, by what their controller says.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::{
    analyze::observation::FaultKind,
    targets::kubernetes::{
        facts::Rollout,
        fixtures::{
            NAME, NS, broken_pod, defaulted, deployment, ended, now, of_rollout, parse, pod, replica_set, rollout,
            rollout_set, see, synced, waiting, with,
        },
    },
};

const KIND: WorkloadKind = WorkloadKind::Rollout;

fn healthy_pod(hash: &str, id: &str) -> Value {
    of_rollout(pod(hash, id), hash)
}

fn crashing(hash: &str, id: &str) -> Value {
    of_rollout(broken_pod(hash, id, 3, waiting("CrashLoopBackOff"), ended(1, "Error", 5)), hash)
}

/// Three ready pods of revision 1, image `v1`, hash `aaa`, which is stable.
fn healthy() -> ClusterIndex {
    let index = synced();
    see(&index, rollout(1, "v1", ("aaa", "aaa"), 3));
    see(&index, rollout_set(1, "v1", "aaa"));
    ["1", "2", "3"].into_iter().for_each(|id| see(&index, healthy_pod("aaa", id)));
    index
}

/// On top of it a canary `v2`, hash `bbb`, of one pod; `fields` of its status are set.
fn canary(fields: &[(&str, Value)]) -> ClusterIndex {
    let index = healthy();
    let status = [("updatedReplicas", json!(1)), ("replicas", json!(4)), ("phase", json!("Paused"))];
    let mut object = rollout(2, "v2", ("bbb", "aaa"), 3);
    for (field, value) in status.iter().chain(fields) {
        object["status"][*field] = value.clone();
    }
    see(&index, object);
    see(&index, rollout_set(2, "v2", "bbb"));
    index
}

#[track_caller]
fn workload(index: &ClusterIndex) -> Workload {
    match index.workload_at(KIND, NS, NAME, now()) {
        Measured::Known(workload) => workload,
        Measured::Unknown(why) => panic!("{why:?}"),
    }
}

#[track_caller]
fn unknown(index: &ClusterIndex) -> (UnknownReason, String) {
    match index.workload_at(KIND, NS, NAME, now()) {
        Measured::Unknown(why) => (why.reason, why.message),
        Measured::Known(workload) => panic!("{workload:?}"),
    }
}

#[test]
fn a_healthy_one() {
    let workload = workload(&healthy());
    assert_eq!((workload.desired, workload.replicas, workload.updated, workload.available), (3, 3, 3, 3));
    assert_eq!((workload.release.revision, workload.release.hash.as_str()), (1, "aaa"));
    // Of its ReplicaSet, since its own has no defaults.
    assert_eq!(workload.release.digest, super::super::digest(&parse(defaulted("v1"))).to_string());
    assert_eq!((workload.images, workload.faults), (vec!["main=api:v1".to_owned()], vec![]));
    assert!(!workload.paused && workload.stopped.is_none() && workload.template_in.is_none());
}

#[test]
fn a_canary_at_its_pause_is_neither_complete_nor_paused_by_a_person() {
    let index =
        canary(&[("pauseConditions", json!([{"reason": "CanaryPauseStep"}])), ("controllerPause", json!(true))]);
    see(&index, healthy_pod("bbb", "9"));
    let seen = workload(&index);
    assert_eq!((seen.release.revision, seen.release.hash.as_str(), seen.updated), (2, "bbb", 1));
    assert!(!seen.rollout_complete() && !seen.paused && seen.faults.is_empty());
    see(&index, crashing("bbb", "9"));
    let seen = workload(&index);
    assert_eq!((seen.faulty_pods, seen.faulty_release_pods, seen.faults[0].kind), (1, 1, FaultKind::CrashLoop));
}

#[test]
fn old_pods_that_only_wait_to_be_scaled_down_do_not_count() {
    let index = healthy();
    see(&index, with(rollout(2, "v2", ("bbb", "bbb"), 3), "/status/replicas", 6.into()));
    see(&index, rollout_set(2, "v2", "bbb"));
    assert!(workload(&index).rollout_complete());
    see(&index, with(rollout(2, "v2", ("bbb", "aaa"), 3), "/status/replicas", 6.into()));
    assert!(!workload(&index).rollout_complete(), "a preview that is not active yet");
}

#[test]
fn an_aborted_rollout_runs_the_stable_template() {
    let aborted = [("abort", json!(true)), ("message", json!("RolloutAborted: Rollout aborted update to revision 2"))];
    let index = canary(&aborted);
    see(&index, crashing("bbb", "9"));
    assert_eq!(workload(&index).release.hash, "bbb", "as long as it has a pod");
    index.delete(&parse::<Pod>(crashing("bbb", "9")));
    let seen = workload(&index);
    assert_eq!((seen.release.revision, seen.release.hash.as_str(), seen.updated), (1, "aaa", 3));
    assert!(seen.stopped.unwrap().contains("aborted update to revision 2"));
}

#[test]
fn a_view_that_lags_behind_is_unsettled() {
    let index = healthy();
    see(&index, with(rollout(1, "v1", ("aaa", "aaa"), 3), "/metadata/generation", 2.into()));
    let (reason, message) = unknown(&index);
    assert_eq!(reason, UnknownReason::Unsettled);
    assert!(message.contains("has observed generation 1"), "{message}");
    see(&index, rollout(2, "v2", ("bbb", "aaa"), 3));
    let (reason, message) = unknown(&index);
    assert_eq!(reason, UnknownReason::Unsettled);
    assert!(message.contains("rollouts-pod-template-hash bbb"), "{message}");
    // A person paused it before its controller could make one.
    see(&index, with(rollout(2, "v2", ("bbb", "aaa"), 3), "/spec/paused", true.into()));
    let seen = workload(&index);
    assert!(seen.paused);
    assert_eq!(seen.release.hash, "aaa");
    see(&index, with(rollout(1, "v1", ("", ""), 3), "/status/observedGeneration", "1".into()));
    assert_eq!(unknown(&index), (UnknownReason::Unsettled, "shop/api has no revision yet".to_owned()));
}

#[test]
fn additions_of_the_controller_to_a_template_do_not_count() {
    let before = workload(&healthy()).release.digest;
    let index = healthy();
    let role = json!({"labels": {"role": "stable"}, "annotations": {"weight": "0"}}).to_string();
    let set =
        with(rollout_set(1, "v1", "aaa"), "/metadata/annotations/rollout.argoproj.io~1ephemeral-metadata", role.into());
    let set = with(set, "/spec/template/metadata/labels/role", "stable".into());
    let set = with(set, "/spec/template/metadata/annotations", json!({"weight": "0"}));
    let rule = json!({"labelSelector": {"matchExpressions": [{"key": "rollouts-pod-template-hash", "operator": "NotIn", "values": ["aaa"]}]}, "topologyKey": "kubernetes.io/hostname"});
    let field = "requiredDuringSchedulingIgnoredDuringExecution";
    let digest = |rules: Value| {
        see(&index, with(set.clone(), "/spec/template/spec/affinity/podAntiAffinity", json!({field: rules})));
        workload(&index).release.digest
    };
    assert_eq!(digest(json!([rule])), before);
    // What a person has there stays.
    let own = json!({"topologyKey": "zone"});
    let with_own = digest(json!([own]));
    assert_ne!(with_own, before);
    assert_eq!(digest(json!([own, rule])), with_own);
}

#[test]
fn a_restart_is_complete_when_its_pods_are_new() {
    let index = healthy();
    let restart = |at: &str| with(rollout(2, "v1", ("aaa", "aaa"), 3), "/spec/restartAt", at.into());
    see(&index, restart("2026-01-01T11:59:00Z"));
    let seen = workload(&index);
    assert_eq!((seen.updated, seen.rollout_complete()), (0, false));
    for id in ["1", "2"] {
        see(&index, with(healthy_pod("aaa", id), "/status/startTime", "2026-01-01T11:59:30Z".into()));
    }
    assert_eq!(workload(&index).updated, 2);
    see(&index, with(restart("2026-01-01T11:59:00Z"), "/status/restartedAt", "2026-01-01T11:59:00Z".into()));
    assert!(workload(&index).rollout_complete(), "its controller says so");
    see(&index, restart("2026-01-01T13:00:00Z"));
    assert!(workload(&index).rollout_complete(), "not before its time");
}

#[test]
fn a_template_as_people_write_it_is_read() {
    let index = healthy();
    let limits = json!({"limits": {"cpu": 1, "memory": "1Gi"}});
    let object = with(rollout(1, "v1", ("aaa", "aaa"), 3), "/spec/template/spec/containers/0/resources", limits);
    see(&index, object);
    assert_eq!(workload(&index).memory_limit, Some(1 << 30));
    see(&index, with(rollout(1, "v1", ("aaa", "aaa"), 3), "/spec/template", json!({"spec": {"containers": "none"}})));
    assert_eq!(workload(&index).release.hash, "aaa", "of one that is no template all else is known");
    let mut elsewhere = rollout(1, "v1", ("aaa", "aaa"), 3);
    elsewhere["spec"].as_object_mut().unwrap().remove("template");
    elsewhere["spec"]["workloadRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    see(&index, elsewhere);
    assert_eq!(workload(&index).template_in.as_deref(), Some("Deployment/web"));
}

#[test]
fn a_deployment_of_the_same_name_is_another_workload() {
    let index = canary(&[]);
    see(&index, deployment(1, "v9", 1));
    see(&index, replica_set(1, "v9", "ccc"));
    see(&index, crashing("bbb", "9"));
    assert_eq!(workload(&index).faulty_pods, 1);
    let Measured::Known(other) = index.workload_at(WorkloadKind::Deployment, NS, NAME, now()) else { panic!() };
    assert_eq!(other.faulty_pods, 0);
}

#[test]
fn absent_or_forbidden_rollouts_are_reported() {
    let index = healthy();
    index.watch_fails(Kind::Rollouts, "", Hindrance::NotInstalled, "404".into(), now());
    let (reason, message) = unknown(&index);
    assert_eq!(reason, UnknownReason::NotInstalled);
    assert!(message.contains("the CustomResourceDefinition rollouts.argoproj.io is not installed"), "{message}");
    assert!(index.ready(), "nothing waits for it");
    index.watch_fails(Kind::Rollouts, "", Hindrance::Forbidden, "not allowed to list rollouts".into(), now());
    let (reason, message) = unknown(&index);
    assert_eq!(reason, UnknownReason::Forbidden);
    assert!(message.contains("not allowed to list rollouts"), "{message}");
    // Installed by now.
    let mut changes = index.changes();
    index.watch_works(Kind::Rollouts, "");
    assert_eq!(&*changes.try_recv().unwrap().name, NAME);
    workload(&index);
}

#[test]
fn changes_wake_a_rollout() {
    let index = healthy();
    let mut changes = index.changes();
    for object in [crashing("aaa", "1"), rollout(2, "v2", ("bbb", "aaa"), 3), rollout_set(2, "v2", "bbb")] {
        see(&index, object.clone());
        let heard = changes.try_recv().unwrap_or_else(|_| panic!("{object:#}"));
        assert_eq!((heard.kind, &*heard.name), (KIND, NAME));
        see(&index, object);
        assert!(changes.try_recv().is_err());
    }
    index.delete(&parse::<Rollout>(rollout(2, "v2", ("bbb", "aaa"), 3)));
    assert_eq!(unknown(&index).0, UnknownReason::TargetNotFound);
}

#[test]
fn patterns_tell_the_canary_from_the_stable_pods() {
    let index = canary(&[]);
    see(&index, healthy_pod("bbb", "9"));
    let pattern = |of_release| index.pods_pattern(KIND, NS, NAME, of_release).unwrap();
    assert_eq!((pattern(true).regex.as_str(), pattern(true).of_release), ("api-bbb-.*", true));
    assert_eq!(pattern(false).regex, "(api-aaa-.*|api-bbb-.*)");
}
