//! Usage of container limits, from metrics.k8s.io (metrics-server): CPU and memory without a metrics stack.
//!
//! **Limits only.** At its memory limit a container is killed, at its CPU limit it is throttled. Above its request nothing
//! happens: bursting is what requests are for. So a container without a limit has no percentage, and without any limit no
//! request is sent.
//!
//! **Optional.** No policy asked for this source. Where it is not installed, not allowed, or fails, the metric is left out,
//! which never makes a component Unknown: an unreachable metrics-server must not hide a healthy Deployment. The log reports
//! the failure once. A sample counts until it is [`STALE`], whatever the state of its source.
//!
//! **Cost.** One request per namespace in [`FRESH`], shared by all health checks in the namespace; only a few numbers of pods
//! with limits are stored. Where the source is not installed, one request in [`ABSENT_AGAIN`].

mod source;

use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    time::timeout,
};

use super::{
    ClusterIndex,
    quantity::{ContainerLimits, amount},
    workload::LimitedPod,
};
use crate::{
    analyze::{
        metric::CPU_USAGE,
        observation::{Measured, Reading, Sample, UnknownReason, Unmeasured},
    },
    api::{OFFERED, WorkloadKind},
};
use source::{PodMetrics, Quantities, Source};

/// A response is used for this time: metrics-server scrapes kubelets no more often.
const FRESH: SignedDuration = SignedDuration::from_secs(10);
/// An older sample does not count: twice metrics-server's default resolution of 60 s, and its own delay.
const STALE: SignedDuration = SignedDuration::from_secs(150);
/// The wait before the next request after a failure that lasts.
const ABSENT_AGAIN: SignedDuration = SignedDuration::from_mins(5);
/// The wait before the next request after another failure.
const FAILED_AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// For one query with its wait for others; shorter than the limit of a health check.
const LIMIT: Duration = Duration::from_millis(2500);
/// CPU counts only in windows that begin this long after the pod became ready: compilers and caches warm up at their limit,
/// and a good release must not be rolled back for that. (The HorizontalPodAutoscaler ignores samples before readiness,
/// `--horizontal-pod-autoscaler-cpu-initialization-period`; its mistakes cost a pod, not a release.)
const WARM_UP: SignedDuration = SignedDuration::from_secs(120);

/// The default of a window: metrics-server's default resolution.
const USUAL_WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// Usage of container limits. One for the whole operator.
pub struct Usage {
    source: Source,
    /// By namespace, queried lately.
    spaces: Mutex<HashMap<Box<str>, Arc<AsyncMutex<Space>>>>,
    /// The next request, in any namespace.
    again: Mutex<Option<Timestamp>>,
}

/// The samples of one namespace.
#[derive(Default)]
struct Space {
    /// The next request.
    again: Option<Timestamp>,
    queried: Option<Timestamp>,
    pods: HashMap<Box<str>, PodUsage>,
}

/// The fullest containers of a pod.
#[derive(Debug, PartialEq)]
struct PodUsage {
    at: Timestamp,
    /// When the window of the CPU began.
    began: Timestamp,
    cpu: Option<Share>,
    memory: Option<Share>,
}

/// The share of its limit that a container uses.
#[derive(Debug, PartialEq)]
struct Share {
    /// 0 to 100.
    percent: f64,
    container: Box<str>,
}

/// Which workload is queried, and whether only pods of its newest template count.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    pub kind: WorkloadKind,
    pub namespace: &'a str,
    pub name: &'a str,
    pub of_release: bool,
}

impl Usage {
    pub fn new(client: Client) -> Self {
        Self { source: Source::new(client), spaces: Mutex::default(), again: Mutex::default() }
    }

    /// `cpu_usage` and `memory_usage` of the workload's fullest containers, by name, in percent of their limits; without
    /// unknown ones. Takes [`LIMIT`] at most; sends no request where no container has a limit.
    pub async fn read(&self, index: &ClusterIndex, whose: Whose<'_>, now: Timestamp) -> Vec<(&'static str, Reading)> {
        let Whose { kind, namespace, name, of_release } = whose;
        let pods = index.limited_pods(kind, namespace, name, of_release, now);
        if pods.is_empty() {
            return Vec::new();
        }
        let Some(space) = self.refreshed(index, namespace, now).await else { return Vec::new() };
        let fullest = |metric| {
            let samples = pods.iter().filter_map(|pod| space.sample(metric, pod, now));
            let (share, sample) = samples.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
            Some((metric, Reading { value: Measured::Known(share), of_release, sample: Some(sample) }))
        };
        OFFERED.into_iter().filter_map(fullest).collect()
    }

