//! The closed set of reasons behind `status.reason` of a Remediation, and when a failure justifies another attempt.

use strum::{Display, EnumIter, EnumMessage, EnumString, IntoStaticStr};

/// `status.reason` of a Remediation. People and tools depend on the names: a name is never reused for another meaning.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Display, IntoStaticStr, EnumIter, EnumString, EnumMessage,
)]
pub enum RemediationReason {
    /// A person must approve the action.
    AwaitingApproval,
    /// The write is about to be sent.
    Acting,
    /// A person rejected the action.
    Rejected,
    /// Nobody decided within approval.timeout.
    ApprovalTimeout,
    /// A guard or the API server refused the action until approval.timeout.
    HeldBackTooLong,
    /// The component is healthy again without the action, or the forecast no longer holds.
    Recovered,
    /// The foreseen failure occurred before the action; another Remediation heals it.
    CameFirst,
    /// Another release, or other configuration, runs than the one that was assessed.
    Superseded,
    /// The policy was deleted or became invalid.
    PolicyGone,
    /// The policy no longer names the component.
    ComponentGone,
    /// The component has another target now.
    TargetChanged,
    /// The Remediation was deleted before it ended.
    Deleted,
    /// No session of the database matches the selector.
    NothingToEnd,
    /// The write was performed.
    Executed,
    /// The write was performed before, by an operator process that ended then.
    AlreadyDone,
    /// A call was sent, and it is unknown whether it had an effect.
    OutcomeUnknown,
    /// The Remediation does not name what the action needs.
    NoTarget,
    /// The provider was called several times without a clear response and without an effect.
    NotDone,
    /// The action did not end within its time limit.
    DeadlineExceeded,
    /// The provider ended the deploy as failed.
    DeployFailed,
    /// The Job failed.
    JobFailed,
    /// The Job was deleted before it ended.
    JobGone,
    /// An object of the same name exists that is not part of this Remediation.
    NameTaken,
    /// No ready pod could be replaced.
    NoPods,
    /// Replaced pods did not become ready in time.
    PodsNotReady,
    /// No attempt to connect succeeded.
    NotRecovered,
    /// The hook or webhook cannot be called as declared.
    HookInvalid,
    /// The hook or webhook responded with an error.
    HookRefused,
    /// The hook or webhook could not be reached.
    HookUnreachable,
    /// The hook or webhook did not respond in time.
    HookTimeout,
    /// The MCP tool cannot be called as declared.
    McpInvalid,
    /// The MCP server could not be reached.
    McpUnreachable,
    /// The MCP server refused the call.
    McpRefused,
    /// The MCP server has no such tool.
    McpNoSuchTool,
    /// The arguments do not fit the tool's schema.
    McpBadArguments,
    /// The tool reported a failure.
    McpToolFailed,
    /// The tool requested input, which an automatic call cannot provide.
    McpWantsInput,
    /// The component was healthy for verification.stabilization after the action.
    Healthy,
    /// The component was not healthy within verification.timeout.
    StillUnhealthy,
    /// The failure is still foreseen after verification.timeout.
    StillForeseen,
    /// The component could not be checked, or was released again, before the outcome was known.
    Inconclusive,
    /// No remedy fits the cause, or the policy no longer lists the action.
    NoRemedy,
    /// No template has been healthy.
    NoKnownGood,
    /// The last known good template has not run for longer than safety.maxRollbackAge.
    TooOld,
    /// The running template is marked as irreversible.
    Irreversible,
    /// Every fitting remedy was tried in this incident.
    LadderExhausted,
    /// spec.suspend is true.
    Suspended,
    /// spec.mode is Observe.
    ObserveMode,
    /// The last check is too old, or could not measure the target.
    StaleData,
    /// Not enough consecutive checks were bad.
    NotConfirmed,
    /// A person paused the workload.
    Paused,
    /// The workload takes its template from another object.
    TemplateElsewhere,
    /// A GitOps controller would revert the action.
    GitOpsOwned,
    /// More components are unhealthy than safety.maxUnhealthy allows.
    MaxUnhealthy,
    /// safety.maxConcurrent actions are running.
    MaxConcurrent,
    /// safety.budget is used up.
    Budget,
    /// The last action on the component started less than safety.cooldown ago.
    Cooldown,
    /// The actions on the component keep failing.
    CircuitBreaker,
    /// An action ahead of a foreseen failure had no effect for the whole prediction.horizon.
    ForeseenAgain,
    /// The workload's update strategy OnDelete would replace no pod.
    OnDelete,
    /// The template was written but is not rolled out.
    Blocked,
    /// A PodDisruptionBudget allows no eviction.
    DisruptionBudget,
    /// New pods would need an image that cannot be pulled.
    ImageUnavailable,
    /// The basis of the action could not be measured.
    CouldNotMeasure,
    /// The object is immutable.
    Immutable,
    /// An autoscaler manages the number of pods.
    Autoscaled,
    /// Another writer changed the number of pods.
    Rescaled,
    /// The remedy cannot be executed as declared.
    BadRemedy,
    /// Workloads that the policy does not name use the object.
    Shared,
    /// A controller overwrites the object from its own source.
    Overwritten,
    /// The GitOps controller or the provider is changing the target.
    OwnerBusy,
    /// The rollback target no longer exists.
    TargetGone,
    /// The target does not exist.
    NotFound,
    /// The API server refused the write: admission or validation.
    WriteRejected,
    /// The operator's role does not grant the right.
    Forbidden,
    /// Other writers won every attempt.
    Conflict,
    /// The API server, provider or database could not be reached.
    Unreachable,
    /// No response came in time.
    Timeout,
    /// The provider's API is not configured.
    NotConfigured,
    /// The Secret or its key does not exist.
    CredentialsMissing,
    /// The credentials were refused.
    CredentialsRefused,
    /// The provider's rate limit is used up.
    RateLimited,
    /// The provider's API kept failing, so its circuit breaker is open.
    CircuitOpen,
    /// The provider or server does not know the target.
    TargetNotFound,
    /// The provider does not report a clear state yet.
    Unsettled,
    /// The provider refused the request.
    Refused,
    /// The response does not match the API.
    BadAnswer,
    /// TLS could not be negotiated.
    TlsFailed,
    /// The server has no database of this name.
    DatabaseMissing,
    /// The server's name does not resolve.
    Unresolved,
    /// All connections of the database are in use.
    Saturated,
    /// The database role may not do this.
    NotAllowed,
    /// The Secret could not be read.
    Unread,
    /// The database reported an error.
    Failed,
    /// A query returned no sample.
    NoData,
    /// A query returned NaN or an infinity.
    NotANumber,
    /// A query returned more than one series.
    SeveralSeries,
    /// The cluster does not have this kind of object.
    NotInstalled,
    /// This part of the policy is not valid.
    InvalidSpec,
}

/// Declares an enum whose every variant is also a [`RemediationReason`], with the conversion.
macro_rules! reasons {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(strum::Display, strum::IntoStaticStr, strum::EnumIter)]
        $vis enum $name { $($(#[$doc])* $variant,)* }

        impl From<$name> for $crate::api::RemediationReason {
            fn from(reason: $name) -> Self {
                match reason { $($name::$variant => Self::$variant,)* }
            }
        }
    };
}
pub(crate) use reasons;

impl RemediationReason {
    /// The name, as `status.reason` holds it.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether an action that ends for this reason calls a person.
    pub fn calls_person(self) -> bool {
        self == Self::NotRecovered
    }

    /// The meaning for people: the doc comment of the variant.
    pub fn meaning(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }
}

/// When a failed attempt is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same attempt would fail again; a person has to change something.
    Never,
    /// After the object, or one of its dependencies, has changed.
    OnChange,
    /// After a while, with backoff.
    Backoff,
}
