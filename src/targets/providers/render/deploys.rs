//! Rollbacks and new deploys of a service, and its environment variables.
//!
//! A change of the variables takes effect with the next deploy, and Render keeps no versions: a deploy runs with the variables
//! that were set when it was first seen live. They are read once per deploy and operator process, and again when they are to
//! be restored. Their values are in no message: from an error of a call that carries values, Render's words are removed.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::{
    MANY, RenderServiceTarget,
    wire::{Deploy, EnvVar},
};
use crate::{
    analyze::tracker::GoodState,
    api::{ActionPlan, ConfigKind, ConfigObject, ProviderProgress},
    targets::{
        kubernetes::{ActError, SnapshotOf},
        providers::{
            account::Account,
            client::{Failure, Repeat},
            common::{Before, DeployState, HostedError},
            deploy::Desired,
            deploy_executor::DeployApi,
            env_vars::{EnvChanges, EnvError, EnvVars, MAX_CHANGES, MAX_NAME},
        },
    },
};

/// Variables of a page, and pages of one service.
const PAGES: (usize, usize) = (100, 10);
/// Read this short after a deploy went live, the variables are those of the deploy, also for a rollback to it.
const FRESH: SignedDuration = SignedDuration::from_mins(2);
/// Deploys of a service whose environment is remembered.
const DEPLOYS: usize = 4;

/// The environment of a deploy.
pub(super) struct Running {
    deploy: String,
    digest: String,
    vars: EnvVars,
    /// Read just after the deploy went live, so that nobody will have changed the variables in between.
    fresh: bool,
}

impl RenderServiceTarget<'_> {
    /// The configuration of the live deploy; `root`: the deploy that it rolled back to. None when it is unknown: a rollback
    /// has the environment of a deploy that this operator process has not seen live.
    pub(super) async fn running(
        &self,
        namespace: &str,
        account: &Account<'_>,
        live: &Deploy,
        root: Option<&str>,
    ) -> Result<Option<Vec<ConfigObject>>, HostedError> {
        let kubernetes = &self.render.api.kubernetes;
        self.may_compare(namespace).await?;
        let service = self.key(namespace);
        let deploy = root.unwrap_or(&live.id);
        let object = |digest: &str| {
            let name = account.id.to_owned();
            vec![ConfigObject { kind: ConfigKind::EnvVars, name, digest: digest.to_owned() }]
        };
        let seen = |running: &Arc<Running>| running.deploy == deploy && (root.is_none() || running.fresh);
        let known = self.render.running.lock().get(&service).and_then(|all| all.iter().find(|one| seen(one)).cloned());
        if let Some(known) = known {
            return Ok(Some(object(&known.digest)));
        }
        if live.is_rollback() {
            return Ok(None);
        }
        let vars = self.env_vars(account).await?;
        let digest = kubernetes.env_digest(&vars).map_err(HostedError::KeyUnread)?;
        let found = object(&digest);
        let mut running = self.render.running.lock();
        if running.len() >= MANY && !running.contains_key(&service) {
            running.clear();
        }
        let all = running.entry(service).or_default();
        if all.len() >= DEPLOYS {
            all.remove(0);
        }
        let fresh = live.finished_at.is_some_and(|at| Timestamp::now().duration_since(at) < FRESH);
        all.push(Arc::new(Running { deploy: deploy.to_owned(), digest, vars, fresh }));
        Ok(Some(found))
    }

    /// # Errors
    /// Forbidden when the operator may store no snapshots, so that there is no key for the comparison.
    async fn may_compare(&self, namespace: &str) -> Result<(), HostedError> {
        let (id, kubernetes) = (&self.service.service_id, &self.render.api.kubernetes);
        if kubernetes.env_digest(&EnvVars::default()).is_ok() {
            return Ok(());
        }
        match kubernetes.may_keep_secrets(namespace).await {
            Err(why @ ActError::Forbidden { .. }) => Err(HostedError::Forbidden(format!(
                "restoring the environment variables of {id} needs snapshots in Secrets, and that is {why} (set rbac.rollbackSecrets in the chart, or remove RollbackConfig and RollbackState from its remedies)"
            ))),
            _ => Err(HostedError::Unsettled(format!(
                "the key for comparing the environment variables of {id} is not read yet"
            ))),
        }
    }

    /// Stores a snapshot of the environment variables of this state.
    ///
    /// # Errors
    /// Rejected when the variables are not known any more; else see [`ActError`].
    pub(super) async fn keep(&self, namespace: &str, copy: SnapshotOf, good: &GoodState) -> Result<(), ActError> {
        let digest = good.objects.iter().find(|object| object.kind == ConfigKind::EnvVars).map(|object| &object.digest);
        let known = self.render.running.lock().get(&self.key(namespace)).and_then(|all| {
            let known = all.iter().rev().find(|running| Some(&running.digest) == digest);
            known.cloned()
        });
        let Some(known) = known else {
            let message = format!(
                "the environment variables of {} were changed since its deploy went live, so those of the deploy cannot be read; a snapshot is stored after the next deploy",
                self.service.service_id
            );
            return Err(ActError::Rejected(message));
        };
        self.render.api.kubernetes.store_env_snapshot(namespace, copy, &known.vars).await
    }

    /// Requests a new deploy of the commit or image of the deploy `of`, with the current environment variables.
    pub(super) async fn deploy_again(
        &self,
        namespace: &str,
        account: &Account<'_>,
        of: &str,
    ) -> Result<(Option<String>, u16), HostedError> {
        let deploy = self.deploy(account, of).await?;
        // Without commit or image Render would deploy the branch's newest commit.
        let json = match (deploy.commit, deploy.image) {
            (Some(commit), _) if !commit.id.is_empty() => json!({"commitId": commit.id}),
            (_, Some(image)) if !image.reference.is_empty() => json!({"imageUrl": image.reference}),
            _ => {
                return Err(HostedError::Unsupported(
                    "Render reports neither commit nor image of the live deploy, so it cannot be deployed again",
                ));
            }
        };
        let what = format!("deploy {} again", account.id);
        self.post_deploy(namespace, account, (&what, "deploys"), &json).await
    }

    async fn env_vars(&self, account: &Account<'_>) -> Result<EnvVars, HostedError> {
        let (what, path) =
            (format!("list environment variables of {}", account.id), ["services", account.id, "env-vars"]);
        let listed = self.render.list(account, (&what, &path), PAGES, |_: &[EnvVar]| false).await;
        match listed.map_err(discreet)? {
            (vars, true) => Ok(vars.into_iter().map(|var| (var.key, var.value)).collect()),
            // An incomplete list would remove variables.
            _ => Err(HostedError::Unsupported("it has more than 900 environment variables, which are not read")),
        }
    }
}

