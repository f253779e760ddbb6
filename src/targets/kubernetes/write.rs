//! Actions on a workload that are one write, or several that are finished once started: rollbacks, restart, scaling.
//!
//! Every write reads the live object first and detects that it was performed already, so a second call and a crash between
//! any two lines are harmless: no progress is stored.

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{ActError, Kubernetes, Named, Outcome, WholeState, WorkloadRef};
use crate::{
    api::{ActionPlan, Intent, RemediationReason, TemplateRef, ValidPolicy},
    plan::guard::Permit,
    targets::{
        Targets,
        executor::{EXECUTE_LIMIT, Effects, End, Moment, Order, Procedure, Step, fifth_of},
    },
};

/// Between two attempts: a fifth of the time since the start, within these limits.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));

/// The consequence of a failed write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assessed {
    Again(Duration),
    Ended { end: End, reason: RemediationReason, message: String },
}

/// `since`: the start, or the last progress, of the action.
pub fn assess_error(error: &ActError, since: SignedDuration) -> Assessed {
    let (end, message) = match error {
        ActError::Superseded { expected, found } => (
            End::Expired,
            format!(
                "a newer release appeared ({expected} was assessed, {found} runs); the newer release was not touched"
            ),
        ),
        ActError::Rescaled { .. } => (End::Expired, error.to_string()),
        error if error.retryable() && since < EXECUTE_LIMIT => {
            return Assessed::Again(fifth_of(since, RETRY));
        }
        error => (End::Failed, error.to_string()),
    };
    Assessed::Ended { end, reason: error.reason(), message }
}

/// The step after a failed write.
pub fn after_error<P, E>(error: &ActError, since: SignedDuration, progress: P) -> Step<P, E> {
    match assess_error(error, since) {
        Assessed::Again(after) => Step::wait(progress, after),
        Assessed::Ended { end, reason, message } => Step::Ended { progress, end, reason, message },
    }
}

#[derive(Debug)]
pub struct Write {
    /// The message after the write.
    pub done: String,
}

/// What is read before the write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteSeen {
    /// The action is still wanted; the write reads everything itself.
    NotRead,
    /// The action was withdrawn: whether the write was started before.
    Begun(Result<bool, ActError>),
}

/// The one effect: start the write, or finish it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MakeWrite;

impl Procedure for Write {
    type Progress = ();
    type Seen = WriteSeen;
    type Effect = MakeWrite;
    type Answer = Result<Outcome, ActError>;

    fn next(&self, (): &(), seen: &WriteSeen, moment: &Moment) -> Step<(), MakeWrite> {
        match (&moment.withdrawn, seen) {
            // Half of several writes is worse than all of them: a started action is finished.
            (None, _) | (Some(_), WriteSeen::Begun(Ok(true))) => {
                Step::Perform { progress: (), effect: MakeWrite, note: None }
            }
            (Some(withdrawn), WriteSeen::Begun(Ok(false))) => {
                Step::expired((), withdrawn.reason, format!("{}; nothing was done", withdrawn.why))
            }
            (Some(_), WriteSeen::Begun(Err(error))) => after_error(error, moment.since_start(), ()),
            (Some(_), WriteSeen::NotRead) => Step::wait((), RETRY.0),
        }
    }

    fn answered(
        &self,
        (): &(),
        _: &MakeWrite,
        answer: &Result<Outcome, ActError>,
        moment: &Moment,
    ) -> Step<(), MakeWrite> {
        let reason = match answer {
            Ok(Outcome::Done { .. }) => RemediationReason::Executed,
            Ok(Outcome::AlreadyDone) => RemediationReason::AlreadyDone,
            Err(error) => return after_error(error, moment.since_start(), ()),
        };
        Step::Done { progress: (), reason, message: format!("{}; watching whether it helps", self.done) }
    }
}

pub struct WriteExecutor<'a> {
    pub kubernetes: Kubernetes,
    pub workload: WorkloadRef<'a>,
    pub order: Order<'a>,
    pub targets: &'a Targets,
    pub policy: Option<&'a ValidPolicy>,
}

