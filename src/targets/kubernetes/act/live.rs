//! A workload as it is now, read and written.

use axum::http::{HeaderValue, header::CONTENT_TYPE};
use k8s_openapi::{
    api::core::v1::PodTemplateSpec,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
    core::{Request, Selector},
};
use serde_json::{Value, json};

use super::{ActError, Call, OnWorkload, Outcome, WorkloadRef, limited, rollout::RolloutState, unless_conflict};
use crate::{
    api::{REMEDIATION_MANAGER, RESTARTED_AT, TemplateRef, WorkloadKind},
    targets::kubernetes::{
        facts::{REVISION, ROLLOUT_REVISION},
        template::digest,
    },
};

/// Revisions or pods read of one workload, at most; `revisionHistoryLimit` is 10 by default.
const MAX_LISTED: u32 = 500;

/// The template stays JSON: fields that this version does not know must be written back too.
pub(super) struct Live {
    pub metadata: ObjectMeta,
    pub template: Value,
    pub digest: String,
    /// The workload's controller has observed the template.
    pub observed: bool,
    /// A StatefulSet with OrderedReady: each pod is replaced only when the pods before it are ready.
    pub ordered: bool,
    /// The name of a StatefulSet's newest ControllerRevision.
    pub update_revision: Option<String>,
    paused: bool,
    pub rollout: Option<RolloutState>,
    pub desired: usize,
    /// `spec.replicas` and the update strategy, unchanged.
    pub replicas: Value,
    pub strategy: Value,
    selector: Value,
}

