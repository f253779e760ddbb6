//! What one look at a component saw: plain data, filled by a platform, read by the analysis.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;

use crate::api::{ConfigObject, RemediationReason, release_name};

/// A thing that was measured, or the reason why it could not be.
///
/// `Unknown` is never zero, never healthy, and never a reason to act.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured<T> {
    Known(T),
    Unknown(Unmeasured),
}

impl<T> Measured<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> Measured<U> {
        match self {
            Self::Known(value) => Measured::Known(with(value)),
            Self::Unknown(why) => Measured::Unknown(why),
        }
    }
}

/// Why something could not be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmeasured {
    pub reason: UnknownReason,
    /// For a person: what was asked, what came back, and where to look. No secrets, at most 512 characters.
    pub message: String,
}

impl Unmeasured {
    pub fn new(reason: UnknownReason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((cut, _)) = message.char_indices().nth(509) {
            message.truncate(cut);
            message.push_str("...");
        }
        Self { reason, message }
    }
}

/// The closed set of reasons for `Unknown`; used as is in conditions, events and metric labels.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::Display, strum::IntoStaticStr, strum::EnumIter,
)]
pub enum UnknownReason {
    /// The query worked and returned no sample.
    NoData,
    /// The query returned NaN or an infinity.
    NotANumber,
    /// The query returned more than one series, and which one counts cannot be guessed.
    SeveralSeries,
    /// The answer was not what the API promises (HTML of a proxy, cut JSON, a wrong type).
    BadAnswer,
    /// The source refused the query (4xx, or an error in its own words).
    Refused,
    /// The source could not be reached, or failed (connection refused, DNS, 5xx).
    Unreachable,
    /// No answer within the time limit of one look.
    Timeout,
    /// No source is configured (no Prometheus URL in the metric or in the operator).
    NotConfigured,
    /// The target object does not exist.
    TargetNotFound,
    /// The cluster has no such kind of object: its CustomResourceDefinition is not there.
    NotInstalled,
    /// Kubernetes refused to let us look.
    Forbidden,
    /// The cluster's own view has not caught up yet (caches filling, `observedGeneration` behind).
    Unsettled,
    /// The spec of this part of the policy is not valid.
    InvalidSpec,
    /// There is no API key to ask with.
    CredentialsMissing,
    /// The source does not take the API key (any more), or it may not do this.
    CredentialsRefused,
    /// The source's rate limit is used up for now.
    RateLimited,
    /// The source kept failing, so it is left alone for a while.
    CircuitOpen,
    /// TLS could not be agreed on: the source has none or wants it, or its certificate is expired or not trusted.
    TlsFailed,
}

impl UnknownReason {
    /// Waiting will most likely not help: somebody has to change the policy, its target or our rights.
    pub fn needs_a_person(self) -> bool {
        match self {
            Self::SeveralSeries
            | Self::Refused
            | Self::NotConfigured
            | Self::TargetNotFound
            | Self::NotInstalled
            | Self::Forbidden
            | Self::InvalidSpec
            | Self::CredentialsMissing
            | Self::CredentialsRefused
            | Self::TlsFailed => true,
            Self::NoData
            | Self::NotANumber
            | Self::BadAnswer
            | Self::Unreachable
            | Self::Timeout
            | Self::Unsettled
            | Self::RateLimited
            | Self::CircuitOpen => false,
        }
    }
}

