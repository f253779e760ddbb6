//! The status of a policy from what is known: pure. The controller writes it only when it differs.

use jiff::Timestamp;

use super::memory::{ComponentMemory, PolicyMemory, Shown};
use crate::{
    analyze::forecast::Forecast,
    api::{
        ComponentStatus, ConditionFact, HealingPolicyStatus, HealthStatus, Invalid, Phase, RefusalStatus, Remediation,
        Summary, ValidPolicy, set_condition,
    },
    knowledge::LedgerHealth,
};

/// Longest message of a condition that lists components.
const MAX_LISTED: usize = 5;

/// What the status of a policy is made from.
pub struct StatusInput<'a> {
    pub old: &'a HealingPolicyStatus,
    pub generation: Option<i64>,
    pub now: Timestamp,
    pub ledger: &'a LedgerHealth,
    /// Remediations of this policy that are not final.
    pub open: &'a [&'a Remediation],
}

/// Why a policy cannot be used at all.
pub struct Unusable {
    pub reason: &'static str,
    pub message: String,
    /// For the column of `kubectl get`.
    pub doing: &'static str,
}

impl Unusable {
    pub fn invalid(mistakes: &[Invalid]) -> Self {
        let words: Vec<&str> = mistakes.iter().map(|mistake| mistake.message.as_str()).take(MAX_LISTED).collect();
        Self { reason: "InvalidSpec", message: words.join("; "), doing: "Invalid" }
    }
}

/// The status of a policy that cannot be used at all.
pub fn unusable_status(input: &StatusInput<'_>, unusable: &Unusable) -> HealingPolicyStatus {
    let reason = unusable.reason;
    let why = "the policy cannot be used (see Ready), so nothing is looked at";
    let facts = [
        ConditionFact::new("Ready", Some(false), reason, unusable.message.clone()),
        ConditionFact::new("Healthy", None, reason, why),
        ConditionFact::new("Healing", Some(false), reason, why),
        ConditionFact::new("ApprovalRequired", Some(false), reason, why),
        ledger_fact(input.ledger),
        ConditionFact::new("Suspended", Some(false), reason, why),
    ];
    HealingPolicyStatus {
        observed_generation: input.generation,
        conditions: set_condition(&input.old.conditions, &facts, input.generation, input.now),
        summary: Some(Summary {
            healthy: "-".into(),
            worst: "Unknown".into(),
            doing: unusable.doing.into(),
            risk: "-".into(),
        }),
        // What was learned is kept: a typing error must not cost the last known good template.
        components: input.old.components.clone(),
    }
}

/// The status of a valid policy. Updates what each component shows on the way.
pub fn next_status(input: &StatusInput<'_>, policy: &ValidPolicy, memory: &mut PolicyMemory) -> HealingPolicyStatus {
    let components: Vec<ComponentStatus> = policy
        .components
        .iter()
        .map(|component| match memory.components.get_mut(&component.name) {
            Some(entry) => component_status(&component.name, entry, policy),
            None => ComponentStatus { name: component.name.clone(), ..ComponentStatus::default() },
        })
        .collect();
    let facts = [
        ready_fact(policy, memory),
        healthy_fact(policy, &components),
        healing_fact(input.open, &components),
        approval_fact(input.open),
        ledger_fact(input.ledger),
        suspended_fact(policy),
    ];
    HealingPolicyStatus {
        observed_generation: input.generation,
        conditions: set_condition(&input.old.conditions, &facts, input.generation, input.now),
        summary: Some(summary(policy, &components, input.open)),
        components,
    }
}

fn component_status(name: &str, entry: &mut ComponentMemory, policy: &ValidPolicy) -> ComponentStatus {
    let mut status = ComponentStatus { name: name.to_owned(), ..ComponentStatus::default() };
    entry.tracker.persist(&mut status);
    status.warnings = entry.hindsight.persist();
    status.circuit.clone_from(&entry.circuit);
    let Some(look) = &entry.last else {
        status.message = if policy.suspend { "suspended" } else { "not looked at yet" }.to_owned();
        status.status = HealthStatus::Unknown;
        return status;
    };
    status.score = look.assessment.score;
    status.trend = entry.trend;
    let kinds: Vec<String> = look.assessment.problems.iter().map(|p| format!("{:?}{:?}", p.kind, p.severity)).collect();
    let unknowns: Vec<String> =
        look.assessment.unknowns.iter().map(|(name, why)| format!("{name}{}", why.reason)).collect();
    let signature = format!("{}|{}|{}", look.assessment.status, kinds.join(","), unknowns.join(","));
    if signature != entry.shown.signature {
        entry.shown.signature = signature;
        entry.shown.message = look.assessment.message();
    }
    status.message.clone_from(&entry.shown.message);
    show_forecast(&mut entry.shown, entry.forecast.as_ref(), look.observation.at);
    status.forecast.clone_from(&entry.shown.forecast);
    status.foreseen = entry.outlook.foreseen().cloned();
    status.refusal = entry.refusal.as_ref().map(|refusal| RefusalStatus {
        reason: refusal.guard.to_string(),
        message: refusal.message.clone(),
        retry_at: refusal.retry_at,
    });
    status
}

