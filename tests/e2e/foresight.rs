//! Failures are foreseen from the metrics of a real Prometheus and healed before they come; what only looks like one is
//! let alone.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    ResourceExt as _,
    api::{ListParams, PostParams},
};
use panacea::{
    analyze::metric::MEMORY_USAGE,
    api::{ActionKind, Cause, HealthStatus, Phase},
    plan::guard::Guard,
};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use crate::{
    check::{check_json, file},
    support::{
        cluster::{Test, env, run},
        objects::{deployment, policy},
        operator::{Operator, Options},
        traffic::{Traffic, is_ready},
        wait,
    },
};

const LEAKING: &str = "leaking_memory";
const COLLECTED: &str = "collected_memory";

/// A leak that would take hours, in minutes: a pod begins with 40% and adds one point in three seconds.
fn leaking(seconds: f64) -> f64 {
    40.0 + seconds / 3.0
}

/// A collector's teeth, between 40% and 60%, one in fifteen seconds.
fn teeth(seconds: f64) -> f64 {
    40.0 + 20.0 * (seconds % 15.0) / 15.0
}

/// The memory of the Deployment `leaky`, as its pods have it, and that of another one which collects its garbage. A pod
/// whose memory is full dies, of which `died` tells.
async fn memory(test: &Test, traffic: &Traffic, died: &AtomicBool) {
    let started = Instant::now();
    let mut born: HashMap<String, Instant> = HashMap::new();
    let mut ticks = interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        traffic.set(COLLECTED, teeth(started.elapsed().as_secs_f64()));
        let Ok(pods) = test.api::<Pod>().list(&ListParams::default().labels("app=leaky")).await else { continue };
        let ready = pods.items.iter().filter(|pod| is_ready(pod)).map(|pod| pod.name_any());
        let ages = ready.map(|pod| born.entry(pod).or_insert_with(Instant::now).elapsed().as_secs_f64());
        let fullest = ages.map(leaking).fold(40.0, f64::max);
        died.fetch_or(fullest >= 100.0, Ordering::Relaxed);
        traffic.set(LEAKING, fullest.min(100.0));
    }
}

