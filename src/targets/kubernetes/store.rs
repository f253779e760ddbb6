//! The facts of all objects and their relations. Plain data under the index's lock.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use strum::IntoEnumIterator as _;
use uuid::Uuid;

use super::facts::{PodFacts, RevisionFacts, WorkloadFacts};
use crate::api::{ConfigKind, WorkloadKind};

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::EnumIter)]
pub enum Kind {
    Deployments,
    StatefulSets,
    DaemonSets,
    Rollouts,
    ReplicaSets,
    ControllerRevisions,
    Pods,
    ConfigMaps,
    Secrets,
    Nodes,
}

impl Kind {
    /// The kinds that a workload depends on, without nodes.
    pub(super) fn of(workload: WorkloadKind) -> [Self; 3] {
        match workload {
            WorkloadKind::Deployment => [Self::Deployments, Self::ReplicaSets, Self::Pods],
            WorkloadKind::StatefulSet => [Self::StatefulSets, Self::ControllerRevisions, Self::Pods],
            WorkloadKind::DaemonSet => [Self::DaemonSets, Self::ControllerRevisions, Self::Pods],
            WorkloadKind::Rollout => [Self::Rollouts, Self::ReplicaSets, Self::Pods],
        }
    }

    /// Workloads of this kind depend on it.
    fn concerns(self, workload: WorkloadKind) -> bool {
        self.is_spared() || Self::of(workload).contains(&self)
    }

    /// The operator works without, when the role does not grant it.
    pub(super) fn is_spared(self) -> bool {
        matches!(self, Self::Nodes | Self::ConfigMaps | Self::Secrets)
    }

    /// Watched only where the role grants it and the cluster has it.
    pub(super) fn is_optional(self) -> bool {
        self.is_spared() || self == Self::Rollouts
    }
}

/// A workload with a change that matters to its health.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Changed {
    pub namespace: Arc<str>,
    pub kind: WorkloadKind,
    pub name: Arc<str>,
}

/// Facts, and the listing that contained the object last.
#[derive(Debug)]
pub(super) struct Seen<T> {
    epoch: u32,
    pub facts: T,
}

#[derive(Debug, Default)]
pub struct Store {
    /// Counts the started listings, to find the objects that the newest one did not contain.
    epoch: u32,
    spaces: HashMap<Arc<str>, Space>,
    pub(super) nodes: HashMap<Box<str>, Seen<bool>>,
}

/// The objects of one namespace.
#[derive(Debug, Default)]
pub(super) struct Space {
    of: [OfKind; 4],
    pub pods: HashMap<Box<str>, Seen<PodFacts>>,
    /// Digests, by kind.
    configs: [HashMap<Box<str>, Seen<Uuid>>; 2],
}

/// The workloads of one kind, and their revisions: ReplicaSets, or ControllerRevisions. The two reverse maps hold names,
/// also of owners that are not listed yet: the watches are independent.
#[derive(Debug, Default)]
pub(super) struct OfKind {
    pub workloads: HashMap<Arc<str>, Seen<WorkloadFacts>>,
    pub revisions: HashMap<Box<str>, Seen<RevisionFacts>>,
    pub revisions_of: HashMap<Box<str>, BTreeSet<Box<str>>>,
    /// By controller: of a Deployment or Rollout its ReplicaSets, else the workload itself.
    pub pods_of: HashMap<Box<str>, BTreeSet<Box<str>>>,
}

impl Space {
    pub(super) fn of(&self, kind: WorkloadKind) -> &OfKind {
        &self.of[kind as usize]
    }

    fn of_mut(&mut self, kind: WorkloadKind) -> &mut OfKind {
        &mut self.of[kind as usize]
    }

    pub(super) fn configs(&self, kind: ConfigKind) -> &HashMap<Box<str>, Seen<Uuid>> {
        &self.configs[kind as usize]
    }

    fn is_empty(&self) -> bool {
        self.pods.is_empty()
            && self.configs.iter().all(HashMap::is_empty)
            && self.of.iter().all(|of| of.workloads.is_empty() && of.revisions.is_empty())
    }

    /// The workload of a pod, if it is known yet.
    fn workload_of(&self, kind: WorkloadKind, owner: &str) -> Option<Arc<str>> {
        match kind {
            WorkloadKind::Deployment | WorkloadKind::Rollout => {
                self.of(kind).revisions.get(owner).map(|set| (&*set.facts.workload).into())
            }
            WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => Some(owner.into()),
        }
    }

