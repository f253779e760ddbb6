//! Projects that Vercel hosts (<https://vercel.com/docs/rest-api>): looked at, rolled back.
//!
//! A project's production deployments are its releases. A rollback makes none: it points production at an older one again,
//! which takes a while after it is answered. Tokens are read by reference at the moment of use.

pub mod spec;
mod state;
mod target;
mod wire;

pub use target::VercelTarget;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::Method;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{
    super::kubernetes::{ActError, Kubernetes},
    client::{ApiClient, Call, Quota, Repeat},
    common::{
        Before, DeployState, HostedError, HostedObservation, KeyWords, ProviderConfig, READ_LIMIT, WRITE_LIMIT,
        breaker_limits, key_of, read_limits,
    },
};
use crate::{
    analyze::observation::{Hosted, Measured},
    api::VercelProject,
};
use wire::{Page, Project};

/// Where Vercel's API is.
pub const VERCEL_API: &str = "https://api.vercel.com";

/// Our own bounds, by token and kind of call: Vercel documents its limits by their headers alone, which are heeded as well.
const READS: u32 = 200;
const ROLLBACKS: u32 = 10;
const PER: Duration = Duration::from_secs(60);
/// Deployments that are read at a look.
const NEWEST: usize = 10;
/// Candidates for a rollback that are searched: pages of so many.
const CANDIDATES: (usize, usize) = (5, 100);

const KEY: KeyWords =
    KeyWords { name: "Vercel access token", field: "target.vercel.tokenSecretRef", variable: "VERCEL_TOKEN" };

/// Looks at projects and rolls them back. One for the whole operator.
pub struct Vercel {
    pub(super) cloud: ApiClient,
    /// Of targets that name none.
    key: Option<SecretString>,
    kubernetes: Kubernetes,
}

/// A project, the token to ask with, and until when.
struct Account<'a> {
    project: &'a VercelProject,
    token: SecretString,
    until: Instant,
}

impl Vercel {
    pub fn new(config: ProviderConfig, kubernetes: Kubernetes) -> Self {
        let ProviderConfig { base_url, key } = config;
        Self { cloud: ApiClient::new(base_url), key, kubernetes }
    }

    /// One look: its production deployment, and whether a newer one has failed. Takes at most 9 s.
    pub async fn observe(&self, namespace: &str, project: &VercelProject) -> HostedObservation {
        let target = match self.observe_anew(namespace, project).await {
            Ok(hosted) => Measured::Known(hosted),
            Err(error) => Measured::Unknown(error.into()),
        };
        HostedObservation { at: Timestamp::now(), target, metrics: Vec::new() }
    }

    async fn observe_anew(&self, namespace: &str, project: &VercelProject) -> Result<Hosted, HostedError> {
        let account = self.account(namespace, project).await?;
        // First one call alone: where it fails the other would too.
        let itself = self.project(&account).await?;
        let page = self.deployments(&account, &[("limit", NEWEST.to_string())]).await?;
        state::hosted(&itself, &page.deployments).map_err(HostedError::Unsettled)
    }

    /// Whether it can be rolled back to a deployment.
    ///
    /// # Errors
    /// BadRemedy or Forbidden, in words for a person; what may pass is no reason.
    pub async fn preflight_rollback(
        &self,
        namespace: &str,
        project: &VercelProject,
        to: Option<&str>,
    ) -> Result<(), ActError> {
        let id = &project.project_id;
        let asked = async {
            let account = self.account(namespace, project).await?;
            let itself = self.project(&account).await?;
            let is_candidate = match to {
                Some(to) => self.is_candidate(&account, to).await?,
                None => true,
            };
            Ok::<_, HostedError>((itself.paused, is_candidate))
        };
        match asked.await {
            Err(error) => error.forbids(),
            Ok((true, _)) => Err(ActError::BadRemedy(format!("{id} is paused; resume it in Vercel's dashboard"))),
            Ok((_, false)) => Err(ActError::BadRemedy(format!(
                "Vercel does not roll {id} back to deployment {}: it is deleted, did not serve production, or the plan allows the one before alone",
                to.unwrap_or_default()
            ))),
            Ok((false, true)) => Ok(()),
        }
    }

