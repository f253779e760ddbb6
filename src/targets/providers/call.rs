//! A call to a provider whose API takes no idempotency key: whether the call was sent, and what each response means.
//!
//! ```text
//! not sent ──► stored, sent ──► accepted ───────────────────────► followed to its end
//!    ▲   └─ refused: not sent └──► unclear ──its effect is seen───┘
//!    └──────── no effect within the settle time ┘  └──► no proof possible: OutcomeUnknown
//! ```
//!
//! `sentAt` of the progress is absent while no call was sent that may have had an effect; `begun` is set when the provider
//! has accepted the call, or its effect was seen.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{common::HostedError, env_vars::listed};
use crate::{
    api::{ActionKind, ActionPlan, ProviderProgress, RemediationReason, milliseconds},
    targets::executor::{EXECUTE_LIMIT, End, Moment, Note, Procedure, Step, fifth_of},
};

/// Calls without a clear response and without an effect, after which the action is given up.
const MAX_WITHOUT_EFFECT: u32 = 2;
/// From a response to the observation of its effect.
pub(super) const OBSERVE_AFTER: Duration = Duration::from_secs(1);
/// Between two observations: a fifth of the time since the call, within these.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Between two attempts: a fifth of the time since the start, within these.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// What a provider gives to the messages and limits of all its actions.
#[derive(Debug, Clone, Copy)]
pub struct ProviderWords {
    /// Its name; the kind of its targets as well.
    pub provider: &'static str,
    /// Where a person sees what happened.
    pub pages: &'static str,
    /// A call that had an effect is listed within this time.
    pub settles_within: SignedDuration,
    /// How to switch auto-deploy on again, by its trigger: empty, or "; …".
    pub auto_deploy_off: fn(&str) -> String,
}

/// One observation: of the service before the call, or of the effect after it.
#[derive(Debug, Clone)]
pub enum CallSeen<B, A> {
    /// The action was withdrawn before its call.
    NotRead,
    Before(Result<B, HostedError>),
    After(Result<A, HostedError>),
}

impl<B, A> CallSeen<B, A> {
    /// Awaits the one that the progress needs.
    pub async fn read(
        progress: &ProviderProgress,
        moment: &Moment,
        before: impl Future<Output = Result<B, HostedError>>,
        after: impl Future<Output = Result<A, HostedError>>,
    ) -> Self {
        match progress.sent_at {
            Some(_) => Self::After(after.await),
            None if moment.withdrawn.is_some() && progress.env_vars.is_empty() => Self::NotRead,
            None => Self::Before(before.await),
        }
    }
}

/// An end of the action whose call had no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub end: End,
    pub reason: RemediationReason,
    pub message: String,
}

/// An action that ends after its changes beside the call are undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithoutEffect {
    pub progress: ProviderProgress,
    pub ending: Ending,
}

impl WithoutEffect {
    pub fn new(progress: ProviderProgress, end: End, reason: RemediationReason, message: String) -> Box<Self> {
        Box::new(Self { progress, ending: Ending { end, reason, message } })
    }

    /// The step of an action that changes nothing beside its call.
    fn into_step<E>(self) -> Step<ProviderProgress, E> {
        let Ending { end, reason, message } = self.ending;
        Step::Ended { progress: self.progress, end, reason, message }
    }
}

/// A call that was sent: its progress, and when.
pub type Sent = (ProviderProgress, Timestamp);

/// A step, or an end without effect.
pub type Decided<E> = Result<Step<ProviderProgress, E>, Box<WithoutEffect>>;

/// Decides what is the same for the calls of all procedures.
#[derive(Debug, Clone)]
pub struct Caller {
    pub action: ActionKind,
    /// The provider's id of the service.
    pub id: String,
    pub words: ProviderWords,
    /// The deploy that was assessed.
    pub assessed: Option<String>,
}

impl Caller {
    pub fn new(plan: &ActionPlan, id: &str, words: ProviderWords) -> Self {
        let assessed = plan.release.as_ref().map(|release| release.hash.clone());
        Self { action: plan.action, id: id.to_owned(), words, assessed }
    }

    /// The next step: `begin` decides before the call, `follow` after it. `limit`: so long the effect is observed.
    pub fn next<B, A, E>(
        &self,
        progress: &ProviderProgress,
        seen: &CallSeen<B, A>,
        (moment, limit): (&Moment, SignedDuration),
        begin: impl FnOnce(&B) -> Decided<E>,
        follow: impl FnOnce(&A, Timestamp) -> Decided<E>,
    ) -> Decided<E> {
        let Some(sent_at) = progress.sent_at else {
            self.still_wanted(progress, moment)?;
            return match seen {
                CallSeen::Before(Ok(before)) => begin(before),
                CallSeen::Before(Err(error)) => self.retry(progress.clone(), error, "nothing was done", moment),
                CallSeen::NotRead | CallSeen::After(_) => Ok(Step::wait(progress.clone(), OBSERVE_AFTER)),
            };
        };
        match seen {
            CallSeen::After(Ok(after)) => follow(after, sent_at),
            CallSeen::After(Err(error)) if !error.retryable() || moment.now >= sent_at + limit => {
                Ok(self.outcome_unknown(progress.clone(), &format!("the service cannot be checked: {error}")))
            }
            _ => Ok(Step::wait(progress.clone(), poll_after(sent_at, moment))),
        }
    }

