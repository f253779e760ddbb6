//! Whatever happens to the ledger: healing continues, and each row exists once in the end.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use panacea::api::{Phase, Trend};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use tokio::time::Instant;

use crate::support::{
    cluster::{Test, cluster_dir, run},
    gate::{Gate, Side},
    objects::policy,
    operator::{Operator, Options, create_database},
    postgres::PostgresServer,
    traffic::Traffic,
    wait,
};

const CONDITION: &str = "LedgerAvailable";

/// An operator with its ledger on this server, through a door to the API server, and a component that is known good.
async fn start(test: &Test, server: &PostgresServer) -> (Operator, Gate) {
    let gate = Gate::start(&cluster_dir().join("operator.kubeconfig")).await;
    let options = Options::default().with("DATABASE_URL", server.new_database().await).through(gate.kubeconfig());
    let operator = Operator::start(test, options).await;
    test.deploy("api", "shop/api:v1", 3).await;
    test.apply_policy(&policy("shop", &["api"], &json!({}))).await;
    test.wait_known_good("shop", "api").await;
    test.wait_condition("shop", CONDITION, "True", Duration::from_secs(30)).await;
    (operator, gate)
}

/// A bad release, and the database gone before the rollback is made.
async fn lose_it_during_an_action(test: &Test, server: &PostgresServer, gate: &Gate) -> Instant {
    let mut held = gate.hold(Side::Request, |seen| seen.is_deployment_patch());
    test.release("api", "shop/api:v2-crash").await;
    held.reached().await;
    server.kill();
    let lost = Instant::now();
    held.pass();
    lost
}

/// Waits until the rollback has succeeded; it is not in the ledger, so it is not let go.
async fn wait_healed_unrecorded(test: &Test) -> String {
    let name = test.wait_remediation(Phase::Succeeded).await.name_any();
    assert_eq!(test.image("api").await, "shop/api:v1");
    assert_unrecorded(test).await.unwrap();
    name
}

async fn assert_unrecorded(test: &Test) -> Result<(), String> {
    let all = test.remediations().await;
    let [one] = all.as_slice() else { return Err(format!("{} remediations", all.len())) };
    let kept = one.metadata.finalizers.as_ref().is_some_and(|finalizers| finalizers.len() == 1);
    let recorded = one.status.as_ref().and_then(|status| status.recorded_at);
    if kept && recorded.is_none() { Ok(()) } else { Err(format!("finalizer: {kept}, recorded: {recorded:?}")) }
}

