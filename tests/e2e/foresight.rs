//! Failures are foreseen from the metrics of a real Prometheus, and what only looks like one is not.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, interval};

use crate::support::{
    cluster::run,
    objects::policy,
    operator::{Operator, Options},
    traffic::Traffic,
    wait,
};

/// A leak that would take hours, in minutes: from 40% by one point in three seconds.
fn leaking(seconds: f64) -> f64 {
    (40.0 + seconds / 3.0).min(95.0)
}

/// A collector's teeth, between 40% and 60%, one in fifteen seconds.
fn teeth(seconds: f64) -> f64 {
    40.0 + 20.0 * (seconds % 15.0) / 15.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leak_is_foreseen_with_its_time_and_a_sawtooth_is_not() {
    run("foresight", async |test| {
        for name in ["leaky", "collected"] {
            test.deploy(name, "shop/api:v1", 1).await;
        }
        let traffic = Traffic::start(test, "leaky").await;
        let operator = Operator::start(test, Options::default()).await;
        // High enough that nothing is wrong yet while it is foreseen.
        let thresholds = json!({"memory_usage": {"warning": 98, "critical": 99}});
        let mut wanted = policy("shop", &["leaky", "collected"], &json!({"spec": {"interval": "1s"}}));
        for (place, gauge) in ["leaking_memory", "sawtooth_memory"].into_iter().enumerate() {
            traffic.set(gauge, 40.0);
            wanted["spec"]["components"][place]["thresholds"] = thresholds.clone();
            wanted["spec"]["components"][place]["metrics"] =
                json!([{"name": "memory_usage", "prometheus": {"query": traffic.gauge_query(gauge)}}]);
        }
        test.apply_policy(&wanted).await;

        let started = Instant::now();
        let memory = async {
            let mut ticks = interval(Duration::from_millis(200));
            loop {
                ticks.tick().await;
                let seconds = started.elapsed().as_secs_f64();
                traffic.set("leaking_memory", leaking(seconds));
                traffic.set("sawtooth_memory", teeth(seconds));
            }
        };
        let foreseen = wait::until("the leak to be foreseen", Duration::from_secs(240), async || {
            match test.component("shop", "leaky").await.and_then(|status| status.forecast) {
                Some(forecast) if forecast.level == "critical" && forecast.predicted_failure_time.is_some() => {
                    Ok(forecast)
                }
                other => Err(format!("{other:?}")),
            }
        });
        let forecast = tokio::select! {
            forecast = foreseen => forecast,
            () = memory => unreachable!("it goes on for ever"),
        };
        assert!(started.elapsed() < Duration::from_secs(165), "after {:?} it would be dead", started.elapsed());
        assert_eq!(forecast.time_to_failure.as_deref(), Some("<1h"), "{forecast:?}");
        assert!(forecast.not_before <= forecast.predicted_failure_time, "{forecast:?}");
        assert!(forecast.predicted_failure_time <= forecast.not_after, "{forecast:?}");
        assert!(forecast.reasons[0].starts_with("memory_usage grows"), "{forecast:?}");
        test.wait_event("FailureForeseen", "shop", "leaky: risk of a failure").await;

        let collected = test.component("shop", "collected").await.and_then(|status| status.forecast);
        assert!(collected.as_ref().is_some_and(|forecast| !forecast.leak && forecast.level == "low"), "{collected:?}");
        let told = test.events("FailureForeseen", "shop").await;
        assert!(told.iter().all(|note| !note.contains("collected")), "{told:?}");
        let metrics = operator.metrics().await;
        let time = metrics.lines().find(|line| line.starts_with("panacea_component_time_to_failure_seconds{"));
        assert!(time.is_some_and(|line| line.contains(r#"component="leaky""#)), "{time:?}");
    })
    .await;
}
