//! Stories of alarms and false alarms: the world changes, and checks follow as the tracker requests.

use std::time::Duration;

use super::*;
use crate::analyze::{
    observation::FaultKind,
    scenario::{Story, at},
};

/// What happens in the world.
type Change = fn(&mut Story) -> &mut Story;

/// A world in which nothing is wrong: `change` must not lead to a confirmed incident at any check of ten minutes.
fn calm(name: &str, mut story: Story, changes: &[(f64, Change)]) -> Story {
    let end = story.now + 600.0;
    for (index, (seconds, change)) in changes.iter().enumerate() {
        story.now += seconds;
        change(&mut story);
        let until = changes.get(index + 1).map_or(end, |(next, _)| story.now + next - 0.05);
        story.record();
        loop {
            assert_eq!(story.confirmed(), None, "{name}: at {} s: {:?}", story.now, story.last);
            assert!(story.tracker.episode().is_none(), "{name}: an incident at {} s", story.now);
            let wait = story.next_check().as_secs_f64();
            if story.now + wait > until {
                break;
            }
            story.after(wait);
        }
    }
    story
}

#[test]
fn nothing_is_confirmed_where_nothing_is_wrong() {
    type Case = (&'static str, &'static [(f64, Change)]);
    let cases: &[Case] = &[
        (
            "a slow but good release",
            &[
                (1.0, |s| s.release("v2")),
                (20.0, |s| s.workload(|w| (w.replicas, w.updated, w.available) = (5, 3, 3))),
                (20.0, |s| s.complete()),
            ],
        ),
        ("kubectl rollout restart", &[(1.0, |s| s.restart()), (20.0, |s| s.complete())]),
        (
            "scaled up",
            &[
                (1.0, |s| s.workload(|w| (w.desired, w.replicas, w.updated, w.available) = (8, 8, 8, 4))),
                (30.0, |s| s.complete()),
            ],
        ),
        ("scaled down", &[(1.0, |s| s.workload(|w| w.desired = 2)), (5.0, |s| s.complete())]),
        (
            "scaled to zero and back, without traffic in the meantime",
            &[
                (1.0, |s| s.workload(|w| (w.desired, w.replicas, w.updated, w.available) = (0, 0, 0, 0))),
                (5.0, |s| s.prometheus_down()),
                (60.0, |s| s.workload(|w| (w.desired, w.replicas, w.updated, w.available) = (4, 4, 4, 0))),
                (5.0, |s| s.complete().error_rate(0.0)),
            ],
        ),
        ("one pod deleted", &[(1.0, |s| s.workload(|w| w.available = 3)), (10.0, |s| s.complete())]),
        (
            "one pod evicted: it stays as a failed one beside its successor",
            &[
                (1.0, |s| s.workload(|w| w.available = 3)),
                (4.0, |s| s.workload(|w| (w.replicas, w.available) = (4, 3))),
                (10.0, |s| s.complete()),
            ],
        ),
        (
            "a node gone with half of the pods",
            &[
                (1.0, |s| s.workload(|w| (w.available, w.on_lost_nodes) = (2, 2))),
                (300.0, |s| s.workload(|w| (w.available, w.on_lost_nodes, w.unschedulable) = (2, 0, 2))),
                (60.0, |s| s.workload(|w| w.unschedulable = 0).complete()),
            ],
        ),
        (
            "a rollout that a person paused",
            &[(1.0, |s| s.release("v2")), (2.0, |s| s.workload(|w| (w.paused, w.available) = (true, 5)))],
        ),
        ("one bad scrape", &[(1.0, |s| s.error_rate(0.9)), (1.5, |s| s.error_rate(0.001))]),
        (
            "one bad scrape, between two at which Prometheus was down",
            &[
                (1.0, |s| s.error_rate(0.9)),
                (1.5, |s| s.prometheus_down()),
                (1.5, |s| s.error_rate(0.9)),
                (1.5, |s| s.prometheus_down()),
                (60.0, |s| s.error_rate(0.001)),
            ],
        ),
        ("a warning for a long time", &[(1.0, |s| s.error_rate(0.06))]),
        (
            "one crashing pod of eight in a release that was fine: Kubernetes copes",
            &[
                (1.0, |s| s.workload(|w| w.desired = 8).complete()),
                (10.0, |s| s.fault(FaultKind::CrashLoop, 1).workload(|w| w.available = 7)),
            ],
        ),
        (
            "restarted by a person, and one pod of eight has trouble with the registry",
            &[
                (1.0, |s| s.workload(|w| w.desired = 8).complete()),
                (10.0, |s| s.restart().workload(|w| (w.replicas, w.updated, w.available) = (9, 2, 8))),
                (2.0, |s| s.fault(FaultKind::ImagePull, 1)),
                (15.0, |s| s.complete()),
            ],
        ),
    ];
    for (name, changes) in cases {
        let story = calm(name, Story::settled(), changes);
        assert!(story.known_good().contains(&"v1"), "{name}: v1 was forgotten");
    }
}

