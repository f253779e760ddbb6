//! The kinds of objects that are watched, and the facts that are stored of each.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    core::v1::{ConfigMap, Node, Pod, Secret},
};
use kube::Resource;
use serde::de::DeserializeOwned;

use crate::{
    api::{ConfigKind, WorkloadKind},
    targets::kubernetes::{
        config::config_digest,
        digest_key::DigestKey,
        facts::{PodFacts, RevisionFacts, Rollout, WorkloadFacts, node_ready},
        store::{Kind, Place, Store, Touched},
    },
};

/// A kind of object that is watched.
pub trait Watched: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static {
    const KIND: Kind;
    /// Selectors; none: all objects.
    const LABELS: Option<&str> = None;
    const FIELDS: Option<&str> = None;

    fn put(&self, store: &mut Store, key: &DigestKey, now: Timestamp) -> Touched;

    fn place(&self) -> Place<'_> {
        let metadata = self.meta();
        (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
    }
}

macro_rules! workload {
    ($type:ident, $kind:ident, $facts:ident) => {
        impl Watched for $type {
            const KIND: Kind = Kind::$kind;

            fn put(&self, store: &mut Store, _: &DigestKey, _: Timestamp) -> Touched {
                store.put_workload(WorkloadKind::$type, self.place(), Some(WorkloadFacts::$facts(self)))
            }
        }
    };
}
workload!(Deployment, Deployments, deployment);
workload!(StatefulSet, StatefulSets, stateful_set);
workload!(DaemonSet, DaemonSets, daemon_set);
workload!(Rollout, Rollouts, rollout);

impl Watched for ReplicaSet {
    const KIND: Kind = Kind::ReplicaSets;

    fn put(&self, store: &mut Store, _: &DigestKey, _: Timestamp) -> Touched {
        let mut touched = store.put_revision(WorkloadKind::Deployment, self.place(), RevisionFacts::replica_set(self));
        touched.append(&mut store.put_revision(WorkloadKind::Rollout, self.place(), RevisionFacts::of_rollout(self)));
        touched
    }
}

impl Watched for ControllerRevision {
    const KIND: Kind = Kind::ControllerRevisions;

    fn put(&self, store: &mut Store, _: &DigestKey, _: Timestamp) -> Touched {
        let kinds = [WorkloadKind::StatefulSet, WorkloadKind::DaemonSet].into_iter();
        let facts = |kind| RevisionFacts::controller_revision(self, kind);
        kinds.flat_map(|kind| store.put_revision(kind, self.place(), facts(kind))).collect()
    }
}

impl Watched for Pod {
    const KIND: Kind = Kind::Pods;

    fn put(&self, store: &mut Store, _: &DigestKey, now: Timestamp) -> Touched {
        let facts = PodFacts::new(self, store.pod(self.place()), now);
        store.put_pod(self.place(), facts)
    }
}

impl Watched for ConfigMap {
    const KIND: Kind = Kind::ConfigMaps;

    fn put(&self, store: &mut Store, _: &DigestKey, _: Timestamp) -> Touched {
        store.put_config(ConfigKind::ConfigMap, self.place(), Some(config_digest(self)))
    }
}

/// Only a digest is stored. Secrets are not watched before the key is known.
impl Watched for Secret {
    const KIND: Kind = Kind::Secrets;
    // Our own snapshots are no configuration.
    const LABELS: Option<&str> = Some("!panacea.dev/policy");
    // Many, large or short-lived, and not used to configure a workload.
    const FIELDS: Option<&str> = Some("type!=kubernetes.io/service-account-token,type!=helm.sh/release.v1");

    fn put(&self, store: &mut Store, key: &DigestKey, _: Timestamp) -> Touched {
        store.put_config(ConfigKind::Secret, self.place(), key.secret_digest(self))
    }
}

impl Watched for Node {
    const KIND: Kind = Kind::Nodes;

    fn put(&self, store: &mut Store, _: &DigestKey, _: Timestamp) -> Touched {
        store.put_node(self.place().1, Some(node_ready(self)))
    }
}
