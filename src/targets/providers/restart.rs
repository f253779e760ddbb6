//! Restart of a service: all instances are replaced.

use super::{
    call::{Begin, Caller, Decided, OneCall, SendCall, Sent, poll_after},
    common::{Before, Replaced, Restarted},
};
use crate::{
    api::{ProviderProgress, RemediationReason},
    targets::executor::{Moment, Step},
};

#[derive(Debug, Clone)]
pub struct Restart {
    pub caller: Caller,
}

impl OneCall for Restart {
    type Before = Before;
    type After = Restarted;

    fn caller(&self) -> &Caller {
        &self.caller
    }

    fn begin(&self, progress: ProviderProgress, before: &Before) -> Begin {
        self.caller.still_assessed(&progress, before.live.as_deref())?;
        let (newest_before, instances_before) = (before.newest_restart.clone(), before.instances.clone());
        Ok(ProviderProgress { newest_before, instances_before, ..progress })
    }

    fn follow(&self, (progress, sent_at): Sent, seen: &Restarted, moment: &Moment) -> Decided<SendCall> {
        let (provider, pages, limit) = (self.caller.words.provider, self.caller.words.pages, Self::LIMIT);
        let over = moment.now >= sent_at + limit;
        let late = |progress, message| Step::failed(progress, RemediationReason::DeadlineExceeded, message);
        if let Some(other) = self.caller.other_deploy(seen.live.as_deref()) {
            let message = format!(
                "{other} went live since the call, with new instances; whether a restart came before is unknown"
            );
            return Ok(Step::failed(progress, RemediationReason::Superseded, message));
        }
        Ok(match (seen.replaced, progress.begun) {
            (Replaced::Done, _) => {
                let message = "all instances are new; watching whether it helps".to_owned();
                Step::Done { progress, reason: RemediationReason::Executed, message }
            }
            (Replaced::Nothing, true) if over => {
                late(progress, format!("{provider} has accepted the restart, and no instance is new after {limit:#}"))
            }
            (Replaced::Begun | Replaced::Unclear, true) if over => late(
                progress,
                format!("not all instances are new after {limit:#}; check the service's events in {pages}"),
            ),
            (Replaced::Begun, false) => {
                self.caller.seen_to_begin(progress, &format!("{provider} lists a restart since the call"))
            }
            (Replaced::Nothing, false) => return self.caller.no_effect(progress, sent_at, moment),
            (Replaced::Unclear, false) if over => {
                let why = format!("some instances are new, and {provider} lists no restart");
                self.caller.outcome_unknown(progress, &why)
            }
            _ => Step::wait(progress, poll_after(sent_at, moment)),
        })
    }

    fn accepted(&self) -> String {
        format!("{} has accepted the restart; waiting for new instances", self.caller.words.provider)
    }
}

#[cfg(test)]
mod tests;
