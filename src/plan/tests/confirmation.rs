//! How many components are unhealthy, and which of them can be checked.

use super::*;

#[test]
fn max_unhealthy_is_a_share_of_all_components_rounded_up() {
    for (limit, total, allowed) in
        [("50%", 1, 1), ("50%", 3, 2), ("50%", 4, 2), ("1%", 4, 1), ("0%", 4, 0), ("100%", 4, 4)]
    {
        let components: Vec<Value> =
            (0..total).map(|n| json!({"name": format!("c{n}"), "target": {"deployment": {"name": "api"}}})).collect();
        let story = crash_release(json!({"components": components, "safety": {"maxUnhealthy": limit}}));
        for unhealthy in 1..=total {
            let verdict = decide(&situation(&story, unhealthy, &[]));
            assert_eq!(matches!(verdict, Verdict::Propose(_)), unhealthy <= allowed, "{limit} of {total}: {unhealthy}");
        }
    }
}

#[test]
fn when_other_components_become_suspect_they_are_checked_first() {
    let components: Vec<Value> =
        (0..3).map(|n| json!({"name": format!("c{n}"), "target": {"deployment": {"name": "api"}}})).collect();
    let story = crash_release(json!({"components": components, "safety": {"maxUnhealthy": 2}}));
    let verdict = |suspected_components| decide(&Situation { suspected_components, ..situation(&story, 1, &[]) });
    assert!(matches!(verdict(1), Verdict::Propose(_)), "two are allowed");
    let Verdict::Refuse(refusal) = verdict(2) else { panic!("not refused") };
    assert_eq!((refusal.guard, refusal.calls_person), (Guard::NotConfirmed, false));
    assert!(
        refusal.message.contains("safety.maxUnhealthy") && refusal.message.contains("checking again"),
        "{refusal:?}"
    );
}

#[test]
fn a_component_in_a_crash_loop_is_unhealthy_also_while_its_container_runs_for_a_moment() {
    let mut story = crash_release(json!({}));
    let limits = story.policy.limits.clone();
    story.no_faults().after(1.0);
    assert!(!story.tracker.is_confirmed_bad(&limits), "nothing is done in such a moment");
    assert!(story.tracker.is_unhealthy(&limits, at(story.now)), "and it still counts");
    assert!(!story.tracker.is_unhealthy(&limits, at(story.now + 60.0)), "but not for ever");
}

#[test]
fn no_action_on_a_deployment_that_cannot_be_checked() {
    let mut story = crash_release(json!({}));
    story.error_rate(0.9).visible = false;
    story.until(3660.0);
    assert_eq!(check(&story, &[]), Verdict::Nothing);
    let refusal = still_allowed(&situation(&story, 1, &[]), Ground::Unhealthy(""), ActionKind::Rollback).unwrap_err();
    assert_eq!(refusal.guard, Guard::StaleData);
    assert!(refusal.message.contains("Forbidden"), "{refusal:?}");
}
