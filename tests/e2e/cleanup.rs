//! Leaked memory is reclaimed: pod by pod within the disruption budgets, or by the component's own hook. What the
//! API server would refuse is known before, and the next remedy is tried.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, http::StatusCode, routing::post};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod, policy::v1::PodDisruptionBudget};
use kube::{
    ResourceExt as _,
    api::{ListParams, PostParams},
};
use panacea::api::{ActionKind, Phase, Remediation};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use crate::support::{
    audit::OPERATOR,
    cluster::{Test, env, run},
    gate::{Gate, Side},
    objects::{deployment, policy},
    operator::{Operator, Options},
    role::Role,
    traffic::{Traffic, is_ready},
    wait,
};

const LEAKING: &str = "leaking_memory";
const PODS: usize = 3;

/// Memory in percent of the limit after so many seconds: a leak of hours, in minutes.
fn leaking(seconds: f64) -> f64 {
    (40.0 + seconds / 3.0).min(97.0)
}

/// The memory of the Deployment `leaky`, pod by pod; the first pods differ, so that one is the fullest.
struct Leak {
    traffic: Traffic,
    /// How often a hook freed all of it.
    collected: Arc<AtomicU32>,
    /// The fewest ready pods that were seen since the first time all were.
    fewest: AtomicUsize,
}

impl Leak {
    async fn start(test: &Test, pods: usize) -> Self {
        let mut leaky = deployment("leaky", "shop/api:v1", u32::try_from(pods).unwrap());
        leaky["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "100Mi"}});
        let leaky: Deployment = serde_json::from_value(leaky).unwrap();
        test.api().create(&PostParams::default(), &leaky).await.unwrap();
        test.wait_rolled_out("leaky").await;
        let traffic = Traffic::start(test, "leaky").await;
        Self { traffic, collected: Arc::default(), fewest: AtomicUsize::new(pods) }
    }

    async fn keeps_leaking(&self, test: &Test) {
        let mut born: BTreeMap<String, (Instant, f64)> = BTreeMap::new();
        let mut collected = 0;
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            let Ok(pods) = test.api::<Pod>().list(&ListParams::default().labels("app=leaky")).await else { continue };
            if collected != self.collected.load(Ordering::SeqCst) {
                collected = self.collected.load(Ordering::SeqCst);
                born.values_mut().for_each(|(since, _)| *since = Instant::now());
            }
            let ready = pods.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod));
            let first = born.len() < PODS;
            let memory: BTreeMap<String, f64> = ready
                .map(|pod| {
                    let extra = if first { 2.0 * born.len() as f64 } else { 0.0 };
                    let (since, extra) = *born.entry(pod.name_any()).or_insert_with(|| (Instant::now(), extra));
                    (pod.name_any(), leaking(since.elapsed().as_secs_f64()) + extra)
                })
                .collect();
            self.fewest.fetch_min(memory.len(), Ordering::SeqCst);
            self.traffic.set_of_pods(LEAKING, memory);
        }
    }

    /// Foreseen before it is bad: the thresholds are out of reach.
    fn policy(&self, patch: &Value) -> Value {
        let mut wanted = policy("shop", &["leaky"], &json!({"spec": {"interval": "1s"}}));
        wanted["spec"]["prediction"] = json!({"horizon": "10m", "minProbability": 0.5});
        let query = format!(r#"max({LEAKING}{{namespace="$(namespace)",pod=~"$(pods)"}})"#);
        wanted["spec"]["components"][0]["metrics"] =
            json!([{"name": "memory_usage", "prometheus": {"query": query, "url": env("PROMETHEUS_URL")}}]);
        wanted["spec"]["components"][0]["thresholds"] = json!({"memory_usage": {"warning": 98, "critical": 99}});
        crate::support::objects::merge(&mut wanted["spec"]["components"][0], patch);
        wanted
    }

    /// The story, while memory keeps leaking.
    async fn during<T>(&self, test: &Test, story: impl Future<Output = T>) -> T {
        wait::during(self.keeps_leaking(test), story).await
    }
}

