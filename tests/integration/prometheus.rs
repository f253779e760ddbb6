//! Prometheus queries: the answers that a server, or something in front of it, can give; then a real server.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use panacea::{
    analyze::observation::{Measured, UnknownReason, Unmeasured},
    targets::prometheus::Prometheus,
};
use serde_json::{Value, json};
use url::Url;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_string_contains, header, method, path},
};

const LIMIT: Duration = Duration::from_secs(3);

fn install_tls_provider() {
    // The second caller in this process gets an error, because there is one: fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

async fn ask(url: &Url, query: &str) -> Measured<f64> {
    install_tls_provider();
    Prometheus::new(None).query(query, Some(url), LIMIT).await
}

/// The reading from one response.
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

async fn range(url: &Url, query: &str, seconds: (i64, i64), step: u64) -> Result<Vec<(i64, f64)>, Unmeasured> {
    install_tls_provider();
    let at = |second| Timestamp::from_second(second).unwrap();
    let (start, end) = (at(seconds.0), at(seconds.1));
    let found = Prometheus::new(None).range(query, Some(url), start, end, Duration::from_secs(step), LIMIT).await;
    found.map(|values| values.into_iter().map(|(at, value)| (at.as_second(), value)).collect())
}

/// The samples from one response to a range query.
async fn range_answer(template: ResponseTemplate) -> Result<Vec<(i64, f64)>, Unmeasured> {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/api/v1/query_range"))
        .and(body_string_contains("query=up&start=0.000&end=180.000&step=60.000&timeout=3000ms"))
        .respond_with(template)
        .mount(&server)
        .await;
    range(&Url::parse(&server.uri()).unwrap(), "up", (0, 180), 60).await
}

fn matrix(values: Value) -> ResponseTemplate {
    success("matrix", json!([{"metric": {"pod": "a"}, "values": values}]))
}

#[tokio::test]
async fn a_range_leaves_out_what_is_not_a_number() {
    let values = json!([[0, "1"], [60, "NaN"], [120, "+Inf"], [180, "2.5"]]);
    assert_eq!(range_answer(matrix(values)).await.unwrap(), [(0, 1.0), (180, 2.5)]);
}

#[tokio::test]
async fn a_range_that_cannot_be_used_says_why() {
    let check = async |template, reason, words: &[&str]| {
        let why = range_answer(template).await.unwrap_err();
        unknown(Measured::Unknown(why), reason, words);
    };
    check(matrix(json!([[0, "NaN"]])), UnknownReason::NoData, &["no value from 1970-01-01T00:00:00Z"]).await;
    check(success("matrix", json!([])), UnknownReason::NoData, &[]).await;
    let two = json!([{"metric": {"pod": "a"}, "values": [[0, "1"]]}, {"metric": {"pod": "b"}, "values": [[60, "1"]]}]);
    check(success("matrix", two), UnknownReason::SeveralSeries, &["2 series", "{pod=\"b\"}", "aggregate"]).await;
    check(success("vector", json!([])), UnknownReason::BadAnswer, &["vector instead of a matrix"]).await;
    check(success("matrix", json!([{"metric": {}, "histograms": []}])), UnknownReason::BadAnswer, &["histogram"]).await;
    check(matrix(json!([[60, "1"], [60, "2"]])), UnknownReason::BadAnswer, &["do not grow"]).await;
    check(matrix(json!([[0, "much"]])), UnknownReason::BadAnswer, &["much"]).await;
    let refusal = json!({"status": "error", "errorType": "bad_data", "error": "its words"});
    check(ResponseTemplate::new(400).set_body_json(refusal), UnknownReason::Refused, &["its words"]).await;
    check(ResponseTemplate::new(502), UnknownReason::Unreachable, &["502"]).await;
}

#[tokio::test]
async fn a_long_range_is_asked_for_in_parts_and_a_series_that_changes_between_them_is_several() {
    for (second_pod, expected) in [("a", Ok(vec![(0, 1.0), (10_000, 2.0)])), ("b", Err(UnknownReason::SeveralSeries))] {
        let server = MockServer::start().await;
        for (range, pod, at, value) in
            [("start=0.000&end=9999.000", "a", 0, "1"), ("start=10000.000&end=12000.000", second_pod, 10_000, "2")]
        {
            Mock::given(path("/api/v1/query_range"))
                .and(body_string_contains(range))
                .respond_with(success("matrix", json!([{"metric": {"pod": pod}, "values": [[at, value]]}])))
                .expect(1)
                .mount(&server)
                .await;
        }
        let found = range(&Url::parse(&server.uri()).unwrap(), "up", (0, 12_000), 1).await;
        assert_eq!(found.map_err(|why| why.reason), expected);
    }
}

#[tokio::test]
async fn a_range_takes_no_longer_than_its_limit() {
    install_tls_provider();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let (at, limit) = (Timestamp::UNIX_EPOCH, Duration::from_millis(300));
    let why = Prometheus::new(None).range("up", Some(&url), at, at, Duration::from_secs(1), limit).await.unwrap_err();
    unknown(Measured::Unknown(why), UnknownReason::Timeout, &["300ms"]);
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

#[tokio::test]
async fn a_real_prometheus_tells_its_range_in_parts() {
    let server = real().await;
    // A fortnight of minutes: more points than it gives at once.
    let values = range(&server.url, "vector(time())", (1_772_359_200, 1_772_359_200 + 14 * 86_400), 60).await.unwrap();
    assert_eq!(values.len(), 14 * 1440 + 1);
    assert!(
        values.iter().zip(0..).all(|((at, value), place)| *at == 1_772_359_200 + place * 60 && *value == *at as f64)
    );
    assert_eq!(
        range(&server.url, "vector(0) / vector(0)", (0, 60), 60).await.unwrap_err().reason,
        UnknownReason::NoData
    );
    assert_eq!(range(&server.url, "sum by (", (0, 60), 60).await.unwrap_err().reason, UnknownReason::Refused);
}

#[tokio::test]
async fn a_backtest_of_what_a_real_prometheus_holds() {
    let server = real().await;
    let output = Command::new(env!("CARGO_BIN_EXE_panacea"))
        .args(["backtest", "--prometheus", server.url.as_str(), "--since", "1d", "--component", "api"])
        .args(["--query", "memory_usage=vector(50)", "--query", "cpu_usage=vector(40)"])
        .args(["--step", "1m", "--jsonl", "-"])
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), 1441);
    assert!(lines.lines().all(|line| line.starts_with("{\"set\":\"prometheus\",\"component\":\"api\",\"t\":")));
    assert!(errors.contains("prometheus/api"), "{errors}");
    let two = r#"up=label_replace(vector(1), "pod", "a", "", "") or label_replace(vector(2), "pod", "b", "", "")"#;
    let output = Command::new(env!("CARGO_BIN_EXE_panacea"))
        .args(["backtest", "--prometheus", server.url.as_str(), "--query", two])
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("SeveralSeries") && errors.contains("aggregate them to one"), "{errors}");
}
