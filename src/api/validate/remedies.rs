//! The ladder: the default one, and the one that a policy declares.

use super::{Checker, HOUR, MINUTE, SECOND, ValidAction, ValidRemedy};
use crate::api::{
    ActionKind, AllowedMcpTool, Capabilities, Cause, Component, JobRemedy, Remedy, RemedyApproval, ScaleRemedy,
    WebhookRemedy, in_words,
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
            return default.filter_map(|remedy| self.remedy("remedies", &remedy, allowed)).collect();
        };
        let mut valid = Vec::with_capacity(remedies.len());
        for (index, remedy) in remedies.iter().enumerate() {
            let field = format!("remedies[{index}]");
            self.fits_target(&format!("{field}.action"), remedy.action, component, target);
            valid.extend(self.remedy(&field, remedy, allowed));
        }
        valid
    }

    /// Whether the target supports the action, and the policy names all that it needs.
    fn fits_target(&mut self, field: &str, action: ActionKind, component: &Component, target: &Capabilities) {
        match target.find(action) {
            None => {
                let why = target.why_not.map(|why| format!(": {why}")).unwrap_or_default();
                let message = format!(
                    "{action} cannot be done to {}, only {}; remove it{why}",
                    target.noun,
                    target.actions_in_words()
                );
                self.bad(field, message);
            }
            Some(supported) => {
                if let Some(needs) = supported.needs
                    && !(needs.holds)(&component.target)
                {
                    self.bad(field, format!("{action} of {} {}", target.noun, needs.message));
                }
            }
        }
    }

    fn remedy(&mut self, field: &str, remedy: &Remedy, allowed: &[AllowedMcpTool]) -> Option<ValidRemedy> {
        let Remedy { action, causes, approval, hook, scale, job, webhook, mcp, reconnect: _, sessions: _ } = remedy;
        if let Some(other) = causes.iter().find(|cause| !action.helps_against(**cause)) {
            let all: Vec<String> = action.default_causes().iter().map(Cause::to_string).collect();
            self.bad(
                &format!("{field}.for"),
                format!("{action} cannot help against {other}; write [{}]", all.join(", ")),
            );
        }
        let causes = if causes.is_empty() { action.default_causes().to_vec() } else { causes.clone() };
        self.has_its_parameters(field, remedy);
        if let Some(hook) = hook {
            self.url(&format!("{field}.hook.url"), &hook.url);
            self.duration(&format!("{field}.hook.timeout"), &hook.timeout, 100, MINUTE);
        }
        if let Some(scale) = scale {
            self.scale(&format!("{field}.scale"), scale);
        }
        if let Some(job) = job {
            self.job(&format!("{field}.job"), job);
        }
        if let Some(webhook) = webhook {
            self.webhook(&format!("{field}.webhook"), webhook);
        }
        if let Some(mcp) = mcp {
            self.mcp(&format!("{field}.mcp"), mcp, allowed);
        }
        let (reconnect, sessions) = (self.reconnect(field, remedy), self.sessions(field, remedy));
        let action = match action {
            ActionKind::Rollback => ValidAction::Rollback,
            ActionKind::RollbackConfig => ValidAction::RollbackConfig,
            ActionKind::RollbackState => ValidAction::RollbackState,
            ActionKind::CleanupMemory => ValidAction::CleanupMemory { hook: hook.clone() },
            ActionKind::Restart => ValidAction::Restart,
            ActionKind::Failover => ValidAction::Failover,
            ActionKind::Scale => ValidAction::Scale(scale.clone()?),
            ActionKind::Job => ValidAction::Job(job.clone()?),
            ActionKind::Webhook => ValidAction::Webhook(webhook.clone()?),
            ActionKind::Mcp => ValidAction::Mcp(mcp.clone()?),
            ActionKind::RecoverConnections => ValidAction::RecoverConnections(reconnect?),
            ActionKind::ReleaseConnections => ValidAction::ReleaseConnections(sessions?),
            ActionKind::CancelQueries => ValidAction::CancelQueries(sessions?),
        };
        Some(ValidRemedy { action, causes, approval_required: *approval == RemedyApproval::Required })
    }

    /// Whether the remedy has the parameter that its action needs, and none of another action's.
    fn has_its_parameters(&mut self, field: &str, remedy: &Remedy) {
        let has = remedy.parameters();
        for parameter in parameters() {
            let (users, needing) = users_of(parameter);
            let is_set = has.contains(&parameter);
            let field = format!("{field}.{parameter}");
            if is_set && !users.contains(&remedy.action) {
                let (actions, have) = if users.len() == 1 { ("action", "has") } else { ("actions", "have") };
                self.bad(&field, format!("only the {actions} {} {have} it; remove it", in_words(users)));
            } else if !is_set && needing.contains(&remedy.action) {
                self.bad(&field, format!("is missing; the action {} needs it", remedy.action));
            }
        }
    }

    fn scale(&mut self, field: &str, scale: &ScaleRemedy) {
        if let Err(why) = scale.of(1) {
            self.bad(&format!("{field}.by"), why);
        }
        self.range(&format!("{field}.min"), scale.min, 1, 5000);
        self.range(&format!("{field}.max"), scale.max, 1, 5000);
        if scale.min > scale.max {
            self.bad(field, format!("min {} must not be above max {}", scale.min, scale.max));
        }
    }

    fn job(&mut self, field: &str, job: &JobRemedy) {
        self.duration(&format!("{field}.deadline"), &job.deadline, SECOND, 6 * HOUR);
        match (&job.template, &job.template_ref) {
            (Some(template), None) => {
                if let Err(why) = template.parse() {
                    self.bad(&format!("{field}.template"), why);
                }
            }
            (None, Some(_)) => {}
            _ => self.bad(field, "needs exactly one of template and templateRef".to_owned()),
        }
    }

    fn webhook(&mut self, field: &str, webhook: &WebhookRemedy) {
        self.url(&format!("{field}.url"), &webhook.url);
        self.duration(&format!("{field}.timeout"), &webhook.timeout, 100, MINUTE);
        self.duration(&format!("{field}.deadline"), &webhook.deadline, SECOND, 6 * HOUR);
    }
}
