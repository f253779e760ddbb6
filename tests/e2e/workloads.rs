//! StatefulSets and DaemonSets are healed as Deployments are. Their controllers are the real ones; a StatefulSet's pods
//! are replaced in order, so that a broken one blocks its own cure.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, StatefulSet},
    core::v1::Pod,
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use panacea::api::{ActionKind, Cause, HealthStatus, Phase};
use serde_json::{Value, json};

use crate::support::{
    audit::{OPERATOR, Write},
    cluster::{Test, cluster_dir, run},
    gate::{Gate, Side},
    objects::policy,
    operator::{Operator, Options},
    wait,
};

pub const V1: &str = "shop/db:v1";
pub const BAD: &str = "shop/db:v2-crash";
pub const PODS: usize = 3;

pub fn stateful_set(strategy: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {
            "replicas": PODS, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "updateStrategy": {"type": strategy},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "app", "image": V1}]},
            },
        },
    })
}

/// A policy over the StatefulSet or DaemonSet `db`.
pub fn policy_of(target: &str, patch: &Value) -> Value {
    let mut policy = policy("shop", &["db"], patch);
    policy["spec"]["components"][0]["target"] = json!({target: {"name": "db"}});
    policy
}

pub fn image(object: &Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": object}]}}}})
}

impl Test {
    async fn set(&self) -> StatefulSet {
        self.api::<StatefulSet>().get("db").await.unwrap()
    }

    pub async fn release_set(&self, to: &str) {
        let patch = Patch::Strategic(image(&json!(to)));
        self.api::<StatefulSet>().patch("db", &PatchParams::default(), &patch).await.unwrap();
    }

    /// A StatefulSet of three pods, an operator, and a policy that has seen it healthy.
    pub async fn good_set(&self, strategy: &str, patch: &Value, options: Options) -> Operator {
        let operator = Operator::start(self, options).await;
        let set = serde_json::from_value(stateful_set(strategy)).unwrap();
        self.api::<StatefulSet>().create(&PostParams::default(), &set).await.unwrap();
        self.apply_policy(&policy_of("statefulSet", patch)).await;
        self.wait_known_good("shop", "db").await;
        operator
    }

    async fn pods(&self) -> Vec<Pod> {
        self.api::<Pod>().list(&ListParams::default().labels("app=db")).await.unwrap().items
    }

    /// By name.
    async fn uids(&self) -> BTreeMap<String, String> {
        self.pods().await.into_iter().map(|pod| (pod.name_any(), pod.uid().unwrap())).collect()
    }

    /// Waits until that many pods are there, all ready and of this image.
    pub async fn wait_pods(&self, wanted: &str, count: usize) {
        wait::until(&format!("{count} ready pods of {wanted}"), Duration::from_secs(60), async || {
            let pods = self.pods().await;
            let ready = pods.iter().filter(|pod| is_ready(pod) && image_of(pod) == wanted).count();
            if ready == count && pods.len() == count { Ok(()) } else { Err(format!("{ready} of {}", pods.len())) }
        })
        .await;
    }

    /// What the operator wrote to objects of this kind, as (verb, name), with the answer's code. A conflict wrote nothing:
    /// the object had changed since it was read.
    fn operator_wrote(&self, resource: &str) -> Vec<(String, String, u64)> {
        let writes = self.writes().into_iter();
        let of_it =
            writes.filter(|write: &Write| write.user == OPERATOR && write.resource == resource && write.code != 409);
        of_it.map(|write| (write.verb, write.name, write.code)).collect()
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn image_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.containers[0].image.as_deref()).unwrap_or_default()
}

fn one(verb: &str, name: &str) -> Vec<(String, String, u64)> {
    vec![(verb.to_owned(), name.to_owned(), 200)]
}

