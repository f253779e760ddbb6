//! Reasons of events.

/// The closed set of event reasons; people switch on them.
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
    /// A template that turned the component bad before was released again.
    KnownBadRelease,
    KnownBadConfig,
    /// A template was seen healthy: from now on it is the last known good one.
    KnownGood,
    /// The level of a forecast rose to high or critical.
    FailureForeseen,
    /// A guard holds an action back.
    ActionRefused,
    /// Nothing more can be done: a person has to look.
    PersonNeeded,
    /// A Remediation was created.
    RemediationCreated,
    AwaitingApproval,
    Approved,
    Rejected,
    Expired,
    Blocked,
    /// The write is about to be made.
    Acting,
    /// The write was made; is it healthy now?
    Verifying,
    Succeeded,
    Failed,
    Ineffective,
    /// What would undo a rollback is suspended.
    GitOpsSuspended,
    /// It is resumed.
    GitOpsResumed,
    /// It stays as it is until a person looks at it.
    GitOpsLeft,
    /// A hosted service does not deploy new commits by itself any more.
    AutoDeployOff,
    /// It does again.
    AutoDeployRestored,
}
