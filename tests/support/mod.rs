//! What the tests on real parts share: the cluster that `tests/control-plane/with` started, a namespace and an
//! operator of the test's own, traffic that Prometheus scrapes, and waiting for conditions.
//!
//! Nothing here sleeps for luck: [`wait::until`] polls a condition with a deadline and says what it waited for.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(dead_code)] // Several programs share this room, and each uses a part of it.

pub mod apiserver;
pub mod audit;
pub mod cluster;
pub mod door;
pub mod gate;
pub mod github;
pub mod mcp;
pub mod node;
pub mod objects;
pub mod operator;
pub mod pgbouncer;
pub mod postgres;
pub mod prometheus;
pub mod render;
pub mod role;
pub mod rollouts;
pub mod shell;
pub mod tools;
pub mod traffic;
pub mod vercel;
pub mod wait;
