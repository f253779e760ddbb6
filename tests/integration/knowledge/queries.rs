//! The questions give the same figures on both databases, as queries and as views.

use jiff::{SignedDuration, Timestamp};
use panacea::knowledge::queries::{ActionCount, ActionSuccess, ComponentInterventions, DayAccuracy};
use panacea::knowledge::views::{VIEWS, ddl};
use panacea::knowledge::{ActionType, BrainRow, Dialect, Filter, Metadata, Reader, Row, row_id};
use serde_json::json;

use super::place::{Place, brain, on_both, until};

on_both!(
    the_four_queries_answer,
    empty_tables_are_answered,
    a_filter_narrows_each_answer,
    the_views_hold_what_the_queries_answer,
    what_is_not_ours_by_the_name_of_a_view_is_left_alone,
    a_view_of_another_version_is_replaced,
    what_an_administrator_made_is_enough_and_may_be_made_again,
);

/// Rows with ids by their number.
#[derive(Default)]
struct Story(Vec<Row>);

impl Story {
    fn row(&mut self, action: ActionType, component: &str, at: Timestamp, success: bool, output: serde_json::Value) {
        self.row_of("web", action, component, at, success, output);
    }

    fn row_of(
        &mut self,
        policy: &str,
        action: ActionType,
        component: &str,
        at: Timestamp,
        success: bool,
        output: serde_json::Value,
    ) {
        let id = row_id("story", &self.0.len().to_string());
        let metadata = Metadata::component("shop", policy, component);
        self.0.push(BrainRow { id, action, input: json!({}), output, success, metadata, executed_at: at }.into());
    }

    fn outcome(&mut self, at: Timestamp, outcome: &str) {
        let success = matches!(outcome, "CameTrue" | "CameEarly" | "CameLate" | "Prevented");
        self.row(ActionType::ForecastOutcome, "api", at, success, json!({"outcome": outcome}));
    }
}

/// What is known of the day, all else being zero.
fn day(day: &str, predictions: i64, correct: i64, accuracy: Option<f64>) -> DayAccuracy {
    DayAccuracy {
        day: day.to_owned(),
        predictions,
        correct,
        accuracy,
        came_true: 0,
        came_early: 0,
        came_late: 0,
        prevented: 0,
        did_not_happen: 0,
        missed: 0,
        unknown: 0,
    }
}

fn count(action: &str, actions: i64, succeeded: i64) -> ActionCount {
    ActionCount { action_type: action.into(), actions, succeeded }
}

fn reader(place: &Place) -> Reader {
    Reader::new(&place.config()).unwrap()
}

async fn the_four_queries_answer(place: Place) {
    use ActionType as A;
    let now = Timestamp::now();
    let ago = |minutes: i64| now - SignedDuration::from_mins(minutes);
    let mut story = Story::default();

    // Within the last day.
    story.row(A::ServiceRestart, "db", ago(20), true, json!({}));
    story.row(A::ServiceRestart, "db", ago(19), true, json!({}));
    story.row(A::ServiceRestartFailed, "db", ago(18), false, json!({}));
    story.row(A::AutomaticRollback, "api", ago(17), true, json!({}));
    story.row(A::ReconciliationCycle, "api", ago(16), true, json!({}));
    story.row(A::RemediationApproval, "api", ago(15), true, json!({}));
    story.row(A::ProactiveHealthCheck, "blind", ago(300), false, json!({"status": "Unknown"}));
    story.row(A::ProactiveHealthCheck, "api", ago(30), true, json!({"status": "Healthy"}));
    // Longer ago, at noon so that everything is on one UTC day.
    let midnight = now.to_zoned(jiff::tz::TimeZone::UTC).start_of_day().unwrap().timestamp();
    let noon = |days: i64| midnight - SignedDuration::from_hours(24 * days - 12);
    story.row(A::MemoryLeakCleanup, "d", noon(2), true, json!({}));
    story.row(A::DbRecoveryFailed, "a", noon(3), false, json!({}));
    for outcome in ["CameTrue", "CameEarly", "CameLate", "Prevented", "Prevented", "DidNotHappen", "Missed", "Unknown"]
    {
        story.outcome(noon(2), outcome);
    }
    story.outcome(noon(3), "Unknown");

    let running = place.start();
    running.ledger.record(story.0).await.unwrap();
    let ledger = reader(&place);
    let all = Filter::default();

    assert_eq!(
        ledger.actions(&all).await.unwrap(),
        [
            count("proactive_health_check", 2, 1),
            count("service_restart", 2, 2),
            count("automatic_rollback", 1, 1),
            count("reconciliation_cycle", 1, 1),
            count("remediation_approval", 1, 1),
            count("service_restart_failed", 1, 0),
        ]
    );

    let of = |component: &str, interventions, succeeded| ComponentInterventions {
        namespace: "shop".into(),
        policy: "web".into(),
        component: component.into(),
        interventions,
        succeeded,
    };
    assert_eq!(
        ledger.interventions_by_component(&all).await.unwrap(),
        [of("db", 3, 2), of("a", 1, 0), of("api", 1, 1), of("d", 1, 1)]
    );

    let rate =
        |action: &str, actions, success_rate| ActionSuccess { action_type: action.into(), actions, success_rate };
    assert_eq!(
        ledger.success_by_action(&all).await.unwrap(),
        [
            rate("automatic_rollback", 1, 1.0),
            rate("db_recovery_failed", 1, 0.0),
            rate("forecast_outcome", 9, 5.0 / 9.0),
            rate("memory_leak_cleanup", 1, 1.0),
            rate("proactive_health_check", 2, 0.5),
            rate("reconciliation_cycle", 1, 1.0),
            rate("remediation_approval", 1, 1.0),
            rate("service_restart", 2, 1.0),
            rate("service_restart_failed", 1, 0.0),
        ]
    );

    let two = DayAccuracy {
        came_true: 1,
        came_early: 1,
        came_late: 1,
        prevented: 2,
        did_not_happen: 1,
        missed: 1,
        unknown: 1,
        ..day(&noon(2).strftime("%Y-%m-%d").to_string(), 7, 5, Some(5.0 / 7.0))
    };
    let three = DayAccuracy { unknown: 1, ..day(&noon(3).strftime("%Y-%m-%d").to_string(), 0, 0, None) };
    assert_eq!(ledger.accuracy_by_day(&all).await.unwrap(), [two, three]);
    running.stop().await;
}

