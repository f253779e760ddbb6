//! Configuration that turned a component bad is put back as it was when it was last seen healthy: the changed keys of the
//! changed ConfigMaps, and nothing else.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::{ConfigMap, Pod},
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use panacea::api::{ActionKind, Cause, ComponentStatus, Phase, Remediation};
use serde_json::{Value, json};
use tokio::time::interval;

use crate::support::{
    audit::OPERATOR,
    cluster::{Test, env, run},
    gate::{Gate, Side},
    objects::{deployment, policy},
    operator::{Operator, Options},
    role::Role,
    wait,
};

pub fn map(name: &str, mode: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"team": "shop"}},
        "data": {"mode": mode, "timeout": "30s", "text": "ä\nö\u{1F600}"}, "binaryData": {"key": "AAEC/w=="},
    }))
    .unwrap()
}

/// How the containers of `api` get their configuration.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    Mounted,
    Environment,
}

/// The Deployment `api` with the ConfigMaps `app` and `more`; `worker` has none.
pub async fn deploy(test: &Test, way: Way) {
    for name in ["app", "more", "unrelated"] {
        test.api().create(&PostParams::default(), &map(name, "good")).await.unwrap();
    }
    let mut api = deployment("api", "shop/api:v1", 3);
    let pod = &mut api["spec"]["template"]["spec"];
    match way {
        Way::Mounted => {
            pod["volumes"] =
                json!([{"name": "a", "configMap": {"name": "app"}}, {"name": "m", "configMap": {"name": "more"}}]);
            pod["containers"][0]["volumeMounts"] =
                json!([{"name": "a", "mountPath": "/a"}, {"name": "m", "mountPath": "/m"}]);
        }
        Way::Environment => {
            pod["containers"][0]["envFrom"] =
                json!([{"configMapRef": {"name": "app"}}, {"configMapRef": {"name": "more"}}]);
        }
    }
    let api: Deployment = serde_json::from_value(api).unwrap();
    test.api().create(&PostParams::default(), &api).await.unwrap();
    test.wait_rolled_out("api").await;
}

/// Pods that read bad configuration, or find none, crash. What is in the environment only new pods read.
async fn kubelet(test: &Test, way: Way) {
    let mut ticks = interval(Duration::from_millis(200));
    let mut spared: Option<BTreeSet<String>> = None;
    loop {
        ticks.tick().await;
        // Before the configuration: pods that came after it was put back are spared.
        let Ok(pods) = test.api::<Pod>().list(&ListParams::default().labels("app=api")).await else { continue };
        let maps = test.api::<ConfigMap>();
        let (Ok(app), Ok(more)) = (maps.get_opt("app").await, maps.get_opt("more").await) else { continue };
        let is_good = |map: &Option<ConfigMap>| {
            map.as_ref().and_then(|map| map.data.as_ref()?.get("mode")).is_some_and(|mode| mode == "good")
        };
        if is_good(&app) && is_good(&more) {
            spared = None;
            continue;
        }
        let names = pods.items.iter().map(kube::ResourceExt::name_any);
        let before =
            spared.get_or_insert_with(|| if way == Way::Environment { names.collect() } else { BTreeSet::new() });
        for pod in pods.items.iter().filter(|pod| !before.contains(&pod.name_any())) {
            test.crash(&pod.name_any()).await;
        }
    }
}

pub async fn during<T>(test: &Test, way: Way, story: impl Future<Output = T>) -> T {
    wait::during(kubelet(test, way), story).await
}

impl Test {
    pub async fn map(&self, name: &str) -> ConfigMap {
        self.api::<ConfigMap>().get(name).await.unwrap()
    }

