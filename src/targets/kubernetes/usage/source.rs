//! Asks metrics.k8s.io, and says in the log what becomes of that: each trouble once.

use parking_lot::Mutex;
use std::time::Duration;

use futures::AsyncReadExt as _;
use jiff::Timestamp;
use kube::{Client, api::ListParams, core::Request};
use serde::Deserialize;
use tokio::time::timeout;

use crate::targets::kubernetes::act_error::words;

const API: &str = "/apis/metrics.k8s.io/v1beta1";
/// For the answer. metrics-server has its figures in memory: who takes longer is not well.
const CALL_LIMIT: Duration = Duration::from_secs(2);
/// The longest answer that is read, in bytes: metrics-server knows no pages. A pod of two containers is about 600 bytes
/// with its labels.
const MAX_ANSWER: u64 = 32 * 1024 * 1024;

/// Of a list of PodMetrics what is needed. Memory is the working set, CPU the mean over the window.
#[derive(Deserialize)]
struct PodMetricsList {
    items: Vec<PodMetrics>,
}

#[derive(Deserialize)]
pub(super) struct PodMetrics {
    pub metadata: Named,
    /// When the newest figure was measured.
    pub timestamp: Timestamp,
    /// As Go writes durations: `15.23s`.
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

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("metrics.k8s.io is not installed")]
    Absent,
    #[error("not allowed to list pods of metrics.k8s.io: {0}")]
    Forbidden(String),
    /// Registered, and its backend does not answer.
    #[error("metrics.k8s.io fails: {0}")]
    Down(String),
    /// It hangs, or has too much to say of this namespace.
    #[error("metrics.k8s.io gives no answer within {} s", CALL_LIMIT.as_secs())]
    Silent,
    /// Something else than PodMetrics, or too much.
    #[error("the answer of metrics.k8s.io cannot be used: {0}")]
    Unusable(String),
}

impl Trouble {
    /// It will not get better by itself.
    pub(super) fn lasts(&self) -> bool {
        matches!(self, Self::Absent | Self::Forbidden(_))
    }

    /// The same would be said of any namespace.
    pub(super) fn is_everywhere(&self) -> bool {
        matches!(self, Self::Absent | Self::Down(_))
    }
}

/// What the log was told: that it is away, since it last answered; what differs from namespace to namespace, once for
/// all.
#[derive(Default)]
struct Said {
    absent: bool,
    forbidden: bool,
    down: bool,
    silent: bool,
    unusable: bool,
}

pub(super) struct Source {
    client: Client,
    said: Mutex<Said>,
}

impl Source {
    pub(super) fn new(client: Client) -> Self {
        Self { client, said: Mutex::default() }
    }

    /// All PodMetrics of a namespace. Takes [`CALL_LIMIT`] at most.
    pub(super) async fn pods(&self, namespace: &str) -> Result<Vec<PodMetrics>, Trouble> {
        let answer = match timeout(CALL_LIMIT, self.ask(namespace)).await {
            Ok(answer) => answer,
            Err(_) => Err(Trouble::Silent),
        };
        self.say(namespace, answer.as_ref().err());
        answer
    }

    async fn ask(&self, namespace: &str) -> Result<Vec<PodMetrics>, Trouble> {
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
            return Err(Trouble::Unusable(format!("it is longer than {} MiB", MAX_ANSWER >> 20)));
        }
        let list: PodMetricsList = serde_json::from_slice(&answer).map_err(|why| Trouble::Unusable(why.to_string()))?;
        Ok(list.items)
    }

    fn say(&self, namespace: &str, trouble: Option<&Trouble>) {
        const MEANWHILE: &str = "cpu_usage and memory_usage come from the policies' own metrics alone";
        let mut said = self.said.lock();
        let told = match trouble {
            None => {
                if said.down || said.absent {
                    tracing::info!("metrics.k8s.io answers: it measures CPU and memory where policies do not");
                }
                (said.down, said.absent) = (false, false);
                return;
            }
            Some(Trouble::Absent) => &mut said.absent,
            Some(Trouble::Forbidden(_)) => &mut said.forbidden,
            Some(Trouble::Down(_)) => &mut said.down,
            Some(Trouble::Silent) => &mut said.silent,
            Some(Trouble::Unusable(_)) => &mut said.unusable,
        };
        if let (Some(trouble), false) = (trouble, std::mem::replace(told, true)) {
            match trouble {
                // A cluster without metrics-server is as its owner wants it.
                Trouble::Absent => tracing::info!("{trouble}; {MEANWHILE}"),
                _ => tracing::warn!(namespace, "{trouble}; until it answers {MEANWHILE}"),
            }
        }
    }
}
