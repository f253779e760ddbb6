//! The result of one check of a component: plain data, filled by a target, read by the analysis.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;

pub use crate::api::TemplateRef as ReleaseId;
use crate::api::{ConfigObject, reasons};

/// A measurement, or the reason why it failed.
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
    /// For a person: the request, the response, and where to check. No secrets, at most 512 characters.
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

reasons! {
    /// The closed set of reasons for `Unknown`; used unchanged in conditions, events and metric labels.
    pub enum UnknownReason {
        /// The query worked and returned no sample.
        NoData,
        /// The query returned NaN or an infinity.
        NotANumber,
        /// The query returned more than one series, and it is unclear which one counts.
        SeveralSeries,
        /// The response does not match the API (HTML of a proxy, truncated JSON, a wrong type).
        BadAnswer,
        /// The source refused the query (4xx, or an error message of the source).
        Refused,
        /// The source could not be reached, or failed (connection refused, DNS, 5xx).
        Unreachable,
        /// No response within the time limit of one check.
        Timeout,
        /// No source is configured (no Prometheus URL in the metric or in the operator).
        NotConfigured,
        /// The target object does not exist.
        TargetNotFound,
        /// The cluster does not have this kind of object: its CustomResourceDefinition does not exist.
        NotInstalled,
        /// Kubernetes refused the read.
        Forbidden,
        /// The state of the cluster is not current yet (caches are filling, `observedGeneration` is behind).
        Unsettled,
        /// The spec of this part of the policy is not valid.
        InvalidSpec,
        /// The API key does not exist.
        CredentialsMissing,
        /// The source refuses the API key, or the key lacks a permission.
        CredentialsRefused,
        /// The rate limit of the source is used up.
        RateLimited,
        /// The source kept failing, so its circuit breaker is open.
        CircuitOpen,
        /// TLS could not be negotiated: one side requires it and the other has none, or the certificate is expired or not
        /// trusted.
        TlsFailed,
    }
}

impl UnknownReason {
    /// Waiting will most likely not help: a person has to change the policy, its target or our permissions.
    pub fn needs_a_person(self) -> bool {
        matches!(
            self,
            Self::SeveralSeries
                | Self::Refused
                | Self::NotConfigured
                | Self::TargetNotFound
                | Self::NotInstalled
                | Self::Forbidden
                | Self::InvalidSpec
                | Self::CredentialsMissing
                | Self::CredentialsRefused
                | Self::TlsFailed
        )
    }
}

/// One check of one component.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// When the check was finished.
    pub at: Timestamp,
    /// The state of the target itself.
    pub target: Measured<TargetState>,
    /// Readings by metric name (`error_rate`, `latency_ms`, …), in the units of [`crate::analyze::metric`].
    pub metrics: BTreeMap<String, Reading>,
}

impl Observation {
    /// The value of a metric, if it was measured.
    pub fn value(&self, metric: &str) -> Option<f64> {
        self.metrics.get(metric)?.value.known().copied().filter(|value| value.is_finite())
    }
}

/// The value of one metric, and whether it is limited to the pods of the newest release.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub value: Measured<f64>,
    /// True when the query was limited to the pods of the newest template.
    pub of_release: bool,
    /// The origin of the value, when the source reports it.
    pub sample: Option<Sample>,
}

impl Reading {
    /// A value of a source that reports neither the owner nor the time of the measurement.
    pub fn new(value: Measured<f64>, of_release: bool) -> Self {
        Self { value, of_release, sample: None }
    }
}

/// The owner of a value, and the time of its measurement: checks may be more frequent than samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The owner of the worst value: "container app of pod api-1".
    pub of: String,
    pub at: Timestamp,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.of)
    }
}

/// The state of the target, by kind of target.
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

    /// The newest release, and its progress; none for a target without releases.
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

    /// The configuration that it names or has; none when the configuration is unknown.
    pub fn config(&self) -> Option<Vec<&ConfigObject>> {
        match self {
            Self::Workload(workload) => Some(workload.config.as_ref()?.iter().map(|one| &one.object).collect()),
            Self::Hosted(hosted) => Some(hosted.config.as_ref()?.iter().collect()),
            Self::Database(_) | Self::Http(_) => None,
        }
    }

    /// The desired number of pods or instances, where it is known.
    pub fn wanted(&self) -> Option<u32> {
        match self {
            Self::Workload(workload) => Some(workload.desired),
            Self::Hosted(hosted) => hosted.instances.map(|(_, desired)| desired),
            Self::Database(_) | Self::Http(_) => None,
        }
    }

    /// A state that is no fault yet may become a fault soon.
    pub fn may_be_fault(&self) -> bool {
        matches!(self, Self::Database(database) if database.may_be_fault)
    }

    /// The content of the release, for a person: images, a commit.
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
    /// All pods or instances run this release, and no other release runs.
    pub complete: bool,
    /// Whether it is meant to run: not suspended or scaled to zero.
    pub runs: bool,
}

/// A service that a provider hosts, as reported by the API of the provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Hosted {
    /// The live deploy; none when no deploy is live.
    pub release: Option<ReleaseId>,
    /// The content of that deploy: "commit 4af0e84: fix the login".
    pub label: String,
    /// No newer deploy is replacing it.
    pub settled: bool,
    /// Why the service does not run: a person has suspended it.
    pub suspended: Option<String>,
    /// Running and desired instances, where both numbers are known.
    pub instances: Option<(u32, u32)>,
    pub fault: Option<HostedFault>,
    /// A newer deploy that did not become live, and how it ended.
    pub failed_deploy: Option<String>,
    /// The configuration of the running deploy. None: unknown, or not requested.
    pub config: Option<Vec<ConfigObject>>,
}

