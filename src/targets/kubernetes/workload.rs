//! From the facts of single objects to one [`Workload`], or the reason why its state is unknown.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::{
    config::ConfigRef,
    facts::{Newest, Phase, PodFacts, RevisionFacts, WorkloadFacts},
    faults::{Fault, fault},
    store::{OfKind, Seen, Space, Store},
    template::ROLLOUT_HASH,
};
use crate::{
    analyze::observation::{ObservedConfig, PodFault, ReleaseId, UnknownReason, Unmeasured, Workload},
    api::{ConfigKind, ConfigObject, MISSING, WorkloadKind},
};

/// ReplicaSets in a pattern; usually two or three have pods.
const MAX_PATTERN_SETS: usize = 20;
/// The API server cuts `metadata.generateName` to this many characters before it adds five random ones
/// (apiserver/pkg/storage/names/generate.go: 63 - 5).
const MAX_GENERATED_PREFIX: usize = 58;

/// A workload with the revision of its newest template.
#[derive(Clone, Copy)]
pub(super) struct Current<'a> {
    kind: WorkloadKind,
    name: &'a str,
    space: &'a Space,
    facts: &'a WorkloadFacts,
    newest: &'a RevisionFacts,
    /// How many of its pods have that template, when the status is about another one.
    updated: Option<u32>,
}

impl<'a> Current<'a> {
    /// TargetNotFound, or Unsettled while the cluster's own view of the newest template lags behind.
    pub(super) fn find(
        store: &'a Store,
        kind: WorkloadKind,
        namespace: &str,
        name: &'a str,
    ) -> Result<Self, Unmeasured> {
        let unsettled = |what: String| Unmeasured::new(UnknownReason::Unsettled, what);
        let not_found =
            |what: &str| Unmeasured::new(UnknownReason::TargetNotFound, format!("{kind} {namespace}/{name} {what}"));
        let found = store.space(namespace).and_then(|space| Some((space, &space.of(kind).workloads.get(name)?.facts)));
        let (space, facts) = found.ok_or_else(|| not_found("does not exist"))?;
        if facts.deleting {
            return Err(not_found("is being deleted"));
        }
        if facts.observed_generation < facts.generation {
            return Err(unsettled(format!(
                "the controller of {kind}s has observed generation {} of {namespace}/{name}, which is at {}",
                facts.observed_generation, facts.generation
            )));
        }
        let mut of = revisions(space.of(kind), name, facts);
        let (newest, wanted) = match &facts.newest {
            Newest::None => return Err(unsettled(format!("{namespace}/{name} has no revision yet"))),
            // While paused, a changed template has no ReplicaSet: the previous one still runs.
            Newest::Number(number) => (
                of.find(|(_, set)| set.revision == *number)
                    .filter(|(_, set)| facts.paused || set.digest == facts.digest),
                format!("the ReplicaSet of revision {number}"),
            ),
            Newest::Hash { current, stable } => {
                let mut sets: Vec<_> = of.collect();
                // As above.
                let named = |hash: &str| sets.iter().position(|(_, set)| *set.hash == *hash);
                let at = named(current).or_else(|| named(stable).filter(|_| facts.paused));
                (at.map(|at| sets.swap_remove(at)), format!("the ReplicaSet of {ROLLOUT_HASH} {current}"))
            }
            Newest::Name(revision) => {
                (of.find(|(name, _)| *name == &**revision), format!("the ControllerRevision {revision}"))
            }
            Newest::Highest => (
                of.max_by_key(|(_, revision)| revision.revision)
                    .filter(|(_, newest)| newest.digest == facts.digest && newest.restarted_at == facts.restarted_at),
                "the ControllerRevision of the newest template".to_owned(),
            ),
        };
        let (_, newest) =
            newest.ok_or_else(|| unsettled(format!("{wanted} of {namespace}/{name} was not observed yet")))?;
        let current = Self { kind, name, space, facts, newest, updated: None };
        Ok(if facts.held { current.with_what_runs() } else { current })
    }

