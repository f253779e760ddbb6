//! From judgement to at most one decision a component, and why.
//!
//! Architecture invariant: PURE, like [`crate::analyze`]. Time and history come in as arguments.
//!
//! - [`guard`]: what holds an action back, each with its name, its words and when it will be looked at again
//! - [`ladder`]: which remedy comes next in an incident
//! - [`history`]: what was done before, as the guards need it

pub mod guard;
pub mod history;
pub mod ladder;

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
        ActionKind, Cause, ConfigRollback, Foreseen, Means, MemoryGrowth, Mode, Scaling, TemplateRef, ValidComponent,
        ValidPolicy,
    },
};
use guard::Refusal;
use history::Past;

/// All that a decision about one component rests on.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    pub policy: &'a ValidPolicy,
    pub component: &'a ValidComponent,
    pub tracker: &'a Tracker,
    pub observation: &'a Observation,
    pub assessment: &'a Assessment,
    /// None: no forecasts are made.
    pub forecast: Option<&'a Forecast>,
    /// A failure that was foreseen often enough in a row, and has neither come nor passed.
    pub foreseen: Option<&'a Foreseen>,
    /// Components of this policy that are unhealthy now, this one included.
    pub unhealthy_components: usize,
    /// Further ones whose last look was bad, and which are not confirmed to be unhealthy yet.
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

/// What an action would be for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ground<'a> {
    /// The component is confirmed bad, in the incident of this id.
    Unhealthy(&'a str),
    /// It is not, and what is foreseen would make it so.
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

    /// Names the incident.
    pub fn episode(&self) -> &'a str {
        match self {
            Self::Unhealthy(episode) => episode,
            Self::Foreseen(foreseen) => &foreseen.id,
        }
    }
}

/// What is to be done about one component.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Nothing is confirmed wrong, or something is being done already.
    Nothing,
    Propose(Box<Proposal>),
    Refuse(Refusal),
}

/// One action to be taken: becomes a Remediation.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    pub component: String,
    pub action: ActionKind,
    pub cause: Cause,
    pub episode: String,
    pub rung: u32,
    /// What was seen, against which limits, and why this remedy.
    pub why: String,
    pub approval_required: bool,
    pub from: Option<TemplateRef>,
    pub to: Option<TemplateRef>,
    /// Why it is done before anything is wrong.
    pub foreseen: Option<Foreseen>,
    /// Where a rollback of configuration goes.
    pub config: Option<ConfigRollback>,
    /// What a cleanup is for.
    pub memory: Option<MemoryGrowth>,
    /// From how many pods to how many.
    pub scale: Option<Scaling>,
    pub means: Means,
}

/// Decides about one component: its next remedy, if there is one and every guard lets it.
pub fn decide(situation: &Situation<'_>) -> Verdict {
    let Some(ground) = Ground::of(situation) else { return Verdict::Nothing };
    let name = &situation.component.name;
    if situation.history.iter().any(|past| past.component == *name && !past.phase.is_final()) {
        return Verdict::Nothing;
    }
    let rung = match ladder::next_rung(situation, ground) {
        Ok(rung) => rung,
        Err(refusal) => return Verdict::Refuse(refusal),
    };
    if let Some(refusal) = guard::first_refusal(situation, ground, rung.remedy.action) {
        return Verdict::Refuse(refusal);
    }
    let target = situation.observation.target.known();
    let release = target.and_then(|target| target.released()).map(|released| TemplateRef {
        revision: released.id.revision,
        hash: released.id.hash.clone(),
        digest: released.id.digest.clone(),
    });
    Verdict::Propose(Box::new(Proposal {
        component: name.clone(),
        action: rung.remedy.action,
        cause: rung.cause,
        episode: ground.episode().to_owned(),
        rung: rung.index,
        why: why(situation, ground, &rung),
        approval_required: rung.remedy.approval_required || situation.policy.mode == Mode::Approve,
        from: release,
        to: rung.target,
        foreseen: match ground {
            Ground::Foreseen(foreseen) => Some(foreseen.clone()),
            Ground::Unhealthy(_) => None,
        },
        config: rung.config,
        memory: rung.memory,
        scale: rung.scale,
        means: rung.remedy.means.clone(),
    }))
}

/// The same guards once more, for an action that was decided on this ground and is about to be done: anything may have
/// changed.
pub fn still_allowed(situation: &Situation<'_>, ground: Ground<'_>, action: ActionKind) -> Result<(), Refusal> {
    if !ladder::gives_back(situation, ground, action) {
        let name = &situation.component.name;
        let message = format!("{action} gives nothing back of what runs out now in {name}; it is not done");
        return Err(Refusal::until(guard::Guard::NoRemedy, message, None));
    }
    guard::first_refusal(situation, ground, action).map_or(Ok(()), Err)
}

fn why(situation: &Situation<'_>, ground: Ground<'_>, rung: &ladder::Rung<'_>) -> String {
    if let Ground::Foreseen(foreseen) = ground {
        return format!(
            "foreseen with {:.0}% within {:#}: {}; done before it comes",
            foreseen.probability * 100.0,
            situation.policy.limits.prediction_horizon,
            foreseen.reason
        );
    }
    let seen: Vec<&str> = situation.assessment.critical().map(|problem| problem.message.as_str()).take(3).collect();
    let label = situation.observation.target.known().map(TargetState::label).unwrap_or_default();
    let decided = match (rung.remedy.action, &rung.target, situation.tracker.release()) {
        (ActionKind::RollbackDeployment, Some(to), Some(release)) => {
            let since = situation.now.duration_since(release.since).as_secs();
            format!("it turned bad within {since} s of {release} ({label}); {to} was the last one seen healthy")
        }
        (ActionKind::RollbackPreviousState, Some(to), Some(release)) => {
            let since = situation.now.duration_since(release.since).as_secs();
            let configs = rung.config.as_ref().map_or(0, |config| config.objects.len());
            let what = match situation.workload() {
                Some(_) => "ConfigMaps and Secrets",
                None => "sets of environment variables",
            };
            format!(
                "it turned bad within {since} s of {release} ({label}), with {configs} changed {what}; the state of {to} was the last one seen healthy"
            )
        }
        (ActionKind::RollbackConfig, ..) => {
            let names = rung.config.as_ref().map(ConfigRollback::names).unwrap_or_default();
            format!("it turned bad after a change of {names}, with the template that was healthy before it")
        }
        _ => match &rung.memory {
            Some(MemoryGrowth { metric, baseline, value, .. }) => {
                format!("{metric} has grown from {} to {}", show(metric, *baseline), show(metric, *value))
            }
            None => format!("cause {}", rung.cause),
        },
    };
    let mut text = format!("{}; {decided}", seen.join("; "));
    if let Some((cut, _)) = text.char_indices().nth(2000) {
        text.truncate(cut);
    }
    text
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