    /// Stores the call, then sends it.
    pub fn send<E>(&self, progress: ProviderProgress, effect: E, moment: &Moment) -> Step<ProviderProgress, E> {
        let progress = ProviderProgress {
            sent_at: Some(milliseconds(moment.now)),
            attempts: progress.attempts + 1,
            begun: false,
            status_code: None,
            ..progress
        };
        Step::Perform { progress, effect, note: None }
    }

    /// The provider has accepted the call.
    pub fn accepted<E>(&self, progress: ProviderProgress, code: u16, message: &str) -> Step<ProviderProgress, E> {
        let progress = ProviderProgress { begun: true, status_code: Some(code), ..progress };
        note(progress, "begun", message)
    }

    /// The call was refused, or its effect is unknown.
    pub fn not_accepted<E>(&self, progress: ProviderProgress, error: &HostedError, moment: &Moment) -> Decided<E> {
        let mut progress = ProviderProgress { status_code: error.status(), ..progress };
        if !error.not_done() {
            let message = format!("{error}; the outcome is unknown, checking provider state before any retry");
            return Ok(note(progress, "unclear", &message));
        }
        // The call may be sent again without an observation.
        progress.sent_at = None;
        progress.attempts -= u32::from(error.attempts() == 0).min(progress.attempts);
        let other = matches!(error, HostedError::OtherEffect { .. });
        let what = if other { "the request was not carried out" } else { "nothing was done" };
        self.retry(progress, error, what, moment)
    }

    /// Certainly nothing was changed: another attempt, or the end when another attempt does not help or comes too late.
    pub fn retry<E>(&self, progress: ProviderProgress, error: &HostedError, what: &str, moment: &Moment) -> Decided<E> {
        if error.retryable() && !is_late(moment) {
            let note = Some(Note::acting("later", format!("{error}; {what} yet, retrying")));
            return Ok(Step::Wait { progress, after: retry_after(moment), note });
        }
        Err(WithoutEffect::new(progress, End::Failed, error.reason(), format!("{error}; {what}")))
    }

    /// The effect of an unclear call was seen.
    pub fn seen_to_begin<E>(&self, progress: ProviderProgress, why: &str) -> Step<ProviderProgress, E> {
        let progress = ProviderProgress { begun: true, ..progress };
        note(progress, "done", &format!("{why}, so the call was carried out and is not repeated"))
    }

    /// No effect of an unclear call is listed. After the settle time that proves that it had none.
    pub fn no_effect<E>(&self, mut progress: ProviderProgress, sent_at: Timestamp, moment: &Moment) -> Decided<E> {
        let within = self.words.settles_within;
        if moment.now < sent_at + within {
            return Ok(Step::wait(progress, poll_after(sent_at, moment)));
        }
        progress.sent_at = None;
        progress.without_effect += 1;
        self.given_up(&progress)?;
        let message = format!("the call had no effect within {within:#}, so it was not carried out; sending it again");
        Ok(note(progress, "again", &message))
    }

    /// # Errors
    /// When the call had no clear response and no effect too often.
    pub fn given_up(&self, progress: &ProviderProgress) -> Result<(), Box<WithoutEffect>> {
        let times = progress.without_effect;
        if times < MAX_WITHOUT_EFFECT { Ok(()) } else { Err(self.not_done(progress.clone(), times)) }
    }

    pub fn not_done(&self, progress: ProviderProgress, calls: u32) -> Box<WithoutEffect> {
        let (calls, within) =
            (if calls == 1 { "1 call" } else { &format!("{calls} calls") }, self.words.settles_within);
        let message = format!("{calls} had no clear response, and no effect within {within:#}");
        WithoutEffect::new(progress, End::Failed, RemediationReason::NotDone, message)
    }

    /// Nothing can prove whether the call had an effect.
    pub fn outcome_unknown<E>(&self, progress: ProviderProgress, why: &str) -> Step<ProviderProgress, E> {
        let Self { action, id, words, .. } = self;
        let (pages, left) = (words.pages, left_changed(words, &progress));
        let message = format!(
            "{action} of {id} was sent, and its outcome is unknown: {why}. The call is not sent again; check {pages}{left}"
        );
        Step::OutcomeUnknown { progress, message }
    }

    /// # Errors
    /// When the policy does not want the action any more, and nothing was changed yet.
    fn still_wanted(&self, progress: &ProviderProgress, moment: &Moment) -> Result<(), Box<WithoutEffect>> {
        // A part of the variables is worse than all: a restore that was started is finished.
        match moment.withdrawn.filter(|_| progress.env_vars.is_empty()) {
            None => Ok(()),
            Some(withdrawn) => {
                let message = format!("{}; nothing was done", withdrawn.why);
                Err(WithoutEffect::new(progress.clone(), End::Expired, withdrawn.reason, message))
            }
        }
    }

