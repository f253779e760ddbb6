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
mod usage;
mod wire;

use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp, Unit};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use database::RenderPostgresTarget;

use crate::{
    analyze::{
        observation::{Database, Hosted, TargetState},
        tracker::GoodState,
    },
    api::{CircuitStatus, Intent, RENDER_KIND, RenderService},
    targets::{
        Observed, Target,
        executor::{Executor, Order},
        kubernetes::{ActError, Kubernetes, SnapshotOf},
        providers::{
            account::{Account, KeyWords, ProviderApi},
            call::{Caller, ProviderWords},
            call_executor::CallExecutor,
            client::{Answer, Call, Manner, Quota, Repeat},
            common::{HostedError, ProviderConfig},
            deploy::{Deploy, DeployWords, Desired},
            deploy_executor::DeployExecutor,
            hosted_state,
            restart::Restart,
            scale::Scale,
        },
    },
};
use act::autoscaled;
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

pub(super) const WORDS: ProviderWords = ProviderWords {
    provider: RENDER_KIND,
    pages: "Render's dashboard",
    settles_within: SignedDuration::from_secs(30),
    auto_deploy_off: |trigger| {
        format!(
            "; auto-deploy stays off until you switch it on again: Settings → Auto-Deploy in Render's dashboard, or PATCH of the service with {{\"autoDeployTrigger\": {trigger:?}}}"
        )
    },
};

const DEPLOY_WORDS: DeployWords = DeployWords {
    provider: WORDS,
    // A rollback is not built again.
    limit: SignedDuration::from_mins(15),
    brings: |id, to| format!("deploy {id} of what {to} was"),
    others: "other deploys were made",
    left_behind: "",
};

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

/// A service that Render hosts.
#[derive(Clone, Copy)]
pub struct RenderServiceTarget<'a> {
    pub render: &'a Render,
    pub service: &'a RenderService,
}

#[async_trait]
impl<'a> Target<'a> for RenderServiceTarget<'a> {
    async fn observe(&self, namespace: &str) -> Observed<TargetState> {
        let key = self.key(namespace);
        self.render.services.observe(&key, self.hosted(namespace, &key)).await.map(hosted_state)
    }

    fn executor(&self, order: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        let (api, plan, id) = (*self, order.plan, &self.service.service_id);
        let caller = Caller::new(plan, id, WORDS);
        let desired = match &plan.intent {
            Intent::Restart {} => return Some(Box::new(CallExecutor { api, order, procedure: Restart { caller } })),
            Intent::Scale(scaling) => {
                let procedure = Scale { caller, scaling: *scaling, autoscaled: autoscaled(id) };
                return Some(Box::new(CallExecutor { api, order, procedure }));
            }
            Intent::Rollback { to } | Intent::RollbackState { to, .. } => Desired::Rollback(to.clone()),
            Intent::RollbackConfig { .. } => Desired::Redeploy(plan.release.clone()?),
            _ => return None,
        };
        Some(Box::new(DeployExecutor::new(api, order, Deploy::new(plan, id, DEPLOY_WORDS, desired))))
    }

    fn circuit(&self) -> Option<CircuitStatus> {
        self.render.api.client.circuit(&self.service.service_id)
    }

    fn restore_circuit(&self, shown: &CircuitStatus) {
        self.render.api.restore_circuit(&self.service.service_id, &self.service.access, shown);
    }

    async fn snapshot(&self, namespace: &str, of: SnapshotOf, good: &GoodState) -> Option<Result<(), ActError>> {
        Some(self.keep(namespace, of, good).await)
    }
}
