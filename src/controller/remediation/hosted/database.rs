//! A Postgres that Render hosts is restarted, or its standby takes over.
//!
//! Render lists no events of it, so a call with no clear answer is never made again: what was seen since may tell that it was
//! done, and nothing tells that it was not. Then a person is called.

use jiff::SignedDuration;
use kube::runtime::controller::Action;

use super::{Hosted, RESTART_LIMIT, note, sent};
use crate::{
    api::{ActionKind, Cause, Phase, RemediationStatus, RenderPostgres},
    controller::Error,
    targets::{
        kubernetes::ActError,
        providers::render::{Render, Stands},
    },
};

/// One that Render has begun and that was not seen is over after this time: a restart or failover takes some seconds.
const UNSEEN: SignedDuration = SignedDuration::from_secs(60);
/// One that was down before the call and serves sooner after it has come up by itself: it may still go down by the call.
const SOONEST: SignedDuration = SignedDuration::from_secs(10);

impl Hosted<'_> {
    pub(super) async fn recover(
        &self,
        status: RemediationStatus,
        render: &Render,
        postgres: &RenderPostgres,
    ) -> Result<Action, Error> {
        let Some((sent_at, hosted)) = sent(&status) else {
            return Box::pin(self.send_recovery(status, render, postgres)).await;
        };
        let before = hosted.newest_before.as_deref();
        let seen = match render.since(&self.namespace, postgres, sent_at, before).await {
            Ok(seen) => seen,
            Err(error) => return self.cannot_see(status, sent_at, RESTART_LIMIT, &error).await,
        };
        let what = in_words(self.step.remediation.spec.action);
        if !hosted.begun {
            if seen.came {
                return self.it_was_done(status, &format!("it was seen not to serve since ({})", seen.status)).await;
            }
            if self.now >= sent_at + self.service.settles_within() {
                let why = format!("its status is {:?} now, and Render lists no {what}s of a Postgres", seen.status);
                return self.outcome_unknown(status, &why).await;
            }
            return Ok(self.poll_again(sent_at));
        }
        if seen.serves {
            let came_up = !seen.served && self.now >= sent_at + SOONEST;
            let how = if seen.came || came_up {
                format!("it is {} again after the {what}", seen.status)
            } else if self.now >= sent_at + UNSEEN {
                format!("Render has taken the {what}, and it was {} at every look since", seen.status)
            } else {
                return Ok(self.poll_again(sent_at));
            };
            return self.step.executed(status, "Executed", format!("{how}; watching whether it helps")).await;
        }
        if self.now >= sent_at + RESTART_LIMIT {
            let message = format!(
                "Render has begun the {what}, and says {:?} of it after {RESTART_LIMIT:#}; see it in {}",
                seen.status,
                self.service.pages()
            );
            return self.step.finish(status, Phase::Failed, "DeadlineExceeded", &message).await;
        }
        Ok(self.poll_again(sent_at))
    }

    async fn send_recovery(
        &self,
        mut status: RemediationStatus,
        render: &Render,
        postgres: &RenderPostgres,
    ) -> Result<Action, Error> {
        let before = match self.before(&mut status).await? {
            Ok(before) => before,
            Err(ended) => return Ok(ended),
        };
        // It is looked at anew however often this is tried: what is well is not touched, nor what Render is at.
        let spec = &self.step.remediation.spec;
        let now = before.newest_restart.as_deref().unwrap_or_default();
        match Stands::of(now) {
            Stands::Serves if spec.cause == Cause::Unreachable => {
                let message = format!("it is {now} again without this action; nothing was done");
                return self.step.finish(status, Phase::Expired, "Recovered", &message).await;
            }
            Stands::Serves | Stands::Down => {}
            Stands::AtWork | Stands::Suspended | Stands::Broken | Stands::Untold => {
                let busy =
                    ActError::OwnerBusy(format!("Render says {now:?} of it, which it is left to; nothing was done"));
                return self.step.finish(status, Phase::Expired, busy.reason(), &busy.to_string()).await;
            }
        }
        let mut hosted = status.hosted.clone().unwrap_or_default();
        hosted.newest_before = before.newest_restart;
        self.about_to_send(&mut status, hosted).await?;
        let action = spec.action;
        match render.recover(&self.namespace, postgres, action).await {
            Ok(code) => {
                note(&mut status, |hosted| (hosted.begun, hosted.status_code) = (true, Some(code)));
                let words = format!("Render has begun the {}; waiting until it serves again", in_words(action));
                self.tell(status, "begun", &words).await
            }
            Err(error) => Box::pin(self.not_answered_well(status, error)).await,
        }
    }
}

fn in_words(action: ActionKind) -> &'static str {
    if action == ActionKind::Failover { "failover" } else { "restart" }
}
