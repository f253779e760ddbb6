//! What needs no cluster: one binary, so that the stack is linked once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "../support/postgres.rs"]
mod postgres;

mod backtest;
mod capabilities;
mod crd_drift;
mod docs;
mod foresight;
mod hook;
mod house;
mod http;
mod knowledge;
mod ledger_page;
mod mcp_page;
mod policies;
mod prometheus;
mod readme;
mod wording;