/// The database is back: the rows are there once, and the object is let go.
async fn assert_recorded_once(test: &Test, operator: &Operator, name: &str) {
    test.wait_condition("shop", CONDITION, "True", Duration::from_secs(30)).await;
    test.wait_recorded(name, Duration::from_secs(30)).await;
    wait::until("the finalizer to be gone", Duration::from_secs(10), async || {
        match test.remediations().await.as_slice() {
            [one] if one.finalizers().is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    operator.wait_checks(2).await;
    assert_eq!(operator.action_rows().await, [("automatic_rollback".to_owned(), true, name.to_owned())]);
    assert_eq!(operator.count("SELECT count(*) FROM ai_rollback_history WHERE success").await, 1);
    assert_eq!(operator.count("SELECT count(*) FROM ai_rollback_history").await, 1);
    assert_eq!(test.generation("api").await, 3, "one release, one rollback");
}

#[tokio::test(flavor = "multi_thread")]
async fn healing_continues_while_postgres_is_unreachable_for_a_minute() {
    run("ledger-away", async |test| {
        let server = PostgresServer::start();
        let (mut operator, gate) = start(test, &server).await;
        let lost = lose_it_during_an_action(test, &server, &gate).await;
        let (reason, message) = test.wait_condition("shop", CONDITION, "False", Duration::from_secs(20)).await;
        assert!(!reason.is_empty() && message.contains("healing continues"), "{reason}: {message}");
        assert!(message.contains(&server.port().to_string()), "names the server: {message}");
        assert!(!message.contains("s3cret"), "{message}");
        let name = wait_healed_unrecorded(test).await;
        let rest = Duration::from_secs(60).saturating_sub(lost.elapsed());
        wait::throughout("not recorded, and kept", rest, || assert_unrecorded(test)).await;
        assert!(operator.is_running());
        server.start_again();
        assert_recorded_once(test, &operator, &name).await;
        assert!(!operator.log().contains("s3cret"), "the password is in the log");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_while_postgres_is_unreachable_loses_no_row() {
    run("ledger-both", async |test| {
        let server = PostgresServer::start();
        let (mut operator, gate) = start(test, &server).await;
        lose_it_during_an_action(test, &server, &gate).await;
        let name = wait_healed_unrecorded(test).await;
        operator.kill9();
        operator.spawn();
        operator.wait_ready().await;
        test.wait_condition("shop", CONDITION, "False", Duration::from_secs(30)).await;
        operator.wait_checks(2).await;
        assert_unrecorded(test).await.unwrap();
        operator.kill9();
        server.start_again();
        operator.spawn();
        operator.wait_ready().await;
        assert_recorded_once(test, &operator, &name).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_that_name_with_other_columns_is_reported_and_healing_continues() {
    run("ledger-columns", async |test| {
        let url = create_database(&test.namespace.replace('-', "_")).await;
        let mut database = PgConnection::connect(&url).await.unwrap();
        let table = "CREATE TABLE unified_brain (id uuid PRIMARY KEY, agent_name text, action_type text, \
                     input_data jsonb, output_data jsonb, success boolean, executed_at timestamptz)";
        database.execute(table).await.unwrap();
        let mut operator = Operator::start(test, Options::default().with("DATABASE_URL", url)).await;
        test.deploy("api", "shop/api:v1", 3).await;
        test.apply_policy(&policy("shop", &["api"], &json!({}))).await;
        let (reason, message) = test.wait_condition("shop", CONDITION, "False", Duration::from_secs(30)).await;
        assert_eq!(reason, "WrongSchema");
        assert!(message.contains("unified_brain") && message.contains("metadata"), "{message}");
        test.wait_known_good("shop", "api").await;
        test.release("api", "shop/api:v2-crash").await;
        let name = wait_healed_unrecorded(test).await;
        assert!(operator.is_running());
        // Corrected by a person: what waited is written.
        database.execute("ALTER TABLE unified_brain ADD COLUMN metadata jsonb").await.unwrap();
        assert_recorded_once(test, &operator, &name).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_url_the_rows_and_the_history_are_in_sqlite() {
    run("ledger-sqlite", async |test| {
        test.deploy("api", "shop/api:v1", 3).await;
        test.wait_rolled_out("api").await;
        let traffic = Traffic::start(test, "api").await;
        traffic.set("memory_share", 51.0);
        let mut operator = Operator::start(test, Options::default().with("DATABASE_URL", "")).await;
        let mut wanted = policy("shop", &["api"], &json!({"spec": {"interval": "60s"}}));
        let query = traffic.gauge_query("memory_share");
        wanted["spec"]["components"][0]["metrics"] = json!([{"name": "memory_usage", "prometheus": {"query": query}}]);
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "api").await;
        test.wait_condition("shop", CONDITION, "True", Duration::from_secs(30)).await;
        test.release("api", "shop/api:v2-crash").await;
        let name = test.wait_remediation(Phase::Succeeded).await.name_any();
        test.wait_recorded(&name, Duration::from_secs(30)).await;

        let file = operator.data_dir().join("ledger.sqlite");
        let mut ledger = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        let rows: Vec<(String, bool)> =
            sqlx::query_as("SELECT action_type, success FROM unified_brain WHERE metadata->>'remediation' IS NOT NULL")
                .fetch_all(&mut ledger)
                .await
                .unwrap();
        assert_eq!(rows, [("automatic_rollback".to_owned(), true)]);
        let rollbacks: i64 =
            sqlx::query_scalar("SELECT count(*) FROM ai_rollback_history").fetch_one(&mut ledger).await.unwrap();
        assert_eq!(rollbacks, 1);

        // As if it had looked each minute for 100 minutes: memory rises throughout, the score fell at the end. What
        // it remembers itself is another story, so what the next life says can only come from the ledger.
        let (took, clean) = operator.stop().await;
        assert!(clean && took < Duration::from_secs(10), "{took:?}");
        rewrite_history(&mut ledger).await;
        ledger.close().await.unwrap();
        operator.spawn();
        operator.wait_ready().await;
        let wanted = |status: &panacea::api::ComponentStatus| {
            let forecast = status.forecast.as_ref();
            // It rose from 0 to 50% in 100 minutes, which only the ledger knows.
            forecast.is_some_and(|it| it.leak && it.reasons.iter().any(|reason| reason.contains("in 1 h 18 min")))
                && status.trend == Some(Trend::Declining)
        };
        let what = "to be forecast from what it saw before the restart";
        let status = test.wait_component("shop", "api", what, wanted).await;
        assert_eq!(status.forecast.unwrap().time_to_failure.as_deref(), Some("1-6h"));
        assert!(operator.looks().await < 5, "too few checks to know it without the history");
    })
    .await;
}

/// Puts 100 looks in place of the component's own, made from one of them.
async fn rewrite_history(ledger: &mut SqliteConnection) {
    let model: String = sqlx::query_scalar(
        "SELECT id FROM ai_proactive_health WHERE component = 'api' AND metrics->>'memory_usage' = 51.0 LIMIT 1",
    )
    .fetch_one(&mut *ledger)
    .await
    .expect("a look that the operator wrote");
    let now = Timestamp::now();
    for n in 0..100_i32 {
        let at = now - SignedDuration::from_mins(i64::from(100 - n));
        let at = at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
        let (id, memory) = (uuid::Uuid::new_v4(), f64::from(n) / 2.0);
        let score = if n < 95 { 100.0 } else { 60.0 };
        let insert = format!(
            "INSERT INTO ai_proactive_health SELECT '{id}', component, {score:?}, trend, predicted_failure_time, \
             failure_probability, json_set(metrics, '$.memory_usage', {memory:?}), '[\"rewritten\"]', '{at}', '{at}' \
             FROM ai_proactive_health WHERE id = '{model}'"
        );
        ledger.execute(AssertSqlSafe(insert)).await.unwrap();
    }
    ledger.execute("DELETE FROM ai_proactive_health WHERE warnings <> '[\"rewritten\"]'").await.unwrap();
}
