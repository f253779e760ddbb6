//! What a person does about each reason: the third column of docs/events.md. A new reason does not compile without it.

use panacea::api::{EventReason, RemediationReason};

pub fn of_remediation(reason: RemediationReason) -> &'static str {
    use RemediationReason as R;
    match reason {
        R::AwaitingApproval => "Set `spec.approval`; without a decision `approval.onTimeout` applies.",
        R::Acting | R::Executed | R::AlreadyDone => "None: verification follows.",
        R::Rejected | R::Recovered | R::CameFirst | R::Superseded | R::Healthy => "None.",
        R::ApprovalTimeout => "Decide about the next Remediation in time, or raise `approval.timeout`.",
        R::HeldBackTooLong => "Read the message for the guard that refused, and remove its cause.",
        R::PolicyGone | R::ComponentGone | R::TargetChanged | R::Deleted => {
            "None: the policy or the object has changed."
        }
        R::NothingToEnd => "None, or widen `sessions`; the next remedy follows.",
        R::OutcomeUnknown => {
            "Check the target. If the action did not take place, delete the Remediation to allow a retry."
        }
        R::NoTarget => "Delete the Remediation; Panacea creates complete ones.",
        R::NotDone => "Check the status of the provider.",
        R::DeadlineExceeded => "Check the progress at the target; raise the deadline where the policy has one.",
        R::DeployFailed => "Read the log of the deploy or run at the provider.",
        R::JobFailed | R::JobGone | R::NameTaken => "Check the Job in the policy's namespace.",
        R::NoPods | R::PodsNotReady => "Check the pods of the workload.",
        R::NotRecovered => "Check the database and the network to it.",
        R::HookInvalid | R::McpInvalid | R::BadRemedy => "Correct the remedy in the policy.",
        R::HookRefused | R::HookUnreachable | R::HookTimeout => "Check the endpoint and its log.",
        R::McpUnreachable | R::McpRefused => "Check the URL and the token of the MCP server.",
        R::McpNoSuchTool | R::McpBadArguments | R::McpWantsInput => "Correct `tool` and `arguments` in the policy.",
        R::McpToolFailed => "Read the tool's message, and the log of its server.",
        R::StillUnhealthy | R::StillForeseen => "None while a remedy is left; then find the cause.",
        R::Inconclusive => "Check the component, and why it could not be measured.",
        R::NoRemedy | R::LadderExhausted => "Find the cause; add a remedy for it to the policy.",
        R::NoKnownGood => "Fix the workload; Panacea knows no good release of it.",
        R::TooOld => "Roll back manually if the old release is safe, or raise `safety.maxRollbackAge`.",
        R::Irreversible => "Fix with a new release, or roll back manually.",
        R::Suspended => "Set `spec.suspend` to false.",
        R::ObserveMode => "Set `spec.mode` to Approve or Auto to permit the action.",
        R::StaleData | R::NotConfirmed => "None: the next check decides.",
        R::Paused => "Resume the workload, or roll back manually.",
        R::TemplateElsewhere => "Roll back the object that owns the template.",
        R::GitOpsOwned => "Revert the change in the repository, or set `safety.gitOps: Suspend`.",
        R::MaxUnhealthy => "Find the common cause; Panacea acts again when fewer components are unhealthy.",
        R::MaxConcurrent | R::Cooldown => "None: Panacea continues at the time in the message.",
        R::Budget => "Find out why so many actions were needed, or raise `safety.budget.actions`.",
        R::CircuitBreaker | R::ForeseenAgain => "Find out why the remedy does not last.",
        R::OnDelete => "Delete the pods manually, or change the update strategy.",
        R::Blocked => "Read the message for the pod that blocks the rollout.",
        R::DisruptionBudget => "Make more pods available, or relax the PodDisruptionBudget.",
        R::ImageUnavailable => "Restore the image in the registry.",
        R::CouldNotMeasure | R::NoData | R::NotANumber | R::SeveralSeries => "Correct the query, or its data source.",
        R::Immutable => "Roll back manually to a new object, or make the object mutable.",
        R::Autoscaled => "Change the autoscaler, or set `adjustAutoscaler: true`.",
        R::Rescaled => "None: the other number stays.",
        R::Shared => "Name the other workloads in the policy, or restore the object manually.",
        R::Overwritten => "Change the source that the controller writes from.",
        R::OwnerBusy | R::Unsettled => "None: Panacea tries again.",
        R::TargetGone => "Restore the state manually, or wait for the next remedy.",
        R::NotFound | R::TargetNotFound => "Correct the target in the policy, or create it.",
        R::WriteRejected => "Read the message of the API server; correct the object or the admission policy.",
        R::Forbidden => "Grant the right that the message names (chart values `rbac.*`).",
        R::Conflict => "Find the other writer; Panacea tries again.",
        R::Unreachable | R::Timeout => "Check the server and the network to it.",
        R::NotConfigured => "Set the provider's URL and credentials of the operator.",
        R::CredentialsMissing | R::Unread => "Create the Secret and the key that the message names.",
        R::CredentialsRefused => "Replace the credentials.",
        R::RateLimited => "None, or use fewer components per key, or a longer `interval`.",
        R::CircuitOpen => "Check the status of the provider; Panacea tries again at `retryAt`.",
        R::Refused => "Read the message of the provider.",
        R::BadAnswer => "Check that the URL leads to the API, and not to a proxy or login page.",
        R::TlsFailed => "Check the certificates and `sslmode`.",
        R::DatabaseMissing | R::Unresolved => "Correct the connection in the Secret.",
        R::Saturated => "Raise `max_connections`, or name ReleaseConnections in the policy.",
        R::NotAllowed => "Run the GRANT that the message names.",
        R::Failed => "Read the message of the database.",
        R::NotInstalled => "Install the CRD or the API that the message names.",
        R::InvalidSpec => "Correct the field that the message names.",
    }
}

