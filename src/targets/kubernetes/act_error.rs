use super::gitops::OwnerKind;
use crate::api::{ConfigKind, RemediationReason, Retry, WorkloadKind};

/// Why a rollback or a restart was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// `spec.paused`: a person stopped the rollout, and a write would do nothing or surprise them.
    #[error("{0}")]
    Paused(String),
    /// A person deletes the pods of this workload: a write would replace none of them.
    #[error("{0} has the update strategy OnDelete: no pod would get the template before a person deletes it")]
    OnDelete(String),
    /// The template was written, and something keeps the pods from getting it.
    #[error("the template was written and is not rolled out yet: {0}")]
    Blocked(String),
    /// A PodDisruptionBudget lets no pod be evicted.
    #[error("{0}")]
    Budget(String),
    /// New pods would wait for an image that others wait for in vain.
    #[error("{0}")]
    ImageUnavailable(String),
    /// What the action rests on could not be measured, so nothing was done.
    #[error("{0}")]
    Unmeasured(String),
    /// An object that nobody can change.
    #[error("{0}")]
    Immutable(String),
    /// An autoscaler has the number of pods.
    #[error("{0}")]
    Autoscaled(String),
    /// Somebody else has scaled it.
    #[error("it was scaled meanwhile: {expected} pods were judged, {found} are wanted; nothing was written")]
    Rescaled { expected: u32, found: u64 },
    /// A remedy of the team's own that cannot be done as it is declared.
    #[error("{0}")]
    BadRemedy(String),
    /// Workloads use the object that the policy does not name.
    #[error("{0}")]
    Shared(String),
    /// A controller writes the object from a source of its own.
    #[error("{0}, which would overwrite it again: change it at its source")]
    Overwritten(String),
    /// The workload has its template from another object, which is not ours to write.
    #[error("{0}")]
    TemplateElsewhere(String),
    /// A GitOps controller would undo the write.
    #[error("{0} would undo a rollback; revert the change in its source")]
    GitOpsOwned(String),
    /// A GitOps controller is at work, and would be cut off in the middle of it.
    #[error("{0}")]
    OwnerBusy(String),
    /// The revision to go back to was removed (`revisionHistoryLimit`), or the copy was, or it holds something else now.
    #[error("what to go back to is gone: {0}")]
    TargetGone(String),
    /// The workload does not exist, or is being deleted.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The workload runs another template than the one that was judged: a release was made meanwhile.
    #[error("the template changed meanwhile: judged {expected}, found {found}; nothing was written")]
    Superseded { expected: String, found: String },
    #[error("not allowed to {verb} {resource}: {message}")]
    Forbidden { verb: &'static str, resource: &'static str, message: String },
    /// Somebody else's writes won every try.
    #[error("{tries} tries lost against other writers")]
    Conflict { tries: u32 },
    /// Connection, DNS, TLS, 429 or 5xx.
    #[error("the API server could not be reached or failed: {0}")]
    Unreachable(String),
    /// The time limit passed. Whether the last write was made is not known: asking again tells.
    #[error("no answer within {seconds} s while trying to {verb} {resource}")]
    Timeout { verb: &'static str, resource: &'static str, seconds: u64 },
    /// Admission or validation said no; the same write would be refused again.
    #[error("the API server refused the write: {0}")]
    Rejected(String),
}

impl ActError {
    /// For conditions, events and metric labels.
    pub fn reason(&self) -> RemediationReason {
        match self {
            Self::Paused(_) => RemediationReason::Paused,
            Self::OnDelete(_) => RemediationReason::OnDelete,
            Self::Blocked(_) => RemediationReason::Blocked,
            Self::Immutable(_) => RemediationReason::Immutable,
            Self::BadRemedy(_) => RemediationReason::BadRemedy,
            Self::Autoscaled(_) => RemediationReason::Autoscaled,
            Self::Rescaled { .. } => RemediationReason::Rescaled,
            Self::Shared(_) => RemediationReason::Shared,
            Self::Overwritten(_) => RemediationReason::Overwritten,
            Self::Unmeasured(_) => RemediationReason::CouldNotMeasure,
            Self::Budget(_) => RemediationReason::DisruptionBudget,
            Self::ImageUnavailable(_) => RemediationReason::ImageUnavailable,
            Self::TemplateElsewhere(_) => RemediationReason::TemplateElsewhere,
            Self::GitOpsOwned(_) => RemediationReason::GitOpsOwned,
            Self::OwnerBusy(_) => RemediationReason::OwnerBusy,
            Self::TargetGone(_) => RemediationReason::TargetGone,
            Self::NotFound(_) => RemediationReason::NotFound,
            Self::Superseded { .. } => RemediationReason::Superseded,
            Self::Forbidden { .. } => RemediationReason::Forbidden,
            Self::Conflict { .. } => RemediationReason::Conflict,
            Self::Unreachable(_) => RemediationReason::Unreachable,
            Self::Timeout { .. } => RemediationReason::Timeout,
            Self::Rejected(_) => RemediationReason::WriteRejected,
        }
    }

