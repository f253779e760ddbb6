//! A workload as it is now, read and written.

use k8s_openapi::{
    api::core::v1::PodTemplateSpec,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::{Request, Selector},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{ActError, CALL_LIMIT, Call, Kubernetes, Outcome, WorkloadRef, limited, rollout::RolloutState};
use crate::{
    api::{REMEDIATION_MANAGER, RESTARTED_AT, TemplateRef, WorkloadKind},
    targets::kubernetes::{
        facts::{REVISION, ROLLOUT_REVISION},
        template::digest,
    },
};

/// What is read at most of one workload's revisions or pods; `revisionHistoryLimit` keeps 10 by default.
const MAX_LISTED: u32 = 500;

/// The template stays JSON as it came: what this version of ours does not know must be written back too.
pub(super) struct Live {
    pub metadata: ObjectMeta,
    pub template: Value,
    pub digest: String,
    /// The workload's controller has seen the template.
    pub observed: bool,
    /// A StatefulSet whose pods are replaced in their order, each waiting until those before it are ready.
    pub ordered: bool,
    /// The name of a StatefulSet's newest ControllerRevision.
    pub update_revision: Option<String>,
    paused: bool,
    /// Of a Rollout alone.
    pub rollout: Option<RolloutState>,
    /// Pods wanted.
    pub desired: usize,
    /// `spec.replicas`, and how pods are replaced, as they came.
    pub replicas: Value,
    pub strategy: Value,
    selector: Value,
}

impl Kubernetes {
    /// A workload whose template can be changed to some effect.
    pub(super) async fn read(&self, workload: WorkloadRef<'_>) -> Result<Live, ActError> {
        let live = self.read_any(workload).await?;
        if live.paused {
            let resume = workload.kind.resume(workload.name);
            return Err(ActError::Paused(format!("{workload} is paused; resume it with {resume}")));
        }
        if live.strategy["type"] == "OnDelete" {
            return Err(ActError::OnDelete(workload.to_string()));
        }
        Ok(live)
    }

    pub(super) async fn read_any(&self, workload: WorkloadRef<'_>) -> Result<Live, ActError> {
        let kind = workload.kind;
        let api = self.api(workload, kind.into(), kind.plural());
        let found = limited(Call::get(kind), api.get(workload.name)).await.map_err(|error| match error {
            ActError::NotFound(_) => ActError::NotFound(workload.to_string()),
            other => other,
        })?;
        let (spec, status) = (&found.data["spec"], &found.data["status"]);
        if found.metadata.deletion_timestamp.is_some() {
            return Err(ActError::NotFound(format!("{workload} is being deleted and")));
        }
        let live = Live {
            digest: if kind == WorkloadKind::Rollout { String::new() } else { digest_of(&spec["template"])? },
            template: spec["template"].clone(),
            observed: observed(&status["observedGeneration"]) >= found.metadata.generation,
            ordered: spec["podManagementPolicy"] == "OrderedReady",
            update_revision: status["updateRevision"].as_str().map(str::to_owned),
            paused: spec["paused"] == true,
            rollout: (kind == WorkloadKind::Rollout).then(|| RolloutState::new(&found.data)),
            desired: desired(&found.data),
            replicas: spec["replicas"].clone(),
            strategy: spec[strategy_field(kind)].clone(),
            selector: spec["selector"].clone(),
            metadata: found.metadata,
        };
        if kind == WorkloadKind::Rollout { self.with_digest(workload, live).await } else { Ok(live) }
    }

    /// None on a conflict. Both kinds of patch, JSON Patch (an array) and merge patch, carry the resourceVersion, which the
    /// API server compares (409). One of nothing but `status` goes to that subresource.
    pub(super) async fn write(&self, workload: WorkloadRef<'_>, patch: Value) -> Result<Option<Outcome>, ActError> {
        let of_status = patch.get("status").is_some();
        let call = if of_status { Call::PATCH_ROLLOUT_STATUS } else { Call::patch(workload.kind) };
        let content_type =
            if patch.is_array() { "application/json-patch+json" } else { "application/merge-patch+json" };
        let params = PatchParams { field_manager: Some(REMEDIATION_MANAGER.to_owned()), ..PatchParams::default() };
        let kind = workload.kind;
        let path = format!("/apis/{}/namespaces/{}/{}", kind.api_version(), workload.namespace, kind.plural());
        let broken = |why: String| ActError::Rejected(format!("the request could not be built: {why}"));
        // kube offers JSON Patch only with a further dependency; a merge patch differs by its content type alone.
        let (request, patch) = (Request::new(path), Patch::Merge(patch));
        let request = if of_status {
            request.patch_subresource("status", workload.name, &params, &patch)
        } else {
            request.patch(workload.name, &params, &patch)
        };
        let mut request = request.map_err(|why| broken(why.to_string()))?;
        let value = content_type.parse().map_err(|_| broken(format!("content type {content_type}")))?;
        request.headers_mut().insert("content-type", value);
        match timeout(CALL_LIMIT, self.client.request::<DynamicObject>(request)).await {
            Err(_) => Err(call.timeout(CALL_LIMIT)),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(None),
            Ok(Err(error)) => Err(call.failed(&error)),
            Ok(Ok(written)) => Ok(Some(Outcome::Done { generation: written.metadata.generation.unwrap_or_default() })),
        }
    }

    /// Of the workload itself, or of what holds its templates, which is always of `apps/v1`.
    pub(super) fn api(&self, workload: WorkloadRef<'_>, kind: &str, plural: &str) -> Api<DynamicObject> {
        let api_version = if plural == workload.kind.plural() { workload.kind.api_version() } else { "apps/v1" };
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource {
            group: group.into(),
            version: version.into(),
            api_version: api_version.into(),
            kind: kind.into(),
            plural: plural.into(),
        };
        Api::namespaced_with(self.client.clone(), workload.namespace, &resource)
    }
}

impl Live {
    /// What the workload's selector finds.
    pub(super) fn selected(&self, workload: WorkloadRef<'_>) -> Result<ListParams, ActError> {
        if let Some(selector) = self.rollout.as_ref().and_then(|rollout| rollout.selector.as_ref()) {
            return Ok(ListParams::default().labels(selector).limit(MAX_LISTED));
        }
        let selector: LabelSelector = serde_json::from_value(self.selector.clone()).unwrap_or_default();
        let selector = Selector::try_from(selector)
            .map_err(|why| ActError::Rejected(format!("the selector of {workload} is not valid: {why}")))?;
        Ok(ListParams::default().labels_from(&selector).limit(MAX_LISTED))
    }

    /// This very workload controls the object: one of the same name made earlier has another uid.
    pub(super) fn controls(&self, metadata: &ObjectMeta) -> bool {
        let mut owners = metadata.owner_references.iter().flatten();
        owners.any(|owner| owner.controller == Some(true) && Some(&owner.uid) == self.metadata.uid.as_ref())
    }

    /// The digest decides: a hash changes with `kubectl rollout restart`, which leaves the same template as bad as it
    /// was.
    pub(super) fn must_be(&self, from: &TemplateRef) -> Result<(), ActError> {
        if self.digest == from.digest {
            return Ok(());
        }
        if self.rollout.is_some() && !self.observed {
            // Only its controller can tell which template that is.
            let generation = self.metadata.generation.unwrap_or_default();
            let why = format!("the controller of Rollouts has not seen generation {generation} yet");
            return Err(ActError::Unmeasured(why));
        }
        let revision = revision(&self.metadata).map(|revision| revision.to_string());
        let revision = revision.or_else(|| self.update_revision.clone()).unwrap_or_else(|| "unknown".into());
        Err(ActError::Superseded {
            expected: format!("revision {} ({})", from.revision, from.digest),
            found: format!("revision {revision} ({})", self.digest),
        })
    }
}

pub(super) fn digest_of(template: &Value) -> Result<String, ActError> {
    let typed: PodTemplateSpec = serde_json::from_value(template.clone())
        .map_err(|why| ActError::Unreachable(format!("the API server's answer holds no pod template: {why}")))?;
    Ok(digest(&typed).to_string())
}

/// Where a workload says how its pods are replaced.
pub(super) fn strategy_field(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment | WorkloadKind::Rollout => "strategy",
        WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => "updateStrategy",
    }
}

/// A Rollout has it as text.
fn observed(generation: &Value) -> Option<i64> {
    generation.as_i64().or_else(|| generation.as_str()?.parse().ok())
}

/// A DaemonSet wants one on each fitting node, and says how many those are.
fn desired(data: &Value) -> usize {
    let wanted = data["spec"]["replicas"].as_u64().or_else(|| data["status"]["desiredNumberScheduled"].as_u64());
    usize::try_from(wanted.unwrap_or(1)).unwrap_or(usize::MAX)
}

pub(super) fn restarted_at(template: &Value) -> Option<&str> {
    template["metadata"]["annotations"][RESTARTED_AT].as_str()
}

pub(super) fn revision(metadata: &ObjectMeta) -> Option<i64> {
    let annotations = metadata.annotations.as_ref()?;
    annotations.get(REVISION).or_else(|| annotations.get(ROLLOUT_REVISION))?.parse().ok()
}
