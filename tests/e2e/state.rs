//! The whole last known good state is put back from its copy, also when the workload's own history is gone.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet},
    autoscaling::v2::HorizontalPodAutoscaler,
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use panacea::api::{ActionKind, Phase};
use serde_json::{Value, json};

use crate::{
    config::{Way, content, deploy, during, map},
    support::{
        cluster::{Test, env, run},
        gate::{Gate, Side},
        objects::policy,
        operator::{Operator, Options},
        wait,
    },
    workloads::{BAD, PODS, V1, image, policy_of, stateful_set},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_and_configuration_that_are_both_bad_are_rolled_back_together() {
    run("state", async |test| {
        deploy(test, Way::Mounted).await;
        let operator = test.watched(Options::default()).await;
        let remediation = during(test, Way::Mounted, async {
            test.change_map("app", json!({"mode": "bad"})).await;
            test.release("api", "shop/api:v2-crash").await;
            test.wait_remediation(Phase::Succeeded).await
        })
        .await;
        assert_eq!(remediation.spec.plan.action, ActionKind::RollbackState, "{:?}", test.remediations().await);
        assert_eq!(test.image("api").await, "shop/api:v1");
        assert_eq!(content(&test.map("app").await), content(&map("app", "good")));
        assert_eq!(
            (test.wrote("configmaps"), test.wrote("deployments")),
            (vec!["patch app".into()], vec!["patch api".into()])
        );
        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        let told = "SELECT count(*) FROM ai_rollback_history WHERE rollback_type = 'previous_state' AND success \
                    AND from_state->'template' <> to_state->'template' AND to_state->'config' ? 'ConfigMap/app'";
        assert_eq!(operator.count(told).await, 1);
    })
    .await;
}

/// A ladder of the whole state alone, which waits for a person.
fn asking() -> Value {
    let mut wanted = policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}));
    wanted["spec"]["components"][0]["remedies"] = json!([{"action": "RollbackState", "approval": "Required"}]);
    wanted
}

impl Test {
    /// v1 is kept; then a bad release changes image, strategy and the number of pods, and v1's ReplicaSet is deleted.
    async fn loses_its_history(&self) -> String {
        self.deploy("api", "shop/api:v1", 3).await;
        self.apply_policy(&asking()).await;
        self.wait_kept(1).await;
        let bad = json!({"spec": {
            "replicas": 5, "strategy": {"type": "Recreate", "rollingUpdate": null},
            "template": {"spec": {"containers": [{"name": "app", "image": "shop/api:v2-crash", "resources": {"limits": {"memory": "64Mi"}}}]}},
        }});
        self.patch_deployment("api", bad).await;
        let waiting = self.wait_remediation(Phase::AwaitingApproval).await.name_any();
        let sets = self.api::<ReplicaSet>();
        for set in sets.list(&ListParams::default().labels("app=api")).await.unwrap() {
            let image =
                set.spec.as_ref().and_then(|spec| spec.template.as_ref()?.spec.as_ref()?.containers[0].image.clone());
            if image.as_deref() == Some("shop/api:v1") {
                sets.delete(&set.name_any(), &DeleteParams::default()).await.unwrap();
            }
        }
        waiting
    }