    pub async fn change_map(&self, name: &str, data: Value) {
        let patch = Patch::Merge(json!({"data": data}));
        self.api::<ConfigMap>().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub async fn wait_kept(&self, count: usize) -> ComponentStatus {
        let what = format!("to have {count} good states kept");
        self.wait_component("shop", "api", &what, |status| status.snapshots.len() == count).await
    }

    pub async fn only_remediation(&self) -> Remediation {
        let mut all = self.remediations().await;
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// The operator's writes of this kind that were made, by name.
    pub fn wrote(&self, resource: &str) -> Vec<String> {
        self.wrote_by(OPERATOR, resource)
    }

    /// The same of an operator with a role of its own.
    pub fn wrote_by(&self, user: &str, resource: &str) -> Vec<String> {
        let writes = self.writes().into_iter();
        let made = writes.filter(|write| write.user == user && write.resource == resource && write.code < 300);
        made.map(|write| format!("{} {}", write.verb, write.name)).collect()
    }

    /// Looks on, with a policy that is about `api`, until its good state is kept.
    pub async fn watched(&self, options: Options) -> Operator {
        let operator = Operator::start(self, options).await;
        self.apply_policy(&policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}))).await;
        self.wait_kept(1).await;
        operator
    }
}

pub fn content(map: &ConfigMap) -> Value {
    json!({"data": map.data, "binaryData": map.binary_data, "labels": map.metadata.labels})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_config_map_is_put_back_and_nothing_else_is_touched() {
    run("config", async |test| {
        deploy(test, Way::Mounted).await;
        let operator = test.watched(Options::default()).await;
        let (good, unrelated, more) = (test.map("app").await, test.map("unrelated").await, test.map("more").await);
        let remediation = during(test, Way::Mounted, async {
            test.change_map("app", json!({"mode": "bad", "text": null, "extra": "key"})).await;
            test.wait_remediation(Phase::Succeeded).await
        })
        .await;
        assert_eq!(
            (remediation.spec.plan.action, remediation.spec.plan.cause),
            (ActionKind::RollbackConfig, Cause::ConfigRegression)
        );
        assert!(remediation.spec.plan.why.contains("after a change of ConfigMap/app"), "{}", remediation.spec.plan.why);
        let back = test.map("app").await;
        assert_eq!(content(&back), content(&good));
        for before in [unrelated, more] {
            assert_eq!(test.map(&before.name_any()).await.metadata.resource_version, before.metadata.resource_version);
        }
        assert_eq!(test.wrote("configmaps"), ["patch app"]);
        assert_eq!(test.wrote("deployments"), ["patch api"]);
        assert_eq!(test.image("api").await, "shop/api:v1");
        assert_eq!(test.generation("api").await, 2, "one restart");

        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("automatic_rollback".to_owned(), true, remediation.name_any())]);
        let told = "SELECT count(*) FROM ai_rollback_history WHERE rollback_type = 'config' AND success \
                    AND from_state ? 'ConfigMap/app' AND from_state <> to_state AND from_state::text NOT LIKE '%bad%'";
        assert_eq!(operator.count(told).await, 1);
        let kept = test.wait_kept(1).await.snapshots;
        assert_eq!(kept[0].name, remediation.spec.plan.intent.config().unwrap().state);

        // The same content once more is reported at once, before anything turns bad.
        test.change_map("app", json!({"mode": "bad", "text": null, "extra": "key"})).await;
        let note = "ConfigMap/app has the content again with which it became unhealthy at";
        test.wait_event("KnownBadConfig", "shop", note).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_that_no_pod_has_read_is_not_good_and_is_blamed_when_new_pods_crash() {
    run("config-env", async |test| {
        deploy(test, Way::Environment).await;
        let operator = test.watched(Options::default()).await;
        let remediation = during(test, Way::Environment, async {
            test.change_map("more", json!({"mode": "bad"})).await;
            let changed = test
                .wait_component("shop", "api", "to have changed configuration", |status| {
                    status.config.as_ref().is_some_and(|config| config.changed == ["ConfigMap/more"])
                })
                .await;
            operator.wait_checks(5).await;
            let status = test.component("shop", "api").await.unwrap();
            assert_eq!(
                (status.status, status.snapshots),
                (changed.status, changed.snapshots),
                "nobody has read it yet"
            );
            assert!(!status.config.unwrap().seen_healthy);
            test.kubectl_succeeds(&["rollout", "restart", "deployment/api"]).await;
            test.wait_remediation(Phase::Succeeded).await
        })
        .await;
        assert_eq!(remediation.spec.plan.action, ActionKind::RollbackConfig);
        test.wait_event("ConfigSeen", "shop", "api: ConfigMap/more changed").await;
        test.wait_event("Verifying", &remediation.name_any(), "ConfigMap/more restored").await;
        assert_eq!(content(&test.map("more").await), content(&map("more", "good")));
        test.wait_rolled_out("api").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn good_changes_are_kept_and_a_deleted_config_map_comes_back() {
    run("config-deleted", async |test| {
        deploy(test, Way::Environment).await;
        let _operator = test.watched(Options::default()).await;
        // A change that is good, with new pods that have it, is the last known good one from then on.
        test.change_map("app", json!({"timeout": "60s"})).await;
        test.wait_component("shop", "api", "to have changed configuration", |status| {
            status.config.as_ref().is_some_and(|config| !config.changed.is_empty())
        })
        .await;
        test.kubectl_succeeds(&["rollout", "restart", "deployment/api"]).await;
        test.wait_kept(2).await;
        let good = test.map("app").await;
        let remediation = during(test, Way::Environment, async {
            test.api::<ConfigMap>().delete("app", &DeleteParams::default()).await.unwrap();
            test.wait_component("shop", "api", "to miss it", |status| {
                status.config.as_ref().is_some_and(|config| !config.changed.is_empty())
            })
            .await;
            test.kubectl_succeeds(&["rollout", "restart", "deployment/api"]).await;
            test.wait_remediation(Phase::Succeeded).await
        })
        .await;
        assert_eq!(remediation.spec.plan.action, ActionKind::RollbackConfig);
        let back = test.map("app").await;
        assert_eq!((&back.data, &back.binary_data), (&good.data, &good.binary_data));
        assert_eq!(test.wrote("configmaps"), ["create app"]);
        let copies =
            test.api::<ControllerRevision>().list(&ListParams::default().labels("panacea.dev/policy=shop")).await;
        let mut copies: Vec<String> = copies.unwrap().items.iter().map(kube::ResourceExt::name_any).collect();
        let mut kept: Vec<String> =
            test.component("shop", "api").await.unwrap().snapshots.into_iter().map(|k| k.name).collect();
        copies.sort_unstable();
        kept.sort_unstable();
        assert_eq!(copies, kept, "no copy is left that is not needed");
    })
    .await;
}

/// Bad configuration that must not be put back: nothing is written, and the reason is reported.
async fn is_blocked(test: &Test, reason: &str, words: &[&str], make_bad: impl Future<Output = ()>) {
    let mut operator = Operator::start(test, Options::default()).await;
    let mut wanted = policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}));
    wanted["spec"]["components"][0]["remedies"] = json!([{"action": "RollbackConfig"}]);
    test.apply_policy(&wanted).await;
    test.wait_kept(1).await;
    let held = during(test, Way::Mounted, async {
        make_bad.await;
        test.wait_remediation(Phase::Blocked).await
    })
    .await;
    let status = held.status.unwrap();
    assert_eq!(
        (held.spec.plan.action, status.reason.as_str()),
        (ActionKind::RollbackConfig, reason),
        "{}",
        status.message
    );
    for word in words {
        assert!(status.message.contains(word), "{word:?} is not in {:?}", status.message);
    }
    let described = test.kubectl_succeeds(&["describe", "rem", held.metadata.name.as_deref().unwrap()]).await;
    let described: Vec<&str> = described.split_whitespace().collect();
    let described = described.join(" ");
    assert!(described.contains(reason) && described.contains(words[0]), "{described}");
    operator.wait_checks(3).await;
    assert!(operator.is_running());
    assert_eq!((test.wrote("configmaps"), test.wrote("deployments")), (vec![], vec![]));
    assert_eq!(test.only_remediation().await.status.unwrap().phase, Phase::Blocked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_that_others_use_is_left_alone() {
    run("config-shared", async |test| {
        deploy(test, Way::Mounted).await;
        let mut worker = deployment("worker", "shop/worker:v1", 1);
        worker["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "app"}}]);
        let worker: Deployment = serde_json::from_value(worker).unwrap();
        test.api().create(&PostParams::default(), &worker).await.unwrap();
        let words = ["ConfigMap app is also used by Deployment/worker", "add them as components"];
        is_blocked(test, "Shared", &words, test.change_map("app", json!({"mode": "bad"}))).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_config_map_is_left_alone_and_the_fix_is_named() {
    run("config-immutable", async |test| {
        deploy(test, Way::Mounted).await;
        let words = [
            "ConfigMap app is immutable",
            "of another name with the good content",
            "kubectl get controllerrevision panacea-api-",
        ];
        is_blocked(test, "Immutable", &words, async {
            test.api::<ConfigMap>().delete("app", &DeleteParams::default()).await.unwrap();
            let bad = ConfigMap { immutable: Some(true), ..map("app", "bad") };
            test.api().create(&PostParams::default(), &bad).await.unwrap();
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_of_a_gitops_controller_is_left_alone() {
    run("config-gitops", async |test| {
        deploy(test, Way::Mounted).await;
        test.kubectl_succeeds(&["label", "configmap", "app", "kustomize.toolkit.fluxcd.io/name=shop"]).await;
        let words = ["ConfigMap app belongs to Flux Kustomization shop", "revert the change in its source"];
        is_blocked(test, "GitOpsOwned", &words, test.change_map("app", json!({"mode": "bad"}))).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_two_config_maps_it_puts_the_other_one_back_in_its_next_life() {
    run("config-killed", async |test| {
        deploy(test, Way::Mounted).await;
        let gate = Gate::start(env("PANACEA_KUBECONFIG").as_ref()).await;
        let options = Options::default().through(gate.kubeconfig());
        let mut operator = test.watched(options).await;
        let remediation = during(test, Way::Mounted, async {
            let mut held = gate.hold(Side::Answer, |seen| seen.is_config_patch());
            let both =
                [("app", "bad"), ("more", "bad")].map(|(name, mode)| test.change_map(name, json!({"mode": mode})));
            futures::future::join_all(both).await;
            held.reached().await;
            operator.kill9();
            drop(held);
            assert_eq!(test.wrote("configmaps").len(), 1);
            // Before the next write that it wants to make.
            let mut held = gate.hold(Side::Request, |seen| seen.is_config_patch());
            operator.spawn();
            held.reached().await;
            operator.kill9();
            drop(held);
            assert_eq!((test.wrote("configmaps").len(), test.wrote("deployments").len()), (1, 0));
            operator.spawn();
            test.wait_remediation(Phase::Succeeded).await
        })
        .await;
        let mut wrote = test.wrote("configmaps");
        wrote.sort_unstable();
        assert_eq!(wrote, ["patch app", "patch more"], "each once");
        assert_eq!(test.wrote("deployments"), ["patch api"]);
        for name in ["app", "more"] {
            assert_eq!(content(&test.map(name).await), content(&map(name, "good")));
        }
        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_config_maps_the_rest_works() {
    run("config-role", async |test| {
        deploy(test, Way::Mounted).await;
        let role = Role::with(test, &["rbac.rollbackConfig=false"]).await;
        let options = Options::default().through(role.kubeconfig());
        let operator = Operator::start(test, options).await;
        test.apply_policy(&policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}))).await;
        let status = test.wait_known_good("shop", "api").await;
        assert_eq!(status.config, None);
        assert!(test.wait_kept(1).await.snapshots[0].objects.is_empty(), "the template alone is kept");
        test.release("api", "shop/api:v2-crash").await;
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(remediation.spec.plan.action, ActionKind::Rollback);
        wait::until("the log to say so", Duration::from_secs(10), async || {
            let log = operator.log();
            let said = log.lines().any(|line| line.contains("ConfigMaps") && line.contains("a watch fails"));
            if said { Ok(()) } else { Err("it does not".to_owned()) }
        })
        .await;
    })
    .await;
}
