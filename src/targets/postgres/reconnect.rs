//! RecoverConnections: attempts to connect on a schedule, one in each reconciliation.
//!
//! Expected flow: wait for the delay → connect → store the result → … → done, or no attempt is left.
//! Guarantees: an attempt changes nothing at the server. Its number is stored after it, so that a crash may add one attempt
//! to the schedule and never removes one.

use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;

use super::{Postgres, PostgresError, time_of_day};
use crate::{
    api::{ConnectionProgress, PostgresDatabase, Reconnect, RemediationReason, Retry, milliseconds},
    plan::guard::Permit,
    targets::executor::{Effects, End, Moment, Note, Order, Procedure, Step},
};

/// Between the last failed attempt and the end.
const SOON: Duration = Duration::from_millis(10);

/// Decides about the attempts.
#[derive(Debug)]
pub struct Reconnection {
    /// The wait before each attempt.
    pub delays: Vec<SignedDuration>,
}

/// The one effect: an attempt to connect. `again`: an earlier attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub again: bool,
}

type Next = Step<ConnectionProgress, Attempt>;

impl Reconnection {
    fn delay(&self, attempts: u32) -> Option<SignedDuration> {
        usize::try_from(attempts).ok().and_then(|attempts| self.delays.get(attempts)).copied()
    }
}

impl Procedure for Reconnection {
    type Progress = ConnectionProgress;
    type Seen = ();
    type Effect = Attempt;
    type Answer = Result<(), PostgresError>;

    fn next(&self, progress: &ConnectionProgress, (): &(), moment: &Moment) -> Next {
        let attempts = progress.attempts;
        let progress = progress.clone();
        if let Some(withdrawn) = &moment.withdrawn {
            let (end, outcome) =
                if attempts > 0 { (End::Failed, "no further attempt") } else { (End::Expired, "nothing was done") };
            let message = format!("{}; {outcome}", withdrawn.why);
            return Step::Ended { progress, end, reason: withdrawn.reason, message };
        }
        let since = progress.last_at.unwrap_or(moment.started_at);
        let Some(delay) = self.delay(attempts) else {
            let errors = progress.errors.join("; ");
            let noun = if attempts == 1 { "try" } else { "tries" };
            let message = format!("no connection in {attempts} {noun}, the last at {}: {errors}", time_of_day(since));
            return Step::failed(progress, RemediationReason::NotRecovered, message);
        };
        let left = (since + delay).duration_since(moment.now);
        if left.is_positive() {
            return Step::wait(progress, Duration::try_from(left).unwrap_or_default());
        }
        Step::Perform { progress, effect: Attempt { again: attempts > 0 }, note: None }
    }

    fn answered(&self, progress: &ConnectionProgress, _: &Attempt, answer: &Self::Answer, moment: &Moment) -> Next {
        let mut progress = progress.clone();
        progress.attempts += 1;
        progress.last_at = Some(milliseconds(moment.now));
        let attempt = progress.attempts;
        let error = match answer {
            Ok(()) => {
                let message = format!("connected at try {attempt}; watching whether the connection is stable");
                return Step::Done { progress, reason: RemediationReason::Executed, message };
            }
            Err(error) => error,
        };
        progress.errors.push(error.to_string());
        if error.retry() != Retry::Backoff {
            return Step::failed(progress, error.reason, format!("{error}; another attempt cannot succeed"));
        }
        let next = self.delay(attempt);
        let announced = next.map(|next| format!("; the next one in {next:#}")).unwrap_or_default();
        let message = format!("try {attempt} of {}: {error}{announced}", self.delays.len());
        let after = next.and_then(|next| Duration::try_from(next).ok()).unwrap_or_default().max(SOON);
        Step::Wait { progress, after, note: Some(Note::acting(format!("try-{attempt}"), message)) }
    }
}

/// Carries out RecoverConnections.
pub struct ReconnectExecutor<'a> {
    pub postgres: &'a Postgres,
    pub database: &'a PostgresDatabase,
    pub order: Order<'a>,
    pub reconnect: &'a Reconnect,
}

