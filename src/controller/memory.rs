//! What the controllers remember between checks: windows, trackers, the last assessment. All of it can be lost: the
//! status, the Remediations and the ledger hold the essential parts.

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

use crate::{
    analyze::{
        assess::{Assessment, assess},
        forecast::Forecast,
        hindsight::Hindsight,
        observation::Observation,
        outlook::Outlook,
        tracker::Tracker,
        window::History,
    },
    api::{CircuitStatus, ForecastStatus, HealingPolicyStatus, Trend, ValidComponent, ValidPolicy, WorkloadKind},
    plan::guard::Refusal,
};

#[derive(Debug, Default)]
pub struct ComponentMemory {
    pub tracker: Tracker,
    pub history: History,
    pub last: Option<Check>,
    pub trend: Option<Trend>,
    pub forecast: Option<Forecast>,
    pub outlook: Outlook,
    /// The warnings whose outcome is not in the ledger yet.
    pub hindsight: Hindsight,
    /// The release's hash at the last complete rollout.
    pub process: Option<String>,
    pub refusal: Option<Refusal>,
    /// The circuit breaker of its provider's API after the last check.
    pub circuit: Option<CircuitStatus>,
    /// When the metrics' past is read into the history: at once by default, never again after that.
    pub backfill_due: Timestamp,
    /// When the metrics were last taken into the history.
    pub sampled: Option<Timestamp>,
    /// Checked in the next round, due or not.
    pub dirty: bool,
    /// When the next check is due; none: at once.
    pub due: Option<Timestamp>,
    /// When the next attempt at a snapshot of the good state is due.
    pub snapshot_due: Option<Timestamp>,
    /// When the next row of a check is due in the ledger.
    pub row_due: Option<Timestamp>,
    /// The message in the status, unchanged while only figures in it change: a figure alone is not worth a write.
    pub shown: Shown,
}

/// What the status shows, and what it was made from.
#[derive(Debug, Default)]
pub struct Shown {
    pub signature: String,
    pub message: String,
    pub forecast: Option<ForecastStatus>,
    /// The highest level that `FailureForeseen` reported since the level was last low.
    pub foreseen: Option<Foreseen>,
    /// Whether `CouldNotMeasure` was reported since the last successful measurement.
    pub blind: bool,
}

/// The level at which a forecast was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Foreseen {
    High,
    Critical,
    /// At least `prediction.minProbability` within `prediction.horizon`: a reason to act.
    Imminent,
}

#[derive(Debug, Clone)]
pub struct Check {
    pub observation: Observation,
    pub assessment: Assessment,
}

impl ComponentMemory {
    /// What the observation means, in the light of the history and the release.
    pub fn assess(&self, component: &ValidComponent, observation: &Observation) -> Assessment {
        let newest = observation.target.known().and_then(|target| target.released()).map(|released| released.id);
        assess(observation, &component.thresholds, &self.history, self.tracker.release_unproven(newest))
    }
}

/// One policy's memory.
#[derive(Debug, Default)]
pub struct PolicyMemory {
    pub uid: String,
    pub components: BTreeMap<String, ComponentMemory>,
    /// Restored from status and ledger.
    pub restored: bool,
    /// The newest valid spec.
    pub policy: Option<Arc<ValidPolicy>>,
    pub last_written: Option<HealingPolicyStatus>,
    /// When the next row of a cycle is due.
    pub cycle_due: Option<Timestamp>,
    /// Facts that were reported and are not repeated while they last: key → message.
    pub reported: BTreeMap<String, String>,
}

impl PolicyMemory {
    /// Forgets what the new policy no longer names: components, and metrics that it measures in another way.
    pub fn retain_components(&mut self, policy: &ValidPolicy) {
        self.components.retain(|name, _| policy.component(name).is_some());
        for component in &policy.components {
            let entry = self.components.entry(component.name.clone()).or_default();
            let before = self.policy.as_ref().and_then(|before| before.component(&component.name));
            let Some(before) = before else { continue };
            // The same name for another target.
            if before.target.describe() != component.target.describe() {
                *entry = ComponentMemory::default();
            }
            if before.metrics != component.metrics {
                entry.history.metrics.retain(|name, _| {
                    let [old, new] = [before, component].map(|one| one.metrics.iter().find(|m| m.name == *name));
                    old == new
                });
                entry.backfill_due = Timestamp::default();
            }
        }
    }

    /// How many components are unhealthy now, and how many further ones may be.
    pub fn unhealthy(&self, now: Timestamp) -> (usize, usize) {
        let Some(limits) = self.policy.as_ref().map(|policy| &policy.limits) else { return (0, 0) };
        let trackers = self.components.values().map(|component| &component.tracker);
        let (unhealthy, others): (Vec<_>, Vec<_>) = trackers.partition(|tracker| tracker.is_unhealthy(limits, now));
        (unhealthy.len(), others.into_iter().filter(|tracker| tracker.is_suspect(limits)).count())
    }
}

type Key = (String, String);
/// Namespace, kind and name.
type Workload = (String, WorkloadKind, String);

