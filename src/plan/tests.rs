//! Every reason not to act has its row here, and every step of the ladder.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use strum::IntoEnumIterator as _;

use super::{guard::Guard, *};
use crate::{
    analyze::{
        observation::FaultKind,
        scenario::{Story, at, policy},
    },
    api::{Cause, Intent, Phase},
};

/// The usual story: v1 was good for an hour, v2 was released at 3600 s and is confirmed to crash by 3602 s.
fn crash_release(spec: Value) -> Story {
    let mut story = Story::settled_with(policy(spec));
    story.release("v2").fault(FaultKind::CrashLoop, 1).until(3602.0);
    story
}

/// The same without a release: half of v1's pods crash.
fn crash(spec: Value) -> Story {
    let mut story = Story::settled_with(policy(spec));
    story.fault(FaultKind::CrashLoop, 2).until(3602.0);
    story
}

/// Nothing is wrong, and v1's memory is foreseen to be at its limit in half an hour.
fn leak(spec: Value) -> Story {
    let mut story = Story::settled_with(policy(spec));
    story.leaking(0.9);
    (0..2).for_each(|_| _ = story.after(60.0));
    story
}

fn situation<'a>(story: &'a Story, unhealthy_components: usize, history: &'a [Past]) -> Situation<'a> {
    let (observation, assessment) = story.last.as_ref().unwrap();
    let (policy, tracker) = (&story.policy, &story.tracker);
    let component = &policy.components[0];
    Situation {
        policy,
        component,
        tracker,
        observation,
        assessment,
        forecast: Some(&story.forecast),
        foreseen: story.outlook.foreseen(),
        unhealthy_components,
        suspected_components: 0,
        history,
        now: at(story.now),
    }
}

fn check(story: &Story, history: &[Past]) -> Verdict {
    decide(&situation(story, 1, history))
}

/// An action on `component` in another incident, begun at `started` and judged 10 s later.
fn past(component: &str, phase: Phase, started: f64) -> Past {
    Past {
        component: component.into(),
        episode: "earlier".into(),
        step: 0,
        action: ActionKind::Restart,
        phase,
        outcome_unknown: false,
        ahead: false,
        started_at: Some(at(started)),
        finished_at: phase.is_final().then(|| at(started + 10.0)),
    }
}

/// What the story's step `step` came to, in the incident that is open.
fn tried(story: &Story, step: u32, phase: Phase) -> Past {
    let episode = story.tracker.episode().unwrap().id.clone();
    Past { episode, step, ..past("api", phase, 0.0) }
}

struct Deny {
    name: &'static str,
    guard: Guard,
    story: Story,
    history: Vec<Past>,
    unhealthy: usize,
    /// Seconds of the story.
    retry_at: Option<f64>,
    person: bool,
    /// What the message must say: the limit, and how to step in.
    words: &'static [&'static str],
}

fn deny(name: &'static str, guard: Guard, story: Story) -> Deny {
    Deny { name, guard, story, history: Vec::new(), unhealthy: 1, retry_at: None, person: false, words: &[] }
}