impl WriteExecutor<'_> {
    /// The workloads of the policy.
    fn named(&self) -> Named {
        let components = self.policy.into_iter().flat_map(|policy| &policy.components);
        let workloads = components.filter_map(|component| component.target.workload());
        workloads.map(|(kind, name)| (kind, name.to_owned())).collect()
    }
}

#[async_trait]
impl Effects for WriteExecutor<'_> {
    type Procedure = Write;

    fn procedure(&self) -> Write {
        let done = match &self.order.plan.intent {
            Intent::Rollback { to } => format!("the template of {to} is restored"),
            Intent::RollbackState { to, .. } => format!("the state of {to} is restored"),
            Intent::RollbackConfig { config } => format!("{} restored, and pods are being replaced", config.names()),
            Intent::Scale(scaling) => format!("desired replicas: {}", scaling.to),
            _ => "pods are being replaced".to_owned(),
        };
        Write { done }
    }

    async fn preflight(&self) -> Result<(), ActError> {
        let (plan, workload) = (self.order.plan, self.kubernetes.on(self.workload));
        if let Intent::Scale(scaling) = &plan.intent {
            return workload.preflight_scale(*scaling).await;
        }
        let named = self.named();
        let config = plan.intent.config().map(|config| (config, &named));
        let to = plan.intent.template();
        let ends = (plan.release.as_ref(), to);
        workload.preflight(plan.action, ends, config).await?;
        let unpulled = self.targets.unpulled_images(self.order.namespace);
        workload.preflight_images(to, &unpulled).await
    }

    async fn observe(&self, (): &(), moment: &Moment) -> WriteSeen {
        if moment.withdrawn.is_none() {
            return WriteSeen::NotRead;
        }
        let Order { plan, started_at, .. } = self.order;
        WriteSeen::Begun(has_started(&self.kubernetes, self.workload, plan, started_at).await)
    }

    async fn perform(&self, _: &MakeWrite, (): &(), _: &Permit) -> Result<Outcome, ActError> {
        let Order { plan, started_at, .. } = self.order;
        let (workload, release) = (self.kubernetes.on(self.workload), plan.release.as_ref());
        match &plan.intent {
            Intent::Rollback { to } => workload.rollback(assessed(release)?, to).await,
            Intent::Restart {} => workload.restart(release, started_at).await,
            Intent::Scale(scaling) => workload.scale(release, *scaling).await,
            Intent::RollbackState { to, config } => {
                let state = WholeState { from: assessed(release)?, to, config };
                workload.restore(state, &self.named(), started_at).await
            }
            Intent::RollbackConfig { config } => {
                workload.rollback_config(release, config, &self.named(), started_at).await
            }
            _ => Err(ActError::BadRemedy(format!("{} does not write to a workload", plan.action))),
        }
    }
}

/// The assessed release, which a rollback replaces.
fn assessed(release: Option<&TemplateRef>) -> Result<&TemplateRef, ActError> {
    release.ok_or_else(|| ActError::TargetGone("the remediation names no assessed release".to_owned()))
}

