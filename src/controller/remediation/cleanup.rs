//! Leaked memory is given back: by the component's own hook, or by new pods, one reconciliation a pod.
//!
//! Expected flow of new pods: choose and store which → evict one → wait for its replacement → … → verify.
//! Guarantees: which pods are recycled is in etcd before the first one is; after a crash the rest of them are, and no
//! others; a hook may be called twice then, with the same `Idempotency-Key`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt as _, runtime::controller::Action};

use super::{EXECUTE_LIMIT, RECHECK, Step, with_component, workload};
use crate::{
    analyze::observation::Measured,
    api::{CleanupStatus, Hook, LeakingPod, MemoryGrowth, Phase, RemediationStatus, ValidPolicy, milliseconds},
    controller::{Error, events::Reason, policy::retry_delay, revalidate::withdrawn},
    targets::kubernetes::{ActError, Recycled, Waits},
};

/// Pods that one action recycles at most: what one list of the API server holds.
const MAX_PODS: usize = 500;
/// Pods named in a message.
const NAMED: usize = 5;
/// Between an eviction and the first look at what came of it.
const SOON: Duration = Duration::from_millis(100);
/// How long one eviction is waited for, and its replacement to be ready.
const PATIENCE: SignedDuration = EXECUTE_LIMIT;

impl Step<'_> {
    pub(super) async fn clean(&self, status: RemediationStatus, policy: Option<&ValidPolicy>) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        let Some(growth) = &spec.memory else {
            let message = "the remediation does not say which memory is to be cleaned up";
            return self.finish(status, Phase::Failed, "NoTarget", message).await;
        };
        match (&spec.hook, policy) {
            (Some(hook), _) => self.call(status, hook, policy).await,
            (None, policy) => self.recycle(status, growth, policy).await,
        }
    }

    async fn call(
        &self,
        mut status: RemediationStatus,
        hook: &Hook,
        policy: Option<&ValidPolicy>,
    ) -> Result<Action, Error> {
        if let Some((reason, why)) = withdrawn(&self.remediation.spec, policy) {
            let message = format!("{why}; the hook may have been called before");
            return self.finish(status, Phase::Failed, reason, &message).await;
        }
        let key = self.remediation.uid().unwrap_or_default();
        match self.ctx.targets.hooks.call(hook, &key).await {
            Ok(answer) => {
                status.cleanup = Some(CleanupStatus {
                    objects_collected: answer.objects_collected,
                    memory_freed_mb: answer.memory_freed_mb,
                    ..CleanupStatus::default()
                });
                let message = "the hook did its cleanup; watching whether it helps".to_owned();
                self.executed(status, "Executed", message).await
            }
            Err(error) => self.finish(status, Phase::Failed, error.reason(), &error.to_string()).await,
        }
    }

    async fn recycle(
        &self,
        mut status: RemediationStatus,
        growth: &MemoryGrowth,
        policy: Option<&ValidPolicy>,
    ) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        let namespace = self.remediation.namespace().unwrap_or_default();
        let kubernetes = &self.ctx.targets.kubernetes;
        let target = match workload(&namespace, spec) {
            Ok(target) => target,
            Err(error) => return self.finish(status, Phase::Failed, error.reason(), &error.to_string()).await,
        };
        let begun = status.started_at.unwrap_or(spec.decided_at);
        let Some(mut cleanup) = status.cleanup.clone() else {
            let chosen = match withdrawn(spec, policy) {
                None => self.choose(&namespace, growth, policy).await,
                Some((reason, why)) => {
                    return self.finish(status, Phase::Expired, reason, &format!("{why}; nothing was done")).await;
                }
            };
            return match chosen {
                Ok(pods) => self.store_plan(status, pods).await,
                Err(error) => self.not_done(status, error, begun).await,
            };
        };
        let all = cleanup.pods.len();
        if let Some((reason, why)) = withdrawn(spec, policy) {
            return match kubernetes.left_of(target, &cleanup.pods).await {
                Ok(left) if left == all => {
                    self.finish(status, Phase::Expired, reason, &format!("{why}; nothing was done")).await
                }
                Ok(left) => {
                    let message = format!("{why}; {} of {all} pods were recycled before", all - left);
                    self.finish(status, Phase::Ineffective, reason, &message).await
                }
                Err(error) => self.not_done(status, error, begun).await,
            };
        }
        let waited_from = cleanup.progressed_at.unwrap_or(begun);
        match kubernetes.recycle_one(target, spec.from.as_ref(), &cleanup.pods).await {
            Ok(Recycled::All) => {
                // What comes next is said of other processes.
                if let Some(memory) = self.ctx.memory.find(&namespace, &spec.policy) {
                    with_component(&memory, &spec.component, |entry| entry.history.replaced());
                }
                let pods = if all == 1 { "one pod was".to_owned() } else { format!("{all} pods were") };
                let message = format!("{pods} recycled; watching whether it helps");
                self.executed(status, "Executed", message).await
            }
            Ok(Recycled::One { pod, left }) => {
                cleanup.progressed_at = Some(milliseconds(Timestamp::now()));
                status.cleanup = Some(cleanup);
                status.message =
                    format!("pod {pod} was evicted, {} of {all}; the next one when it is replaced", all - left);
                self.write(&status, false).await?;
                self.ctx.events.about_step(self.remediation, Reason::Acting, &pod, &status.message).await;
                Ok(Action::requeue(SOON))
            }
            Ok(Recycled::Waits(_)) if Timestamp::now().duration_since(waited_from) < PATIENCE => {
                Ok(Action::requeue(RECHECK))
            }
            Ok(Recycled::Waits(waits)) => {
                let (reason, what) = match waits {
                    Waits::Pods(what) => ("PodsNotReady", what),
                    Waits::Budget(what) => ("DisruptionBudget", format!("a PodDisruptionBudget: {what}")),
                };
                let message = format!("waited for {PATIENCE:#} for {what}; the remaining pods were not touched");
                self.finish(status, Phase::Failed, reason, &message).await
            }
            Err(ActError::Superseded { expected, found }) if cleanup.progressed_at != status.started_at => {
                let message = format!(
                    "a newer release came while pods were being recycled ({expected} was judged, {found} runs); it was not touched"
                );
                self.finish(status, Phase::Ineffective, "Superseded", &message).await
            }
            Err(error) => self.not_done(status, error, waited_from).await,
        }
    }

    /// The pods that leak, the fullest first: those that hold as large a share of the fullest one's memory as would be a
    /// relief for the component as a whole. When the metric does not tell pods apart all of them, the oldest first.
    async fn choose(
        &self,
        namespace: &str,
        growth: &MemoryGrowth,
        policy: Option<&ValidPolicy>,
    ) -> Result<Vec<LeakingPod>, ActError> {
        let spec = &self.remediation.spec;
        let mut ready = self.ctx.targets.kubernetes.ready_pods(workload(namespace, spec)?, spec.from.as_ref()).await?;
        ready.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let component = policy.and_then(|policy| policy.component(&spec.component));
        let names: Vec<String> = ready.iter().map(|pod| pod.name_any()).collect();
        let values = match component {
            Some(component) => self.ctx.targets.of_pods(namespace, component, &growth.metric, &names).await,
            None => None,
        };
        let mut pods: Vec<LeakingPod> = ready
            .iter()
            .map(|pod| LeakingPod { name: pod.name_any(), uid: pod.uid().unwrap_or_default(), value: None })
            .collect();
        if let Some(values) = values {
            let mut why = None;
            for (pod, value) in pods.iter_mut().zip(values) {
                match value {
                    Measured::Known(value) => pod.value = Some(value),
                    Measured::Unknown(unknown) => why = Some(unknown),
                }
            }
            pods = leaking(pods, growth);
            if let (true, Some(why)) = (pods.is_empty(), why) {
                let message = format!("{} of no pod could be measured: {}", growth.metric, why.message);
                return Err(ActError::Unmeasured(message));
            }
        }
        pods.truncate(MAX_PODS);
        Ok(pods)
    }

    async fn store_plan(&self, mut status: RemediationStatus, pods: Vec<LeakingPod>) -> Result<Action, Error> {
        if pods.is_empty() {
            let message = "no pod is ready that could be recycled; nothing was done";
            return self.finish(status, Phase::Failed, "NoPods", message).await;
        }
        let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).take(NAMED).collect();
        let more = pods.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        status.message = format!("to be recycled one at a time: {}{more}", names.join(", "));
        let progressed_at = status.started_at;
        status.cleanup = Some(CleanupStatus { pods, progressed_at, ..CleanupStatus::default() });
        self.write(&status, false).await?;
        self.ctx.events.about_step(self.remediation, Reason::Acting, "plan", &status.message).await;
        Ok(Action::requeue(SOON))
    }

    pub(super) async fn not_done(
        &self,
        status: RemediationStatus,
        error: ActError,
        since: Timestamp,
    ) -> Result<Action, Error> {
        let (namespace, name) = (self.remediation.namespace().unwrap_or_default(), self.remediation.name_any());
        match error {
            ActError::Superseded { expected, found } => {
                let message =
                    format!("a newer release came first ({expected} was judged, {found} runs); it was not touched");
                self.finish(status, Phase::Expired, "Superseded", &message).await
            }
            error @ ActError::Rescaled { .. } => {
                self.finish(status, Phase::Expired, error.reason(), &error.to_string()).await
            }
            error if error.retryable() && Timestamp::now().duration_since(since) < EXECUTE_LIMIT => {
                let component = &self.remediation.spec.component;
                tracing::warn!(namespace, remediation = name, component, %error, "the action is not complete yet; trying again");
                Ok(Action::requeue(retry_delay(&name)))
            }
            error => self.finish(status, Phase::Failed, error.reason(), &error.to_string()).await,
        }
    }
}

