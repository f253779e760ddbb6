//! Which remedy comes next in an incident.

use super::{
    Ground, Past, Situation,
    guard::{Guard, Refusal},
};
use crate::{
    analyze::{
        assess::{Problem, ProblemKind},
        metric::MEMORY,
    },
    api::{
        ActionKind, Cause, ConfigRollback, Intent, KnownGood, MemoryGrowth, Phase, ScaleRemedy, Scaling, TemplateRef,
        ValidAction, ValidRemedy,
    },
};

/// Memory that has grown by more than this share of its first level is worth a cleanup, whether it is called a leak or not
/// (the system that Panacea re-imagines cleans up at +50%).
const GROWN: f64 = 0.5;

/// The remedy to try, and the cause that it is for.
#[derive(Debug, Clone)]
pub struct LadderStep<'a> {
    pub index: u32,
    pub remedy: &'a ValidRemedy,
    pub cause: Cause,
    pub intent: Intent,
}

/// The first remedy of the ladder that is for this cause and was not tried in this incident. The refusal calls a person.
pub fn next_step<'a>(situation: &Situation<'a>, ground: Ground<'_>) -> Result<LadderStep<'a>, Refusal> {
    let component = situation.component;
    let cause = match ground {
        Ground::Unhealthy(_) => situation.tracker.cause().unwrap_or(Cause::Unknown),
        Ground::Foreseen(_) => Cause::Exhaustion,
    };
    let here = |past: &&Past| past.component == component.name && past.episode == ground.episode();
    let tried: Vec<u32> = situation.history.iter().filter(here).map(|past| past.step).collect();
    let unproven = situation.tracker.release().is_some_and(|release| !release.seen_healthy);
    if unproven && matches!(ground, Ground::Unhealthy(_)) && situation.tracker.known_good().is_empty() {
        let message = format!(
            "{} was never healthy since this policy started to watch it, so there is no last known good template to roll back to, and a restart does not repair a release that never worked; repair it manually",
            component.name
        );
        return Err(Refusal::person(Guard::NoKnownGood, message));
    }
    match first_of(situation, ground, cause, &tried)? {
        (Some(step), _) => Ok(step),
        (None, fitting) => Err(nothing_left(situation, ground, cause, fitting, tried.len())),
    }
}

/// Whether no remedy is left for this cause after this step.
pub fn is_last(situation: &Situation<'_>, ground: Ground<'_>, step: u32, cause: Cause) -> bool {
    let before: Vec<u32> = (0..=step).collect();
    !matches!(first_of(situation, ground, cause, &before), Ok((Some(_), _)))
}

/// The first remedy that can be applied, and otherwise how many are for this cause.
fn first_of<'a>(
    situation: &Situation<'a>,
    ground: Ground<'_>,
    cause: Cause,
    tried: &[u32],
) -> Result<(Option<LadderStep<'a>>, usize), Refusal> {
    let mut fitting = 0;
    for (index, remedy) in situation.component.remedies.iter().enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        if !remedy.causes.contains(&cause) {
            continue;
        }
        fitting += 1;
        if tried.contains(&index) || !can_relieve(situation, ground, remedy.action.kind()) {
            continue;
        }
        if let Some(intent) = intent(situation, ground, &remedy.action, tried)? {
            return Ok((Some(LadderStep { index, remedy, cause, intent }), fitting));
        }
    }
    Ok((None, fitting))
}

/// The intent of the action now; none when the action cannot do anything.
fn intent(
    situation: &Situation<'_>,
    ground: Ground<'_>,
    action: &ValidAction,
    tried: &[u32],
) -> Result<Option<Intent>, Refusal> {
    Ok(match action {
        ValidAction::Fixed(intent) => Some(intent.clone()),
        ValidAction::Scale(remedy) => scaling(situation, remedy).map(Intent::Scale),
        ValidAction::RollbackConfig => {
            situation.tracker.config_target().map(|config| Intent::RollbackConfig { config })
        }
        ValidAction::CleanupMemory { hook } => leaking(situation, ground, hook.is_some())
            .map(|memory| Intent::CleanupMemory { memory: memory.clone(), hook: hook.clone() }),
        ValidAction::RollbackState => {
            whole_state(situation, ground)?.map(|(to, config)| Intent::RollbackState { to, config })
        }
        ValidAction::Rollback => match situation.tracker.rollback_target() {
            None => None,
            // The template alone does not restore the state.
            Some(_) if both_changed(situation) && has_untried(situation, ActionKind::RollbackState, tried) => None,
            Some(good) => {
                too_old(situation, good)?;
                Some(Intent::Rollback { to: good.template() })
            }
        },
    })
}

/// Whether the action can relieve what is critical or foreseen: a metric that the target's capabilities do not exclude.
pub fn can_relieve(situation: &Situation<'_>, ground: Ground<'_>, action: ActionKind) -> bool {
    let stays = situation.component.target.capabilities().cannot_relieve(action);
    match ground {
        Ground::Foreseen(foreseen) => !stays.contains(&foreseen.metric.as_str()),
        Ground::Unhealthy(_) => {
            let stays = |problem: &Problem| matches!(&problem.kind, ProblemKind::Metric(name) if stays.contains(&name.as_str()));
            let mut critical = situation.assessment.critical().peekable();
            critical.peek().is_none() || !critical.all(stays)
        }
    }
}

