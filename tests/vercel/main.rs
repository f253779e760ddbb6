//! The stand-in for Vercel's API as a program: `cargo run --example vercel-fake -- 127.0.0.1:8198`. It prints what to set,
//! and runs until it is ended. `POST /_fake/projects/prj_1` adds a project, `/_fake/projects/prj_1/push` with
//! `{"commit": "abc", "failing": 0.5}` releases a bad version. Half of its requests fail then, says what it prints as PROMETHEUS_URL
//! when it is asked for `prj_1`.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, reason = "shared with the tests, which use all of it")]

#[path = "../support/door.rs"]
mod door;
#[path = "../support/vercel/mod.rs"]
mod vercel;
#[path = "../support/wait.rs"]
mod wait;

use std::net::SocketAddr;

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8198".to_owned());
    let address: SocketAddr = address.parse().expect("the argument is an address, as 127.0.0.1:8198");
    let fake = vercel::FakeVercel::listen(address).await;
    println!("export VERCEL_BASE_URL={} VERCEL_TOKEN={}", fake.url(), vercel::TOKEN);
    println!("export PROMETHEUS_URL={}", fake.prometheus());
    tokio::signal::ctrl_c().await.expect("SIGINT can be listened to");
}
