//! Missing keys of providers.

use std::time::Duration;

use panacea::api::{HealthStatus, Phase};
use serde_json::{Value, json};

use crate::support::{
    cluster::run,
    door::{StandIn, World},
    github,
    objects::over,
    operator::{Operator, Options},
    render,
    role::Role,
    vercel, wait,
};

/// A provider's words for its key.
struct Names {
    kind: &'static str,
    /// Of the target, which names a Secret.
    field: &'static str,
    /// The operator's own key.
    variable: &'static str,
    base_url: &'static str,
}

/// The status names the missing field or variable, then the Secret; the rest of the policy works, and nobody is
/// asked.
async fn is_reported<W: World>(name: &str, names: Names, make: impl FnOnce(&mut W), target: Value) {
    let Names { kind, field, variable, base_url } = names;
    run(name, async |test| {
        let fake = StandIn::<W>::start().await;
        fake.with(make);
        let role = Role::with(test, &["rbac.readCredentials=true"]).await;
        let options = Options::default().with(base_url, fake.url()).through(role.kubeconfig());
        let operator = Operator::start(test, options).await;
        test.deploy("api", "shop/api:v1", 1).await;
        let mut component = json!({"name": "shop", "target": {kind: target}});
        let api = json!({"name": "api", "target": {"deployment": {"name": "api"}}});
        test.apply_policy(&over(&[component.clone(), api.clone()])).await;
        let limit = Duration::from_secs(30);
        let (reason, words) = test.wait_condition("shop", "Ready", "False", limit).await;
        assert_eq!(reason, "CredentialsMissing");
        assert!(words.contains(field) && words.contains(variable), "{words}");
        let unknown = test.wait_status("shop", "shop", HealthStatus::Unknown).await;
        assert!(unknown.message.contains("(CredentialsMissing)"), "{}", unknown.message);
        test.wait_known_good("shop", "api").await;
        assert_eq!(fake.all_calls(), 0, "nobody was asked without a key");

        component["target"][kind][field] = json!({"name": "provider", "key": "itsKey"});
        test.replace_policy(&over(&[component, api])).await;
        wait::until("the condition to name the Secret", limit, async || {
            let (reason, words) = test.wait_condition("shop", "Ready", "False", limit).await;
            let named = words.contains("Secret provider: does not exist");
            if reason == "CredentialsMissing" && named { Ok(()) } else { Err(words) }
        })
        .await;
        test.wait_status("shop", "shop", HealthStatus::Unknown).await;
        test.release("api", "shop/api:v2-crash").await;
        let healed = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(healed.spec.plan.component, "api");
        assert_eq!(fake.all_calls(), 0, "nobody was asked without a key");

        test.make_secret("provider", json!({"itsKey": W::KEY})).await;
        test.wait_status("shop", "shop", HealthStatus::Healthy).await;
        test.wait_condition("shop", "Ready", "True", limit).await;
        test.assert_stand_nowhere(&operator, &[W::KEY]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_render_key_it_says_which_one_is_missing_and_the_rest_of_the_policy_works() {
    let names =
        Names { kind: "render", field: "apiKeySecretRef", variable: "RENDER_API_KEY", base_url: "RENDER_BASE_URL" };
    let make = |world: &mut render::World| world.add_service("srv-shop", "web_service");
    is_reported("render-key", names, make, json!({"serviceId": "srv-shop"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_vercel_token_it_says_which_one_is_missing_and_the_rest_of_the_policy_works() {
    let names =
        Names { kind: "vercel", field: "tokenSecretRef", variable: "VERCEL_TOKEN", base_url: "VERCEL_BASE_URL" };
    let make = |world: &mut vercel::World| world.add_project("prj_shop", None);
    is_reported("vercel-token", names, make, json!({"projectId": "prj_shop"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_github_token_it_says_which_one_is_missing_and_the_rest_of_the_policy_works() {
    let names =
        Names { kind: "github", field: "tokenSecretRef", variable: "GITHUB_TOKEN", base_url: "GITHUB_BASE_URL" };
    let make = |world: &mut github::World| drop(world.add("octo-org/shop"));
    is_reported("github-token", names, make, json!({"repository": "octo-org/shop", "environment": "production"})).await;
}
