//! What goes into the ledger: pure. Ids are derived, so a row that is written again is the same row.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};

use super::memory::Check;
use crate::{
    analyze::{
        forecast::{Forecast, TimeToFailure},
        hindsight::Missed,
        observation::Measured,
    },
    api::{
        ActionKind, CleanupStatus, ConfigChange, Decision, MemoryGrowth, Outcome, Phase, Remediation,
        RemediationStatus, Settled, Trend, ValidComponent, ValidPolicy, ValidTarget, Warning,
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

/// The two rows of one look.
pub fn check_rows(
    policy: &ValidPolicy,
    component: &ValidComponent,
    look: &Check,
    trend: Option<Trend>,
    forecast: Option<&Forecast>,
) -> [Row; 2] {
    let at = look.observation.at;
    let id = check_id(&policy.namespace, &policy.name, &component.name, at);
    let metrics = look.observation.metrics.iter().filter_map(|(name, reading)| match reading.value {
        Measured::Known(value) => Some((name.clone(), value)),
        Measured::Unknown(_) => None,
    });
    let problems: Vec<&str> = look.assessment.problems.iter().map(|problem| problem.message.as_str()).collect();
    let unknowns =
        look.assessment.unknowns.iter().map(|(name, why)| format!("{name}: {}: {}", why.reason, why.message));
    let warnings: Vec<String> = problems.iter().map(|text| (*text).to_owned()).chain(unknowns).collect();
    let measured =
        forecast.filter(|forecast| forecast.confidence != crate::analyze::forecast::Confidence::InsufficientHistory);
    let mut output = json!({
        "status": look.assessment.status.to_string(),
        "health_score": look.assessment.score,
        "warnings": warnings,
    });
    if let Some(forecast) = measured {
        output["failure_probability"] = json!(forecast.probability());
        output["failure_probability_1h"] = json!(forecast.within[0]);
        output["failure_probability_6h"] = json!(forecast.within[1]);
        output["leak"] = json!(forecast.leak);
        output["time_to_failure"] = json!(forecast.band().map(|band| band.to_string()));
        output["reasons"] = json!(forecast.reasons);
    }
    let check = BrainRow {
        id,
        action: ActionType::ProactiveHealthCheck,
        input: json!({"target": component.target.describe()}),
        output,
        success: look.assessment.score.is_some(),
        metadata: Metadata::component(&policy.namespace, &policy.name, &component.name),
        executed_at: at,
    };
    let health = HealthRow {
        id,
        namespace: policy.namespace.clone(),
        policy: policy.name.clone(),
        component: component.name.clone(),
        score: look.assessment.score.map(f64::from),
        trend: trend.map(|trend| trend.to_string()),
        predicted_failure_time: measured
            .and_then(|forecast| forecast.time_to_failure)
            .and_then(|time| failure_time(time, at)),
        failure_probability: measured.map(Forecast::probability),
        metrics: metrics.collect(),
        warnings,
        at,
    };
    [check.into(), health.into()]
}

/// When it is expected to have failed.
fn failure_time(time: TimeToFailure, at: Timestamp) -> Option<Timestamp> {
    at.checked_add(jiff::SignedDuration::try_from_secs_f64(time.seconds.round()).ok()?).ok()
}

/// What came of a warning.
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

/// One round of looks at a policy.
pub fn cycle_row(policy: &ValidPolicy, looks: usize, unhealthy: usize, now: Timestamp) -> Row {
    BrainRow {
        id: cycle_id(&policy.namespace, &policy.name, now),
        action: ActionType::ReconciliationCycle,
        input: json!({"components": policy.components.len()}),
        output: json!({"looks": looks, "unhealthy": unhealthy}),
        success: true,
        metadata: Metadata::policy(&policy.namespace, &policy.name),
        executed_at: now,
    }
    .into()
}

/// All rows of a Remediation that has ended: its decision, its action, its rollback.
pub fn remediation_rows(remediation: &Remediation) -> Vec<Row> {
    let spec = &remediation.spec;
    let status: RemediationStatus = remediation.status.clone().unwrap_or_default();
    let uid = remediation.metadata.uid.as_deref().unwrap_or_default();
    let metadata = Metadata {
        component: Some(spec.component.clone()),
        policy: spec.policy.clone(),
        namespace: remediation.metadata.namespace.clone().unwrap_or_default(),
        remediation: remediation.metadata.name.clone(),
    };
    let ended = status.finished_at.unwrap_or(spec.decided_at);
    let mut rows: Vec<Row> = Vec::new();
    if let (Some(approval), Some(decided_by)) = (&spec.approval, &status.decided_by) {
        let (action, success) = match approval.decision {
            Decision::Approved => (ActionType::RemediationApproval, true),
            Decision::Rejected => (ActionType::RemediationRejected, false),
        };
        rows.push(
            BrainRow {
                id: row_id(uid, "decision"),
                action,
                input: json!({"action": spec.action.to_string(), "why": spec.why}),
                output: json!({"decision": approval.decision.to_string(), "reason": approval.reason, "decided_by": decided_by.manager}),
                success,
                metadata: metadata.clone(),
                executed_at: decided_by.at.unwrap_or(ended),
            }
            .into(),
        );
    }
    // Nothing was begun: there is a decision at most, no action.
    let Some(started_at) = status.started_at else { return rows };
    let success = status.phase == Phase::Succeeded;
    use ActionKind as A;
    let action = match (spec.action, success) {
        (A::RollbackDeployment | A::RollbackConfig | A::RollbackPreviousState, true) => ActionType::AutomaticRollback,
        (A::RollbackDeployment | A::RollbackConfig | A::RollbackPreviousState, false) => ActionType::RollbackFailed,
        // One type for both: the column success tells.
        (A::CleanupMemory, _) => ActionType::MemoryLeakCleanup,
        (A::Scale, true) => ActionType::ServiceScaled,
        (A::Scale, false) => ActionType::ServiceScaleFailed,
        (A::Job | A::Webhook | A::Mcp, true) => ActionType::CustomRemedy,
        (A::Job | A::Webhook | A::Mcp, false) => ActionType::CustomRemedyFailed,
        (A::Restart, true) => ActionType::ServiceRestart,
        (A::Restart, false) => ActionType::ServiceRestartFailed,
        (A::RecoverConnections | A::ReleaseConnections | A::CancelLongQueries | A::Failover, true) => {
            ActionType::DbConnectionRecovered
        }
        (A::RecoverConnections | A::ReleaseConnections | A::CancelLongQueries | A::Failover, false) => {
            ActionType::DbRecoveryFailed
        }
    };
    let seconds = |from: Option<Timestamp>, to: Option<Timestamp>| {
        from.zip(to).map(|(from, to)| to.duration_since(from).as_secs_f64())
    };
    let id = row_id(uid, "action");
    let mut input = json!({
        "action": spec.action.to_string(), "cause": spec.cause.to_string(), "why": spec.why,
        "target": format!("{}/{}", spec.target.kind, spec.target.name), "episode": spec.episode, "rung": spec.rung,
        "proactive": spec.foreseen.is_some(), "decided_at": spec.decided_at,
    });
    if let Some(foreseen) = &spec.foreseen {
        input["foreseen"] = json!(foreseen);
    }
    let mut output = json!({
        "phase": status.phase.to_string(), "reason": status.reason, "message": status.message,
        "executed": status.executed_at.is_some(), "started_at": started_at, "finished_at": status.finished_at,
        "decided_to_executed_s": seconds(Some(spec.decided_at), status.executed_at),
        "executed_to_finished_s": seconds(status.executed_at, status.finished_at),
    });
    if let (Some(growth), Some(fields)) = (&spec.memory, output.as_object_mut()) {
        fields.extend(cleaned(growth, status.cleanup.as_ref()));
    }
    if let Some(scaling) = &spec.scale {
        output["replicas"] = json!({"from": scaling.from, "to": scaling.to});
    }
    if let Some(hosted) = &status.hosted {
        output["status_code"] = json!(hosted.status_code);
        output["attempts"] = json!(hosted.attempts);
        output["duration_s"] = json!(seconds(Some(started_at), status.executed_at.or(status.finished_at)));
        output["deploy"] = json!(hosted.deploy);
    }
    if let Some(database) = &status.database {
        output["duration_s"] = json!(seconds(Some(started_at), status.executed_at.or(status.finished_at)));
        if spec.action.is_of_sessions() {
            let ended = database.ended.as_deref().unwrap_or_default();
            output["matched"] = json!(database.sessions.len());
            output["ended"] = json!(ended.len());
            output["pids"] = json!(ended);
        } else {
            output["attempts"] = json!(database.attempts);
            output["errors"] = json!(database.errors);
        }
    }
    if let Some(job) = status.run.as_ref().and_then(|run| run.job.as_ref()) {
        output["job"] = json!(job);
    }
    if let Some(mcp) = &spec.mcp {
        output["tool"] = json!(mcp.tool);
        output["called_at"] = json!(status.run.as_ref().and_then(|run| run.called_at));
    }
    rows.push(
        BrainRow {
            id,
            action,
            input,
            output,
            success,
            metadata,
            executed_at: status.executed_at.unwrap_or(started_at),
        }
        .into(),
    );
    // What is put back, from what to what: digests, never content.
    let content = |of: fn(&ConfigChange) -> &String| {
        let objects = spec.config.iter().flat_map(|config| &config.objects);
        let map = objects.map(|change| (change.to_string(), json!(of(change)))).collect();
        Value::Object(map)
    };
    let states = match spec.action {
        A::RollbackDeployment => Some(("deployment", json!(spec.from), json!(spec.to))),
        A::RollbackPreviousState => Some((
            "previous_state",
            json!({"template": spec.from, "config": content(|change| &change.from)}),
            json!({"template": spec.to, "config": content(|change| &change.to)}),
        )),
        A::RollbackConfig => Some(("config", content(|change| &change.from), content(|change| &change.to))),
        A::CleanupMemory | A::Restart | A::Scale | A::Job | A::Webhook | A::Mcp => None,
        A::RecoverConnections | A::ReleaseConnections | A::CancelLongQueries | A::Failover => None,
    };
    if let Some((rollback_type, from_state, to_state)) = states {
        rows.push(
            RollbackRow {
                id,
                component: spec.component.clone(),
                rollback_type: rollback_type.into(),
                from_state,
                to_state,
                success,
                error_message: (!success).then(|| format!("{}: {}", status.reason, status.message)),
                executed_at: status.executed_at.unwrap_or(started_at),
            }
            .into(),
        );
    }
    rows
}

/// What a cleanup found and freed. `baseline`, `before`, `after` are in the metric's unit, `freed_mb` in megabytes (10^6
/// bytes) as measured by that metric, whoever says what else; null: not known.
fn cleaned(growth: &MemoryGrowth, cleanup: Option<&CleanupStatus>) -> serde_json::Map<String, Value> {
    let megabytes = |value: f64| growth.bytes_per_unit.map(|bytes| value * bytes / 1e6);
    let after = cleanup.and_then(|cleanup| cleanup.after);
    let fields = json!({
        "metric": growth.metric, "baseline": growth.baseline, "before": growth.value, "after": after,
        "baseline_mb": megabytes(growth.baseline), "before_mb": megabytes(growth.value),
        "after_mb": after.and_then(megabytes), "freed_mb": after.and_then(|after| megabytes(growth.value - after)),
        "leak_detected": growth.leak,
        "objects_collected": cleanup.and_then(|cleanup| cleanup.objects_collected),
        "hook_freed_mb": cleanup.and_then(|cleanup| cleanup.memory_freed_mb),
        "pods": cleanup.map(|cleanup| cleanup.pods.iter().map(|pod| &pod.name).collect::<Vec<_>>()),
    });
    match fields {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    }
}
