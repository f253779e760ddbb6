use jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, IntoStaticStr};

use super::{ActionPlan, Progress, Suspension};

/// One healing action. Panacea creates it before it acts; a person may set only `approval`.
///
/// ```text
///            ┌────────────► AwaitingApproval ──► Rejected | Expired
///            │                    │ Approved
/// Pending ───┼─► Blocked ◄────────┤        (a guard or the target refuses; retried until it expires)
///            │      │             ▼
///            └──────┴─────────► Running ──► Failed
///                                 │ the write was performed
///                                 ▼
///                             Verifying ──► Succeeded | Ineffective
/// ```
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "panacea.dev",
    version = "v1alpha1",
    kind = "Remediation",
    plural = "remediations",
    singular = "remediation",
    shortname = "rem",
    category = "panacea",
    namespaced,
    status = "RemediationStatus",
    derive = "PartialEq",
    doc = "A Remediation is one healing action: its intent, approval and outcome. Panacea creates Remediations; a person approves or rejects them through spec.approval.",
    selectable = ".spec.plan.policy",
    selectable = ".spec.plan.component",
    printcolumn(name = "Component", type_ = "string", json_path = ".spec.plan.component"),
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.plan.action"),
    printcolumn(name = "Cause", type_ = "string", json_path = ".spec.plan.cause"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.plan.policy", priority = 1),
    printcolumn(
        name = "Foreseen",
        type_ = "string",
        json_path = ".spec.plan.foreseen.failureAt",
        priority = 1,
        description = "The expected time of the failure that the action prevents"
    ),
    printcolumn(
        name = "Suspends",
        type_ = "string",
        json_path = ".status.suspended.name",
        priority = 1,
        description = "The Flux or Argo CD object that was suspended for the action"
    ),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.plan) == has(oldSelf.plan) && (!has(self.plan) || self.plan == oldSelf.plan)", "spec.plan cannot be changed; only spec.approval may be set"),
    validation = ("!has(oldSelf.approval) || (has(self.approval) && self.approval == oldSelf.approval)", "spec.approval was already decided and cannot be changed")
)]
pub struct RemediationSpec {
    /// The decision. Immutable.
    pub plan: ActionPlan,
    /// A person's decision: kubectl patch rem NAME --type merge -p '{"spec":{"approval":{"decision":"Approved"}}}'
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// The object or service that the action changes. An object is in the Remediation's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct RemediationTarget {
    #[schemars(length(max = 63))]
    pub kind: String,
    #[schemars(length(max = 253))]
    pub name: String,
}

/// The template of a workload, or the deploy of a hosted service.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct TemplateRef {
    /// Annotation `deployment.kubernetes.io/revision` or `rollout.argoproj.io/revision`, or the number of the
    /// ControllerRevision. It changes when an old template becomes the newest again. 0: deploys have no number.
    pub revision: i64,
    /// Label of the template's pods: `pod-template-hash`, `rollouts-pod-template-hash`, or `controller-revision-hash` of a
    /// StatefulSet or DaemonSet. Of a deploy: its id.
    #[schemars(length(max = 64))]
    pub hash: String,
    /// Digest of the template without the annotation `kubectl.kubernetes.io/restartedAt`, so equal for two rollouts of the same
    /// template. Of a deploy: the id of the deploy that was built, which a rollback shares with its target. Where environment
    /// variables are tracked as configuration: the commit, or a digest of the image.
    #[schemars(length(max = 64))]
    pub digest: String,
}

/// A person's decision. The API server's managed fields, not this object, show who decided.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    pub decision: Decision,
    /// Reason for the decision, for the record. At most 1024 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
}

/// Approved or Rejected.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Decision {
    Approved,
    Rejected,
}

/// State of the action.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RemediationStatus {
    pub phase: Phase,
    /// CamelCase, from a closed set.
    pub reason: String,
    /// The observation, the decision, and the next step.
    pub message: String,
    /// When the action first waited for approval or for a guard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Timestamp>,
    /// When approval was first requested. approval.timeout counts from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    /// Who decided, as the API server recorded it, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<DecidedBy>,
    /// When the write was started; stored before the write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the write was completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executed_at: Option<Timestamp>,
    /// Progress of the action, of its executor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Of a rollback: the GitOps object that is suspended for the rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
    /// Since when the component has been healthy without interruption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy_since: Option<Timestamp>,
    /// When the end phase was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When the outcome was written to the ledger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded_at: Option<Timestamp>,
}

/// Who set `spec.approval`, as the API server recorded it.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DecidedBy {
    /// The field manager that owns the decision, for example `kubectl-patch`.
    pub manager: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// See the drawing at [`RemediationSpec`].
#[derive(
    Serialize,
    Deserialize,
    JsonSchema,
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Display,
    EnumIter,
    IntoStaticStr,
)]
pub enum Phase {
    #[default]
    Pending,
    /// A person has to set spec.approval.
    AwaitingApproval,
    /// A guard refuses; checked again until the Remediation expires.
    Blocked,
    /// The write is about to be sent, or was sent by an operator process that then ended.
    Running,
    /// The write was performed; the component is being verified.
    Verifying,
    /// Healthy for the stabilization time.
    Succeeded,
    /// The write failed.
    Failed,
    /// The write was performed, but did not help, or its effect is unknown.
    Ineffective,
    /// A person rejected the action.
    Rejected,
    /// No decision came in time, or the reason for the action ended before the write.
    Expired,
}

impl Remediation {
    /// The command that approves the Remediation.
    pub fn approve_command(&self) -> String {
        format!(
            r#"kubectl patch rem {} -n {} --type merge -p '{{"spec":{{"approval":{{"decision":"Approved"}}}}}}'"#,
            self.metadata.name.as_deref().unwrap_or_default(),
            self.metadata.namespace.as_deref().unwrap_or_default(),
        )
    }
}

impl Phase {
    /// The phase is final.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Ineffective | Self::Rejected | Self::Expired)
    }

    /// A write may be sent, or was sent and is not verified yet.
    pub fn is_acting(self) -> bool {
        matches!(self, Self::Running | Self::Verifying)
    }
}
