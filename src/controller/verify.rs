//! Did the action help? Pure: from the checks since the write.

use std::fmt;

use jiff::Timestamp;

use super::memory::{Check, ComponentMemory};
use crate::{
    analyze::metric::show,
    api::{ActionPlan, ConfigChange, Limits, Phase, RemediationReason, RemediationStatus, milliseconds},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verification {
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

/// Without a check since the write: wait, within the time limit.
pub(super) fn unchecked(status: &RemediationStatus, limits: &Limits, now: Timestamp) -> Verification {
    let executed_at = status.executed_at.unwrap_or(now);
    // After an outage of the operator the stabilization time comes on top, for a check at all.
    if now.duration_since(executed_at) < limits.verification_timeout + limits.stabilization {
        return Verification::Wait { healthy_since: None };
    }
    let message = format!(
        "the component could not be checked within {:#} after the action, or the policy was suspended",
        limits.verification_timeout
    );
    Verification::Done { phase: Phase::Ineffective, reason: RemediationReason::Inconclusive, message }
}

/// Rollout complete with the intended template, then healthy without interruption for the stabilization time.
pub(super) fn assess(
    plan: &ActionPlan,
    status: &RemediationStatus,
    entry: &ComponentMemory,
    limits: &Limits,
    now: Timestamp,
) -> Verification {
    let executed_at = status.executed_at.unwrap_or(now);
    let Some(check) = entry.last.as_ref().filter(|check| check.observation.at > executed_at) else {
        return unchecked(status, limits, now);
    };
    // A custom remedy may release another template. Databases have no releases.
    let running = plan.release.as_ref().filter(|_| !plan.action.is_custom());
    let intended = plan.intent.template().or(running);
    let target = check.observation.target.known();
    let released = target.and_then(|target| target.released());
    if let (Some(released), Some(intended)) = (released, intended)
        && released.id.digest != intended.digest
        // The caches may still show the template from before the write.
        && plan.release.as_ref().is_none_or(|from| from.digest != released.id.digest)
    {
        let message =
            format!("{} was released before the outcome of this action was known; nothing was done", released.id);
        return Verification::Done { phase: Phase::Ineffective, reason: RemediationReason::Inconclusive, message };
    }
    let objects = target.and_then(|target| target.config());
    let restored = |change: &ConfigChange| {
        let mut objects = objects.iter().flatten();
        objects.any(|one| one.name == change.name && one.digest == change.to)
    };
    // A hosted service does not say with which configuration a rollback runs: with the one of that deploy.
    let config_known = target.and_then(|target| target.workload()).is_some() || objects.is_some();
    let config_restored =
        !config_known || plan.intent.config().is_none_or(|config| config.objects.iter().all(restored));
    let desired = target.and_then(|target| target.wanted());
    let scaled = plan.intent.scaling().is_none_or(|scaling| desired.is_some_and(|now| scaling.is_reached(now)));
    let complete = released.is_none_or(|released| {
        let is_intended = intended.is_none_or(|intended| intended.digest == released.id.digest);
        config_restored && scaled && released.complete && is_intended
    });
    let relief = Relief::of(plan, check);
    let state = || {
        let relief = relief.map(|relief| format!("{relief}; ")).unwrap_or_default();
        format!("{relief}{}", check.assessment.message())
    };
    let healthy_since = entry.tracker.healthy_since().filter(|_| complete && relief.is_none_or(|relief| relief.came));
    // Healthy while old pods still served says nothing: it counts from the write, and from the complete rollout.
    let healthy_since =
        healthy_since.map(|since| since.max(executed_at).max(entry.tracker.settled_since().unwrap_or(since)));
    if let Some(since) = healthy_since
        && check.observation.at.duration_since(since) >= limits.stabilization
    {
        let message = format!(
            "healthy for {:#} after the action ({} s after the decision): {}",
            limits.stabilization,
            now.duration_since(plan.decided_at).as_secs(),
            state()
        );
        return Verification::Done { phase: Phase::Succeeded, reason: RemediationReason::Healthy, message };
    }
    // A component that is healthy now gets the chance to stay so.
    let extra = healthy_since.map(|_| limits.stabilization).unwrap_or_default();
    if now.duration_since(executed_at) >= limits.verification_timeout + extra {
        let message = format!(
            "not healthy for {:#} within {:#} after the action: {}",
            limits.stabilization,
            limits.verification_timeout,
            state()
        );
        let reason = match (relief, &plan.foreseen) {
            (Some(relief), Some(_)) if !relief.came => RemediationReason::StillForeseen,
            _ => RemediationReason::StillUnhealthy,
        };
        return Verification::Done { phase: Phase::Ineffective, reason, message };
    }
    Verification::Wait { healthy_since: healthy_since.map(milliseconds) }
}

/// The outcome for the metric that would have reached its limit, or whose memory was to be reclaimed.
#[derive(Debug, Clone, Copy)]
struct Relief<'a> {
    metric: &'a str,
    /// At the decision.
    before: f64,
    relieved_at: f64,
    /// None: not measured.
    now: Option<f64>,
    came: bool,
}

impl<'a> Relief<'a> {
    /// None for an action that is not about one metric.
    fn of(plan: &'a ActionPlan, check: &Check) -> Option<Self> {
        let memory = plan.intent.memory().map(|growth| (&growth.metric, growth.value, growth.relieved_at));
        let foreseen = || plan.foreseen.as_ref().map(|it| (&it.metric, it.value, it.relieved_at));
        let (metric, before, relieved_at) = memory.or_else(foreseen)?;
        let now = check.observation.value(metric);
        Some(Self { metric, before, relieved_at, now, came: now.is_some_and(|now| now <= relieved_at) })
    }
}

impl fmt::Display for Relief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metric, now, came, .. } = *self;
        let Some(now) = now else { return write!(f, "{metric} could not be measured") };
        let [now, before, safe] = [now, self.before, self.relieved_at].map(|value| show(metric, value));
        if came {
            write!(f, "{metric} went from {before} to {now}")
        } else {
            write!(f, "{metric} is {now}, was {before} before, and is safe at {safe}")
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

    /// v2 crashed and is confirmed bad; each test continues from there.
    fn crashed() -> Story {
        let mut story = Story::settled();
        story.release("v2").fault(FaultKind::CrashLoop, 2).until(3604.0);
        story
    }

    fn assessed(story: &Story) -> Verification {
        let (plan, status) = rollback();
        let (observation, assessment) = story.last.clone().unwrap();
        let last = Some(Check { observation, assessment });
        let entry = ComponentMemory { tracker: story.tracker.clone(), last, ..ComponentMemory::default() };
        assess(&plan, &status, &entry, &story.policy.limits, at(story.now))
    }

    fn ended(verification: Verification) -> (Phase, RemediationReason) {
        match verification {
            Verification::Done { phase, reason, .. } => (phase, reason),
            Verification::Wait { .. } => panic!("still waiting"),
        }
    }

    #[test]
    fn a_success_is_healthy_for_the_whole_stabilization_with_the_intended_template() {
        let mut story = crashed();
        assert_eq!(assessed(&story), Verification::Wait { healthy_since: None }, "no check since the write");
        story.release("v1").until(3606.0);
        assert_eq!(assessed(&story), Verification::Wait { healthy_since: None }, "the rollout is not complete");
        story.complete().until(3660.0);
        assert!(
            matches!(assessed(&story), Verification::Wait { healthy_since: Some(_) }),
            "healthy, not for long enough"
        );
        story.until(3606.0 + 200.0);
        assert_eq!(ended(assessed(&story)), (Phase::Succeeded, RemediationReason::Healthy));
    }

    #[test]
    fn the_previous_template_is_waited_for_and_another_release_ends_the_verification() {
        let mut story = crashed();
        story.until(3610.0);
        assert_eq!(assessed(&story), Verification::Wait { healthy_since: None }, "caches may be behind");
        story.release("v3").until(3612.0);
        assert_eq!(ended(assessed(&story)), (Phase::Ineffective, RemediationReason::Inconclusive));
    }

    #[test]
    fn an_action_is_ineffective_without_health_in_time_and_inconclusive_without_a_check() {
        let mut story = crashed();
        story.release("v1").fault(FaultKind::CrashLoop, 2).until(3605.0 + 599.0);
        assert_eq!(assessed(&story), Verification::Wait { healthy_since: None });
        story.until(3605.0 + 700.0);
        assert_eq!(ended(assessed(&story)), (Phase::Ineffective, RemediationReason::StillUnhealthy));
        // Without a check since: the stabilization time comes on top.
        let (_, status) = rollback();
        let limits = &story.policy.limits;
        assert_eq!(unchecked(&status, limits, at(3605.0 + 719.0)), Verification::Wait { healthy_since: None });
        assert_eq!(
            ended(unchecked(&status, limits, at(3605.0 + 720.0))),
            (Phase::Ineffective, RemediationReason::Inconclusive)
        );
    }
}
