//! One look → score, status and problems.

use std::collections::BTreeMap;

use super::{
    metric,
    normal::Normal,
    observation::{FaultKind, Hosted, Measured, Observation, TargetState, UnknownReason, Unmeasured, Workload},
    window::{History, Window},
};
use crate::api::{HealthStatus, Threshold};

/// A share of faulty pods from which on a workload that was fine counts as unhealthy: what a Deployment lets be
/// unavailable during its own rollouts (maxUnavailable defaults to 25%). Below it Kubernetes copes by itself.
const FAULTY_SHARE: f64 = 0.25;

/// What is unusual costs whole steps of so many points.
const STEP: f64 = 5.0;

/// How much a problem weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Below every threshold, and far out of what this component is used to: costs of the score, and nothing else.
    Unusual,
    /// Worth showing; never a reason to act.
    Warning,
    /// A reason to act, once confirmed.
    Critical,
}

/// What kind of problem, for causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProblemKind {
    /// A metric above a threshold, by name.
    Metric(String),
    Fault(FaultKind),
    /// The rollout made no progress for `progressDeadlineSeconds`.
    ProgressDeadlineExceeded,
    /// Fewer pods available than wanted, without a known fault.
    Unavailable,
    Unschedulable,
    /// A rollout that was given up: the template that is asked for does not run.
    Stopped,
    /// The HTTP service answers wrongly or not at all.
    Http,
    /// The database takes no new connection.
    NoConnection,
    /// The same, since all of them are taken.
    Saturated,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub kind: ProblemKind,
    pub severity: Severity,
    /// It can be told that the newest template's pods have it.
    pub of_release: bool,
    /// What was seen against which limit.
    pub message: String,
    /// The measured value, for metrics.
    pub value: Option<f64>,
}

/// The judgement of one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessment {
    pub status: HealthStatus,
    /// 0 (dead) to 100 (fine). None when the status is Unknown.
    pub score: Option<u8>,
    /// The worst first.
    pub problems: Vec<Problem>,
    /// What could not be measured, by metric name or `target`.
    pub unknowns: Vec<(String, Unmeasured)>,
}

impl Assessment {
    /// Unhealthy or Critical.
    pub fn is_bad(&self) -> bool {
        matches!(self.status, HealthStatus::Unhealthy | HealthStatus::Critical)
    }

    pub fn critical(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.severity == Severity::Critical)
    }

    /// For a person: the problems, then what could not be measured.
    pub fn message(&self) -> String {
        let problems = self.problems.iter().map(|problem| problem.message.clone());
        let unknowns =
            self.unknowns.iter().map(|(name, why)| format!("{name} unknown ({}): {}", why.reason, why.message));
        let all: Vec<String> = problems.chain(unknowns).take(5).collect();
        if all.is_empty() { "all signals are within their limits".to_owned() } else { all.join("; ") }
    }
}

