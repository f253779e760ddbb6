//! `cargo bench`: what one look costs beside the waiting for answers. Target: one component in 100 µs at p99.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on fails")]

use std::{collections::BTreeMap, hint::black_box, time::Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use panacea::{
    analyze::{
        assess::assess,
        forecast::{Forecaster as _, Foresight},
        observation::{Measured, Observation, Reading, ReleaseId, TargetState, Workload},
        outlook::Outlook,
        tracker::Tracker,
        trend::trend,
        window::{History, Window},
    },
    api::{HealingPolicy, ValidPolicy, WorkloadKind, default_thresholds},
    plan::{self, Situation},
    targets::kubernetes::{ClusterIndex, Kind},
};
use serde_json::json;

const WELL_KNOWN: [&str; 4] = ["cpu_usage", "memory_usage", "error_rate", "latency_ms"];
/// All of them run out: the costliest to look at.
const RUNNING_OUT: [&str; 4] = ["memory_usage", "connections", "disk_gb", "quota"];

fn policy(metrics: &[&str]) -> ValidPolicy {
    let queries: Vec<_> =
        metrics.iter().map(|name| json!({"name": name, "prometheus": {"query": "q"}, "limit": 1e6})).collect();
    let thresholds: BTreeMap<_, _> =
        metrics.iter().map(|name| (name, json!({"warning": 9e5, "critical": 9.5e5}))).collect();
    let policy: HealingPolicy = serde_json::from_value(json!({
        "apiVersion": "panacea.dev/v1alpha1", "kind": "HealingPolicy",
        "metadata": {"name": "bench", "namespace": "bench"},
        "spec": {"components": [{
            "name": "api", "target": {"deployment": {"name": "api"}}, "metrics": queries, "thresholds": thresholds,
        }]},
    }))
    .expect("the policy is well-formed");
    ValidPolicy::new(&policy, &default_thresholds()).expect("the policy is valid")
}

/// A look at a workload of 10 pods, `minute` minutes in, its metrics rising by `slope` a minute.
fn look(metrics: &[&str], minute: i64, slope: f64) -> Observation {
    let workload = Workload {
        generation: 1,
        desired: 10,
        replicas: 10,
        updated: 10,
        available: 10,
        paused: false,
        progress_deadline_exceeded: false,
        progress_deadline_s: 600,
        release: ReleaseId { revision: 1, hash: "5695c6f9bf".into(), digest: "d1".into() },
        images: vec!["api=shop/api:v1".into()],
        faults: Vec::new(),
        faulty_pods: 0,
        faulty_release_pods: 0,
        unschedulable: 0,
        on_lost_nodes: 0,
        memory_limit: None,
        config: None,
        oldest_pod: None,
        irreversible: None,
        gitops_owner: None,
        template_in: None,
        stopped: None,
    };
    let noise = (minute * 7919 % 97) as f64 / 97.0;
    let reading = Reading::new(Measured::Known(40.0 + noise + slope * minute as f64), false);
    let metrics = metrics.iter().map(|name| ((*name).to_owned(), reading.clone()));
    Observation {
        at: Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute),
        target: Measured::Known(TargetState::Workload(Box::new(workload))),
        metrics: metrics.collect(),
    }
}

/// All that happens between the answers of a look and its decision.
fn evaluate(
    policy: &ValidPolicy,
    tracker: &mut Tracker,
    history: &mut History,
    outlook: &mut Outlook,
    observation: &Observation,
) -> plan::Verdict {
    let component = &policy.components[0];
    let newest = observation.target.known().and_then(|target| target.workload()).map(|workload| &workload.release);
    let assessment = assess(observation, &component.thresholds, history, tracker.release_unproven(newest));
    tracker.record(observation, &assessment, &policy.limits);
    history.push(observation, assessment.score);
    black_box(trend(&history.score));
    let forecast = Foresight.forecast(history, &component.ceilings);
    outlook.follow(tracker);
    outlook.record(&forecast, observation, &policy.limits);
    plan::decide(&Situation {
        policy,
        component,
        tracker,
        observation,
        assessment: &assessment,
        forecast: Some(&forecast),
        foreseen: outlook.foreseen(),
        unhealthy_components: 1,
        suspected_components: 0,
        history: &[],
        now: observation.at,
    })
}

