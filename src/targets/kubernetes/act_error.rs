use super::gitops::OwnerKind;
use crate::api::{RemediationReason, Retry, WorkloadKind};

/// Why an action was not performed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// `spec.paused`: a person stopped the rollout, and a write would have no effect or surprise that person.
    #[error("{0}")]
    Paused(String),
    /// A write would replace no pod.
    #[error("{0} has the update strategy OnDelete: its pods get a new template only when a person deletes them")]
    OnDelete(String),
    /// The template was written, and something keeps the pods from getting it.
    #[error("the template was written and is not rolled out yet: {0}")]
    Blocked(String),
    /// A PodDisruptionBudget lets no pod be evicted.
    #[error("{0}")]
    Budget(String),
    /// New pods would wait for an image that other pods cannot pull.
    #[error("{0}")]
    ImageUnavailable(String),
    /// A measurement that the action is based on is missing, so nothing was done.
    #[error("{0}")]
    Unmeasured(String),
    /// The object is immutable.
    #[error("{0}")]
    Immutable(String),
    /// An autoscaler controls the number of pods.
    #[error("{0}")]
    Autoscaled(String),
    /// Another writer scaled the workload.
    #[error(
        "the workload was scaled in the meantime: {expected} replicas were assessed, {found} are desired now; nothing was written"
    )]
    Rescaled { expected: u32, found: u64 },
    /// A custom remedy that cannot be performed as declared.
    #[error("{0}")]
    BadRemedy(String),
    /// Workloads use the object that the policy does not name.
    #[error("{0}")]
    Shared(String),
    /// A controller writes the object from another source.
    #[error("{0}, which would overwrite a rollback: change the content at its source")]
    Overwritten(String),
    /// The template of the workload is in another object, which Panacea does not write.
    #[error("{0}")]
    TemplateElsewhere(String),
    /// A GitOps controller would undo the write.
    #[error("{0} would undo a rollback; revert the change in its source")]
    GitOpsOwned(String),
    /// A GitOps controller is syncing and would be interrupted.
    #[error("{0}")]
    OwnerBusy(String),
    /// The revision or the snapshot was removed (`revisionHistoryLimit`), or has other content now.
    #[error("the rollback target is gone: {0}")]
    TargetGone(String),
    /// The workload does not exist, or is being deleted.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The workload runs another template than the assessed one: there is a newer release.
    #[error("the template changed in the meantime: assessed {expected}, found {found}; nothing was written")]
    Superseded { expected: String, found: String },
    #[error("not allowed to {verb} {resource}: {message}")]
    Forbidden { verb: &'static str, resource: &'static str, message: String },
    /// Other writers won every attempt.
    #[error("{tries} attempts conflicted with other writers")]
    Conflict { tries: u32 },
    /// Connection, DNS, TLS, 429 or 5xx.
    #[error("the API server is unreachable or failed: {0}")]
    Unreachable(String),
    /// The time limit passed. The outcome of the last write is unknown; a second attempt finds out.
    #[error("the request to {verb} {resource} got no response within {seconds} s")]
    Timeout { verb: &'static str, resource: &'static str, seconds: u64 },
    /// Refused by admission or validation; the same write would be refused again.
    #[error("the API server refused the write: {0}")]
    Rejected(String),
}

impl ActError {
    /// Its reason; when the action is worth another attempt (every action detects that it was performed already);
    /// whether the action would certainly be refused, also after a person approved it.
    fn class(&self) -> (RemediationReason, Retry, bool) {
        use RemediationReason as Reason;
        use Retry::{Backoff, Never, OnChange};
        match self {
            Self::Paused(_) => (Reason::Paused, OnChange, false),
            Self::OnDelete(_) => (Reason::OnDelete, Never, false),
            Self::Blocked(_) => (Reason::Blocked, Backoff, false),
            Self::Immutable(_) => (Reason::Immutable, Never, true),
            Self::BadRemedy(_) => (Reason::BadRemedy, Never, true),
            Self::Autoscaled(_) => (Reason::Autoscaled, OnChange, true),
            Self::Rescaled { .. } => (Reason::Rescaled, OnChange, false),
            Self::Shared(_) => (Reason::Shared, OnChange, true),
            Self::Overwritten(_) => (Reason::Overwritten, OnChange, true),
            Self::Unmeasured(_) => (Reason::CouldNotMeasure, Backoff, false),
            Self::Budget(_) => (Reason::DisruptionBudget, OnChange, true),
            Self::ImageUnavailable(_) => (Reason::ImageUnavailable, OnChange, true),
            Self::TemplateElsewhere(_) => (Reason::TemplateElsewhere, Never, false),
            Self::GitOpsOwned(_) => (Reason::GitOpsOwned, OnChange, true),
            Self::OwnerBusy(_) => (Reason::OwnerBusy, Backoff, true),
            Self::TargetGone(_) => (Reason::TargetGone, Never, true),
            Self::NotFound(_) => (Reason::NotFound, OnChange, false),
            Self::Superseded { .. } => (Reason::Superseded, OnChange, false),
            Self::Forbidden { .. } => (Reason::Forbidden, OnChange, true),
            Self::Conflict { .. } => (Reason::Conflict, Backoff, false),
            Self::Unreachable(_) => (Reason::Unreachable, Backoff, false),
            Self::Timeout { .. } => (Reason::Timeout, Backoff, false),
            Self::Rejected(_) => (Reason::WriteRejected, Never, false),
        }
    }

