use jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ActionPlan, Progress, Suspension};

/// One healing action. Created by Panacea before anything is done; only `approval` may be set by a person.
///
/// ```text
///            ┌────────────► AwaitingApproval ──► Rejected | Expired
///            │                    │ Approved
/// Pending ───┼─► Blocked ◄────────┤        (a guard or what it is done to refuses; tried again until it expires)
///            │      │             ▼
///            └──────┴─────────► Running ──► Failed
///                                 │ the write is done
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
    doc = "A Remediation is one healing action: the intent before it, the approval, the outcome. Panacea creates them; people approve or reject them through spec.approval.",
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
        description = "When the failure was expected that it was done ahead of"
    ),
    printcolumn(
        name = "Suspends",
        type_ = "string",
        json_path = ".status.suspended.name",
        priority = 1,
        description = "The Flux or Argo CD object that was suspended for it"
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
    /// What was decided. It never changes.
    pub plan: ActionPlan,
    /// A person's decision: kubectl patch rem NAME --type merge -p '{"spec":{"approval":{"decision":"Approved"}}}'
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// The object that is acted on, in the Remediation's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct RemediationTarget {
    #[schemars(length(max = 63))]
    pub kind: String,
    #[schemars(length(max = 253))]
    pub name: String,
}

/// A workload's template, or a hosted service's deploy.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct TemplateRef {
    /// 0: deploys have no number.
    pub revision: i64,
    /// pod-template-hash, or of a StatefulSet or DaemonSet controller-revision-hash; of a deploy its id.
    #[schemars(length(max = 64))]
    pub hash: String,
    /// Digest of the template without the restart annotation; of a deploy the id of the one that was built.
    #[schemars(length(max = 64))]
    pub digest: String,
}

/// A person's decision. Who made it is taken from the API server's managed fields, never from here.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    pub decision: Decision,
    /// For the record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
}

/// Yes or no.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Decision {
    Approved,
    Rejected,
}

/// How far the action is.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RemediationStatus {
    pub phase: Phase,
    /// CamelCase, from a closed set.
    pub reason: String,
    /// What was seen, decided, and comes next.
    pub message: String,
    /// When a person's approval, or a guard, was first waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Timestamp>,
    /// When a person was first asked: what they do not decide in time counts from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    /// Who decided, as the API server recorded it, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<DecidedBy>,
    /// When the write was begun: stored before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the write was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executed_at: Option<Timestamp>,
    /// How far the action is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Of a rollback: the GitOps object that is suspended for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
    /// The component has been healthy since, without a break.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy_since: Option<Timestamp>,
    /// When the end phase was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When its rows were in the ledger.
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
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
pub enum Phase {
    #[default]
    Pending,
    /// A person has to set spec.approval.
    AwaitingApproval,
    /// A guard refuses; looked at again until it expires.
    Blocked,
    /// The write is about to be made, or was made by an operator that then died.
    Running,
    /// The write is done; is the component healthy now?
    Verifying,
    /// Healthy for the stabilization time.
    Succeeded,
    /// The write could not be made.
    Failed,
    /// The write was made and did not help, or it cannot be told.
    Ineffective,
    /// A person said no.
    Rejected,
    /// Nobody decided in time, or the reason for it was gone before anything was done.
    Expired,
}

impl Remediation {
    /// The command with which a person approves it.
    pub fn approve_command(&self) -> String {
        format!(
            r#"kubectl patch rem {} -n {} --type merge -p '{{"spec":{{"approval":{{"decision":"Approved"}}}}}}'"#,
            self.metadata.name.as_deref().unwrap_or_default(),
            self.metadata.namespace.as_deref().unwrap_or_default(),
        )
    }
}

impl Phase {
    /// Nothing will change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Ineffective | Self::Rejected | Self::Expired)
    }

    /// Something may be written outside, or was and is not judged yet.
    pub fn is_acting(self) -> bool {
        matches!(self, Self::Running | Self::Verifying)
    }
}
