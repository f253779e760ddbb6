//! Bad releases are seen, rolled back, verified and recorded.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use panacea::api::{ActionKind, Cause, HealthStatus, Phase, Remediation};
use serde_json::json;

use crate::support::{
    cluster::{Test, run},
    objects::{image_of, policy},
    operator::{Operator, Options},
    traffic::{Traffic, error_rate_metric},
    wait,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_crashes_is_rolled_back() {
    run("crash", async |test| {
        let mut operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 4).await;
        test.apply_policy(&policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}))).await;
        test.wait_known_good("shop", "api").await;

        test.release("api", "shop/api:v2-crash").await;
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(test.image("api").await, "shop/api:v1");
        assert_eq!(test.generation("api").await, 3, "one release, one rollback");
        test.wait_recorded(remediation.metadata.name.as_deref().unwrap(), Duration::from_secs(20)).await;
        let rows = operator.action_rows().await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((rows[0].0.as_str(), rows[0].1), ("automatic_rollback", true));
        assert_eq!(operator.count("SELECT count(*) FROM ai_rollback_history WHERE success").await, 1);
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
        let (took, clean) = operator.stop().await;
        assert!(clean && took.as_secs() < 10, "stopped in {took:?}, exit code 0: {clean}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_answers_with_errors_is_rolled_back() {
    run("errors", async |test| {
        test.deploy("api", "shop/api:v1", 4).await;
        test.wait_rolled_out("api").await;
        let _traffic = Traffic::start(test, "api").await;
        let _operator = Operator::start(test, Options::default()).await;
        let mut wanted = policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}));
        wanted["spec"]["components"][0]["metrics"] = json!([error_rate_metric("5s")]);
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "api").await;

        test.release("api", "shop/api:v2-errors").await;
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(test.image("api").await, "shop/api:v1");
        assert!(remediation.spec.plan.why.contains("error_rate"), "{}", remediation.spec.plan.why);
    })
    .await;
}

