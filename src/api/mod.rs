//! The API group `panacea.dev`: types, validation rules, defaults and printer columns. No client, no I/O.
//!
//! The doc comments here are the text of `kubectl explain`. `panacea crds` renders these types; the files in
//! `crds/` are generated from them and a test fails when they differ.

// Printer columns of equal priority look like one attribute given twice.
#![allow(clippy::duplicated_attributes)]

mod action_plan;
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
mod scale;
mod timestamp;
mod validate;
mod workload_kind;

pub use action_plan::ActionPlan;
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
pub use reason::{RemediationReason, Retry};
pub use remediation::*;
pub use remedy::*;
pub use scale::*;
pub use timestamp::milliseconds;
pub(crate) use validate::is_loopback;
pub use validate::{
    Access, GithubEnvironment, HttpCheck, Invalid, Limits, MetricQuery, OFFERED, PostgresDatabase, RenderPostgres,
    RenderService, ValidAction, ValidComponent, ValidPolicy, ValidRemedy, ValidTarget, VercelProject, default_ceilings,
    default_thresholds,
};
pub use workload_kind::WorkloadKind;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// The API group.
pub const GROUP: &str = "panacea.dev";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";

/// How the CRDs are installed, and brought up to date.
pub const INSTALL_CRDS: &str = "panacea crds | kubectl apply --server-side --force-conflicts -f -";

/// Keeps a Remediation until its rows are in the ledger.
pub const LEDGER_FINALIZER: &str = "panacea.dev/ledger";
/// Label on a Remediation: the name of its policy.
pub const POLICY_LABEL: &str = "panacea.dev/policy";
/// Label on a Remediation: the name of its component.
pub const COMPONENT_LABEL: &str = "panacea.dev/component";
/// Annotation on a workload's template: there is no way back from it, as after a migration of a database's schema. Its
/// value says why.
pub const IRREVERSIBLE: &str = "panacea.dev/irreversible";
/// Annotation on a workload's template that a restart sets; the one `kubectl rollout restart` uses.
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
    let mut crds = vec![HealingPolicy::crd(), Remediation::crd()];
    for version in crds.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            without_foreign_formats(schema);
        }
    }
    crds
}

/// OpenAPI has no unsigned formats: the API server would answer every `kubectl apply` of the CRD with a warning for
/// each. `minimum: 0` stands beside them and says the same.
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
