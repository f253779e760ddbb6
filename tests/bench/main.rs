//! Measurements: of the ledger on real databases, of hosted services on a stand-in at the provider's real limits, of the rest
//! on the real control plane, against a release build of the operator; the figures go to docs/benchmarks.md. `make bench-…`
//! runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

mod figures;
mod hosting;
mod ledger;
mod ledger_queries;
mod memory;
mod mttr;
mod remedies;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("mttr") => mttr::measure().await,
        Some("hosting") => hosting::measure().await,
        Some("ledger") => ledger::measure().await,
        Some("memory") => memory::measure().await,
        Some("memory-http") => memory::measure_http().await,
        Some("remedies") => remedies::measure().await,
        Some("ledger-queries") => ledger_queries::measure().await,
        _ => {
            eprintln!(
                "usage: bench hosting|ledger|ledger-queries, or bench mttr|memory|memory-http|remedies in a cluster: see make bench-hosting, make bench-ledger, make bench-mttr, make bench-memory, make bench-memory-http, make bench-remedies"
            );
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
