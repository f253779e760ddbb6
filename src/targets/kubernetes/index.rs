//! What the watches know, in a form that answers at once.
//!
//! Plain synchronous methods behind one lock: apply an object and look. Nothing here waits, and a look at a workload
//! of ten pods takes a few microseconds.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    core::v1::{ConfigMap, Node, Pod, Secret},
};
use kube::ResourceExt as _;
use strum::IntoEnumIterator as _;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::{
    config::config_digest,
    digest_key::DigestKey,
    facts::{PodFacts, RevisionFacts, Rollout, WorkloadFacts, node_ready},
    quantity::ContainerLimits,
    store::{Changed, Kind, Store, Touched},
    workload::{Current, LimitedPod, PodsPattern},
};
use crate::{
    analyze::observation::{Measured, UnknownReason, Unmeasured, Workload},
    api::{ConfigKind, WorkloadKind},
};

mod watches;

pub use watches::Hindrance;
use watches::{Failing, Watch};

/// How long a watch may be failing, in seconds, before what it last said is no measurement any more. Longer than a
/// rolling restart of a control plane's API server, which takes a few seconds.
pub const STALE_AFTER_S: i64 = 30;
/// Changes that wait for a slow receiver; it is told when some were dropped. Twice the workloads of a big cluster.
const CHANGES: usize = 4096;
/// Whose templates ControllerRevisions hold.
const CONTROLLER_REVISIONS_OF: [WorkloadKind; 2] = [WorkloadKind::StatefulSet, WorkloadKind::DaemonSet];

/// What the watches know. Shared by the tasks that feed it and everybody who looks.
pub struct ClusterIndex {
    inner: RwLock<Inner>,
    changes: broadcast::Sender<Changed>,
    /// What digests of Secrets are made with.
    key: DigestKey,
}

#[derive(Default)]
struct Inner {
    store: Store,
    /// The namespaces that are watched; empty: all. None until the watches were started.
    namespaces: Option<Vec<String>>,
    /// By kind and scope (a namespace; empty: all).
    watches: HashMap<(Kind, String), Watch>,
}

impl Default for ClusterIndex {
    fn default() -> Self {
        Self { inner: RwLock::default(), changes: broadcast::channel(CHANGES).0, key: DigestKey::default() }
    }
}

