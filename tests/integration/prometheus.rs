//! Prometheus queries: the answers that a server, or something in front of it, can give; then a real server.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use panacea::{
    analyze::observation::{Measured, UnknownReason},
    platforms::prometheus::Prometheus,
};
use serde_json::{Value, json};
use url::Url;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_string_contains, header, method, path},
};

const LIMIT: Duration = Duration::from_secs(3);

fn install_tls_provider() {
    // The second caller in this process is told that there is one: fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

async fn ask(url: &Url, query: &str) -> Measured<f64> {
    install_tls_provider();
    Prometheus::new(None).query(query, Some(url), LIMIT).await
}

/// What comes of one answer.
async fn answer(template: ResponseTemplate) -> Measured<f64> {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/prom/api/v1/query"))
        .and(header("content-type", "application/x-www-form-urlencoded"))
        .and(body_string_contains("query=up%7Bjob%3D%22a%22%7D"))
        .and(body_string_contains("timeout=3000ms"))
        .respond_with(template)
        .mount(&server)
        .await;
    let url = Url::parse(&format!("{}/prom/?token=secret", server.uri())).unwrap();
    ask(&url, "up{job=\"a\"}").await
}

fn success(kind: &str, result: Value) -> ResponseTemplate {
    ResponseTemplate::new(200)
        .set_body_json(json!({"status": "success", "data": {"resultType": kind, "result": result}}))
}

fn series(value: &str) -> Value {
    json!([{"metric": {"__name__": "up"}, "value": [1767225600.123, value]}])
}

#[track_caller]
fn unknown(measured: Measured<f64>, reason: UnknownReason, words: &[&str]) {
    let Measured::Unknown(why) = measured else { panic!("{measured:?} instead of {reason}") };
    assert_eq!(why.reason, reason, "{}", why.message);
    for word in words {
        assert!(why.message.contains(word), "{word:?} is not in {:?}", why.message);
    }
    assert!(!why.message.contains("secret"), "{}", why.message);
}

#[tokio::test]
async fn one_sample_is_the_value() {
    assert_eq!(answer(success("vector", series("0.05"))).await, Measured::Known(0.05));
    assert_eq!(answer(success("scalar", json!([1767225600, "3e2"]))).await, Measured::Known(300.0));
    assert_eq!(answer(success("vector", series("-1"))).await, Measured::Known(-1.0));
    assert_eq!(answer(success("vector", series("0"))).await, Measured::Known(0.0));
}

#[tokio::test]
async fn what_is_not_a_number_is_unknown() {
    for value in ["NaN", "+Inf", "-Inf"] {
        unknown(answer(success("vector", series(value))).await, UnknownReason::NotANumber, &[value]);
    }
    unknown(answer(success("vector", json!([]))).await, UnknownReason::NoData, &["no series"]);
}

#[tokio::test]
async fn several_series_are_named() {
    let three: Vec<Value> =
        ["a", "b", "c"].iter().map(|pod| json!({"metric": {"pod": pod}, "value": [1, "1"]})).collect();
    let words = ["3 series", "{pod=\"a\"} and {pod=\"b\"}", "aggregate"];
    unknown(answer(success("vector", json!(three))).await, UnknownReason::SeveralSeries, &words);
}

#[tokio::test]
async fn answers_that_are_not_the_apis() {
    let html = "<html>\n<body>Please  log in</body></html>";
    for status in [200, 302, 404] {
        let page = ResponseTemplate::new(status).set_body_raw(html, "text/html");
        let words = ["text/html", "<html> <body>Please log in"];
        unknown(answer(page).await, UnknownReason::BadAnswer, &words);
    }
    let cut = ResponseTemplate::new(200).set_body_raw("{\"status\":\"succ", "application/json");
    unknown(answer(cut).await, UnknownReason::BadAnswer, &["application/json"]);
    unknown(answer(success("matrix", json!([]))).await, UnknownReason::BadAnswer, &["matrix", "one sample"]);
    unknown(answer(success("vector", json!({"a": 1}))).await, UnknownReason::BadAnswer, &["vector"]);
    unknown(
        answer(success("vector", json!([{"metric": {}, "histogram": [1, {}]}]))).await,
        UnknownReason::BadAnswer,
        &["histogram"],
    );
    unknown(answer(success("vector", series("much"))).await, UnknownReason::BadAnswer, &["much"]);
    let huge = ResponseTemplate::new(200).set_body_raw(vec![b' '; 1024 * 1024 + 1], "application/json");
    unknown(answer(huge).await, UnknownReason::BadAnswer, &["more than 1048576 bytes"]);
}

#[tokio::test]
async fn refusals_and_failures() {
    let error = |status: u16, kind: &str| {
        ResponseTemplate::new(status).set_body_json(json!({"status": "error", "errorType": kind, "error": "its words"}))
    };
    unknown(answer(error(400, "bad_data")).await, UnknownReason::Refused, &["bad_data", "its words"]);
    unknown(answer(error(422, "execution")).await, UnknownReason::Refused, &["execution"]);
    unknown(answer(error(503, "timeout")).await, UnknownReason::Timeout, &["its words"]);
    unknown(answer(error(500, "internal")).await, UnknownReason::Unreachable, &["internal"]);
    unknown(
        answer(ResponseTemplate::new(502).set_body_string("bad gateway")).await,
        UnknownReason::Unreachable,
        &["502"],
    );
    unknown(answer(ResponseTemplate::new(401).set_body_string("who?")).await, UnknownReason::Refused, &["401"]);
}

#[tokio::test]
async fn servers_that_do_not_answer() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = Url::parse(&format!("http://user:secret@{nobody}/?token=secret")).unwrap();
    unknown(ask(&url, "up").await, UnknownReason::Unreachable, &["refused", &format!("http://{nobody}/")]);
    let url = Url::parse("http://no-such-host.invalid").unwrap();
    unknown(ask(&url, "up").await, UnknownReason::Unreachable, &["no-such-host.invalid"]);
    // It accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let started = Instant::now();
    let measured = Prometheus::new(None).query("up", Some(&url), Duration::from_millis(300)).await;
    unknown(measured, UnknownReason::Timeout, &["300ms"]);
    assert!(started.elapsed() < LIMIT);
}

