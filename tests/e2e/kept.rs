//! A good release that is made while an old incident is being handled is kept.

use std::time::Duration;

use kube::ResourceExt as _;
use panacea::api::{HealthStatus, Phase, Remediation};
use serde_json::{Value, json};

use crate::support::{
    cluster::{Test, run},
    objects::policy,
    operator::{Operator, Options},
    wait,
};

const GOOD: &str = "shop/api:v3";

/// v1 is known good, v2-crash was released, and its Remediation is in this phase.
async fn incident(test: &Test, patch: Value, phase: Phase) -> (Operator, Remediation) {
    let operator = Operator::start(test, Options::default()).await;
    test.deploy("api", "shop/api:v1", 4).await;
    test.apply_policy(&policy("shop", &["api"], &patch)).await;
    test.wait_known_good("shop", "api").await;
    test.release("api", "shop/api:v2-crash").await;
    let remediation = test.wait_remediation(phase).await;
    (operator, remediation)
}

/// v3 runs, is healthy and known good, and nobody but the releases and `writes` rollbacks touched the Deployment.
async fn v3_is_kept(test: &Test, writes: usize) {
    test.wait_rolled_out("api").await;
    test.wait_status("shop", "api", HealthStatus::Healthy).await;
    test.wait_known_good("shop", "api").await;
    wait::throughout("v3 stays", Duration::from_secs(3), async || {
        let image = test.image("api").await;
        if image == GOOD { Ok(()) } else { Err(image) }
    })
    .await;
    let seen = test.operator_writes_to_workloads();
    assert_eq!(seen.len(), writes, "{seen:?}");
    assert_eq!(test.remediations().await.len(), 1, "nothing was done about v3");
    let (reason, message) = test.wait_condition("shop", "Healing", "False", Duration::from_secs(20)).await;
    assert_eq!(reason, "NothingToDo", "{message}");
}

async fn ends_superseded(test: &Test, remediation: &Remediation) {
    let status = test.wait_ended(&remediation.name_any()).await.status.unwrap();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Expired, "Superseded"), "{}", status.message);
    assert_eq!(status.executed_at, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_release_while_the_rollback_of_the_old_one_waits_for_approval_is_kept() {
    run("kept-approve", async |test| {
        let patch = json!({"spec": {"mode": "Approve"}});
        let (_operator, remediation) = incident(test, patch, Phase::AwaitingApproval).await;
        test.release("api", GOOD).await;
        ends_superseded(test, &remediation).await;
        v3_is_kept(test, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_release_in_the_moment_of_the_approval_is_kept() {
    run("kept-race", async |test| {
        let mut patch = json!({"spec": {"mode": "Auto"}});
        let remedies = json!([{"action": "Rollback", "approval": "Required"}, {"action": "Restart"}]);
        let component = json!({"name": "api", "target": {"deployment": {"name": "api"}}, "remedies": remedies});
        patch["spec"]["components"] = json!([component]);
        let (_operator, remediation) = incident(test, patch, Phase::AwaitingApproval).await;
        // The operator cannot have seen the release in its watches when the approval comes.
        let name = remediation.name_any();
        let yes = r#"{"spec":{"approval":{"decision":"Approved"}}}"#;
        test.release("api", GOOD).await;
        let approved = test.kubectl(&["patch", "rem", &name, "--type", "merge", "-p", yes]).await;
        assert!(approved.success() || approved.stderr.contains("not found"), "{approved:?}");
        ends_superseded(test, &remediation).await;
        v3_is_kept(test, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_release_while_the_action_is_held_back_by_the_cooldown_is_kept() {
    run("kept-held", async |test| {
        let _operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 4).await;
        let patch = json!({"spec": {"safety": {"cooldown": "30m"}}});
        test.apply_policy(&policy("shop", &["api"], &patch)).await;
        test.wait_known_good("shop", "api").await;
        test.release("api", "shop/api:v2-crash").await;
        test.wait_remediation(Phase::Succeeded).await;
        test.release("api", "shop/api:v2-oom").await;
        test.wait_refusal("shop", "api", panacea::plan::guard::Guard::Cooldown).await;
        test.release("api", GOOD).await;
        v3_is_kept(test, 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_release_while_the_rollback_is_being_verified_is_kept() {
    run("kept-verifying", async |test| {
        let patch = json!({"spec": {"verification": {"stabilization": "20s", "timeout": "60s"}}});
        let (_operator, remediation) = incident(test, patch, Phase::Verifying).await;
        test.release("api", GOOD).await;
        let status = test.wait_ended(&remediation.name_any()).await.status.unwrap();
        assert_eq!((status.phase, status.reason.as_str()), (Phase::Ineffective, "Inconclusive"), "{}", status.message);
        v3_is_kept(test, 1).await;
    })
    .await;
}
