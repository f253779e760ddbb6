//! Does the policy, as it is now, still want an action that was decided? Pure. The component's state plays no part here.

use crate::{
    api::{Means, Mode, RemediationSpec, ValidPolicy},
    plan::guard::Guard,
};

/// CamelCase reason, and words for a person.
pub type Withdrawn = (&'static str, &'static str);

/// A write that was begun must not be made any more.
pub fn withdrawn(spec: &RemediationSpec, policy: Option<&ValidPolicy>) -> Option<Withdrawn> {
    let Some(policy) = policy else {
        return Some(("PolicyGone", "the policy was deleted or is not valid any more"));
    };
    if policy.suspend {
        return Some((Guard::Suspended.into(), "spec.suspend is true now"));
    }
    if policy.mode == Mode::Observe {
        return Some((Guard::ObserveMode.into(), "spec.mode is Observe now"));
    }
    unlisted(spec, policy)
}

/// The policy does not name the component or the action any more: waiting will not change that.
pub fn unlisted(spec: &RemediationSpec, policy: &ValidPolicy) -> Option<Withdrawn> {
    let Some(component) = policy.component(&spec.component) else {
        return Some(("ComponentGone", "the policy does not name this component any more, or names it wrongly"));
    };
    // From how many pods to how many is decided anew each time.
    let same = |means: &Means| {
        let scales = means.scale.is_some() == spec.scale.is_some();
        let databases = means.reconnect == spec.reconnect && means.sessions == spec.sessions;
        let own = means.job == spec.job && means.webhook == spec.webhook && means.mcp == spec.mcp;
        scales && databases && own && means.hook == spec.hook
    };
    let listed = component.remedies.iter().any(|remedy| remedy.action == spec.action && same(&remedy.means));
    (!listed).then_some((Guard::NoRemedy.into(), "the policy does not list this action any more"))
}