    /// Where pods wait for a person, a new template without pods says nothing: the previous one still runs.
    fn with_what_runs(self) -> Self {
        let pods_of = |revision: &'a RevisionFacts| {
            let its = |(_, pod, of_release): &(&str, &PodFacts, bool)| *of_release && !pod.terminating;
            Self { newest: revision, ..self }.pods().filter(its).count()
        };
        if pods_of(self.newest) > 0 {
            return self;
        }
        let others = revisions(self.space.of(self.kind), self.name, self.facts).map(|(_, revision)| revision);
        let running = others.filter(|revision| pods_of(revision) > 0).max_by_key(|revision| revision.revision);
        match running {
            Some(newest) => Self { newest, updated: u32::try_from(pods_of(newest)).ok(), ..self },
            None => self,
        }
    }

    /// Each with whether it has the newest template.
    fn pods(&self) -> Box<dyn Iterator<Item = (&'a str, &'a PodFacts, bool)> + 'a> {
        let (space, kind, newest) = (self.space, self.kind, self.newest);
        match kind {
            WorkloadKind::Deployment | WorkloadKind::Rollout => {
                let sets = revisions(space.of(kind), self.name, self.facts);
                Box::new(sets.flat_map(move |(name, set)| {
                    let of_release = std::ptr::eq(set, newest);
                    own_pods(space, kind, name, &set.uid).map(move |(name, pod)| (name, pod, of_release))
                }))
            }
            WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => {
                let pods = own_pods(space, kind, self.name, &self.facts.uid);
                Box::new(pods.map(move |(name, pod)| (name, pod, pod.revision_hash == newest.hash)))
            }
        }
    }

    /// `node_lost`: whether a node is unreachable. `seen`: the kinds of configuration whose facts can be relied on.
    pub(super) fn workload(&self, node_lost: impl Fn(&str) -> bool, seen: &[ConfigKind], now: Timestamp) -> Workload {
        let facts = self.facts;
        let mut found: Vec<(bool, &str, Option<Timestamp>, Fault<'_>)> = Vec::new();
        let mut oldest_pod: Option<Timestamp> = None;
        let (mut unschedulable, mut on_lost_nodes) = (0, 0);
        for (name, pod, of_release) in self.pods() {
            if pod.node.as_deref().is_some_and(&node_lost) {
                on_lost_nodes += 1;
                continue;
            }
            if let Some(started) = pod.started.filter(|_| !pod.terminating && pod.phase != Phase::Over) {
                oldest_pod = Some(oldest_pod.map_or(started, |oldest| oldest.min(started)));
            }
            if pod.unschedulable && !pod.terminating {
                unschedulable += 1;
            }
            if let Some(fault) = fault(pod, now) {
                found.push((of_release, name, pod.started, fault));
            }
        }
        found.sort_unstable_by_key(|(of_release, name, ..)| (!of_release, *name));
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Workload {
            generation: facts.generation,
            desired: facts.desired,
            replicas: facts.replicas,
            updated: self.updated.unwrap_or(facts.updated).min(self.restarted(now)),
            available: facts.available,
            paused: facts.paused,
            progress_deadline_exceeded: facts.progress_deadline_exceeded,
            progress_deadline_s: facts.progress_deadline_s,
            release: ReleaseId {
                revision: self.newest.revision,
                hash: self.newest.hash.to_string(),
                digest: self.newest.digest.to_string(),
            },
            images: facts.images.to_vec(),
            faulty_pods: count(found.len()),
            faulty_release_pods: count(found.iter().filter(|(of_release, ..)| *of_release).count()),
            faults: found
                .into_iter()
                .take(Workload::MAX_FAULTS)
                .map(|(of_release, pod, pod_started, fault)| PodFault {
                    pod: pod.to_owned(),
                    container: fault.container.to_owned(),
                    kind: fault.kind,
                    of_release,
                    since: fault.since,
                    pod_started,
                    detail: fault.detail(),
                })
                .collect(),
            unschedulable,
            on_lost_nodes,
            memory_limit: facts.memory_limit,
            config: (!seen.is_empty()).then(|| self.config(seen)),
            oldest_pod,
            irreversible: facts.irreversible.as_deref().map(Into::into),
            gitops_owner: facts.gitops_owner.as_deref().map(Into::into),
            template_in: facts.rollout.as_ref().and_then(|rollout| rollout.template_in.as_deref()).map(Into::into),
            stopped: facts.rollout.as_ref().and_then(|rollout| rollout.stopped.as_deref()).map(Into::into),
        }
    }

    /// The pods of the newest template that a running restart has created already, or no limit. A Deployment has another
    /// ReplicaSet for them.
    fn restarted(&self, now: Timestamp) -> u32 {
        let at = self.facts.rollout.as_ref().and_then(|rollout| rollout.restart_at).filter(|at| *at <= now);
        let Some(at) = at else { return u32::MAX };
        let new = |(_, pod, of_release): &(&str, &PodFacts, bool)| {
            *of_release && !pod.terminating && pod.started.is_some_and(|started| started >= at)
        };
        u32::try_from(self.pods().filter(new).count()).unwrap_or(u32::MAX)
    }

    /// See [`super::ClusterIndex::limited_pods`].
    pub(super) fn limited_pods(&self, of_release: bool, node_lost: impl Fn(&str) -> bool) -> Vec<LimitedPod> {
        let running = |pod: &PodFacts| pod.phase == Phase::Running && !pod.terminating && pod.limits.is_some();
        self.pods()
            .filter(|(_, pod, newest)| running(pod) && (*newest || !of_release))
            .filter(|(_, pod, _)| !pod.node.as_deref().is_some_and(&node_lost))
            .map(|(name, pod, _)| LimitedPod {
                name: name.to_owned(),
                started: pod.started,
                ready_since: pod.ready_changed.filter(|_| pod.ready),
            })
            .collect()
    }

    fn config(&self, seen: &[ConfigKind]) -> Vec<ObservedConfig> {
        let digest =
            |config: &ConfigRef| self.space.configs(config.kind).get(&config.name).map(|seen| seen.facts.to_string());
        let observed = |config: &ConfigRef| ObservedConfig {
            object: ConfigObject {
                kind: config.kind,
                name: config.name.to_string(),
                digest: digest(config).unwrap_or_else(|| MISSING.to_owned()),
            },
            on_start: config.on_start,
        };
        self.facts.config.iter().filter(|config| seen.contains(&config.kind)).map(observed).collect()
    }

    /// See [`super::ClusterIndex::pods_pattern`].
    pub(super) fn pods_pattern(&self, of_release: bool) -> Result<PodsPattern, Unmeasured> {
        let ending = match self.kind {
            WorkloadKind::Deployment | WorkloadKind::Rollout => return self.pods_by_replica_set(of_release),
            WorkloadKind::StatefulSet => "-[0-9]+",
            WorkloadKind::DaemonSet => "-[a-z0-9]{5}",
        };
        if self.pods().next().is_none() {
            return Err(no_data("there is no pod to measure"));
        }
        // The API server cuts the name of a DaemonSet's pods; a StatefulSet with too long a name has no pods.
        let length = if self.kind == WorkloadKind::DaemonSet { MAX_GENERATED_PREFIX - 1 } else { usize::MAX };
        let name: String = self.name.chars().take(length).collect();
        Ok(PodsPattern { regex: format!("{}{ending}", escape(&name)), of_release: false })
    }

    fn pods_by_replica_set(&self, of_release: bool) -> Result<PodsPattern, Unmeasured> {
        let prefix = |set_name: &str| -> String { format!("{set_name}-").chars().take(MAX_GENERATED_PREFIX).collect() };
        let sets = revisions(self.space.of(self.kind), self.name, self.facts);
        let sets = sets.filter(|(name, set)| own_pods(self.space, self.kind, name, &set.uid).next().is_some());
        let sets: Vec<(bool, String)> =
            sets.map(|(name, set)| (std::ptr::eq(set, self.newest), prefix(name))).collect();
        if of_release {
            let newest =
                sets.iter().find(|(newest, _)| *newest).ok_or_else(|| no_data("no pod of the new template yet"))?;
            // A very long name leaves no room for the hash: the names of old and new pods are alike.
            if sets.iter().filter(|(_, prefix)| *prefix == newest.1).count() == 1 {
                return Ok(PodsPattern { regex: alternation(std::slice::from_ref(&newest.1)), of_release: true });
            }
        }
        let mut prefixes: Vec<String> = sets.into_iter().map(|(_, prefix)| prefix).collect();
        if prefixes.is_empty() {
            return Err(no_data("there is no pod to measure"));
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes.truncate(MAX_PATTERN_SETS);
        Ok(PodsPattern { regex: alternation(&prefixes), of_release: false })
    }
}

/// A running pod with a limit of CPU or memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LimitedPod {
    pub name: String,
    pub started: Option<Timestamp>,
    /// None while it is not ready.
    pub ready_since: Option<Timestamp>,
}

