//! Kubernetes: what the watches know ([`ClusterIndex`]), the tasks that feed it ([`watch`]), and the two things that
//! are done to a Deployment ([`Kubernetes::rollback`], [`Kubernetes::restart`]).
//!
//! Looking uses the index and costs the API server nothing; acting never trusts it and reads live.

mod act;
mod act_error;
mod index;
pub mod watch;

pub use act::{Kubernetes, Outcome};
pub use act_error::ActError;
pub use index::{Changed, ClusterIndex};
