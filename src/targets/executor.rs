//! How an action runs: a pure procedure decides each step, thin I/O carries out the step.
//!
//! Expected flow of one reconciliation: observe → [`Procedure::next`] → (store → perform → [`Procedure::answered`])* →
//! wait or end.
//!
//! Guarantees, each covered by the model test of every procedure (see `model`):
//! - Progress is stored before the effect that it announces ([`Journal::store`] comes before [`Effects::perform`]).
//! - A procedure performs an effect a second time only with proof that the first call had no effect, or when the effect
//!   is idempotent.
//! - Every run ends. `OutcomeUnknown` is reached only when the outcome cannot be determined.
//! - An effect needs a [`Permit`], which only the guards create.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use crate::{
    api::{ActionPlan, EventReason, Phase, Progress, RemediationReason, Stored},
    plan::{guard::Permit, revalidate::Withdrawn},
    targets::kubernetes::ActError,
};

/// A step that keeps failing without effect, for temporary reasons, is given up after this time.
pub const EXECUTE_LIMIT: SignedDuration = SignedDuration::from_mins(5);

/// Effects in one reconciliation, at most; further ones follow in the next.
const MAX_EFFECTS: usize = 32;

/// The action that an executor carries out.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub namespace: &'a str,
    /// metadata.name of the Remediation.
    pub remediation: &'a str,
    /// metadata.uid of the Remediation.
    pub uid: &'a str,
    pub plan: &'a ActionPlan,
    /// When the action was started. Identifies the action where a second write of the same value must do nothing.
    pub started_at: Timestamp,
}

/// The input of a procedure beside its progress and its observation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    pub now: Timestamp,
    pub started_at: Timestamp,
    /// The policy no longer requires the action.
    pub withdrawn: Option<Withdrawn>,
}

impl Moment {
    pub fn since_start(&self) -> SignedDuration {
        self.now.duration_since(self.started_at)
    }
}

/// The wait before the next attempt or observation: a fifth of the time `since` the first, within the two limits.
pub fn fifth_of(since: SignedDuration, (least, most): (Duration, Duration)) -> Duration {
    (Duration::try_from(since).unwrap_or_default() / 5).clamp(least, most)
}

/// The next step of an action.
#[derive(Debug, Clone, PartialEq)]
pub enum Step<P, E> {
    /// Store the progress, then perform the effect.
    Perform { progress: P, effect: E, note: Option<Note> },
    /// Store the progress if it differs, then wait.
    Wait { progress: P, after: Duration, note: Option<Note> },
    /// As `Wait`: the action continues after a person has intervened.
    NeedsPerson { progress: P, after: Duration, message: String },
    /// The effect is achieved; verification follows.
    Done { progress: P, reason: RemediationReason, message: String },
    /// The action ended without its effect, or with a part of it.
    Ended { progress: P, end: End, reason: RemediationReason, message: String },
    /// A call was sent, and its effect is unknown. A person is notified.
    OutcomeUnknown { progress: P, message: String },
}

/// How an action ends without its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The effect could not be achieved.
    Failed,
    /// Nothing was done, and nothing is left to do.
    Expired,
    /// A part of the effect was achieved.
    Ineffective,
}

impl From<End> for Phase {
    fn from(end: End) -> Self {
        match end {
            End::Failed => Self::Failed,
            End::Expired => Self::Expired,
            End::Ineffective => Self::Ineffective,
        }
    }
}

/// A message for people: becomes `status.message`, an event and a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub reason: EventReason,
    /// Distinguishes the events of different steps, so that none is merged into another.
    pub subject: String,
    pub message: String,
}

impl Note {
    pub fn acting(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: EventReason::Acting, subject: subject.into(), message: message.into() }
    }
}

impl<P, E> Step<P, E> {
    pub fn wait(progress: P, after: Duration) -> Self {
        Self::Wait { progress, after, note: None }
    }

    pub fn failed(progress: P, reason: RemediationReason, message: impl Into<String>) -> Self {
        Self::Ended { progress, end: End::Failed, reason, message: message.into() }
    }

