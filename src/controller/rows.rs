//! The rows of the ledger: pure. Ids are derived, so a row that is written again is the same row.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};

use super::memory::Check;
use crate::{
    analyze::{
        forecast::{Confidence, Forecast, TimeToFailure},
        hindsight::Missed,
        observation::Measured,
    },
    api::{
        ActionKind, CleanupProgress, ConfigChange, Decision, Intent, JobProgress, MemoryGrowth, Outcome, Phase,
        Progress, Remediation, Settled, Trend, ValidComponent, ValidPolicy, ValidTarget, Warning,
    },
    knowledge::{ActionType, BrainRow, HealthRow, Metadata, RollbackRow, Row, check_id, cycle_id, outcome_id, row_id},
};

/// The Kubernetes object behind a target, for events.
pub fn target_reference(namespace: &str, target: &ValidTarget) -> Option<ObjectReference> {
    target.workload().map(|(kind, name)| ObjectReference {
        api_version: Some(kind.api_version().into()),
        kind: Some(kind.to_string()),
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectReference::default()
    })
}

/// The two rows of one check.
pub fn check_rows(
    policy: &ValidPolicy,
    component: &ValidComponent,
    check: &Check,
    trend: Option<Trend>,
    forecast: Option<&Forecast>,
) -> [Row; 2] {
    let Check { observation, assessment } = check;
    let at = observation.at;
    let id = check_id(&policy.namespace, &policy.name, &component.name, at);
    let metrics = observation.metrics.iter().filter_map(|(name, reading)| match reading.value {
        Measured::Known(value) => Some((name.clone(), value)),
        Measured::Unknown(_) => None,
    });
    let problems = assessment.problems.iter().map(|problem| problem.message.clone());
    let unknowns = assessment.unknowns.iter().map(|(name, why)| format!("{name}: {}: {}", why.reason, why.message));
    let warnings: Vec<String> = problems.chain(unknowns).collect();
    let mut output = json!({
        "status": assessment.status.to_string(), "health_score": assessment.score, "warnings": warnings,
    });
    let measured = forecast.filter(|forecast| forecast.confidence != Confidence::InsufficientHistory);
    if let Some(forecast) = measured {
        let fields = json!({
            "failure_probability": forecast.probability(), "failure_probability_1h": forecast.within[0],
            "failure_probability_6h": forecast.within[1], "leak": forecast.leak,
            "time_to_failure": forecast.band().map(|band| band.to_string()), "reasons": forecast.reasons,
        });
        extend(&mut output, fields);
    }
    let row = BrainRow {
        id,
        action: ActionType::ProactiveHealthCheck,
        input: json!({"target": component.target.describe()}),
        output,
        success: assessment.score.is_some(),
        metadata: Metadata::component(&policy.namespace, &policy.name, &component.name),
        executed_at: at,
    };
    let failure = measured.and_then(|forecast| forecast.time_to_failure).and_then(|time| failure_time(time, at));
    let health = HealthRow {
        id,
        namespace: policy.namespace.clone(),
        policy: policy.name.clone(),
        component: component.name.clone(),
        score: assessment.score.map(f64::from),
        trend: trend.map(|trend| trend.to_string()),
        predicted_failure_time: failure,
        failure_probability: measured.map(Forecast::probability),
        metrics: metrics.collect(),
        warnings,
        at,
    };
    [row.into(), health.into()]
}

/// Puts the fields of one JSON object into another.
fn extend(object: &mut Value, fields: Value) {
    if let (Value::Object(object), Value::Object(fields)) = (object, fields) {
        object.extend(fields);
    }
}

/// The expected time of the failure.
fn failure_time(time: TimeToFailure, at: Timestamp) -> Option<Timestamp> {
    at.checked_add(jiff::SignedDuration::try_from_secs_f64(time.seconds.round()).ok()?).ok()
}

/// The outcome of a warning.
pub fn outcome_row(policy: &ValidPolicy, component: &str, warning: &Warning, settled: &Settled) -> Row {
    let foreseen = &warning.foreseen;
    BrainRow {
        id: outcome_id(&policy.namespace, &policy.name, component, &foreseen.id),
        action: ActionType::ForecastOutcome,
        input: json!({"foreseen": foreseen}),
        output: json!({
            "outcome": settled.outcome.to_string(), "message": settled.message, "remediation": settled.remediation,
            "foreseen_to_known_s": settled.at.duration_since(foreseen.at).as_secs_f64(),
        }),
        success: settled.outcome.is_right(),
        metadata: Metadata::component(&policy.namespace, &policy.name, component),
        executed_at: settled.at,
    }
    .into()
}

