//! The first step: may the action be done, and may it be done now?

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::controller::Action;

use super::{
    RECHECK, Reconciliation, enter,
    gate::{self, Gate, gate},
    with_component,
};
use crate::{
    api::{
        DecidedBy, Decision, HealthStatus, OnTimeout, Phase, Progress, Remediation, RemediationReason,
        RemediationStatus, ValidPolicy, milliseconds,
    },
    controller::{Error, events::EventReason, history_of},
    plan::{
        Ground, Situation,
        guard::{Guard, Permit, Refusal},
        ladder,
        revalidate::{Withdrawn, unlisted},
    },
    targets::{executor::Preparation, kubernetes::ActError, postgres::sessions_in_words},
};

/// What the guards allowed, on a fresh observation.
struct Allowed {
    permit: Permit,
    /// No other remedy is left for the problem.
    last_resort: bool,
}

/// How long an action that the API server refuses delays the next remedy; a disruption budget may be behind for a moment.
const WAIT_FOR_LEAVE: SignedDuration = SignedDuration::from_secs(10);

impl Reconciliation<'_> {
    /// Pending, AwaitingApproval, Blocked: may the action be done, and may it be done now?
    pub(super) async fn approve(
        &self,
        mut status: RemediationStatus,
        policy: Option<ValidPolicy>,
    ) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        let Some(policy) = policy else {
            let message = "the policy was deleted or is no longer valid; nothing was done";
            return self.finish(status, Phase::Expired, RemediationReason::PolicyGone, message).await;
        };
        let now = Timestamp::now();
        if let Some(approval) = &spec.approval
            && status.decided_by.is_none()
        {
            let decided_by = decided_by(self.remediation);
            let note = format!("{} by {} ({})", approval.decision, decided_by.manager, approval.reason);
            status.decided_by = Some(decided_by);
            if approval.decision == Decision::Rejected {
                let message = format!("{note}; nothing was done");
                return self.finish(status, Phase::Rejected, RemediationReason::Rejected, &message).await;
            }
            self.ctx.events.about_remediation(self.remediation, EventReason::Approved, &note).await;
        }
        let waiting_since = *status.waiting_since.get_or_insert(milliseconds(now));
        let deadline = gate::deadline(&status, &policy, now);
        if let Some(Withdrawn { reason, why }) = unlisted(self.plan, &policy) {
            return self.finish(status, Phase::Expired, reason, &format!("{why}; nothing was done")).await;
        }
        if let Some((reason, message)) = self.obsolete(&policy) {
            return self.finish(status, Phase::Expired, reason, &message).await;
        }
        let stored = status.progress.as_ref().and_then(Progress::sessions);
        let mut words = stored.map(sessions_in_words).unwrap_or_default();
        if status.progress.is_none() {
            // The exact effect, chosen before a person is asked.
            let kubernetes = self.ctx.targets.kubernetes.clone();
            let preparation = match self.executor(self.plan.decided_at, Some(&policy), kubernetes) {
                Ok(executor) => executor.prepare(now.duration_since(waiting_since)).await,
                Err(_) => Preparation::NotNeeded,
            };
            match preparation {
                Preparation::NotNeeded => {}
                Preparation::Chosen { progress, words: chosen } => (status.progress, words) = (Some(progress), chosen),
                Preparation::NotYet { reason, message, after } if now < deadline => {
                    return self.hold(status, Phase::Blocked, reason, &message, now + after).await;
                }
                Preparation::NotYet { reason, message, .. } | Preparation::Nothing { reason, message } => {
                    let message = format!("{message}; nothing was done, the next remedy follows");
                    return self.finish(status, Phase::Expired, reason, &message).await;
                }
            }
        }
        let last = match gate(spec, &status, &policy, now) {
            Gate::Hold { reason, message, until } => {
                return self.hold(status, Phase::Blocked, reason, message, until).await;
            }
            Gate::Expired { reason, message } => return self.finish(status, Phase::Expired, reason, &message).await,
            Gate::Ask { asked_at, deadline } => {
                return self.ask(status, &policy, (asked_at, deadline), &words).await;
            }
            Gate::Proceed { until } => until,
        };

        // From the check of the guards until `Running` is stored, no other action may pass.
        let place = self.ctx.starting.lock().await;
        match self.allowed(&policy).await? {
            Ok(allowed) => {
                if let Some(refused) = self.refused(&policy).await {
                    drop(place);
                    return self.hold_refused(status, refused, allowed.last_resort, last).await;
                }
                let status = self.begin(status).await?;
                drop(place);
                self.execute(status, Some(&policy), &allowed.permit).await
            }
            Err(refusal) => {
                drop(place);
                self.ctx.metrics.refusal(refusal.guard.into());
                let momentary = matches!(refusal.guard, Guard::NotConfirmed | Guard::StaleData);
                // In a crash loop the process runs for moments: the refusal in the status still holds.
                if momentary && status.phase == Phase::Blocked {
                    return Ok(Action::requeue(RECHECK));
                }
                // The next check ends a momentary refusal: it is not worth a phase.
                let (phase, until) = match refusal.retry_at {
                    _ if momentary => (Phase::Pending, now + RECHECK),
                    retry_at => (Phase::Blocked, retry_at.map_or(last, |at| at.min(last))),
                };
                self.hold(status, phase, refusal.guard.into(), &refusal.message, until).await
            }
        }
    }

    /// Asks a person, unless the action would certainly be refused.
    async fn ask(
        &self,
        mut status: RemediationStatus,
        policy: &ValidPolicy,
        (asked_at, deadline): (Timestamp, Timestamp),
        words: &str,
    ) -> Result<Action, Error> {
        // Once a person is asked, this is checked again after the decision.
        if status.phase != Phase::AwaitingApproval
            && let Some(refused) = self.refused(policy).await
        {
            // The target is observed only when it matters.
            let last_resort = !self.refused_for_long(&status, &refused.0)
                || self.allowed(policy).await?.map_or(true, |allowed| allowed.last_resort);
            let until = gate::deadline(&status, policy, Timestamp::now());
            return self.hold_refused(status, refused, last_resort, until).await;
        }
        status.asked_at = Some(asked_at);
        let plan = self.plan;
        let message = format!(
            "{} of {}{words}{} waits for approval until {}; without a decision {} then; decide with: {}",
            plan.action,
            plan.component,
            plan.action.cost().map(|cost| format!(" ({cost})")).unwrap_or_default(),
            deadline.strftime("%H:%M:%SZ"),
            if policy.limits.on_timeout == OnTimeout::Reject { "nothing is done" } else { "it is done" },
            self.remediation.approve_command(),
        );
        let reason = RemediationReason::AwaitingApproval;
        self.hold(status, Phase::AwaitingApproval, reason, &message, deadline).await
    }

    /// Held back by a certain refusal. After a moment the next remedy follows, if there is one.
    async fn hold_refused(
        &self,
        status: RemediationStatus,
        (why, interval): (ActError, Duration),
        last_resort: bool,
        until: Timestamp,
    ) -> Result<Action, Error> {
        if self.refused_for_long(&status, &why) && !last_resort {
            let message = format!("{why}; nothing was done, the next remedy follows");
            return self.finish(status, Phase::Expired, why.reason(), &message).await;
        }
        let next = self.hold(status, Phase::Blocked, why.reason(), &why.to_string(), until).await?;
        // A provider allows a limited number of requests a minute.
        Ok(if last_resort && !interval.is_zero() { Action::requeue(interval) } else { next })
    }

    fn refused_for_long(&self, status: &RemediationStatus, why: &ActError) -> bool {
        let long = status.waiting_since.is_some_and(|since| Timestamp::now() >= since + WAIT_FOR_LEAVE);
        long && status.reason == why.reason().name()
    }

    /// What would certainly refuse the action: the API server, a provider, or a missing snapshot; and how often that may
    /// be asked. Other obstacles are found when the action runs.
    async fn refused(&self, policy: &ValidPolicy) -> Option<(ActError, Duration)> {
        let kubernetes = match self.preflight_owner(policy).await {
            Ok(kubernetes) => kubernetes,
            Err(error) => return error.refuses().then_some((error, Duration::ZERO)),
        };
        // A missing executor is found when the action runs.
        let executor = self.executor(self.plan.decided_at, Some(policy), kubernetes).ok()?;
        let error = executor.preflight().await.err().filter(ActError::refuses)?;
        Some((error, executor.preflight_interval()))
    }

    /// The reason for the action is gone: the component is healthy again, or another template runs.
    fn obsolete(&self, policy: &ValidPolicy) -> Option<(RemediationReason, String)> {
        let memory = self.ctx.memory.find(&policy.namespace, &policy.name)?;
        let memory = memory.lock();
        let entry = memory.components.get(&self.plan.component)?;
        entry.tracker.last_check()?;
        if let (Some(from), Some(release)) = (&self.plan.release, entry.tracker.release())
            && release.digest != from.digest
        {
            let message = format!("{release} runs now instead of {from}; nothing was changed");
            return Some((RemediationReason::Superseded, message));
        }
        let unhealthy = entry.tracker.episode().is_some();
        let expected = entry.outlook.foreseen().is_some_and(|foreseen| foreseen.id == self.plan.episode);
        let (reason, message) = match &self.plan.foreseen {
            Some(_) if unhealthy => {
                (RemediationReason::CameFirst, "the foreseen failure occurred; another Remediation heals it")
            }
            Some(_) if !expected => {
                (RemediationReason::Recovered, "the foreseen failure is no longer expected; nothing was done")
            }
            None if !unhealthy && entry.tracker.status() == HealthStatus::Healthy => {
                (RemediationReason::Recovered, "the component is healthy again without this action; nothing was done")
            }
            _ => return None,
        };
        Some((reason, message.to_owned()))
    }

    /// Observes again, and asks every guard again.
    async fn allowed(&self, policy: &ValidPolicy) -> Result<Result<Allowed, Refusal>, Error> {
        let plan = self.plan;
        let refuse = |guard, message: &str| Ok(Err(Refusal::until(guard, message.to_owned(), None)));
        let Some(component) = policy.component(&plan.component) else {
            return refuse(Guard::NoRemedy, "the policy no longer names this component");
        };
        let all = self.of_policy().await?;
        let history = history_of(all.iter().filter(|other| {
            other.spec.plan.policy_uid == plan.policy_uid && other.metadata.uid != self.remediation.metadata.uid
        }));
        let Some(memory) = self.ctx.memory.find(&policy.namespace, &policy.name) else {
            return refuse(Guard::NotConfirmed, "the policy has not been checked yet");
        };
        let watches_release =
            with_component(&memory, &plan.component, |entry| entry.tracker.watches_release(&policy.limits));
        let release_watch = watches_release.unwrap_or(false);
        let observation = self.ctx.targets.observe(&policy.namespace, component, release_watch).await;
        let memory = memory.lock();
        let Some(entry) = memory.components.get(&plan.component) else {
            return refuse(Guard::NotConfirmed, "the component has not been checked yet");
        };
        let assessment = entry.assess(component, &observation);
        // The forecast again too, with the new observation.
        let forecast = policy.limits.prediction.then(|| {
            let mut history = entry.history.clone();
            history.push(&observation, assessment.score);
            self.ctx.forecaster.forecast(&history, &component.ceilings)
        });
        let ground = match &plan.foreseen {
            Some(foreseen) => Ground::Foreseen(foreseen),
            None => Ground::Unhealthy(&plan.episode),
        };
        let now = Timestamp::now();
        let (unhealthy_components, suspected_components) = memory.unhealthy(now);
        let situation = Situation {
            policy,
            component,
            tracker: &entry.tracker,
            observation: &observation,
            assessment: &assessment,
            forecast: forecast.as_ref(),
            foreseen: entry.outlook.foreseen(),
            unhealthy_components,
            suspected_components,
            history: &history,
            now,
        };
        let last_resort = ladder::is_last(&situation, ground, plan.step, plan.cause);
        Ok(crate::plan::still_allowed(&situation, ground, plan.action).map(|permit| Allowed { permit, last_resort }))
    }

    /// Stores the intent. Fails when the object was changed in the meantime, for example by a rejection.
    async fn begin(&self, mut status: RemediationStatus) -> Result<RemediationStatus, Error> {
        let message = format!("{} of {}/{}", self.plan.action, self.plan.target.kind, self.plan.target.name);
        status.started_at = Some(milliseconds(Timestamp::now()));
        enter(&mut status, Phase::Running, RemediationReason::Acting, &message);
        self.write(&status, true).await?;
        self.ctx.events.about_remediation(self.remediation, EventReason::Acting, &message).await;
        Ok(status)
    }
}

/// Who owns the decision, by the API server's own record: never by a claim in the object.
fn decided_by(remediation: &Remediation) -> DecidedBy {
    let entries = remediation.metadata.managed_fields.as_deref().unwrap_or_default();
    let owner = entries.iter().find(|entry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:approval/f:decision").is_some())
    });
    DecidedBy {
        manager: owner.and_then(|entry| entry.manager.clone()).unwrap_or_else(|| "unknown".into()),
        at: owner.and_then(|entry| entry.time.as_ref()).map(|time| time.0),
    }
}