    /// When the same action is worth another attempt. All actions find out by themselves that they were done already.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Conflict { .. }
            | Self::Unreachable(_)
            | Self::Timeout { .. }
            | Self::Blocked(_)
            | Self::Unmeasured(_)
            | Self::OwnerBusy(_) => Retry::Backoff,
            Self::Paused(_)
            | Self::Budget(_)
            | Self::ImageUnavailable(_)
            | Self::Autoscaled(_)
            | Self::Rescaled { .. }
            | Self::Superseded { .. }
            | Self::Shared(_)
            | Self::Overwritten(_)
            | Self::GitOpsOwned(_)
            | Self::NotFound(_)
            | Self::Forbidden { .. } => Retry::OnChange,
            Self::OnDelete(_)
            | Self::Immutable(_)
            | Self::BadRemedy(_)
            | Self::TemplateElsewhere(_)
            | Self::TargetGone(_)
            | Self::Rejected(_) => Retry::Never,
        }
    }

    /// The same call may succeed later with nobody changing anything.
    pub fn retryable(&self) -> bool {
        self.retry() == Retry::Backoff
    }

    /// The action would be refused for certain, also after a person approved it.
    pub fn refuses(&self) -> bool {
        matches!(
            self,
            Self::Forbidden { .. }
                | Self::Budget(_)
                | Self::Immutable(_)
                | Self::BadRemedy(_)
                | Self::ImageUnavailable(_)
                | Self::Autoscaled(_)
                | Self::Shared(_)
                | Self::Overwritten(_)
                | Self::GitOpsOwned(_)
                | Self::OwnerBusy(_)
                | Self::TargetGone(_)
        )
    }
}

const OWNERS: [OwnerKind; 3] = [OwnerKind::Kustomization, OwnerKind::HelmRelease, OwnerKind::Application];

/// A request, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    verb: &'static str,
    resource: &'static str,
}

impl Call {
    pub(super) const DELETE_POD: Self = Self { verb: "delete", resource: "pods" };
    pub(super) const EVICT_POD: Self = Self { verb: "create", resource: "pods/eviction" };

    pub(super) const KEEP: Self = Self { verb: "create", resource: "controllerrevisions" };
    pub(super) const GET_COPY: Self = Self { verb: "get", resource: "controllerrevisions" };
    pub(super) const CREATE_SECRET: Self = Self { verb: "create", resource: "secrets" };
    pub(super) const GET_SECRET: Self = Self { verb: "get", resource: "secrets" };
    pub(super) const DELETE_SECRET: Self = Self { verb: "delete", resource: "secrets" };
    pub(super) const FORGET: Self = Self { verb: "delete", resource: "controllerrevisions" };
    pub(super) const PATCH_AUTOSCALER: Self = Self { verb: "patch", resource: "horizontalpodautoscalers" };
    pub(super) const CREATE_JOB: Self = Self { verb: "create", resource: "jobs" };
    pub(super) const GET_JOB: Self = Self { verb: "get", resource: "jobs" };
    pub(super) const ASK_ACCESS: Self = Self { verb: "create", resource: "selfsubjectaccessreviews" };

    pub(super) fn verb(self) -> &'static str {
        self.verb
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

    /// With the subresource.
    pub(super) fn resource(self) -> (&'static str, Option<&'static str>) {
        self.resource.split_once('/').map_or((self.resource, None), |(resource, sub)| (resource, Some(sub)))
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

    pub(super) fn get(kind: WorkloadKind) -> Self {
        Self { verb: "get", resource: kind.plural() }
    }

    pub(super) fn patch(kind: WorkloadKind) -> Self {
        Self { verb: "patch", resource: kind.plural() }
    }

    /// Abort, and promotion: fields of a Rollout's status that people write.
    pub(super) const PATCH_ROLLOUT_STATUS: Self = Self { verb: "patch", resource: "rollouts/status" };

    pub(super) fn get_owner(kind: OwnerKind) -> Self {
        Self { verb: "get", resource: kind.plural() }
    }

    pub(super) fn patch_owner(kind: OwnerKind) -> Self {
        Self { verb: "patch", resource: kind.plural() }
    }

    pub(super) fn get_source(resource: &'static str) -> Self {
        Self { verb: "get", resource }
    }

    pub(super) fn get_config(kind: ConfigKind) -> Self {
        Self { verb: "get", resource: kind.plural() }
    }

    pub(super) fn patch_config(kind: ConfigKind) -> Self {
        Self { verb: "patch", resource: kind.plural() }
    }

    pub(super) fn create_config(kind: ConfigKind) -> Self {
        Self { verb: "create", resource: kind.plural() }
    }

    /// Of the same resource.
    pub(super) fn listing(self) -> Self {
        Self { verb: "list", ..self }
    }

    pub(super) fn list(resource: &'static str) -> Self {
        Self { verb: "list", resource }
    }

    pub(super) fn timeout(self, limit: std::time::Duration) -> ActError {
        ActError::Timeout { verb: self.verb, resource: self.resource, seconds: limit.as_secs() }
    }

    /// What an answer of the API server means for us.
    pub(super) fn failed(self, error: &kube::Error) -> ActError {
        let kube::Error::Api(status) = error else {
            return ActError::Unreachable(words(error));
        };
        let message = status.message.clone();
        match status.code {
            // An admission webhook says no with 403 as well, and no change of RBAC would help.
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

/// What happened, with the innermost cause, which kube's own text leaves out ("client error (Connect)").
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
