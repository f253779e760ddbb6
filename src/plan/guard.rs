//! What holds an action back. The guards run in the order of [`Guard`]; the first that refuses is reported.

use jiff::{SignedDuration, Timestamp};

use super::{Ground, Past, Situation, history};
use crate::{
    analyze::{observation::Measured, outlook},
    api::{ActionKind, GitOps, IRREVERSIBLE, Mode, Phase, RemediationReason, RemediationStatus},
};

/// Every reason not to act; used as is in conditions, events and metric labels.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::Display, strum::IntoStaticStr, strum::EnumIter,
)]
pub enum Guard {
    /// No remedy of the ladder fits the cause.
    NoRemedy,
    /// There is no template that was seen healthy.
    NoKnownGood,
    /// The last known good template has not run for longer than `safety.maxRollbackAge`.
    TooOld,
    /// The template that runs says that there is no way back from it.
    Irreversible,
    /// Every remedy that fits was tried in this incident.
    LadderExhausted,
    /// `spec.suspend`.
    Suspended,
    /// `spec.mode: Observe`.
    ObserveMode,
    /// The look that this rests on is too old, or could not see.
    StaleData,
    /// Not enough bad looks in a row.
    NotConfirmed,
    /// A person paused the workload.
    Paused,
    /// Its template comes from another object, which is not written.
    TemplateElsewhere,
    /// A GitOps controller would undo it.
    GitOpsOwned,
    /// Something was sent to it in this incident or just before, and nothing tells what came of it.
    OutcomeUnknown,
    /// More components are unhealthy at once than `safety.maxUnhealthy`.
    MaxUnhealthy,
    /// `safety.maxConcurrent` actions are running.
    MaxConcurrent,
    /// `safety.budget` is used up.
    Budget,
    /// The component was acted on less than `safety.cooldown` ago.
    Cooldown,
    /// The component's actions keep failing.
    CircuitBreaker,
    /// An action ahead of a foreseen failure did not hold for `prediction.horizon`.
    ForeseenAgain,
}

impl From<Guard> for RemediationReason {
    fn from(guard: Guard) -> Self {
        match guard {
            Guard::NoRemedy => Self::NoRemedy,
            Guard::NoKnownGood => Self::NoKnownGood,
            Guard::TooOld => Self::TooOld,
            Guard::Irreversible => Self::Irreversible,
            Guard::LadderExhausted => Self::LadderExhausted,
            Guard::Suspended => Self::Suspended,
            Guard::ObserveMode => Self::ObserveMode,
            Guard::StaleData => Self::StaleData,
            Guard::NotConfirmed => Self::NotConfirmed,
            Guard::Paused => Self::Paused,
            Guard::TemplateElsewhere => Self::TemplateElsewhere,
            Guard::GitOpsOwned => Self::GitOpsOwned,
            Guard::OutcomeUnknown => Self::OutcomeUnknown,
            Guard::MaxUnhealthy => Self::MaxUnhealthy,
            Guard::MaxConcurrent => Self::MaxConcurrent,
            Guard::Budget => Self::Budget,
            Guard::Cooldown => Self::Cooldown,
            Guard::CircuitBreaker => Self::CircuitBreaker,
            Guard::ForeseenAgain => Self::ForeseenAgain,
        }
    }
}

/// The right to change something outside. Only the guards create a permit: [`super::still_allowed`] when every guard lets
/// the action pass, [`Permit::begun`] for an action that they let pass before and that was stored as `Running`.
#[derive(Debug)]
pub struct Permit(());

impl Permit {
    pub(super) fn granted() -> Self {
        Self(())
    }

    /// The permit of an action that was begun: `Running` is stored only with a permit.
    pub fn begun(status: &RemediationStatus) -> Option<Self> {
        (status.phase == Phase::Running && status.started_at.is_some()).then_some(Self(()))
    }
}

/// A guard's no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub guard: Guard,
    /// What was seen against which limit, what happens next, and how to step in.
    pub message: String,
    /// When it will be different, where that is known; else it is looked at again at every look.
    pub retry_at: Option<Timestamp>,
    /// A person has to do something: waiting will not help.
    pub calls_person: bool,
}

impl Refusal {
    pub fn until(guard: Guard, message: String, retry_at: Option<Timestamp>) -> Self {
        Self { guard, message, retry_at, calls_person: false }
    }

    pub fn person(guard: Guard, message: String) -> Self {
        Self { guard, message, retry_at: None, calls_person: true }
    }
}