/// A fault of the instances of a hosted service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostedFault {
    pub kind: FaultKind,
    /// The fault persists or recurs: the provider does not recover from it automatically.
    pub lasting: bool,
    /// The fault began after the running deploy became live.
    pub of_release: bool,
    /// For a person.
    pub detail: String,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Database {
    /// Version and role, as far as they are known: "PostgreSQL 17.2, a standby".
    pub label: String,
    /// Why the database accepts no new connection.
    pub fault: Option<DatabaseFault>,
    /// A state that is shown but is no reason to act: maintenance by the provider, or a suspension by a person.
    pub shown: Option<String>,
    /// The shown state may become a fault soon, so the next check comes before the interval ends.
    pub may_be_fault: bool,
}

/// Why a database accepts no new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseFault {
    /// All connections are in use; otherwise the server does not respond, or reports that it does not serve.
    pub saturated: bool,
    /// For a person.
    pub detail: String,
}

/// A Kubernetes workload: a Deployment, StatefulSet, DaemonSet or Rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    pub generation: i64,
    /// Desired pods; 0 when scaled to zero.
    pub desired: u32,
    /// All existing pods, of any template.
    pub replicas: u32,
    /// Pods of the newest template.
    pub updated: u32,
    pub available: u32,
    /// A person paused the rollout (`spec.paused`).
    pub paused: bool,
    /// The condition Progressing is False with reason ProgressDeadlineExceeded.
    pub progress_deadline_exceeded: bool,
    /// `spec.progressDeadlineSeconds`, in seconds. Only Deployments and Rollouts have one.
    pub progress_deadline_s: u32,
    /// The template that is rolling out or rolled out. Where pods wait for a person (OnDelete, a partition): the newest template
    /// that has a pod.
    pub release: ReleaseId,
    /// The template's images, for messages: `name=image`, at most three.
    pub images: Vec<String>,
    /// Pods with a fault, except terminating pods and pods on nodes that are not ready; at most [`Workload::MAX_FAULTS`], newest
    /// release first.
    pub faults: Vec<PodFault>,
    /// How many pods have a fault, whether listed or not.
    pub faulty_pods: u32,
    /// How many of the newest release's pods have a fault, whether listed or not.
    pub faulty_release_pods: u32,
    /// Unschedulable pods.
    pub unschedulable: u32,
    /// Pods on nodes that are not ready: Kubernetes replaces these automatically.
    pub on_lost_nodes: u32,
    /// Memory that a pod of the newest template may use, in bytes: the sum of its containers' limits, when each has one.
    pub memory_limit: Option<u64>,
    /// The configuration that its template names, sorted by name. None: unknown, since neither ConfigMaps nor Secrets are
    /// watched.
    pub config: Option<Vec<ObservedConfig>>,
    /// When the oldest pod was started.
    pub oldest_pod: Option<Timestamp>,
    /// Why the newest template cannot be rolled back, if it has that annotation.
    pub irreversible: Option<String>,
    /// A GitOps controller that would revert our writes.
    pub gitops_owner: Option<GitOpsOwner>,
    /// The object that holds its template, `Deployment/web`: a Rollout's `spec.workloadRef`.
    pub template_in: Option<String>,
    /// Why its rollout was aborted, as its controller reports it. The template before is running.
    pub stopped: Option<String>,
}

/// A Flux or Argo CD object that owns a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitOpsOwner {
    /// "Flux Kustomization shop/storefront".
    pub words: String,
    /// Whether the object is identified, so that it can be suspended.
    pub known: bool,
}

/// An object that a template names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedConfig {
    pub object: ConfigObject,
    /// A change reaches a container only when the container restarts.
    pub on_start: bool,
}

impl Workload {
    pub const MAX_FAULTS: usize = 10;

    /// As `kubectl rollout status`: all pods have the newest template and are available.
    pub fn rollout_complete(&self) -> bool {
        self.updated >= self.desired && self.replicas == self.updated && self.available >= self.updated
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFault {
    pub pod: String,
    pub container: String,
    pub kind: FaultKind,
    /// The pod is of the newest template.
    pub of_release: bool,
    /// Since when, as far as the API reports it.
    pub since: Timestamp,
    /// When the pod was started.
    pub pod_started: Option<Timestamp>,
    /// For a person: exit code, restart count, the kubelet's message. At most 200 characters.
    pub detail: String,
}

/// The fault of a pod.
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
    /// Was ready, and has not been ready for longer than [`NOT_READY_GRACE_S`].
    NotReady,
}

/// How long a pod that was ready may be unready before it counts as a fault, in seconds. Longer than a usual
/// readiness blip (failureThreshold 3 x periodSeconds 10, the API's defaults, twice over).
pub const NOT_READY_GRACE_S: i64 = 60;

/// A plain HTTP service.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpState {
    /// The failure, with status or error, when the service returned a wrong response or none.
    pub failure: Option<String>,
    /// Time to the complete response, in milliseconds.
    pub latency_ms: Option<f64>,
}
