//! CustomResourceDefinitions that are missing, or older than the operator. Each test has an empty cluster of its own,
//! since they are there once a cluster.

use std::time::Duration;

use axum::{Router, routing::get};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use panacea::api::{HealingPolicy, HealthStatus, Phase, Remediation, crds};
use serde_json::{Value, json};

use crate::support::{
    apiserver::SecondApiServer,
    cluster::{Test, run},
    objects::merge,
    operator::{Operator, Options},
    wait,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A namespace in an empty cluster.
async fn empty(test: &Test) -> (SecondApiServer, Test) {
    let server = SecondApiServer::start_empty(&test.namespace).await;
    let there = server.namespace(&test.namespace).await;
    (server, there)
}

fn options(server: &SecondApiServer) -> Options {
    Options::default().through(server.operator_kubeconfig())
}

/// Makes the CRDs be these, and waits until they are served.
async fn install(test: &Test, crds: &[Value]) {
    let api: Api<CustomResourceDefinition> = Api::all(test.client.clone());
    for crd in crds {
        let name = crd.pointer("/metadata/name").and_then(Value::as_str).unwrap();
        let params = PatchParams::apply("test").force();
        api.patch(name, &params, &Patch::Apply(crd)).await.unwrap();
        wait::until(&format!("{name} to be served"), LIMIT, async || {
            let conditions = api.get(name).await.unwrap().status.unwrap_or_default().conditions.unwrap_or_default();
            let served = conditions.iter().any(|one| one.type_ == "Established" && one.status == "True");
            if served { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
    }
}

fn current() -> Vec<Value> {
    let mut crds: Vec<Value> = crds().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    for crd in &mut crds {
        merge(crd, &json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}));
    }
    crds
}

/// The schemas of HealingPolicy and Remediation.
fn schemas(crds: &mut [Value]) -> [&mut Value; 2] {
    let [policy, remediation] = crds else { panic!("two kinds") };
    [policy, remediation].map(|crd| crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema").unwrap())
}

fn remove(schema: &mut Value, at: &str, field: &str) {
    let removed = schema.pointer_mut(at).and_then(Value::as_object_mut).and_then(|fields| fields.remove(field));
    assert!(removed.is_some(), "{at} has no {field}");
}

/// An older version: without some of today's fields, and less strict in others.
fn older() -> Vec<Value> {
    let mut crds = current();
    let [policy, remediation] = schemas(&mut crds);
    remove(policy, "/properties/spec/properties", "releaseWatch");
    remove(policy, "/properties/spec/properties", "verification");
    for field in ["interval", "mode"] {
        policy["properties"]["spec"]["properties"][field] = json!({"x-kubernetes-preserve-unknown-fields": true});
    }
    let plan = "/properties/spec/properties/plan/properties";
    remediation.pointer_mut(plan).unwrap()["action"] = json!({"type": "string"});
    crds
}

/// A healthy plain HTTP service, and a policy for it.
async fn web() -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().route("/", get(|| async { "ok" }));
    (url, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

/// A policy over the service, as it is written; `spec` is merged over it.
async fn store(test: &Test, name: &str, url: &str, spec: Value) {
    let mut policy = json!({
        "apiVersion": "panacea.dev/v1alpha1", "kind": "HealingPolicy", "metadata": {"name": name},
        "spec": {"interval": "1s", "components": [{"name": "web", "target": {"http": {"url": url}}}]},
    });
    merge(&mut policy["spec"], &spec);
    // Not as our type, which could not be written wrong.
    let kind = ApiResource::erase::<HealingPolicy>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(test.client.clone(), &test.namespace, &kind);
    api.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
}

/// A stored Remediation, of a policy that does not exist.
async fn remediation(test: &Test, name: &str, action: &str) {
    let remediation = json!({
        "apiVersion": "panacea.dev/v1alpha1", "kind": "Remediation", "metadata": {"name": name},
        "spec": {"plan": {
            "policy": "nobody", "policyUid": "none", "component": "web", "target": {"kind": "Deployment", "name": "web"},
            "action": action, "intent": {"restart": {}}, "cause": "Crash", "episode": "1", "step": 0, "why": "a test",
            "decidedAt": jiff::Timestamp::now(), "approvalRequired": false,
        }},
    });
    create_remediation(test, remediation).await;
}

/// Not as our type, which could not be written wrong.
async fn create_remediation(test: &Test, remediation: Value) {
    let kind = ApiResource::erase::<Remediation>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(test.client.clone(), &test.namespace, &kind);
    api.create(&PostParams::default(), &serde_json::from_value(remediation).unwrap()).await.unwrap();
}

/// Waits until the policy is said to be not usable in words that contain all of these.
async fn wait_refused(test: &Test, name: &str, reason: &str, texts: &[&str]) {
    let kind = ApiResource::erase::<HealingPolicy>(&());
    // Not as our type either: it may not be readable.
    let api: Api<DynamicObject> = Api::namespaced_with(test.client.clone(), &test.namespace, &kind);
    let what = format!("{name} to be refused with {reason} and {texts:?}");
    wait::until(&what, LIMIT, async || {
        let policy = api.get(name).await.map_err(|why| why.to_string())?;
        let conditions = policy.data.pointer("/status/conditions").and_then(Value::as_array).cloned();
        let conditions = conditions.unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default();
        let message = ready["message"].as_str().unwrap_or_default();
        let as_wanted =
            ready["status"] == "False" && ready["reason"] == reason && texts.iter().all(|text| message.contains(text));
        if as_wanted { Ok(()) } else { Err(ready.to_string()) }
    })
    .await;
    for text in texts {
        test.wait_event(reason, name, text).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_crds_the_operator_says_how_to_install_them_and_begins_when_they_are_there() {
    run("no-crds", async |test| {
        let (server, there) = empty(test).await;
        let mut operator = Operator::launch(test, options(&server)).await;
        let said = wait::until("the operator to say that it is not ready, and why", LIMIT, async || {
            match operator.readiness().await {
                Some((false, words)) if words.contains("not installed") => Ok(words),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        assert!(said.contains("HealingPolicy") && said.contains("kubectl apply --server-side"), "{said}");
        wait::until("both kinds to be named in the log", LIMIT, async || {
            let log = operator.log();
            let errors = log.lines().filter(|line| line.contains("ERROR") && line.contains("is not installed"));
            let named =
                ["HealingPolicy", "Remediation"].map(|kind| errors.clone().filter(|line| line.contains(kind)).count());
            if named == [1, 1] { Ok(()) } else { Err(format!("{named:?} in {log}")) }
        })
        .await;
        assert!(operator.is_running(), "the operator ended");

        install(&there, &current()).await;
        operator.wait_ready().await;
        let (url, _web) = web().await;
        store(&there, "shop", &url, json!({})).await;
        there.wait_status("shop", "web", HealthStatus::Healthy).await;
        assert!(operator.is_running(), "the operator ended");
        assert!(!operator.log().contains("panicked"), "{}", operator.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_under_older_crds_is_reported_with_its_field_and_the_other_policies_go_on() {
    run("old-crds", async |test| {
        let (server, there) = empty(test).await;
        install(&there, &older()).await;
        let (url, _web) = web().await;
        store(&there, "banana", &url, json!({"interval": "banana"})).await;
        store(&there, "number", &url, json!({"interval": 5})).await;
        store(&there, "newer", &url, json!({"mode": "Sometimes"})).await;
        // Fields that the older CRD does not know are dropped by the API server: the defaults hold.
        store(&there, "shop", &url, json!({"releaseWatch": {"every": "2s"}})).await;
        remediation(&there, "other-1", "Levitate").await;
        remediation(&there, "mine-1", "Restart").await;

        let mut operator = Operator::start(test, options(&server)).await;
        let look = async || {
            wait_refused(&there, "banana", "InvalidSpec", &["spec.interval", "\"banana\"", "\"30s\""]).await;
            wait_refused(&there, "number", "InvalidSpec", &["spec.interval", "expected a string", "kubectl edit"])
                .await;
            wait_refused(&there, "newer", "InvalidSpec", &["spec.mode", "`Sometimes`", "`Observe`"]).await;
            there.wait_status("shop", "web", HealthStatus::Healthy).await;
            there.wait_condition("shop", "Ready", "True", LIMIT).await;
        };
        look().await;
        // One of a policy that does not exist, as any other: its end is reached beside the one that cannot be read.
        assert_eq!(there.wait_ended("mine-1").await.status.unwrap().phase, Phase::Expired);
        wait::until("the unreadable remediation to be named in the log", LIMIT, async || {
            let log = operator.log();
            let words = ["ERROR", "other-1", "spec.plan.action", "Levitate"];
            let named = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
            if named { Ok(()) } else { Err(log) }
        })
        .await;

        // The CRDs are brought up to date: what is stored stays as it was.
        install(&there, &current()).await;
        operator.stop().await;
        operator.spawn();
        operator.wait_ready().await;
        look().await;
        // And each is watched once it is corrected.
        for name in ["banana", "number", "newer"] {
            there.patch_policy(name, json!({"spec": {"interval": "1s", "mode": "Observe"}})).await;
            there.wait_status(name, "web", HealthStatus::Healthy).await;
            there.wait_condition(name, "Ready", "True", LIMIT).await;
        }
        assert!(operator.is_running(), "the operator ended");
        assert!(!operator.log().contains("panicked"), "{}", operator.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_the_version_before_are_read_or_reported_with_the_command_that_ends_them() {
    run("old-shape", async |test| {
        let (server, there) = empty(test).await;
        let mut before = current();
        let [policy, remediation] = schemas(&mut before);
        let remedies = "/properties/spec/properties/components/items/properties/remedies/items/properties";
        policy.pointer_mut(remedies).unwrap()["action"] = json!({"type": "string"});
        for rules in ["/properties/spec/properties/components/items", "/properties/spec/properties/components/items/properties/remedies/items"] {
            policy.pointer_mut(rules).unwrap().as_object_mut().unwrap().remove("x-kubernetes-validations");
        }
        remediation["properties"]["spec"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        remove(&mut before[1], "/spec/versions/0", "selectableFields");
        install(&there, &before).await;
        let (url, _web) = web().await;
        store(&there, "shop", &url, json!({})).await;
        let component = json!({"name": "api", "target": {"deployment": {"name": "api"}},
            "remedies": [{"action": "RollbackDeployment"}, {"action": "RollbackPreviousState"}]});
        store(&there, "named", &url, json!({"components": [component]})).await;
        // As the version before stored one: the fields of the plan directly in spec.
        create_remediation(&there, json!({
            "apiVersion": "panacea.dev/v1alpha1", "kind": "Remediation",
            "metadata": {"name": "shop-web-1-0", "finalizers": ["panacea.dev/ledger"]},
            "spec": {
                "policy": "shop", "policyUid": "none", "component": "web", "target": {"kind": "Deployment", "name": "web"},
                "action": "RollbackDeployment", "cause": "Crash", "episode": "1", "rung": 0, "why": "a test",
                "decidedAt": jiff::Timestamp::now(), "approvalRequired": false,
            },
        }))
        .await;
        install(&there, &current()).await;

        let mut operator = Operator::start(test, options(&server)).await;
        there.wait_event("Unreadable", "shop-web-1-0", "kubectl delete rem shop-web-1-0 -n").await;
        there.wait_status("shop", "web", HealthStatus::Healthy).await;
        // The policy is read: its Deployment does not exist.
        let (reason, message) = there.wait_condition("named", "Ready", "False", LIMIT).await;
        assert_eq!(reason, "TargetNotFound", "{message}");

        let api: Api<DynamicObject> =
            Api::namespaced_with(there.client.clone(), &there.namespace, &ApiResource::erase::<Remediation>(&()));
        api.delete("shop-web-1-0", &DeleteParams::default()).await.unwrap();
        wait::until("the old remediation to be gone", LIMIT, async || match api.get_opt("shop-web-1-0").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert!(operator.is_running(), "the operator ended");
        assert!(!operator.log().contains("panicked"), "{}", operator.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_crd_too_old_for_its_status_nothing_is_done_until_it_is_brought_up_to_date() {
    run("short-crd", async |test| {
        let (server, there) = empty(test).await;
        let mut short = current();
        remove(schemas(&mut short)[0], "/properties/status/properties/components/items/properties", "since");
        install(&there, &short).await;
        let mut operator = Operator::start(test, options(&server)).await;
        let (url, _web) = web().await;
        store(&there, "shop", &url, json!({})).await;
        wait_refused(&there, "shop", "OutdatedCrd", &[".since", "older than this operator", "kubectl apply"]).await;
        operator.wait_checks(1).await;

        install(&there, &current()).await;
        there.wait_status("shop", "web", HealthStatus::Healthy).await;
        there.wait_condition("shop", "Ready", "True", LIMIT).await;
        assert_eq!(there.events("OutdatedCrd", "shop").await.len(), 1, "said once while it stood");
        assert!(operator.is_running(), "the operator ended");
    })
    .await;
}