/// Those that were measured and leak, the fullest first.
fn leaking(mut pods: Vec<LeakingPod>, growth: &MemoryGrowth) -> Vec<LeakingPod> {
    let share = (growth.relieved_at / growth.value).clamp(0.0, 1.0);
    let fullest = pods.iter().filter_map(|pod| pod.value).fold(f64::NEG_INFINITY, f64::max);
    pods.retain(|pod| pod.value.is_some_and(|value| value >= share * fullest));
    pods.sort_by(|a, b| b.value.unwrap_or_default().total_cmp(&a.value.unwrap_or_default()));
    pods
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(baseline: f64, value: f64) -> MemoryGrowth {
        MemoryGrowth {
            metric: "memory_usage".into(),
            baseline,
            value,
            relieved_at: f64::midpoint(baseline, value),
            leak: true,
            bytes_per_unit: None,
        }
    }

    fn chosen(growth: &MemoryGrowth, values: &[Option<f64>]) -> Vec<String> {
        let pod = |(n, value): (usize, &Option<f64>)| LeakingPod {
            name: format!("p{n}"),
            uid: format!("u{n}"),
            value: *value,
        };
        leaking(values.iter().enumerate().map(pod).collect(), growth).into_iter().map(|pod| pod.name).collect()
    }

    #[test]
    fn those_that_leak_are_recycled_the_fullest_first() {
        let of_fullest = growth(40.0, 90.0);
        assert_eq!(chosen(&of_fullest, &[Some(41.0), Some(70.0), Some(90.0)]), ["p2", "p1"]);
        assert_eq!(chosen(&of_fullest, &[Some(90.0), None, Some(90.0)]), ["p0", "p2"], "what is not measured stays");
        // The metric adds pods up, or takes their mean.
        assert_eq!(chosen(&growth(120.0, 270.0), &[Some(90.0), Some(90.0), Some(90.0)]), ["p0", "p1", "p2"]);
        assert_eq!(chosen(&growth(40.0, 60.0), &[Some(100.0), Some(40.0), Some(40.0)]), ["p0"]);
        assert_eq!(chosen(&of_fullest, &[None, None]), [""; 0]);
    }
}
