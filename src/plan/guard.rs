//! The guards that hold an action back. They run in the order of [`Guard`]; the first refusal is reported.

use jiff::{SignedDuration, Timestamp};

use super::{Ground, Past, Situation, history};
use crate::{
    analyze::{observation::Measured, outlook},
    api::{ActionKind, GitOps, IRREVERSIBLE, Mode, Phase, RemediationStatus, counted, reasons},
};

reasons! {
    /// Every reason not to act; used unchanged in conditions, events and metric labels. The meanings are those of
    /// [`crate::api::RemediationReason`].
    pub enum Guard {
        NoRemedy,
        NoKnownGood,
        TooOld,
        Irreversible,
        LadderExhausted,
        Suspended,
        ObserveMode,
        StaleData,
        NotConfirmed,
        Paused,
        TemplateElsewhere,
        GitOpsOwned,
        OutcomeUnknown,
        MaxUnhealthy,
        MaxConcurrent,
        Budget,
        Cooldown,
        CircuitBreaker,
        ForeseenAgain,
    }
}

/// The right to change something outside. Only the guards create a permit: [`super::still_allowed`] when every guard lets
/// the action pass, [`Permit::begun`] for an action that passed before and was stored as `Running`.
#[derive(Debug)]
pub struct Permit(());

impl Permit {
    pub(super) fn granted() -> Self {
        Self(())
    }

    /// The permit of an action that was started: `Running` is stored only with a permit.
    pub fn begun(status: &RemediationStatus) -> Option<Self> {
        (status.phase == Phase::Running && status.started_at.is_some()).then_some(Self(()))
    }
}

/// A guard's refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub guard: Guard,
    /// The observation with its limit, what happens next, and how to intervene.
    pub message: String,
    /// When the guard will let the action pass, where that is known; otherwise the guard is checked again at every check.
    pub retry_at: Option<Timestamp>,
    /// A person has to do something: waiting does not help.
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

/// No action is based on a check older than this: three times the time limit of a check.
pub const FRESH: SignedDuration = SignedDuration::from_secs(10);

/// For this long after an action with an unknown outcome, no action is performed in another incident either.
const UNKNOWN_FOR: SignedDuration = SignedDuration::from_mins(15);

type Check = fn(&Situation<'_>, Ground<'_>, ActionKind) -> Option<Refusal>;

