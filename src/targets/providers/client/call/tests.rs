use std::net::TcpListener;

use serde_json::json;
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::any};

use super::*;

const TOKEN: &str = "rnd_0123456789secret";
const LIMITS: BreakerLimits = BreakerLimits { threshold: 100, recovery: Duration::from_secs(60) };

fn call<'a>(repeat: Repeat) -> Call<'a> {
    Call {
        what: "restart service srv-1",
        method: if repeat == Repeat::Always { Method::GET } else { Method::POST },
        path: &["services", "srv-1", "restart"],
        query: &[],
        json: None,
        repeat,
        quotas: &[],
        breaker: "srv-1",
        breaker_limits: LIMITS,
        time: TimeLimits { attempt: Duration::from_millis(300), total: Duration::from_secs(5) },
    }
}

fn cloud(url: &str) -> ApiClient {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    ApiClient::new(url.parse().unwrap(), Manner::default())
}

async fn send(cloud: &ApiClient, call: &Call<'_>) -> Result<Answer, CallError> {
    cloud.send(&SecretString::from(TOKEN.to_owned()), call).await
}

/// Responds in this order, and with the last one from then on.
async fn answers(all: Vec<ResponseTemplate>) -> MockServer {
    let server = MockServer::start().await;
    let next = std::sync::atomic::AtomicUsize::new(0);
    let answer = move |_: &Request| {
        let at = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        all[at.min(all.len() - 1)].clone()
    };
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

async fn requests(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.unwrap()
}

#[tokio::test]
async fn reads_are_repeated_and_writes_are_not() {
    let (fine, slow) = (ResponseTemplate::new(200).set_body_json(json!({"id": 1})), Duration::from_secs(30));
    let (fine, slow) = (|| fine.clone(), ResponseTemplate::new(200).set_delay(slow));
    let html = ResponseTemplate::new(200).set_body_string("<html>Log in</html>");
    let limited =
        ResponseTemplate::new(429).insert_header("ratelimit-remaining", "0").insert_header("ratelimit-reset", "1");
    for (first, reads, writes) in [
        (ResponseTemplate::new(500), 2, 1),
        (ResponseTemplate::new(503), 2, 1),
        (slow, 2, 1),
        (html, 1, 1),
        (limited, 2, 2),
        (ResponseTemplate::new(401), 1, 1),
        (ResponseTemplate::new(404), 1, 1),
        (fine(), 1, 1),
    ] {
        for (repeat, count) in [(Repeat::Always, reads), (Repeat::IfNotDone, writes)] {
            let server = answers(vec![first.clone(), fine()]).await;
            let result = send(&cloud(&server.uri()), &call(repeat)).await;
            assert_eq!(requests(&server).await.len(), count, "{repeat:?}: {result:?}");
            assert_eq!(result.as_ref().map_or_else(|error| error.attempts, |answer| answer.attempts), count as u32);
        }
    }
    let server = answers(vec![ResponseTemplate::new(503)]).await;
    let error = send(&cloud(&server.uri()), &call(Repeat::Always)).await.unwrap_err();
    assert_eq!((requests(&server).await.len(), error.attempts), (3, 3));
    assert!(error.to_string().ends_with("(3 tries)"), "{error}");
}

#[tokio::test]
async fn an_error_says_its_cause_and_remedy_and_not_the_key() {
    let redirect = ResponseTemplate::new(302).insert_header("location", "https://evil.example.com/");
    let long = ResponseTemplate::new(200).set_body_bytes(vec![b' '; MAX_BODY + 1]);
    let refused = json!({"id": "x", "message": "unknown service"});
    for (answer, not_done, words) in [
        (ResponseTemplate::new(401), true, "status 401; the API key is not valid"),
        (
            ResponseTemplate::new(404).set_body_json(&refused),
            true,
            "status 404: \"unknown service\"; it does not exist",
        ),
        (
            ResponseTemplate::new(500).set_body_string("<html>oops"),
            false,
            "status 500: \"<html>oops\"; the provider has",
        ),
        (ResponseTemplate::new(200).set_body_string("<html>"), false, "not JSON: \"<html>\"; is there a proxy"),
        (long, false, "longer than 1048576 bytes"),
        (redirect, false, "redirects are not followed"),
    ] {
        let server = answers(vec![answer]).await;
        let error = send(&cloud(&server.uri()), &call(Repeat::IfNotDone)).await.unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with("restart service srv-1 (POST http://127.0.0.1:"), "{said}");
        assert!(said.contains(words) && !said.contains(TOKEN), "{said}");
        assert_eq!(error.kind.not_done(), not_done, "{said}");
        let sent = requests(&server).await;
        assert_eq!(sent[0].headers["authorization"], format!("Bearer {TOKEN}"));
        assert_eq!(sent.len(), 1, "{said}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = send(&cloud(&format!("http://{nobody}")), &call(Repeat::IfNotDone)).await.unwrap_err();
    assert!(error.kind.not_done() && error.attempts == 3, "{error}");
    let strange = SecretString::from("a\nb".to_owned());
    let error = cloud("http://127.0.0.1:1").send(&strange, &call(Repeat::Always)).await.unwrap_err();
    assert!(error.to_string().contains("the API key holds characters"), "{error}");
}

#[tokio::test]
async fn an_empty_response_is_null_and_a_typed_one_is_checked() {
    let server = answers(vec![ResponseTemplate::new(200)]).await;
    assert_eq!(send(&cloud(&server.uri()), &call(Repeat::IfNotDone)).await.unwrap().json, Value::Null);
    let server = answers(vec![ResponseTemplate::new(200).set_body_json(json!([{"id": 7}]))]).await;
    #[derive(serde::Deserialize, Debug)]
    struct Named {
        #[allow(dead_code)]
        id: String,
    }
    let token = SecretString::from(TOKEN.to_owned());
    let read: Result<Vec<Named>, _> = cloud(&server.uri()).read(&token, &call(Repeat::Always)).await;
    assert!(read.unwrap_err().to_string().contains("[0].id: invalid type"));
}

#[tokio::test]
async fn quotas_hold_for_all_calls_with_the_key_and_the_wait_has_a_limit() {
    let server = answers(vec![ResponseTemplate::new(200)]).await;
    let cloud = cloud(&server.uri());
    let quotas = [Quota { name: "GET".into(), calls: 5, per: Duration::from_secs(60), spares_unchanged: false }];
    let limited = Call { quotas: &quotas, ..call(Repeat::Always) };
    let all = futures::future::join_all((0..12).map(|_| send(&cloud, &limited))).await;
    assert_eq!((all.iter().filter(|one| one.is_ok()).count(), requests(&server).await.len()), (5, 5));
    let error = all.into_iter().find_map(Result::err).unwrap();
    assert!(matches!(error.kind, Failure::Throttled { .. }) && error.kind.not_done() && error.attempts == 0, "{error}");
    let short = [Quota { name: "short".into(), calls: 1, per: Duration::ZERO, spares_unchanged: false }];
    let waits = Call { quotas: &short, ..call(Repeat::Always) };
    assert!(send(&cloud, &waits).await.is_ok() && send(&cloud, &waits).await.is_ok(), "the second waits for its turn");
}

#[tokio::test]
async fn after_failures_in_a_row_one_call_probes() {
    let server = answers(vec![ResponseTemplate::new(500)]).await;
    let cloud = cloud(&server.uri());
    let limits = BreakerLimits { threshold: 2, recovery: Duration::from_millis(400) };
    let call = Call { breaker_limits: limits, ..call(Repeat::Always) };
    for _ in 0..2 {
        send(&cloud, &call).await.unwrap_err();
    }
    assert_eq!(requests(&server).await.len(), 6, "each was tried three times");
    let error = send(&cloud, &call).await.unwrap_err();
    assert!(matches!(error.kind, Failure::CircuitOpen { .. }), "{error}");
    // Another service of the same provider is not concerned.
    send(&cloud, &Call { breaker: "srv-2", ..call.clone() }).await.unwrap_err();
    assert_eq!(requests(&server).await.len(), 9);

    tokio::time::sleep(limits.recovery).await;
    let all = futures::future::join_all((0..5).map(|_| send(&cloud, &call))).await;
    assert!(all.iter().all(Result::is_err));
    assert_eq!(requests(&server).await.len(), 10, "one probe, tried once");
    server.reset().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    tokio::time::sleep(limits.recovery).await;
    // A probe whose caller is dropped is not the last one.
    drop(tokio::time::timeout(Duration::ZERO, send(&cloud, &call)).await);
    tokio::time::sleep(limits.recovery).await;
    assert!(send(&cloud, &call).await.is_ok() && send(&cloud, &call).await.is_ok());
}

/// As of GitHub: a limit is a 403, and an unchanged response is not sent again.
const MANNER: Manner = Manner {
    accept: "application/vnd.github+json",
    headers: &[("x-github-api-version", "2022-11-28")],
    conditional: true,
    limited_for: Some(Duration::from_secs(60)),
};

#[tokio::test]
async fn a_limit_that_comes_as_403_is_no_refusal_of_the_key_and_stops_the_calls() {
    let limit = |headers: &[(&'static str, &str)], words: &str| {
        let answer = ResponseTemplate::new(403).set_body_json(json!({"message": words}));
        headers.iter().fold(answer, |answer, (name, value)| answer.insert_header(*name, *value))
    };
    let used_up = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1900")];
    for (answer, after) in [
        (limit(&[("retry-after", "120")], "slow down"), Some(120)),
        (limit(&used_up, "API rate limit exceeded"), Some(1900)),
        (limit(&[], "You have exceeded a secondary rate limit."), Some(60)),
        (limit(&[("x-ratelimit-remaining", "55")], "Resource not accessible by personal access token"), None),
    ] {
        let server = answers(vec![answer]).await;
        let cloud = ApiClient::new(server.uri().parse().unwrap(), MANNER);
        let quotas = [Quota { name: "core".into(), calls: 100, per: Duration::from_secs(60), spares_unchanged: true }];
        let call = Call { quotas: &quotas, ..call(Repeat::Always) };
        let first = send(&cloud, &call).await.unwrap_err();
        assert_eq!(first.kind.is_limit(), after.is_some(), "{first}");
        let Failure::Status { after: reported, .. } = &first.kind else { panic!("{first}") };
        assert_eq!(reported.map(|reported| reported.as_secs()), after, "{first}");
        let second = send(&cloud, &call).await.unwrap_err();
        let throttled = matches!(second.kind, Failure::Throttled { .. });
        assert_eq!((throttled, requests(&server).await.len()), (after.is_some(), if after.is_some() { 1 } else { 2 }));
    }
}

#[tokio::test]
async fn an_unchanged_response_comes_from_the_cache_and_costs_nothing() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = MockServer::start().await;
    let answer = |request: &Request| match request.headers.get("if-none-match") {
        Some(tag) if tag == "\"a1\"" => ResponseTemplate::new(304),
        Some(_) => ResponseTemplate::new(500),
        None => ResponseTemplate::new(200).insert_header("etag", "\"a1\"").set_body_json(json!({"id": 7})),
    };
    Mock::given(any()).respond_with(answer).mount(&server).await;
    let cloud = ApiClient::new(server.uri().parse().unwrap(), MANNER);
    let quotas = [Quota { name: "core".into(), calls: 2, per: Duration::from_secs(60), spares_unchanged: true }];
    let get = Call { quotas: &quotas, ..call(Repeat::Always) };
    for _ in 0..4 {
        assert_eq!(send(&cloud, &get).await.unwrap().json, json!({"id": 7}));
    }
    let seen = requests(&server).await;
    assert_eq!(seen.len(), 4, "one counted, three did not");
    assert_eq!(seen[3].headers["x-github-api-version"], "2022-11-28");
    assert_eq!(seen[3].headers["accept"], "application/vnd.github+json");
    // Another query, and another key, have separate responses.
    let other = Call { query: &[("page", "2".to_owned())], ..get.clone() };
    assert_eq!(send(&cloud, &other).await.unwrap().attempts, 1);
    cloud.send(&SecretString::from("another".to_owned()), &get).await.unwrap();
    let tags = requests(&server).await.iter().filter(|request| request.headers.contains_key("if-none-match")).count();
    assert_eq!(tags, 3);
}
