//! Did it help? Pure: from the looks since the write.

use std::fmt;

use jiff::Timestamp;

use super::memory::{Check, ComponentMemory};
use crate::{
    analyze::metric::show,
    api::{ActionKind, ConfigChange, Limits, Phase, RemediationSpec, RemediationStatus, milliseconds},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// Not decided yet.
    Wait {
        healthy_since: Option<Timestamp>,
    },
    Done {
        phase: Phase,
        reason: &'static str,
        message: String,
    },
}

/// Nobody has looked since the write: wait, within the time for it.
pub fn unseen(status: &RemediationStatus, limits: &Limits, now: Timestamp) -> Verification {
    let executed_at = status.executed_at.unwrap_or(now);
    // An operator that was away gets the stabilization time on top, to look at all.
    if now.duration_since(executed_at) < limits.verification_timeout + limits.stabilization {
        return Verification::Wait { healthy_since: None };
    }
    let message = format!(
        "it could not be looked at within {:#} after the action, or the policy was suspended",
        limits.verification_timeout
    );
    Verification::Done { phase: Phase::Ineffective, reason: "Inconclusive", message }
}

/// Rollout complete with the template that was meant, then healthy without a break for the stabilization time.
pub fn judge(
    spec: &RemediationSpec,
    status: &RemediationStatus,
    entry: &ComponentMemory,
    limits: &Limits,
    now: Timestamp,
) -> Verification {
    let executed_at = status.executed_at.unwrap_or(now);
    let Some(look) = entry.last.as_ref().filter(|look| look.observation.at > executed_at) else {
        return unseen(status, limits, now);
    };
    let meant = match spec.action {
        ActionKind::RollbackDeployment | ActionKind::RollbackPreviousState => spec.to.as_ref(),
        ActionKind::RollbackConfig | ActionKind::CleanupMemory | ActionKind::Restart | ActionKind::Scale => {
            spec.from.as_ref()
        }
        // They may release another template, for all that is known.
        ActionKind::Job | ActionKind::Webhook | ActionKind::Mcp => None,
        // Databases have no releases.
        ActionKind::RecoverConnections
        | ActionKind::ReleaseConnections
        | ActionKind::CancelLongQueries
        | ActionKind::Failover => None,
    };
    let target = look.observation.target.known();
    let workload = target.and_then(|target| target.workload());
    let released = target.and_then(|target| target.released());
    if let (Some(released), Some(meant)) = (released, meant)
        && released.id.digest != meant.digest
    {
        // The caches may still show the template from before the write.
        let before = spec.from.as_ref().is_some_and(|from| from.digest == released.id.digest);
        if !before {
            let message = format!(
                "{} was released before it could be told whether this action helped; it was not touched",
                released.id
            );
            return Verification::Done { phase: Phase::Ineffective, reason: "Inconclusive", message };
        }
    }
    let objects = target.and_then(|target| target.config());
    let back = |change: &ConfigChange| {
        let mut objects = objects.iter().flatten();
        objects.any(|one| one.name == change.name && one.digest == change.to)
    };
    // Of a hosted service it is not known with which configuration a rollback runs: it was that deploy's own.
    let config_known = workload.is_some() || objects.is_some();
    let config_back = !config_known || spec.config.as_ref().is_none_or(|config| config.objects.iter().all(back));
    let wanted = target.and_then(|target| target.wanted());
    let scaled = spec.scale.is_none_or(|scaling| wanted.is_some_and(|wanted| scaling.is_reached(wanted)));
    let as_meant = config_back && scaled;
    let complete = released.is_none_or(|released| {
        as_meant && released.complete && meant.is_none_or(|meant| meant.digest == released.id.digest)
    });
    let relief = Relief::of(spec, look);
    let healthy_since = entry.tracker.healthy_since().filter(|_| complete && relief.is_none_or(|relief| relief.came));
    // Healthy while old pods still served says nothing: it counts from the write, and from the complete rollout.
    let healthy_since =
        healthy_since.map(|since| since.max(executed_at).max(entry.tracker.settled_since().unwrap_or(since)));
    if let Some(since) = healthy_since
        && look.observation.at.duration_since(since) >= limits.stabilization
    {
        let message = format!(
            "healthy for {:#} after the action ({} s after the decision): {}{}",
            limits.stabilization,
            now.duration_since(spec.decided_at).as_secs(),
            relief.map(|relief| format!("{relief}; ")).unwrap_or_default(),
            look.assessment.message()
        );
        return Verification::Done { phase: Phase::Succeeded, reason: "Healthy", message };
    }
    let waited = now.duration_since(executed_at);
    // What is healthy now gets the chance to stay so.
    let limit = if healthy_since.is_some() {
        limits.verification_timeout + limits.stabilization
    } else {
        limits.verification_timeout
    };
    if waited >= limit {
        let message = format!(
            "not healthy for {:#} within {:#} after the action: {}{}",
            limits.stabilization,
            limits.verification_timeout,
            relief.map(|relief| format!("{relief}; ")).unwrap_or_default(),
            look.assessment.message()
        );
        let reason = match (relief, &spec.foreseen) {
            (Some(relief), Some(_)) if !relief.came => "StillForeseen",
            _ => "StillUnhealthy",
        };
        return Verification::Done { phase: Phase::Ineffective, reason, message };
    }
    Verification::Wait { healthy_since: healthy_since.map(milliseconds) }
}

/// What became of the metric that was to meet its limit, or whose memory was to be given back.
#[derive(Debug, Clone, Copy)]
struct Relief<'a> {
    metric: &'a str,
    /// When it was decided.
    before: f64,
    relieved_at: f64,
    /// None: not measured.
    now: Option<f64>,
    came: bool,
}

impl<'a> Relief<'a> {
    /// None for an action that is not about one metric.
    fn of(spec: &'a RemediationSpec, look: &Check) -> Option<Self> {
        let memory = spec.memory.as_ref().map(|growth| (&growth.metric, growth.value, growth.relieved_at));
        let foreseen = || spec.foreseen.as_ref().map(|it| (&it.metric, it.value, it.relieved_at));
        let (metric, before, relieved_at) = memory.or_else(foreseen)?;
        let now = look.observation.value(metric);
        Some(Self { metric, before, relieved_at, now, came: now.is_some_and(|now| now <= relieved_at) })
    }
}

impl fmt::Display for Relief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metric, before, relieved_at, .. } = *self;
        let show = |value| show(metric, value);
        match self.now {
            Some(now) if self.came => write!(f, "{metric} went from {} to {}", show(before), show(now)),
            Some(now) => write!(
                f,
                "{metric} is {}, was {} before, and is out of danger at {}",
                show(now),
                show(before),
                show(relieved_at)
            ),
            None => write!(f, "{metric} could not be measured"),
        }
    }
}