/// Releases `bad` over v1, and returns the Remediation that healed it, by one rollback to v1.
async fn is_rolled_back(test: &Test, bad: &str) -> Remediation {
    let _operator = Operator::start(test, Options::default()).await;
    test.deploy("api", "shop/api:v1", 4).await;
    test.patch_deployment("api", json!({"spec": {"progressDeadlineSeconds": 5}})).await;
    test.apply_policy(&policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}))).await;
    test.wait_known_good("shop", "api").await;
    let before = test.generation("api").await;

    test.release("api", bad).await;
    let remediation = test.wait_remediation(Phase::Succeeded).await;
    assert_eq!(test.image("api").await, "shop/api:v1");
    assert_eq!(test.generation("api").await, before + 2, "one release, one rollback");
    assert_eq!(test.remediations().await.len(), 1);
    test.wait_rolled_out("api").await;
    test.wait_status("shop", "api", HealthStatus::Healthy).await;
    remediation
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_whose_image_cannot_be_pulled_is_rolled_back() {
    run("nopull", async |test| {
        let remediation = is_rolled_back(test, "shop/api:v2-nopull").await;
        assert!(remediation.spec.plan.why.contains("ImagePull"), "{}", remediation.spec.plan.why);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_runs_out_of_memory_is_rolled_back() {
    run("oom", async |test| {
        let remediation = is_rolled_back(test, "shop/api:v2-oom").await;
        assert!(remediation.spec.plan.why.contains("OomKilled"), "{}", remediation.spec.plan.why);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_never_ready_is_rolled_back_when_its_deadline_is_over() {
    run("notready", async |test| {
        let remediation = is_rolled_back(test, "shop/api:v2-notready").await;
        assert!(remediation.spec.plan.why.contains("made no progress for 5 s"), "{}", remediation.spec.plan.why);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_with_errors_is_rolled_back_though_the_query_cannot_tell_its_pods_apart() {
    run("errors-plain", async |test| {
        test.deploy("api", "shop/api:v1", 4).await;
        test.wait_rolled_out("api").await;
        let _traffic = Traffic::start(test, "api").await;
        let _operator = Operator::start(test, Options::default()).await;
        let all = r#"sum(rate(requests_total{namespace="$(namespace)",app="$(name)"}[5s]))"#;
        let query = format!("{} / {all}", all.replace("}[", r#",code="500"}["#));
        let mut wanted = policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}));
        wanted["spec"]["components"][0]["metrics"] = json!([{"name": "error_rate", "prometheus": {"query": query}}]);
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "api").await;

        test.release("api", "shop/api:v2-errors").await;
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(test.image("api").await, "shop/api:v1");
        assert_eq!(test.generation("api").await, 3, "one release, one rollback");
        assert!(remediation.spec.plan.why.contains("error_rate"), "{}", remediation.spec.plan.why);
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_acted_on_in_seconds_at_an_interval_of_a_minute_and_only_the_template_is_put_back() {
    run("template-only", async |test| {
        let _operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 3).await;
        let notes = json!({"shop.example/team": "storefront", "kubernetes.io/change-cause": "v1 of the shop"});
        test.patch_deployment("api", json!({"metadata": {"annotations": notes, "labels": {"tier": "web"}}})).await;
        test.apply_policy(&policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}))).await;
        test.wait_known_good("shop", "api").await;
        let scaled = test.kubectl(&["scale", "deployment/api", "--replicas=6"]).await;
        assert!(scaled.success(), "{scaled:?}");
        test.wait_rolled_out("api").await;
        let kept = |deployment: &Deployment| {
            let metadata = deployment.metadata.clone();
            let mut annotations = metadata.annotations.unwrap_or_default();
            annotations.remove("deployment.kubernetes.io/revision");
            (annotations, metadata.labels, deployment.spec.as_ref().and_then(|spec| spec.replicas))
        };
        let before = kept(&test.deployment("api").await);
        assert_eq!((before.0.len(), before.2), (2, Some(6)));

        let released = Timestamp::now();
        test.release("api", "shop/api:v2-crash").await;
        test.wait_remediation(Phase::Succeeded).await;
        let deployment = test.deployment("api").await;
        assert_eq!(image_of(&deployment), "shop/api:v1");
        assert_eq!(kept(&deployment), before);
        let writes = test.operator_writes_to_workloads();
        assert_eq!(writes.len(), 1, "{writes:?}");
        assert_eq!((writes[0].verb.as_str(), writes[0].resource.as_str()), ("patch", "deployments"));
        // A few seconds; the rest is for a machine that does other things beside.
        let took = writes[0].at.duration_since(released).as_secs_f64();
        assert!(took < 15.0, "{took} s from the release to the rollback");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_begin_to_crash_long_after_their_release_are_restarted_and_not_rolled_back() {
    run("crash-later", async |test| {
        let operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 4).await;
        let mut wanted = policy("shop", &["api"], &json!({"spec": {"interval": "5s", "releaseWatch": {"for": "10s"}}}));
        // Left out, a restart would wait for approval.
        let remedies = json!([
            {"action": "Rollback", "for": ["ReleaseRegression"]}, {"action": "Restart", "for": ["Crash"]}
        ]);
        wanted["spec"]["components"][0]["remedies"] = remedies;
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "api").await;
        // There is a rollback target, so that the absence of a rollback is a decision.
        test.release("api", "shop/api:v2").await;
        wait::until("v2 to be known good and no longer watched as a release", Duration::from_secs(60), async || {
            let status = test.component("shop", "api").await.unwrap();
            let release = status.release.unwrap();
            let age = Timestamp::now().duration_since(release.since);
            let old = release.revision == 2 && release.seen_healthy && age.as_secs() > 10;
            if old { Ok(()) } else { Err(format!("{release:?}, {} s old", age.as_secs())) }
        })
        .await;
        let generation = test.generation("api").await;

        test.kubectl_succeeds(&["annotate", "pods", "--selector=app=api", "panacea.dev/fault=crash"]).await;
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!((remediation.spec.plan.action, remediation.spec.plan.cause), (ActionKind::Restart, Cause::Crash));
        assert!(remediation.spec.plan.why.contains("CrashLoop"), "{}", remediation.spec.plan.why);
        test.wait_rolled_out("api").await;
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
        assert_eq!(test.image("api").await, "shop/api:v2");
        assert_eq!(test.generation("api").await, generation + 1, "one restart");
        let writes = test.operator_writes_to_workloads();
        assert_eq!(writes.len(), 1, "{writes:?}");
        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("service_restart".to_owned(), true, remediation.name_any())]);
        let status = test.component("shop", "api").await.unwrap();
        assert_eq!(status.known_good.len(), 2, "a restart makes no new known good template: {status:?}");
        assert_eq!(status.episode, None);
    })
    .await;
}

/// Until the ladder has nothing more to do: the first release that is good is back.
async fn ends_at_v1(test: &Test) {
    let what = "v1 to be back, and every remediation to have ended";
    wait::until(what, Duration::from_secs(120), async || {
        let image = test.image("api").await;
        let open = test.remediations().await.into_iter().filter(|one| !phase_of(one).is_final()).count();
        let status = test.component("shop", "api").await.map(|component| component.status);
        let done = image == "shop/api:v1" && open == 0 && status == Some(HealthStatus::Healthy);
        if done { Ok(()) } else { Err(format!("{image}, {open} open, {status:?}")) }
    })
    .await;
    test.wait_rolled_out("api").await;
    assert_eq!(test.image("api").await, "shop/api:v1");
    for remediation in test.remediations().await {
        let to = remediation.spec.plan.intent.template().cloned().map(|to| to.revision);
        assert_eq!(to, Some(1), "{} would have gone to another release", remediation.name_any());
    }
}

fn phase_of(remediation: &Remediation) -> Phase {
    remediation.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bad_releases_at_once_end_at_the_last_known_good_one() {
    run("two-at-once", async |test| {
        let _operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 4).await;
        test.apply_policy(&policy("shop", &["api"], &json!({}))).await;
        test.wait_known_good("shop", "api").await;
        test.release("api", "shop/api:v2-crash").await;
        test.release("api", "shop/api:v3-crash").await;
        ends_at_v1(test).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_release_over_a_bad_one_that_is_being_assessed_ends_at_the_last_known_good_one() {
    run("two-judged", async |test| {
        let _operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 4).await;
        let slowly = json!({"spec": {"detection": {"unhealthyAfter": 5}}});
        test.apply_policy(&policy("shop", &["api"], &slowly)).await;
        test.wait_known_good("shop", "api").await;
        test.release("api", "shop/api:v2-crash").await;
        test.wait_component("shop", "api", "to be seen bad", |status| {
            matches!(status.status, HealthStatus::Unhealthy | HealthStatus::Critical)
        })
        .await;
        test.release("api", "shop/api:v3-crash").await;
        ends_at_v1(test).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_releases_one_after_the_other_are_each_healed() {
    run("two-in-turn", async |test| {
        let mut operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 4).await;
        test.apply_policy(&policy("shop", &["api"], &json!({}))).await;
        test.wait_known_good("shop", "api").await;
        let mut healed = Vec::new();
        for bad in ["shop/api:v2-crash", "shop/api:v3-oom", "shop/api:v2-crash"] {
            test.release("api", bad).await;
            let what = format!("{bad} to be healed");
            let done = wait::until(&what, Duration::from_secs(90), async || {
                let all = test.remediations().await;
                let seen: Vec<_> = all.iter().map(|one| (one.name_any(), phase_of(one))).collect();
                let new = all.into_iter().find(|one| !healed.contains(&one.name_any()));
                new.filter(|one| phase_of(one) == Phase::Succeeded).ok_or_else(|| format!("{seen:?}"))
            })
            .await;
            assert_eq!(test.image("api").await, "shop/api:v1", "after {bad}");
            test.wait_rolled_out("api").await;
            test.wait_status("shop", "api", HealthStatus::Healthy).await;
            test.wait_recorded(&done.name_any(), Duration::from_secs(20)).await;
            healed.push(done.name_any());
        }
        assert_eq!(test.remediations().await.len(), 3);
        assert_eq!(test.generation("api").await, 7, "three releases, three rollbacks");
        assert_eq!(operator.action_rows().await.len(), 3);
        assert!(operator.is_running());
    })
    .await;
}
