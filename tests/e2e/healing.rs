//! Bad releases are seen, rolled back, verified and recorded.

use panacea::api::{HealthStatus, Phase};
use serde_json::json;

use crate::support::{
    cluster::run,
    objects::policy,
    operator::{Operator, Options},
    traffic::{Traffic, error_rate_metric},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_crashes_is_rolled_back() {
    run("crash", async |test| {
        let mut operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 4).await;
        test.apply_policy(&policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}))).await;
        test.wait_known_good("shop", "api").await;

        test.release("api", "shop/api:v2-crash").await;
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(test.image("api").await, "shop/api:v1");
        assert_eq!(test.generation("api").await, 3, "one release, one rollback");
        let remediation =
            test.wait_recorded(remediation.metadata.name.as_deref().unwrap(), std::time::Duration::from_secs(20)).await;
        assert_eq!(remediation.metadata.finalizers, None, "let go once it is in the ledger");
        let rows = operator.action_rows().await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((rows[0].0.as_str(), rows[0].1), ("automatic_rollback", true));
        assert_eq!(operator.count("SELECT count(*) FROM ai_rollback_history WHERE success").await, 1);
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
        let (took, clean) = operator.stop().await;
        assert!(clean && took.as_secs() < 10, "stopped in {took:?}, exit code 0: {clean}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_answers_with_errors_is_rolled_back() {
    run("errors", async |test| {
        test.deploy("api", "shop/api:v1", 4).await;
        test.wait_rolled_out("api").await;
        let _traffic = Traffic::start(test, "api").await;
        let _operator = Operator::start(test, Options::default()).await;
        let mut wanted = policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}));
        wanted["spec"]["components"][0]["metrics"] = json!([error_rate_metric("5s")]);
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "api").await;

        test.release("api", "shop/api:v2-errors").await;
        let remediation = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(test.image("api").await, "shop/api:v1");
        assert!(remediation.spec.why.contains("error_rate"), "{}", remediation.spec.why);
    })
    .await;
}
