/// The closed set of event reasons; people and tools depend on the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::IntoStaticStr, strum::EnumIter)]
pub enum EventReason {
    /// The policy, or one of its components, is not valid.
    InvalidSpec,
    /// A stored Remediation cannot be read by this version.
    Unreadable,
    /// The installed CRD is older than the operator.
    OutdatedCrd,
    /// A component could not be measured.
    CouldNotMeasure,
    /// A component is confirmed unhealthy.
    Unhealthy,
    /// A component is healthy again.
    Recovered,
    /// A new template runs.
    ReleaseSeen,
    /// A ConfigMap or Secret that the template names has new content.
    ConfigSeen,
    /// A template that made the component unhealthy before was released again.
    KnownBadRelease,
    KnownBadConfig,
    /// A template was healthy: it is the last known good template from now on.
    KnownGood,
    /// The level of a forecast rose to high or critical.
    FailureForeseen,
    /// A guard holds an action back.
    ActionRefused,
    /// No automatic action is left: a person is needed.
    PersonNeeded,
    /// A Remediation was created.
    RemediationCreated,
    AwaitingApproval,
    Approved,
    Rejected,
    Expired,
    Blocked,
    /// The write is about to be sent.
    Acting,
    /// The write was performed; the component is being verified.
    Verifying,
    Succeeded,
    Failed,
    Ineffective,
    /// The GitOps object that would revert a rollback is suspended.
    GitOpsSuspended,
    /// The GitOps object is resumed.
    GitOpsResumed,
    /// The GitOps object stays suspended until a person resumes it.
    GitOpsLeft,
    /// A hosted service no longer deploys new commits automatically.
    AutoDeployOff,
    /// A hosted service deploys new commits automatically again.
    AutoDeployRestored,
}