/// v1 is back after one write of the template, and of the pods only the broken one was deleted.
async fn is_healed(test: &Test, operator: &Operator, before: &BTreeMap<String, String>) {
    let remediation = test.wait_remediation(Phase::Succeeded).await;
    assert_eq!(
        (remediation.spec.plan.action, remediation.spec.plan.cause),
        (ActionKind::Rollback, Cause::ReleaseRegression)
    );
    assert_eq!(
        (remediation.spec.plan.target.kind.as_str(), remediation.spec.plan.target.name.as_str()),
        ("StatefulSet", "db")
    );
    test.wait_pods(V1, PODS).await;
    assert_eq!(test.set().await.metadata.generation, Some(3), "one release, one rollback");
    assert_eq!(test.operator_wrote("statefulsets"), one("patch", "db"));
    assert_eq!(test.operator_wrote("pods"), one("delete", "db-2"));
    let after = test.uids().await;
    for (name, uid) in before {
        assert_eq!(after.get(name) == Some(uid), name != "db-2", "{name}: {before:?} {after:?}");
    }
    test.wait_status("shop", "db", HealthStatus::Healthy).await;
    test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
    assert_eq!(operator.action_rows().await, [("automatic_rollback".to_owned(), true, remediation.name_any())]);
    assert_eq!(test.remediations().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_release_of_a_stateful_set_is_rolled_back_and_the_pod_in_the_way_is_deleted() {
    run("set-crash", async |test| {
        let operator = test.good_set("RollingUpdate", &json!({"spec": {"interval": "60s"}}), Options::default()).await;
        test.wait_pods(V1, PODS).await;
        let before = test.uids().await;
        test.release_set(BAD).await;
        is_healed(test, &operator, &before).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_write_and_the_deletion_of_the_pod_it_deletes_it_in_its_next_life() {
    run("set-killed", async |test| {
        let gate = Gate::start(&cluster_dir().join("operator.kubeconfig")).await;
        let options = Options::default().through(gate.kubeconfig());
        let mut operator = test.good_set("RollingUpdate", &json!({}), options).await;
        test.wait_pods(V1, PODS).await;
        let before = test.uids().await;
        let mut held = gate.hold(Side::Request, |seen| seen.is_pod_deletion());
        test.release_set(BAD).await;
        held.reached().await;
        operator.kill9();
        drop(held);
        assert_eq!(test.set().await.metadata.generation, Some(3), "the template is back");
        let phases: Vec<_> = test.remediations().await.into_iter().map(|one| one.status.unwrap().phase).collect();
        assert_eq!(phases, [Phase::Running]);
        // Nobody else clears the way.
        wait::throughout("the broken pod stays", Duration::from_secs(5), async || {
            let stuck = test.pods().await.iter().any(|pod| pod.name_any() == "db-2" && image_of(pod) == BAD);
            if stuck { Ok(()) } else { Err("it is gone".to_owned()) }
        })
        .await;
        operator.spawn();
        is_healed(test, &operator, &before).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_whose_pods_crash_is_restarted() {
    run("set-restart", async |test| {
        let remedies = json!([{"action": "Restart", "for": ["Crash"]}]);
        let mut patch = json!({"spec": {"interval": "5s", "releaseWatch": {"for": "10s"}}});
        patch["spec"]["verification"] = json!({"stabilization": "3s", "timeout": "60s"});
        let operator = Operator::start(test, Options::default()).await;
        let set = serde_json::from_value(stateful_set("RollingUpdate")).unwrap();
        test.api::<StatefulSet>().create(&PostParams::default(), &set).await.unwrap();
        let mut wanted = policy_of("statefulSet", &patch);
        wanted["spec"]["components"][0]["remedies"] = remedies;
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "db").await;
        test.wait_pods(V1, PODS).await;
        let before = test.uids().await;
        test.kubectl_succeeds(&["annotate", "pods", "--selector=app=db", "panacea.dev/fault=crash"]).await;
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!((remediation.spec.plan.action, remediation.spec.plan.cause), (ActionKind::Restart, Cause::Crash));
        test.wait_pods(V1, PODS).await;
        let after = test.uids().await;
        assert!(before.iter().all(|(name, uid)| after[name] != *uid), "{before:?} {after:?}");
        assert_eq!(test.operator_wrote("statefulsets"), one("patch", "db"));
        assert_eq!(test.set().await.metadata.generation, Some(2), "one restart");
        // Its controller alone would have waited for the first one to be ready for ever.
        let mut deleted: Vec<String> = test
            .operator_wrote("pods")
            .into_iter()
            .filter(|(.., code)| *code == 200)
            .map(|(_, name, _)| name)
            .collect();
        deleted.sort();
        let each_once = deleted.windows(2).all(|pair| pair[0] != pair[1]);
        assert!(!deleted.is_empty() && each_once, "{deleted:?}");
        test.wait_status("shop", "db", HealthStatus::Healthy).await;
        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("service_restart".to_owned(), true, remediation.name_any())]);
        let status = test.component("shop", "db").await.unwrap();
        assert_eq!(status.known_good.len(), 1, "a restart makes no new known good template: {status:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_waits_for_a_person_is_not_called_bad() {
    run("set-waits", async |test| {
        let mut operator = test.good_set("OnDelete", &json!({}), Options::default()).await;
        test.wait_pods(V1, PODS).await;
        test.release_set(BAD).await;
        test.nothing_is_done(&mut operator, Duration::from_secs(15)).await;
        let status = test.component("shop", "db").await.unwrap();
        assert_eq!((status.status, status.episode), (HealthStatus::Healthy, None), "{}", status.message);
        assert_eq!(status.known_good.len(), 1, "what nobody has run is not known good");
        // A person continues: the new template proves to be bad now, and that person rolls back.
        test.api::<Pod>().delete("db-2", &DeleteParams::default()).await.unwrap();
        let remediation = test.wait_remediation(Phase::Failed).await;
        assert_eq!(remediation.status.unwrap().reason, "OnDelete");
        let writes = test.operator_writes_to_workloads();
        assert!(writes.is_empty(), "{writes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_release_of_a_daemon_set_is_rolled_back() {
    run("agents", async |test| {
        let operator = Operator::start(test, Options::default()).await;
        let template = stateful_set("RollingUpdate")["spec"]["template"].clone();
        let set = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "db"},
            "spec": {"selector": {"matchLabels": {"app": "db"}}, "template": template},
        });
        let set: DaemonSet = serde_json::from_value(set).unwrap();
        test.api::<DaemonSet>().create(&PostParams::default(), &set).await.unwrap();
        test.apply_policy(&policy_of("daemonSet", &json!({"spec": {"interval": "60s"}}))).await;
        test.wait_known_good("shop", "db").await;
        let count = test.pods().await.len();
        assert!(count >= 5, "one a node: {count}");
        test.wait_pods(V1, count).await;
        let before = test.uids().await;

        let released = Timestamp::now();
        let patch = Patch::Strategic(image(&json!(BAD)));
        test.api::<DaemonSet>().patch("db", &PatchParams::default(), &patch).await.unwrap();
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(remediation.spec.plan.action, ActionKind::Rollback);
        assert_eq!(remediation.spec.plan.target.kind, "DaemonSet");
        assert!(remediation.spec.plan.why.contains("CrashLoop"), "{}", remediation.spec.plan.why);
        test.wait_pods(V1, count).await;
        assert_eq!(test.api::<DaemonSet>().get("db").await.unwrap().metadata.generation, Some(3));
        assert_eq!(test.operator_wrote("daemonsets"), one("patch", "db"));
        assert_eq!(test.operator_wrote("pods"), []);
        let kept = test.uids().await.values().filter(|uid| before.values().any(|old| old == *uid)).count();
        assert_eq!(kept, count - 1, "caught at its first pod");
        let acted = remediation.status.unwrap().executed_at.unwrap().duration_since(released).as_secs_f64();
        assert!(acted < 15.0, "{acted} s from the release to the rollback");
        test.wait_status("shop", "db", HealthStatus::Healthy).await;
        test.wait_recorded(&remediation.metadata.name.unwrap(), Duration::from_secs(20)).await;
        assert_eq!(operator.count("SELECT count(*) FROM ai_rollback_history WHERE success").await, 1);
    })
    .await;
}
