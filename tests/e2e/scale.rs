//! More or fewer pods: within bounds, once, and never against an autoscaler.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{ResourceExt as _, api::PostParams};
use panacea::api::{ActionKind, Phase};
use serde_json::{Value, json};

use crate::support::{
    cluster::{Test, env, run},
    gate::{Gate, Side},
    objects::policy,
    operator::{Operator, Options},
    role::Role,
    traffic::Traffic,
    wait,
};

/// The Deployment `api` with two pods, which are too few for what it has to do: with three the component is healthy.
struct Busy(Traffic);

impl Busy {
    async fn start(test: &Test) -> Self {
        test.deploy("api", "shop/api:v1", 2).await;
        test.wait_rolled_out("api").await;
        let traffic = Traffic::start(test, "api").await;
        traffic.set("queue", 0.0);
        Self(traffic)
    }

    fn policy(&self, remedies: &Value) -> Value {
        let component = json!({
            "name": "api", "target": {"deployment": {"name": "api"}},
            "metrics": [{"name": "queue", "prometheus": {"query": self.0.gauge_query("queue")}}],
            "thresholds": {"queue": {"warning": 5.0, "critical": 8.0}},
            "remedies": remedies,
        });
        policy("shop", &["api"], &json!({"spec": {"interval": "1s", "components": [component]}}))
    }

    async fn rush(&self, test: &Test, remedies: &Value) {
        test.apply_policy(&self.policy(remedies)).await;
        test.wait_known_good("shop", "api").await;
        self.0.set("queue", 9.0);
    }

    /// The queue is worked off as soon as there are so many pods.
    async fn relieved_by(&self, test: &Test, pods: i32) {
        wait::until(&format!("{pods} pods"), Duration::from_secs(60), async || {
            let status = test.deployment("api").await.status.unwrap_or_default();
            if status.available_replicas == Some(pods) { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
        self.0.set("queue", 0.0);
    }
}

fn scale(fields: &Value) -> Value {
    json!({"action": "Scale", "scale": fields})
}

impl Test {
    async fn autoscaler(&self, min: i32, max: i32) -> HorizontalPodAutoscaler {
        let autoscaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
            "metadata": {"name": "api"},
            "spec": {
                "minReplicas": min, "maxReplicas": max,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
            },
        }))
        .unwrap();
        self.api().create(&PostParams::default(), &autoscaler).await.unwrap()
    }

    async fn minimum(&self) -> Option<i32> {
        self.api::<HorizontalPodAutoscaler>().get("api").await.unwrap().spec.unwrap().min_replicas
    }
}

/// Killed when the write was made and not answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_more_is_had_once_whatever_dies_and_helps_when_the_metric_says_so() {
    run("scale", async |test| {
        let busy = Busy::start(test).await;
        let gate = Gate::start(env("PANACEA_KUBECONFIG").as_ref()).await;
        let options = Options::default().through(gate.kubeconfig());
        let mut operator = Operator::start(test, options).await;
        let mut held = gate.hold(Side::Answer, |seen| seen.is_deployment_patch());
        busy.rush(test, &json!([scale(&json!({"by": "+50%", "max": 3}))])).await;
        held.reached().await;
        operator.kill9();
        drop(held);
        operator.spawn();
        busy.relieved_by(test, 3).await;
        let healed = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(healed.spec.plan.action, ActionKind::Scale);
        assert_eq!(healed.spec.plan.intent.scaling().map(|scaling| (scaling.from, scaling.to)), Some((2, 3)));
        assert_eq!(test.operator_writes_to_workloads().len(), 1);
        test.wait_event("Verifying", &healed.name_any(), "desired replicas: 3").await;
        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("service_scaled".to_owned(), true, healed.name_any())]);
        assert_eq!(operator.action_outputs().await[0]["replicas"], json!({"from": 2, "to": 3}));

        // At its bound there is nothing left to do.
        busy.0.set("queue", 9.0);
        let refused = test.wait_component("shop", "api", "to be left to a person", |it| it.refusal.is_some()).await;
        assert_eq!(refused.refusal.unwrap().reason, "NoRemedy");
        assert_eq!(test.operator_writes_to_workloads().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_pods_that_an_autoscaler_has_is_left_to_it() {
    run("scale-autoscaled", async |test| {
        let busy = Busy::start(test).await;
        test.autoscaler(2, 6).await;
        let _operator = Operator::start(test, Options::default()).await;
        let adjust = json!({"by": "+2", "max": 9, "adjustAutoscaler": true});
        let remedies = json!([scale(&json!({"by": "+2", "max": 9})), scale(&adjust), {"action": "Restart"}]);
        busy.rush(test, &remedies).await;
        let restarting = test.wait_remediation(Phase::Verifying).await;
        busy.0.set("queue", 0.0);
        assert_eq!(restarting.spec.plan.action, ActionKind::Restart);
        let all = test.remediations().await;
        for (place, reason, words) in [
            (0, "Autoscaled", "set scale.adjustAutoscaler"),
            (1, "Forbidden", "not allowed to patch horizontalpodautoscalers"),
        ] {
            let status = all[place].status.as_ref().unwrap();
            assert_eq!((status.phase, status.reason.as_str()), (Phase::Expired, reason), "{}", status.message);
            assert!(status.message.contains(words), "{}", status.message);
        }
        let spec = test.deployment("api").await.spec.unwrap();
        assert_eq!((spec.replicas, test.minimum().await), (Some(2), Some(2)));
        assert_eq!(test.operator_writes_to_workloads().len(), 1, "the restart alone");
        test.wait_ended(&restarting.name_any()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscalers_minimum_is_raised_when_that_is_allowed() {
    run("scale-minimum", async |test| {
        let busy = Busy::start(test).await;
        test.autoscaler(2, 3).await;
        let role = Role::with(test, &["rbac.adjustAutoscalers=true"]).await;
        let options = Options::default().through(role.kubeconfig());
        let _operator = Operator::start(test, options).await;
        busy.rush(test, &json!([scale(&json!({"by": "+2", "max": 9, "adjustAutoscaler": true}))])).await;
        busy.relieved_by(test, 3).await;
        // Its maximum holds; what was meant was four.
        assert_eq!(test.minimum().await, Some(3));
        let ended = test.wait_remediation(Phase::Succeeded).await;
        let writes = test.writes().into_iter().filter(|write| write.user == role.user(test) && write.verb == "patch");
        let made: Vec<String> = writes.map(|write| write.resource).filter(|what| what != "events").collect();
        assert!(made.iter().filter(|what| *what == "horizontalpodautoscalers").count() == 1, "{made:?}");
        assert!(!made.iter().any(|what| what == "deployments"), "{made:?}");
        test.wait_recorded(&ended.name_any(), Duration::from_secs(20)).await;
    })
    .await;
}
