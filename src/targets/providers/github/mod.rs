//! What is deployed to an environment of a repository, as GitHub's API tells (<https://docs.github.com/rest>): looked at, rolled
//! back.
//!
//! GitHub hosts nothing itself: a deployment is a record that somebody carries out, and its statuses tell how that went. The
//! newest that has ever succeeded serves, and is known by its commit, so that a rollback, which is a new deployment of an old
//! commit, is no new release. A rollback is a run of the team's own workflow, or a deployment for whatever carries these out.
//! Tokens are read by reference at the moment of use.

mod act;
mod observe;
pub mod spec;
mod state;
mod target;
mod wire;

pub use target::GithubTarget;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use reqwest::Method;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    super::kubernetes::Kubernetes,
    client::{Answer, ApiClient, Call, Manner, Quota, Repeat},
    common::{HostedError, KeyWords, ProviderConfig, READ_LIMIT, WRITE_LIMIT, breaker_limits, key_of, read_limits},
};
use crate::api::GithubEnvironment;

/// Where GitHub's API is. Of an Enterprise Server: `https://HOST/api/v3`.
pub const GITHUB_API: &str = "https://api.github.com";

/// Limits of the API (<https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api>): 5,000 calls an hour with a
/// token, of which those do not count that are answered with 304; and 900 points a minute, a read being one and a write
/// five. Writes are kept far below what GitHub allows.
const CALLS: (u32, Duration) = (5000, Duration::from_secs(3600));
const READS: (u32, Duration) = (800, Duration::from_secs(60));
const WRITES: (u32, Duration) = (20, Duration::from_secs(60));

/// GitHub refuses calls without a User-Agent, which every call of ours has; and a limit may come as 403.
const MANNER: Manner = Manner {
    accept: "application/vnd.github+json",
    headers: &[("x-github-api-version", "2022-11-28")],
    conditional: true,
    limited_for: Some(Duration::from_secs(60)),
};

const KEY: KeyWords =
    KeyWords { name: "GitHub token", field: "target.github.tokenSecretRef", variable: "GITHUB_TOKEN" };

/// Looks at environments and rolls them back. One for the whole operator.
pub struct Github {
    pub(super) cloud: ApiClient,
    /// Of targets that name none.
    key: Option<SecretString>,
    kubernetes: Kubernetes,
    /// Of deployments that have succeeded, by environment and id.
    commits: Mutex<HashMap<(String, u64), String>>,
}

/// An environment, the token to ask with, and until when.
struct Account<'a> {
    environment: &'a GithubEnvironment,
    token: SecretString,
    until: Instant,
}

impl Github {
    pub fn new(config: ProviderConfig, kubernetes: Kubernetes) -> Self {
        let ProviderConfig { base_url, key } = config;
        Self { cloud: ApiClient::with_manner(base_url, MANNER), key, kubernetes, commits: Mutex::default() }
    }

    async fn account<'a>(
        &self,
        namespace: &str,
        environment: &'a GithubEnvironment,
    ) -> Result<Account<'a>, HostedError> {
        let until = Instant::now() + READ_LIMIT;
        let whose = (namespace, environment.id.as_str());
        let token = key_of(&self.kubernetes, self.key.as_ref(), &KEY, whose, environment.access.key.as_ref()).await?;
        Ok(Account { environment, token, until })
    }

    /// Something of the repository's.
    async fn get<T: DeserializeOwned>(
        &self,
        account: &Account<'_>,
        what: &str,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, HostedError> {
        let (path, quotas) = (account.path(path), quotas("read", READS));
        let call = Call {
            what,
            method: Method::GET,
            path: &path,
            query,
            json: None,
            repeat: Repeat::Always,
            quotas: &quotas,
            breaker: &account.environment.id,
            breaker_limits: breaker_limits(&account.environment.access),
            time: read_limits(account.until),
        };
        Ok(self.cloud.read(&account.token, &call).await?)
    }

    /// A call that changes something.
    async fn post(
        &self,
        account: &Account<'_>,
        what: &str,
        path: &[&str],
        body: &Value,
    ) -> Result<Answer, HostedError> {
        let (path, quotas) = (account.path(path), quotas("write", WRITES));
        let call = Call {
            what,
            method: Method::POST,
            path: &path,
            query: &[],
            json: Some(body),
            repeat: Repeat::IfNotDone,
            quotas: &quotas,
            breaker: &account.environment.id,
            breaker_limits: breaker_limits(&account.environment.access),
            time: WRITE_LIMIT,
        };
        Ok(self.cloud.send(&account.token, &call).await?)
    }
}

impl Account<'_> {
    fn path<'b>(&'b self, below: &[&'b str]) -> Vec<&'b str> {
        let GithubEnvironment { owner, name, .. } = self.environment;
        [&["repos", owner.as_str(), name.as_str()], below].concat()
    }
}

/// Every call counts against the hour's limit, and against that of its kind.
fn quotas(kind: &str, (calls, per): (u32, Duration)) -> [Quota; 2] {
    let core = Quota { name: "core".to_owned(), calls: CALLS.0, per: CALLS.1, spares_unchanged: true };
    [core, Quota { name: kind.to_owned(), calls, per, spares_unchanged: false }]
}