    /// # Errors
    /// When another deploy serves than the one that was assessed.
    pub fn still_assessed(&self, progress: &ProviderProgress, live: Option<&str>) -> Result<(), Box<WithoutEffect>> {
        let Some(other) = self.other_deploy(live) else { return Ok(()) };
        let message = format!("{other} is live now; nothing was done");
        Err(WithoutEffect::new(progress.clone(), End::Failed, RemediationReason::Superseded, message))
    }

    /// What serves, when another deploy was assessed.
    pub fn other_deploy(&self, live: Option<&str>) -> Option<String> {
        let assessed = self.assessed.as_deref()?;
        (live != Some(assessed)).then(|| live.map_or_else(|| "no deploy".to_owned(), |live| format!("deploy {live}")))
    }
}

/// The call of a [`OneCall`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendCall;

pub type Begin = Result<ProviderProgress, Box<WithoutEffect>>;

/// A procedure of one call that changes nothing beside it.
pub trait OneCall: Clone + Send + Sync {
    /// The service before the call.
    type Before: Clone + fmt::Debug + Send + Sync;
    /// The effect so far.
    type After: Clone + fmt::Debug + Send + Sync;

    /// So long the effect is observed.
    const LIMIT: SignedDuration = SignedDuration::from_mins(5);

    fn caller(&self) -> &Caller;

    /// The progress that is stored with the call; an end when the call is not to be sent any more.
    fn begin(&self, progress: ProviderProgress, before: &Self::Before) -> Begin;

    fn follow(&self, sent: Sent, after: &Self::After, moment: &Moment) -> Decided<SendCall>;

    /// What is reported when the provider has accepted the call.
    fn accepted(&self) -> String;

    fn not_accepted(&self, progress: ProviderProgress, error: &HostedError, moment: &Moment) -> Decided<SendCall> {
        self.caller().not_accepted(progress, error, moment)
    }
}

impl<P: OneCall> Procedure for P {
    type Progress = ProviderProgress;
    type Seen = CallSeen<P::Before, P::After>;
    type Effect = SendCall;
    type Answer = Result<u16, HostedError>;

    fn next(
        &self,
        progress: &ProviderProgress,
        seen: &Self::Seen,
        moment: &Moment,
    ) -> Step<ProviderProgress, SendCall> {
        let begin =
            |before: &P::Before| Ok(self.caller().send(self.begin(progress.clone(), before)?, SendCall, moment));
        let follow = |after: &P::After, sent_at| self.follow((progress.clone(), sent_at), after, moment);
        let decided = self.caller().next(progress, seen, (moment, P::LIMIT), begin, follow);
        decided.unwrap_or_else(|end| end.into_step())
    }

    fn answered(
        &self,
        progress: &ProviderProgress,
        _: &SendCall,
        answer: &Result<u16, HostedError>,
        moment: &Moment,
    ) -> Step<ProviderProgress, SendCall> {
        match answer {
            Ok(code) => self.caller().accepted(progress.clone(), *code, &self.accepted()),
            Err(error) => {
                let decided = self.not_accepted(progress.clone(), error, moment);
                decided.unwrap_or_else(|end| end.into_step())
            }
        }
    }
}

/// Reports a step of the call, and observes soon.
fn note<E>(progress: ProviderProgress, step: &str, message: &str) -> Step<ProviderProgress, E> {
    let note = Some(Note::acting(format!("{step}-{}", progress.attempts), message));
    Step::Wait { progress, after: OBSERVE_AFTER, note }
}

pub(super) fn is_late(moment: &Moment) -> bool {
    moment.since_start() >= EXECUTE_LIMIT
}

pub(super) fn poll_after(sent_at: Timestamp, moment: &Moment) -> Duration {
    fifth_of(moment.now.duration_since(sent_at), POLL)
}

pub(super) fn retry_after(moment: &Moment) -> Duration {
    fifth_of(moment.since_start(), RETRY)
}

/// What stays changed when the action ends now, for a person: empty, or "; …".
pub fn left_changed(words: &ProviderWords, progress: &ProviderProgress) -> String {
    format!("{}{}", left_off(words, progress), left_restored(progress))
}

/// How to switch auto-deploy on again, if it is off.
pub(super) fn left_off(words: &ProviderWords, progress: &ProviderProgress) -> String {
    progress.auto_deploy_was.as_deref().map(words.auto_deploy_off).unwrap_or_default()
}

/// Which environment variables are restored, or may be, without a deploy that has them.
pub(super) fn left_restored(progress: &ProviderProgress) -> String {
    if progress.env_vars.is_empty() {
        return String::new();
    }
    let names = listed(&progress.env_vars);
    format!("; the environment variables {names} are restored, or some of them, effective with the next deploy")
}