async fn empty_tables_are_answered(place: Place) {
    let running = place.start();
    running.available().await;
    let (ledger, all) = (reader(&place), Filter::default());
    assert_eq!(ledger.actions(&all).await.unwrap(), []);
    assert_eq!(ledger.interventions_by_component(&all).await.unwrap(), []);
    assert_eq!(ledger.success_by_action(&all).await.unwrap(), []);
    assert_eq!(ledger.accuracy_by_day(&all).await.unwrap(), []);
    assert_eq!(ledger.remediations(&all).await.unwrap(), []);
    running.stop().await;
}

async fn a_filter_narrows_each_answer(place: Place) {
    use ActionType as A;
    let now = Timestamp::now();
    let ago = |hours: i64| now - SignedDuration::from_hours(hours);
    let mut story = Story::default();
    for (policy, hours) in [("web", 1), ("web", 50), ("batch", 1), ("batch", 50)] {
        story.row_of(policy, A::ServiceRestart, "api", ago(hours), hours == 1, json!({}));
        story.row_of(policy, A::ForecastOutcome, "api", ago(hours), true, json!({"outcome": "Prevented"}));
    }
    let running = place.start();
    running.ledger.record(story.0).await.unwrap();
    let ledger = reader(&place);
    let filter = |since: Option<i64>, namespace: Option<&str>, policy: Option<&str>| Filter {
        since: since.map(ago),
        namespace: namespace.map(str::to_owned),
        policy: policy.map(str::to_owned),
    };
    for (filter, of_a_day, of_all) in [
        (filter(None, None, None), 2, 4),
        (filter(Some(2), None, None), 2, 2),
        // Further back than the day that is asked for when nothing is said.
        (filter(Some(100), None, None), 4, 4),
        (filter(None, Some("shop"), Some("web")), 1, 2),
        (filter(Some(2), Some("shop"), Some("batch")), 1, 1),
        (filter(None, Some("other"), None), 0, 0),
    ] {
        let actions = ledger.actions(&filter).await.unwrap();
        assert_eq!(actions.iter().map(|row| row.actions).sum::<i64>(), 2 * of_a_day, "{filter:?}");
        let interventions = ledger.interventions_by_component(&filter).await.unwrap();
        assert_eq!(interventions.iter().map(|row| row.interventions).sum::<i64>(), of_all, "{filter:?}");
        let rates = ledger.success_by_action(&filter).await.unwrap();
        assert_eq!(rates.iter().map(|row| row.actions).sum::<i64>(), 2 * of_all, "{filter:?}");
        let days = ledger.accuracy_by_day(&filter).await.unwrap();
        assert_eq!(days.iter().map(|row| row.prevented).sum::<i64>(), of_all, "{filter:?}");
    }
    running.stop().await;
}

/// The first column of a view, as text.
async fn first_column(place: &Place, view: &str, column: &str) -> Vec<String> {
    place.texts(&format!("SELECT CAST({column} AS TEXT) FROM {view}")).await
}

