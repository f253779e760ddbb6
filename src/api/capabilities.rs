//! The actions that a target supports, its default remedies, and the metrics that it measures itself. Pure data.
//!
//! Each target declares one static [`Capabilities`] in its own folder (`src/targets/**/spec.rs`). Everything that depends on
//! the target is generated from them: see [`super::rules`] and [`super::target_texts`].

use std::{collections::BTreeMap, time::Duration};

use super::{ActionKind, Cause, TargetSpec, Threshold, in_words};

/// Everything that the API knows of one target.
#[derive(Debug)]
pub struct Capabilities {
    /// The field of `spec.components[].target` that names it.
    pub field: &'static str,
    /// CEL about a component: true for components with this target.
    pub selector: &'static str,
    /// The same in Rust.
    pub selects: fn(&TargetSpec) -> bool,
    /// With its article, for messages: `a render target`.
    pub noun: &'static str,
    /// The supported actions beside [`CUSTOM`]. Messages list the actions in this order.
    pub actions: &'static [SupportedAction],
    /// Why a plausible action is missing, for the message that refuses it.
    pub why_not: Option<&'static str>,
    /// The remedies, with their causes, of a policy that names no remedies.
    pub default_remedies: &'static [(ActionKind, &'static [Cause])],
    /// Metrics that the target measures itself and that are not [`WELL_KNOWN`].
    pub metrics: &'static [MetricFacts],
    /// The shortest time between two checks, whatever triggers them.
    pub min_check_interval: Duration,
}

/// An action that a target supports.
#[derive(Debug, Clone, Copy)]
pub struct SupportedAction {
    pub action: ActionKind,
    /// What the policy must name in addition.
    pub needs: Option<Requirement>,
    /// Metrics that the action does not improve: when only these are critical, the action is skipped.
    pub cannot_relieve: &'static [&'static str],
}

/// What a policy must name for an action.
#[derive(Debug, Clone, Copy)]
pub struct Requirement {
    /// CEL about a component.
    pub cel: &'static str,
    /// The same in Rust.
    pub holds: fn(&TargetSpec) -> bool,
    /// Which field is missing, and its purpose.
    pub message: &'static str,
}

/// A metric whose meaning is known without the policy.
#[derive(Debug, Clone, Copy)]
pub struct MetricFacts {
    pub name: &'static str,
    /// The default threshold.
    pub threshold: Option<Threshold>,
    /// The highest possible value.
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
    /// A metric that is assessed only by thresholds of its policy.
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

/// Custom actions, which every target supports.
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

/// Metrics of workloads that no policy has to declare, in percent of the containers' limits.
pub const OFFERED: [&str; 2] = ["cpu_usage", "memory_usage"];

/// The highest possible values of the well-known metrics: 100 for the percentages.
pub fn default_ceilings() -> BTreeMap<String, f64> {
    WELL_KNOWN.iter().filter_map(|metric| Some((metric.name.to_owned(), metric.ceiling?))).collect()
}

/// The default thresholds of the well-known metrics.
pub fn default_thresholds() -> BTreeMap<String, Threshold> {
    WELL_KNOWN.iter().filter_map(|metric| Some((metric.name.to_owned(), metric.threshold?))).collect()
}

impl Capabilities {
    /// All supported actions.
    pub fn supported(&self) -> impl Iterator<Item = &'static SupportedAction> + use<> {
        self.actions.iter().chain(&CUSTOM)
    }

    /// The action on this target; none when the target does not support the action.
    pub fn find(&self, action: ActionKind) -> Option<&'static SupportedAction> {
        self.supported().find(|supported| supported.action == action)
    }

    /// Metrics that the action does not improve.
    pub fn cannot_relieve(&self, action: ActionKind) -> &'static [&'static str] {
        self.find(action).map_or(&[], |supported| supported.cannot_relieve)
    }

    /// Only custom remedies act on the target, so its state need not be known before an action.
    pub fn is_only_watched(&self) -> bool {
        self.actions.is_empty()
    }

    /// `Rollback, Job, Webhook and Mcp`.
    pub fn actions_in_words(&self) -> String {
        in_words(self.supported().map(|supported| supported.action))
    }
}
