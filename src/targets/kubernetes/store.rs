//! The facts of all objects, and which belongs to which. Plain data under the index's lock.

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
    /// What a workload stands on, nodes apart.
    pub(super) fn of(workload: WorkloadKind) -> [Self; 3] {
        match workload {
            WorkloadKind::Deployment => [Self::Deployments, Self::ReplicaSets, Self::Pods],
            WorkloadKind::StatefulSet => [Self::StatefulSets, Self::ControllerRevisions, Self::Pods],
            WorkloadKind::DaemonSet => [Self::DaemonSets, Self::ControllerRevisions, Self::Pods],
            WorkloadKind::Rollout => [Self::Rollouts, Self::ReplicaSets, Self::Pods],
        }
    }

    /// Workloads of this kind stand on it.
    fn concerns(self, workload: WorkloadKind) -> bool {
        self.is_spared() || Self::of(workload).contains(&self)
    }

    /// What can be done without, when the role does not grant it.
    pub(super) fn is_spared(self) -> bool {
        matches!(self, Self::Nodes | Self::ConfigMaps | Self::Secrets)
    }

    /// What is watched only where the role grants it and the cluster has it.
    pub(super) fn is_optional(self) -> bool {
        self.is_spared() || self == Self::Rollouts
    }

    fn config(self) -> Option<ConfigKind> {
        match self {
            Self::ConfigMaps => Some(ConfigKind::ConfigMap),
            Self::Secrets => Some(ConfigKind::Secret),
            _ => None,
        }
    }
}

/// A workload about which something that matters to its health changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Changed {
    pub namespace: Arc<str>,
    pub kind: WorkloadKind,
    pub name: Arc<str>,
}

/// A fact, and in which listing it was last seen.
#[derive(Debug)]
pub(super) struct Seen<T> {
    epoch: u32,
    pub facts: T,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    /// Counts the listings that were begun, so that what the newest one did not contain can be told.
    epoch: u32,
    pub spaces: HashMap<Arc<str>, Space>,
    pub nodes: HashMap<Box<str>, Seen<bool>>,
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
/// also of owners that have not arrived yet: the watches run at their own pace.
#[derive(Debug, Default)]
pub(super) struct OfKind {
    pub workloads: HashMap<Arc<str>, Seen<WorkloadFacts>>,
    pub revisions: HashMap<Box<str>, Seen<RevisionFacts>>,
    pub revisions_of: HashMap<Box<str>, BTreeSet<Box<str>>>,
    /// By what controls them: of a Deployment or Rollout its ReplicaSets, else the workload itself.
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

    /// The workload that a pod belongs to, if that is known yet.
    fn workload_of(&self, kind: WorkloadKind, owner: &str) -> Option<Arc<str>> {
        match kind {
            WorkloadKind::Deployment | WorkloadKind::Rollout => {
                self.of(kind).revisions.get(owner).map(|set| (&*set.facts.workload).into())
            }
            WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => Some(owner.into()),
        }
    }
}

/// Workloads to be looked at.
pub(super) type Touched = BTreeSet<Changed>;

/// Takes the place of what was known; true when it differs. `None` removes.
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

    fn space_mut(&mut self, namespace: &str) -> (Arc<str>, &mut Space) {
        let key = self.spaces.get_key_value(namespace).map_or_else(|| Arc::from(namespace), |(key, _)| key.clone());
        (key.clone(), self.spaces.entry(key).or_default())
    }

