//! A project that Vercel hosts: its fields in a policy, and its actions.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    Access, ActionKind, Capabilities, Cause, Checker, Component, HOSTED_PAUSE, HealingPolicySpec, KeyRef,
    RemediationTarget, SupportedAction, TargetFacts, ValidTarget, ValidateTarget,
};

/// `spec.target.kind` of a Remediation whose target Vercel hosts.
pub const VERCEL_KIND: &str = "Vercel";

pub static PROJECT: Capabilities = Capabilities {
    field: "vercel",
    selector: "has(self.target.vercel)",
    selects: |target| target.vercel.is_some(),
    noun: "a vercel target",
    actions: &[SupportedAction::new(ActionKind::Rollback)],
    why_not: Some("it has nothing that could be restarted"),
    default_remedies: &[(ActionKind::Rollback, &[Cause::ReleaseRegression])],
    metrics: &[],
    min_check_interval: HOSTED_PAUSE,
};

/// A project that Vercel hosts. Every check reads its production deployment. Vercel reports no error rate and no latency: the
/// component's metrics decide whether a deployment is healthy.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VercelTarget {
    /// The project's id, from its settings (General): prj_…
    #[schemars(length(min = 5, max = 64), regex(pattern = "^prj_[a-zA-Z0-9]+$"))]
    pub project_id: String,
    /// The id of the team that owns it, from the team's settings: team_…. Default: the token's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 6, max = 64), regex(pattern = "^team_[a-zA-Z0-9]+$"))]
    pub team_id: Option<String>,
    /// A Secret of the policy's namespace whose key holds a Vercel access token. Read at each check and before each action;
    /// the operator's role needs the permission (`rbac.readCredentials` of the chart). Default: the operator's own token
    /// (VERCEL_TOKEN).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<KeyRef>,
}

/// A project that Vercel hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VercelProject {
    pub project_id: String,
    /// None: the token's own account.
    pub team_id: Option<String>,
    pub access: Access,
}

impl ValidateTarget for VercelTarget {
    fn validate(&self, check: &mut Checker, _: &Component, policy: &HealingPolicySpec) -> Option<ValidTarget> {
        let Self { project_id, team_id, token_secret_ref } = self;
        let project = check.is_id("target.vercel.projectId", project_id, "prj_", "a project; it is like prj_a1B2c3");
        let team = team_id.as_ref().is_none_or(|team| {
            check.is_id("target.vercel.teamId", team, "team_", "a team; it is like team_a1B2c3, not the team's name")
        });
        (project && team).then(|| {
            ValidTarget::Vercel(VercelProject {
                project_id: project_id.clone(),
                team_id: team_id.clone(),
                access: Access::new(token_secret_ref, &policy.safety.circuit_breaker),
            })
        })
    }
}

hosted_facts!(VercelProject, &PROJECT, VERCEL_KIND, project_id, project_id);
