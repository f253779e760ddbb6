//! When memory is cleaned up, and when that is passed over.

use super::*;

/// v1 fills its memory above the critical threshold, in several checks.
fn full(spec: Value) -> Story {
    let mut story = Story::settled_with(policy(spec));
    story.leaking(0.9).memory(95.0).until(3602.0);
    story
}

fn acts(story: &Story, history: &[Past]) -> (ActionKind, u32) {
    let ActionPlan { action, step, .. } = proposal(story, history);
    (action, step)
}

#[test]
fn leaking_memory_is_cleaned_up_first_with_a_reason() {
    let story = full(json!({}));
    let proposal = proposal(&story, &[]);
    assert_eq!((proposal.action, proposal.cause), (ActionKind::CleanupMemory, Cause::Exhaustion));
    assert!(matches!((&proposal.foreseen, &proposal.intent), (None, Intent::CleanupMemory { hook: None, .. })));
    assert_eq!(proposal.intent.memory().cloned(), story.forecast.memory);
    assert!(proposal.why.contains("memory_usage has grown from 30% to 70%"), "{}", proposal.why);
    assert_eq!(acts(&story, &[tried(&story, 3, Phase::Ineffective)]), (ActionKind::Restart, 4));
}

#[test]
fn what_no_cleanup_can_help_is_passed_over() {
    let restart = (ActionKind::Restart, 4);
    let mut alone = full(json!({}));
    alone.workload(|w| (w.desired, w.replicas, w.updated, w.available) = (1, 1, 1, 1)).after(1.0);
    assert_eq!(acts(&alone, &[]), restart, "nobody would stand in for its only pod");
    let mut missing = full(json!({}));
    missing.workload(|w| w.available = 3).after(1.0);
    assert_eq!(acts(&missing, &[]), restart, "one pod is missing already");
    let mut young = full(json!({}));
    young.forecast.memory = None;
    assert_eq!(acts(&young, &[]), restart, "full, and not seen to grow");
    let mut little = full(json!({}));
    let growth = little.forecast.memory.as_mut().unwrap();
    (growth.leak, growth.relieved_at) = (false, growth.baseline * 1.2);
    assert_eq!(acts(&little, &[]), restart, "it grew by 40%");
    little.forecast.memory.as_mut().unwrap().leak = true;
    assert_eq!(acts(&little, &[]).0, ActionKind::CleanupMemory, "but for good");
    let mut cpu = Story::settled();
    cpu.leaking(0.9).metric(crate::analyze::metric::CPU_USAGE, 99.0).until(3602.0);
    assert_eq!(acts(&cpu, &[]), restart, "it is CPU that runs out");
}

#[test]
fn a_hook_needs_no_second_pod() {
    let target = json!({"deployment": {"name": "api"}});
    let remedies = json!([{"action": "CleanupMemory", "hook": {"url": "http://api/gc", "method": "PUT"}}, {"action": "CleanupMemory"}]);
    let mut story = full(json!({"components": [{"name": "api", "target": target, "remedies": remedies}]}));
    story.workload(|w| (w.desired, w.replicas, w.updated, w.available) = (1, 1, 1, 1)).after(1.0);
    let Intent::CleanupMemory { hook: Some(hook), .. } = proposal(&story, &[]).intent else { panic!("no hook") };
    assert_eq!((hook.url.as_str(), hook.method.to_string().as_str()), ("http://api/gc", "PUT"));
    let ground = Ground::Unhealthy(&story.tracker.episode().unwrap().id);
    let situation = situation(&story, 1, &[]);
    assert!(ladder::is_last(&situation, ground, 0, Cause::Exhaustion), "the second one needs a second pod");
    let four = full(json!({"components": [{"name": "api", "target": target, "remedies": remedies}]}));
    let last = |step| ladder::is_last(&super::situation(&four, 1, &[]), ground, step, Cause::Exhaustion);
    assert_eq!([last(0), last(1)], [false, true]);
}
