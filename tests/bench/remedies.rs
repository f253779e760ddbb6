//! Seconds from a decision until all pods have what they should and are available, for each remedy that kubectl has a
//! counterpart of, at 3, 30 and 300 pods. The decision is a person's approval in mode Approve; kubectl is run in the same
//! situation, on the same cluster, alone and while Panacea looks on (mode Observe), which takes its share of the machine.
//! Prints Markdown rows for docs/benchmarks.md.
//!
//! `RUNS` sets the runs of each figure (default 3), `PODS` the sizes (default `3 30 300`).

use std::time::Duration;

use crate::figures::{median, shown};
use crate::support::{
    cluster::{Test, run},
    objects::{deployment, image_of, policy},
    operator::{Operator, Options},
    shell::typed,
    traffic::Traffic,
    wait,
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use panacea::api::{ActionKind, Phase, Remediation};
use serde_json::{Value, json};
use tokio::time::Instant;

const GOOD: &str = "shop/api:v1";
const SHARE: &str = "bench_error_ratio";
/// Tells the bad images of one series of runs from those of another.
const SERIES: usize = 1000;
const LIMIT: Duration = Duration::from_secs(180);

/// What turns the component bad, and what a person would type.
struct Case {
    action: ActionKind,
    template: bool,
    config: bool,
    manual: &'static str,
}

const BACK: &str = r#"kubectl -n NS patch configmap app --type merge -p '{"data":{"mode":"good"}}'"#;
const CASES: [Case; 4] = [
    Case {
        action: ActionKind::Rollback,
        template: true,
        config: false,
        manual: "kubectl -n NS rollout undo deployment/api",
    },
    Case {
        action: ActionKind::RollbackConfig,
        template: false,
        config: true,
        manual: "BACK && kubectl -n NS rollout restart deployment/api",
    },
    Case {
        action: ActionKind::RollbackState,
        template: true,
        config: true,
        manual: "BACK && kubectl -n NS rollout undo deployment/api",
    },
    Case {
        action: ActionKind::Restart,
        template: false,
        config: false,
        manual: "kubectl -n NS rollout restart deployment/api",
    },
];

pub async fn measure() {
    let runs: usize = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3);
    let sizes = std::env::var("PODS").unwrap_or_else(|_| "3 30 300".to_owned());
    let mut rows = Vec::new();
    for pods in sizes.split_whitespace().filter_map(|pods| pods.parse::<u32>().ok()) {
        run(&format!("remedies-{pods}"), async |test| {
            let traffic = deploy(test, pods).await;
            let mut manual = Vec::new();
            for case in &CASES {
                let mut figures = Vec::new();
                for number in 0..runs {
                    figures.push(hand(test, case, number).await);
                }
                manual.push(figures);
            }
            let _operator = Operator::start(test, Options::default().with("PANACEA_LOG", "info")).await;
            watch(test, &traffic).await;
            for (case, manual) in CASES.iter().zip(manual) {
                let mut figures = Vec::new();
                for number in 0..runs {
                    figures.push(healed(test, &traffic, case, number).await);
                }
                test.patch_policy("shop", json!({"spec": {"mode": "Observe"}})).await;
                let mut watched = Vec::new();
                for number in 0..runs {
                    watched.push(hand(test, case, number + 2 * SERIES).await);
                }
                test.patch_policy("shop", json!({"spec": {"mode": "Approve"}})).await;
                let ratio = |floor: &[f64]| median(&figures) / median(floor);
                rows.push(format!(
                    "| {} | {pods} | {runs} | {} | {} | {} | {:.2} | {:.2} |",
                    case.action,
                    shown(&manual, 1),
                    shown(&watched, 1),
                    shown(&figures, 1),
                    ratio(&manual),
                    ratio(&watched)
                ));
                println!("{}", rows.last().map(String::as_str).unwrap_or_default());
            }
        })
        .await;
    }
    println!(
        "\n| remedy | pods | runs | kubectl, s: median (min–max) | kubectl, watched | Panacea | to kubectl | to kubectl, watched |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
}

async fn deploy(test: &Test, pods: u32) -> Traffic {
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "app"}, "data": {"mode": "good"}})).unwrap();
    test.api().create(&PostParams::default(), &map).await.unwrap();
    let mut api = deployment("api", GOOD, pods);
    api["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "app"}}]);
    let api: Deployment = serde_json::from_value(api).unwrap();
    test.api().create(&PostParams::default(), &api).await.unwrap();
    complete(test, GOOD, 0).await;
    let traffic = Traffic::start(test, "api").await;
    traffic.set(SHARE, 0.0);
    traffic
}

