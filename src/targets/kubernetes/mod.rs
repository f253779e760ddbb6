//! Kubernetes: the state from the watches ([`ClusterIndex`]), the tasks that feed it ([`watch`]), and the actions on
//! workloads ([`Kubernetes`]).
//!
//! Health checks use the index and send no request, except for the usage of container limits ([`Usage`]); actions read live
//! objects.

mod act;
mod act_error;
mod cleanup;
mod config;
mod digest_key;
mod facts;
#[cfg(test)]
pub(in crate::targets) mod fake_server;
mod faults;
#[cfg(test)]
pub(in crate::targets) mod fixtures;
mod gitops;
mod index;
mod overwritten;
mod quantity;
pub mod spec;
mod store;
mod target;
mod template;
mod usage;
pub mod watch;
mod workload;
pub mod write;

pub use act::{
    ARGOCD_NAMESPACE, Evicted, Followed, Held, JobRun, JobState, Kubernetes, Named, Outcome, PodsSeen, SnapshotOf,
    WholeState, WorkloadRef,
};
pub use act_error::ActError;
pub use facts::REVISION;
pub use gitops::{Owner, OwnerKind};
pub use index::{ClusterIndex, STALE_AFTER_S};
pub use store::{Changed, Kind};
pub use target::{WorkloadTarget, executor};
pub use template::{REVISION_HASH, ROLLOUT_HASH, TEMPLATE_HASH, digest};
pub use usage::{Usage, Whose};
pub use workload::PodsPattern;