/// A look older than this is not acted on. Three times the time limit of a look.
pub const FRESH: SignedDuration = SignedDuration::from_secs(10);

/// So long after an action whose outcome is unknown nothing is done in another incident either.
const UNKNOWN_FOR: SignedDuration = SignedDuration::from_mins(15);

/// An action, and what it would be for.
#[derive(Debug, Clone, Copy)]
struct Intent<'a> {
    ground: Ground<'a>,
    action: ActionKind,
}

/// The first guard that says no to this action now.
pub fn first_refusal(situation: &Situation<'_>, ground: Ground<'_>, action: ActionKind) -> Option<Refusal> {
    const GUARDS: [fn(&Situation<'_>, Intent<'_>) -> Option<Refusal>; 15] = [
        suspended,
        observe_mode,
        stale_data,
        not_confirmed,
        paused,
        template_elsewhere,
        gitops_owned,
        irreversible,
        outcome_unknown,
        max_unhealthy,
        max_concurrent,
        budget,
        cooldown,
        foreseen_again,
        circuit_breaker,
    ];
    GUARDS.iter().find_map(|guard| guard(situation, Intent { ground, action }))
}

fn suspended(s: &Situation<'_>, Intent { action, .. }: Intent<'_>) -> Option<Refusal> {
    s.policy.suspend.then(|| {
        let message =
            format!("would apply {action} to {}, but spec.suspend is true; set it to false to go on", s.component.name);
        Refusal::until(Guard::Suspended, message, None)
    })
}

fn observe_mode(s: &Situation<'_>, Intent { action, .. }: Intent<'_>) -> Option<Refusal> {
    (s.policy.mode == Mode::Observe).then(|| {
        let message = format!(
            "would apply {action} to {}, but spec.mode is Observe; set it to Approve or Auto to let it act",
            s.component.name
        );
        Refusal::person(Guard::ObserveMode, message)
    })
}

fn stale_data(s: &Situation<'_>, Intent { ground, .. }: Intent<'_>) -> Option<Refusal> {
    let age = s.now.duration_since(s.observation.at);
    if age > FRESH {
        let message = format!(
            "the last look at {} is {} s old, more than {} s; looking again first",
            s.component.name,
            age.as_secs(),
            FRESH.as_secs()
        );
        return Some(Refusal::until(Guard::StaleData, message, None));
    }
    // A service that is only watched is healed by what does not touch it.
    let only_watched = s.component.target.capabilities().is_only_watched();
    if let (false, Measured::Unknown(why)) = (only_watched, &s.observation.target) {
        let message = format!(
            "{} cannot be looked at ({}: {}), so nothing is done to it; looking again",
            s.component.target.describe(),
            why.reason,
            why.message
        );
        return Some(Refusal::until(Guard::StaleData, message, None));
    }
    // "Could not measure" is neither bad nor about to be.
    let meant = match ground {
        Ground::Unhealthy(_) => s.assessment.is_bad(),
        Ground::Foreseen(_) => s.assessment.score.is_some() && !s.assessment.is_bad(),
    };
    (!meant).then(|| {
        let message =
            format!("{} is {} by the last look: {}", s.component.name, s.assessment.status, s.assessment.message());
        Refusal::until(Guard::StaleData, message, None)
    })
}

fn not_confirmed(s: &Situation<'_>, Intent { ground, .. }: Intent<'_>) -> Option<Refusal> {
    let limits = &s.policy.limits;
    let message = match ground {
        Ground::Unhealthy(_) if s.tracker.is_confirmed_bad(limits) => return None,
        Ground::Unhealthy(_) => {
            let looks = limits.unhealthy_after;
            format!("{} was not seen bad {looks} times in a row; looking again", s.component.name)
        }
        Ground::Foreseen(foreseen) => {
            let fresh = s.forecast.filter(|_| s.foreseen.is_some_and(|open| open.id == foreseen.id));
            if fresh.is_some_and(|forecast| outlook::stands(foreseen, forecast, s.observation, limits)) {
                return None;
            }
            format!("what was foreseen of {} does not stand by the last look; looking again", s.component.name)
        }
    };
    Some(Refusal::until(Guard::NotConfirmed, message, None))
}

