//! The environment variables of a service. What is changed takes effect with the next deploy, and Render keeps no versions
//! of them: those that a deploy runs with are the ones that were there when it was first seen live.
//!
//! They are read once a deploy and life of the operator, and again when they are to be put back. Their values are in no
//! message: also what Render says about a call that carries one is left out of it.

use std::{sync::Arc, time::Instant};

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::{
    Account, READ_LIMIT, Render,
    act::state_of,
    observe::{MANY, key},
    wire::{Deploy, EnvVarItem},
};
use crate::{
    analyze::tracker::GoodState,
    api::{ConfigKind, ConfigObject, ConfigRollback, RenderService},
    targets::{
        kubernetes::{ActError, SnapshotOf},
        providers::client::{Failure, Repeat},
        providers::common::{DeployState, HostedError},
        providers::env_vars::{EnvChanges, EnvError, EnvVars, MAX_CHANGES, MAX_NAME},
    },
};

/// Of a page, and pages of one service.
const LIMIT: &str = "100";
const MAX_PAGES: usize = 10;
/// Read this short after a deploy went live, they are what it runs with, also when it is rolled back to.
const FRESH: SignedDuration = SignedDuration::from_mins(2);
/// Deploys of a service whose environment is remembered.
const DEPLOYS: usize = 4;

/// What a deploy runs with.
pub(super) struct Running {
    deploy: String,
    digest: String,
    vars: EnvVars,
    /// Read when it had just gone live: nobody will have changed them in between.
    fresh: bool,
}