/// A failure that no warning had announced.
pub fn missed_row(policy: &ValidPolicy, component: &str, missed: &Missed) -> Row {
    let Missed { episode, at, message } = missed;
    BrainRow {
        id: outcome_id(&policy.namespace, &policy.name, component, &format!("missed-{}", episode.id)),
        action: ActionType::ForecastOutcome,
        input: json!({"episode": episode.id, "cause": episode.cause.to_string()}),
        output: json!({"outcome": Outcome::Missed.to_string(), "message": message}),
        success: false,
        metadata: Metadata::component(&policy.namespace, &policy.name, component),
        executed_at: *at,
    }
    .into()
}

/// One round of checks of a policy.
pub fn cycle_row(policy: &ValidPolicy, checks: usize, unhealthy: usize, now: Timestamp) -> Row {
    BrainRow {
        id: cycle_id(&policy.namespace, &policy.name, now),
        action: ActionType::ReconciliationCycle,
        input: json!({"components": policy.components.len()}),
        output: json!({"looks": checks, "unhealthy": unhealthy}),
        success: true,
        metadata: Metadata::policy(&policy.namespace, &policy.name),
        executed_at: now,
    }
    .into()
}

/// All rows of a Remediation that has ended: its decision, its action, its rollback.
pub fn remediation_rows(remediation: &Remediation) -> Vec<Row> {
    let plan = &remediation.spec.plan;
    let status = remediation.status.clone().unwrap_or_default();
    let uid = remediation.metadata.uid.as_deref().unwrap_or_default();
    let metadata = Metadata {
        component: Some(plan.component.clone()),
        policy: plan.policy.clone(),
        namespace: remediation.metadata.namespace.clone().unwrap_or_default(),
        remediation: remediation.metadata.name.clone(),
    };
    let mut rows: Vec<Row> = Vec::new();
    if let (Some(approval), Some(decided_by)) = (&remediation.spec.approval, &status.decided_by) {
        let (action, success) = match approval.decision {
            Decision::Approved => (ActionType::RemediationApproval, true),
            Decision::Rejected => (ActionType::RemediationRejected, false),
        };
        let output = json!({
            "decision": approval.decision.to_string(), "reason": approval.reason, "decided_by": decided_by.manager,
        });
        let row = BrainRow {
            id: row_id(uid, "decision"),
            action,
            input: json!({"action": plan.action.to_string(), "why": plan.why}),
            output,
            success,
            metadata: metadata.clone(),
            executed_at: decided_by.at.or(status.finished_at).unwrap_or(plan.decided_at),
        };
        rows.push(row.into());
    }
    // An action that was not started has a decision at most.
    let Some(started_at) = status.started_at else { return rows };
    let success = status.phase == Phase::Succeeded;
    let executed_at = status.executed_at.unwrap_or(started_at);
    use ActionKind as A;
    let (done, failed) = match plan.action {
        A::Rollback | A::RollbackConfig | A::RollbackState => {
            (ActionType::AutomaticRollback, ActionType::RollbackFailed)
        }
        // One type for both: the column success distinguishes them.
        A::CleanupMemory => (ActionType::MemoryLeakCleanup, ActionType::MemoryLeakCleanup),
        A::Scale => (ActionType::ServiceScaled, ActionType::ServiceScaleFailed),
        A::Job | A::Webhook | A::Mcp => (ActionType::CustomRemedy, ActionType::CustomRemedyFailed),
        A::Restart => (ActionType::ServiceRestart, ActionType::ServiceRestartFailed),
        A::RecoverConnections | A::ReleaseConnections | A::CancelQueries | A::Failover => {
            (ActionType::DbConnectionRecovered, ActionType::DbRecoveryFailed)
        }
    };
    let seconds = |from: Option<Timestamp>, to: Option<Timestamp>| {
        from.zip(to).map(|(from, to)| to.duration_since(from).as_secs_f64())
    };
    let id = row_id(uid, "action");
    let mut input = json!({
        "action": plan.action.to_string(), "cause": plan.cause.to_string(), "why": plan.why,
        "target": format!("{}/{}", plan.target.kind, plan.target.name), "episode": plan.episode, "step": plan.step,
        "proactive": plan.foreseen.is_some(), "decided_at": plan.decided_at,
    });
    if let Some(foreseen) = &plan.foreseen {
        input["foreseen"] = json!(foreseen);
    }
    let mut output = json!({
        "phase": status.phase.to_string(), "reason": status.reason, "message": status.message,
        "executed": status.executed_at.is_some(), "started_at": started_at, "finished_at": status.finished_at,
        "decided_to_executed_s": seconds(Some(plan.decided_at), status.executed_at),
        "executed_to_finished_s": seconds(status.executed_at, status.finished_at),
    });
    let duration = seconds(Some(started_at), status.executed_at.or(status.finished_at));
    let progress = status.progress.as_ref();
    extend(
        &mut output,
        match progress {
            Some(Progress::Provider(provider)) => json!({
                "status_code": provider.status_code, "attempts": provider.attempts, "duration_s": duration,
                "deploy": provider.deploy,
            }),
            Some(Progress::Sessions(sessions)) => {
                let ended = sessions.ended.as_deref().unwrap_or_default();
                let matched = sessions.sessions.len();
                json!({"duration_s": duration, "matched": matched, "ended": ended.len(), "pids": ended})
            }
            Some(Progress::Connections(connections)) => {
                json!({"duration_s": duration, "attempts": connections.attempts, "errors": connections.errors})
            }
            Some(Progress::Job(JobProgress { job: Some(job) })) => json!({"job": job}),
            _ => Value::Null,
        },
    );
    extend(
        &mut output,
        match &plan.intent {
            Intent::CleanupMemory { memory, .. } => cleaned(memory, progress.and_then(Progress::cleanup)),
            Intent::Scale(scaling) => json!({"replicas": {"from": scaling.from, "to": scaling.to}}),
            Intent::Mcp(mcp) => {
                let called_at = progress.and_then(Progress::mcp).and_then(|progress| progress.called_at);
                json!({"tool": mcp.tool, "called_at": called_at})
            }
            _ => Value::Null,
        },
    );
    let action = if success { done } else { failed };
    rows.push(BrainRow { id, action, input, output, success, metadata, executed_at }.into());
    // Digests, never content.
    let content = |of: fn(&ConfigChange) -> &String| {
        let objects = plan.intent.config().into_iter().flat_map(|config| &config.objects);
        let map = objects.map(|change| (change.to_string(), json!(of(change)))).collect();
        Value::Object(map)
    };
    let (before, after) = (|| content(|change| &change.from), || content(|change| &change.to));
    let (rollback_type, from_state, to_state) = match &plan.intent {
        Intent::Rollback { to } => ("deployment", json!(plan.release), json!(to)),
        Intent::RollbackState { to, .. } => (
            "previous_state",
            json!({"template": plan.release, "config": before()}),
            json!({"template": to, "config": after()}),
        ),
        Intent::RollbackConfig { .. } => ("config", before(), after()),
        _ => return rows,
    };
    let row = RollbackRow {
        id,
        component: plan.component.clone(),
        rollback_type: rollback_type.into(),
        from_state,
        to_state,
        success,
        error_message: (!success).then(|| format!("{}: {}", status.reason, status.message)),
        executed_at,
    };
    rows.push(row.into());
    rows
}

/// What a cleanup found and freed. `baseline`, `before`, `after` are in the metric's unit, `freed_mb` in megabytes (10^6
/// bytes) as measured by that metric, whatever the hook reports; null: not known.
fn cleaned(growth: &MemoryGrowth, cleanup: Option<&CleanupProgress>) -> Value {
    let megabytes = |value: f64| growth.bytes_per_unit.map(|bytes| value * bytes / 1e6);
    let after = cleanup.and_then(|cleanup| cleanup.after);
    json!({
        "metric": growth.metric, "baseline": growth.baseline, "before": growth.value, "after": after,
        "baseline_mb": megabytes(growth.baseline), "before_mb": megabytes(growth.value),
        "after_mb": after.and_then(megabytes), "freed_mb": after.and_then(|after| megabytes(growth.value - after)),
        "leak_detected": growth.leak,
        "objects_collected": cleanup.and_then(|cleanup| cleanup.objects_collected),
        "hook_freed_mb": cleanup.and_then(|cleanup| cleanup.memory_freed_mb),
        "pods": cleanup.map(|cleanup| cleanup.pods.iter().map(|pod| &pod.name).collect::<Vec<_>>()),
    })
}
