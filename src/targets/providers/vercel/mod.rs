//! Projects that Vercel hosts (<https://vercel.com/docs/rest-api>): observed, rolled back.
//!
//! A project's production deployments are its releases. A rollback creates no deployment: it points production at an older
//! one again, which takes a while after the response.

pub mod spec;
mod state;
mod wire;

use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    analyze::observation::{Hosted, TargetState},
    api::{ActionPlan, CircuitStatus, Intent, ProviderProgress, VERCEL_KIND, VercelProject},
    targets::{
        Observed, Target,
        executor::{Executor, Order},
        kubernetes::{ActError, Kubernetes},
        providers::{
            account::{Account, KeyWords, ProviderApi},
            call::ProviderWords,
            client::{Call, Manner, Quota, Repeat},
            common::{Before, DeployState, HostedError, Metrics, ProviderConfig, observed, refused},
            deploy::{Deploy, DeployWords, Desired},
            deploy_executor::{DeployApi, DeployExecutor},
            hosted_state,
        },
    },
};

use wire::{Page, Project};

/// Where Vercel's API is.
pub const VERCEL_API: &str = "https://api.vercel.com";

const KEY: KeyWords =
    KeyWords { name: "Vercel access token", field: "target.vercel.tokenSecretRef", variable: "VERCEL_TOKEN" };

/// The operator's own limits, by token and kind of call: Vercel documents its limits only by headers, which are respected as
/// well.
const READS: u32 = 200;
const ROLLBACKS: u32 = 10;
const PER: Duration = Duration::from_secs(60);
/// Deployments that one observation reads.
const NEWEST: usize = 10;
/// Candidates for a rollback that are searched: pages, and candidates of each.
const CANDIDATES: (usize, usize) = (5, 100);

const WORDS: DeployWords = DeployWords {
    provider: ProviderWords {
        provider: VERCEL_KIND,
        pages: "Vercel's dashboard",
        settles_within: SignedDuration::from_secs(30),
        auto_deploy_off: |_| String::new(),
    },
    // Production is pointed at what was built before.
    limit: SignedDuration::from_mins(15),
    brings: |_, to| to.to_owned(),
    others: "other rollbacks or promotions were made",
    left_behind: "; new deployments do not go live automatically until you promote one (Undo Rollback or Promote in Vercel's dashboard, or vercel promote)",
};

/// Observes projects and rolls them back. One for the whole operator.
pub struct Vercel(ProviderApi);

impl Vercel {
    pub fn new(config: ProviderConfig, kubernetes: &Kubernetes) -> Self {
        Self(ProviderApi::new(config, Manner::default(), KEY, kubernetes))
    }
}

/// A project that Vercel hosts.
#[derive(Clone, Copy)]
pub struct VercelTarget<'a> {
    pub vercel: &'a Vercel,
    pub project: &'a VercelProject,
}

impl<'a> VercelTarget<'a> {
    async fn account(&self, namespace: &str) -> Result<Account<'a>, HostedError> {
        self.vercel.0.account(namespace, &self.project.project_id, &self.project.access).await
    }

    async fn hosted(&self, namespace: &str) -> Result<(Hosted, Metrics), HostedError> {
        let account = self.account(namespace).await?;
        // First one call alone: where it fails the other would fail too.
        let project = self.project(&account).await?;
        let page = self.deployments(&account, &[("limit", NEWEST.to_string())]).await?;
        let hosted = state::hosted(&project, &page.deployments).map_err(HostedError::Unsettled)?;
        Ok((hosted, Vec::new()))
    }

    async fn project(&self, account: &Account<'_>) -> Result<Project, HostedError> {
        let query = [("rollbackInfo", "true".to_owned())];
        self.get(account, &format!("read project {}", account.id), &["v9", "projects", account.id], &query).await
    }

    /// Of production, the newest first.
    async fn deployments(&self, account: &Account<'_>, more: &[(&str, String)]) -> Result<Page, HostedError> {
        let id = account.id;
        let query = [&[("projectId", id.to_owned()), ("target", "production".to_owned())], more].concat();
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
        // The deployment may be older: the response to the rollback says so.
        Ok(true)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        account: &Account<'_>,
        what: &str,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, HostedError> {
        let query = [query, &self.team()].concat();
        let quotas = [Quota::new(format!("read {}", path[1]), READS, PER)];
        Ok(self.vercel.0.client.read(&account.key, &account.read(what, path, &query, &quotas)).await?)
    }

    /// Every call names the team of the project.
    fn team(&self) -> Vec<(&'static str, String)> {
        self.project.team_id.iter().map(|team| ("teamId", team.clone())).collect()
    }
}

#[async_trait]
impl<'a> Target<'a> for VercelTarget<'a> {
    async fn observe(&self, namespace: &str) -> Observed<TargetState> {
        observed(self.hosted(namespace).await).map(hosted_state)
    }

    fn executor(&self, order: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        let Intent::Rollback { to } = &order.plan.intent else { return None };
        let procedure = Deploy::new(order.plan, &self.project.project_id, WORDS, Desired::Rollback(to.clone()));
        Some(Box::new(DeployExecutor::new(*self, order, procedure)))
    }

    fn circuit(&self) -> Option<CircuitStatus> {
        self.vercel.0.client.circuit(&self.project.project_id)
    }

    fn restore_circuit(&self, shown: &CircuitStatus) {
        self.vercel.0.restore_circuit(&self.project.project_id, &self.project.access, shown);
    }
}

#[async_trait]
impl DeployApi for VercelTarget<'_> {
    async fn preflight(&self, namespace: &str, plan: &ActionPlan) -> Result<(), ActError> {
        let read = async {
            let account = self.account(namespace).await?;
            let id = account.id;
            if self.project(&account).await?.paused {
                return Ok(Some(format!("{id} is paused; resume it in Vercel's dashboard")));
            }
            let Some(to) = plan.intent.template().map(|to| &to.hash) else { return Ok(None) };
            Ok((!self.is_candidate(&account, to).await?).then(|| {
                format!(
                    "Vercel does not roll {id} back to deployment {to}: it is deleted, did not serve production, or the plan allows the one before alone"
                )
            }))
        };
        refused(read.await)
    }

    async fn before(&self, namespace: &str) -> Result<Before, HostedError> {
        let project = self.project(&self.account(namespace).await?).await?;
        // Vercel puts no new deployment live after a rollback: there is no auto-deploy to switch off.
        let (live, newest_deploy) =
            (state::live(&project).map(|live| live.id.clone()), state::requested_at_last(&project));
        Ok(Before { live, newest_deploy, ..Before::default() })
    }

    async fn send(&self, namespace: &str, desired: &Desired) -> Result<(Option<String>, u16), HostedError> {
        let (account, to) = (self.account(namespace).await?, &desired.state().hash);
        let (what, query) = (format!("roll {} back to {to}", account.id), self.team());
        let path = ["v1", "projects", account.id, "rollback", to];
        let quotas = [Quota::new("rollback", ROLLBACKS, PER)];
        let call = account.write(Method::POST, &what, &path, &quotas, Repeat::IfNotDone);
        let call = Call { query: &query, json: Some(&json!({})), ..call };
        let answer = self.vercel.0.client.send(&account.key, &call).await?;
        Ok((Some(to.clone()), answer.status))
    }

    async fn deploy_state(
        &self,
        namespace: &str,
        desired: &Desired,
        sent: &ProviderProgress,
    ) -> Result<DeployState, HostedError> {
        let project = self.project(&self.account(namespace).await?).await?;
        Ok(state::rolled_back(&project, &desired.state().hash, sent.newest_before.as_deref()))
    }
}
