//! From one check to score and status.

use super::*;
use crate::{
    analyze::{cause::cause, scenario::Story},
    api::Cause,
};

#[test]
fn scores_statuses_and_causes() {
    type Case = (&'static str, fn(&mut Story) -> &mut Story, HealthStatus, Option<u8>, Cause);
    use HealthStatus::{Critical, Degraded, Healthy, Unhealthy, Unknown};
    let cases: &[Case] = &[
        ("healthy", |s| s.error_rate(0.0), Healthy, Some(100), Cause::Unknown),
        ("at the threshold, not above", |s| s.error_rate(0.05), Healthy, Some(100), Cause::Unknown),
        ("a warning", |s| s.error_rate(0.1), Degraded, Some(90), Cause::Unknown),
        ("critical errors", |s| s.error_rate(0.101), Unhealthy, Some(75), Cause::Errors),
        ("NaN is not zero", |s| s.error_rate(f64::NAN), Unknown, None, Cause::Unknown),
        ("no Prometheus", |s| s.prometheus_down(), Unknown, None, Cause::Unknown),
        (
            "no Prometheus, and it crashes all the same",
            |s| s.prometheus_down().fault(FaultKind::CrashLoop, 4),
            Unhealthy,
            Some(60),
            Cause::Crash,
        ),
        (
            "nothing serves",
            |s| s.fault(FaultKind::OomKilled, 4).workload(|w| w.available = 0),
            Critical,
            Some(45),
            Cause::Exhaustion,
        ),
        ("a quarter of the pods", |s| s.fault(FaultKind::CrashLoop, 1), Unhealthy, Some(60), Cause::Crash),
        (
            "less than a quarter",
            |s| s.workload(|w| w.desired = 5).complete().fault(FaultKind::CrashLoop, 1),
            Degraded,
            Some(85),
            Cause::Unknown,
        ),
        (
            "a deadline that passed before the rollout was done after all",
            |s| s.workload(|w| w.progress_deadline_exceeded = true),
            Healthy,
            Some(100),
            Cause::Unknown,
        ),
        (
            "no node for one",
            |s| s.workload(|w| (w.unschedulable, w.available) = (1, 3)),
            Degraded,
            Some(70),
            Cause::Unknown,
        ),
    ];
    for (name, change, status, score, expected) in cases {
        let mut story = Story::settled();
        change(&mut story).record();
        let (_, assessment) = story.last.as_ref().unwrap();
        assert_eq!((assessment.status, assessment.score), (*status, *score), "{name}: {assessment:?}");
        assert_eq!(cause(assessment), *expected, "{name}");
        assert!(!assessment.message().is_empty());
    }
}

#[test]
fn what_is_unusual_costs_of_the_score_and_is_no_fault() {
    let mut story = Story::settled();
    story.error_rate(0.001).until(3.0 * 3600.0);
    for (value, score) in [(0.001, 100), (0.02, 100), (0.03, 95), (0.049, 95), (0.051, 90)] {
        let mut then = story.clone();
        then.error_rate(value).record();
        let (_, assessment) = then.last.as_ref().unwrap();
        assert_eq!(assessment.score, Some(score), "{value}: {assessment:?}");
        let expected = if value > 0.05 { HealthStatus::Degraded } else { HealthStatus::Healthy };
        assert_eq!(assessment.status, expected, "{value}: {assessment:?}");
    }
    story.error_rate(0.03).record();
    let (_, assessment) = story.last.as_ref().unwrap();
    assert_eq!(assessment.message(), "error_rate 3.0% is unusual (usual: up to 0.1%)");
}

#[test]
fn a_hosted_service_is_bad_by_what_lasts_and_shown_by_the_rest() {
    use crate::analyze::{
        observation::{HostedFault, ReleaseId},
        scenario::at,
    };
    let well = || Hosted {
        release: Some(ReleaseId { revision: 0, hash: "dep-1".into(), digest: "dep-1".into() }),
        label: "commit c0ffee0".into(),
        settled: true,
        suspended: None,
        instances: Some((2, 2)),
        fault: None,
        failed_deploy: None,
        config: None,
    };
    let fault = |lasting| {
        Some(HostedFault { kind: FaultKind::OomKilled, lasting, of_release: true, detail: "out of memory".into() })
    };
    use HealthStatus::{Critical, Degraded, Healthy, Unhealthy};
    for (hosted, status, score, expected) in [
        (well(), Healthy, 100, Cause::Unknown),
        (Hosted { fault: fault(false), ..well() }, Degraded, 85, Cause::Unknown),
        (Hosted { fault: fault(true), ..well() }, Unhealthy, 60, Cause::Exhaustion),
        (Hosted { instances: Some((1, 2)), ..well() }, Degraded, 85, Cause::Unknown),
        (Hosted { failed_deploy: Some("dep-2 failed".into()), ..well() }, Degraded, 90, Cause::Unknown),
        (Hosted { release: None, ..well() }, Critical, 0, Cause::Unknown),
        // What somebody has suspended is not called broken for not running.
        (Hosted { suspended: Some("by: user".into()), fault: fault(true), ..well() }, Degraded, 85, Cause::Unknown),
    ] {
        let target = Measured::Known(TargetState::Hosted(Box::new(hosted)));
        let observation = Observation { at: at(0.0), target, metrics: BTreeMap::new() };
        let assessment = assess(&observation, &BTreeMap::new(), &History::default(), false);
        assert_eq!((assessment.status, assessment.score), (status, Some(score)), "{assessment:?}");
        assert_eq!(cause(&assessment), expected, "{assessment:?}");
    }
}

#[test]
fn a_database_without_room_is_exhausted_and_one_that_does_not_answer_is_unreachable() {
    use crate::analyze::{
        observation::{Database, DatabaseFault, Reading},
        scenario::at,
    };
    let look = |fault: Option<bool>, connections: f64| {
        let fault = fault.map(|saturated| DatabaseFault { saturated, detail: "no connection".to_owned() });
        let target = Measured::Known(TargetState::Database(Database { fault, ..Database::default() }));
        let reading = Reading::new(Measured::Known(connections), false);
        let observation =
            Observation { at: at(0.0), target, metrics: [("connections_usage".to_owned(), reading)].into() };
        let thresholds = [("connections_usage".to_owned(), Threshold { warning: 80.0, critical: 95.0 })].into();
        let assessment = assess(&observation, &thresholds, &History::default(), false);
        (assessment.status, cause(&assessment))
    };
    assert_eq!(look(None, 80.0), (HealthStatus::Healthy, Cause::Unknown));
    assert_eq!(look(None, 96.0), (HealthStatus::Unhealthy, Cause::Exhaustion));
    assert_eq!(look(Some(true), 100.0), (HealthStatus::Critical, Cause::Exhaustion));
    assert_eq!(look(Some(false), 10.0), (HealthStatus::Critical, Cause::Unreachable));
}
