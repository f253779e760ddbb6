//! What needs no cluster: one binary, so that the stack is linked once.

#[path = "../support/postgres.rs"]
mod postgres;

mod http;
mod knowledge;
mod prometheus;