#[async_trait]
impl DeployApi for RenderServiceTarget<'_> {
    async fn preflight(&self, namespace: &str, plan: &ActionPlan) -> Result<(), ActError> {
        self.may_act(namespace, plan.action).await?;
        match self.env_changes(namespace, plan, &[]).await {
            // A change since is checked again before the action.
            Ok(_) | Err(EnvError::Changed(_)) => Ok(()),
            Err(EnvError::Snapshot(why)) if why.retryable() => Ok(()),
            Err(EnvError::Snapshot(why)) => Err(why),
            Err(EnvError::Hosted(error)) => error.forbids(),
            Err(why @ (EnvError::TooMany(_) | EnvError::LongName(_))) => Err(ActError::BadRemedy(why.to_string())),
        }
    }

    async fn before(&self, namespace: &str) -> Result<Before, HostedError> {
        self.before_call(namespace).await
    }

    async fn send(&self, namespace: &str, desired: &Desired) -> Result<(Option<String>, u16), HostedError> {
        let account = self.account(namespace).await?;
        let to = match desired {
            Desired::Rollback(to) => &to.hash,
            Desired::Redeploy(of) => return self.deploy_again(namespace, &account, &of.hash).await,
        };
        let (what, json) = (format!("roll service {} back to {to}", account.id), json!({"deployId": to}));
        let sent = self.post_deploy(namespace, &account, (&what, "rollback"), &json).await?;
        if let Some(deploy) = &sent.0 {
            self.note_target(deploy, to);
        }
        Ok(sent)
    }

    async fn deploy_state(
        &self,
        namespace: &str,
        desired: &Desired,
        sent: &ProviderProgress,
    ) -> Result<DeployState, HostedError> {
        let account = self.account(namespace).await?;
        if let Some(deploy) = &sent.deploy {
            return Ok(state_of(&self.deploy(&account, deploy).await?));
        }
        let deploys = self.deploys(&account).await?;
        let newer = deploys.iter().take_while(|deploy| Some(&deploy.id) != sent.newest_before.as_ref());
        let newer: Vec<&Deploy> = newer.collect();
        match desired {
            Desired::Rollback(to) => {
                for deploy in &newer {
                    if self.rollback_target(&account, deploy, &[]).await?.as_ref() == Some(&to.hash) {
                        return Ok(state_of(deploy));
                    }
                }
            }
            Desired::Redeploy(of) => {
                let source = self.deploy(&account, &of.hash).await?.source();
                // The oldest: deploys after it are somebody else's.
                let ours = newer.iter().rev().find(|one| one.trigger == "api" && one.source() == source);
                if let Some(ours) = ours {
                    return Ok(state_of(ours));
                }
            }
        }
        Ok(DeployState::without_ours(newer.is_empty()))
    }

    async fn set_auto_deploy(&self, namespace: &str, trigger: &str) -> Result<(), HostedError> {
        let account = self.account(namespace).await?;
        let id = account.id;
        let (what, json) = (format!("set auto-deploy of {id} to {trigger}"), json!({"autoDeployTrigger": trigger}));
        let call = (what.as_str(), &["services", id][..]);
        self.render.change(&account, Method::PATCH, call, Some(&json), Repeat::Always).await.map(drop)
    }

    async fn env_changes(&self, namespace: &str, plan: &ActionPlan, begun: &[String]) -> Result<EnvChanges, EnvError> {
        let (id, kubernetes) = (&self.service.service_id, &self.render.api.kubernetes);
        let Some(config) = plan.intent.config() else { return Ok(EnvChanges::new()) };
        let change = config.objects.iter().find(|change| change.kind == ConfigKind::EnvVars && change.name == *id);
        let Some(change) = change else { return Ok(EnvChanges::new()) };
        let good = kubernetes.snapshot_env(namespace, &config.state).await.map_err(EnvError::Snapshot)?;
        let digest = |vars: &EnvVars| kubernetes.env_digest(vars).map_err(EnvError::Snapshot);
        if digest(&good)? != change.to {
            let message = format!("Secret {} holds other environment variables than were assessed", config.state);
            return Err(EnvError::Snapshot(ActError::TargetGone(message)));
        }
        let now = self.env_vars(&self.account(namespace).await?).await?;
        let changes = now.changes_to(&good);
        if begun.is_empty() {
            let digest = digest(&now)?;
            if digest != change.from && digest != change.to {
                return Err(EnvError::Changed(format!(
                    "the environment variables of {id} were changed after the deploy that was assessed"
                )));
            }
        } else if let Some((other, _)) = changes.iter().find(|(name, _)| !begun.contains(name)) {
            return Err(EnvError::Changed(format!(
                "somebody else changed the environment variable {other} of {id} while others were restored"
            )));
        }
        if changes.len() > MAX_CHANGES {
            return Err(EnvError::TooMany(changes.len()));
        }
        if let Some((name, _)) = changes.iter().find(|(name, _)| name.chars().count() > MAX_NAME) {
            return Err(EnvError::LongName(name.chars().take(20).collect()));
        }
        Ok(changes)
    }

    async fn set_env_var(&self, namespace: &str, name: &str, value: Option<&SecretString>) -> Result<(), HostedError> {
        let account = self.account(namespace).await?;
        let path = ["services", account.id, "env-vars", name];
        let (verb, method) = if value.is_some() { ("set", Method::PUT) } else { ("remove", Method::DELETE) };
        let json = value.map(|value| json!({"value": value.expose_secret()}));
        let what = format!("{verb} the environment variable {name} of {}", account.id);
        let answer = self.render.change(&account, method, (&what, &path), json.as_ref(), Repeat::Always).await;
        match answer.map_err(discreet) {
            Err(HostedError::Call(error)) if value.is_none() && error.kind.status() == Some(404) => Ok(()),
            answer => answer.map(drop),
        }
    }
}

fn state_of(deploy: &Deploy) -> DeployState {
    let (id, status) = (deploy.id.clone(), deploy.status.clone());
    DeployState::Deploy { id, status, live: deploy.is_live(), over: deploy.is_over() }
}

/// Without the words of the response: they may hold a value.
fn discreet(error: HostedError) -> HostedError {
    let HostedError::Call(mut error) = error else { return error };
    match &mut error.kind {
        Failure::Status { said, .. } => said.clear(),
        Failure::BadAnswer { why, .. } => "it differs from the documented format".clone_into(why),
        _ => {}
    }
    HostedError::Call(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::providers::client::CallError;

    #[test]
    fn an_error_of_a_call_that_carries_values_holds_no_words_of_the_response() {
        let status = Failure::Status { status: 400, said: ": \"value s3cr3t is too long\"".into(), after: None };
        let answer = Failure::BadAnswer { status: 200, why: "invalid type: string \"s3cr3t\"".into() };
        for kind in [status, answer] {
            let error = HostedError::Call(CallError { call: "set A (PUT …)".into(), attempts: 1, kind });
            let shown = format!("{0} {0:?}", discreet(error));
            assert!(!shown.contains("s3cr3t") && shown.contains("set A"), "{shown}");
        }
    }
}
