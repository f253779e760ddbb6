//! A Postgres that Render hosts, on a stand-in for its API that refuses what the real one refuses.

use std::time::Duration;

use kube::ResourceExt as _;
use panacea::{
    api::{ActionKind, Cause, HealthStatus, Phase, Remediation},
    plan::guard::Guard,
};
use serde_json::{Value, json};

use crate::{
    render::options,
    support::{
        cluster::{env, run},
        door::Fault,
        gate::{Gate, Seen, Side},
        objects::{over, over_many},
        operator::Operator,
        render::{API_KEY, FakeRender},
        wait,
    },
};

const LONG: Duration = Duration::from_secs(150);

fn database(id: &str, remedies: Value) -> Value {
    json!({"name": id, "target": {"render": {"postgresId": id}}, "remedies": remedies})
}

fn restart() -> Value {
    json!([{"action": "Restart"}])
}

fn ended(remediation: &Remediation) -> (ActionKind, Phase, String) {
    let status = remediation.status.as_ref().unwrap();
    (remediation.spec.plan.action, status.phase, status.reason.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stays_down_is_restarted_or_failed_over_as_its_policy_says() {
    run("render-pg", async |test| {
        let fake = FakeRender::start().await;
        let all =
            [("dpg-alone", false), ("dpg-pair", true), ("dpg-left", true), ("dpg-odd", false), ("dpg-asked", true)];
        for (id, standby) in all {
            fake.add_postgres(id, standby);
        }
        let operator = Operator::start(test, options(&fake).with("PANACEA_LOG", "debug")).await;
        let failover = json!([{"action": "Failover"}, {"action": "Restart"}]);
        let mut untouched = database("dpg-left", json!([]));
        untouched.as_object_mut().unwrap().remove("remedies");
        test.apply_policy(&over(&[
            database("dpg-alone", restart()),
            database("dpg-pair", failover),
            database("dpg-asked", json!([{"action": "Failover", "approval": "Required"}])),
            database("dpg-odd", json!([{"action": "Failover"}])),
            untouched,
        ]))
        .await;
        for (id, _) in all {
            test.wait_status("shop", id, HealthStatus::Healthy).await;
        }
        fake.with(|world| world.databases.values_mut().for_each(|one| one.down = true));
        let shown = test.wait_status("shop", "dpg-alone", HealthStatus::Degraded).await;
        for words in [r#"Render reports status "unavailable""#, "it has 30s to recover without action"] {
            assert!(shown.message.contains(words), "{}", shown.message);
        }
        assert!(test.remediations().await.is_empty(), "Render is at it");

        let restarted = test.wait_component_ended("dpg-alone").await;
        assert_eq!(ended(&restarted), (ActionKind::Restart, Phase::Succeeded, "Healthy".to_owned()));
        assert_eq!(
            (restarted.spec.plan.cause, restarted.spec.plan.target.name.as_str()),
            (Cause::Unreachable, "dpg-alone")
        );
        assert!(
            restarted.spec.plan.why.contains(r#"Render reports status "unavailable""#),
            "{}",
            restarted.spec.plan.why
        );
        test.wait_event("Acting", &restarted.name_any(), "waiting until the database serves again").await;
        test.wait_event("Verifying", &restarted.name_any(), "the database is available again after the restart").await;

        let failed_over = test.wait_component_ended("dpg-pair").await;
        assert_eq!(ended(&failed_over), (ActionKind::Failover, Phase::Succeeded, "Healthy".to_owned()));
        assert_eq!(fake.postgres("dpg-pair", |one| (one.restarts, one.failovers)), (0, 1));
        assert_eq!(fake.postgres("dpg-alone", |one| (one.restarts, one.failovers)), (1, 0));
        assert_eq!(fake.calls("POST /postgres/{id}/restart") + fake.calls("POST /postgres/{id}/failover"), 2);

        // What has no standby is known before it is asked for.
        let blocked = test.of_component("dpg-odd").await.unwrap().status.unwrap();
        assert_eq!((blocked.phase, blocked.reason.as_str()), (Phase::Blocked, "BadRemedy"), "{}", blocked.message);
        assert!(blocked.message.contains("dpg-odd has no standby that could take over"), "{}", blocked.message);
        // The approver gets the cost.
        let asked = wait::until("a person to be asked", LONG, async || {
            let status = test.of_component("dpg-asked").await.and_then(|one| one.status);
            status.clone().filter(|one| one.phase == Phase::AwaitingApproval).ok_or_else(|| format!("{status:?}"))
        })
        .await;
        assert!(asked.message.contains("writes of the last seconds may be lost"), "{}", asked.message);
        // No remedy runs by default.
        let left = test.wait_status("shop", "dpg-left", HealthStatus::Critical).await;
        assert!(left.message.contains("unavailable"), "{}", left.message);
        assert!(test.of_component("dpg-left").await.is_none());

        test.wait_recorded(&restarted.name_any(), Duration::from_secs(20)).await;
        test.wait_recorded(&failed_over.name_any(), Duration::from_secs(20)).await;
        let mut rows = operator.action_rows().await;
        rows.sort();
        let expected = [("db_connection_recovered", &failed_over), ("service_restart", &restarted)];
        assert_eq!(rows, expected.map(|(action, one)| (action.to_owned(), true, one.name_any())));
        for row in operator.action_outputs().await {
            assert_eq!((&row["status_code"], &row["attempts"]), (&json!(202), &json!(1)));
            assert!(row["duration_s"].as_f64().is_some_and(|duration| (1.0..60.0).contains(&duration)), "{row}");
        }
        test.assert_stand_nowhere(&operator, &[API_KEY]).await;
    })
    .await;
}

/// Render's response to a restart, and the outcome: calls, restarts, the end.
type Answer = (&'static str, Option<Fault>, usize, u32, Phase, &'static str);

const ANSWERS: [Answer; 12] = [
    ("dpg-500", Some(Fault::Status(500)), 1, 0, Phase::Failed, "OutcomeUnknown"),
    ("dpg-503", Some(Fault::Status(503)), 1, 0, Phase::Failed, "OutcomeUnknown"),
    ("dpg-reset", Some(Fault::Reset), 1, 0, Phase::Failed, "OutcomeUnknown"),
    ("dpg-html", Some(Fault::Html), 1, 0, Phase::Failed, "OutcomeUnknown"),
    ("dpg-hang", Some(Fault::Hang), 1, 0, Phase::Failed, "OutcomeUnknown"),
    ("dpg-done500", Some(Fault::DoneAndStatus(500)), 1, 1, Phase::Succeeded, "Healthy"),
    ("dpg-donereset", Some(Fault::DoneAndReset), 1, 1, Phase::Succeeded, "Healthy"),
    ("dpg-donehang", Some(Fault::DoneAndHang), 1, 1, Phase::Succeeded, "Healthy"),
    ("dpg-429", Some(Fault::Limited(2)), 2, 1, Phase::Succeeded, "Healthy"),
    ("dpg-401", Some(Fault::Status(401)), 1, 0, Phase::Failed, "CredentialsRefused"),
    ("dpg-404", Some(Fault::Status(404)), 1, 0, Phase::Failed, "TargetNotFound"),
    // Its status does not show the restart.
    ("dpg-unseen", None, 1, 1, Phase::Succeeded, "Healthy"),
];

/// Render lists no restarts of a Postgres: no evidence ever shows that one was not made.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_a_clear_answer_is_not_made_again_and_a_person_is_called() {
    answers("render-pg-unclear", &ANSWERS[..5]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_was_done_or_refused_is_not_made_again() {
    answers("render-pg-answers", &ANSWERS[5..]).await;
}

/// All with one key, whose calls of a minute are not used up by so many.
async fn answers(name: &str, answers: &[Answer]) {
    run(name, async |test| {
        let fake = FakeRender::start().await;
        // Longer than an answer is waited for, and than a look with nothing to say of it.
        fake.with(|world| world.pace.restart = Duration::from_secs(35));
        let mut components = Vec::new();
        for &(id, fault, ..) in answers {
            fake.add_postgres(id, false);
            if let Some(fault) = fault {
                fake.fault(&format!("POST /postgres/{id}/restart"), 1, fault);
            }
            // A ladder that would go on.
            components
                .push(database(id, json!([{"action": "Restart"}, {"action": "Restart", "approval": "Required"}])));
        }
        fake.with(|world| {
            if let Some(unseen) = world.databases.get_mut("dpg-unseen") {
                unseen.in_between = "available".to_owned();
            }
        });
        let _operator = Operator::start(test, options(&fake)).await;
        test.apply_policy(&over_many(&components)).await;
        for &(id, ..) in answers {
            test.wait_status("shop", id, HealthStatus::Healthy).await;
        }
        fake.with(|world| world.databases.values_mut().for_each(|one| one.connections = 99.0));
        for &(id, _, calls, restarts, phase, reason) in answers {
            let ended = test.wait_component_ended(id).await;
            let status = ended.status.clone().unwrap();
            let seen = (fake.calls(&format!("POST /postgres/{id}/restart")), fake.postgres(id, |one| one.restarts));
            assert_eq!(seen, (calls, restarts), "{id}: {status:?}");
            assert_eq!((status.phase, status.reason.as_str()), (phase, reason), "{id}: {}", status.message);
            assert_eq!(ended.spec.plan.cause, Cause::Exhaustion, "{id}");
            if reason == "OutcomeUnknown" {
                for words in ["check Render's dashboard", "is not sent again"] {
                    assert!(status.message.contains(words), "{}", status.message);
                }
                test.wait_event("PersonNeeded", &ended.name_any(), "its outcome is unknown").await;
            }
        }
        for &(id, _, _, _, _, reason) in answers {
            if id == "dpg-unseen" {
                let unseen = test.of_component(id).await.unwrap();
                test.wait_event("Verifying", &unseen.name_any(), "the database was available at every check since")
                    .await;
            }
            // Nothing is done on top of what may be under way.
            if reason == "OutcomeUnknown" {
                let held = test.wait_refusal("shop", id, Guard::OutcomeUnknown).await;
                let words = format!("the outcome of Restart on {id} is unknown");
                assert!(held.message.contains(&words), "{}", held.message);
            }
        }
        assert_eq!(fake.refused_by_limit(), 0);
    })
    .await;
}

/// Killed when the call is done and not answered, and when it is stored and not sent.
#[tokio::test(flavor = "multi_thread")]
async fn killed_around_the_call_there_is_at_most_one_restart() {
    run("render-pg-killed", async |test| {
        let fake = FakeRender::start().await;
        fake.with(|world| world.pace.restart = Duration::from_secs(25));
        for id in ["dpg-sent", "dpg-stored"] {
            fake.add_postgres(id, false);
        }
        let gate = Gate::start(env("PANACEA_KUBECONFIG").as_ref()).await;
        let mut operator = Operator::start(test, options(&fake).through(gate.kubeconfig())).await;
        let mut wanted = over(&[database("dpg-sent", restart()), database("dpg-stored", restart())]);
        wanted["spec"]["safety"]["cooldown"] = json!("1h");
        test.apply_policy(&wanted).await;
        test.wait_status("shop", "dpg-sent", HealthStatus::Healthy).await;
        test.wait_status("shop", "dpg-stored", HealthStatus::Healthy).await;

        let sent = "POST /postgres/dpg-sent/restart";
        fake.fault(sent, 1, Fault::DoneAndHang);
        fake.postgres("dpg-sent", |one| one.connections = 99.0);
        fake.wait_calls(sent, 1, LONG).await;
        operator.kill9();
        operator.spawn();
        let healed = test.wait_component_ended("dpg-sent").await;
        assert_eq!(ended(&healed), (ActionKind::Restart, Phase::Succeeded, "Healthy".to_owned()));
        test.wait_event("Acting", &healed.name_any(), "did not serve since the call").await;
        assert_eq!((fake.calls(sent), fake.postgres("dpg-sent", |one| one.restarts)), (1, 1));

        let stored = |seen: &Seen<'_>| {
            seen.path.contains("shop-dpg-stored") && seen.path.ends_with("/status") && seen.body.contains("sentAt")
        };
        let mut held = gate.hold(Side::Answer, stored);
        fake.postgres("dpg-stored", |one| one.connections = 99.0);
        held.reached().await;
        operator.kill9();
        drop(held);
        operator.spawn();
        let unknown = test.wait_component_ended("dpg-stored").await;
        assert_eq!(ended(&unknown), (ActionKind::Restart, Phase::Failed, "OutcomeUnknown".to_owned()));
        assert_eq!(fake.calls("POST /postgres/dpg-stored/restart"), 0, "it was not sent, which no evidence shows");
        test.assert_stand_nowhere(&operator, &[API_KEY]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_render_is_at_is_shown_and_waited_for_and_its_figures_are_measured() {
    run("render-pg-looks", async |test| {
        let fake = FakeRender::start().await;
        let all = ["dpg-busy", "dpg-unknown", "dpg-suspended", "dpg-full", "dpg-behind", "dpg-stuck", "dpg-back"];
        all.iter().for_each(|id| fake.add_postgres(id, false));
        fake.postgres("dpg-unknown", |one| one.at = Some("unknown".to_owned()));
        fake.postgres("dpg-suspended", |one| one.suspended = true);
        fake.postgres("dpg-behind", |one| one.replica = true);
        fake.postgres("dpg-full", |one| (one.connections, one.overrides) = (85.0, json!({"max_connections": "100"})));
        let _operator = Operator::start(test, options(&fake)).await;
        let mut behind = database("dpg-behind", json!([{"action": "Failover"}]));
        behind["thresholds"] = json!({"replication_lag_s": {"warning": 10, "critical": 60}});
        let mut wanted = over(&[
            database("dpg-busy", restart()),
            database("dpg-unknown", restart()),
            database("dpg-suspended", restart()),
            database("dpg-full", json!([])),
            behind,
            database("dpg-stuck", restart()),
            database("dpg-back", restart()),
        ]);
        wanted["spec"]["safety"]["cooldown"] = json!("1h");
        test.apply_policy(&wanted).await;
        test.wait_status("shop", "dpg-busy", HealthStatus::Healthy).await;
        let expect = async |id: &str, status: HealthStatus, words: &str| {
            let what = format!("to be {status} with {words:?}");
            let is = |seen: &panacea::api::ComponentStatus| seen.status == status && seen.message.contains(words);
            test.wait_component("shop", id, &what, is).await;
        };
        expect("dpg-unknown", HealthStatus::Unknown, "its status is \"unknown\"").await;
        expect("dpg-suspended", HealthStatus::Degraded, "it is suspended (by: user)").await;
        let of = "connections_usage 85% > 80% (warning threshold) in its 85 of 100 connections";
        expect("dpg-full", HealthStatus::Degraded, of).await;
        fake.postgres("dpg-full", |one| (one.connections, one.disk) = (10.0, 0.97));
        expect("dpg-full", HealthStatus::Unhealthy, "storage_usage 97% > 95% (critical threshold)").await;
        fake.postgres("dpg-behind", |one| one.lag = 90.0);
        expect("dpg-behind", HealthStatus::Unhealthy, "replication_lag_s 90 > 60").await;
        let blocked = test.wait_remediation_within(Phase::Blocked, LONG).await;
        let message = blocked.status.unwrap().message;
        assert!(message.contains("dpg-behind is a read replica, which has no standby"), "{message}");

        // What it is like while Render is at work on it is no reason to restart it, and is one when that is over.
        fake.postgres("dpg-busy", |one| one.at = Some("maintenance_in_progress".to_owned()));
        expect("dpg-busy", HealthStatus::Degraded, "Render reports status \"maintenance_in_progress\"").await;
        fake.postgres("dpg-busy", |one| one.connections = 99.0);
        let untouched = async || match test.of_component("dpg-busy").await {
            None => Ok(()),
            Some(one) => Err(format!("{:?}", one.status)),
        };
        wait::throughout("it is left to Render", Duration::from_secs(12), untouched).await;
        fake.postgres("dpg-busy", |one| one.at = None);
        let healed = test.wait_component_ended("dpg-busy").await;
        assert_eq!(ended(&healed), (ActionKind::Restart, Phase::Succeeded, "Healthy".to_owned()));

        // What has come up before the call got through is left alone.
        let refused = "POST /postgres/dpg-back/restart";
        fake.fault(refused, 1, Fault::Limited(25));
        fake.postgres("dpg-back", |one| one.down = true);
        fake.wait_calls(refused, 1, LONG).await;
        fake.postgres("dpg-back", |one| one.down = false);
        let left = test.wait_component_ended("dpg-back").await;
        assert_eq!(ended(&left), (ActionKind::Restart, Phase::Expired, "Recovered".to_owned()));
        assert_eq!((fake.calls(refused), fake.postgres("dpg-back", |one| one.restarts)), (1, 0));

        // Executed is not fixed.
        fake.postgres("dpg-stuck", |one| (one.down, one.incurable) = (true, true));
        wait::until("the restart to have begun", LONG, async || {
            let begun = fake.postgres("dpg-stuck", |one| one.restarts);
            if begun == 1 { Ok(()) } else { Err(format!("{begun} restarts")) }
        })
        .await;
        let waiting = test.of_component("dpg-stuck").await.unwrap().status.unwrap();
        assert_eq!(waiting.phase, Phase::Running, "{}", waiting.message);
    })
    .await;
}