fn denials() -> Vec<Deny> {
    let changed = |mut story: Story, change: fn(&mut Story)| {
        change(&mut story);
        story
    };
    let never_healthy = |version: &str| {
        let mut story = Story::new();
        story.release(version).fault(FaultKind::CrashLoop, 1).until(10.0);
        story
    };
    let exhausted = crash_release(json!({}));
    let exhausted_history = vec![tried(&exhausted, 0, Phase::Ineffective)];
    let mut unknown = deny("an outcome is unknown", Guard::OutcomeUnknown, crash_release(json!({})));
    unknown.history = vec![Past { outcome_unknown: true, ..tried(&unknown.story, 1, Phase::Failed) }];
    vec![
        Deny {
            person: true,
            words: &["no remedy of api is for Crash", "remedies"],
            ..deny("an empty ladder", Guard::NoRemedy, {
                let components = json!([{"name": "api", "target": {"deployment": {"name": "api"}}, "remedies": []}]);
                crash(json!({"components": components}))
            })
        },
        Deny {
            person: true,
            words: &["never healthy", "no last known good", "repair it manually"],
            ..deny("bad from the first check on", Guard::NoKnownGood, never_healthy("v1"))
        },
        Deny {
            person: true,
            history: exhausted_history,
            words: &[
                "still unhealthy",
                "left for ReleaseRegression; tried in this incident: 1",
                "investigate manually",
            ],
            ..deny("the rollback did not help", Guard::LadderExhausted, exhausted)
        },
        Deny {
            words: &["spec.suspend is true", "set it to false"],
            ..deny("suspended", Guard::Suspended, crash_release(json!({"suspend": true})))
        },
        Deny {
            person: true,
            words: &["would apply Rollback to api", "spec.mode is Observe", "Approve or Auto"],
            ..deny("Observe", Guard::ObserveMode, crash_release(json!({"mode": "Observe"})))
        },
        Deny {
            words: &["11 s old", "10 s", "checking again"],
            ..deny("an old check", Guard::StaleData, changed(crash_release(json!({})), |s| s.now += 11.0))
        },
        Deny {
            words: &["Deployment/api is paused", "kubectl rollout resume"],
            person: true,
            ..deny(
                "paused",
                Guard::Paused,
                changed(crash_release(json!({})), |s| {
                    s.workload(|w| w.paused = true).after(1.0);
                }),
            )
        },
        Deny {
            person: true,
            words: &["revision 2 of Deployment/api", "panacea.dev/irreversible", "drops a column", "release a fix"],
            ..deny(
                "irreversible",
                Guard::Irreversible,
                changed(crash_release(json!({})), |s| {
                    s.workload(|w| w.irreversible = Some("drops a column".into())).after(1.0);
                }),
            )
        },
        Deny {
            person: true,
            words: &["has not run for 2 h", "safety.maxRollbackAge (1h)", "roll back manually"],
            ..deny("the good one is long gone", Guard::TooOld, {
                let mut story = Story::settled_with(policy(json!({"safety": {"maxRollbackAge": "1h"}})));
                story.release("v2").until(10_860.0);
                story.fault(FaultKind::CrashLoop, 1).until(10_870.0);
                story
            })
        },
        Deny {
            person: true,
            words: &["Deployment/web (spec.workloadRef)", "does not write", "kubectl rollout undo deployment/web"],
            ..deny(
                "its template is another object's",
                Guard::TemplateElsewhere,
                changed(crash_release(json!({})), |s| {
                    s.workload(|w| w.template_in = Some("Deployment/web".into())).after(1.0);
                }),
            )
        },
        Deny {
            person: true,
            words: &["Deployment/api", "Flux Kustomization shop/storefront", "revert the change in its source"],
            ..deny(
                "owned",
                Guard::GitOpsOwned,
                changed(crash_release(json!({})), |s| {
                    s.workload(|w| w.gitops_owner = gitops::flux(true)).after(1.0);
                }),
            )
        },
        Deny {
            person: true,
            unhealthy: 2,
            words: &["2 unhealthy components", "safety.maxUnhealthy", "(1)", "investigate manually"],
            ..deny("50% of one is one", Guard::MaxUnhealthy, crash_release(json!({})))
        },
        Deny {
            history: vec![past("other", Phase::Verifying, 3500.0)],
            words: &["1 action running (other)", "safety.maxConcurrent is 1", "Rollback of api starts when"],
            ..deny("another one is being healed", Guard::MaxConcurrent, crash_release(json!({})))
        },
        Deny {
            person: true,
            history: [100.0, 200.0, 300.0].map(|s| past("other", Phase::Succeeded, s)).into(),
            retry_at: Some(3700.0),
            words: &["3 actions", "safety.budget", "next attempt at", "raise safety.budget.actions"],
            ..deny("the budget is used up", Guard::Budget, crash_release(json!({})))
        },
        Deny {
            person: true,
            history: [100.0, 200.0, 300.0].map(|s| past("other", Phase::Succeeded, s)).into(),
            retry_at: Some(3900.0),
            words: &["3 actions"],
            ..deny(
                "the budget was lowered to one",
                Guard::Budget,
                crash_release(json!({"safety": {"budget": {"actions": 1}}})),
            )
        },
        Deny {
            history: vec![past("api", Phase::Succeeded, 3400.0)],
            retry_at: Some(3700.0),
            words: &["the last action on api started at", "safety.cooldown is 5m", "next attempt at"],
            ..deny("acted on just before", Guard::Cooldown, crash_release(json!({})))
        },
        Deny {
            person: true,
            words: &[
                "the outcome of Restart on api",
                "is unknown, so Rollback is not performed",
                "delete its Remediation to allow a retry",
            ],
            ..unknown
        },
        Deny {
            person: true,
            history: vec![Past { ahead: true, ..past("api", Phase::Succeeded, 600.0) }],
            unhealthy: 0,
            retry_at: Some(4200.0),
            words: &[
                "ahead of a failure",
                "prediction.horizon (1h)",
                "memory_usage grows",
                "next attempt at",
                "investigate",
            ],
            ..deny("a restart did not hold for an hour", Guard::ForeseenAgain, leak(json!({})))
        },
        Deny {
            person: true,
            unhealthy: 0,
            words: &["would apply CleanupMemory to api", "spec.mode is Observe"],
            ..deny("Observe, and nothing wrong yet", Guard::ObserveMode, leak(json!({"mode": "Observe"})))
        },
        Deny {
            person: true,
            unhealthy: 0,
            words: &["no remedy of api is for Exhaustion"],
            ..deny("no remedy for what is foreseen", Guard::NoRemedy, {
                let remedies = json!([{"action": "Rollback"}]);
                let target = json!({"deployment": {"name": "api"}});
                leak(json!({"components": [{"name": "api", "target": target, "remedies": remedies}]}))
            })
        },
        Deny {
            history: vec![past("api", Phase::Succeeded, 3500.0)],
            unhealthy: 0,
            retry_at: Some(3800.0),
            words: &["the last action on api started at", "safety.cooldown is 5m"],
            ..deny("healed just before, and to fail again", Guard::Cooldown, leak(json!({})))
        },
        Deny {
            unhealthy: 0,
            words: &["11 s old"],
            ..deny("foreseen by an old check", Guard::StaleData, changed(leak(json!({})), |s| s.now += 11.0))
        },
        Deny {
            unhealthy: 0,
            words: &["error_rate unknown (Unreachable)"],
            ..deny(
                "foreseen, and not measured now",
                Guard::StaleData,
                changed(leak(json!({})), |s| {
                    s.prometheus_down().after(1.0);
                }),
            )
        },
        Deny {
            person: true,
            history: [3000.0, 3100.0].map(|s| past("api", Phase::Ineffective, s)).into(),
            retry_at: Some(3710.0),
            words: &["last 2 actions on api did not help", "circuit breaker is open", "investigate manually"],
            ..deny(
                "its actions keep failing",
                Guard::CircuitBreaker,
                crash_release(json!({"safety": {"circuitBreaker": {"failureThreshold": 2, "recoveryTimeout": "10m"}}})),
            )
        },
    ]
}