/// Both Deployments, checked every second; the thresholds so high that nothing is wrong yet while it is foreseen.
fn watching(traffic: &Traffic, patch: &Value) -> Value {
    let mut wanted = policy("shop", &["leaky", "collected"], patch);
    wanted["spec"]["interval"] = json!("1s");
    wanted["spec"]["prediction"] = json!({"horizon": "10m", "minProbability": 0.5});
    for (place, gauge) in [LEAKING, COLLECTED].into_iter().enumerate() {
        wanted["spec"]["components"][place]["thresholds"] = json!({"memory_usage": {"warning": 98, "critical": 99}});
        wanted["spec"]["components"][place]["metrics"] = json!([{"name": "memory_usage", "prometheus": {"query": traffic.gauge_query(gauge), "url": env("PROMETHEUS_URL")}}]);
    }
    wanted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leak_is_healed_before_it_kills_and_a_sawtooth_is_let_alone() {
    run("foresight", async |test| {
        for name in ["leaky", "collected"] {
            test.deploy(name, "shop/api:v1", 2).await;
            test.wait_rolled_out(name).await;
        }
        let traffic = Traffic::start(test, "leaky").await;
        let operator = Operator::start(test, Options::default()).await;
        let died = AtomicBool::new(false);
        let story = async {
            let mut wanted = watching(&traffic, &json!({}));
            wanted["spec"]["components"][0]["remedies"] = json!([{"action": "Restart"}]);
            test.apply_policy(&wanted).await;
            let what = "to be foreseen to fail";
            let limit = Duration::from_secs(240);
            let status =
                wait::until(&format!("leaky {what}"), limit, async || match test.component("shop", "leaky").await {
                    Some(status) if status.foreseen.is_some() => Ok(status),
                    other => Err(format!("{other:?}")),
                })
                .await;
            let forecast = status.forecast.clone().unwrap();
            assert_eq!(forecast.time_to_failure.as_deref(), Some("<1h"), "{forecast:?}");
            assert!(forecast.not_before <= forecast.predicted_failure_time, "{forecast:?}");
            assert!(forecast.predicted_failure_time <= forecast.not_after, "{forecast:?}");
            assert!(forecast.reasons[0].starts_with("memory_usage grows"), "{forecast:?}");
            test.wait_event("FailureForeseen", "shop", "leaky: risk of a failure").await;
            (status, test.wait_remediation(Phase::Succeeded).await)
        };
        let (status, remediation) = tokio::select! {
            seen = story => seen,
            () = memory(test, &traffic, &died) => unreachable!("it never ends"),
        };
        assert!(!died.load(Ordering::Relaxed), "it died before it was healed");

        let spec = &remediation.spec;
        assert_eq!(
            (spec.plan.component.as_str(), spec.plan.action, spec.plan.cause),
            ("leaky", ActionKind::Restart, Cause::Exhaustion)
        );
        let foreseen = spec.plan.foreseen.as_ref().expect("it was done ahead");
        assert_eq!(status.foreseen.as_ref(), Some(foreseen), "what the policy said");
        assert_eq!((foreseen.metric.as_str(), &foreseen.id), (MEMORY_USAGE, &spec.plan.episode));
        assert!(foreseen.probability >= 0.5 && foreseen.value < 98.0, "{foreseen:?}");
        assert!(foreseen.failure_at > spec.plan.decided_at, "{foreseen:?}");
        assert!(
            spec.plan.why.starts_with("failure forecast with ") && spec.plan.why.contains(&foreseen.reason),
            "{}",
            spec.plan.why
        );
        let message = &remediation.status.as_ref().unwrap().message;
        assert!(message.contains("memory_usage went from "), "{message}");

        assert_eq!(test.remediations().await.len(), 1, "once");
        let writes = test.operator_writes_to_workloads();
        assert_eq!(writes.len(), 1, "one restart: {writes:?}");
        assert_eq!(test.generation("collected").await, 1);
        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("service_restart".to_owned(), true, remediation.name_any())]);
        let inputs = operator.action_inputs().await;
        assert_eq!((&inputs[0]["proactive"], &inputs[0]["foreseen"]), (&json!(true), &json!(foreseen)));
        let status = test
            .wait_component("shop", "leaky", "to have nothing foreseen any more", |status| status.foreseen.is_none())
            .await;
        assert_eq!(status.status, HealthStatus::Healthy);
        let outcome = wait_outcome(&operator).await;
        assert_eq!(
            (&outcome["outcome"], &outcome["remediation"]),
            (&json!("Prevented"), &json!(remediation.name_any()))
        );
        let what = "to follow the warning no longer";
        test.wait_component("shop", "leaky", what, |status| status.warnings.is_empty()).await;

        let collected = test.component("shop", "collected").await.unwrap();
        assert!(collected.forecast.as_ref().is_some_and(|f| !f.leak && f.level == "low"), "{collected:?}");
        let told = test.events("FailureForeseen", "shop").await;
        assert!(told.iter().all(|note| !note.contains("collected")), "{told:?}");
        assert!(test.events("Unhealthy", "shop").await.is_empty(), "nothing was wrong at any time");
    })
    .await;
}