fn paused(s: &Situation<'_>, Intent { action, .. }: Intent<'_>) -> Option<Refusal> {
    s.workload().filter(|workload| workload.paused).map(|_| {
        let target = s.component.target.describe();
        let resume = s.component.target.workload();
        let resume =
            resume.map(|(kind, name)| format!("resume it with {}, or ", kind.resume(name))).unwrap_or_default();
        let message = format!("{target} is paused, so {action} would not take effect; {resume}undo it by hand");
        Refusal::person(Guard::Paused, message)
    })
}

fn template_elsewhere(s: &Situation<'_>, Intent { action, .. }: Intent<'_>) -> Option<Refusal> {
    if !puts_a_template_back(action) {
        return None;
    }
    let source = s.workload()?.template_in.as_ref()?;
    let message = format!(
        "{} has its template from {source} (spec.workloadRef), which {action} does not write; put the good template back there, as with kubectl rollout undo {}",
        s.component.target.describe(),
        source.to_lowercase()
    );
    Some(Refusal::person(Guard::TemplateElsewhere, message))
}

fn puts_a_template_back(action: ActionKind) -> bool {
    matches!(action, ActionKind::Rollback | ActionKind::RollbackState)
}

fn gitops_owned(s: &Situation<'_>, Intent { action, .. }: Intent<'_>) -> Option<Refusal> {
    // A restart only adds an annotation that GitOps controllers leave alone; a rollback they would undo, and another number
    // of pods.
    if !puts_a_template_back(action) && action != ActionKind::Scale {
        return None;
    }
    let owner = s.workload()?.gitops_owner.as_ref()?;
    let target = s.component.target.describe();
    if action == ActionKind::Scale {
        // A newer revision of the source says nothing about it: nobody would know when to resume.
        let message = format!(
            "{target} belongs to {}, which would undo another number of pods; change it in its source",
            owner.words
        );
        return Some(Refusal::person(Guard::GitOpsOwned, message));
    }
    let what_else = match (s.policy.limits.git_ops, owner.known) {
        (GitOps::Suspend, true) => return None,
        (GitOps::Suspend, false) => {
            "; it does not say which one it is, so that one cannot be suspended; revert the change in its source"
        }
        (GitOps::Refuse, true) => {
            "; revert the change in its source, or let it be suspended for a rollback with safety.gitOps: Suspend"
        }
        (GitOps::Refuse, false) => "; revert the change in its source",
    };
    let message = format!("{target} belongs to {}, which would undo a rollback{what_else}", owner.words);
    Some(Refusal::person(Guard::GitOpsOwned, message))
}

fn irreversible(s: &Situation<'_>, Intent { action, .. }: Intent<'_>) -> Option<Refusal> {
    if !puts_a_template_back(action) {
        return None;
    }
    let workload = s.workload()?;
    let why = workload.irreversible.as_ref()?;
    let message = format!(
        "revision {} of {} carries the annotation {IRREVERSIBLE} ({why:?}), so it is not rolled back; mend it forward, or undo it by hand",
        workload.release.revision,
        s.component.target.describe()
    );
    Some(Refusal::person(Guard::Irreversible, message))
}

fn max_unhealthy(s: &Situation<'_>, Intent { action, .. }: Intent<'_>) -> Option<Refusal> {
    let limit = s.policy.limits.max_unhealthy;
    if s.unhealthy_components > limit {
        let message = format!(
            "{} components are unhealthy at once, more than safety.maxUnhealthy allows ({limit}): this looks like a common cause that {action} of single components will not heal; a person has to look",
            s.unhealthy_components
        );
        return Some(Refusal::person(Guard::MaxUnhealthy, message));
    }
    // What breaks them all shows in one of them first.
    (s.unhealthy_components + s.suspected_components > limit).then(|| {
        let message = format!(
            "{} more of the components look bad since just now, together more than safety.maxUnhealthy allows ({limit}); looking again before {action} of {}",
            s.suspected_components, s.component.name
        );
        Refusal::until(Guard::NotConfirmed, message, None)
    })
}

fn max_concurrent(s: &Situation<'_>, _: Intent<'_>) -> Option<Refusal> {
    let limit = s.policy.limits.max_concurrent;
    let acting: Vec<&str> =
        s.history.iter().filter(|past| past.phase.is_acting()).map(|past| past.component.as_str()).collect();
    (acting.len() >= limit).then(|| {
        let message = format!(
            "{} is being healed and safety.maxConcurrent is {limit}; {} is next when that is done",
            acting.join(", "),
            s.component.name
        );
        Refusal::until(Guard::MaxConcurrent, message, None)
    })
}

