//! Services that Render hosts (<https://api-docs.render.com>): looked at, restarted, rolled back, in what they run and in what
//! it runs with; and its Postgres.
//!
//! A service's deploys are its releases. A rollback makes a new deploy of what another one was, and is known by that one
//! ([`crate::analyze::observation::ReleaseId`]). Keys are read by reference at the moment of use.

mod act;
mod batch;
mod database;
mod env;
mod executors;
mod observe;
mod scale;
pub mod spec;
mod state;
mod target;
mod usage;
mod wire;

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::Method;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) use target::auto_deploy_left_off;
pub use target::{RenderPostgresTarget, RenderServiceTarget};

use super::{
    super::kubernetes::Kubernetes,
    client::{Answer, ApiClient, Call, Credential, Quota, Repeat},
    common::{HostedError, KeyWords, ProviderConfig, READ_LIMIT, WRITE_LIMIT, breaker_limits, key_of, read_limits},
};
use crate::api::{Access, RenderService};

/// Where Render's API is.
pub const RENDER_API: &str = "https://api.render.com/v1";

/// Limits of the API (<https://api-docs.render.com/reference/rate-limiting>): reads and writes by key, what makes deploys by
/// key and service.
const READS: u32 = 400;
const WRITES: u32 = 30;
const DEPLOYS: u32 = 10;
const PER: Duration = Duration::from_secs(60);

const KEY: KeyWords =
    KeyWords { name: "Render API key", field: "target.render.apiKeySecretRef", variable: "RENDER_API_KEY" };

/// Looks at services and acts on them. One for the whole operator.
pub struct Render {
    pub(super) cloud: ApiClient,
    /// Of targets that name none.
    key: Option<SecretString>,
    kubernetes: Kubernetes,
    seen: Mutex<HashMap<String, observe::Remembered>>,
    /// What deploys that are rollbacks went back to, by their ids.
    targets: Mutex<HashMap<String, String>>,
    fleets: batch::Fleets,
    /// What deploys run with, by service; the newest last.
    running: Mutex<HashMap<String, Vec<Arc<env::Running>>>>,
    databases: Mutex<HashMap<String, database::Remembered>>,
}

/// A service or a Postgres, and the key to ask with.
struct Account<'a> {
    id: &'a str,
    access: &'a Access,
    key: SecretString,
    /// All that are looked at with this key.
    fleet: Arc<batch::Fleet>,
}

impl Render {
    pub fn new(config: ProviderConfig, kubernetes: Kubernetes) -> Self {
        let ProviderConfig { base_url, key } = config;
        let cloud = ApiClient::new(base_url);
        Self {
            cloud,
            key,
            kubernetes,
            seen: Mutex::default(),
            targets: Mutex::default(),
            fleets: batch::Fleets::default(),
            running: Mutex::default(),
            databases: Mutex::default(),
        }
    }

    async fn account<'a>(&self, namespace: &str, service: &'a RenderService) -> Result<Account<'a>, HostedError> {
        self.account_of(namespace, &service.service_id, &service.access).await
    }

    /// The key of a service or a Postgres, read now.
    ///
    /// # Errors
    /// CredentialsMissing, Forbidden or KeyUnread, with the Secret's name.
    async fn account_of<'a>(
        &self,
        namespace: &str,
        id: &'a str,
        access: &'a Access,
    ) -> Result<Account<'a>, HostedError> {
        let key = key_of(&self.kubernetes, self.key.as_ref(), &KEY, (namespace, id), access.key.as_ref()).await?;
        let fleet = self.fleets.of(Credential::of(&key), Instant::now());
        Ok(Account { id, access, key, fleet })
    }

    /// Something of it, to be read within this time.
    async fn get<T: DeserializeOwned>(
        &self,
        account: &Account<'_>,
        what: &str,
        path: &[&str],
        query: &[(&str, String)],
        until: Instant,
    ) -> Result<T, HostedError> {
        let id = account.id;
        let breaker = if path.first() == Some(&"metrics") { format!("{id} metrics") } else { id.to_owned() };
        let quotas = [Quota { name: "read".into(), calls: READS, per: PER, spares_unchanged: false }];
        let call = Call {
            what,
            method: Method::GET,
            path,
            query,
            json: None,
            repeat: Repeat::Always,
            quotas: &quotas,
            breaker: &breaker,
            breaker_limits: breaker_limits(account.access),
            time: read_limits(until),
        };
        Ok(self.cloud.read(&account.key, &call).await?)
    }

    /// A call that changes something. What it counts against is not documented for each: a rollback and a deploy are taken for both.
    async fn change(
        &self,
        account: &Account<'_>,
        method: Method,
        (what, path): (&str, &[&str]),
        json: Option<&Value>,
        repeat: Repeat,
    ) -> Result<Answer, HostedError> {
        let id = account.id;
        let writes = Quota { name: "write".into(), calls: WRITES, per: PER, spares_unchanged: false };
        let deploys = Quota { name: format!("deploy {id}"), calls: DEPLOYS, per: PER, spares_unchanged: false };
        let quotas = match (&method, path.last()) {
            (&Method::PATCH, _) => vec![deploys],
            (&Method::POST, Some(&("rollback" | "deploys"))) => vec![writes, deploys],
            _ => vec![writes],
        };
        let call = Call {
            what,
            method,
            path,
            query: &[],
            json,
            repeat,
            quotas: &quotas,
            breaker: id,
            breaker_limits: breaker_limits(account.access),
            time: WRITE_LIMIT,
        };
        Ok(self.cloud.send(&account.key, &call).await?)
    }
}
