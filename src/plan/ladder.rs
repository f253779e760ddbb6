//! Which remedy comes next in an incident.

use super::{
    Ground, Situation,
    guard::{Guard, Refusal},
};
use crate::api::{ActionKind, Cause, KnownGood, TemplateRef, ValidRemedy};

/// The remedy to try, and for what.
#[derive(Debug, Clone)]
pub struct Rung<'a> {
    pub index: u32,
    pub remedy: &'a ValidRemedy,
    pub cause: Cause,
    /// Where a rollback goes.
    pub target: Option<TemplateRef>,
}

/// The first remedy of the ladder that is for this cause and was not tried in this incident.
///
/// # Errors
/// When there is none: a person has to look. The words say why.
pub fn next_rung<'a>(situation: &Situation<'a>, ground: Ground<'_>) -> Result<Rung<'a>, Refusal> {
    let component = situation.component;
    let cause = match ground {
        Ground::Unhealthy(_) => situation.tracker.cause().unwrap_or(Cause::Unknown),
        Ground::Foreseen(_) => Cause::Exhaustion,
    };
    let mut tried: Vec<u32> = situation
        .history
        .iter()
        .filter(|past| past.component == component.name && past.episode == ground.episode())
        .map(|past| past.rung)
        .collect();
    tried.sort_unstable();
    let unproven = situation.tracker.release().is_some_and(|release| !release.seen_healthy);
    let works = matches!(ground, Ground::Foreseen(_));
    if unproven && !works && situation.tracker.known_good().is_empty() {
        let message = format!(
            "{} was never seen healthy since this policy watches it, so there is no last known good template to go back to, and a restart is no remedy for what never worked: a person has to look",
            component.name
        );
        return Err(Refusal::person(Guard::NoKnownGood, message));
    }
    let mut fitting = 0;
    for (index, remedy) in component.remedies.iter().enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        if !remedy.causes.contains(&cause) {
            continue;
        }
        fitting += 1;
        if tried.contains(&index) {
            continue;
        }
        let target = match remedy.action {
            ActionKind::Restart => None,
            ActionKind::RollbackDeployment => match situation.tracker.rollback_target() {
                None => continue,
                Some(good) => {
                    too_old(situation, good)?;
                    Some(TemplateRef { revision: good.revision, hash: good.hash.clone(), digest: good.digest.clone() })
                }
            },
        };
        return Ok(Rung { index, remedy, cause, target });
    }
    Err(nothing_left(situation, ground, cause, fitting, tried.len()))
}

/// # Errors
/// When the template has not run for longer than `safety.maxRollbackAge`: what it stood on may be gone by now.
fn too_old(situation: &Situation<'_>, good: &KnownGood) -> Result<(), Refusal> {
    let (idle, limit) = (situation.tracker.idle_for(good, situation.now), situation.policy.limits.max_rollback_age);
    if idle <= limit {
        return Ok(());
    }
    let message = format!(
        "revision {} was the last one seen healthy, and has not run for {} h, more than safety.maxRollbackAge ({limit:#}): going back that far is a person's decision",
        good.revision,
        idle.as_hours()
    );
    Err(Refusal::person(Guard::TooOld, message))
}

fn nothing_left(situation: &Situation<'_>, ground: Ground<'_>, cause: Cause, fitting: usize, tried: usize) -> Refusal {
    let component = &situation.component.name;
    let still = match ground {
        Ground::Unhealthy(_) => "is still unhealthy".to_owned(),
        Ground::Foreseen(foreseen) => format!("will still fail ({})", foreseen.reason),
    };
    if tried > 0 {
        let message = format!(
            "{component} {still}: {tried} of its remedies were proposed in this incident (see kubectl get rem), and none is left for {cause}; a person has to look"
        );
        return Refusal::person(Guard::LadderExhausted, message);
    }
    let message = if fitting == 0 {
        format!("no remedy of {component} is for {cause}: a person has to look, or declare one in its remedies")
    } else {
        format!("no remedy of {component} can be applied for {cause}: a person has to look")
    };
    Refusal::person(Guard::NoRemedy, message)
}
