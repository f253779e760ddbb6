//! The ladder: the default one, and the one that a policy declares.

use super::{Checker, MINUTE, ValidRemedy, ValidTarget};
use crate::api::{ActionKind, Cause, Component, Remedy, RemedyApproval};

/// Every cause that is known for what it is.
const KNOWN: [Cause; 5] =
    [Cause::ReleaseRegression, Cause::ConfigRegression, Cause::Crash, Cause::Exhaustion, Cause::Errors];

/// The remedies of a workload whose policy names none.
const DEFAULT: [(ActionKind, &[Cause]); 5] = [
    (ActionKind::RollbackDeployment, &[Cause::ReleaseRegression]),
    (ActionKind::RollbackConfig, &[Cause::ConfigRegression]),
    (ActionKind::RollbackPreviousState, &[Cause::ReleaseRegression, Cause::ConfigRegression]),
    (ActionKind::CleanupMemory, &[Cause::Exhaustion]),
    (ActionKind::Restart, &[Cause::Crash, Cause::Exhaustion, Cause::Errors]),
];

/// The causes that an action can help against, if not all.
fn only_for(action: ActionKind) -> Option<&'static [Cause]> {
    match action {
        ActionKind::RollbackDeployment => Some(&[Cause::ReleaseRegression]),
        ActionKind::RollbackConfig => Some(&[Cause::ConfigRegression]),
        ActionKind::RollbackPreviousState => Some(&[Cause::ReleaseRegression, Cause::ConfigRegression]),
        ActionKind::CleanupMemory => Some(&[Cause::Exhaustion]),
        ActionKind::Restart => None,
    }
}

impl Checker {
    pub(super) fn remedies(&mut self, component: &Component, target: &ValidTarget) -> Vec<ValidRemedy> {
        let http = matches!(target, ValidTarget::Http(_));
        let Some(remedies) = &component.remedies else {
            let default = DEFAULT.iter().filter(|_| !http);
            return default
                .map(|(action, causes)| ValidRemedy {
                    action: *action,
                    causes: causes.to_vec(),
                    approval_required: false,
                    hook: None,
                })
                .collect();
        };
        if http && !remedies.is_empty() {
            self.bad(
                "remedies",
                "nothing can be done to an http target; leave remedies out, or name the workload".to_owned(),
            );
        }
        remedies.iter().enumerate().map(|(index, remedy)| self.remedy(&format!("remedies[{index}]"), remedy)).collect()
    }

    fn remedy(&mut self, field: &str, remedy: &Remedy) -> ValidRemedy {
        let Remedy { action, causes, approval, hook } = remedy;
        let only = only_for(*action).unwrap_or(&KNOWN);
        let foreign = causes.iter().find(|cause| only_for(*action).is_some() && !only.contains(cause));
        if let Some(other) = foreign {
            let all: Vec<String> = only.iter().map(Cause::to_string).collect();
            self.bad(
                &format!("{field}.for"),
                format!("{action} cannot help against {other}; write [{}]", all.join(", ")),
            );
        }
        let causes = if causes.is_empty() { only.to_vec() } else { causes.clone() };
        if let Some(hook) = hook {
            self.url(&format!("{field}.hook.url"), &hook.url);
            self.duration(&format!("{field}.hook.timeout"), &hook.timeout, 100, MINUTE);
            if *action != ActionKind::CleanupMemory {
                self.bad(
                    &format!("{field}.hook"),
                    format!("{action} calls no hook; take it out, or make the action CleanupMemory"),
                );
            }
        }
        ValidRemedy {
            action: *action,
            causes,
            approval_required: *approval == RemedyApproval::Required,
            hook: hook.clone(),
        }
    }
}
