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
        observation::{Observation, Workload},
        tracker::Tracker,
    },
    api::{ActionKind, Cause, Mode, TemplateRef, ValidComponent, ValidPolicy},
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
}

/// Decides about one component: its next remedy, if there is one and every guard lets it.
pub fn decide(situation: &Situation<'_>) -> Verdict {
    let limits = &situation.policy.limits;
    let Some(episode) = situation.tracker.episode().filter(|_| situation.tracker.is_confirmed_bad(limits)) else {
        return Verdict::Nothing;
    };
    if !situation.assessment.is_bad() {
        return Verdict::Nothing;
    }
    let name = &situation.component.name;
    if situation.history.iter().any(|past| past.component == *name && !past.phase.is_final()) {
        return Verdict::Nothing;
    }
    let rung = match ladder::next_rung(situation, episode) {
        Ok(rung) => rung,
        Err(refusal) => return Verdict::Refuse(refusal),
    };
    if let Some(refusal) = guard::first_refusal(situation, rung.remedy.action) {
        return Verdict::Refuse(refusal);
    }
    let release = situation.workload().map(|workload| TemplateRef {
        revision: workload.release.revision,
        hash: workload.release.hash.clone(),
        digest: workload.release.digest.clone(),
    });
    Verdict::Propose(Box::new(Proposal {
        component: name.clone(),
        action: rung.remedy.action,
        cause: rung.cause,
        episode: episode.id.clone(),
        rung: rung.index,
        why: why(situation, &rung),
        approval_required: rung.remedy.approval_required || situation.policy.mode == Mode::Approve,
        from: release,
        to: rung.target,
    }))
}

/// The same guards once more, for an action that was decided and is about to be done: anything may have changed.
pub fn still_allowed(situation: &Situation<'_>, action: ActionKind) -> Result<(), Refusal> {
    guard::first_refusal(situation, action).map_or(Ok(()), Err)
}

fn why(situation: &Situation<'_>, rung: &ladder::Rung<'_>) -> String {
    let seen: Vec<&str> = situation.assessment.critical().map(|problem| problem.message.as_str()).take(3).collect();
    let images = situation.workload().map(|workload| workload.images.join(", ")).unwrap_or_default();
    let decided = match (rung.remedy.action, &rung.target, situation.tracker.release()) {
        (ActionKind::RollbackDeployment, Some(to), Some(release)) => {
            let since = situation.now.duration_since(release.since).as_secs();
            format!(
                "it turned bad within {since} s of revision {} ({images}); revision {} was the last one seen healthy",
                release.revision, to.revision
            )
        }
        _ => format!("cause {}", rung.cause),
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
