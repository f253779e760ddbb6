//! Did it help? Pure: from the looks since the write.

use std::fmt;

use jiff::Timestamp;

use super::memory::{Check, ComponentMemory};
use crate::{
    analyze::metric::show,
    api::{ActionPlan, ConfigChange, Intent, Limits, Phase, RemediationReason, RemediationStatus, milliseconds},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// Not decided yet.
    Wait {
        healthy_since: Option<Timestamp>,
    },
    Done {
        phase: Phase,
        reason: RemediationReason,
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
    Verification::Done { phase: Phase::Ineffective, reason: RemediationReason::Inconclusive, message }
}

/// Rollout complete with the template that was meant, then healthy without a break for the stabilization time.
pub fn judge(
    plan: &ActionPlan,
    status: &RemediationStatus,
    entry: &ComponentMemory,
    limits: &Limits,
    now: Timestamp,
) -> Verification {
    let executed_at = status.executed_at.unwrap_or(now);
    let Some(look) = entry.last.as_ref().filter(|look| look.observation.at > executed_at) else {
        return unseen(status, limits, now);
    };
    let meant = match &plan.intent {
        Intent::Rollback { to } | Intent::RollbackState { to, .. } => Some(to),
        Intent::RollbackConfig { .. } | Intent::CleanupMemory { .. } | Intent::Restart {} | Intent::Scale(_) => {
            plan.release.as_ref()
        }
        // They may release another template, for all that is known.
        Intent::Job(_) | Intent::Webhook(_) | Intent::Mcp(_) => None,
        // Databases have no releases.
        Intent::RecoverConnections(_)
        | Intent::ReleaseConnections(_)
        | Intent::CancelQueries(_)
        | Intent::Failover {} => None,
    };
    let target = look.observation.target.known();
    let workload = target.and_then(|target| target.workload());
    let released = target.and_then(|target| target.released());
    if let (Some(released), Some(meant)) = (released, meant)
        && released.id.digest != meant.digest
    {
        // The caches may still show the template from before the write.
        let before = plan.release.as_ref().is_some_and(|from| from.digest == released.id.digest);
        if !before {
            let message = format!(
                "{} was released before it could be told whether this action helped; it was not touched",
                released.id
            );
            return Verification::Done { phase: Phase::Ineffective, reason: RemediationReason::Inconclusive, message };
        }
    }
    let objects = target.and_then(|target| target.config());
    let back = |change: &ConfigChange| {
        let mut objects = objects.iter().flatten();
        objects.any(|one| one.name == change.name && one.digest == change.to)
    };
    // Of a hosted service it is not known with which configuration a rollback runs: it was that deploy's own.
    let config_known = workload.is_some() || objects.is_some();
    let config_back = !config_known || plan.intent.config().is_none_or(|config| config.objects.iter().all(back));
    let wanted = target.and_then(|target| target.wanted());
    let scaled = plan.intent.scaling().is_none_or(|scaling| wanted.is_some_and(|wanted| scaling.is_reached(wanted)));
    let as_meant = config_back && scaled;
    let complete = released.is_none_or(|released| {
        as_meant && released.complete && meant.is_none_or(|meant| meant.digest == released.id.digest)
    });
    let relief = Relief::of(plan, look);
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
            now.duration_since(plan.decided_at).as_secs(),
            relief.map(|relief| format!("{relief}; ")).unwrap_or_default(),
            look.assessment.message()
        );
        return Verification::Done { phase: Phase::Succeeded, reason: RemediationReason::Healthy, message };
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
        let reason = match (relief, &plan.foreseen) {
            (Some(relief), Some(_)) if !relief.came => RemediationReason::StillForeseen,
            _ => RemediationReason::StillUnhealthy,
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
    fn of(plan: &'a ActionPlan, look: &Check) -> Option<Self> {
        let memory = plan.intent.memory().map(|growth| (&growth.metric, growth.value, growth.relieved_at));
        let foreseen = || plan.foreseen.as_ref().map(|it| (&it.metric, it.value, it.relieved_at));
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        analyze::{
            observation::FaultKind,
            scenario::{Story, at},
        },
        controller::memory::Check,
    };

    /// A rollback of v2 to v1 that was executed at 3605 s.
    fn rollback() -> (ActionPlan, RemediationStatus) {
        let template = |revision: u32, version: &str| json!({"revision": revision, "hash": format!("h-{version}"), "digest": version});
        let plan: Value = json!({
            "policy": "shop", "policyUid": "p-1", "component": "api", "target": {"kind": "Deployment", "name": "api"},
            "action": "Rollback", "intent": {"rollback": {"to": template(1, "v1")}}, "release": template(2, "v2"),
            "cause": "ReleaseRegression", "episode": "1", "step": 0, "why": "v2 crashes", "decidedAt": at(3603.0),
            "approvalRequired": false,
        });
        let status = RemediationStatus {
            phase: Phase::Verifying,
            started_at: Some(at(3604.0)),
            executed_at: Some(at(3605.0)),
            ..RemediationStatus::default()
        };
        (serde_json::from_value(plan).unwrap(), status)
    }

    /// v2 crashed and is confirmed bad; what comes next is the test's.
    fn crashed() -> Story {
        let mut story = Story::settled();
        story.release("v2").fault(FaultKind::CrashLoop, 2).until(3604.0);
        story
    }

    fn judged(story: &Story) -> Verification {
        let (plan, status) = rollback();
        let (observation, assessment) = story.last.clone().unwrap();
        let last = Some(Check { observation, assessment });
        let entry = ComponentMemory { tracker: story.tracker.clone(), last, ..ComponentMemory::default() };
        judge(&plan, &status, &entry, &story.policy.limits, at(story.now))
    }

    fn ended(verification: Verification) -> (Phase, RemediationReason) {
        match verification {
            Verification::Done { phase, reason, .. } => (phase, reason),
            Verification::Wait { .. } => panic!("it still waits"),
        }
    }

    #[test]
    fn a_success_is_healthy_without_a_break_for_the_stabilization_with_the_template_that_was_meant() {
        let mut story = crashed();
        assert_eq!(judged(&story), Verification::Wait { healthy_since: None }, "no check since the write");
        story.release("v1").until(3606.0);
        assert_eq!(judged(&story), Verification::Wait { healthy_since: None }, "the rollout is not complete");
        story.complete().until(3660.0);
        assert!(
            matches!(judged(&story), Verification::Wait { healthy_since: Some(_) }),
            "healthy, not for long enough"
        );
        story.until(3606.0 + 200.0);
        assert_eq!(ended(judged(&story)), (Phase::Succeeded, RemediationReason::Healthy));
    }

    #[test]
    fn the_template_of_before_is_waited_for_and_another_release_ends_the_verification() {
        let mut story = crashed();
        story.until(3610.0);
        assert_eq!(judged(&story), Verification::Wait { healthy_since: None }, "caches may be behind");
        story.release("v3").until(3612.0);
        assert_eq!(ended(judged(&story)), (Phase::Ineffective, RemediationReason::Inconclusive));
    }

    #[test]
    fn what_is_not_healthy_in_time_was_ineffective_and_what_cannot_be_checked_inconclusive() {
        let mut story = crashed();
        story.release("v1").fault(FaultKind::CrashLoop, 2).until(3605.0 + 599.0);
        assert_eq!(judged(&story), Verification::Wait { healthy_since: None });
        story.until(3605.0 + 700.0);
        assert_eq!(ended(judged(&story)), (Phase::Ineffective, RemediationReason::StillUnhealthy));
        // Nobody checked since: the stabilization time comes on top.
        let (_, status) = rollback();
        let limits = &story.policy.limits;
        assert_eq!(unseen(&status, limits, at(3605.0 + 719.0)), Verification::Wait { healthy_since: None });
        assert_eq!(
            ended(unseen(&status, limits, at(3605.0 + 720.0))),
            (Phase::Ineffective, RemediationReason::Inconclusive)
        );
    }
}
