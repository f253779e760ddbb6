//! The operator on a real Kubernetes API, with the ServiceAccount and arguments of the chart. Each test owns a
//! namespace, a database and an operator process; `tests/control-plane/with` (called by `make test`) starts the rest.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

mod approval;
mod check;
mod cleanup;
mod config;
mod crash_safety;
mod crds;
mod docs;
mod flux;
mod foresight;
mod github;
mod gitops;
mod gitops_suspend;
mod guards;
mod healing;
mod kept;
mod keys;
mod ledger;
mod manifests;
mod mcp;
mod mcp_remedy;
mod midway;
mod own;
mod postgres;
mod quiet;
mod render;
mod render_config;
mod render_postgres;
mod render_scale;
mod rollback_limits;
mod rollouts;
mod rollouts_killed;
mod scale;
mod secrets;
mod state;
mod usage;
mod vercel;
mod workloads;
mod writes;
mod wrong_policies;
