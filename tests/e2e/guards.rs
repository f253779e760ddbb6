//! Every guard holds back what it should, says so, and lets go again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::ListParams};
use panacea::{
    api::{ActionKind, Cause, HealthStatus, Phase, Remediation, RemediationStatus},
    plan::guard::Guard,
};
use serde_json::{Value, json};

use crate::support::{
    cluster::{Test, run},
    objects::policy,
    operator::{Operator, Options},
    prometheus::OwnPrometheus,
    traffic::Traffic,
    wait,
};

const SOON: Duration = Duration::from_secs(20);

/// Deployments at v1, each known good.
async fn good(test: &Test, names: &[&str], patch: &Value) -> Operator {
    let operator = Operator::start(test, Options::default()).await;
    for name in names {
        test.deploy(name, "shop/app:v1", 2).await;
    }
    test.apply_policy(&policy("shop", names, patch)).await;
    for name in names {
        test.wait_known_good("shop", name).await;
    }
    operator
}

fn status_of(remediation: &Remediation) -> RemediationStatus {
    remediation.status.clone().unwrap_or_default()
}

/// Waits for the `count`th Remediation to have ended in this phase.
async fn wait_count(test: &Test, count: usize, phase: Phase, limit: Duration) -> Vec<Remediation> {
    wait::until(&format!("{count} remediations to be {phase}"), limit, async || {
        let all = test.remediations().await;
        let done = all.iter().filter(|one| status_of(one).phase == phase).count();
        let seen: Vec<_> = all.iter().map(|one| (one.name_any(), status_of(one).phase)).collect();
        if done == count { Ok(all) } else { Err(format!("{seen:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn observe_mode_never_writes_to_a_workload_and_says_what_it_would_do() {
    run("observe", async |test| {
        let operator = good(test, &["api"], &json!({"spec": {"mode": "Observe"}})).await;
        test.release("api", "shop/app:v2-crash").await;
        let refusal = test.wait_refusal("shop", "api", Guard::ObserveMode).await;
        assert!(refusal.message.contains("would apply Rollback to api"), "{}", refusal.message);
        test.wait_event("PersonNeeded", "shop", "would apply Rollback to api").await;
        let looks = operator.looks().await;
        wait::throughout("nothing is done", Duration::from_secs(10), async || {
            let (generation, remediations) = (test.generation("api").await, test.remediations().await);
            if generation == 2 && remediations.is_empty() {
                Ok(())
            } else {
                Err(format!("{generation}, {remediations:?}"))
            }
        })
        .await;
        assert!(operator.looks().await > looks, "no check took place");
        let writes = test.operator_writes_to_workloads();
        assert!(writes.is_empty(), "{writes:?}");
        let (reason, _) = test.wait_condition("shop", "Healing", "False", SOON).await;
        assert_eq!(reason, "ObserveMode");
        assert_eq!(operator.action_rows().await, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_policy_does_nothing_until_it_is_resumed() {
    run("suspend", async |test| {
        let operator = good(test, &["api"], &json!({"spec": {"mode": "Approve"}})).await;
        test.release("api", "shop/app:v2-crash").await;
        let remediation = test.wait_remediation(Phase::AwaitingApproval).await;
        test.patch_policy("shop", json!({"spec": {"suspend": true}})).await;
        let (_, message) = test.wait_condition("shop", "Suspended", "True", SOON).await;
        assert!(message.contains("set it to false"), "{message}");
        // Approved or not: what is suspended is not done.
        let name = remediation.name_any();
        let yes = r#"{"spec":{"approval":{"decision":"Approved"}}}"#;
        let approved = test.kubectl(&["patch", "rem", &name, "--type", "merge", "-p", yes]).await;
        assert!(approved.success(), "{approved:?}");
        let blocked = status_of(&test.wait_remediation(Phase::Blocked).await);
        assert_eq!(blocked.reason, "Suspended", "{}", blocked.message);
        let looks = operator.looks().await;
        wait::throughout("nothing is done", Duration::from_secs(8), async || {
            let generation = test.generation("api").await;
            if generation == 2 { Ok(()) } else { Err(format!("generation {generation}")) }
        })
        .await;
        assert_eq!(operator.looks().await, looks, "a suspended policy is not checked");

        test.patch_policy("shop", json!({"spec": {"suspend": false}})).await;
        assert_eq!(status_of(&test.wait_ended(&name).await).phase, Phase::Succeeded);
        assert_eq!(test.image("api").await, "shop/app:v1");
        test.wait_condition("shop", "Suspended", "False", SOON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_budget_stops_and_says_until_when() {
    run("budget", async |test| {
        let patch = json!({"spec": {"safety": {"budget": {"actions": 1, "window": "1m"}}}});
        let _operator = good(test, &["api"], &patch).await;
        test.release("api", "shop/app:v2-crash").await;
        let first = status_of(&test.wait_remediation(Phase::Succeeded).await).started_at.unwrap();

        test.release("api", "shop/app:v3-crash").await;
        let refusal = test.wait_refusal("shop", "api", Guard::Budget).await;
        let free = first + SignedDuration::from_mins(1);
        assert_eq!(refusal.retry_at, Some(free), "{}", refusal.message);
        let (reason, message) = test.wait_condition("shop", "Healing", "False", SOON).await;
        assert_eq!(reason, "Budget");
        assert!(message.contains("raise safety.budget.actions"), "{message}");
        test.wait_event("PersonNeeded", "shop", "all that safety.budget allows").await;
        assert_eq!(test.image("api").await, "shop/app:v3-crash");
        assert_eq!(test.remediations().await.len(), 1);

        let all = wait_count(test, 2, Phase::Succeeded, Duration::from_secs(120)).await;
        let second = status_of(&all[1]).started_at.unwrap();
        assert!(second >= free, "{second} is before {free}");
        assert_eq!(test.image("api").await, "shop/app:v1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_was_just_acted_on_cools_down_first() {
    run("cooldown", async |test| {
        let _operator = good(test, &["api"], &json!({"spec": {"safety": {"cooldown": "40s"}}})).await;
        test.release("api", "shop/app:v2-crash").await;
        let first = status_of(&test.wait_remediation(Phase::Succeeded).await).started_at.unwrap();

        test.release("api", "shop/app:v3-crash").await;
        let refusal = test.wait_refusal("shop", "api", Guard::Cooldown).await;
        let free = first + SignedDuration::from_secs(40);
        assert_eq!(refusal.retry_at, Some(free), "{}", refusal.message);
        let (reason, message) = test.wait_condition("shop", "Healing", "False", SOON).await;
        assert_eq!(reason, "Cooldown");
        assert!(message.contains("next attempt at"), "{message}");
        test.wait_event("ActionRefused", "shop", "safety.cooldown is 40s").await;

        let all = wait_count(test, 2, Phase::Succeeded, Duration::from_secs(120)).await;
        let second = status_of(&all[1]).started_at.unwrap();
        assert!(second >= free, "{second} is before {free}");
        assert_eq!(test.image("api").await, "shop/app:v1");
    })
    .await;
}

/// A component whose restarts do not help: a gauge stays bad whatever is done. The query speaks of the newest pods,
/// so what it says counts at once after a restart.
async fn unhelpful(test: &Test, remedies: usize, safety: Value) -> (Operator, Traffic) {
    let operator = Operator::start(test, Options::default()).await;
    test.deploy("api", "shop/app:v1", 2).await;
    test.wait_rolled_out("api").await;
    let traffic = Traffic::start(test, "api").await;
    traffic.set("stuck", 0.0);
    let query = format!(r#"{} unless on() nothing{{pod=~"$(pods)"}}"#, traffic.gauge_query("stuck"));
    let component = json!({
        "name": "api", "target": {"deployment": {"name": "api"}},
        "metrics": [{"name": "stuck", "prometheus": {"query": query}}],
        "thresholds": {"stuck": {"warning": 1.0, "critical": 2.0}},
        "remedies": vec![json!({"action": "Restart"}); remedies],
    });
    let patch = json!({"spec": {
        "interval": "2s", "components": [component], "safety": safety,
        "verification": {"stabilization": "2s", "timeout": "6s"},
    }});
    test.apply_policy(&policy("shop", &["api"], &patch)).await;
    test.wait_known_good("shop", "api").await;
    traffic.set("stuck", 9.0);
    (operator, traffic)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_breaker_opens_when_actions_do_not_help_and_lets_one_through_later() {
    run("breaker", async |test| {
        let breaker = json!({"circuitBreaker": {"failureThreshold": 1, "recoveryTimeout": "30s"}});
        let (_operator, traffic) = unhelpful(test, 2, breaker).await;
        let first = test.wait_remediation(Phase::Ineffective).await;
        let (spec, status) = (first.spec.clone(), status_of(&first));
        assert_eq!((spec.plan.action, spec.plan.cause), (ActionKind::Restart, Cause::Errors));
        assert_eq!(status.reason, "StillUnhealthy", "{}", status.message);

        let refusal = test.wait_refusal("shop", "api", Guard::CircuitBreaker).await;
        let half_open = status.finished_at.unwrap() + SignedDuration::from_secs(30);
        assert_eq!(refusal.retry_at, Some(half_open), "{}", refusal.message);
        test.wait_event("PersonNeeded", "shop", "circuit breaker is open").await;
        let (reason, _) = test.wait_condition("shop", "Healing", "False", SOON).await;
        assert_eq!(reason, "CircuitBreaker");
        assert_eq!(test.remediations().await.len(), 1);
        // One is let through, and this time it helps.
        let second = wait::until("one action to be let through", Duration::from_secs(90), async || {
            let all = test.remediations().await;
            let second = all.into_iter().nth(1).filter(|one| status_of(one).phase == Phase::Verifying);
            second.ok_or_else(|| "none yet".to_owned())
        })
        .await;
        assert!(status_of(&second).started_at.unwrap() >= half_open);
        traffic.set("stuck", 0.0);
        assert_eq!(status_of(&test.wait_ended(&second.name_any()).await).phase, Phase::Succeeded);
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_step_of_the_ladder_a_person_is_called() {
    run("ladder", async |test| {
        let (operator, traffic) = unhelpful(test, 2, json!({})).await;
        let all = wait_count(test, 2, Phase::Ineffective, Duration::from_secs(120)).await;
        let steps: Vec<_> = all.iter().map(|one| (one.spec.plan.step, one.spec.plan.episode.clone())).collect();
        assert_eq!((steps[0].0, steps[1].0), (0, 1), "one step after the other");
        assert_eq!(steps[0].1, steps[1].1, "in one incident");
        let refusal = test.wait_refusal("shop", "api", Guard::LadderExhausted).await;
        assert_eq!(refusal.retry_at, None);
        let (reason, message) = test.wait_condition("shop", "Healing", "False", SOON).await;
        assert_eq!(reason, "LadderExhausted");
        assert!(message.contains("investigate manually"), "{message}");
        test.wait_event("PersonNeeded", "shop", "LadderExhausted").await;
        for remediation in &all {
            test.wait_recorded(&remediation.name_any(), SOON).await;
        }
        let rows = operator.action_rows().await;
        assert!(rows.len() == 2 && rows.iter().all(|row| row.0 == "service_restart_failed" && !row.1), "{rows:?}");
        // It is left alone from here on, and recovers by somebody else's hand.
        traffic.set("stuck", 0.0);
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
        let (reason, _) = wait::until("nothing to do", SOON, async || {
            let found = test.wait_condition("shop", "Healing", "False", SOON).await;
            if found.0 == "NothingToDo" { Ok(found) } else { Err(format!("{found:?}")) }
        })
        .await;
        assert_eq!((reason.as_str(), test.remediations().await.len()), ("NothingToDo", 2));
    })
    .await;
}

/// Waits until a container of a pod of this app was restarted this often.
async fn wait_restarts(test: &Test, app: &str, count: i32) {
    wait::until(&format!("{count} restarts of a pod of {app}"), Duration::from_secs(60), async || {
        let pods = test.api::<Pod>().list(&ListParams::default().labels(&format!("app={app}"))).await.unwrap();
        let containers = pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref()).flatten();
        let most = containers.map(|container| container.restart_count).max().unwrap_or_default();
        if most >= count { Ok(()) } else { Err(format!("{most}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_too_many_components_are_unhealthy_at_once_nothing_is_done_and_a_person_is_called() {
    run("max-unhealthy", async |test| {
        let names = ["api", "cart", "search"];
        let safety = json!({"maxUnhealthy": 1, "maxConcurrent": 3});
        let safety = json!({"spec": {"safety": safety, "detection": {"unhealthyAfter": 3}}});
        let operator = good(test, &names, &safety).await;
        // Suspended, so that they are all bad before the first check.
        test.patch_policy("shop", json!({"spec": {"suspend": true}})).await;
        test.wait_condition("shop", "Suspended", "True", SOON).await;
        for name in names {
            test.release(name, "shop/app:v2-crash").await;
        }
        for name in names {
            wait_restarts(test, name, 3).await;
        }
        test.patch_policy("shop", json!({"spec": {"suspend": false}})).await;
        for name in names {
            let refusal = test.wait_refusal("shop", name, Guard::MaxUnhealthy).await;
            assert!(refusal.message.contains("safety.maxUnhealthy allows (1)"), "{}", refusal.message);
        }
        test.wait_event("PersonNeeded", "shop", "investigate manually").await;
        let (reason, _) = test.wait_condition("shop", "Healing", "False", SOON).await;
        assert_eq!(reason, "MaxUnhealthy");
        let looks = operator.looks().await;
        // Long enough for their containers to run for moments between crashes.
        wait::throughout("nothing is done", Duration::from_secs(15), async || {
            let all = test.remediations().await;
            if all.iter().all(|one| status_of(one).started_at.is_none()) { Ok(()) } else { Err(format!("{all:?}")) }
        })
        .await;
        assert!(operator.looks().await > looks, "no check took place");
        let writes = test.operator_writes_to_workloads();
        assert!(writes.is_empty(), "{writes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bad_components_are_healed_one_at_a_time() {
    run("max-concurrent", async |test| {
        let safety = json!({"spec": {"safety": {"maxUnhealthy": "100%", "maxConcurrent": 1}}});
        let _operator = good(test, &["api", "cart"], &safety).await;
        test.release("api", "shop/app:v2-crash").await;
        test.release("cart", "shop/app:v2-crash").await;
        wait::until("both to be healed, one at a time", Duration::from_secs(120), async || {
            let all = test.remediations().await;
            let acting: Vec<_> = all.iter().filter(|one| status_of(one).phase.is_acting()).collect();
            assert!(acting.len() <= 1, "two at a time: {acting:?}");
            let done = all.iter().filter(|one| status_of(one).phase == Phase::Succeeded).count();
            if done == 2 { Ok(()) } else { Err(format!("{done} of {} are done", all.len())) }
        })
        .await;
        // Polling could miss a moment; the times cannot.
        let mut spans: Vec<(Timestamp, Timestamp)> = test
            .remediations()
            .await
            .iter()
            .map(|one| (status_of(one).started_at.unwrap(), status_of(one).finished_at.unwrap()))
            .collect();
        spans.sort_unstable();
        assert!(spans.len() == 2 && spans[1].0 >= spans[0].1, "{spans:?}");
        for name in ["api", "cart"] {
            assert_eq!(test.image(name).await, "shop/app:v1");
            assert_eq!(test.generation(name).await, 3);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_prometheus_is_down_the_component_is_unknown_and_nothing_is_done_and_then_it_heals_again() {
    run("blind", async |test| {
        let server = OwnPrometheus::start();
        test.deploy("api", "shop/app:v1", 2).await;
        test.wait_rolled_out("api").await;
        let traffic = Traffic::start_for(test, "api", server.targets(), &server.url).await;
        traffic.set("stuck", 0.0);
        let operator = Operator::start(test, Options::default()).await;
        let component = json!({
            "name": "api", "target": {"deployment": {"name": "api"}},
            "metrics": [{"name": "stuck", "prometheus": {"query": traffic.gauge_query("stuck"), "url": server.url}}],
            "thresholds": {"stuck": {"warning": 1.0, "critical": 2.0}},
        });
        let patch = json!({"spec": {"interval": "2s", "components": [component]}});
        test.apply_policy(&policy("shop", &["api"], &patch)).await;
        test.wait_known_good("shop", "api").await;

        // The last known value was fine; it is unavailable for a full minute.
        server.stop();
        stays_unknown(test, &operator, "True", Duration::from_secs(60)).await;
        test.wait_event("CouldNotMeasure", "shop", "stuck").await;
        server.start_again();
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
        let (reason, _) = test.wait_condition("shop", "Healthy", "True", SOON).await;
        assert_eq!(reason, "AllHealthy");

        // The last known value was bad, and known to be so: held back by the mode alone, which then changes.
        test.patch_policy("shop", json!({"spec": {"mode": "Observe"}})).await;
        traffic.set("stuck", 9.0);
        test.wait_refusal("shop", "api", Guard::ObserveMode).await;
        server.stop();
        test.wait_status("shop", "api", HealthStatus::Unknown).await;
        test.patch_policy("shop", json!({"spec": {"mode": "Auto"}})).await;
        stays_unknown(test, &operator, "False", Duration::from_secs(12)).await;
        assert_eq!(test.generation("api").await, 1);

        // It can be seen again, is still bad, and is restarted.
        server.start_again();
        let acting = test.wait_remediation(Phase::Verifying).await;
        assert_eq!(acting.spec.plan.action, ActionKind::Restart);
        traffic.set("stuck", 0.0);
        assert_eq!(status_of(&test.wait_ended(&acting.name_any()).await).phase, Phase::Succeeded);
        test.wait_status("shop", "api", HealthStatus::Healthy).await;

        // And a bad release is healed as ever.
        test.release("api", "shop/app:v2-crash").await;
        let all = wait_count(test, 2, Phase::Succeeded, Duration::from_secs(90)).await;
        assert_eq!(all[1].spec.plan.action, ActionKind::Rollback);
        assert_eq!(test.image("api").await, "shop/app:v1");
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
    })
    .await;
}

/// For several looks, without any action; the condition Healthy was `never` before and is not that now.
async fn stays_unknown(test: &Test, operator: &Operator, never: &str, time: Duration) {
    let status = test.wait_status("shop", "api", HealthStatus::Unknown).await;
    assert!(status.message.contains("stuck unknown (Unreachable)"), "{}", status.message);
    assert_eq!(status.score, None, "what could not be measured has no score");
    let looks = operator.looks().await;
    wait::throughout("Unknown, and nothing done", time, async || {
        let status = test.component("shop", "api").await.unwrap().status;
        let policy = test.policy_status("shop").await;
        let healthy = policy.conditions.iter().find(|condition| condition.type_ == "Healthy").unwrap().status.clone();
        let remediations = test.remediations().await;
        let as_meant = status == HealthStatus::Unknown && healthy != never && remediations.is_empty();
        if as_meant { Ok(()) } else { Err(format!("{status}, Healthy={healthy}, {remediations:?}")) }
    })
    .await;
    // One every two seconds; half of these, for a machine that does other things beside.
    let wanted = time.as_secs() / 4;
    assert!(operator.looks().await >= looks + wanted, "no check took place");
    let writes = test.operator_writes_to_workloads();
    assert!(writes.is_empty(), "{writes:?}");
}