    pub fn expired(progress: P, reason: RemediationReason, message: impl Into<String>) -> Self {
        Self::Ended { progress, end: End::Expired, reason, message: message.into() }
    }

    /// The progress that the step stores.
    pub fn progress(&self) -> &P {
        match self {
            Self::Perform { progress, .. }
            | Self::Wait { progress, .. }
            | Self::NeedsPerson { progress, .. }
            | Self::Done { progress, .. }
            | Self::Ended { progress, .. }
            | Self::OutcomeUnknown { progress, .. } => progress,
        }
    }
}

/// Decides the steps of one kind of action. PURE: no I/O, no clock, no random number.
pub trait Procedure: Send + Sync {
    type Progress: Clone + PartialEq + fmt::Debug + Send + Sync;
    /// One observation.
    type Seen: Clone + fmt::Debug + Send + Sync;
    /// One change of the outside.
    type Effect: Clone + PartialEq + fmt::Debug + Send + Sync;
    /// The answer to an effect.
    type Answer: Clone + fmt::Debug + Send + Sync;

    /// The next step, from the stored progress and the current observation.
    fn next(&self, progress: &Self::Progress, seen: &Self::Seen, moment: &Moment)
    -> Step<Self::Progress, Self::Effect>;

    /// The next step after the answer to `effect`, which `progress` announced.
    fn answered(
        &self,
        progress: &Self::Progress,
        effect: &Self::Effect,
        answer: &Self::Answer,
        moment: &Moment,
    ) -> Step<Self::Progress, Self::Effect>;
}

/// The I/O of a procedure. Every implementation is an [`Executor`].
#[async_trait]
pub trait Effects: Send + Sync {
    type Procedure: Procedure;

    fn procedure(&self) -> Self::Procedure;

    /// See [`Executor::preflight`].
    async fn preflight(&self) -> Result<(), ActError> {
        Ok(())
    }

    /// See [`Executor::preflight_interval`].
    fn preflight_interval(&self) -> Duration {
        Duration::ZERO
    }

    /// See [`Executor::prepare`].
    async fn prepare(&self, _waited: SignedDuration) -> Preparation {
        Preparation::NotNeeded
    }

    /// Reads the input of [`Procedure::next`]. Changes nothing.
    async fn observe(&self, progress: &ProgressOf<Self>, moment: &Moment) -> SeenOf<Self>;

    /// Changes the outside once. Bounded in time.
    async fn perform(&self, effect: &EffectOf<Self>, progress: &ProgressOf<Self>, permit: &Permit) -> AnswerOf<Self>;
}

type ProgressOf<E> = <<E as Effects>::Procedure as Procedure>::Progress;
type SeenOf<E> = <<E as Effects>::Procedure as Procedure>::Seen;
type EffectOf<E> = <<E as Effects>::Procedure as Procedure>::Effect;
type AnswerOf<E> = <<E as Effects>::Procedure as Procedure>::Answer;

/// Where progress is stored before an effect.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Returns after the progress is stored. After an error nothing may be performed.
    async fn store(&self, progress: Option<Progress>, note: Option<Note>) -> Result<(), NotStored>;
}

/// The journal could not store the progress; the journal knows why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the progress could not be stored")]
pub struct NotStored;

/// How a reconciliation of an action ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ran {
    /// The progress at the end; not stored yet for an end.
    pub progress: Option<Progress>,
    pub outcome: Outcome,
}

/// See [`Step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Wait(Duration),
    Done { reason: RemediationReason, message: String },
    Ended { phase: Phase, reason: RemediationReason, message: String },
    OutcomeUnknown { message: String },
}

/// The exact effect, chosen before approval is requested.
#[derive(Debug, Clone, PartialEq)]
pub enum Preparation {
    /// The plan is complete.
    NotNeeded,
    /// To be stored before approval is requested; `words` complete the question: " would be performed on 2 sessions (…), and".
    Chosen { progress: Progress, words: String },
    /// Nothing to act on yet; checked again after the given time.
    NotYet { reason: RemediationReason, message: String, after: Duration },
    /// Nothing to act on.
    Nothing { reason: RemediationReason, message: String },
}

