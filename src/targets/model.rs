//! Model tests of procedures: an exhaustive walk over every order of answers, losses and crashes.
//!
//! A [`World`] is the target of a procedure: it lists every observation that is possible now, and every pair of new world
//! and answer that an effect may have. The walk crashes the operator after each store and after each effect, withdraws
//! the action at any time where the world says so, and visits each (world, progress, time) once.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::executor::{Moment, Procedure, Step};
use crate::{api::RemediationReason, plan::revalidate::Withdrawn};

/// The target of a procedure, as far as its test needs it.
pub trait World<P: Procedure>: Clone + Debug + PartialEq {
    /// This world at a time, after all changes that certainly happen without action until then.
    fn at(&self, _now: Timestamp) -> Self {
        self.clone()
    }

    /// Every observation that is possible now, faults included.
    fn observations(&self, progress: &P::Progress) -> Vec<P::Seen>;

    /// Every result of an effect: the world after it, and the answer that comes back.
    fn results(&self, effect: &P::Effect, progress: &P::Progress) -> Vec<(Self, P::Answer)>;

    /// Every world that may follow without action while time passes; this one is always possible as well.
    fn later(&self) -> Vec<Self> {
        Vec::new()
    }

    /// The world after the operator process ended: memory is lost.
    fn crashed(&self) -> Self {
        self.clone()
    }

    /// Why this world, or this end of the action in it, breaks a guarantee.
    fn violation(&self, step: &Step<P::Progress, P::Effect>) -> Option<String>;
}

/// The limits of a walk.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The action must have ended by then, after its start.
    pub deadline: SignedDuration,
    /// Waits are rounded up to this, so that there are fewer moments.
    pub tick: Duration,
    /// Crashes of the operator process in one story.
    pub crashes: u32,
    /// Whether the policy may withdraw the action at any moment.
    pub withdrawals: bool,
    /// States that are visited at most; more is an error of the model.
    pub states: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: SignedDuration::from_mins(20),
            tick: Duration::from_secs(1),
            crashes: 2,
            withdrawals: true,
            states: 2_000_000,
        }
    }
}

/// The result of a walk.
#[derive(Debug, Default)]
pub struct Report {
    pub states: usize,
    /// Ends that were reached, by their names.
    pub ends: HashMap<String, usize>,
    /// The first story that breaks a guarantee.
    pub violation: Option<String>,
}

impl Report {
    /// # Panics
    /// When a guarantee is broken, or no end was reached.
    pub fn assert_holds(&self) {
        assert!(self.violation.is_none(), "{}", self.violation.as_deref().unwrap_or_default());
        assert!(!self.ends.is_empty(), "no end was reached in {} states", self.states);
    }

    /// # Panics
    /// When the walk did not find a broken guarantee: the model would not notice this fault.
    pub fn assert_caught(&self) {
        assert!(self.violation.is_some(), "the model does not notice the fault: {self:?}");
    }

    pub fn reached(&self, end: &str) -> bool {
        self.ends.keys().any(|name| name.contains(end))
    }
}

pub fn start() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

struct State<P: Procedure, W> {
    world: W,
    progress: P::Progress,
    now: Timestamp,
    crashes: u32,
    withdrawn: bool,
    story: Vec<String>,
}

impl<P: Procedure, W: Clone> Clone for State<P, W> {
    fn clone(&self) -> Self {
        Self {
            world: self.world.clone(),
            progress: self.progress.clone(),
            now: self.now,
            crashes: self.crashes,
            withdrawn: self.withdrawn,
            story: self.story.clone(),
        }
    }
}

impl<P: Procedure, W: World<P>> State<P, W> {
    fn key(&self) -> String {
        format!("{:?}|{:?}|{}|{}|{}", self.world, self.progress, self.now, self.crashes, self.withdrawn)
    }

    fn then(&self, line: impl Into<String>) -> Self {
        let mut next = self.clone();
        next.story.push(line.into());
        next
    }
}