impl From<UnknownReason> for RemediationReason {
    fn from(reason: UnknownReason) -> Self {
        match reason {
            UnknownReason::NoData => Self::NoData,
            UnknownReason::NotANumber => Self::NotANumber,
            UnknownReason::SeveralSeries => Self::SeveralSeries,
            UnknownReason::BadAnswer => Self::BadAnswer,
            UnknownReason::Refused => Self::Refused,
            UnknownReason::Unreachable => Self::Unreachable,
            UnknownReason::Timeout => Self::Timeout,
            UnknownReason::NotConfigured => Self::NotConfigured,
            UnknownReason::TargetNotFound => Self::TargetNotFound,
            UnknownReason::NotInstalled => Self::NotInstalled,
            UnknownReason::Forbidden => Self::Forbidden,
            UnknownReason::Unsettled => Self::Unsettled,
            UnknownReason::InvalidSpec => Self::InvalidSpec,
            UnknownReason::CredentialsMissing => Self::CredentialsMissing,
            UnknownReason::CredentialsRefused => Self::CredentialsRefused,
            UnknownReason::RateLimited => Self::RateLimited,
            UnknownReason::CircuitOpen => Self::CircuitOpen,
            UnknownReason::TlsFailed => Self::TlsFailed,
        }
    }
}

/// One look at one component.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// When the look was finished.
    pub at: Timestamp,
    /// The state of the target itself.
    pub target: Measured<TargetState>,
    /// Readings by metric name (`error_rate`, `latency_ms`, …), in the units of [`crate::analyze::metric`].
    pub metrics: BTreeMap<String, Reading>,
}

impl Observation {
    /// What a metric was, if it was measured.
    pub fn value(&self, metric: &str) -> Option<f64> {
        self.metrics.get(metric)?.value.known().copied().filter(|value| value.is_finite())
    }
}

/// One metric's value, and whether it speaks of the pods of the newest release alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub value: Measured<f64>,
    /// True when it was narrowed to the pods of the current template.
    pub of_release: bool,
    /// Where the value comes from, when the source tells.
    pub sample: Option<Sample>,
}

impl Reading {
    /// Of a source that tells neither whose value it is nor when it was measured.
    pub fn new(value: Measured<f64>, of_release: bool) -> Self {
        Self { value, of_release, sample: None }
    }
}

/// Whose value it is, and when it was measured: looks may come faster than samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Whose value is the worst of all: "container app of pod api-1".
    pub of: String,
    pub at: Timestamp,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.of)
    }
}

/// What the target is, by kind of platform.
#[derive(Debug, Clone, PartialEq)]
pub enum TargetState {
    Workload(Box<Workload>),
    Hosted(Box<Hosted>),
    Database(Database),
    Http(HttpState),
}

impl TargetState {
    pub fn workload(&self) -> Option<&Workload> {
        match self {
            Self::Workload(workload) => Some(workload),
            Self::Hosted(_) | Self::Database(_) | Self::Http(_) => None,
        }
    }

    /// What of it is released, and how far; none for what has no releases.
    pub fn released(&self) -> Option<Released<'_>> {
        match self {
            Self::Workload(workload) => Some(Released {
                id: &workload.release,
                complete: workload.rollout_complete(),
                runs: workload.desired > 0,
            }),
            Self::Hosted(hosted) => hosted.release.as_ref().map(|id| Released {
                id,
                complete: hosted.settled,
                runs: hosted.suspended.is_none(),
            }),
            Self::Database(_) | Self::Http(_) => None,
        }
    }

    /// The configuration that it names or has; none when it is not known.
    pub fn config(&self) -> Option<Vec<&ConfigObject>> {
        match self {
            Self::Workload(workload) => Some(workload.config.as_ref()?.iter().map(|one| &one.object).collect()),
            Self::Hosted(hosted) => Some(hosted.config.as_ref()?.iter().collect()),
            Self::Database(_) | Self::Http(_) => None,
        }
    }

    /// Pods, or instances, that are wanted, where that is known.
    pub fn wanted(&self) -> Option<u32> {
        match self {
            Self::Workload(workload) => Some(workload.desired),
            Self::Hosted(hosted) => hosted.instances.map(|(_, wanted)| wanted),
            Self::Database(_) | Self::Http(_) => None,
        }
    }

    /// What is not a fault yet may be one soon.
    pub fn may_be_fault(&self) -> bool {
        matches!(self, Self::Database(database) if database.may_be_fault)
    }

    /// What is released, in words for a person: images, a commit.
    pub fn label(&self) -> String {
        match self {
            Self::Workload(workload) => workload.images.join(", "),
            Self::Hosted(hosted) => hosted.label.clone(),
            Self::Database(database) => database.label.clone(),
            Self::Http(_) => String::new(),
        }
    }
}