#[test]
fn every_guard_refuses_with_its_limit_and_a_way_to_intervene() {
    let mut seen = BTreeSet::new();
    for Deny { name, guard, story, history, unhealthy, retry_at, person, words } in denials() {
        let Verdict::Refuse(refusal) = decide(&situation(&story, unhealthy, &history)) else {
            panic!("{name}: not refused")
        };
        assert_eq!(refusal.guard, guard, "{name}: {refusal:?}");
        assert_eq!(refusal.retry_at, retry_at.map(at), "{name}: {refusal:?}");
        assert_eq!(refusal.calls_person, person, "{name}: {refusal:?}");
        for word in words {
            assert!(refusal.message.contains(word), "{name}: {word:?} is not in {:?}", refusal.message);
        }
        assert!(refusal.message.len() <= 1024, "{name}: too long for an event");
        seen.insert(guard);
    }
    // Only ever met just before an action: `decide` says Nothing to what is not confirmed.
    let mut story = Story::settled();
    story.error_rate(0.9).record();
    assert_eq!(check(&story, &[]), Verdict::Nothing);
    let refusal = still_allowed(&situation(&story, 1, &[]), Ground::Unhealthy(""), ActionKind::Restart).unwrap_err();
    assert!(refusal.message.contains("was not unhealthy in 2 consecutive checks"), "{refusal:?}");
    seen.insert(refusal.guard);
    assert_eq!(seen, Guard::iter().collect());
}

