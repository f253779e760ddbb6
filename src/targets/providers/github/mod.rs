//! Deployments to an environment of a repository, as GitHub's API reports them (<https://docs.github.com/rest>): observed,
//! rolled back.
//!
//! GitHub hosts nothing itself: a deployment is a record that somebody carries out, and its statuses report the outcome. The
//! newest deployment that has ever succeeded serves, and is identified by its commit, so that a rollback, which is a new
//! deployment of an old commit, is no new release. A rollback is a run of the repository's workflow, or a deployment for the
//! tool that carries out deployments.

mod act;
mod observe;
pub mod spec;
mod state;
mod wire;

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    analyze::observation::TargetState,
    api::{CircuitStatus, GITHUB_KIND, GithubEnvironment, Intent},
    targets::{
        Observed, Target,
        executor::{Executor, Order},
        kubernetes::Kubernetes,
        providers::{
            account::{Account, KeyWords, ProviderApi},
            call::ProviderWords,
            client::{Answer, Call, Manner, Quota, Repeat},
            common::{HostedError, ProviderConfig, observed},
            deploy::{Deploy, DeployWords, Desired},
            deploy_executor::DeployExecutor,
            hosted_state,
        },
    },
};

use state::hosted;

/// Where GitHub's API is. Of an Enterprise Server: `https://HOST/api/v3`.
pub const GITHUB_API: &str = "https://api.github.com";

/// GitHub requires a User-Agent, which every call of the client has; and a limit may come as 403.
const MANNER: Manner = Manner {
    accept: "application/vnd.github+json",
    headers: &[("x-github-api-version", "2022-11-28")],
    conditional: true,
    limited_for: Some(Duration::from_secs(60)),
};

const KEY: KeyWords =
    KeyWords { name: "GitHub token", field: "target.github.tokenSecretRef", variable: "GITHUB_TOKEN" };

/// Limits of the API (<https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api>): 5,000 calls an hour
/// with a token, of which responses 304 do not count; and 900 points a minute, a read being one and a write five. Writes are
/// kept far below what GitHub allows.
const CALLS: (u32, Duration) = (5000, Duration::from_secs(3600));
const READS: (u32, Duration) = (800, Duration::from_secs(60));
const WRITES: (u32, Duration) = (20, Duration::from_secs(60));

/// Of a rollback by a workflow.
const BY_WORKFLOW: DeployWords = DeployWords {
    provider: ProviderWords {
        provider: GITHUB_KIND,
        pages: "the repository's Actions",
        // GitHub promises no time within which a dispatch becomes a run.
        settles_within: SignedDuration::from_secs(90),
        auto_deploy_off: |_| String::new(),
    },
    // The commit may be built again, and wait for a runner and an approval.
    limit: SignedDuration::from_hours(1),
    brings: |id, to| format!("the commit of {to} (by run {id})"),
    others: "other runs of the workflow were started",
    left_behind: "; the next deployment may release the bad commit again: revert the commit, or hold deployments until it is fixed",
};

/// Of a rollback by a deployment.
const BY_DEPLOYMENT: DeployWords = DeployWords {
    provider: ProviderWords { pages: "the repository's Deployments", ..BY_WORKFLOW.provider },
    brings: |id, to| format!("the commit of {to} (by deployment {id})"),
    others: "other deployments were made",
    ..BY_WORKFLOW
};

/// Observes environments and rolls them back. One for the whole operator.
pub struct Github {
    api: ProviderApi,
    /// Of deployments that have succeeded, by environment and id.
    commits: Mutex<HashMap<(String, u64), String>>,
}

impl Github {
    pub fn new(config: ProviderConfig, kubernetes: &Kubernetes) -> Self {
        Self { api: ProviderApi::new(config, MANNER, KEY, kubernetes), commits: Mutex::default() }
    }
}

/// An environment of a GitHub repository.
#[derive(Clone, Copy)]
pub struct GithubTarget<'a> {
    pub github: &'a Github,
    pub environment: &'a GithubEnvironment,
}

impl<'a> GithubTarget<'a> {
    async fn account(&self, namespace: &str) -> Result<Account<'a>, HostedError> {
        self.github.api.account(namespace, &self.environment.id, &self.environment.access).await
    }

    /// Reads below the repository.
    async fn get<T: DeserializeOwned>(
        &self,
        account: &Account<'_>,
        what: &str,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, HostedError> {
        let (path, quotas) = (self.path(path), quotas("read", READS));
        Ok(self.github.api.client.read(&account.key, &account.read(what, &path, query, &quotas)).await?)
    }

    /// Changes something below the repository.
    async fn post(
        &self,
        account: &Account<'_>,
        what: &str,
        path: &[&str],
        body: &Value,
    ) -> Result<Answer, HostedError> {
        let (path, quotas) = (self.path(path), quotas("write", WRITES));
        let call = account.write(Method::POST, what, &path, &quotas, Repeat::IfNotDone);
        Ok(self.github.api.client.send(&account.key, &Call { json: Some(body), ..call }).await?)
    }

    fn path<'b>(&'b self, below: &[&'b str]) -> Vec<&'b str> {
        let GithubEnvironment { owner, name, .. } = self.environment;
        [&["repos", owner.as_str(), name.as_str()], below].concat()
    }
}

/// Every call counts against the hour's limit, and against that of its kind.
fn quotas(kind: &str, (calls, per): (u32, Duration)) -> [Quota; 2] {
    let core = Quota { spares_unchanged: true, ..Quota::new("core", CALLS.0, CALLS.1) };
    [core, Quota::new(kind, calls, per)]
}

#[async_trait]
impl<'a> Target<'a> for GithubTarget<'a> {
    async fn observe(&self, namespace: &str) -> Observed<TargetState> {
        let read = async { self.read(&self.account(namespace).await?).await };
        let read = read.await.map(|read| (hosted(&read, Timestamp::now()), Vec::new()));
        observed(read).map(hosted_state)
    }

    fn executor(&self, order: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        let Intent::Rollback { to } = &order.plan.intent else { return None };
        let words = if self.environment.workflow.is_some() { BY_WORKFLOW } else { BY_DEPLOYMENT };
        let procedure = Deploy::new(order.plan, &self.environment.id, words, Desired::Rollback(to.clone()));
        Some(Box::new(DeployExecutor::new(*self, order, procedure)))
    }

    fn circuit(&self) -> Option<CircuitStatus> {
        self.github.api.client.circuit(&self.environment.id)
    }

    fn restore_circuit(&self, shown: &CircuitStatus) {
        self.github.api.restore_circuit(&self.environment.id, &self.environment.access, shown);
    }
}