    /// The objects that a listing that started at `since` did not contain.
    fn outdated(&self, kind: Kind, since: u32) -> Vec<String> {
        match kind {
            Kind::Nodes => Vec::new(),
            Kind::Pods => outdated(&self.pods, since),
            Kind::ConfigMaps => outdated(self.configs(ConfigKind::ConfigMap), since),
            Kind::Secrets => outdated(self.configs(ConfigKind::Secret), since),
            _ => WorkloadKind::iter()
                .flat_map(|workload| match Kind::of(workload) {
                    [workloads, ..] if workloads == kind => outdated(&self.of(workload).workloads, since),
                    [_, revisions, _] if revisions == kind => outdated(&self.of(workload).revisions, since),
                    _ => Vec::new(),
                })
                .collect(),
        }
    }
}

fn outdated<K: AsRef<str>, T>(map: &HashMap<K, Seen<T>>, since: u32) -> Vec<String> {
    map.iter().filter(|(_, seen)| seen.epoch < since).map(|(name, _)| name.as_ref().to_owned()).collect()
}

/// Namespace (of a node: empty) and name of an object.
pub type Place<'a> = (&'a str, &'a str);

/// Workloads to check.
pub type Touched = BTreeSet<Changed>;

/// Replaces the facts; true when they differ. `None` removes.
fn put<K: std::hash::Hash + Eq, T: PartialEq>(
    map: &mut HashMap<K, Seen<T>>,
    key: K,
    facts: Option<T>,
    epoch: u32,
) -> bool {
    match (map.get_mut(&key), facts) {
        (Some(seen), Some(facts)) => {
            seen.epoch = epoch;
            let differs = seen.facts != facts;
            if differs {
                seen.facts = facts;
            }
            differs
        }
        (None, Some(facts)) => {
            map.insert(key, Seen { epoch, facts });
            true
        }
        (Some(_), None) => map.remove(&key).is_some(),
        (None, None) => false,
    }
}

fn link(map: &mut HashMap<Box<str>, BTreeSet<Box<str>>>, owner: Box<str>, name: &str) {
    map.entry(owner).or_default().insert(name.into());
}

fn unlink(map: &mut HashMap<Box<str>, BTreeSet<Box<str>>>, owner: &str, name: &str) {
    if let Some(names) = map.get_mut(owner) {
        names.remove(name);
        if names.is_empty() {
            map.remove(owner);
        }
    }
}

impl Store {
    pub(super) fn space(&self, namespace: &str) -> Option<&Space> {
        self.spaces.get(namespace)
    }

    fn scoped(&self, scope: &str) -> impl Iterator<Item = (&Arc<str>, &Space)> {
        self.spaces.iter().filter(move |(namespace, _)| scope.is_empty() || ***namespace == *scope)
    }

    fn space_mut(&mut self, namespace: &str) -> (Arc<str>, &mut Space) {
        let key = self.spaces.get_key_value(namespace).map_or_else(|| Arc::from(namespace), |(key, _)| key.clone());
        (key.clone(), self.spaces.entry(key).or_default())
    }

    pub(super) fn put_workload(
        &mut self,
        kind: WorkloadKind,
        (namespace, name): Place<'_>,
        facts: Option<WorkloadFacts>,
    ) -> Touched {
        let epoch = self.epoch;
        let (namespace, space) = self.space_mut(namespace);
        let name: Arc<str> = name.into();
        let changed = put(&mut space.of_mut(kind).workloads, name.clone(), facts, epoch);
        changed.then_some(Changed { namespace, kind, name }).into_iter().collect()
    }

    pub(super) fn put_revision(
        &mut self,
        kind: WorkloadKind,
        (namespace, name): Place<'_>,
        facts: Option<RevisionFacts>,
    ) -> Touched {
        let epoch = self.epoch;
        let (namespace, space) = self.space_mut(namespace);
        let of = space.of_mut(kind);
        let before = of.revisions.get(name).map(|seen| seen.facts.workload.clone());
        let after = facts.as_ref().map(|facts| facts.workload.clone());
        if !put(&mut of.revisions, name.into(), facts, epoch) {
            return Touched::new();
        }
        if before != after {
            before.iter().for_each(|owner| unlink(&mut of.revisions_of, owner, name));
            after.iter().for_each(|owner| link(&mut of.revisions_of, owner.clone(), name));
        }
        let owners = before.into_iter().chain(after);
        owners.map(|owner| Changed { namespace: namespace.clone(), kind, name: owner.into() }).collect()
    }

