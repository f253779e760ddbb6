//! The state of the watched objects, without waiting.
//!
//! Plain synchronous methods behind one lock. A query for a workload of ten pods takes a few microseconds.

use parking_lot::RwLock;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use strum::IntoEnumIterator as _;
use tokio::sync::broadcast;

use super::{
    digest_key::DigestKey,
    facts::PodFacts,
    quantity::ContainerLimits,
    store::{Changed, Kind, Store, Touched},
    workload::{Current, LimitedPod, PodsPattern},
};
use crate::{
    analyze::observation::{Measured, UnknownReason, Unmeasured, Workload},
    api::{ConfigKind, WorkloadKind},
};

mod watched;
mod watches;

pub(super) use watched::Watched;
pub use watches::Hindrance;
use watches::{Failing, Watch};

/// How long a watch may fail, in seconds, before its facts are stale. Longer than a rolling restart of a control plane's
/// API server, which takes a few seconds.
pub const STALE_AFTER_S: i64 = 30;
/// Changes queued for a slow receiver, which is notified of dropped changes. Twice the workloads of a big cluster.
const CHANGES: usize = 4096;

/// The state of the watched objects. The watches write, everybody else reads.
pub struct ClusterIndex {
    inner: RwLock<Inner>,
    changes: broadcast::Sender<Changed>,
    /// For digests of Secrets.
    key: DigestKey,
}