/// The newest release of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released<'a> {
    pub id: &'a ReleaseId,
    /// All of it runs, and nothing else.
    pub complete: bool,
    /// It is meant to run at all.
    pub runs: bool,
}

/// A service that a provider hosts, as the provider's API tells of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Hosted {
    /// The deploy that serves; none when none does.
    pub release: Option<ReleaseId>,
    /// What that was made of: "commit 4af0e84: fix the login".
    pub label: String,
    /// No newer deploy is taking its place.
    pub settled: bool,
    /// Why it does not run: somebody has suspended it.
    pub suspended: Option<String>,
    /// Instances that run and that are wanted, where both are known.
    pub instances: Option<(u32, u32)>,
    pub fault: Option<HostedFault>,
    /// A newer deploy did not get to serve: which one, and how it ended.
    pub failed_deploy: Option<String>,
    /// The configuration that the deploy runs with. None: it is not known, or not asked for.
    pub config: Option<Vec<ConfigObject>>,
}

/// What is wrong with instances of a hosted service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostedFault {
    pub kind: FaultKind,
    /// The provider does not get over it by itself: it lasts, or comes again and again.
    pub lasting: bool,
    /// It has come since the deploy that serves does.
    pub of_release: bool,
    /// For a person.
    pub detail: String,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Database {
    /// What it is, as far as it was told: "PostgreSQL 17.2, a standby".
    pub label: String,
    /// Why no new connection gets in.
    pub fault: Option<DatabaseFault>,
    /// What is shown and no reason to act: who hosts it is at work on it, or somebody has suspended it.
    pub shown: Option<String>,
    /// What is shown may be a fault soon, and is looked at again before the interval is over.
    pub may_be_fault: bool,
}

/// Why a database takes no new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseFault {
    /// All connections are taken; else nobody answers, or it says that it does not serve.
    pub saturated: bool,
    /// For a person.
    pub detail: String,
}

/// A Kubernetes workload: a Deployment, StatefulSet, DaemonSet or Rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    pub generation: i64,
    /// Pods wanted; 0 when scaled to zero.
    pub desired: u32,
    /// All pods that exist for it, of any template.
    pub replicas: u32,
    /// Pods of the newest template.
    pub updated: u32,
    pub available: u32,
    /// A person paused the rollout (`spec.paused`).
    pub paused: bool,
    /// The condition Progressing is False with reason ProgressDeadlineExceeded.
    pub progress_deadline_exceeded: bool,
    /// `spec.progressDeadlineSeconds`: the owner's own idea of "too slow", in seconds. Only Deployments and Rollouts have one.
    pub progress_deadline_s: u32,
    /// The template that is being rolled out, or is. Where pods wait for a person (OnDelete, a partition), the newest
    /// template that has a pod.
    pub release: ReleaseId,
    /// The template's images, for messages: `name=image`, at most three.
    pub images: Vec<String>,
    /// Pods with a fault, terminating pods and pods on nodes that are not ready left out; at most [`Workload::MAX_FAULTS`], newest release first.
    pub faults: Vec<PodFault>,
    /// How many pods have a fault, whether listed or not.
    pub faulty_pods: u32,
    /// How many of the newest release's pods have a fault, whether listed or not.
    pub faulty_release_pods: u32,
    /// Pods that no node could take.
    pub unschedulable: u32,
    /// Pods on nodes that are not ready: Kubernetes moves these by itself.
    pub on_lost_nodes: u32,
    /// Memory that a pod of the newest template may use, in bytes: the sum of its containers' limits, when each has one.
    pub memory_limit: Option<u64>,
    /// The configuration that its template names, by name. None: it is not known, since neither ConfigMaps nor Secrets are watched.
    pub config: Option<Vec<ObservedConfig>>,
    /// When the oldest of its pods was started.
    pub oldest_pod: Option<Timestamp>,
    /// The newest template says that there is no way back from it, and why.
    pub irreversible: Option<String>,
    /// A GitOps controller that would undo our writes.
    pub gitops_owner: Option<GitOpsOwner>,
    /// The object that its template comes from, `Deployment/web`: a Rollout's `spec.workloadRef`.
    pub template_in: Option<String>,
    /// Its rollout was given up and goes no further, in its controller's words: a Rollout that was aborted. What runs is the
    /// template before.
    pub stopped: Option<String>,
}

