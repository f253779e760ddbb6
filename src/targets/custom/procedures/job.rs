//! A custom Job: created once, then followed to its end.
//!
//! Guarantees: the Job's name is derived from the Remediation's uid, so the API server refuses a second one, also after a
//! crash or a lost answer. A Job whose creation was confirmed, or that was observed, is not created again after it was
//! deleted. A Job that was created is followed to its end also when the action is withdrawn.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;

use super::{GRACE, facts, length};
use crate::{
    api::{COMPONENT_LABEL, JobProgress, JobRemedy, POLICY_LABEL, Remediation, RemediationReason},
    plan::guard::Permit,
    targets::{
        executor::{Effects, Moment, Note, Order, Procedure, Step},
        kubernetes::{ActError, JobRun, JobState, Kubernetes, write::after_error},
    },
};

/// Between two reads of a Job.
const POLL: Duration = Duration::from_secs(1);
/// Between the creation and the first read.
const RECHECK: Duration = Duration::from_millis(500);
/// The name of a Job is the component's name, a dash and this much of the uid: 40 + 1 + 13 of 63 characters.
const UID_PART: usize = 13;

/// Decides about one Job.
#[derive(Debug)]
pub struct RunJob<'a> {
    pub namespace: &'a str,
    pub name: String,
    pub remedy: &'a JobRemedy,
}

/// The one effect: create the Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateJob;

type Next = Step<JobProgress, CreateJob>;

impl RunJob<'_> {
    /// The Job has not ended, although its deadline has passed: Kubernetes ends a Job at its deadline.
    fn is_over(&self, moment: &Moment) -> bool {
        moment.since_start() >= length(&self.remedy.deadline) + GRACE
    }
}

impl Procedure for RunJob<'_> {
    type Progress = JobProgress;
    type Seen = Result<Option<JobState>, ActError>;
    type Effect = CreateJob;
    type Answer = Result<(), ActError>;

    fn next(&self, progress: &JobProgress, seen: &Self::Seen, moment: &Moment) -> Next {
        let Self { namespace, name, remedy } = self;
        let was_created = progress.job.is_some();
        let state = match seen {
            Ok(state) => state,
            Err(error) if error.retryable() && !self.is_over(moment) => return Step::wait(progress.clone(), POLL),
            Err(error) => return after_error(error, moment.since_start(), progress.clone()),
        };
        let seen = JobProgress { job: Some(name.clone()) };
        match state {
            None if was_created => {
                let message = format!("Job {name} was deleted before it ended; its effect is unknown");
                Step::failed(seen, RemediationReason::JobGone, message)
            }
            None => match moment.withdrawn {
                Some(withdrawn) => {
                    let message = format!("{}; nothing was done", withdrawn.why);
                    Step::expired(progress.clone(), withdrawn.reason, message)
                }
                None => Step::Perform { progress: progress.clone(), effect: CreateJob, note: None },
            },
            Some(JobState::Foreign) => {
                let message = format!("Job {name} already exists and is not of this Remediation; nothing was done");
                Step::failed(JobProgress::default(), RemediationReason::NameTaken, message)
            }
            Some(JobState::Complete) => {
                let message = format!("Job {name} is complete; watching whether it helps");
                Step::Done { progress: seen, reason: RemediationReason::Executed, message }
            }
            Some(JobState::Failed { why }) => {
                let message = format!("Job {name} failed ({why}); see kubectl logs job/{name} -n {namespace}");
                Step::failed(seen, RemediationReason::JobFailed, message)
            }
            Some(JobState::Running) if self.is_over(moment) => {
                let deadline = &remedy.deadline;
                let message = format!(
                    "Job {name} has not ended within its deadline, {deadline}; see kubectl describe job {name} -n {namespace}"
                );
                Step::failed(seen, RemediationReason::DeadlineExceeded, message)
            }
            Some(JobState::Running) => {
                // The journal reports an unchanged note once.
                let note = Note::acting("job", format!("Job {name} runs; its deadline is {}", remedy.deadline));
                Step::Wait { progress: seen, after: POLL, note: Some(note) }
            }
        }
    }

    fn answered(&self, progress: &JobProgress, _: &CreateJob, answer: &Self::Answer, moment: &Moment) -> Next {
        match answer {
            // A Job that is deleted before the first read must not be created again.
            Ok(()) => Step::wait(JobProgress { job: Some(self.name.clone()) }, RECHECK),
            Err(error) => after_error(error, moment.since_start(), progress.clone()),
        }
    }
}

