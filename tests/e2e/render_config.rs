//! Environment variables of services that Render hosts are put back, by a deploy, and their values are seen nowhere.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    ResourceExt as _,
    api::{ListParams, PostParams},
};
use panacea::api::{ActionKind, Cause, ComponentStatus, ConfigKind, HealthStatus, Phase, Remediation};
use serde_json::{Value, json};

use crate::support::{
    cluster::{Test, run},
    door::Fault,
    gate::{Gate, Seen, Side},
    objects::over,
    operator::{Operator, Options},
    render::{API_KEY, FakeRender},
    role::Role,
    wait,
};

const LONG: Duration = Duration::from_secs(150);
/// Distinguished from all other texts by its beginning.
const GOOD: &str = "PANACEA-s3cr3t-good";
const BAD: &str = "PANACEA-s3cr3t-bad";
const PUT: &str = "PUT /services/{id}/env-vars/{key}";
const DELETE: &str = "DELETE /services/{id}/env-vars/{key}";
const DEPLOY: &str = "POST /services/{id}/deploys";

fn component() -> Value {
    json!({"name": "shop", "target": {"render": {"serviceId": "srv-shop"}}, "remedies": [
        {"action": "Rollback", "for": ["ReleaseRegression"]},
        {"action": "RollbackConfig", "for": ["ConfigRegression"]},
        {"action": "Restart", "for": ["Crash", "Errors"]},
    ]})
}

/// More variables than a page holds, one of which breaks the service when it is `BAD`.
fn env() -> BTreeMap<String, String> {
    let many = (0..130).map(|number| (format!("OTHER_{number:03}"), format!("PANACEA-s3cr3t-{number}")));
    many.chain([("MODE".to_owned(), GOOD.to_owned()), ("OLD".to_owned(), GOOD.to_owned())]).collect()
}

fn shop(fake: &FakeRender) {
    fake.with(|world| {
        world.add_service("srv-shop", "web_service");
        let service = world.services.get_mut("srv-shop").unwrap();
        (service.env, service.bad_env) = (env(), Some(("MODE".into(), BAD.into())));
        service.deploys.iter_mut().for_each(|deploy| deploy.env = env());
    });
}

/// One is changed, one is taken away, one is new.
fn change(fake: &FakeRender) {
    fake.with(|world| {
        let env = &mut world.services.get_mut("srv-shop").unwrap().env;
        env.insert("MODE".into(), BAD.into());
        env.insert("EXTRA".into(), BAD.into());
        env.remove("OLD");
    });
}

/// The same commit once more, as the dashboard's "Save and deploy" does.
fn deploy(fake: &FakeRender) -> String {
    fake.with(|world| world.deploy("srv-shop", "c0ffee0", "manual", 0.0))
}

fn set_env(fake: &FakeRender) -> BTreeMap<String, String> {
    fake.with(|world| world.services["srv-shop"].env.clone())
}

fn live_env(fake: &FakeRender) -> BTreeMap<String, String> {
    fake.with(|world| world.services["srv-shop"].live().unwrap().env.clone())
}

fn digest(status: &ComponentStatus) -> Option<String> {
    status.config.as_ref().map(|config| config.objects[0].digest.clone())
}

struct Setting {
    fake: FakeRender,
    role: Role,
}

impl Setting {
    async fn new(test: &Test) -> Self {
        let fake = FakeRender::start().await;
        shop(&fake);
        Self { fake, role: Role::with(test, &["rbac.rollbackSecrets=true"]).await }
    }

    fn options(&self) -> Options {
        let options = Options::default().with("RENDER_BASE_URL", self.fake.url()).with("RENDER_API_KEY", API_KEY);
        options.with("PANACEA_LOG", "debug").through(self.role.kubeconfig())
    }
}

impl Test {
    async fn wait_env_kept(&self) -> ComponentStatus {
        self.wait_component("shop", "shop", "to have its state kept", |status| status.snapshots.len() == 1).await
    }

    async fn env_copies(&self) -> Vec<Secret> {
        self.api::<Secret>().list(&ListParams::default().labels("panacea.dev/policy")).await.unwrap().items
    }