fn budget(s: &Situation<'_>, _: Intent<'_>) -> Option<Refusal> {
    let limits = &s.policy.limits;
    let started = history::started_within(s.history, limits.budget_window, s.now);
    let used = started.len();
    (used >= limits.budget_actions).then(|| {
        // When so many have left the window that one more fits; all but one may have to, when the budget was lowered.
        let leaves = started.get(used - limits.budget_actions);
        let retry_at = leaves.and_then(|at| at.checked_add(limits.budget_window).ok());
        let message = format!(
            "{used} actions were started in the last {:#}, all that safety.budget allows{}; raise safety.budget.actions to act sooner",
            limits.budget_window,
            at_words(retry_at)
        );
        Refusal { calls_person: true, ..Refusal::until(Guard::Budget, message, retry_at) }
    })
}

fn cooldown(s: &Situation<'_>, _: Intent<'_>) -> Option<Refusal> {
    let limits = &s.policy.limits;
    let last = history::last_started(s.history, &s.component.name)?;
    let retry_at = last.checked_add(limits.cooldown).ok()?;
    (s.now < retry_at).then(|| {
        let message = format!(
            "{} was acted on at {} and safety.cooldown is {:#}{}",
            s.component.name,
            last.strftime("%H:%M:%SZ"),
            limits.cooldown,
            at_words(Some(retry_at))
        );
        Refusal::until(Guard::Cooldown, message, Some(retry_at))
    })
}

/// A remedy after which the same is foreseen again within the horizon does not hold. Doing it over and over would keep a
/// process that only warms up from ever being warm.
fn foreseen_again(s: &Situation<'_>, Intent { ground, .. }: Intent<'_>) -> Option<Refusal> {
    let Ground::Foreseen(foreseen) = ground else { return None };
    let horizon = s.policy.limits.prediction_horizon;
    let last = history::last_ahead(s.history, &s.component.name, &foreseen.id)?;
    let retry_at = last.checked_add(horizon).ok()?;
    (s.now < retry_at).then(|| {
        let message = format!(
            "{} was acted on ahead of a failure at {}, less than prediction.horizon ({horizon:#}) ago, and is to fail again: {}{}; what fails is still healed, and a person should find out why it does not hold",
            s.component.name,
            last.strftime("%H:%M:%SZ"),
            foreseen.reason,
            at_words(Some(retry_at))
        );
        Refusal { calls_person: true, ..Refusal::until(Guard::ForeseenAgain, message, Some(retry_at)) }
    })
}

/// It may still be under way, or have been done: nothing is done on top of it before the person who was called has looked.
/// An incident may close for a moment, and be another one then.
fn outcome_unknown(s: &Situation<'_>, Intent { ground, action }: Intent<'_>) -> Option<Refusal> {
    let young = |past: &Past| past.finished_at.is_some_and(|at| s.now.duration_since(at) < UNKNOWN_FOR);
    let here = |past: &&Past| past.outcome_unknown && past.component == s.component.name;
    let sent = s.history.iter().filter(here).find(|past| past.episode == ground.episode() || young(past))?;
    let message = format!(
        "{} was sent to {}, and what came of it is not known, so {action} is not done on top of it: a person has to look, and deletes that Remediation if it was not done, so that it can be sent again; if it was, all goes on when {} is well",
        sent.action, s.component.name, s.component.name
    );
    Some(Refusal::person(Guard::OutcomeUnknown, message))
}

fn circuit_breaker(s: &Situation<'_>, _: Intent<'_>) -> Option<Refusal> {
    let limits = &s.policy.limits;
    let (failures, last) = history::failures_in_a_row(s.history, &s.component.name);
    let retry_at = last?.checked_add(limits.breaker_recovery).ok()?;
    // After recoveryTimeout one action is let through (half-open); its failure opens the breaker anew.
    (failures >= limits.breaker_threshold && s.now < retry_at).then(|| {
        let message = format!(
            "the last {failures} actions on {} did not help, so its circuit breaker is open{}; a person should look",
            s.component.name,
            at_words(Some(retry_at))
        );
        Refusal { calls_person: true, ..Refusal::until(Guard::CircuitBreaker, message, Some(retry_at)) }
    })
}

fn at_words(retry_at: Option<Timestamp>) -> String {
    retry_at.map(|at| format!("; tried again at {}", at.strftime("%H:%M:%SZ"))).unwrap_or_default()
}
