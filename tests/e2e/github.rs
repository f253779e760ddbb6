//! Environments of GitHub repositories, on a stand-in for its API that refuses what the real one refuses.

use std::time::Duration;

use kube::ResourceExt as _;
use panacea::api::{ActionKind, HealthStatus, Phase};
use serde_json::{Value, json};

use crate::support::{
    cluster::{env, run},
    door::Fault,
    gate::{Gate, Seen, Side},
    github::{FakeGithub, TOKEN, world::Hurdle},
    objects::{over, over_many},
    operator::{Operator, Options},
    render::{API_KEY, FakeRender},
    vercel::{self, FakeVercel},
};

const LONG: Duration = Duration::from_secs(240);
const DISPATCH: &str = "POST /repos/{owner}/{repo}/actions/workflows/{file}/dispatches";
const DEPLOY: &str = "POST /repos/{owner}/{repo}/deployments";

fn options(fake: &FakeGithub) -> Options {
    Options::default().with("GITHUB_BASE_URL", fake.url()).with("GITHUB_TOKEN", TOKEN)
}

/// A component whose error rate the team measures, rolled back by its workflow.
fn by_workflow(fake: &FakeGithub, name: &str) -> Value {
    let mut component = by_deployment(fake, name);
    component["target"]["github"]["workflow"] = json!({"file": "rollback.yml", "inputs": {"reason": "panacea"}});
    component
}

