//! Projects that Vercel hosts, on a stand-in for its API that refuses what the real one refuses.

use std::time::Duration;

use kube::ResourceExt as _;
use panacea::api::{ActionKind, HealthStatus, Phase};
use serde_json::{Value, json};

use crate::support::{
    cluster::{env, run},
    door::Fault,
    gate::{Gate, Seen, Side},
    objects::{over, over_many},
    operator::{Operator, Options},
    vercel::{FakeVercel, TOKEN},
    wait,
};

const LONG: Duration = Duration::from_secs(150);
const ROLLBACK: &str = "POST /v1/projects/{id}/rollback/{deployment}";

fn options(fake: &FakeVercel) -> Options {
    Options::default().with("VERCEL_BASE_URL", fake.url()).with("VERCEL_TOKEN", TOKEN)
}

/// A component whose error rate the team measures.
fn hosted(fake: &FakeVercel, name: &str, project: &str) -> Value {
    let prometheus = json!({"url": fake.prometheus(), "query": project});
    json!({"name": name, "target": {"vercel": {"projectId": project}},
        "metrics": [{"name": "error_rate", "prometheus": prometheus}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_deployment_is_rolled_back_to_the_one_that_was_healthy() {
    run("vercel-back", async |test| {
        let fake = FakeVercel::start().await;
        fake.with(|world| world.add_project("prj_shop", Some("team_shop")));
        let operator = Operator::start(test, options(&fake).with("PANACEA_LOG", "debug")).await;
        let mut component = hosted(&fake, "shop", "prj_shop");
        component["target"]["vercel"]["teamId"] = json!("team_shop");
        test.apply_policy(&over(&[component])).await;
        let good = test.wait_known_good("shop", "shop").await.release.unwrap();
        assert_eq!(good.hash, fake.live("prj_shop"));

        // One that is not built is Vercel's own affair.
        fake.with(|world| world.push_broken("prj_shop", "badbeef"));
        let degraded = test.wait_status("shop", "shop", HealthStatus::Degraded).await;
        assert!(degraded.message.contains("(commit badbeef: commit badbeef) ended as ERROR"), "{}", degraded.message);
        let bad = fake.with(|world| world.push("prj_shop", "deadbee", 0.6));
        let healed = test.wait_remediation_within(Phase::Succeeded, LONG).await;
        assert_eq!(healed.spec.plan.action, ActionKind::Rollback);
        assert_eq!(
            (healed.spec.plan.target.kind.as_str(), healed.spec.plan.target.name.as_str()),
            ("Vercel", "prj_shop")
        );
        let why = &healed.spec.plan.why;
        assert!(why.contains(&format!("of deploy {bad} (commit deadbee: commit deadbee)")), "{why}");
        assert_eq!(healed.spec.plan.release.as_ref().map(|from| &from.hash), Some(&bad));
        assert_eq!(healed.spec.plan.intent.template().map(|to| &to.hash), Some(&good.hash));
        assert_eq!(
            (fake.live("prj_shop"), fake.rollbacks("prj_shop"), fake.calls(ROLLBACK)),
            (good.hash.clone(), 1, 1)
        );
        test.wait_event("Acting", &healed.name_any(), "waiting until it is").await;
        test.wait_event("Verifying", &healed.name_any(), "until you promote one").await;

        // It is known as what it is, and as no new release.
        test.wait_status("shop", "shop", HealthStatus::Healthy).await;
        assert_eq!(test.wait_known_good("shop", "shop").await.release.unwrap().hash, good.hash);
        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("automatic_rollback".to_owned(), true, healed.name_any())]);
        let row = operator.action_outputs().await.remove(0);
        assert_eq!(
            (&row["status_code"], &row["attempts"], &row["deploy"]),
            (&json!(201), &json!(1), &json!(good.hash))
        );
        test.assert_stand_nowhere(&operator, &[TOKEN]).await;
    })
    .await;
}

/// Vercel's response to the call, and the outcome: calls, started rollbacks, the end.
const ANSWERS: [(&str, Fault, usize, u32, Phase, &str); 7] = [
    ("prj_500", Fault::Status(500), 2, 1, Phase::Succeeded, "Healthy"),
    ("prj_done500", Fault::DoneAndStatus(500), 1, 1, Phase::Succeeded, "Healthy"),
    ("prj_donereset", Fault::DoneAndReset, 1, 1, Phase::Succeeded, "Healthy"),
    ("prj_donehang", Fault::DoneAndHang, 1, 1, Phase::Succeeded, "Healthy"),
    ("prj_402", Fault::Status(402), 1, 0, Phase::Failed, "Refused"),
    ("prj_409", Fault::Status(409), 1, 0, Phase::Failed, "Refused"),
    ("prj_401", Fault::Status(401), 1, 0, Phase::Failed, "CredentialsRefused"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_asked_for_again_only_when_it_had_no_effect() {
    run("vercel-answers", async |test| {
        let fake = FakeVercel::start().await;
        let mut components = Vec::new();
        let mut goods = Vec::new();
        for (project, fault, ..) in ANSWERS {
            fake.with(|world| world.add_project(project, None));
            let good = fake.live(project);
            fake.fault(&format!("POST /v1/projects/{project}/rollback/{good}"), 1, fault);
            goods.push(good);
            components.push(hosted(&fake, &project.replace('_', "-"), project));
        }
        let _operator = Operator::start(test, options(&fake)).await;
        test.apply_policy(&over_many(&components)).await;
        for (project, ..) in ANSWERS {
            test.wait_known_good("shop", &project.replace('_', "-")).await;
        }
        fake.with(|world| ANSWERS.iter().for_each(|(project, ..)| drop(world.push(project, "deadbee", 0.6))));
        for ((project, _, calls, rollbacks, phase, reason), good) in ANSWERS.into_iter().zip(&goods) {
            let ended = test.wait_component_ended(&project.replace('_', "-")).await.status.unwrap();
            let seen = (fake.calls(&format!("POST /v1/projects/{project}/rollback/{good}")), fake.rollbacks(project));
            assert_eq!(seen, (calls, rollbacks), "{project}: {ended:?}");
            assert_eq!((ended.phase, ended.reason.as_str()), (phase, reason), "{project}: {}", ended.message);
        }
    })
    .await;
}

/// Killed when the call is stored and not sent, and when it is done and not answered.
#[tokio::test(flavor = "multi_thread")]
async fn killed_around_the_call_there_is_one_rollback() {
    run("vercel-killed", async |test| {
        let fake = FakeVercel::start().await;
        fake.with(|world| world.add_project("prj_shop", None));
        let good = fake.live("prj_shop");
        let gate = Gate::start(env("PANACEA_KUBECONFIG").as_ref()).await;
        let mut operator = Operator::start(test, options(&fake).through(gate.kubeconfig())).await;
        test.apply_policy(&over(&[hosted(&fake, "shop", "prj_shop")])).await;
        test.wait_known_good("shop", "shop").await;

        let stored = |seen: &Seen<'_>| seen.path.ends_with("/status") && seen.body.contains("sentAt");
        let mut held = gate.hold(Side::Answer, stored);
        fake.with(|world| world.push("prj_shop", "deadbee", 0.6));
        held.reached().await;
        operator.kill9();
        drop(held);
        assert_eq!(fake.calls(ROLLBACK), 0);
        operator.spawn();
        let healed = test.wait_remediation_within(Phase::Succeeded, LONG).await;
        assert_eq!((fake.calls(ROLLBACK), fake.rollbacks("prj_shop"), fake.live("prj_shop")), (1, 1, good.clone()));
        assert_eq!(
            healed.status.unwrap().progress.unwrap().provider().cloned().unwrap().attempts,
            2,
            "the first one was not sent"
        );
        test.wait_status("shop", "shop", HealthStatus::Healthy).await;

        // The next one goes live manually, as after every rollback.
        fake.fault(ROLLBACK, 1, Fault::DoneAndHang);
        let next = fake.with(|world| world.push("prj_shop", "deadbee2", 0.6));
        wait::until("it to be built", LONG, async || {
            let state = fake.with(|world| world.projects["prj_shop"].deployment(&next).unwrap().state);
            if state == "READY" { Ok(()) } else { Err(state.to_owned()) }
        })
        .await;
        assert_eq!(fake.live("prj_shop"), good, "nothing goes live automatically after a rollback");
        fake.with(|world| world.promote("prj_shop", &next));
        fake.wait_calls(ROLLBACK, 2, LONG).await;
        operator.kill9();
        assert_eq!(test.outcomes().await.last().map(|last| last.1), Some(Phase::Running));
        operator.spawn();
        test.wait_rolled_back(2, LONG).await;
        assert_eq!((fake.calls(ROLLBACK), fake.rollbacks("prj_shop")), (2, 2), "one for each incident");
        assert_eq!(fake.live("prj_shop"), good);
        test.assert_stand_nowhere(&operator, &[TOKEN]).await;
    })
    .await;
}

/// One whose plan does not allow it, and one that fails in Vercel's hands.
#[tokio::test(flavor = "multi_thread")]
async fn what_vercel_refuses_is_known_before_the_call_and_a_failure_is_reported() {
    run("vercel-refused", async |test| {
        let fake = FakeVercel::start().await;
        for project in ["prj_hobby", "prj_fails"] {
            fake.with(|world| world.add_project(project, None));
        }
        let _operator = Operator::start(test, options(&fake)).await;
        let mut wanted = over(&[hosted(&fake, "hobby", "prj_hobby"), hosted(&fake, "fails", "prj_fails")]);
        wanted["spec"]["safety"]["cooldown"] = json!("1h");
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "hobby").await;
        test.wait_known_good("shop", "fails").await;
        fake.with(|world| {
            let hobby = world.projects.get_mut("prj_hobby").unwrap();
            hobby.hobby = true;
            world.projects.get_mut("prj_fails").unwrap().next_ends = Some("failed");
            // Two, so that the good one is not the one before.
            world.push("prj_hobby", "deadbee", 0.6);
            world.push("prj_hobby", "deadbee2", 0.6);
            world.push("prj_fails", "deadbee", 0.6);
        });
        let failed = test.wait_remediation_within(Phase::Failed, LONG).await;
        let status = failed.status.unwrap();
        assert_eq!((failed.spec.plan.component.as_str(), status.reason.as_str()), ("fails", "DeployFailed"));
        assert!(status.message.contains("ended as failed; check Vercel's dashboard"), "{}", status.message);
        let blocked = test.wait_remediation_within(Phase::Blocked, LONG).await;
        let message = &blocked.status.as_ref().unwrap().message;
        assert_eq!(blocked.spec.plan.component, "hobby");
        assert!(message.contains("the plan allows the one before alone"), "{message}");
        assert_eq!((fake.rollbacks("prj_hobby"), fake.rollbacks("prj_fails"), fake.calls(ROLLBACK)), (0, 1, 1));
    })
    .await;
}

/// The call has no response, and somebody moves production in the meantime.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_left_to_a_person() {
    run("vercel-unknown", async |test| {
        let fake = FakeVercel::start().await;
        fake.with(|world| world.add_project("prj_shop", None));
        let _operator = Operator::start(test, options(&fake)).await;
        let mut wanted = over(&[hosted(&fake, "shop", "prj_shop")]);
        wanted["spec"]["safety"]["cooldown"] = json!("1h");
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "shop").await;
        fake.fault(ROLLBACK, 1, Fault::Hang);
        let bad = fake.with(|world| world.push("prj_shop", "deadbee", 0.6));
        fake.wait_calls(ROLLBACK, 1, LONG).await;
        fake.with(|world| world.promote("prj_shop", &bad));
        let ended = test.wait_remediation_within(Phase::Failed, LONG).await;
        let status = ended.status.as_ref().unwrap();
        assert_eq!(status.reason, "OutcomeUnknown", "{}", status.message);
        for words in ["other rollbacks or promotions were made since", "check Vercel's dashboard"] {
            assert!(status.message.contains(words), "{}", status.message);
        }
        test.wait_event("PersonNeeded", &ended.name_any(), "its outcome is unknown").await;
        assert_eq!((fake.calls(ROLLBACK), fake.rollbacks("prj_shop")), (1, 0));
    })
    .await;
}