/// The views of this place.
async fn views(place: &Place) -> Vec<String> {
    place
        .texts(match place {
            Place::Sqlite(_) => "SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name",
            Place::Postgres(_) => "SELECT viewname::text FROM pg_views WHERE schemaname = 'public' ORDER BY viewname",
        })
        .await
}

fn all_views() -> Vec<String> {
    let mut all: Vec<String> = VIEWS.iter().map(|(view, _)| (*view).to_owned()).collect();
    all.sort();
    all
}

async fn wait_for_views(place: &Place) {
    until("the views are made", async || views(place).await == all_views()).await;
}

async fn the_views_hold_what_the_queries_answer(place: Place) {
    let running = place.start();
    running.ledger.record(vec![BrainRow { executed_at: Timestamp::now(), ..brain(1) }.into()]).await.unwrap();
    let mut story = Story::default();
    story.outcome("2026-11-22T10:00:00Z".parse().unwrap(), "CameTrue");
    running.ledger.record(story.0).await.unwrap();
    wait_for_views(&place).await;
    assert_eq!(first_column(&place, "panacea_actions_24h", "action_type").await, ["service_restart"]);
    assert_eq!(first_column(&place, "panacea_component_interventions", "component").await, ["api"]);
    assert_eq!(
        first_column(&place, "panacea_success_rate", "action_type").await,
        ["forecast_outcome", "service_restart"]
    );
    assert_eq!(first_column(&place, "panacea_prediction_accuracy", "day").await, ["2026-11-22"]);
    assert_eq!(first_column(&place, "panacea_prediction_accuracy", "came_true").await, ["1"]);
    running.stop().await;
}

async fn what_is_not_ours_by_the_name_of_a_view_is_left_alone(place: Place) {
    place.execute("CREATE TABLE panacea_success_rate (mine text)").await;
    place.execute("CREATE VIEW panacea_actions_24h AS SELECT 'mine' AS mine").await;
    let running = place.start();
    until("the other views are made", async || views(&place).await.len() == 3).await;
    running.ledger.record(vec![brain(1).into()]).await.unwrap();
    assert_eq!(first_column(&place, "panacea_actions_24h", "mine").await, ["mine"]);
    assert_eq!(first_column(&place, "panacea_success_rate", "mine").await, Vec::<String>::new());
    running.stop().await;
}

async fn a_view_of_another_version_is_replaced(place: Place) {
    place.execute("CREATE VIEW panacea_success_rate AS /* Made by Panacea */ SELECT 'old' AS action_type").await;
    if matches!(place, Place::Postgres(_)) {
        place.execute("COMMENT ON VIEW panacea_success_rate IS 'Made by Panacea, definition 00000000'").await;
    }
    let running = place.start();
    running.ledger.record(vec![brain(1).into()]).await.unwrap();
    let fresh = async || first_column(&place, "panacea_success_rate", "action_type").await == ["service_restart"];
    until("the view is created again", fresh).await;
    running.stop().await;
}

/// The operator needs no more than to read and to write rows.
async fn what_an_administrator_made_is_enough_and_may_be_made_again(place: Place) {
    let (dialect, least) = match &place {
        Place::Sqlite(_) => (Dialect::Sqlite, None),
        Place::Postgres(url) => {
            let user = format!("least_{}", url.rsplit_once("test_").unwrap().1.split('?').next().unwrap());
            (Dialect::Postgres, Some(user))
        }
    };
    for _ in 0..2 {
        place.execute(&ddl(dialect)).await;
    }
    assert_eq!(views(&place).await, all_views());
    let place = match (place, least) {
        (Place::Postgres(url), Some(user)) => {
            let place = Place::Postgres(url.clone());
            place
                .execute(&format!(
                    "CREATE ROLE {user} LOGIN PASSWORD 'x1y2z3';
                     GRANT SELECT, INSERT ON unified_brain, ai_proactive_health, ai_rollback_history TO {user};
                     REVOKE CREATE ON SCHEMA public FROM PUBLIC"
                ))
                .await;
            let (_, host) = url.split_once('@').unwrap();
            // Its views are gone, and it may not make them.
            place.execute("DROP VIEW panacea_success_rate").await;
            Place::Postgres(format!("postgres://{user}:x1y2z3@{host}"))
        }
        (place, _) => place,
    };
    let running = place.start();
    running.available().await;
    running.ledger.record(vec![brain(1).into()]).await.unwrap();
    assert_eq!(reader(&place).success_by_action(&Filter::default()).await.unwrap().len(), 1);
    running.available().await;
    running.stop().await;
}
