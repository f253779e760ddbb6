use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Annotation on a Remediation with which a person resumes the suspended GitOps object now:
/// kubectl annotate rem NAME panacea.dev/resume=true
pub const RESUME: &str = "panacea.dev/resume";
/// Annotation on a suspended owner: NAMESPACE/NAME of the Remediation. Once it is removed, only a person resumes the owner.
pub const SUSPENDED_BY: &str = "panacea.dev/suspended-by";
/// Annotation on a suspended owner: the revision of its source at that time.
pub const SUSPENDED_AT_REVISION: &str = "panacea.dev/suspended-at-revision";
/// Annotation on a suspended owner: the previous value of the changed field, as JSON. Absent: the field was not set.
pub const SUSPENDED_PREVIOUS: &str = "panacea.dev/suspended-previous";

/// How Panacea handles a GitOps controller that would revert a rollback.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, strum::Display)]
pub enum GitOps {
    /// No rollback; a person is called.
    #[default]
    Refuse,
    /// The owner is suspended before the rollback, and resumed when its source has a newer revision or a person resumes it.
    Suspend,
}

/// The GitOps object that a Remediation suspends; stored before the suspension.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Suspension {
    pub api_version: String,
    /// Kustomization, HelmRelease or Application.
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The revision of its source at that time. Absent: the revision is unknown, so only a person resumes the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// metadata.generation after the suspension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Another writer had suspended it before, so this Remediation never resumes it.
    pub already: bool,
    /// When the suspension was observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_at: Option<Timestamp>,
    /// When it was resumed, was found resumed, or was left to a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// The condition for resuming, or how the suspension ended.
    pub message: String,
}

impl Suspension {
    /// Whether Panacea has to resume it.
    pub fn is_open(&self) -> bool {
        !self.already && self.resumed_at.is_none()
    }
}