    /// For conditions, events and metric labels.
    pub fn reason(&self) -> RemediationReason {
        self.class().0
    }

    pub fn retry(&self) -> Retry {
        self.class().1
    }

    /// The same call may succeed later although nobody changes anything.
    pub fn retryable(&self) -> bool {
        self.retry() == Retry::Backoff
    }

    /// The action would certainly be refused, also after a person approved it.
    pub fn refuses(&self) -> bool {
        self.class().2
    }
}

const OWNERS: [OwnerKind; 3] = [OwnerKind::Kustomization, OwnerKind::HelmRelease, OwnerKind::Application];

/// A request, for messages and access reviews. The resource is in the plural, with the subresource.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub verb: &'static str,
    pub resource: &'static str,
}

impl Call {
    pub(super) const DELETE_POD: Self = Self { verb: "delete", resource: "pods" };
    pub(super) const EVICT_POD: Self = Self::create("pods/eviction");
    pub(super) const CREATE_SECRET: Self = Self::create("secrets");
    pub(super) const GET_SECRET: Self = Self::get("secrets");
    pub(super) const PATCH_AUTOSCALER: Self = Self::patch("horizontalpodautoscalers");
    pub(super) const CREATE_JOB: Self = Self::create("jobs");
    pub(super) const GET_JOB: Self = Self::get("jobs");
    /// Abort and promotion: fields of a Rollout's status that people write.
    pub(super) const PATCH_ROLLOUT_STATUS: Self = Self::patch("rollouts/status");

    pub(super) const fn get(resource: &'static str) -> Self {
        Self { verb: "get", resource }
    }

    pub(super) const fn list(resource: &'static str) -> Self {
        Self { verb: "list", resource }
    }

    pub(super) const fn create(resource: &'static str) -> Self {
        Self { verb: "create", resource }
    }

    pub(super) const fn patch(resource: &'static str) -> Self {
        Self { verb: "patch", resource }
    }

    pub(super) fn group(self) -> &'static str {
        if let Some(owner) = OWNERS.iter().find(|kind| kind.plural() == self.resource) {
            return owner.group();
        }
        match self.resource.split('/').next() {
            Some("pods" | "configmaps" | "secrets") => "",
            Some("jobs") => "batch",
            Some("horizontalpodautoscalers") => "autoscaling",
            Some("rollouts") => WorkloadKind::Rollout.group(),
            _ => "apps",
        }
    }

    /// The value of the chart that grants it.
    pub(super) fn granted_by(self) -> &'static str {
        match (self.resource, self.verb) {
            ("pods/eviction", _) => "rbac.evictPods",
            ("pods", "delete") => "rbac.deleteStuckPods",
            ("configmaps", _) => "rbac.rollbackConfig",
            ("secrets", "get") => "rbac.signWebhooks, rbac.readCredentials or rbac.rollbackSecrets",
            ("secrets", _) => "rbac.rollbackSecrets",
            ("jobs", _) => "rbac.runJobs",
            ("rollouts" | "rollouts/status", "patch") => "rbac.argoRollouts (with rbac.patchWorkloads)",
            ("rollouts", _) => "rbac.argoRollouts",
            ("horizontalpodautoscalers", "patch") => "rbac.adjustAutoscalers",
            ("controllerrevisions" | "horizontalpodautoscalers", _) => "rbac.keepStates",
            (resource, _) if OWNERS.iter().any(|kind| kind.plural() == resource) => "rbac.suspendGitOps",
            _ => "rbac.patchWorkloads",
        }
    }

    pub(super) fn forbidden(self, message: String) -> ActError {
        ActError::Forbidden { verb: self.verb, resource: self.resource, message }
    }

    pub(super) fn timeout(self, limit: std::time::Duration) -> ActError {
        ActError::Timeout { verb: self.verb, resource: self.resource, seconds: limit.as_secs() }
    }

    pub(super) fn failed(self, error: &kube::Error) -> ActError {
        let kube::Error::Api(status) = error else {
            return ActError::Unreachable(words(error));
        };
        let message = status.message.clone();
        match status.code {
            // An admission webhook refuses with 403 as well, and no change of RBAC would help.
            403 if message.contains("admission webhook") || message.contains("ValidatingAdmissionPolicy") => {
                ActError::Rejected(message)
            }
            401 | 403 => self.forbidden(message),
            404 => ActError::NotFound(message),
            409 => ActError::Conflict { tries: 1 },
            429 | 500..=599 => ActError::Unreachable(format!("HTTP {}: {message}", status.code)),
            _ => ActError::Rejected(format!("HTTP {}: {message}", status.code)),
        }
    }
}

/// The error with its innermost cause, which kube's own text leaves out ("client error (Connect)").
pub(super) fn words(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("HTTP {}: {}", status.code, status.message);
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let (whole, cause) = (error.to_string(), innermost.to_string());
    if whole.contains(&cause) { whole } else { format!("{whole}: {cause}") }
}
