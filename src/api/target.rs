//! The targets: the fields of `spec.components[].target`, and their validated forms.
//!
//! A new target is one line in each list below; its fields, actions and metrics are in its own folder, in `spec.rs`. So this
//! module imports `targets::*::spec`, and those files import `crate::api`: a circle between two modules of one crate. The
//! circle is harmless because spec files are pure: they name types, rules and statics, and import only `crate::api`, no client
//! and no other part of `targets` (tests/integration/house.rs checks it). Without it, each target would be spread over two
//! folders.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ActionKind, Capabilities, Checker, Component, HealingPolicySpec, RemediationTarget, WorkloadKind};
use crate::targets::{
    http::spec::{self as http, HttpCheck, HttpTarget},
    kubernetes::spec::{self as workload, ObjectName, Workload},
    postgres::spec::{self as postgres, PostgresDatabase, PostgresTarget},
    providers::{
        github::spec::{self as github, GithubEnvironment, GithubTarget},
        render::spec::{self as render, RenderPostgres, RenderService, RenderTarget},
        vercel::spec::{self as vercel, VercelProject, VercelTarget},
    },
};

/// The object or service that the component represents.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct TargetSpec {
    /// A Deployment in the policy's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<ObjectName>,

    /// A StatefulSet in the policy's namespace. When its pods are replaced in order and a pod that is not ready blocks a
    /// rollback or a restart, that pod is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stateful_set: Option<ObjectName>,

    /// A DaemonSet in the policy's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon_set: Option<ObjectName>,

    /// A Rollout of Argo Rollouts (argoproj.io/v1alpha1) in the policy's namespace. A rollback aborts the running update and
    /// restores spec.template; a template in `spec.workloadRef` must be restored manually.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<ObjectName>,

    /// A service or a Postgres database that Render hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub render: Option<RenderTarget>,

    /// A project that Vercel hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vercel: Option<VercelTarget>,

    /// The deployment to an environment of a GitHub repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub github: Option<GithubTarget>,

    /// A PostgreSQL database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresTarget>,

    /// An HTTP service. Panacea checks it; only a custom remedy (Job, Webhook, Mcp) can heal it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpTarget>,
}

/// One line per target, in the order of the fields.
pub static TARGETS: [&Capabilities; 10] = [
    &workload::DEPLOYMENT,
    &workload::STATEFUL_SET,
    &workload::DAEMON_SET,
    &workload::ROLLOUT,
    &render::SERVICE,
    &render::POSTGRES,
    &vercel::PROJECT,
    &github::ENVIRONMENT,
    &postgres::DATABASE,
    &http::SERVICE,
];

/// A target whose every value is usable.
#[derive(Debug, Clone)]
pub enum ValidTarget {
    Workload { kind: WorkloadKind, name: String },
    Render(RenderService),
    RenderPostgres(RenderPostgres),
    Vercel(VercelProject),
    Github(Box<GithubEnvironment>),
    Postgres(Box<PostgresDatabase>),
    Http(Box<HttpCheck>),
}

/// From a target as written to a valid target.
pub(crate) trait ValidateTarget {
    /// None when a value is not usable, which is reported to `check`.
    fn validate(&self, check: &mut Checker, component: &Component, policy: &HealingPolicySpec) -> Option<ValidTarget>;
}

/// The facts of a valid target.
pub(crate) trait TargetFacts {
    fn capabilities(&self) -> &'static Capabilities;

    /// The object that an action on the component changes.
    fn acted_on(&self, action: ActionKind, component: &str) -> RemediationTarget;

    /// `StatefulSet/db`, `https://…`: for messages.
    fn describe(&self) -> String;

    /// The value of `$(name)` in a query; none: the name of the component.
    fn query_name(&self) -> Option<&str> {
        None
    }
}

impl TargetSpec {
    /// The fields that are set; one in a valid target.
    fn named(&self) -> Vec<Box<dyn ValidateTarget + '_>> {
        let fields = [
            boxed(Workload::named(WorkloadKind::Deployment, &self.deployment)),
            boxed(Workload::named(WorkloadKind::StatefulSet, &self.stateful_set)),
            boxed(Workload::named(WorkloadKind::DaemonSet, &self.daemon_set)),
            boxed(Workload::named(WorkloadKind::Rollout, &self.rollout)),
            boxed(self.render.as_ref()),
            boxed(self.vercel.as_ref()),
            boxed(self.github.as_ref()),
            boxed(self.postgres.as_ref()),
            boxed(self.http.as_ref()),
        ];
        fields.into_iter().flatten().collect()
    }

    /// The capabilities of a target as written; none when no field is set, or a required value is missing.
    pub fn capabilities(&self) -> Option<&'static Capabilities> {
        TARGETS.into_iter().find(|capabilities| (capabilities.selects)(self))
    }

    pub(super) fn validate(
        &self,
        check: &mut Checker,
        component: &Component,
        policy: &HealingPolicySpec,
    ) -> Option<ValidTarget> {
        let named = self.named();
        if let [one] = named.as_slice() {
            return one.validate(check, component, policy);
        }
        let count = named.len();
        check.bad("target", format!("has {count} fields set; set exactly one of {}", target_fields().join(", ")));
        None
    }
}

fn boxed<'a, T: ValidateTarget + 'a>(spec: Option<T>) -> Option<Box<dyn ValidateTarget + 'a>> {
    spec.map(|spec| Box::new(spec) as Box<dyn ValidateTarget>)
}

impl<T: ValidateTarget> ValidateTarget for &T {
    fn validate(&self, check: &mut Checker, component: &Component, policy: &HealingPolicySpec) -> Option<ValidTarget> {
        (**self).validate(check, component, policy)
    }
}

/// The fields of `spec.components[].target`.
pub(super) fn target_fields() -> Vec<&'static str> {
    let mut fields: Vec<&str> = TARGETS.iter().map(|capabilities| capabilities.field).collect();
    fields.dedup();
    fields
}

impl ValidTarget {
    fn facts<T>(&self, query: impl FnOnce(&dyn TargetFacts) -> T) -> T {
        match self {
            Self::Workload { kind, name } => query(&Workload { kind: *kind, name }),
            Self::Render(service) => query(service),
            Self::RenderPostgres(postgres) => query(postgres),
            Self::Vercel(project) => query(project),
            Self::Github(environment) => query(environment.as_ref()),
            Self::Postgres(database) => query(database.as_ref()),
            Self::Http(service) => query(service.as_ref()),
        }
    }

    /// The workload; none for a target without pods.
    pub fn workload(&self) -> Option<(WorkloadKind, &str)> {
        match self {
            Self::Workload { kind, name } => Some((*kind, name)),
            _ => None,
        }
    }

    /// The supported actions, the default remedies and the metrics.
    pub fn capabilities(&self) -> &'static Capabilities {
        self.facts(|target| target.capabilities())
    }

    /// The object that an action on the component `name` changes: `spec.plan.target` of its Remediation.
    pub fn acted_on(&self, action: ActionKind, name: &str) -> RemediationTarget {
        self.facts(|target| target.acted_on(action, name))
    }

    /// `StatefulSet/db`, `https://…`: for messages.
    pub fn describe(&self) -> String {
        self.facts(|target| target.describe())
    }

    /// The value of `$(name)` in a query of the component `name`.
    pub fn query_name(&self, name: &str) -> String {
        self.facts(|target| target.query_name().unwrap_or(name).to_owned())
    }

    /// The shortest time between two checks, whatever triggers them.
    pub fn min_check_interval(&self) -> std::time::Duration {
        self.capabilities().min_check_interval
    }
}