impl Render {
    /// The configuration that the live deploy runs with; `root`: the deploy that a rollback went back to. None when nobody
    /// knows: a rollback has the environment of a deploy that was not seen live in this life of the operator.
    pub(super) async fn running(
        &self,
        namespace: &str,
        asked: &RenderService,
        account: &Account<'_>,
        live: &Deploy,
        root: Option<&str>,
        until: Instant,
    ) -> Result<Option<Vec<ConfigObject>>, HostedError> {
        self.may_compare(namespace, account).await?;
        let service = key(namespace, asked);
        let deploy = root.unwrap_or(&live.id);
        let object = |digest: &str| {
            let name = account.id.to_owned();
            vec![ConfigObject { kind: ConfigKind::EnvVars, name, digest: digest.to_owned() }]
        };
        let seen = |running: &Arc<Running>| running.deploy == deploy && (root.is_none() || running.fresh);
        let known = self.running.lock().get(&service).and_then(|all| all.iter().find(|one| seen(one)).cloned());
        if let Some(known) = known {
            return Ok(Some(object(&known.digest)));
        }
        if live.is_rollback() {
            return Ok(None);
        }
        let vars = self.env_vars(account, until).await?;
        let digest = self.kubernetes.env_digest(&vars).map_err(HostedError::KeyUnread)?;
        let found = object(&digest);
        let mut running = self.running.lock();
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
    /// Forbidden when the operator may keep no copies, so that there is no key to compare them with.
    async fn may_compare(&self, namespace: &str, account: &Account<'_>) -> Result<(), HostedError> {
        if self.kubernetes.env_digest(&EnvVars::default()).is_ok() {
            return Ok(());
        }
        let id = account.id;
        match self.kubernetes.may_keep_secrets(namespace).await {
            Err(why @ ActError::Forbidden { .. }) => Err(HostedError::Forbidden(format!(
                "to put the environment variables of {id} back they are kept in Secrets, and that is {why} (set rbac.rollbackSecrets in the chart, or take RollbackConfig and RollbackState out of its remedies)"
            ))),
            _ => Err(HostedError::Unsettled(format!(
                "the key that the environment variables of {id} are compared by was not read yet"
            ))),
        }
    }

    /// Keeps a copy of the environment variables that this state ran with.
    ///
    /// # Errors
    /// Rejected when they are not known any more; else see [`ActError`].
    pub async fn keep(
        &self,
        namespace: &str,
        service: &RenderService,
        copy: SnapshotOf,
        good: &GoodState,
    ) -> Result<(), ActError> {
        let digest = good.objects.iter().find(|object| object.kind == ConfigKind::EnvVars).map(|object| &object.digest);
        let known = self.running.lock().get(&key(namespace, service)).and_then(|all| {
            let known = all.iter().rev().find(|running| Some(&running.digest) == digest);
            known.cloned()
        });
        let Some(known) = known else {
            let message = format!(
                "the environment variables of {} were changed since its deploy went live, so what it runs with cannot be read; they are kept after its next deploy",
                service.service_id
            );
            return Err(ActError::Rejected(message));
        };
        self.kubernetes.store_env_snapshot(namespace, copy, &known.vars).await
    }

    /// What is left to be put back of this state's environment variables. `begun`: those of which some are back already.
    ///
    /// # Errors
    /// See [`EnvError`]: Changed when somebody else has changed them since they were judged.
    pub async fn env_changes(
        &self,
        namespace: &str,
        service: &RenderService,
        config: &ConfigRollback,
        begun: &[String],
    ) -> Result<EnvChanges, EnvError> {
        let id = &service.service_id;
        let change = config.objects.iter().find(|change| change.kind == ConfigKind::EnvVars && change.name == *id);
        let Some(change) = change else { return Ok(EnvChanges::new()) };
        let good = self.kubernetes.snapshot_env(namespace, &config.state).await.map_err(EnvError::Copy)?;
        let digest = |vars: &EnvVars| self.kubernetes.env_digest(vars).map_err(EnvError::Copy);
        if digest(&good)? != change.to {
            let message = format!("Secret {} holds other environment variables than were judged", config.state);
            return Err(EnvError::Copy(ActError::TargetGone(message)));
        }
        let account = self.account(namespace, service).await?;
        let now = self.env_vars(&account, Instant::now() + READ_LIMIT).await?;
        let changes = now.changes_to(&good);
        if begun.is_empty() {
            let digest = digest(&now)?;
            if digest != change.from && digest != change.to {
                return Err(EnvError::Changed(format!(
                    "the environment variables of {id} were changed after the deploy that was judged"
                )));
            }
        } else if let Some((other, _)) = changes.iter().find(|(name, _)| !begun.contains(name)) {
            return Err(EnvError::Changed(format!(
                "the environment variable {other} of {id} was changed by somebody else while others were put back"
            )));
        }
        if changes.len() > MAX_CHANGES {
            return Err(EnvError::TooMany(changes.len()));
        }
        if let Some((name, _)) = changes.iter().find(|(name, _)| name.chars().count() > MAX_NAME) {
            let name: String = name.chars().take(20).collect();
            return Err(EnvError::LongName(name));
        }
        Ok(changes)
    }

    /// Whether the environment variables of this state can be put back: their copy is there, and is what was judged.
    ///
    /// # Errors
    /// TargetGone, Forbidden or BadRemedy, in words for a person; what may pass is no reason, nor is what somebody else has
    /// changed meanwhile.
    pub async fn preflight_env(
        &self,
        namespace: &str,
        service: &RenderService,
        config: &ConfigRollback,
    ) -> Result<(), ActError> {
        match self.env_changes(namespace, service, config, &[]).await {
            Ok(_) | Err(EnvError::Changed(_)) => Ok(()),
            Err(EnvError::Copy(why)) if why.retryable() => Ok(()),
            Err(EnvError::Copy(why)) => Err(why),
            Err(EnvError::Hosted(error)) => error.forbids(),
            Err(why @ (EnvError::TooMany(_) | EnvError::LongName(_))) => Err(ActError::BadRemedy(why.to_string())),
        }
    }

    /// Sets one environment variable, or takes it away. Doing it twice is as good as once; it takes effect with the next
    /// deploy.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn set_env_var(
        &self,
        namespace: &str,
        service: &RenderService,
        name: &str,
        value: Option<&SecretString>,
    ) -> Result<(), HostedError> {
        let account = self.account(namespace, service).await?;
        let id = service.service_id.as_str();
        let path = ["services", id, "env-vars", name];
        let (verb, method) = if value.is_some() { ("set", Method::PUT) } else { ("take away", Method::DELETE) };
        let json = value.map(|value| json!({"value": value.expose_secret()}));
        let what = format!("{verb} the environment variable {name} of {id}");
        match self.change(&account, method, (&what, &path), json.as_ref(), Repeat::Always).await.map_err(discreet) {
            Err(HostedError::Call(error)) if value.is_none() && error.kind.status() == Some(404) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Asks for a new deploy of what the deploy `of` is, with the environment variables of now; its id, where that is told,
    /// and the answer's status.
    ///
    /// # Errors
    /// See [`HostedError`]; [`HostedError::not_done`] tells whether it had no effect for certain.
    pub async fn deploy_again(
        &self,
        namespace: &str,
        service: &RenderService,
        of: &str,
    ) -> Result<(Option<String>, u16), HostedError> {
        let account = self.account(namespace, service).await?;
        let id = service.service_id.as_str();
        let deploy = self.deploy(&account, of, Instant::now() + READ_LIMIT).await?;
        // Without it the branch's newest commit would be deployed, whatever that is.
        let json = match (deploy.commit, deploy.image) {
            (Some(commit), _) if !commit.id.is_empty() => json!({"commitId": commit.id}),
            (_, Some(image)) if !image.reference.is_empty() => json!({"imageUrl": image.reference}),
            _ => {
                return Err(HostedError::Unsupported(
                    "Render does not tell of which commit or image the deploy is that runs, so it cannot be deployed anew",
                ));
            }
        };
        let (what, path) = (format!("deploy {id} anew"), ["services", id, "deploys"]);
        let answer = self.change(&account, Method::POST, (&what, &path), Some(&json), Repeat::IfNotDone).await;
        self.forget_observation(namespace, service);
        let answer = answer?;
        let made: Option<Deploy> = serde_json::from_value(answer.json).ok();
        Ok((made.map(|made| made.id), answer.status))
    }

    /// What has become of [`Self::deploy_again`]: `made` is the deploy that is known to be it, `newest_before` the newest one
    /// before the call.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn deployed_again(
        &self,
        namespace: &str,
        service: &RenderService,
        (of, made, newest_before): (&str, Option<&str>, Option<&str>),
    ) -> Result<DeployState, HostedError> {
        let until = Instant::now() + READ_LIMIT;
        let account = self.account(namespace, service).await?;
        if let Some(made) = made {
            return Ok(state_of(&self.deploy(&account, made, until).await?));
        }
        let (deploys, of) = tokio::try_join!(self.deploys(&account, until), self.deploy(&account, of, until))?;
        let newer: Vec<&Deploy> = deploys.iter().take_while(|one| Some(one.id.as_str()) != newest_before).collect();
        // The oldest: what came after it is somebody else's.
        let ours = newer.iter().rev().find(|one| one.trigger == "api" && one.source() == of.source());
        Ok(match ours {
            Some(ours) => state_of(ours),
            None if newer.is_empty() => DeployState::Nothing,
            None => DeployState::Others,
        })
    }

    /// All of them.
    async fn env_vars(&self, account: &Account<'_>, until: Instant) -> Result<EnvVars, HostedError> {
        let id = account.id;
        let what = format!("list environment variables of {id}");
        let path = ["services", id, "env-vars"];
        let mut all: Vec<(String, String)> = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut query = vec![("limit", LIMIT.to_owned())];
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let page: Vec<EnvVarItem> = self.get(account, &what, &path, &query, until).await.map_err(discreet)?;
            cursor = page.last().and_then(|item| item.cursor.clone());
            all.extend(page.into_iter().map(|item| (item.env_var.key, item.env_var.value)));
            // A page that is not full may still not be the last one; a list that is not whole would take variables away.
            if cursor.is_none() {
                return Ok(all.into_iter().collect());
            }
        }
        Err(HostedError::Unsupported("it has more than 900 environment variables, which are not read"))
    }
}

/// Without what the answer says: it may hold a value.
fn discreet(error: HostedError) -> HostedError {
    let HostedError::Call(mut error) = error else { return error };
    match &mut error.kind {
        Failure::Status { said, .. } => said.clear(),
        Failure::BadAnswer { why, .. } => "it is not what is promised".clone_into(why),
        _ => {}
    }
    HostedError::Call(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::providers::client::CallError;

    #[test]
    fn an_error_of_a_call_that_carries_values_says_nothing_of_the_answer() {
        let status = Failure::Status { status: 400, said: ": \"value s3cr3t is too long\"".into(), after: None };
        let answer = Failure::BadAnswer { status: 200, why: "invalid type: string \"s3cr3t\"".into() };
        for kind in [status, answer] {
            let error = HostedError::Call(CallError { call: "set A (PUT …)".into(), attempts: 1, kind });
            let shown = format!("{0} {0:?}", discreet(error));
            assert!(!shown.contains("s3cr3t") && shown.contains("set A"), "{shown}");
        }
    }
}
