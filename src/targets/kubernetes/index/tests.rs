use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    analyze::observation::FaultKind,
    targets::kubernetes::fixtures::{
        NAME, NS, ago, broken_pod, container, deployment, ended, healthy, node, now, parse, pod, releasing,
        replica_set, see, synced, template, waiting, with,
    },
};

pub(super) fn workload(index: &ClusterIndex) -> Workload {
    match index.workload_at(WorkloadKind::Deployment, NS, NAME, now()) {
        Measured::Known(workload) => workload,
        Measured::Unknown(why) => panic!("{why:?}"),
    }
}

pub(super) fn unknown(index: &ClusterIndex, reason: UnknownReason) -> String {
    match index.workload_at(WorkloadKind::Deployment, NS, NAME, now()) {
        Measured::Unknown(why) if why.reason == reason => why.message,
        other => panic!("expected {reason}, got {other:?}"),
    }
}

fn kinds(index: &ClusterIndex) -> Vec<(FaultKind, bool)> {
    workload(index).faults.iter().map(|fault| (fault.kind, fault.of_release)).collect()
}

/// The only fault of a new release's pod.
#[track_caller]
fn check_fault(pod: Value, expected: Option<FaultKind>) {
    let seen = kinds(&releasing(pod.clone()));
    assert_eq!(seen, expected.map(|kind| (kind, true)).into_iter().collect::<Vec<_>>(), "{pod:#}");
}

/// The workload has no fault.
#[track_caller]
pub(super) fn check_healthy(index: &ClusterIndex) {
    let workload = workload(index);
    assert_eq!((workload.faults, workload.faulty_pods), (vec![], 0));
}

#[test]
fn a_healthy_deployment() {
    let workload = workload(&healthy());
    assert_eq!((workload.desired, workload.replicas, workload.updated, workload.available), (3, 3, 3, 3));
    assert_eq!((workload.generation, workload.release.revision, workload.release.hash.as_str()), (1, 1, "aaa"));
    assert_eq!(workload.release.digest, super::super::digest(&parse(template("v1"))).to_string());
    assert_eq!(workload.images, ["main=api:v1"]);
    assert_eq!((workload.progress_deadline_s, workload.progress_deadline_exceeded), (600, false));
    assert!(workload.rollout_complete() && workload.faults.is_empty() && workload.gitops_owner.is_none());
}

#[test]
fn waiting_reasons_are_faults() {
    use FaultKind::*;
    let crashed = || ended(1, "Error", 100);
    check_fault(broken_pod("bbb", "9", 1, waiting("CrashLoopBackOff"), crashed()), Some(CrashLoop));
    check_fault(broken_pod("bbb", "9", 1, waiting("CrashLoopBackOff"), ended(137, "OOMKilled", 9)), Some(OomKilled));
    for reason in ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"] {
        check_fault(broken_pod("bbb", "9", 0, waiting(reason), json!({})), Some(ImagePull));
    }
    for reason in ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"] {
        check_fault(broken_pod("bbb", "9", 0, waiting(reason), json!({})), Some(Config));
    }
    check_fault(broken_pod("bbb", "9", 0, waiting("ContainerCreating"), json!({})), None);
    check_fault(broken_pod("bbb", "9", 0, waiting("PodInitializing"), json!({})), None);
}

#[test]
fn between_two_back_offs_a_container_still_counts_as_looping() {
    let crash = Some(FaultKind::CrashLoop);
    check_fault(broken_pod("bbb", "9", 2, ended(1, "Error", 1), ended(1, "Error", 30)), crash);
    check_fault(broken_pod("bbb", "9", 2, waiting("ContainerCreating"), ended(1, "Error", 60)), crash);
    check_fault(broken_pod("bbb", "9", 2, ended(137, "OOMKilled", 1), json!({})), Some(FaultKind::OomKilled));
    // One crash can be bad luck; an old one is over; a good end is none.
    check_fault(broken_pod("bbb", "9", 1, ended(1, "Error", 1), json!({})), None);
    check_fault(broken_pod("bbb", "9", 2, waiting("ContainerCreating"), ended(1, "Error", 61)), None);
    check_fault(broken_pod("bbb", "9", 2, ended(0, "Completed", 1), json!({})), None);
    check_fault(broken_pod("bbb", "9", 2, json!({"running": {}}), ended(1, "Error", 5)), None);
}

#[test]
fn a_container_that_crashed_long_ago_and_runs_is_healthy() {
    let main = container("main", true, 7, json!({"running": {}}), ended(1, "Error", 3000));
    check_fault(with(pod("bbb", "9"), "/status/containerStatuses/0", main), None);
}