/// Whether the write was started, by an operator process that ended before it could store that.
pub async fn has_started(
    kubernetes: &Kubernetes,
    workload: WorkloadRef<'_>,
    plan: &ActionPlan,
    started_at: Timestamp,
) -> Result<bool, ActError> {
    let (workload, release) = (kubernetes.on(workload), plan.release.as_ref());
    match &plan.intent {
        Intent::Rollback { to } => workload.is_rolled_back(assessed(release)?, to).await,
        Intent::RollbackState { to, config } => {
            let state = WholeState { from: assessed(release)?, to, config };
            workload.is_restoring(state, started_at).await
        }
        Intent::RollbackConfig { config } => workload.is_restoring_config(config).await,
        Intent::Scale(scaling) => workload.is_scaled(release, *scaling).await,
        Intent::Restart {} => workload.is_restarted(release, started_at).await,
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::model::{Limits, World, walk};

    /// A workload whose write finds out that it was made already.
    #[derive(Debug, Clone, PartialEq)]
    struct Workload {
        writes: u32,
        superseded: bool,
    }

    impl World<Write> for Workload {
        fn observations(&self, (): &()) -> Vec<WriteSeen> {
            vec![WriteSeen::Begun(Ok(self.writes > 0)), WriteSeen::Begun(Err(ActError::Unreachable("away".into())))]
        }

        fn results(&self, _: &MakeWrite, (): &()) -> Vec<(Self, Result<Outcome, ActError>)> {
            if self.writes > 0 {
                return vec![(self.clone(), Ok(Outcome::AlreadyDone))];
            }
            if self.superseded {
                let error = ActError::Superseded { expected: "v1".into(), found: "v2".into() };
                return vec![(self.clone(), Err(error))];
            }
            let written = Self { writes: self.writes + 1, ..self.clone() };
            let lost = ActError::Timeout { verb: "patch", resource: "deployments", seconds: 5 };
            vec![
                (written.clone(), Ok(Outcome::Done { generation: 2 })),
                (written, Err(lost.clone())),
                (self.clone(), Err(lost)),
                (self.clone(), Err(ActError::Rejected("no".into()))),
            ]
        }

        fn later(&self) -> Vec<Self> {
            vec![Self { superseded: true, ..self.clone() }]
        }

        fn violation(&self, step: &Step<(), MakeWrite>) -> Option<String> {
            match step {
                _ if self.writes > 1 => Some("the write was made twice".to_owned()),
                Step::OutcomeUnknown { .. } => Some("the outcome is known".to_owned()),
                Step::Done { .. } if self.writes == 0 => Some("nothing was written".to_owned()),
                Step::Ended { end: End::Expired, .. } if self.writes > 0 && !self.superseded => {
                    Some("the write was made, and is not verified".to_owned())
                }
                _ => None,
            }
        }
    }

    #[test]
    fn a_write_is_performed_once_in_every_order_of_answers_losses_and_crashes() {
        let procedure = Write { done: "pods are being replaced".into() };
        let limits = Limits { tick: Duration::from_secs(30), ..Limits::default() };
        let report = walk(&procedure, Workload { writes: 0, superseded: false }, (), limits);
        report.assert_holds();
        for end in ["Done Executed", "Done AlreadyDone", "Expired Superseded", "Expired PolicyGone", "Failed Timeout"] {
            assert!(report.reached(end), "{end} was not reached: {report:?}");
        }
    }

    /// Takes a lost answer for a write that was not made, and gives up.
    struct Forgetful(Write);

    impl Procedure for Forgetful {
        type Progress = ();
        type Seen = WriteSeen;
        type Effect = MakeWrite;
        type Answer = Result<Outcome, ActError>;

        fn next(&self, progress: &(), seen: &WriteSeen, moment: &Moment) -> Step<(), MakeWrite> {
            self.0.next(progress, seen, moment)
        }

        fn answered(
            &self,
            progress: &(),
            effect: &MakeWrite,
            answer: &Result<Outcome, ActError>,
            moment: &Moment,
        ) -> Step<(), MakeWrite> {
            match answer {
                Err(ActError::Timeout { .. }) => {
                    Step::expired((), RemediationReason::Timeout, "no answer; nothing was done")
                }
                other => self.0.answered(progress, effect, other, moment),
            }
        }
    }

    impl World<Forgetful> for Workload {
        fn observations(&self, progress: &()) -> Vec<WriteSeen> {
            World::<Write>::observations(self, progress)
        }

        fn results(&self, effect: &MakeWrite, progress: &()) -> Vec<(Self, Result<Outcome, ActError>)> {
            World::<Write>::results(self, effect, progress)
        }

        fn violation(&self, step: &Step<(), MakeWrite>) -> Option<String> {
            World::<Write>::violation(self, step)
        }
    }

    #[test]
    fn the_model_notices_a_procedure_that_swallows_a_lost_answer() {
        let procedure = Forgetful(Write { done: String::new() });
        let limits = Limits { tick: Duration::from_secs(30), ..Limits::default() };
        walk(&procedure, Workload { writes: 0, superseded: false }, (), limits).assert_caught();
    }
}
