//! What is done to a service, and what has come of it.

use std::time::Instant;

use reqwest::Method;
use serde_json::json;

use super::{Account, READ_LIMIT, Render, scale::autoscaled, state::live, wire::Deploy};
use crate::{
    api::{ActionKind, RenderService},
    targets::{
        kubernetes::ActError,
        providers::client::Repeat,
        providers::common::{Before, DeployState, HostedError, Replaced, Restarted},
    },
};

/// Instances that are remembered to tell that they were replaced.
const MAX_INSTANCES: usize = 100;

impl Render {
    /// What is there before the call.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn before(&self, namespace: &str, service: &RenderService) -> Result<Before, HostedError> {
        let until = Instant::now() + READ_LIMIT;
        let account = self.account(namespace, service).await?;
        let itself = self.service(&account, until).await?;
        let read = self.read(&account, itself, until).await?;
        let instances = read.instances.iter().flatten().map(|instance| instance.id.clone());
        Ok(Before {
            live: read.live().map(|deploy| deploy.id.clone()),
            instances: instances.take(MAX_INSTANCES).collect(),
            newest_restart: read.newest_restart().map(|event| event.id.clone()),
            newest_deploy: read.deploys.first().map(|deploy| deploy.id.clone()),
            deploys_on: read.service.deploys_on(),
        })
    }

    /// Whether an action can be done at all.
    ///
    /// # Errors
    /// BadRemedy, Forbidden or Autoscaled, in words for a person; what may pass is no reason.
    pub async fn preflight(
        &self,
        namespace: &str,
        service: &RenderService,
        action: ActionKind,
    ) -> Result<(), ActError> {
        let itself = async {
            let account = self.account(namespace, service).await?;
            self.service(&account, Instant::now() + READ_LIMIT).await
        };
        let itself = match itself.await {
            Ok(itself) => itself,
            Err(error) => return error.forbids(),
        };
        if itself.is_suspended() {
            return Err(ActError::BadRemedy(format!(
                "{} is suspended; resume it in Render's dashboard",
                service.service_id
            )));
        }
        let done = match action {
            ActionKind::Restart => "restarted",
            ActionKind::Scale => "scaled",
            _ => return Ok(()),
        };
        if !itself.has_instances() {
            return Err(ActError::BadRemedy(format!(
                "{} is a {}, which cannot be {done}; take {action} out",
                service.service_id, itself.kind
            )));
        }
        if action == ActionKind::Scale && itself.is_autoscaled() {
            return Err(ActError::Autoscaled(autoscaled(&service.service_id)));
        }
        Ok(())
    }

    /// Asks for a restart. It has begun when this is answered, and is not done yet.
    ///
    /// # Errors
    /// See [`HostedError`]; [`HostedError::not_done`] tells whether it had no effect for certain.
    pub async fn restart(&self, namespace: &str, service: &RenderService) -> Result<u16, HostedError> {
        let account = self.account(namespace, service).await?;
        let id = service.service_id.as_str();
        let (what, path) = (format!("restart service {id}"), ["services", id, "restart"]);
        let answer = self.change(&account, Method::POST, (&what, &path), None, Repeat::IfNotDone).await;
        self.forget_observation(namespace, service);
        Ok(answer?.status)
    }

    /// What has become of a restart since `before`.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn restarted(
        &self,
        namespace: &str,
        service: &RenderService,
        instances_before: &[String],
        newest_before: Option<&str>,
    ) -> Result<Restarted, HostedError> {
        let until = Instant::now() + READ_LIMIT;
        let account = self.account(namespace, service).await?;
        let newest = [("type", "server_restarted".to_owned()), ("limit", "1".to_owned())];
        let (instances, events, deploys) = tokio::try_join!(
            self.instances(&account, until),
            self.events(&account, &newest, until),
            self.deploys(&account, until),
        )?;
        let told = events.first().is_some_and(|event| Some(event.id.as_str()) != newest_before);
        let now: Vec<&str> = instances.iter().map(|instance| instance.id.as_str()).collect();
        let live = live(&deploys).map(|deploy| deploy.id.clone());
        Ok(Restarted { replaced: replaced(told, instances_before, &now), live })
    }

    /// Has new commits deployed on `trigger` (`commit`, `checksPass`), or on nothing (`off`). Setting it twice is as good as
    /// once.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn set_auto_deploy(
        &self,
        namespace: &str,
        service: &RenderService,
        trigger: &str,
    ) -> Result<(), HostedError> {
        let account = self.account(namespace, service).await?;
        let id = service.service_id.as_str();
        let (what, json) = (format!("set auto-deploy of {id} to {trigger}"), json!({"autoDeployTrigger": trigger}));
        self.change(&account, Method::PATCH, (&what, &["services", id]), Some(&json), Repeat::Always).await?;
        Ok(())
    }

    /// Asks for a new deploy of what `to` was; its id and the answer's status.
    ///
    /// # Errors
    /// See [`HostedError`]; [`HostedError::not_done`] tells whether it had no effect for certain.
    pub async fn roll_back(
        &self,
        namespace: &str,
        service: &RenderService,
        to: &str,
    ) -> Result<(Option<String>, u16), HostedError> {
        let account = self.account(namespace, service).await?;
        let id = service.service_id.as_str();
        let (what, json) = (format!("roll service {id} back to {to}"), json!({"deployId": to}));
        let path = ["services", id, "rollback"];
        let answer = self.change(&account, Method::POST, (&what, &path), Some(&json), Repeat::IfNotDone).await;
        self.forget_observation(namespace, service);
        let answer = answer?;
        let deploy: Option<Deploy> = serde_json::from_value(answer.json).ok();
        let deploy = deploy.map(|deploy| deploy.id);
        if let Some(deploy) = &deploy {
            self.note_target(deploy, to);
        }
        Ok((deploy, answer.status))
    }

    /// How far the deploy of a rollback is.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn rollback_state(
        &self,
        namespace: &str,
        service: &RenderService,
        deploy: &str,
    ) -> Result<DeployState, HostedError> {
        let until = Instant::now() + READ_LIMIT;
        let account = self.account(namespace, service).await?;
        Ok(state_of(&self.deploy(&account, deploy, until).await?))
    }

    /// Whether a rollback to `to` was made since `newest_before` was the newest deploy.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn find_rollback(
        &self,
        namespace: &str,
        service: &RenderService,
        to: &str,
        newest_before: Option<&str>,
    ) -> Result<DeployState, HostedError> {
        let until = Instant::now() + READ_LIMIT;
        let account = self.account(namespace, service).await?;
        let deploys = self.deploys(&account, until).await?;
        let newer: Vec<&Deploy> =
            deploys.iter().take_while(|deploy| Some(deploy.id.as_str()) != newest_before).collect();
        for deploy in &newer {
            if self.is_back(&account, deploy, to, until).await? {
                return Ok(state_of(deploy));
            }
        }
        Ok(if newer.is_empty() { DeployState::Nothing } else { DeployState::Others })
    }

    async fn is_back(
        &self,
        account: &Account<'_>,
        deploy: &Deploy,
        to: &str,
        until: Instant,
    ) -> Result<bool, HostedError> {
        Ok(self.target(account, deploy, &[], until).await?.as_deref() == Some(to))
    }
}