/// Judges one look.
///
/// `history`: the looks before it, from which it is learned what is usual; far out of that range costs the more of the
/// score the nearer the warning threshold is. `release_unproven`: the newest template was not yet seen healthy, so that one faulty pod of it is enough.
///
/// A critical problem makes the component Unhealthy whatever else could not be measured: that much is known.
/// Otherwise anything unmeasured makes it Unknown, never healthy.
pub fn assess(
    observation: &Observation,
    thresholds: &BTreeMap<String, Threshold>,
    history: &History,
    release_unproven: bool,
) -> Assessment {
    let mut problems = Vec::new();
    let mut unknowns = Vec::new();
    let mut penalty: u32 = 0;
    let mut serves = true;

    match &observation.target {
        Measured::Known(TargetState::Workload(workload)) => {
            penalty += workload_problems(workload, release_unproven, &mut problems);
            serves = workload.available > 0 || workload.desired == 0;
        }
        Measured::Known(TargetState::Hosted(hosted)) => {
            penalty += hosted_problems(hosted, &mut problems);
            serves = hosted.release.is_some();
        }
        Measured::Known(TargetState::Database(database)) => {
            if let Some(fault) = &database.fault {
                penalty += 100;
                serves = false;
                let kind = if fault.saturated { ProblemKind::Saturated } else { ProblemKind::NoConnection };
                problems.push(does_not_serve(kind, &fault.detail));
            }
            if let Some(why) = &database.shown {
                penalty += 15;
                let (kind, severity, message) = (ProblemKind::Unavailable, Severity::Warning, why.clone());
                problems.push(Problem { kind, severity, of_release: false, message, value: None });
            }
        }
        Measured::Known(TargetState::Http(http)) => {
            if let Some(failure) = &http.failure {
                penalty += 100;
                serves = false;
                problems.push(does_not_serve(ProblemKind::Http, failure));
            }
        }
        Measured::Unknown(why) => unknowns.push(("target".to_owned(), why.clone())),
    }
    for (name, reading) in &observation.metrics {
        match &reading.value {
            Measured::Unknown(why) => unknowns.push((name.clone(), why.clone())),
            Measured::Known(value) if !value.is_finite() => {
                let why = Unmeasured::new(UnknownReason::NotANumber, format!("the value is {value}"));
                unknowns.push((name.clone(), why));
            }
            Measured::Known(value) => {
                let Some(threshold) = thresholds.get(name) else { continue };
                let window = history.metrics.get(name);
                if let Some((severity, cost, mut message)) = judge(name, *value, threshold, window) {
                    penalty += cost;
                    if let Some(sample) = &reading.sample {
                        message += &format!(" in {sample}");
                    }
                    let kind = ProblemKind::Metric(name.clone());
                    problems.push(Problem {
                        kind,
                        severity,
                        of_release: reading.of_release,
                        message,
                        value: Some(*value),
                    });
                }
            }
        }
    }
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));

    let score = 100_u8.saturating_sub(u8::try_from(penalty).unwrap_or(100));
    let worst = problems.first().map(|problem| problem.severity);
    let status = match worst {
        Some(Severity::Critical) if !serves || score < 30 => HealthStatus::Critical,
        Some(Severity::Critical) => HealthStatus::Unhealthy,
        _ if !unknowns.is_empty() => HealthStatus::Unknown,
        Some(Severity::Warning) => HealthStatus::Degraded,
        Some(Severity::Unusual) | None => HealthStatus::Healthy,
    };
    Assessment { status, score: (status != HealthStatus::Unknown).then_some(score), problems, unknowns }
}

fn does_not_serve(kind: ProblemKind, message: &str) -> Problem {
    Problem { kind, severity: Severity::Critical, of_release: false, message: message.to_owned(), value: None }
}

/// What one metric's value costs of the score, and why.
fn judge(name: &str, value: f64, threshold: &Threshold, window: Option<&Window>) -> Option<(Severity, u32, String)> {
    let (at_warning, at_critical) = metric::penalty(name);
    let show = |value| metric::show(name, value);
    let above = |word: &str, limit| format!("{name} {} > {} ({word} threshold)", show(value), show(limit));
    if value > threshold.critical {
        return Some((Severity::Critical, at_critical.into(), above("critical", threshold.critical)));
    }
    if value > threshold.warning {
        return Some((Severity::Warning, at_warning.into(), above("warning", threshold.warning)));
    }
    let (share, usual) = Normal::left(window?, value, threshold.warning)?;
    // In whole steps: a score that trembles with its metrics would be a write at every look.
    let cost = (share * f64::from(at_warning) / STEP).floor() * STEP;
    (cost > 0.0).then(|| {
        let highest = usual.median + usual.reach;
        (Severity::Unusual, cost as u32, format!("{name} {} is unusual, up to {} is not", show(value), show(highest)))
    })
}

