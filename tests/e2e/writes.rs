//! Looking costs the API server nothing: while nothing changes, nothing is written.

use std::time::Duration;

use panacea::api::HealthStatus;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    audit::{Write, operator_writes},
    cluster::run,
    objects::policy,
    operator::{Operator, Options},
    traffic::Traffic,
    wait,
};

const COMPONENTS: usize = 10;
/// Longer than anything that a fresh policy still has to tell: a release is watched for 30 s after it was seen
/// healthy, and the tenth value of a metric changes its forecast.
const SETTLED: Duration = Duration::from_secs(45);
const QUIET: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_for_a_minute_while_ten_components_are_healthy() {
    run("writes", async |test| {
        let names: Vec<String> = (0..COMPONENTS).map(|index| format!("api-{index}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let traffic = Traffic::start(test, names[0]).await;
        for name in &names {
            test.deploy(name, "shop/api:v1", 1).await;
            traffic.set(&gauge(name), 100.0);
        }
        let operator = Operator::start(test, Options::default()).await;
        let mut wanted = policy("shop", &names, &json!({"spec": {"interval": "5s"}}));
        for (index, name) in names.iter().enumerate() {
            let query = traffic.gauge_query(&gauge(name));
            wanted["spec"]["components"][index]["metrics"] =
                json!([{"name": "latency_ms", "prometheus": {"query": query}}]);
        }
        test.apply_policy(&wanted).await;
        for name in &names {
            test.wait_known_good("shop", name).await;
        }

        // Figures that change within their limits are no change: each look measures something else.
        let mut step: u32 = 0;
        let mut measure = || {
            step += 1;
            for (index, name) in names.iter().enumerate() {
                traffic.set(&gauge(name), 100.0 + f64::from(step * 7 % 13) * 10.0 + index as f64);
            }
        };
        let mut last = (Vec::new(), Instant::now());
        wait::until("the operator to have nothing more to say", Duration::from_secs(240), async || {
            measure();
            let writes = all_writes(&test.namespace);
            if writes.len() != last.0.len() {
                last = (writes, Instant::now());
            }
            if last.1.elapsed() >= SETTLED { Ok(()) } else { Err(format!("{:?}", last.0.last())) }
        })
        .await;
        let before = last.0;
        assert!(!before.is_empty(), "the status was written, so the audit log shows this operator");

        let looks = operator.counter("panacea_checks_total").await;
        wait::throughout("that nothing is written", QUIET, async || {
            measure();
            match all_writes(&test.namespace).get(before.len()..) {
                Some([]) => Ok(()),
                new => Err(format!("{new:?}")),
            }
        })
        .await;
        let looks = operator.counter("panacea_checks_total").await - looks;
        // 10 components, each 5 s: 120 looks; fewer only when the machine is busy.
        assert!(looks >= 60.0, "only {looks} looks in {} s", QUIET.as_secs());
        for name in &names {
            test.wait_status("shop", name, HealthStatus::Healthy).await;
        }
    })
    .await;
}

fn gauge(component: &str) -> String {
    format!("latency_of_{}", component.replace('-', "_"))
}

/// In the namespace, and of what is in none. Leases and events of other operators are in other namespaces.
fn all_writes(namespace: &str) -> Vec<Write> {
    let mut writes = operator_writes(namespace);
    // A review of one's own rights stores nothing.
    writes.extend(operator_writes("").into_iter().filter(|write| !write.resource.ends_with("reviews")));
    writes
}
