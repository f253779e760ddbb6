//! What can be done to a target, what is done to it by default, and what it measures by itself. Pure data.
//!
//! Each target declares one static [`Capabilities`] in its own folder (`src/targets/**/spec.rs`). All that depends on the
//! target is generated from them: see [`super::rules`] and [`super::target_texts`].

use std::{collections::BTreeMap, time::Duration};

use super::{ActionKind, Cause, TargetSpec, Threshold};

/// Everything that the API knows of one target.
#[derive(Debug)]
pub struct Capabilities {
    /// The field of `spec.components[].target` that names it.
    pub field: &'static str,
    /// CEL about a component: true of those with this target.
    pub selector: &'static str,
    /// The same in Rust.
    pub selects: fn(&TargetSpec) -> bool,
    /// With its article, for messages: `a render target`.
    pub noun: &'static str,
    /// What can be done to it, beside [`CUSTOM`]. Messages list the actions in this order.
    pub actions: &'static [SupportedAction],
    /// Why a plausible action is missing, for the message that refuses it.
    pub why_not: Option<&'static str>,
    /// What is done, for which causes, when its policy names no remedies.
    pub default_remedies: &'static [(ActionKind, &'static [Cause])],
    /// Metrics that it measures by itself and that are not [`WELL_KNOWN`].
    pub metrics: &'static [MetricFacts],
    /// Looks at it follow each other no faster, whatever calls for them.
    pub min_check_interval: Duration,
}

/// An action that can be done to a target.
#[derive(Debug, Clone, Copy)]
pub struct SupportedAction {
    pub action: ActionKind,
    /// What else the policy must name.
    pub needs: Option<Requirement>,
    /// Metrics that the action leaves as they are: when only these are critical, the action is passed over.
    pub cannot_relieve: &'static [&'static str],
}

/// What a policy must name for an action.
#[derive(Debug, Clone, Copy)]
pub struct Requirement {
    /// CEL about a component.
    pub cel: &'static str,
    /// The same in Rust.
    pub holds: fn(&TargetSpec) -> bool,
    /// Which field is missing, and what for.
    pub message: &'static str,
}

/// A metric that has a meaning without its policy's help.
#[derive(Debug, Clone, Copy)]
pub struct MetricFacts {
    pub name: &'static str,
    /// Where the policy names none.
    pub threshold: Option<Threshold>,
    /// Where it ends.
    pub ceiling: Option<f64>,
}

impl SupportedAction {
    pub const fn new(action: ActionKind) -> Self {
        Self { action, needs: None, cannot_relieve: &[] }
    }

    pub const fn needing(self, requirement: Requirement) -> Self {
        Self { needs: Some(requirement), ..self }
    }

    pub const fn not_relieving(self, metrics: &'static [&'static str]) -> Self {
        Self { cannot_relieve: metrics, ..self }
    }
}

impl MetricFacts {
    /// A metric that is judged only by thresholds of its policy.
    pub const fn without_threshold(name: &'static str) -> Self {
        Self { name, threshold: None, ceiling: None }
    }

    pub const fn new(name: &'static str, warning: f64, critical: f64) -> Self {
        Self { name, threshold: Some(Threshold { warning, critical }), ceiling: None }
    }

    /// A percentage, which ends at 100.
    pub const fn percent(name: &'static str, warning: f64, critical: f64) -> Self {
        Self { ceiling: Some(100.0), ..Self::new(name, warning, critical) }
    }
}

/// What a team defines itself, and so can be done to every target.
pub static CUSTOM: [SupportedAction; 3] = [
    SupportedAction::new(ActionKind::Job),
    SupportedAction::new(ActionKind::Webhook),
    SupportedAction::new(ActionKind::Mcp),
];

/// Metrics that every component may measure (design: warning / critical).
pub static WELL_KNOWN: [MetricFacts; 4] = [
    MetricFacts::percent("cpu_usage", 70.0, 90.0),
    MetricFacts::percent("memory_usage", 75.0, 90.0),
    MetricFacts::new("error_rate", 0.05, 0.10),
    MetricFacts::new("latency_ms", 2000.0, 5000.0),
];

/// Metrics that workloads have without being measured by their policy, in percent of the containers' limits.
pub const OFFERED: [&str; 2] = ["cpu_usage", "memory_usage"];

/// Where the well-known metrics end: the percentages at 100.
pub fn default_ceilings() -> BTreeMap<String, f64> {
    WELL_KNOWN.iter().filter_map(|metric| Some((metric.name.to_owned(), metric.ceiling?))).collect()
}

/// The thresholds of the well-known metrics where a policy names none.
pub fn default_thresholds() -> BTreeMap<String, Threshold> {
    WELL_KNOWN.iter().filter_map(|metric| Some((metric.name.to_owned(), metric.threshold?))).collect()
}

impl Capabilities {
    /// Everything that can be done to it.
    pub fn supported(&self) -> impl Iterator<Item = &'static SupportedAction> + use<> {
        self.actions.iter().chain(&CUSTOM)
    }

    /// The action on this target; none when the target does not support it.
    pub fn find(&self, action: ActionKind) -> Option<&'static SupportedAction> {
        self.supported().find(|supported| supported.action == action)
    }

    /// Metrics that the action leaves as they are.
    pub fn cannot_relieve(&self, action: ActionKind) -> &'static [&'static str] {
        self.find(action).map_or(&[], |supported| supported.cannot_relieve)
    }

    /// Only custom remedies act on it, so nothing has to be known of its state before.
    pub fn is_only_watched(&self) -> bool {
        self.actions.is_empty()
    }

    /// `Rollback, Job, Webhook and Mcp`.
    pub fn actions_in_words(&self) -> String {
        in_words(self.supported().map(|supported| supported.action))
    }
}

/// `A, B and C`.
pub(crate) fn in_words<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let mut items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match (items.pop(), items.is_empty()) {
        (None, _) => String::new(),
        (Some(last), true) => last,
        (Some(last), false) => format!("{} and {last}", items.join(", ")),
    }
}