    pub(super) fn put_pod(&mut self, (namespace, name): Place<'_>, facts: Option<PodFacts>) -> Touched {
        let epoch = self.epoch;
        let (namespace, space) = self.space_mut(namespace);
        let owner = |facts: &PodFacts| (facts.kind, facts.owner.clone());
        let before = space.pods.get(name).map(|seen| owner(&seen.facts));
        let after = facts.as_ref().map(owner);
        if !put(&mut space.pods, name.into(), facts, epoch) {
            return Touched::new();
        }
        if before != after {
            if let Some((kind, owner)) = &before {
                unlink(&mut space.of_mut(*kind).pods_of, owner, name);
            }
            if let Some((kind, owner)) = &after {
                link(&mut space.of_mut(*kind).pods_of, owner.clone(), name);
            }
        }
        let owners: BTreeSet<_> = before.into_iter().chain(after).collect();
        owners
            .into_iter()
            .filter_map(|(kind, owner)| Some((kind, space.workload_of(kind, &owner)?)))
            .map(|(kind, name)| Changed { namespace: namespace.clone(), kind, name })
            .collect()
    }

    pub(super) fn put_config(
        &mut self,
        config: ConfigKind,
        (namespace, name): Place<'_>,
        digest: Option<Uuid>,
    ) -> Touched {
        let epoch = self.epoch;
        let (namespace, space) = self.space_mut(namespace);
        if !put(&mut space.configs[config as usize], name.into(), digest, epoch) {
            return Touched::new();
        }
        let names =
            |seen: &Seen<WorkloadFacts>| seen.facts.config.iter().any(|one| one.kind == config && &*one.name == name);
        let mut touched = Touched::new();
        for kind in WorkloadKind::iter() {
            let named = space.of(kind).workloads.iter().filter(|(_, seen)| names(seen));
            touched.extend(named.map(|(name, _)| Changed { namespace: namespace.clone(), kind, name: name.clone() }));
        }
        touched
    }

    pub(super) fn put_node(&mut self, name: &str, ready: Option<bool>) -> Touched {
        let was = self.nodes.get(name).map(|seen| seen.facts);
        let epoch = self.epoch;
        put(&mut self.nodes, name.into(), ready, epoch);
        // An unknown node counted as lost or ready, depending on whether nodes can be listed.
        if was == ready {
            return Touched::new();
        }
        let mut touched = Touched::new();
        for (namespace, space) in &self.spaces {
            for pod in space.pods.values().filter(|pod| pod.facts.node.as_deref() == Some(name)) {
                let kind = pod.facts.kind;
                if let Some(name) = space.workload_of(kind, &pod.facts.owner) {
                    touched.insert(Changed { namespace: namespace.clone(), kind, name });
                }
            }
        }
        touched
    }

    pub(super) fn pod(&self, (namespace, name): Place<'_>) -> Option<&PodFacts> {
        self.space(namespace)?.pods.get(name).map(|seen| &seen.facts)
    }

    pub(super) fn remove(&mut self, kind: Kind, place: Place<'_>) -> Touched {
        match kind {
            Kind::Nodes => self.put_node(place.1, None),
            Kind::Pods => self.put_pod(place, None),
            Kind::ConfigMaps => self.put_config(ConfigKind::ConfigMap, place, None),
            Kind::Secrets => self.put_config(ConfigKind::Secret, place, None),
            _ => WorkloadKind::iter()
                .flat_map(|workload| match Kind::of(workload) {
                    [workloads, ..] if workloads == kind => self.put_workload(workload, place, None),
                    [_, revisions, _] if revisions == kind => self.put_revision(workload, place, None),
                    _ => Touched::new(),
                })
                .collect(),
        }
    }

    /// A listing starts; [`Self::sweep`] takes the result at its end.
    pub(super) fn begin(&mut self) -> u32 {
        self.epoch = self.epoch.wrapping_add(1);
        self.epoch
    }

    /// Removes the objects that a listing that started at `since` did not contain. `scope` is a namespace; empty: all.
    pub(super) fn sweep(&mut self, kind: Kind, scope: &str, since: u32) -> Touched {
        let nodes = if kind == Kind::Nodes { outdated(&self.nodes, since) } else { Vec::new() };
        let nodes = nodes.into_iter().map(|name| (Arc::from(""), name));
        let objects = self.scoped(scope).flat_map(|(namespace, space)| {
            space.outdated(kind, since).into_iter().map(|name| (namespace.clone(), name))
        });
        let all: Vec<(Arc<str>, String)> = nodes.chain(objects).collect();
        let touched = all.iter().flat_map(|(namespace, name)| self.remove(kind, (namespace, name))).collect();
        self.spaces.retain(|_, space| !space.is_empty());
        touched
    }

    /// All workloads of a namespace (empty: of all) that depend on this kind.
    pub(super) fn all(&self, kind: Kind, scope: &str) -> Touched {
        let mut touched = Touched::new();
        for (namespace, space) in self.scoped(scope) {
            for kind in WorkloadKind::iter().filter(|workload| kind.concerns(*workload)) {
                let names = space.of(kind).workloads.keys();
                touched.extend(names.map(|name| Changed { namespace: namespace.clone(), kind, name: name.clone() }));
            }
        }
        touched
    }
}