fn by_deployment(fake: &FakeGithub, name: &str) -> Value {
    let repository = format!("octo-org/{name}");
    let prometheus = json!({"url": fake.prometheus(), "query": repository});
    json!({"name": name, "target": {"github": {"repository": repository, "environment": "production"}},
        "metrics": [{"name": "error_rate", "prometheus": prometheus}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_deployment_is_rolled_back_by_the_workflow_to_the_commit_that_was_healthy() {
    run("github-back", async |test| {
        let fake = FakeGithub::start().await;
        let good = fake.with(|world| world.add("octo-org/shop"));
        let operator = Operator::start(test, options(&fake).with("PANACEA_LOG", "debug")).await;
        test.apply_policy(&over(&[by_workflow(&fake, "shop")])).await;
        let known = test.wait_known_good("shop", "shop").await.release.unwrap();
        assert_eq!(known.digest, good);

        // One that did not succeed is a matter of the team.
        fake.with(|world| world.push("octo-org/shop", "badbeef", 0.0, "failure"));
        let degraded = test.wait_status("shop", "shop", HealthStatus::Degraded).await;
        assert!(degraded.message.contains("(commit badbeef) ended as failure"), "{}", degraded.message);
        let bad = fake.with(|world| world.push("octo-org/shop", "deadbee", 0.6, "success"));
        let healed = test.wait_remediation_within(Phase::Succeeded, LONG).await;
        assert_eq!(healed.spec.plan.action, ActionKind::Rollback);
        let target = (healed.spec.plan.target.kind.as_str(), healed.spec.plan.target.name.as_str());
        assert_eq!(target, ("GitHub", "octo-org/shop:production"));
        assert!(healed.spec.plan.why.contains("(commit deadbee)"), "{}", healed.spec.plan.why);
        assert_eq!(healed.spec.plan.release.as_ref().map(|from| &from.digest), Some(&bad));
        assert_eq!(healed.spec.plan.intent.template().map(|to| (&to.hash, &to.digest)), Some((&known.hash, &good)));
        assert_eq!(
            (fake.serves("octo-org/shop"), fake.dispatched("octo-org/shop"), fake.calls(DISPATCH)),
            (good.clone(), 1, 1)
        );
        test.wait_event("Acting", &healed.name_any(), "waiting until it is").await;
        test.wait_event("Verifying", &healed.name_any(), "revert the commit").await;

        // Its deployment is recorded with the head of main, and known as what it has deployed: no new release.
        test.wait_status("shop", "shop", HealthStatus::Healthy).await;
        let now = test.wait_known_good("shop", "shop").await.release.unwrap();
        assert_eq!(now.digest, good);
        assert_ne!(now.hash, known.hash);
        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("automatic_rollback".to_owned(), true, healed.name_any())]);
        let row = operator.action_outputs().await.remove(0);
        let run = fake.with(|world| world.repositories["octo-org/shop"].runs[0].id.to_string());
        assert_eq!((&row["status_code"], &row["attempts"], &row["deploy"]), (&json!(200), &json!(1), &json!(run)));
        test.assert_stand_nowhere(&operator, &[TOKEN]).await;
    })
    .await;
}

/// One by a deployment; one by a workflow on a server that does not tell the run.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_rolled_back_by_a_deployment_and_by_a_run_that_has_to_be_found() {
    run("github-deploy", async |test| {
        let fake = FakeGithub::start().await;
        for name in ["octo-org/plain", "octo-org/older"] {
            fake.with(|world| world.add(name));
        }
        fake.with(|world| world.repositories.get_mut("octo-org/older").unwrap().tells_run = false);
        // Nor is main merged into what is deployed, which could not be done.
        fake.with(|world| world.repositories.get_mut("octo-org/plain").unwrap().hurdle = Some(Hurdle::Conflict));
        let _operator = Operator::start(test, options(&fake)).await;
        test.apply_policy(&over_many(&[by_deployment(&fake, "plain"), by_workflow(&fake, "older")])).await;
        for name in ["plain", "older"] {
            test.wait_known_good("shop", name).await;
            fake.with(|world| world.push(&format!("octo-org/{name}"), "deadbee", 0.6, "success"));
        }
        test.wait_rolled_back(2, LONG).await;
        for name in ["octo-org/plain", "octo-org/older"] {
            assert_eq!(fake.serves(name), format!("{:0<40}", "c0ffee0"), "{name}");
        }
        assert_eq!((fake.rollbacks("octo-org/plain"), fake.calls(DEPLOY)), (1, 1));
        // The first one was refused for a field that it does not know.
        assert_eq!((fake.dispatched("octo-org/older"), fake.calls(DISPATCH)), (1, 2));
    })
    .await;
}

/// GitHub's response to the call, and the outcome: calls, started runs, the end.
const ANSWERS: [(&str, Fault, usize, usize, Phase, &str); 8] = [
    ("a500", Fault::Status(500), 2, 1, Phase::Succeeded, "Healthy"),
    ("done500", Fault::DoneAndStatus(500), 1, 1, Phase::Succeeded, "Healthy"),
    ("donereset", Fault::DoneAndReset, 1, 1, Phase::Succeeded, "Healthy"),
    ("donehang", Fault::DoneAndHang, 1, 1, Phase::Succeeded, "Healthy"),
    ("a401", Fault::Status(401), 1, 0, Phase::Failed, "CredentialsRefused"),
    ("a403", Fault::Status(403), 1, 0, Phase::Failed, "CredentialsRefused"),
    ("a404", Fault::Status(404), 1, 0, Phase::Failed, "TargetNotFound"),
    ("a422", Fault::Status(422), 1, 0, Phase::Failed, "Refused"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_is_dispatched_again_only_when_it_had_no_effect() {
    run("github-answers", async |test| {
        let fake = FakeGithub::start().await;
        let mut components = Vec::new();
        for (name, fault, ..) in ANSWERS {
            fake.with(|world| world.add(&format!("octo-org/{name}")));
            fake.fault(&dispatch_of(name), 1, fault);
            components.push(by_workflow(&fake, name));
        }
        let _operator = Operator::start(test, options(&fake)).await;
        test.apply_policy(&over_many(&components)).await;
        for (name, ..) in ANSWERS {
            test.wait_known_good("shop", name).await;
        }
        for (name, ..) in ANSWERS {
            fake.with(|world| world.push(&format!("octo-org/{name}"), "deadbee", 0.6, "success"));
        }
        for (name, _, calls, runs, phase, reason) in ANSWERS {
            let ended = test.wait_component_ended(name).await.status.unwrap();
            let seen = (fake.calls(&dispatch_of(name)), fake.dispatched(&format!("octo-org/{name}")));
            assert_eq!(seen, (calls, runs), "{name}: {ended:?}");
            assert_eq!((ended.phase, ended.reason.as_str()), (phase, reason), "{name}: {}", ended.message);
        }
    })
    .await;
}

/// What keeps a deployment from being made, its status and words; first whether that is so though we leave it out.
const HURDLES: [(&str, bool, Option<Hurdle>, u16, &str); 4] = [
    ("unchecked", false, Some(Hurdle::Checks), 201, ""),
    ("checks", true, Some(Hurdle::Checks), 409, "Conflict: Commit status checks failed for c0ffee0"),
    ("conflict", true, Some(Hurdle::Conflict), 409, "Conflict merging main into c0ffee0"),
    ("merges", true, None, 202, "GitHub has merged the default branch into it in place of deploying it"),
];

/// Neither a merge nor checks are asked for; a server that has them all the same is not asked twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_is_not_made_is_a_failure_with_githubs_words() {
    run("github-hurdles", async |test| {
        let fake = FakeGithub::start().await;
        for (name, insists, hurdle, ..) in HURDLES {
            fake.with(|world| {
                world.add(&format!("octo-org/{name}"));
                let repository = world.repositories.get_mut(&format!("octo-org/{name}")).unwrap();
                (repository.insists, repository.hurdle) = (insists, hurdle);
            });
        }
        let operator = Operator::start(test, options(&fake)).await;
        let mut wanted = over_many(&HURDLES.map(|(name, ..)| by_deployment(&fake, name)));
        wanted["spec"]["safety"]["cooldown"] = json!("1h");
        test.apply_policy(&wanted).await;
        for (name, ..) in HURDLES {
            test.wait_known_good("shop", name).await;
            fake.with(|world| world.push(&format!("octo-org/{name}"), "deadbee", 0.6, "success"));
        }
        for (name, _, _, code, words) in HURDLES {
            let ended = test.wait_component_ended(name).await.status.unwrap();
            let rolled_back = code == 201;
            let expected = if rolled_back { (Phase::Succeeded, "Healthy") } else { (Phase::Failed, "Refused") };
            assert_eq!((ended.phase, ended.reason.as_str()), expected, "{name}: {}", ended.message);
            let hosted = ended.progress.unwrap().provider().cloned().unwrap();
            assert_eq!((hosted.status_code, hosted.attempts), (Some(code), 1), "{name}");
            let told = rolled_back || ended.message.contains(&format!("status {code}"));
            assert!(told && ended.message.contains(words), "{name}: {}", ended.message);
            let made = fake.rollbacks(&format!("octo-org/{name}"));
            assert_eq!((fake.calls(&deploy_of(name)), made), (1, usize::from(rolled_back)), "{name}");
        }
        assert_eq!(fake.calls(DEPLOY), HURDLES.len());
        assert_eq!(test.remediations().await.len(), HURDLES.len(), "nothing else was tried");
        test.assert_stand_nowhere(&operator, &[TOKEN]).await;
    })
    .await;
}

fn deploy_of(name: &str) -> String {
    format!("POST /repos/octo-org/{name}/deployments")
}

fn dispatch_of(name: &str) -> String {
    format!("POST /repos/octo-org/{name}/actions/workflows/rollback.yml/dispatches")
}

/// It comes as 403, as a refusal of the token does.
#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_waited_for_and_not_called_a_refusal() {
    run("github-limit", async |test| {
        let fake = FakeGithub::start().await;
        fake.with(|world| world.add("octo-org/shop"));
        fake.fault(DISPATCH, 1, Fault::Limited(4));
        let _operator = Operator::start(test, options(&fake)).await;
        test.apply_policy(&over(&[by_workflow(&fake, "shop")])).await;
        test.wait_known_good("shop", "shop").await;
        fake.with(|world| world.push("octo-org/shop", "deadbee", 0.6, "success"));
        test.wait_rolled_back(1, LONG).await;
        assert_eq!((fake.calls(DISPATCH), fake.dispatched("octo-org/shop")), (2, 1));

        fake.fault("GET /repos/{owner}/{repo}/deployments", 1, Fault::Limited(3600));
        let unknown = test.wait_status("shop", "shop", HealthStatus::Unknown).await;
        let words = ["(RateLimited)", "the rate limit is used up and free again in"];
        assert!(words.iter().all(|words| unknown.message.contains(words)), "{}", unknown.message);
    })
    .await;
}

/// Killed when the call is stored and not sent, and when it is done and not answered.
#[tokio::test(flavor = "multi_thread")]
async fn killed_around_the_call_there_is_one_run() {
    run("github-killed", async |test| {
        let fake = FakeGithub::start().await;
        let good = fake.with(|world| world.add("octo-org/shop"));
        let gate = Gate::start(env("PANACEA_KUBECONFIG").as_ref()).await;
        let mut operator = Operator::start(test, options(&fake).through(gate.kubeconfig())).await;
        test.apply_policy(&over(&[by_workflow(&fake, "shop")])).await;
        test.wait_known_good("shop", "shop").await;

        let stored = |seen: &Seen<'_>| seen.path.ends_with("/status") && seen.body.contains("sentAt");
        let mut held = gate.hold(Side::Answer, stored);
        fake.with(|world| world.push("octo-org/shop", "deadbee", 0.6, "success"));
        held.reached().await;
        operator.kill9();
        drop(held);
        assert_eq!(fake.calls(DISPATCH), 0);
        operator.spawn();
        let healed = test.wait_remediation_within(Phase::Succeeded, LONG).await;
        assert_eq!(
            (fake.calls(DISPATCH), fake.dispatched("octo-org/shop"), fake.serves("octo-org/shop")),
            (1, 1, good.clone())
        );
        assert_eq!(
            healed.status.unwrap().progress.unwrap().provider().cloned().unwrap().attempts,
            2,
            "the first one was not sent"
        );
        test.wait_status("shop", "shop", HealthStatus::Healthy).await;

        fake.fault(DISPATCH, 1, Fault::DoneAndHang);
        fake.with(|world| world.push("octo-org/shop", "deadbee2", 0.6, "success"));
        fake.wait_calls(DISPATCH, 2, LONG).await;
        operator.kill9();
        assert_eq!(test.outcomes().await.last().map(|last| last.1), Some(Phase::Running));
        operator.spawn();
        test.wait_rolled_back(2, LONG).await;
        assert_eq!((fake.calls(DISPATCH), fake.dispatched("octo-org/shop")), (2, 2), "one for each incident");
        assert_eq!(fake.serves("octo-org/shop"), good);
        test.assert_stand_nowhere(&operator, &[TOKEN]).await;
    })
    .await;
}

/// A run that fails; one whose name has no commit; one that waits for an approval; a workflow that is switched off.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_does_not_roll_back_is_reported_with_its_address() {
    run("github-fails", async |test| {
        let fake = FakeGithub::start().await;
        let names = ["fails", "nameless", "reviewed", "disabled"];
        for name in names {
            fake.with(|world| world.add(&format!("octo-org/{name}")));
        }
        let _operator = Operator::start(test, options(&fake)).await;
        let mut wanted = over_many(&names.map(|name| by_workflow(&fake, name)));
        wanted["spec"]["safety"]["cooldown"] = json!("1h");
        test.apply_policy(&wanted).await;
        for name in names {
            test.wait_known_good("shop", name).await;
        }
        fake.with(|world| {
            let mut of = |name: &str| world.repositories.get_mut(&format!("octo-org/{name}")).unwrap().clone();
            for (name, change) in names.map(|name| (name, of(name))) {
                let mut changed = change;
                match name {
                    "fails" => changed.ends = "failure",
                    "nameless" => changed.named = false,
                    "reviewed" => changed.reviewed = true,
                    _ => changed.disabled = true,
                }
                world.repositories.insert(format!("octo-org/{name}"), changed);
                world.push(&format!("octo-org/{name}"), "deadbee", 0.6, "success");
            }
        });
        let message = async |name: &str| {
            let status = test.wait_component_ended(name).await.status.unwrap();
            (status.phase, status.reason, status.message)
        };
        let (phase, reason, words) = message("fails").await;
        assert_eq!((phase, reason.as_str()), (Phase::Failed, "DeployFailed"), "{words}");
        assert!(words.contains("ended as failure (https://github.com/octo-org/fails/actions/runs/"), "{words}");
        let (phase, _, words) = message("nameless").await;
        assert!(phase == Phase::Failed && words.contains("write run-name: Roll back to"), "{words}");
        let blocked = test.wait_remediation_within(Phase::Blocked, LONG).await;
        let words = &blocked.status.as_ref().unwrap().message;
        assert!(
            blocked.spec.plan.component == "disabled" && words.contains("is disabled_manually; enable it"),
            "{words}"
        );

        let waits = test.of_component("reviewed").await.unwrap();
        test.wait_event("PersonNeeded", &waits.name_any(), "an approval is pending: https://github.com/").await;
        fake.with(|world| world.repositories.get_mut("octo-org/reviewed").unwrap().reviewed = false);
        let (phase, _, words) = message("reviewed").await;
        assert_eq!(phase, Phase::Succeeded, "{words}");
        assert_eq!(fake.calls(DISPATCH), 3, "each once");
    })
    .await;
}

