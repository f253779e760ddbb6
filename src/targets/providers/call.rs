//! A call to a provider whose API takes no idempotency key: whether it has begun, and what each answer means.
//!
//! ```text
//! not sent ──► stored, sent ──► accepted ───────────────────────► followed to its end
//!    ▲   └─ refused: not sent └──► unclear ──its effect was seen──┘
//!    └──────── no effect within the settle time ┘  └──► nothing can tell: OutcomeUnknown
//! ```

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{common::HostedError, env_vars::listed};
use crate::{
    api::{ActionKind, ProviderProgress, RemediationReason, milliseconds},
    targets::executor::{EXECUTE_LIMIT, End, Moment, Note, Step, fifth_of},
};

/// So often a call may have no clear answer and no effect; then it is given up.
pub(super) const MAX_WITHOUT_EFFECT: u32 = 2;
/// After an answer the effect is observed after this time.
pub(super) const OBSERVE_AFTER: Duration = Duration::from_secs(1);
/// Between two observations: a fifth of the time since the call, within these.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Between two attempts: a fifth of the time since the start, within these.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// What a provider gives to the messages and limits of all its actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderWords {
    /// Its name; the kind of its targets as well.
    pub provider: &'static str,
    /// Where a person sees what happened.
    pub pages: &'static str,
    /// A call that had an effect is listed within this time.
    pub settles_within: SignedDuration,
}

/// Whether the call has begun, as far as the progress says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallState {
    /// No call was sent that may have had an effect.
    NotSent,
    /// It was sent, or was about to be; no clear answer came.
    Unclear { sent_at: Timestamp },
    /// The provider has accepted it, or its effect was seen.
    Accepted { sent_at: Timestamp },
}

impl CallState {
    /// The one place that answers this.
    pub fn of(progress: &ProviderProgress) -> Self {
        match (progress.sent_at, progress.begun) {
            (None, _) => Self::NotSent,
            (Some(sent_at), true) => Self::Accepted { sent_at },
            (Some(sent_at), false) => Self::Unclear { sent_at },
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

/// An action that ends: what it changed beside its call is to be undone before.
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
    pub fn into_step<E>(self) -> Step<ProviderProgress, E> {
        let Ending { end, reason, message } = self.ending;
        Step::Ended { progress: self.progress, end, reason, message }
    }
}

/// A step, or an end without effect.
pub type Decided<E> = Result<Step<ProviderProgress, E>, Box<WithoutEffect>>;

/// Decides what is the same for the calls of all procedures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub action: ActionKind,
    /// The provider's id of the service.
    pub id: String,
    pub words: ProviderWords,
}

impl Caller {
    /// Stores the call, then sends it.
    pub fn send<E>(
        &self,
        progress: ProviderProgress,
        effect: E,
        note: Option<Note>,
        moment: &Moment,
    ) -> Step<ProviderProgress, E> {
        let progress = ProviderProgress {
            sent_at: Some(milliseconds(moment.now)),
            attempts: progress.attempts + 1,
            begun: false,
            status_code: None,
            ..progress
        };
        Step::Perform { progress, effect, note }
    }

    /// The provider has accepted the call.
    pub fn accepted<E>(&self, progress: ProviderProgress, code: u16, message: &str) -> Step<ProviderProgress, E> {
        let progress = ProviderProgress { begun: true, status_code: Some(code), ..progress };
        note(progress, "begun", message)
    }

    /// The call was refused, or nothing is known of its effect.
    ///
    /// # Errors
    /// When it had no effect, and another attempt would have none.
    pub fn not_accepted<E>(&self, progress: ProviderProgress, error: &HostedError, moment: &Moment) -> Decided<E> {
        let mut progress = ProviderProgress { status_code: error.status(), ..progress };
        if !error.not_done() {
            let message =
                format!("{error}; whether it was done is not known, and is looked at before anything else is");
            return Ok(note(progress, "unclear", &message));
        }
        // It may be sent again without an observation.
        progress.sent_at = None;
        progress.attempts -= u32::from(error.attempts() == 0).min(progress.attempts);
        let elsewise = matches!(error, HostedError::Elsewise { .. });
        let what = if elsewise { "what was asked for was not done" } else { "nothing was done" };
        self.retry(progress, error, what, moment)
    }

    /// For certain nothing was changed: another attempt, or the end.
    ///
    /// # Errors
    /// When another attempt does not help, or comes too late.
    pub fn retry<E>(&self, progress: ProviderProgress, error: &HostedError, what: &str, moment: &Moment) -> Decided<E> {
        if error.retryable() && !is_late(moment) {
            let message = format!("{error}; {what} yet, it is tried again");
            let note = Some(Note::acting("later", message));
            return Ok(Step::Wait { progress, after: retry_after(moment), note });
        }
        Err(WithoutEffect::new(progress, End::Failed, error.reason(), format!("{error}; {what}")))
    }

