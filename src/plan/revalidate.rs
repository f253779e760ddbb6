//! Whether the current policy still allows an action that was decided. The state of the component does not matter here.

use super::guard::Guard;
use crate::api::{ActionPlan, Mode, RemediationReason, ValidPolicy};

/// Why the policy no longer allows the action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawn {
    pub reason: RemediationReason,
    /// For a person.
    pub why: &'static str,
}

/// Whether a write that was started must not be made any more.
pub fn withdrawn(plan: &ActionPlan, policy: Option<&ValidPolicy>) -> Option<Withdrawn> {
    let Some(policy) = policy else {
        let why = "the policy was deleted or is no longer valid";
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

/// Whether the policy no longer names the component or the action: waiting does not change that.
pub fn unlisted(plan: &ActionPlan, policy: &ValidPolicy) -> Option<Withdrawn> {
    let Some(component) = policy.component(&plan.component) else {
        let why = "the policy no longer names this component, or its entry is not valid";
        return Some(Withdrawn { reason: RemediationReason::ComponentGone, why });
    };
    let listed = component.remedies.iter().any(|remedy| remedy.action.allows(&plan.intent));
    let why = "the policy no longer lists this action";
    (!listed).then_some(Withdrawn { reason: Guard::NoRemedy.into(), why })
}
