//! CleanupMemory without a hook: the pods with the most memory are replaced one at a time, by eviction.
//!
//! Expected flow: choose and store the pods → evict one → wait for its replacement → … → done.
//! Guarantees: the list is stored before the first eviction, and no other pod is evicted. No pod is evicted while another
//! one is terminating, missing or not ready. An eviction names the pod's uid, so a repeated one is harmless.

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{ActError, Evicted, Kubernetes, PodsSeen, WorkloadRef, write::after_error};
use crate::{
    analyze::observation::Measured,
    api::{ActionKind, CleanupProgress, LeakingPod, MemoryGrowth, RemediationReason, ValidPolicy, milliseconds},
    plan::guard::Permit,
    targets::{
        Targets,
        executor::{EXECUTE_LIMIT, Effects, End, Moment, Note, Order, Procedure, Step},
    },
};

/// Pods of one action: as many as one list of the API server.
const MAX_PODS: usize = 500;
/// Pods named in a message.
const NAMED: usize = 5;
/// Between an eviction and the first observation of its replacement.
const SOON: Duration = Duration::from_millis(100);
/// Between two observations of a replacement.
const RECHECK: Duration = Duration::from_millis(500);
/// For one eviction, or one replacement.
const PATIENCE: SignedDuration = EXECUTE_LIMIT;

#[derive(Debug)]
pub struct Cleanup<'a> {
    pub growth: &'a MemoryGrowth,
}

/// What is read before a decision.
#[derive(Debug, Clone, PartialEq)]
pub enum CleanupSeen {
    /// No pod is chosen yet.
    Candidates(Result<Candidates, ActError>),
    /// The pods of the list.
    Pods(Result<PodsSeen, ActError>),
}

/// The ready pods, the oldest first, and the metric of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    pub pods: Vec<LeakingPod>,
    /// None: the metric has no value per pod.
    pub values: Option<Vec<Measured<f64>>>,
}

/// The one effect: evict this pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Evict(pub LeakingPod);

type Next = Step<CleanupProgress, Evict>;

impl Cleanup<'_> {
    /// The pods to replace, the fullest first: those with as large a share of the fullest pod's memory as would relieve the
    /// component. All pods, the oldest first, when the metric has no value per pod.
    fn choose(&self, candidates: &Candidates) -> Result<Vec<LeakingPod>, ActError> {
        let mut pods = candidates.pods.clone();
        if let Some(values) = &candidates.values {
            let mut why = None;
            for (pod, value) in pods.iter_mut().zip(values) {
                match value {
                    Measured::Known(value) => pod.value = Some(*value),
                    Measured::Unknown(unknown) => why = Some(unknown),
                }
            }
            pods = leaking(pods, self.growth);
            if let (true, Some(why)) = (pods.is_empty(), why) {
                let message = format!("{} could not be measured for any pod: {}", self.growth.metric, why.message);
                return Err(ActError::Unmeasured(message));
            }
        }
        pods.truncate(MAX_PODS);
        Ok(pods)
    }

    fn plan(&self, candidates: &Candidates, mut progress: CleanupProgress, moment: &Moment) -> Next {
        let pods = match self.choose(candidates) {
            Ok(pods) => pods,
            Err(error) => return after_error(&error, moment.since_start(), progress),
        };
        if pods.is_empty() {
            let message = "no pod is ready to be replaced; nothing was done";
            return Step::failed(progress, RemediationReason::NoPods, message);
        }
        let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).take(NAMED).collect();
        let more = pods.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message = format!("replacing pods one at a time: {}{more}", names.join(", "));
        progress.pods = pods;
        progress.progressed_at = Some(moment.started_at);
        Step::Wait { progress, after: SOON, note: Some(Note::acting("plan", message)) }
    }

    fn replace(pods: &PodsSeen, mut progress: CleanupProgress, moment: &Moment) -> Next {
        let (all, left) = (progress.pods.len(), pods.left.len());
        if let Some(withdrawn) = &moment.withdrawn {
            if left == all {
                return Step::expired(progress, withdrawn.reason, format!("{}; nothing was done", withdrawn.why));
            }
            let message = format!("{}; {} of {all} pods were replaced before", withdrawn.why, all - left);
            return Step::Ended { progress, end: End::Ineffective, reason: withdrawn.reason, message };
        }
        // Differs from the start since the first eviction was about to be sent.
        let evicting = progress.progressed_at.is_some_and(|at| at != moment.started_at);
        if let Some(superseded) = &pods.superseded {
            return match superseded {
                ActError::Superseded { expected, found } if evicting && left < all => {
                    let message = format!(
                        "a newer release appeared while pods were being replaced ({expected} was assessed, {found} runs); the newer release was not touched"
                    );
                    let reason = RemediationReason::Superseded;
                    Step::Ended { progress, end: End::Ineffective, reason, message }
                }
                error => after_error(error, since_progress(&progress, moment), progress),
            };
        }
        if let Some(missing) = &pods.missing {
            return wait(progress, RemediationReason::PodsNotReady, missing, moment);
        }
        let Some(pod) = progress.pods.iter().find(|pod| pods.left.contains(&pod.uid)).cloned() else {
            let pods = if all == 1 { "1 pod was".to_owned() } else { format!("{all} pods were") };
            let message = format!("{pods} replaced; watching whether it helps");
            return Step::Done { progress, reason: RemediationReason::Executed, message };
        };
        if !evicting {
            progress.progressed_at = Some(after_start(moment));
        }
        Step::Perform { progress, effect: Evict(pod), note: None }
    }
}

