//! Scaling of a service. The number of instances is absolute: setting it twice is harmless as long as nobody else has set
//! another number.

use jiff::{SignedDuration, Timestamp};

use super::{
    call::{CallState, Caller, Decided, OBSERVE_AFTER, WithoutEffect, is_late, poll_after, retry_after},
    common::{Before, HostedError, Size},
};
use crate::{
    api::{ProviderProgress, RemediationReason, Scaling},
    targets::{
        executor::{End, Moment, Note, Procedure, Step},
        kubernetes::ActError,
    },
};

/// So long after the call so many instances run.
const SCALE_LIMIT: SignedDuration = SignedDuration::from_mins(5);

/// Decides about one number of instances.
#[derive(Debug, Clone)]
pub struct Scale {
    pub caller: Caller,
    /// The deploy that was judged.
    pub judged: Option<String>,
    pub scaling: Scaling,
    /// Why a service that is autoscaled is not scaled, for a person.
    pub autoscaled: String,
}

#[derive(Debug, Clone)]
pub enum ScaleSeen {
    /// The action was withdrawn before its call.
    NotRead,
    /// What is there before the call.
    Before(Result<(Before, Size), HostedError>),
    After(Result<Size, HostedError>),
}

/// The call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendScale;

impl Scale {
    fn begin(&self, progress: &ProviderProgress, seen: &ScaleSeen, moment: &Moment) -> Decided<SendScale> {
        self.caller.still_wanted(progress, moment)?;
        let (before, size) = match seen {
            ScaleSeen::Before(Ok(seen)) => seen,
            ScaleSeen::Before(Err(error)) => {
                return self.caller.retry(progress.clone(), error, "nothing was done", moment);
            }
            ScaleSeen::NotRead | ScaleSeen::After(_) => return Ok(Step::wait(progress.clone(), OBSERVE_AFTER)),
        };
        self.caller.still_judged(progress, self.judged.as_deref(), before.live.as_deref())?;
        self.ours(progress, *size)?;
        Ok(self.caller.send(progress.clone(), SendScale, None, moment))
    }

    fn follow(
        &self,
        progress: &ProviderProgress,
        sent_at: Timestamp,
        seen: &Result<Size, HostedError>,
        moment: &Moment,
    ) -> Decided<SendScale> {
        let mut progress = progress.clone();
        let size = match seen {
            Ok(size) => *size,
            Err(error) => return Ok(self.caller.not_observed(progress, (sent_at, SCALE_LIMIT), error, moment)),
        };
        self.ours(&progress, size)?;
        let to = self.scaling.to;
        if progress.begun || size.wanted == Some(to) {
            return Ok(self.wait_for(progress, size, sent_at, moment));
        }
        if !is_late(moment) {
            progress.without_effect += 1;
            return Ok(self.caller.send(progress, SendScale, None, moment));
        }
        if moment.now < sent_at + self.caller.words.settles_within {
            return Ok(Step::wait(progress, poll_after(sent_at, moment)));
        }
        let message = format!(
            "it was asked for {} times without a clear answer, and nothing came of it within {:#}",
            progress.attempts, self.caller.words.settles_within
        );
        Err(WithoutEffect::new(progress, End::Failed, RemediationReason::NotDone, message))
    }

    fn wait_for(
        &self,
        progress: ProviderProgress,
        size: Size,
        sent_at: Timestamp,
        moment: &Moment,
    ) -> Step<ProviderProgress, SendScale> {
        let to = self.scaling.to;
        if size.wanted == Some(to) && size.run == to {
            let message = format!("{to} instances run now; watching whether it helps");
            return Step::Done { progress, reason: RemediationReason::Executed, message };
        }
        if moment.now >= sent_at + SCALE_LIMIT {
            let message = format!(
                "{} instances run instead of {to} after {SCALE_LIMIT:#}; see its events in {}",
                size.run, self.caller.words.pages
            );
            return Step::failed(progress, RemediationReason::DeadlineExceeded, message);
        }
        Step::wait(progress, poll_after(sent_at, moment))
    }

    /// # Errors
    /// When the number of instances is not ours to set.
    fn ours(&self, progress: &ProviderProgress, size: Size) -> Result<(), Box<WithoutEffect>> {
        let Scaling { from, to, .. } = self.scaling;
        let found = size.wanted.filter(|wanted| *wanted != from && *wanted != to);
        let why = match found {
            _ if size.autoscaled => ActError::Autoscaled(self.autoscaled.clone()),
            Some(found) => ActError::Rescaled { expected: from, found: found.into() },
            None => return Ok(()),
        };
        Err(WithoutEffect::new(progress.clone(), End::Failed, why.reason(), why.to_string()))
    }
}

impl Procedure for Scale {
    type Progress = ProviderProgress;
    type Seen = ScaleSeen;
    type Effect = SendScale;
    type Answer = Result<u16, HostedError>;

    fn next(
        &self,
        progress: &ProviderProgress,
        seen: &ScaleSeen,
        moment: &Moment,
    ) -> Step<ProviderProgress, SendScale> {
        let decided = match (CallState::of(progress), seen) {
            (CallState::NotSent, seen) => self.begin(progress, seen, moment),
            (CallState::Unclear { sent_at } | CallState::Accepted { sent_at }, ScaleSeen::After(seen)) => {
                self.follow(progress, sent_at, seen, moment)
            }
            (CallState::Unclear { sent_at } | CallState::Accepted { sent_at }, _) => {
                Ok(Step::wait(progress.clone(), poll_after(sent_at, moment)))
            }
        };
        decided.unwrap_or_else(|end| WithoutEffect::into_step(*end))
    }

    fn answered(
        &self,
        progress: &ProviderProgress,
        _: &SendScale,
        answer: &Result<u16, HostedError>,
        moment: &Moment,
    ) -> Step<ProviderProgress, SendScale> {
        let progress = progress.clone();
        let decided = match answer {
            Ok(code) => {
                let (to, id) = (self.scaling.to, &self.caller.id);
                let message = format!("{to} instances of {id} are asked for; waiting until they run");
                Ok(self.caller.accepted(progress, *code, &message))
            }
            Err(error) if error.not_done() => self.caller.not_accepted(progress, error, moment),
            // It may have had its effect: the same number once more does no harm.
            Err(error) => {
                let progress = ProviderProgress { status_code: error.status(), ..progress };
                let message = format!("{error}; whether it was done is not known yet, it is tried again");
                Ok(Step::Wait { progress, after: retry_after(moment), note: Some(Note::acting("later", message)) })
            }
        };
        decided.unwrap_or_else(|end| WithoutEffect::into_step(*end))
    }
}

#[cfg(test)]
mod tests;
