use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Annotation by which a person asks for what a Remediation suspended to be resumed now:
/// kubectl annotate rem NAME panacea.dev/resume=true
pub const RESUME: &str = "panacea.dev/resume";
/// Annotation on a suspended owner: NAMESPACE/NAME of the Remediation. Taken away, it is left to people.
pub const SUSPENDED_BY: &str = "panacea.dev/suspended-by";
/// Annotation on a suspended owner: the revision of its source then.
pub const SUSPENDED_AT_REVISION: &str = "panacea.dev/suspended-at-revision";
/// Annotation on a suspended owner: what stood in the field that was changed, as JSON. Left out: nothing.
pub const SUSPENDED_PREVIOUS: &str = "panacea.dev/suspended-previous";

/// What is done about a GitOps controller that would undo a rollback.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, strum::Display)]
pub enum GitOps {
    /// The rollback is not made, and a person is called.
    #[default]
    Refuse,
    /// The owner is suspended before the rollback, and resumed when its source has a newer revision, or a person asks.
    Suspend,
}

/// The GitOps object that a Remediation suspended, or is about to: stored before it is done.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Suspension {
    pub api_version: String,
    /// Kustomization, HelmRelease or Application.
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The revision of its source then. Left out: it cannot be told, so it is resumed only when a person asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// metadata.generation once it was suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Somebody else had suspended it before: it is never resumed by this Remediation.
    pub already: bool,
    /// When it was found to be suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_at: Option<Timestamp>,
    /// When it was resumed, or found to be so, or to be left to people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// What it waits for, or how it ended.
    pub message: String,
}

impl Suspension {
    /// It is for Panacea to resume.
    pub fn is_open(&self) -> bool {
        !self.already && self.resumed_at.is_none()
    }
}
