//! The status of a policy from what is known: pure. The controller writes the status only when it differs.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::memory::{ComponentMemory, PolicyMemory, Shown};
use crate::{
    analyze::forecast::Forecast,
    api::{
        ComponentStatus, ConditionFact, ForecastStatus, HealingPolicyStatus, HealthStatus, Invalid, Phase,
        RefusalStatus, Remediation, Summary, ValidPolicy, set_condition,
    },
    knowledge::LedgerHealth,
};

/// Longest list in the message of a condition.
const MAX_LISTED: usize = 5;

/// What the status of a policy is made from.
pub(super) struct StatusInput<'a> {
    pub old: &'a HealingPolicyStatus,
    pub generation: Option<i64>,
    pub now: Timestamp,
    pub ledger: &'a LedgerHealth,
    /// Remediations of this policy that are not final.
    pub open: &'a [&'a Remediation],
}

/// Why a policy cannot be used at all.
pub(super) struct Unusable {
    pub reason: &'static str,
    pub message: String,
    /// For the column of `kubectl get`.
    pub doing: &'static str,
}

impl Unusable {
    pub(super) fn invalid(mistakes: &[Invalid]) -> Self {
        Self { reason: "InvalidSpec", message: listed(mistakes), doing: "Invalid" }
    }
}

fn listed(mistakes: &[Invalid]) -> String {
    let messages: Vec<&str> = mistakes.iter().map(|mistake| &*mistake.message).take(MAX_LISTED).collect();
    messages.join("; ")
}

/// The status of a policy that cannot be used at all.
pub(super) fn unusable_status(input: &StatusInput<'_>, unusable: &Unusable) -> HealingPolicyStatus {
    let reason = unusable.reason;
    let why = "the policy cannot be used (see condition Ready); health checks are paused";
    let facts = [
        ConditionFact::new("Ready", Some(false), reason, unusable.message.clone()),
        ConditionFact::new("Healthy", None, reason, why),
        ConditionFact::new("Healing", Some(false), reason, why),
        ConditionFact::new("ApprovalRequired", Some(false), reason, why),
        ledger_fact(input.ledger),
        ConditionFact::new("Suspended", Some(false), reason, why),
    ];
    let (none, doing) = ("-".to_owned(), unusable.doing.to_owned());
    let summary = Summary { healthy: none.clone(), worst: "Unknown".into(), doing, risk: none };
    // The components stay as they were: a typing error must not cost the last known good template.
    status_of(input, &facts, summary, input.old.components.clone())
}

/// The status of a valid policy. Updates what each component shows on the way.
pub(super) fn next_status(
    input: &StatusInput<'_>,
    policy: &ValidPolicy,
    memory: &mut PolicyMemory,
) -> HealingPolicyStatus {
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
    status_of(input, &facts, summary(policy, &components, input.open), components)
}

fn status_of(
    input: &StatusInput<'_>,
    facts: &[ConditionFact],
    summary: Summary,
    components: Vec<ComponentStatus>,
) -> HealingPolicyStatus {
    HealingPolicyStatus {
        observed_generation: input.generation,
        conditions: set_condition(&input.old.conditions, facts, input.generation, input.now),
        summary: Some(summary),
        components,
    }
}

