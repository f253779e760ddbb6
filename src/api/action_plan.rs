use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ActionKind, Cause, Foreseen, Intent, RemediationTarget, TemplateRef};

/// The decision: the target, the intent, and the reason. Immutable once the Remediation is created.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ActionPlan {
    /// Name of the HealingPolicy in the same namespace.
    #[schemars(length(min = 1, max = 63))]
    pub policy: String,
    /// uid of that policy. A later policy of the same name is another policy.
    #[schemars(length(max = 64))]
    pub policy_uid: String,
    /// Name of the component in the policy.
    #[schemars(length(min = 1, max = 40))]
    pub component: String,
    /// The object or service to act on.
    pub target: RemediationTarget,
    /// The kind of the action; `intent` holds the details.
    pub action: ActionKind,
    /// The action with its parameters. Exactly one field is set, the one that `action` names.
    pub intent: Intent,
    /// Why the component is unhealthy, as far as the signals show.
    pub cause: Cause,
    /// The incident that the action belongs to.
    #[schemars(length(max = 64))]
    pub episode: String,
    /// Which step of the ladder the action is, from 0.
    #[schemars(range(min = 0, max = 20))]
    pub step: u32,
    /// The observation with its limits, and why this remedy was chosen.
    #[schemars(length(max = 2048))]
    pub why: String,
    /// When the decision was made.
    pub decided_at: Timestamp,
    /// Whether a person must approve.
    pub approval_required: bool,
    /// The release that was assessed. The action is canceled when another release runs before it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<TemplateRef>,
    /// The foreseen failure, when the action was decided ahead of it. Absent: the component was already unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreseen: Option<Foreseen>,
}

impl ActionPlan {
    /// `metadata.name` of the Remediation: the same decision has the same name.
    pub fn name(&self) -> String {
        format!("{}-{}-{}-{}", self.policy, self.component, self.episode, self.step)
    }
}