impl ClusterIndex {
    /// A receiver of what changes from now on. Nothing is told before the first listings are complete; then every
    /// workload is, once. A receiver that lags (`RecvError::Lagged`) should look at everything.
    ///
    /// What only time brings about (a pod that has been unready for too long) is not told: the policy's interval is
    /// there for that.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    pub(in crate::targets) fn digest_key(&self) -> DigestKey {
        self.key.clone()
    }

    /// The state of a workload, or why it is not known: TargetNotFound, NotInstalled, Unsettled (caches are filling, or the workload's
    /// controller has not caught up), Forbidden, Unreachable (a watch has been failing for over
    /// [`STALE_AFTER_S`]), NotConfigured (the namespace is not watched).
    pub fn workload(&self, kind: WorkloadKind, namespace: &str, name: &str) -> Measured<Workload> {
        self.workload_at(kind, namespace, name, Timestamp::now())
    }

    /// The same with the time given.
    pub fn workload_at(&self, kind: WorkloadKind, namespace: &str, name: &str, now: Timestamp) -> Measured<Workload> {
        let inner = self.read();
        let current =
            inner.usable(kind, namespace, now).and_then(|()| Current::find(&inner.store, kind, namespace, name));
        match current {
            Ok(current) => {
                let config = inner.sees_config(namespace);
                Measured::Known(current.workload(|node| inner.node_lost(node), &config, now))
            }
            Err(why) => Measured::Unknown(why),
        }
    }

    /// A regular expression of the workload's pods that stays short with 1,000 of them: `NAME-HASH-.*` for every
    /// ReplicaSet that has pods, `NAME-[0-9]+` for a StatefulSet, `NAME-[a-z0-9]{5}` for a DaemonSet. With `of_release`
    /// only the newest template's, where names tell these apart, which they do for a Deployment and a Rollout.
    ///
    /// # Errors
    /// As for [`Self::workload`], and NoData when there is no such pod.
    pub fn pods_pattern(
        &self,
        kind: WorkloadKind,
        namespace: &str,
        name: &str,
        of_release: bool,
    ) -> Result<PodsPattern, Unmeasured> {
        let inner = self.read();
        inner.usable(kind, namespace, Timestamp::now())?;
        Current::find(&inner.store, kind, namespace, name)?.pods_pattern(of_release)
    }

    /// The workload's running pods, on nodes that are there, with a container that has a limit; with `of_release` only
    /// those of the newest template. None where the workload cannot be looked at.
    pub(super) fn limited_pods(
        &self,
        kind: WorkloadKind,
        namespace: &str,
        name: &str,
        of_release: bool,
        now: Timestamp,
    ) -> Vec<LimitedPod> {
        let inner = self.read();
        let current =
            inner.usable(kind, namespace, now).and_then(|()| Current::find(&inner.store, kind, namespace, name));
        current.map_or_else(|_| Vec::new(), |current| current.limited_pods(of_release, |node| inner.node_lost(node)))
    }

    /// Images that pods of the namespace wait for in vain, each with such a pod. Pods of workloads alone are known.
    pub fn unpulled_images(&self, namespace: &str) -> BTreeMap<String, String> {
        let inner = self.read();
        let pods = inner.store.space(namespace).into_iter().flat_map(|space| &space.pods);
        let here = |pod: &PodFacts| !pod.terminating && !pod.node.as_deref().is_some_and(|node| inner.node_lost(node));
        pods.filter(|(_, pod)| here(&pod.facts))
            .flat_map(|(name, pod)| pod.facts.containers.iter().map(move |container| (name, container)))
            .filter_map(|(name, container)| Some((container.unpulled.as_deref()?.to_owned(), name.to_string())))
            .collect()
    }

    /// What the containers of a pod may use; None when no workload controls it, or none of them has a limit.
    pub(super) fn container_limits(&self, namespace: &str, pod: &str) -> Option<Arc<[ContainerLimits]>> {
        self.read().store.pod(namespace, pod)?.limits.clone()
    }

    /// Every watch has completed its first listing, or was refused: there is something to say about every workload.
    pub fn ready(&self) -> bool {
        let inner = self.read();
        inner.namespaces.is_some() && inner.watches.values().all(|watch| watch.synced || watch.is_barred())
    }

    pub fn apply_deployment(&self, deployment: &Deployment) {
        self.put_workload(WorkloadKind::Deployment, deployment, Some(WorkloadFacts::deployment(deployment)));
    }

    pub fn delete_deployment(&self, deployment: &Deployment) {
        self.put_workload(WorkloadKind::Deployment, deployment, None);
    }

    pub fn apply_stateful_set(&self, set: &StatefulSet) {
        self.put_workload(WorkloadKind::StatefulSet, set, Some(WorkloadFacts::stateful_set(set)));
    }

    pub fn delete_stateful_set(&self, set: &StatefulSet) {
        self.put_workload(WorkloadKind::StatefulSet, set, None);
    }

    pub fn apply_daemon_set(&self, set: &DaemonSet) {
        self.put_workload(WorkloadKind::DaemonSet, set, Some(WorkloadFacts::daemon_set(set)));
    }

    pub fn delete_daemon_set(&self, set: &DaemonSet) {
        self.put_workload(WorkloadKind::DaemonSet, set, None);
    }

    pub(super) fn apply_rollout(&self, rollout: &Rollout) {
        self.put_workload(WorkloadKind::Rollout, rollout, Some(WorkloadFacts::rollout(rollout)));
    }

    pub(super) fn delete_rollout(&self, rollout: &Rollout) {
        self.put_workload(WorkloadKind::Rollout, rollout, None);
    }

    pub fn apply_replica_set(&self, set: &ReplicaSet) {
        self.put_revision(WorkloadKind::Deployment, set, RevisionFacts::replica_set(set));
        self.put_revision(WorkloadKind::Rollout, set, RevisionFacts::of_rollout(set));
    }

    pub fn delete_replica_set(&self, set: &ReplicaSet) {
        self.put_revision(WorkloadKind::Deployment, set, None);
        self.put_revision(WorkloadKind::Rollout, set, None);
    }

    pub fn apply_controller_revision(&self, revision: &ControllerRevision) {
        for kind in CONTROLLER_REVISIONS_OF {
            self.put_revision(kind, revision, RevisionFacts::controller_revision(revision, kind));
        }
    }

    pub fn delete_controller_revision(&self, revision: &ControllerRevision) {
        for kind in CONTROLLER_REVISIONS_OF {
            self.put_revision(kind, revision, None);
        }
    }

    pub fn apply_pod(&self, pod: &Pod) {
        self.apply_pod_at(pod, Timestamp::now());
    }

    /// The same with the time given, which counts as the first sight of a trouble.
    pub fn apply_pod_at(&self, pod: &Pod, now: Timestamp) {
        let (namespace, name) = (namespace(pod), pod.name_any());
        self.update(|store| {
            let facts = PodFacts::new(pod, store.pod(&namespace, &name), now);
            store.put_pod(&namespace, &name, facts)
        });
    }

    pub fn delete_pod(&self, pod: &Pod) {
        self.update(|store| store.put_pod(&namespace(pod), &pod.name_any(), None));
    }

    pub fn apply_config_map(&self, map: &ConfigMap) {
        self.put_config(ConfigKind::ConfigMap, map, Some(config_digest(map)));
    }

    pub fn delete_config_map(&self, map: &ConfigMap) {
        self.put_config(ConfigKind::ConfigMap, map, None);
    }

    /// Nothing but a digest of it is held. They are not watched before the key is known.
    pub fn apply_secret(&self, secret: &Secret) {
        self.put_config(ConfigKind::Secret, secret, self.key.secret_digest(secret));
    }

    pub fn delete_secret(&self, secret: &Secret) {
        self.put_config(ConfigKind::Secret, secret, None);
    }

    pub fn apply_node(&self, node: &Node) {
        self.update(|store| store.put_node(&node.name_any(), Some(node_ready(node))));
    }

    pub fn delete_node(&self, node: &Node) {
        self.update(|store| store.put_node(&node.name_any(), None));
    }

    /// The watches are about to start; empty: all namespaces. Until then every look is Unsettled.
    pub fn watching(&self, namespaces: &[String]) {
        let mut inner = self.write();
        for scope in scopes(namespaces) {
            for kind in Kind::iter().filter(|kind| *kind != Kind::Nodes) {
                inner.watches.entry((kind, scope.clone())).or_default();
            }
        }
        inner.watches.entry((Kind::Nodes, String::new())).or_default();
        inner.namespaces = Some(namespaces.to_vec());
    }

    /// A full listing of what a watch sees begins: until [`Self::listed`], objects are applied as ever.
    pub fn listing(&self, kind: Kind, scope: &str) {
        let mut inner = self.write();
        let epoch = inner.store.begin();
        inner.watches.entry((kind, scope.to_owned())).or_default().listing = epoch;
    }

    /// The listing is complete: what it did not contain is gone.
    pub fn listed(&self, kind: Kind, scope: &str) {
        let mut inner = self.write();
        let watch = inner.watches.entry((kind, scope.to_owned())).or_default();
        let (since, first) = (watch.listing, !watch.synced);
        watch.synced = true;
        let mut touched = inner.store.sweep(kind, scope, since);
        if first {
            touched.append(&mut inner.store.all(kind, scope));
        }
        self.tell(&inner, touched);
        drop(inner);
        self.watch_works(kind, scope);
    }

    /// The API server answers this watch. True when it had been failing.
    pub fn watch_works(&self, kind: Kind, scope: &str) -> bool {
        let mut inner = self.write();
        let recovered = inner.watches.get_mut(&(kind, scope.to_owned())).and_then(|watch| watch.failing.take());
        if recovered.is_some() {
            let touched = inner.store.all(kind, scope);
            self.tell(&inner, touched);
        }
        recovered.is_some()
    }

    /// This watch does not get through. True when it had been working, or failing for another reason.
    pub fn watch_fails(&self, kind: Kind, scope: &str, hindrance: Hindrance, message: String, now: Timestamp) -> bool {
        let mut inner = self.write();
        let watch = inner.watches.entry((kind, scope.to_owned())).or_default();
        let before = watch.failing.as_ref();
        let since = before.map_or(now, |failing| failing.since);
        let first = before.is_none_or(|failing| failing.hindrance != hindrance);
        watch.failing = Some(Failing { since, hindrance, message });
        if first && hindrance == Hindrance::Forbidden && kind.is_spared() {
            // Nothing waits for these any more.
            let touched = inner.store.all(kind, scope);
            self.tell(&inner, touched);
        }
        first
    }

    fn put_workload(&self, kind: WorkloadKind, object: &impl kube::Resource, facts: Option<WorkloadFacts>) {
        self.update(|store| store.put_workload(kind, &namespace(object), &object.name_any(), facts));
    }

    fn put_revision(&self, kind: WorkloadKind, object: &impl kube::Resource, facts: Option<RevisionFacts>) {
        self.update(|store| store.put_revision(kind, &namespace(object), &object.name_any(), facts));
    }

    fn put_config(&self, kind: ConfigKind, object: &impl kube::Resource, digest: Option<Uuid>) {
        self.update(|store| store.put_config(kind, &namespace(object), &object.name_any(), digest));
    }

    fn update(&self, change: impl FnOnce(&mut Store) -> Touched) {
        let mut inner = self.write();
        let touched = change(&mut inner.store);
        self.tell(&inner, touched);
    }

    /// Sends while the lock is held, so that changes arrive in their order; sending never waits.
    fn tell(&self, inner: &Inner, touched: Touched) {
        for changed in touched {
            if inner.synced(changed.kind, &changed.namespace) {
                // Nobody listening is fine.
                let _ = self.changes.send(changed);
            }
        }
    }

    // Facts are plain data, replaced whole: a panic elsewhere cannot leave them half written.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write()
    }
}

