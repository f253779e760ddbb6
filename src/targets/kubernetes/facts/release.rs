//! The facts of workloads and of their revisions: the desired template, and the progress of its rollout.

use k8s_openapi::{
    api::{
        apps::v1::{
            ControllerRevision, DaemonSet, DaemonSetStatus, Deployment, DeploymentStatus, ReplicaSet, StatefulSet,
            StatefulSetStatus,
        },
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use uuid::Uuid;

use super::{controller, rollout::RolloutFacts, text};
use crate::{
    api::WorkloadKind,
    targets::kubernetes::{
        config::{self, ConfigRef},
        gitops, quantity, template,
    },
};

/// Annotation on Deployments and ReplicaSets: the number of the rollout.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// The API server's default of `spec.progressDeadlineSeconds`.
pub(super) const PROGRESS_DEADLINE_S: u32 = 600;
/// Images named in messages.
const MAX_IMAGES: usize = 3;

#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::targets::kubernetes) struct WorkloadFacts {
    pub uid: Box<str>,
    pub deleting: bool,
    pub generation: i64,
    pub observed_generation: i64,
    pub desired: u32,
    pub replicas: u32,
    pub updated: u32,
    pub available: u32,
    pub paused: bool,
    /// Pods wait for a person to get the newest template: the strategy is OnDelete, there is a partition, or the rollout was
    /// aborted.
    pub held: bool,
    pub progress_deadline_exceeded: bool,
    pub progress_deadline_s: u32,
    pub newest: Newest,
    pub digest: Uuid,
    pub restarted_at: Option<Box<str>>,
    pub images: Box<[String]>,
    pub gitops_owner: Option<Box<gitops::Owner>>,
    pub memory_limit: Option<u64>,
    pub irreversible: Option<Box<str>>,
    pub config: Box<[ConfigRef]>,
    pub rollout: Option<Box<RolloutFacts>>,
}

/// How a workload's controller identifies the revision of the newest template.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::targets::kubernetes) enum Newest {
    /// There is no revision yet.
    #[default]
    None,
    /// Deployment: by the annotation [`REVISION`].
    Number(i64),
    /// StatefulSet: `status.updateRevision`, the name of a ControllerRevision.
    Name(Box<str>),
    /// DaemonSet: the one with the highest number.
    Highest,
    /// Rollout: `status.currentPodHash`, and the one that is stable.
    Hash { current: Box<str>, stable: Box<str> },
}

/// A ReplicaSet or a ControllerRevision: a template that a workload has or had.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::targets::kubernetes) struct RevisionFacts {
    pub uid: Box<str>,
    pub workload: Box<str>,
    pub workload_uid: Box<str>,
    pub revision: i64,
    /// The label of the pods of this template.
    pub hash: Box<str>,
    pub digest: Uuid,
    pub restarted_at: Option<Box<str>>,
}

impl WorkloadFacts {
    /// The facts that all kinds have in common.
    pub(super) fn new(metadata: &ObjectMeta, template: Option<&PodTemplateSpec>) -> Self {
        let pod = template.and_then(|template| template.spec.as_ref());
        let containers = pod.into_iter().flat_map(|pod| &pod.containers).take(MAX_IMAGES);
        Self {
            uid: text(metadata.uid.as_ref()),
            deleting: metadata.deletion_timestamp.is_some(),
            generation: metadata.generation.unwrap_or_default(),
            digest: template.map(template::digest).unwrap_or_default(),
            restarted_at: template.and_then(template::restarted_at).map(Into::into),
            images: containers
                .map(|container| format!("{}={}", container.name, container.image.as_deref().unwrap_or_default()))
                .collect(),
            gitops_owner: gitops::owner(metadata).map(Box::new),
            memory_limit: pod.and_then(quantity::memory_limit),
            irreversible: template.and_then(template::irreversible).map(Into::into),
            config: template.map(config::references).unwrap_or_default(),
            ..Self::default()
        }
    }