/// A forecast is shown anew when its level, band, verdict or confidence changes, not when a figure in it does: a risk
/// that falls with the age of a process would else be a write at every look.
fn show_forecast(shown: &mut Shown, forecast: Option<&Forecast>, at: Timestamp) {
    let next = forecast.map(|forecast| forecast.status(at));
    let same = match (&shown.forecast, &next) {
        (Some(old), Some(new)) => {
            old.level == new.level
                && old.time_to_failure == new.time_to_failure
                && old.leak == new.leak
                && old.confidence == new.confidence
        }
        (None, None) => true,
        _ => false,
    };
    if !same {
        shown.forecast = next;
    }
}

fn ready_fact(policy: &ValidPolicy, memory: &PolicyMemory) -> ConditionFact {
    if !policy.invalid.is_empty() {
        let words: Vec<&str> = policy.invalid.iter().map(|mistake| mistake.message.as_str()).take(MAX_LISTED).collect();
        let message = format!("{}; the other components are watched", words.join("; "));
        return ConditionFact::new("Ready", Some(false), "InvalidSpec", message);
    }
    let mut blind = Vec::new();
    for (name, entry) in &memory.components {
        let Some(look) = &entry.last else { continue };
        let lasting = look.assessment.unknowns.iter().find(|(_, why)| why.reason.needs_a_person());
        if let Some((what, why)) = lasting {
            blind.push((why.reason, format!("{name}: {what}: {}", why.message)));
        }
    }
    if let Some((reason, _)) = blind.first() {
        let words: Vec<String> = blind.iter().map(|(_, words)| words.clone()).take(MAX_LISTED).collect();
        return ConditionFact::new("Ready", Some(false), reason.to_string(), words.join("; "));
    }
    let count = policy.components.len();
    ConditionFact::new("Ready", Some(true), "Valid", format!("{count} components are watched"))
}

fn healthy_fact(policy: &ValidPolicy, components: &[ComponentStatus]) -> ConditionFact {
    if policy.suspend {
        return ConditionFact::new("Healthy", None, "Suspended", "suspended: nothing is looked at");
    }
    let list = |wanted: &dyn Fn(HealthStatus) -> bool| -> Vec<String> {
        let found = components.iter().filter(|component| wanted(component.status));
        found.map(|c| format!("{} is {}: {}", c.name, c.status, c.message)).take(MAX_LISTED).collect()
    };
    let bad = list(&|status| matches!(status, HealthStatus::Unhealthy | HealthStatus::Critical));
    if !bad.is_empty() {
        return ConditionFact::new("Healthy", Some(false), "Unhealthy", bad.join("; "));
    }
    let unknown = list(&|status| status == HealthStatus::Unknown);
    if !unknown.is_empty() {
        return ConditionFact::new("Healthy", None, "CouldNotMeasure", unknown.join("; "));
    }
    let degraded = list(&|status| status == HealthStatus::Degraded);
    if !degraded.is_empty() {
        return ConditionFact::new("Healthy", Some(false), "Degraded", degraded.join("; "));
    }
    ConditionFact::new("Healthy", Some(true), "AllHealthy", format!("all {} components are healthy", components.len()))
}

fn healing_fact(open: &[&Remediation], components: &[ComponentStatus]) -> ConditionFact {
    let acting: Vec<String> = open
        .iter()
        .filter(|remediation| phase(remediation) != Phase::AwaitingApproval)
        .map(|remediation| in_words(remediation))
        .take(MAX_LISTED)
        .collect();
    if !acting.is_empty() {
        return ConditionFact::new("Healing", Some(true), "RemediationOpen", acting.join("; "));
    }
    let refused = components.iter().find_map(|component| component.refusal.as_ref());
    match refused {
        Some(refusal) => ConditionFact::new("Healing", Some(false), refusal.reason.clone(), refusal.message.clone()),
        None => ConditionFact::new("Healing", Some(false), "NothingToDo", "no action is open"),
    }
}