impl Inner {
    /// The watches that a workload of this kind and namespace stands on, nodes apart.
    fn watches(&self, workload: WorkloadKind, namespace: &str) -> impl Iterator<Item = (Kind, Option<&Watch>)> {
        let scope = self.scope(namespace);
        Kind::of(workload).into_iter().map(move |kind| (kind, self.watches.get(&(kind, scope.clone()))))
    }

    /// The kinds of configuration of which what is known may be taken as the truth. While one of them is only late, none
    /// is: what is not there yet would look as if it were not named any more.
    fn sees_config(&self, namespace: &str) -> Vec<ConfigKind> {
        let scope = self.scope(namespace);
        let mut seen = Vec::new();
        for (kind, config) in [(Kind::ConfigMaps, ConfigKind::ConfigMap), (Kind::Secrets, ConfigKind::Secret)] {
            match self.watches.get(&(kind, scope.clone())) {
                Some(watch) if watch.is_barred() => {}
                Some(watch) if watch.synced && watch.failing.is_none() => seen.push(config),
                _ => return Vec::new(),
            }
        }
        seen
    }

    fn scope(&self, namespace: &str) -> String {
        match &self.namespaces {
            Some(namespaces) if !namespaces.is_empty() => namespace.to_owned(),
            _ => String::new(),
        }
    }

