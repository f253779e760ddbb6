//! The stand-ins for providers' APIs as a program: `cargo run --example stand-ins`. It prints the environment that leads an
//! operator to them, and runs until it is ended. `make cluster` runs it.
//!
//! What a person turns, as in `curl -X POST $RENDER_STAND_IN/services/srv-shop`:
//!
//! | | adds one | releases a version, bad when `failing` is above 0 |
//! |---|---|---|
//! | `$RENDER_STAND_IN` | `/services/srv-shop` | `/services/srv-shop/push` with `{"commit": "abc", "failing": 0.5}` |
//! | `$VERCEL_STAND_IN` | `/projects/prj_shop` | `/projects/prj_shop/push` with the same |
//! | `$GITHUB_STAND_IN` | `/repos/octo-org/shop` | `/repos/octo-org/shop/push` with the same; it has a workflow rollback.yml |
//!
//! Render's service can be broken as it is: `/services/srv-shop/failing` with `{"share": 0.5}`, and
//! `/services/srv-shop/bad-env` with `{"key": "MODE", "value": "bad"}` has every deploy fail that runs with that variable (variables
//! take effect with the next deploy). `/postgres/dpg-shop` with `{"standby": true}` adds a Postgres, and `/postgres/dpg-shop/down`
//! takes it down until it is restarted or its standby takes over. Vercel and GitHub tell no
//! error rate: `$VERCEL_STAND_IN/prometheus` answers as Prometheus would, asked for `prj_shop`, and GitHub's for `octo-org/shop`. Of each, `/calls` says how often it was asked,
//! and `/faults` and `/limits` make it refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, reason = "shared with the tests, which use all of it")]

#[path = "../support/door.rs"]
mod door;
#[path = "../support/github/mod.rs"]
mod github;
#[path = "../support/render/mod.rs"]
mod render;
#[path = "../support/vercel/mod.rs"]
mod vercel;
#[path = "../support/wait.rs"]
mod wait;

#[tokio::main]
async fn main() {
    let (render, vercel) = (render::FakeRender::start().await, vercel::FakeVercel::start().await);
    let github = github::FakeGithub::start().await;
    for (name, value) in [
        ("RENDER_STAND_IN", render.control_url()),
        ("RENDER_BASE_URL", render.url()),
        ("RENDER_API_KEY", render::API_KEY.to_owned()),
        ("VERCEL_STAND_IN", vercel.control_url()),
        ("VERCEL_BASE_URL", vercel.url()),
        ("VERCEL_TOKEN", vercel::TOKEN.to_owned()),
        ("GITHUB_STAND_IN", github.control_url()),
        ("GITHUB_BASE_URL", github.url()),
        ("GITHUB_TOKEN", github::TOKEN.to_owned()),
    ] {
        println!("{name}={value}");
    }
    println!("ready");
    tokio::signal::ctrl_c().await.expect("SIGINT can be listened to");
}
