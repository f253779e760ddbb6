//! One check → score, status and problems.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    metric,
    normal::Normal,
    observation::{FaultKind, Hosted, Measured, Observation, TargetState, UnknownReason, Unmeasured, Workload},
    window::{History, Window},
};
use crate::api::{HealthStatus, Threshold, counted};

/// The share of faulty pods from which on a proven workload counts as unhealthy: as many as a Deployment allows to be
/// unavailable during its own rollouts (maxUnavailable defaults to 25%). Below it Kubernetes recovers automatically.
const FAULTY_SHARE: f64 = 0.25;

/// An unusual value costs whole steps of this many points.
const STEP: f64 = 5.0;

/// The weight of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Below every threshold, but far outside the usual range of this component: only lowers the score.
    Unusual,
    /// Shown; never a reason to act.
    Warning,
    /// A reason to act, once confirmed.
    Critical,
}

/// The kind of a problem; the cause depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProblemKind {
    /// A metric above a threshold, by name.
    Metric(String),
    Fault(FaultKind),
    /// The rollout made no progress for `progressDeadlineSeconds`.
    ProgressDeadlineExceeded,
    /// Fewer pods available than desired, without a known fault.
    Unavailable,
    Unschedulable,
    /// An aborted rollout: the desired template does not run.
    Stopped,
    /// The HTTP service returns a wrong response or none.
    Http,
    /// The database accepts no new connection.
    NoConnection,
    /// The same, because all connections are in use.
    Saturated,
}

/// One problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub kind: ProblemKind,
    pub severity: Severity,
    /// The problem is known to affect pods of the newest template.
    pub of_release: bool,
    /// The observation with its limit.
    pub message: String,
    /// The measured value, for metrics.
    pub value: Option<f64>,
}

/// The assessment of one check.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessment {
    pub status: HealthStatus,
    /// 0 (does not serve) to 100 (healthy). None when the status is Unknown.
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

/// The problems of one check, and the points of the score that they cost.
#[derive(Default)]
struct Findings {
    problems: Vec<Problem>,
    cost: u32,
}

impl Findings {
    fn add(&mut self, kind: ProblemKind, severity: Severity, of_release: bool, message: impl Into<String>, cost: u32) {
        self.problems.push(Problem { kind, severity, of_release, message: message.into(), value: None });
        self.cost += cost;
    }

    fn warn(&mut self, kind: ProblemKind, message: impl Into<String>, cost: u32) {
        self.add(kind, Severity::Warning, false, message, cost);
    }

    /// The target does not serve at all.
    fn down(&mut self, kind: ProblemKind, message: &str) {
        self.add(kind, Severity::Critical, false, message, 100);
    }
}

