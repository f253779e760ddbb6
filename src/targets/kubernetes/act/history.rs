//! The templates that a workload has or had: a Deployment's and a Rollout's are in their ReplicaSets, the others' in ControllerRevisions.

use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::Value;

use super::{
    ActError, Call, OnWorkload, limited,
    live::{Live, revision},
};
use crate::{
    api::WorkloadKind,
    targets::kubernetes::{
        facts::without_injected,
        template::{REVISION_HASH, ROLLOUT_HASH, TEMPLATE_HASH, of_revision, revision_hash},
    },
};

/// A template that the workload has or had.
pub(super) struct Past {
    /// Of the ReplicaSet or ControllerRevision that holds it.
    pub name: String,
    /// The label of its pods.
    pub hash: String,
    /// The newest template according to the workload's controller.
    pub newest: bool,
    /// As in the workload.
    pub template: Value,
}

/// The kind of the objects that hold templates, and the label of the pods that tells the templates apart.
pub(super) fn names(kind: WorkloadKind) -> (&'static str, &'static str) {
    match kind {
        WorkloadKind::Deployment => ("ReplicaSet", TEMPLATE_HASH),
        WorkloadKind::Rollout => ("ReplicaSet", ROLLOUT_HASH),
        WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => ("ControllerRevision", REVISION_HASH),
    }
}

impl OnWorkload<'_> {
    pub(super) async fn history(&self, live: &Live) -> Result<Vec<Past>, ActError> {
        let objects = self.templates(live).await?;
        let number = |revision: &DynamicObject| revision.data["revision"].as_i64();
        let highest = objects.iter().map(number).max().flatten();
        let past = |object: DynamicObject| {
            let template = object.data["spec"]["template"].clone();
            let label = |key: &str| object.labels().get(key).cloned().unwrap_or_default();
            let (hash, newest, template) = match self.workload.kind {
                WorkloadKind::Deployment => {
                    let newest = revision(&object.metadata) == revision(&live.metadata);
                    (label(TEMPLATE_HASH), newest, without_hash(template))
                }
                WorkloadKind::Rollout => {
                    let (hash, current) = (label(ROLLOUT_HASH), live.rollout.as_ref().map(|rollout| &rollout.current));
                    let newest = live.observed && current == Some(&hash);
                    (hash, newest, without_injected(template, &object.metadata))
                }
                WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => {
                    let hash = revision_hash(&object.metadata).to_owned();
                    (hash, number(&object) == highest, of_revision(&object.data["data"])?)
                }
            };
            Some(Past { name: object.name_any(), hash, newest, template })
        };
        Ok(objects.into_iter().filter_map(past).collect())
    }

    /// The ReplicaSets or ControllerRevisions of the workload.
    pub(super) async fn templates(&self, live: &Live) -> Result<Vec<DynamicObject>, ActError> {
        let kind = names(self.workload.kind).0;
        let plural = if kind == "ReplicaSet" { "replicasets" } else { "controllerrevisions" };
        let api = self.api(kind, plural);
        let listed = limited(Call::list(plural), api.list(&live.selected(self.workload)?)).await?;
        Ok(listed.items.into_iter().filter(|object| live.controls(&object.metadata)).collect())
    }
}

fn without_hash(mut template: Value) -> Value {
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    template
}
