//! What needs no cluster.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod house;
mod policies;
