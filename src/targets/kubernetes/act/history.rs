//! The templates that a workload has or had: a Deployment's and a Rollout's are in their ReplicaSets, the others' in ControllerRevisions.

use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::Value;

use super::{
    ActError, Call, Kubernetes, WorkloadRef, limited,
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
    /// What its pods are labelled with.
    pub hash: String,
    /// The workload's controller has it as the newest.
    pub newest: bool,
    /// As it stood in the workload.
    pub template: Value,
}

/// The kind of the objects that hold templates, and the label of the pods by which they are told.
pub(super) fn names(kind: WorkloadKind) -> (&'static str, &'static str) {
    match kind {
        WorkloadKind::Deployment => ("ReplicaSet", TEMPLATE_HASH),
        WorkloadKind::Rollout => ("ReplicaSet", ROLLOUT_HASH),
        WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => ("ControllerRevision", REVISION_HASH),
    }
}

impl Kubernetes {
    pub(super) async fn history(&self, workload: WorkloadRef<'_>, live: &Live) -> Result<Vec<Past>, ActError> {
        match workload.kind {
            WorkloadKind::Deployment => {
                let newest = revision(&live.metadata);
                let past = |set: DynamicObject| Past {
                    name: set.name_any(),
                    hash: set.labels().get(TEMPLATE_HASH).cloned().unwrap_or_default(),
                    newest: revision(&set.metadata) == newest,
                    template: without_hash(set.data["spec"]["template"].clone()),
                };
                let sets = self.held(workload, live, "replicasets").await?;
                Ok(sets.into_iter().map(past).collect())
            }
            WorkloadKind::Rollout => {
                let current = live.rollout.as_ref().map(|rollout| rollout.current.as_str());
                let past = |set: DynamicObject| {
                    let hash = set.labels().get(ROLLOUT_HASH).cloned().unwrap_or_default();
                    Past {
                        name: set.name_any(),
                        newest: live.observed && current == Some(&hash),
                        template: without_injected(set.data["spec"]["template"].clone(), &set.metadata),
                        hash,
                    }
                };
                let sets = self.held(workload, live, "replicasets").await?;
                Ok(sets.into_iter().map(past).collect())
            }
            WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => {
                let revisions = self.held(workload, live, "controllerrevisions").await?;
                let number = |revision: &DynamicObject| revision.data["revision"].as_i64();
                let newest = revisions.iter().map(number).max().flatten();
                let past = |revision: DynamicObject| {
                    Some(Past {
                        name: revision.name_any(),
                        hash: revision_hash(&revision.metadata).to_owned(),
                        newest: number(&revision) == newest,
                        template: of_revision(&revision.data["data"])?,
                    })
                };
                Ok(revisions.into_iter().filter_map(past).collect())
            }
        }
    }

    pub(super) async fn held(
        &self,
        workload: WorkloadRef<'_>,
        live: &Live,
        plural: &'static str,
    ) -> Result<Vec<DynamicObject>, ActError> {
        let api = self.api(workload, names(workload.kind).0, plural);
        let listed = limited(Call::list(plural), api.list(&live.selected(workload)?)).await?;
        Ok(listed.items.into_iter().filter(|object| live.controls(&object.metadata)).collect())
    }
}

fn without_hash(mut template: Value) -> Value {
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    template
}
