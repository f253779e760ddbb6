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

use super::{ActError, CALL_LIMIT, Call, Kubernetes, Outcome, WorkloadRef, limited};
use crate::{
    api::{REMEDIATION_MANAGER, RESTARTED_AT, TemplateRef, WorkloadKind},
    platforms::kubernetes::{facts::REVISION, template::digest},
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
            return Err(ActError::Paused(workload.to_string()));
        }
        if live.strategy["type"] == "OnDelete" {
            return Err(ActError::OnDelete(workload.to_string()));
        }
        Ok(live)
    }

    pub(super) async fn read_any(&self, workload: WorkloadRef<'_>) -> Result<Live, ActError> {
        let kind = workload.kind;
        let api = self.api(workload.namespace, kind.into(), kind.plural());
        let found = limited(Call::get(kind), api.get(workload.name)).await.map_err(|error| match error {
            ActError::NotFound(_) => ActError::NotFound(workload.to_string()),
            other => other,
        })?;
        let (spec, status) = (&found.data["spec"], &found.data["status"]);
        if found.metadata.deletion_timestamp.is_some() {
            return Err(ActError::NotFound(format!("{workload} is being deleted and")));
        }
        Ok(Live {
            digest: digest_of(&spec["template"])?,
            template: spec["template"].clone(),
            observed: status["observedGeneration"].as_i64() >= found.metadata.generation,
            ordered: spec["podManagementPolicy"] == "OrderedReady",
            update_revision: status["updateRevision"].as_str().map(str::to_owned),
            paused: spec["paused"] == true,
            desired: desired(&found.data),
            replicas: spec["replicas"].clone(),
            strategy: spec[strategy_field(kind)].clone(),
            selector: spec["selector"].clone(),
            metadata: found.metadata,
        })
    }

    /// None on a conflict. Both kinds of patch, JSON Patch (an array) and merge patch, carry the resourceVersion, which the
    /// API server compares (409).
    pub(super) async fn write(&self, workload: WorkloadRef<'_>, patch: Value) -> Result<Option<Outcome>, ActError> {
        let call = Call::patch(workload.kind);
        let content_type =
            if patch.is_array() { "application/json-patch+json" } else { "application/merge-patch+json" };
        let params = PatchParams { field_manager: Some(REMEDIATION_MANAGER.to_owned()), ..PatchParams::default() };
        let path = format!("/apis/apps/v1/namespaces/{}/{}", workload.namespace, workload.kind.plural());
        let broken = |why: String| ActError::Rejected(format!("the request could not be built: {why}"));
        // kube offers JSON Patch only with a further dependency; a merge patch differs by its content type alone.
        let mut request = Request::new(path)
            .patch(workload.name, &params, &Patch::Merge(patch))
            .map_err(|why| broken(why.to_string()))?;
        let value = content_type.parse().map_err(|_| broken(format!("content type {content_type}")))?;
        request.headers_mut().insert("content-type", value);
        match timeout(CALL_LIMIT, self.client.request::<DynamicObject>(request)).await {
            Err(_) => Err(call.timeout(CALL_LIMIT)),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(None),
            Ok(Err(error)) => Err(call.failed(&error)),
            Ok(Ok(written)) => Ok(Some(Outcome::Done { generation: written.metadata.generation.unwrap_or_default() })),
        }
    }

    /// Of group `apps/v1`.
    pub(super) fn api(&self, namespace: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: "apps".into(),
            version: "v1".into(),
            api_version: "apps/v1".into(),
            kind: kind.into(),
            plural: plural.into(),
        };
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }
}

impl Live {
    /// What the workload's selector finds.
    pub(super) fn selected(&self, workload: WorkloadRef<'_>) -> Result<ListParams, ActError> {
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
        WorkloadKind::Deployment => "strategy",
        WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => "updateStrategy",
    }
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
    metadata.annotations.as_ref()?.get(REVISION)?.parse().ok()
}
