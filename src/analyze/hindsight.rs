//! What came of the failures that were foreseen. Pure: the controller keeps one [`Hindsight`] a component, and feeds it
//! after the [`super::outlook::Outlook`], from which it takes each warning once.
//!
//! A failure *came* when the metric met its limit as forecasts mean it (98% of it, where processes really end), or when a
//! container of the component was killed or crashed. That it is unhealthy above a threshold is not the failure that was
//! foreseen: it can still be prevented.
//!
//! A warning is settled once, by the first of these that holds:
//!
//! 1. other pods run, and not by our doing: unknown, since it was about those before;
//! 2. the failure came: true between `notBefore` and `notAfter`, else early or late;
//! 3. an action that was begun since succeeded: prevented;
//! 4. the metric gave back half of what had grown, or one `prediction.horizon` has passed since `notAfter`: it did not
//!    happen. Unknown instead, when an action that did not succeed was done since, or when the metric was not measured
//!    for longer than [`Patience::gap`] at any time: it may have come in between.

use jiff::{SignedDuration, Timestamp};

use super::{
    assess::{Assessment, ProblemKind},
    forecast::Ceilings,
    metric::show,
    observation::{FaultKind, Observation},
    signs::ENDS_AT,
};
use crate::api::{Cause, ComponentStatus, Episode, Foreseen, Outcome, Phase, Settled, Warning};

/// Warnings of one component that are followed, or wait for the ledger: a newer one pushes the oldest out.
pub const MAX_FOLLOWED: usize = 4;

/// Longest message, in characters.
const MAX_MESSAGE: usize = 512;

/// What one look saw, and what was done.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub observation: &'a Observation,
    pub assessment: &'a Assessment,
    /// Where metrics end, by name.
    pub ceilings: &'a Ceilings,
    /// The incident that is open, if failures are to be foreseen.
    pub episode: Option<&'a Episode>,
    /// The actions on the component that were begun.
    pub actions: &'a [Action],
}

impl Seen<'_> {
    fn at(&self) -> Timestamp {
        self.observation.at
    }

    fn value(&self, metric: &str) -> Option<f64> {
        self.observation.value(metric)
    }

    fn meets(&self, metric: &str, limit: f64) -> bool {
        self.value(metric).is_some_and(|value| value >= ENDS_AT * limit)
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

/// An action on the component that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Of the Remediation.
    pub name: String,
    pub begun_at: Timestamp,
    pub phase: Phase,
}

/// How long it may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// A failure counts as late, and not as one that did not come, for so long after `notAfter`.
    pub horizon: SignedDuration,
    /// The longest that a metric may be unmeasured without a failure having gone unseen.
    pub gap: SignedDuration,
}

impl Patience {
    /// The gap is a sixth of the horizon, and five looks at least.
    pub fn of(horizon: SignedDuration, interval: SignedDuration) -> Self {
        Self { horizon, gap: (horizon / 6).max(interval * 5) }
    }
}

/// A failure that no warning had announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    pub episode: Episode,
    pub at: Timestamp,
    pub message: String,
}

#[derive(Debug, Clone)]
struct Followed {
    warning: Warning,
    /// When its metric was measured last.
    measured_at: Timestamp,
    /// What came of it is in the ledger.
    recorded: bool,
}

/// One component's warnings, until it is in the ledger what came of them.
#[derive(Debug, Clone, Default)]
pub struct Hindsight {
    followed: Vec<Followed>,
    missed: Option<Missed>,
    pushed_out: Vec<Warning>,
    /// The incident of which it is known whether it was announced.
    weighed: Option<String>,
    /// When a failure came that had been announced.
    came_at: Option<Timestamp>,
}

impl Hindsight {
    /// As it stands in the status.
    pub fn restore(status: &ComponentStatus) -> Self {
        let follow = |warning: &Warning| Followed {
            measured_at: warning.foreseen.at,
            warning: warning.clone(),
            recorded: false,
        };
        Self {
            followed: status.warnings.iter().map(follow).collect(),
            // Whether it was announced was known to an earlier life.
            weighed: status.episode.as_ref().map(|episode| episode.id.clone()),
            ..Self::default()
        }
    }

