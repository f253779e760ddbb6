//! The few fields of each object that health depends on. All other fields are dropped on arrival: a pod of 10 kB becomes
//! about 300 bytes.
//!
//! Two facts are equal exactly when no relevant field changed, which decides whether a change is sent.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ContainerStateTerminated, ContainerStatus, Node, Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{
    faults::is_pull_failure,
    quantity::{ContainerLimits, container_limits},
    template::{REVISION_HASH, ROLLOUT_HASH},
};
use crate::api::WorkloadKind;

mod release;
mod rollout;

pub use release::REVISION;
pub(super) use release::{Newest, RevisionFacts, WorkloadFacts};
pub(super) use rollout::{ROLLOUT_REVISION, Rollout, without_injected};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct PodFacts {
    /// The kind of its workload; of a ReplicaSet's pod a Deployment or a Rollout.
    pub kind: WorkloadKind,
    /// Its controller: a ReplicaSet, StatefulSet or DaemonSet.
    pub owner: Box<str>,
    pub owner_uid: Box<str>,
    /// The template of a StatefulSet's or DaemonSet's pod. Empty for others.
    pub revision_hash: Box<str>,
    pub node: Option<Box<str>>,
    pub terminating: bool,
    pub phase: Phase,
    pub unschedulable: bool,
    pub started: Option<Timestamp>,
    /// The Ready condition's status, and since when.
    pub ready: bool,
    pub ready_changed: Option<Timestamp>,
    /// Containers that are not healthy, init containers first. Empty for nearly every pod.
    pub containers: Box<[ContainerFacts]>,
    /// Since when a container has been in trouble; carried over from update to update.
    pub trouble_since: Option<Timestamp>,
    pub limits: Option<Arc<[ContainerLimits]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Running,
    /// Succeeded, or Failed (as an evicted pod): its owner has replaced it.
    Over,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContainerFacts {
    pub name: Box<str>,
    pub ready: bool,
    pub restarts: i32,
    pub state: ContainerState,
    /// The last end, when the exit code was not 0.
    pub last_failure: Option<Failure>,
    /// The image, when it cannot be pulled.
    pub unpulled: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum ContainerState {
    Waiting { reason: Box<str>, message: Box<str> },
    Terminated,
    Running,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    pub exit_code: i32,
    pub oom: bool,
    pub finished: Option<Timestamp>,
}

impl PodFacts {
    /// None when no workload controls the pod. `before`: the previous facts of the same pod.
    pub(super) fn new(pod: &Pod, before: Option<&Self>, now: Timestamp) -> Option<Self> {
        const OWNERS: [(&str, WorkloadKind); 3] = [
            ("ReplicaSet", WorkloadKind::Deployment),
            ("StatefulSet", WorkloadKind::StatefulSet),
            ("DaemonSet", WorkloadKind::DaemonSet),
        ];
        let (kind, owner) =
            OWNERS.into_iter().find_map(|(owner, kind)| Some((kind, controller(&pod.metadata, owner)?)))?;
        let label = |key: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        let of_rollout = kind == WorkloadKind::Deployment && label(ROLLOUT_HASH).is_some();
        let kind = if of_rollout { WorkloadKind::Rollout } else { kind };
        let by_label = matches!(kind, WorkloadKind::StatefulSet | WorkloadKind::DaemonSet);
        let none = PodStatus::default();
        let status = pod.status.as_ref().unwrap_or(&none);
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let condition = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
        let ready = condition("Ready");
        let statuses = [&status.init_container_statuses, &status.container_statuses].into_iter().flatten().flatten();
        let containers: Box<[_]> = statuses.filter_map(ContainerFacts::new).collect();
        let trouble_since = trouble_since(&containers, before, now);
        Some(Self {
            kind,
            owner: owner.name.as_str().into(),
            owner_uid: owner.uid.as_str().into(),
            revision_hash: text(label(REVISION_HASH).filter(|_| by_label)),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).map(Into::into),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            phase: match status.phase.as_deref() {
                Some("Running") => Phase::Running,
                Some("Succeeded" | "Failed") => Phase::Over,
                _ => Phase::Pending,
            },
            unschedulable: condition("PodScheduled").is_some_and(|condition| {
                condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable")
            }),
            started: status.start_time.as_ref().map(|time| time.0),
            ready: ready.is_some_and(|condition| condition.status == "True"),
            ready_changed: ready.and_then(|condition| condition.last_transition_time.as_ref()).map(|time| time.0),
            containers,
            trouble_since,
            limits: pod.spec.as_ref().and_then(container_limits),
        })
    }
}

impl ContainerFacts {
    /// None when the container is healthy: running or done, without a failure.
    fn new(status: &ContainerStatus) -> Option<Self> {
        let state = status.state.as_ref();
        let ended_now = state.and_then(|state| state.terminated.as_ref());
        let ended_last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let last_failure = [ended_now, ended_last].into_iter().flatten().find_map(Failure::new);
        let waiting = state.and_then(|state| state.waiting.as_ref());
        // Every pod passes through these.
        let harmless = [None, Some("ContainerCreating"), Some("PodInitializing")];
        if last_failure.is_none() && waiting.is_none_or(|waiting| harmless.contains(&waiting.reason.as_deref())) {
            return None;
        }
        let state = match waiting {
            Some(waiting) => ContainerState::Waiting {
                reason: text(waiting.reason.as_ref()),
                message: cut(waiting.message.as_deref().unwrap_or_default(), 160).into(),
            },
            None if ended_now.is_some() => ContainerState::Terminated,
            None => ContainerState::Running,
        };
        Some(Self {
            name: status.name.as_str().into(),
            ready: status.ready,
            restarts: status.restart_count,
            unpulled: matches!(&state, ContainerState::Waiting { reason, .. } if is_pull_failure(reason))
                .then(|| status.image.as_str().into()),
            state,
            last_failure,
        })
    }
}

impl Failure {
    fn new(ended: &ContainerStateTerminated) -> Option<Self> {
        (ended.exit_code != 0).then(|| Self {
            exit_code: ended.exit_code,
            oom: ended.reason.as_deref() == Some("OOMKilled"),
            finished: ended.finished_at.as_ref().map(|time| time.0),
        })
    }
}

/// Since when the containers have been in trouble without a long break. The API does not report since when a container has
/// been waiting, so its first observation counts, or the end of its last run when that was recent.
fn trouble_since(containers: &[ContainerFacts], before: Option<&PodFacts>, now: Timestamp) -> Option<Timestamp> {
    // After this time without a crash, in seconds, the kubelet resets its back-off too: a new trouble.
    const SAME_TROUBLE_S: i64 = 600;
    let recent_failure = |container: &ContainerFacts| {
        let finished = container.last_failure.as_ref()?.finished?;
        (now.duration_since(finished) <= SignedDuration::from_secs(SAME_TROUBLE_S)).then_some(finished.min(now))
    };
    let troubled = |container: &ContainerFacts| {
        matches!(container.state, ContainerState::Waiting { .. }) || recent_failure(container).is_some()
    };
    if !containers.iter().any(troubled) {
        return None;
    }
    before
        .filter(|before| before.containers.iter().any(troubled))
        .and_then(|before| before.trouble_since)
        .or_else(|| containers.iter().filter_map(recent_failure).min())
        .or(Some(now))
}

/// Heartbeats change the conditions every few minutes; this does not.
pub(super) fn node_ready(node: &Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// At most `chars` characters.
pub(super) fn cut(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

fn controller<'a>(metadata: &'a ObjectMeta, kind: &str) -> Option<&'a OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true) && owner.kind == kind)
}

fn text(value: Option<&String>) -> Box<str> {
    value.map(String::as_str).unwrap_or_default().into()
}