    /// What is there before the call.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn before(&self, namespace: &str, project: &VercelProject) -> Result<Before, HostedError> {
        let itself = self.project(&self.account(namespace, project).await?).await?;
        Ok(Before {
            live: state::live(&itself).map(|live| live.id.clone()),
            instances: Vec::new(),
            newest_restart: None,
            newest_deploy: state::asked_at(&itself),
            // Vercel puts no new deployment live after a rollback.
            deploys_on: None,
        })
    }

    /// Asks to point production at `to` again, which has begun when this is answered; the answer's status.
    ///
    /// # Errors
    /// See [`HostedError`]; [`HostedError::not_done`] tells whether it had no effect for certain.
    pub async fn roll_back(&self, namespace: &str, project: &VercelProject, to: &str) -> Result<u16, HostedError> {
        let account = self.account(namespace, project).await?;
        let id = project.project_id.as_str();
        let call = Call {
            what: &format!("roll {id} back to {to}"),
            method: Method::POST,
            path: &["v1", "projects", id, "rollback", to],
            query: &team(project),
            json: Some(&json!({})),
            repeat: Repeat::IfNotDone,
            quotas: &[Quota { name: "rollback".into(), calls: ROLLBACKS, per: PER, spares_unchanged: false }],
            breaker: id,
            breaker_limits: breaker_limits(&project.access),
            time: WRITE_LIMIT,
        };
        Ok(self.cloud.send(&account.token, &call).await?.status)
    }

    /// What has become of a rollback to `to` since `asked_before`, which is [`Before::newest_deploy`].
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn rolled_back(
        &self,
        namespace: &str,
        project: &VercelProject,
        to: &str,
        asked_before: Option<&str>,
    ) -> Result<DeployState, HostedError> {
        let itself = self.project(&self.account(namespace, project).await?).await?;
        Ok(state::rolled_back(&itself, to, asked_before))
    }

    async fn account<'a>(&self, namespace: &str, project: &'a VercelProject) -> Result<Account<'a>, HostedError> {
        let until = Instant::now() + READ_LIMIT;
        let whose = (namespace, project.project_id.as_str());
        let token = key_of(&self.kubernetes, self.key.as_ref(), &KEY, whose, project.access.key.as_ref()).await?;
        Ok(Account { project, token, until })
    }

    async fn project(&self, account: &Account<'_>) -> Result<Project, HostedError> {
        let id = account.project.project_id.as_str();
        let query = [("rollbackInfo", "true".to_owned())];
        self.get(account, &format!("read project {id}"), &["v9", "projects", id], &query).await
    }

    /// Of production, the newest first.
    async fn deployments(&self, account: &Account<'_>, more: &[(&str, String)]) -> Result<Page, HostedError> {
        let id = account.project.project_id.as_str();
        let mut query = vec![("projectId", id.to_owned()), ("target", "production".to_owned())];
        query.extend(more.iter().cloned());
        self.get(account, &format!("list deployments of {id}"), &["v7", "deployments"], &query).await
    }

    async fn is_candidate(&self, account: &Account<'_>, to: &str) -> Result<bool, HostedError> {
        let (pages, limit) = CANDIDATES;
        let mut until: Option<u64> = None;
        for _ in 0..pages {
            let mut query = vec![
                ("state", "READY".to_owned()),
                ("rollbackCandidate", "true".to_owned()),
                ("limit", limit.to_string()),
            ];
            query.extend(until.map(|until| ("until", until.to_string())));
            let page = self.deployments(account, &query).await?;
            if page.deployments.iter().any(|deployment| deployment.uid == to) {
                return Ok(true);
            }
            until = page.pagination.and_then(|pagination| pagination.next);
            if until.is_none() {
                return Ok(false);
            }
        }
        // It may be further back: Vercel says so when it is asked.
        Ok(true)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        account: &Account<'_>,
        what: &str,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, HostedError> {
        let project = account.project;
        let query = [query, &team(project)].concat();
        let kind = path.get(1).copied().unwrap_or_default();
        let call = Call {
            what,
            method: Method::GET,
            path,
            query: &query,
            json: None,
            repeat: Repeat::Always,
            quotas: &[Quota { name: format!("read {kind}"), calls: READS, per: PER, spares_unchanged: false }],
            breaker: &project.project_id,
            breaker_limits: breaker_limits(&project.access),
            time: read_limits(account.until),
        };
        Ok(self.cloud.read(&account.token, &call).await?)
    }
}

/// Every call names the team that the project is of.
fn team(project: &VercelProject) -> Vec<(&'static str, String)> {
    project.team_id.iter().map(|team| ("teamId", team.clone())).collect()
}