/// Carries out one action on one target.
#[async_trait]
pub trait Executor: Send + Sync {
    /// An error is one that would certainly refuse the action: missing rights, budgets, quota, admission. Changes nothing.
    async fn preflight(&self) -> Result<(), ActError>;

    /// The shortest time between two preflights after a refusal.
    fn preflight_interval(&self) -> Duration;

    /// The exact effect. `waited`: since the first call for this action.
    async fn prepare(&self, waited: SignedDuration) -> Preparation;

    /// Takes the action as far as possible without waiting, in one reconciliation. Reads the clock again after the
    /// observation and after every effect.
    async fn run(
        &self,
        stored: Option<&Progress>,
        moment: Moment,
        permit: &Permit,
        journal: &dyn Journal,
    ) -> Result<Ran, NotStored>;
}

#[async_trait]
impl<E> Executor for E
where
    E: Effects,
    ProgressOf<E>: Stored,
{
    async fn preflight(&self) -> Result<(), ActError> {
        Effects::preflight(self).await
    }

    fn preflight_interval(&self) -> Duration {
        Effects::preflight_interval(self)
    }

    async fn prepare(&self, waited: SignedDuration) -> Preparation {
        Effects::prepare(self, waited).await
    }

    async fn run(
        &self,
        stored: Option<&Progress>,
        mut moment: Moment,
        permit: &Permit,
        journal: &dyn Journal,
    ) -> Result<Ran, NotStored> {
        let procedure = self.procedure();
        let is_stored = stored.and_then(ProgressOf::<E>::stored).cloned();
        let mut last = is_stored.clone();
        let progress = is_stored.unwrap_or_default();
        let seen = self.observe(&progress, &moment).await;
        moment.now = Timestamp::now();
        let mut step = procedure.next(&progress, &seen, &moment);
        for _ in 0..MAX_EFFECTS {
            let Step::Perform { progress, effect, note } = step else { break };
            if last.as_ref() != Some(&progress) || note.is_some() {
                journal.store(progress.clone().into_progress(), note).await?;
                last = Some(progress.clone());
            }
            let answer = self.perform(&effect, &progress, permit).await;
            moment.now = Timestamp::now();
            step = procedure.answered(&progress, &effect, &answer, &moment);
        }
        // Empty progress that was never stored is no progress.
        let is_empty = last.is_none() && *step.progress() == ProgressOf::<E>::default();
        let progress = step.progress().clone().into_progress().filter(|_| !is_empty);
        let changed = last.as_ref() != Some(step.progress());
        let outcome = match step {
            // More effects than one reconciliation performs: continues at once.
            Step::Perform { .. } => return Ok(Ran { progress, outcome: Outcome::Wait(Duration::ZERO) }),
            Step::Wait { progress, after, note } => {
                if (changed && !is_empty) || note.is_some() {
                    journal.store(progress.into_progress(), note).await?;
                }
                Outcome::Wait(after)
            }
            Step::NeedsPerson { progress, after, message } => {
                let note = Note { reason: EventReason::PersonNeeded, subject: String::new(), message };
                journal.store(progress.into_progress(), Some(note)).await?;
                Outcome::Wait(after)
            }
            Step::Done { reason, message, .. } => Outcome::Done { reason, message },
            Step::Ended { end, reason, message, .. } => Outcome::Ended { phase: end.into(), reason, message },
            Step::OutcomeUnknown { message, .. } => Outcome::OutcomeUnknown { message },
        };
        Ok(Ran { progress, outcome })
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::{
        api::{JobProgress, RemediationStatus},
        targets::model::start,
    };

    /// Two effects, one after the other, then the end.
    struct TwoEffects;

    impl Procedure for TwoEffects {
        type Progress = JobProgress;
        type Seen = ();
        type Effect = u32;
        type Answer = u32;

        fn next(&self, progress: &JobProgress, (): &(), _: &Moment) -> Step<JobProgress, u32> {
            match progress.job.as_deref() {
                None => Step::Perform { progress: named("1"), effect: 1, note: Some(Note::acting("first", "one")) },
                Some("wait") => Step::wait(progress.clone(), Duration::from_secs(1)),
                Some(_) => Step::Perform { progress: named("2"), effect: 2, note: None },
            }
        }

        fn answered(&self, progress: &JobProgress, _: &u32, answer: &u32, moment: &Moment) -> Step<JobProgress, u32> {
            match answer {
                1 => self.next(progress, &(), moment),
                _ => Step::Done {
                    progress: named("end"),
                    reason: RemediationReason::Executed,
                    message: "both are done".to_owned(),
                },
            }
        }
    }

    fn named(name: &str) -> JobProgress {
        JobProgress { job: Some(name.to_owned()) }
    }

    /// What happened, in its order; stores fail from the given one on.
    struct Log {
        lines: Mutex<Vec<String>>,
        fails_from: usize,
    }

    #[async_trait]
    impl Journal for Log {
        async fn store(&self, progress: Option<Progress>, note: Option<Note>) -> Result<(), NotStored> {
            let job = progress.as_ref().and_then(Progress::job).and_then(|progress| progress.job.clone());
            let mut lines = self.lines.lock();
            let stores = lines.iter().filter(|line| line.starts_with("store")).count();
            if stores >= self.fails_from {
                return Err(NotStored);
            }
            let note = note.map(|note| format!(" {}", note.subject)).unwrap_or_default();
            lines.push(format!("store {}{note}", job.unwrap_or_default()));
            Ok(())
        }
    }

    #[async_trait]
    impl Effects for Log {
        type Procedure = TwoEffects;

        fn procedure(&self) -> TwoEffects {
            TwoEffects
        }

        async fn observe(&self, _: &JobProgress, _: &Moment) {}

        async fn perform(&self, effect: &u32, _: &JobProgress, _: &Permit) -> u32 {
            self.lines.lock().push(format!("perform {effect}"));
            *effect
        }
    }

    async fn ran(stored: Option<JobProgress>, fails_from: usize) -> (Result<Ran, NotStored>, Vec<String>) {
        let log = Log { lines: Mutex::default(), fails_from };
        let status = RemediationStatus { phase: Phase::Running, started_at: Some(start()), ..Default::default() };
        let permit = Permit::begun(&status).unwrap();
        let moment = Moment { now: start(), started_at: start(), withdrawn: None };
        let stored = stored.map(Progress::from);
        let ran = log.run(stored.as_ref(), moment, &permit, &log).await;
        (ran, log.lines.into_inner())
    }

    #[tokio::test]
    async fn progress_is_stored_before_each_effect() {
        let (ran, lines) = ran(None, usize::MAX).await;
        assert_eq!(lines, ["store 1 first", "perform 1", "store 2", "perform 2"]);
        let ran = ran.unwrap();
        assert_eq!(ran.progress, Some(named("end").into()), "the end is stored with the phase");
        assert!(matches!(ran.outcome, Outcome::Done { reason: RemediationReason::Executed, .. }), "{ran:?}");
    }

    #[tokio::test]
    async fn nothing_is_performed_that_could_not_be_stored() {
        assert_eq!(ran(None, 0).await, (Err(NotStored), vec![]));
        let (ran, lines) = ran(None, 1).await;
        assert_eq!((ran, lines), (Err(NotStored), vec!["store 1 first".to_owned(), "perform 1".to_owned()]));
    }

    #[tokio::test]
    async fn a_wait_that_changes_nothing_is_not_written() {
        let (ran, lines) = ran(Some(named("wait")), 0).await;
        assert_eq!((ran.unwrap().outcome, lines), (Outcome::Wait(Duration::from_secs(1)), vec![]));
    }

    #[test]
    fn only_an_action_that_was_started_has_a_permit() {
        for phase in [Phase::Pending, Phase::AwaitingApproval, Phase::Blocked, Phase::Verifying, Phase::Succeeded] {
            let status = RemediationStatus { phase, started_at: Some(start()), ..Default::default() };
            assert!(Permit::begun(&status).is_none(), "{phase}");
        }
        let without_start = RemediationStatus { phase: Phase::Running, ..Default::default() };
        assert!(Permit::begun(&without_start).is_none());
    }
}
