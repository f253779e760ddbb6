//! Panacea: a Kubernetes operator that sees failures, heals them, verifies that it helped, and writes down every step.
//!
//! # The loop
//!
//! ```text
//!            HealingPolicy (spec)                                   Remediation (spec, approval)
//!                   |                                                        |
//!   policy controller, every interval                        remediation controller, on each change
//!                   |                                                        |
//! monitor ──► analyze ──► plan ──► creates a Remediation ──► approve ──► execute ──► verify ──► record
//!   I/O        pure        pure        (intent, in etcd)                    I/O        I/O       I/O
//! ```
//!
//! # The rooms, in reading order
//!
//! - [`api`]: HealingPolicy and Remediation as Kubernetes types; parsed into a policy that the rooms take. A new field starts here.
//! - [`analyze`]: looks → score, status, trend, forecast, cause, confirmed bad or healthy. A new judgement goes here.
//! - [`plan`]: judgement + policy + history → at most one decision a component, through every guard. A new guard goes here.
//! - [`targets`]: what can be looked at and acted on: Kubernetes, hosting providers, databases, Prometheus, HTTP, MCP. A new target or action goes here.
//! - [`knowledge`]: the SQL ledger `unified_brain`, on Postgres and SQLite. A new row or query goes here.
//! - [`controller`]: the two controllers that tie the rooms to the API server.
//! - [`server`]: /metrics, /healthz, /readyz; the server of the Model Context Protocol.
//! - [`postgres_url`]: URL or Secret of a PostgreSQL server → how it is reached; of a target, and of the ledger.
//! - [`cli`]: arguments → validated configuration; one file a subcommand.
//!
//! # Invariants
//!
//! - `analyze` and `plan` do no I/O, read no clock and know no type of kube, sqlx, reqwest or tokio.
//! - Targets return data and outcomes; only `plan` decides; only the remediation controller changes anything outside.
//! - "Could not measure" is a value of its own from the platform to the status: never zero, never healthy, never a
//!   reason to act.
//! - Intent is stored before its side effect; "executed" is not "fixed".
//! - Every wait has a limit; every list is capped; every retry is bounded.
//! - Status is written only when it differs; nothing in it makes a controller wake itself.

pub mod analyze;
pub mod api;
pub mod cli;
pub mod controller;
pub mod knowledge;
pub mod plan;
pub mod postgres_url;
pub mod server;
pub mod targets;