/// Walks through every story that begins in `world` with `progress`.
pub fn walk<P: Procedure, W: World<P>>(procedure: &P, world: W, progress: P::Progress, limits: Limits) -> Report {
    let mut report = Report::default();
    let mut seen_states = HashSet::new();
    let first = State { world, progress, now: start(), crashes: 0, withdrawn: false, story: Vec::new() };
    let mut open: Vec<State<P, W>> = vec![first];
    while let Some(mut state) = open.pop() {
        state.world = state.world.at(state.now);
        if !seen_states.insert(state.key()) {
            continue;
        }
        report.states += 1;
        if report.states > limits.states {
            report.violation = Some(format!("more than {} states; the model is too fine", limits.states));
            return report;
        }
        if state.now.duration_since(start()) > limits.deadline {
            report.violation =
                Some(tale(&state.story, &format!("the action has not ended within {:#}", limits.deadline)));
            return report;
        }
        let mut withdrawals = vec![state.withdrawn];
        if limits.withdrawals && !state.withdrawn {
            withdrawals.push(true);
        }
        for withdrawn in withdrawals {
            for seen in state.world.observations(&state.progress) {
                let mut state = state.then(format!("sees {seen:?}{}", if withdrawn { ", withdrawn" } else { "" }));
                state.withdrawn = withdrawn;
                let moment = moment(&state);
                let step = procedure.next(&state.progress, &seen, &moment);
                if let Err(violation) = follow(procedure, state, step, limits, &mut open, &mut report, 0) {
                    report.violation = Some(violation);
                    return report;
                }
            }
        }
    }
    report
}

fn moment<P: Procedure, W>(state: &State<P, W>) -> Moment {
    let withdrawn =
        state.withdrawn.then_some(Withdrawn { reason: RemediationReason::PolicyGone, why: "the policy was deleted" });
    Moment { now: state.now, started_at: start(), withdrawn }
}

fn follow<P: Procedure, W: World<P>>(
    procedure: &P,
    state: State<P, W>,
    step: Step<P::Progress, P::Effect>,
    limits: Limits,
    open: &mut Vec<State<P, W>>,
    report: &mut Report,
    depth: usize,
) -> Result<(), String> {
    if let Some(why) = state.world.violation(&step) {
        return Err(tale(&state.story, &format!("{why}; next would be {step:?}")));
    }
    if depth > 64 {
        return Err(tale(&state.story, "the effects of one reconciliation do not end"));
    }
    match step {
        Step::Perform { progress, effect, .. } => {
            // The operator process ends before the progress is stored.
            crash(&state, "crashes before it stores", limits, open);
            let mut stored = state.then(format!("stores {progress:?}"));
            stored.progress = progress.clone();
            crash(&stored, "crashes before it acts", limits, open);
            for (world, answer) in state.world.results(&effect, &progress) {
                let mut acted = stored.then(format!("does {effect:?}, answer {answer:?}"));
                acted.world = world;
                crash(&acted, "crashes before it stores the answer", limits, open);
                let moment = moment(&acted);
                let step = procedure.answered(&progress, &effect, &answer, &moment);
                follow(procedure, acted, step, limits, open, report, depth + 1)?;
            }
        }
        Step::Wait { progress, after, .. } | Step::NeedsPerson { progress, after, .. } => {
            let mut waited = state.then(format!("waits {after:?}"));
            waited.progress = progress;
            let ticks = after.as_millis().div_ceil(limits.tick.as_millis().max(1)).max(1);
            let after = limits.tick * u32::try_from(ticks).unwrap_or(u32::MAX);
            waited.now += SignedDuration::try_from(after).unwrap_or_default();
            crash(&waited, "crashes while it waits", limits, open);
            for world in waited.world.later() {
                let mut changed = waited.then("the world changes");
                changed.world = world;
                open.push(changed);
            }
            open.push(waited);
        }
        Step::Done { reason, .. } => *report.ends.entry(format!("Done {reason}")).or_default() += 1,
        Step::Ended { end, reason, .. } => *report.ends.entry(format!("{end:?} {reason}")).or_default() += 1,
        Step::OutcomeUnknown { .. } => *report.ends.entry("OutcomeUnknown".to_owned()).or_default() += 1,
    }
    Ok(())
}

fn crash<P: Procedure, W: World<P>>(state: &State<P, W>, how: &str, limits: Limits, open: &mut Vec<State<P, W>>) {
    if state.crashes < limits.crashes {
        let mut next = state.then(how);
        next.crashes += 1;
        next.world = next.world.crashed();
        open.push(next);
    }
}

fn tale(story: &[String], why: &str) -> String {
    format!("{why}\n  {}", story.join("\n  "))
}