    /// The usage of each of these pods of a workload, in percent, in their order; none when no pod was measured.
    pub async fn of_pods(
        &self,
        index: &ClusterIndex,
        whose: Whose<'_>,
        metric: &str,
        names: &[String],
        now: Timestamp,
    ) -> Option<Vec<Measured<f64>>> {
        let pods = index.limited_pods(whose.kind, whose.namespace, whose.name, whose.of_release, now);
        let space = self.refreshed(index, whose.namespace, now).await?;
        let of = |name: &String| {
            let pod = pods.iter().find(|pod| pod.name == *name)?;
            Some(space.sample(metric, pod, now)?.0)
        };
        let values: Vec<Option<f64>> = names.iter().map(of).collect();
        let measured = |value: Option<f64>| value.map_or_else(unmeasured, Measured::Known);
        values.iter().any(Option::is_some).then(|| values.into_iter().map(measured).collect())
    }

    /// The samples of the namespace. Forgets namespaces that are not queried any more.
    fn space(&self, namespace: &str, now: Timestamp) -> Arc<AsyncMutex<Space>> {
        let mut spaces = self.spaces.lock();
        if let Some(space) = spaces.get(namespace) {
            return space.clone();
        }
        // A locked one is being queried.
        spaces.retain(|_, space| space.try_lock().map_or(true, |space| !space.is_forgotten(now)));
        spaces.entry(namespace.into()).or_default().clone()
    }

    /// The current samples of the namespace; none after [`LIMIT`].
    async fn refreshed(&self, index: &ClusterIndex, namespace: &str, now: Timestamp) -> Option<OwnedMutexGuard<Space>> {
        let refreshed = async {
            let mut space = self.space(namespace, now).lock_owned().await;
            self.refresh(&mut space, index, namespace, now).await;
            space
        };
        timeout(LIMIT, refreshed).await.ok()
    }

    /// Sends a request, if one is due.
    async fn refresh(&self, space: &mut Space, index: &ClusterIndex, namespace: &str, now: Timestamp) {
        space.queried = Some(now);
        let waits = |again: Option<Timestamp>| again.is_some_and(|again| now < again);
        if waits(space.again) || waits(*self.again.lock()) {
            return;
        }
        match self.source.pods(namespace).await {
            Ok(pods) => {
                space.again = Some(now + FRESH);
                let limited = |pod: &PodMetrics| {
                    let limits = index.container_limits(namespace, &pod.metadata.name)?;
                    Some((pod.metadata.name.as_str().into(), PodUsage::of(pod, &limits)))
                };
                space.pods = pods.iter().filter_map(limited).collect();
            }
            Err(trouble) => {
                let again = Some(now + if trouble.lasts() { ABSENT_AGAIN } else { FAILED_AGAIN });
                space.again = again;
                if trouble.is_everywhere() {
                    *self.again.lock() = again;
                }
            }
        }
    }
}

impl Space {
    fn is_forgotten(&self, now: Timestamp) -> bool {
        self.queried.is_none_or(|at| now.duration_since(at) > STALE)
    }

    /// The share of the pod's fullest container, in percent, and the container.
    fn sample(&self, metric: &str, pod: &LimitedPod, now: Timestamp) -> Option<(f64, Sample)> {
        let usage = self.pods.get(&*pod.name)?;
        // A pod of a StatefulSet has the name of its predecessor.
        let of_another = pod.started.is_some_and(|started| usage.at < started);
        if of_another || now.duration_since(usage.at) > STALE {
            return None;
        }
        let share = if metric == CPU_USAGE {
            usage.cpu.as_ref().filter(|_| pod.ready_since.is_some_and(|since| usage.began >= since + WARM_UP))
        } else {
            usage.memory.as_ref()
        }?;
        let (pod, container) = (pod.name.clone(), share.container.to_string());
        Some((share.percent, Sample { of: format!("container {container} of pod {pod}"), at: usage.at }))
    }
}

impl PodUsage {
    fn of(pod: &PodMetrics, limits: &[ContainerLimits]) -> Self {
        let fullest = |used: fn(&Quantities) -> Option<&String>, limit: fn(&ContainerLimits) -> Option<f64>| {
            let shares = limits.iter().filter_map(|container| {
                let measured = pod.containers.iter().find(|measured| *measured.name == *container.name)?;
                let percent = 100.0 * amount(used(&measured.usage)?)? / limit(container)?;
                // Usage and limit are of different moments.
                Some(Share { percent: percent.min(100.0), container: container.name.clone() })
            });
            shares.max_by(|a, b| a.percent.total_cmp(&b.percent))
        };
        let window = pod.window.parse::<SignedDuration>().unwrap_or(USUAL_WINDOW);
        Self {
            at: pod.timestamp,
            began: pod.timestamp.saturating_sub(window).unwrap_or(Timestamp::MIN),
            cpu: fullest(|usage| usage.cpu.as_ref(), |limits| limits.cores),
            memory: fullest(|usage| usage.memory.as_ref(), |limits| limits.memory),
        }
    }
}

fn unmeasured() -> Measured<f64> {
    Measured::Unknown(Unmeasured::new(UnknownReason::NoData, "metrics.k8s.io has no sample of this pod"))
}

#[cfg(test)]
mod tests;