/// A regular expression (RE2) that matches the names of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodsPattern {
    pub regex: String,
    /// It matches only pods of the newest template.
    pub of_release: bool,
}

impl PodsPattern {
    pub fn of_pod(name: &str) -> Self {
        Self { regex: escape(name), of_release: false }
    }
}

fn alternation(prefixes: &[String]) -> String {
    let alternatives: Vec<String> = prefixes.iter().map(|prefix| format!("{}.*", escape(prefix))).collect();
    match alternatives.as_slice() {
        [one] => one.clone(),
        several => format!("({})", several.join("|")),
    }
}

/// Without backslashes or quotes, so that it is right inside each of PromQL's three kinds of quotes. Kubernetes names have
/// only letters, digits, dashes and dots; any other character becomes `.`.
fn escape(text: &str) -> String {
    let escaped = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' => character.to_string(),
        '.' => "[.]".to_owned(),
        _ => ".".to_owned(),
    };
    text.chars().map(escaped).collect()
}

fn no_data(what: &str) -> Unmeasured {
    Unmeasured::new(UnknownReason::NoData, what)
}

/// The facts of the objects that belong to this owner.
fn belonging<'a, T>(
    names: &'a HashMap<Box<str>, BTreeSet<Box<str>>>,
    owner: &str,
    facts: &'a HashMap<Box<str>, Seen<T>>,
) -> impl Iterator<Item = (&'a str, &'a T)> {
    let names = names.get(owner).into_iter().flatten();
    names.filter_map(|name| Some((&**name, &facts.get(name)?.facts)))
}

/// The workload's own revisions: a revision of an earlier workload of that name has another uid.
fn revisions<'a>(
    of: &'a OfKind,
    name: &str,
    facts: &'a WorkloadFacts,
) -> impl Iterator<Item = (&'a str, &'a RevisionFacts)> {
    let all = belonging(&of.revisions_of, name, &of.revisions);
    all.filter(|(_, revision)| revision.workload_uid == facts.uid)
}

/// The pods of the controller with this name and uid.
fn own_pods<'a>(
    space: &'a Space,
    kind: WorkloadKind,
    owner: &str,
    uid: &'a str,
) -> impl Iterator<Item = (&'a str, &'a PodFacts)> {
    belonging(&space.of(kind).pods_of, owner, &space.pods).filter(move |(_, pod)| *pod.owner_uid == *uid)
}
