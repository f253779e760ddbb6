//! Nothing is done where nothing is wrong, and where something is wrong that a person has to see to.
//!
//! Each test proves from the API server's audit log that the operator created no Remediation and touched no workload,
//! and that its checks continued.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, EvictParams, ListParams},
};
use panacea::api::{HealthStatus, Phase};
use serde_json::json;

use crate::support::{
    audit::operator_writes,
    cluster::{Test, run},
    node::OwnNode,
    objects::policy,
    operator::{Operator, Options},
    prometheus::OwnPrometheus,
    traffic::{Traffic, error_rate_metric},
    wait,
};

/// Bad looks are confirmed after two seconds: what is to be done is done within these.
const A_WHILE: Duration = Duration::from_secs(6);
const LIMIT: Duration = Duration::from_secs(90);

/// A Deployment that was seen healthy, and an operator that checks it each second.
async fn watched(test: &Test, replicas: u32) -> Operator {
    let operator = Operator::start(test, Options::default()).await;
    test.deploy("api", "shop/api:v1", replicas).await;
    watch(test).await;
    test.wait_known_good("shop", "api").await;
    operator
}

async fn watch(test: &Test) {
    test.apply_policy(&policy("shop", &["api"], &json!({"spec": {"interval": "1s"}}))).await;
}

/// It ends healthy, with the image and the number of changes that people made, and nothing was ever done.
async fn ends_well(test: &Test, operator: &mut Operator, image: &str, generation: i64) {
    test.wait_rolled_out("api").await;
    test.wait_known_good("shop", "api").await;
    test.wait_status("shop", "api", HealthStatus::Healthy).await;
    let (reason, _) = test.wait_condition("shop", "Healing", "False", LIMIT).await;
    assert_eq!(reason, "NothingToDo");
    test.nothing_is_done(operator, A_WHILE).await;
    assert_eq!((test.image("api").await.as_str(), test.generation("api").await), (image, generation));
    assert_eq!(test.component("shop", "api").await.unwrap().episode, None);
}

async fn pods(test: &Test) -> Vec<Pod> {
    test.api::<Pod>().list(&ListParams::default().labels("app=api")).await.unwrap().items
}

/// Waits until the status shows this revision.
async fn wait_revision(test: &Test, revision: i64) {
    test.wait_component("shop", "api", &format!("to be at revision {revision}"), |status| {
        status.release.as_ref().is_some_and(|release| release.revision == revision)
    })
    .await;
}

