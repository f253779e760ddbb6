//! From the facts of single objects to one [`Workload`], or why there is none.

use jiff::Timestamp;

use super::{
    facts::{DeploymentFacts, PodFacts, ReplicaSetFacts},
    faults::{Fault, fault},
    store::{Space, Store},
};
use crate::analyze::observation::{PodFault, ReleaseId, UnknownReason, Unmeasured, Workload};

/// ReplicaSets with pods that a pattern names; more than two or three are a rollout gone wild.
const MAX_PATTERN_SETS: usize = 20;
/// The API server cuts `metadata.generateName` to this many characters before it adds five random ones
/// (apiserver/pkg/storage/names/generate.go: 63 - 5).
const MAX_GENERATED_PREFIX: usize = 58;

/// A Deployment with the ReplicaSet of its newest template.
pub(super) struct Current<'a> {
    name: &'a str,
    space: &'a Space,
    deployment: &'a DeploymentFacts,
    newest: &'a ReplicaSetFacts,
}

impl<'a> Current<'a> {
    /// # Errors
    /// TargetNotFound, or Unsettled while the cluster's own view of the newest template is behind.
    pub(super) fn find(store: &'a Store, namespace: &str, name: &'a str) -> Result<Self, Unmeasured> {
        let unsettled = |what: String| Unmeasured::new(UnknownReason::Unsettled, what);
        let found = store.space(namespace).and_then(|space| Some((space, &space.deployments.get(name)?.facts)));
        let Some((space, deployment)) = found else {
            return Err(Unmeasured::new(
                UnknownReason::TargetNotFound,
                format!("Deployment {namespace}/{name} does not exist"),
            ));
        };
        if deployment.deleting {
            return Err(Unmeasured::new(
                UnknownReason::TargetNotFound,
                format!("Deployment {namespace}/{name} is being deleted"),
            ));
        }
        if deployment.observed_generation < deployment.generation {
            return Err(unsettled(format!(
                "the deployment controller has seen generation {} of {namespace}/{name}, which is at {}",
                deployment.observed_generation, deployment.generation
            )));
        }
        let Some(revision) = deployment.revision else {
            return Err(unsettled(format!("{namespace}/{name} has no ReplicaSet yet")));
        };
        let newest = sets(space, name, deployment)
            .map(|(_, set)| set)
            .find(|set| set.revision == revision)
            // While paused, a changed template has no ReplicaSet: what runs is still the one before.
            .filter(|set| deployment.paused || set.digest == deployment.digest)
            .ok_or_else(|| {
                unsettled(format!("the ReplicaSet of revision {revision} of {namespace}/{name} was not seen yet"))
            })?;
        Ok(Self { name, space, deployment, newest })
    }

    fn pods(&self) -> impl Iterator<Item = (&'a str, &'a PodFacts, bool)> {
        let (space, newest) = (self.space, self.newest);
        sets(space, self.name, self.deployment).flat_map(move |(name, set)| {
            let of_release = std::ptr::eq(set, newest);
            pods(space, name, set).map(move |(name, pod)| (name, pod, of_release))
        })
    }