#[derive(Default)]
struct Inner {
    store: Store,
    /// The watched namespaces; empty: all. None before the watches start.
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
    /// A receiver of changes from now on. Nothing is sent before the first listings are complete; then every workload is
    /// sent once. A receiver that lags (`RecvError::Lagged`) should check all workloads.
    ///
    /// A change by time alone (a pod that has been unready for too long) is not sent; the policy's interval covers these.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    pub(in crate::targets) fn digest_key(&self) -> DigestKey {
        self.key.clone()
    }

    /// The state of a workload, or why the state is unknown: TargetNotFound, NotInstalled, Unsettled (caches are filling, or
    /// the workload's controller lags behind), Forbidden, Unreachable (a watch has been failing for over
    /// [`STALE_AFTER_S`]), NotConfigured (the namespace is not watched).
    pub fn workload(&self, kind: WorkloadKind, namespace: &str, name: &str) -> Measured<Workload> {
        self.workload_at(kind, namespace, name, Timestamp::now())
    }

    pub fn workload_at(&self, kind: WorkloadKind, namespace: &str, name: &str, now: Timestamp) -> Measured<Workload> {
        let inner = self.inner.read();
        match inner.current(kind, namespace, name, now) {
            Ok(current) => {
                let config = inner.sees_config(namespace);
                Measured::Known(current.workload(|node| inner.node_lost(node), &config, now))
            }
            Err(why) => Measured::Unknown(why),
        }
    }

    /// A regular expression of the workload's pods that stays short with 1,000 of them: `NAME-HASH-.*` for every
    /// ReplicaSet that has pods, `NAME-[0-9]+` for a StatefulSet, `NAME-[a-z0-9]{5}` for a DaemonSet. With `of_release`
    /// only pods of the newest template, where names tell these apart (Deployment, Rollout). NoData when there is no such
    /// pod; else the errors of [`Self::workload`].
    pub fn pods_pattern(
        &self,
        kind: WorkloadKind,
        namespace: &str,
        name: &str,
        of_release: bool,
    ) -> Result<PodsPattern, Unmeasured> {
        self.inner.read().current(kind, namespace, name, Timestamp::now())?.pods_pattern(of_release)
    }

    /// The workload's running pods, on reachable nodes, with a container that has a limit; with `of_release` only pods of
    /// the newest template. Empty when the state of the workload is unknown.
    pub(super) fn limited_pods(
        &self,
        kind: WorkloadKind,
        namespace: &str,
        name: &str,
        of_release: bool,
        now: Timestamp,
    ) -> Vec<LimitedPod> {
        let inner = self.inner.read();
        let current = inner.current(kind, namespace, name, now);
        current.map_or_else(|_| Vec::new(), |current| current.limited_pods(of_release, |node| inner.node_lost(node)))
    }

    /// Images that pods of workloads in the namespace fail to pull, each with such a pod.
    pub fn unpulled_images(&self, namespace: &str) -> BTreeMap<String, String> {
        let inner = self.inner.read();
        let pods = inner.store.space(namespace).into_iter().flat_map(|space| &space.pods);
        let here = |pod: &PodFacts| !pod.terminating && !pod.node.as_deref().is_some_and(|node| inner.node_lost(node));
        pods.filter(|(_, pod)| here(&pod.facts))
            .flat_map(|(name, pod)| pod.facts.containers.iter().map(move |container| (name, container)))
            .filter_map(|(name, container)| Some((container.unpulled.as_deref()?.to_owned(), name.to_string())))
            .collect()
    }

    /// None when no workload controls the pod, or no container has a limit.
    pub(super) fn container_limits(&self, namespace: &str, pod: &str) -> Option<Arc<[ContainerLimits]>> {
        self.inner.read().store.pod((namespace, pod))?.limits.clone()
    }

    /// Every watch has completed its first listing, or was refused.
    pub fn ready(&self) -> bool {
        let inner = self.inner.read();
        inner.namespaces.is_some() && inner.watches.values().all(|watch| watch.synced || watch.is_barred())
    }

    pub fn apply(&self, object: &impl Watched) {
        self.apply_at(object, Timestamp::now());
    }

    /// `now` counts as the first observation of a pod's fault.
    pub fn apply_at(&self, object: &impl Watched, now: Timestamp) {
        self.update(|store| object.put(store, &self.key, now));
    }

    pub fn delete<K: Watched>(&self, object: &K) {
        self.update(|store| store.remove(K::KIND, object.place()));
    }

    /// The watches start now; empty: all namespaces. Before, every workload is Unsettled.
    pub fn watching(&self, namespaces: &[String]) {
        let mut inner = self.inner.write();
        for scope in scopes(namespaces) {
            for kind in Kind::iter().filter(|kind| *kind != Kind::Nodes) {
                inner.watches.entry((kind, scope.clone())).or_default();
            }
        }
        inner.watches.entry((Kind::Nodes, String::new())).or_default();
        inner.namespaces = Some(namespaces.to_vec());
    }

    /// A full listing starts and ends with [`Self::listed`].
    pub fn listing(&self, kind: Kind, scope: &str) {
        let mut inner = self.inner.write();
        let epoch = inner.store.begin();
        inner.watches.entry((kind, scope.to_owned())).or_default().listing = epoch;
    }

    /// The listing is complete: objects that it did not contain are gone.
    pub fn listed(&self, kind: Kind, scope: &str) {
        let mut inner = self.inner.write();
        let watch = inner.watches.entry((kind, scope.to_owned())).or_default();
        let (since, first) = (watch.listing, !watch.synced);
        watch.synced = true;
        let mut touched = inner.store.sweep(kind, scope, since);
        if first {
            touched.append(&mut inner.store.all(kind, scope));
        }
        self.notify(&inner, touched);
        drop(inner);
        self.watch_works(kind, scope);
    }

    /// The API server responds to this watch. True when the watch had been failing.
    pub fn watch_works(&self, kind: Kind, scope: &str) -> bool {
        let mut inner = self.inner.write();
        let recovered = inner.watches.get_mut(&(kind, scope.to_owned())).and_then(|watch| watch.failing.take());
        if recovered.is_some() {
            let touched = inner.store.all(kind, scope);
            self.notify(&inner, touched);
        }
        recovered.is_some()
    }

    /// This watch fails. True when it had been working, or failing for another reason.
    pub fn watch_fails(&self, kind: Kind, scope: &str, hindrance: Hindrance, message: String, now: Timestamp) -> bool {
        let mut inner = self.inner.write();
        let watch = inner.watches.entry((kind, scope.to_owned())).or_default();
        let before = watch.failing.as_ref();
        let since = before.map_or(now, |failing| failing.since);
        let first = before.is_none_or(|failing| failing.hindrance != hindrance);
        watch.failing = Some(Failing { since, hindrance, message });
        if first && hindrance == Hindrance::Forbidden && kind.is_spared() {
            // Workloads do not wait for these objects any more.
            let touched = inner.store.all(kind, scope);
            self.notify(&inner, touched);
        }
        first
    }

    fn update(&self, change: impl FnOnce(&mut Store) -> Touched) {
        let mut inner = self.inner.write();
        let touched = change(&mut inner.store);
        self.notify(&inner, touched);
    }

    /// Sends while the lock is held, so that changes arrive in their order; sending never waits.
    fn notify(&self, inner: &Inner, touched: Touched) {
        for changed in touched {
            if inner.synced(changed.kind, &changed.namespace) {
                // Fails without a receiver.
                let _ = self.changes.send(changed);
            }
        }
    }
}

