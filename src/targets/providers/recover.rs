//! Restart or failover of a hosted database.
//!
//! The provider lists no events of a database, so a call without a clear response is never repeated: an observation may
//! prove that the call had an effect, and nothing proves that it had none. The outcome is unknown then.

use jiff::SignedDuration;

use super::{
    call::{Begin, Caller, Decided, OneCall, SendCall, Sent, WithoutEffect, poll_after},
    common::{DatabaseState, Since},
};
use crate::{
    api::{ActionKind, ProviderProgress, RemediationReason},
    targets::{
        executor::{End, Moment, Step},
        kubernetes::ActError,
    },
};

/// An accepted call of which nothing was seen is over after this time: a restart or failover takes some seconds.
const UNSEEN: SignedDuration = SignedDuration::from_secs(60);
/// A database that was down before the call and serves sooner came up without the call, which may still take it down.
const SOONEST: SignedDuration = SignedDuration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Recover {
    pub caller: Caller,
    /// The action is for a database that accepts no connection: when the database serves again, nothing is to be done.
    pub unreachable: bool,
}

/// The database before the call: its status, in the provider's word, and what that means.
pub type Standing = (String, DatabaseState);

impl Recover {
    fn what(&self) -> &'static str {
        if self.caller.action == ActionKind::Failover { "failover" } else { "restart" }
    }

    /// The call had no clear response.
    fn unclear(&self, (progress, sent_at): Sent, seen: &Since, moment: &Moment) -> Step<ProviderProgress, SendCall> {
        let (words, what, status) = (&self.caller.words, self.what(), &seen.status);
        if seen.came {
            return self
                .caller
                .seen_to_begin(progress, &format!("the database did not serve since the call ({status})"));
        }
        if moment.now >= sent_at + words.settles_within {
            let why = format!("the status is {status:?} now, and {} lists no {what}s of a Postgres", words.provider);
            return self.caller.outcome_unknown(progress, &why);
        }
        Step::wait(progress, poll_after(sent_at, moment))
    }
}

impl OneCall for Recover {
    type Before = Standing;
    type After = Since;

    fn caller(&self) -> &Caller {
        &self.caller
    }

    fn begin(&self, progress: ProviderProgress, (status, state): &Standing) -> Begin {
        // Checked before each attempt: a database that is healthy, or that the provider changes, is left alone.
        let (reason, message) = match state {
            DatabaseState::Serves if self.unreachable => {
                let message = format!("the database is {status} again without this action; nothing was done");
                (RemediationReason::Recovered, message)
            }
            DatabaseState::Serves | DatabaseState::Down => {
                return Ok(ProviderProgress { newest_before: Some(status.clone()), ..progress });
            }
            _ => {
                let provider = self.caller.words.provider;
                let message = format!(
                    "{provider} reports status {status:?}, so the database is left to {provider}; nothing was done"
                );
                let busy = ActError::OwnerBusy(message);
                (busy.reason(), busy.to_string())
            }
        };
        Err(WithoutEffect::new(progress, End::Expired, reason, message))
    }

    fn follow(&self, (progress, sent_at): Sent, seen: &Since, moment: &Moment) -> Decided<SendCall> {
        if !progress.begun {
            return Ok(self.unclear((progress, sent_at), seen, moment));
        }
        let (provider, pages, what, status) =
            (self.caller.words.provider, self.caller.words.pages, self.what(), &seen.status);
        let reached = |limit| moment.now >= sent_at + limit;
        if seen.serves && (seen.came || (!seen.served && reached(SOONEST)) || reached(UNSEEN)) {
            let how = if seen.came || !seen.served {
                format!("the database is {status} again after the {what}")
            } else {
                format!("{provider} has accepted the {what}, and the database was {status} at every check since")
            };
            let message = format!("{how}; watching whether it helps");
            return Ok(Step::Done { progress, reason: RemediationReason::Executed, message });
        }
        if !seen.serves && reached(Self::LIMIT) {
            let limit = Self::LIMIT;
            let message = format!(
                "{provider} has accepted the {what}, and reports status {status:?} after {limit:#}; check {pages}"
            );
            return Ok(Step::failed(progress, RemediationReason::DeadlineExceeded, message));
        }
        Ok(Step::wait(progress, poll_after(sent_at, moment)))
    }

    fn accepted(&self) -> String {
        let provider = self.caller.words.provider;
        format!("{provider} has accepted the {}; waiting until the database serves again", self.what())
    }
}

#[cfg(test)]
mod tests;
