//! Simulated traffic on simulated pods: requests are spread evenly over the ready pods of a Deployment, pods whose
//! image tag ends in `-errors` fail 40% of theirs, the others 0.1%. A real Prometheus scrapes the counters.

use parking_lot::Mutex;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::get};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::Instant};

use super::{
    cluster::{Test, env},
    wait,
};

/// Requests a second over all pods.
const REQUESTS_PER_SECOND: f64 = 100.0;
const GOOD_ERRORS: f64 = 0.001;
const BAD_ERRORS: f64 = 0.4;
/// Gauge: the share of requests that fail now, weighted by ready pods.
pub const ERROR_RATIO: &str = "error_ratio";

#[derive(Default)]
struct Counters {
    /// By pod: requests that worked, requests that failed.
    pods: BTreeMap<String, (f64, f64)>,
    /// Gauges that a test sets.
    gauges: BTreeMap<String, f64>,
    /// The same of single pods, by gauge and pod.
    pod_gauges: BTreeMap<String, BTreeMap<String, f64>>,
}

/// The traffic of one Deployment, and gauges that the test sets. Ends when dropped.
pub struct Traffic {
    counters: Arc<Mutex<Counters>>,
    tasks: Vec<JoinHandle<()>>,
    targets: PathBuf,
    namespace: String,
    app: String,
}

impl Traffic {
    /// Starts it, and waits until the run's Prometheus scrapes it.
    pub async fn start(test: &Test, app: &str) -> Self {
        let targets = PathBuf::from(env("PROMETHEUS_TARGETS"));
        Self::start_for(test, app, targets, &env("PROMETHEUS_URL")).await
    }

    /// The same for another Prometheus, which reads its targets from the folder `targets`.
    pub async fn start_for(test: &Test, app: &str, targets: PathBuf, prometheus: &str) -> Self {
        let counters = Arc::new(Mutex::new(Counters::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let labels = format!(r#"namespace="{}",app="{app}""#, test.namespace);
        let state = (counters.clone(), labels);
        let router = Router::new().route("/metrics", get(render)).with_state(state);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let generator =
            tokio::spawn(generate(test.client.clone(), test.namespace.clone(), app.to_owned(), counters.clone()));
        let file = targets.join(format!("{}-{app}.json", test.namespace));
        let target = json!([{"targets": [address.to_string()], "labels": {"test": test.namespace}}]);
        // Written beside and renamed: Prometheus must not read half a file.
        let half = file.with_extension("tmp");
        std::fs::write(&half, target.to_string()).unwrap();
        std::fs::rename(&half, &file).unwrap();
        let traffic = Self {
            counters,
            tasks: vec![server, generator],
            targets: file,
            namespace: test.namespace.clone(),
            app: app.into(),
        };
        let up = format!(r#"up{{test="{}"}} == 1"#, test.namespace);
        wait::until("Prometheus to scrape the test's traffic", Duration::from_secs(30), async || {
            query(prometheus, &up).await.map(|_| ()).ok_or_else(|| "not up yet".to_owned())
        })
        .await;
        traffic
    }

    /// Sets a gauge `NAME{namespace,app}`.
    pub fn set(&self, gauge: &str, value: f64) {
        self.counters.lock().gauges.insert(gauge.to_owned(), value);
    }

    /// Sets a gauge `NAME{namespace,app,pod}` of these pods; others have none any more.
    pub fn set_of_pods(&self, gauge: &str, values: BTreeMap<String, f64>) {
        self.counters.lock().pod_gauges.insert(gauge.to_owned(), values);
    }

    /// The query of a gauge set by [`Self::set`].
    pub fn gauge_query(&self, gauge: &str) -> String {
        format!(r#"{gauge}{{namespace="{}",app="{}"}}"#, self.namespace, self.app)
    }

    /// Requests that worked and that failed so far.
    pub fn totals(&self) -> (f64, f64) {
        let counters = self.counters.lock();
        counters.pods.values().fold((0.0, 0.0), |sum, pod| (sum.0 + pod.0, sum.1 + pod.1))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.targets);
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The metric entry of a policy: share of failed requests over the last `window`, of the component's pods, narrowed
/// to the newest template's while a release is watched.
pub fn error_rate_metric(window: &str) -> Value {
    let errors =
        format!(r#"sum(rate(requests_total{{namespace="$(namespace)",pod=~"$(pods)",code="500"}}[{window}]))"#);
    let all = format!(r#"sum(rate(requests_total{{namespace="$(namespace)",pod=~"$(pods)"}}[{window}]))"#);
    json!({"name": "error_rate", "prometheus": {"query": format!("{errors} / {all}")}})
}

/// The first value of an instant query, or none.
pub async fn query(prometheus: &str, query: &str) -> Option<f64> {
    let form = [("query", query)];
    let answer = reqwest::Client::new().post(format!("{prometheus}/api/v1/query")).form(&form).send().await.ok()?;
    let body: Value = answer.json().await.ok()?;
    body.pointer("/data/result/0/value/1")?.as_str()?.parse().ok()
}

async fn render(State((counters, labels)): State<(Arc<Mutex<Counters>>, String)>) -> String {
    let counters = counters.lock();
    let mut text = String::from("# TYPE requests_total counter\n");
    for (pod, (good, bad)) in &counters.pods {
        text += &format!("requests_total{{{labels},pod=\"{pod}\",code=\"200\"}} {}\n", good.floor());
        text += &format!("requests_total{{{labels},pod=\"{pod}\",code=\"500\"}} {}\n", bad.floor());
    }
    for (gauge, value) in &counters.gauges {
        text += &format!("# TYPE {gauge} gauge\n{gauge}{{{labels}}} {value}\n");
    }
    for (gauge, pods) in &counters.pod_gauges {
        text += &format!("# TYPE {gauge} gauge\n");
        for (pod, value) in pods {
            text += &format!("{gauge}{{{labels},pod=\"{pod}\"}} {value}\n");
        }
    }
    text
}

async fn generate(client: Client, namespace: String, app: String, counters: Arc<Mutex<Counters>>) {
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let params = ListParams::default().labels(&format!("app={app}"));
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut last = Instant::now();
    loop {
        ticks.tick().await;
        let Ok(list) = pods.list(&params).await else { continue };
        let ready: Vec<(String, f64)> = list
            .items
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod))
            .map(|pod| (pod.name_any(), if image(pod).ends_with("-errors") { BAD_ERRORS } else { GOOD_ERRORS }))
            .collect();
        let passed = last.elapsed().as_secs_f64();
        last = Instant::now();
        let each = REQUESTS_PER_SECOND * passed / ready.len().max(1) as f64;
        let mut counters = counters.lock();
        let ratio = ready.iter().map(|(_, share)| share).sum::<f64>() / ready.len().max(1) as f64;
        counters.gauges.insert(ERROR_RATIO.to_owned(), ratio);
        for (pod, share) in ready {
            let (good, bad) = counters.pods.entry(pod).or_default();
            *good += each * (1.0 - share);
            *bad += each * share;
        }
    }
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub fn image(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.containers.first())
        .and_then(|container| container.image.as_deref())
        .unwrap_or_default()
}