    /// The effect of the call cannot be observed now.
    pub fn not_observed<E>(
        &self,
        progress: ProviderProgress,
        (sent_at, limit): (Timestamp, SignedDuration),
        error: &HostedError,
        moment: &Moment,
    ) -> Step<ProviderProgress, E> {
        if error.retryable() && moment.now < sent_at + limit {
            return Step::wait(progress, poll_after(sent_at, moment));
        }
        self.outcome_unknown(progress, &format!("it cannot be looked at: {error}"))
    }

    /// The effect of an unclear call was seen.
    pub fn seen_to_begin<E>(&self, progress: ProviderProgress, why: &str) -> Step<ProviderProgress, E> {
        let progress = ProviderProgress { begun: true, ..progress };
        note(progress, "done", &format!("{why}, so the call was done, and is not made again"))
    }

    /// No effect of an unclear call is listed. After the settle time that proves that it had none.
    ///
    /// # Errors
    /// When that was so too often.
    pub fn no_effect<E>(&self, mut progress: ProviderProgress, sent_at: Timestamp, moment: &Moment) -> Decided<E> {
        let within = self.words.settles_within;
        if moment.now < sent_at + within {
            return Ok(Step::wait(progress, poll_after(sent_at, moment)));
        }
        progress.sent_at = None;
        progress.without_effect += 1;
        self.given_up(&progress)?;
        let message =
            format!("nothing has come of the call within {within:#}, so it was not done: it is made once more");
        Ok(note(progress, "again", &message))
    }

    /// # Errors
    /// When the call had no clear answer and no effect too often.
    pub fn given_up(&self, progress: &ProviderProgress) -> Result<(), Box<WithoutEffect>> {
        let times = progress.without_effect;
        if times < MAX_WITHOUT_EFFECT {
            return Ok(());
        }
        let message = format!(
            "it was asked for {times} times without a clear answer, and nothing came of it within {:#}",
            self.words.settles_within
        );
        Err(WithoutEffect::new(progress.clone(), End::Failed, RemediationReason::NotDone, message))
    }

    /// Nothing can tell the effect of the call.
    pub fn outcome_unknown<E>(&self, progress: ProviderProgress, why: &str) -> Step<ProviderProgress, E> {
        let message = format!(
            "{} of {} was sent, and what came of it cannot be told: {why}. A person has to look in {}; it is not sent again{}",
            self.action,
            self.id,
            self.words.pages,
            left_changed(&progress)
        );
        Step::OutcomeUnknown { progress, message }
    }

    /// The policy does not want the action any more, and nothing is begun.
    ///
    /// # Errors
    /// When that is so.
    pub fn still_wanted(&self, progress: &ProviderProgress, moment: &Moment) -> Result<(), Box<WithoutEffect>> {
        // A part of the variables is worse than all: what was begun is finished.
        match moment.withdrawn.filter(|_| progress.env_vars.is_empty()) {
            None => Ok(()),
            Some(withdrawn) => {
                let message = format!("{}; nothing was done", withdrawn.why);
                Err(WithoutEffect::new(progress.clone(), End::Expired, withdrawn.reason, message))
            }
        }
    }

    /// # Errors
    /// When another deploy serves than the one that was judged.
    pub fn still_judged(
        &self,
        progress: &ProviderProgress,
        judged: Option<&str>,
        live: Option<&str>,
    ) -> Result<(), Box<WithoutEffect>> {
        let Some(other) = other_deploy(judged, live) else { return Ok(()) };
        let message = format!("{other} is live now; nothing was done to it");
        Err(WithoutEffect::new(progress.clone(), End::Failed, RemediationReason::Superseded, message))
    }
}

/// What serves, when it is not what was judged.
pub(super) fn other_deploy(judged: Option<&str>, live: Option<&str>) -> Option<String> {
    let judged = judged?;
    (live != Some(judged)).then(|| live.map_or_else(|| "no deploy".to_owned(), |live| format!("deploy {live}")))
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
pub fn left_changed(progress: &ProviderProgress) -> String {
    format!("{}{}", left_off(progress), left_restored(progress))
}

/// How to switch auto-deploy on again, if it is off.
pub(super) fn left_off(progress: &ProviderProgress) -> String {
    progress.auto_deploy_was.as_deref().map(super::render::auto_deploy_left_off).unwrap_or_default()
}

/// Which environment variables are restored, or may be, without a deploy that has them.
pub(super) fn left_restored(progress: &ProviderProgress) -> String {
    if progress.env_vars.is_empty() {
        return String::new();
    }
    let names = listed(&progress.env_vars);
    format!(
        "; the environment variables {names} are put back, or some of them, which takes effect with the next deploy"
    )
}
