//! An object of a GitOps controller is not rolled back without the controller.

use std::time::Duration;

use panacea::api::HealthStatus;
use serde_json::json;

use crate::support::{
    cluster::{Test, run},
    objects::{deployment, policy},
    operator::{Operator, Options},
};

/// A Deployment at v1 with these labels and annotations, as a GitOps controller marks what it owns.
async fn marked(test: &Test, labels: &[(&str, &str)], annotations: &[(&str, &str)]) {
    let map = |pairs: &[(&str, &str)]| -> serde_json::Map<String, serde_json::Value> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect()
    };
    test.deploy("api", "shop/api:v1", 4).await;
    let marks = json!({"metadata": {"labels": map(labels), "annotations": map(annotations)}});
    test.patch_deployment("api", marks).await;
}

/// A bad release of the Deployment `api`, which `owner` (in the operator's words) has put there, is not rolled back.
async fn is_left_to(test: &Test, owner: &str) {
    let mut operator = Operator::start(test, Options::default()).await;
    test.apply_policy(&policy("shop", &["api"], &json!({"spec": {"interval": "1s"}}))).await;
    test.wait_known_good("shop", "api").await;
    let generation = test.generation("api").await;

    test.release("api", "shop/api:v2-crash").await;
    let (reason, message) = test
        .wait_component("shop", "api", "to have its rollback refused", |status| status.refusal.is_some())
        .await
        .refusal
        .map(|refusal| (refusal.reason, refusal.message))
        .unwrap();
    assert_eq!(reason, "GitOpsOwned", "{message}");
    assert!(message.contains(owner), "{message}");
    assert!(message.contains("revert the change in its source"), "{message}");
    let (reason, _) = test.wait_condition("shop", "Healing", "False", Duration::from_secs(30)).await;
    assert_eq!(reason, "GitOpsOwned");
    test.wait_event("PersonNeeded", "shop", owner).await;

    test.nothing_is_done(&mut operator, Duration::from_secs(8)).await;
    assert_eq!(test.image("api").await, "shop/api:v2-crash");
    assert_eq!(test.generation("api").await, generation + 1, "the release alone");

    // The person reverts it at its source; the owner applies that.
    test.release("api", "shop/api:v1").await;
    test.wait_component("shop", "api", "to be healthy and held back no more", |status| {
        status.status == HealthStatus::Healthy && status.refusal.is_none()
    })
    .await;
    let (reason, _) = test.wait_condition("shop", "Healing", "False", Duration::from_secs(30)).await;
    assert_eq!(reason, "NothingToDo");
    test.only_told().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_release_of_a_deployment_that_flux_owns_is_left_to_flux_and_a_person_called() {
    run("flux", async |test| {
        let labels = [
            ("kustomize.toolkit.fluxcd.io/name", "storefront"),
            ("kustomize.toolkit.fluxcd.io/namespace", "flux-system"),
        ];
        marked(test, &labels, &[]).await;
        is_left_to(test, "Flux Kustomization flux-system/storefront").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_release_of_a_deployment_with_argo_cds_annotation_is_left_to_argo_cd_and_a_person_called() {
    run("argo-annotation", async |test| {
        let id = format!("storefront:apps/Deployment:{}/api", test.namespace);
        marked(test, &[], &[("argocd.argoproj.io/tracking-id", &id)]).await;
        is_left_to(test, "Argo CD Application storefront").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_release_of_a_deployment_with_argo_cds_label_is_left_to_argo_cd_and_a_person_called() {
    run("argo-label", async |test| {
        marked(test, &[("argocd.argoproj.io/instance", "storefront")], &[]).await;
        is_left_to(test, "Argo CD Application storefront").await;
    })
    .await;
}

/// Without any mark, as Argo CD leaves it that tracks by the label which Helm writes too: what shows it is the API
/// server's own record of who applied the spec.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_release_of_a_deployment_that_argo_cd_applied_is_left_to_argo_cd_and_a_person_called() {
    run("argo-applied", async |test| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), deployment("api", "shop/api:v1", 4).to_string()).unwrap();
        let file = file.path().to_str().unwrap();
        let apply = ["apply", "--server-side", "--field-manager=argocd-controller", "--filename", file];
        test.kubectl_succeeds(&apply).await;
        is_left_to(test, "an Argo CD Application (field manager argocd-controller)").await;
    })
    .await;
}
