//! The ladder: the default one, and the one that a policy declares.

use super::{Checker, HOUR, MINUTE, SECOND, ValidAction, ValidRemedy, ValidTarget};
use crate::api::{
    ActionKind, AllowedMcpTool, Cause, Component, JobRemedy, Reconnect, Remedy, RemedyApproval, ScaleRemedy,
    SessionSelector, WebhookRemedy, WorkloadKind,
};

/// Every cause that is known for what it is.
const KNOWN: [Cause; 6] = [
    Cause::ReleaseRegression,
    Cause::ConfigRegression,
    Cause::Crash,
    Cause::Unreachable,
    Cause::Exhaustion,
    Cause::Errors,
];

/// The remedies of a workload whose policy names none.
const DEFAULT: [(ActionKind, &[Cause]); 5] = [
    (ActionKind::Rollback, &[Cause::ReleaseRegression]),
    (ActionKind::RollbackConfig, &[Cause::ConfigRegression]),
    (ActionKind::RollbackState, &[Cause::ReleaseRegression, Cause::ConfigRegression]),
    (ActionKind::CleanupMemory, &[Cause::Exhaustion]),
    (ActionKind::Restart, &[Cause::Crash, Cause::Exhaustion, Cause::Errors]),
];

/// The remedies of a database whose policy names none. A restart is a person's decision.
const DEFAULT_OF_DATABASE: [(ActionKind, &[Cause]); 2] =
    [(ActionKind::RecoverConnections, &[Cause::Unreachable]), (ActionKind::ReleaseConnections, &[Cause::Exhaustion])];

/// What can be done to a database, beside remedies of a team's own.
const OF_DATABASE: [ActionKind; 4] =
    [ActionKind::RecoverConnections, ActionKind::ReleaseConnections, ActionKind::CancelQueries, ActionKind::Restart];

/// What can be done to a service that Render hosts, beside remedies of a team's own.
const OF_RENDER: [ActionKind; 5] = [
    ActionKind::Rollback,
    ActionKind::RollbackConfig,
    ActionKind::RollbackState,
    ActionKind::Restart,
    ActionKind::Scale,
];

/// What is done to it when its policy names no remedies: copies of its environment are kept only where a policy says so.
const OF_RENDER_BY_DEFAULT: [ActionKind; 2] = [ActionKind::Rollback, ActionKind::Restart];

/// What can be done to a Render Postgres, beside remedies of a team's own. Nothing of it is done unasked: a restart is a person's
/// decision, and a failover may lose what was written last.
const OF_RENDER_POSTGRES: [ActionKind; 2] = [ActionKind::Restart, ActionKind::Failover];

/// The causes that an action can help against, if not all.
fn only_for(action: ActionKind) -> Option<&'static [Cause]> {
    match action {
        ActionKind::Rollback => Some(&[Cause::ReleaseRegression]),
        ActionKind::RollbackConfig => Some(&[Cause::ConfigRegression]),
        ActionKind::RollbackState => Some(&[Cause::ReleaseRegression, Cause::ConfigRegression]),
        ActionKind::CleanupMemory => Some(&[Cause::Exhaustion]),
        ActionKind::RecoverConnections => Some(&[Cause::Unreachable]),
        // The standby has the same disk, memory and connections.
        ActionKind::Failover => Some(&[Cause::Unreachable, Cause::Errors]),
        ActionKind::ReleaseConnections | ActionKind::CancelQueries => Some(&[Cause::Exhaustion, Cause::Errors]),
        ActionKind::Restart | ActionKind::Scale | ActionKind::Job | ActionKind::Webhook | ActionKind::Mcp => None,
    }
}

/// Of what an action cannot be done to.
fn can_be_done(action: ActionKind, target: &ValidTarget) -> bool {
    match (target, action) {
        (ValidTarget::Workload { kind: WorkloadKind::DaemonSet, .. }, ActionKind::Scale)
        | (ValidTarget::Workload { kind: WorkloadKind::Rollout, .. }, ActionKind::RollbackState) => false,
        (ValidTarget::Postgres(database), ActionKind::Restart) => database.host.is_some(),
        _ => true,
    }
}

/// A remedy of a policy that names none.
fn by_default(action: ActionKind, causes: &[Cause]) -> Option<ValidRemedy> {
    let action = match action {
        ActionKind::Rollback => ValidAction::Rollback,
        ActionKind::RollbackConfig => ValidAction::RollbackConfig,
        ActionKind::RollbackState => ValidAction::RollbackState,
        ActionKind::CleanupMemory => ValidAction::CleanupMemory { hook: None },
        ActionKind::Restart => ValidAction::Restart,
        ActionKind::Failover => ValidAction::Failover,
        ActionKind::RecoverConnections => ValidAction::RecoverConnections(Reconnect::default()),
        ActionKind::ReleaseConnections => ValidAction::ReleaseConnections(SessionSelector::forgotten()),
        // These need parameters, so no ladder has them by default.
        ActionKind::CancelQueries | ActionKind::Scale | ActionKind::Job | ActionKind::Webhook | ActionKind::Mcp => {
            return None;
        }
    };
    Some(ValidRemedy { action, causes: causes.to_vec(), approval_required: false })
}