/// Runs one Job.
pub struct JobExecutor<'a> {
    pub kubernetes: &'a Kubernetes,
    pub order: Order<'a>,
    pub remedy: &'a JobRemedy,
}

impl JobExecutor<'_> {
    fn name(&self) -> String {
        let uid = self.order.uid;
        format!("{}-{}", self.order.plan.component, uid.get(..UID_PART).unwrap_or(uid))
    }

    fn job<'a>(&'a self, name: &'a str) -> JobRun<'a> {
        let Order { namespace, plan, .. } = self.order;
        JobRun {
            namespace,
            name,
            remedy: self.remedy,
            deadline: length(&self.remedy.deadline).as_secs(),
            owner: owner(&self.order),
            labels: vec![(POLICY_LABEL, plan.policy.clone()), (COMPONENT_LABEL, plan.component.clone())],
            facts: facts(&self.order).into_iter().map(|(_, variable, value)| (variable, value)).collect(),
        }
    }
}

/// The Remediation, as the controller of the Job.
fn owner(order: &Order<'_>) -> OwnerReference {
    OwnerReference {
        api_version: Remediation::api_version(&()).into_owned(),
        kind: Remediation::kind(&()).into_owned(),
        name: order.remediation.to_owned(),
        uid: order.uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

#[async_trait]
impl<'a> Effects for JobExecutor<'a> {
    type Procedure = RunJob<'a>;

    fn procedure(&self) -> RunJob<'a> {
        RunJob { namespace: self.order.namespace, name: self.name(), remedy: self.remedy }
    }

    async fn preflight(&self) -> Result<(), ActError> {
        self.kubernetes.preflight_job(&self.job(&self.name())).await
    }

    async fn observe(&self, _: &JobProgress, _: &Moment) -> Result<Option<JobState>, ActError> {
        self.kubernetes.job(self.order.namespace, &self.name(), self.order.uid).await
    }

    async fn perform(&self, _: &CreateJob, _: &JobProgress, _: &Permit) -> Result<(), ActError> {
        self.kubernetes.run_job(&self.job(&self.name())).await
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::targets::{
        executor::End,
        model::{Limits, World, walk},
    };

    /// The API server.
    #[derive(Debug, Clone, PartialEq)]
    struct Cluster {
        job: Option<JobState>,
        created: u32,
        deleted: bool,
    }

    const EMPTY: Cluster = Cluster { job: None, created: 0, deleted: false };

    impl Cluster {
        fn create(&self) -> Self {
            match self.job {
                // The name is taken: the API server refuses a second one.
                Some(_) => self.clone(),
                None => Self { job: Some(JobState::Running), created: self.created + 1, ..self.clone() },
            }
        }

        fn broken<P: Procedure<Progress = JobProgress, Effect = CreateJob>>(
            &self,
            step: &Step<JobProgress, P::Effect>,
        ) -> Option<String> {
            match step {
                _ if self.created > 1 && !self.deleted => Some("two Jobs were created".to_owned()),
                Step::Perform { progress: JobProgress { job: Some(_) }, .. } => {
                    Some("a Job that was seen is created again".to_owned())
                }
                Step::OutcomeUnknown { .. } => Some("the API server knows the outcome".to_owned()),
                Step::Done { .. } if self.job != Some(JobState::Complete) => Some("no Job is complete".to_owned()),
                Step::Ended { end: End::Expired, .. } if self.job.is_some() => {
                    Some("a Job runs and is not followed".to_owned())
                }
                _ => None,
            }
        }

        fn changes(&self) -> Vec<Self> {
            let with = |job| Self { job, ..self.clone() };
            match self.job {
                Some(JobState::Running) => vec![
                    with(Some(JobState::Complete)),
                    with(Some(JobState::Failed { why: "BackoffLimitExceeded".into() })),
                    Self { deleted: true, ..with(None) },
                ],
                _ => Vec::new(),
            }
        }
    }

    macro_rules! world {
        ($procedure:ty) => {
            impl World<$procedure> for Cluster {
                fn observations(&self, _: &JobProgress) -> Vec<Result<Option<JobState>, ActError>> {
                    vec![Ok(self.job.clone()), Err(ActError::Unreachable("etcd is unreachable".into()))]
                }

                fn results(&self, _: &CreateJob, _: &JobProgress) -> Vec<(Self, Result<(), ActError>)> {
                    let lost = ActError::Timeout { verb: "create", resource: "jobs", seconds: 5 };
                    vec![
                        (self.create(), Ok(())),
                        (self.create(), Err(lost.clone())),
                        (self.clone(), Err(lost)),
                        (self.clone(), Err(ActError::Rejected("no".into()))),
                    ]
                }

                fn later(&self) -> Vec<Self> {
                    self.changes()
                }

                fn violation(&self, step: &Next) -> Option<String> {
                    self.broken::<$procedure>(step)
                }
            }
        };
    }

    world!(RunJob<'_>);
    world!(CreatesAgain<'_>);

    /// The fault: a Job that is gone is created again.
    struct CreatesAgain<'a>(RunJob<'a>);

    impl Procedure for CreatesAgain<'_> {
        type Progress = JobProgress;
        type Seen = Result<Option<JobState>, ActError>;
        type Effect = CreateJob;
        type Answer = Result<(), ActError>;

        fn next(&self, progress: &JobProgress, seen: &Self::Seen, moment: &Moment) -> Next {
            match seen {
                Ok(None) => Step::Perform { progress: progress.clone(), effect: CreateJob, note: None },
                _ => self.0.next(progress, seen, moment),
            }
        }

        fn answered(
            &self,
            progress: &JobProgress,
            effect: &CreateJob,
            answer: &Result<(), ActError>,
            moment: &Moment,
        ) -> Next {
            self.0.answered(progress, effect, answer, moment)
        }
    }

    const LIMITS: Limits = Limits {
        deadline: SignedDuration::from_mins(10),
        tick: Duration::from_secs(30),
        crashes: 2,
        withdrawals: true,
        states: 100_000,
    };

    fn remedy() -> JobRemedy {
        JobRemedy { template: None, template_ref: None, deadline: "3m".into() }
    }

    #[test]
    fn one_job_runs_and_is_followed_to_its_end() {
        let remedy = remedy();
        let procedure = RunJob { namespace: "shop", name: "api-1".into(), remedy: &remedy };
        let report = walk(&procedure, EMPTY, JobProgress::default(), LIMITS);
        report.assert_holds();
        for end in [
            "Done Executed",
            "Failed JobFailed",
            "Failed JobGone",
            "Failed DeadlineExceeded",
            "Failed WriteRejected",
            "Failed Timeout",
            "Expired PolicyGone",
        ] {
            assert!(report.reached(end), "{end} was not reached: {report:?}");
        }
        let foreign =
            walk(&procedure, Cluster { job: Some(JobState::Foreign), ..EMPTY }, JobProgress::default(), LIMITS);
        foreign.assert_holds();
        assert!(foreign.reached("Failed NameTaken"), "{foreign:?}");
    }

    #[test]
    fn the_model_notices_a_second_job() {
        let remedy = remedy();
        let procedure = RunJob { namespace: "shop", name: "api-1".into(), remedy: &remedy };
        walk(&CreatesAgain(procedure), EMPTY, JobProgress::default(), LIMITS).assert_caught();
    }
}