    /// A measurement from before this life.
    pub fn was_measured(&mut self, metric: &str, at: Timestamp) {
        for followed in self.followed.iter_mut().filter(|followed| followed.warning.foreseen.metric == metric) {
            followed.measured_at = followed.measured_at.max(at);
        }
    }

    /// What has to survive a restart.
    pub fn persist(&self) -> Vec<Warning> {
        let open = self.followed.iter().filter(|followed| !followed.recorded);
        open.map(|followed| followed.warning.clone()).collect()
    }

    /// Takes one look into account. `foreseen`: what stands after it.
    pub fn record(&mut self, foreseen: Option<&Foreseen>, seen: &Seen<'_>, patience: Patience) {
        self.follow(foreseen, seen);
        for followed in self.followed.iter_mut().filter(|followed| followed.warning.settled.is_none()) {
            followed.record(seen, patience);
            let settled = followed.warning.settled.as_ref();
            if settled.is_some_and(|settled| settled.outcome.is_right() && settled.outcome != Outcome::Prevented) {
                self.came_at = Some(seen.at());
            }
        }
        self.weigh(seen, patience);
    }

    /// Takes up a warning that is new, and lets those go that are in the ledger.
    fn follow(&mut self, foreseen: Option<&Foreseen>, seen: &Seen<'_>) {
        // One that stands is kept, so that it is not taken for a new one.
        self.followed.retain(|followed| {
            !followed.recorded || foreseen.is_some_and(|foreseen| foreseen.id == followed.warning.foreseen.id)
        });
        let Some(foreseen) = foreseen else { return };
        if self.followed.iter().any(|followed| followed.warning.foreseen.id == foreseen.id) {
            return;
        }
        if self.persist().len() >= MAX_FOLLOWED {
            self.push_out(seen.at());
        }
        let release = seen.release().map(str::to_owned);
        let warning = Warning { foreseen: foreseen.clone(), release, blind: false, settled: None };
        self.followed.push(Followed { warning, measured_at: foreseen.at, recorded: false });
    }

    /// The oldest of which it is known what came of it, and which the ledger has not taken, else the oldest.
    fn push_out(&mut self, at: Timestamp) {
        let is_known = |followed: &Followed| followed.warning.settled.is_some();
        let open = |wanted: &dyn Fn(&Followed) -> bool| {
            self.followed.iter().position(|followed| !followed.recorded && wanted(followed))
        };
        let Some(place) = open(&is_known).or_else(|| open(&|_| true)) else { return };
        let mut oldest = self.followed.remove(place);
        if oldest.warning.settled.is_none() {
            oldest.settle(Outcome::Unknown, at, format!("{MAX_FOLLOWED} newer ones are followed"), None);
        }
        self.pushed_out.push(oldest.warning);
    }

