//! Scaling of a service. The number of instances is absolute: setting it twice is harmless as long as nobody else has set
//! another number.

use super::{
    call::{Begin, Caller, Decided, OneCall, SendCall, Sent, WithoutEffect, is_late, poll_after, retry_after},
    common::{Before, HostedError, Size},
};
use crate::{
    api::{ProviderProgress, RemediationReason, Scaling},
    targets::{
        executor::{End, Moment, Note, Step},
        kubernetes::ActError,
    },
};

#[derive(Debug, Clone)]
pub struct Scale {
    pub caller: Caller,
    pub scaling: Scaling,
    /// Why a service that is autoscaled is not scaled, for a person.
    pub autoscaled: String,
}

impl Scale {
    fn wait_for(&self, (progress, sent_at): Sent, size: Size, moment: &Moment) -> Step<ProviderProgress, SendCall> {
        let (to, limit, pages) = (self.scaling.to, Self::LIMIT, self.caller.words.pages);
        if size.desired == Some(to) && size.run == to {
            let message = format!("running instances: {to}, as desired; watching whether it helps");
            return Step::Done { progress, reason: RemediationReason::Executed, message };
        }
        if moment.now >= sent_at + limit {
            let run = size.run;
            let message = format!(
                "running instances: {run} instead of {to} after {limit:#}; check the service's events in {pages}"
            );
            return Step::failed(progress, RemediationReason::DeadlineExceeded, message);
        }
        Step::wait(progress, poll_after(sent_at, moment))
    }

    /// # Errors
    /// When the number of instances is not ours to set.
    fn ours(&self, progress: &ProviderProgress, size: Size) -> Result<(), Box<WithoutEffect>> {
        let Scaling { from, to, .. } = self.scaling;
        let found = size.desired.filter(|desired| *desired != from && *desired != to);
        let why = match found {
            _ if size.autoscaled => ActError::Autoscaled(self.autoscaled.clone()),
            Some(found) => ActError::Rescaled { expected: from, found: found.into() },
            None => return Ok(()),
        };
        Err(WithoutEffect::new(progress.clone(), End::Failed, why.reason(), why.to_string()))
    }
}

impl OneCall for Scale {
    type Before = (Before, Size);
    type After = Size;

    fn caller(&self) -> &Caller {
        &self.caller
    }

    fn begin(&self, progress: ProviderProgress, (before, size): &(Before, Size)) -> Begin {
        self.caller.still_assessed(&progress, before.live.as_deref())?;
        self.ours(&progress, *size)?;
        Ok(progress)
    }

    fn follow(&self, (mut progress, sent_at): Sent, size: &Size, moment: &Moment) -> Decided<SendCall> {
        self.ours(&progress, *size)?;
        if progress.begun || size.desired == Some(self.scaling.to) {
            return Ok(self.wait_for((progress, sent_at), *size, moment));
        }
        if !is_late(moment) {
            progress.without_effect += 1;
            return Ok(self.caller.send(progress, SendCall, moment));
        }
        if moment.now < sent_at + self.caller.words.settles_within {
            return Ok(Step::wait(progress, poll_after(sent_at, moment)));
        }
        let calls = progress.attempts;
        Err(self.caller.not_done(progress, calls))
    }

    fn accepted(&self) -> String {
        let (to, id, provider) = (self.scaling.to, &self.caller.id, self.caller.words.provider);
        format!("{provider} has accepted the scaling of {id}; waiting for running instances: {to}")
    }

    fn not_accepted(&self, progress: ProviderProgress, error: &HostedError, moment: &Moment) -> Decided<SendCall> {
        if error.not_done() {
            return self.caller.not_accepted(progress, error, moment);
        }
        // The call may have had its effect: setting the same number again does no harm.
        let progress = ProviderProgress { status_code: error.status(), ..progress };
        let note = Note::acting("later", format!("{error}; the outcome is unknown yet, retrying"));
        Ok(Step::Wait { progress, after: retry_after(moment), note: Some(note) })
    }
}

#[cfg(test)]
mod tests;
