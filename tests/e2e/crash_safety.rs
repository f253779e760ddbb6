//! Whatever dies, and whenever: exactly one action, one set of rows, and the right end.

use std::{path::PathBuf, time::Duration};

use kube::{Api, ResourceExt as _};
use panacea::api::{Phase, Remediation};
use serde_json::{Value, json};

use crate::support::{
    apiserver::SecondApiServer,
    audit::OPERATOR,
    cluster::{Test, cluster_dir, env, run},
    gate::{Gate, Side},
    objects::policy,
    operator::{Operator, Options},
    traffic::Traffic,
    wait,
};

/// What Panacea does about what the test breaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Rollback,
    Restart,
}

/// When the operator is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The Remediation is in etcd, the operator does not know yet, and nobody has set its status.
    Created,
    /// `Running` is in etcd, the PATCH of the Deployment is on its way and never arrives.
    BeforePatch,
    /// The Deployment is patched, the operator does not know, and the status still says `Running`.
    AfterPatch,
    Verifying,
}

/// A Deployment, its policy and an operator that talks through a door.
struct Scene<'a> {
    test: &'a Test,
    action: Action,
    operator: Operator,
    gate: Gate,
    traffic: Option<Traffic>,
}

impl<'a> Scene<'a> {
    async fn start(test: &'a Test, action: Action, kubeconfig: PathBuf, patch: &Value) -> Self {
        test.deploy("api", "shop/api:v1", 3).await;
        let mut wanted = policy("shop", &["api"], patch);
        let traffic = match action {
            Action::Rollback => None,
            Action::Restart => {
                test.wait_rolled_out("api").await;
                let traffic = Traffic::start(test, "api").await;
                traffic.set("share_failed", 0.0);
                let query = traffic.gauge_query("share_failed");
                wanted["spec"]["components"][0]["metrics"] =
                    json!([{"name": "error_rate", "prometheus": {"query": query}}]);
                Some(traffic)
            }
        };
        let gate = Gate::start(&kubeconfig).await;
        let options = Options::default().through(gate.kubeconfig());
        let operator = Operator::start(test, options).await;
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "api").await;
        assert_eq!(test.generation("api").await, 1);
        Self { test, action, operator, gate, traffic }
    }

    async fn break_it(&self) {
        match &self.traffic {
            None => drop(self.test.release("api", "shop/api:v2-crash").await),
            Some(traffic) => traffic.set("share_failed", 0.5),
        }
    }

    /// The Deployment's generation before and after Panacea's one write.
    fn generations(&self) -> (i64, i64) {
        if self.action == Action::Rollback { (2, 3) } else { (1, 2) }
    }

    async fn kill_at(&mut self, moment: Moment) {
        let (before, after) = self.generations();
        let held = match moment {
            Moment::Created => Some(self.gate.hold(Side::Answer, |seen| seen.is_remediation_post())),
            Moment::BeforePatch => Some(self.gate.hold(Side::Request, |seen| seen.is_deployment_patch())),
            Moment::AfterPatch => Some(self.gate.hold(Side::Answer, |seen| seen.is_deployment_patch())),
            Moment::Verifying => None,
        };
        self.break_it().await;
        match held {
            Some(mut held) => {
                held.reached().await;
                self.operator.kill9();
                // The remediation controller sees a new one by its watch, and may have begun by then.
                if moment != Moment::Created {
                    self.assert_phase(Phase::Running).await;
                }
            }
            None => {
                self.test.wait_remediation(Phase::Verifying).await;
                self.operator.kill9();
                self.assert_phase(Phase::Verifying).await;
            }
        }
        let expected = if matches!(moment, Moment::Created | Moment::BeforePatch) { before } else { after };
        assert_eq!(self.test.generation("api").await, expected, "at the moment of the kill");
        assert_eq!(self.test.remediations().await.len(), 1);
    }

    async fn assert_phase(&self, phase: Phase) {
        let all = self.test.remediations().await;
        let found: Vec<Option<Phase>> = all.iter().map(|one| one.status.as_ref().map(|status| status.phase)).collect();
        assert_eq!(found, [Some(phase)]);
    }

    /// Waits for the end and checks that everything was done once, by the log of the operator's API server as well.
    async fn assert_done_once(&self, audit_log: PathBuf) {
        let (_, after) = self.generations();
        wait::until("the one write", Duration::from_secs(60), async || {
            let generation = self.test.generation("api").await;
            if generation >= after { Ok(()) } else { Err(format!("generation {generation}")) }
        })
        .await;
        if let Some(traffic) = &self.traffic {
            traffic.set("share_failed", 0.0);
        }
        let name = self.test.wait_remediation(Phase::Succeeded).await.name_any();
        let remediation = self.test.wait_recorded(&name, Duration::from_secs(30)).await;
        // Long enough for a second action, if one were to come.
        self.operator.wait_checks(3).await;
        let remediations: Api<Remediation> = self.test.api();
        let finalizers = remediations.get(&name).await.unwrap().metadata.finalizers;
        assert_eq!(finalizers, None, "let go once it is in the ledger");
        assert_eq!(self.test.generation("api").await, after, "exactly one write of the template");
        assert_eq!(self.test.image("api").await, "shop/api:v1");
        assert_eq!(self.test.remediations().await.len(), 1);
        let (row, rollbacks) = match self.action {
            Action::Rollback => ("automatic_rollback", 1),
            Action::Restart => ("service_restart", 0),
        };
        assert_eq!(self.operator.action_rows().await, [(row.to_owned(), true, name.clone())]);
        assert_eq!(self.operator.count("SELECT count(*) FROM ai_rollback_history").await, rollbacks);
        let status = remediation.status.unwrap();
        assert!(status.started_at <= status.executed_at && status.executed_at <= status.finished_at, "{status:?}");
        let mut writes = self.test.writes_in(&audit_log);
        writes.retain(|write| write.user == OPERATOR && write.resource == "deployments" && write.code == 200);
        assert_eq!(writes.len(), 1, "{writes:?}");
    }
}

