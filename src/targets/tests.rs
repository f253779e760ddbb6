use std::{collections::BTreeMap, time::Instant};

use serde_json::json;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::body_string_contains};

use super::{
    http::LATENCY,
    kubernetes::{
        fake_server::{get, server},
        fixtures::{NAME, NS, healthy, pod, releasing, see, synced, with},
    },
    *,
};
use crate::{
    analyze::observation::UnknownReason,
    api::{HttpCheck, WorkloadKind},
};

fn component(target: ValidTarget, queries: &[(&str, &str)]) -> ValidComponent {
    let metric =
        |(name, query): &(&str, &str)| MetricQuery { name: (*name).to_owned(), query: (*query).to_owned(), url: None };
    ValidComponent {
        name: "front".into(),
        target,
        metrics: queries.iter().map(metric).collect(),
        thresholds: BTreeMap::new(),
        ceilings: BTreeMap::new(),
        remedies: Vec::new(),
    }
}

fn deployment() -> ValidTarget {
    ValidTarget::Workload { kind: WorkloadKind::Deployment, name: NAME.into() }
}

fn targets(index: ClusterIndex, prometheus: &str) -> Targets {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // An observation sends no request to the API server.
    let (client, _) = server(Vec::new());
    Targets::new(client, Arc::new(index), Some(Url::parse(prometheus).unwrap()))
}

/// Responds 7 to exactly that query, as a form encodes it, and 404 to others.
async fn prometheus(query: &str) -> MockServer {
    let server = MockServer::start().await;
    let form: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
    let answer = json!({"status": "success", "data": {"resultType": "scalar", "result": [1, "7"]}});
    Mock::given(body_string_contains(format!("{form}&")))
        .respond_with(ResponseTemplate::new(200).set_body_json(answer))
        .mount(&server)
        .await;
    server
}

async fn reading(index: ClusterIndex, target: ValidTarget, query: &str, sent: &str, release_watch: bool) -> Reading {
    let server = prometheus(sent).await;
    let component = component(target, &[("error_rate", query)]);
    targets(index, &server.uri()).observe(NS, &component, release_watch).await.metrics.remove("error_rate").unwrap()
}

fn seven(of_release: bool) -> Reading {
    Reading::new(Measured::Known(7.0), of_release)
}

fn reason(reading: &Reading) -> Option<UnknownReason> {
    match &reading.value {
        Measured::Known(_) => None,
        Measured::Unknown(why) => Some(why.reason),
    }
}

const QUERY: &str = r#"sum(x{ns="$(namespace)",app="$(name)",pod=~"$(pods)"})"#;

#[tokio::test]
async fn pods_are_those_of_every_template_or_of_the_newest() {
    let all = r#"sum(x{ns="shop",app="api",pod=~"(api-aaa-.*|api-bbb-.*)"})"#;
    assert_eq!(reading(releasing(pod("bbb", "9")), deployment(), QUERY, all, false).await, seven(false));
    let newest = r#"sum(x{ns="shop",app="api",pod=~"api-bbb-.*"})"#;
    assert_eq!(reading(releasing(pod("bbb", "9")), deployment(), QUERY, newest, true).await, seven(true));
}

#[tokio::test]
async fn a_query_without_pods_never_speaks_of_the_release() {
    let index = releasing(pod("bbb", "9"));
    assert_eq!(reading(index, deployment(), "up{app='$(name)'}", "up{app='api'}", true).await, seven(false));
}

#[tokio::test]
async fn pods_that_are_not_known_leave_the_metric_unknown() {
    let read = reading(synced(), deployment(), QUERY, "nothing", false).await;
    assert_eq!(reason(&read), Some(UnknownReason::TargetNotFound));
    let read = reading(ClusterIndex::default(), deployment(), QUERY, "nothing", true).await;
    assert_eq!(reason(&read), Some(UnknownReason::Unsettled));
    let check = HttpCheck {
        url: Url::parse("http://127.0.0.1:1").unwrap(),
        timeout: METRIC_LIMIT,
        expected_statuses: Vec::new(),
        json: None,
    };
    let read = reading(synced(), ValidTarget::Http(Box::new(check)), QUERY, "nothing", false).await;
    assert_eq!(reason(&read), Some(UnknownReason::InvalidSpec));
}

