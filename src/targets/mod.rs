//! One room a platform, each offering `observe` and `act`. They return data and outcomes; only `plan` decides.
//!
//! [`Targets::observe`] never fails: what could not be measured is `Unknown` with the reason, and one slow source
//! delays a look by its own time limit and no more. Acting is [`kubernetes::Kubernetes`],
//! [`Target::executor`] and [`postgres::Postgres`].

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

/// For one metric. Looks come every second while a release is watched: a source that takes longer is of no use then.
pub const METRIC_LIMIT: Duration = Duration::from_secs(3);
/// Pods that are asked about at the same time.
const PODS_AT_ONCE: usize = 8;
/// The metric that an http target offers by itself, in milliseconds.
const LATENCY: &str = "latency_ms";

/// Everything that can be looked at and acted on. One for the whole operator.
pub struct Targets {
    /// The actions on workloads.
    pub kubernetes: Kubernetes,
    /// Providers that host services; none before [`Self::with_hosting`].
    hosting: Option<Hosting>,
    index: Arc<ClusterIndex>,
    usage: Usage,
    prometheus: Prometheus,
    http: Http,
    /// Databases.
    pub postgres: Postgres,
    /// The teams' own endpoints.
    pub hooks: Hooks,
    /// Tools of MCP servers.
    pub mcp: Mcp,
    /// Turns for asking for pasts.
    pasts: Semaphore,
}

impl Targets {
    /// `prometheus_url` is asked by metrics that name none of their own. The process needs a rustls crypto provider
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

    /// The same, with how the providers' APIs are reached.
    pub fn with_hosting(self, config: HostingConfig) -> Self {
        let hosting = Some(Hosting::new(config, &self.kubernetes));
        Self { hosting, ..self }
    }

    /// The registry: who reaches this target.
    ///
    /// # Errors
    /// When the API of the target's provider is not configured.
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

    /// Who carries an action out. `kubernetes` has leave to write what is suspended for the action.
    ///
    /// # Errors
    /// When the policy names another target now, or the target does not support the intent.
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
            let message = "the component has another target now".to_owned();
            return Err(none(RemediationReason::TargetChanged, message));
        }
        // A workload is known by its name alone, also when the policy is gone.
        if let Some(executor) = kubernetes::executor(self, order, policy, kubernetes) {
            return Ok(executor);
        }
        let Some(component) = component else {
            return Err(none(
                RemediationReason::ComponentGone,
                "the policy does not name the component any more".to_owned(),
            ));
        };
        let target = self.target(&component.target).map_err(|why| none(why.reason.into(), why.message))?;
        target.executor(order).ok_or_else(|| {
            let message = format!("{} is not supported by {}", plan.action, component.target.describe());
            none(RemediationReason::NoTarget, message)
        })
    }

    /// Starts no call to a hook, webhook or tool any more, and waits up to `limit` until those that run have ended and
    /// their answers were read; whether that is so.
    pub async fn drain(&self, limit: Duration) -> bool {
        let (hooks, mcp) = tokio::join!(self.hooks.drain(limit), self.mcp.drain(limit));
        hooks && mcp
    }

    /// The circuit breaker of a provider's API for this target, while it is not closed.
    pub fn circuit(&self, target: &ValidTarget) -> Option<CircuitStatus> {
        self.target(target).ok()?.circuit()
    }

    /// Takes up what an earlier operator process reported as [`Self::circuit`].
    pub fn restore_circuit(&self, target: &ValidTarget, shown: &CircuitStatus) {
        if let Ok(target) = self.target(target) {
            target.restore_circuit(shown);
        }
    }

    /// One look at a component: its target and all its metrics, at the same time.
    ///
    /// Takes at most [`METRIC_LIMIT`], or an http check's own limit (10 s at most), or 8 s for a database, or 9 s for what a provider hosts. With
    /// `release_watch`, `$(pods)` in a query means the pods of the newest template alone where names tell them, and such
    /// readings say so (`of_release`).
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
            // What the policy measures itself wins, also while that is unknown.
            metrics.entry(metric.to_owned()).or_insert(reading);
        }
        if let Measured::Known(TargetState::Http(state)) = &target
            && let Some(latency_ms) = state.latency_ms
        {
            let own = || Reading::new(Measured::Known(latency_ms), false);
            metrics.entry(LATENCY.to_owned()).or_insert_with(own);
        }
        Observation { at, target, metrics }
    }

    /// What a metric says of single pods, in the order of `pods`; none when its query does not tell them apart.
    ///
    /// Takes at most [`METRIC_LIMIT`] for each eight of them.
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

    /// What the policy does not measure itself.
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
        // What could not be read is nothing to the component when nothing is compared with it.
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

/// What one look at a target alone saw.
#[derive(Debug, Clone)]
pub struct Observed<T> {
    /// When it was made.
    pub at: Timestamp,
    pub target: Measured<T>,
    /// Metrics that it brings by itself: those that there is data for, and those that could not be read.
    pub metrics: Vec<(&'static str, Reading)>,
}

impl<T> Observed<T> {
    fn map<U>(self, with: impl FnOnce(T) -> U) -> Observed<U> {
        Observed { at: self.at, target: self.target.map(with), metrics: self.metrics }
    }
}

/// None for what has no containers.
fn whose<'a>(namespace: &'a str, component: &'a ValidComponent, of_release: bool) -> Option<Whose<'a>> {
    component.target.workload().map(|(kind, name)| Whose { kind, namespace, name, of_release })
}

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;
