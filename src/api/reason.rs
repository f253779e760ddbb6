//! Why a Remediation is as it is: the closed set behind `status.reason`, and when a failure is worth another attempt.

/// `status.reason` of a Remediation. People and tools switch on the names: a name is never reused for another meaning.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::IntoStaticStr,
    strum::EnumIter,
    strum::EnumString,
    strum::EnumMessage,
)]
pub enum RemediationReason {
    /// A person must approve the action.
    AwaitingApproval,
    /// The write is about to be made.
    Acting,
    /// A person rejected the action.
    Rejected,
    /// Nobody decided within approval.timeout.
    ApprovalTimeout,
    /// A guard or the API server refused the action until its time ran out.
    HeldBackTooLong,
    /// The component is healthy again without the action, or the forecast does not stand any more.
    Recovered,
    /// The foreseen failure came before the action; another Remediation heals it.
    CameFirst,
    /// Another release, or other content, runs than the one that was judged.
    Superseded,
    /// The policy was deleted or became invalid.
    PolicyGone,
    /// The policy does not name the component any more.
    ComponentGone,
    /// The component has another target now.
    TargetChanged,
    /// The Remediation was deleted before it ended.
    Deleted,
    /// No session of the database matches the selector.
    NothingToEnd,
    /// The write was made.
    Executed,
    /// The write had been made before, by an operator process that ended then.
    AlreadyDone,
    /// A call was sent, and nothing tells whether it had an effect.
    OutcomeUnknown,
    /// The Remediation does not name what the action needs.
    NoTarget,
    /// The provider was asked several times without a clear answer and without an effect.
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
    /// The hook or webhook cannot be called as it is declared.
    HookInvalid,
    /// The hook or webhook answered with an error.
    HookRefused,
    /// The hook or webhook could not be reached.
    HookUnreachable,
    /// The hook or webhook did not answer in time.
    HookTimeout,
    /// The MCP tool cannot be called as it is declared.
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
    /// The tool asked for input that nobody can give.
    McpWantsInput,
    /// The component was healthy for verification.stabilization after the action.
    Healthy,
    /// The component was not healthy within verification.timeout.
    StillUnhealthy,
    /// The foreseen failure still stands after verification.timeout.
    StillForeseen,
    /// The component could not be checked, or was released anew, before the result was known.
    Inconclusive,
    /// No remedy fits the cause, or the policy does not list the action any more.
    NoRemedy,
    /// No template was seen healthy.
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
    /// The last check is too old, or could not see the target.
    StaleData,
    /// Not enough checks in a row were bad.
    NotConfirmed,
    /// A person paused the workload.
    Paused,
    /// The workload takes its template from another object.
    TemplateElsewhere,
    /// A GitOps controller would undo the action.
    GitOpsOwned,
    /// More components are unhealthy than safety.maxUnhealthy allows.
    MaxUnhealthy,
    /// safety.maxConcurrent actions are running.
    MaxConcurrent,
    /// safety.budget is used up.
    Budget,
    /// The component was acted on less than safety.cooldown ago.
    Cooldown,
    /// The actions on the component keep failing.
    CircuitBreaker,
    /// An action ahead of a foreseen failure did not hold for prediction.horizon.
    ForeseenAgain,
    /// The workload's update strategy OnDelete would replace no pod.
    OnDelete,
    /// The template was written and is not rolled out.
    Blocked,
    /// A PodDisruptionBudget allows no eviction.
    DisruptionBudget,
    /// New pods would need an image that cannot be pulled.
    ImageUnavailable,
    /// What the action rests on could not be measured.
    CouldNotMeasure,
    /// The object is immutable.
    Immutable,
    /// An autoscaler manages the number of pods.
    Autoscaled,
    /// Somebody else changed the number of pods.
    Rescaled,
    /// The remedy cannot be executed as it is declared.
    BadRemedy,
    /// Workloads that the policy does not name use the object.
    Shared,
    /// A controller writes the object from a source of its own.
    Overwritten,
    /// The GitOps controller or the provider is at work on the target.
    OwnerBusy,
    /// What to roll back to does not exist any more.
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
    /// No answer came in time.
    Timeout,
    /// The provider's API is not configured.
    NotConfigured,
    /// The Secret or its key does not exist.
    CredentialsMissing,
    /// The credentials were refused.
    CredentialsRefused,
    /// The provider's rate limit is used up.
    RateLimited,
    /// The provider's API kept failing and is left alone for a while.
    CircuitOpen,
    /// The provider or server does not know the target.
    TargetNotFound,
    /// The provider does not report a clear state yet.
    Unsettled,
    /// The provider refused the request.
    Refused,
    /// The answer is not what the API promises.
    BadAnswer,
    /// TLS could not be negotiated.
    TlsFailed,
    /// The server has no database of this name.
    DatabaseMissing,
    /// The server's name does not resolve.
    Unresolved,
    /// All connections of the database are taken.
    Saturated,
    /// The database role may not do this.
    NotAllowed,
    /// The Secret could not be read now.
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

impl RemediationReason {
    /// The name, as `status.reason` holds it.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// An action that ends for this reason calls a person.
    pub fn calls_person(self) -> bool {
        self == Self::NotRecovered
    }

    /// The meaning, for people: the doc comment of the variant.
    pub fn meaning(self) -> &'static str {
        strum::EnumMessage::get_documentation(&self).unwrap_or_default()
    }
}

/// When a failed attempt is worth another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same attempt fails again; a person has to change something.
    Never,
    /// After the object, or what it depends on, has changed.
    OnChange,
    /// After a while, with backoff.
    Backoff,
}