/// None when the bounds are reached.
fn scaling(situation: &Situation<'_>, remedy: &ScaleRemedy) -> Option<Scaling> {
    let pods = situation.observation.target.known()?.wanted()?;
    remedy.of(pods).ok().flatten()
}

/// The template and configuration of the last known good state, when the running state differs from it. A person who
/// rejected a rollback in this incident is not asked to approve a larger one.
fn whole_state(
    situation: &Situation<'_>,
    ground: Ground<'_>,
) -> Result<Option<(TemplateRef, ConfigRollback)>, Refusal> {
    let here = |past: &&Past| past.component == situation.component.name && past.episode == ground.episode();
    let back = [ActionKind::Rollback, ActionKind::RollbackConfig];
    let mut here = situation.history.iter().filter(here);
    if here.any(|past| past.phase == Phase::Rejected && back.contains(&past.action)) {
        return Ok(None);
    }
    let Some((kept, config)) = situation.tracker.state_target() else { return Ok(None) };
    let good = situation.tracker.known_good().iter().find(|good| good.digest == kept.template);
    if let Some(good) = good {
        too_old(situation, good)?;
    }
    let (revision, hash) = good.map(|good| (good.revision, good.hash.clone())).unwrap_or_default();
    Ok(Some((TemplateRef { revision, hash, digest: kept.template.clone() }, config)))
}

fn both_changed(situation: &Situation<'_>) -> bool {
    let running = situation.tracker.release().map(|release| &release.digest);
    let target = situation.tracker.state_target();
    target.is_some_and(|(kept, config)| Some(&kept.template) != running && !config.objects.is_empty())
}

fn has_untried(situation: &Situation<'_>, action: ActionKind, tried: &[u32]) -> bool {
    let mut steps = (0_u32..).zip(&situation.component.remedies);
    steps.any(|(index, remedy)| remedy.action.kind() == action && !tried.contains(&index))
}

/// The memory that a cleanup would reclaim; none when memory does not run out, or has not grown by much, or when the evicted
/// pods would have no replacement to serve in the meantime.
fn leaking<'a>(situation: &Situation<'a>, ground: Ground<'_>, hook: bool) -> Option<&'a MemoryGrowth> {
    let growth = situation.forecast?.memory.as_ref()?;
    let is_of_memory =
        |problem: &Problem| matches!(&problem.kind, ProblemKind::Metric(name) if name.starts_with(MEMORY));
    let meant = match ground {
        Ground::Foreseen(foreseen) => foreseen.metric == growth.metric,
        Ground::Unhealthy(_) => situation.assessment.critical().any(is_of_memory),
    };
    let grown = 2.0 * (growth.relieved_at - growth.baseline) > GROWN * growth.baseline.abs();
    let leaks = growth.leak || grown || matches!(ground, Ground::Foreseen(_));
    let workload = situation.workload()?;
    let replaceable = workload.desired >= 2 && workload.available >= workload.desired;
    (meant && leaks && (hook || replaceable)).then_some(growth)
}

/// Refuses a template that has not run for longer than `safety.maxRollbackAge`: its dependencies may be gone by now.
fn too_old(situation: &Situation<'_>, good: &KnownGood) -> Result<(), Refusal> {
    let (idle, limit) = (situation.tracker.idle_for(good, situation.now), situation.policy.limits.max_rollback_age);
    if idle <= limit {
        return Ok(());
    }
    let message = format!(
        "{good} was the last known good release, but has not run for {} h, more than safety.maxRollbackAge ({limit:#}); roll back manually, or raise safety.maxRollbackAge",
        idle.as_hours()
    );
    Err(Refusal::person(Guard::TooOld, message))
}

fn nothing_left(situation: &Situation<'_>, ground: Ground<'_>, cause: Cause, fitting: usize, tried: usize) -> Refusal {
    let component = &situation.component.name;
    let still = match ground {
        Ground::Unhealthy(_) => "is still unhealthy".to_owned(),
        Ground::Foreseen(foreseen) => format!("is still forecast to fail ({})", foreseen.reason),
    };
    let (guard, message) = match (tried, fitting) {
        (0, 0) => (
            Guard::NoRemedy,
            format!("no remedy of {component} is for {cause}; declare one in its remedies, or repair it manually"),
        ),
        (0, _) => {
            (Guard::NoRemedy, format!("no remedy of {component} can be applied for {cause}; investigate manually"))
        }
        _ => (
            Guard::LadderExhausted,
            format!(
                "{component} {still}, and no remedy is left for {cause}; tried in this incident: {tried} (kubectl get rem lists them); investigate manually"
            ),
        ),
    };
    Refusal::person(guard, message)
}