impl Inner {
    /// A workload whose facts can be relied on.
    fn current<'a>(
        &'a self,
        kind: WorkloadKind,
        namespace: &str,
        name: &'a str,
        now: Timestamp,
    ) -> Result<Current<'a>, Unmeasured> {
        self.usable(kind, namespace, now)?;
        Current::find(&self.store, kind, namespace, name)
    }

    /// The watches that a workload of this kind and namespace depends on, without nodes.
    fn watches(&self, workload: WorkloadKind, namespace: &str) -> impl Iterator<Item = (Kind, Option<&Watch>)> {
        let scope = self.scope(namespace);
        Kind::of(workload).into_iter().map(move |kind| (kind, self.watches.get(&(kind, scope.clone()))))
    }

    /// The kinds of configuration whose facts can be relied on. None of them while one is still listing: a missing object
    /// would look as if the template did not name it any more.
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

    /// Whether the facts of a namespace can be relied on.
    fn usable(&self, workload: WorkloadKind, namespace: &str, now: Timestamp) -> Result<(), Unmeasured> {
        let filling = |kind: Kind| {
            Unmeasured::new(UnknownReason::Unsettled, format!("the first listing of {kind} is not complete yet"))
        };
        match &self.namespaces {
            None => return Err(Unmeasured::new(UnknownReason::Unsettled, "the watches are not started yet")),
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
            let is_stale = |since: Timestamp| now.duration_since(since) > SignedDuration::from_secs(STALE_AFTER_S);
            let (reason, why) = match &watch.failing {
                Some(Failing { hindrance: Hindrance::NotInstalled, .. }) => (
                    UnknownReason::NotInstalled,
                    format!(
                        "this cluster has no kind {workload}: the CustomResourceDefinition {}.{} is not installed; checking again",
                        workload.plural(),
                        workload.group()
                    ),
                ),
                Some(Failing { hindrance: Hindrance::Forbidden, message, .. }) => {
                    (UnknownReason::Forbidden, format!("not allowed to watch {kind}: {message}"))
                }
                Some(Failing { since, message, .. }) if is_stale(*since) => (
                    UnknownReason::Unreachable,
                    format!("the watch of {kind} has been failing since {since:.0}: {message}"),
                ),
                _ if !watch.synced => return Err(filling(kind)),
                _ => continue,
            };
            return Err(Unmeasured::new(reason, why));
        }
        // Without the right to list nodes all count as ready; but while they are still listing, a pod on a lost node
        // would look like a fault.
        match self.nodes() {
            Some(nodes) if !nodes.synced && !nodes.is_barred() => Err(filling(Kind::Nodes)),
            _ => Ok(()),
        }
    }

    /// Not ready, or gone; false when nodes cannot be listed.
    fn node_lost(&self, name: &str) -> bool {
        let visible = self.nodes().is_some_and(|nodes| nodes.synced && !nodes.is_barred());
        visible && !self.store.nodes.get(name).is_some_and(|node| node.facts)
    }
}

/// One watch of each kind per scope; empty: all namespaces.
pub(super) fn scopes(namespaces: &[String]) -> Vec<String> {
    if namespaces.is_empty() { vec![String::new()] } else { namespaces.to_vec() }
}

#[cfg(test)]
mod revision_tests;
#[cfg(test)]
mod rollout_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod watch_tests;
