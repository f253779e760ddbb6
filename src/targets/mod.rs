//! One folder per target, each with observation and actions. They return data and outcomes; only `plan` decides.
//!
//! [`Targets::observe`] never fails: a value that could not be measured is `Unknown` with the reason, and one slow source
//! delays an observation at most by its own time limit. Actions: [`Targets::executor`].

pub mod custom;
pub mod executor;
mod fetch;
pub mod http;
pub mod kubernetes;
mod past;
mod placeholders;
pub mod postgres;
pub mod prometheus;
pub mod providers;
mod target;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::join_all, stream};
use jiff::Timestamp;
use kube::Client;
use tokio::sync::Semaphore;
use url::Url;

use crate::{
    analyze::observation::{Measured, Observation, Reading, TargetState, UnknownReason, Unmeasured},
    api::{CircuitStatus, MetricQuery, OFFERED, RemediationReason, ValidComponent, ValidPolicy, ValidTarget},
};
use custom::{hook::Hooks, mcp::Mcp};
use executor::{Executor, Order};
use http::{Http, HttpTarget};
use kubernetes::{ClusterIndex, Kubernetes, Usage, Whose, WorkloadTarget};
use postgres::{DatabaseTarget, Postgres};
use prometheus::Prometheus;
use providers::{
    Hosting, HostingConfig,
    github::GithubTarget,
    render::{RenderPostgresTarget, RenderServiceTarget},
    vercel::VercelTarget,
};
pub use target::{NoExecutor, Target, Unfinished};

/// For one metric. A new release is observed every second: a slower source is of no use then.
pub const METRIC_LIMIT: Duration = Duration::from_secs(3);
/// Pods whose metrics are queried at the same time.
const PODS_AT_ONCE: usize = 8;

/// All targets. One for the whole operator.
pub struct Targets {
    /// The actions on workloads.
    pub kubernetes: Kubernetes,
    /// Providers that host services; none before [`Self::with_hosting`].
    hosting: Option<Hosting>,
    index: Arc<ClusterIndex>,
    usage: Usage,
    prometheus: Prometheus,
    http: Http,
    pub postgres: Postgres,
    /// Hooks and webhooks.
    pub hooks: Hooks,
    /// Tools of MCP servers.
    pub mcp: Mcp,
    /// Limits the queries for the past.
    pasts: Semaphore,
}

impl Targets {
    /// `prometheus_url` is the server of metrics that name none. The process must have installed a rustls crypto provider
    /// (`rustls::crypto::aws_lc_rs::default_provider().install_default()`) before.
    pub fn new(client: Client, index: Arc<ClusterIndex>, prometheus_url: Option<Url>) -> Self {
        let kubernetes = Kubernetes::new(client.clone()).with_key(index.digest_key());
        Self {
            postgres: Postgres::new(kubernetes.clone()),
            kubernetes,
            hosting: None,
            usage: Usage::new(client),
            index,
            prometheus: Prometheus::new(prometheus_url),
            http: Http::default(),
            hooks: Hooks::default(),
            mcp: Mcp::default(),
            pasts: Semaphore::new(past::AT_ONCE),
        }
    }

    /// The same, with access to the providers' APIs.
    pub fn with_hosting(self, config: HostingConfig) -> Self {
        let hosting = Some(Hosting::new(config, &self.kubernetes));
        Self { hosting, ..self }
    }

