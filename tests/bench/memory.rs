//! The operator's resident memory with 1 and with 1,000 components, each a Deployment of one pod. Prints Markdown rows
//! for docs/benchmarks.md.

use std::time::Duration;

use panacea::api::HealthStatus;
use serde_json::json;

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
    let wanted = (components * 100) as f64;
    wait::until("100 checks of each component", Duration::from_secs(1200), async || {
        let looks = value(&operator.metrics().await, "panacea_checks_total");
        if looks >= wanted { Ok(()) } else { Err(format!("{looks} of {wanted} looks")) }
    })
    .await;
    value(&operator.metrics().await, "process_resident_memory_bytes")
}

/// The first sample of a metric without labels.
fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
    let text = line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_else(|| panic!("no {name} in /metrics"));
    text.parse().unwrap()
}
