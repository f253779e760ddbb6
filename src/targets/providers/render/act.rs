//! Restart and scaling of a service, and the effect.

use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value, json};

use super::{RenderServiceTarget, state::live, wire::Service};
use crate::{
    api::{ActionKind, ActionPlan, ProviderProgress},
    targets::{
        kubernetes::ActError,
        providers::{
            account::Account,
            call_executor::CallApi,
            client::{Answer, Repeat},
            common::{Before, HostedError, Replaced, Restarted, Size},
            restart::Restart,
            scale::Scale,
        },
    },
};

/// Instances that are remembered, to recognize new ones.
const MAX_INSTANCES: usize = 100;

impl RenderServiceTarget<'_> {
    pub(super) async fn may_act(&self, namespace: &str, action: ActionKind) -> Result<(), ActError> {
        let service = async { self.service(&self.account(namespace).await?).await };
        let service: Service = match service.await {
            Ok(service) => service,
            Err(error) => return error.forbids(),
        };
        let id = &self.service.service_id;
        let done = match action {
            _ if service.is_suspended() => {
                return Err(ActError::BadRemedy(format!("{id} is suspended; resume it in Render's dashboard")));
            }
            ActionKind::Restart => "restarted",
            ActionKind::Scale => "scaled",
            _ => return Ok(()),
        };
        if !service.has_instances() {
            let kind = service.kind;
            let message = format!("{id} is a {kind}, which cannot be {done}; remove {action} from its remedies");
            return Err(ActError::BadRemedy(message));
        }
        if action == ActionKind::Scale && service.is_autoscaled() {
            return Err(ActError::Autoscaled(autoscaled(id)));
        }
        Ok(())
    }

    pub(super) async fn before_call(&self, namespace: &str) -> Result<Before, HostedError> {
        let account = self.account(namespace).await?;
        let service = self.service(&account).await?;
        let read = self.read(&account, service).await?;
        let instances = read.instances.iter().flatten().map(|instance| instance.id.clone());
        Ok(Before {
            live: read.live().map(|deploy| deploy.id.clone()),
            instances: instances.take(MAX_INSTANCES).collect(),
            newest_restart: read.newest_restart().map(|event| event.id.clone()),
            newest_deploy: read.deploys.first().map(|deploy| deploy.id.clone()),
            deploys_on: read.service.deploys_on(),
        })
    }

    /// A call below the service that the next observation has to see.
    pub(super) async fn post(
        &self,
        namespace: &str,
        account: &Account<'_>,
        (what, below): (&str, &str),
        json: Option<&Value>,
        repeat: Repeat,
    ) -> Result<Answer, HostedError> {
        let path = ["services", account.id, below];
        let answer = self.render.change(account, Method::POST, (what, &path), json, repeat).await;
        self.forget_observation(namespace);
        answer
    }

    /// Requests a deploy; its id, where the response names it, and the status of the response.
    pub(super) async fn post_deploy(
        &self,
        namespace: &str,
        account: &Account<'_>,
        call: (&str, &str),
        json: &Value,
    ) -> Result<(Option<String>, u16), HostedError> {
        let answer = self.post(namespace, account, call, Some(json), Repeat::IfNotDone).await?;
        Ok((answer.json["id"].as_str().map(str::to_owned), answer.status))
    }

    async fn size(&self, namespace: &str) -> Result<Size, HostedError> {
        let account = self.account(namespace).await?;
        let (service, instances) = tokio::try_join!(self.service(&account), self.instances(&account))?;
        let run = u32::try_from(instances.len()).unwrap_or(u32::MAX);
        Ok(Size { run, desired: service.desired(), autoscaled: service.is_autoscaled() })
    }
}

#[async_trait]
impl CallApi<Restart> for RenderServiceTarget<'_> {
    async fn preflight(&self, namespace: &str, plan: &ActionPlan) -> Result<(), ActError> {
        self.may_act(namespace, plan.action).await
    }

    async fn before(&self, namespace: &str) -> Result<Before, HostedError> {
        self.before_call(namespace).await
    }

    async fn after(&self, namespace: &str, sent: &ProviderProgress) -> Result<Restarted, HostedError> {
        let account = self.account(namespace).await?;
        let newest = [("type", "server_restarted".to_owned()), ("limit", "1".to_owned())];
        let (instances, events, deploys) =
            tokio::try_join!(self.instances(&account), self.events(&account, &newest), self.deploys(&account))?;
        let listed = events.first().is_some_and(|event| Some(&event.id) != sent.newest_before.as_ref());
        let now: Vec<&str> = instances.iter().map(|instance| instance.id.as_str()).collect();
        let live = live(&deploys).map(|deploy| deploy.id.clone());
        Ok(Restarted { replaced: replaced(listed, &sent.instances_before, &now), live })
    }

    async fn send(&self, namespace: &str, _: &Restart) -> Result<u16, HostedError> {
        let account = self.account(namespace).await?;
        let what = format!("restart service {}", account.id);
        Ok(self.post(namespace, &account, (&what, "restart"), None, Repeat::IfNotDone).await?.status)
    }
}

#[async_trait]
impl CallApi<Scale> for RenderServiceTarget<'_> {
    async fn preflight(&self, namespace: &str, plan: &ActionPlan) -> Result<(), ActError> {
        self.may_act(namespace, plan.action).await
    }

    async fn before(&self, namespace: &str) -> Result<(Before, Size), HostedError> {
        Ok((self.before_call(namespace).await?, self.size(namespace).await?))
    }

    async fn after(&self, namespace: &str, _: &ProviderProgress) -> Result<Size, HostedError> {
        self.size(namespace).await
    }

    async fn send(&self, namespace: &str, scale: &Scale) -> Result<u16, HostedError> {
        let (account, to) = (self.account(namespace).await?, scale.scaling.to);
        let (what, json) = (format!("scale service {} to {to} instances", account.id), json!({"numInstances": to}));
        Ok(self.post(namespace, &account, (&what, "scale"), Some(&json), Repeat::Always).await?.status)
    }
}

/// Why a service that is autoscaled is not scaled, for a person.
pub(super) fn autoscaled(id: &str) -> String {
    format!(
        "Render scales {id} automatically, and accepts no number of instances: raise the bounds of its autoscaling in Render's dashboard, or remove Scale from its remedies"
    )
}

/// `listed`: a new restart is.
fn replaced(listed: bool, before: &[String], now: &[&str]) -> Replaced {
    let old = now.iter().filter(|id| before.iter().any(|before| before == *id)).count();
    let all_new = old == 0 && now.len() >= before.len();
    match (listed, all_new) {
        // There were no instances, as of a sleeping service of the free plan: only the event shows a restart.
        (false, _) if before.is_empty() && !now.is_empty() => Replaced::Unclear,
        (false, _) if before.is_empty() => Replaced::Nothing,
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
    fn a_restart_is_recognized_by_its_event_and_its_new_instances() {
        let before = ["a".to_owned(), "b".to_owned()];
        for (listed, now, expected) in [
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
            assert_eq!(replaced(listed, &before, now), expected, "{listed} {now:?}");
        }
        for (listed, now, expected) in
            [(false, &[][..], Replaced::Nothing), (false, &["a"], Replaced::Unclear), (true, &[], Replaced::Done)]
        {
            assert_eq!(replaced(listed, &[], now), expected, "none before: {listed} {now:?}");
        }
    }
}
