//! Services that Render hosts, on a stand-in for its API that refuses what the real one refuses.

use std::time::Duration;

use kube::ResourceExt as _;
use panacea::api::{ActionKind, CircuitState, ComponentStatus, HealthStatus, Phase, Remediation};
use serde_json::{Value, json};

use crate::support::{
    cluster::{env, run},
    door::Fault,
    gate::{Gate, Side},
    objects::{over, over_many},
    operator::{Operator, Options},
    render::{API_KEY, FakeRender},
    role::Role,
    wait,
};

const LONG: Duration = Duration::from_secs(150);

pub(crate) fn options(fake: &FakeRender) -> Options {
    Options::default().with("RENDER_BASE_URL", fake.url()).with("RENDER_API_KEY", API_KEY)
}

fn hosted(name: &str, service: &str) -> Value {
    json!({"name": name, "target": {"render": {"serviceId": service}}})
}

fn message(remediation: &Remediation) -> &str {
    &remediation.status.as_ref().unwrap().message
}

#[tokio::test(flavor = "multi_thread")]
async fn one_policy_heals_a_deployment_and_a_hosted_service_and_watches_a_site() {
    run("render-mixed", async |test| {
        let fake = FakeRender::start().await;
        fake.add("srv-checkout", "web_service");
        let site = FakeRender::start().await;
        // All that any library would say of its requests.
        let operator = Operator::start(test, options(&fake).with("PANACEA_LOG", "debug")).await;
        test.deploy("api", "shop/api:v1", 2).await;
        let expected = json!([404]);
        test.apply_policy(&over(&[
            hosted("checkout", "srv-checkout"),
            json!({"name": "api", "target": {"deployment": {"name": "api"}}}),
            json!({"name": "site", "target": {"http": {"url": site.url(), "expectedStatuses": expected}}}),
        ]))
        .await;
        test.wait_known_good("shop", "checkout").await;
        test.wait_known_good("shop", "api").await;
        test.wait_status("shop", "site", HealthStatus::Healthy).await;

        fake.with(|world| world.services.get_mut("srv-checkout").unwrap().failing = 0.5);
        let healed = test.wait_remediation_within(Phase::Succeeded, LONG).await;
        assert_eq!((healed.spec.plan.action, healed.spec.plan.target.kind.as_str()), (ActionKind::Restart, "Render"));
        assert!(healed.spec.plan.why.contains("error_rate 50.0% > 10.0%"), "{}", healed.spec.plan.why);
        assert_eq!((fake.restarts("srv-checkout"), fake.calls("POST /services/{id}/restart")), (1, 1));
        test.wait_event("Acting", &healed.name_any(), "waiting for new instances").await;
        test.wait_event("Verifying", &healed.name_any(), "all instances are new").await;
        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("service_restart".to_owned(), true, healed.name_any())]);
        let row = operator.action_outputs().await.remove(0);
        assert_eq!((&row["status_code"], &row["attempts"]), (&json!(200), &json!(1)));
        assert!(row["duration_s"].as_f64().is_some_and(|duration| (1.0..60.0).contains(&duration)), "{row}");

        test.release("api", "shop/api:v2-crash").await;
        wait::until("the Deployment to be rolled back", LONG, async || match test.of_component("api").await {
            Some(one) if one.status.as_ref().is_some_and(|status| status.phase == Phase::Succeeded) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert_eq!(test.image("api").await, "shop/api:v1");
        assert_eq!((fake.restarts("srv-checkout"), fake.refused_by_limit()), (1, 0));
        test.assert_stand_nowhere(&operator, &[API_KEY]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_deploy_is_rolled_back_to_the_one_that_was_healthy_and_auto_deploy_stays_off() {
    run("render-back", async |test| {
        let fake = FakeRender::start().await;
        fake.add("srv-shop", "web_service");
        let operator = Operator::start(test, options(&fake)).await;
        test.apply_policy(&over(&[hosted("shop", "srv-shop")])).await;
        let good = test.wait_known_good("shop", "shop").await.release.unwrap();

        // One that does not get to serve is Render's own affair.
        fake.with(|world| world.failing_deploy("srv-shop", "badbeef", "new_commit", "update_failed"));
        let degraded = test.wait_status("shop", "shop", HealthStatus::Degraded).await;
        assert!(degraded.message.contains("ended as update_failed"), "{}", degraded.message);
        let bad = fake.push("srv-shop", "deadbee", 0.6).expect("auto-deploy is on");
        let healed = test.wait_remediation_within(Phase::Succeeded, LONG).await;
        assert_eq!(healed.spec.plan.action, ActionKind::Rollback);
        assert!(
            healed.spec.plan.why.contains(&format!("of deploy {bad} (commit deadbee: commit deadbee)")),
            "{}",
            healed.spec.plan.why
        );
        assert_eq!(healed.spec.plan.release.as_ref().map(|from| &from.hash), Some(&bad));
        assert_eq!(healed.spec.plan.intent.template().map(|to| &to.hash), Some(&good.hash));
        let status = healed.status.clone().unwrap().progress.unwrap().provider().cloned().unwrap();
        let live = fake.with(|world| world.services["srv-shop"].live().unwrap().clone());
        assert_eq!((live.of.as_ref(), Some(&live.id)), (Some(&good.hash), status.deploy.as_ref()));
        assert_eq!(fake.calls("POST /services/{id}/rollback"), 1);
        assert_eq!(fake.restarts("srv-shop"), 0);

        // The next commit would bring it back, so it is not deployed, and an event says so.
        assert_eq!(status.auto_deploy_was.as_deref(), Some("commit"));
        assert_eq!(fake.push("srv-shop", "deadbee2", 0.6), None);
        test.wait_event("AutoDeployOff", &healed.name_any(), "switch it on again").await;
        test.wait_event("Verifying", &healed.name_any(), "\"autoDeployTrigger\": \"commit\"").await;

        // It is known as the old release, and as no new one.
        let now = test.wait_known_good("shop", "shop").await;
        let release = now.release.unwrap();
        assert_eq!((release.hash, release.digest), (live.id, good.digest.clone()));
        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("automatic_rollback".to_owned(), true, healed.name_any())]);
        let row = operator.action_outputs().await.remove(0);
        assert_eq!((&row["status_code"], &row["attempts"]), (&json!(201), &json!(1)));

        // A second one rolls back to the rollback, which is the same deploy; its response is cut off, and it is found.
        fake.fault("POST /services/srv-shop/rollback", 1, Fault::DoneAndReset);
        fake.with(|world| world.deploy("srv-shop", "deadbee3", "manual", 0.7));
        let again = wait::until("the second rollback", LONG, async || {
            let all = test.remediations().await;
            let done = |one: &&Remediation| one.status.as_ref().is_some_and(|status| status.phase == Phase::Succeeded);
            all.iter().filter(done).nth(1).cloned().ok_or_else(|| format!("{:?}", all.last().map(|one| &one.status)))
        })
        .await;
        assert_eq!(again.spec.plan.intent.template().map(|to| &to.digest), Some(&good.digest));
        let hosted = again.status.unwrap().progress.unwrap().provider().cloned().unwrap();
        assert_eq!(hosted.auto_deploy_was, None, "it was off already");
        assert_eq!((fake.calls("POST /services/{id}/rollback"), hosted.attempts), (2, 1), "one for each incident");
        let made = fake.with(|world| {
            let deploys = world.services["srv-shop"].deploys.iter();
            deploys.filter(|deploy| deploy.trigger == "rollback").count()
        });
        assert_eq!(made, 2);
    })
    .await;
}

/// Render's response to the call, and the outcome: calls, restarts, the end.
const ANSWERS: [(&str, Fault, usize, u32, Phase, &str); 11] = [
    ("srv-500", Fault::Status(500), 2, 1, Phase::Succeeded, "Healthy"),
    ("srv-503", Fault::Status(503), 2, 1, Phase::Succeeded, "Healthy"),
    ("srv-reset", Fault::Reset, 2, 1, Phase::Succeeded, "Healthy"),
    ("srv-html", Fault::Html, 2, 1, Phase::Succeeded, "Healthy"),
    ("srv-hang", Fault::Hang, 2, 1, Phase::Succeeded, "Healthy"),
    ("srv-done500", Fault::DoneAndStatus(500), 1, 1, Phase::Succeeded, "Healthy"),
    ("srv-donereset", Fault::DoneAndReset, 1, 1, Phase::Succeeded, "Healthy"),
    ("srv-donehang", Fault::DoneAndHang, 1, 1, Phase::Succeeded, "Healthy"),
    ("srv-429", Fault::Limited(2), 2, 1, Phase::Succeeded, "Healthy"),
    ("srv-401", Fault::Status(401), 1, 0, Phase::Failed, "CredentialsRefused"),
    ("srv-404", Fault::Status(404), 1, 0, Phase::Failed, "TargetNotFound"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_a_clear_answer_is_made_again_only_when_it_had_no_effect() {
    answers("render-unclear", &ANSWERS[..5]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_was_done_or_refused_is_not_made_again() {
    answers("render-answers", &ANSWERS[5..]).await;
}

async fn answers(name: &str, answers: &[(&str, Fault, usize, u32, Phase, &str)]) {
    run(name, async |test| {
        let fake = FakeRender::start().await;
        let mut components = Vec::new();
        for &(service, fault, ..) in answers {
            fake.add(service, "web_service");
            fake.fault(&format!("POST /services/{service}/restart"), 1, fault);
            components.push(hosted(service, service));
        }
        let _operator = Operator::start(test, options(&fake)).await;
        test.apply_policy(&over_many(&components)).await;
        for (service, ..) in answers {
            test.wait_known_good("shop", service).await;
        }
        fake.with(|world| world.services.values_mut().for_each(|service| service.failing = 0.5));
        for &(service, _, calls, restarts, phase, reason) in answers {
            let ended = test.wait_component_ended(service).await;
            let status = ended.status.clone().unwrap();
            let seen = (fake.calls(&format!("POST /services/{service}/restart")), fake.restarts(service));
            assert_eq!(seen, (calls, restarts), "{service}: {status:?}");
            assert_eq!((status.phase, status.reason.as_str()), (phase, reason), "{service}: {}", status.message);
            if phase == Phase::Failed {
                assert!(status.message.contains(&format!("restart service {service} (POST ")), "{}", status.message);
            }
        }
        assert_eq!(fake.refused_by_limit(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_with_looking_is_unknown_with_its_reason_after_the_right_number_of_tries() {
    run("render-looks", async |test| {
        let fake = FakeRender::start().await;
        let troubles = [
            ("srv-500", Some(Fault::Status(500)), 3, "Unreachable", "status 500"),
            ("srv-503", Some(Fault::Status(503)), 3, "Unreachable", "status 503"),
            ("srv-hang", Some(Fault::Hang), 3, "Timeout", "no response within"),
            ("srv-reset", Some(Fault::Reset), 3, "Unreachable", "the connection broke"),
            ("srv-html", Some(Fault::Html), 1, "BadAnswer", "Please log in"),
            ("srv-401", Some(Fault::Status(401)), 1, "CredentialsRefused", "the API key is not valid"),
            ("srv-403", Some(Fault::Status(403)), 1, "CredentialsRefused", "the API key may not do this"),
            (
                "srv-429",
                Some(Fault::Limited(3600)),
                1,
                "RateLimited",
                "the rate limit is used up and free again in 3600 s",
            ),
            ("srv-unknown", None, 1, "TargetNotFound", "it does not exist, or the API key may not see it"),
        ];
        let mut components = vec![hosted("fine", "srv-fine")];
        fake.add("srv-fine", "web_service");
        for (service, fault, ..) in troubles {
            components.push(hosted(service, service));
            let Some(fault) = fault else { continue };
            fake.add(service, "web_service");
            fake.fault(&format!("GET /services/{service}"), 100, fault);
        }
        // One look each.
        let mut wanted = over(&components);
        wanted["spec"]["interval"] = json!("1h");
        // The key's limit is used up for all by one 429: each in a life of its own.
        let (limited, others): (Vec<Value>, Vec<Value>) =
            components.iter().cloned().partition(|component| component["name"] == "srv-429");
        let _operator = Operator::start(test, options(&fake)).await;
        for components in [&others, &limited] {
            wanted["spec"]["components"] = json!(components);
            test.replace_policy(&wanted).await;
            for (service, _, calls, reason, words) in troubles {
                if !components.iter().any(|component| component["name"] == service) {
                    continue;
                }
                let seen = test
                    .wait_component("shop", service, "to be checked", |status| {
                        status.message.contains("target unknown")
                    })
                    .await;
                assert_eq!(seen.status, HealthStatus::Unknown);
                assert!(
                    seen.message.contains(&format!("({reason})")) && seen.message.contains(words),
                    "{}",
                    seen.message
                );
                assert_eq!(fake.calls(&format!("GET /services/{service}")), calls, "{service}: {}", seen.message);
                assert_eq!(fake.calls(&format!("GET /services/{service}/deploys")), 0, "the others would fail too");
            }
            if components == &others {
                let (reason, words) = test.wait_condition("shop", "Ready", "False", Duration::from_secs(30)).await;
                assert_eq!(reason, "CredentialsRefused");
                assert!(words.contains("srv-401") && words.contains("srv-unknown"), "{words}");
                test.wait_status("shop", "fine", HealthStatus::Healthy).await;
            }
        }
        assert!(test.remediations().await.is_empty());
    })
    .await;
}

/// Killed when the call is stored and not sent, and when it is done and not answered.
#[tokio::test(flavor = "multi_thread")]
async fn killed_around_the_call_there_is_one_restart() {
    run("render-killed", async |test| {
        let fake = FakeRender::start().await;
        fake.add("srv-shop", "web_service");
        let gate = Gate::start(env("PANACEA_KUBECONFIG").as_ref()).await;
        let mut operator = Operator::start(test, options(&fake).through(gate.kubeconfig())).await;
        test.apply_policy(&over(&[hosted("shop", "srv-shop")])).await;
        test.wait_known_good("shop", "shop").await;
        let restart = "POST /services/srv-shop/restart";
        let fail = || fake.with(|world| world.services.get_mut("srv-shop").unwrap().failing = 0.5);

        let stored =
            |seen: &crate::support::gate::Seen<'_>| seen.path.ends_with("/status") && seen.body.contains("sentAt");
        let mut held = gate.hold(Side::Answer, stored);
        fail();
        held.reached().await;
        operator.kill9();
        drop(held);
        assert_eq!(fake.calls(restart), 0);
        operator.spawn();
        let healed = test.wait_remediation_within(Phase::Succeeded, LONG).await;
        assert_eq!((fake.calls(restart), fake.restarts("srv-shop")), (1, 1));
        assert_eq!(
            healed.status.unwrap().progress.unwrap().provider().cloned().unwrap().attempts,
            2,
            "the first one was not sent"
        );
        test.wait_status("shop", "shop", HealthStatus::Healthy).await;

        fake.fault(restart, 1, Fault::DoneAndHang);
        fail();
        fake.wait_calls(restart, 2, LONG).await;
        operator.kill9();
        assert_eq!(test.outcomes().await.last().map(|last| last.1), Some(Phase::Running));
        operator.spawn();
        wait::until("the second restart to be verified", LONG, async || {
            let outcomes = test.outcomes().await;
            let done = outcomes.iter().filter(|(_, phase, _)| *phase == Phase::Succeeded).count();
            if done == 2 { Ok(()) } else { Err(format!("{outcomes:?}")) }
        })
        .await;
        assert_eq!((fake.calls(restart), fake.restarts("srv-shop")), (2, 2), "one for each incident");
        test.assert_stand_nowhere(&operator, &[API_KEY]).await;
    })
    .await;
}

/// A rollback has no answer, and then somebody else deploys: whether it was accepted and replaced is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_left_to_a_person_and_not_sent_again() {
    run("render-unknown", async |test| {
        let fake = FakeRender::start().await;
        fake.add("srv-shop", "web_service");
        let operator = Operator::start(test, options(&fake)).await;
        let mut wanted = over(&[hosted("shop", "srv-shop")]);
        wanted["spec"]["safety"]["cooldown"] = json!("1h");
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "shop").await;
        fake.fault("POST /services/srv-shop/rollback", 1, Fault::Hang);
        fake.push("srv-shop", "deadbee", 0.6).expect("auto-deploy is on");
        fake.wait_calls("POST /services/srv-shop/rollback", 1, LONG).await;
        fake.with(|world| world.deploy("srv-shop", "deadbee2", "manual", 0.6));
        let ended = test.wait_component_ended("shop").await;
        let status = ended.status.as_ref().unwrap();
        assert_eq!((status.phase, status.reason.as_str()), (Phase::Failed, "OutcomeUnknown"), "{}", status.message);
        for words in ["other deploys were made since", "check Render's dashboard", "auto-deploy stays off until you"] {
            assert!(status.message.contains(words), "{}", status.message);
        }
        test.wait_event("PersonNeeded", &ended.name_any(), "its outcome is unknown").await;
        assert_eq!(fake.calls("POST /services/{id}/rollback"), 1);
        test.wait_recorded(&ended.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("rollback_failed".to_owned(), false, ended.name_any())]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_the_key_it_says_which_value_of_the_chart_gives_it() {
    run("render-role", async |test| {
        let fake = FakeRender::start().await;
        fake.add("srv-shop", "web_service");
        let role = Role::with(test, &[]).await;
        let options = Options::default().with("RENDER_BASE_URL", fake.url()).through(role.kubeconfig());
        let _operator = Operator::start(test, options).await;
        test.make_secret("render", json!({"apiKey": API_KEY})).await;
        let mut component = hosted("shop", "srv-shop");
        component["target"]["render"]["apiKeySecretRef"] = json!({"name": "render", "key": "apiKey"});
        test.apply_policy(&over(&[component])).await;
        let (reason, words) = test.wait_condition("shop", "Ready", "False", Duration::from_secs(30)).await;
        assert_eq!(reason, "Forbidden");
        assert!(words.contains("Secret render") && words.contains("rbac.readCredentials"), "{words}");
        assert_eq!(fake.all_calls(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_render_refuses_is_known_before_it_is_asked() {
    run("render-refused", async |test| {
        let fake = FakeRender::start().await;
        fake.add("srv-nightly", "cron_job");
        fake.add("srv-paused", "web_service");
        fake.with(|world| world.services.get_mut("srv-paused").unwrap().suspended = true);
        let _operator = Operator::start(test, options(&fake)).await;
        test.apply_policy(&over(&[hosted("nightly", "srv-nightly"), hosted("paused", "srv-paused")])).await;
        test.wait_known_good("shop", "nightly").await;
        let paused = test.wait_status("shop", "paused", HealthStatus::Degraded).await;
        assert!(paused.message.contains("it is suspended (by: user)"), "{}", paused.message);
        for _ in 0..3 {
            fake.with(|world| world.crash("srv-nightly"));
        }
        let blocked = test.wait_remediation_within(Phase::Blocked, LONG).await;
        assert!(message(&blocked).contains("is a cron_job, which cannot be restarted"), "{}", message(&blocked));
        assert_eq!(fake.calls("POST /services/{id}/restart"), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_keeps_failing_is_left_alone_and_asked_again_by_one_call() {
    run("render-breaker", async |test| {
        let fake = FakeRender::start().await;
        fake.add("srv-shop", "web_service");
        let mut operator = Operator::start(test, options(&fake)).await;
        let mut wanted = over(&[hosted("shop", "srv-shop")]);
        wanted["spec"]["safety"]["circuitBreaker"] = json!({"failureThreshold": 2, "recoveryTimeout": "12s"});
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "shop").await;

        fake.fault("*", 1_000_000, Fault::Status(503));
        let circuit = |status: &ComponentStatus| {
            status.circuit.as_ref().filter(|circuit| circuit.state == CircuitState::Open)?.retry_at
        };
        let seen = test.wait_component("shop", "shop", "to be left alone", |status| circuit(status).is_some()).await;
        let retry_at = circuit(&seen).unwrap();
        let open = |status: &ComponentStatus| status.message.contains("(CircuitOpen)");
        let seen = test.wait_component("shop", "shop", "to be Unknown for it", open).await;
        assert_eq!((seen.status, circuit(&seen)), (HealthStatus::Unknown, Some(retry_at)), "it does not tick");
        assert!(operator.metrics().await.contains(r#"component="shop",state="Open"} 1"#));
        let before = fake.all_calls();
        let unchanged =
            |calls: usize| if fake.all_calls() == calls { Ok(()) } else { Err(format!("{}", fake.all_calls())) };
        let one_more = async |calls: usize| {
            let probe = async || if fake.all_calls() > calls { Ok(()) } else { Err("no call".to_owned()) };
            wait::until("a probe", Duration::from_secs(30), probe).await;
        };
        wait::throughout("nobody asks", Duration::from_secs(4), async || unchanged(before)).await;
        one_more(before).await;
        assert!(jiff::Timestamp::now() >= retry_at);
        wait::throughout("one probe, tried once", Duration::from_secs(4), async || unchanged(before + 1)).await;

        // Its next life knows that it was open: no call before its time, and one then.
        operator.kill9();
        operator.spawn();
        operator.wait_ready().await;
        operator.wait_checks(1).await;
        assert_eq!(unchanged(before + 1), Ok(()));
        one_more(before + 1).await;
        wait::throughout("one probe, tried once", Duration::from_secs(8), async || unchanged(before + 2)).await;

        fake.clear_faults();
        let closed = |status: &ComponentStatus| status.status == HealthStatus::Healthy && status.circuit.is_none();
        test.wait_component("shop", "shop", "to be Healthy, its breaker closed", closed).await;
        assert!(fake.all_calls() > before + 5, "it is asked as before");
        assert!(!operator.metrics().await.contains(r#"state="Open""#));
        assert!(test.remediations().await.is_empty());
    })
    .await;
}