/// All policies' memories, and which policies a workload concerns.
#[derive(Debug, Default)]
pub struct Memory {
    policies: Mutex<HashMap<Key, Arc<Mutex<PolicyMemory>>>>,
    by_workload: Mutex<HashMap<Workload, BTreeSet<String>>>,
}

impl Memory {
    /// The memory of a policy; a new one when it is not known, or was known under another uid.
    pub fn policy(&self, namespace: &str, name: &str, uid: &str) -> Arc<Mutex<PolicyMemory>> {
        let mut policies = self.policies.lock();
        let memory = policies.entry((namespace.to_owned(), name.to_owned())).or_default();
        if memory.lock().uid != uid {
            *memory = Arc::new(Mutex::new(PolicyMemory { uid: uid.to_owned(), ..PolicyMemory::default() }));
        }
        memory.clone()
    }

    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Mutex<PolicyMemory>>> {
        self.policies.lock().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub fn all(&self) -> Vec<(Key, Arc<Mutex<PolicyMemory>>)> {
        self.policies.lock().iter().map(|(key, memory)| (key.clone(), memory.clone())).collect()
    }

    pub fn forget(&self, namespace: &str, name: &str) {
        self.policies.lock().remove(&(namespace.to_owned(), name.to_owned()));
        self.set_targets(namespace, name, &BTreeSet::new());
    }

    /// Notes the workloads of a policy.
    pub fn watch_targets_of(&self, policy: &ValidPolicy) {
        let targets: BTreeSet<(WorkloadKind, &str)> =
            policy.components.iter().filter_map(|component| component.target.workload()).collect();
        self.set_targets(&policy.namespace, &policy.name, &targets);
    }

    fn set_targets(&self, namespace: &str, policy: &str, targets: &BTreeSet<(WorkloadKind, &str)>) {
        let mut by_workload = self.by_workload.lock();
        by_workload.retain(|(at, kind, workload), policies| {
            if at == namespace && !targets.contains(&(*kind, workload.as_str())) {
                policies.remove(policy);
            }
            !policies.is_empty()
        });
        for (kind, target) in targets {
            let workload = (namespace.to_owned(), *kind, (*target).to_owned());
            by_workload.entry(workload).or_default().insert(policy.to_owned());
        }
    }

    /// Marks the components that a workload's change concerns, and names their policies.
    pub fn mark_changed(&self, namespace: &str, kind: WorkloadKind, workload: &str) -> Vec<String> {
        let key = (namespace.to_owned(), kind, workload.to_owned());
        let names: Vec<String> = self.by_workload.lock().get(&key).into_iter().flatten().cloned().collect();
        for name in &names {
            let Some(memory) = self.find(namespace, name) else { continue };
            let mut memory = memory.lock();
            let Some(policy) = memory.policy.clone() else { continue };
            let concerned = policy.components.iter().filter(|one| one.target.workload() == Some((kind, workload)));
            for component in concerned {
                if let Some(entry) = memory.components.get_mut(&component.name) {
                    entry.dirty = true;
                }
            }
        }
        names
    }

    /// Marks everything: some change notices were lost.
    pub fn mark_all_changed(&self) -> Vec<Key> {
        let all = self.all();
        for (_, memory) in &all {
            memory.lock().components.values_mut().for_each(|component| component.dirty = true);
        }
        all.into_iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::analyze::scenario;

    #[test]
    fn a_change_concerns_the_workload_of_that_kind_alone() {
        let kinds = [
            ("deployment", WorkloadKind::Deployment),
            ("statefulSet", WorkloadKind::StatefulSet),
            ("daemonSet", WorkloadKind::DaemonSet),
            ("rollout", WorkloadKind::Rollout),
        ];
        let components: Vec<_> = kinds
            .iter()
            .map(|(field, _)| json!({"name": field.to_lowercase(), "target": {*field: {"name": "db"}}}))
            .collect();
        let mut policy = scenario::policy(json!({"components": components}));
        policy.namespace = "prod".into();
        let memory = Memory::default();
        memory.watch_targets_of(&policy);
        let entry = memory.policy(&policy.namespace, &policy.name, "1");
        entry.lock().retain_components(&policy);
        entry.lock().policy = Some(Arc::new(policy.clone()));
        for (field, kind) in kinds {
            assert_eq!(memory.mark_changed("prod", kind, "db"), [policy.name.clone()]);
            assert_eq!(memory.mark_changed("prod", kind, "other"), Vec::<String>::new());
            let mut entry = entry.lock();
            let dirty: Vec<&str> = entry.components.iter().filter(|(_, c)| c.dirty).map(|(name, _)| &**name).collect();
            assert_eq!(dirty, [field.to_lowercase()]);
            entry.components.values_mut().for_each(|component| component.dirty = false);
        }
        memory.forget("prod", &policy.name);
        assert_eq!(memory.mark_changed("prod", WorkloadKind::DaemonSet, "db"), Vec::<String>::new());
    }
}