    /// Warnings that made room for newer ones, with what came of them: nothing else keeps them.
    pub fn take_pushed_out(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.pushed_out)
    }

    /// Whether the incident that is open is a failure that could have been foreseen, and was not.
    fn weigh(&mut self, seen: &Seen<'_>, patience: Patience) {
        let Some(episode) = seen.episode.filter(|episode| episode.cause == Cause::Exhaustion) else { return };
        if self.weighed.as_ref() == Some(&episode.id) {
            return;
        }
        let exhausted = seen.ceilings.iter().find(|(metric, limit)| seen.meets(metric, **limit));
        let message = match exhausted {
            Some((metric, limit)) => format!("{metric} met {}, and no warning stood", show(metric, *limit)),
            None if seen.died() => "a container was killed or crashed, and no warning stood".to_owned(),
            None => return,
        };
        self.weighed = Some(episode.id.clone());
        let announced = self.came_at.is_some_and(|at| at >= episode.started_at - patience.horizon);
        if self.followed.is_empty() && !announced {
            self.missed = Some(Missed { episode: episode.clone(), at: seen.at(), message });
        }
    }

    /// The policy measures otherwise now, or another target: nothing can be told of what was foreseen before.
    pub fn give_up(&mut self, why: &str, at: Timestamp) {
        for followed in self.followed.iter_mut().filter(|followed| followed.warning.settled.is_none()) {
            followed.settle(Outcome::Unknown, at, why.to_owned(), None);
        }
    }

    /// Warnings of which it is known what came of them, and is not in the ledger yet.
    pub fn settled(&self) -> impl Iterator<Item = (&Warning, &Settled)> {
        let open = self.followed.iter().filter(|followed| !followed.recorded);
        open.filter_map(|followed| Some((&followed.warning, followed.warning.settled.as_ref()?)))
    }

    pub fn missed(&self) -> Option<&Missed> {
        self.missed.as_ref()
    }

    /// What came of this warning is in the ledger.
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
        let value = seen.value(metric);
        let before = self.measured_at;
        if value.is_some() {
            self.measured_at = self.measured_at.max(seen.at());
        }
        self.warning.blind |= seen.at().duration_since(before) > patience.gap;
        let done: Vec<&Action> = seen.actions.iter().filter(|action| action.begun_at >= *foreseen_at).collect();
        let replaced = seen.release().is_some()
            && self.warning.release.is_some()
            && seen.release() != self.warning.release.as_deref();
        if let Some((outcome, message, remediation)) = self.judge(value, &done, replaced, seen, patience) {
            self.settle(outcome, seen.at(), message, remediation);
        }
    }

    fn judge(
        &self,
        value: Option<f64>,
        done: &[&Action],
        replaced: bool,
        seen: &Seen<'_>,
        patience: Patience,
    ) -> Option<(Outcome, String, Option<String>)> {
        let Foreseen { metric, limit, relieved_at, not_before, not_after, .. } = &self.warning.foreseen;
        if replaced && done.is_empty() {
            return Some((Outcome::Unknown, "its pods were replaced, and not by Panacea".to_owned(), None));
        }
        if seen.died() || seen.meets(metric, *limit) {
            let outcome = match seen.at() {
                at if at < *not_before => Outcome::CameEarly,
                at if at <= *not_after => Outcome::CameTrue,
                _ => Outcome::CameLate,
            };
            let what = match value {
                _ if seen.died() => "a container was killed or crashed".to_owned(),
                Some(value) => format!("{metric} is {}, its limit {}", show(metric, value), show(metric, *limit)),
                None => String::new(),
            };
            return Some((outcome, format!("{what}; foreseen from {not_before} to {not_after}"), None));
        }
        if let Some(action) = done.iter().find(|action| action.phase == Phase::Succeeded) {
            return Some((
                Outcome::Prevented,
                format!("{} helped before it came", action.name),
                Some(action.name.clone()),
            ));
        }
        // What an action that is still open comes to is waited for.
        if done.iter().any(|action| !action.phase.is_final()) {
            return None;
        }
        let relieved = value.filter(|value| value <= relieved_at);
        let over = seen.at() > not_after.saturating_add(patience.horizon).unwrap_or(Timestamp::MAX);
        if relieved.is_none() && !over && !replaced {
            return None;
        }
        if let Some(action) = done.iter().find(|action| action.phase == Phase::Ineffective) {
            return Some((
                Outcome::Unknown,
                format!("{} was done since, and did not help for sure", action.name),
                None,
            ));
        }
        if self.warning.blind {
            let message =
                format!("{metric} was not measured for longer than {:#}: it may have come unseen", patience.gap);
            return Some((Outcome::Unknown, message, None));
        }
        let message = match relieved {
            Some(value) => format!("{metric} fell to {} by itself", show(metric, value)),
            None if replaced => return Some((Outcome::Unknown, "its pods were replaced".to_owned(), None)),
            None => format!(
                "{metric} had not met {} by {not_after}, nor {:#} later",
                show(metric, *limit),
                patience.horizon
            ),
        };
        Some((Outcome::DidNotHappen, message, None))
    }

    fn settle(&mut self, outcome: Outcome, at: Timestamp, mut message: String, remediation: Option<String>) {
        if let Some((cut, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(cut);
        }
        self.warning.settled = Some(Settled { outcome, at, message, remediation });
    }
}

#[cfg(test)]
mod tests;