pub(super) fn state_of(deploy: &Deploy) -> DeployState {
    DeployState::Deploy {
        id: deploy.id.clone(),
        status: deploy.status.clone(),
        live: deploy.is_live(),
        over: deploy.is_over(),
    }
}

fn replaced(told: bool, before: &[String], now: &[&str]) -> Replaced {
    let old = now.iter().filter(|id| before.iter().any(|before| before == *id)).count();
    let all_new = old == 0 && now.len() >= before.len();
    match (told, all_new) {
        // It had none, as a sleeping one of the free plan: its event is all there is.
        (false, _) if before.is_empty() => {
            if now.is_empty() {
                Replaced::Nothing
            } else {
                Replaced::Unclear
            }
        }
        (_, true) => Replaced::Done,
        (true, false) => Replaced::Begun,
        (false, false) if old == now.len() && old == before.len() => Replaced::Nothing,
        (false, false) => Replaced::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_told_by_its_event_and_its_new_instances() {
        let before = ["a".to_owned(), "b".to_owned()];
        for (told, now, expected) in [
            (false, &["a", "b"][..], Replaced::Nothing),
            (false, &["a", "c"], Replaced::Unclear),
            (false, &["a"], Replaced::Unclear),
            (false, &["a", "b", "c"], Replaced::Unclear),
            (false, &["c", "d"], Replaced::Done),
            (false, &["c"], Replaced::Unclear),
            (true, &["a", "b"], Replaced::Begun),
            (true, &["a", "c"], Replaced::Begun),
            (true, &["c"], Replaced::Begun),
            (true, &[], Replaced::Begun),
            (true, &["c", "d"], Replaced::Done),
        ] {
            assert_eq!(replaced(told, &before, now), expected, "{told} {now:?}");
        }
        for (told, now, expected) in
            [(false, &[][..], Replaced::Nothing), (false, &["a"], Replaced::Unclear), (true, &[], Replaced::Done)]
        {
            assert_eq!(replaced(told, &[], now), expected, "none before: {told} {now:?}");
        }
    }
}
