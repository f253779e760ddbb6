//! The first step: may it be done, and may it be done now?

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt as _, runtime::controller::Action};

use super::{RECHECK, Step, database::sessions_in_words, named, with_component, workload};
use crate::{
    analyze::{assess::assess, observation::Observation},
    api::{
        DecidedBy, Decision, HOSTED_KINDS, Mode, OnTimeout, POSTGRES_KIND, Phase, Remediation, RemediationStatus,
        ValidPolicy, milliseconds,
    },
    controller::{Error, events::Reason, history_of, memory::ComponentMemory, revalidate::unlisted},
    plan::{
        self, Ground, Situation,
        guard::{Guard, Refusal},
        ladder,
    },
    targets::kubernetes::ActError,
};

/// A permission to act: made only by the guards, on a fresh look.
struct Allowed {
    /// No other remedy is left for what is wrong.
    last_resort: bool,
}

/// How long the next remedy waits for what the API server refuses; a disruption budget may be behind for a moment.
const WAIT_FOR_LEAVE: SignedDuration = SignedDuration::from_secs(10);
/// So often a provider is asked again whether it would still refuse.
const ASK_PROVIDER: Duration = Duration::from_secs(15);

impl Step<'_> {
    /// Pending, AwaitingApproval, Blocked: may it be done, and may it be done now?
    pub(super) async fn approve(
        &self,
        mut status: RemediationStatus,
        policy: Option<ValidPolicy>,
    ) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        let Some(policy) = policy else {
            return self
                .finish(
                    status,
                    Phase::Expired,
                    "PolicyGone",
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
                return self.finish(status, Phase::Rejected, "Rejected", &format!("{note}; nothing was done")).await;
            }
            self.ctx.events.about_remediation(self.remediation, Reason::Approved, &note).await;
        }
        let waiting_since = *status.waiting_since.get_or_insert(milliseconds(now));
        // Stored by an older version it may not say when.
        let asked_at = status.asked_at.or_else(|| (status.phase == Phase::AwaitingApproval).then_some(waiting_since));
        let mut deadline = asked_at.unwrap_or(waiting_since) + policy.limits.approval_timeout;
        if let Some((reason, why)) = unlisted(spec, &policy) {
            return self.finish(status, Phase::Expired, reason, &format!("{why}; nothing was done")).await;
        }
        if let Some(why) = self.obsolete(&policy) {
            return self.finish(status, Phase::Expired, why.0, &why.1).await;
        }
        if spec.action.is_of_sessions() && status.database.is_none() {
            match self.choose_sessions(&policy).await {
                // One that is there already may get old enough.
                Ok(found) if found.sessions.is_empty() && now < waiting_since + self.youngest() + WAIT_FOR_LEAVE => {
                    let (message, until) =
                        ("no session of the database matches yet", now + SignedDuration::from_secs(1));
                    return self.hold(status, Phase::Blocked, "NothingToEnd", message, until).await;
                }
                Ok(found) if found.sessions.is_empty() => {
                    let message = "no session of the database matches; nothing was done, the next remedy is tried";
                    return self.finish(status, Phase::Expired, "NothingToEnd", message).await;
                }
                Ok(found) => status.database = Some(found),
                Err(why) if why.may_pass() && now < deadline => {
                    let until = now + SignedDuration::from_secs(2);
                    return self.hold(status, Phase::Blocked, why.reason(), &why.to_string(), until).await;
                }
                Err(why) => {
                    let message = format!("{why}; nothing was done, the next remedy is tried");
                    return self.finish(status, Phase::Expired, why.reason(), &message).await;
                }
            }
        }
        let must_ask = (spec.approval_required || policy.mode == Mode::Approve) && spec.approval.is_none();
        let timed_out = now >= deadline;
        if must_ask && !timed_out {
            if policy.mode == Mode::Observe {
                return self
                    .hold(
                        status,
                        Phase::Blocked,
                        Guard::ObserveMode.into(),
                        "spec.mode is Observe now; nothing is done",
                        deadline,
                    )
                    .await;
            }
            // Nobody is asked for what would be refused for certain; once they are, it is looked at again when they have decided.
            if status.phase != Phase::AwaitingApproval
                && let Some(why) = self.refused(&policy).await
            {
                // A look is made only when it matters.
                let last_resort = !self.refused_for_long(&status, &why)
                    || self.allowed(&policy).await?.map_or(true, |allowed| allowed.last_resort);
                return self.hold_refused(status, &why, last_resort, deadline).await;
            }
            if asked_at.is_none() {
                let now = milliseconds(now);
                (status.asked_at, deadline) = (Some(now), now + policy.limits.approval_timeout);
            }
            let message = format!(
                "{} of {}{}{} waits for approval until {}, then {}; decide with: {}",
                spec.action,
                spec.component,
                status.database.as_ref().map(sessions_in_words).unwrap_or_default(),
                spec.action.cost().map(|cost| format!(" ({cost})")).unwrap_or_default(),
                deadline.strftime("%H:%M:%SZ"),
                if policy.limits.on_timeout == OnTimeout::Reject { "nothing is done" } else { "it is done" },
                self.remediation.approve_command(),
            );
            return self.hold(status, Phase::AwaitingApproval, "AwaitingApproval", &message, deadline).await;
        }
        if must_ask && asked_at.is_some() && policy.limits.on_timeout == OnTimeout::Reject {
            return self
                .finish(status, Phase::Expired, "ApprovalTimeout", "nobody decided in time; nothing was done")
                .await;
        }
        // What the timeout approved has as long again to get past the guards.
        let last = if must_ask && asked_at.is_some() { deadline + policy.limits.approval_timeout } else { deadline };
        if now >= last {
            let message = format!("held back until its time was over: {}; nothing was done", status.message);
            return self.finish(status, Phase::Expired, "HeldBackTooLong", &message).await;
        }

        // From the look at the guards until `Running` is stored, no other action may pass.
        let place = self.ctx.starting.lock().await;
        match self.allowed(&policy).await? {
            Ok(allowed) => {
                if let Some(why) = self.refused(&policy).await {
                    drop(place);
                    return self.hold_refused(status, &why, allowed.last_resort, last).await;
                }
                let status = self.begin(status, allowed).await?;
                drop(place);
                self.execute(status, Some(&policy)).await
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
                        let reason: &'static str = refusal.guard.into();
                        self.hold(
                            status,
                            Phase::Pending,
                            reason,
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

    /// Held back by what would refuse it. After a moment the next remedy has its turn, if there is one.
    async fn hold_refused(
        &self,
        status: RemediationStatus,
        why: &ActError,
        last_resort: bool,
        until: Timestamp,
    ) -> Result<Action, Error> {
        if self.refused_for_long(&status, why) && !last_resort {
            let message = format!("{why}; nothing was done, the next remedy is tried");
            return self.finish(status, Phase::Expired, why.reason(), &message).await;
        }
        let next = self.hold(status, Phase::Blocked, why.reason(), &why.to_string(), until).await?;
        // A provider lets us ask so many times a minute.
        let hosted = HOSTED_KINDS.contains(&self.remediation.spec.target.kind.as_str());
        Ok(if hosted && last_resort { Action::requeue(ASK_PROVIDER) } else { next })
    }

    fn refused_for_long(&self, status: &RemediationStatus, why: &ActError) -> bool {
        let long = status.waiting_since.is_some_and(|since| Timestamp::now() >= since + WAIT_FOR_LEAVE);
        long && status.reason == why.reason()
    }

    /// What would refuse it for certain: the API server, a provider, or a copy to go back to that is not there. What else is
    /// in the way is found when it is done.
    async fn refused(&self, policy: &ValidPolicy) -> Option<ActError> {
        let spec = &self.remediation.spec;
        if spec.hook.is_some() {
            return None;
        }
        let namespace = self.remediation.namespace().unwrap_or_default();
        let refused = if spec.action.is_own() {
            self.preflight_custom().await.err()?
        } else if HOSTED_KINDS.contains(&spec.target.kind.as_str()) {
            self.preflight_hosted(policy).await.err()?
        } else if spec.target.kind == POSTGRES_KIND {
            return None;
        } else {
            let workload = workload(&namespace, spec).ok()?;
            let named = named(policy);
            let config = spec.config.as_ref().map(|config| (config, &named));
            let preflight = async {
                if let Some(scaling) = spec.scale {
                    return self.ctx.targets.kubernetes.preflight_scale(workload, scaling).await;
                }
                let kubernetes = self.preflight_owner(workload, policy).await?;
                let ends = (spec.from.as_ref(), spec.to.as_ref());
                kubernetes.preflight(workload, spec.action, ends, config).await?;
                kubernetes
                    .preflight_images(workload, spec.to.as_ref(), &self.ctx.targets.unpulled_images(&namespace))
                    .await
            };
            preflight.await.err()?
        };
        let stays = matches!(
            refused,
            ActError::Forbidden { .. }
                | ActError::Budget(_)
                | ActError::Immutable(_)
                | ActError::BadRemedy(_)
                | ActError::ImageUnavailable(_)
                | ActError::Autoscaled(_)
                | ActError::Shared(_)
                | ActError::Overwritten(_)
                | ActError::GitOpsOwned(_)
                | ActError::OwnerBusy(_)
                | ActError::TargetGone(_)
        );
        stays.then_some(refused)
    }

    /// The reason for it is gone: the component is well again, or another template runs.
    fn obsolete(&self, policy: &ValidPolicy) -> Option<(&'static str, String)> {
        let memory = self.ctx.memory.find(&policy.namespace, &policy.name)?;
        let memory = memory.lock();
        let entry = memory.components.get(&self.remediation.spec.component)?;
        entry.tracker.last_check()?;
        if let (Some(from), Some(release)) = (&self.remediation.spec.from, entry.tracker.release())
            && release.digest != from.digest
        {
            let message = format!("{release} runs now instead of {from}; nothing was done to it");
            return Some(("Superseded", message));
        }
        if self.remediation.spec.foreseen.is_some() {
            return self.passed(entry);
        }
        let healed = entry.tracker.episode().is_none() && entry.tracker.status() == crate::api::HealthStatus::Healthy;
        healed.then(|| ("Recovered", "it is healthy again without this action; nothing was done".to_owned()))
    }

    /// What was foreseen has come or gone.
    fn passed(&self, entry: &ComponentMemory) -> Option<(&'static str, String)> {
        if entry.tracker.episode().is_some() {
            let came = "what was foreseen has come; it is healed by a Remediation of its own";
            return Some(("CameFirst", came.to_owned()));
        }
        let open = entry.outlook.foreseen().is_some_and(|foreseen| foreseen.id == self.remediation.spec.episode);
        (!open).then(|| ("Recovered", "what was foreseen is not to be expected any more; nothing was done".to_owned()))
    }

    /// Looks afresh, and asks every guard again.
    async fn allowed(&self, policy: &ValidPolicy) -> Result<Result<Allowed, Refusal>, Error> {
        let spec = &self.remediation.spec;
        let refuse = |guard, message: &str| Ok(Err(Refusal::until(guard, message.to_owned(), None)));
        let Some(component) = policy.component(&spec.component) else {
            return refuse(Guard::NoRemedy, "the policy does not name this component any more");
        };
        let all = self.of_policy().await?;
        let others = all.iter().filter(|other| {
            other.spec.policy_uid == spec.policy_uid && other.metadata.uid != self.remediation.metadata.uid
        });
        let history = history_of(others);
        let Some(memory) = self.ctx.memory.find(&policy.namespace, &policy.name) else {
            return refuse(Guard::NotConfirmed, "the policy has not been looked at yet");
        };
        let release_watch =
            with_component(&memory, &spec.component, |entry| entry.tracker.watches_release(&policy.limits))
                .unwrap_or(false);
        let observation: Observation = self.ctx.targets.observe(&policy.namespace, component, release_watch).await;
        let memory = memory.lock();
        let Some(entry) = memory.components.get(&spec.component) else {
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
        let ground = match &spec.foreseen {
            Some(foreseen) => Ground::Foreseen(foreseen),
            None => Ground::Unhealthy(&spec.episode),
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
        let last_resort = ladder::is_last(&situation, ground, spec.rung, spec.cause);
        Ok(plan::still_allowed(&situation, ground, spec.action).map(|()| Allowed { last_resort }))
    }

    /// Stores the intent. Fails when the object changed meanwhile, for example by a rejection.
    async fn begin(&self, mut status: RemediationStatus, _: Allowed) -> Result<RemediationStatus, Error> {
        status.phase = Phase::Running;
        status.started_at = Some(milliseconds(Timestamp::now()));
        status.reason = "Acting".into();
        status.message = format!(
            "{} of {}/{}",
            self.remediation.spec.action, self.remediation.spec.target.kind, self.remediation.spec.target.name
        );
        self.write(&status, true).await?;
        self.ctx.events.about_remediation(self.remediation, Reason::Acting, &status.message).await;
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
