//! The stand-in for Render's API as a program: `cargo run --example render-fake -- 127.0.0.1:8199`. It prints what to set,
//! and runs until it is ended. `POST /_fake/services/srv-1` adds a service, `/_fake/services/srv-1/failing` with
//! `{"share": 0.5}` breaks it, `/_fake/services/srv-1/push` with `{"commit": "abc", "failing": 0.5}` releases a bad version.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, reason = "shared with the tests, which use all of it")]

#[path = "../support/door.rs"]
mod door;
#[path = "../support/render/mod.rs"]
mod render;
#[path = "../support/wait.rs"]
mod wait;

use std::net::SocketAddr;

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8199".to_owned());
    let address: SocketAddr = address.parse().expect("the argument is an address, as 127.0.0.1:8199");
    let fake = render::FakeRender::listen(address).await;
    println!("export RENDER_BASE_URL={} RENDER_API_KEY={}", fake.url(), render::API_KEY);
    tokio::signal::ctrl_c().await.expect("SIGINT can be listened to");
}
