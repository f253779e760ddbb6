//! The outcomes of foreseen failures. Pure: the controller keeps one [`Hindsight`] per component, and feeds it after the
//! [`super::outlook::Outlook`], from which it takes each warning once.
//!
//! A failure *occurred* when the metric reached its limit as forecasts define it (98% of it, where processes fail), or when a
//! container of the component was killed or crashed. A component that is unhealthy above a threshold has not failed yet: the
//! failure can still be prevented.
//!
//! A warning is settled once, by the first of these that holds:
//!
//! 1. other pods run, but no action replaced them: unknown, since the warning concerned the pods before;
//! 2. the failure occurred: true between `notBefore` and `notAfter`, else early or late;
//! 3. an action that was started since then succeeded: prevented;
//! 4. half of the growth was reclaimed, or one `prediction.horizon` has passed since `notAfter`: did not happen. Unknown
//!    instead, when an action without success was performed since then, or when the metric was not measured for longer than
//!    [`Patience::gap`] at any time, in which the failure may have occurred.

use jiff::{SignedDuration, Timestamp};

use super::{
    assess::{Assessment, ProblemKind},
    forecast::Ceilings,
    metric::show,
    observation::{FaultKind, Observation},
    signs::ENDS_AT,
};
use crate::api::{Cause, ComponentStatus, Episode, Foreseen, Outcome, Phase, Settled, Warning, truncated};

/// Warnings of one component that are tracked, or wait for the ledger: a newer warning replaces the oldest.
pub const MAX_FOLLOWED: usize = 4;

/// Longest message, in characters.
const MAX_MESSAGE: usize = 512;

/// The result of one check, and the actions so far.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub observation: &'a Observation,
    pub assessment: &'a Assessment,
    /// The highest possible values of metrics, by name.
    pub ceilings: &'a Ceilings,
    /// The open incident, if prediction is enabled.
    pub episode: Option<&'a Episode>,
    /// The started actions on the component.
    pub actions: &'a [Action],
}

impl Seen<'_> {
    fn meets(&self, metric: &str, limit: f64) -> bool {
        self.observation.value(metric).is_some_and(|value| value >= ENDS_AT * limit)
    }

    /// A container was killed or crashed.
    fn died(&self) -> bool {
        let is_death =
            |kind: &ProblemKind| matches!(kind, ProblemKind::Fault(FaultKind::OomKilled | FaultKind::CrashLoop));
        self.assessment.critical().any(|problem| is_death(&problem.kind))
    }

    /// Hash of the newest template.
    fn release(&self) -> Option<&str> {
        let target = self.observation.target.known()?;
        Some(target.released()?.id.hash.as_str())
    }
}

/// A started action on the component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Name of the Remediation.
    pub name: String,
    pub begun_at: Timestamp,
    pub phase: Phase,
}

/// Time limits for an outcome.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// A failure within this time after `notAfter` counts as late.
    pub horizon: SignedDuration,
    /// The longest time without a measurement in which no failure can be missed.
    pub gap: SignedDuration,
}

impl Patience {
    /// The gap is a sixth of the horizon, and at least five check intervals.
    pub fn of(horizon: SignedDuration, interval: SignedDuration) -> Self {
        Self { horizon, gap: (horizon / 6).max(interval * 5) }
    }
}

/// A failure without a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    pub episode: Episode,
    pub at: Timestamp,
    pub message: String,
}

#[derive(Debug, Clone)]
struct Followed {
    warning: Warning,
    /// When its metric was last measured.
    measured_at: Timestamp,
    /// The outcome is in the ledger.
    recorded: bool,
}

/// The warnings of one component, until their outcomes are in the ledger.
#[derive(Debug, Clone, Default)]
pub struct Hindsight {
    followed: Vec<Followed>,
    missed: Option<Missed>,
    pushed_out: Vec<Warning>,
    /// The incident for which it is known whether it was announced.
    weighed: Option<String>,
    /// When an announced failure occurred.
    came_at: Option<Timestamp>,
}

impl Hindsight {
    /// The state stored in the status.
    pub fn restore(status: &ComponentStatus) -> Self {
        let follow = |warning: &Warning| Followed {
            measured_at: warning.foreseen.at,
            warning: warning.clone(),
            recorded: false,
        };
        Self {
            followed: status.warnings.iter().map(follow).collect(),
            // An earlier process of the operator knew whether it was announced.
            weighed: status.episode.as_ref().map(|episode| episode.id.clone()),
            ..Self::default()
        }
    }

