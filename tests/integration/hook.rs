//! A component's own cleanup: what counts as done, and what is said when it is not.

use std::{net::TcpListener, time::Duration};

use panacea::{
    api::{Hook, HookMethod},
    targets::custom::hook::{HookAnswer, HookClient, HookError},
};
use serde_json::json;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{header, method, path, query_param},
};

fn hook(url: String) -> Hook {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Hook { url, method: HookMethod::Post, timeout: "1s".into() }
}

async fn call(hook: &Hook) -> Result<HookAnswer, HookError> {
    HookClient::default().call(hook, "uid-1").await
}

/// Answers with these, one a call; the last one from then on.
async fn answers(templates: Vec<ResponseTemplate>) -> MockServer {
    let server = MockServer::start().await;
    let last = templates.len() - 1;
    for (place, template) in templates.into_iter().enumerate() {
        let mock = Mock::given(method("POST")).and(path("/gc")).and(header("idempotency-key", "uid-1"));
        let mock = mock.respond_with(template);
        if place < last { mock.up_to_n_times(1) } else { mock }.mount(&server).await;
    }
    server
}

#[tokio::test]
async fn any_success_counts_and_what_it_says_is_taken_when_it_is_a_number() {
    let json = |body: serde_json::Value| ResponseTemplate::new(200).set_body_json(body);
    let said = |objects_collected, memory_freed_mb| HookAnswer { objects_collected, memory_freed_mb };
    for (template, expected) in [
        (json(json!({"objects_collected": 7, "memory_freed_mb": 1.5, "more": []})), said(Some(7), Some(1.5))),
        (json(json!({"objects_collected": "many", "memory_freed_mb": 3})), said(None, Some(3.0))),
        (json(json!([1])), said(None, None)),
        (ResponseTemplate::new(204), said(None, None)),
        (ResponseTemplate::new(299).set_body_string("done"), said(None, None)),
        (ResponseTemplate::new(200).set_body_string("x".repeat(2_000_000)), said(None, None)),
    ] {
        let server = answers(vec![template]).await;
        assert_eq!(call(&hook(format!("{}/gc", server.uri()))).await, Ok(expected));
        assert_eq!(server.received_requests().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn the_method_and_the_query_are_those_of_the_policy() {
    let server = MockServer::start().await;
    let put = Mock::given(method("PUT")).and(path("/a/gc")).and(query_param("full", "true"));
    put.respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let mut hook = hook(format!("{}/a/gc?full=true", server.uri()));
    assert!(matches!(call(&hook).await, Err(HookError::Refused { status: 404, .. })));
    hook.method = HookMethod::Put;
    assert_eq!(call(&hook).await, Ok(HookAnswer::default()));
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    let busy = || ResponseTemplate::new(503);
    let server = answers(vec![busy(), ResponseTemplate::new(200)]).await;
    assert_eq!(call(&hook(format!("{}/gc", server.uri()))).await, Ok(HookAnswer::default()));
    let server = answers(vec![busy()]).await;
    assert_eq!(call(&hook(format!("{}/gc", server.uri()))).await.unwrap_err().reason().name(), "HookRefused");
    assert_eq!(server.received_requests().await.unwrap().len(), 3);

    let server = answers(vec![ResponseTemplate::new(500).set_body_string("no collector")]).await;
    let error = call(&hook(format!("{}/gc?token=hunter2", server.uri()))).await.unwrap_err();
    let words = error.to_string();
    assert!(words.contains("/gc responded 500 instead of 200 to 299: \"no collector\""), "{words}");
    assert!(!words.contains("hunter2"), "a token is shown: {words}");
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = MockServer::start().await;
    let server = answers(vec![ResponseTemplate::new(307).insert_header("location", elsewhere.uri())]).await;
    let error = call(&hook(format!("{}/gc", server.uri()))).await.unwrap_err();
    assert!(error.to_string().contains("redirects are not followed"), "{error}");
    assert!(elsewhere.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn no_answer_in_time_and_nobody_there() {
    let server = answers(vec![ResponseTemplate::new(200).set_delay(Duration::from_secs(30))]).await;
    let mut slow = hook(format!("{}/gc", server.uri()));
    slow.timeout = "200ms".into();
    let error = call(&slow).await.unwrap_err();
    assert_eq!(error.reason().name(), "HookTimeout", "{error}");
    assert_eq!(server.received_requests().await.unwrap().len(), 1, "it may be at work");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = call(&hook(format!("http://{closed}/gc"))).await.unwrap_err();
    assert_eq!(error.reason().name(), "HookUnreachable");
    assert!(error.to_string().to_lowercase().contains("refused"), "{error}");
}