/// The call has no response, and somebody dispatches the workflow in the meantime.
#[tokio::test(flavor = "multi_thread")]
async fn a_dispatch_with_an_unknown_outcome_is_left_to_a_person() {
    run("github-unknown", async |test| {
        let fake = FakeGithub::start().await;
        fake.with(|world| world.add("octo-org/shop"));
        let _operator = Operator::start(test, options(&fake)).await;
        let mut wanted = over(&[by_workflow(&fake, "shop")]);
        wanted["spec"]["safety"]["cooldown"] = json!("1h");
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "shop").await;
        fake.fault(DISPATCH, 1, Fault::Hang);
        let bad = fake.with(|world| world.push("octo-org/shop", "deadbee", 0.6, "success"));
        fake.wait_calls(DISPATCH, 1, LONG).await;
        fake.with(|world| world.dispatch("octo-org/shop", &bad));
        let ended = test.wait_remediation_within(Phase::Failed, LONG).await;
        let status = ended.status.as_ref().unwrap();
        assert_eq!(status.reason, "OutcomeUnknown", "{}", status.message);
        for words in ["other runs of the workflow were started since", "check the repository's Actions"] {
            assert!(status.message.contains(words), "{}", status.message);
        }
        test.wait_event("PersonNeeded", &ended.name_any(), "its outcome is unknown").await;
        assert_eq!((fake.calls(DISPATCH), fake.dispatched("octo-org/shop")), (1, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_policy_heals_a_deployment_and_services_of_three_providers_and_watches_a_site() {
    run("github-mixed", async |test| {
        let (github, render, vercel) = tokio::join!(FakeGithub::start(), FakeRender::start(), FakeVercel::start());
        let good = github.with(|world| world.add("octo-org/shop"));
        render.add("srv-checkout", "web_service");
        vercel.with(|world| world.add_project("prj_site", None));
        let live = vercel.live("prj_site");
        let options = options(&github)
            .with("RENDER_BASE_URL", render.url())
            .with("RENDER_API_KEY", API_KEY)
            .with("VERCEL_BASE_URL", vercel.url())
            .with("VERCEL_TOKEN", vercel::TOKEN);
        let operator = Operator::start(test, options).await;
        test.deploy("api", "shop/api:v1", 2).await;
        let measured = json!([{"name": "error_rate",
            "prometheus": {"url": vercel.prometheus(), "query": "prj_site"}}]);
        let http = json!({"url": render.url(), "expectedStatuses": [404]});
        test.apply_policy(&over_many(&[
            by_workflow(&github, "shop"),
            json!({"name": "checkout", "target": {"render": {"serviceId": "srv-checkout"}}}),
            json!({"name": "site", "target": {"vercel": {"projectId": "prj_site"}}, "metrics": measured}),
            json!({"name": "api", "target": {"deployment": {"name": "api"}}}),
            json!({"name": "page", "target": {"http": http}}),
        ]))
        .await;
        for name in ["shop", "checkout", "site", "api"] {
            test.wait_known_good("shop", name).await;
        }
        test.wait_status("shop", "page", HealthStatus::Healthy).await;
        github.with(|world| world.push("octo-org/shop", "deadbee", 0.6, "success"));
        render.with(|world| world.services.get_mut("srv-checkout").unwrap().failing = 0.5);
        vercel.with(|world| world.push("prj_site", "deadbee", 0.6));
        test.release("api", "shop/api:v2-crash").await;
        test.wait_rolled_back(4, LONG).await;
        assert_eq!((github.serves("octo-org/shop"), github.dispatched("octo-org/shop")), (good, 1));
        assert_eq!((render.restarts("srv-checkout"), vercel.live("prj_site")), (1, live));
        assert_eq!(test.image("api").await, "shop/api:v1");
        test.assert_stand_nowhere(&operator, &[TOKEN, API_KEY, vercel::TOKEN]).await;
    })
    .await;
}