fn approval_fact(open: &[&Remediation]) -> ConditionFact {
    let mut waiting = open.iter().filter(|remediation| phase(remediation) == Phase::AwaitingApproval);
    let Some(first) = waiting.next() else {
        return ConditionFact::new("ApprovalRequired", Some(false), "NothingWaits", "no action waits for approval");
    };
    let more = match waiting.count() {
        0 => String::new(),
        more => format!("; {more} more wait, see kubectl get rem"),
    };
    let message = format!(
        "{} of {} waits; decide with: {} (or Rejected){more}",
        first.spec.plan.action,
        first.spec.plan.component,
        first.approve_command()
    );
    ConditionFact::new("ApprovalRequired", Some(true), "AwaitingApproval", message)
}

fn ledger_fact(health: &LedgerHealth) -> ConditionFact {
    match health {
        LedgerHealth::Unknown => {
            ConditionFact::new("LedgerAvailable", None, "NotTriedYet", "the ledger is being opened")
        }
        LedgerHealth::Available => {
            ConditionFact::new("LedgerAvailable", Some(true), "Available", "rows are being written")
        }
        LedgerHealth::Unavailable { reason, message } => {
            let message = format!("{message}; healing goes on, rows of remediations are kept and written later");
            ConditionFact::new("LedgerAvailable", Some(false), reason.to_string(), message)
        }
    }
}

fn suspended_fact(policy: &ValidPolicy) -> ConditionFact {
    if policy.suspend {
        let how = "spec.suspend is true: nothing is looked at and nothing new is done; set it to false to go on";
        ConditionFact::new("Suspended", Some(true), "SuspendedBySpec", how)
    } else {
        ConditionFact::new("Suspended", Some(false), "Active", "the policy is active")
    }
}

fn summary(policy: &ValidPolicy, components: &[ComponentStatus], open: &[&Remediation]) -> Summary {
    let healthy = components.iter().filter(|component| component.status == HealthStatus::Healthy).count();
    let worst = components.iter().map(|component| component.status).max().unwrap_or_default();
    let risk = components
        .iter()
        .filter_map(|component| component.forecast.as_ref().map(|forecast| (forecast.probability, &component.name)))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        // What nothing announces is no risk that is worth a word.
        .filter(|(probability, _)| *probability > 0.1)
        .map_or_else(|| "-".to_owned(), |(probability, name)| format!("{:.0}% {name}", probability * 100.0));
    let doing = if policy.suspend {
        "Suspended".to_owned()
    } else if let Some(first) = open.first() {
        let more = if open.len() > 1 { format!(" (+{})", open.len() - 1) } else { String::new() };
        format!("{} {}: {}{more}", first.spec.plan.action, first.spec.plan.component, phase(first))
    } else if let Some(component) = components.iter().find(|component| component.refusal.is_some()) {
        let reason = component.refusal.as_ref().map(|refusal| refusal.reason.as_str()).unwrap_or_default();
        format!("Held back {}: {reason}", component.name)
    } else {
        "Watching".to_owned()
    };
    let all = components.len()
        + policy
            .invalid
            .iter()
            .filter_map(|mistake| mistake.component.as_deref())
            .collect::<std::collections::BTreeSet<_>>()
            .len();
    Summary { healthy: format!("{healthy}/{all}"), worst: worst.to_string(), doing, risk }
}

fn in_words(remediation: &Remediation) -> String {
    let name = remediation.metadata.name.as_deref().unwrap_or_default();
    let phase = phase(remediation);
    format!("{} of {} is {phase} (remediation {name})", remediation.spec.plan.action, remediation.spec.plan.component)
}