async fn killed(name: &str, action: Action, moment: Moment) {
    run(name, async |test| {
        let kubeconfig = cluster_dir().join("operator.kubeconfig");
        let mut scene = Scene::start(test, action, kubeconfig, &json!({})).await;
        scene.kill_at(moment).await;
        scene.operator.spawn();
        scene.operator.wait_ready().await;
        scene.assert_done_once(env("AUDIT_LOG").into()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_remediation_is_created_it_rolls_back_once() {
    killed("kill-created", Action::Rollback, Moment::Created).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_patch_it_rolls_back_once() {
    killed("kill-before", Action::Rollback, Moment::BeforePatch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_patch_it_does_not_roll_back_again() {
    killed("kill-after", Action::Rollback, Moment::AfterPatch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_verifying_a_rollback_it_continues_to_verify() {
    killed("kill-verify", Action::Rollback, Moment::Verifying).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_remediation_is_created_it_restarts_once() {
    killed("kill-created-restart", Action::Restart, Moment::Created).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_patch_it_restarts_once() {
    killed("kill-before-restart", Action::Restart, Moment::BeforePatch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_patch_it_does_not_restart_again() {
    killed("kill-after-restart", Action::Restart, Moment::AfterPatch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_verifying_a_restart_it_continues_to_verify() {
    killed("kill-verify-restart", Action::Restart, Moment::Verifying).await;
}

/// Stops the API server for 20 s; the operator lives through it. `generation`: of the Deployment in that time.
async fn outage(scene: &mut Scene<'_>, server: &SecondApiServer, phase: Phase, generation: i64) {
    let pid = scene.operator.pid();
    wait::throughout("nothing else happens and the operator lives", Duration::from_secs(20), async || {
        let now = scene.test.generation("api").await;
        let lives = scene.operator.is_running();
        if lives && now == generation { Ok(()) } else { Err(format!("lives: {lives}, generation {now}")) }
    })
    .await;
    scene.assert_phase(phase).await;
    server.start_again().await;
    assert_eq!(scene.operator.pid(), pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_unreachable_just_before_the_patch_delays_the_rollback() {
    run("away-running", async |test| {
        let server = SecondApiServer::start(&test.namespace).await;
        let mut scene = Scene::start(test, Action::Rollback, server.operator_kubeconfig(), &json!({})).await;
        let mut held = scene.gate.hold(Side::Request, |seen| seen.is_deployment_patch());
        scene.break_it().await;
        held.reached().await;
        server.stop().await;
        held.pass();
        outage(&mut scene, &server, Phase::Running, 2).await;
        scene.assert_done_once(server.audit_log()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_unreachable_while_verifying_changes_nothing() {
    run("away-verifying", async |test| {
        let server = SecondApiServer::start(&test.namespace).await;
        let patch = json!({"spec": {"verification": {"stabilization": "8s"}}});
        let mut scene = Scene::start(test, Action::Rollback, server.operator_kubeconfig(), &patch).await;
        scene.break_it().await;
        test.wait_remediation(Phase::Verifying).await;
        server.stop().await;
        outage(&mut scene, &server, Phase::Verifying, 3).await;
        scene.assert_done_once(server.audit_log()).await;
    })
    .await;
}
