//! Parts of `kubectl explain` that are generated from [`super::Capabilities`] and `ActionFacts`.

use strum::IntoEnumIterator as _;

use super::{ActionKind, Capabilities, Cause, MetricFacts, TARGETS, WELL_KNOWN, in_words};

/// `Rollback for ReleaseRegression, then Restart for Crash and Errors`.
fn ladder(remedies: &[(ActionKind, &[Cause])]) -> String {
    let steps: Vec<String> =
        remedies.iter().map(|(action, causes)| format!("{action} for {}", in_words(*causes))).collect();
    if steps.is_empty() { "none".to_owned() } else { steps.join(", then ") }
}

/// `cpu_usage 70/90`.
fn threshold(metric: &MetricFacts) -> Option<String> {
    let threshold = metric.threshold?;
    Some(format!("{} {}/{}", metric.name, threshold.warning, threshold.critical))
}

/// Targets with the same text share it: `a Deployment and a StatefulSet: …`.
fn by_target(text: impl Fn(&Capabilities) -> Option<String>) -> String {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for target in TARGETS {
        let Some(text) = text(target) else { continue };
        match groups.iter_mut().find(|group| group.0 == text) {
            Some(group) => group.1.push(target.noun),
            None => groups.push((text, vec![target.noun])),
        }
    }
    let groups: Vec<String> = groups.into_iter().map(|(text, nouns)| format!("{}: {text}", in_words(nouns))).collect();
    groups.join("; ")
}

/// The default remedies, for `kubectl explain`.
pub(super) fn default_remedies_text() -> String {
    format!("Default for {}.", by_target(|target| Some(ladder(target.default_remedies))))
}

/// The default thresholds, for `kubectl explain`.
pub(super) fn default_thresholds_text() -> String {
    let well_known: Vec<String> = WELL_KNOWN.iter().filter_map(threshold).collect();
    let own = by_target(|target| {
        let own: Vec<String> = target.metrics.iter().filter_map(threshold).collect();
        (!own.is_empty()).then(|| own.join(", "))
    });
    format!("Defaults (warning/critical): {}; and for {own}.", well_known.join(", "))
}

/// The causes that each action can help against, for `kubectl explain`.
pub(super) fn causes_text() -> String {
    let limited = ActionKind::iter().filter_map(|action| {
        let causes = action.facts().only_for?;
        Some(format!("{action} only helps against {}", in_words(causes)))
    });
    format!("{}.", limited.collect::<Vec<_>>().join(", "))
}