async fn wait_replicas(test: &Test, replicas: i32) {
    wait::until(&format!("api to be scaled to {replicas}"), LIMIT, async || {
        let now = test.deployment("api").await.spec.and_then(|spec| spec.replicas);
        if now == Some(replicas) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

/// Waits until a component that nothing can be done about calls a person, and says why.
async fn wait_person_called(test: &Test, reason: &str, text: &str) {
    let seen = test.wait_component("shop", "api", "to call a person", |status| status.refusal.is_some()).await;
    let refusal = seen.refusal.clone().unwrap();
    assert_eq!(refusal.reason, reason, "{seen:?}");
    assert!(refusal.message.contains(text), "{seen:?}");
    let what = format!("condition Healing=False with {reason}");
    wait::until(&what, LIMIT, async || {
        let (seen, message) = test.wait_condition("shop", "Healing", "False", LIMIT).await;
        if seen == reason && message.contains(text) { Ok(()) } else { Err(format!("{seen}: {message}")) }
    })
    .await;
    test.wait_event("PersonNeeded", "shop", text).await;
}

/// The proof of the others: what is done is seen where they look for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_does_to_a_workload_is_in_the_audit_log() {
    run("seen", async |test| {
        let _operator = watched(test, 2).await;
        test.only_told().unwrap();
        test.release("api", "shop/api:v2-crash").await;
        test.wait_remediation(Phase::Succeeded).await;
        test.only_told().unwrap_err();
        let writes = operator_writes(&test.namespace);
        let written = |resource: &str| writes.iter().any(|write| write.resource == resource);
        assert!(written("remediations") && written("deployments"), "{writes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_but_good_release_is_left_alone() {
    run("slow", async |test| {
        let mut operator = watched(test, 2).await;
        // Half of the pods are missing during the whole of the slow start.
        let strategy = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
        test.patch_deployment("api", json!({"spec": {"strategy": strategy}})).await;
        test.release("api", "shop/api:v2-slowstart").await;
        wait_revision(test, 2).await;
        test.wait_component("shop", "api", "to be seen rolling out", |status| {
            status.status == HealthStatus::Degraded && status.message.contains("1 of 2 pods available")
        })
        .await;
        test.nothing_is_done(&mut operator, Duration::from_secs(15)).await;
        ends_well(test, &mut operator, "shop/api:v2-slowstart", 3).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_restart_by_a_person_is_left_alone() {
    run("restart", async |test| {
        let mut operator = watched(test, 4).await;
        let digest = test.component("shop", "api").await.unwrap().release.unwrap().digest;
        test.kubectl_succeeds(&["rollout", "restart", "deployment/api"]).await;
        wait_revision(test, 2).await;
        test.nothing_is_done(&mut operator, A_WHILE).await;
        ends_well(test, &mut operator, "shop/api:v1", 2).await;
        let seen = test.component("shop", "api").await.unwrap();
        assert_eq!(seen.known_good.len(), 1, "the same template, restarted: {seen:?}");
        assert_eq!(seen.known_good[0].digest, digest);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_up_down_to_zero_and_back_is_left_alone() {
    run("scale", async |test| {
        let mut operator = watched(test, 4).await;
        for replicas in ["8", "2", "0", "3"] {
            test.kubectl_succeeds(&["scale", "deployment/api", "--replicas", replicas]).await;
            test.nothing_is_done(&mut operator, Duration::from_secs(3)).await;
            test.wait_rolled_out("api").await;
            test.wait_status("shop", "api", HealthStatus::Healthy).await;
        }
        ends_well(test, &mut operator, "shop/api:v1", 5).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_that_scales_up_and_down_is_left_alone() {
    run("autoscaler", async |test| {
        let mut operator = watched(test, 2).await;
        // Its bounds alone move it, so no metrics server is needed.
        test.kubectl_succeeds(&["autoscale", "deployment/api", "--min=6", "--max=8"]).await;
        wait_replicas(test, 6).await;
        test.nothing_is_done(&mut operator, Duration::from_secs(3)).await;
        test.wait_rolled_out("api").await;
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
        let lower = r#"{"spec":{"minReplicas":1,"maxReplicas":3}}"#;
        test.kubectl_succeeds(&["patch", "hpa/api", "--patch", lower]).await;
        wait_replicas(test, 3).await;
        ends_well(test, &mut operator, "shop/api:v1", 3).await;
        let who = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
        let scaled =
            test.writes().into_iter().filter(|write| write.user == who && write.resource == "deployments/scale");
        assert_eq!(scaled.count(), 2, "{:?}", test.writes());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_is_left_to_kubernetes() {
    run("deleted", async |test| {
        let mut operator = watched(test, 4).await;
        let victim = pods(test).await[0].name_any();
        test.api::<Pod>().delete(&victim, &DeleteParams::default()).await.unwrap();
        test.nothing_is_done(&mut operator, A_WHILE).await;
        ends_well(test, &mut operator, "shop/api:v1", 1).await;
        assert!(pods(test).await.iter().all(|pod| pod.name_any() != victim), "{victim} is still there");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_evicted_is_left_to_kubernetes() {
    run("evicted", async |test| {
        let mut operator = watched(test, 4).await;
        let victim = pods(test).await[0].name_any();
        test.api::<Pod>().evict(&victim, &EvictParams::default()).await.unwrap();
        test.nothing_is_done(&mut operator, A_WHILE).await;
        ends_well(test, &mut operator, "shop/api:v1", 1).await;
        assert!(pods(test).await.iter().all(|pod| pod.name_any() != victim), "{victim} is still there");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_on_a_lost_node_are_left_to_kubernetes() {
    run("lost-node", async |test| {
        let node = OwnNode::start(test).await;
        let mut operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 0).await;
        test.patch_deployment("api", json!({"spec": {"template": {"spec": node.pod_spec(&[])}}})).await;
        // The worst: all its pods are there.
        test.kubectl_succeeds(&["scale", "deployment/api", "--replicas", "3"]).await;
        watch(test).await;
        test.wait_known_good("shop", "api").await;
        node.lose().await;
        let seen = test
            .wait_component("shop", "api", "to show the lost node", |status| {
                status.message.contains("3 on nodes that are not ready")
            })
            .await;
        assert_eq!(seen.status, HealthStatus::Degraded, "{seen:?}");
        test.nothing_is_done(&mut operator, Duration::from_secs(15)).await;
        node.have_back().await;
        ends_well(test, &mut operator, "shop/api:v1", 3).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_image_in_a_paused_rollout_is_left_to_the_person_who_paused_it() {
    run("paused", async |test| {
        let mut operator = watched(test, 4).await;
        test.kubectl_succeeds(&["rollout", "pause", "deployment/api"]).await;
        test.release("api", "shop/api:v2-crash").await;
        test.nothing_is_done(&mut operator, A_WHILE).await;
        // What runs is still the good one.
        let seen = test.wait_status("shop", "api", HealthStatus::Healthy).await;
        assert_eq!(seen.release.map(|release| release.revision), Some(1));
        test.release("api", "shop/api:v3").await;
        test.kubectl_succeeds(&["rollout", "resume", "deployment/api"]).await;
        wait_revision(test, 2).await;
        ends_well(test, &mut operator, "shop/api:v3", 5).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_rollout_that_a_person_paused_halfway_is_left_alone_and_the_reason_told() {
    run("halfway", async |test| {
        let mut operator = watched(test, 4).await;
        // Suspended, so that the person is quicker than the operator.
        test.patch_policy("shop", json!({"spec": {"suspend": true}})).await;
        test.wait_condition("shop", "Suspended", "True", LIMIT).await;
        test.release("api", "shop/api:v2-crash").await;
        wait::until("a pod to crash", LIMIT, async || {
            let pods = pods(test).await;
            let crashed =
                pods.iter().flat_map(|pod| pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()));
            let crashed = crashed.filter(|container| container.restart_count > 0).count();
            if crashed > 0 { Ok(()) } else { Err(format!("none of {}", pods.len())) }
        })
        .await;
        test.kubectl_succeeds(&["rollout", "pause", "deployment/api"]).await;
        test.patch_policy("shop", json!({"spec": {"suspend": false}})).await;
        wait_person_called(test, "Paused", "is paused").await;
        test.nothing_is_done(&mut operator, A_WHILE).await;
        assert_eq!(test.image("api").await, "shop/api:v2-crash");
        assert_eq!(test.generation("api").await, 3, "released, paused");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_scrape_is_not_acted_on() {
    run("scrape", async |test| {
        test.deploy("api", "shop/api:v1", 2).await;
        let traffic = Traffic::start(test, "api").await;
        traffic.set("answer_time", 100.0);
        let mut operator = Operator::start(test, Options::default()).await;
        // Looks are far enough apart that the value is good again at the next one.
        let detection = json!({"confirmAfter": "6s"});
        let spec = json!({"interval": "10s", "detection": detection, "releaseWatch": {"every": "24s"}});
        let mut wanted = policy("shop", &["api"], &json!({"spec": spec}));
        let query = traffic.gauge_query("answer_time");
        wanted["spec"]["components"][0]["metrics"] = json!([{"name": "latency_ms", "prometheus": {"query": query}}]);
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "api").await;

        traffic.set("answer_time", 9000.0);
        let seen = test.wait_status("shop", "api", HealthStatus::Unhealthy).await;
        traffic.set("answer_time", 100.0);
        assert!(seen.message.contains("latency_ms"), "the bad value was seen: {seen:?}");
        assert_eq!(seen.episode, None, "not confirmed: {seen:?}");
        test.nothing_is_done(&mut operator, Duration::from_secs(15)).await;
        ends_well(test, &mut operator, "shop/api:v1", 1).await;
        assert!(test.events("Unhealthy", "shop").await.is_empty(), "no incident was reported");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_prometheus_is_restarted_nothing_is_known_and_nothing_is_done() {
    run("prometheus", async |test| {
        let prometheus = OwnPrometheus::start();
        test.deploy("api", "shop/api:v1", 4).await;
        let _traffic = Traffic::start_for(test, "api", prometheus.targets(), &prometheus.url).await;
        let mut operator =
            Operator::start(test, Options::default().with("PROMETHEUS_URL", prometheus.url.clone())).await;
        let mut wanted = policy("shop", &["api"], &json!({"spec": {"interval": "1s"}}));
        wanted["spec"]["components"][0]["metrics"] = json!([error_rate_metric("5s")]);
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "api").await;

        prometheus.stop();
        let seen = test.wait_status("shop", "api", HealthStatus::Unknown).await;
        assert!(seen.message.contains("error_rate unknown (Unreachable)"), "{seen:?}");
        test.wait_event("CouldNotMeasure", "shop", "error_rate").await;
        test.nothing_is_done(&mut operator, A_WHILE).await;
        prometheus.start_again();
        ends_well(test, &mut operator, "shop/api:v1", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_installed_during_a_good_rollout_lets_it_finish() {
    run("installed", async |test| {
        test.deploy("api", "shop/api:v1", 4).await;
        test.wait_rolled_out("api").await;
        test.release("api", "shop/api:v2-slowstart").await;
        watch(test).await;
        let mut operator = Operator::start(test, Options::default()).await;
        // It takes 40 s: two pods at a time.
        test.wait_component("shop", "api", "to be seen rolling out", |status| {
            status.message.contains("rolling out") && status.known_good.is_empty()
        })
        .await;
        test.nothing_is_done(&mut operator, Duration::from_secs(10)).await;
        ends_well(test, &mut operator, "shop/api:v2-slowstart", 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_installed_during_a_bad_rollout_knows_no_good_template_and_calls_a_person() {
    run("too-late", async |test| {
        test.deploy("api", "shop/api:v1", 4).await;
        test.wait_rolled_out("api").await;
        test.release("api", "shop/api:v2-crash").await;
        watch(test).await;
        let mut operator = Operator::start(test, Options::default()).await;
        wait_person_called(test, "NoKnownGood", "no last known good template").await;
        test.nothing_is_done(&mut operator, A_WHILE).await;
        assert_eq!((test.image("api").await.as_str(), test.generation("api").await), ("shop/api:v2-crash", 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_was_never_seen_healthy_is_left_alone_and_a_person_called() {
    run("never", async |test| {
        test.deploy("api", "shop/api:v1-crash", 2).await;
        watch(test).await;
        let mut operator = Operator::start(test, Options::default()).await;
        wait_person_called(test, "NoKnownGood", "no last known good template").await;
        test.nothing_is_done(&mut operator, Duration::from_secs(10)).await;
        assert_eq!((test.image("api").await.as_str(), test.generation("api").await), ("shop/api:v1-crash", 1));
        assert!(test.component("shop", "api").await.unwrap().known_good.is_empty());
        assert_eq!(test.events("PersonNeeded", "shop").await.len(), 1, "said once while it stands");

        // The person repairs it: from then on it is watched like any other.
        test.release("api", "shop/api:v2").await;
        test.wait_known_good("shop", "api").await;
        ends_well(test, &mut operator, "shop/api:v2", 2).await;
    })
    .await;
}