#[test]
fn installed_while_a_rollout_is_in_flight() {
    let mut story = Story::new();
    story.workload.release = ReleaseId { revision: 7, hash: "h-v7".into(), digest: "v7".into() };
    story.rolling();
    let story = calm("installed mid-rollout", story, &[(0.0, |s| s), (20.0, |s| s.complete())]);
    assert_eq!(story.known_good(), ["v7"]);
}

/// `change` after the usual start must be confirmed within `within` seconds with this cause, and a rollback would go to `target`.
fn alarm(name: &str, change: Change, within: f64, cause: Cause, target: Option<&str>) {
    let mut story = Story::settled();
    change(&mut story);
    let start = story.now;
    story.record();
    while story.confirmed().is_none() {
        let wait = story.next_check().as_secs_f64();
        assert!(story.now + wait <= start + within, "{name}: not confirmed within {within} s: {:?}", story.last);
        story.after(wait);
    }
    assert_eq!((story.confirmed(), story.target()), (Some(cause), target), "{name}");
    assert_eq!(story.tracker.episode().unwrap().cause, cause, "{name}");
}

#[test]
fn what_is_wrong_is_confirmed_at_once_with_its_cause() {
    use Cause::{Crash, Errors, Exhaustion, ReleaseRegression};
    type Case = (&'static str, Change, f64, Cause, Option<&'static str>);
    let cases: &[Case] = &[
        ("a crash release", |s| s.release("v2").fault(FaultKind::CrashLoop, 1), 1.0, ReleaseRegression, Some("v1")),
        ("an OOM release", |s| s.release("v2").fault(FaultKind::OomKilled, 1), 1.0, ReleaseRegression, Some("v1")),
        ("no image", |s| s.release("v2").fault(FaultKind::ImagePull, 1), 1.0, ReleaseRegression, Some("v1")),
        ("errors of new pods", |s| s.release("v2").release_error_rate(0.4), 1.0, ReleaseRegression, Some("v1")),
        ("errors of all pods", |s| s.release("v2").error_rate(0.4), 1.0, ReleaseRegression, Some("v1")),
        (
            "never ready, until the deadline",
            |s| {
                s.release("v2").until(4200.0);
                s.workload(|w| w.progress_deadline_exceeded = true)
            },
            2.0,
            ReleaseRegression,
            Some("v1"),
        ),
        ("crashes without a release", |s| s.fault(FaultKind::CrashLoop, 2), 2.0, Crash, None),
        ("OOM without a release", |s| s.fault(FaultKind::OomKilled, 2), 2.0, Exhaustion, None),
        ("errors without a release", |s| s.error_rate(0.4), 2.0, Errors, None),
        ("a restart with a broken ConfigMap", |s| s.restart().fault(FaultKind::CrashLoop, 1), 1.0, Crash, None),
    ];
    for (name, change, within, cause, target) in cases {
        alarm(name, *change, *within, *cause, *target);
    }
}

#[test]
fn two_consecutive_bad_releases_are_rolled_back_to_the_good_one() {
    let mut story = Story::settled();
    story.release("v2").fault(FaultKind::CrashLoop, 1).until(3602.0);
    let first = story.tracker.episode().unwrap().id.clone();
    story.release("v3").until(3605.0);
    assert_eq!(story.confirmed(), None, "v3 has shown nothing bad yet");
    story.fault(FaultKind::CrashLoop, 1).until(3607.0);
    assert_eq!((story.confirmed(), story.target()), (Some(Cause::ReleaseRegression), Some("v1")));
    assert_ne!(story.tracker.episode().unwrap().id, first, "another release is another incident");
}