fn component_status(name: &str, entry: &mut ComponentMemory, policy: &ValidPolicy) -> ComponentStatus {
    let mut status = ComponentStatus { name: name.to_owned(), ..ComponentStatus::default() };
    entry.tracker.persist(&mut status);
    status.warnings = entry.hindsight.persist();
    status.circuit.clone_from(&entry.circuit);
    let Some(check) = &entry.last else {
        status.message = if policy.suspend { "suspended" } else { "not checked yet" }.to_owned();
        status.status = HealthStatus::Unknown;
        return status;
    };
    let assessment = &check.assessment;
    status.score = assessment.score;
    status.trend = entry.trend;
    let kinds: Vec<String> = assessment.problems.iter().map(|p| format!("{:?}{:?}", p.kind, p.severity)).collect();
    let unknowns: Vec<String> = assessment.unknowns.iter().map(|(name, why)| format!("{name}{}", why.reason)).collect();
    let signature = format!("{}|{}|{}", assessment.status, kinds.join(","), unknowns.join(","));
    if signature != entry.shown.signature {
        entry.shown.signature = signature;
        entry.shown.message = assessment.message();
    }
    status.message.clone_from(&entry.shown.message);
    show_forecast(&mut entry.shown, entry.forecast.as_ref(), check.observation.at);
    status.forecast.clone_from(&entry.shown.forecast);
    status.foreseen = entry.outlook.foreseen().cloned();
    status.refusal = entry.refusal.as_ref().map(|refusal| RefusalStatus {
        reason: refusal.guard.to_string(),
        message: refusal.message.clone(),
        retry_at: refusal.retry_at,
    });
    status
}

/// The shown forecast changes with its level, band, verdict or confidence, not with a figure in it: a risk that falls
/// with the age of a process would otherwise be a write at every check.
fn show_forecast(shown: &mut Shown, forecast: Option<&Forecast>, at: Timestamp) {
    fn worth_a_write(status: &ForecastStatus) -> (&str, Option<&str>, bool, &str) {
        (&status.level, status.time_to_failure.as_deref(), status.leak, &status.confidence)
    }
    let next = forecast.map(|forecast| forecast.status(at));
    if shown.forecast.as_ref().map(worth_a_write) != next.as_ref().map(worth_a_write) {
        shown.forecast = next;
    }
}

fn ready_fact(policy: &ValidPolicy, memory: &PolicyMemory) -> ConditionFact {
    if !policy.invalid.is_empty() {
        let message = format!("{}; the other components are watched", listed(&policy.invalid));
        return ConditionFact::new("Ready", Some(false), "InvalidSpec", message);
    }
    let blind = memory.components.iter().filter_map(|(name, entry)| {
        let unknowns = &entry.last.as_ref()?.assessment.unknowns;
        let (what, why) = unknowns.iter().find(|(_, why)| why.reason.needs_a_person())?;
        Some((why.reason, format!("{name}: {what}: {}", why.message)))
    });
    let (reasons, messages): (Vec<_>, Vec<_>) = blind.take(MAX_LISTED).unzip();
    if let Some(reason) = reasons.first() {
        return ConditionFact::new("Ready", Some(false), reason.to_string(), messages.join("; "));
    }
    let message = match policy.components.len() {
        1 => "watching 1 component".to_owned(),
        count => format!("watching {count} components"),
    };
    ConditionFact::new("Ready", Some(true), "Valid", message)
}

fn healthy_fact(policy: &ValidPolicy, components: &[ComponentStatus]) -> ConditionFact {
    use HealthStatus::{Critical, Degraded, Unhealthy, Unknown};
    if policy.suspend {
        return ConditionFact::new("Healthy", None, "Suspended", "spec.suspend is true: health checks are paused");
    }
    let worst_first = [
        (&[Unhealthy, Critical][..], Some(false), "Unhealthy"),
        (&[Unknown], None, "CouldNotMeasure"),
        (&[Degraded], Some(false), "Degraded"),
    ];
    for (group, status, reason) in worst_first {
        let found = components.iter().filter(|component| group.contains(&component.status));
        let found: Vec<String> =
            found.map(|c| format!("{} is {}: {}", c.name, c.status, c.message)).take(MAX_LISTED).collect();
        if !found.is_empty() {
            return ConditionFact::new("Healthy", status, reason, found.join("; "));
        }
    }
    let message = match components.len() {
        1 => "the component is healthy".to_owned(),
        count => format!("all {count} components are healthy"),
    };
    ConditionFact::new("Healthy", Some(true), "AllHealthy", message)
}