    pub(super) fn put_workload(
        &mut self,
        kind: WorkloadKind,
        namespace: &str,
        name: &str,
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
        namespace: &str,
        name: &str,
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

    pub(super) fn put_pod(&mut self, namespace: &str, name: &str, facts: Option<PodFacts>) -> Touched {
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
        namespace: &str,
        name: &str,
        digest: Option<Uuid>,
    ) -> Touched {
        let epoch = self.epoch;
        let (namespace, space) = self.space_mut(namespace);
        if !put(&mut space.configs[config as usize], name.into(), digest, epoch) {
            return Touched::new();
        }
        let kinds = WorkloadKind::iter().flat_map(|kind| {
            let workloads = space.of(kind).workloads.iter();
            let names = |seen: &Seen<WorkloadFacts>| {
                seen.facts.config.iter().any(|one| one.kind == config && &*one.name == name)
            };
            let named = workloads.filter(move |(_, seen)| names(seen));
            named.map(move |(workload, _)| (kind, workload.clone()))
        });
        kinds.map(|(kind, name)| Changed { namespace: namespace.clone(), kind, name }).collect()
    }

    pub(super) fn put_node(&mut self, name: &str, ready: Option<bool>) -> Touched {
        let was = self.nodes.get(name).map(|seen| seen.facts);
        let epoch = self.epoch;
        put(&mut self.nodes, name.into(), ready, epoch);
        // One that was not known counted as lost or ready, depending on whether nodes can be seen: look again.
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

    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<&PodFacts> {
        self.space(namespace)?.pods.get(name).map(|seen| &seen.facts)
    }

    /// A listing begins; the answer goes to [`Self::sweep`] at its end.
    pub(super) fn begin(&mut self) -> u32 {
        self.epoch = self.epoch.wrapping_add(1);
        self.epoch
    }

    /// Removes what a listing that began at `since` did not contain: deleted while nobody watched. `scope` is a
    /// namespace; empty: all of them.
    pub(super) fn sweep(&mut self, kind: Kind, scope: &str, since: u32) -> Touched {
        fn gone<K: AsRef<str>, T>(map: &HashMap<K, Seen<T>>, since: u32) -> Vec<String> {
            map.iter().filter(|(_, seen)| seen.epoch < since).map(|(name, _)| name.as_ref().to_owned()).collect()
        }
        let mut touched = Touched::new();
        if kind == Kind::Nodes {
            for name in gone(&self.nodes, since) {
                touched.append(&mut self.put_node(&name, None));
            }
            return touched;
        }
        let namespaces: Vec<Arc<str>> =
            self.spaces.keys().filter(|namespace| scope.is_empty() || ***namespace == *scope).cloned().collect();
        for namespace in namespaces {
            if kind == Kind::Pods {
                let names = self.space(&namespace).map(|space| gone(&space.pods, since));
                for name in names.unwrap_or_default() {
                    touched.append(&mut self.put_pod(&namespace, &name, None));
                }
            }
            if let Some(config) = kind.config() {
                let names = self.space(&namespace).map(|space| gone(space.configs(config), since));
                for name in names.unwrap_or_default() {
                    touched.append(&mut self.put_config(config, &namespace, &name, None));
                }
            }
            for workload in WorkloadKind::iter() {
                let [workloads, revisions, _] = Kind::of(workload);
                let Some(of) = self.space(&namespace).map(|space| space.of(workload)) else { continue };
                let names = if kind == workloads {
                    gone(&of.workloads, since)
                } else if kind == revisions {
                    gone(&of.revisions, since)
                } else {
                    continue;
                };
                for name in names {
                    let mut more = if kind == workloads {
                        self.put_workload(workload, &namespace, &name, None)
                    } else {
                        self.put_revision(workload, &namespace, &name, None)
                    };
                    touched.append(&mut more);
                }
            }
        }
        self.spaces.retain(|_, space| !space.is_empty());
        touched
    }

    /// All workloads of a namespace (empty: of all) that stand on what is watched by this.
    pub(super) fn all(&self, kind: Kind, scope: &str) -> Touched {
        let spaces = self.spaces.iter().filter(|(namespace, _)| scope.is_empty() || ***namespace == *scope);
        spaces
            .flat_map(|(namespace, space)| {
                let kinds = WorkloadKind::iter().filter(move |workload| kind.concerns(*workload));
                kinds.flat_map(move |kind| {
                    let names = space.of(kind).workloads.keys();
                    names.map(move |name| Changed { namespace: namespace.clone(), kind, name: name.clone() })
                })
            })
            .collect()
    }
}