#[test]
fn init_containers_count() {
    let init = |state, last| {
        let starting = broken_pod("bbb", "9", 0, waiting("PodInitializing"), json!({}));
        with(starting, "/status/initContainerStatuses", json!([container("migrate", false, 3, state, last)]))
    };
    check_fault(init(waiting("CrashLoopBackOff"), ended(2, "Error", 5)), Some(FaultKind::CrashLoop));
    check_fault(init(ended(0, "Completed", 5), json!({})), None);
    let index = releasing(init(waiting("CrashLoopBackOff"), ended(2, "Error", 5)));
    let fault = workload(&index).faults.remove(0);
    assert_eq!((fault.container.as_str(), fault.pod.as_str()), ("migrate", "api-bbb-9"));
    assert_eq!(fault.detail, "exit code 2, 3 restarts, CrashLoopBackOff");
    assert_eq!(fault.since.to_string(), ago(5));
}

#[test]
fn since_is_kept_while_the_trouble_lasts() {
    let looping = |seconds| broken_pod("bbb", "9", 3, waiting("CrashLoopBackOff"), ended(1, "Error", seconds));
    let index = releasing(looping(120));
    see(&index, broken_pod("bbb", "9", 4, ended(1, "Error", 2), ended(1, "Error", 120)));
    see(&index, looping(2));
    assert_eq!(workload(&index).faults[0].since.to_string(), ago(120));
    // Well for longer than the kubelet's own memory of it: a new trouble.
    let index = releasing(with(
        pod("bbb", "9"),
        "/status/containerStatuses/0",
        container("main", true, 1, json!({"running": {}}), ended(1, "Error", 1500)),
    ));
    see(&index, looping(3));
    assert_eq!(workload(&index).faults[0].since.to_string(), ago(3));
    // Nothing in the object tells: first seen.
    let index = releasing(broken_pod("bbb", "9", 0, waiting("ErrImagePull"), json!({})));
    assert_eq!(workload(&index).faults[0].since, now());
}

#[test]
fn a_pod_that_lost_its_readiness_is_a_fault_after_the_grace() {
    let lost = |seconds: i64| {
        let pod = with(pod("bbb", "9"), "/status/conditions/1/status", "False".into());
        with(pod, "/status/conditions/1/lastTransitionTime", ago(seconds).into())
    };
    check_fault(lost(61), Some(FaultKind::NotReady));
    check_fault(lost(60), None);
    // From 10 s after its start on it may have been ready.
    check_fault(lost(1794), Some(FaultKind::NotReady));
    check_fault(lost(1795), None);
    check_fault(with(lost(61), "/status/phase", "Pending".into()), None);
}

#[test]
fn a_release_that_is_never_ready_is_still_starting() {
    check_fault(broken_pod("bbb", "9", 0, json!({"running": {"startedAt": ago(1800)}}), json!({})), None);
    let exceeded = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    let index = healthy();
    see(&index, with(deployment(1, "v1", 3), "/status/conditions", exceeded));
    assert!(workload(&index).progress_deadline_exceeded);
}

#[test]
fn terminating_or_finished_pods_are_no_fault() {
    let looping = || broken_pod("bbb", "9", 3, waiting("CrashLoopBackOff"), ended(1, "Error", 5));
    check_fault(with(looping(), "/metadata/deletionTimestamp", ago(3).into()), None);
    let evicted = with(looping(), "/status/phase", "Failed".into());
    check_fault(with(evicted, "/status/reason", "Evicted".into()), None);
    check_fault(with(looping(), "/status/phase", "Succeeded".into()), None);
}

#[test]
fn a_lost_node_is_not_the_releases_fault() {
    let index = releasing(broken_pod("bbb", "9", 3, waiting("CrashLoopBackOff"), ended(1, "Error", 5)));
    see(&index, node("n1", false));
    check_healthy(&index);
    assert_eq!(workload(&index).on_lost_nodes, 4);
    index.delete(&parse::<Node>(node("n1", false)));
    assert_eq!(workload(&index).on_lost_nodes, 4);
    see(&index, node("n1", true));
    assert_eq!((workload(&index).on_lost_nodes, workload(&index).faulty_pods), (0, 1));
}

#[test]
fn without_the_right_to_list_nodes_all_are_ready() {
    let index = healthy();
    see(&index, node("n1", false));
    index.watch_fails(Kind::Nodes, "", Hindrance::Forbidden, "nodes is forbidden".into(), now());
    assert_eq!(workload(&index).on_lost_nodes, 0);
}

#[test]
fn pods_that_no_node_can_take() {
    let pending = with(pod("bbb", "9"), "/spec/nodeName", Value::Null);
    let pending = with(pending, "/status/phase", "Pending".into());
    let pending = with(
        pending,
        "/status/conditions",
        json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]),
    );
    let index = releasing(pending);
    assert_eq!((workload(&index).unschedulable, workload(&index).faulty_pods), (1, 0));
}

