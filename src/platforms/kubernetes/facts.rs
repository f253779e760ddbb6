//! The few fields of each object that health depends on. Everything else is dropped as it arrives: a pod of 10 kB
//! becomes about 300 bytes.
//!
//! Two facts are equal exactly when nothing that matters changed, which is what decides whether anyone is woken.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ContainerStateTerminated, ContainerStatus, Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use uuid::Uuid;

use super::{gitops, quantity, template};

/// Annotation on Deployments and ReplicaSets: the number of the rollout.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// What the API server fills in when `spec.progressDeadlineSeconds` is left out, in seconds.
const PROGRESS_DEADLINE_S: u32 = 600;
/// Images that are named in messages.
const MAX_IMAGES: usize = 3;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct DeploymentFacts {
    pub uid: Box<str>,
    pub deleting: bool,
    pub generation: i64,
    pub observed_generation: i64,
    pub desired: u32,
    pub replicas: u32,
    pub updated: u32,
    pub available: u32,
    pub paused: bool,
    pub progress_deadline_exceeded: bool,
    pub progress_deadline_s: u32,
    /// None until the deployment controller made the first ReplicaSet.
    pub revision: Option<i64>,
    pub digest: Uuid,
    pub images: Box<[String]>,
    pub gitops_owner: Option<Box<str>>,
    pub memory_limit: Option<u64>,
    pub irreversible: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ReplicaSetFacts {
    pub uid: Box<str>,
    pub deployment: Box<str>,
    pub deployment_uid: Box<str>,
    pub revision: i64,
    pub hash: Box<str>,
    pub digest: Uuid,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct PodFacts {
    pub replica_set: Box<str>,
    pub replica_set_uid: Box<str>,
    pub node: Option<Box<str>>,
    pub terminating: bool,
    pub phase: Phase,
    pub unschedulable: bool,
    pub started: Option<Timestamp>,
    /// The Ready condition's status, and since when.
    pub ready: bool,
    pub ready_changed: Option<Timestamp>,
    /// Containers that are not plainly well, init containers first. Empty for nearly every pod.
    pub containers: Box<[ContainerFacts]>,
    /// Since when they have been in trouble; kept from update to update.
    pub trouble_since: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Running,
    /// Succeeded, or Failed (which is how an evicted pod ends): its ReplicaSet has replaced it.
    Over,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContainerFacts {
    pub name: Box<str>,
    pub ready: bool,
    pub restarts: i32,
    pub state: ContainerState,
    /// How it ended last time, or just now, when that was not with exit code 0.
    pub last_failure: Option<Failure>,
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

impl DeploymentFacts {
    pub(super) fn new(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let status = deployment.status.as_ref();
        let count = |value: Option<i32>| value.and_then(|count| u32::try_from(count).ok()).unwrap_or_default();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        Self {
            uid: text(deployment.metadata.uid.as_ref()),
            deleting: deployment.metadata.deletion_timestamp.is_some(),
            generation: deployment.metadata.generation.unwrap_or_default(),
            observed_generation: status.and_then(|status| status.observed_generation).unwrap_or_default(),
            desired: spec.and_then(|spec| spec.replicas).map_or(1, |replicas| count(Some(replicas))),
            replicas: count(status.and_then(|status| status.replicas)),
            updated: count(status.and_then(|status| status.updated_replicas)),
            available: count(status.and_then(|status| status.available_replicas)),
            paused: spec.and_then(|spec| spec.paused).unwrap_or_default(),
            progress_deadline_exceeded: conditions.iter().any(|condition| {
                condition.type_ == "Progressing"
                    && condition.status == "False"
                    && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
            }),
            progress_deadline_s: spec
                .and_then(|spec| spec.progress_deadline_seconds)
                .map_or(PROGRESS_DEADLINE_S, |seconds| count(Some(seconds))),
            revision: revision(&deployment.metadata),
            digest: spec.map(|spec| template::digest(&spec.template)).unwrap_or_default(),
            images: spec
                .and_then(|spec| spec.template.spec.as_ref())
                .into_iter()
                .flat_map(|pod| &pod.containers)
                .take(MAX_IMAGES)
                .map(|container| format!("{}={}", container.name, container.image.as_deref().unwrap_or_default()))
                .collect(),
            gitops_owner: gitops::owner(&deployment.metadata).map(Into::into),
            irreversible: spec.and_then(|spec| template::irreversible(&spec.template)).map(Into::into),
            memory_limit: spec.and_then(|spec| spec.template.spec.as_ref()).and_then(quantity::memory_limit),
        }
    }
}

impl ReplicaSetFacts {
    /// None when no Deployment controls it.
    pub(super) fn new(set: &ReplicaSet) -> Option<Self> {
        let owner = controller(&set.metadata, "Deployment")?;
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        Some(Self {
            uid: text(set.metadata.uid.as_ref()),
            deployment: owner.name.as_str().into(),
            deployment_uid: owner.uid.as_str().into(),
            revision: revision(&set.metadata).unwrap_or_default(),
            hash: text(set.metadata.labels.as_ref().and_then(|labels| labels.get(template::TEMPLATE_HASH))),
            digest: template.map(template::digest).unwrap_or_default(),
        })
    }
}

impl PodFacts {
    /// None when no ReplicaSet controls it. `before` is what was known of the same pod.
    pub(super) fn new(pod: &Pod, before: Option<&Self>, now: Timestamp) -> Option<Self> {
        let owner = controller(&pod.metadata, "ReplicaSet")?;
        let status = pod.status.as_ref();
        let condition = |kind: &str| {
            status
                .and_then(|status| status.conditions.as_deref())
                .unwrap_or_default()
                .iter()
                .find(|condition| condition.type_ == kind)
        };
        let ready = condition("Ready");
        let init = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
        let main = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let containers: Box<[_]> = init.iter().chain(main).filter_map(ContainerFacts::new).collect();
        let trouble_since = trouble_since(&containers, before, now);
        Some(Self {
            replica_set: owner.name.as_str().into(),
            replica_set_uid: owner.uid.as_str().into(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).map(Into::into),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            phase: match status.and_then(|status| status.phase.as_deref()) {
                Some("Running") => Phase::Running,
                Some("Succeeded" | "Failed") => Phase::Over,
                _ => Phase::Pending,
            },
            unschedulable: condition("PodScheduled").is_some_and(|condition| {
                condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable")
            }),
            started: status.and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            ready: ready.is_some_and(|condition| condition.status == "True"),
            ready_changed: ready.and_then(|condition| condition.last_transition_time.as_ref()).map(|time| time.0),
            containers,
            trouble_since,
        })
    }
}

impl ContainerFacts {
    /// None when it is well: running or done, with no failed end to remember.
    fn new(status: &ContainerStatus) -> Option<Self> {
        let state = status.state.as_ref();
        let ended_now = state.and_then(|state| state.terminated.as_ref());
        let ended_last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let last_failure = [ended_now, ended_last].into_iter().flatten().find_map(Failure::new);
        let state = if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
            // Every pod passes through these; they say nothing.
            let harmless = matches!(waiting.reason.as_deref(), None | Some("ContainerCreating" | "PodInitializing"));
            if harmless && last_failure.is_none() {
                return None;
            }
            ContainerState::Waiting {
                reason: text(waiting.reason.as_ref()),
                message: cut(waiting.message.as_deref().unwrap_or_default(), 160).into(),
            }
        } else if ended_now.is_some() {
            ContainerState::Terminated
        } else {
            ContainerState::Running
        };
        if matches!(state, ContainerState::Running | ContainerState::Terminated) && last_failure.is_none() {
            return None;
        }
        Some(Self {
            name: status.name.as_str().into(),
            ready: status.ready,
            restarts: status.restart_count,
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

/// Since when the containers have been in trouble without a long break. The API does not say since when a container
/// has been waiting, so the first sight of it counts, or the end of its last run when that was recent.
fn trouble_since(containers: &[ContainerFacts], before: Option<&PodFacts>, now: Timestamp) -> Option<Timestamp> {
    // After this long a time without a crash, in seconds, the kubelet resets its back-off too: a new trouble.
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
    node.status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// At most `chars` characters.
pub(super) fn cut(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

fn controller<'a>(metadata: &'a ObjectMeta, kind: &str) -> Option<&'a OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true) && owner.kind == kind)
}

fn revision(metadata: &ObjectMeta) -> Option<i64> {
    metadata.annotations.as_ref()?.get(REVISION)?.parse().ok()
}

fn text(value: Option<&String>) -> Box<str> {
    value.map(String::as_str).unwrap_or_default().into()
}
