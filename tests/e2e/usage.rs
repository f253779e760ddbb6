//! CPU and memory without a metrics stack: from a real metrics-server that reads the simulated kubelets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    ResourceExt as _,
    api::{ListParams, PostParams},
};
use panacea::api::{ActionKind, Cause, HealthStatus, Phase};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    cluster::{Test, env, run},
    gate::{Gate, Side},
    objects::{deployment, policy},
    operator::{Operator, Options},
    role::Role,
    wait,
};

/// metrics-server looks every 10 s, and its answer serves as long: this holds a few rounds of both.
const LIMIT: Duration = Duration::from_secs(150);

/// An offered metric counts against a component when its policy has a threshold for it.
fn judged() -> Value {
    json!({"memory_usage": {"warning": 75, "critical": 90}})
}

impl Test {
    /// Two pods of an `app` that may use 100Mi and a `proxy` that may use ten times as much.
    async fn deploy_limited(&self, name: &str) {
        let mut limited = deployment(name, "shop/api:v1", 2);
        let container = |name: &str, memory: &str| json!({"name": name, "image": "shop/api:v1", "resources": {"limits": {"memory": memory}}});
        limited["spec"]["template"]["spec"]["containers"] =
            json!([container("app", "100Mi"), container("proxy", "1000Mi")]);
        let limited: Deployment = serde_json::from_value(limited).unwrap();
        self.api().create(&PostParams::default(), &limited).await.unwrap();
        self.wait_rolled_out(name).await;
    }

    /// Lets each container of one of the pods use this much from now on, and says which pod it is.
    async fn fill_one(&self, app: &str, memory: &str) -> String {
        let pods = self.api::<Pod>().list(&ListParams::default().labels(&format!("app={app}"))).await.unwrap().items;
        let pod = pods.iter().map(|pod| pod.name_any()).max().unwrap();
        let usage = format!("kwok.x-k8s.io/usage-memory={memory}");
        self.kubectl_succeeds(&["annotate", "pod", &pod, &usage]).await;
        pod
    }

    /// Waits until metrics-server says this of the pod.
    async fn wait_figures(&self, pod: &str, memory: &str) {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods/{pod}", self.namespace);
        wait::until(&format!("{pod} to be seen with {memory}"), LIMIT, async || {
            let seen = self.kubectl(&["get", "--raw", &path]).await;
            let figures: Value = serde_json::from_str(&seen.stdout).map_err(|_| seen.stderr)?;
            if figures["containers"][0]["usage"]["memory"] == memory { Ok(()) } else { Err(figures.to_string()) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_container_is_found_named_and_healed_without_any_metrics_stack() {
    run("usage", async |test| {
        test.deploy_limited("full").await;
        let gate = Gate::start(env("PANACEA_KUBECONFIG").as_ref()).await;
        let asked = Arc::new(AtomicU64::new(0));
        let counter = asked.clone();
        let _counting = gate.hold(Side::Request, move |seen| {
            counter.fetch_add(u64::from(seen.path.contains("/metrics.k8s.io/")), Ordering::SeqCst);
            false
        });
        let options = Options::default().through(gate.kubeconfig());
        let operator = Operator::start(test, options).await;
        let started = Instant::now();
        let mut wanted = policy("shop", &["full"], &json!({"spec": {"interval": "1s"}}));
        wanted["spec"]["components"][0]["remedies"] = json!([{"action": "Restart"}]);
        wanted["spec"]["components"][0]["thresholds"] = judged();
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "full").await;
        let pod = test.fill_one("full", "95Mi").await;

        let remediation = test.wait_remediation_within(Phase::Succeeded, LIMIT).await;
        let spec = &remediation.spec;
        assert_eq!((spec.plan.action, spec.plan.cause), (ActionKind::Restart, Cause::Exhaustion));
        let seen = format!("memory_usage 95% > 90% (critical threshold) in container app of pod {pod}");
        assert!(spec.plan.why.contains(&seen), "{}", spec.plan.why);
        assert_eq!(test.operator_writes_to_workloads().len(), 1, "one restart");
        let pods = test.api::<Pod>().list(&ListParams::default().labels("app=full")).await.unwrap().items;
        assert!(pods.iter().all(|pod| !pod.annotations().contains_key("kwok.x-k8s.io/usage-memory")));

        // The new pods are measured too, and are healthy.
        let measured =
            "SELECT count(*) FROM ai_proactive_health WHERE (metrics->>'memory_usage')::float8 BETWEEN 0.9 AND 1.1";
        let before = operator.count(measured).await;
        wait::until("the new pods to be measured", LIMIT, async || {
            let now = operator.count(measured).await;
            if now > before { Ok(()) } else { Err(format!("{now} rows")) }
        })
        .await;
        let status = test.component("shop", "full").await.unwrap();
        assert_eq!(status.status, HealthStatus::Healthy, "{status:?}");
        assert_eq!(test.remediations().await.len(), 1, "once");
        // Looks came every second, and more often.
        let (asked, rounds) = (asked.load(Ordering::SeqCst), started.elapsed().as_secs() / 10);
        assert!((2..=rounds + 1).contains(&asked), "{asked} requests in {rounds} times ten seconds");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_it_a_component_is_as_well_as_its_other_signals_say() {
    run("usage-denied", async |test| {
        test.deploy_limited("full").await;
        let pod = test.fill_one("full", "95Mi").await;
        let role = Role::with(test, &["rbac.readUsage=false"]).await;
        let options = Options::default().through(role.kubeconfig());
        let operator = Operator::start(test, options).await;
        let mut wanted = policy("shop", &["full"], &json!({"spec": {"interval": "1s"}}));
        wanted["spec"]["components"][0]["thresholds"] = judged();
        test.apply_policy(&wanted).await;
        test.wait_figures(&pod, "95Mi").await;
        operator.wait_checks(15).await;
        let status = test.component("shop", "full").await.unwrap();
        assert_eq!((status.status, status.score), (HealthStatus::Healthy, Some(100)), "{status:?}");
        let log = operator.log();
        let said = log.lines().filter(|line| line.contains("metrics.k8s.io")).collect::<Vec<_>>();
        assert!(said.len() == 1 && said[0].contains("not allowed to list pods of metrics.k8s.io"), "{said:?}");
    })
    .await;
}
