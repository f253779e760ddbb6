//! The first step: may it be done, and may it be done now?

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt as _, runtime::controller::Action};

use super::{
    RECHECK, Reconciliation,
    gate::{self, Gate, gate},
    with_component, workload,
};
use crate::{
    analyze::{assess::assess, observation::Observation},
    api::{
        DecidedBy, Decision, OnTimeout, Phase, Remediation, RemediationReason, RemediationStatus, ValidPolicy,
        milliseconds,
    },
    controller::{Error, events::EventReason, history_of, memory::ComponentMemory},
    plan::{
        Ground, Situation,
        guard::{Guard, Permit, Refusal},
        ladder,
        revalidate::{Withdrawn, unlisted},
    },
    targets::{
        executor::{Order, Preparation},
        kubernetes::ActError,
        postgres::sessions_in_words,
    },
};

/// What the guards allowed, on a fresh observation.
struct Allowed {
    permit: Permit,
    /// No other remedy is left for what is wrong.
    last_resort: bool,
}

/// How long the next remedy waits for what the API server refuses; a disruption budget may be behind for a moment.
const WAIT_FOR_LEAVE: SignedDuration = SignedDuration::from_secs(10);

impl Reconciliation<'_> {
    /// Pending, AwaitingApproval, Blocked: may it be done, and may it be done now?
    pub(super) async fn approve(
        &self,
        mut status: RemediationStatus,
        policy: Option<ValidPolicy>,
    ) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        let plan = &spec.plan;
        let Some(policy) = policy else {
            return self
                .finish(
                    status,
                    Phase::Expired,
                    RemediationReason::PolicyGone,
                    "the policy was deleted or is not valid any more; nothing was done",
                )
                .await;
        };
        let now = Timestamp::now();
        if let Some(approval) = &spec.approval
            && status.decided_by.is_none()
        {
            let decided_by = decided_by(self.remediation);
            let note = format!("{} by {} ({})", approval.decision, decided_by.manager, approval.reason);
            status.decided_by = Some(decided_by);
            if approval.decision == Decision::Rejected {
                return self
                    .finish(status, Phase::Rejected, RemediationReason::Rejected, &format!("{note}; nothing was done"))
                    .await;
            }
            self.ctx.events.about_remediation(self.remediation, EventReason::Approved, &note).await;
        }
        let waiting_since = *status.waiting_since.get_or_insert(milliseconds(now));
        let deadline = gate::deadline(&status, &policy, now);
        if let Some(Withdrawn { reason, why }) = unlisted(plan, &policy) {
            return self.finish(status, Phase::Expired, reason, &format!("{why}; nothing was done")).await;
        }
        if let Some(why) = self.obsolete(&policy) {
            return self.finish(status, Phase::Expired, why.0, &why.1).await;
        }
        let mut words = String::new();
        if status.progress.is_none() {
            match self.prepare(&policy, now.duration_since(waiting_since)).await {
                Preparation::NotNeeded => {}
                Preparation::Chosen { progress, words: chosen } => (status.progress, words) = (Some(progress), chosen),
                Preparation::NotYet { reason, message, after } if now < deadline => {
                    let until = now + SignedDuration::try_from(after).unwrap_or_default();
                    return self.hold(status, Phase::Blocked, reason, &message, until).await;
                }
                Preparation::NotYet { reason, message, .. } | Preparation::Nothing { reason, message } => {
                    let message = format!("{message}; nothing was done, the next remedy is tried");
                    return self.finish(status, Phase::Expired, reason, &message).await;
                }
            }
        } else if plan.action.ends_sessions() {
            words = status
                .progress
                .as_ref()
                .and_then(|progress| progress.sessions())
                .map(sessions_in_words)
                .unwrap_or_default();
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

        // From the look at the guards until `Running` is stored, no other action may pass.
        let place = self.ctx.starting.lock().await;
        match self.allowed(&policy).await? {
            Ok(allowed) => {
                if let Some((why, interval)) = self.refused(&policy).await {
                    drop(place);
                    return self.hold_refused(status, (&why, interval), allowed.last_resort, last).await;
                }
                let status = self.begin(status).await?;
                drop(place);
                self.execute(status, Some(&policy), &allowed.permit).await
            }
            Err(refusal) => {
                drop(place);
                self.ctx.metrics.refusal(refusal.guard.into());
                let wait = refusal.retry_at.map_or(last, |at| at.min(last));
                match refusal.guard {
                    // A crash loop runs for moments: what held it back stands meanwhile.
                    Guard::NotConfirmed | Guard::StaleData if status.phase == Phase::Blocked => {
                        Ok(Action::requeue(RECHECK))
                    }
                    // These end by looking again, in a moment: not worth a phase of its own.
                    Guard::NotConfirmed | Guard::StaleData => {
                        self.hold(
                            status,
                            Phase::Pending,
                            refusal.guard.into(),
                            &refusal.message,
                            now + SignedDuration::from_millis(500),
                        )
                        .await
                    }
                    guard => self.hold(status, Phase::Blocked, guard.into(), &refusal.message, wait).await,
                }
            }
        }
    }

    /// Asks a person, unless the action would be refused for certain.
    async fn ask(
        &self,
        mut status: RemediationStatus,
        policy: &ValidPolicy,
        (asked_at, deadline): (Timestamp, Timestamp),
        words: &str,
    ) -> Result<Action, Error> {
        let plan = &self.remediation.spec.plan;
        // Once a person is asked, this is checked again when they have decided.
        if status.phase != Phase::AwaitingApproval
            && let Some((why, interval)) = self.refused(policy).await
        {
            // The target is observed only when it matters.
            let last_resort = !self.refused_for_long(&status, &why)
                || self.allowed(policy).await?.map_or(true, |allowed| allowed.last_resort);
            let until = gate::deadline(&status, policy, Timestamp::now());
            return self.hold_refused(status, (&why, interval), last_resort, until).await;
        }
        status.asked_at = Some(asked_at);
        let message = format!(
            "{} of {}{words}{} waits for approval until {}, then {}; decide with: {}",
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

    /// Held back by what would refuse it. After a moment the next remedy has its turn, if there is one.
    async fn hold_refused(
        &self,
        status: RemediationStatus,
        (why, interval): (&ActError, Duration),
        last_resort: bool,
        until: Timestamp,
    ) -> Result<Action, Error> {
        if self.refused_for_long(&status, why) && !last_resort {
            let message = format!("{why}; nothing was done, the next remedy is tried");
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

    /// What would refuse the action for certain: the API server, a provider, or a missing snapshot; and how often that may
    /// be asked. What else is in the way is found when the action runs.
    async fn refused(&self, policy: &ValidPolicy) -> Option<(ActError, Duration)> {
        let plan = &self.remediation.spec.plan;
        let namespace = self.remediation.namespace().unwrap_or_default();
        let preflight = async {
            let kubernetes = match workload(&namespace, plan) {
                Some(workload) => self.preflight_owner(workload, policy).await?,
                None => self.ctx.targets.kubernetes.clone(),
            };
            let (name, uid) = (self.remediation.name_any(), self.remediation.uid().unwrap_or_default());
            let order = self.order(&namespace, &name, &uid);
            match self.ctx.targets.executor(order, Some(policy), kubernetes) {
                Ok(executor) => Ok((executor.preflight().await.err(), executor.preflight_interval())),
                // Found when the action runs.
                Err(_) => Ok((None, Duration::ZERO)),
            }
        };
        match preflight.await {
            Ok((refused, interval)) => refused.filter(ActError::refuses).map(|why| (why, interval)),
            Err(error) => Some((error, Duration::ZERO)).filter(|(error, _): &(ActError, _)| error.refuses()),
        }
    }

    /// What the action would do exactly, chosen before a person is asked.
    async fn prepare(&self, policy: &ValidPolicy, waited: SignedDuration) -> Preparation {
        let namespace = self.remediation.namespace().unwrap_or_default();
        let (name, uid) = (self.remediation.name_any(), self.remediation.uid().unwrap_or_default());
        let kubernetes = self.ctx.targets.kubernetes.clone();
        match self.ctx.targets.executor(self.order(&namespace, &name, &uid), Some(policy), kubernetes) {
            Ok(executor) => executor.prepare(waited).await,
            Err(_) => Preparation::NotNeeded,
        }
    }

    /// The action, not begun yet.
    fn order<'a>(&'a self, namespace: &'a str, remediation: &'a str, uid: &'a str) -> Order<'a> {
        let plan = &self.remediation.spec.plan;
        Order { namespace, remediation, uid, plan, started_at: plan.decided_at }
    }

    /// The reason for it is gone: the component is well again, or another template runs.
    fn obsolete(&self, policy: &ValidPolicy) -> Option<(RemediationReason, String)> {
        let memory = self.ctx.memory.find(&policy.namespace, &policy.name)?;
        let memory = memory.lock();
        let entry = memory.components.get(&self.remediation.spec.plan.component)?;
        entry.tracker.last_check()?;
        if let (Some(from), Some(release)) = (&self.remediation.spec.plan.release, entry.tracker.release())
            && release.digest != from.digest
        {
            let message = format!("{release} runs now instead of {from}; nothing was done to it");
            return Some((RemediationReason::Superseded, message));
        }
        if self.remediation.spec.plan.foreseen.is_some() {
            return self.passed(entry);
        }
        let healed = entry.tracker.episode().is_none() && entry.tracker.status() == crate::api::HealthStatus::Healthy;
        healed.then(|| {
            (RemediationReason::Recovered, "it is healthy again without this action; nothing was done".to_owned())
        })
    }

    /// What was foreseen has come or gone.
    fn passed(&self, entry: &ComponentMemory) -> Option<(RemediationReason, String)> {
        if entry.tracker.episode().is_some() {
            let came = "what was foreseen has come; it is healed by a Remediation of its own";
            return Some((RemediationReason::CameFirst, came.to_owned()));
        }
        let open = entry.outlook.foreseen().is_some_and(|foreseen| foreseen.id == self.remediation.spec.plan.episode);
        (!open).then(|| {
            (
                RemediationReason::Recovered,
                "what was foreseen is not to be expected any more; nothing was done".to_owned(),
            )
        })
    }

    /// Looks afresh, and asks every guard again.
    async fn allowed(&self, policy: &ValidPolicy) -> Result<Result<Allowed, Refusal>, Error> {
        let plan = &self.remediation.spec.plan;
        let refuse = |guard, message: &str| Ok(Err(Refusal::until(guard, message.to_owned(), None)));
        let Some(component) = policy.component(&plan.component) else {
            return refuse(Guard::NoRemedy, "the policy does not name this component any more");
        };
        let all = self.of_policy().await?;
        let others = all.iter().filter(|other| {
            other.spec.plan.policy_uid == plan.policy_uid && other.metadata.uid != self.remediation.metadata.uid
        });
        let history = history_of(others);
        let Some(memory) = self.ctx.memory.find(&policy.namespace, &policy.name) else {
            return refuse(Guard::NotConfirmed, "the policy has not been looked at yet");
        };
        let release_watch =
            with_component(&memory, &plan.component, |entry| entry.tracker.watches_release(&policy.limits))
                .unwrap_or(false);
        let observation: Observation = self.ctx.targets.observe(&policy.namespace, component, release_watch).await;
        let memory = memory.lock();
        let Some(entry) = memory.components.get(&plan.component) else {
            return refuse(Guard::NotConfirmed, "the component has not been looked at yet");
        };
        let newest = observation.target.known().and_then(|target| target.released()).map(|released| released.id);
        let assessment =
            assess(&observation, &component.thresholds, &entry.history, entry.tracker.release_unproven(newest));
        // The forecast anew too, with what was just seen.
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

    /// Stores the intent. Fails when the object changed meanwhile, for example by a rejection.
    async fn begin(&self, mut status: RemediationStatus) -> Result<RemediationStatus, Error> {
        status.phase = Phase::Running;
        status.started_at = Some(milliseconds(Timestamp::now()));
        status.reason = RemediationReason::Acting.name().into();
        status.message = format!(
            "{} of {}/{}",
            self.remediation.spec.plan.action,
            self.remediation.spec.plan.target.kind,
            self.remediation.spec.plan.target.name
        );
        self.write(&status, true).await?;
        self.ctx.events.about_remediation(self.remediation, EventReason::Acting, &status.message).await;
        Ok(status)
    }
}

/// Who owns the decision, by the API server's own record: never by what the object says of itself.
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