#[test]
fn faults_of_the_release_come_first_and_the_list_is_capped() {
    let index = releasing(broken_pod("bbb", "9", 3, waiting("CrashLoopBackOff"), ended(1, "Error", 5)));
    for id in 0..20 {
        see(&index, broken_pod("aaa", &format!("x{id}"), 3, waiting("ErrImagePull"), json!({})));
    }
    let workload = workload(&index);
    assert_eq!((workload.faults.len(), workload.faulty_pods, workload.faulty_release_pods), (10, 21, 1));
    assert!(workload.faults[0].of_release && !workload.faults[1].of_release);
}

#[test]
fn scaling_is_no_fault_and_no_release() {
    let index = healthy();
    let release = workload(&index).release;
    for (pods, generation) in [(5, 2), (1, 3), (0, 4), (3, 5)] {
        let scaled = with(deployment(1, "v1", pods), "/metadata/generation", generation.into());
        see(&index, with(scaled, "/status/observedGeneration", generation.into()));
        check_healthy(&index);
        assert_eq!(workload(&index).release, release);
        assert_eq!(workload(&index).desired, u32::try_from(pods).unwrap());
    }
}

#[test]
fn a_restart_is_the_same_template_under_another_hash() {
    let index = healthy();
    let before = workload(&index).release;
    let stamp = |object, at: &str| {
        with(object, &format!("{at}/metadata/annotations"), json!({crate::api::RESTARTED_AT: "now"}))
    };
    see(&index, stamp(deployment(2, "v1", 3), "/spec/template"));
    see(&index, stamp(replica_set(2, "v1", "ccc"), "/spec/template"));
    let after = workload(&index).release;
    assert_eq!((&after.digest, after.revision, after.hash.as_str()), (&before.digest, 2, "ccc"));
    check_healthy(&index);
}

#[test]
fn a_paused_deployment_runs_what_it_ran_before() {
    let index = healthy();
    let paused = with(deployment(1, "v2", 3), "/spec/paused", true.into());
    see(&index, paused);
    let workload = workload(&index);
    assert!(workload.paused);
    assert_eq!(workload.release.digest, super::super::digest(&parse(template("v1"))).to_string());
}

#[test]
fn a_deleted_pod_is_gone() {
    let index = healthy();
    see(&index, with(pod("aaa", "1"), "/metadata/deletionTimestamp", ago(1).into()));
    check_healthy(&index);
    index.delete(&parse::<Pod>(pod("aaa", "1")));
    index.delete(&parse::<Pod>(pod("aaa", "1")));
    check_healthy(&index);
}

#[test]
fn a_view_that_lags_behind_is_unsettled() {
    let index = healthy();
    see(&index, with(deployment(1, "v1", 3), "/metadata/generation", 2.into()));
    assert!(unknown(&index, UnknownReason::Unsettled).contains("generation 1 of shop/api, which is at 2"));
    see(&index, deployment(2, "v2", 3));
    assert!(unknown(&index, UnknownReason::Unsettled).contains("revision 2"));
    see(&index, replica_set(2, "v2", "bbb"));
    assert_eq!(workload(&index).release.hash, "bbb");
    see(&index, with(deployment(2, "v2", 3), "/metadata/annotations", json!({})));
    unknown(&index, UnknownReason::Unsettled);
    // The annotation of the old revision with the template of the new one.
    see(&index, deployment(2, "v3", 3));
    unknown(&index, UnknownReason::Unsettled);
}

#[test]
fn a_recreated_deployment_has_none_of_the_old_pods() {
    let index = releasing(broken_pod("bbb", "9", 3, waiting("CrashLoopBackOff"), ended(1, "Error", 5)));
    see(&index, with(deployment(1, "v2", 3), "/metadata/uid", "d-2".into()));
    unknown(&index, UnknownReason::Unsettled);
    let owned = with(replica_set(1, "v2", "bbb"), "/metadata/ownerReferences/0/uid", "d-2".into());
    see(&index, with(owned, "/metadata/uid", "rs-new".into()));
    check_healthy(&index);
}

#[test]
fn a_missing_workload_is_not_found() {
    let index = synced();
    unknown(&index, UnknownReason::TargetNotFound);
    let index = healthy();
    see(&index, with(deployment(1, "v1", 3), "/metadata/deletionTimestamp", ago(1).into()));
    unknown(&index, UnknownReason::TargetNotFound);
    index.delete(&parse::<Deployment>(deployment(1, "v1", 3)));
    unknown(&index, UnknownReason::TargetNotFound);
}
