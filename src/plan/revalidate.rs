//! Does the policy, as it is now, still want an action that was decided? The component's state plays no part here.

use super::guard::Guard;
use crate::api::{ActionPlan, Mode, RemediationReason, ValidPolicy};

/// Why the policy does not want the action any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawn {
    pub reason: RemediationReason,
    /// For a person.
    pub why: &'static str,
}

/// A write that was begun must not be made any more.
pub fn withdrawn(plan: &ActionPlan, policy: Option<&ValidPolicy>) -> Option<Withdrawn> {
    let Some(policy) = policy else {
        let why = "the policy was deleted or is not valid any more";
        return Some(Withdrawn { reason: RemediationReason::PolicyGone, why });
    };
    if policy.suspend {
        return Some(Withdrawn { reason: Guard::Suspended.into(), why: "spec.suspend is true now" });
    }
    if policy.mode == Mode::Observe {
        return Some(Withdrawn { reason: Guard::ObserveMode.into(), why: "spec.mode is Observe now" });
    }
    unlisted(plan, policy)
}

/// The policy does not name the component or the action any more: waiting will not change that.
pub fn unlisted(plan: &ActionPlan, policy: &ValidPolicy) -> Option<Withdrawn> {
    let Some(component) = policy.component(&plan.component) else {
        let why = "the policy does not name this component any more, or names it wrongly";
        return Some(Withdrawn { reason: RemediationReason::ComponentGone, why });
    };
    let listed = component.remedies.iter().any(|remedy| remedy.action.allows(&plan.intent));
    let why = "the policy does not list this action any more";
    (!listed).then_some(Withdrawn { reason: Guard::NoRemedy.into(), why })
}