/// The meaning of a reason that has no doc comment, and what a person does.
pub fn of_event(reason: EventReason) -> (&'static str, &'static str) {
    use EventReason as E;
    match reason {
        E::InvalidSpec => ("", "Correct the field that the message names."),
        E::Unreadable => ("", "Run the command that the message names."),
        E::OutdatedCrd => ("", "Apply the CRDs of this version."),
        E::CouldNotMeasure => ("", "Correct the source that the message names."),
        E::Unhealthy | E::Recovered | E::ReleaseSeen | E::ConfigSeen | E::KnownGood => ("", "None."),
        E::KnownBadRelease => ("", "Check why the bad release was deployed again."),
        E::KnownBadConfig => {
            ("Configuration that made the component unhealthy before is in use again.", "Check who restored it.")
        }
        E::FailureForeseen => ("", "Find the cause; remedies for Exhaustion run before the failure."),
        E::ActionRefused => ("", "Read the message for the guard; see [safety.md](safety.md#guards)."),
        E::PersonNeeded => ("", "Follow the message."),
        E::RemediationCreated => ("", "None."),
        E::AwaitingApproval => ("A Remediation waits for approval.", "Decide: [operations.md](operations.md#decide)."),
        E::Approved => ("A person approved the action.", "None."),
        E::Rejected => ("A person rejected the action.", "None."),
        E::Expired => ("Nobody decided in time, or the reason for the action ended.", "None."),
        E::Blocked => ("A guard or the target refuses the action for now.", "Read the reason of the Remediation."),
        E::Acting | E::Verifying => ("", "None."),
        E::Succeeded => ("The component is healthy after the action.", "None."),
        E::Failed => ("The action could not be performed.", "Read the reason of the Remediation."),
        E::Ineffective => ("The action did not help, or the result is unknown.", "None while a remedy is left."),
        E::GitOpsSuspended => ("", "Revert the change in the repository."),
        E::GitOpsResumed => ("", "None."),
        E::GitOpsLeft => ("", "Resume the owner by the steps in the message."),
        E::AutoDeployOff => ("", "Fix the commit, then enable auto-deploy."),
        E::AutoDeployRestored => ("", "None."),
    }
}