    /// `node_lost` tells whether a node is known to be away.
    pub(super) fn workload(&self, node_lost: impl Fn(&str) -> bool, now: Timestamp) -> Workload {
        let deployment = self.deployment;
        let mut found: Vec<(bool, &str, Fault<'_>)> = Vec::new();
        let (mut unschedulable, mut on_lost_nodes) = (0, 0);
        for (name, pod, of_release) in self.pods() {
            if pod.node.as_deref().is_some_and(&node_lost) {
                on_lost_nodes += 1;
                continue;
            }
            if pod.unschedulable && !pod.terminating {
                unschedulable += 1;
            }
            if let Some(fault) = fault(pod, now) {
                found.push((of_release, name, fault));
            }
        }
        found.sort_unstable_by_key(|(of_release, name, _)| (!of_release, *name));
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Workload {
            generation: deployment.generation,
            desired: deployment.desired,
            replicas: deployment.replicas,
            updated: deployment.updated,
            available: deployment.available,
            paused: deployment.paused,
            progress_deadline_exceeded: deployment.progress_deadline_exceeded,
            progress_deadline_s: deployment.progress_deadline_s,
            release: ReleaseId {
                revision: self.newest.revision,
                hash: self.newest.hash.to_string(),
                digest: self.newest.digest.to_string(),
            },
            images: deployment.images.to_vec(),
            faulty_pods: count(found.len()),
            faulty_release_pods: count(found.iter().filter(|(of_release, ..)| *of_release).count()),
            faults: found
                .into_iter()
                .take(Workload::MAX_FAULTS)
                .map(|(of_release, pod, fault)| PodFault {
                    pod: pod.to_owned(),
                    container: fault.container.to_owned(),
                    kind: fault.kind,
                    of_release,
                    since: fault.since,
                    detail: fault.detail(),
                })
                .collect(),
            unschedulable,
            on_lost_nodes,
            memory_limit: deployment.memory_limit,
            irreversible: deployment.irreversible.as_deref().map(Into::into),
            gitops_owner: deployment.gitops_owner.as_deref().map(Into::into),
        }
    }

    /// See [`super::ClusterIndex::pods_pattern`].
    pub(super) fn pods_pattern(&self, of_release: bool) -> Result<PodsPattern, Unmeasured> {
        let prefix = |set_name: &str| -> String { format!("{set_name}-").chars().take(MAX_GENERATED_PREFIX).collect() };
        let mut newest = None;
        let mut prefixes: Vec<String> = Vec::new();
        for (name, set) in sets(self.space, self.name, self.deployment) {
            if pods(self.space, name, set).next().is_none() {
                continue;
            }
            if std::ptr::eq(set, self.newest) {
                newest = Some(prefixes.len());
            }
            prefixes.push(prefix(name));
        }
        let no_data = |what: &str| Unmeasured::new(UnknownReason::NoData, what);
        if of_release {
            let newest = newest.ok_or_else(|| no_data("no pod of the new template yet"))?;
            // A very long name leaves no room for the hash: the old pods cannot be told from the new ones.
            let told_apart = prefixes.iter().filter(|prefix| **prefix == prefixes[newest]).count() == 1;
            if told_apart {
                return Ok(PodsPattern { regex: alternation(&prefixes[newest..=newest]), of_release: true });
            }
        }
        if prefixes.is_empty() {
            return Err(no_data("there is no pod to measure"));
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes.truncate(MAX_PATTERN_SETS);
        Ok(PodsPattern { regex: alternation(&prefixes), of_release: false })
    }
}

/// A regular expression (RE2) that matches the names of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodsPattern {
    pub regex: String,
    /// It matches the pods of the newest template alone.
    pub of_release: bool,
}

fn alternation(prefixes: &[String]) -> String {
    let alternatives: Vec<String> = prefixes.iter().map(|prefix| format!("{}.*", escape(prefix))).collect();
    match alternatives.as_slice() {
        [one] => one.clone(),
        several => format!("({})", several.join("|")),
    }
}

/// Without backslashes or quotes, so that it is right inside each of PromQL's three kinds of quotes. Kubernetes names
/// hold nothing but letters, digits, dashes and dots; were there anything else, it would match any character.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' => escaped.push(character),
            '.' => escaped.push_str("[.]"),
            _ => escaped.push('.'),
        }
    }
    escaped
}

/// The Deployment's own ReplicaSets: one of an earlier Deployment of that name has another uid.
fn sets<'a>(
    space: &'a Space,
    name: &str,
    deployment: &'a DeploymentFacts,
) -> impl Iterator<Item = (&'a str, &'a ReplicaSetFacts)> {
    space
        .sets_of
        .get(name)
        .into_iter()
        .flatten()
        .filter_map(|name| Some((&**name, &space.sets.get(name)?.facts)))
        .filter(|(_, set)| set.deployment_uid == deployment.uid)
}

fn pods<'a>(space: &'a Space, name: &str, set: &'a ReplicaSetFacts) -> impl Iterator<Item = (&'a str, &'a PodFacts)> {
    space
        .pods_of
        .get(name)
        .into_iter()
        .flatten()
        .filter_map(|name| Some((&**name, &space.pods.get(name)?.facts)))
        .filter(|(_, pod)| pod.replica_set_uid == set.uid)
}