impl Test {
    async fn budget(&self, min_available: usize) {
        let budget: PodDisruptionBudget = serde_json::from_value(json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "leaky"},
            "spec": {"minAvailable": min_available, "selector": {"matchLabels": {"app": "leaky"}}},
        }))
        .unwrap();
        self.api().create(&PostParams::default(), &budget).await.unwrap();
        let allowed = i32::try_from(PODS - min_available).unwrap();
        wait::until("the budget to be computed", Duration::from_secs(30), async || {
            let status = self.api::<PodDisruptionBudget>().get("leaky").await.unwrap().status.unwrap_or_default();
            let known = status.observed_generation.is_some() && status.disruptions_allowed == allowed;
            if known { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }

    async fn wait_foreseen(&self) {
        wait::until("leaky to be foreseen to fail", Duration::from_secs(240), async || {
            match self.component("shop", "leaky").await {
                Some(status) if status.foreseen.is_some() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    async fn done(&self) -> Remediation {
        self.wait_remediation_within(Phase::Succeeded, Duration::from_secs(240)).await
    }

    async fn pod_names(&self) -> Vec<String> {
        let pods = self.api::<Pod>().list(&ListParams::default().labels("app=leaky")).await.unwrap().items;
        pods.iter().map(|pod| pod.name_any()).collect()
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The row says what was freed, as it was measured.
fn freed(row: &Value) -> f64 {
    let [baseline, before, after, freed] =
        ["baseline_mb", "before_mb", "after_mb", "freed_mb"].map(|field| number(&row[field]));
    assert!((freed - (before - after)).abs() < 1e-9, "{row}");
    // One percent of 100 MiB.
    assert!((before - number(&row["before"]) * 1.048_576).abs() < 1e-6 && before > baseline, "{row}");
    assert!((after - number(&row["after"]) * 1.048_576).abs() < 1e-6, "{row}");
    freed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leak_is_recycled_pod_by_pod_the_fullest_first_within_the_budget() {
    run("cleanup", async |test| {
        let leak = Leak::start(test, PODS).await;
        test.budget(PODS - 1).await;
        let before = test.pod_names().await;
        let operator = Operator::start(test, Options::default()).await;
        let remediation = leak
            .during(test, async {
                test.apply_policy(&leak.policy(&json!({}))).await;
                test.done().await
            })
            .await;
        assert_eq!(remediation.spec.plan.action, ActionKind::CleanupMemory);
        let growth = remediation.spec.plan.intent.memory().unwrap();
        assert!(growth.metric == "memory_usage" && growth.value > growth.baseline, "{growth:?}");
        let planned = &remediation.status.as_ref().unwrap().progress.as_ref().unwrap().cleanup().unwrap().pods;
        let values: Vec<f64> = planned.iter().map(|pod| pod.value.expect("the query tells pods apart")).collect();
        assert!(values.len() == PODS && values.is_sorted_by(|a, b| a >= b), "{planned:?}");
        let names: Vec<String> = planned.iter().map(|pod| pod.name.clone()).collect();
        assert_eq!(test.evicted_by(OPERATOR), names, "each once, in that order");
        assert!(names.iter().all(|name| before.contains(name)), "{names:?} of {before:?}");
        assert!(test.pod_names().await.iter().all(|name| !names.contains(name)));
        assert_eq!(test.generation("leaky").await, 1, "the workload itself was not touched");
        assert_eq!(leak.fewest.load(Ordering::SeqCst), PODS - 1, "never more than one unavailable");

        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("memory_leak_cleanup".to_owned(), true, remediation.name_any())]);
        let row = &operator.action_outputs().await[0];
        assert!(freed(row) > 10.0, "{row}");
        assert_eq!((&row["objects_collected"], &row["leak_detected"]), (&Value::Null, &json!(growth.leak)));
        assert_eq!(row["pods"], json!(names));
        test.wait_event("Acting", &remediation.name_any(), "was evicted, 1 of 3").await;
    })
    .await;
}

/// The cleanup is Blocked for this reason, then passed over, and the restart after it helps.
async fn restarted_instead(test: &Test, leak: &Leak, reason: &str, words: &str) {
    let restarted = leak
        .during(test, async {
            test.apply_policy(&leak.policy(&json!({}))).await;
            test.done().await
        })
        .await;
    assert_eq!(restarted.spec.plan.action, ActionKind::Restart);
    let held = &test.remediations().await[0];
    let status = held.status.as_ref().unwrap();
    assert_eq!(
        (held.spec.plan.action, status.phase, status.reason.as_str()),
        (ActionKind::CleanupMemory, Phase::Expired, reason)
    );
    assert!(status.message.contains(words), "{}", status.message);
    test.wait_event("Blocked", &held.name_any(), words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_lets_no_pod_go_is_respected_and_the_next_remedy_is_tried() {
    run("cleanup-budget", async |test| {
        let leak = Leak::start(test, PODS).await;
        test.budget(PODS).await;
        let _operator = Operator::start(test, Options::default()).await;
        let words = "The disruption budget leaky needs 3 healthy pods and has 3 currently";
        restarted_instead(test, &leak, "DisruptionBudget", words).await;
        assert_eq!(test.evicted_by(OPERATOR), [""; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_evict_it_says_which_one_is_missing_and_the_rest_works() {
    run("cleanup-role", async |test| {
        let leak = Leak::start(test, PODS).await;
        let role = Role::with(test, &["rbac.evictPods=false"]).await;
        let options = Options::default().through(role.kubeconfig());
        let _operator = Operator::start(test, options).await;
        restarted_instead(test, &leak, "Forbidden", "not allowed to create pods/eviction").await;
        let asked = test.writes().into_iter().filter(|write| write.user == role.user(test));
        assert!(asked.clone().any(|write| write.resource == "deployments"), "it is not in the log");
        assert!(!asked.clone().any(|write| write.code == 403), "it knew before it tried");
    })
    .await;
}

/// Two endpoints: `/broken` answers 500, `/gc` frees memory. The second one notes the keys that it was called with.
async fn hooks(collected: Arc<AtomicU32>) -> (String, Arc<std::sync::Mutex<Vec<String>>>) {
    let keys = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = keys.clone();
    let gc = async move |headers: axum::http::HeaderMap| {
        let key = headers["idempotency-key"].to_str().unwrap().to_owned();
        noted.lock().unwrap().push(key);
        collected.fetch_add(1, Ordering::SeqCst);
        Json(json!({"objects_collected": 4711, "memory_freed_mb": 12.5, "took_ms": 3}))
    };
    let broken = async || (StatusCode::INTERNAL_SERVER_ERROR, "no collector");
    let router = Router::new().route("/gc", post(gc)).route("/broken", post(broken));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_fails_is_followed_by_the_next_remedy_and_one_that_works_is_assessed_by_the_metric() {
    run("cleanup-hook", async |test| {
        let leak = Leak::start(test, 1).await;
        let (address, keys) = hooks(leak.collected.clone()).await;
        let operator = Operator::start(test, Options::default()).await;
        let remedy = |path: &str| json!({"action": "CleanupMemory", "hook": {"url": format!("{address}{path}")}});
        let remedies = json!({"remedies": [remedy("/broken"), remedy("/gc"), {"action": "Restart"}]});
        let remediation = leak
            .during(test, async {
                test.apply_policy(&leak.policy(&remedies)).await;
                test.done().await
            })
            .await;
        let phases = test.outcomes().await;
        assert_eq!(
            phases[0],
            (ActionKind::CleanupMemory, Phase::Failed, "HookRefused".to_owned()),
            "the failed one is not tried again in this incident: {phases:?}"
        );
        assert_eq!((phases.len(), phases[1].1), (2, Phase::Succeeded), "{phases:?}");
        let failed = &test.remediations().await[0];
        let message = &failed.status.as_ref().unwrap().message;
        assert!(message.contains("responded 500") && message.contains("no collector"), "{message}");
        assert_eq!(*keys.lock().unwrap(), [remediation.uid().unwrap()]);
        assert!(test.operator_writes_to_workloads().is_empty());

        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        let rows = operator.action_rows().await;
        let outcomes: Vec<(&str, bool)> = rows.iter().map(|(kind, success, _)| (kind.as_str(), *success)).collect();
        assert_eq!(outcomes, [("memory_leak_cleanup", false), ("memory_leak_cleanup", true)]);
        let row = &operator.action_outputs().await[1];
        assert!(freed(row) > 10.0, "{row}");
        assert_eq!((&row["objects_collected"], &row["hook_freed_mb"]), (&json!(4711), &json!(12.5)));
    })
    .await;
}

/// Killed before the first eviction, when the second one was made and not answered, and while it is being verified.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_each_pod_is_evicted_once() {
    run("cleanup-killed", async |test| {
        let leak = Leak::start(test, PODS).await;
        let gate = Gate::start(env("PANACEA_KUBECONFIG").as_ref()).await;
        let options = Options::default().through(gate.kubeconfig());
        let mut operator = Operator::start(test, options).await;
        let remediation = leak
            .during(test, async {
                let mut held = gate.hold(Side::Request, |seen| seen.is_eviction());
                test.apply_policy(&leak.policy(&json!({}))).await;
                test.wait_foreseen().await;
                held.reached().await;
                operator.kill9();
                drop(held);
                assert_eq!(test.evicted_by(OPERATOR), [""; 0]);
                let planned = test.remediations().await[0]
                    .status
                    .clone()
                    .unwrap()
                    .progress
                    .unwrap()
                    .cleanup()
                    .cloned()
                    .unwrap()
                    .pods;
                assert_eq!(planned.len(), PODS, "the plan is there before the first write");

                let passed = AtomicUsize::new(0);
                let mut held = gate
                    .hold(Side::Answer, move |seen| seen.is_eviction() && passed.fetch_add(1, Ordering::SeqCst) == 1);
                operator.spawn();
                held.reached().await;
                operator.kill9();
                drop(held);
                assert_eq!(test.evicted_by(OPERATOR).len(), 2);

                operator.spawn();
                test.wait_remediation(Phase::Verifying).await;
                operator.kill9();
                operator.spawn();
                test.done().await
            })
            .await;
        let names: Vec<String> = remediation
            .status
            .unwrap()
            .progress
            .unwrap()
            .cleanup()
            .cloned()
            .unwrap()
            .pods
            .into_iter()
            .map(|pod| pod.name)
            .collect();
        assert_eq!(test.evicted_by(OPERATOR), names, "each once");
        assert_eq!(test.remediations().await.len(), 1);
        test.wait_recorded(&remediation.metadata.name.unwrap(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await.len(), 1);
    })
    .await;
}