    /// Takes up a measurement from before the start of the operator.
    pub fn was_measured(&mut self, metric: &str, at: Timestamp) {
        for followed in self.followed.iter_mut().filter(|followed| followed.warning.foreseen.metric == metric) {
            followed.measured_at = followed.measured_at.max(at);
        }
    }

    /// The state that has to survive a restart.
    pub fn persist(&self) -> Vec<Warning> {
        let open = self.followed.iter().filter(|followed| !followed.recorded);
        open.map(|followed| followed.warning.clone()).collect()
    }

    /// Takes one check into account. `foreseen`: the foreseen failure after it.
    pub fn record(&mut self, foreseen: Option<&Foreseen>, seen: &Seen<'_>, patience: Patience) {
        self.follow(foreseen, seen);
        for followed in self.followed.iter_mut().filter(|followed| followed.warning.settled.is_none()) {
            followed.record(seen, patience);
            let settled = followed.warning.settled.as_ref();
            if settled.is_some_and(|settled| settled.outcome.is_right() && settled.outcome != Outcome::Prevented) {
                self.came_at = Some(seen.observation.at);
            }
        }
        self.weigh(seen, patience);
    }

    /// Adds a new warning, and removes warnings whose outcome is in the ledger.
    fn follow(&mut self, foreseen: Option<&Foreseen>, seen: &Seen<'_>) {
        // An open warning is kept, so that it is not added again.
        self.followed.retain(|followed| {
            !followed.recorded || foreseen.is_some_and(|foreseen| foreseen.id == followed.warning.foreseen.id)
        });
        let Some(foreseen) = foreseen else { return };
        if self.followed.iter().any(|followed| followed.warning.foreseen.id == foreseen.id) {
            return;
        }
        if self.persist().len() >= MAX_FOLLOWED {
            self.push_out(seen.observation.at);
        }
        let release = seen.release().map(str::to_owned);
        let warning = Warning { foreseen: foreseen.clone(), release, blind: false, settled: None };
        self.followed.push(Followed { warning, measured_at: foreseen.at, recorded: false });
    }

    /// Removes the oldest settled warning that is not in the ledger, else the oldest.
    fn push_out(&mut self, at: Timestamp) {
        let open = |settled: bool| {
            let is_it = |one: &Followed| !one.recorded && one.warning.settled.is_some() == settled;
            self.followed.iter().position(is_it)
        };
        let Some(place) = open(true).or_else(|| open(false)) else { return };
        let mut oldest = self.followed.remove(place);
        if oldest.warning.settled.is_none() {
            oldest.settle(Outcome::Unknown, at, format!("{MAX_FOLLOWED} newer warnings are tracked"), None);
        }
        self.pushed_out.push(oldest.warning);
    }

    /// The warnings that newer ones replaced, with their outcomes: no other place stores them.
    pub fn take_pushed_out(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.pushed_out)
    }

    /// Whether the open incident is a failure that could have been foreseen, and was not.
    fn weigh(&mut self, seen: &Seen<'_>, patience: Patience) {
        let Some(episode) = seen.episode.filter(|episode| episode.cause == Cause::Exhaustion) else { return };
        if self.weighed.as_ref() == Some(&episode.id) {
            return;
        }
        let exhausted = seen.ceilings.iter().find(|(metric, limit)| seen.meets(metric, **limit));
        let message = match exhausted {
            Some((metric, limit)) => format!("{metric} reached {} without a warning", show(metric, *limit)),
            None if seen.died() => "a container was killed or crashed without a warning".to_owned(),
            None => return,
        };
        self.weighed = Some(episode.id.clone());
        let announced = self.came_at.is_some_and(|at| at >= episode.started_at - patience.horizon);
        if self.followed.is_empty() && !announced {
            self.missed = Some(Missed { episode: episode.clone(), at: seen.observation.at, message });
        }
    }

    /// Settles all open warnings as unknown, when the policy measures differently or has another target.
    pub fn give_up(&mut self, why: &str, at: Timestamp) {
        for followed in self.followed.iter_mut().filter(|followed| followed.warning.settled.is_none()) {
            followed.settle(Outcome::Unknown, at, why.to_owned(), None);
        }
    }

    /// Settled warnings whose outcome is not in the ledger yet.
    pub fn settled(&self) -> impl Iterator<Item = (&Warning, &Settled)> {
        let open = self.followed.iter().filter(|followed| !followed.recorded);
        open.filter_map(|followed| Some((&followed.warning, followed.warning.settled.as_ref()?)))
    }

    pub fn missed(&self) -> Option<&Missed> {
        self.missed.as_ref()
    }

    /// Notes that the outcome of this warning is in the ledger.
    pub fn recorded(&mut self, id: &str) {
        for followed in self.followed.iter_mut().filter(|followed| followed.warning.foreseen.id == id) {
            followed.recorded = true;
        }
    }

    pub fn recorded_missed(&mut self) {
        self.missed = None;
    }
}