    /// The registry. Fails when the API of the target's provider is not configured.
    pub fn target<'a>(&'a self, target: &'a ValidTarget) -> Result<Box<dyn Target<'a> + 'a>, Unmeasured> {
        let why = || Unmeasured::new(UnknownReason::NotConfigured, "the provider's API is not configured");
        let hosting = || self.hosting.as_ref().ok_or_else(why);
        Ok(match target {
            ValidTarget::Workload { kind, name } => {
                Box::new(WorkloadTarget { kind: *kind, name, index: &self.index, kubernetes: &self.kubernetes })
            }
            ValidTarget::Render(service) => Box::new(RenderServiceTarget { render: &hosting()?.render, service }),
            ValidTarget::RenderPostgres(postgres) => {
                Box::new(RenderPostgresTarget { render: &hosting()?.render, postgres })
            }
            ValidTarget::Vercel(project) => Box::new(VercelTarget { vercel: &hosting()?.vercel, project }),
            ValidTarget::Github(environment) => Box::new(GithubTarget { github: &hosting()?.github, environment }),
            ValidTarget::Postgres(database) => Box::new(DatabaseTarget { postgres: &self.postgres, database }),
            ValidTarget::Http(check) => Box::new(HttpTarget { http: &self.http, check }),
        })
    }

    /// The executor of an action. `kubernetes` has permission to write objects that are suspended for the action. Fails when
    /// the policy names another target now, or the target does not support the intent.
    pub fn executor<'a>(
        &'a self,
        order: Order<'a>,
        policy: Option<&'a ValidPolicy>,
        kubernetes: Kubernetes,
    ) -> Result<Box<dyn Executor + 'a>, NoExecutor> {
        let plan = order.plan;
        if let Some(executor) = custom::executor(self, order) {
            return Ok(executor);
        }
        let none = |reason, message: String| NoExecutor { reason, message };
        let component = policy.and_then(|policy| policy.component(&plan.component));
        let named = component.map(|component| component.target.acted_on(plan.action, &component.name));
        if named.as_ref().is_some_and(|named| *named != plan.target) {
            return Err(none(RemediationReason::TargetChanged, "the component has another target now".to_owned()));
        }
        // The name is enough for a workload, also after the policy was deleted.
        if let Some(executor) = kubernetes::executor(self, order, policy, kubernetes) {
            return Ok(executor);
        }
        let Some(component) = component else {
            let message = "the policy no longer names the component".to_owned();
            return Err(none(RemediationReason::ComponentGone, message));
        };
        let target = self.target(&component.target).map_err(|why| none(why.reason.into(), why.message))?;
        target.executor(order).ok_or_else(|| {
            let message = format!("{} is not supported by {}", plan.action, component.target.describe());
            none(RemediationReason::NoTarget, message)
        })
    }

    /// Starts no further call to a hook, webhook or tool, and waits up to `limit` until every call has ended and its answer
    /// was read; whether that is so.
    pub async fn drain(&self, limit: Duration) -> bool {
        let (hooks, mcp) = tokio::join!(self.hooks.drain(limit), self.mcp.drain(limit));
        hooks && mcp
    }

    /// See [`Target::circuit`].
    pub fn circuit(&self, target: &ValidTarget) -> Option<CircuitStatus> {
        self.target(target).ok()?.circuit()
    }

    /// See [`Target::restore_circuit`].
    pub fn restore_circuit(&self, target: &ValidTarget, shown: &CircuitStatus) {
        if let Ok(target) = self.target(target) {
            target.restore_circuit(shown);
        }
    }

    /// One observation of a component: its target and all its metrics, at the same time.
    ///
    /// Takes at most [`METRIC_LIMIT`], or the limit of an http check (10 s at most), or 8 s for a database, or 9 s for a
    /// hosted service. With `release_watch`, `$(pods)` in a query means only the pods of the newest template where their
    /// names are distinguishable, and such readings are marked (`of_release`).
    pub async fn observe(&self, namespace: &str, component: &ValidComponent, release_watch: bool) -> Observation {
        let metrics = join_all(component.metrics.iter().map(|metric| async move {
            (metric.name.clone(), self.read(namespace, component, metric, release_watch).await)
        }));
        let (target, metrics, usage) = tokio::join!(
            self.observe_target(namespace, component),
            metrics,
            self.usage(namespace, component, release_watch)
        );
        let Observed { at, target, metrics: own } = target;
        let mut metrics: BTreeMap<_, _> = metrics.into_iter().collect();
        for (metric, reading) in own.into_iter().chain(usage) {
            // A metric of the policy has precedence, also while it is unknown.
            metrics.entry(metric.to_owned()).or_insert(reading);
        }
        Observation { at, target, metrics }
    }

    /// The values of a metric for single pods, in the order of `pods`; none when its query does not distinguish pods.
    ///
    /// Takes at most [`METRIC_LIMIT`] for each eight pods.
    pub async fn of_pods(
        &self,
        namespace: &str,
        component: &ValidComponent,
        metric: &str,
        pods: &[String],
    ) -> Option<Vec<Measured<f64>>> {
        let Some(metric) = component.metrics.iter().find(|own| own.name == metric) else {
            let whose = whose(namespace, component, false)?;
            return self.usage.of_pods(&self.index, whose, metric, pods, Timestamp::now()).await;
        };
        let query = |pod: &String| placeholders::expand_for_pod(&metric.query, namespace, component, pod);
        let queries = pods.iter().map(query).collect::<Option<Vec<String>>>()?;
        let ask = |query: String| async move { self.prometheus.query(&query, metric.url.as_ref(), METRIC_LIMIT).await };
        Some(stream::iter(queries).map(ask).buffered(PODS_AT_ONCE).collect().await)
    }

    /// See [`ClusterIndex::unpulled_images`].
    pub fn unpulled_images(&self, namespace: &str) -> BTreeMap<String, String> {
        self.index.unpulled_images(namespace)
    }

    /// Metrics that the policy does not define.
    async fn usage(
        &self,
        namespace: &str,
        component: &ValidComponent,
        release_watch: bool,
    ) -> Vec<(&'static str, Reading)> {
        let measured = |name: &str| component.metrics.iter().any(|metric| metric.name == name);
        match whose(namespace, component, release_watch) {
            Some(whose) if !OFFERED.into_iter().all(measured) => {
                self.usage.read(&self.index, whose, Timestamp::now()).await
            }
            _ => Vec::new(),
        }
    }

    async fn observe_target(&self, namespace: &str, component: &ValidComponent) -> Observed<TargetState> {
        let mut seen = match self.target(&component.target) {
            Ok(target) => target.observe(namespace).await,
            Err(why) => Observed { at: Timestamp::now(), target: Measured::Unknown(why), metrics: Vec::new() },
        };
        // A metric without a threshold that could not be read does not matter to the component.
        seen.metrics.retain(|(name, reading)| {
            matches!(reading.value, Measured::Known(_)) || component.thresholds.contains_key(*name)
        });
        seen
    }

    async fn read(
        &self,
        namespace: &str,
        component: &ValidComponent,
        metric: &MetricQuery,
        release_watch: bool,
    ) -> Reading {
        match placeholders::expand(&metric.query, namespace, component, &self.index, release_watch) {
            Ok(expanded) => Reading::new(
                self.prometheus.query(&expanded.query, metric.url.as_ref(), METRIC_LIMIT).await,
                expanded.of_release,
            ),
            Err(why) => Reading::new(Measured::Unknown(why), false),
        }
    }
}

/// One observation of a target alone.
#[derive(Debug, Clone)]
pub struct Observed<T> {
    pub at: Timestamp,
    pub target: Measured<T>,
    /// Metrics that the target provides: with data, or the reason why they could not be read.
    pub metrics: Vec<(&'static str, Reading)>,
}

impl<T> Observed<T> {
    fn map<U>(self, with: impl FnOnce(T) -> U) -> Observed<U> {
        Observed { at: self.at, target: self.target.map(with), metrics: self.metrics }
    }
}

/// None for a target without containers.
fn whose<'a>(namespace: &'a str, component: &'a ValidComponent, of_release: bool) -> Option<Whose<'a>> {
    component.target.workload().map(|(kind, name)| Whose { kind, namespace, name, of_release })
}

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;
