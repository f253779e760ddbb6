//! Whether an action waits for people's approval, or may continue to the guards: pure.

use jiff::Timestamp;

use crate::{
    api::{Mode, OnTimeout, Phase, RemediationReason, RemediationSpec, RemediationStatus, ValidPolicy, milliseconds},
    plan::guard::Guard,
};

/// What the approval means for the action now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gate {
    /// The action waits for a change, until then at most.
    Hold { reason: RemediationReason, message: &'static str, until: Timestamp },
    /// A person is asked, or was asked and may still decide until the deadline.
    Ask { asked_at: Timestamp, deadline: Timestamp },
    /// No decision is needed any more: the guards are asked, until then at most.
    Proceed { until: Timestamp },
    /// Too late.
    Expired { reason: RemediationReason, message: String },
}

/// When the time of an action ends that waits since `status.waiting_since`.
pub(super) fn deadline(status: &RemediationStatus, policy: &ValidPolicy, now: Timestamp) -> Timestamp {
    asked_at(status).or(status.waiting_since).unwrap_or(now) + policy.limits.approval_timeout
}

fn asked_at(status: &RemediationStatus) -> Option<Timestamp> {
    status.asked_at.or(status.waiting_since.filter(|_| status.phase == Phase::AwaitingApproval))
}

/// Decides by the spec, the policy and the time alone.
pub(super) fn gate(spec: &RemediationSpec, status: &RemediationStatus, policy: &ValidPolicy, now: Timestamp) -> Gate {
    let must_ask = (spec.plan.approval_required || policy.mode == Mode::Approve) && spec.approval.is_none();
    let asked = asked_at(status);
    let deadline = deadline(status, policy, now);
    let timeout = policy.limits.approval_timeout;
    if must_ask && now < deadline {
        if policy.mode == Mode::Observe {
            let message = "spec.mode is Observe now; nothing is done";
            return Gate::Hold { reason: Guard::ObserveMode.into(), message, until: deadline };
        }
        let asked_at = asked.unwrap_or(milliseconds(now));
        return Gate::Ask { asked_at, deadline: asked_at + timeout };
    }
    let unanswered = must_ask && asked.is_some();
    if unanswered && policy.limits.on_timeout == OnTimeout::Reject {
        let message = format!("no decision within spec.approval.timeout ({timeout:#}); nothing was done");
        return Gate::Expired { reason: RemediationReason::ApprovalTimeout, message };
    }
    // An action that the timeout approved has as long again to pass the guards.
    let until = if unanswered { deadline + timeout } else { deadline };
    if now >= until {
        let message = format!("held back until its time limit: {}; nothing was done", status.message);
        return Gate::Expired { reason: RemediationReason::HeldBackTooLong, message };
    }
    Gate::Proceed { until }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::{Value, json};

    use super::*;
    use crate::analyze::scenario::{at, policy};

    fn spec(approval_required: bool, approval: Value) -> RemediationSpec {
        serde_json::from_value(json!({
            "plan": {
                "policy": "shop", "policyUid": "p-1", "component": "api", "target": {"kind": "Deployment", "name": "api"},
                "action": "Restart", "intent": {"restart": {}}, "cause": "Crash", "episode": "1", "step": 0,
                "why": "it crashes", "decidedAt": "2026-11-28T04:00:00Z", "approvalRequired": approval_required,
            },
            "approval": approval,
        }))
        .unwrap()
    }

    fn waiting(phase: Phase) -> RemediationStatus {
        let asked_at = (phase == Phase::AwaitingApproval).then(|| at(10.0));
        RemediationStatus { phase, waiting_since: Some(at(0.0)), asked_at, ..RemediationStatus::default() }
    }

    fn valid(mode: &str, on_timeout: &str) -> ValidPolicy {
        policy(json!({"mode": mode, "approval": {"timeout": "60s", "onTimeout": on_timeout}}))
    }

    #[test]
    fn a_person_is_asked_where_the_plan_or_the_mode_requires_approval_and_only_until_a_decision() {
        let status = waiting(Phase::Pending);
        let ask = Gate::Ask { asked_at: at(5.0), deadline: at(65.0) };
        for (required, mode, asked) in
            [(true, "Auto", true), (false, "Approve", true), (true, "Approve", true), (false, "Auto", false)]
        {
            let found = gate(&spec(required, Value::Null), &status, &valid(mode, "Reject"), at(5.0));
            let expected = if asked { ask.clone() } else { Gate::Proceed { until: at(60.0) } };
            assert_eq!(found, expected, "{required} {mode}");
        }
        let approved = spec(true, json!({"decision": "Approved"}));
        assert_eq!(gate(&approved, &status, &valid("Auto", "Reject"), at(5.0)), Gate::Proceed { until: at(60.0) });
        let observed = gate(&spec(true, Value::Null), &status, &valid("Observe", "Reject"), at(5.0));
        assert!(matches!(observed, Gate::Hold { reason: RemediationReason::ObserveMode, .. }), "{observed:?}");
    }

    #[test]
    fn the_approval_timeout_counts_from_the_question_and_ends_as_the_policy_says() {
        let (asked, undecided) = (waiting(Phase::AwaitingApproval), spec(true, Value::Null));
        let at_end = |on_timeout, seconds| gate(&undecided, &asked, &valid("Auto", on_timeout), at(seconds));
        let ask = Gate::Ask { asked_at: at(10.0), deadline: at(70.0) };
        assert_eq!([at_end("Reject", 69.9), at_end("Approve", 69.9)], [ask.clone(), ask]);
        let rejected = at_end("Reject", 70.0);
        assert!(matches!(rejected, Gate::Expired { reason: RemediationReason::ApprovalTimeout, .. }), "{rejected:?}");
        assert_eq!(at_end("Approve", 70.0), Gate::Proceed { until: at(130.0) });
        let late = at_end("Approve", 130.0);
        assert!(matches!(late, Gate::Expired { reason: RemediationReason::HeldBackTooLong, .. }), "{late:?}");
    }

    #[test]
    fn an_action_that_the_guards_hold_back_expires_at_its_time_limit() {
        let mut held = waiting(Phase::Blocked);
        held.message = "the budget is used up".to_owned();
        let found = gate(&spec(false, Value::Null), &held, &valid("Auto", "Reject"), at(60.0));
        let Gate::Expired { reason: RemediationReason::HeldBackTooLong, message } = found else { panic!("{found:?}") };
        assert!(message.contains("the budget is used up"), "{message}");
        let limits = valid("Auto", "Reject").limits;
        assert_eq!(limits.approval_timeout, SignedDuration::from_secs(60));
    }

    #[test]
    fn the_timeout_of_a_question_without_asked_at_counts_from_waiting_since() {
        let status = RemediationStatus { asked_at: None, ..waiting(Phase::AwaitingApproval) };
        let found = gate(&spec(true, Value::Null), &status, &valid("Auto", "Reject"), at(30.0));
        assert_eq!(found, Gate::Ask { asked_at: at(0.0), deadline: at(60.0) });
    }
}