pub fn phase(remediation: &Remediation) -> Phase {
    remediation.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        analyze::{
            observation::FaultKind,
            scenario::{Story, at, policy},
        },
        controller::memory::Check,
    };

    /// The status after the story, on top of `old`.
    fn status(story: &Story, old: &HealingPolicyStatus, open: &[&Remediation]) -> HealingPolicyStatus {
        let mut memory = PolicyMemory::default();
        let last = story.last.clone().map(|(observation, assessment)| Check { observation, assessment });
        let entry = ComponentMemory { tracker: story.tracker.clone(), last, ..ComponentMemory::default() };
        memory.components.insert("api".to_owned(), entry);
        let ledger = LedgerHealth::Available;
        let input = StatusInput { old, generation: Some(1), now: at(story.now), ledger: &ledger, open };
        next_status(&input, &story.policy, &mut memory)
    }

    fn condition<'a>(status: &'a HealingPolicyStatus, kind: &str) -> (&'a str, &'a str, &'a str) {
        let found = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        (&found.status, &found.reason, &found.message)
    }

    fn remediation(phase: &str) -> Remediation {
        serde_json::from_value(json!({
            "apiVersion": "panacea.dev/v1alpha1", "kind": "Remediation",
            "metadata": {"name": "shop-api-1-0", "namespace": "prod"},
            "spec": {"plan": {
                "policy": "shop", "policyUid": "p-1", "component": "api",
                "target": {"kind": "Deployment", "name": "api"}, "action": "Restart", "intent": {"restart": {}},
                "cause": "Crash", "episode": "1", "step": 0, "why": "it crashes", "decidedAt": "2026-11-28T04:00:00Z",
                "approvalRequired": true,
            }},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn a_policy_whose_components_are_healthy_says_so_in_every_condition() {
        let status = status(&Story::settled(), &HealingPolicyStatus::default(), &[]);
        let all = ["Ready", "Healthy", "Healing", "ApprovalRequired", "LedgerAvailable", "Suspended"];
        let shown: Vec<&str> = all.iter().map(|kind| condition(&status, kind).0).collect();
        assert_eq!(shown, ["True", "True", "False", "False", "True", "False"]);
        let summary = status.summary.unwrap();
        assert_eq!(
            (summary.healthy.as_str(), summary.worst.as_str(), summary.doing.as_str()),
            ("1/1", "Healthy", "Watching")
        );
        assert_eq!(status.observed_generation, Some(1));
    }

    #[test]
    fn a_bad_component_an_open_action_and_a_waiting_approval_are_named() {
        let mut story = Story::settled();
        story.fault(FaultKind::CrashLoop, 2).until(3602.0);
        let (verifying, waiting) = (remediation("Verifying"), remediation("AwaitingApproval"));
        let healing = status(&story, &HealingPolicyStatus::default(), &[&verifying]);
        assert_eq!(condition(&healing, "Healthy").0, "False");
        assert!(condition(&healing, "Healthy").2.contains("api is"), "{healing:?}");
        assert_eq!(condition(&healing, "Healing").1, "RemediationOpen");
        assert_eq!(healing.summary.as_ref().unwrap().doing, "Restart api: Verifying");
        let asked = status(&story, &HealingPolicyStatus::default(), &[&waiting]);
        let (state, reason, message) = condition(&asked, "ApprovalRequired");
        assert_eq!((state, reason), ("True", "AwaitingApproval"));
        assert!(message.contains("kubectl patch rem shop-api-1-0 -n prod"), "{message}");
    }

    #[test]
    fn what_could_not_be_measured_is_unknown_and_a_suspended_policy_says_so() {
        let mut story = Story::settled();
        story.visible = false;
        story.until(3700.0);
        let blind = status(&story, &HealingPolicyStatus::default(), &[]);
        assert_eq!(condition(&blind, "Healthy").0, "Unknown");
        assert_eq!((condition(&blind, "Ready").0, condition(&blind, "Ready").1), ("False", "Forbidden"));
        let suspended = Story::with(policy(json!({"suspend": true})));
        let suspended = status(&suspended, &HealingPolicyStatus::default(), &[]);
        assert_eq!((condition(&suspended, "Suspended").0, condition(&suspended, "Healthy").0), ("True", "Unknown"));
    }

    #[test]
    fn the_same_state_is_the_same_status_so_that_nothing_is_written() {
        let mut story = Story::settled();
        let first = status(&story, &HealingPolicyStatus::default(), &[]);
        story.until(3700.0);
        let second = status(&story, &first, &[]);
        assert_eq!(first, second);
        let invalid = Unusable::invalid(&[]);
        let input =
            StatusInput { old: &first, generation: Some(2), now: at(0.0), ledger: &LedgerHealth::Unknown, open: &[] };
        let unusable = unusable_status(&input, &invalid);
        assert_eq!(unusable.components, first.components, "what was learned is kept");
        assert_eq!(condition(&unusable, "Ready").0, "False");
    }
}