    async fn spec_of_api(&self) -> Value {
        let deployment: Deployment = self.deployment("api").await;
        serde_json::to_value(deployment.spec.unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_rolls_back_also_when_the_old_replica_set_is_gone() {
    run("state-gone", async |test| {
        let _operator = Operator::start(test, Options::default()).await;
        let waiting = test.loses_its_history().await;
        test.approve(&waiting).await;
        test.wait_remediation(Phase::Succeeded).await;
        let spec = test.spec_of_api().await;
        assert_eq!((&spec["replicas"], &spec["strategy"]["type"]), (&json!(3), &json!("RollingUpdate")));
        let container = &spec["template"]["spec"]["containers"][0];
        assert_eq!((&container["image"], &container["resources"]), (&json!("shop/api:v1"), &json!({})));
        test.wait_rolled_out("api").await;
        assert_eq!(test.wrote("deployments"), ["patch api"]);
    })
    .await;
}

/// Nobody is asked to approve it.
#[tokio::test(flavor = "multi_thread")]
async fn while_its_copy_is_gone_it_is_blocked_and_says_so() {
    run("state-copy", async |test| {
        let _operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 3).await;
        test.apply_policy(&asking()).await;
        let name = test.wait_kept(1).await.snapshots.remove(0).name;
        let copy: ControllerRevision = test.take_away(&name).await;
        test.release("api", "shop/api:v2-crash").await;
        let blocked = test.wait_remediation(Phase::Blocked).await;
        let (waiting, status) = (blocked.name_any(), blocked.status.unwrap());
        assert_eq!(status.reason, "TargetGone", "{}", status.message);
        assert!(status.message.contains(&format!("ControllerRevision {name} does not exist")), "{}", status.message);
        assert_eq!(test.events("AwaitingApproval", &waiting).await, [""; 0]);

        test.api().create(&PostParams::default(), &copy).await.unwrap();
        assert_eq!(test.wait_remediation(Phase::AwaitingApproval).await.name_any(), waiting);
        test.approve(&waiting).await;
        test.wait_remediation(Phase::Succeeded).await;
        assert_eq!((test.image("api").await.as_str(), test.wrote("deployments").len()), ("shop/api:v1", 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_could_be_asked_for_in_time_expires_as_held_back() {
    run("state-held", async |test| {
        let _operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 3).await;
        let mut wanted = asking();
        wanted["spec"]["approval"] = json!({"timeout": "3s"});
        test.apply_policy(&wanted).await;
        let name = test.wait_kept(1).await.snapshots.remove(0).name;
        test.take_away::<ControllerRevision>(&name).await;
        test.release("api", "shop/api:v2-crash").await;
        let ended = test.wait_component_ended("api").await;
        let status = ended.status.as_ref().unwrap();
        assert_eq!((status.phase, status.reason.as_str()), (Phase::Expired, "HeldBackTooLong"), "{}", status.message);
        assert!(status.message.contains(&format!("ControllerRevision {name} does not exist")), "{}", status.message);
        assert_eq!(test.events("AwaitingApproval", &ended.name_any()).await, [""; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_pods_stays_that_of_the_autoscaler() {
    run("state-scaled", async |test| {
        let _operator = Operator::start(test, Options::default()).await;
        let waiting = test.loses_its_history().await;
        let autoscaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "api"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"},
                "minReplicas": 5, "maxReplicas": 8,
            },
        }))
        .unwrap();
        test.api().create(&PostParams::default(), &autoscaler).await.unwrap();
        test.approve(&waiting).await;
        test.wait_remediation(Phase::Succeeded).await;
        let spec = test.spec_of_api().await;
        assert_eq!((&spec["replicas"], &spec["strategy"]["type"]), (&json!(5), &json!("RollingUpdate")));
        assert_eq!(test.image("api").await, "shop/api:v1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_configuration_and_template_it_finishes_in_its_next_life() {
    run("state-killed", async |test| {
        deploy(test, Way::Mounted).await;
        let gate = Gate::start(env("PANACEA_KUBECONFIG").as_ref()).await;
        let options = Options::default().through(gate.kubeconfig());
        let mut operator = test.watched(options).await;
        during(test, Way::Mounted, async {
            let mut held = gate.hold(Side::Request, |seen| seen.is_deployment_patch());
            test.change_map("app", json!({"mode": "bad"})).await;
            test.release("api", "shop/api:v2-crash").await;
            held.reached().await;
            operator.kill9();
            drop(held);
            assert_eq!((test.wrote("configmaps").len(), test.wrote("deployments").len()), (1, 0));
            let mut held = gate.hold(Side::Answer, |seen| seen.is_deployment_patch());
            operator.spawn();
            held.reached().await;
            operator.kill9();
            drop(held);
            operator.spawn();
            test.wait_remediation(Phase::Succeeded).await
        })
        .await;
        assert_eq!(test.image("api").await, "shop/api:v1");
        assert_eq!(
            (test.wrote("configmaps"), test.wrote("deployments")),
            (vec!["patch app".into()], vec!["patch api".into()])
        );
        assert_eq!(test.remediations().await.len(), 1);
        wait::until("its row", Duration::from_secs(20), async || {
            let rows = operator.action_rows().await;
            if rows.len() == 1 { Ok(()) } else { Err(format!("{rows:?}")) }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_a_stateful_set_and_of_a_daemon_set_is_rolled_back_as_well() {
    run("state-sets", async |test| {
        let only = json!({"remedies": [{"action": "RollbackState"}]});
        let operator = test.good_set("RollingUpdate", &json!({"spec": {"mode": "Observe"}}), Options::default()).await;
        test.wait_pods(V1, PODS).await;
        let mut wanted = policy_of("statefulSet", &json!({"spec": {"mode": "Auto"}}));
        crate::support::objects::merge(&mut wanted["spec"]["components"][0], &only);
        test.replace_policy(&wanted).await;
        test.wait_component("shop", "db", "to be kept", |status| status.snapshots.len() == 1).await;
        test.release_set(BAD).await;
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(remediation.spec.plan.action, ActionKind::RollbackState);
        test.wait_pods(V1, PODS).await;
        assert_eq!(test.wrote("statefulsets"), ["patch db"]);
        assert_eq!(test.wrote("pods"), ["delete db-2"], "the pod in the way");
        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        drop(operator);
    })
    .await;
    run("state-agents", async |test| {
        let _operator = Operator::start(test, Options::default()).await;
        let template = stateful_set("RollingUpdate")["spec"]["template"].clone();
        let set: DaemonSet = serde_json::from_value(json!({
            "metadata": {"name": "db"}, "spec": {"selector": {"matchLabels": {"app": "db"}}, "template": template},
        }))
        .unwrap();
        test.api().create(&PostParams::default(), &set).await.unwrap();
        let mut wanted = policy_of("daemonSet", &json!({"spec": {"interval": "60s"}}));
        wanted["spec"]["components"][0]["remedies"] = json!([{"action": "RollbackState"}]);
        test.apply_policy(&wanted).await;
        test.wait_component("shop", "db", "to be kept", |status| status.snapshots.len() == 1).await;
        let patch = Patch::Strategic(image(&json!(BAD)));
        test.api::<DaemonSet>().patch("db", &PatchParams::default(), &patch).await.unwrap();
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(remediation.spec.plan.action, ActionKind::RollbackState);
        let template = test.api::<DaemonSet>().get("db").await.unwrap().spec.unwrap().template;
        assert_eq!(template.spec.unwrap().containers[0].image.as_deref(), Some(V1));
        assert_eq!(test.wrote("daemonsets"), ["patch db"]);
    })
    .await;
}