    pub(in crate::targets::kubernetes) fn deployment(deployment: &Deployment) -> Self {
        let (spec, none) = (deployment.spec.as_ref(), DeploymentStatus::default());
        let status = deployment.status.as_ref().unwrap_or(&none);
        Self {
            observed_generation: status.observed_generation.unwrap_or_default(),
            desired: spec.and_then(|spec| spec.replicas).map_or(1, count),
            replicas: count(status.replicas),
            updated: count(status.updated_replicas),
            available: count(status.available_replicas),
            paused: spec.and_then(|spec| spec.paused).unwrap_or_default(),
            progress_deadline_exceeded: status.conditions.iter().flatten().any(|condition| {
                condition.type_ == "Progressing"
                    && condition.status == "False"
                    && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
            }),
            progress_deadline_s: spec
                .and_then(|spec| spec.progress_deadline_seconds)
                .map_or(PROGRESS_DEADLINE_S, count),
            newest: revision(&deployment.metadata, REVISION).map_or(Newest::None, Newest::Number),
            ..Self::new(&deployment.metadata, spec.map(|spec| &spec.template))
        }
    }

    pub(in crate::targets::kubernetes) fn stateful_set(set: &StatefulSet) -> Self {
        let (spec, none) = (set.spec.as_ref(), StatefulSetStatus::default());
        let status = set.status.as_ref().unwrap_or(&none);
        let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
        let on_delete = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete");
        let partition = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition).unwrap_or_default();
        Self {
            observed_generation: status.observed_generation.unwrap_or_default(),
            desired: spec.and_then(|spec| spec.replicas).map_or(1, count),
            replicas: count(status.replicas),
            updated: count(status.updated_replicas),
            available: count(status.available_replicas),
            held: on_delete || partition > 0,
            newest: status.update_revision.as_deref().map_or(Newest::None, |name| Newest::Name(name.into())),
            ..Self::new(&set.metadata, spec.map(|spec| &spec.template))
        }
    }

    pub(in crate::targets::kubernetes) fn daemon_set(set: &DaemonSet) -> Self {
        let (spec, none) = (set.spec.as_ref(), DaemonSetStatus::default());
        let status = set.status.as_ref().unwrap_or(&none);
        let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
        Self {
            observed_generation: status.observed_generation.unwrap_or_default(),
            desired: count(status.desired_number_scheduled),
            replicas: count(status.current_number_scheduled),
            updated: count(status.updated_number_scheduled),
            available: count(status.number_available),
            held: strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete"),
            newest: Newest::Highest,
            ..Self::new(&set.metadata, spec.map(|spec| &spec.template))
        }
    }
}

impl RevisionFacts {
    pub(super) fn new(metadata: &ObjectMeta, owner: &OwnerReference, template: &PodTemplateSpec) -> Self {
        Self {
            uid: text(metadata.uid.as_ref()),
            workload: owner.name.as_str().into(),
            workload_uid: owner.uid.as_str().into(),
            revision: 0,
            hash: Box::default(),
            digest: template::digest(template),
            restarted_at: template::restarted_at(template).map(Into::into),
        }
    }

    /// None when no Deployment controls the ReplicaSet, or it has no template.
    pub(in crate::targets::kubernetes) fn replica_set(set: &ReplicaSet) -> Option<Self> {
        let owner = controller(&set.metadata, "Deployment")?;
        Some(Self {
            revision: revision(&set.metadata, REVISION).unwrap_or_default(),
            hash: text(set.metadata.labels.as_ref().and_then(|labels| labels.get(template::TEMPLATE_HASH))),
            ..Self::new(&set.metadata, owner, set.spec.as_ref()?.template.as_ref()?)
        })
    }

    /// None when no workload of this kind controls the revision, or it has no template.
    pub(in crate::targets::kubernetes) fn controller_revision(
        revision: &ControllerRevision,
        kind: WorkloadKind,
    ) -> Option<Self> {
        let owner = controller(&revision.metadata, kind.into())?;
        let template = serde_json::from_value(template::of_revision(&revision.data.as_ref()?.0)?).ok()?;
        Some(Self {
            revision: revision.revision,
            hash: template::revision_hash(&revision.metadata).into(),
            ..Self::new(&revision.metadata, owner, &template)
        })
    }
}

/// A negative number counts as 0.
pub(super) fn count(value: impl Into<Option<i32>>) -> u32 {
    value.into().and_then(|value| u32::try_from(value).ok()).unwrap_or_default()
}

/// The number of the revision in this annotation.
pub(super) fn revision(metadata: &ObjectMeta, key: &str) -> Option<i64> {
    metadata.annotations.as_ref()?.get(key)?.parse().ok()
}