#[test]
fn late_errors_still_count_against_the_release() {
    let mut story = Story::settled();
    story.release("v2").until(3605.0).complete().until(3615.0);
    assert_eq!(story.known_good(), ["v1", "v2"]);
    assert_eq!(story.next_check(), Duration::from_secs(1), "metrics lag: it is watched on");
    story.error_rate(0.4).until(3617.0);
    assert_eq!((story.confirmed(), story.target()), (Some(Cause::ReleaseRegression), Some("v1")));
    assert_eq!(story.known_good(), ["v1"], "v2 is not known good any more");
    // The rollback: v1 comes back with its old hash, the incident stays the same until it is over.
    let episode = story.tracker.episode().cloned();
    story.release("v1").until(3620.0);
    assert_eq!((story.evidence, story.tracker.episode()), (Some(Evidence::Neutral), episode.as_ref()));
    story.complete().error_rate(0.2).until(3640.0);
    assert_eq!((story.evidence, story.confirmed()), (Some(Evidence::Neutral), None), "v2's errors, not v1's");
    story.error_rate(0.001).until(3650.0);
    assert_eq!((story.tracker.episode(), story.known_good()), (None, vec!["v1"]));
}

#[test]
fn a_good_fix_is_not_blamed_for_the_errors_before_it() {
    let mut story = Story::settled();
    story.release("v2").until(3601.0).error_rate(0.4).until(3605.0);
    assert_eq!(story.confirmed(), Some(Cause::ReleaseRegression));
    story.release("v3").until(3610.0);
    story.complete();
    for (seconds, errors) in [(15, 0.38), (30, 0.33), (45, 0.28), (60, 0.22), (75, 0.16), (90, 0.11), (105, 0.04)] {
        story.error_rate(errors).until(3610.0 + f64::from(seconds));
        assert_eq!(story.confirmed(), None, "{errors} after {seconds} s");
    }
    story.error_rate(0.0).until(3800.0);
    assert_eq!((story.known_good(), story.tracker.episode()), (vec!["v1", "v3"], None));
}

#[test]
fn a_fix_that_is_as_bad_is_blamed_once_its_rollout_has_settled() {
    for (errors_of_v3, name) in [(0.4, "as bad"), (0.15, "better, and still bad")] {
        let mut story = Story::settled();
        story.release("v2").until(3601.0).error_rate(0.4).until(3605.0);
        story.release("v3").until(3610.0);
        story.complete().until(3630.0);
        assert_eq!(story.confirmed(), None, "{name}: too early");
        story.error_rate(errors_of_v3).until(3800.0);
        assert_eq!((story.confirmed(), story.target()), (Some(Cause::ReleaseRegression), Some("v1")), "{name}");
    }
}

#[test]
fn a_restart_during_a_bad_release_does_not_hide_the_release() {
    let mut story = Story::settled();
    story.release("v2").until(3601.0).error_rate(0.4).until(3605.0);
    story.restart().until(3610.0).complete().until(3700.0);
    assert_eq!((story.confirmed(), story.target()), (Some(Cause::ReleaseRegression), Some("v1")));
}

#[test]
fn a_release_during_an_incident_with_another_cause_is_not_rolled_back() {
    let mut story = Story::settled();
    story.error_rate(0.4).until(3610.0);
    assert_eq!(story.confirmed(), Some(Cause::Errors));
    story.release("v2").until(3615.0).complete().until(3800.0);
    assert_eq!(story.confirmed(), Some(Cause::Errors), "v1 had the same errors: a rollback heals nothing");
    story.fault(FaultKind::CrashLoop, 2).until(3805.0);
    assert_eq!(story.confirmed(), Some(Cause::ReleaseRegression), "what its own pods show is its own");
}