fn healing_fact(open: &[&Remediation], components: &[ComponentStatus]) -> ConditionFact {
    let acting = open.iter().map(|one| (one, phase(one))).filter(|(_, phase)| *phase != Phase::AwaitingApproval);
    let acting = acting.take(MAX_LISTED).map(|(one, phase)| {
        let name = one.metadata.name.as_deref().unwrap_or_default();
        format!("{} of {} is {phase} (remediation {name})", one.spec.plan.action, one.spec.plan.component)
    });
    let acting: Vec<String> = acting.collect();
    if !acting.is_empty() {
        return ConditionFact::new("Healing", Some(true), "RemediationOpen", acting.join("; "));
    }
    match components.iter().find_map(|component| component.refusal.as_ref()) {
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
        more => format!("; {more} more: kubectl get rem"),
    };
    let message = format!(
        "{} of {} waits for approval; decide with: {} (or Rejected){more}",
        first.spec.plan.action,
        first.spec.plan.component,
        first.approve_command()
    );
    ConditionFact::new("ApprovalRequired", Some(true), "AwaitingApproval", message)
}

fn ledger_fact(health: &LedgerHealth) -> ConditionFact {
    let (status, reason, message) = match health {
        LedgerHealth::Unknown => (None, "NotTriedYet".to_owned(), "the ledger is being opened".to_owned()),
        LedgerHealth::Available => (Some(true), "Available".to_owned(), "rows are being written".to_owned()),
        LedgerHealth::Unavailable { reason, message } => {
            let message = format!("{message}; healing continues, rows of remediations are kept and written later");
            (Some(false), reason.to_string(), message)
        }
    };
    ConditionFact::new("LedgerAvailable", status, reason, message)
}

fn suspended_fact(policy: &ValidPolicy) -> ConditionFact {
    if policy.suspend {
        let how = "spec.suspend is true: health checks are paused and no new action starts; set it to false to resume";
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
        // A smaller risk, without a sign of trouble, is not worth a word.
        .filter(|(probability, _)| *probability > 0.1)
        .map_or_else(|| "-".to_owned(), |(probability, name)| format!("{:.0}% {name}", probability * 100.0));
    let refused = components.iter().find_map(|component| Some((&component.name, component.refusal.as_ref()?)));
    let doing = if policy.suspend {
        "Suspended".to_owned()
    } else if let Some(first) = open.first() {
        let more = if open.len() > 1 { format!(" (+{})", open.len() - 1) } else { String::new() };
        format!("{} {}: {}{more}", first.spec.plan.action, first.spec.plan.component, phase(first))
    } else if let Some((name, refusal)) = refused {
        format!("Held back {name}: {}", refusal.reason)
    } else {
        "Watching".to_owned()
    };
    let invalid: BTreeSet<&str> = policy.invalid.iter().filter_map(|mistake| mistake.component.as_deref()).collect();
    let all = components.len() + invalid.len();
    Summary { healthy: format!("{healthy}/{all}"), worst: worst.to_string(), doing, risk }
}

pub(super) fn phase(remediation: &Remediation) -> Phase {
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
    fn every_condition_of_a_policy_with_healthy_components_is_good() {
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
    fn the_conditions_name_a_bad_component_an_open_action_and_a_waiting_approval() {
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
    fn an_unmeasured_component_and_a_suspended_policy_are_unknown() {
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
    fn an_unchanged_state_has_an_unchanged_status() {
        let mut story = Story::settled();
        let first = status(&story, &HealingPolicyStatus::default(), &[]);
        story.until(3700.0);
        let second = status(&story, &first, &[]);
        assert_eq!(first, second);
        let invalid = Unusable::invalid(&[]);
        let input =
            StatusInput { old: &first, generation: Some(2), now: at(0.0), ledger: &LedgerHealth::Unknown, open: &[] };
        let unusable = unusable_status(&input, &invalid);
        assert_eq!(unusable.components, first.components, "the components stay as they were");
        assert_eq!(condition(&unusable, "Ready").0, "False");
    }
}
