//! The four questions give the same figures on both databases.

use jiff::{SignedDuration, Timestamp};
use panacea::knowledge::queries::{ActionCount, ActionSuccess, ComponentInterventions, DayAccuracy};
use panacea::knowledge::{ActionType, BrainRow, Metadata, Row, row_id};
use serde_json::json;

use super::place::{Place, on_both};

on_both!(the_four_queries_answer, empty_tables_are_answered);

/// Rows with ids by their number.
#[derive(Default)]
struct Story(Vec<Row>);

impl Story {
    fn row(&mut self, action: ActionType, component: &str, at: Timestamp, success: bool, output: serde_json::Value) {
        let id = row_id("story", &self.0.len().to_string());
        let metadata = Metadata::component("shop", "web", component);
        self.0.push(BrainRow { id, action, input: json!({}), output, success, metadata, executed_at: at }.into());
    }

    fn check(&mut self, component: &str, at: Timestamp, probability: f64, status: &str) {
        let output = json!({"failure_probability": probability, "status": status});
        self.row(ActionType::ProactiveHealthCheck, component, at, true, output);
    }
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
    // Not judged: younger than an hour, no forecast, or not a number.
    story.check("young", ago(30), 0.9, "Healthy");
    story.row(A::ProactiveHealthCheck, "blind", ago(300), false, json!({"status": "Unknown"}));
    story.row(A::ProactiveHealthCheck, "odd", ago(300), true, json!({"failure_probability": "n/a"}));

    // Noon two and three days ago, so that everything is on one UTC day.
    let midnight = now.to_zoned(jiff::tz::TimeZone::UTC).start_of_day().unwrap().timestamp();
    let noon = |days: i64, minutes: i64| {
        midnight - SignedDuration::from_hours(24 * days - 12) + SignedDuration::from_mins(minutes)
    };
    // Right: foretold, and Unhealthy 60 minutes later. That look foretells too, and nothing follows: wrong.
    story.check("a", noon(2, 0), 0.5, "Healthy");
    story.check("a", noon(2, 60), 0.8, "Unhealthy");
    // Wrong: 61 minutes is not within the hour.
    story.check("b", noon(2, 0), 0.9, "Healthy");
    story.row(A::RollbackFailed, "b", noon(2, 61), false, json!({}));
    // Right: nothing foretold, nothing came (what comes to another component is not its business).
    story.check("c", noon(2, 0), 0.49, "Degraded");
    story.row(A::MemoryLeakCleanup, "d", noon(2, 10), true, json!({}));
    // The day before. Wrong: not foretold, and an action was needed.
    story.check("a", noon(3, 0), 0.1, "Healthy");
    story.row(A::DbRecoveryFailed, "a", noon(3, 5), false, json!({}));

    let running = place.start();
    running.ledger.record(story.0).await.unwrap();
    let ledger = &running.ledger;

    let count = |action: &str, actions, succeeded| ActionCount { action_type: action.into(), actions, succeeded };
    assert_eq!(
        ledger.actions_last_day().await.unwrap(),
        [
            count("proactive_health_check", 3, 2),
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
        ledger.interventions_by_component().await.unwrap(),
        [of("db", 3, 2), of("a", 1, 0), of("api", 1, 1), of("b", 1, 0), of("d", 1, 1)]
    );

    let rate =
        |action: &str, actions, success_rate| ActionSuccess { action_type: action.into(), actions, success_rate };
    assert_eq!(
        ledger.success_by_action().await.unwrap(),
        [
            rate("automatic_rollback", 1, 1.0),
            rate("db_recovery_failed", 1, 0.0),
            rate("memory_leak_cleanup", 1, 1.0),
            rate("proactive_health_check", 8, 0.875),
            rate("reconciliation_cycle", 1, 1.0),
            rate("remediation_approval", 1, 1.0),
            rate("rollback_failed", 1, 0.0),
            rate("service_restart", 2, 1.0),
            rate("service_restart_failed", 1, 0.0),
        ]
    );

    let day = |days: i64| noon(days, 0).strftime("%Y-%m-%d").to_string();
    assert_eq!(
        ledger.accuracy_by_day().await.unwrap(),
        [
            DayAccuracy { day: day(2), predictions: 4, correct: 2, accuracy: 0.5 },
            DayAccuracy { day: day(3), predictions: 1, correct: 0, accuracy: 0.0 },
        ]
    );
    running.stop().await;
}

async fn empty_tables_are_answered(place: Place) {
    let running = place.start();
    assert_eq!(running.ledger.actions_last_day().await.unwrap(), []);
    assert_eq!(running.ledger.interventions_by_component().await.unwrap(), []);
    assert_eq!(running.ledger.success_by_action().await.unwrap(), []);
    assert_eq!(running.ledger.accuracy_by_day().await.unwrap(), []);
    running.stop().await;
}
