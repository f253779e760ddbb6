//! A rollback of a Rollout is two writes. Wherever the operator dies, each is made once.

use std::time::Duration;

use kube::ResourceExt as _;
use panacea::api::Phase;
use serde_json::json;

use crate::support::{
    cluster::{Test, run},
    gate::{Gate, Side},
    operator::{Operator, Options},
    rollouts::{BAD, Scene, V1, policy_of, rollout},
};

/// When the operator is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// `Running` is in etcd, and nothing was written to the Rollout.
    BeforeAbort,
    /// It is aborted, the operator does not know.
    AfterAbort,
    /// It is aborted, the template is on its way and never arrives.
    BeforeTemplate,
    /// The template is back, the operator does not know.
    AfterTemplate,
}

struct Story<'a> {
    scene: Scene<'a>,
    gate: Gate,
    operator: Operator,
}

impl<'a> Story<'a> {
    /// A bad release, and an operator that dies at that moment.
    async fn begin(test: &'a Test, moment: Moment) -> Self {
        let scene = Scene::new(test).await;
        let gate = Gate::start(&scene.role.kubeconfig()).await;
        let mut operator = Operator::start(test, Options::default().through(gate.kubeconfig())).await;
        test.create_rollout(&rollout(&json!({}))).await;
        test.apply_policy(&policy_of(&json!({}))).await;
        test.wait_known_good("shop", "web").await;
        let side = if moment == Moment::AfterAbort { Side::Answer } else { Side::Request };
        let of_status = matches!(moment, Moment::BeforeAbort | Moment::AfterAbort);
        let mut held =
            gate.hold(side, move |seen| seen.is_rollout_patch() && seen.path.ends_with("/status") == of_status);
        test.release_rollout(BAD).await;
        held.reached().await;
        if moment == Moment::AfterTemplate {
            // The abort makes its controller write as well, so that tries end in conflicts. Until one does not:
            while test.rollout_image().await != V1 {
                let mut next = gate.hold(Side::Answer, |seen| seen.is_rollout_patch());
                held.pass();
                next.reached().await;
                held = next;
            }
        }
        operator.kill9();
        drop(held);
        let phases: Vec<_> = test.remediations().await.into_iter().map(|one| one.status.unwrap().phase).collect();
        assert_eq!(phases, [Phase::Running]);
        let rollout = test.rollout().await;
        let aborted = rollout.data["status"]["abort"] == true;
        assert_eq!(test.rollout_image().await == V1, moment == Moment::AfterTemplate);
        if moment != Moment::AfterTemplate {
            assert_eq!(aborted, moment != Moment::BeforeAbort);
        }
        Self { scene, gate, operator }
    }

    async fn is_done_once(&self) {
        let test = self.scene.test;
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        test.wait_web_pods(V1, 4).await;
        // Not by its generation: its controller writes the spec too.
        test.wait_phase("Healthy").await;
        assert_eq!(test.rollout_image().await, V1);
        assert_eq!(self.scene.wrote(), ["patch rollouts/status 200", "patch rollouts 200"]);
        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        let row = ("automatic_rollback".to_owned(), true, remediation.name_any());
        assert_eq!(self.operator.action_rows().await, [row]);
    }
}

async fn killed(name: &str, moment: Moment) {
    run(name, async |test| {
        let mut story = Story::begin(test, moment).await;
        story.operator.spawn();
        story.operator.wait_ready().await;
        story.is_done_once().await;
        drop(story.gate);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_abort_it_aborts_and_undoes_once() {
    killed("ro-kill-abort", Moment::BeforeAbort).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_abort_it_does_not_abort_again() {
    killed("ro-kill-aborted", Moment::AfterAbort).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_abort_and_the_undo_it_undoes_once() {
    killed("ro-kill-undo", Moment::BeforeTemplate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_undo_it_does_not_undo_again() {
    killed("ro-kill-undone", Moment::AfterTemplate).await;
}

/// Half of it is worse than all of it: a started action is finished, although nobody wants it any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_aborted_is_undone_also_when_the_policy_does_not_want_it_any_more() {
    run("ro-kill-half", async |test| {
        let mut story = Story::begin(test, Moment::BeforeTemplate).await;
        test.patch_policy("shop", json!({"spec": {"mode": "Observe"}})).await;
        story.operator.spawn();
        story.operator.wait_ready().await;
        story.is_done_once().await;
    })
    .await;
}
