//! The loop itself: kube-runtime glue around the pure modules.
//!
//! - [`policy`]: observe → analyze → update status → plan → propose → record, one policy at a time
//! - [`remediation`]: approve → execute → verify → record, one action at a time; the only place that changes
//!   anything outside
//! - `check`: a check assessed and remembered; `propose`: a proposal stored as a Remediation
//! - `snapshots`: snapshots of healthy states; `backfill`: the metrics before the first check
//! - `hindsight`: the outcomes of warnings, followed and recorded
//! - `status`, `transitions`, `verify`, [`rows`]: pure: the status, the facts to report, the outcome, the ledger's rows
//! - [`run`]: starts both controllers and their watches, and ends when one of them does
//! - [`memory`]: what is remembered between checks; [`events`] and [`metrics`]: how it is reported
//! - [`write_tracker`]: no step from a view older than the last write; [`backoff`]: waits after errors
//! - `invalid_policy`: policies that cannot be used; [`crd_readiness`]: whether the CRDs are installed

mod backfill;
pub mod backoff;
mod check;
pub mod crd_readiness;
pub mod events;
mod hindsight;
mod invalid_policy;
pub mod memory;
pub mod metrics;
pub mod policy;
mod propose;
pub mod remediation;
pub mod rows;
pub mod run;
mod snapshots;
mod status;
mod transitions;
mod verify;
pub mod write_tracker;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{controller::Action, reflector::Store},
};

use crate::{
    analyze::forecast::Forecaster,
    api::{COMPONENT_LABEL, INSTALL_CRDS, Phase, Remediation, RemediationReason, Retry, Threshold},
    knowledge::Ledger,
    plan::history::Past,
    targets::Targets,
};
use crd_readiness::CrdReadiness;
use events::Events;
use memory::Memory;
use metrics::ControllerMetrics;
use write_tracker::WriteTracker;

/// No single request to the API server takes longer.
pub const API_LIMIT: Duration = Duration::from_secs(5);

/// Shared by both controllers.
pub struct Context {
    pub client: Client,
    pub targets: Targets,
    pub ledger: Ledger,
    pub forecaster: Box<dyn Forecaster>,
    /// Operator-wide thresholds of the well-known metrics.
    pub thresholds: BTreeMap<String, Threshold>,
    pub memory: Memory,
    pub kinds: CrdReadiness,
    pub events: Events,
    pub metrics: ControllerMetrics,
    /// One action at a time passes from the guards to `Running`, so that two cannot both take the last free place.
    pub starting: tokio::sync::Mutex<()>,
    pub written: WriteTracker,
    /// Waits after failed reconciliations.
    pub backoff: backoff::Backoff,
}

/// A Remediation, or why it cannot be read.
pub type GuardedRemediation = DeserializeGuard<Remediation>;

/// A failed reconciliation. It is retried, logged and counted.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    #[error("{what}: {source}")]
    Api { what: &'static str, source: Box<kube::Error> },
    #[error(
        "{what}: the installed CRD does not know {field}, so it is older than this operator; update it with: {INSTALL_CRDS}"
    )]
    OutdatedCrd { what: &'static str, field: String },
    #[error("{what}: no response within {} s", API_LIMIT.as_secs())]
    Timeout { what: &'static str },
    #[error("{0}")]
    Ledger(#[from] crate::knowledge::LedgerError),
}

impl Error {
    /// Somebody else changed the object first, or it does not exist any more: the watch brings the newer one.
    pub fn is_outdated(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(&**source, kube::Error::Api(status) if status.is_conflict() || status.is_not_found()))
    }
}

/// Repeats a failed reconciliation, with jitter so that many objects do not retry at the same time.
fn on_error<K: Resource<DynamicType = ()>>(ctx: &Context, object: &K, error: &Error) -> Action {
    ctx.metrics.error(error.into());
    if !error.is_outdated() {
        let (namespace, kind, name) = (object.namespace().unwrap_or_default(), K::kind(&()), object.name_any());
        let component = object.labels().get(COMPONENT_LABEL).map(String::as_str).unwrap_or_default();
        tracing::warn!(namespace, object = %format_args!("{kind}/{name}"), component, %error, "the reconciliation failed; retrying");
    }
    let retry = if matches!(error, Error::OutdatedCrd { .. }) { Retry::OnChange } else { Retry::Backoff };
    Action::requeue(ctx.backoff.next(retry, object.meta()))
}

/// None when the error only means that the object is outdated.
pub(crate) fn unless_outdated<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_outdated() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A request with a time limit and a name for its error.
pub(crate) async fn limited<T>(what: &'static str, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(API_LIMIT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(match undeclared_field(&source) {
            Some(field) => Error::OutdatedCrd { what, field },
            None => Error::Api { what, source: Box::new(source) },
        }),
        Err(_) => Err(Error::Timeout { what }),
    }
}

/// The field that the CRD's schema lacks, so that server-side apply was refused.
fn undeclared_field(error: &kube::Error) -> Option<String> {
    let kube::Error::Api(status) = error else { return None };
    let before = status.message.split_once(": field not declared in schema")?.0;
    before.rsplit(": ").next().map(str::to_owned)
}

pub fn scoped<K>(client: Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

/// The Remediations of one policy, as the guards need them.
pub fn history_of<'a>(remediations: impl IntoIterator<Item = &'a Remediation>) -> Vec<Past> {
    remediations
        .into_iter()
        .map(|remediation| {
            let (plan, status) = (&remediation.spec.plan, remediation.status.clone().unwrap_or_default());
            Past {
                component: plan.component.clone(),
                episode: plan.episode.clone(),
                step: plan.step,
                action: plan.action,
                phase: status.phase,
                outcome_unknown: status.phase == Phase::Failed
                    && status.reason == RemediationReason::OutcomeUnknown.name(),
                ahead: plan.foreseen.is_some(),
                started_at: status.started_at,
                finished_at: status.finished_at,
            }
        })
        .collect()
}

/// The Remediations of the policy with this uid, from the cache.
pub fn remediations_of(store: &Store<GuardedRemediation>, policy_uid: &str) -> Vec<Arc<GuardedRemediation>> {
    let ours = |guarded: &Arc<GuardedRemediation>| {
        guarded.0.as_ref().is_ok_and(|remediation| remediation.spec.plan.policy_uid == policy_uid)
    };
    store.state().into_iter().filter(ours).collect()
}

/// One that cannot be read (stored by another version) must not hide the others.
pub fn readable(guarded: &[Arc<GuardedRemediation>]) -> impl Iterator<Item = &Remediation> {
    guarded.iter().filter_map(|guarded| guarded.0.as_ref().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_that_a_crd_lacks_is_found_in_the_api_servers_message() {
        let refused = |message: &str| {
            kube::Error::Api(kube::core::Status::failure(message, "InternalError").with_code(500).boxed())
        };
        let words = "failed to create typed patch object (shop/api; panacea.dev/v1alpha1, Kind=HealingPolicy): .status.components[name=\"web\"].since: field not declared in schema";
        let field = r#".status.components[name="web"].since"#;
        assert_eq!(undeclared_field(&refused(words)).as_deref(), Some(field));
        assert_eq!(undeclared_field(&refused("etcdserver: request timed out")), None);
    }
}
