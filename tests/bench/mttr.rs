//! Seconds from the patch of a bad template until it is taken back, and until all ready pods are
//! good and Prometheus says below 1%; requests failed in that time at 100 a second. Beside it the floor: a person who
//! runs `kubectl rollout undo` the moment all pods are bad. Prints Markdown rows for docs/benchmarks.md.
//!
//! `RUNS` sets the runs of each row (default 10).

use std::time::Duration;

use crate::figures::shown;
use crate::support::{
    cluster::{Test, env, run},
    objects::{image_of, policy},
    operator::{Operator, Options},
    traffic::{ERROR_RATIO, Traffic, image, is_ready, query},
    wait,
};
use futures::TryStreamExt as _;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    api::ListParams,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::{process::Command, time::Instant};

const GOOD: &str = "shop/api:v1";
const PODS: u32 = 10;
const LIMIT: Duration = Duration::from_secs(60);

/// One run, in seconds from the bad template's patch; for a crash from its first failed pod.
struct Figures {
    taken_back: f64,
    healed: f64,
    failed: f64,
}

pub async fn measure() {
    let runs: usize = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(10);
    let mut rows = Vec::new();
    run("mttr", async |test| {
        test.deploy("api", GOOD, PODS).await;
        test.wait_rolled_out("api").await;
        let traffic = Traffic::start(test, "api").await;
        let mut floor = Vec::new();
        for _ in 0..runs {
            floor.push(manually(test, &traffic).await);
        }
        rows.push(row("`kubectl rollout undo`, manually, once all pods are bad (the floor)", &floor));
        let _operator = Operator::start(test, Options::default().with("PANACEA_LOG", "info")).await;
        for interval in ["5s", "60s"] {
            let mut wanted = policy(
                "shop",
                &["api"],
                &json!({"spec": {
                    "interval": interval,
                    "safety": {"cooldown": "0s", "budget": {"actions": 1000}},
                    "verification": {"stabilization": "1s"},
                }}),
            );
            wanted["spec"]["components"][0]["metrics"] =
                json!([{"name": "error_rate", "prometheus": {"query": traffic.gauge_query(ERROR_RATIO)}}]);
            test.replace_policy(&wanted).await;
            let mut errors = Vec::new();
            for number in 0..runs {
                errors.push(errors_release(test, &traffic, number).await);
            }
            rows.push(row(&format!("Panacea, 40% errors, interval {interval}"), &errors));
            let mut crashes = Vec::new();
            for number in 0..runs {
                crashes.push(crash_release(test, &traffic, number).await);
            }
            rows.push(row(&format!("Panacea, crash, interval {interval} (from the first failed pod)"), &crashes));
        }
    })
    .await;
    println!(
        "\n| what | runs | template back, s: median (min–max) | healed, s: median (min–max) | failed requests: median (min–max) |"
    );
    println!("|---|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
}

/// The good version runs, and has been seen so.
async fn ready_for_next(test: &Test) {
    test.wait_rolled_out("api").await;
    wait::until("Panacea to be idle", LIMIT, async || {
        let open = test
            .remediations()
            .await
            .into_iter()
            .filter(|remediation| remediation.status.as_ref().is_none_or(|status| !status.phase.is_final()))
            .count();
        if open == 0 { Ok(()) } else { Err(format!("{open} open remediations")) }
    })
    .await;
    test.wait_known_good("shop", "api").await;
    calm(test).await;
}

async fn errors_release(test: &Test, traffic: &Traffic, number: usize) -> Figures {
    ready_for_next(test).await;
    let failed_before = traffic.totals().1;
    let released = Instant::now();
    test.release("api", &format!("shop/api:e{number}-errors")).await;
    template_back(test).await;
    let taken_back = released.elapsed().as_secs_f64();
    all_good(test).await;
    Figures { taken_back, healed: released.elapsed().as_secs_f64(), failed: traffic.totals().1 - failed_before }
}

async fn crash_release(test: &Test, traffic: &Traffic, number: usize) -> Figures {
    ready_for_next(test).await;
    let failed_before = traffic.totals().1;
    test.release("api", &format!("shop/api:c{number}-crash")).await;
    wait::until("a first failed pod", LIMIT, async || {
        let failed = pods(test).await.iter().any(|pod| {
            let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            statuses.into_iter().any(|status| {
                status.state.as_ref().is_some_and(|state| {
                    state.waiting.as_ref().is_some_and(|w| w.reason.as_deref() == Some("CrashLoopBackOff"))
                })
            })
        });
        if failed { Ok(()) } else { Err("none yet".to_owned()) }
    })
    .await;
    let first_failed = Instant::now();
    template_back(test).await;
    let taken_back = first_failed.elapsed().as_secs_f64();
    all_good(test).await;
    Figures { taken_back, healed: first_failed.elapsed().as_secs_f64(), failed: traffic.totals().1 - failed_before }
}

async fn manually(test: &Test, traffic: &Traffic) -> Figures {
    test.wait_rolled_out("api").await;
    calm(test).await;
    let failed_before = traffic.totals().1;
    let released = Instant::now();
    test.release("api", "shop/api:hand-errors").await;
    wait::until("all pods to be bad", LIMIT, async || {
        let ready: Vec<Pod> = pods(test).await.into_iter().filter(is_ready).collect();
        let bad = ready.iter().filter(|pod| image(pod).ends_with("-errors")).count();
        if bad == ready.len() && bad >= PODS as usize { Ok(()) } else { Err(format!("{bad} of {}", ready.len())) }
    })
    .await;
    let status = Command::new("kubectl")
        .args(["-n", &test.namespace, "rollout", "undo", "deployment/api"])
        .output()
        .await
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let taken_back = released.elapsed().as_secs_f64();
    all_good(test).await;
    Figures { taken_back, healed: released.elapsed().as_secs_f64(), failed: traffic.totals().1 - failed_before }
}

async fn pods(test: &Test) -> Vec<Pod> {
    let list = test.api::<Pod>().list(&ListParams::default().labels("app=api")).await.unwrap();
    list.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
}

/// Follows the Deployment by a watch, so that the moment is seen and not polled for.
async fn template_back(test: &Test) {
    let deployments = watcher(test.api::<Deployment>(), watcher::Config::default()).applied_objects();
    let back = deployments.try_filter(|deployment| futures::future::ready(image_of(deployment) == GOOD));
    let mut back = std::pin::pin!(back);
    let found = tokio::time::timeout(LIMIT, back.try_next()).await.expect("the template comes back in time");
    assert!(found.unwrap().is_some());
}

async fn all_good(test: &Test) {
    wait::until("all ready pods to be good", LIMIT, async || {
        let ready: Vec<Pod> = pods(test).await.into_iter().filter(is_ready).collect();
        let good = ready.iter().filter(|pod| image(pod) == GOOD).count();
        if good == ready.len() && good >= PODS as usize { Ok(()) } else { Err(format!("{good} of {}", ready.len())) }
    })
    .await;
    calm(test).await;
}

/// Prometheus says below 1%.
async fn calm(test: &Test) {
    let prometheus = env("PROMETHEUS_URL");
    let ratio = format!(r#"{ERROR_RATIO}{{namespace="{}"}}"#, test.namespace);
    wait::until("an error rate below 1%", LIMIT, async || match query(&prometheus, &ratio).await {
        Some(share) if share < 0.01 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

fn row(what: &str, figures: &[Figures]) -> String {
    let of = |pick: fn(&Figures) -> f64, digits: usize| {
        let picked: Vec<f64> = figures.iter().map(pick).collect();
        shown(&picked, digits)
    };
    format!(
        "| {what} | {} | {} | {} | {} |",
        figures.len(),
        of(|f| f.taken_back, 1),
        of(|f| f.healed, 1),
        of(|f| f.failed, 0)
    )
}
