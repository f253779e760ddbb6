//! Workloads of a cluster: how a policy names them, and their actions.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    ActionKind, Capabilities, Cause, Checker, Component, HealingPolicySpec, RemediationTarget, SupportedAction,
    TargetFacts, ValidTarget, ValidateTarget, WorkloadKind,
};

const ROLLBACK: SupportedAction = SupportedAction::new(ActionKind::Rollback);
const ROLLBACK_CONFIG: SupportedAction = SupportedAction::new(ActionKind::RollbackConfig);
const ROLLBACK_STATE: SupportedAction = SupportedAction::new(ActionKind::RollbackState);
const CLEANUP_MEMORY: SupportedAction = SupportedAction::new(ActionKind::CleanupMemory);
const RESTART: SupportedAction = SupportedAction::new(ActionKind::Restart);
const SCALE: SupportedAction = SupportedAction::new(ActionKind::Scale);

const DEFAULT_ROLLBACK: (ActionKind, &[Cause]) = (ActionKind::Rollback, &[Cause::ReleaseRegression]);
const DEFAULT_CONFIG: (ActionKind, &[Cause]) = (ActionKind::RollbackConfig, &[Cause::ConfigRegression]);
const DEFAULT_STATE: (ActionKind, &[Cause]) =
    (ActionKind::RollbackState, &[Cause::ReleaseRegression, Cause::ConfigRegression]);
const DEFAULT_MEMORY: (ActionKind, &[Cause]) = (ActionKind::CleanupMemory, &[Cause::Exhaustion]);
const DEFAULT_RESTART: (ActionKind, &[Cause]) =
    (ActionKind::Restart, &[Cause::Crash, Cause::Exhaustion, Cause::Errors]);

pub static DEPLOYMENT: Capabilities = Capabilities {
    field: "deployment",
    selector: "has(self.target.deployment)",
    selects: |target| target.deployment.is_some(),
    noun: "a Deployment",
    ..WORKLOAD
};

pub static STATEFUL_SET: Capabilities = Capabilities {
    field: "statefulSet",
    selector: "has(self.target.statefulSet)",
    selects: |target| target.stateful_set.is_some(),
    noun: "a StatefulSet",
    ..WORKLOAD
};

pub static DAEMON_SET: Capabilities = Capabilities {
    field: "daemonSet",
    selector: "has(self.target.daemonSet)",
    selects: |target| target.daemon_set.is_some(),
    noun: "a DaemonSet",
    actions: &[ROLLBACK, ROLLBACK_CONFIG, ROLLBACK_STATE, CLEANUP_MEMORY, RESTART],
    why_not: Some("a DaemonSet cannot be scaled, because it has one pod per node"),
    ..WORKLOAD
};

pub static ROLLOUT: Capabilities = Capabilities {
    field: "rollout",
    selector: "has(self.target.rollout)",
    selects: |target| target.rollout.is_some(),
    noun: "a Rollout",
    actions: &[ROLLBACK, ROLLBACK_CONFIG, CLEANUP_MEMORY, RESTART, SCALE],
    why_not: Some(
        "a Rollout has no RollbackState, because the whole state would be a new template, which goes through all steps; write Rollback and RollbackConfig",
    ),
    default_remedies: &[DEFAULT_ROLLBACK, DEFAULT_CONFIG, DEFAULT_MEMORY, DEFAULT_RESTART],
    ..WORKLOAD
};

/// What most kinds have in common.
const WORKLOAD: Capabilities = Capabilities {
    field: "",
    selector: "",
    selects: |_| false,
    noun: "",
    actions: &[ROLLBACK, ROLLBACK_CONFIG, ROLLBACK_STATE, CLEANUP_MEMORY, RESTART, SCALE],
    why_not: None,
    default_remedies: &[DEFAULT_ROLLBACK, DEFAULT_CONFIG, DEFAULT_STATE, DEFAULT_MEMORY, DEFAULT_RESTART],
    metrics: &[],
    min_check_interval: Duration::ZERO,
};

/// The name of an object in the policy's own namespace.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    /// metadata.name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// A workload, by kind and name.
pub(crate) struct Workload<'a> {
    pub kind: WorkloadKind,
    pub name: &'a str,
}

impl<'a> Workload<'a> {
    /// The workload of this kind, where the policy names one.
    pub fn named(kind: WorkloadKind, object: &'a Option<ObjectName>) -> Option<Self> {
        object.as_ref().map(|object| Self { kind, name: &object.name })
    }
}

impl ValidateTarget for Workload<'_> {
    fn validate(&self, _: &mut Checker, _: &Component, _: &HealingPolicySpec) -> Option<ValidTarget> {
        Some(ValidTarget::Workload { kind: self.kind, name: self.name.to_owned() })
    }
}

impl TargetFacts for Workload<'_> {
    fn capabilities(&self) -> &'static Capabilities {
        match self.kind {
            WorkloadKind::Deployment => &DEPLOYMENT,
            WorkloadKind::StatefulSet => &STATEFUL_SET,
            WorkloadKind::DaemonSet => &DAEMON_SET,
            WorkloadKind::Rollout => &ROLLOUT,
        }
    }

    fn acted_on(&self, _: ActionKind, _: &str) -> RemediationTarget {
        RemediationTarget { kind: self.kind.to_string(), name: self.name.to_owned() }
    }

    fn describe(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }

    fn query_name(&self) -> Option<&str> {
        Some(self.name)
    }
}
