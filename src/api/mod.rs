//! The API group `panacea.dev`: types, validation rules, defaults and printer columns. No client, no I/O.
//!
//! The doc comments here are the text of `kubectl explain`. `panacea crds` renders these types; the files in
//! `crds/` are generated from them and a test fails when they differ.

// Printer columns of equal priority look like one attribute given twice.
#![allow(clippy::duplicated_attributes)]

mod action_facts;
mod action_plan;
mod capabilities;
mod cause;
mod cleanup;
mod condition;
mod config;
mod custom;
mod duration;
mod event_reason;
mod gitops;
mod intent;
mod json_path;
mod mcp;
mod percent;
mod policy;
mod policy_status;
mod postgres;
mod progress;
mod providers;
mod quantity;
mod reason;
mod remediation;
mod remedy;
mod rules;
mod scale;
mod target;
mod target_texts;
mod text;
mod timestamp;
mod validate;
mod workload_kind;

pub use crate::targets::{
    http::spec::{HTTP_KIND, HttpCheck, HttpTarget, JsonCheck},
    kubernetes::spec::ObjectName,
    postgres::spec::{
        ConnectionRef, HostRef, POSTGRES_KIND, PgBouncer, PoolerEscalation, PostgresDatabase, PostgresTarget,
    },
    providers::{
        github::spec::{GITHUB_KIND, GithubEnvironment, GithubTarget, GithubWorkflow},
        render::spec::{RENDER_KIND, RenderPostgres, RenderService, RenderTarget},
        vercel::spec::{VERCEL_KIND, VercelProject, VercelTarget},
    },
};
pub use action_facts::{ActionFacts, KNOWN_CAUSES, Parameter};
pub use action_plan::ActionPlan;
pub use capabilities::{
    CUSTOM, Capabilities, MetricFacts, OFFERED, Requirement, SupportedAction, WELL_KNOWN, default_ceilings,
    default_thresholds,
};
pub use cause::Cause;
pub use cleanup::*;
pub use condition::{ConditionFact, set_condition};
pub use config::*;
pub use custom::*;
pub use duration::Span;
pub use event_reason::EventReason;
pub use gitops::*;
pub use intent::{ActionKind, Intent};
pub use json_path::JsonPath;
pub use mcp::*;
pub use percent::IntOrPercent;
pub use policy::*;
pub use policy_status::*;
pub use postgres::*;
pub use progress::*;
pub use providers::*;
pub use quantity::amount;
pub(crate) use reason::reasons;
pub use reason::{RemediationReason, Retry};
pub use remediation::*;
pub use remedy::*;
pub use rules::{rules_of_causes, rules_of_parameters, rules_of_target};
pub use scale::*;
pub use target::{TARGETS, TargetSpec, ValidTarget};
pub(crate) use target::{TargetFacts, ValidateTarget};
pub(crate) use text::{counted, in_words, truncated};
pub use timestamp::milliseconds;
pub(crate) use validate::{Checker, is_loopback};
pub use validate::{Invalid, Limits, MetricQuery, ValidAction, ValidComponent, ValidPolicy, ValidRemedy};
pub use workload_kind::WorkloadKind;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// The API group.
pub const GROUP: &str = "panacea.dev";

/// The command that installs and updates the CRDs.
pub const INSTALL_CRDS: &str = "panacea crds | kubectl apply --server-side --force-conflicts -f -";

/// Keeps a Remediation until its rows are in the ledger.
pub const LEDGER_FINALIZER: &str = "panacea.dev/ledger";
/// Label on a Remediation: the name of its policy.
pub const POLICY_LABEL: &str = "panacea.dev/policy";
/// Label on a Remediation: the name of its component.
pub const COMPONENT_LABEL: &str = "panacea.dev/component";
/// Annotation on a workload's template that cannot be rolled back, as after a migration of a database's schema. Its value is
/// the reason.
pub const IRREVERSIBLE: &str = "panacea.dev/irreversible";
/// Annotation on a workload's template that a restart sets, as `kubectl rollout restart` does.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Field manager of the policy controller.
pub const POLICY_MANAGER: &str = "panacea-policy";
/// Field manager of the remediation controller, and of its actions.
pub const REMEDIATION_MANAGER: &str = "panacea-remediation";
/// `reportingController` of events.
pub const REPORTER: &str = "panacea.dev/operator";

/// The CustomResourceDefinitions, in the order in which they should be applied.
pub fn crds() -> Vec<CustomResourceDefinition> {
    use kube::CustomResourceExt as _;
    let mut policy = HealingPolicy::crd();
    schemas(&mut policy).for_each(rules::complete);
    let mut crds = vec![policy, Remediation::crd()];
    crds.iter_mut().flat_map(schemas).for_each(without_foreign_formats);
    crds
}

fn schemas(crd: &mut CustomResourceDefinition) -> impl Iterator<Item = &mut JSONSchemaProps> {
    crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut())
}

/// Removes unsigned formats. OpenAPI has none: the API server would respond to every `kubectl apply` of the CRD with a warning
/// for each. The `minimum: 0` beside them has the same effect.
fn without_foreign_formats(schema: &mut JSONSchemaProps) {
    if schema.format.as_ref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = None;
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(without_foreign_formats);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        without_foreign_formats(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        without_foreign_formats(values);
    }
}
