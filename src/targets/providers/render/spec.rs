//! A service or a Postgres that Render hosts: its fields in a policy, and its actions.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    Access, ActionKind, Capabilities, Cause, Checker, Component, HOSTED_PAUSE, HealingPolicySpec, KeyRef, MetricFacts,
    RemediationTarget, SupportedAction, TargetFacts, ValidTarget, ValidateTarget,
};

/// `spec.target.kind` of a Remediation whose target Render hosts.
pub const RENDER_KIND: &str = "Render";

/// The prefix of the id of a Render Postgres.
const POSTGRES_PREFIX: &str = "dpg-";

/// Neither a restart nor the standby has another disk, and a restart ends the vacuum that prevents wraparound.
const STAYS: &[&str] = &["storage_usage", "wraparound_usage"];

pub static SERVICE: Capabilities = Capabilities {
    field: "render",
    selector: "has(self.target.render) && has(self.target.render.serviceId)",
    selects: |target| target.render.as_ref().is_some_and(|render| render.service_id.is_some()),
    noun: "a render target",
    actions: &[
        SupportedAction::new(ActionKind::Rollback),
        SupportedAction::new(ActionKind::RollbackConfig),
        SupportedAction::new(ActionKind::RollbackState),
        SupportedAction::new(ActionKind::Restart),
        SupportedAction::new(ActionKind::Scale),
    ],
    why_not: None,
    // Snapshots of the environment are stored only where a policy names a remedy that needs them.
    default_remedies: &[
        (ActionKind::Rollback, &[Cause::ReleaseRegression]),
        (ActionKind::Restart, &[Cause::Crash, Cause::Exhaustion, Cause::Errors]),
    ],
    metrics: &[],
    min_check_interval: HOSTED_PAUSE,
};

pub static POSTGRES: Capabilities = Capabilities {
    field: "render",
    selector: "has(self.target.render) && has(self.target.render.postgresId)",
    selects: |target| target.render.as_ref().is_some_and(|render| render.postgres_id.is_some()),
    noun: "a Render Postgres",
    actions: &[
        SupportedAction::new(ActionKind::Restart).not_relieving(STAYS),
        SupportedAction::new(ActionKind::Failover).not_relieving(STAYS),
    ],
    why_not: None,
    // A person decides about a restart, and a failover may lose the last writes.
    default_remedies: &[],
    metrics: &[
        MetricFacts::percent("connections_usage", 80.0, 95.0),
        MetricFacts::percent("storage_usage", 80.0, 95.0),
        MetricFacts::without_threshold("replication_lag_s"),
    ],
    min_check_interval: HOSTED_PAUSE,
};

/// A service that Render hosts: a web service, a private service or a background worker; or a Render Postgres. Exactly one of
/// serviceId and postgresId is set. Every check reads its state, deploys, instances, events and metrics.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.serviceId) != has(self.postgresId)", "render must name exactly one of: serviceId, postgresId"))]
pub struct RenderTarget {
    /// The service's id, as in the URL of its page in the dashboard: srv-…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 64), regex(pattern = "^[a-z]+-[a-zA-Z0-9-]+$"))]
    pub service_id: Option<String>,
    /// The id of a Render Postgres, as in the URL of its page in the dashboard: dpg-…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 64), regex(pattern = "^dpg-[a-zA-Z0-9-]+$"))]
    pub postgres_id: Option<String>,
    /// A Secret of the policy's namespace whose key holds a Render API key. Read at each check and before each action; the
    /// operator's role needs the permission (`rbac.readCredentials` of the chart). Default: the operator's own key
    /// (RENDER_API_KEY).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<KeyRef>,
}

/// A service that Render hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderService {
    pub service_id: String,
    /// The environment variables are a separate configuration, which a remedy restores.
    pub env_vars: bool,
    pub access: Access,
}

/// A Postgres that Render hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderPostgres {
    pub postgres_id: String,
    pub access: Access,
}

impl ValidateTarget for RenderTarget {
    fn validate(&self, check: &mut Checker, component: &Component, policy: &HealingPolicySpec) -> Option<ValidTarget> {
        let Self { service_id, postgres_id, api_key_secret_ref } = self;
        let access = Access::new(api_key_secret_ref, &policy.safety.circuit_breaker);
        let (service, postgres) = ("target.render.serviceId", "target.render.postgresId");
        match (service_id, postgres_id) {
            (Some(id), None) if id.starts_with(POSTGRES_PREFIX) => {
                check.bad(service, format!("{id:?} is the id of a Postgres; write postgresId"));
                None
            }
            (Some(id), None) => {
                let is = check.is_id(service, id, "", "a service; it is like srv-d1x2y3z4");
                // No default remedy needs them.
                let mut remedies = component.remedies.iter().flatten();
                let env_vars = remedies.any(|remedy| remedy.action.needs_snapshots());
                is.then(|| ValidTarget::Render(RenderService { service_id: id.clone(), env_vars, access }))
            }
            (None, Some(id)) => {
                let is = check.is_id(postgres, id, POSTGRES_PREFIX, "a Postgres; it is like dpg-d1x2y3z4-a");
                is.then(|| ValidTarget::RenderPostgres(RenderPostgres { postgres_id: id.clone(), access }))
            }
            _ => {
                check.bad("target.render", "must name exactly one of serviceId and postgresId".to_owned());
                None
            }
        }
    }
}

hosted_facts!(RenderService, &SERVICE, RENDER_KIND, service_id, service_id);
hosted_facts!(RenderPostgres, &POSTGRES, RENDER_KIND, postgres_id, postgres_id);
