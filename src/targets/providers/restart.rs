//! Restart of a service: all instances are replaced.

use jiff::SignedDuration;

use super::{
    call::{CallState, Caller, Decided, WithoutEffect, other_deploy, poll_after},
    common::{Before, HostedError, Replaced, Restarted},
};
use crate::{
    api::{ProviderProgress, RemediationReason},
    targets::executor::{Moment, Procedure, Step},
};

/// So long after the call a restart has new instances, or it has failed; and so long its effect is observed.
pub(super) const RESTART_LIMIT: SignedDuration = SignedDuration::from_mins(5);

/// Decides about one restart.
#[derive(Debug, Clone)]
pub struct Restart {
    pub caller: Caller,
    /// The deploy that was judged.
    pub judged: Option<String>,
}

#[derive(Debug, Clone)]
pub enum RestartSeen {
    /// The action was withdrawn before its call.
    NotRead,
    Before(Result<Before, HostedError>),
    After(Result<Restarted, HostedError>),
}

/// The call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendRestart;

impl Restart {
    fn begin(&self, progress: &ProviderProgress, seen: &RestartSeen, moment: &Moment) -> Decided<SendRestart> {
        self.caller.given_up(progress)?;
        self.caller.still_wanted(progress, moment)?;
        let before = match seen {
            RestartSeen::Before(Ok(before)) => before,
            RestartSeen::Before(Err(error)) => {
                return self.caller.retry(progress.clone(), error, "nothing was done", moment);
            }
            RestartSeen::NotRead | RestartSeen::After(_) => {
                return Ok(Step::wait(progress.clone(), super::call::OBSERVE_AFTER));
            }
        };
        self.caller.still_judged(progress, self.judged.as_deref(), before.live.as_deref())?;
        let progress = ProviderProgress {
            newest_before: before.newest_restart.clone(),
            instances_before: before.instances.clone(),
            ..progress.clone()
        };
        Ok(self.caller.send(progress, SendRestart, None, moment))
    }

    fn follow(
        &self,
        progress: &ProviderProgress,
        (sent_at, accepted): (jiff::Timestamp, bool),
        seen: &Restarted,
        moment: &Moment,
    ) -> Decided<SendRestart> {
        let words = &self.caller.words;
        let (provider, progress) = (words.provider, progress.clone());
        let over = moment.now >= sent_at + RESTART_LIMIT;
        if let Some(other) = other_deploy(self.judged.as_deref(), seen.live.as_deref()) {
            let message = format!(
                "{other} went live meanwhile, with instances of its own; whether it was restarted before is not known"
            );
            return Ok(Step::failed(progress, RemediationReason::Superseded, message));
        }
        Ok(match (seen.replaced, accepted) {
            (Replaced::Done, _) => Step::Done {
                progress,
                reason: RemediationReason::Executed,
                message: "its instances are new; watching whether it helps".to_owned(),
            },
            (Replaced::Nothing, true) if over => {
                let message = format!(
                    "{provider} has begun the restart, and its instances are still the old ones after {RESTART_LIMIT:#}"
                );
                Step::failed(progress, RemediationReason::DeadlineExceeded, message)
            }
            (Replaced::Begun | Replaced::Unclear, true) if over => {
                let message = format!(
                    "not all of its instances are new after {RESTART_LIMIT:#}; see its events in {}",
                    words.pages
                );
                Step::failed(progress, RemediationReason::DeadlineExceeded, message)
            }
            (Replaced::Begun, false) => {
                self.caller.seen_to_begin(progress, &format!("{provider} tells of a restart since"))
            }
            (Replaced::Nothing, false) => return self.caller.no_effect(progress, sent_at, moment),
            (Replaced::Unclear, false) if over => {
                let why = format!("some of its instances are new, and {provider} tells of no restart");
                self.caller.outcome_unknown(progress, &why)
            }
            _ => Step::wait(progress, poll_after(sent_at, moment)),
        })
    }
}

impl Procedure for Restart {
    type Progress = ProviderProgress;
    type Seen = RestartSeen;
    type Effect = SendRestart;
    type Answer = Result<u16, HostedError>;

    fn next(
        &self,
        progress: &ProviderProgress,
        seen: &RestartSeen,
        moment: &Moment,
    ) -> Step<ProviderProgress, SendRestart> {
        let decided = match (CallState::of(progress), seen) {
            (CallState::NotSent, seen) => self.begin(progress, seen, moment),
            (CallState::Unclear { sent_at } | CallState::Accepted { sent_at }, RestartSeen::After(Err(error))) => {
                Ok(self.caller.not_observed(progress.clone(), (sent_at, RESTART_LIMIT), error, moment))
            }
            (CallState::Unclear { sent_at }, RestartSeen::After(Ok(seen))) => {
                self.follow(progress, (sent_at, false), seen, moment)
            }
            (CallState::Accepted { sent_at }, RestartSeen::After(Ok(seen))) => {
                self.follow(progress, (sent_at, true), seen, moment)
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
        _: &SendRestart,
        answer: &Result<u16, HostedError>,
        moment: &Moment,
    ) -> Step<ProviderProgress, SendRestart> {
        match answer {
            Ok(code) => {
                let provider = self.caller.words.provider;
                let message = format!("{provider} has begun the restart; waiting for new instances");
                self.caller.accepted(progress.clone(), *code, &message)
            }
            Err(error) => self
                .caller
                .not_accepted(progress.clone(), error, moment)
                .unwrap_or_else(|end| WithoutEffect::into_step(*end)),
        }
    }
}

#[cfg(test)]
mod tests;