/// The first guard that refuses this action now.
pub fn first_refusal(situation: &Situation<'_>, ground: Ground<'_>, action: ActionKind) -> Option<Refusal> {
    const GUARDS: [Check; 15] = [
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
    GUARDS.iter().find_map(|guard| guard(situation, ground, action))
}

fn suspended(s: &Situation<'_>, _: Ground<'_>, action: ActionKind) -> Option<Refusal> {
    s.policy.suspend.then(|| {
        let name = &s.component.name;
        let message = format!("would apply {action} to {name}, but spec.suspend is true; set it to false to resume");
        Refusal::until(Guard::Suspended, message, None)
    })
}

fn observe_mode(s: &Situation<'_>, _: Ground<'_>, action: ActionKind) -> Option<Refusal> {
    (s.policy.mode == Mode::Observe).then(|| {
        let message = format!(
            "would apply {action} to {}, but spec.mode is Observe; set it to Approve or Auto to allow actions",
            s.component.name
        );
        Refusal::person(Guard::ObserveMode, message)
    })
}

fn stale_data(s: &Situation<'_>, ground: Ground<'_>, action: ActionKind) -> Option<Refusal> {
    let refuse = |message| Some(Refusal::until(Guard::StaleData, message, None));
    let (name, age) = (&s.component.name, s.now.duration_since(s.observation.at));
    if age > FRESH {
        let (age, limit) = (age.as_secs(), FRESH.as_secs());
        return refuse(format!(
            "the last check of {name} is {age} s old, more than {limit} s; checking again before {action}"
        ));
    }
    // A service that is only watched is healed by custom remedies, which do not depend on its state.
    let only_watched = s.component.target.capabilities().is_only_watched();
    if let (false, Measured::Unknown(why)) = (only_watched, &s.observation.target) {
        let target = s.component.target.describe();
        return refuse(format!(
            "{target} cannot be checked ({}: {}), so {action} is not performed; checking again",
            why.reason, why.message
        ));
    }
    // "Could not measure" is neither bad nor about to be.
    let meant = match ground {
        Ground::Unhealthy(_) => s.assessment.is_bad(),
        Ground::Foreseen(_) => s.assessment.score.is_some() && !s.assessment.is_bad(),
    };
    if meant {
        return None;
    }
    let (status, message) = (s.assessment.status, s.assessment.message());
    refuse(format!("{name} is {status} at the last check ({message}), so {action} is not performed; checking again"))
}

fn not_confirmed(s: &Situation<'_>, ground: Ground<'_>, action: ActionKind) -> Option<Refusal> {
    let (limits, name) = (&s.policy.limits, &s.component.name);
    let message = match ground {
        Ground::Unhealthy(_) if s.tracker.is_confirmed_bad(limits) => return None,
        Ground::Unhealthy(_) => {
            let checks = counted(limits.unhealthy_after, "consecutive check");
            format!("{name} was not unhealthy in {checks} (detection.unhealthyAfter); checking again before {action}")
        }
        Ground::Foreseen(foreseen) => {
            let fresh = s.forecast.filter(|_| s.foreseen.is_some_and(|open| open.id == foreseen.id));
            if fresh.is_some_and(|forecast| outlook::stands(foreseen, forecast, s.observation, limits)) {
                return None;
            }
            format!(
                "the last check of {name} no longer supports the forecast of a failure; checking again before {action}"
            )
        }
    };
    Some(Refusal::until(Guard::NotConfirmed, message, None))
}

fn paused(s: &Situation<'_>, _: Ground<'_>, action: ActionKind) -> Option<Refusal> {
    s.workload().filter(|workload| workload.paused)?;
    let target = &s.component.target;
    let resume = target.workload().map(|(kind, name)| format!("resume it with {}, or ", kind.resume(name)));
    let message = format!(
        "{} is paused, so {action} would have no effect; {}repair it manually",
        target.describe(),
        resume.unwrap_or_default()
    );
    Some(Refusal::person(Guard::Paused, message))
}

fn template_elsewhere(s: &Situation<'_>, _: Ground<'_>, action: ActionKind) -> Option<Refusal> {
    let source = s.workload().filter(|_| action.replaces_template())?.template_in.as_ref()?;
    let message = format!(
        "{} takes its template from {source} (spec.workloadRef), which {action} does not write; restore the template there, for example with kubectl rollout undo {}",
        s.component.target.describe(),
        source.to_lowercase()
    );
    Some(Refusal::person(Guard::TemplateElsewhere, message))
}

fn gitops_owned(s: &Situation<'_>, _: Ground<'_>, action: ActionKind) -> Option<Refusal> {
    // A restart only adds an annotation that GitOps controllers leave alone; they would revert a rollback or another number
    // of pods.
    if !action.replaces_template() && action != ActionKind::Scale {
        return None;
    }
    let owner = s.workload()?.gitops_owner.as_ref()?;
    let (change, how) = match (action, s.policy.limits.git_ops, owner.known) {
        // A newer revision of the source says nothing about the number of pods, so nothing shows when to resume the owner.
        (ActionKind::Scale, ..) => ("another number of pods", "change the number in its source"),
        (_, GitOps::Suspend, true) => return None,
        (_, GitOps::Suspend, false) => {
            ("a rollback", "the owner is not identified, so it cannot be suspended; revert the change in its source")
        }
        (_, GitOps::Refuse, true) => (
            "a rollback",
            "revert the change in its source, or set safety.gitOps to Suspend, which suspends the owner for a rollback",
        ),
        (_, GitOps::Refuse, false) => ("a rollback", "revert the change in its source"),
    };
    let target = s.component.target.describe();
    let message = format!("{target} is managed by {}, which would revert {change}; {how}", owner.words);
    Some(Refusal::person(Guard::GitOpsOwned, message))
}

fn irreversible(s: &Situation<'_>, _: Ground<'_>, action: ActionKind) -> Option<Refusal> {
    let workload = s.workload().filter(|_| action.replaces_template())?;
    let why = workload.irreversible.as_ref()?;
    let message = format!(
        "revision {} of {} has the annotation {IRREVERSIBLE} ({why:?}), so it is not rolled back; release a fix, or roll back manually",
        workload.release.revision,
        s.component.target.describe()
    );
    Some(Refusal::person(Guard::Irreversible, message))
}

fn max_unhealthy(s: &Situation<'_>, _: Ground<'_>, action: ActionKind) -> Option<Refusal> {
    let limit = s.policy.limits.max_unhealthy;
    let unhealthy = counted(s.unhealthy_components, "unhealthy component");
    if s.unhealthy_components > limit {
        let message = format!(
            "{unhealthy} at once, more than safety.maxUnhealthy allows ({limit}); a common cause is likely, which {action} of single components does not remove; investigate manually"
        );
        return Some(Refusal::person(Guard::MaxUnhealthy, message));
    }
    // A common cause shows in one of the components first.
    (s.unhealthy_components + s.suspected_components > limit).then(|| {
        let message = format!(
            "{unhealthy} and {} unconfirmed, together more than safety.maxUnhealthy allows ({limit}); checking again before {action} of {}",
            s.suspected_components, s.component.name
        );
        Refusal::until(Guard::NotConfirmed, message, None)
    })
}

fn max_concurrent(s: &Situation<'_>, _: Ground<'_>, action: ActionKind) -> Option<Refusal> {
    let limit = s.policy.limits.max_concurrent;
    let acting: Vec<&str> =
        s.history.iter().filter(|past| past.phase.is_acting()).map(|past| past.component.as_str()).collect();
    (acting.len() >= limit).then(|| {
        let message = format!(
            "{} running ({}), and safety.maxConcurrent is {limit}; {action} of {} starts when one of them ends",
            counted(acting.len(), "action"),
            acting.join(", "),
            s.component.name
        );
        Refusal::until(Guard::MaxConcurrent, message, None)
    })
}

fn budget(s: &Situation<'_>, _: Ground<'_>, _: ActionKind) -> Option<Refusal> {
    let limits = &s.policy.limits;
    let started = history::started_within(s.history, limits.budget_window, s.now);
    let used = started.len();
    (used >= limits.budget_actions).then(|| {
        // When so many have left the window that one more fits; all but one may have to, when the budget was lowered.
        let leaves = started.get(used - limits.budget_actions);
        let retry_at = leaves.and_then(|at| at.checked_add(limits.budget_window).ok());
        let message = format!(
            "{} started in the last {:#}, all that safety.budget allows ({}){}; raise safety.budget.actions to act sooner",
            counted(used, "action"),
            limits.budget_window,
            limits.budget_actions,
            next_attempt(retry_at)
        );
        Refusal { calls_person: true, ..Refusal::until(Guard::Budget, message, retry_at) }
    })
}

fn cooldown(s: &Situation<'_>, _: Ground<'_>, _: ActionKind) -> Option<Refusal> {
    let limits = &s.policy.limits;
    let last = history::last_started(s.history, &s.component.name)?;
    let retry_at = last.checked_add(limits.cooldown).ok()?;
    (s.now < retry_at).then(|| {
        let message = format!(
            "the last action on {} started at {}, and safety.cooldown is {:#}{}",
            s.component.name,
            clock(last),
            limits.cooldown,
            next_attempt(Some(retry_at))
        );
        Refusal::until(Guard::Cooldown, message, Some(retry_at))
    })
}

/// A remedy after which the same failure is forecast again within the horizon has no lasting effect. To repeat it would keep
/// a process that only warms up from ever being warm.
fn foreseen_again(s: &Situation<'_>, ground: Ground<'_>, _: ActionKind) -> Option<Refusal> {
    let Ground::Foreseen(foreseen) = ground else { return None };
    let horizon = s.policy.limits.prediction_horizon;
    let last = history::last_ahead(s.history, &s.component.name, &foreseen.id)?;
    let retry_at = last.checked_add(horizon).ok()?;
    (s.now < retry_at).then(|| {
        let message = format!(
            "the last action on {} ahead of a failure started at {}, less than prediction.horizon ({horizon:#}) ago, and a failure is forecast again: {}{}; an actual failure is still healed; investigate why the action has no lasting effect",
            s.component.name,
            clock(last),
            foreseen.reason,
            next_attempt(Some(retry_at))
        );
        Refusal { calls_person: true, ..Refusal::until(Guard::ForeseenAgain, message, Some(retry_at)) }
    })
}

/// The action may still be running, or may have taken effect: no other action follows before a person has checked it. An
/// incident may close for a moment, and be another one then.
fn outcome_unknown(s: &Situation<'_>, ground: Ground<'_>, action: ActionKind) -> Option<Refusal> {
    let young = |past: &Past| past.finished_at.is_some_and(|at| s.now.duration_since(at) < UNKNOWN_FOR);
    let here = |past: &&Past| past.outcome_unknown && past.component == s.component.name;
    let sent = s.history.iter().filter(here).find(|past| past.episode == ground.episode() || young(past))?;
    let (name, sent) = (&s.component.name, sent.action);
    let message = format!(
        "the outcome of {sent} on {name} is unknown, so {action} is not performed; check the service: if {sent} had no effect, delete its Remediation to allow a retry; otherwise actions resume when {name} is healthy"
    );
    Some(Refusal::person(Guard::OutcomeUnknown, message))
}

fn circuit_breaker(s: &Situation<'_>, _: Ground<'_>, _: ActionKind) -> Option<Refusal> {
    let limits = &s.policy.limits;
    let (failures, last) = history::failures_in_a_row(s.history, &s.component.name);
    let retry_at = last?.checked_add(limits.breaker_recovery).ok()?;
    // After recoveryTimeout one action is let through (half-open); its failure opens the breaker again.
    (failures >= limits.breaker_threshold && s.now < retry_at).then(|| {
        let message = format!(
            "the last {} on {} did not help, so the circuit breaker is open{}; investigate manually",
            counted(failures, "action"),
            s.component.name,
            next_attempt(Some(retry_at))
        );
        Refusal { calls_person: true, ..Refusal::until(Guard::CircuitBreaker, message, Some(retry_at)) }
    })
}

fn clock(at: Timestamp) -> impl std::fmt::Display {
    at.strftime("%H:%M:%SZ")
}

fn next_attempt(retry_at: Option<Timestamp>) -> String {
    retry_at.map(|at| format!("; next attempt at {}", clock(at))).unwrap_or_default()
}