    fn nodes(&self) -> Option<&Watch> {
        self.watches.get(&(Kind::Nodes, String::new()))
    }

    fn synced(&self, workload: WorkloadKind, namespace: &str) -> bool {
        self.watches(workload, namespace).all(|(_, watch)| watch.is_some_and(|watch| watch.synced))
    }

    /// Whether what is stored about a namespace may be taken as the truth.
    fn usable(&self, workload: WorkloadKind, namespace: &str, now: Timestamp) -> Result<(), Unmeasured> {
        let filling = |kind: Kind| {
            Unmeasured::new(UnknownReason::Unsettled, format!("the first listing of {kind} is not complete yet"))
        };
        match &self.namespaces {
            None => return Err(Unmeasured::new(UnknownReason::Unsettled, "the watches were not started yet")),
            Some(watched) if !watched.is_empty() && !watched.iter().any(|watched| watched == namespace) => {
                return Err(Unmeasured::new(
                    UnknownReason::NotConfigured,
                    format!("the operator does not watch namespace {namespace}; it watches {}", watched.join(", ")),
                ));
            }
            Some(_) => {}
        }
        for (kind, watch) in self.watches(workload, namespace) {
            let Some(watch) = watch else { return Err(filling(kind)) };
            match &watch.failing {
                Some(failing) if failing.hindrance == Hindrance::NotInstalled => {
                    return Err(Unmeasured::new(
                        UnknownReason::NotInstalled,
                        format!(
                            "this cluster has no kind {workload}: the CustomResourceDefinition {}.{} is not installed; it is looked for again",
                            workload.plural(),
                            workload.group()
                        ),
                    ));
                }
                Some(failing) if failing.hindrance == Hindrance::Forbidden => {
                    return Err(Unmeasured::new(
                        UnknownReason::Forbidden,
                        format!("not allowed to watch {kind}: {}", failing.message),
                    ));
                }
                Some(failing) if now.duration_since(failing.since) > SignedDuration::from_secs(STALE_AFTER_S) => {
                    return Err(Unmeasured::new(
                        UnknownReason::Unreachable,
                        format!("the watch of {kind} has been failing since {:.0}: {}", failing.since, failing.message),
                    ));
                }
                _ if !watch.synced => return Err(filling(kind)),
                _ => {}
            }
        }
        // Without the right to see nodes all count as ready; but while they are only late, a pod on a lost node would
        // look like a fault.
        match self.nodes() {
            Some(nodes) if !nodes.synced && !nodes.is_barred() => Err(filling(Kind::Nodes)),
            _ => Ok(()),
        }
    }

    /// Not ready, or gone; never so when nodes cannot be seen.
    fn node_lost(&self, name: &str) -> bool {
        let visible = self.nodes().is_some_and(|nodes| nodes.synced && !nodes.is_barred());
        visible && !self.store.nodes.get(name).is_some_and(|node| node.facts)
    }
}

/// What one watch of each kind covers.
pub(super) fn scopes(namespaces: &[String]) -> Vec<String> {
    if namespaces.is_empty() { vec![String::new()] } else { namespaces.to_vec() }
}

fn namespace(object: &impl kube::Resource) -> String {
    object.meta().namespace.clone().unwrap_or_default()
}

#[cfg(test)]
mod revision_tests;
#[cfg(test)]
mod rollout_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod watch_tests;
