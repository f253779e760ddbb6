//! From assessment to at most one decision per component, with its reason.
//!
//! Architecture invariant: PURE, like [`crate::analyze`]. Time and history come in as arguments.
//!
//! - [`guard`]: what holds an action back, each with its name, its message and the time of the next attempt
//! - [`ladder`]: which remedy comes next in an incident
//! - [`history`]: earlier actions, as the guards need them

pub mod guard;
pub mod history;
pub mod ladder;
pub mod revalidate;

use jiff::Timestamp;

use crate::{
    analyze::{
        assess::Assessment,
        forecast::Forecast,
        metric::show,
        observation::{Observation, TargetState, Workload},
        tracker::Tracker,
    },
    api::{
        ActionKind, ActionPlan, Foreseen, Intent, MemoryGrowth, Mode, ValidComponent, ValidPolicy, milliseconds,
        truncated,
    },
};
use guard::{Permit, Refusal};
use history::Past;

/// Everything that a decision about one component is based on.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    pub policy: &'a ValidPolicy,
    pub component: &'a ValidComponent,
    pub tracker: &'a Tracker,
    pub observation: &'a Observation,
    pub assessment: &'a Assessment,
    /// None: forecasts are disabled.
    pub forecast: Option<&'a Forecast>,
    /// A failure that enough consecutive forecasts predict, and that has neither occurred nor been averted.
    pub foreseen: Option<&'a Foreseen>,
    /// Components of this policy that are unhealthy now, this one included.
    pub unhealthy_components: usize,
    /// Further components that failed the last check and are not confirmed to be unhealthy yet.
    pub suspected_components: usize,
    /// All Remediations of this policy, in any order.
    pub history: &'a [Past],
    pub now: Timestamp,
}

impl Situation<'_> {
    pub fn workload(&self) -> Option<&Workload> {
        self.observation.target.known().and_then(|target| target.workload())
    }
}

/// The reason for an action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ground<'a> {
    /// The component is confirmed bad, in the incident of this id.
    Unhealthy(&'a str),
    /// The component is not bad, and the foreseen failure would make it bad.
    Foreseen(&'a Foreseen),
}

impl<'a> Ground<'a> {
    fn of(situation: &Situation<'a>) -> Option<Self> {
        let confirmed = situation.tracker.is_confirmed_bad(&situation.policy.limits);
        match (situation.tracker.episode(), situation.foreseen) {
            (Some(episode), _) => (confirmed && situation.assessment.is_bad()).then_some(Self::Unhealthy(&episode.id)),
            (None, Some(foreseen)) => (!situation.assessment.is_bad()).then_some(Self::Foreseen(foreseen)),
            (None, None) => None,
        }
    }

    /// The id of the incident.
    pub fn episode(&self) -> &'a str {
        match self {
            Self::Unhealthy(episode) => episode,
            Self::Foreseen(foreseen) => &foreseen.id,
        }
    }
}

/// The decision about one component.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// No fault is confirmed, or an action is open already.
    Nothing,
    Propose(Box<ActionPlan>),
    Refuse(Refusal),
}

/// Decides about one component: its next remedy, if there is one and every guard lets it pass.
pub fn decide(situation: &Situation<'_>) -> Verdict {
    let Some(ground) = Ground::of(situation) else { return Verdict::Nothing };
    let name = &situation.component.name;
    if situation.history.iter().any(|past| past.component == *name && !past.phase.is_final()) {
        return Verdict::Nothing;
    }
    let step = match ladder::next_step(situation, ground) {
        Ok(step) => step,
        Err(refusal) => return Verdict::Refuse(refusal),
    };
    let action = step.intent.action();
    if let Some(refusal) = guard::first_refusal(situation, ground, action) {
        return Verdict::Refuse(refusal);
    }
    let target = situation.observation.target.known();
    let release = target.and_then(|target| target.released()).map(|released| released.id.clone());
    Verdict::Propose(Box::new(ActionPlan {
        policy: situation.policy.name.clone(),
        policy_uid: situation.policy.uid.clone(),
        component: name.clone(),
        target: situation.component.target.acted_on(action, name),
        action,
        cause: step.cause,
        episode: ground.episode().to_owned(),
        step: step.index,
        why: why(situation, ground, &step),
        decided_at: milliseconds(situation.now),
        approval_required: step.remedy.approval_required || situation.policy.mode == Mode::Approve,
        release,
        foreseen: match ground {
            Ground::Foreseen(foreseen) => Some(foreseen.clone()),
            Ground::Unhealthy(_) => None,
        },
        intent: step.intent,
    }))
}

/// Runs the same guards again just before an action that was decided on this ground: anything may have changed.
pub fn still_allowed(situation: &Situation<'_>, ground: Ground<'_>, action: ActionKind) -> Result<Permit, Refusal> {
    if !ladder::can_relieve(situation, ground, action) {
        let name = &situation.component.name;
        let message =
            format!("{action} cannot relieve the metrics of {name} that are critical now; it is not performed");
        return Err(Refusal::until(guard::Guard::NoRemedy, message, None));
    }
    guard::first_refusal(situation, ground, action).map_or_else(|| Ok(Permit::granted()), Err)
}

fn why(situation: &Situation<'_>, ground: Ground<'_>, step: &ladder::LadderStep<'_>) -> String {
    if let Ground::Foreseen(foreseen) = ground {
        return format!(
            "failure forecast with {:.0}% within {:#}: {}; acting before the failure",
            foreseen.probability * 100.0,
            situation.policy.limits.prediction_horizon,
            foreseen.reason
        );
    }
    let seen: Vec<&str> = situation.assessment.critical().map(|problem| problem.message.as_str()).take(3).collect();
    let label = situation.observation.target.known().map(TargetState::label).unwrap_or_default();
    let decided = match (&step.intent, situation.tracker.release()) {
        (Intent::Rollback { to }, Some(release)) => {
            let since = situation.now.duration_since(release.since).as_secs();
            format!("unhealthy within {since} s of {release} ({label}); rollback target {to} was the last known good")
        }
        (Intent::RollbackState { to, config }, Some(release)) => {
            let since = situation.now.duration_since(release.since).as_secs();
            let noun =
                if situation.workload().is_some() { "ConfigMap or Secret" } else { "set of environment variables" };
            let changed = config.objects.len();
            format!(
                "unhealthy within {since} s of {release} ({label}), changed {noun}: {changed}; rollback target: the state of {to}, the last known good"
            )
        }
        (Intent::RollbackConfig { config }, _) => {
            format!("unhealthy after a change of {}, with the template that was healthy before", config.names())
        }
        (Intent::CleanupMemory { memory: MemoryGrowth { metric, baseline, value, .. }, .. }, _) => {
            format!("{metric} has grown from {} to {}", show(metric, *baseline), show(metric, *value))
        }
        _ => format!("cause {}", step.cause),
    };
    truncated(format!("{}; {decided}", seen.join("; ")), 2000)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
