//! The policy is edited or deleted in the middle of an action: each action ends, says why, and holds nothing up.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt as _, api::DeleteParams};
use panacea::api::{HealingPolicy, Phase, Remediation};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::support::{
    cluster::{Test, cluster_dir, run},
    gate::{Gate, Side},
    objects::policy,
    operator::{Operator, Options},
    wait,
};

const LIMIT: Duration = Duration::from_secs(30);

/// A component that is known good, and another one that only keeps the policy from being empty.
async fn start(test: &Test, options: Options, patch: &Value) -> Operator {
    let operator = Operator::start(test, options).await;
    test.deploy("api", "shop/api:v1", 3).await;
    test.deploy("web", "shop/web:v1", 1).await;
    // A person is given all the time that the test needs.
    let mut wanted = policy("shop", &["api", "web"], &json!({"spec": {"approval": {"timeout": "30m"}}}));
    crate::support::objects::merge(&mut wanted, patch);
    test.apply_policy(&wanted).await;
    test.wait_known_good("shop", "api").await;
    operator
}

/// A bad release whose rollback waits for a person.
async fn awaiting(test: &Test) -> Operator {
    let operator = start(test, Options::default(), &json!({"spec": {"mode": "Approve"}})).await;
    test.release("api", "shop/api:v2-crash").await;
    test.wait_remediation(Phase::AwaitingApproval).await;
    operator
}

/// A rollback that is being verified for a long time.
async fn verifying(test: &Test, timeout: &str) -> Operator {
    let patch = json!({"spec": {"verification": {"stabilization": "8s", "timeout": timeout}}});
    let operator = start(test, Options::default(), &patch).await;
    test.release("api", "shop/api:v2-crash").await;
    test.wait_remediation(Phase::Verifying).await;
    operator
}

async fn wait_phase(test: &Test, phase: Phase, reason: &str) -> Remediation {
    let found = test.wait_remediation_within(phase, LIMIT).await;
    let status = found.status.as_ref().unwrap();
    assert_eq!(status.reason, reason, "{}", status.message);
    found
}

/// It is in the ledger, and nothing holds it.
async fn assert_let_go(test: &Test, name: &str) {
    test.wait_recorded(name, LIMIT).await;
    wait::until("the finalizer to be gone", LIMIT, async || {
        let found = test.api::<Remediation>().get(name).await.map_err(|why| why.to_string())?;
        if found.finalizers().is_empty() { Ok(()) } else { Err(format!("{:?}", found.finalizers())) }
    })
    .await;
}

async fn without_the_component(test: &Test) {
    let rest = json!([{"name": "web", "target": {"deployment": {"name": "web"}}}]);
    test.patch_policy("shop", json!({"spec": {"components": rest}})).await;
}

async fn delete_policy(test: &Test) {
    test.api::<HealingPolicy>().delete("shop", &DeleteParams::default()).await.unwrap();
    wait::until("policy and remediations to be gone", LIMIT, async || {
        let policy = test.api::<HealingPolicy>().get_opt("shop").await.unwrap();
        let left = test.remediations().await;
        if policy.is_none() && left.is_empty() { Ok(()) } else { Err(format!("{} {left:?}", policy.is_some())) }
    })
    .await;
}