    /// Neither in what the operator says, nor in what it writes.
    async fn shows_no_values(&self, operator: &Operator) {
        self.assert_stand_nowhere(operator, &[API_KEY, "s3cr3t"]).await;
        let history = operator.text("SELECT coalesce(string_agg(r::text, ' '), '') FROM ai_rollback_history r").await;
        let kinds = "events,healingpolicies,remediations,controllerrevisions,configmaps";
        for text in [history, self.kubectl_succeeds(&["get", kinds, "-o", "json"]).await] {
            assert!(text.len() > 100 && !text.contains("s3cr3t"), "{text}");
        }
    }
}

fn ended(remediation: &Remediation) -> (Phase, &str) {
    let status = remediation.status.as_ref().unwrap();
    (status.phase, status.reason.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_environment_variables_are_put_back_by_a_deploy_and_their_values_are_seen_nowhere() {
    run("render-env", async |test| {
        let setting = Setting::new(test).await;
        let fake = &setting.fake;
        let operator = Operator::start(test, setting.options()).await;
        test.apply_policy(&over(&[component()])).await;
        let first = test.wait_env_kept().await;
        let config = first.config.clone().unwrap();
        assert_eq!((config.objects[0].kind, config.objects[0].name.as_str()), (ConfigKind::EnvVars, "srv-shop"));
        assert_eq!(first.release.as_ref().unwrap().digest, "c0ffee0", "what is released is the code alone");
        let copies = test.env_copies().await;
        assert_eq!(copies.iter().map(|copy| copy.name_any()).collect::<Vec<_>>(), [first.snapshots[0].name.clone()]);
        assert_eq!((copies[0].immutable, copies[0].owner_references()[0].kind.as_str()), (Some(true), "HealingPolicy"));
        let held = &copies[0].data.as_ref().unwrap()["envVars"].0;
        assert_eq!(serde_json::from_slice::<BTreeMap<String, String>>(held).unwrap(), env(), "of all pages");
        let read = fake.calls("GET /services/srv-shop/env-vars");

        // Not in effect before a deploy: neither bad nor good.
        change(fake);
        wait::throughout("nothing is said of what does not run", Duration::from_secs(5), async || {
            let now = test.component("shop", "shop").await.unwrap();
            if digest(&now) == digest(&first) && now.snapshots.len() == 1 { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
        assert_eq!(fake.calls("GET /services/srv-shop/env-vars"), read, "read once a deploy");

        let bad = deploy(fake);
        let healed = test.wait_remediation_within(Phase::Succeeded, LONG).await;
        assert_eq!(
            (healed.spec.plan.action, healed.spec.plan.cause),
            (ActionKind::RollbackConfig, Cause::ConfigRegression)
        );
        assert!(healed.spec.plan.why.contains("after a change of EnvVars/srv-shop"), "{}", healed.spec.plan.why);
        assert_eq!(healed.spec.plan.release.as_ref().map(|from| &from.hash), Some(&bad));
        assert_eq!((set_env(fake), live_env(fake)), (env(), env()));
        let calls = [PUT, DELETE, "PUT /services/{id}/env-vars", DEPLOY, "POST /services/{id}/rollback"];
        assert_eq!(calls.map(|call| fake.calls(call)), [2, 1, 0, 1, 0], "what is the same is not touched");
        let status = healed.status.clone().unwrap().progress.unwrap().provider().cloned().unwrap();
        assert_eq!(status.env_vars, ["MODE", "OLD", "EXTRA"]);
        let live = fake.with(|world| world.services["srv-shop"].live().unwrap().clone());
        assert_eq!((live.commit.as_str(), live.trigger.as_str()), ("c0ffee0", "api"));
        assert_eq!((status.deploy, status.attempts, status.status_code), (Some(live.id), 1, Some(201)));
        assert_eq!((fake.restarts("srv-shop"), fake.refused_by_limit()), (0, 0));
        test.wait_event("Acting", &healed.name_any(), "setting MODE, OLD; removing EXTRA").await;

        // The state is the one of before, and there is no other.
        let again = test.wait_known_good("shop", "shop").await;
        assert_eq!((digest(&again), again.snapshots.len()), (digest(&first), 1));
        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("automatic_rollback".to_owned(), true, healed.name_any())]);
        let told = "SELECT count(*) FROM ai_rollback_history WHERE rollback_type = 'config' AND success \
                    AND from_state ? 'EnvVars/srv-shop' AND from_state <> to_state";
        assert_eq!(operator.count(told).await, 1);
        test.shows_no_values(&operator).await;

        // A commit that turns it bad is still a matter of the release.
        fake.push("srv-shop", "deadbee", 0.6).expect("auto-deploy is on");
        let back = wait::until("the release to be rolled back", LONG, async || {
            let all = test.remediations().await;
            let done = |one: &&Remediation| {
                let over = one.status.as_ref().is_some_and(|status| status.phase.is_final());
                one.spec.plan.action == ActionKind::Rollback && over
            };
            all.iter().find(done).cloned().ok_or_else(|| format!("{:?}", all.last().map(|one| &one.status)))
        })
        .await;
        assert_eq!(ended(&back), (Phase::Succeeded, "Healthy"));
        assert_eq!(fake.calls(DEPLOY), 1);
    })
    .await;
}

/// Killed when the names are stored and nothing is set, between setting and deploying, and when the deploy is made and not
/// answered.
#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_on_the_way_there_is_one_deploy() {
    run("render-env-killed", async |test| {
        let setting = Setting::new(test).await;
        let fake = &setting.fake;
        let gate = Gate::start(&setting.role.kubeconfig()).await;
        let mut operator = Operator::start(test, setting.options().through(gate.kubeconfig())).await;
        test.apply_policy(&over(&[component()])).await;
        test.wait_env_kept().await;

        let stored =
            |word: &'static str| move |seen: &Seen<'_>| seen.path.ends_with("/status") && seen.body.contains(word);
        let mut held = gate.hold(Side::Answer, stored("envVars"));
        change(fake);
        deploy(fake);
        held.reached().await;
        operator.kill9();
        drop(held);
        assert_eq!((fake.calls(PUT), fake.calls(DEPLOY)), (0, 0));
        let mut held = gate.hold(Side::Answer, stored("sentAt"));
        operator.spawn();
        held.reached().await;
        operator.kill9();
        drop(held);
        assert_eq!((fake.calls(PUT), fake.calls(DELETE), fake.calls(DEPLOY)), (2, 1, 0));
        assert_eq!(set_env(fake), env());
        fake.fault("POST /services/srv-shop/deploys", 1, Fault::DoneAndHang);
        operator.spawn();
        fake.wait_calls(DEPLOY, 1, LONG).await;
        operator.kill9();
        operator.spawn();
        let healed = test.wait_remediation_within(Phase::Succeeded, LONG).await;
        assert_eq!(healed.spec.plan.action, ActionKind::RollbackConfig);
        assert_eq!((fake.calls(PUT), fake.calls(DELETE), fake.calls(DEPLOY)), (2, 1, 1), "nothing twice");
        let made = fake.with(|world| {
            let deploys = world.services["srv-shop"].deploys.iter();
            deploys.filter(|deploy| deploy.trigger == "api").count()
        });
        assert_eq!((made, live_env(fake)), (1, env()));
        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        test.shows_no_values(&operator).await;
    })
    .await;
}

/// What Render does, how it ends, which words say so, how many were set and how many deploys were asked for.
async fn ends(
    name: &str,
    trouble: impl FnOnce(&FakeRender),
    (reason, words): (&str, &[&str]),
    (set, deploys): (usize, usize),
) {
    run(name, async |test| {
        let setting = Setting::new(test).await;
        let fake = &setting.fake;
        let operator = Operator::start(test, setting.options()).await;
        let mut wanted = over(&[component()]);
        wanted["spec"]["safety"]["cooldown"] = json!("1h");
        test.apply_policy(&wanted).await;
        test.wait_env_kept().await;
        change(fake);
        trouble(fake);
        deploy(fake);
        let failed = test.wait_component_ended("shop").await;
        let status = failed.status.as_ref().unwrap();
        assert_eq!(failed.spec.plan.action, ActionKind::RollbackConfig);
        assert_eq!(ended(&failed), (Phase::Failed, reason), "{}", status.message);
        for word in words {
            assert!(status.message.contains(word), "{word}: {}", status.message);
        }
        assert_eq!((fake.calls(PUT), fake.calls(DEPLOY)), (set, deploys));
        test.wait_recorded(&failed.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("rollback_failed".to_owned(), false, failed.name_any())]);
        test.shows_no_values(&operator).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_that_does_not_go_live_is_a_failure_with_its_status() {
    let trouble = |fake: &FakeRender| {
        fake.with(|world| world.services.get_mut("srv-shop").unwrap().deploys_end = Some("build_failed"));
    };
    let words = ["ended as build_failed", "MODE, OLD, EXTRA are restored"];
    ends("render-env-build", trouble, ("DeployFailed", &words), (2, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_set_is_a_failure_and_nothing_is_deployed() {
    let trouble = |fake: &FakeRender| fake.fault("PUT /services/srv-shop/env-vars/MODE", 100, Fault::Status(403));
    let words = ["set the environment variable MODE of srv-shop", "nothing was deployed"];
    ends("render-env-403", trouble, ("CredentialsRefused", &words), (1, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_set_for_a_while_is_set_then() {
    run("render-env-503", async |test| {
        let setting = Setting::new(test).await;
        let fake = &setting.fake;
        let _operator = Operator::start(test, setting.options()).await;
        test.apply_policy(&over(&[component()])).await;
        test.wait_env_kept().await;
        fake.fault("PUT /services/srv-shop/env-vars/MODE", 4, Fault::DoneAndStatus(503));
        change(fake);
        deploy(fake);
        let healed = test.wait_remediation_within(Phase::Succeeded, LONG).await;
        assert_eq!(healed.spec.plan.action, ActionKind::RollbackConfig);
        assert_eq!((fake.calls(DEPLOY), live_env(fake)), (1, env()));
    })
    .await;
}

/// They were changed once more after the assessed deploy: nobody has observed the new values.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_has_changed_since_is_left_to_them() {
    run("render-env-drift", async |test| {
        let setting = Setting::new(test).await;
        let fake = &setting.fake;
        let _operator = Operator::start(test, setting.options()).await;
        let mut wanted = over(&[component()]);
        wanted["spec"]["safety"]["cooldown"] = json!("1h");
        wanted["spec"]["mode"] = json!("Approve");
        test.apply_policy(&wanted).await;
        test.wait_env_kept().await;
        change(fake);
        deploy(fake);
        let waiting = test.wait_remediation_within(Phase::AwaitingApproval, LONG).await;
        fake.with(|world| {
            world.services.get_mut("srv-shop").unwrap().env.insert("MODE".into(), "PANACEA-s3cr3t-third".into());
        });
        test.approve(&waiting.name_any()).await;
        let failed = test.wait_component_ended("shop").await;
        assert_eq!(ended(&failed), (Phase::Failed, "Superseded"), "{:?}", failed.status);
        assert_eq!((fake.calls(PUT), fake.calls(DELETE), fake.calls(DEPLOY)), (0, 0, 0));
        assert_eq!(set_env(fake)["MODE"], "PANACEA-s3cr3t-third");
    })
    .await;
}

impl Test {
    /// They are good and kept, in the Secret of this name; a person decides about what is done.
    async fn wait_kept_with(&self, remedies: &Value) -> String {
        let mut wanted = over(&[component()]);
        wanted["spec"]["components"][0]["remedies"] = remedies.clone();
        wanted["spec"]["mode"] = json!("Approve");
        self.apply_policy(&wanted).await;
        self.wait_env_kept().await.snapshots.remove(0).name
    }

    /// No call changes anything at Render, and nobody is asked to approve one.
    async fn blocked_with(&self, fake: &FakeRender, reason: &str, words: &str) -> String {
        let blocked = self.wait_remediation_within(Phase::Blocked, LONG).await;
        let (name, status) = (blocked.name_any(), blocked.status.unwrap());
        assert_eq!((blocked.spec.plan.action, status.reason.as_str()), (ActionKind::RollbackConfig, reason));
        assert!(status.message.contains(words), "{}", status.message);
        self.wait_event("Blocked", &name, words).await;
        assert_eq!(self.events("AwaitingApproval", &name).await, [""; 0]);
        assert_eq!([PUT, DELETE, DEPLOY].map(|call| fake.calls(call)), [0; 3]);
        name
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_while_the_copy_is_gone() {
    run("render-env-gone", async |test| {
        let setting = Setting::new(test).await;
        let fake = &setting.fake;
        let operator = Operator::start(test, setting.options()).await;
        let kept = test.wait_kept_with(&json!([{"action": "RollbackConfig", "for": ["ConfigRegression"]}])).await;
        let copy: Secret = test.take_away(&kept).await;
        change(fake);
        deploy(fake);
        let name = test.blocked_with(fake, "TargetGone", &format!("Secret {kept} does not exist")).await;
        // There is no other remedy, so it stays.
        let stays = async || {
            let phases: Vec<Phase> = test.outcomes().await.iter().map(|outcome| outcome.1).collect();
            if phases == [Phase::Blocked] { Ok(()) } else { Err(format!("{phases:?}")) }
        };
        wait::throughout("it stays Blocked", Duration::from_secs(12), stays).await;

        test.api().create(&PostParams::default(), &copy).await.unwrap();
        assert_eq!(test.wait_remediation_within(Phase::AwaitingApproval, LONG).await.name_any(), name);
        test.approve(&name).await;
        test.wait_remediation_within(Phase::Succeeded, LONG).await;
        assert_eq!(([PUT, DELETE, DEPLOY].map(|call| fake.calls(call)), live_env(fake)), ([2, 1, 1], env()));
        test.shows_no_values(&operator).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_when_more_differ_than_are_put_back() {
    run("render-env-many", async |test| {
        let setting = Setting::new(test).await;
        let fake = &setting.fake;
        let operator = Operator::start(test, setting.options()).await;
        test.wait_kept_with(&json!([{"action": "RollbackConfig", "for": ["ConfigRegression"]}])).await;
        fake.with(|world| {
            world.services.get_mut("srv-shop").unwrap().env.retain(|name, _| !name.starts_with("OTHER_"))
        });
        change(fake);
        deploy(fake);
        test.blocked_with(fake, "BadRemedy", "133 environment variables differ, more than the 100").await;
        test.assert_stand_nowhere(&operator, &[API_KEY, "s3cr3t"]).await;
    })
    .await;
}

/// Somebody has made a Secret of the copy's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_holds_something_else_is_not_put_back_and_the_next_remedy_is_asked_for() {
    run("render-env-other", async |test| {
        let setting = Setting::new(test).await;
        let fake = &setting.fake;
        let operator = Operator::start(test, setting.options()).await;
        let remedies =
            ["RollbackConfig", "Restart"].map(|action| json!({"action": action, "for": ["ConfigRegression"]}));
        let kept = test.wait_kept_with(&json!(remedies)).await;
        let mut copy: Secret = test.take_away(&kept).await;
        let other = ByteString(json!({"MODE": "PANACEA-s3cr3t-other"}).to_string().into_bytes());
        copy.data = Some([("envVars".to_owned(), other)].into());
        test.api().create(&PostParams::default(), &copy).await.unwrap();
        change(fake);
        deploy(fake);
        test.blocked_with(fake, "TargetGone", &format!("Secret {kept} holds other environment variables")).await;
        let next = test.wait_remediation_within(Phase::AwaitingApproval, LONG).await;
        assert_eq!(next.spec.plan.action, ActionKind::Restart);
        let (first, phase, reason) = test.outcomes().await.remove(0);
        assert_eq!((first, phase, reason.as_str()), (ActionKind::RollbackConfig, Phase::Expired, "TargetGone"));
        assert_eq!([PUT, DELETE, DEPLOY].map(|call| fake.calls(call)), [0; 3]);
        test.assert_stand_nowhere(&operator, &[API_KEY, "s3cr3t"]).await;
    })
    .await;
}

/// The call hangs and is not done, and then somebody deploys another commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_with_an_unknown_outcome_is_left_to_a_person() {
    run("render-env-unknown", async |test| {
        let setting = Setting::new(test).await;
        let fake = &setting.fake;
        let _operator = Operator::start(test, setting.options()).await;
        let mut wanted = over(&[component()]);
        wanted["spec"]["safety"]["cooldown"] = json!("1h");
        test.apply_policy(&wanted).await;
        test.wait_env_kept().await;
        fake.fault("POST /services/srv-shop/deploys", 1, Fault::Hang);
        change(fake);
        deploy(fake);
        fake.wait_calls(DEPLOY, 1, LONG).await;
        fake.with(|world| world.deploy("srv-shop", "deadbee2", "manual", 0.6));
        let failed = test.wait_component_ended("shop").await;
        assert_eq!(ended(&failed), (Phase::Failed, "OutcomeUnknown"), "{:?}", failed.status);
        test.wait_event("PersonNeeded", &failed.name_any(), "its outcome is unknown").await;
        assert_eq!(fake.calls(DEPLOY), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_keep_copies_it_says_which_value_of_the_chart_gives_it() {
    run("render-env-role", async |test| {
        let fake = FakeRender::start().await;
        shop(&fake);
        let role = Role::with(test, &[]).await;
        let options = Options::default().with("RENDER_BASE_URL", fake.url()).with("RENDER_API_KEY", API_KEY);
        let _operator = Operator::start(test, options.through(role.kubeconfig())).await;
        test.deploy("api", "shop/api:v1", 1).await;
        let api = json!({"name": "api", "target": {"deployment": {"name": "api"}}});
        test.apply_policy(&over(&[component(), api.clone()])).await;
        let (reason, words) = test.wait_condition("shop", "Ready", "False", Duration::from_secs(30)).await;
        assert_eq!(reason, "Forbidden");
        assert!(words.contains("rbac.rollbackSecrets") && words.contains("srv-shop"), "{words}");
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
        assert_eq!(fake.calls("GET /services/{id}/env-vars"), 0, "what cannot be kept is not read");

        // Without the remedy it is checked as before.
        let mut without = component();
        without["remedies"].as_array_mut().unwrap().retain(|remedy| remedy["action"] != "RollbackConfig");
        test.replace_policy(&over(&[without, api])).await;
        let good = test.wait_known_good("shop", "shop").await;
        let release = good.release.unwrap();
        assert_eq!(release.digest, release.hash);
        assert!(good.config.is_none());
    })
    .await;
}

/// A commit and a variable turned it bad together. A rollback alone would last until the next deploy, which would have the bad
/// variable again. Killed between the two halves of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_commit_with_bad_variables_is_rolled_back_as_a_whole() {
    run("render-state", async |test| {
        let setting = Setting::new(test).await;
        let fake = &setting.fake;
        let gate = Gate::start(&setting.role.kubeconfig()).await;
        let mut operator = Operator::start(test, setting.options().through(gate.kubeconfig())).await;
        let mut both = component();
        let whole = json!({"action": "RollbackState", "for": ["ReleaseRegression", "ConfigRegression"]});
        both["remedies"].as_array_mut().unwrap().insert(2, whole);
        test.apply_policy(&over(&[both])).await;
        let first = test.wait_env_kept().await;
        let good = first.release.clone().unwrap();

        let sent = |seen: &Seen<'_>| seen.path.ends_with("/status") && seen.body.contains("sentAt");
        let mut held = gate.hold(Side::Answer, sent);
        change(fake);
        let bad = fake.push("srv-shop", "deadbee", 0.6).expect("auto-deploy is on");
        held.reached().await;
        operator.kill9();
        drop(held);
        assert_eq!((set_env(fake), fake.calls("POST /services/{id}/rollback")), (env(), 0));
        operator.spawn();
        let healed = test.wait_remediation_within(Phase::Succeeded, LONG).await;
        assert_eq!(
            (healed.spec.plan.action, healed.spec.plan.cause),
            (ActionKind::RollbackState, Cause::ReleaseRegression)
        );
        assert_eq!(healed.spec.plan.release.as_ref().map(|from| &from.hash), Some(&bad));
        assert_eq!(healed.spec.plan.intent.template().map(|to| &to.hash), Some(&good.hash));
        assert_eq!((set_env(fake), live_env(fake)), (env(), env()));
        let calls = [PUT, DELETE, "POST /services/{id}/rollback", DEPLOY];
        assert_eq!(calls.map(|call| fake.calls(call)), [2, 1, 1, 0]);
        let status = healed.status.clone().unwrap().progress.unwrap().provider().cloned().unwrap();
        assert_eq!((status.auto_deploy_was.as_deref(), status.attempts), (Some("commit"), 2), "the first was not sent");
        test.wait_event("AutoDeployOff", &healed.name_any(), "switch it on again").await;
        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        let told = "SELECT count(*) FROM ai_rollback_history WHERE rollback_type = 'previous_state' AND success \
                    AND from_state->'config' ? 'EnvVars/srv-shop'";
        assert_eq!(operator.count(told).await, 1);
        test.shows_no_values(&operator).await;

        // The next ordinary deploy has the good variables.
        fake.with(|world| world.deploy("srv-shop", "f00df00", "manual", 0.0));
        let next = test
            .wait_component("shop", "shop", "to run the next commit", |status| {
                status.release.as_ref().is_some_and(|release| release.digest == "f00df00" && release.seen_healthy)
            })
            .await;
        assert_eq!((digest(&next), live_env(fake)), (digest(&first), env()));
        assert_eq!(test.remediations().await.len(), 1);
    })
    .await;
}
