//! The facts of workloads and of their revisions: which template is wanted, and how far its rollout is.

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
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
/// What the API server fills in when `spec.progressDeadlineSeconds` is left out, in seconds.
pub(super) const PROGRESS_DEADLINE_S: u32 = 600;
/// Images that are named in messages.
const MAX_IMAGES: usize = 3;

#[derive(Debug, Clone, PartialEq)]
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
    /// Pods wait for a person to get the newest template: the strategy is OnDelete, or a partition keeps some back; or its
    /// rollout was aborted.
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
    /// What only a Rollout has.
    pub rollout: Option<Box<RolloutFacts>>,
}

/// How a workload's controller says which revision is of the newest template.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::targets::kubernetes) enum Newest {
    /// It has not made one yet.
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
    /// What the pods of this template are labelled with.
    pub hash: Box<str>,
    pub digest: Uuid,
    pub restarted_at: Option<Box<str>>,
}

impl WorkloadFacts {
    /// What all kinds have in common; nothing is known of the rollout.
    pub(super) fn new(metadata: &ObjectMeta, template: Option<&PodTemplateSpec>) -> Self {
        Self {
            uid: text(metadata.uid.as_ref()),
            deleting: metadata.deletion_timestamp.is_some(),
            generation: metadata.generation.unwrap_or_default(),
            observed_generation: 0,
            desired: 0,
            replicas: 0,
            updated: 0,
            available: 0,
            paused: false,
            held: false,
            progress_deadline_exceeded: false,
            progress_deadline_s: 0,
            newest: Newest::None,
            digest: template.map(template::digest).unwrap_or_default(),
            restarted_at: template.and_then(template::restarted_at).map(Into::into),
            images: template
                .and_then(|template| template.spec.as_ref())
                .into_iter()
                .flat_map(|pod| &pod.containers)
                .take(MAX_IMAGES)
                .map(|container| format!("{}={}", container.name, container.image.as_deref().unwrap_or_default()))
                .collect(),
            gitops_owner: gitops::owner(metadata).map(Box::new),
            memory_limit: template.and_then(|template| template.spec.as_ref()).and_then(quantity::memory_limit),
            irreversible: template.and_then(template::irreversible).map(Into::into),
            config: template.map(config::references).unwrap_or_default(),
            rollout: None,
        }
    }

    pub(in crate::targets::kubernetes) fn deployment(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let status = deployment.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        Self {
            observed_generation: status.and_then(|status| status.observed_generation).unwrap_or_default(),
            desired: spec.and_then(|spec| spec.replicas).map_or(1, count),
            replicas: status.and_then(|status| status.replicas).map_or(0, count),
            updated: status.and_then(|status| status.updated_replicas).map_or(0, count),
            available: status.and_then(|status| status.available_replicas).map_or(0, count),
            paused: spec.and_then(|spec| spec.paused).unwrap_or_default(),
            progress_deadline_exceeded: conditions.iter().any(|condition| {
                condition.type_ == "Progressing"
                    && condition.status == "False"
                    && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
            }),
            progress_deadline_s: spec
                .and_then(|spec| spec.progress_deadline_seconds)
                .map_or(PROGRESS_DEADLINE_S, count),
            newest: revision(&deployment.metadata).map_or(Newest::None, Newest::Number),
            ..Self::new(&deployment.metadata, spec.map(|spec| &spec.template))
        }
    }

    pub(in crate::targets::kubernetes) fn stateful_set(set: &StatefulSet) -> Self {
        let spec = set.spec.as_ref();
        let status = set.status.as_ref();
        let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
        let on_delete = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete");
        let partition = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition).unwrap_or_default();
        Self {
            observed_generation: status.and_then(|status| status.observed_generation).unwrap_or_default(),
            desired: spec.and_then(|spec| spec.replicas).map_or(1, count),
            replicas: status.map_or(0, |status| count(status.replicas)),
            updated: status.and_then(|status| status.updated_replicas).map_or(0, count),
            available: status.and_then(|status| status.available_replicas).map_or(0, count),
            held: on_delete || partition > 0,
            newest: status
                .and_then(|status| status.update_revision.as_deref())
                .map_or(Newest::None, |name| Newest::Name(name.into())),
            ..Self::new(&set.metadata, spec.map(|spec| &spec.template))
        }
    }

    pub(in crate::targets::kubernetes) fn daemon_set(set: &DaemonSet) -> Self {
        let spec = set.spec.as_ref();
        let status = set.status.as_ref();
        let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
        Self {
            observed_generation: status.and_then(|status| status.observed_generation).unwrap_or_default(),
            desired: status.map_or(0, |status| count(status.desired_number_scheduled)),
            replicas: status.map_or(0, |status| count(status.current_number_scheduled)),
            updated: status.and_then(|status| status.updated_number_scheduled).map_or(0, count),
            available: status.and_then(|status| status.number_available).map_or(0, count),
            held: strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete"),
            newest: Newest::Highest,
            ..Self::new(&set.metadata, spec.map(|spec| &spec.template))
        }
    }
}

impl RevisionFacts {
    /// None when no Deployment controls it.
    pub(in crate::targets::kubernetes) fn replica_set(set: &ReplicaSet) -> Option<Self> {
        let owner = controller(&set.metadata, "Deployment")?;
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        Some(Self {
            uid: text(set.metadata.uid.as_ref()),
            workload: owner.name.as_str().into(),
            workload_uid: owner.uid.as_str().into(),
            revision: revision(&set.metadata).unwrap_or_default(),
            hash: text(set.metadata.labels.as_ref().and_then(|labels| labels.get(template::TEMPLATE_HASH))),
            digest: template.map(template::digest).unwrap_or_default(),
            restarted_at: template.and_then(template::restarted_at).map(Into::into),
        })
    }

    /// None when no workload of this kind controls it, or it holds no template.
    pub(in crate::targets::kubernetes) fn controller_revision(
        revision: &ControllerRevision,
        kind: WorkloadKind,
    ) -> Option<Self> {
        let owner = controller(&revision.metadata, kind.into())?;
        let template: PodTemplateSpec =
            serde_json::from_value(template::of_revision(&revision.data.as_ref()?.0)?).ok()?;
        Some(Self {
            uid: text(revision.metadata.uid.as_ref()),
            workload: owner.name.as_str().into(),
            workload_uid: owner.uid.as_str().into(),
            revision: revision.revision,
            hash: template::revision_hash(&revision.metadata).into(),
            digest: template::digest(&template),
            restarted_at: template::restarted_at(&template).map(Into::into),
        })
    }
}

pub(super) fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or_default()
}

fn revision(metadata: &ObjectMeta) -> Option<i64> {
    metadata.annotations.as_ref()?.get(REVISION)?.parse().ok()
}