#[tokio::test]
async fn slow_metrics_are_waited_for_together_and_not_for_long() {
    let server = MockServer::start().await;
    let slow = ResponseTemplate::new(200).set_delay(Duration::from_secs(60));
    Mock::given(body_string_contains("query")).respond_with(slow).mount(&server).await;
    let queries: Vec<(String, String)> = (0..20).map(|number| (format!("m{number}"), "up".to_owned())).collect();
    let queries: Vec<(&str, &str)> = queries.iter().map(|(name, query)| (name.as_str(), query.as_str())).collect();
    let started = Instant::now();
    let seen = targets(healthy(), &server.uri()).observe(NS, &component(deployment(), &queries), false).await;
    assert!(started.elapsed() < METRIC_LIMIT * 2, "{:?}", started.elapsed());
    assert_eq!(seen.metrics.len(), 20);
    assert!(seen.metrics.values().all(|read| reason(read) == Some(UnknownReason::Timeout)));
    assert!(seen.target.known().and_then(TargetState::workload).is_some(), "the target does not suffer");
}

#[tokio::test]
async fn an_http_target_offers_its_latency_unless_a_metric_of_that_name_is_declared() {
    let service = MockServer::start().await;
    Mock::given(wiremock::matchers::path("/")).respond_with(ResponseTemplate::new(200)).mount(&service).await;
    let target = || {
        ValidTarget::Http(Box::new(HttpCheck {
            url: Url::parse(&service.uri()).unwrap(),
            timeout: METRIC_LIMIT,
            expected_statuses: Vec::new(),
            json: None,
        }))
    };
    let own = targets(synced(), "http://127.0.0.1:1").observe(NS, &component(target(), &[]), false).await;
    assert!(matches!(own.metrics[LATENCY].value, Measured::Known(latency) if latency > 0.0));
    let server = prometheus("lat{name=\"front\"}").await;
    let declared = component(target(), &[(LATENCY, "lat{name=\"$(name)\"}")]);
    let seen = targets(synced(), &server.uri()).observe(NS, &declared, false).await;
    assert_eq!(seen.metrics[LATENCY], seven(false));
}

#[tokio::test]
async fn cpu_and_memory_come_from_the_cluster_where_the_policy_does_not_measure_them() {
    let limits = json!([{"name": "main", "resources": {"limits": {"cpu": "1", "memory": "100Mi"}}}]);
    let index = healthy();
    see(&index, with(pod("aaa", "1"), "/spec/containers", limits));
    let figures = json!({"items": [{
        "metadata": {"name": "api-aaa-1"}, "timestamp": Timestamp::now(), "window": "10s",
        "containers": [{"name": "main", "usage": {"cpu": "250m", "memory": "40Mi"}}],
    }]});
    let path = "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods?";
    let (client, asked) = server(vec![get(path, 200, figures)]);
    let prometheus = prometheus("own").await;
    let targets = Targets::new(client, Arc::new(index), Some(Url::parse(&prometheus.uri()).unwrap()));
    let seen = targets.observe(NS, &component(deployment(), &[]), false).await;
    assert_eq!((seen.value("cpu_usage"), seen.value("memory_usage")), (Some(25.0), Some(40.0)));
    // Prometheus does not respond to the second: then the policy's own metric is unknown.
    let own = component(deployment(), &[("cpu_usage", "own"), ("memory_usage", "nothing")]);
    let seen = targets.observe(NS, &own, false).await;
    assert_eq!(seen.metrics["cpu_usage"], seven(false));
    assert!(reason(&seen.metrics["memory_usage"]).is_some());
    let pods = ["api-aaa-1".to_owned()];
    let of_pods = targets.of_pods(NS, &component(deployment(), &[]), "memory_usage", &pods).await;
    assert_eq!(of_pods, Some(vec![Measured::Known(40.0)]));
    drop(targets);
    assert_eq!(asked.await.unwrap().len(), 1);
}
