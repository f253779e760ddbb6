//! Which targets there are: the fields of `spec.components[].target`, and what each of them is once it is valid.
//!
//! A new target is one line in each list below; what it needs to be named, what can be done to it and what it measures is in
//! its own folder, in `spec.rs`. So this module imports `targets::*::spec`, and those files import `crate::api`: a circle
//! between two modules of one crate. It is harmless because spec files are pure: they name types, rules and statics, and
//! import only `crate::api`, no client and no other part of `targets` (tests/integration/house.rs checks it). Without the
//! circle, everything that belongs to a target would be in two folders, as it was before.

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

/// What a component is. Exactly one field is set.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct TargetSpec {
    /// A Deployment in the policy's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<ObjectName>,

    /// A StatefulSet in the policy's namespace. When its pods are replaced in order and one that is not ready stands in
    /// the way of a rollback or a restart, that pod is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stateful_set: Option<ObjectName>,

    /// A DaemonSet in the policy's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon_set: Option<ObjectName>,

    /// A Rollout of Argo Rollouts (argoproj.io/v1alpha1) in the policy's namespace. A rollback aborts the update that is under
    /// way and puts the template back in spec.template; a template of `spec.workloadRef` is left to people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<ObjectName>,

    /// A service that Render hosts, or a Postgres of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub render: Option<RenderTarget>,

    /// A project that Vercel hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vercel: Option<VercelTarget>,

    /// What is deployed to an environment of a GitHub repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub github: Option<GithubTarget>,

    /// A PostgreSQL database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresTarget>,

    /// A plain HTTP service. It can be watched; only a Job, Webhook or Mcp remedy of your own can heal it.
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

/// From a target as written to one that can be used.
pub(crate) trait ValidateTarget {
    /// None when something is wrong with it, which is told to `check`.
    fn validate(&self, check: &mut Checker, component: &Component, policy: &HealingPolicySpec) -> Option<ValidTarget>;
}

/// What a valid target tells of itself.
pub(crate) trait TargetFacts {
    fn capabilities(&self) -> &'static Capabilities;

    /// What an action on the component acts on.
    fn acted_on(&self, action: ActionKind, component: &str) -> RemediationTarget;

    /// `StatefulSet/db`, `https://…`: for messages.
    fn describe(&self) -> String;

    /// What `$(name)` in a query stands for; none: the component's name.
    fn query_name(&self) -> Option<&str> {
        None
    }
}

impl TargetSpec {
    /// All that is named; one entry when the target is right.
    fn named(&self) -> Vec<Box<dyn ValidateTarget + '_>> {
        let workloads = [
            Workload::named(WorkloadKind::Deployment, &self.deployment),
            Workload::named(WorkloadKind::StatefulSet, &self.stateful_set),
            Workload::named(WorkloadKind::DaemonSet, &self.daemon_set),
            Workload::named(WorkloadKind::Rollout, &self.rollout),
        ];
        let others =
            [boxed(&self.render), boxed(&self.vercel), boxed(&self.github), boxed(&self.postgres), boxed(&self.http)];
        let workloads = workloads.into_iter().flatten().map(|workload| Box::new(workload) as Box<dyn ValidateTarget>);
        workloads.chain(others.into_iter().flatten()).collect()
    }

    /// What is known of a target as written; none when it names nothing, or not all that it needs.
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
        let wrong = if named.is_empty() { "nothing" } else { "several things" };
        check.bad("target", format!("names {wrong}; set exactly one of {}", target_fields().join(", ")));
        None
    }
}

fn boxed<'a, T: ValidateTarget>(spec: &'a Option<T>) -> Option<Box<dyn ValidateTarget + 'a>> {
    spec.as_ref().map(|spec| Box::new(spec) as Box<dyn ValidateTarget + 'a>)
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
    fn ask<T>(&self, question: impl FnOnce(&dyn TargetFacts) -> T) -> T {
        match self {
            Self::Workload { kind, name } => question(&Workload { kind: *kind, name }),
            Self::Render(service) => question(service),
            Self::RenderPostgres(postgres) => question(postgres),
            Self::Vercel(project) => question(project),
            Self::Github(environment) => question(environment.as_ref()),
            Self::Postgres(database) => question(database.as_ref()),
            Self::Http(service) => question(service.as_ref()),
        }
    }

    /// The workload that it is; none of what has no pods.
    pub fn workload(&self) -> Option<(WorkloadKind, &str)> {
        match self {
            Self::Workload { kind, name } => Some((*kind, name)),
            _ => None,
        }
    }

    /// What can be done to it, what is done by default, what it measures.
    pub fn capabilities(&self) -> &'static Capabilities {
        self.ask(|target| target.capabilities())
    }

    /// What an action on the component `name` acts on: `spec.plan.target` of its Remediation.
    pub fn acted_on(&self, action: ActionKind, name: &str) -> RemediationTarget {
        self.ask(|target| target.acted_on(action, name))
    }

    /// `StatefulSet/db`, `https://…`: for messages.
    pub fn describe(&self) -> String {
        self.ask(|target| target.describe())
    }

    /// What `$(name)` in a query of the component `name` stands for.
    pub fn query_name(&self, name: &str) -> String {
        self.ask(|target| target.query_name().unwrap_or(name).to_owned())
    }

    /// Looks follow each other no faster than this, whatever calls for them.
    pub fn min_check_interval(&self) -> std::time::Duration {
        self.capabilities().min_check_interval
    }
}