/// What the ledger says of the one action: phase, reason, executed.
async fn ledger_end(operator: &Operator) -> (String, String, String) {
    let mut ledger = PgConnection::connect(&operator.database_url).await.unwrap();
    sqlx::query_as(
        "SELECT output_data->>'phase', output_data->>'reason', output_data->>'executed' FROM unified_brain \
         WHERE action_type IN ('automatic_rollback', 'rollback_failed')",
    )
    .fetch_one(&mut ledger)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn observe_mode_stops_what_waits_for_approval_until_it_is_taken_back() {
    run("midway-observe-await", async |test| {
        let operator = awaiting(test).await;
        test.patch_policy("shop", json!({"spec": {"mode": "Observe"}})).await;
        let held = wait_phase(test, Phase::Blocked, "ObserveMode").await;
        test.approve(&held.name_any()).await;
        // More than one round of the blocked action, and looks all along.
        let looks = operator.looks().await;
        wait::throughout("nothing is written", Duration::from_secs(8), async || {
            let generation = test.generation("api").await;
            if generation == 2 { Ok(()) } else { Err(format!("generation {generation}")) }
        })
        .await;
        assert!(operator.looks().await > looks);
        wait_phase(test, Phase::Blocked, "ObserveMode").await;
        test.patch_policy("shop", json!({"spec": {"mode": "Auto"}})).await;
        let done = test.wait_remediation(Phase::Succeeded).await;
        assert_let_go(test, &done.name_any()).await;
        assert_eq!(test.generation("api").await, 3);
        let kinds: Vec<String> = operator.action_rows().await.into_iter().map(|row| row.0).collect();
        assert_eq!(kinds.len(), 2, "{kinds:?}");
        assert!(kinds.contains(&"remediation_approval".to_owned()) && kinds.contains(&"automatic_rollback".to_owned()));
    })
    .await;
}

/// The operator dies at `side` of the PATCH, and `edit` is made before it is back.
async fn edited_while_running(test: &Test, side: Side, edit: Value) -> (Operator, Gate) {
    let gate = Gate::start(&cluster_dir().join("operator.kubeconfig")).await;
    let options = Options::default().through(gate.kubeconfig());
    let mut operator = start(test, options, &json!({})).await;
    let mut held = gate.hold(side, |seen| seen.is_deployment_patch());
    test.release("api", "shop/api:v2-crash").await;
    held.reached().await;
    operator.kill9();
    wait_phase(test, Phase::Running, "Acting").await;
    test.patch_policy("shop", edit).await;
    drop(held);
    operator.spawn();
    operator.wait_ready().await;
    (operator, gate)
}

async fn assert_not_written(test: &Test, operator: &Operator, reason: &str) {
    let ended = wait_phase(test, Phase::Expired, reason).await;
    assert!(ended.status.as_ref().unwrap().message.contains("nothing was done"), "{:?}", ended.status);
    assert_let_go(test, &ended.name_any()).await;
    assert_eq!(test.generation("api").await, 2, "the release alone");
    assert_eq!(test.image("api").await, "shop/api:v2-crash");
    assert_eq!(ledger_end(operator).await, ("Expired".into(), reason.into(), "false".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn observe_mode_stops_a_write_that_was_started_and_not_made() {
    run("midway-observe-begun", async |test| {
        let edit = json!({"spec": {"mode": "Observe"}});
        let (operator, _gate) = edited_while_running(test, Side::Request, edit).await;
        assert_not_written(test, &operator, "ObserveMode").await;
        operator.wait_checks(2).await;
        assert_eq!(test.generation("api").await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_stops_a_write_that_was_started_and_not_made() {
    run("midway-suspend-begun", async |test| {
        let edit = json!({"spec": {"suspend": true}});
        let (operator, _gate) = edited_while_running(test, Side::Request, edit).await;
        assert_not_written(test, &operator, "Suspended").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_made_is_verified_in_observe_mode_too() {
    run("midway-observe-made", async |test| {
        let edit = json!({"spec": {"mode": "Observe"}});
        let (operator, _gate) = edited_while_running(test, Side::Answer, edit).await;
        let done = test.wait_remediation(Phase::Succeeded).await;
        assert_let_go(test, &done.name_any()).await;
        assert_eq!(test.generation("api").await, 3);
        assert_eq!(operator.count("SELECT count(*) FROM ai_rollback_history WHERE success").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn observe_mode_while_verifying_lets_the_verification_end() {
    run("midway-observe-verify", async |test| {
        let operator = verifying(test, "60s").await;
        test.patch_policy("shop", json!({"spec": {"mode": "Observe"}})).await;
        let done = test.wait_remediation(Phase::Succeeded).await;
        assert_let_go(test, &done.name_any()).await;
        assert_eq!(ledger_end(&operator).await, ("Succeeded".into(), "Healthy".into(), "true".into()));
        assert_eq!(test.generation("api").await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_approval_expires_when_its_component_is_taken_out() {
    run("midway-out-await", async |test| {
        let operator = awaiting(test).await;
        without_the_component(test).await;
        let ended = wait_phase(test, Phase::Expired, "ComponentGone").await;
        assert_let_go(test, &ended.name_any()).await;
        assert_eq!(test.generation("api").await, 2);
        assert_eq!(operator.action_rows().await, [], "nothing was decided and nothing was started");
        let (reason, _) = test.wait_condition("shop", "ApprovalRequired", "False", LIMIT).await;
        assert_eq!(reason, "NothingWaits");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_verified_ends_as_unknown_when_its_component_is_taken_out() {
    run("midway-out-verify", async |test| {
        let operator = verifying(test, "60s").await;
        without_the_component(test).await;
        let ended = wait_phase(test, Phase::Ineffective, "ComponentGone").await;
        assert_let_go(test, &ended.name_any()).await;
        assert_eq!(ledger_end(&operator).await, ("Ineffective".into(), "ComponentGone".into(), "true".into()));
        assert_eq!(test.generation("api").await, 3, "the rollback stays");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_holds_what_was_approved_until_it_is_taken_back() {
    run("midway-suspend-await", async |test| {
        let _operator = awaiting(test).await;
        test.patch_policy("shop", json!({"spec": {"suspend": true}})).await;
        let name = test.remediations().await[0].name_any();
        test.wait_condition("shop", "Suspended", "True", LIMIT).await;
        test.approve(&name).await;
        wait_phase(test, Phase::Blocked, "Suspended").await;
        assert_eq!(test.generation("api").await, 2);
        test.patch_policy("shop", json!({"spec": {"suspend": false}})).await;
        let done = test.wait_remediation(Phase::Succeeded).await;
        assert_let_go(test, &done.name_any()).await;
        assert_eq!(test.generation("api").await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_verified_ends_as_inconclusive_when_the_policy_stays_suspended() {
    run("midway-suspend-verify", async |test| {
        let operator = verifying(test, "10s").await;
        test.patch_policy("shop", json!({"spec": {"suspend": true}})).await;
        let ended = wait_phase(test, Phase::Ineffective, "Inconclusive").await;
        assert!(ended.status.as_ref().unwrap().message.contains("suspended"), "{:?}", ended.status);
        assert_let_go(test, &ended.name_any()).await;
        assert_eq!(ledger_end(&operator).await, ("Ineffective".into(), "Inconclusive".into(), "true".into()));
        assert_eq!(test.generation("api").await, 3, "the rollback stays");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_policy_ends_what_waits_for_approval() {
    run("midway-deleted-await", async |test| {
        let operator = awaiting(test).await;
        delete_policy(test).await;
        assert_eq!(test.generation("api").await, 2);
        assert_eq!(operator.action_rows().await, [], "nothing was decided and nothing was started");
        wait::until("the end to be reported", LIMIT, async || {
            let log = operator.log();
            let told = log.contains("PolicyGone: ") || log.contains("Deleted: ");
            if told { Ok(()) } else { Err("not told".to_owned()) }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_policy_ends_and_records_what_is_verified() {
    run("midway-deleted-verify", async |test| {
        let operator = verifying(test, "60s").await;
        delete_policy(test).await;
        let (phase, reason, executed) = ledger_end(&operator).await;
        assert_eq!((phase.as_str(), executed.as_str()), ("Ineffective", "true"));
        assert!(["PolicyGone", "Deleted"].contains(&reason.as_str()), "{reason}");
        assert_eq!(operator.action_rows().await.len(), 1);
        assert_eq!(operator.count("SELECT count(*) FROM ai_rollback_history").await, 1);
        assert_eq!(test.generation("api").await, 3, "the rollback stays");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_an_open_action_can_be_deleted() {
    run("midway-namespace", async |test| {
        let mut operator = awaiting(test).await;
        let namespaces: Api<Namespace> = Api::all(test.client.clone());
        namespaces.delete(&test.namespace, &DeleteParams::default()).await.unwrap();
        wait::until("the namespace to be gone", Duration::from_secs(60), async || {
            match namespaces.get_opt(&test.namespace).await.unwrap() {
                None => Ok(()),
                Some(found) => Err(format!("{:?}", found.status)),
            }
        })
        .await;
        assert!(operator.is_running());
    })
    .await;
}
