//! ReleaseConnections and CancelQueries: end the sessions that were chosen before approval was requested.
//!
//! Expected flow: choose and store the sessions (`prepare`) → list the sessions that match now → store that a request is
//! sent → end those of the chosen sessions that still match.
//! Guarantees: no session outside the stored list is ended. A session is its pid with its connection time, so that a later
//! session with the same pid is another one. Ending is idempotent: an ended session no longer matches.

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use jiff::SignedDuration;

use super::{Postgres, PostgresError, SessionEnd, target::sessions_in_words};
use crate::{
    api::{PostgresDatabase, RemediationReason, Retry, SessionProgress, SessionRef, SessionSelector},
    plan::guard::Permit,
    targets::executor::{EXECUTE_LIMIT, Effects, End, Moment, Note, Order, Preparation, Procedure, Step},
};

/// Between two attempts.
const RETRY: Duration = Duration::from_secs(2);
/// Between two lists while no session matches yet.
const LIST_AGAIN: Duration = Duration::from_secs(1);
/// The wait for a first session is this much longer than the youngest age.
const AGE_MARGIN: SignedDuration = SignedDuration::from_secs(10);

/// Decides which sessions are ended.
#[derive(Debug)]
pub struct EndSessions {
    pub how: SessionEnd,
}

/// The one effect: end these sessions, as far as the server has them in exactly this state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndThese(pub Vec<SessionRef>);

type Next = Step<SessionProgress, EndThese>;

impl EndSessions {
    fn done(&self, mut progress: SessionProgress, ended: Vec<i32>) -> Next {
        let what = match (self.how, ended.len()) {
            (SessionEnd::End, 1) => "session was ended",
            (SessionEnd::End, _) => "sessions were ended",
            (SessionEnd::Cancel, 1) => "query was cancelled",
            (SessionEnd::Cancel, _) => "queries were cancelled",
        };
        let pids: Vec<String> = ended.iter().map(i32::to_string).collect();
        let pids = if pids.is_empty() { "none".to_owned() } else { pids.join(", ") };
        let others = match progress.sessions.len().saturating_sub(ended.len()) {
            0 => String::new(),
            gone => format!(", {gone} had ended or changed before"),
        };
        let message = format!("{} {what} (pids {pids}){others}; watching whether it helps", ended.len());
        progress.ended = Some(ended);
        Step::Done { progress, reason: RemediationReason::Executed, message }
    }
}

fn after_error(progress: SessionProgress, error: &PostgresError, moment: &Moment) -> Next {
    let is_temporary = error.retry() == Retry::Backoff && error.reason != RemediationReason::Failed;
    if is_temporary && moment.since_start() < EXECUTE_LIMIT {
        let note = Some(Note::acting("again", format!("{error}; trying again")));
        return Step::Wait { progress, after: RETRY, note };
    }
    Step::failed(progress, error.reason, error.to_string())
}

impl Procedure for EndSessions {
    type Progress = SessionProgress;
    /// All sessions that match the selector now; none is read when the action was withdrawn.
    type Seen = Result<Vec<SessionRef>, PostgresError>;
    type Effect = EndThese;
    /// The pids of the ended sessions.
    type Answer = Result<Vec<i32>, PostgresError>;

    fn next(&self, progress: &SessionProgress, seen: &Self::Seen, moment: &Moment) -> Next {
        let mut progress = progress.clone();
        if let Some(withdrawn) = &moment.withdrawn {
            let (end, outcome) = match (&progress.ended, progress.sessions.len()) {
                (None, _) => (End::Expired, "nothing was done".to_owned()),
                (Some(_), 1) => (End::Ineffective, "1 session may have been ended before".to_owned()),
                (Some(_), count) => (End::Ineffective, format!("some of {count} sessions may have been ended before")),
            };
            let message = format!("{}; {outcome}", withdrawn.why);
            return Step::Ended { progress, end, reason: withdrawn.reason, message };
        }
        if progress.sessions.is_empty() {
            let message = "the Remediation names no sessions; nothing was done";
            return Step::failed(progress, RemediationReason::NoTarget, message);
        }
        let matching = match seen {
            Ok(matching) => matching,
            Err(error) => return after_error(progress, error, moment),
        };
        let chosen: HashSet<_> = progress.sessions.iter().map(identity).collect();
        let left: Vec<_> = matching.iter().filter(|one| chosen.contains(&identity(one))).cloned().collect();
        if left.is_empty() {
            return self.done(progress, Vec::new());
        }
        // From here on the server may have ended sessions, also when its answer is lost.
        progress.ended = Some(Vec::new());
        Step::Perform { progress, effect: EndThese(left), note: None }
    }

