//! Rollouts of Argo Rollouts: its real CRDs, its real controller.

use std::time::Duration;

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Service},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use panacea::{
    api::{ActionKind, Cause, HealthStatus, Phase, crds},
    plan::guard::Guard,
};
use serde_json::{Value, json};

use crate::support::{
    apiserver::SecondApiServer,
    cluster::{Test, run},
    objects::{merge, policy},
    operator::{Operator, Options},
    rollouts::{BAD, Scene, V1, policy_of, rollout},
    wait,
};

const V2: &str = "shop/web:v2";

/// The one Remediation has rolled it back, with these writes, and all is as it was.
async fn is_rolled_back(scene: &Scene<'_>, operator: &Operator, wrote: &[&str]) {
    let test = scene.test;
    let remediation = test.wait_remediation(Phase::Succeeded).await;
    let spec = &remediation.spec;
    assert_eq!(
        (spec.plan.action, spec.plan.cause),
        (ActionKind::Rollback, Cause::ReleaseRegression),
        "{}",
        spec.plan.why
    );
    assert_eq!((spec.plan.target.kind.as_str(), spec.plan.target.name.as_str()), ("Rollout", "web"));
    test.wait_web_pods(V1, 4).await;
    assert_eq!(test.rollout_image().await, V1);
    let rollout = test.wait_phase("Healthy").await;
    let status = &rollout.data["status"];
    assert_eq!(status["currentPodHash"], status["stableRS"]);
    assert!(status["abort"].is_null() && status["promoteFull"].is_null(), "{status}");
    assert_eq!(scene.wrote(), wrote);
    test.wait_status("shop", "web", HealthStatus::Healthy).await;
    test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
    assert_eq!(operator.action_rows().await, [("automatic_rollback".to_owned(), true, remediation.name_any())]);
    assert_eq!(test.remediations().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_canary_is_aborted_and_undone_and_the_stable_pods_never_go() {
    run("ro-canary", async |test| {
        let scene = Scene::new(test).await;
        let operator = scene.good(&rollout(&json!({})), &policy_of(&json!({"spec": {"interval": "60s"}}))).await;
        let before = test.web_pods().await;
        test.release_rollout(BAD).await;
        is_rolled_back(&scene, &operator, &["patch rollouts/status 200", "patch rollouts 200"]).await;
        let after = test.web_pods().await;
        let kept = before.keys().filter(|pod| after.contains_key(*pod)).count();
        assert!(kept >= 3, "one gave way to the canary: {before:?} {after:?}");
        let status = test.component("shop", "web").await.unwrap();
        assert_eq!(status.known_good.len(), 1, "the bad one is not known good: {status:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_at_its_pause_is_watched_and_one_that_turns_bad_there_is_undone() {
    run("ro-pause", async |test| {
        let scene = Scene::new(test).await;
        let mut operator = scene.good(&rollout(&json!({})), &policy_of(&json!({}))).await;
        test.release_rollout(V2).await;
        test.wait_phase("Paused").await;
        operator.wait_checks(5).await;
        wait::throughout("nothing is done", Duration::from_secs(8), async || match scene.wrote() {
            wrote if wrote.is_empty() => Ok(()),
            wrote => Err(format!("{wrote:?}")),
        })
        .await;
        assert!(operator.is_running() && test.remediations().await.is_empty());
        let status = test.component("shop", "web").await.unwrap();
        assert_eq!((status.status, status.known_good.len()), (HealthStatus::Healthy, 1), "{}", status.message);
        for (pod, _) in test.web_pods().await.iter().filter(|(_, image)| *image == V2) {
            test.crash(pod).await;
        }
        is_rolled_back(&scene, &operator, &["patch rollouts/status 200", "patch rollouts 200"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_turns_bad_when_it_is_stable_is_undone_past_all_steps() {
    run("ro-stable", async |test| {
        let scene = Scene::new(test).await;
        let operator = scene.good(&rollout(&json!({})), &policy_of(&json!({}))).await;
        test.release_rollout(V2).await;
        test.wait_phase("Paused").await;
        // As `kubectl argo rollouts promote` does.
        let patch = Patch::Merge(json!({"status": {"promoteFull": true}}));
        test.rollouts().patch_status("web", &PatchParams::default(), &patch).await.unwrap();
        test.wait_phase("Healthy").await;
        test.wait_web_pods(V2, 4).await;
        test.wait_component("shop", "web", "to know two good templates", |status| status.known_good.len() == 2).await;
        test.kubectl_succeeds(&["annotate", "pods", "--selector=app=web", "panacea.dev/fault=crash"]).await;
        is_rolled_back(&scene, &operator, &["patch rollouts 200", "patch rollouts/status 200"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_preview_is_undone_and_the_active_service_never_sees_it() {
    run("ro-preview", async |test| {
        let scene = Scene::new(test).await;
        for name in ["active", "preview"] {
            let service = json!({"metadata": {"name": name}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
            let service = serde_json::from_value(service).unwrap();
            test.api::<Service>().create(&PostParams::default(), &service).await.unwrap();
        }
        let strategy = json!({"blueGreen": {"activeService": "active", "previewService": "preview", "autoPromotionEnabled": false}});
        let object = rollout(&json!({"spec": {"strategy": {"canary": null}}}));
        let object = { let mut object = object; merge(&mut object, &json!({"spec": {"strategy": strategy}})); object };
        let operator = scene.good(&object, &policy_of(&json!({}))).await;
        let active = async || {
            let service = test.api::<Service>().get("active").await.unwrap();
            service.spec.unwrap().selector.unwrap()["rollouts-pod-template-hash"].clone()
        };
        let before = active().await;
        test.release_rollout(BAD).await;
        is_rolled_back(&scene, &operator, &["patch rollouts/status 200", "patch rollouts 200"]).await;
        assert_eq!(active().await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_paused_is_left_to_that_person() {
    run("ro-paused", async |test| {
        let scene = Scene::new(test).await;
        let _operator = scene.good(&rollout(&json!({})), &policy_of(&json!({}))).await;
        test.release_rollout(V2).await;
        test.wait_phase("Paused").await;
        test.patch_rollout(json!({"spec": {"paused": true}})).await;
        test.wait_rollout("to be seen as paused", |rollout| rollout.data["spec"]["paused"] == true).await;
        for (pod, _) in test.web_pods().await.iter().filter(|(_, image)| *image == V2) {
            test.crash(pod).await;
        }
        let refusal = test.wait_refusal("shop", "web", Guard::Paused).await;
        assert!(refusal.message.contains("kubectl argo rollouts resume web"), "{}", refusal.message);
        assert!(scene.wrote().is_empty() && test.remediations().await.is_empty());
        // Once the person lets go, it is healed.
        test.patch_rollout(json!({"spec": {"paused": false}})).await;
        test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(test.rollout_image().await, V1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_controller_aborted_is_shown_and_left() {
    run("ro-aborted", async |test| {
        let scene = Scene::new(test).await;
        let _operator = scene.good(&rollout(&json!({})), &policy_of(&json!({}))).await;
        test.release_rollout(V2).await;
        test.wait_phase("Paused").await;
        let patch = Patch::Merge(json!({"status": {"abort": true}}));
        test.rollouts().patch_status("web", &PatchParams::default(), &patch).await.unwrap();
        test.wait_phase("Degraded").await;
        test.wait_web_pods(V1, 4).await;
        let stable = test.rollout().await.data["status"]["stableRS"].as_str().unwrap().to_owned();
        test.wait_component("shop", "web", "to be Degraded, with the stable template as what runs", |status| {
            status.status == HealthStatus::Degraded
                && status.message.contains("the rollout is stopped")
                && status.release.as_ref().is_some_and(|release| release.hash == stable)
        })
        .await;
        // A person puts the template back.
        test.release_rollout(V1).await;
        test.wait_status("shop", "web", HealthStatus::Healthy).await;
        assert!(scene.wrote().is_empty() && test.remediations().await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_fail_are_restarted_by_its_controller() {
    run("ro-restart", async |test| {
        let scene = Scene::new(test).await;
        let mut wanted = policy_of(&json!({}));
        wanted["spec"]["components"][0]["remedies"] = json!([{"action": "Restart", "for": ["Crash"]}]);
        let object = rollout(&json!({"spec": {"strategy": {"canary": {"maxUnavailable": "100%"}}}}));
        let operator = scene.good(&object, &wanted).await;
        let before = test.web_pods().await;
        test.kubectl_succeeds(&["annotate", "pods", "--selector=app=web", "panacea.dev/fault=crash"]).await;
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!((remediation.spec.plan.action, remediation.spec.plan.cause), (ActionKind::Restart, Cause::Crash));
        let after = test.web_pods().await;
        assert!(before.keys().all(|pod| !after.contains_key(pod)), "{before:?} {after:?}");
        assert_eq!(scene.wrote(), ["patch rollouts 200"]);
        let rollout = test.rollout().await;
        assert_eq!(rollout.data["spec"]["restartAt"], rollout.data["status"]["restartedAt"]);
        assert_eq!(rollout.data["spec"]["template"]["metadata"].get("annotations"), None);
        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("service_restart".to_owned(), true, remediation.name_any())]);
        assert_eq!(test.component("shop", "web").await.unwrap().known_good.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_that_turns_it_bad_is_put_back() {
    run("ro-config", async |test| {
        let scene = Scene::new(test).await;
        let map = |text: &str| -> ConfigMap {
            serde_json::from_value(json!({"metadata": {"name": "web"}, "data": {"mode": text}})).unwrap()
        };
        test.api::<ConfigMap>().create(&PostParams::default(), &map("good")).await.unwrap();
        let env = json!([{"name": "app", "image": V1, "envFrom": [{"configMapRef": {"name": "web"}}]}]);
        let object = rollout(&json!({"spec": {"template": {"spec": {"containers": env}}, "strategy": {"canary": {"maxUnavailable": "100%"}}}}));
        let _operator = scene.good(&object, &policy_of(&json!({}))).await;
        test.wait_component("shop", "web", "to have its state kept", |status| !status.snapshots.is_empty()).await;
        let patch = Patch::Merge(json!({"data": {"mode": "bad"}}));
        test.api::<ConfigMap>().patch("web", &PatchParams::default(), &patch).await.unwrap();
        test.kubectl_succeeds(&["annotate", "pods", "--selector=app=web", "panacea.dev/fault=crash"]).await;
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(
            (remediation.spec.plan.action, remediation.spec.plan.cause),
            (ActionKind::RollbackConfig, Cause::ConfigRegression)
        );
        let data = test.api::<ConfigMap>().get("web").await.unwrap().data.unwrap();
        assert_eq!(data["mode"], "good");
        assert_eq!(scene.wrote(), ["patch rollouts 200"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_of_another_object_is_left_to_people() {
    run("ro-ref", async |test| {
        let scene = Scene::new(test).await;
        test.deploy("web", V1, 0).await;
        let mut object = rollout(&json!({"spec": {"template": null, "selector": null}}));
        object["spec"]["workloadRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
        let _operator = scene.good(&object, &policy_of(&json!({}))).await;
        test.release("web", BAD).await;
        let refusal = test.wait_refusal("shop", "web", Guard::TemplateElsewhere).await;
        assert!(refusal.message.contains("kubectl rollout undo deployment/web"), "{}", refusal.message);
        test.wait_event("PersonNeeded", "shop", "spec.workloadRef").await;
        assert!(scene.wrote().is_empty() && test.remediations().await.is_empty());
        // The person does so.
        test.kubectl_succeeds(&["rollout", "undo", "deployment/web"]).await;
        test.wait_component("shop", "web", "to be healthy and held back no more", |status| {
            status.status == HealthStatus::Healthy && status.refusal.is_none()
        })
        .await;
        test.wait_web_pods(V1, 4).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gitops_controller_owns_is_left_to_it() {
    run("ro-gitops", async |test| {
        let scene = Scene::new(test).await;
        let id = format!("storefront:argoproj.io/Rollout:{}/web", test.namespace);
        let owned = rollout(&json!({"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": id}}}));
        let _operator = scene.good(&owned, &policy_of(&json!({}))).await;
        test.release_rollout(BAD).await;
        let refusal = test.wait_refusal("shop", "web", Guard::GitOpsOwned).await;
        assert!(refusal.message.contains("Argo CD Application storefront"), "{}", refusal.message);
        wait::throughout("nothing is done", Duration::from_secs(5), async || {
            if scene.wrote().is_empty() && test.remediations().await.is_empty() { Ok(()) } else { Err(String::new()) }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_it_is_unknown_and_the_others_are_checked() {
    run("ro-blind", async |test| {
        crate::support::rollouts::controller().await;
        // The chart's defaults.
        let operator = Operator::start(test, Options::default()).await;
        test.create_rollout(&rollout(&json!({}))).await;
        test.deploy("api", "shop/api:v1", 1).await;
        let mut both = policy("shop", &["web", "api"], &json!({}));
        both["spec"]["components"][0]["target"] = json!({"rollout": {"name": "web"}});
        test.apply_policy(&both).await;
        let status = test.wait_status("shop", "web", HealthStatus::Unknown).await;
        assert!(status.message.contains("Forbidden"), "{}", status.message);
        assert!(status.message.contains("not allowed to list rollouts"), "{}", status.message);
        assert!(status.message.contains("the chart's value rbac.argoRollouts does"), "{}", status.message);
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
        let said = operator.log().lines().filter(|line| line.contains("Rollouts are not watched")).count();
        assert_eq!(said, 1, "{}", operator.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_abort_it_is_blocked_and_says_which_verb_is_missing() {
    run("ro-bound", async |test| {
        let scene = Scene::with(test, &["rbac.patchWorkloads=false"]).await;
        let _operator = scene.good(&rollout(&json!({})), &policy_of(&json!({}))).await;
        test.release_rollout(BAD).await;
        let blocked = test.wait_remediation(Phase::Blocked).await.status.unwrap();
        assert_eq!(blocked.reason, "Forbidden");
        assert!(blocked.message.contains("not allowed to patch rollouts"), "{}", blocked.message);
        assert!(scene.wrote().is_empty());
    })
    .await;
}

/// What a cluster has that has no Rollouts, with the right to read them.
async fn grant(there: &Test) {
    let role: ClusterRole = serde_json::from_value(json!({
        "metadata": {"name": "rollouts"},
        "rules": [{"apiGroups": ["argoproj.io"], "resources": ["rollouts"], "verbs": ["get", "list", "watch"]}],
    }))
    .unwrap();
    Api::all(there.client.clone()).create(&PostParams::default(), &role).await.unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "rollouts"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "rollouts"},
        "subjects": [{"kind": "ServiceAccount", "name": "panacea", "namespace": "panacea-system"}],
    }))
    .unwrap();
    Api::all(there.client.clone()).create(&PostParams::default(), &binding).await.unwrap();
}

async fn install(there: &Test, crd: &Value) {
    let api: Api<CustomResourceDefinition> = Api::all(there.client.clone());
    let name = crd["metadata"]["name"].as_str().unwrap();
    api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(crd)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_no_rollouts_it_says_so_and_sees_them_once_they_are_installed() {
    run("ro-absent", async |test| {
        crate::support::rollouts::controller().await;
        let server = SecondApiServer::start_empty(&test.namespace).await;
        let there = server.namespace(&test.namespace).await;
        for crd in crds() {
            let mut crd = serde_json::to_value(crd).unwrap();
            merge(&mut crd, &json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}));
            install(&there, &crd).await;
        }
        grant(&there).await;
        let operator = Operator::start(test, Options::default().through(server.operator_kubeconfig())).await;
        let mut both = policy("shop", &["web", "gone"], &json!({"spec": {"interval": "1s"}}));
        both["spec"]["components"][0]["target"] = json!({"rollout": {"name": "web"}});
        wait::until("the policy to be taken", Duration::from_secs(30), async || {
            let policy = serde_json::from_value(both.clone()).unwrap();
            let api = there.api::<panacea::api::HealingPolicy>();
            api.create(&PostParams::default(), &policy).await.map_err(|why| why.to_string())
        })
        .await;
        let status = there.wait_status("shop", "web", HealthStatus::Unknown).await;
        let words = "the CustomResourceDefinition rollouts.argoproj.io is not installed";
        assert!(status.message.contains("NotInstalled") && status.message.contains(words), "{}", status.message);
        there
            .wait_component("shop", "gone", "to be searched for", |status| {
                status.message.contains("Deployment") && status.message.contains("does not exist")
            })
            .await;
        operator.wait_checks(20).await;
        let said = operator.log().lines().filter(|line| line.contains("is not installed in this cluster")).count();
        assert_eq!(said, 1, "{}", operator.log());

        // The real one, of the cluster that has it.
        let api: Api<CustomResourceDefinition> = Api::all(test.client.clone());
        let crd = api.get("rollouts.argoproj.io").await.unwrap();
        let mut crd =
            serde_json::to_value(json!({"spec": crd.spec, "metadata": {"name": "rollouts.argoproj.io"}})).unwrap();
        merge(&mut crd, &json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}));
        install(&there, &crd).await;
        there
            .wait_component("shop", "web", "to be searched for", |status| {
                status.message.contains("Rollout") && status.message.contains("does not exist")
            })
            .await;
    })
    .await;
}