impl Checker {
    pub(super) fn remedies(
        &mut self,
        component: &Component,
        target: &ValidTarget,
        allowed: &[AllowedMcpTool],
    ) -> Vec<ValidRemedy> {
        let fits = |action: ActionKind| match target {
            ValidTarget::Workload { .. } => !OF_DATABASE[..3].contains(&action) && action != ActionKind::Failover,
            ValidTarget::Render(_) => OF_RENDER.contains(&action),
            ValidTarget::RenderPostgres(_) => OF_RENDER_POSTGRES.contains(&action),
            ValidTarget::Vercel(_) | ValidTarget::Github(_) => action == ActionKind::Rollback,
            ValidTarget::Postgres(_) => OF_DATABASE.contains(&action),
            ValidTarget::Http(_) => false,
        };
        let Some(remedies) = &component.remedies else {
            let ladder: &[(ActionKind, &[Cause])] = match target {
                ValidTarget::Postgres(_) => &DEFAULT_OF_DATABASE,
                _ => &DEFAULT,
            };
            let unasked = |action: &ActionKind| match target {
                ValidTarget::Render(_) => OF_RENDER_BY_DEFAULT.contains(action),
                ValidTarget::RenderPostgres(_) => false,
                _ => fits(*action) && can_be_done(*action, target),
            };
            let default = ladder.iter().filter(|(action, _)| unasked(action));
            return default.filter_map(|(action, causes)| by_default(*action, causes)).collect();
        };
        if let Some(other) = remedies.iter().find(|remedy| !fits(remedy.action) && !remedy.action.is_custom()) {
            let message = match target {
                ValidTarget::Render(_) => format!(
                    "{} cannot be done to a render target, only Rollback, RollbackConfig, RollbackState, Restart, Scale, Job, Webhook and Mcp; take it out",
                    other.action
                ),
                ValidTarget::RenderPostgres(_) => format!(
                    "{} cannot be done to a Render Postgres, only Restart, Failover, Job, Webhook and Mcp; take it out",
                    other.action
                ),
                ValidTarget::Vercel(_) | ValidTarget::Github(_) => format!(
                    "{} cannot be done to a {} target, only Rollback, Job, Webhook and Mcp: it has nothing that could be restarted; take it out",
                    other.action,
                    if matches!(target, ValidTarget::Vercel(_)) { "vercel" } else { "github" }
                ),
                ValidTarget::Postgres(_) => format!(
                    "{} cannot be done to a postgres target, only RecoverConnections, ReleaseConnections, CancelQueries, Restart, Job, Webhook and Mcp; take it out",
                    other.action
                ),
                ValidTarget::Workload { .. } => {
                    let whose =
                        if other.action == ActionKind::Failover { "Render Postgres" } else { "postgres target" };
                    format!("{} is for a {whose}; take it out", other.action)
                }
                ValidTarget::Http(_) => format!(
                    "{} cannot be done to an http target, only Job, Webhook and Mcp; take it out, or name the workload",
                    other.action
                ),
            };
            self.bad("remedies", message);
        }
        if remedies.iter().any(|remedy| !can_be_done(remedy.action, target)) {
            let message = match target {
                ValidTarget::Workload { kind: WorkloadKind::Rollout, .. } => {
                    "a Rollout has no RollbackState: it would be a new template, which goes through all steps; write Rollback and RollbackConfig"
                }
                ValidTarget::Postgres(_) => {
                    "Restart of a postgres target needs target.postgres.workloadRef, the workload that it runs in"
                }
                _ => "a DaemonSet cannot be scaled: it has one pod a node; take Scale out",
            };
            self.bad("remedies", message.to_owned());
        }
        remedies
            .iter()
            .enumerate()
            .filter_map(|(index, remedy)| self.remedy(&format!("remedies[{index}]"), remedy, allowed))
            .collect()
    }

    fn remedy(&mut self, field: &str, remedy: &Remedy, allowed: &[AllowedMcpTool]) -> Option<ValidRemedy> {
        let Remedy { action, causes, approval, hook, scale, job, webhook, mcp, reconnect: _, sessions: _ } = remedy;
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
        self.belongs(&format!("{field}.scale"), *action, scale.is_some(), ActionKind::Scale);
        if let Some(scale) = scale {
            self.scale(&format!("{field}.scale"), scale);
        }
        self.belongs(&format!("{field}.job"), *action, job.is_some(), ActionKind::Job);
        self.belongs(&format!("{field}.webhook"), *action, webhook.is_some(), ActionKind::Webhook);
        self.belongs(&format!("{field}.mcp"), *action, mcp.is_some(), ActionKind::Mcp);
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

    /// What an action needs and no other has.
    fn belongs(&mut self, field: &str, action: ActionKind, has: bool, needs: ActionKind) {
        if has != (action == needs) {
            let message =
                if has { "only the action {} has it; take it out" } else { "is missing; the action {} needs it" };
            self.bad(field, message.replace("{}", &needs.to_string()));
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