#[async_trait]
impl Effects for ReconnectExecutor<'_> {
    type Procedure = Reconnection;

    fn procedure(&self) -> Reconnection {
        Reconnection { delays: self.reconnect.delays.iter().filter_map(|delay| delay.parse().ok()).collect() }
    }

    async fn observe(&self, _: &ConnectionProgress, _: &Moment) {}

    async fn perform(&self, attempt: &Attempt, _: &ConnectionProgress, _: &Permit) -> Result<(), PostgresError> {
        self.postgres.reconnect(self.order.namespace, self.database, attempt.again).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::model::{Limits, World, walk};

    /// A server that may return, and that counts the attempts.
    #[derive(Debug, Clone, PartialEq)]
    struct Server {
        up: bool,
        connected: bool,
        attempts: u32,
    }

    const DOWN: Server = Server { up: false, connected: false, attempts: 0 };
    /// One per crash may come on top of the schedule.
    const CRASHES: u32 = 2;

    impl<P> World<P> for Server
    where
        P: Procedure<Progress = ConnectionProgress, Seen = (), Effect = Attempt, Answer = Result<(), PostgresError>>,
    {
        fn observations(&self, _: &ConnectionProgress) -> Vec<()> {
            vec![()]
        }

        fn results(&self, _: &Attempt, _: &ConnectionProgress) -> Vec<(Self, Result<(), PostgresError>)> {
            let tried = Self { attempts: self.attempts + 1, ..self.clone() };
            let error = |failure| Err(PostgresError::new(failure, "no"));
            let unreachable = (tried.clone(), error(RemediationReason::Unreachable));
            if !self.up {
                return vec![unreachable];
            }
            let refused = (tried.clone(), error(RemediationReason::CredentialsRefused));
            vec![(Self { connected: true, ..tried }, Ok(())), unreachable, refused]
        }

        fn later(&self) -> Vec<Self> {
            vec![Self { up: true, ..self.clone() }]
        }

        fn violation(&self, step: &Next) -> Option<String> {
            let schedule = u32::try_from(delays().len()).unwrap();
            match step {
                _ if self.attempts > schedule + CRASHES => Some("more attempts than the schedule has".to_owned()),
                Step::OutcomeUnknown { .. } => Some("the outcome of an attempt is known".to_owned()),
                Step::Done { .. } if !self.connected => Some("no attempt connected".to_owned()),
                Step::Ended { reason: RemediationReason::NotRecovered, .. } if self.attempts < schedule => {
                    Some("fewer attempts than the schedule has".to_owned())
                }
                Step::Ended { end: End::Expired, progress, .. } if progress.attempts > 0 => {
                    Some("there were attempts, and the message says that nothing was done".to_owned())
                }
                _ => None,
            }
        }
    }

    fn delays() -> Vec<SignedDuration> {
        [1, 2, 4].map(SignedDuration::from_secs).into()
    }

    #[test]
    fn the_schedule_is_followed_in_every_order_of_answers_and_crashes() {
        let limits = Limits { crashes: CRASHES, deadline: SignedDuration::from_mins(1), ..Limits::default() };
        let report = walk(&Reconnection { delays: delays() }, DOWN, ConnectionProgress::default(), limits);
        report.assert_holds();
        for end in ["Done Executed", "Failed NotRecovered", "Failed CredentialsRefused", "Expired PolicyGone"] {
            assert!(report.reached(end), "{end} was not reached: {report:?}");
        }
    }

    /// Forgets the attempts: would try for ever.
    struct Forgetful(Reconnection);

    impl Procedure for Forgetful {
        type Progress = ConnectionProgress;
        type Seen = ();
        type Effect = Attempt;
        type Answer = Result<(), PostgresError>;

        fn next(&self, progress: &ConnectionProgress, seen: &(), moment: &Moment) -> Next {
            let forgotten = ConnectionProgress { attempts: 0, ..progress.clone() };
            self.0.next(&forgotten, seen, moment)
        }

        fn answered(
            &self,
            progress: &ConnectionProgress,
            effect: &Attempt,
            answer: &Result<(), PostgresError>,
            moment: &Moment,
        ) -> Next {
            self.0.answered(progress, effect, answer, moment)
        }
    }

    #[test]
    fn the_model_catches_a_procedure_that_forgets_its_attempts() {
        let procedure = Forgetful(Reconnection { delays: delays() });
        let report = walk(&procedure, DOWN, ConnectionProgress::default(), Limits::default());
        report.assert_caught();
        assert!(report.violation.unwrap().contains("more attempts than the schedule has"));
    }
}