async fn watch(test: &Test, traffic: &Traffic) {
    let mut wanted = policy(
        "shop",
        &["api"],
        &json!({"spec": {
            "interval": "1s",
            "mode": "Approve",
            "safety": {"cooldown": "0s", "budget": {"actions": 1000}},
            "verification": {"stabilization": "1s"},
        }}),
    );
    wanted["spec"]["components"][0]["metrics"] =
        json!([{"name": "error_rate", "prometheus": {"query": traffic.gauge_query(SHARE)}}]);
    test.apply_policy(&wanted).await;
}

/// Makes it bad, with all pods up.
async fn spoil(test: &Test, case: &Case, number: usize) {
    if case.config {
        let patch = Patch::Merge(json!({"data": {"mode": format!("bad-{number}")}}));
        test.api::<ConfigMap>().patch("app", &PatchParams::default(), &patch).await.unwrap();
    }
    if case.template {
        let bad = format!("shop/api:bad-{number}");
        let generation = test.release("api", &bad).await.metadata.generation.unwrap_or_default();
        complete(test, &bad, generation).await;
    }
}

/// All pods are of the newest template, which is at least of this generation, and available.
async fn complete(test: &Test, image: &str, generation: i64) {
    wait::until(&format!("{image} to run everywhere"), LIMIT, async || {
        let deployment = test.deployment("api").await;
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let status = deployment.status.clone().unwrap_or_default();
        let is = |count: Option<i32>| count.unwrap_or(0) == wanted;
        let all = is(status.updated_replicas) && is(status.replicas) && is(status.available_replicas);
        let newest = deployment.metadata.generation.unwrap_or_default();
        let seen = status.observed_generation == Some(newest) && newest >= generation;
        if all && seen && image_of(&deployment) == image { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

async fn hand(test: &Test, case: &Case, number: usize) -> f64 {
    spoil(test, case, number).await;
    let before = test.generation("api").await;
    let line = case.manual.replace("BACK", BACK).replace("NS", &test.namespace);
    let decided = Instant::now();
    let ended = typed(&line).await;
    assert!(ended.success(), "{ended:?}");
    complete(test, GOOD, before + 1).await;
    decided.elapsed().as_secs_f64()
}

async fn healed(test: &Test, traffic: &Traffic, case: &Case, number: usize) -> f64 {
    let number = number + SERIES;
    test.wait_known_good("shop", "api").await;
    let (what, limit) = ("its good state to be kept", LIMIT);
    wait::until(what, limit, async || {
        let status = test.component("shop", "api").await.unwrap_or_default();
        let good = status.config.as_ref().is_some_and(|config| config.seen_healthy);
        let well = status.status == panacea::api::HealthStatus::Healthy && status.episode.is_none();
        if good && well && !status.snapshots.is_empty() { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    spoil(test, case, number).await;
    traffic.set(SHARE, 0.5);
    let waiting = test.wait_remediation_within(Phase::AwaitingApproval, LIMIT).await;
    assert_eq!(waiting.spec.plan.action, case.action, "{}", waiting.spec.plan.why);
    let before = test.generation("api").await;
    let decided = Instant::now();
    let approval: Value = json!({"spec": {"approval": {"decision": "Approved"}}});
    let name = waiting.name_any();
    test.api::<Remediation>().patch(&name, &PatchParams::default(), &Patch::Merge(approval)).await.unwrap();
    complete(test, GOOD, before + 1).await;
    let took = decided.elapsed().as_secs_f64();
    traffic.set(SHARE, 0.0);
    let ended = test.wait_ended(&name).await;
    assert_eq!(ended.status.map(|status| status.phase), Some(Phase::Succeeded));
    took
}