#[test]
fn never_healthy_has_no_rollback_target() {
    let mut story = Story::new();
    story.fault(FaultKind::CrashLoop, 4).workload(|w| w.available = 0).until(60.0);
    assert_eq!((story.confirmed(), story.target()), (Some(Cause::Crash), None));
    // A second release, as bad: the first one is not good because it was there before.
    story.release("v2").fault(FaultKind::CrashLoop, 1).until(90.0);
    assert_eq!((story.confirmed(), story.target()), (Some(Cause::Crash), None));
}

#[test]
fn a_burst_of_checks_counts_once() {
    for release in [false, true] {
        let mut story = Story::settled();
        if release {
            story.release("v2").until(3605.0);
        }
        story.error_rate(0.9).record();
        for _ in 0..10 {
            story.after(0.01);
            assert_eq!(story.confirmed(), None);
        }
        story.after(2.0);
        assert!(story.confirmed().is_some());
    }
}

#[test]
fn a_new_sample_of_a_bad_release_is_a_second_check() {
    let mut story = Story::settled();
    story.release("v2").until(3605.0);
    story.error_rate(0.12).record();
    assert!(story.next_check() < Duration::from_secs(1), "the next scrape is waited for closely");
    story.after(0.3);
    assert_eq!(story.confirmed(), None, "the same sample again");
    story.error_rate(0.24).after(0.3);
    assert!(story.confirmed().is_some());

    // Without a release the time between checks represents the scrapes.
    let mut story = Story::settled();
    story.error_rate(0.12).record();
    story.error_rate(0.24).after(0.3);
    assert_eq!(story.confirmed(), None);
}

#[test]
fn an_incident_is_not_over_while_only_the_old_pods_are_healthy() {
    let mut story = Story::settled();
    story.release("v2").fault(FaultKind::CrashLoop, 1).until(3602.0);
    let episode = story.tracker.episode().cloned().unwrap();
    // Between two crashes the new pod runs; the four old ones serve.
    story.no_faults().until(3610.0);
    assert_eq!((story.confirmed(), story.tracker.episode()), (None, Some(&episode)));
    story.fault(FaultKind::CrashLoop, 1).until(3612.0);
    assert_eq!(story.tracker.episode(), Some(&episode), "the same incident: its ladder continues");
}

#[test]
fn a_failed_check_is_no_evidence() {
    let mut story = Story::settled();
    story.visible = false;
    story.error_rate(0.9).until(3700.0);
    assert_eq!((story.evidence, story.confirmed()), (Some(Evidence::Unknown), None));
    story.visible = true;
    story.until(3705.0);
    assert_eq!(story.confirmed(), Some(Cause::Errors));
}

#[test]
fn the_next_check_comes_earlier_and_returns_to_the_interval() {
    let seconds = |story: &Story| story.next_check().as_secs();
    let mut story = Story::settled();
    assert_eq!(seconds(&story), 60);
    story.error_rate(0.9).record();
    assert_eq!(seconds(&story), 2, "confirmAfter");
    story.error_rate(0.0).after(2.0);
    assert_eq!(seconds(&story), 60);
    story.release("v2").record();
    assert_eq!(seconds(&story), 1, "releaseWatch.every");
    story.until(3900.0);
    assert_eq!(seconds(&story), 1);
    story.until(3910.0);
    assert_eq!(seconds(&story), 60, "releaseWatch.for is over");
    story.complete().until(4000.0);
    assert_eq!(story.known_good(), ["v1", "v2"]);
}

#[test]
fn known_good_is_bounded_newest_last_and_each_once() {
    let mut story = Story::settled();
    for n in 2..10 {
        let end = story.now + 60.0;
        story.release(&format!("v{n}")).until(end - 50.0).complete().until(end);
    }
    assert_eq!(story.known_good(), ["v5", "v6", "v7", "v8", "v9"]);
    let end = story.now + 60.0;
    story.release("v6").until(end - 50.0).complete().until(end);
    assert_eq!(story.known_good(), ["v5", "v7", "v8", "v9", "v6"]);
    assert_eq!(story.target(), Some("v9"));
}

#[test]
fn scaled_to_zero_proves_nothing() {
    let mut story = Story::settled();
    story.workload(|w| w.desired = 0).complete().until(3610.0);
    story.release("v2").complete().until(3700.0);
    assert_eq!(story.known_good(), ["v1"]);
}

