//! The facts of all objects, and which belongs to which. Plain data under the index's lock.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::facts::{DeploymentFacts, PodFacts, ReplicaSetFacts};

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display)]
pub enum Kind {
    Deployments,
    ReplicaSets,
    Pods,
    Nodes,
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

/// The objects of one namespace. The two reverse maps hold names, also of owners that have not arrived yet: the four
/// watches run at their own pace.
#[derive(Debug, Default)]
pub(super) struct Space {
    pub deployments: HashMap<Arc<str>, Seen<DeploymentFacts>>,
    pub sets: HashMap<Box<str>, Seen<ReplicaSetFacts>>,
    pub pods: HashMap<Box<str>, Seen<PodFacts>>,
    pub sets_of: HashMap<Box<str>, BTreeSet<Box<str>>>,
    pub pods_of: HashMap<Box<str>, BTreeSet<Box<str>>>,
}

/// Deployments to be looked at, by namespace and name.
pub(super) type Touched = BTreeSet<(Arc<str>, Arc<str>)>;

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

    pub(super) fn put_deployment(&mut self, namespace: &str, name: &str, facts: Option<DeploymentFacts>) -> Touched {
        let epoch = self.epoch;
        let (namespace, space) = self.space_mut(namespace);
        let name: Arc<str> = name.into();
        let changed = put(&mut space.deployments, name.clone(), facts, epoch);
        changed.then_some((namespace, name)).into_iter().collect()
    }

    pub(super) fn put_set(&mut self, namespace: &str, name: &str, facts: Option<ReplicaSetFacts>) -> Touched {
        let epoch = self.epoch;
        let (namespace, space) = self.space_mut(namespace);
        let before = space.sets.get(name).map(|seen| seen.facts.deployment.clone());
        let after = facts.as_ref().map(|facts| facts.deployment.clone());
        if !put(&mut space.sets, name.into(), facts, epoch) {
            return Touched::new();
        }
        if before != after {
            before.iter().for_each(|owner| unlink(&mut space.sets_of, owner, name));
            after.iter().for_each(|owner| link(&mut space.sets_of, owner.clone(), name));
        }
        before.into_iter().chain(after).map(|owner| (namespace.clone(), Arc::from(owner))).collect()
    }

    pub(super) fn put_pod(&mut self, namespace: &str, name: &str, facts: Option<PodFacts>) -> Touched {
        let epoch = self.epoch;
        let (namespace, space) = self.space_mut(namespace);
        let before = space.pods.get(name).map(|seen| seen.facts.replica_set.clone());
        let after = facts.as_ref().map(|facts| facts.replica_set.clone());
        if !put(&mut space.pods, name.into(), facts, epoch) {
            return Touched::new();
        }
        if before != after {
            before.iter().for_each(|owner| unlink(&mut space.pods_of, owner, name));
            after.iter().for_each(|owner| link(&mut space.pods_of, owner.clone(), name));
        }
        let owners: BTreeSet<_> = before.into_iter().chain(after).collect();
        owners
            .iter()
            .filter_map(|set| space.sets.get(set))
            .map(|set| (namespace.clone(), Arc::from(&*set.facts.deployment)))
            .collect()
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
                if let Some(set) = space.sets.get(&pod.facts.replica_set) {
                    touched.insert((namespace.clone(), Arc::from(&*set.facts.deployment)));
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
            let Some(space) = self.spaces.get(&namespace) else { continue };
            let names = match kind {
                Kind::Deployments => gone(&space.deployments, since),
                Kind::ReplicaSets => gone(&space.sets, since),
                Kind::Pods => gone(&space.pods, since),
                Kind::Nodes => Vec::new(),
            };
            for name in names {
                let mut more = match kind {
                    Kind::Deployments => self.put_deployment(&namespace, &name, None),
                    Kind::ReplicaSets => self.put_set(&namespace, &name, None),
                    Kind::Pods => self.put_pod(&namespace, &name, None),
                    Kind::Nodes => Touched::new(),
                };
                touched.append(&mut more);
            }
        }
        self.spaces
            .retain(|_, space| !(space.deployments.is_empty() && space.sets.is_empty() && space.pods.is_empty()));
        touched
    }

    /// All Deployments of a namespace; empty: of all.
    pub(super) fn all(&self, scope: &str) -> Touched {
        self.spaces
            .iter()
            .filter(|(namespace, _)| scope.is_empty() || ***namespace == *scope)
            .flat_map(|(namespace, space)| space.deployments.keys().map(|name| (namespace.clone(), name.clone())))
            .collect()
    }
}
