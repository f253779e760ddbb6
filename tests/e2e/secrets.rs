//! Secrets that turned a component bad are put back as ConfigMaps are, only with the right to it, and their values are
//! seen nowhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, Secret},
    },
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use panacea::api::{ActionKind, Cause, ConfigKind, HealingPolicy, Phase};
use serde_json::json;
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

/// Distinguished from all other texts by its beginning, also in base64.
const GOOD: &str = "PANACEA-s3cr3t-good";
const BAD: &str = "PANACEA-s3cr3t-bad";

fn secret(name: &str, mode: &str) -> Secret {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"team": "shop"}}, "type": "shop/credentials",
        "stringData": {"mode": mode, "user": "ä\nö"}, "data": {"key": "AAEC/w=="},
    }))
    .unwrap()
}

/// `api` mounts `app` and has `more` in its environment; nobody uses `unrelated`.
async fn deploy(test: &Test) {
    for name in ["app", "more", "unrelated"] {
        test.api().create(&PostParams::default(), &secret(name, GOOD)).await.unwrap();
    }
    let mut api = deployment("api", "shop/api:v1", 3);
    let pod = &mut api["spec"]["template"]["spec"];
    pod["volumes"] = json!([{"name": "a", "secret": {"secretName": "app"}}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "a", "mountPath": "/a"}]);
    pod["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "more"}}]);
    let api: Deployment = serde_json::from_value(api).unwrap();
    test.api().create(&PostParams::default(), &api).await.unwrap();
    test.wait_rolled_out("api").await;
}

/// Pods that read a bad Secret, or find none, crash.
async fn kubelet(test: &Test) {
    let mut ticks = interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        // Before the configuration: pods that came after it was put back are spared.
        let Ok(pods) = test.api::<Pod>().list(&ListParams::default().labels("app=api")).await else { continue };
        let Ok(app) = test.api::<Secret>().get_opt("app").await else { continue };
        let data = app.and_then(|app| app.data).unwrap_or_default();
        if data.get("mode").is_some_and(|mode| mode.0 == GOOD.as_bytes()) {
            continue;
        }
        for pod in pods {
            test.crash(&pod.name_any()).await;
        }
    }
}

async fn during<T>(test: &Test, story: impl Future<Output = T>) -> T {
    wait::during(kubelet(test), story).await
}

/// A role with the right to Secrets.
async fn allowed(test: &Test) -> (Role, Options) {
    let role = Role::with(test, &["rbac.rollbackSecrets=true"]).await;
    let options = Options::default().through(role.kubeconfig());
    (role, options.with("PANACEA_LOG", "debug"))
}

impl Test {
    async fn secret(&self, name: &str) -> Secret {
        self.api::<Secret>().get(name).await.unwrap()
    }

    async fn change_secret(&self, mode: &str) {
        let patch = Patch::Merge(json!({"stringData": {"mode": mode, "extra": BAD}, "data": {"user": null}}));
        self.api::<Secret>().patch("app", &PatchParams::default(), &patch).await.unwrap();
    }

    async fn secret_copies(&self) -> Vec<Secret> {
        self.api::<Secret>().list(&ListParams::default().labels("panacea.dev/policy")).await.unwrap().items
    }