/// Four days of looks, so that every tier is full.
const FILLED: i64 = 4 * 24 * 60;

/// Criterion gives means; the targets are percentiles.
fn percentiles(what: &str, mut look: impl FnMut()) {
    let mut nanos: Vec<u128> = (0..20_000)
        .map(|_| {
            let started = Instant::now();
            look();
            started.elapsed().as_nanos()
        })
        .collect();
    nanos.sort_unstable();
    println!("{what}: p50 {:.1} us, p99 {:.1} us", nanos[10_000] as f64 / 1e3, nanos[19_800] as f64 / 1e3);
}

fn evaluation(criterion: &mut Criterion) {
    for (what, metrics, slope) in [
        ("one component, 4 metrics, all well", &WELL_KNOWN[..], 0.0),
        ("one component, 4 metrics, all running out", &RUNNING_OUT[..], 0.01),
        ("one component, 1 metric, running out", &RUNNING_OUT[..1], 0.01),
    ] {
        let policy = policy(metrics);
        let (mut tracker, mut history, mut outlook) = (Tracker::default(), History::default(), Outlook::default());
        (0..FILLED).for_each(|minute| history.push(&look(metrics, minute, slope), Some(100)));
        let mut minute = FILLED;
        let mut next = || {
            minute += 1;
            let observation = look(metrics, minute, slope);
            black_box(evaluate(&policy, &mut tracker, &mut history, &mut outlook, &observation));
        };
        percentiles(what, &mut next);
        criterion.bench_function(what, |bencher| bencher.iter(&mut next));
        let bytes = history.metrics.values().map(Window::bytes).max().unwrap_or_default();
        println!("{what}: {bytes} bytes of memory a metric at most");
    }
}

const KINDS: [Kind; 4] = [Kind::Deployments, Kind::ReplicaSets, Kind::Pods, Kind::Nodes];

/// The state of a Deployment of 10 pods from the index.
fn index(criterion: &mut Criterion) {
    let index = ClusterIndex::default();
    index.watching(&[]);
    for kind in KINDS {
        index.listing(kind, "");
    }
    let template = json!({"metadata": {"labels": {"app": "api", "pod-template-hash": "abc"}}, "spec": {"containers": [{"name": "app", "image": "shop/api:v1"}]}});
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "api", "namespace": "bench", "uid": "d", "generation": 1, "annotations": {"deployment.kubernetes.io/revision": "1"}},
        "spec": {"replicas": 10, "selector": {"matchLabels": {"app": "api"}}, "template": {"metadata": {"labels": {"app": "api"}}, "spec": template["spec"]}},
        "status": {"observedGeneration": 1, "replicas": 10, "updatedReplicas": 10, "availableReplicas": 10},
    }))
    .expect("a Deployment");
    let owner = |kind: &str, name: &str, uid: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let set: ReplicaSet = serde_json::from_value(json!({
        "metadata": {"name": "api-abc", "namespace": "bench", "uid": "r", "labels": {"app": "api", "pod-template-hash": "abc"},
            "annotations": {"deployment.kubernetes.io/revision": "1"}, "ownerReferences": owner("Deployment", "api", "d")},
        "spec": {"replicas": 10, "selector": {"matchLabels": {"app": "api"}}, "template": template},
    }))
    .expect("a ReplicaSet");
    index.apply(&deployment);
    index.apply(&set);
    for n in 0..10 {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("api-abc-{n}"), "namespace": "bench", "uid": format!("p{n}"), "labels": {"app": "api", "pod-template-hash": "abc"},
                "ownerReferences": owner("ReplicaSet", "api-abc", "r")},
            "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "shop/api:v1"}]},
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"}]},
        }))
        .expect("a Pod");
        index.apply(&pod);
    }
    for kind in KINDS {
        index.listed(kind, "");
    }
    assert!(
        index.workload(WorkloadKind::Deployment, "bench", "api").known().is_some(),
        "{:?}",
        index.workload(WorkloadKind::Deployment, "bench", "api")
    );
    criterion.bench_function("state of a Deployment of 10 pods", |bencher| {
        bencher.iter(|| black_box(index.workload(WorkloadKind::Deployment, "bench", "api")))
    });
}

criterion_group!(benches, evaluation, index);
criterion_main!(benches);
