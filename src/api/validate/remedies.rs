//! The ladder: the default ladder, or the one that a policy declares.

use super::{Checker, HOUR, MINUTE, SECOND, ValidAction, ValidRemedy};
use crate::api::{
    ActionKind, AllowedMcpTool, Capabilities, Cause, Component, Intent, JobRemedy, Remedy, RemedyApproval, ScaleRemedy,
    in_words,
    rules::{parameters, users_of},
};

impl Checker {
    pub(super) fn remedies(
        &mut self,
        component: &Component,
        target: &Capabilities,
        allowed: &[AllowedMcpTool],
    ) -> Vec<ValidRemedy> {
        let Some(remedies) = &component.remedies else {
            let default = target.default_remedies.iter().map(|(action, causes)| Remedy::plain(*action, causes));
            return self
                .within("remedies", |check| default.filter_map(|remedy| check.remedy(&remedy, allowed)).collect());
        };
        let mut valid = Vec::with_capacity(remedies.len());
        for (index, remedy) in remedies.iter().enumerate() {
            valid.extend(self.within(&format!("remedies[{index}]"), |check| {
                check.fits_target(remedy.action, component, target);
                check.remedy(remedy, allowed)
            }));
        }
        valid
    }

    /// Whether the target supports the action, and the policy names everything that the action needs.
    fn fits_target(&mut self, action: ActionKind, component: &Component, target: &Capabilities) {
        let noun = target.noun;
        match target.find(action) {
            None => {
                let why = target.why_not.map(|why| format!(": {why}")).unwrap_or_default();
                let actions = target.actions_in_words();
                self.bad("action", format!("{noun} does not support {action}, only {actions}; remove it{why}"));
            }
            Some(supported) => {
                if let Some(needs) = supported.needs.filter(|needs| !(needs.holds)(&component.target)) {
                    self.bad("action", format!("{action} of {noun} {}", needs.message));
                }
            }
        }
    }

    fn remedy(&mut self, remedy: &Remedy, allowed: &[AllowedMcpTool]) -> Option<ValidRemedy> {
        let Remedy { action, causes, approval, hook, scale, job, webhook, mcp, reconnect: _, sessions: _ } = remedy;
        if let Some(other) = causes.iter().find(|cause| !action.helps_against(**cause)) {
            let all: Vec<String> = action.default_causes().iter().map(Cause::to_string).collect();
            self.bad("for", format!("{action} cannot help against {other}; write [{}]", all.join(", ")));
        }
        let causes = if causes.is_empty() { action.default_causes().to_vec() } else { causes.clone() };
        self.has_its_parameters(remedy);
        if let Some(hook) = hook {
            self.url("hook.url", &hook.url);
            self.duration("hook.timeout", &hook.timeout, 100, MINUTE);
        }
        if let Some(scale) = scale {
            self.within("scale", |check| check.scale(scale));
        }
        if let Some(job) = job {
            self.within("job", |check| check.job(job));
        }
        if let Some(webhook) = webhook {
            self.url("webhook.url", &webhook.url);
            self.duration("webhook.timeout", &webhook.timeout, 100, MINUTE);
            self.duration("webhook.deadline", &webhook.deadline, SECOND, 6 * HOUR);
        }
        if let Some(mcp) = mcp {
            self.within("mcp", |check| check.mcp(mcp, allowed));
        }
        let (reconnect, sessions) = (self.reconnect(remedy), self.sessions(remedy));
        let action = match action {
            ActionKind::Rollback => ValidAction::Rollback,
            ActionKind::RollbackConfig => ValidAction::RollbackConfig,
            ActionKind::RollbackState => ValidAction::RollbackState,
            ActionKind::CleanupMemory => ValidAction::CleanupMemory { hook: hook.clone() },
            ActionKind::Scale => ValidAction::Scale(scale.clone()?),
            ActionKind::Restart => ValidAction::Fixed(Intent::Restart {}),
            ActionKind::Failover => ValidAction::Fixed(Intent::Failover {}),
            ActionKind::Job => ValidAction::Fixed(Intent::Job(job.clone()?)),
            ActionKind::Webhook => ValidAction::Fixed(Intent::Webhook(webhook.clone()?)),
            ActionKind::Mcp => ValidAction::Fixed(Intent::Mcp(mcp.clone()?)),
            ActionKind::RecoverConnections => ValidAction::Fixed(Intent::RecoverConnections(reconnect?)),
            ActionKind::ReleaseConnections => ValidAction::Fixed(Intent::ReleaseConnections(sessions?)),
            ActionKind::CancelQueries => ValidAction::Fixed(Intent::CancelQueries(sessions?)),
        };
        Some(ValidRemedy { action, causes, approval_required: *approval == RemedyApproval::Required })
    }

    /// Whether the remedy has the parameter that its action needs, and none of another action.
    fn has_its_parameters(&mut self, remedy: &Remedy) {
        let has = remedy.parameters();
        for parameter in parameters() {
            let (users, needing) = users_of(parameter);
            let is_set = has.contains(&parameter);
            if is_set && !users.contains(&remedy.action) {
                let (actions, have) = if users.len() == 1 { ("action", "has") } else { ("actions", "have") };
                self.bad(parameter, format!("only the {actions} {} {have} it; remove it", in_words(users)));
            } else if !is_set && needing.contains(&remedy.action) {
                self.bad(parameter, format!("is missing; the action {} needs it", remedy.action));
            }
        }
    }

    fn scale(&mut self, scale: &ScaleRemedy) {
        if let Err(why) = scale.of(1) {
            self.bad("by", why);
        }
        self.range("min", scale.min, 1, 5000);
        self.range("max", scale.max, 1, 5000);
        if scale.min > scale.max {
            self.bad("", format!("min {} must not be above max {}", scale.min, scale.max));
        }
    }

    fn job(&mut self, job: &JobRemedy) {
        self.duration("deadline", &job.deadline, SECOND, 6 * HOUR);
        match (&job.template, &job.template_ref) {
            (Some(template), None) => {
                if let Err(why) = template.parse() {
                    self.bad("template", why);
                }
            }
            (None, Some(_)) => {}
            _ => self.bad("", "needs exactly one of template and templateRef"),
        }
    }
}
