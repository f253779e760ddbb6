//! Requests to metrics.k8s.io. The log reports each kind of failure once.

use parking_lot::Mutex;
use std::{collections::BTreeSet, time::Duration};

use futures::AsyncReadExt as _;
use jiff::Timestamp;
use kube::{Client, api::ListParams, core::Request};
use serde::Deserialize;
use tokio::time::timeout;

use crate::targets::kubernetes::act_error::words;

const API: &str = "/apis/metrics.k8s.io/v1beta1";
/// For the response. metrics-server has its samples in memory: a slower one is overloaded.
const CALL_LIMIT: Duration = Duration::from_secs(2);
/// The longest response that is read, in bytes: metrics-server has no pages. A pod of two containers is about 600 bytes with
/// its labels.
const MAX_ANSWER: u64 = 32 * 1024 * 1024;

/// The needed fields of a list of PodMetrics. Memory is the working set, CPU the mean over the window.
#[derive(Deserialize)]
struct PodMetricsList {
    items: Vec<PodMetrics>,
}

#[derive(Deserialize)]
pub(super) struct PodMetrics {
    pub metadata: Named,
    /// Of the newest measurement.
    pub timestamp: Timestamp,
    /// A duration of Go: `15.23s`.
    #[serde(default)]
    pub window: String,
    pub containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
pub(super) struct Named {
    pub name: String,
}

#[derive(Deserialize)]
pub(super) struct ContainerMetrics {
    pub name: String,
    pub usage: Quantities,
}

#[derive(Deserialize)]
pub(super) struct Quantities {
    pub cpu: Option<String>,
    pub memory: Option<String>,
}

/// Why there is no sample.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub(super) enum Trouble {
    #[error("metrics.k8s.io is not installed")]
    Absent,
    #[error("not allowed to list pods of metrics.k8s.io: {0}")]
    Forbidden(String),
    /// Registered, but its backend does not respond.
    #[error("metrics.k8s.io fails: {0}")]
    Down(String),
    /// The request hangs, or the response for this namespace is too slow.
    #[error("metrics.k8s.io does not respond within {} s", CALL_LIMIT.as_secs())]
    Silent,
    /// Not PodMetrics, or too long.
    #[error("the response of metrics.k8s.io cannot be used: {0}")]
    Unusable(String),
}

impl Trouble {
    /// The source does not recover without action.
    pub(super) fn lasts(&self) -> bool {
        matches!(self, Self::Absent | Self::Forbidden(_))
    }

    /// The same in any namespace.
    pub(super) fn is_everywhere(&self) -> bool {
        matches!(self, Self::Absent | Self::Down(_))
    }
}

pub(super) struct Source {
    client: Client,
    /// Names of the kinds of trouble in the log: Absent and Down until the next success, others once for all namespaces.
    reported: Mutex<BTreeSet<&'static str>>,
}

impl Source {
    pub(super) fn new(client: Client) -> Self {
        Self { client, reported: Mutex::default() }
    }

    /// All PodMetrics of a namespace. Takes [`CALL_LIMIT`] at most.
    pub(super) async fn pods(&self, namespace: &str) -> Result<Vec<PodMetrics>, Trouble> {
        let answer = timeout(CALL_LIMIT, self.request(namespace)).await.unwrap_or(Err(Trouble::Silent));
        self.report(namespace, answer.as_ref().err());
        answer
    }

    async fn request(&self, namespace: &str) -> Result<Vec<PodMetrics>, Trouble> {
        let down = |why: &dyn std::fmt::Display| Trouble::Down(why.to_string());
        let request = Request::new(format!("{API}/namespaces/{namespace}/pods")).list(&ListParams::default());
        let request = request.map_err(|why| down(&why))?;
        let body = self.client.request_stream(request).await.map_err(|why| match &why {
            kube::Error::Api(status) if status.code == 404 => Trouble::Absent,
            kube::Error::Api(status) if status.code == 403 => Trouble::Forbidden(status.message.clone()),
            why => down(&words(why)),
        })?;
        let mut answer = Vec::new();
        let read = body.take(MAX_ANSWER + 1).read_to_end(&mut answer).await.map_err(|why| down(&why))?;
        if read as u64 > MAX_ANSWER {
            return Err(Trouble::Unusable(format!("longer than {} MiB", MAX_ANSWER >> 20)));
        }
        let list: PodMetricsList = serde_json::from_slice(&answer).map_err(|why| Trouble::Unusable(why.to_string()))?;
        Ok(list.items)
    }

    fn report(&self, namespace: &str, trouble: Option<&Trouble>) {
        const UNTIL_THEN: &str = "cpu_usage and memory_usage come only from the policies' own metrics";
        let mut reported = self.reported.lock();
        let Some(trouble) = trouble else {
            if reported.remove("Absent") | reported.remove("Down") {
                tracing::info!("metrics.k8s.io responds: measuring CPU and memory where policies do not");
            }
            return;
        };
        if reported.insert(trouble.into()) {
            match trouble {
                // A cluster without metrics-server is a decision of its owner.
                Trouble::Absent => tracing::info!("{trouble}; {UNTIL_THEN}"),
                _ => tracing::warn!(namespace, "{trouble}; until it responds, {UNTIL_THEN}"),
            }
        }
    }
}
