//! Whatever happens in the world, and however the actions end, some things never happen.
//!
//! A simulation: random checks of healthy and unhealthy components; every proposal becomes a Remediation with a random
//! fate. Each of its writes is checked against the records of the simulation, not against the sums of the guards.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::json;

use super::*;
use crate::{
    analyze::{
        observation::FaultKind,
        scenario::{Story, at, policy},
    },
    api::Phase,
};

#[derive(Debug, Clone)]
enum Change {
    Nothing,
    Release(u8),
    Restart,
    Complete,
    Fault(FaultKind, u32),
    Errors(f64),
    ReleaseErrors(f64),
    PrometheusDown,
    Leaking(f64),
    Relieved,
    Visible(bool),
    Scale(u32),
    Paused(bool),
    Deadline,
}

/// A change of one component, which is checked after it.
#[derive(Debug, Clone)]
struct Step {
    seconds: f64,
    component: usize,
    change: Change,
    /// The Remediation that is processed after the check, and whether its effect is good.
    remediation: Option<(usize, bool)>,
    /// The policy is edited.
    mode: Option<(Mode, bool)>,
}

fn change() -> impl Strategy<Value = Change> {
    let fault = prop_oneof![Just(FaultKind::CrashLoop), Just(FaultKind::OomKilled), Just(FaultKind::ImagePull)];
    prop_oneof![
        8 => Just(Change::Nothing),
        3 => (1..5_u8).prop_map(Change::Release),
        1 => Just(Change::Restart),
        4 => Just(Change::Complete),
        4 => (fault, 1..5_u32).prop_map(|(kind, count)| Change::Fault(kind, count)),
        3 => prop_oneof![Just(0.0), Just(0.07), 0.0..1.0_f64].prop_map(Change::Errors),
        2 => prop_oneof![Just(0.0), 0.0..1.0_f64].prop_map(Change::ReleaseErrors),
        1 => Just(Change::PrometheusDown),
        3 => prop_oneof![Just(0.2), 0.45..1.0_f64].prop_map(Change::Leaking),
        2 => Just(Change::Relieved),
        1 => any::<bool>().prop_map(Change::Visible),
        1 => (0..6_u32).prop_map(Change::Scale),
        1 => prop::bool::weighted(0.2).prop_map(Change::Paused),
        1 => Just(Change::Deadline),
    ]
}

fn mode() -> impl Strategy<Value = (Mode, bool)> {
    (prop_oneof![1 => Just(Mode::Observe), 2 => Just(Mode::Approve), 6 => Just(Mode::Auto)], prop::bool::weighted(0.1))
}

fn step() -> impl Strategy<Value = Step> {
    let seconds = prop_oneof![4 => 0.0..0.5_f64, 12 => 0.9..3.0_f64, 2 => 10.0..400.0_f64];
    let remediation = prop::option::weighted(0.4, (0..4_usize, prop::bool::weighted(0.4)));
    (seconds, 0..3_usize, change(), remediation, prop::option::weighted(0.02, mode())).prop_map(
        |(seconds, component, change, remediation, mode)| Step { seconds, component, change, remediation, mode },
    )
}

fn any_policy() -> impl Strategy<Value = ValidPolicy> {
    let detection = (1..4_u32, 1..4_u32, prop_oneof![Just("100ms"), Just("2s"), Just("10s")]);
    let safety = (
        prop_oneof![Just(json!("50%")), Just(json!("100%")), Just(json!(1))],
        1..3_u32,
        (1..5_u32, prop_oneof![Just("1m"), Just("10m"), Just("1h")]),
        prop_oneof![Just("0s"), Just("20s"), Just("5m")],
        (1..4_u32, prop_oneof![Just("1s"), Just("60s"), Just("10m")]),
    );
    let ladder = prop_oneof![
        Just(json!(null)),
        Just(json!([{"action": "Restart"}, {"action": "Rollback"}])),
        Just(
            json!([{"action": "Rollback", "approval": "Required"}, {"action": "Restart", "for": ["Unknown", "Errors", "Crash", "ReleaseRegression"]}])
        ),
    ];
    (mode(), detection, safety, ladder).prop_map(|((mode, suspend), detection, safety, ladder)| {
        let components: Vec<_> = (0..3)
            .map(|n| {
                let mut component =
                    json!({"name": format!("c{n}"), "target": {"deployment": {"name": format!("c{n}")}}});
                if !ladder.is_null() {
                    component["remedies"] = ladder.clone();
                }
                component
            })
            .collect();
        policy(json!({
            "mode": mode.to_string(),
            "suspend": suspend,
            "components": components,
            "detection": {"unhealthyAfter": detection.0, "healthyAfter": detection.1, "confirmAfter": detection.2},
            "safety": {
                "maxUnhealthy": safety.0,
                "maxConcurrent": safety.1,
                "budget": {"actions": safety.2.0, "window": safety.2.1},
                "cooldown": safety.3,
                "circuitBreaker": {"failureThreshold": safety.4.0, "recoveryTimeout": safety.4.1},
            },
        }))
    })
}

