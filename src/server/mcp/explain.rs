//! One Remediation, told whole.

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

/// A decision is about what was explained: the object, all of its spec, and the sessions that it would be done to.
/// Two that differ in any of these have another plan. 16 hexadecimal digits.
pub(super) fn plan_of(remediation: &Remediation) -> String {
    let spec = RemediationSpec { approval: None, ..remediation.spec.clone() };
    let sessions: &[SessionRef] = remediation.status.as_ref().map(sessions).unwrap_or_default();
    let seen = serde_json::json!([remediation.metadata.uid, spec, sessions]);
    let digest = Sha256::digest(seen.to_string());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The sessions of a database that the action would end.
fn sessions(status: &RemediationStatus) -> &[SessionRef] {
    let progress = status.progress.as_ref().and_then(Progress::sessions);
    progress.map(|progress| progress.sessions.as_slice()).unwrap_or_default()
}

/// A person's decision still counts in this phase.
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
    /// What was seen, against which limits, and why this remedy.
    why: String,
    /// What it does to the target, in words.
    would_do: String,
    /// The template that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<TemplateRef>,
    /// The template to go back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<TemplateRef>,
    /// What was foreseen when it was decided, before anything was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    foreseen: Option<Foreseen>,
    /// The sessions of a database that it would be done to, at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sessions: Vec<SessionRef>,
    phase: Phase,
    /// What it waits for, what refuses it, or how it ended: CamelCase, from a closed set.
    reason: String,
    message: String,
    /// A person must say yes before anything is done.
    approval_required: bool,
    /// A decision would still count.
    decidable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decided>,
    timeline: Vec<Moment>,
    /// What approve_remediation and reject_remediation take as `plan`.
    plan: String,
    /// How a person decides, with and without this server.
    how_to_decide: String,
}

/// A decision that was made.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Decided {
    decision: Decision,
    reason: String,
    /// The field manager that made it, once the operator has taken it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

/// Something that happened.
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
    Ok(explanation(&cluster.remediation(namespace, &asked.remediation).await?))
}

fn explanation(remediation: &Remediation) -> Explanation {
    let spec = remediation.spec.clone();
    let status = remediation.status.clone().unwrap_or_default();
    let decision = spec.approval.as_ref().map(|approval| Decided {
        decision: approval.decision,
        reason: approval.reason.clone(),
        by: status.decided_by.as_ref().map(|by| by.manager.clone()),
    });
    let decidable = decision.is_none() && is_open(status.phase);
    let plan = plan_of(remediation);
    let how_to_decide = if decidable {
        format!(
            "To decide: approve_remediation or reject_remediation with plan {plan:?}, or as a person: {} (or Rejected)",
            remediation.approve_command()
        )
    } else if let Some(decided) = &decision {
        format!("It was {} already; a decision cannot be changed", decided.decision)
    } else {
        format!("It is {}: a decision would change nothing", status.phase)
    };
    let (sessions, would_do, timeline) =
        (sessions(&status).to_vec(), would_do(&spec.plan, &status), timeline(&spec, &status));
    let to = spec.plan.intent.template().cloned();
    let ActionPlan { policy, component, target, action, cause, why, release, foreseen, approval_required, .. } =
        spec.plan;
    Explanation {
        namespace: remediation.namespace().unwrap_or_default(),
        remediation: remediation.name_any(),
        would_do,
        timeline,
        sessions,
        policy,
        component,
        target,
        action,
        cause,
        why,
        from: release,
        to,
        foreseen,
        phase: status.phase,
        reason: status.reason,
        message: status.message,
        approval_required,
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
        Intent::Rollback { to } => format!("{target} is rolled back{from} to {to}, which was seen healthy"),
        Intent::RollbackConfig { config } => format!(
            "{} get back the content with which {target} was last seen healthy; then its pods are replaced",
            listed(config)
        ),
        Intent::RollbackState { to, config } => format!(
            "{target} is rolled back{from} to {to} with its strategy and number of pods, and {} get back their content",
            listed(config)
        ),
        Intent::CleanupMemory { hook: Some(hook), .. } => {
            format!("{} is called, so that {target} frees memory by itself", hook.url)
        }
        Intent::CleanupMemory { hook: None, .. } => {
            format!("the pods of {target} whose memory grows are evicted, one at a time")
        }
        Intent::Restart {} => format!("{target} is restarted"),
        Intent::Scale(scale) => format!("{target} gets {} pods instead of {}", scale.to, scale.from),
        Intent::Job(_) => format!("a Job of the team is run, which is to heal {target}"),
        Intent::Webhook(webhook) => format!("{} is called, which is to heal {target}", webhook.url),
        Intent::Mcp(mcp) => format!("the tool {} of {} is called, which is to heal {target}", mcp.tool, mcp.url),
        Intent::RecoverConnections(_) => format!("Panacea reconnects to {target} until a connection is accepted"),
        Intent::Failover {} => {
            format!("the standby of {target} takes over; {}", plan.action.cost().unwrap_or_default())
        }
        Intent::ReleaseConnections(_) => format!("{} sessions of {target} end", sessions(status).len()),
        Intent::CancelQueries(_) => {
            format!("{} sessions of {target} have their query cancelled", sessions(status).len())
        }
    }
}

fn timeline(spec: &RemediationSpec, status: &RemediationStatus) -> Vec<Moment> {
    let decided = status.decided_by.as_ref().and_then(|by| {
        let decision = spec.approval.as_ref()?;
        Some((by.at?, format!("{} by {}", decision.decision, by.manager)))
    });
    let moment = |at: Option<Timestamp>, what: &str| at.map(|at| (at, what.to_owned()));
    let ended = format!("{}: {}", status.phase, status.reason);
    let mut moments: Vec<(Timestamp, String)> = [
        moment(Some(spec.plan.decided_at), "the remedy was chosen"),
        moment(status.waiting_since, "it waits"),
        decided,
        moment(status.started_at, "it was begun"),
        moment(status.executed_at, "it was done"),
        moment(status.healthy_since, "the component has been healthy since, without a break"),
        moment(status.finished_at, &ended),
        moment(status.recorded_at, "it is in the ledger"),
    ]
    .into_iter()
    .flatten()
    .collect();
    moments.sort_by_key(|(at, _)| *at);
    moments.into_iter().map(|(at, what)| Moment { at, what }).collect()
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
    fn a_plan_is_of_what_would_be_done_and_to_what() {
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
    fn what_is_decided_or_done_already_is_not_decided_again() {
        let told = explanation(&remediation(&[]));
        assert!(
            told.decidable
                && told.how_to_decide.contains(&told.plan)
                && told.how_to_decide.contains("kubectl patch rem")
        );
        for phase in ["Running", "Verifying", "Succeeded", "Expired"] {
            let told = explanation(&remediation(&[("/status/phase", json!(phase))]));
            assert!(!told.decidable && told.how_to_decide.contains(phase), "{}", told.how_to_decide);
        }
        let told = explanation(&remediation(&[("/spec/approval", json!({"decision": "Rejected", "reason": "no"}))]));
        assert!(!told.decidable && told.how_to_decide.contains("was Rejected already"), "{}", told.how_to_decide);
    }
}
