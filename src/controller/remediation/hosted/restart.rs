//! All instances anew.

use kube::runtime::controller::Action;

use super::{Hosted, RESTART_LIMIT, note, sent};
use crate::{
    api::{Phase, RemediationStatus},
    controller::Error,
    targets::providers::common::Replaced,
};

impl Hosted<'_> {
    pub(super) async fn restart(&self, status: RemediationStatus) -> Result<Action, Error> {
        let Some((sent_at, hosted)) = sent(&status) else { return Box::pin(self.send_restart(status)).await };
        let provider = self.service.provider();
        let seen = match self.service.restarted(&self.namespace, &hosted).await {
            Ok(seen) => seen,
            Err(error) => return self.cannot_see(status, sent_at, RESTART_LIMIT, &error).await,
        };
        let over = self.now >= sent_at + RESTART_LIMIT;
        if let Some(other) = self.other_deploy(seen.live.as_deref()) {
            let message = format!(
                "{other} went live meanwhile, with instances of its own; whether it was restarted before is not known"
            );
            return self.step.finish(status, Phase::Failed, "Superseded", &message).await;
        }
        match seen.replaced {
            Replaced::Done => {
                let message = "its instances are new; watching whether it helps".to_owned();
                self.step.executed(status, "Executed", message).await
            }
            Replaced::Nothing if hosted.begun && over => {
                let message = format!(
                    "{provider} has begun the restart, and its instances are still the old ones after {RESTART_LIMIT:#}"
                );
                self.step.finish(status, Phase::Failed, "DeadlineExceeded", &message).await
            }
            Replaced::Begun | Replaced::Unclear if hosted.begun && over => {
                let message = format!(
                    "not all of its instances are new after {RESTART_LIMIT:#}; see its events in {}",
                    self.service.pages()
                );
                self.step.finish(status, Phase::Failed, "DeadlineExceeded", &message).await
            }
            Replaced::Begun if !hosted.begun => {
                self.it_was_done(status, &format!("{provider} tells of a restart since")).await
            }
            Replaced::Nothing if !hosted.begun => self.nothing_came(status, sent_at).await,
            Replaced::Unclear if !hosted.begun && over => {
                let why = format!("some of its instances are new, and {provider} tells of no restart");
                self.outcome_unknown(status, &why).await
            }
            Replaced::Nothing | Replaced::Begun | Replaced::Unclear => Ok(self.poll_again(sent_at)),
        }
    }

    async fn send_restart(&self, mut status: RemediationStatus) -> Result<Action, Error> {
        let before = match self.before(&mut status).await? {
            Ok(before) => before,
            Err(ended) => return Ok(ended),
        };
        let mut hosted = status.hosted.clone().unwrap_or_default();
        hosted.newest_before = before.newest_restart;
        hosted.instances_before = before.instances;
        self.about_to_send(&mut status, hosted).await?;
        match self.service.restart(&self.namespace).await {
            Ok(code) => {
                note(&mut status, |hosted| (hosted.begun, hosted.status_code) = (true, Some(code)));
                let words = format!("{} has begun the restart; waiting for new instances", self.service.provider());
                self.tell(status, "begun", &words).await
            }
            Err(error) => Box::pin(self.not_answered_well(status, error)).await,
        }
    }
}