impl Followed {
    fn record(&mut self, seen: &Seen<'_>, patience: Patience) {
        let Foreseen { metric, at: foreseen_at, .. } = &self.warning.foreseen;
        let value = seen.observation.value(metric);
        let before = self.measured_at;
        if value.is_some() {
            self.measured_at = self.measured_at.max(seen.observation.at);
        }
        self.warning.blind |= seen.observation.at.duration_since(before) > patience.gap;
        let done: Vec<&Action> = seen.actions.iter().filter(|action| action.begun_at >= *foreseen_at).collect();
        let replaced = seen.release().is_some()
            && self.warning.release.is_some()
            && seen.release() != self.warning.release.as_deref();
        if let Some((outcome, message)) = self.outcome(value, &done, replaced, seen, patience) {
            let prevented_by = succeeded(&done).filter(|_| outcome == Outcome::Prevented);
            self.settle(outcome, seen.observation.at, message, prevented_by.map(|action| action.name.clone()));
        }
    }

    fn outcome(
        &self,
        value: Option<f64>,
        done: &[&Action],
        replaced: bool,
        seen: &Seen<'_>,
        patience: Patience,
    ) -> Option<(Outcome, String)> {
        let Foreseen { metric, limit, relieved_at, not_before, not_after, .. } = &self.warning.foreseen;
        if replaced && done.is_empty() {
            return Some((Outcome::Unknown, "its pods were replaced, but not by Panacea".to_owned()));
        }
        if seen.died() || seen.meets(metric, *limit) {
            let outcome = match seen.observation.at {
                at if at < *not_before => Outcome::CameEarly,
                at if at <= *not_after => Outcome::CameTrue,
                _ => Outcome::CameLate,
            };
            let what = match value {
                _ if seen.died() => "a container was killed or crashed".to_owned(),
                Some(value) => format!("{metric} is {} (limit {})", show(metric, value), show(metric, *limit)),
                None => String::new(),
            };
            return Some((outcome, format!("{what}; foreseen from {not_before} to {not_after}")));
        }
        if let Some(action) = succeeded(done) {
            return Some((Outcome::Prevented, format!("{} succeeded before the failure", action.name)));
        }
        // The outcome of an open action is awaited.
        if done.iter().any(|action| !action.phase.is_final()) {
            return None;
        }
        let relieved = value.filter(|value| value <= relieved_at);
        let over = seen.observation.at > not_after.saturating_add(patience.horizon).unwrap_or(Timestamp::MAX);
        if relieved.is_none() && !over && !replaced {
            return None;
        }
        if let Some(action) = done.iter().find(|action| action.phase == Phase::Ineffective) {
            let message = format!("{} was performed since then, without proven success", action.name);
            return Some((Outcome::Unknown, message));
        }
        if self.warning.blind {
            let message =
                format!("{metric} was not measured for more than {:#}, so a failure may be undetected", patience.gap);
            return Some((Outcome::Unknown, message));
        }
        let message = match relieved {
            Some(value) => format!("{metric} fell to {} without an action", show(metric, value)),
            None if replaced => return Some((Outcome::Unknown, "its pods were replaced".to_owned())),
            None => format!(
                "{metric} did not reach {} by {not_after}, nor within {:#} after that",
                show(metric, *limit),
                patience.horizon
            ),
        };
        Some((Outcome::DidNotHappen, message))
    }

    fn settle(&mut self, outcome: Outcome, at: Timestamp, message: String, remediation: Option<String>) {
        let message = truncated(message, MAX_MESSAGE);
        self.warning.settled = Some(Settled { outcome, at, message, remediation });
    }
}

fn succeeded<'a>(done: &[&'a Action]) -> Option<&'a Action> {
    done.iter().copied().find(|action| action.phase == Phase::Succeeded)
}

#[cfg(test)]
mod tests;
