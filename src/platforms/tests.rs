use std::{collections::BTreeMap, time::Instant};

use serde_json::json;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::body_string_contains};

use super::{
    kubernetes::{
        fake_server::server,
        fixtures::{NAME, NS, healthy, pod, releasing, synced},
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

fn platforms(index: ClusterIndex, prometheus: &str) -> Platforms {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Looking asks the API server nothing.
    let (client, _) = server(Vec::new());
    Platforms::new(client, Arc::new(index), Some(Url::parse(prometheus).unwrap()))
}

/// Answers 7 to exactly that query, as it stands in a form, and nothing to others.
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
    platforms(index, &server.uri()).observe(NS, &component, release_watch).await.metrics.remove("error_rate").unwrap()
}

fn seven(of_release: bool) -> Reading {
    Reading { value: Measured::Known(7.0), of_release }
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
    let seen = platforms(healthy(), &server.uri()).observe(NS, &component(deployment(), &queries), false).await;
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
    let own = platforms(synced(), "http://127.0.0.1:1").observe(NS, &component(target(), &[]), false).await;
    assert!(matches!(own.metrics[LATENCY].value, Measured::Known(latency) if latency > 0.0));
    let server = prometheus("lat{name=\"front\"}").await;
    let declared = component(target(), &[(LATENCY, "lat{name=\"$(name)\"}")]);
    let seen = platforms(synced(), &server.uri()).observe(NS, &declared, false).await;
    assert_eq!(seen.metrics[LATENCY], seven(false));
}
