//! One Remediation in full.

use jiff::Timestamp;
use kube::ResourceExt as _;
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    Answer,
    arguments::OfRemediation,
    cluster::{Cluster, Trouble},
};
use crate::api::{
    ActionKind, ActionPlan, Cause, ConfigRollback, Decision, Foreseen, Intent, Phase, Progress, Remediation,
    RemediationSpec, RemediationStatus, RemediationTarget, SessionRef, TemplateRef,
};

/// Identifies the explained action: the object, its whole spec, and the sessions that the action would end. 16
/// hexadecimal digits.
pub(super) fn plan_of(remediation: &Remediation) -> String {
    let spec = RemediationSpec { approval: None, ..remediation.spec.clone() };
    let sessions: &[SessionRef] = remediation.status.as_ref().map(sessions).unwrap_or_default();
    let explained = serde_json::json!([remediation.metadata.uid, spec, sessions]);
    let digest = Sha256::digest(explained.to_string());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The sessions of a database that the action would end.
fn sessions(status: &RemediationStatus) -> &[SessionRef] {
    let progress = status.progress.as_ref().and_then(Progress::sessions);
    progress.map(|progress| progress.sessions.as_slice()).unwrap_or_default()
}

/// In this phase a person's decision still has an effect.
pub(super) fn is_open(phase: Phase) -> bool {
    matches!(phase, Phase::Pending | Phase::AwaitingApproval | Phase::Blocked)
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    namespace: String,
    remediation: String,
    policy: String,
    component: String,
    target: RemediationTarget,
    action: ActionKind,
    cause: Cause,
    /// The observation, against which limits, and why this remedy.
    why: String,
    /// The effect on the target, in words.
    would_do: String,
    /// The running template.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<TemplateRef>,
    /// The template of the rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<TemplateRef>,
    /// The foreseen failure that the action is to prevent.
    #[serde(skip_serializing_if = "Option::is_none")]
    foreseen: Option<Foreseen>,
    /// The sessions of a database that the action would end, at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sessions: Vec<SessionRef>,
    phase: Phase,
    /// Why it waits, is refused, or has ended: CamelCase, from a closed set.
    reason: String,
    message: String,
    /// A person must approve the action first.
    approval_required: bool,
    /// A decision would still have an effect.
    decidable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decided>,
    timeline: Vec<Moment>,
    /// The argument `plan` of approve_remediation and reject_remediation.
    plan: String,
    /// How a person decides, with and without this server.
    how_to_decide: String,
}

/// The decision.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Decided {
    decision: Decision,
    reason: String,
    /// The field manager of the decision, once the operator has read the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

/// One event.
#[derive(Serialize, JsonSchema)]
struct Moment {
    at: Timestamp,
    what: String,
}

impl Answer for Explanation {
    fn in_words(&self) -> String {
        let mut text = format!(
            "{}/{}: {} of {} ({}/{}), cause {}\nWhy: {}\nWhat: {}\nNow: {} ({}): {}",
            self.namespace,
            self.remediation,
            self.action,
            self.component,
            self.target.kind,
            self.target.name,
            self.cause,
            self.why,
            self.would_do,
            self.phase,
            self.reason,
            self.message,
        );
        for moment in &self.timeline {
            text += &format!("\n- {}: {}", moment.at.strftime("%Y-%m-%dT%H:%M:%SZ"), moment.what);
        }
        format!("{text}\n{}", self.how_to_decide)
    }
}

pub(super) async fn explain(cluster: &Cluster, asked: OfRemediation) -> Result<Explanation, Trouble> {
    let namespace = cluster.namespace(asked.namespace.as_deref())?;
    Ok(explanation(cluster.remediation(namespace, &asked.remediation).await?))
}

fn explanation(remediation: Remediation) -> Explanation {
    let plan = plan_of(&remediation);
    let (namespace, name) = (remediation.namespace().unwrap_or_default(), remediation.name_any());
    let command = remediation.approve_command();
    let (spec, status) = (remediation.spec, remediation.status.unwrap_or_default());
    let decision = spec.approval.as_ref().map(|approval| Decided {
        decision: approval.decision,
        reason: approval.reason.clone(),
        by: status.decided_by.as_ref().map(|by| by.manager.clone()),
    });
    let decidable = decision.is_none() && is_open(status.phase);
    let how_to_decide = match &decision {
        None if decidable => format!(
            "To decide: approve_remediation or reject_remediation with plan {plan:?}, or as a person: {command} (or Rejected)"
        ),
        Some(decided) => format!("It was {} already; a decision cannot be changed", decided.decision),
        None => format!("It is {}: a decision has no effect any more", status.phase),
    };
    Explanation {
        namespace,
        remediation: name,
        would_do: would_do(&spec.plan, &status),
        timeline: timeline(&spec, &status),
        sessions: sessions(&status).to_vec(),
        to: spec.plan.intent.template().cloned(),
        from: spec.plan.release,
        policy: spec.plan.policy,
        component: spec.plan.component,
        target: spec.plan.target,
        action: spec.plan.action,
        cause: spec.plan.cause,
        why: spec.plan.why,
        foreseen: spec.plan.foreseen,
        approval_required: spec.plan.approval_required,
        phase: status.phase,
        reason: status.reason,
        message: status.message,
        decidable,
        decision,
        plan,
        how_to_decide,
    }
}

fn would_do(plan: &ActionPlan, status: &RemediationStatus) -> String {
    let target = format!("{}/{}", plan.target.kind, plan.target.name);
    let from = plan.release.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
    let listed = |config: &ConfigRollback| {
        if config.objects.is_empty() { "no configuration objects".to_owned() } else { config.names() }
    };
    match &plan.intent {
        Intent::Rollback { to } => format!("{target} is rolled back{from} to {to}, which was healthy"),
        Intent::RollbackConfig { config } => format!(
            "the content with which {target} was last healthy is restored to {}; then its pods are replaced",
            listed(config)
        ),
        Intent::RollbackState { to, config } => format!(
            "{target} is rolled back{from} to {to} with its strategy and number of pods, and the content of {} is restored",
            listed(config)
        ),
        Intent::CleanupMemory { hook: Some(hook), .. } => {
            format!("{} is called, so that {target} frees memory without a restart", hook.url)
        }
        Intent::CleanupMemory { hook: None, .. } => {
            format!("the pods of {target} whose memory grows are evicted, one at a time")
        }
        Intent::Restart {} => format!("{target} is restarted"),
        Intent::Scale(scale) => format!("{target} is scaled from {} to {} pods", scale.from, scale.to),
        Intent::Job(_) => format!("a custom Job runs to heal {target}"),
        Intent::Webhook(webhook) => format!("{} is called to heal {target}", webhook.url),
        Intent::Mcp(mcp) => format!("the tool {} of {} is called to heal {target}", mcp.tool, mcp.url),
        Intent::RecoverConnections(_) => format!("Panacea reconnects to {target} until a connection is accepted"),
        Intent::Failover {} => {
            format!("the standby of {target} takes over; {}", plan.action.cost().unwrap_or_default())
        }
        Intent::ReleaseConnections(_) => format!("sessions of {target} that end: {}", sessions(status).len()),
        Intent::CancelQueries(_) => {
            format!("sessions of {target} whose query is cancelled: {}", sessions(status).len())
        }
    }
}

fn timeline(spec: &RemediationSpec, status: &RemediationStatus) -> Vec<Moment> {
    let decision = spec.approval.as_ref().zip(status.decided_by.as_ref());
    let decided = decision.map(|(approval, by)| format!("{} by {}", approval.decision, by.manager));
    let moments = [
        (Some(spec.plan.decided_at), "the remedy was chosen".to_owned()),
        (status.waiting_since, "the wait for approval and guards started".to_owned()),
        (decision.and_then(|(_, by)| by.at), decided.unwrap_or_default()),
        (status.started_at, "the action started".to_owned()),
        (status.executed_at, "the action was carried out".to_owned()),
        (status.healthy_since, "the component has been healthy since, without interruption".to_owned()),
        (status.finished_at, format!("{}: {}", status.phase, status.reason)),
        (status.recorded_at, "recorded in the ledger".to_owned()),
    ];
    let mut moments: Vec<Moment> =
        moments.into_iter().filter_map(|(at, what)| Some(Moment { at: at?, what })).collect();
    moments.sort_by_key(|moment| moment.at);
    moments
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn remediation(patch: &[(&str, Value)]) -> Remediation {
        let mut object = json!({
            "apiVersion": "panacea.dev/v1alpha1", "kind": "Remediation", "metadata": {"name": "shop-api-1-0", "uid": "u-1"},
            "spec": {
                "plan": {
                    "policy": "shop", "policyUid": "p-1", "component": "api",
                    "target": {"kind": "Deployment", "name": "api"}, "action": "Restart", "intent": {"restart": {}},
                    "cause": "Crash", "episode": "1", "step": 0, "why": "it crashes",
                    "decidedAt": "2026-11-28T04:00:00Z", "approvalRequired": true,
                },
            },
            "status": {"phase": "AwaitingApproval", "reason": "AwaitingApproval", "message": "it waits"},
        });
        for (pointer, value) in patch {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_plan_identifies_the_action_and_its_target() {
        let plan = plan_of(&remediation(&[]));
        assert_eq!(plan.len(), 16);
        for same in [
            ("/spec/approval", json!({"decision": "Approved"})),
            ("/status/phase", json!("Blocked")),
            ("/status/message", json!("it waits for something else")),
        ] {
            assert_eq!(plan_of(&remediation(std::slice::from_ref(&same))), plan, "{same:?}");
        }
        let session = json!({"pid": 7, "connectedAt": "2026-11-28T03:00:00Z", "user": "a", "application": "b", "state": "idle", "since": "2026-11-28T03:00:00Z"});
        for other in [
            ("/metadata/uid", json!("u-2")),
            ("/spec/plan/intent", json!({"failover": {}})),
            ("/spec/plan/why", json!("it is slow")),
            ("/spec/plan/target/name", json!("web")),
            ("/status/progress", json!({"sessions": {"sessions": [session]}})),
        ] {
            assert_ne!(plan_of(&remediation(std::slice::from_ref(&other))), plan, "{other:?}");
        }
    }

    #[test]
    fn a_decided_or_started_action_is_not_decided_again() {
        let explained = explanation(remediation(&[]));
        assert!(
            explained.decidable
                && explained.how_to_decide.contains(&explained.plan)
                && explained.how_to_decide.contains("kubectl patch rem")
        );
        for phase in ["Running", "Verifying", "Succeeded", "Expired"] {
            let explained = explanation(remediation(&[("/status/phase", json!(phase))]));
            assert!(!explained.decidable && explained.how_to_decide.contains(phase), "{}", explained.how_to_decide);
        }
        let explained =
            explanation(remediation(&[("/spec/approval", json!({"decision": "Rejected", "reason": "no"}))]));
        assert!(
            !explained.decidable && explained.how_to_decide.contains("was Rejected already"),
            "{}",
            explained.how_to_decide
        );
    }
}
