//! Plain HTTP services: what is down, and what could not be asked.

use std::{net::TcpListener, time::Duration};

use panacea::{
    analyze::observation::{HttpState, Measured, UnknownReason},
    api::HttpCheck,
    targets::http::Http,
};
use serde_json::json;
use url::Url;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{method, path},
};

fn check(url: &str) -> HttpCheck {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    HttpCheck {
        url: Url::parse(url).unwrap(),
        timeout: Duration::from_secs(3),
        expected_statuses: Vec::new(),
        json: None,
    }
}

fn with_json(mut check: HttpCheck, path: &str, equals: &str) -> HttpCheck {
    check.json = Some((path.parse().unwrap(), equals.to_owned()));
    check
}

async fn serves(template: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("GET")).and(path("/healthz")).respond_with(template).mount(&server).await;
    server
}

async fn look(check: &HttpCheck) -> HttpState {
    match Http::default().observe(check).await {
        Measured::Known(state) => state,
        Measured::Unknown(why) => panic!("{why:?}"),
    }
}

#[track_caller]
fn down(state: HttpState, words: &str) {
    let failure = state.failure.expect("it counts as healthy");
    assert!(failure.contains(words), "{words:?} is not in {failure:?}");
}

#[tokio::test]
async fn statuses() {
    for (status, expected, fine) in [
        (200, vec![], true),
        (204, vec![], true),
        (404, vec![], false),
        (503, vec![], false),
        (200, vec![204], false),
        (418, vec![200, 418], true),
        (301, vec![301], true),
    ] {
        let server = serves(ResponseTemplate::new(status).insert_header("location", "/elsewhere")).await;
        let mut check = check(&format!("{}/healthz", server.uri()));
        check.expected_statuses = expected;
        let state = look(&check).await;
        assert_eq!(state.failure.is_none(), fine, "{status}: {state:?}");
        assert!(state.latency_ms.is_some_and(|latency| latency > 0.0 && latency < 3000.0));
    }
    let server = serves(ResponseTemplate::new(503).set_body_string("no database")).await;
    down(look(&check(&format!("{}/healthz", server.uri()))).await, "status 503 instead of 200 to 399: \"no database\"");
}

#[tokio::test]
async fn values_in_json() {
    let body = json!({"status": "ok", "count": 3, "live": true, "parts": [{"up": 1}, {"up": 2}]});
    let server = serves(ResponseTemplate::new(200).set_body_json(body)).await;
    let url = format!("{}/healthz", server.uri());
    for (path, equals) in [("$.status", "ok"), ("$.count", "3"), ("$.live", "true"), ("$.parts[-1]['up']", "2")] {
        assert_eq!(look(&with_json(check(&url), path, equals)).await.failure, None, "{path}");
    }
    down(look(&with_json(check(&url), "$.status", "fine")).await, "$.status is \"ok\" instead of \"fine\"");
    down(look(&with_json(check(&url), "$.missing", "x")).await, "$.missing selects no value");
    down(look(&with_json(check(&url), "$.parts[2].up", "1")).await, "$.parts[2].up selects no value");
    let server = serves(ResponseTemplate::new(200).set_body_string("<html>")).await;
    down(look(&with_json(check(&format!("{}/healthz", server.uri())), "$.status", "ok")).await, "not JSON: \"<html>\"");
}

#[tokio::test]
async fn long_answers_are_not_read_to_their_end() {
    let server = serves(ResponseTemplate::new(200).set_body_bytes(vec![b'x'; 3 * 1024 * 1024])).await;
    let url = format!("{}/healthz", server.uri());
    assert_eq!(look(&check(&url)).await.failure, None);
    down(look(&with_json(check(&url), "$.status", "ok")).await, "longer than 1048576 bytes");
}

#[tokio::test]
async fn redirects_are_followed_for_a_while() {
    let server = MockServer::start().await;
    for hop in 0..8 {
        let next = ResponseTemplate::new(302).insert_header("location", format!("/{}", hop + 1));
        Mock::given(path(format!("/{hop}"))).respond_with(next).mount(&server).await;
    }
    Mock::given(path("/8")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    assert_eq!(look(&check(&format!("{}/3", server.uri()))).await.failure, None);
    down(look(&check(&format!("{}/2", server.uri()))).await, "more than 5 redirects");
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_down() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    down(look(&check(&format!("http://{nobody}/"))).await, "refused");
    let server = serves(ResponseTemplate::new(200).set_delay(Duration::from_secs(30))).await;
    let mut slow = check(&format!("{}/healthz", server.uri()));
    slow.timeout = Duration::from_millis(200);
    let state = look(&slow).await;
    assert_eq!(state.latency_ms, None);
    down(state, "no response within 200ms");
}

#[tokio::test]
async fn what_could_not_be_asked_is_unknown() {
    let server = serves(ResponseTemplate::new(200)).await;
    for url in ["http://no-such-host.invalid/?token=secret".to_owned(), server.uri().replace("http://", "https://")] {
        match Http::default().observe(&check(&url)).await {
            Measured::Unknown(why) => {
                assert_eq!(why.reason, UnknownReason::Unreachable, "{url}: {}", why.message);
                assert!(!why.message.contains("secret"), "{}", why.message);
            }
            known => panic!("{url}: {known:?}"),
        }
    }
}
