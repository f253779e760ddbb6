//! Panacea: a Kubernetes operator that detects failures, heals them, verifies the effect, and records every step.
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
//! # The modules, in reading order
//!
//! - [`api`]: HealingPolicy and Remediation as Kubernetes types, validated into the values that the other modules take. A
//!   new field starts here.
//! - [`analyze`]: observations → score, status, trend, forecast, cause, confirmed bad or healthy.
//! - [`plan`]: assessment + policy + history → at most one action per component, through every guard. A new guard goes here.
//! - [`targets`]: everything that can be observed and changed, one folder per target, behind two traits. A new target or
//!   action goes here.
//! - [`knowledge`]: the SQL ledger `unified_brain`, on Postgres and SQLite. A new row or query goes here.
//! - [`controller`]: the two controllers that connect the modules to the API server.
//! - [`server`]: /metrics, /healthz, /readyz; the server of the Model Context Protocol.
//! - [`postgres_url`]: URL or Secret of a PostgreSQL server → connection options; for targets and for the ledger.
//! - [`cli`]: arguments → validated configuration; one file per subcommand.
//!
//! # Invariants
//!
//! - `analyze` and `plan` do no I/O, read no clock and use no type of kube, sqlx, reqwest or tokio.
//! - Targets return data and outcomes; only `plan` decides. A change outside the operator needs a [`plan::guard::Permit`], which
//!   only the guards create.
//! - Every step of an action is decided by a pure function with a model test ([`targets::executor`]); progress is stored
//!   before the effect.
//! - "Could not measure" is a separate value from the target to the status: never zero, never healthy, never a reason to act.
//! - Intent is stored before its side effect; "executed" is not "fixed".
//! - Every wait has a limit; every list is capped; every retry is bounded, with backoff by the class of its error.
//! - Status is written only when it differs; a status write never triggers its own controller.

pub mod analyze;
pub mod api;
pub mod cli;
pub mod controller;
pub mod knowledge;
pub mod plan;
pub mod postgres_url;
pub mod server;
pub mod targets;