/// One check, as stored by the simulation.
struct Look {
    bad: bool,
    /// Nothing is unknown, and its memory runs out within the horizon.
    doomed: bool,
    at: Timestamp,
    template: String,
}

struct World {
    policy: ValidPolicy,
    now: f64,
    stories: Vec<Story>,
    looks: Vec<Vec<Look>>,
    /// Templates with a healthy check while their rollout was complete.
    ever_good: Vec<BTreeSet<String>>,
    history: Vec<Past>,
    proposals: Vec<ActionPlan>,
}

impl World {
    fn new(policy: ValidPolicy) -> Self {
        Self {
            now: 0.0,
            stories: vec![Story::with(policy.clone()); 3],
            looks: (0..3).map(|_| Vec::new()).collect(),
            ever_good: vec![BTreeSet::new(); 3],
            history: Vec::new(),
            proposals: Vec::new(),
            policy,
        }
    }

    fn situation(&self, component: usize) -> Situation<'_> {
        let story = &self.stories[component];
        let (observation, assessment) = story.last.as_ref().unwrap();
        let limits = &self.policy.limits;
        Situation {
            policy: &self.policy,
            component: &self.policy.components[component],
            tracker: &story.tracker,
            observation,
            assessment,
            forecast: Some(&story.forecast),
            foreseen: story.outlook.foreseen(),
            unhealthy_components: self.unhealthy(limits),
            suspected_components: 0,
            history: &self.history,
            now: at(self.now),
        }
    }

    fn unhealthy(&self, limits: &crate::api::Limits) -> usize {
        self.stories.iter().filter(|story| story.tracker.is_confirmed_bad(limits)).count()
    }

    fn record(&mut self, component: usize) {
        let story = &mut self.stories[component];
        story.now = self.now;
        story.record();
        let (observation, assessment) = story.last.as_ref().unwrap();
        let seen = observation.target.known().is_some();
        let template = story.workload.release.digest.clone();
        let healthy = assessment.problems.is_empty() && assessment.unknowns.is_empty();
        if seen && healthy && story.workload.rollout_complete() {
            self.ever_good[component].insert(template.clone());
        }
        let bad = seen && assessment.is_bad();
        let doomed = seen && !bad && assessment.unknowns.is_empty() && story.risk > 0.2;
        self.looks[component].push(Look { bad, doomed, at: observation.at, template });
    }

    fn step(&mut self, step: &Step) {
        self.now += step.seconds;
        if let Some((mode, suspend)) = step.mode {
            (self.policy.mode, self.policy.suspend) = (mode, suspend);
        }
        apply(&mut self.stories[step.component], &step.change);
        self.record(step.component);
        if let Verdict::Propose(proposal) = decide(&self.situation(step.component)) {
            self.propose(step.component, *proposal);
        }
        if let Some((index, well)) = step.remediation {
            let open: Vec<usize> = (0..self.history.len()).filter(|at| !self.history[*at].phase.is_final()).collect();
            if !open.is_empty() {
                self.take_up(open[index % open.len()], well);
            }
        }
    }

    fn propose(&mut self, component: usize, proposal: ActionPlan) {
        self.assert_may_act(component, proposal.action, proposal.foreseen.is_some(), "proposed");
        assert!(proposal.approval_required || self.policy.mode == Mode::Auto);
        let of_this = |past: &&Past| past.component == proposal.component;
        assert!(self.history.iter().filter(of_this).all(|past| past.phase.is_final()), "two at once");
        let again = |past: &Past| past.episode == proposal.episode && past.step == proposal.step;
        assert!(!self.history.iter().filter(of_this).any(again), "step {} twice in an incident", proposal.step);
        let running = &self.stories[component].workload.release.digest;
        assert_eq!(proposal.release.as_ref().map(|from| &from.digest), Some(running));
        if let Some(to) = proposal.intent.template() {
            assert_ne!(&to.digest, running, "a rollback to what runs");
            assert!(self.ever_good[component].contains(&to.digest), "a rollback to what was never healthy");
        }
        let back = [ActionKind::Rollback, ActionKind::RollbackState];
        assert_eq!(proposal.intent.template().is_some(), back.contains(&proposal.action));
        let phase = if proposal.approval_required { Phase::AwaitingApproval } else { Phase::Pending };
        self.history.push(Past {
            component: proposal.component.clone(),
            episode: proposal.episode.clone(),
            step: proposal.step,
            action: proposal.action,
            phase,
            outcome_unknown: false,
            ahead: proposal.foreseen.is_some(),
            started_at: None,
            finished_at: None,
        });
        let config = [ActionKind::RollbackConfig, ActionKind::RollbackState];
        assert_eq!(proposal.intent.config().is_some(), config.contains(&proposal.action));
        assert_eq!(proposal.intent.memory().is_some(), proposal.action == ActionKind::CleanupMemory);
        self.proposals.push(proposal);
    }

    /// The remediation controller, in small: observe again, run the guards again, act, verify.
    fn take_up(&mut self, index: usize, well: bool) {
        let name = self.history[index].component.clone();
        let component = self.policy.components.iter().position(|component| component.name == name).unwrap();
        let action = self.history[index].action;
        match self.history[index].phase {
            Phase::AwaitingApproval if !well => self.end(index, Phase::Rejected),
            Phase::AwaitingApproval => self.history[index].phase = Phase::Pending,
            Phase::Pending | Phase::Blocked => {
                self.record(component);
                let proposal = &self.proposals[index];
                let ground = match &proposal.foreseen {
                    Some(foreseen) => Ground::Foreseen(foreseen),
                    None => Ground::Unhealthy(&proposal.episode),
                };
                if still_allowed(&self.situation(component), ground, action).is_err() {
                    self.history[index].phase = Phase::Blocked;
                    if !well {
                        self.end(index, Phase::Expired);
                    }
                    return;
                }
                let ahead = self.history[index].ahead;
                self.assert_may_act(component, action, ahead, "begun");
                let episode = self.history[index].episode.clone();
                self.assert_limits_allow(component, ahead.then_some(&episode));
                self.history[index].phase = Phase::Running;
                self.history[index].started_at = Some(at(self.now));
            }
            Phase::Running if !well => self.end(index, Phase::Failed),
            Phase::Running => {
                let story = &mut self.stories[component];
                match self.proposals[index].intent.template() {
                    Some(to) => apply(story, &Change::Release(to.digest[1..].parse().unwrap())),
                    None => apply(story, &Change::Restart),
                }
                self.history[index].phase = Phase::Verifying;
            }
            Phase::Verifying => self.end(index, if well { Phase::Succeeded } else { Phase::Ineffective }),
            _ => unreachable!("final ones are not taken up"),
        }
    }

    fn end(&mut self, index: usize, phase: Phase) {
        self.history[index].phase = phase;
        self.history[index].finished_at = Some(at(self.now));
    }

    fn assert_may_act(&self, component: usize, action: ActionKind, ahead: bool, what: &str) {
        assert_ne!(self.policy.mode, Mode::Observe, "{what} in Observe");
        assert!(!self.policy.suspend, "{what} while suspended");
        let story = &self.stories[component];
        let (observation, _) = story.last.as_ref().unwrap();
        let workload = observation.target.known().and_then(|target| target.workload()).expect("acted on Unknown");
        assert!(!workload.paused, "{what} while paused");
        let age = at(self.now).duration_since(observation.at);
        assert!(age <= guard::FRESH, "{what} on a look that is {age:#} old");
        // The last consecutive checks were bad, or doomed, of one template, without an Unknown. A foreseen failure stays
        // until it is averted: then the last check alone is doomed.
        let looks = &self.looks[component];
        let enough = if ahead { 1 } else { self.policy.limits.unhealthy_after as usize };
        assert!(looks.len() >= enough, "{what} after {} looks", looks.len());
        let last = &looks[looks.len() - enough..];
        assert!(
            last.iter().all(|look| if ahead { look.doomed } else { look.bad }),
            "{what} without {enough} such looks"
        );
        assert!(last.windows(2).all(|pair| pair[0].template == pair[1].template && pair[0].at <= pair[1].at));
        let limits = &self.policy.limits;
        assert!(self.unhealthy(limits) <= limits.max_unhealthy, "{what} {action} beyond maxUnhealthy");
    }

    /// Sums of the simulation's own.
    fn assert_limits_allow(&self, component: usize, ahead: Option<&String>) {
        let limits = &self.policy.limits;
        let now = at(self.now);
        let name = &self.policy.components[component].name;
        let acting = |past: &&Past| matches!(past.phase, Phase::Running | Phase::Verifying);
        assert!(self.history.iter().filter(acting).count() < limits.max_concurrent, "beyond maxConcurrent");
        let ago = |past: &Past| past.started_at.map(|started| now.duration_since(started));
        let recent = self.history.iter().filter_map(ago).filter(|ago| *ago < limits.budget_window).count();
        assert!(recent < limits.budget_actions, "beyond the budget");
        let mut mine: Vec<&Past> = self.history.iter().filter(|past| past.component == *name).collect();
        assert!(mine.iter().copied().filter_map(ago).all(|ago| ago >= limits.cooldown), "within the cooldown");
        let held = |past: &&Past| past.ahead && ago(past).is_some_and(|ago| ago < limits.prediction_horizon);
        let other = |past: &&&Past| ahead.is_some_and(|episode| past.episode != *episode);
        assert!(!mine.iter().filter(other).any(held), "ahead again within the horizon");
        mine.retain(|past| past.started_at.is_some() && past.finished_at.is_some());
        mine.sort_by_key(|past| past.finished_at);
        let bad = |past: &&&Past| matches!(past.phase, Phase::Failed | Phase::Ineffective);
        if mine.iter().rev().take_while(bad).count() >= limits.breaker_threshold {
            let ended = mine.last().unwrap().finished_at.unwrap();
            assert!(now.duration_since(ended) >= limits.breaker_recovery, "through an open breaker");
        }
    }
}

