//! One look in, score and status out.

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
        ("all is well", |s| s.error_rate(0.0), Healthy, Some(100), Cause::Unknown),
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
        change(&mut story).look();
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
        then.error_rate(value).look();
        let (_, assessment) = then.last.as_ref().unwrap();
        assert_eq!(assessment.score, Some(score), "{value}: {assessment:?}");
        let expected = if value > 0.05 { HealthStatus::Degraded } else { HealthStatus::Healthy };
        assert_eq!(assessment.status, expected, "{value}: {assessment:?}");
    }
    story.error_rate(0.03).look();
    let (_, assessment) = story.last.as_ref().unwrap();
    assert_eq!(assessment.message(), "error_rate 3.0% is unusual, up to 0.1% is not");
}