fn proposal(story: &Story, history: &[Past]) -> ActionPlan {
    match check(story, history) {
        Verdict::Propose(proposal) => *proposal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bad_release_is_rolled_back_with_a_reason() {
    let proposal = proposal(&crash_release(json!({})), &[]);
    assert_eq!((proposal.action, proposal.cause, proposal.step), (ActionKind::Rollback, Cause::ReleaseRegression, 0));
    assert_eq!(
        (proposal.release.unwrap().digest.as_str(), proposal.intent.template().unwrap().digest.as_str()),
        ("v2", "v1")
    );
    for word in [
        "1 of 5 pods of the newest template have CrashLoop",
        "within 2 s of revision 2",
        "shop/api:v2",
        "rollback target revision 1 was the last known good",
    ] {
        assert!(proposal.why.contains(word), "{word:?} is not in {:?}", proposal.why);
    }
}

#[test]
fn crashes_without_a_release_are_restarted() {
    let proposal = proposal(&crash(json!({})), &[]);
    assert_eq!(
        (proposal.action, proposal.cause, proposal.step, proposal.intent.template().cloned()),
        (ActionKind::Restart, Cause::Crash, 4, None)
    );
}

#[test]
fn the_ladder_is_climbed_one_step_an_attempt() {
    let remedies = json!([{"action": "Restart"}, {"action": "Restart", "for": ["Exhaustion"]}, {"action": "Rollback"}, {"action": "Restart"}]);
    let components = json!([{"name": "api", "target": {"deployment": {"name": "api"}}, "remedies": remedies}]);
    let story = crash_release(json!({"components": components}));
    let mut history = Vec::new();
    for (step, end) in [(0, Phase::Ineffective), (2, Phase::Rejected), (3, Phase::Failed)] {
        let next = proposal(&story, &history);
        assert_eq!(next.step, step);
        history.push(tried(&story, step, Phase::Verifying));
        assert_eq!(check(&story, &history), Verdict::Nothing, "one at a time");
        history.last_mut().unwrap().phase = end;
    }
    let Verdict::Refuse(refusal) = check(&story, &history) else { panic!("three were tried") };
    assert_eq!((refusal.guard, refusal.calls_person), (Guard::LadderExhausted, true));
    // What was tried in another incident does not count.
    for past in &mut history {
        past.episode = "earlier".into();
    }
    assert_eq!(proposal(&story, &history).step, 0);
}

#[test]
fn approval_is_required_by_the_mode_or_by_the_remedy() {
    let components = |approval: &str| json!([{"name": "api", "target": {"deployment": {"name": "api"}}, "remedies": [{"action": "Rollback", "approval": approval}]}]);
    for (mode, approval, required) in [
        ("Auto", "AsMode", false),
        ("Auto", "Required", true),
        ("Approve", "AsMode", true),
        ("Approve", "Required", true),
    ] {
        let story = crash_release(json!({"mode": mode, "components": components(approval)}));
        assert_eq!(proposal(&story, &[]).approval_required, required, "{mode} {approval}");
    }
}

#[test]
fn an_open_breaker_lets_one_through_after_its_time() {
    let spec =
        json!({"safety": {"cooldown": "0s", "circuitBreaker": {"failureThreshold": 2, "recoveryTimeout": "60s"}}});
    let mut story = crash_release(spec);
    let mut history: Vec<Past> = [3580.0, 3590.0].map(|s| past("api", Phase::Failed, s)).into();
    let refused = |story: &Story, history: &[Past]| match check(story, history) {
        Verdict::Refuse(refusal) => Some((refusal.guard, refusal.retry_at)),
        _ => None,
    };
    assert_eq!(refused(&story, &history), Some((Guard::CircuitBreaker, Some(at(3660.0)))));
    story.until(3661.0);
    let half_open = proposal(&story, &history);
    history.push(Past { step: half_open.step, ..past("api", Phase::Running, 3661.0) });
    assert_eq!(check(&story, &history), Verdict::Nothing, "one, not two");
    history[2].phase = Phase::Ineffective;
    history[2].finished_at = Some(at(3661.0));
    story.after(1.0);
    assert_eq!(refused(&story, &history), Some((Guard::Budget, Some(at(7180.0)))), "also three in an hour");
    history[0].started_at = Some(at(1.0));
    assert_eq!(refused(&story, &history), Some((Guard::CircuitBreaker, Some(at(3721.0)))), "open again");
    // A success closes it.
    history[2].phase = Phase::Succeeded;
    assert_eq!(refused(&story, &history), None);
}

#[test]
fn what_was_never_begun_counts_for_nothing() {
    let story = crash_release(
        json!({"safety": {"budget": {"actions": 1}, "circuitBreaker": {"failureThreshold": 1, "recoveryTimeout": "24h"}}}),
    );
    let history =
        [Phase::Rejected, Phase::Expired].map(|phase| Past { started_at: None, ..past("api", phase, 3600.0) });
    assert_eq!(proposal(&story, &history).step, 0);
}

mod ahead;
mod cleanup;
mod confirmation;
mod databases;
mod gitops;
mod state;
