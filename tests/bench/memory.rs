//! The operator's resident memory with 1 and with 1,000 components, each a Deployment of one pod, and with 10,000 http
//! components; also the CPU time of the latter. Prints Markdown rows for docs/benchmarks.md.

use std::time::Duration;

use axum::{Router, routing::get};
use panacea::api::HealthStatus;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{
    cluster::{Test, run},
    objects::policy,
    operator::{Operator, Options},
    wait,
};

/// As many as one policy may name.
const PER_POLICY: usize = 200;

pub async fn measure() {
    let mut rows = Vec::new();
    for components in [1, 1000] {
        run("memory", async |test| {
            let bytes = with_components(test, components).await;
            rows.push(format!("| {components} | {:.1} |", bytes / 1e6));
        })
        .await;
    }
    println!("\n| components | resident memory, MB |");
    println!("|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
}

/// `COMPONENTS` http components (default 10,000), each checked once a minute, on one server of this process.
pub async fn measure_http() {
    let components = std::env::var("COMPONENTS").map_or(10_000, |number| number.parse().unwrap());
    let mut row = String::new();
    run("memory-http", async |test| {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", server.local_addr().unwrap());
        tokio::spawn(async { axum::serve(server, Router::new().route("/", get("ok"))).await });
        let operator = Operator::start(test, Options::default().with("PANACEA_LOG", "info")).await;
        let empty = value(&operator.metrics().await, "process_resident_memory_bytes");
        let names: Vec<String> = (0..components).map(|number| format!("c{number}")).collect();
        for (number, names) in names.chunks(PER_POLICY).enumerate() {
            let target = |name: &String| json!({"name": name, "target": {"http": {"url": url}}});
            let mut wanted = policy(&format!("p{number}"), &[], &json!({"spec": {"interval": "60s"}}));
            wanted["spec"]["components"] = names.iter().map(target).collect();
            test.apply_policy(&wanted).await;
        }
        checked(&operator, components * 2).await;
        let (cpu, checks) = (cpu_seconds(&operator), checks(&operator).await);
        checked(&operator, components * 4).await;
        let minutes = (self::checks(&operator).await - checks) / components as f64;
        let cpu = (cpu_seconds(&operator) - cpu) / minutes;
        let bytes = value(&operator.metrics().await, "process_resident_memory_bytes");
        let own = (bytes - empty) / components as f64 / 1e3;
        row = format!("| {components} | {:.1} | {own:.1} | {cpu:.1} |", bytes / 1e6);
    })
    .await;
    println!("\n| http components | resident memory, MB | kB a component | CPU, s a minute |");
    println!("|---|---|---|---|\n{row}");
}

/// User and system time of the process, from /proc: fields 14 and 15, in hundredths of a second.
fn cpu_seconds(operator: &Operator) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", operator.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = |field: usize| fields.split_whitespace().nth(field - 3).unwrap().parse::<f64>().unwrap();
    (ticks(14) + ticks(15)) / 100.0
}

async fn checks(operator: &Operator) -> f64 {
    value(&operator.metrics().await, "panacea_checks_total")
}

async fn checked(operator: &Operator, wanted: usize) {
    wait::until("the checks of all components", Duration::from_secs(1200), async || {
        let checks = checks(operator).await;
        if checks >= wanted as f64 { Ok(()) } else { Err(format!("{checks} of {wanted} checks")) }
    })
    .await;
}

async fn with_components(test: &Test, components: usize) -> f64 {
    let names: Vec<String> = (0..components).map(|number| format!("c{number}")).collect();
    for name in &names {
        test.deploy(name, "shop/api:v1", 1).await;
    }
    let operator = Operator::start(test, Options::default().with("PANACEA_LOG", "info")).await;
    let policies: Vec<&[String]> = names.chunks(PER_POLICY).collect();
    for (number, names) in policies.iter().enumerate() {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        test.apply_policy(&policy(&format!("p{number}"), &names, &json!({"spec": {"interval": "1s"}}))).await;
    }
    wait::until("all components to be healthy", Duration::from_secs(300), async || {
        let mut healthy = 0;
        for number in 0..policies.len() {
            let status = test.policy_status(&format!("p{number}")).await;
            healthy += status.components.iter().filter(|component| component.status == HealthStatus::Healthy).count();
        }
        if healthy == components { Ok(()) } else { Err(format!("{healthy} of {components}")) }
    })
    .await;
    // Full windows: 100 checks of each component.
    checked(&operator, components * 100).await;
    value(&operator.metrics().await, "process_resident_memory_bytes")
}

/// The first sample of a metric without labels.
fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
    let text = line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_else(|| panic!("no {name} in /metrics"));
    text.parse().unwrap()
}
