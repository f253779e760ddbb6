//! Restart or failover of a hosted database.
//!
//! The provider lists no events of a database, so a call without a clear answer is never made again: an observation may
//! prove that it had an effect, and nothing proves that it had none. Then a person is called.

use jiff::{SignedDuration, Timestamp};

use super::{
    call::{CallState, Caller, Decided, OBSERVE_AFTER, WithoutEffect, poll_after},
    common::{HostedError, Since, Stands},
    restart::RESTART_LIMIT,
};
use crate::{
    api::{ActionKind, ProviderProgress, RemediationReason},
    targets::{
        executor::{End, Moment, Procedure, Step},
        kubernetes::ActError,
    },
};

/// One that was accepted and not seen is over after this time: a restart or failover takes some seconds.
const UNSEEN: SignedDuration = SignedDuration::from_secs(60);
/// A database that was down before the call and serves sooner came up by itself: the call may still take it down.
const SOONEST: SignedDuration = SignedDuration::from_secs(10);

/// Decides about one restart or failover.
#[derive(Debug, Clone)]
pub struct Recover {
    pub caller: Caller,
    /// The database is acted on because nothing could connect to it: when it serves, nothing is to be done.
    pub unreachable: bool,
}

/// The database before the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its status, in the provider's word.
    pub status: String,
    pub stands: Stands,
}

#[derive(Debug, Clone)]
pub enum RecoverSeen {
    /// The action was withdrawn before its call.
    NotRead,
    Before(Result<Standing, HostedError>),
    After(Result<Since, HostedError>),
}

/// The call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendRecovery;

impl Recover {
    fn what(&self) -> &'static str {
        if self.caller.action == ActionKind::Failover { "failover" } else { "restart" }
    }

    fn begin(&self, progress: &ProviderProgress, seen: &RecoverSeen, moment: &Moment) -> Decided<SendRecovery> {
        self.caller.still_wanted(progress, moment)?;
        let Standing { status, stands } = match seen {
            RecoverSeen::Before(Ok(standing)) => standing,
            RecoverSeen::Before(Err(error)) => {
                return self.caller.retry(progress.clone(), error, "nothing was done", moment);
            }
            RecoverSeen::NotRead | RecoverSeen::After(_) => return Ok(Step::wait(progress.clone(), OBSERVE_AFTER)),
        };
        let expired = |reason, message| Err(WithoutEffect::new(progress.clone(), End::Expired, reason, message));
        // Checked before each attempt: what is healthy is not touched, nor what the provider is at work on.
        match stands {
            Stands::Serves if self.unreachable => {
                let message = format!("it is {status} again without this action; nothing was done");
                return expired(RemediationReason::Recovered, message);
            }
            Stands::Serves | Stands::Down => {}
            Stands::AtWork | Stands::Suspended | Stands::Broken | Stands::Unknown => {
                let provider = self.caller.words.provider;
                let message = format!("{provider} says {status:?} of it, which it is left to; nothing was done");
                let busy = ActError::OwnerBusy(message);
                return expired(busy.reason(), busy.to_string());
            }
        }
        let progress = ProviderProgress { newest_before: Some(status.clone()), ..progress.clone() };
        Ok(self.caller.send(progress, SendRecovery, None, moment))
    }

    /// The call had no clear answer.
    fn unclear(
        &self,
        progress: ProviderProgress,
        sent_at: Timestamp,
        seen: &Since,
        moment: &Moment,
    ) -> Step<ProviderProgress, SendRecovery> {
        let words = &self.caller.words;
        if seen.came {
            return self.caller.seen_to_begin(progress, &format!("it was seen not to serve since ({})", seen.status));
        }
        if moment.now >= sent_at + words.settles_within {
            let (provider, what) = (words.provider, self.what());
            let why = format!("its status is {:?} now, and {provider} lists no {what}s of a Postgres", seen.status);
            return self.caller.outcome_unknown(progress, &why);
        }
        Step::wait(progress, poll_after(sent_at, moment))
    }

    fn follow(
        &self,
        progress: ProviderProgress,
        sent_at: Timestamp,
        seen: &Since,
        moment: &Moment,
    ) -> Step<ProviderProgress, SendRecovery> {
        let (words, what) = (&self.caller.words, self.what());
        let provider = words.provider;
        if seen.serves {
            let came_up = !seen.served && moment.now >= sent_at + SOONEST;
            let how = if seen.came || came_up {
                format!("it is {} again after the {what}", seen.status)
            } else if moment.now >= sent_at + UNSEEN {
                format!("{provider} has taken the {what}, and it was {} at every look since", seen.status)
            } else {
                return Step::wait(progress, poll_after(sent_at, moment));
            };
            let message = format!("{how}; watching whether it helps");
            return Step::Done { progress, reason: RemediationReason::Executed, message };
        }
        if moment.now >= sent_at + RESTART_LIMIT {
            let message = format!(
                "{provider} has begun the {what}, and says {:?} of it after {RESTART_LIMIT:#}; see it in {}",
                seen.status, words.pages
            );
            return Step::failed(progress, RemediationReason::DeadlineExceeded, message);
        }
        Step::wait(progress, poll_after(sent_at, moment))
    }
}

impl Procedure for Recover {
    type Progress = ProviderProgress;
    type Seen = RecoverSeen;
    type Effect = SendRecovery;
    type Answer = Result<u16, HostedError>;

    fn next(
        &self,
        progress: &ProviderProgress,
        seen: &RecoverSeen,
        moment: &Moment,
    ) -> Step<ProviderProgress, SendRecovery> {
        let decided = match (CallState::of(progress), seen) {
            (CallState::NotSent, seen) => self.begin(progress, seen, moment),
            (CallState::Unclear { sent_at } | CallState::Accepted { sent_at }, RecoverSeen::After(Err(error))) => {
                Ok(self.caller.not_observed(progress.clone(), (sent_at, RESTART_LIMIT), error, moment))
            }
            (CallState::Unclear { sent_at }, RecoverSeen::After(Ok(seen))) => {
                Ok(self.unclear(progress.clone(), sent_at, seen, moment))
            }
            (CallState::Accepted { sent_at }, RecoverSeen::After(Ok(seen))) => {
                Ok(self.follow(progress.clone(), sent_at, seen, moment))
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
        _: &SendRecovery,
        answer: &Result<u16, HostedError>,
        moment: &Moment,
    ) -> Step<ProviderProgress, SendRecovery> {
        let progress = progress.clone();
        match answer {
            Ok(code) => {
                let (provider, what) = (self.caller.words.provider, self.what());
                let message = format!("{provider} has begun the {what}; waiting until it serves again");
                self.caller.accepted(progress, *code, &message)
            }
            Err(error) => {
                let decided = self.caller.not_accepted(progress, error, moment);
                decided.unwrap_or_else(|end| WithoutEffect::into_step(*end))
            }
        }
    }
}

#[cfg(test)]
mod tests;