/// A Flux or Argo CD object that owns a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitOpsOwner {
    /// "Flux Kustomization shop/storefront".
    pub words: String,
    /// It is known which object it is, so that it can be suspended.
    pub known: bool,
}

/// An object that a template names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedConfig {
    pub object: ConfigObject,
    /// What changes in it reaches a container only when that is started anew.
    pub on_start: bool,
}

impl Workload {
    pub const MAX_FAULTS: usize = 10;

    /// kubectl's `rollout status`: everything is of the newest template and available.
    pub fn rollout_complete(&self) -> bool {
        self.updated >= self.desired && self.replicas == self.updated && self.available >= self.updated
    }
}

/// Which template a workload runs, or which deploy a hosted service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseId {
    /// `deployment.kubernetes.io/revision`, `rollout.argoproj.io/revision`, or the ControllerRevision's number. Changes when an old
    /// template becomes the newest again. 0: deploys of hosted services have no number.
    pub revision: i64,
    /// Label `pod-template-hash`, `rollouts-pod-template-hash`, or `controller-revision-hash` of a StatefulSet's or DaemonSet's
    /// pods: names the pods of this template. Of a hosted service the deploy's id.
    pub hash: String,
    /// Digest of the template without `kubectl.kubernetes.io/restartedAt`: equal for two rollouts of the same thing. Of a hosted
    /// service the id of the deploy that was built: that of a rollback is the one it went back to. Where environment variables
    /// are configuration of their own, it is the code alone: the commit, or a digest of the image.
    pub digest: String,
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&release_name(self.revision, &self.hash))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFault {
    pub pod: String,
    pub container: String,
    pub kind: FaultKind,
    /// The pod is of the newest template.
    pub of_release: bool,
    /// Since when, as far as the API tells.
    pub since: Timestamp,
    /// When the pod was started.
    pub pod_started: Option<Timestamp>,
    /// For a person: exit code, restart count, the kubelet's message. At most 200 characters.
    pub detail: String,
}

/// What is wrong with a pod.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::Display, strum::IntoStaticStr, strum::EnumIter,
)]
pub enum FaultKind {
    /// Waiting with CrashLoopBackOff.
    CrashLoop,
    /// The same, and the last termination was OOMKilled.
    OomKilled,
    /// ErrImagePull, ImagePullBackOff, InvalidImageName, ErrImageNeverPull.
    ImagePull,
    /// CreateContainerConfigError, CreateContainerError, RunContainerError.
    Config,
    /// Was ready once and has not been for over [`NOT_READY_GRACE_S`].
    NotReady,
}

/// How long a pod that was ready may be unready before it counts as a fault, in seconds. Longer than a usual
/// readiness blip (failureThreshold 3 x periodSeconds 10, the API's defaults, twice over).
pub const NOT_READY_GRACE_S: i64 = 60;

/// A plain HTTP service.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpState {
    /// Present when the service gave the wrong answer, or none: in words, with status or error.
    pub failure: Option<String>,
    /// Time to the whole answer, in milliseconds.
    pub latency_ms: Option<f64>,
}
