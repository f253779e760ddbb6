//! Nothing that needs a person's approval is done without it, and who decided is on record.

use std::time::Duration;

use kube::ResourceExt as _;
use panacea::api::{HealthStatus, Phase, Remediation};
use serde_json::{Value, json};

use crate::support::{
    cluster::{Test, run},
    objects::{merge, policy},
    operator::{Operator, Options},
    shell::typed,
    wait,
};

const YES: &str = r#"{"spec":{"approval":{"decision":"Approved"}}}"#;
const NO: &str = r#"{"spec":{"approval":{"decision":"Rejected","reason":"it is a game day"}}}"#;

/// v1 is known good, v2-crash was released, and a rollback waits for approval. `patch` is merged over a policy in
/// mode Approve.
pub async fn waiting(test: &Test, pods: u32, patch: &Value) -> (Operator, Remediation) {
    let operator = Operator::start(test, Options::default()).await;
    test.deploy("api", "shop/api:v1", pods).await;
    let mut wanted = json!({"spec": {"mode": "Approve"}});
    merge(&mut wanted, patch);
    test.apply_policy(&policy("shop", &["api"], &wanted)).await;
    test.wait_known_good("shop", "api").await;
    test.release("api", "shop/api:v2-crash").await;
    let remediation = test.wait_remediation(Phase::AwaitingApproval).await;
    (operator, remediation)
}

/// The operator continues its checks, and the bad release stays.
async fn nothing_is_done(test: &Test, operator: &Operator) {
    let looks = operator.looks().await;
    wait::throughout("the bad release is left alone", Duration::from_secs(6), async || {
        let generation = test.generation("api").await;
        if generation == 2 { Ok(()) } else { Err(format!("generation {generation}")) }
    })
    .await;
    assert!(operator.looks().await > looks, "no check took place");
    let writes = test.operator_writes_to_workloads();
    assert!(writes.is_empty(), "{writes:?}");
}

async fn decide(test: &Test, remediation: &Remediation, decision: &str) {
    let done = test.kubectl(&["patch", "rem", &remediation.name_any(), "--type", "merge", "-p", decision]).await;
    assert!(done.success(), "{done:?}");
}

fn command_in(message: &str) -> &str {
    message.split_once("decide with: ").unwrap_or_else(|| panic!("no command in {message:?}")).1
}