/// Assesses one check.
///
/// `history`: the checks before, which define the usual range of a metric; a value outside that range costs more of the score
/// the nearer it is to the warning threshold. `release_unproven`: the newest template has not been healthy yet, so one faulty
/// pod of it is enough.
///
/// A critical problem makes the component Unhealthy, whatever could not be measured. Otherwise any failed measurement makes the
/// component Unknown, never healthy.
pub fn assess(
    observation: &Observation,
    thresholds: &BTreeMap<String, Threshold>,
    history: &History,
    release_unproven: bool,
) -> Assessment {
    let mut found = Findings::default();
    let mut unknowns = Vec::new();
    let mut serves = true;

    match &observation.target {
        Measured::Known(TargetState::Workload(workload)) => {
            workload_problems(workload, release_unproven, &mut found);
            serves = workload.available > 0 || workload.desired == 0;
        }
        Measured::Known(TargetState::Hosted(hosted)) => {
            hosted_problems(hosted, &mut found);
            serves = hosted.release.is_some();
        }
        Measured::Known(TargetState::Database(database)) => {
            if let Some(fault) = &database.fault {
                serves = false;
                let kind = if fault.saturated { ProblemKind::Saturated } else { ProblemKind::NoConnection };
                found.down(kind, &fault.detail);
            }
            if let Some(why) = &database.shown {
                found.warn(ProblemKind::Unavailable, why, 15);
            }
        }
        Measured::Known(TargetState::Http(http)) => {
            if let Some(failure) = &http.failure {
                serves = false;
                found.down(ProblemKind::Http, failure);
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
                if let Some((severity, cost, mut message)) = assess_metric(name, *value, threshold, window) {
                    found.cost += cost;
                    if let Some(sample) = &reading.sample {
                        message += &format!(" in {sample}");
                    }
                    let (kind, of_release) = (ProblemKind::Metric(name.clone()), reading.of_release);
                    found.problems.push(Problem { kind, severity, of_release, message, value: Some(*value) });
                }
            }
        }
    }
    let Findings { mut problems, cost } = found;
    problems.sort_by_key(|problem| Reverse(problem.severity));

    let score = 100_u8.saturating_sub(u8::try_from(cost).unwrap_or(100));
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

/// Severity, points of the score, and message of one metric's value; none when the value is usual.
fn assess_metric(
    name: &str,
    value: f64,
    threshold: &Threshold,
    window: Option<&Window>,
) -> Option<(Severity, u32, String)> {
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
    // In whole steps: a score that follows every small change would cause a status write at every check.
    let cost = (share * f64::from(at_warning) / STEP).floor() * STEP;
    (cost > 0.0).then(|| {
        let highest = usual.median + usual.reach;
        (Severity::Unusual, cost as u32, format!("{name} {} is unusual (usual: up to {})", show(value), show(highest)))
    })
}

fn hosted_problems(hosted: &Hosted, found: &mut Findings) {
    // A suspension is a person's decision: it is shown, and not healed.
    if let Some(why) = &hosted.suspended {
        return found.warn(ProblemKind::Unavailable, why, 15);
    }
    if hosted.release.is_none() {
        found.down(ProblemKind::Unavailable, "no deploy is live");
    }
    if let Some(fault) = &hosted.fault {
        let (severity, cost) = if fault.lasting { (Severity::Critical, 40) } else { (Severity::Warning, 15) };
        found.add(ProblemKind::Fault(fault.kind), severity, fault.of_release, &fault.detail, cost);
    }
    if let Some((running, desired)) = hosted.instances.filter(|(running, desired)| running < desired) {
        found.warn(ProblemKind::Unavailable, format!("{running} of {desired} instances running"), 15);
    }
    if let Some(failed) = &hosted.failed_deploy {
        found.warn(ProblemKind::Unavailable, failed, 10);
    }
}

fn workload_problems(workload: &Workload, release_unproven: bool, found: &mut Findings) {
    // The worst kind represents all faults: one readable line instead of one per pod.
    if let Some(fault) = workload.faults.iter().max_by_key(|fault| (fault.of_release, Reverse(fault.kind))) {
        let of_release = workload.faulty_release_pods > 0;
        let share = f64::from(workload.faulty_pods) / f64::from(workload.desired.max(1));
        let severe = (release_unproven && of_release) || share >= FAULTY_SHARE;
        let (severity, cost) = if severe { (Severity::Critical, 40) } else { (Severity::Warning, 15) };
        let whose = if of_release { "of the newest template" } else { "of an older template" };
        let message = format!(
            "{} of {} pods {whose} have {}: {}/{}: {}",
            workload.faulty_pods, workload.replicas, fault.kind, fault.pod, fault.container, fault.detail
        );
        found.add(ProblemKind::Fault(fault.kind), severity, of_release, message, cost);
    }
    if workload.progress_deadline_exceeded && !workload.rollout_complete() {
        let message = format!(
            "the rollout of revision {} made no progress for {} s: {} of {} pods available",
            workload.release.revision, workload.progress_deadline_s, workload.available, workload.desired
        );
        found.add(ProblemKind::ProgressDeadlineExceeded, Severity::Critical, true, message, 40);
    }
    if let Some(why) = &workload.stopped {
        found.warn(ProblemKind::Stopped, format!("the rollout is stopped: {why}"), 15);
    }
    if workload.unschedulable > 0 {
        found.warn(ProblemKind::Unschedulable, format!("{} unschedulable", counted(workload.unschedulable, "pod")), 15);
    }
    if workload.available < workload.desired {
        let mut message = format!("{} of {} pods available", workload.available, workload.desired);
        if workload.on_lost_nodes > 0 {
            message += &format!(", {} on nodes that are not ready", workload.on_lost_nodes);
        } else if !workload.rollout_complete() && workload.updated < workload.desired {
            message += ", rolling out";
        }
        found.warn(ProblemKind::Unavailable, message, 15);
    }
}

#[cfg(test)]
mod tests;
