//! What belongs to a GitOps controller is not rolled back behind its back.

use std::time::Duration;

use panacea::api::HealthStatus;
use serde_json::json;

use crate::support::{
    cluster::run,
    objects::policy,
    operator::{Operator, Options},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_release_of_a_deployment_that_flux_owns_is_left_to_flux_and_a_person_called() {
    run("flux", async |test| {
        let mut operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 4).await;
        let labels = json!({"kustomize.toolkit.fluxcd.io/name": "storefront", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"});
        test.patch_deployment("api", json!({"metadata": {"labels": labels}})).await;
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
        assert!(message.contains("Flux Kustomization flux-system/storefront"), "{message}");
        assert!(message.contains("revert the change in its source"), "{message}");
        let (reason, _) = test.wait_condition("shop", "Healing", "False", Duration::from_secs(30)).await;
        assert_eq!(reason, "GitOpsOwned");
        test.wait_event("PersonNeeded", "shop", "Flux Kustomization flux-system/storefront").await;

        test.nothing_is_done(&mut operator, Duration::from_secs(8)).await;
        assert_eq!(test.image("api").await, "shop/api:v2-crash");
        assert_eq!(test.generation("api").await, generation + 1, "the release alone");

        // The person reverts it at its source; Flux applies that.
        test.release("api", "shop/api:v1").await;
        test.wait_component("shop", "api", "to be healthy and held back no more", |status| {
            status.status == HealthStatus::Healthy && status.refusal.is_none()
        })
        .await;
        let (reason, _) = test.wait_condition("shop", "Healing", "False", Duration::from_secs(30)).await;
        assert_eq!(reason, "NothingToDo");
        test.only_told().unwrap();
    })
    .await;
}
