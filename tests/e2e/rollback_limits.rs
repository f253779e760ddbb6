//! When a rollback is not safe it is not made, and what was bad before is known again.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, PostParams},
};
use panacea::{
    api::{HealthStatus, Phase},
    plan::guard::Guard,
};
use serde_json::json;

use crate::support::{
    cluster::run,
    objects::{deployment, policy},
    operator::{Operator, Options},
    wait,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_irreversible_template_is_left_to_a_person() {
    run("irreversible", async |test| {
        test.deploy("api", "shop/api:v1", 2).await;
        test.wait_rolled_out("api").await;
        let _operator = Operator::start(test, Options::default()).await;
        test.apply_policy(&policy("shop", &["api"], &json!({}))).await;
        test.wait_known_good("shop", "api").await;
        let template = json!({
            "metadata": {"annotations": {"panacea.dev/irreversible": "migrates orders to schema 7"}},
            "spec": {"containers": [{"name": "app", "image": "shop/api:v2-crash"}]},
        });
        test.patch_deployment("api", json!({"spec": {"template": template}})).await;
        let refusal = test.wait_refusal("shop", "api", Guard::Irreversible).await;
        assert!(refusal.message.contains("migrates orders to schema 7"), "{refusal:?}");
        test.wait_event("PersonNeeded", "shop", "panacea.dev/irreversible").await;
        assert!(test.remediations().await.is_empty() && test.operator_writes_to_workloads().is_empty());
    })
    .await;
}

/// A pod of somebody else's cannot pull the image that the rollback needs.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_rollback_to_an_image_that_cannot_be_pulled() {
    run("no-image", async |test| {
        test.deploy("api", "shop/api:v1", 2).await;
        test.wait_rolled_out("api").await;
        let _operator = Operator::start(test, Options::default()).await;
        test.apply_policy(&policy("shop", &["api"], &json!({}))).await;
        test.wait_known_good("shop", "api").await;
        let mut other = deployment("other", "shop/api:v1", 1);
        other["spec"]["template"]["metadata"]["annotations"] = json!({"panacea.dev/fault": "nopull"});
        let other: Deployment = serde_json::from_value(other).unwrap();
        test.api().create(&PostParams::default(), &other).await.unwrap();
        wait::until("the other one to wait for the image", Duration::from_secs(30), async || {
            let path = "jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}";
            let reason = test.kubectl_succeeds(&["get", "pods", "-l", "app=other", "-o", path]).await;
            if reason == "ImagePullBackOff" { Ok(()) } else { Err(reason) }
        })
        .await;
        test.release("api", "shop/api:v2-crash").await;
        let blocked = test.wait_remediation(Phase::Blocked).await;
        let status = blocked.status.as_ref().unwrap();
        assert_eq!(status.reason, "ImageUnavailable");
        assert!(status.message.contains("the image shop/api:v1, which cannot be pulled now: pod other-"), "{status:?}");
        // This holds for every rollback; nothing is written.
        wait::until("the last remedy to be blocked", Duration::from_secs(60), async || {
            let outcomes = test.outcomes().await;
            let last = outcomes.len() > 1 && outcomes.iter().all(|(.., reason)| reason == "ImageUnavailable");
            let waits = outcomes.last().is_some_and(|(_, phase, _)| *phase == Phase::Blocked);
            if last && waits { Ok(()) } else { Err(format!("{outcomes:?}")) }
        })
        .await;
        assert!(test.operator_writes_to_workloads().is_empty());
        // When it can be pulled again, the last one continues.
        test.api::<Deployment>().delete("other", &DeleteParams::default()).await.unwrap();
        test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(test.image("api").await, "shop/api:v1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bad_release_once_more_is_reported_at_once() {
    run("known-bad", async |test| {
        test.deploy("api", "shop/api:v1", 2).await;
        test.wait_rolled_out("api").await;
        let _operator = Operator::start(test, Options::default()).await;
        test.apply_policy(&policy("shop", &["api"], &json!({}))).await;
        test.wait_known_good("shop", "api").await;
        test.release("api", "shop/api:v2-crash").await;
        let first = test.wait_remediation(Phase::Succeeded).await;
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
        let status = test.component("shop", "api").await.unwrap();
        assert_eq!(status.known_bad.iter().map(|bad| bad.revision).collect::<Vec<_>>(), [2], "{status:?}");

        test.release("api", "shop/api:v2-crash").await;
        let note = "whose content is that of revision 2, with which it became unhealthy at";
        test.wait_event("KnownBadRelease", "shop", note).await;
        // It is rolled back again, to v1.
        test.wait_component("shop", "api", "to be healthy again", |status| {
            status.status == HealthStatus::Healthy
                && status.release.as_ref().is_some_and(|release| release.revision > 4)
        })
        .await;
        assert_eq!(test.image("api").await, "shop/api:v1");
        let others = test.remediations().await.into_iter().filter(|one| one.name_any() != first.name_any());
        for other in others {
            let ended = test.wait_ended(&other.name_any()).await;
            assert_eq!(ended.status.unwrap().phase, Phase::Succeeded);
        }
        let known = test.component("shop", "api").await.unwrap().known_good;
        assert_eq!(known.len(), 1, "{known:?}");
    })
    .await;
}