    /// Neither in what the operator says, nor in what it writes.
    async fn has_no_values(&self, operator: &Operator) {
        let kinds = "events,healingpolicies,remediations,controllerrevisions,configmaps,deployments,replicasets";
        let mut told = vec![
            ("the log", operator.log()),
            ("/metrics", operator.metrics().await),
            ("the cluster", self.kubectl_succeeds(&["get", kinds, "-o", "json"]).await),
        ];
        assert!(told.iter().all(|(_, text)| text.len() > 1000), "there is text to search");
        let dump = "SELECT coalesce(string_agg(t, ' '), '') FROM (SELECT b::text t FROM unified_brain b UNION ALL \
                    SELECT h::text FROM ai_proactive_health h UNION ALL SELECT r::text FROM ai_rollback_history r) all_rows";
        told.push(("the ledger", operator.text(dump).await));
        // Plain, in base64 at each of its three phases, and that once more in base64.
        let parts = [
            "s3cr3t",
            "UEFOQUNFQS1zM2NyM3",
            "BBTkFDRUEtczNjcjN0",
            "QQU5BQ0VBLXMzY3Izd",
            "VUVGT1FVTkZRUzF6TTJOeU0z",
            "VFRk9RVU5GUVMxek0yTnlNM",
            "VRUZPUVVORlFTMXpNMk55TT",
        ];
        let secrets = self.kubectl_succeeds(&["get", "secrets", "-o", "json"]).await;
        let found = |parts: &[&str]| parts.iter().any(|part| secrets.contains(part));
        assert!(found(&parts[1..4]) && found(&parts[4..]), "they are found where they are");
        for (what, text) in told {
            for part in parts {
                let at =
                    text.find(part).map(|at| String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(200)..at]));
                assert_eq!(at, None, "{what} holds {part}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_secret_is_put_back_and_its_values_are_seen_nowhere() {
    run("secrets", async |test| {
        deploy(test).await;
        let (role, options) = allowed(test).await;
        let operator = test.watched(options).await;
        let kept = test.wait_kept(1).await.snapshots;
        let good = test.secret("app").await;
        let others = [test.secret("more").await, test.secret("unrelated").await];
        let copies = test.secret_copies().await;
        assert_eq!(copies.iter().map(|copy| copy.name_any()).collect::<Vec<_>>(), [kept[0].name.clone()]);
        assert_eq!((copies[0].immutable, copies[0].type_.as_deref()), (Some(true), Some("Opaque")));
        assert_eq!(copies[0].owner_references()[0].kind, "HealingPolicy");
        let held: Vec<&String> = copies[0].data.as_ref().unwrap().keys().collect();
        assert_eq!(held, ["app", "more"]);

        let remediation = during(test, async {
            test.change_secret(BAD).await;
            test.wait_remediation(Phase::Succeeded).await
        })
        .await;
        assert_eq!(
            (remediation.spec.plan.action, remediation.spec.plan.cause),
            (ActionKind::RollbackConfig, Cause::ConfigRegression)
        );
        assert!(remediation.spec.plan.why.contains("after a change of Secret/app"), "{}", remediation.spec.plan.why);
        let back = test.secret("app").await;
        assert_eq!((&back.data, &back.type_, back.labels()), (&good.data, &good.type_, good.labels()));
        for before in others {
            let after = test.secret(&before.name_any()).await;
            assert_eq!(after.metadata.resource_version, before.metadata.resource_version);
        }
        let wrote = test.wrote_by(&role.user(test), "secrets");
        assert_eq!(
            wrote.into_iter().filter(|write| !write.contains("panacea-api-")).collect::<Vec<_>>(),
            ["patch app"]
        );
        assert_eq!(test.generation("api").await, 2, "one restart");
        test.wait_recorded(&remediation.name_any(), Duration::from_secs(20)).await;
        let told = "SELECT count(*) FROM ai_rollback_history WHERE rollback_type = 'config' AND success \
                    AND from_state ? 'Secret/app' AND from_state <> to_state";
        assert_eq!(operator.count(told).await, 1);

        // One that was deleted is made again, with its type.
        during(test, async {
            test.api::<Secret>().delete("app", &DeleteParams::default()).await.unwrap();
            wait::until("it to be made again", Duration::from_secs(90), async || {
                match test.api::<Secret>().get_opt("app").await.unwrap() {
                    Some(made) => Ok(made),
                    None => Err(format!("{:?}", test.component("shop", "api").await)),
                }
            })
            .await
        })
        .await;
        let back = test.secret("app").await;
        assert_eq!((&back.data, &back.type_), (&good.data, &good.type_));
        test.has_no_values(&operator).await;

        // What is kept goes with the policy.
        test.api::<HealingPolicy>().delete("shop", &DeleteParams::default()).await.unwrap();
        wait::until("the copies to be gone", Duration::from_secs(60), async || {
            match test.secret_copies().await.len() {
                0 => Ok(()),
                left => Err(format!("{left} are left")),
            }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_secrets_are_never_asked_for_nor_blamed_and_the_rest_works() {
    run("secrets-role", async |test| {
        deploy(test).await;
        let gate = Gate::start(env("PANACEA_KUBECONFIG").as_ref()).await;
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        // Holds nothing; it counts.
        let _counting = gate.hold(Side::Request, move |seen| {
            count.fetch_add(usize::from(seen.is_about_secrets()), Ordering::Relaxed);
            false
        });
        let options = Options::default().through(gate.kubeconfig());
        let operator = test.watched(options).await;
        let status = test.component("shop", "api").await.unwrap();
        assert!(status.config.unwrap().objects.is_empty() && status.snapshots[0].objects.is_empty());
        let first = during(test, async {
            test.change_secret(BAD).await;
            let first = wait::until("something to be done", Duration::from_secs(60), async || {
                test.remediations().await.into_iter().next().ok_or_else(|| "nothing is".to_owned())
            })
            .await;
            test.change_secret(GOOD).await;
            first
        })
        .await;
        assert_eq!((first.spec.plan.action, first.spec.plan.cause), (ActionKind::Restart, Cause::Crash), "{first:?}");
        test.wait_ended(&first.name_any()).await;
        test.wait_known_good("shop", "api").await;
        test.release("api", "shop/api:v2-crash").await;
        wait::until("the release to be rolled back", Duration::from_secs(90), async || {
            let all = test.remediations().await;
            let back = all.iter().find(|one| one.spec.plan.action == ActionKind::Rollback);
            let done = back.and_then(|one| one.status.as_ref()).is_some_and(|status| status.phase == Phase::Succeeded);
            if done { Ok(()) } else { Err(format!("{all:?}")) }
        })
        .await;
        assert_eq!(asked.load(Ordering::Relaxed), 0, "no Secret was asked for");
        assert_eq!((test.wrote_by(OPERATOR, "secrets"), test.secret_copies().await.len()), (vec![], 0));
        let log = operator.log();
        let said = log.lines().filter(|line| line.contains("Secrets are not watched")).count();
        assert_eq!(said, 1, "once, and no loop");
    })
    .await;
}

/// A bad Secret that must not be put back: nothing is written, and the reason is reported.
async fn is_blocked(test: &Test, reason: &str, words: &[&str], make_bad: impl Future<Output = ()>) {
    let (role, options) = allowed(test).await;
    let operator = Operator::start(test, options).await;
    let mut wanted = policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}));
    wanted["spec"]["components"][0]["remedies"] = json!([{"action": "RollbackConfig"}]);
    test.apply_policy(&wanted).await;
    test.wait_kept(1).await;
    let held = during(test, async {
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
    assert_eq!(held.spec.plan.intent.config().unwrap().objects[0].kind, ConfigKind::Secret);
    for word in words {
        assert!(status.message.contains(word), "{word:?} is not in {:?}", status.message);
    }
    operator.wait_checks(3).await;
    let user = role.user(test);
    let wrote: Vec<String> =
        test.wrote_by(&user, "secrets").into_iter().filter(|write| write.ends_with(" app")).collect();
    assert_eq!((wrote, test.wrote_by(&user, "deployments")), (vec![], vec![]));
    assert_eq!(test.only_remediation().await.status.unwrap().phase, Phase::Blocked);
    test.has_no_values(&operator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_a_controller_writes_is_left_to_it() {
    run("secrets-owned", async |test| {
        deploy(test).await;
        // Represents an ExternalSecret: an owner that does not exist would have it garbage collected.
        let vault = ConfigMap { metadata: kube::core::ObjectMeta { name: Some("vault".into()), ..Default::default() }, ..Default::default() };
        let vault = test.api().create(&PostParams::default(), &vault).await.unwrap();
        let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "vault", "uid": vault.metadata.uid, "controller": true}]);
        let patch = Patch::Merge(json!({"metadata": {"ownerReferences": owner}}));
        test.api::<Secret>().patch("app", &PatchParams::default(), &patch).await.unwrap();
        let words = ["Secret app is written by ConfigMap vault, which would overwrite a rollback", "change the content at its source"];
        is_blocked(test, "Overwritten", &words, test.change_secret(BAD)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_secret_is_left_alone_and_the_fix_is_named() {
    run("secrets-immutable", async |test| {
        deploy(test).await;
        let words =
            ["Secret app is immutable", "of another name with the good content", "kubectl get secret panacea-api-"];
        is_blocked(test, "Immutable", &words, async {
            test.api::<Secret>().delete("app", &DeleteParams::default()).await.unwrap();
            let bad = Secret { immutable: Some(true), ..secret("app", BAD) };
            test.api().create(&PostParams::default(), &bad).await.unwrap();
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_two_halves_of_a_copy_it_makes_the_other_one_in_its_next_life() {
    run("secrets-killed", async |test| {
        deploy(test).await;
        let (role, options) = allowed(test).await;
        let gate = Gate::start(&role.kubeconfig()).await;
        let mut held = gate.hold(Side::Request, |seen| seen.is_revision_post());
        let options = options.through(gate.kubeconfig());
        let mut operator = Operator::start(test, options).await;
        test.apply_policy(&policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}))).await;
        held.reached().await;
        operator.kill9();
        drop(held);
        let before = test.secret_copies().await;
        assert_eq!(before.len(), 1);
        operator.spawn();
        let kept = test.wait_kept(1).await.snapshots;
        let after = test.secret_copies().await;
        assert_eq!((after.len(), after[0].name_any()), (1, kept[0].name.clone()));
        assert_eq!(after[0].metadata.uid, before[0].metadata.uid, "the same key, the same digests, the same name");
        let held: &ByteString = &after[0].data.as_ref().unwrap()["app"];
        assert!(String::from_utf8_lossy(&held.0).contains("shop/credentials"));
    })
    .await;
}