fn apply(story: &mut Story, change: &Change) {
    match change {
        Change::Nothing => {}
        Change::Release(version) => _ = story.release(&format!("v{version}")),
        Change::Restart => _ = story.restart(),
        Change::Complete => _ = story.complete(),
        Change::Fault(kind, count) => _ = story.fault(*kind, *count),
        Change::Errors(value) => _ = story.error_rate(*value),
        Change::ReleaseErrors(value) => _ = story.release_error_rate(*value),
        Change::PrometheusDown => _ = story.prometheus_down(),
        Change::Leaking(risk) => _ = story.leaking(*risk),
        Change::Relieved => _ = story.relieved(),
        Change::Visible(visible) => story.visible = *visible,
        Change::Scale(pods) => _ = story.workload(|w| w.desired = *pods),
        Change::Paused(paused) => _ = story.workload(|w| w.paused = *paused),
        Change::Deadline => _ = story.workload(|w| w.progress_deadline_exceeded = true),
    }
}

#[test]
fn whatever_happens_no_limit_is_broken() {
    let config = Config { failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    // So that it is known to have tried: proposals by action, and how the actions ended.
    let tried: Cell<BTreeMap<String, u32>> = Cell::default();
    let outcome = runner.run(&(any_policy(), prop::collection::vec(step(), 1..300)), |(policy, steps)| {
        let mut world = World::new(policy);
        for step in &steps {
            world.step(step);
        }
        let mut sums = tried.take();
        for past in &world.history {
            let ahead = if past.ahead { " ahead" } else { "" };
            *sums.entry(format!("{}{ahead} {}", past.action, past.phase)).or_default() += 1;
        }
        tried.set(sums);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let sums = tried.take();
    for action in ["Rollback", "Restart", "Restart ahead"] {
        for phase in ["Succeeded", "Ineffective", "Failed", "Rejected", "Expired"] {
            let count = sums.get(&format!("{action} {phase}")).copied().unwrap_or_default();
            assert!(count >= 3, "the simulation saw {action} {phase} {count} times only: {sums:?}");
        }
    }
}