#[test]
fn memory_survives_a_restart_of_the_operator_and_the_counters_do_not() {
    let mut story = Story::settled();
    story.release("v2").fault(FaultKind::CrashLoop, 1).until(3602.0);
    let mut status = ComponentStatus::default();
    story.tracker.persist(&mut status);
    // Through JSON, as the API server keeps it.
    let status: ComponentStatus = serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();
    let mut again = ComponentStatus::default();
    Tracker::restore(&status).persist(&mut again);
    assert_eq!(again, status);

    let episode = story.tracker.episode().cloned();
    story.tracker = Tracker::restore(&status);
    assert_eq!((story.confirmed(), story.target()), (None, Some("v1")));
    story.after(1.0);
    assert_eq!(story.confirmed(), None, "one check is not enough");
    story.after(1.0);
    assert_eq!(story.confirmed(), Some(Cause::ReleaseRegression));
    assert_eq!(story.tracker.episode(), episode.as_ref(), "the incident keeps its name");
    assert_eq!(story.tracker.release().unwrap().since, at(3600.0));
}

#[test]
fn a_release_while_the_operator_was_stopped_is_detected() {
    let mut story = Story::settled();
    let mut status = ComponentStatus::default();
    story.tracker.persist(&mut status);
    story.tracker = Tracker::restore(&status);
    story.now += 600.0;
    let end = story.now + 2.0;
    story.release("v2").fault(FaultKind::CrashLoop, 1).until(end);
    assert_eq!((story.confirmed(), story.target()), (Some(Cause::ReleaseRegression), Some("v1")));
}

#[test]
fn what_turned_bad_before_has_to_hold_before_it_is_known_good() {
    let mut story = Story::settled();
    story.release("v2").fault(FaultKind::CrashLoop, 1).until(3610.0);
    assert_eq!(story.confirmed(), Some(Cause::ReleaseRegression));
    story.release("v1").complete().until(3700.0);
    assert_eq!(story.known_good(), ["v1"]);
    let mut status = ComponentStatus::default();
    story.tracker.persist(&mut status);
    assert_eq!(status.known_bad.iter().map(|bad| bad.digest.as_str()).collect::<Vec<_>>(), ["v2"]);
    story.tracker = Tracker::restore(&status);
    // The same release again: it is healthy at first.
    story.release("v2").complete().until(3900.0);
    assert_eq!(story.known_good(), ["v1"], "not yet");
    story.until(4100.0);
    assert_eq!(story.known_good(), ["v1", "v2"], "healthy for as long as a release is watched");
    story.tracker.persist(&mut status);
    assert!(status.known_bad.is_empty() && status.known_good[0].replaced_at.is_some(), "{status:?}");
    assert_eq!(status.known_good[1].replaced_at, None);
}

/// metrics-server measures four times a minute at most; checks come every two seconds while a fault is suspected.
#[test]
fn one_sample_confirms_nothing_however_often_it_is_read() {
    let mut story = Story::new();
    let start = story.now;
    story.sampled_memory(95.0, start - 20.0).until(start + 40.0);
    assert_eq!((story.evidence, story.confirmed()), (Some(Evidence::Bad), None), "twenty checks at one sample");
    assert_eq!(story.next_check(), story.policy.limits.release_watch_every);
    let remembered: Vec<f64> = story.history.metrics["memory_usage"].last(9);
    assert_eq!(remembered, [95.0], "one point");
    story.sampled_memory(94.0, start + 40.0).record();
    assert_eq!(story.confirmed(), Some(Cause::Exhaustion));
    let problem = &story.last.as_ref().unwrap().1.problems[0].message;
    assert_eq!(problem, "memory_usage 94% > 90% (critical threshold) in container app of pod api-aaa-1");
    story.sampled_memory(94.0, start + 40.0).after(2.0);
    assert!(story.confirmed().is_some(), "what is confirmed stays so");
    // What else is wrong needs no sample.
    let mut story = Story::new();
    let start = story.now;
    story.sampled_memory(95.0, start - 20.0).fault(FaultKind::CrashLoop, 4).until(start + 4.0);
    assert!(story.confirmed().is_some());
}
