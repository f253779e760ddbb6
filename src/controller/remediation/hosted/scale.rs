//! More or fewer instances. The number is absolute, so a call that had no clear answer is made again, as long as nobody else has
//! set another number.

use jiff::{SignedDuration, Timestamp};
use kube::runtime::controller::Action;

use super::{Hosted, note, sent};
use crate::{
    api::{Phase, RemediationStatus, RenderService, Scaling},
    controller::Error,
    targets::{
        kubernetes::ActError,
        providers::render::{Render, Size, autoscaled},
    },
};

/// So long after the call so many instances run.
const SCALE_LIMIT: SignedDuration = SignedDuration::from_mins(5);

impl Hosted<'_> {
    pub(super) async fn scale(
        &self,
        mut status: RemediationStatus,
        render: &Render,
        service: &RenderService,
    ) -> Result<Action, Error> {
        let Some(scaling) = self.step.remediation.spec.scale else {
            let message = "the remediation names no number of instances";
            return self.step.finish(status, Phase::Failed, "NoTarget", message).await;
        };
        let before = sent(&status);
        if before.is_none()
            && let Err(ended) = self.before(&mut status).await?
        {
            return Ok(ended);
        }
        let size = match render.size(&self.namespace, service).await {
            Ok(size) => size,
            Err(error) => match before {
                Some((sent_at, _)) => return self.cannot_see(status, sent_at, SCALE_LIMIT, &error).await,
                None => return self.try_later(status, error, "nothing was done").await,
            },
        };
        if let Some(why) = in_the_way(size, scaling, service) {
            return self.step.finish(status, Phase::Failed, why.reason(), &why.to_string()).await;
        }
        match before {
            Some((sent_at, hosted)) if hosted.begun || size.wanted == Some(scaling.to) => {
                self.wait_for(status, size, scaling, sent_at).await
            }
            // Not sent, or without a clear answer and without effect so far.
            _ => Box::pin(self.send_scale(status, render, service, scaling.to)).await,
        }
    }

    async fn wait_for(
        &self,
        status: RemediationStatus,
        size: Size,
        scaling: Scaling,
        sent_at: Timestamp,
    ) -> Result<Action, Error> {
        let Scaling { to, .. } = scaling;
        if size.wanted == Some(to) && size.run == to {
            let message = format!("{to} instances run now; watching whether it helps");
            return self.step.executed(status, "Executed", message).await;
        }
        if self.now >= sent_at + SCALE_LIMIT {
            let message = format!(
                "{} instances run instead of {to} after {SCALE_LIMIT:#}; see its events in Render's dashboard",
                size.run
            );
            return self.step.finish(status, Phase::Failed, "DeadlineExceeded", &message).await;
        }
        Ok(self.poll_again(sent_at))
    }

    async fn send_scale(
        &self,
        mut status: RemediationStatus,
        render: &Render,
        service: &RenderService,
        to: u32,
    ) -> Result<Action, Error> {
        let hosted = status.hosted.clone().unwrap_or_default();
        self.about_to_send(&mut status, hosted).await?;
        match render.scale(&self.namespace, service, to).await {
            Ok(code) => {
                note(&mut status, |hosted| (hosted.begun, hosted.status_code) = (true, Some(code)));
                let words = format!("{to} instances of {} are asked for; waiting until they run", service.service_id);
                self.tell(status, "begun", &words).await
            }
            Err(error) if error.not_done() => Box::pin(self.not_answered_well(status, error)).await,
            // It may be done or not: the same number once more does no harm.
            Err(error) => {
                note(&mut status, |hosted| hosted.status_code = error.status());
                self.try_later(status, error, "whether it was done is not known").await
            }
        }
    }
}

/// Why the number of instances is not ours to set.
fn in_the_way(size: Size, scaling: Scaling, service: &RenderService) -> Option<ActError> {
    if size.autoscaled {
        return Some(ActError::Autoscaled(autoscaled(&service.service_id)));
    }
    let Scaling { from, to, .. } = scaling;
    let found = size.wanted.filter(|wanted| *wanted != from && *wanted != to)?;
    Some(ActError::Rescaled { expected: from, found: found.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Access;

    #[test]
    fn what_somebody_else_has_set_is_left_to_them() {
        let access = Access { key: None, failure_threshold: 5, recovery_timeout: Default::default() };
        let service = RenderService { service_id: "srv-1".into(), env_vars: false, access };
        let scaling = Scaling { from: 2, to: 4, adjust_autoscaler: false };
        let reason = |wanted, autoscaled| {
            let size = Size { run: 2, wanted, autoscaled };
            in_the_way(size, scaling, &service).map(|why| why.reason())
        };
        assert_eq!([reason(Some(2), false), reason(Some(4), false), reason(None, false)], [None; 3]);
        assert_eq!(reason(Some(3), false), Some("Rescaled"));
        assert_eq!(reason(Some(2), true), Some("Autoscaled"));
    }
}