    fn answered(&self, progress: &SessionProgress, _: &EndThese, answer: &Self::Answer, moment: &Moment) -> Next {
        match answer {
            Ok(ended) => self.done(progress.clone(), ended.clone()),
            Err(error) => after_error(progress.clone(), error, moment),
        }
    }
}

/// Distinguishes a session from a later one with the same pid.
fn identity(session: &SessionRef) -> (i32, jiff::Timestamp) {
    (session.pid, session.connected_at)
}

/// The sessions that would be ended. `waited`: since the first call; `youngest`: the age at which a session matches.
fn preparation(
    matching: Result<Vec<SessionRef>, PostgresError>,
    youngest: SignedDuration,
    waited: SignedDuration,
) -> Preparation {
    let reason = RemediationReason::NothingToEnd;
    match matching {
        // A session that exists already may become old enough.
        Ok(sessions) if sessions.is_empty() && waited < youngest + AGE_MARGIN => {
            let message = "no session of the database matches yet".to_owned();
            Preparation::NotYet { reason, message, after: LIST_AGAIN }
        }
        Ok(sessions) if sessions.is_empty() => {
            Preparation::Nothing { reason, message: "no session of the database matches".to_owned() }
        }
        Ok(sessions) => {
            let progress = SessionProgress { sessions, ended: None };
            let words = sessions_in_words(&progress);
            Preparation::Chosen { progress: progress.into(), words }
        }
        Err(error) if error.retry() == Retry::Backoff => {
            Preparation::NotYet { reason: error.reason, message: error.to_string(), after: RETRY }
        }
        Err(error) => Preparation::Nothing { reason: error.reason, message: error.to_string() },
    }
}

/// Carries out ReleaseConnections and CancelQueries.
pub struct SessionsExecutor<'a> {
    pub postgres: &'a Postgres,
    pub database: &'a PostgresDatabase,
    pub order: Order<'a>,
    pub selector: &'a SessionSelector,
    pub how: SessionEnd,
}

