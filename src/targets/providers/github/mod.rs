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
mod target;
mod wire;

pub use target::GithubTarget;

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;

use super::{
    super::kubernetes::Kubernetes,
    account::{KeyWords, ProviderApi},
    client::Manner,
    common::ProviderConfig,
};

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