#[tokio::test]
async fn no_server_is_configured() {
    install_tls_provider();
    let measured = Prometheus::new(None).query("up", None, LIMIT).await;
    unknown(measured, UnknownReason::NotConfigured, &["prometheus.url", "--prometheus-url"]);
}

/// A real server with a directory of its own; stopped at the end of the test.
struct RealPrometheus {
    child: Child,
    url: Url,
    _directory: tempfile::TempDir,
}

impl Drop for RealPrometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn real() -> RealPrometheus {
    install_tls_provider();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("prometheus.yml");
    std::fs::write(&config, "global: {scrape_interval: 1h}\n").unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("no prometheus on PATH; on Debian: apt-get install prometheus");
    let url = Url::parse(&format!("http://{address}")).unwrap();
    let server = RealPrometheus { child, url, _directory: directory };
    let deadline = Instant::now() + Duration::from_secs(30);
    while ask(&server.url, "vector(1)").await != Measured::Known(1.0) {
        assert!(Instant::now() < deadline, "prometheus did not become ready within 30 s");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server
}

#[tokio::test]
async fn a_real_prometheus() {
    let server = real().await;
    let ask = async |query: &str| ask(&server.url, query).await;
    assert_eq!(ask("vector(1)").await, Measured::Known(1.0));
    assert_eq!(ask("scalar(vector(0.25))").await, Measured::Known(0.25));
    assert_eq!(ask("-vector(2)").await, Measured::Known(-2.0));
    unknown(ask("no_such_metric").await, UnknownReason::NoData, &[]);
    unknown(ask("vector(0) / vector(0)").await, UnknownReason::NotANumber, &["NaN"]);
    let two = r#"label_replace(vector(1), "pod", "a", "", "") or label_replace(vector(2), "pod", "b", "", "")"#;
    unknown(ask(two).await, UnknownReason::SeveralSeries, &["2 series", "pod=\"a\"", "pod=\"b\""]);
    unknown(ask("sum by (").await, UnknownReason::Refused, &["bad_data", "parse error"]);
    unknown(ask("up[5m]").await, UnknownReason::BadAnswer, &["matrix"]);
    // The pattern of pods as it is written in, inside each kind of quotes.
    for quote in ['"', '\'', '`'] {
        let query = format!(
            "label_replace(vector(7), \"pod\", \"api.v2-abc-x\", \"\", \"\") and on() label_replace(vector(1), \"p\", \"$1\", \"\", {quote}(api[.]v2-abc-.*|api[.]v2-def-.*)?{quote})"
        );
        assert_eq!(ask(&query).await, Measured::Known(7.0), "{query}");
    }
}
