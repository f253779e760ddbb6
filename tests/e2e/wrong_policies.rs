//! Wrong policies are refused by the API server, or reported with field, value and fix; right ones are taken.
//!
//! Each file of wrong-policies/ says in its first two lines what is said of it (`# expect: TEXT`) and where
//! (`# where: apply` or `# where: status`).

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{Router, response::Html};
use futures::{StreamExt as _, stream};
use panacea::api::{HealingPolicy, HealthStatus};
use serde_json::{Value, json};

use crate::support::{
    cluster::{Test, run},
    objects::policy,
    operator::{Operator, Options},
    wait,
};

/// The issue's number; fewer would pass when the folder is not found.
const AT_LEAST: usize = 25;
const LIMIT: Duration = Duration::from_secs(60);

fn policies(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e").join(folder);
    let files = fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

/// The text after `# KEY: ` in the file's first two lines.
fn header<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let start = format!("# {key}: ");
    text.lines().take(2).find_map(|line| line.strip_prefix(start.as_str())).map(str::trim)
}

/// What is wrong with how this policy was answered, if anything.
async fn check_wrong(test: &Test, path: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).unwrap();
    let expected = header(&text, "expect").filter(|expected| !expected.is_empty()).ok_or("no line `# expect: …`")?;
    let place = header(&text, "where").ok_or("no line `# where: …`")?;
    let applied = test.kubectl(&["apply", "--filename", path.to_str().unwrap(), "--output=name"]).await;
    let (output, errors) = (applied.stdout.as_str(), applied.stderr.as_str());
    match (place, applied.success()) {
        ("apply", false) if errors.contains(expected) => Ok(()),
        ("apply", false) => Err(format!("refused with other words: {errors}")),
        ("apply", true) => Err("the API server took it".to_owned()),
        ("status", false) => Err(format!("the API server refused it: {errors}")),
        ("status", true) => {
            let name = output.trim().rsplit('/').next().unwrap_or_default();
            let (reason, message) = test.wait_condition(name, "Ready", "False", LIMIT).await;
            if reason != "InvalidSpec" || !message.contains(expected) {
                return Err(format!("Ready=False, {reason}: {message}"));
            }
            if !message.contains("spec.") {
                return Err(format!("the field is not named: {message}"));
            }
            test.wait_event("InvalidSpec", name, expected).await;
            Ok(())
        }
        (other, _) => Err(format!("`# where: {other}` is neither apply nor status")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_policy_is_refused_or_reported_and_the_operator_continues() {
    let files = policies("wrong-policies");
    assert!(files.len() >= AT_LEAST, "only {} wrong policies", files.len());
    run("wrong", async |test| {
        let mut operator = Operator::start(test, Options::default()).await;
        let checks = files.iter().map(|path| async move {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            check_wrong(test, path).await.err().map(|why| format!("{name}: {why}"))
        });
        let failures: Vec<String> =
            stream::iter(checks).buffer_unordered(4).filter_map(|failure| async { failure }).collect().await;
        assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), files.len(), failures.join("\n"));
        assert!(operator.is_running(), "the operator ended");
        assert!(!operator.log().contains("panicked"), "{}", operator.log());

        // And it does its work: a good policy beside all those.
        test.deploy("api", "shop/api:v1", 1).await;
        test.apply_policy(&policy("shop", &["api"], &json!({}))).await;
        test.wait_status("shop", "api", HealthStatus::Healthy).await;
        test.only_told().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_policy_is_taken_and_watched() {
    let files = policies("right-policies");
    assert!(!files.is_empty(), "no right policies");
    run("right", async |test| {
        let mut operator = Operator::start(test, Options::default()).await;
        for path in &files {
            let output = test.kubectl_succeeds(&["apply", "--filename", path.to_str().unwrap(), "--output=name"]).await;
            let name = output.trim().rsplit('/').next().unwrap().to_owned();
            let ready = wait::until(&format!("{name} to be assessed"), LIMIT, async || {
                let policy: HealingPolicy = test.api().get(&name).await.map_err(|why| why.to_string())?;
                let conditions = policy.status.clone().unwrap_or_default().conditions;
                let ready = conditions.iter().find(|condition| condition.type_ == "Ready").cloned();
                let looked = policy.spec.suspend
                    || policy.status.iter().flat_map(|status| &status.components).all(|c| c.since.is_some());
                ready.filter(|_| looked).ok_or_else(|| format!("{:?}", policy.status))
            })
            .await;
            let (status, reason) = (ready.status.as_str(), ready.reason.as_str());
            // None of their Deployments exists here, and the role reads no keys.
            let known = ["TargetNotFound", "Forbidden"].contains(&reason);
            assert!(status == "True" || known, "{}: {ready:?}", path.display());
        }
        assert!(operator.is_running(), "the operator ended");
        test.only_told().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_component_is_reported_and_the_others_are_watched() {
    run("one-wrong", async |test| {
        let mut operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 2).await;
        let mut wanted = policy("shop", &["api"], &json!({"spec": {"interval": "1s"}}));
        let wrong = json!({"name": "web", "target": {"http": {
            "url": "http://127.0.0.1:9/", "json": {"path": "status[", "equals": "ok"}}}});
        wanted["spec"]["components"].as_array_mut().unwrap().push(wrong);
        test.apply_policy(&wanted).await;

        let (reason, message) = test.wait_condition("shop", "Ready", "False", LIMIT).await;
        assert_eq!(reason, "InvalidSpec");
        for part in ["spec.components[1].target.http.json.path", "status[", "the other components are watched"] {
            assert!(message.contains(part), "no {part:?} in {message}");
        }
        test.wait_event("InvalidSpec", "shop", "status[").await;
        test.wait_known_good("shop", "api").await;
        test.nothing_is_done(&mut operator, Duration::from_secs(3)).await;

        // Corrected, the policy is ready: nothing has to be restarted.
        wanted["spec"]["components"].as_array_mut().unwrap().pop();
        let components = wanted["spec"]["components"].clone();
        test.patch_policy("shop", json!({"spec": {"components": components}})).await;
        test.wait_condition("shop", "Ready", "True", LIMIT).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_does_not_exist_is_named_and_the_others_are_watched() {
    run("missing", async |test| {
        let mut operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/api:v1", 2).await;
        test.apply_policy(&policy("shop", &["api", "ghost"], &json!({"spec": {"interval": "1s"}}))).await;
        let (reason, message) = test.wait_condition("shop", "Ready", "False", LIMIT).await;
        assert_eq!(reason, "TargetNotFound");
        assert!(message.contains(&format!("Deployment {}/ghost does not exist", test.namespace)), "{message}");
        test.wait_known_good("shop", "api").await;
        test.wait_status("shop", "ghost", HealthStatus::Unknown).await;
        test.nothing_is_done(&mut operator, Duration::from_secs(3)).await;

        test.deploy("ghost", "shop/ghost:v1", 1).await;
        test.wait_known_good("shop", "ghost").await;
        test.wait_condition("shop", "Ready", "True", LIMIT).await;
    })
    .await;
}

/// A server that answers everything with a page for people, as a proxy or login does.
async fn html_server() -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(async || Html("<!doctype html><title>Please log in</title>"));
    (url, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metric_that_cannot_be_measured_is_unknown_with_the_reason_and_nothing_is_done() {
    run("unmeasured", async |test| {
        let mut operator = Operator::start(test, Options::default()).await;
        let (html, server) = html_server().await;
        // A port that was free a moment ago, and that nobody listens on.
        let nobody = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}", listener.local_addr().unwrap())
        };
        let two = r#"vector(1) or label_replace(vector(2), "who", "b", "", "")"#;
        // Component, query, server (none: the operator's own), reason in the status.
        let cases = [
            ("unreachable", "vector(1)", Some(nobody.as_str()), "Unreachable"),
            ("html", "vector(1)", Some(html.as_str()), "BadAnswer"),
            ("several", two, None, "SeveralSeries"),
            ("nothing", "no_such_series", None, "NoData"),
            ("not-a-number", "vector(0) / 0", None, "NotANumber"),
            ("nonsense", "rate(", None, "Refused"),
            ("well", "vector(1)", None, ""),
        ];
        let names: Vec<&str> = cases.iter().map(|case| case.0).collect();
        let mut wanted = policy("shop", &names, &json!({"spec": {"interval": "1s"}}));
        for (index, (name, query, url, _)) in cases.iter().enumerate() {
            test.deploy(name, "shop/api:v1", 1).await;
            let mut source = json!({"query": query});
            if let Some(url) = url {
                source["url"] = Value::from(*url);
            }
            wanted["spec"]["components"][index]["metrics"] = json!([{"name": "latency_ms", "prometheus": source}]);
        }
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "well").await;
        for (name, _, _, reason) in cases.iter().filter(|case| !case.3.is_empty()) {
            let words = format!("latency_ms unknown ({reason})");
            let seen = test
                .wait_component("shop", name, &format!("to say {words:?}"), |status| status.message.contains(&words))
                .await;
            assert_eq!(seen.status, HealthStatus::Unknown, "{seen:?}");
            assert_eq!(seen.score, None, "unknown is no number: {seen:?}");
            assert!(seen.known_good.is_empty(), "what could not be measured is not known good: {seen:?}");
        }
        // What a person has to change is no mere gap in the data.
        let (reason, message) = test.wait_condition("shop", "Ready", "False", LIMIT).await;
        assert!(["SeveralSeries", "Refused"].contains(&reason.as_str()), "{reason}: {message}");
        assert!(message.contains("several: latency_ms") && message.contains("nonsense: latency_ms"), "{message}");
        test.nothing_is_done(&mut operator, Duration::from_secs(6)).await;
        server.abort();
    })
    .await;
}