#[tokio::test(flavor = "multi_thread")]
async fn approve_mode_waits_and_acts_when_the_command_it_gives_is_typed() {
    run("approve", async |test| {
        let (operator, remediation) = waiting(test, 4, &json!({})).await;
        let (reason, message) = test.wait_condition("shop", "ApprovalRequired", "True", Duration::from_secs(20)).await;
        assert_eq!(reason, "AwaitingApproval");
        assert!(message.contains("kubectl patch rem") && message.contains(&remediation.name_any()), "{message}");
        nothing_is_done(test, &operator).await;

        let message = remediation.status.unwrap().message;
        let done = typed(command_in(&message)).await;
        assert!(done.success(), "{message}: {done:?}");
        let status = test.wait_ended(remediation.metadata.name.as_deref().unwrap()).await.status.unwrap();
        assert_eq!(status.phase, Phase::Succeeded, "{}", status.message);
        assert_eq!(status.decided_by.as_ref().map(|by| by.manager.as_str()), Some("kubectl-patch"));
        assert_eq!(test.image("api").await, "shop/api:v1");
        test.wait_recorded(remediation.metadata.name.as_deref().unwrap(), Duration::from_secs(20)).await;
        let rows = operator.action_rows().await;
        let kinds: Vec<_> = rows.iter().map(|row| (row.0.as_str(), row.1)).collect();
        assert_eq!(kinds, [("remediation_approval", true), ("automatic_rollback", true)]);
        let by_us = "SELECT count(*) FROM unified_brain WHERE action_type = 'remediation_approval' \
            AND agent_name = 'enhanced_self_healing' AND output_data->>'decided_by' = 'kubectl-patch'";
        assert_eq!(operator.count(by_us).await, 1);
        let (reason, _) = test.wait_condition("shop", "ApprovalRequired", "False", Duration::from_secs(20)).await;
        assert_eq!(reason, "NothingWaits");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rejected_is_not_done_and_is_on_record() {
    run("reject", async |test| {
        let (operator, remediation) = waiting(test, 4, &json!({})).await;
        decide(test, &remediation, NO).await;
        let name = remediation.name_any();
        let status = test.wait_ended(&name).await.status.unwrap();
        assert_eq!((status.phase, status.reason.as_str()), (Phase::Rejected, "Rejected"), "{}", status.message);
        assert!(status.message.contains("kubectl-patch") && status.message.contains("it is a game day"), "{status:?}");
        test.wait_recorded(&name, Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("remediation_rejected".to_owned(), false, name)]);
        nothing_is_done(test, &operator).await;
        // The only remedy was refused by a person, so it is their turn.
        let (reason, message) = test.wait_condition("shop", "Healing", "False", Duration::from_secs(20)).await;
        assert_eq!(reason, "LadderExhausted", "{message}");
        test.wait_condition("shop", "ApprovalRequired", "False", Duration::from_secs(20)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_decides_expires_and_is_not_done() {
    run("expire", async |test| {
        let approval = json!({"spec": {"approval": {"timeout": "3s"}}});
        let (operator, remediation) = waiting(test, 4, &approval).await;
        let status = test.wait_ended(&remediation.name_any()).await.status.unwrap();
        assert_eq!((status.phase, status.reason.as_str()), (Phase::Expired, "ApprovalTimeout"), "{}", status.message);
        nothing_is_done(test, &operator).await;
        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [], "nobody decided and nothing was done");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_decides_is_done_when_the_policy_says_so() {
    run("approve-late", async |test| {
        let approval = json!({"spec": {"approval": {"timeout": "3s", "onTimeout": "Approve"}}});
        let (operator, remediation) = waiting(test, 4, &approval).await;
        let ended = test.wait_ended(&remediation.name_any()).await;
        let status = ended.status.unwrap();
        assert_eq!(status.phase, Phase::Succeeded, "{}", status.message);
        assert_eq!(status.decided_by, None, "nobody decided");
        let waited = status.started_at.unwrap().duration_since(status.waiting_since.unwrap()).as_secs_f64();
        assert!(waited >= 3.0, "waited {waited} s only");
        assert_eq!(test.image("api").await, "shop/api:v1");
        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        let rows = operator.action_rows().await;
        assert_eq!(rows.iter().map(|row| row.0.as_str()).collect::<Vec<_>>(), ["automatic_rollback"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_approved_by_timeout_and_held_back_still_expires() {
    run("approve-held", async |test| {
        let approval = json!({"spec": {"approval": {"timeout": "3s", "onTimeout": "Approve"}}});
        let (operator, remediation) = waiting(test, 4, &approval).await;
        test.patch_policy("shop", json!({"spec": {"suspend": true}})).await;
        let ended = test.wait_ended(&remediation.name_any()).await.status.unwrap();
        assert_eq!((ended.phase, ended.reason.as_str()), (Phase::Expired, "HeldBackTooLong"), "{}", ended.message);
        assert!(ended.message.contains("suspend"), "{}", ended.message);
        assert_eq!(test.generation("api").await, 2);
        assert_eq!(operator.action_rows().await, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remedy_that_requires_approval_waits_in_mode_auto() {
    run("remedy-approval", async |test| {
        let remedies = json!([{"action": "Rollback", "approval": "Required"}]);
        let component = json!({"name": "api", "target": {"deployment": {"name": "api"}}, "remedies": remedies});
        let patch = json!({"spec": {"mode": "Auto", "components": [component]}});
        let (operator, remediation) = waiting(test, 4, &patch).await;
        test.wait_condition("shop", "ApprovalRequired", "True", Duration::from_secs(20)).await;
        nothing_is_done(test, &operator).await;
        decide(test, &remediation, YES).await;
        let status = test.wait_ended(&remediation.name_any()).await.status.unwrap();
        assert_eq!(status.phase, Phase::Succeeded, "{}", status.message);
        test.wait_condition("shop", "ApprovalRequired", "False", Duration::from_secs(20)).await;
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_patch_remediations_decides_and_only_once_and_nothing_else() {
    run("immutable", async |test| {
        let (operator, remediation) = waiting(test, 4, &json!({})).await;
        let name = remediation.name_any();
        let patch = |patch: &'static str| vec!["patch", "rem", name.as_str(), "--type", "merge", "-p", patch];

        let mut stranger = vec!["--as=someone"];
        stranger.extend(patch(YES));
        let refused = test.kubectl(&stranger).await;
        assert!(!refused.success() && refused.stderr.contains("Forbidden"), "{refused:?}");

        for change in [
            r#"{"spec":{"plan":{"action":"Restart"}}}"#,
            r#"{"spec":{"plan":{"approvalRequired":false}}}"#,
            r#"{"spec":{"plan":{"component":"other"}}}"#,
            r#"{"spec":{"plan":{"target":{"kind":"Deployment","name":"other"}}}}"#,
            r#"{"spec":{"plan":{"intent":{"rollback":{"to":{"revision":2,"hash":"other","digest":"other"}}}}}}"#,
            r#"{"spec":{"plan":{"release":null}}}"#,
            r#"{"spec":{"plan":{"decidedAt":"2020-01-01T00:00:00Z"}}}"#,
            r#"{"spec":{"plan":{"why":"because"},"approval":{"decision":"Approved"}}}"#,
        ] {
            let refused = test.kubectl(&patch(change)).await;
            assert!(!refused.success(), "{change} was taken");
            assert!(refused.stderr.contains("spec.plan cannot be changed"), "{change}: {refused:?}");
        }
        let unknown = test.kubectl(&patch(r#"{"spec":{"approval":{"decision":"Perhaps"}}}"#)).await;
        assert!(!unknown.success() && unknown.stderr.contains("Approved"), "{unknown:?}");
        nothing_is_done(test, &operator).await;

        decide(test, &remediation, NO).await;
        for change in [YES, r#"{"spec":{"approval":null}}"#, r#"{"spec":{"approval":{"reason":"another"}}}"#] {
            let refused = test.kubectl(&patch(change)).await;
            assert!(!refused.success() && refused.stderr.contains("already decided"), "{change}: {refused:?}");
        }
        assert_eq!(test.wait_ended(&name).await.status.unwrap().phase, Phase::Rejected);
        nothing_is_done(test, &operator).await;
    })
    .await;
}