/// Adds the problems of a hosted service and returns what they cost of the score.
fn hosted_problems(hosted: &Hosted, problems: &mut Vec<Problem>) -> u32 {
    let mut cost = 0;
    let mut add = |kind, severity, of_release, message: &str, penalty| {
        problems.push(Problem { kind, severity, of_release, message: message.to_owned(), value: None });
        cost += penalty;
    };
    // Somebody's decision: what does not run cannot be healed, and is shown.
    if let Some(why) = &hosted.suspended {
        add(ProblemKind::Unavailable, Severity::Warning, false, why, 15);
        return cost;
    }
    if hosted.release.is_none() {
        add(ProblemKind::Unavailable, Severity::Critical, false, "no deploy is live", 100);
    }
    if let Some(fault) = &hosted.fault {
        let (severity, penalty) = if fault.lasting { (Severity::Critical, 40) } else { (Severity::Warning, 15) };
        add(ProblemKind::Fault(fault.kind), severity, fault.of_release, &fault.detail, penalty);
    }
    if let Some((run, wanted)) = hosted.instances.filter(|(run, wanted)| run < wanted) {
        let message = format!("{run} of {wanted} instances run");
        add(ProblemKind::Unavailable, Severity::Warning, false, &message, 15);
    }
    if let Some(failed) = &hosted.failed_deploy {
        add(ProblemKind::Unavailable, Severity::Warning, false, failed, 10);
    }
    cost
}

/// Adds the workload's problems and returns what they cost of the score.
fn workload_problems(workload: &Workload, release_unproven: bool, problems: &mut Vec<Problem>) -> u32 {
    let mut cost = 0;
    let mut add = |kind, severity, of_release, message, penalty| {
        problems.push(Problem { kind, severity, of_release, message, value: None });
        cost += penalty;
    };
    // The worst kind speaks for all: one line a person can read, not one a pod.
    if let Some(fault) = workload.faults.iter().max_by_key(|fault| (fault.of_release, std::cmp::Reverse(fault.kind))) {
        let of_release = workload.faulty_release_pods > 0;
        let share = f64::from(workload.faulty_pods) / f64::from(workload.desired.max(1));
        let severe = (release_unproven && of_release) || share >= FAULTY_SHARE;
        let severity = if severe { Severity::Critical } else { Severity::Warning };
        let whose = if of_release { "of the newest template" } else { "of an older template" };
        let message = format!(
            "{} of {} pods {whose} have {}: {}/{}: {}",
            workload.faulty_pods, workload.replicas, fault.kind, fault.pod, fault.container, fault.detail
        );
        add(ProblemKind::Fault(fault.kind), severity, of_release, message, if severe { 40 } else { 15 });
    }
    if workload.progress_deadline_exceeded && !workload.rollout_complete() {
        let message = format!(
            "the rollout of revision {} made no progress for {} s: {} of {} pods available",
            workload.release.revision, workload.progress_deadline_s, workload.available, workload.desired
        );
        add(ProblemKind::ProgressDeadlineExceeded, Severity::Critical, true, message, 40);
    }
    if let Some(why) = &workload.stopped {
        add(ProblemKind::Stopped, Severity::Warning, false, format!("the rollout goes no further: {why}"), 15);
    }
    if workload.unschedulable > 0 {
        let message = format!("no node can take {} pods", workload.unschedulable);
        add(ProblemKind::Unschedulable, Severity::Warning, false, message, 15);
    }
    if workload.available < workload.desired {
        let mut message = format!("{} of {} pods available", workload.available, workload.desired);
        if workload.on_lost_nodes > 0 {
            message += &format!(", {} on nodes that are not ready", workload.on_lost_nodes);
        } else if !workload.rollout_complete() && workload.updated < workload.desired {
            message += ", rolling out";
        }
        add(ProblemKind::Unavailable, Severity::Warning, false, message, 15);
    }
    cost
}

#[cfg(test)]
mod tests;