#[async_trait]
impl Effects for SessionsExecutor<'_> {
    type Procedure = EndSessions;

    fn procedure(&self) -> EndSessions {
        EndSessions { how: self.how }
    }

    async fn prepare(&self, waited: SignedDuration) -> Preparation {
        let matching = self.postgres.matching(self.order.namespace, self.database, self.selector).await;
        let youngest = self.selector.ages().filter_map(|age| age.parse().ok()).min().unwrap_or_default();
        preparation(matching, youngest, waited)
    }

    async fn observe(&self, _: &SessionProgress, moment: &Moment) -> Result<Vec<SessionRef>, PostgresError> {
        if moment.withdrawn.is_some() {
            return Ok(Vec::new());
        }
        // The limit of the selector was applied when the sessions were chosen.
        let all = SessionSelector { at_most: u32::MAX, ..self.selector.clone() };
        self.postgres.matching(self.order.namespace, self.database, &all).await
    }

    async fn perform(
        &self,
        EndThese(sessions): &EndThese,
        _: &SessionProgress,
        _: &Permit,
    ) -> Result<Vec<i32>, PostgresError> {
        self.postgres.end(self.order.namespace, self.database, sessions, self.how).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::model::{Limits, Report, World, start, walk};

    /// The sessions of a server. What was chosen is pid 1 and pid 2, as they were connected at first.
    #[derive(Debug, Clone, PartialEq)]
    struct Server {
        sessions: Vec<Session>,
        ended: Vec<Session>,
        /// An answer was lost: the procedure cannot know which sessions were ended.
        lost: bool,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Session {
        pid: i32,
        /// Sessions with one pid, in the order of their connection.
        connection: i64,
        /// Statements so far: the session does something else after each.
        statements: i64,
    }

    impl Session {
        fn reference(self) -> SessionRef {
            SessionRef {
                pid: self.pid,
                connected_at: start() - SignedDuration::from_secs(1000 - self.connection),
                user: "app".into(),
                application: "web".into(),
                state: "idle in transaction".into(),
                since: start() - SignedDuration::from_secs(500 - self.statements),
            }
        }
    }

    fn first(pid: i32) -> Session {
        Session { pid, connection: 0, statements: 0 }
    }

    fn chosen() -> SessionProgress {
        SessionProgress { sessions: [1, 2].map(|pid| first(pid).reference()).into(), ended: None }
    }

    fn is_chosen(session: &Session) -> bool {
        session.pid <= 2 && session.connection == 0
    }

    impl Server {
        fn new() -> Self {
            Self { sessions: [1, 2, 3].map(first).into(), ended: Vec::new(), lost: false }
        }

        /// Clients disconnect, connect or continue on their own initiative.
        fn changes(&self) -> Vec<Self> {
            let mut changed = Vec::new();
            for (index, session) in self.sessions.iter().enumerate() {
                let with = |session: Option<Session>| {
                    let mut server = self.clone();
                    match session {
                        Some(session) => server.sessions[index] = session,
                        None => drop(server.sessions.remove(index)),
                    }
                    server
                };
                match session.pid {
                    1 if session.connection == 0 => {
                        // The server process ends, and a new session gets its pid.
                        changed.push(with(Some(Session { connection: 1, ..*session })));
                        changed.push(with(None));
                    }
                    2 if session.statements == 0 => {
                        changed.push(with(Some(Session { statements: 1, ..*session })));
                    }
                    _ => {}
                }
            }
            changed
        }

        /// As the server does it: the same pid, connection and state.
        fn signal(&self, sessions: &[SessionRef]) -> (Self, Vec<i32>) {
            let mut server = self.clone();
            let (ended, left) = self.sessions.iter().partition(|session| sessions.contains(&session.reference()));
            server.sessions = left;
            let ended: Vec<Session> = ended;
            server.ended.extend(&ended);
            (server, ended.iter().map(|session| session.pid).collect())
        }
    }

    fn error(reason: RemediationReason) -> PostgresError {
        PostgresError::new(reason, "no")
    }

    impl<P> World<P> for Server
    where
        P: Procedure<
                Progress = SessionProgress,
                Seen = Result<Vec<SessionRef>, PostgresError>,
                Effect = EndThese,
                Answer = Result<Vec<i32>, PostgresError>,
            >,
    {
        fn observations(&self, _: &SessionProgress) -> Vec<P::Seen> {
            let matching = self.sessions.iter().map(|session| session.reference()).collect();
            vec![Ok(matching), Err(error(RemediationReason::Saturated)), Err(error(RemediationReason::NotAllowed))]
        }

        fn results(&self, EndThese(sessions): &EndThese, _: &SessionProgress) -> Vec<(Self, P::Answer)> {
            let lost = || Err(error(RemediationReason::Unreachable));
            let mut results = vec![(self.clone(), lost()), (self.clone(), Err(error(RemediationReason::NotAllowed)))];
            // A client may do something between the list and the signal.
            for server in [vec![self.clone()], self.changes()].concat() {
                let (server, ended) = server.signal(sessions);
                results.push((Self { lost: true, ..server.clone() }, lost()));
                results.push((server, Ok(ended)));
            }
            results
        }

        fn later(&self) -> Vec<Self> {
            self.changes()
        }

        fn crashed(&self) -> Self {
            Self { lost: self.lost || !self.ended.is_empty(), ..self.clone() }
        }

        fn violation(&self, step: &Next) -> Option<String> {
            if let Some(session) = self.ended.iter().find(|session| !is_chosen(session)) {
                return Some(format!("{session:?} was ended and was not chosen"));
            }
            match step {
                Step::OutcomeUnknown { .. } => Some("ending is repeated until its outcome is known".to_owned()),
                Step::Ended { end: End::Expired, .. } if !self.ended.is_empty() => {
                    Some("sessions were ended, and the message says that nothing was done".to_owned())
                }
                Step::Done { progress, .. } => {
                    let reported = progress.ended.clone().unwrap_or_default();
                    let ended: Vec<i32> = self.ended.iter().map(|session| session.pid).collect();
                    let wrong =
                        if self.lost { !reported.iter().all(|pid| ended.contains(pid)) } else { reported != ended };
                    wrong.then(|| format!("{reported:?} are reported as ended"))
                }
                _ => None,
            }
        }
    }

    fn walked<P>(procedure: &P) -> Report
    where
        P: Procedure<
                Progress = SessionProgress,
                Seen = Result<Vec<SessionRef>, PostgresError>,
                Effect = EndThese,
                Answer = Result<Vec<i32>, PostgresError>,
            >,
    {
        let limits = Limits { tick: Duration::from_secs(30), ..Limits::default() };
        walk(procedure, Server::new(), chosen(), limits)
    }

    #[test]
    fn only_the_chosen_sessions_are_ended_in_every_order_of_answers_losses_and_crashes() {
        let report = walked(&EndSessions { how: SessionEnd::End });
        report.assert_holds();
        let ends = [
            "Done Executed",
            "Expired PolicyGone",
            "Ineffective PolicyGone",
            "Failed Saturated",
            "Failed Unreachable",
            "Failed NotAllowed",
        ];
        for end in ends {
            assert!(report.reached(end), "{end} was not reached: {report:?}");
        }
    }

    /// Ends all sessions that match, not only the chosen ones.
    struct Careless(EndSessions);

    impl Procedure for Careless {
        type Progress = SessionProgress;
        type Seen = Result<Vec<SessionRef>, PostgresError>;
        type Effect = EndThese;
        type Answer = Result<Vec<i32>, PostgresError>;

        fn next(&self, progress: &SessionProgress, seen: &Self::Seen, moment: &Moment) -> Next {
            match (self.0.next(progress, seen, moment), seen) {
                (Step::Perform { progress, note, .. }, Ok(all)) => {
                    Step::Perform { progress, effect: EndThese(all.clone()), note }
                }
                (step, _) => step,
            }
        }

        fn answered(
            &self,
            progress: &SessionProgress,
            effect: &EndThese,
            answer: &Self::Answer,
            moment: &Moment,
        ) -> Next {
            self.0.answered(progress, effect, answer, moment)
        }
    }

    #[test]
    fn the_model_catches_a_procedure_that_ignores_the_stored_list() {
        let report = walked(&Careless(EndSessions { how: SessionEnd::End }));
        report.assert_caught();
        assert!(report.violation.unwrap().contains("was not chosen"));
    }

    #[test]
    fn the_preparation_waits_until_a_session_could_be_old_enough() {
        let youngest = SignedDuration::from_mins(1);
        let asked = |sessions, waited| preparation(sessions, youngest, SignedDuration::from_secs(waited));
        let reason = RemediationReason::NothingToEnd;
        assert!(matches!(asked(Ok(Vec::new()), 69), Preparation::NotYet { reason: found, .. } if found == reason));
        assert!(matches!(asked(Ok(Vec::new()), 70), Preparation::Nothing { reason: found, .. } if found == reason));
        let found = asked(Ok(chosen().sessions), 0);
        let Preparation::Chosen { progress, words } = found else { panic!("{found:?}") };
        assert_eq!(progress, chosen().into());
        assert!(words.contains("2 sessions (pid 1 of app, \"web\", idle in transaction since"), "{words}");
        let unreachable = asked(Err(error(RemediationReason::Unreachable)), 0);
        assert!(matches!(unreachable, Preparation::NotYet { .. }), "{unreachable:?}");
        let refused = asked(Err(error(RemediationReason::NotAllowed)), 0);
        assert!(matches!(refused, Preparation::Nothing { .. }), "{refused:?}");
    }
}
