//! The environment variables of a good state are put back, and the service is deployed anew, since they take effect with a
//! deploy alone.
//!
//! Which ones go back is in etcd before the first is set. Each is set by itself, never all at once, and setting one twice is
//! as good as once: an operator that died compares again and goes on. The deploy is a call that is never just repeated.

use std::time::Duration;

use jiff::SignedDuration;
use kube::runtime::controller::Action;

use super::{Hosted, Meant, note, put_back, sent, soon};
use crate::{
    api::{ConfigRollback, Phase, RemediationStatus, RenderService},
    controller::{Error, events::Reason},
    targets::{
        kubernetes::ActError,
        providers::render::{EnvError, Render, Way},
    },
};

/// Variables that are set in one step, before anything else has its turn.
const AT_ONCE: usize = 10;
/// So long after the call the new deploy is live: it may be built again.
const REDEPLOY_LIMIT: SignedDuration = SignedDuration::from_mins(30);

impl Hosted<'_> {
    pub(super) async fn roll_back_config(
        &self,
        status: RemediationStatus,
        render: &Render,
        service: &RenderService,
    ) -> Result<Action, Error> {
        let spec = &self.step.remediation.spec;
        let (Some(config), Some(from)) = (&spec.config, &spec.from) else {
            let message = "the remediation names no state to go back to";
            return self.step.finish(status, Phase::Failed, "NoTarget", message).await;
        };
        let Some((sent_at, hosted)) = sent(&status) else {
            return Box::pin(self.send_config(status, (render, service), config, &from.hash)).await;
        };
        let newest_before = hosted.newest_before.as_deref();
        let which = (from.hash.as_str(), hosted.deploy.as_deref(), newest_before);
        let state = render.deployed_again(&self.namespace, service, which).await;
        let brought = |id: &str| format!("deploy {id}, with the environment variables that it had before,");
        let others = "none of them is of the same commit and made by the API";
        self.follow(status, (sent_at, hosted), state, Meant { limit: REDEPLOY_LIMIT, brought: &brought, others }).await
    }

    /// First what the next deploys will run with, then a rollback, which runs with what the old deploy ran with.
    pub(super) async fn roll_back_state(
        &self,
        mut status: RemediationStatus,
        render: &Render,
        service: &RenderService,
    ) -> Result<Action, Error> {
        let config = self.step.remediation.spec.config.as_ref().filter(|config| !config.objects.is_empty());
        if let (None, Some(config)) = (sent(&status), config) {
            if let Err(ended) = self.before(&mut status).await? {
                return Ok(ended);
            }
            if let Some(not_yet) = self.put_env_back(&mut status, render, service, config).await? {
                return Ok(not_yet);
            }
        }
        Box::pin(self.roll_back(status)).await
    }

    async fn send_config(
        &self,
        mut status: RemediationStatus,
        (render, service): (&Render, &RenderService),
        config: &ConfigRollback,
        from: &str,
    ) -> Result<Action, Error> {
        let before = match self.before(&mut status).await? {
            Ok(before) => before,
            Err(ended) => return Ok(ended),
        };
        if let Some(not_yet) = self.put_env_back(&mut status, render, service, config).await? {
            return Ok(not_yet);
        }
        let mut hosted = status.hosted.clone().unwrap_or_default();
        hosted.newest_before = before.newest_deploy;
        self.about_to_send(&mut status, hosted).await?;
        match render.deploy_again(&self.namespace, service, from).await {
            Ok((deploy, code)) => {
                let which = deploy.as_deref().unwrap_or("…");
                let words = format!(
                    "Render deploys {} anew ({which}), with the environment variables that it had before; waiting until that is live",
                    service.service_id
                );
                note(&mut status, |hosted| {
                    (hosted.begun, hosted.status_code, hosted.deploy) = (true, Some(code), deploy);
                });
                self.tell(status, "begun", &words).await
            }
            Err(error) => Box::pin(self.not_answered_well(status, error)).await,
        }
    }

    /// Sets what differs; none when nothing does any more.
    pub(super) async fn put_env_back(
        &self,
        status: &mut RemediationStatus,
        render: &Render,
        service: &RenderService,
        config: &ConfigRollback,
    ) -> Result<Option<Action>, Error> {
        let begun = status.hosted.as_ref().map(|hosted| hosted.env_vars.clone()).unwrap_or_default();
        let way = match render.env_way(&self.namespace, service, config, &begun).await {
            Ok(way) => way,
            Err(error) => return self.no_way(status.clone(), error).await.map(Some),
        };
        if begun.is_empty() && !way.is_empty() {
            // Stored before the first is set, so that it is known whatever dies.
            note(status, |hosted| hosted.env_vars = way.iter().map(|(name, _)| name.clone()).collect());
            status.message = in_words(&way);
            self.step.write(status, false).await?;
            let events = &self.step.ctx.events;
            events.about_step(self.step.remediation, Reason::Acting, "env", &status.message).await;
        }
        for (name, value) in way.iter().take(AT_ONCE) {
            if let Err(error) = render.set_env_var(&self.namespace, service, name, value.as_ref()).await {
                let what = "not all of its environment variables are put back, and nothing was deployed";
                return self.try_later(status.clone(), error, what).await.map(Some);
            }
        }
        Ok((way.len() > AT_ONCE).then(|| Action::requeue(Duration::ZERO)))
    }

    async fn no_way(&self, status: RemediationStatus, error: EnvError) -> Result<Action, Error> {
        let words = format!("{error}; nothing more was done{}", put_back(&status));
        match error {
            EnvError::Hosted(error) => self.try_later(status, error, "nothing was deployed").await,
            EnvError::Copy(why) if why.retryable() && !self.is_late(&status) => Ok(soon()),
            EnvError::Copy(why) => self.step.finish(status, Phase::Failed, why.reason(), &words).await,
            EnvError::Changed(_) => self.step.finish(status, Phase::Failed, "Superseded", &words).await,
            EnvError::TooMany(_) | EnvError::LongName(_) => {
                let reason = ActError::BadRemedy(String::new()).reason();
                self.step.finish(status, Phase::Failed, reason, &words).await
            }
        }
    }
}

/// For messages: not more than a person reads.
pub(super) fn listed<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 20;
    let mut text: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = format!("{} more", names.len().saturating_sub(SHOWN));
    text.extend((names.len() > SHOWN).then_some(more.as_str()));
    text.join(", ")
}

/// Names, never values.
fn in_words(way: &Way) -> String {
    let names = |set: bool| {
        let these = way.iter().filter(|(_, value)| value.is_some() == set).map(|(name, _)| name.as_str());
        listed(&these.collect::<Vec<&str>>())
    };
    let parts = [("setting", names(true)), ("taking away", names(false))];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty()).map(|(verb, names)| format!("{verb} {names}"));
    format!("putting environment variables back: {}; then it is deployed anew", parts.collect::<Vec<_>>().join("; "))
}