/// The pods that leak, the fullest first.
fn leaking(mut pods: Vec<LeakingPod>, growth: &MemoryGrowth) -> Vec<LeakingPod> {
    let share = (growth.relieved_at / growth.value).clamp(0.0, 1.0);
    let fullest = pods.iter().filter_map(|pod| pod.value).fold(f64::NEG_INFINITY, f64::max);
    pods.retain(|pod| pod.value.is_some_and(|value| value >= share * fullest));
    pods.sort_by(|a, b| b.value.unwrap_or_default().total_cmp(&a.value.unwrap_or_default()));
    pods
}

/// Now, but never the time of the start, which means that no pod was evicted.
fn after_start(moment: &Moment) -> Timestamp {
    let now = milliseconds(moment.now);
    if now == moment.started_at { now + SignedDuration::from_millis(1) } else { now }
}

fn since_progress(progress: &CleanupProgress, moment: &Moment) -> SignedDuration {
    moment.now.duration_since(progress.progressed_at.unwrap_or(moment.started_at))
}

/// Waits for `what`, until PATIENCE is over.
fn wait(progress: CleanupProgress, reason: RemediationReason, what: &str, moment: &Moment) -> Next {
    if since_progress(&progress, moment) < PATIENCE {
        return Step::wait(progress, RECHECK);
    }
    let message = format!("waited {PATIENCE:#} for {what}; the remaining pods were not touched");
    Step::failed(progress, reason, message)
}

impl Procedure for Cleanup<'_> {
    type Progress = CleanupProgress;
    type Seen = CleanupSeen;
    type Effect = Evict;
    type Answer = Result<Evicted, ActError>;

    fn next(&self, progress: &CleanupProgress, seen: &CleanupSeen, moment: &Moment) -> Next {
        let progress = progress.clone();
        match (seen, &moment.withdrawn) {
            (CleanupSeen::Pods(Ok(pods)), _) => Self::replace(pods, progress, moment),
            (CleanupSeen::Pods(Err(error)), _) => after_error(error, since_progress(&progress, moment), progress),
            (_, Some(withdrawn)) => {
                Step::expired(progress, withdrawn.reason, format!("{}; nothing was done", withdrawn.why))
            }
            (CleanupSeen::Candidates(Ok(candidates)), None) => self.plan(candidates, progress, moment),
            (CleanupSeen::Candidates(Err(error)), None) => after_error(error, moment.since_start(), progress),
        }
    }

    fn answered(
        &self,
        progress: &CleanupProgress,
        Evict(pod): &Evict,
        answer: &Result<Evicted, ActError>,
        moment: &Moment,
    ) -> Next {
        let mut progress = progress.clone();
        let name = &pod.name;
        match answer {
            Ok(Evicted::Yes) => {
                let number = progress.pods.iter().position(|one| one.uid == pod.uid).map_or(0, |index| index + 1);
                let all = progress.pods.len();
                let message =
                    format!("pod {name} was evicted, {number} of {all}; the next eviction follows its replacement");
                progress.progressed_at = Some(after_start(moment));
                Step::Wait { progress, after: SOON, note: Some(Note::acting(name, message)) }
            }
            Ok(Evicted::Gone) => {
                let what = format!("pod {name} to be gone");
                wait(progress, RemediationReason::PodsNotReady, &what, moment)
            }
            Ok(Evicted::No(budget)) => {
                let what = format!("a PodDisruptionBudget: {budget}");
                wait(progress, RemediationReason::DisruptionBudget, &what, moment)
            }
            Err(error) => after_error(error, since_progress(&progress, moment), progress),
        }
    }
}

pub struct CleanupExecutor<'a> {
    pub kubernetes: Kubernetes,
    pub workload: WorkloadRef<'a>,
    pub order: Order<'a>,
    pub targets: &'a Targets,
    pub policy: Option<&'a ValidPolicy>,
    pub growth: &'a MemoryGrowth,
}

impl CleanupExecutor<'_> {
    async fn candidates(&self) -> Result<Candidates, ActError> {
        let Order { namespace, plan, .. } = self.order;
        let mut ready = self.kubernetes.on(self.workload).ready_pods(plan.release.as_ref()).await?;
        ready.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let names: Vec<String> = ready.iter().map(|pod| pod.name_any()).collect();
        let values = match self.policy.and_then(|policy| policy.component(&plan.component)) {
            Some(component) => self.targets.of_pods(namespace, component, &self.growth.metric, &names).await,
            None => None,
        };
        let leaking = |pod: &Pod| LeakingPod { name: pod.name_any(), uid: pod.uid().unwrap_or_default(), value: None };
        Ok(Candidates { pods: ready.iter().map(leaking).collect(), values })
    }
}

#[async_trait]
impl<'a> Effects for CleanupExecutor<'a> {
    type Procedure = Cleanup<'a>;

    fn procedure(&self) -> Cleanup<'a> {
        Cleanup { growth: self.growth }
    }

    async fn preflight(&self) -> Result<(), ActError> {
        let ends = (self.order.plan.release.as_ref(), None);
        let workload = self.kubernetes.on(self.workload);
        workload.preflight(ActionKind::CleanupMemory, ends, None).await?;
        let unpulled = self.targets.unpulled_images(self.order.namespace);
        workload.preflight_images(None, &unpulled).await
    }

    async fn observe(&self, progress: &CleanupProgress, _: &Moment) -> CleanupSeen {
        if progress.pods.is_empty() {
            return CleanupSeen::Candidates(self.candidates().await);
        }
        let release = self.order.plan.release.as_ref();
        CleanupSeen::Pods(self.kubernetes.on(self.workload).pods_left(release, &progress.pods).await)
    }

    async fn perform(&self, Evict(pod): &Evict, _: &CleanupProgress, _: &Permit) -> Result<Evicted, ActError> {
        self.kubernetes.on(self.workload).evict_pod(pod).await
    }
}

#[cfg(test)]
mod tests;
