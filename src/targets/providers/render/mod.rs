//! Services that Render hosts (<https://api-docs.render.com>): observed, restarted, scaled, rolled back in code and
//! configuration; and Render's Postgres.
//!
//! A service's deploys are its releases. A rollback makes a new deploy of the state of an older one, and is identified by the
//! older one ([`crate::analyze::observation::ReleaseId`]).

mod act;
mod batch;
mod database;
mod deploys;
mod memory;
mod observe;
pub mod spec;
mod state;
mod target;
mod usage;
mod wire;

use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp, Unit};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) use target::WORDS;
pub use {database::RenderPostgresTarget, target::RenderServiceTarget};

use super::{
    super::kubernetes::Kubernetes,
    account::{Account, KeyWords, ProviderApi},
    client::{Answer, Call, Manner, Quota, Repeat},
    common::{HostedError, ProviderConfig},
};
use crate::analyze::observation::{Database, Hosted};
use memory::Memory;
use wire::{Item, Series};

/// Where Render's API is.
pub const RENDER_API: &str = "https://api.render.com/v1";

/// Limits of the API (<https://api-docs.render.com/reference/rate-limiting>): reads and writes by key, calls that make deploys
/// by key and service.
const READS: u32 = 400;
const WRITES: u32 = 30;
const DEPLOYS: u32 = 10;
const PER: Duration = Duration::from_secs(60);
/// Metrics are read for this time until now, at their best resolution.
const METRICS_OVER: SignedDuration = SignedDuration::from_mins(3);
const RESOLUTION_S: &str = "30";
/// Services, and rollbacks, that are remembered.
const MANY: usize = 1024;

const KEY: KeyWords =
    KeyWords { name: "Render API key", field: "target.render.apiKeySecretRef", variable: "RENDER_API_KEY" };

/// Observes services and acts on them. One for the whole operator.
pub struct Render {
    api: ProviderApi,
    services: Memory<Hosted, observe::Rest>,
    databases: Memory<Database, database::Rest>,
    /// The targets of deploys that are rollbacks, by the deploys' ids.
    targets: Mutex<HashMap<String, String>>,
    fleets: batch::Fleets,
    /// The configuration of deploys, by service; the newest last.
    running: Mutex<HashMap<String, Vec<Arc<deploys::Running>>>>,
}

impl Render {
    pub fn new(config: ProviderConfig, kubernetes: &Kubernetes) -> Self {
        Self {
            api: ProviderApi::new(config, Manner::default(), KEY, kubernetes),
            services: Memory::default(),
            databases: Memory::default(),
            targets: Mutex::default(),
            fleets: batch::Fleets::default(),
            running: Mutex::default(),
        }
    }

    async fn get<T: DeserializeOwned>(
        &self,
        account: &Account<'_>,
        what: &str,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, HostedError> {
        let id = account.id;
        let breaker = if path.first() == Some(&"metrics") { format!("{id} metrics") } else { id.to_owned() };
        let quotas = [Quota::new("read", READS, PER)];
        let call = Call { breaker: &breaker, ..account.read(what, path, query, &quotas) };
        Ok(self.api.client.read(&account.key, &call).await?)
    }

    /// Reads pages of `limit` items until `enough`, at most `pages`; the items, and whether these are all.
    async fn list<T: DeserializeOwned>(
        &self,
        account: &Account<'_>,
        (what, path): (&str, &[&str]),
        (limit, pages): (usize, usize),
        enough: fn(&[T]) -> bool,
    ) -> Result<(Vec<T>, bool), HostedError> {
        let (mut all, mut cursor) = (Vec::new(), None);
        for _ in 0..pages {
            let mut query = vec![("limit", limit.to_string())];
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let mut page: Vec<Item<T>> = self.get(account, what, path, &query).await?;
            // A page that is not full may still not be the last one.
            cursor = page.last_mut().and_then(|item| item.cursor.take());
            all.extend(page.into_iter().map(|item| item.item));
            if cursor.is_none() || enough(&all) {
                break;
            }
        }
        Ok((all, cursor.is_none()))
    }

    /// A call that changes something. Not for every call it is documented against which limit it counts: a rollback and a
    /// deploy count against both here.
    async fn change(
        &self,
        account: &Account<'_>,
        method: Method,
        (what, path): (&str, &[&str]),
        json: Option<&Value>,
        repeat: Repeat,
    ) -> Result<Answer, HostedError> {
        let writes = Quota::new("write", WRITES, PER);
        let deploys = Quota::new(format!("deploy {}", account.id), DEPLOYS, PER);
        let quotas = match (&method, path.last()) {
            (&Method::PATCH, _) => vec![deploys],
            (&Method::POST, Some(&("rollback" | "deploys"))) => vec![writes, deploys],
            _ => vec![writes],
        };
        let call = Call { json, ..account.write(method, what, path, &quotas, repeat) };
        Ok(self.api.client.send(&account.key, &call).await?)
    }

    async fn metric(
        &self,
        account: &Account<'_>,
        metric: &str,
        resources: &[&str],
        more: Option<(&str, &str)>,
    ) -> Result<Vec<Series>, HostedError> {
        let second = |at: Timestamp| at.round(Unit::Second).unwrap_or(at).to_string();
        let now = Timestamp::now();
        let mut query: Vec<(&str, String)> = resources.iter().map(|id| ("resource", (*id).to_owned())).collect();
        query.extend([
            ("startTime", second(now - METRICS_OVER)),
            ("endTime", second(now)),
            ("resolutionSeconds", RESOLUTION_S.to_owned()),
        ]);
        query.extend(more.map(|(name, value)| (name, value.to_owned())));
        let what = match resources {
            [id] => format!("read {metric} of {id}"),
            many => format!("read {metric} of {} services", many.len()),
        };
        self.get(account, &what, &["metrics", metric], &query).await
    }
}