impl OnWorkload<'_> {
    /// The workload, if a change of its template has an effect.
    pub(super) async fn read(&self) -> Result<Live, ActError> {
        let workload = self.workload;
        let live = self.read_any().await?;
        if live.paused {
            let resume = workload.kind.resume(workload.name);
            return Err(ActError::Paused(format!("{workload} is paused; resume it with {resume}")));
        }
        if live.strategy["type"] == "OnDelete" {
            return Err(ActError::OnDelete(workload.to_string()));
        }
        Ok(live)
    }

    pub(super) async fn read_any(&self) -> Result<Live, ActError> {
        let workload = self.workload;
        let kind = workload.kind;
        let api = self.api(kind.into(), kind.plural());
        let found = limited(Call::get(kind.plural()), api.get(workload.name)).await.map_err(|error| match error {
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
        if kind == WorkloadKind::Rollout { self.with_digest(live).await } else { Ok(live) }
    }

    /// None on a conflict. Both kinds of patch, JSON Patch (an array) and merge patch, carry the resourceVersion, which the
    /// API server compares (409). A patch of `status` goes to that subresource.
    pub(super) async fn write(&self, patch: Value) -> Result<Option<Outcome>, ActError> {
        let of_status = patch.get("status").is_some();
        let call = if of_status { Call::PATCH_ROLLOUT_STATUS } else { Call::patch(self.workload.kind.plural()) };
        let content_type =
            if patch.is_array() { "application/json-patch+json" } else { "application/merge-patch+json" };
        let WorkloadRef { kind, namespace, name } = self.workload;
        let path = format!("/apis/{}/namespaces/{namespace}/{}", kind.api_version(), kind.plural());
        // kube offers JSON Patch only with a further dependency; a merge patch differs by its content type alone.
        let (request, params, patch) =
            (Request::new(path), PatchParams::apply(REMEDIATION_MANAGER), Patch::Merge(patch));
        let request = if of_status {
            request.patch_subresource("status", name, &params, &patch)
        } else {
            request.patch(name, &params, &patch)
        };
        let mut request =
            request.map_err(|why| ActError::Rejected(format!("the request could not be built: {why}")))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let written = unless_conflict(limited(call, self.client.request::<DynamicObject>(request)).await)?;
        Ok(written.map(|written| Outcome::Done { generation: written.metadata.generation.unwrap_or_default() }))
    }

    /// Of the workload itself, or of the objects that hold its templates, which are always of `apps/v1`.
    pub(super) fn api(&self, kind: &str, plural: &str) -> Api<DynamicObject> {
        let api_version =
            if plural == self.workload.kind.plural() { self.workload.kind.api_version() } else { "apps/v1" };
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        Api::namespaced_with(self.client.clone(), self.workload.namespace, &resource)
    }
}

impl Live {
    /// Selects the pods and the revisions of the workload.
    pub(super) fn selected(&self, workload: WorkloadRef<'_>) -> Result<ListParams, ActError> {
        if let Some(selector) = self.rollout.as_ref().and_then(|rollout| rollout.selector.as_ref()) {
            return Ok(ListParams::default().labels(selector).limit(MAX_LISTED));
        }
        let selector: LabelSelector = serde_json::from_value(self.selector.clone()).unwrap_or_default();
        let selector = Selector::try_from(selector)
            .map_err(|why| ActError::Rejected(format!("the selector of {workload} is not valid: {why}")))?;
        Ok(ListParams::default().labels_from(&selector).limit(MAX_LISTED))
    }

    /// This very workload controls the object: an earlier workload of the same name has another uid.
    pub(super) fn controls(&self, metadata: &ObjectMeta) -> bool {
        let mut owners = metadata.owner_references.iter().flatten();
        owners.any(|owner| owner.controller == Some(true) && Some(&owner.uid) == self.metadata.uid.as_ref())
    }

    /// The digest decides: a hash changes with `kubectl rollout restart`, which leaves the same bad template.
    pub(super) fn must_be<'a>(&self, from: impl Into<Option<&'a TemplateRef>>) -> Result<(), ActError> {
        let Some(from) = from.into().filter(|from| from.digest != self.digest) else { return Ok(()) };
        if self.rollout.is_some() && !self.observed {
            // Only its controller knows which template that is.
            let generation = self.metadata.generation.unwrap_or_default();
            let why = format!("the controller of Rollouts has not observed generation {generation} yet");
            return Err(ActError::Unmeasured(why));
        }
        let revision = revision(&self.metadata).map(|revision| revision.to_string());
        let revision = revision.or_else(|| self.update_revision.clone()).unwrap_or_else(|| "unknown".into());
        Err(ActError::Superseded {
            expected: format!("revision {} ({})", from.revision, from.digest),
            found: format!("revision {revision} ({})", self.digest),
        })
    }

    /// The merge patch, under the resourceVersion that was read.
    pub(super) fn merge(&self, mut patch: Value) -> Value {
        patch["metadata"] = json!({"resourceVersion": self.metadata.resource_version});
        patch
    }

    /// A JSON Patch that replaces the template, under the resourceVersion that was read.
    pub(super) fn with_template(&self, template: &Value) -> Vec<Value> {
        vec![
            json!({"op": "replace", "path": "/metadata/resourceVersion", "value": self.metadata.resource_version}),
            json!({"op": "replace", "path": "/spec/template", "value": template}),
        ]
    }
}

pub(super) fn digest_of(template: &Value) -> Result<String, ActError> {
    let typed: PodTemplateSpec = serde_json::from_value(template.clone())
        .map_err(|why| ActError::Unreachable(format!("the API server's response has no pod template: {why}")))?;
    Ok(digest(&typed).to_string())
}

/// The field of the update strategy.
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

/// A DaemonSet has the number in its status.
fn desired(data: &Value) -> usize {
    let desired = data["spec"]["replicas"].as_u64().or_else(|| data["status"]["desiredNumberScheduled"].as_u64());
    usize::try_from(desired.unwrap_or(1)).unwrap_or(usize::MAX)
}

pub(super) fn restarted_at(template: &Value) -> Option<&str> {
    template["metadata"]["annotations"][RESTARTED_AT].as_str()
}

pub(super) fn revision(metadata: &ObjectMeta) -> Option<i64> {
    let annotations = metadata.annotations.as_ref()?;
    annotations.get(REVISION).or_else(|| annotations.get(ROLLOUT_REVISION))?.parse().ok()
}