/// What the ledger says of the only warning.
async fn wait_outcome(operator: &Operator) -> Value {
    wait::until("the outcome of the warning", Duration::from_secs(240), async || {
        match operator.outcomes().await.as_slice() {
            [one] => Ok(one.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Nothing is done about it, and the operator is down for a moment between the warning and the failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_warning_that_comes_true_is_known_to_have_across_a_restart() {
    run("foresight-true", async |test| {
        for name in ["leaky", "collected"] {
            test.deploy(name, "shop/api:v1", 1).await;
            test.wait_rolled_out(name).await;
        }
        let traffic = Traffic::start(test, "leaky").await;
        let mut operator = Operator::start(test, Options::default()).await;
        let died = AtomicBool::new(false);
        let story = async {
            test.apply_policy(&watching(&traffic, &json!({"spec": {"mode": "Observe"}}))).await;
            let what = "a warning in the status";
            let limit = Duration::from_secs(240);
            let warning = wait::until(what, limit, async || match test.component("shop", "leaky").await {
                Some(status) if status.warnings.len() == 1 => Ok(status.warnings[0].clone()),
                other => Err(format!("{other:?}")),
            })
            .await;
            assert!(warning.settled.is_none(), "{warning:?}");
            operator.kill9();
            operator.spawn();
            operator.wait_ready().await;
            let outcome = wait_outcome(&operator).await;
            assert_eq!(outcome["outcome"], json!("CameTrue"), "{warning:?}: {outcome}");
            let input = operator
                .text("SELECT input_data::text FROM unified_brain WHERE action_type = 'forecast_outcome'")
                .await;
            let input: Value = serde_json::from_str(&input).unwrap();
            assert_eq!(input["foreseen"], json!(warning.foreseen), "the one from before the restart");
            let what = "to follow the warning no longer";
            test.wait_component("shop", "leaky", what, |status| status.warnings.is_empty()).await;
            operator.wait_checks(3).await;
            assert_eq!(operator.outcomes().await, [outcome], "once");
        };
        tokio::select! {
            () = story => {}
            () = memory(test, &traffic, &died) => unreachable!("it never ends"),
        }
        assert!(test.remediations().await.is_empty());
    })
    .await;
}

/// The limit is that of the pods, the history that of Prometheus, and the policy may only look.
#[tokio::test(flavor = "multi_thread")]
async fn what_happened_before_the_policy_came_counts() {
    run("foresight-past", async |test| {
        let mut leaky = deployment("leaky", "shop/api:v1", 1);
        leaky["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "100Mi"}});
        let leaky: Deployment = serde_json::from_value(leaky).unwrap();
        test.api().create(&PostParams::default(), &leaky).await.unwrap();
        test.deploy("collected", "shop/api:v1", 1).await;
        for name in ["leaky", "collected"] {
            test.wait_rolled_out(name).await;
        }
        let traffic = Traffic::start(test, "leaky").await;
        let operator = Operator::start(test, Options::default()).await;
        let mut wanted = watching(&traffic, &json!({"spec": {"mode": "Observe"}}));
        wanted["spec"]["components"][0]["metrics"][0]["name"] = json!("memory_mib");
        wanted["spec"]["components"][0]["thresholds"] = json!({"memory_mib": {"warning": 98, "critical": 99}});
        let died = AtomicBool::new(false);
        let story = async {
            // Nobody looks; Prometheus scrapes every second.
            let query = format!("count_over_time({}[5m]) >= 100", traffic.gauge_query(LEAKING));
            wait::until("a history of 100 scrapes", Duration::from_secs(180), async || {
                let seen = crate::support::traffic::query(&env("PROMETHEUS_URL"), &query).await;
                seen.ok_or_else(|| "not yet".to_owned())
            })
            .await;
            let mut written = wanted.clone();
            written["metadata"]["namespace"] = json!(test.namespace);
            let written = file(&written.to_string());
            let (code, findings) = check_json(&env("PANACEA_KUBECONFIG"), written.path()).await;
            assert_eq!(code, Some(0), "nothing is wrong yet: {findings:?}");
            let would = findings[0]["wouldDo"].as_str().unwrap();
            assert!(would.starts_with("nothing (ObserveMode: would apply Restart to leaky"), "{findings:?}");
            assert_eq!(findings[1]["wouldDo"], json!("nothing"), "{findings:?}");

            let applied = Instant::now();
            test.apply_policy(&wanted).await;
            let refusal = test.wait_refusal("shop", "leaky", Guard::ObserveMode).await;
            // Sixty looks are the least that a forecast needs: it has them from before.
            assert!(applied.elapsed() < Duration::from_secs(50), "{:?}", applied.elapsed());
            refusal
        };
        let refusal = tokio::select! {
            seen = story => seen,
            () = memory(test, &traffic, &died) => unreachable!("it never ends"),
        };
        assert!(refusal.message.contains("would apply Restart"), "{refusal:?}");
        let foreseen = test.component("shop", "leaky").await.and_then(|status| status.foreseen).unwrap();
        assert_eq!((foreseen.metric.as_str(), foreseen.limit), ("memory_mib", 100.0), "{foreseen:?}");
        assert!(test.remediations().await.is_empty() && test.operator_writes_to_workloads().is_empty());
        let metrics = operator.metrics().await;
        let time = metrics.lines().find(|line| line.starts_with("panacea_component_time_to_failure_seconds{"));
        assert!(time.is_some_and(|line| line.contains(r#"component="leaky""#)), "{time:?}");
    })
    .await;
}
