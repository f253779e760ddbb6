use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::analyze::metric::MEMORY_USAGE;
use crate::targets::kubernetes::{
    fake_server::{Exchange, failure, get, hangs, server},
    fixtures::{NAME, NS, ago, deployment, healthy, now, owned_by, pod, releasing, replica_set, see, synced, with},
};

const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods?";

/// With an `app` that may use one core and 100Mi, and a `proxy` that may use 1Gi.
fn limited(pod: Value) -> Value {
    let limits = |name: &str, limits: Value| json!({"name": name, "resources": {"limits": limits}});
    let app = limits("app", json!({"cpu": "1", "memory": "100Mi"}));
    with(pod, "/spec/containers", json!([app, limits("proxy", json!({"memory": "1Gi"})), {"name": "free"}]))
}

/// Three pods that have been ready for half an hour.
fn index() -> ClusterIndex {
    let index = healthy();
    for id in ["1", "2", "3"] {
        see(&index, limited(pod("aaa", id)));
    }
    index
}

/// As metrics-server answers, of a window of 15 s that ended so many seconds ago.
fn measured(pod: &str, seconds_ago: i64, cpu: &str, memory: &str) -> Value {
    let container =
        |name: &str, cpu: &str, memory: &str| json!({"name": name, "usage": {"cpu": cpu, "memory": memory}});
    json!({
        "metadata": {"name": pod, "namespace": NS, "creationTimestamp": ago(0), "labels": {"app": NAME}},
        "timestamp": ago(seconds_ago), "window": "15.123s",
        "containers": [container("app", cpu, memory), container("proxy", "900m", "200Mi"), container("free", "8", "8Gi")],
    })
}

fn answer(pods: &[Value]) -> Exchange {
    let list = json!({"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": pods});
    get(PODS, 200, list)
}

fn refusal(status: u16, reason: &str) -> Exchange {
    get(PODS, status, failure(status, reason, "words"))
}

fn later(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

fn whose(namespace: &str, of_release: bool) -> Whose<'_> {
    Whose { kind: WorkloadKind::Deployment, namespace, name: NAME, of_release }
}

/// Metric, percent, container and pod, as they are read at that time.
async fn read(usage: &Usage, index: &ClusterIndex, at: Timestamp) -> Vec<(&'static str, i64, String)> {
    shown(usage.read(index, whose(NS, false), at).await)
}

fn shown(readings: Vec<(&'static str, Reading)>) -> Vec<(&'static str, i64, String)> {
    let shown = |(metric, reading): (&'static str, Reading)| {
        let percent = reading.value.known().copied().unwrap_or(f64::NAN).round() as i64;
        (metric, percent, reading.sample.map(|sample| sample.to_string()).unwrap_or_default())
    };
    readings.into_iter().map(shown).collect()
}

fn usage(
    script: Vec<Exchange>,
) -> (Usage, tokio::task::JoinHandle<Vec<crate::targets::kubernetes::fake_server::Seen>>) {
    let (client, task) = server(script);
    (Usage::new(client), task)
}

fn memory(percent: i64, pod: &str) -> Vec<(&'static str, i64, String)> {
    vec![(MEMORY_USAGE, percent, format!("container app of pod {pod}"))]
}

/// A pod with this much memory; its CPU is that of another window.
fn only_memory(memory: &str) -> Exchange {
    let mut pod = measured("api-aaa-1", 20, "0", memory);
    pod["containers"][0]["usage"].as_object_mut().unwrap().remove("cpu");
    answer(&[pod])
}

#[tokio::test]
async fn the_fullest_container_of_all_pods_decides_and_is_named() {
    let (usage, server) = usage(vec![answer(&[
        measured("api-aaa-1", 20, "250m", "1024Ki"),
        measured("api-aaa-2", 25, "12345678n", "94371840"),
        measured("api-aaa-3", 20, "870000u", "52Mi"),
        measured("another", 20, "4", "1Gi"),
    ])]);
    let index = index();
    let expected = vec![
        (CPU_USAGE, 87, "container app of pod api-aaa-3".to_owned()),
        (MEMORY_USAGE, 90, "container app of pod api-aaa-2".to_owned()),
    ];
    // Checks at the same time, and soon after: one request.
    let (first, second) = tokio::join!(read(&usage, &index, now()), read(&usage, &index, later(1)));
    assert_eq!((first, second), (expected.clone(), expected));
    assert_eq!(read(&usage, &index, later(9)).await.len(), 2);
    let sample = usage.read(&index, whose(NS, false), later(9)).await.remove(1).1.sample.unwrap();
    assert_eq!(sample.at.to_string(), ago(25));
    drop(usage);
    assert_eq!(server.await.unwrap().len(), 1);
}

#[tokio::test]
async fn more_than_the_limit_is_all_of_it_and_a_full_proxy_is_named_too() {
    let mut pod = measured("api-aaa-1", 20, "1300m", "1Mi");
    pod["containers"][1]["usage"]["memory"] = "972Mi".into();
    let (usage, _server) = usage(vec![answer(&[pod])]);
    let expected = vec![
        (CPU_USAGE, 100, "container app of pod api-aaa-1".to_owned()),
        (MEMORY_USAGE, 95, "container proxy of pod api-aaa-1".to_owned()),
    ];
    assert_eq!(read(&usage, &index(), now()).await, expected);
}

#[tokio::test]
async fn without_limits_no_request_is_sent() {
    let (usage, _server) = usage(Vec::new());
    for index in [healthy(), synced(), ClusterIndex::default()] {
        assert_eq!(read(&usage, &index, now()).await, []);
    }
    // Requests are no limits.
    let requests = json!([{"name": "app", "resources": {"requests": {"cpu": "1", "memory": "1Mi"}}}]);
    let index = healthy();
    see(&index, with(pod("aaa", "1"), "/spec/containers", requests));
    assert_eq!(read(&usage, &index, now()).await, []);
}

#[tokio::test]
async fn a_pod_without_samples_or_with_old_ones_is_left_out() {
    let (usage, _server) =
        usage(vec![answer(&[measured("api-aaa-1", 151, "1", "100Mi"), measured("api-aaa-2", 149, "0", "50Mi")])]);
    let index = index();
    let expected = vec![
        (CPU_USAGE, 0, "container app of pod api-aaa-2".to_owned()),
        (MEMORY_USAGE, 50, "container app of pod api-aaa-2".to_owned()),
    ];
    assert_eq!(read(&usage, &index, now()).await, expected);
    assert_eq!(read(&usage, &index, later(5)).await, [], "no pod has any that is new enough");
}

#[tokio::test]
async fn an_absent_source_is_requested_again_after_five_minutes() {
    let (usage, server) = usage(vec![get(PODS, 404, json!("404 page not found")), only_memory("70Mi")]);
    let index = index();
    let elsewhere =
        with(with(deployment(1, "v1", 1), "/metadata/namespace", "other".into()), "/metadata/uid", "d-1".into());
    see(&index, elsewhere);
    see(&index, with(replica_set(1, "v1", "aaa"), "/metadata/namespace", "other".into()));
    see(&index, with(limited(pod("aaa", "1")), "/metadata/namespace", "other".into()));
    assert_eq!(index.limited_pods(WorkloadKind::Deployment, "other", NAME, false, now()).len(), 1);
    for (seconds, namespace) in [(0, NS), (1, NS), (2, "other"), (299, NS), (299, "other")] {
        assert_eq!(usage.read(&index, whose(namespace, false), later(seconds)).await, [], "{namespace} at {seconds} s");
    }
    // As late as the figures of the script are still new.
    let due = usage.again.lock().take();
    assert_eq!(due, Some(later(300)));
    usage.spaces.lock()[NS].try_lock().unwrap().again = None;
    assert_eq!(read(&usage, &index, now()).await, memory(70, "api-aaa-1"));
    drop(usage);
    assert_eq!(server.await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_forbidden_in_one_namespace_may_be_allowed_in_another() {
    let (usage, server) = usage(vec![refusal(403, "Forbidden")]);
    let index = index();
    for seconds in [0, 10, 299] {
        assert_eq!(read(&usage, &index, later(seconds)).await, [], "at {seconds} s");
    }
    assert!(usage.again.lock().is_none(), "others may ask");
    drop(usage);
    assert_eq!(server.await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_sample_counts_until_it_is_stale_whatever_the_state_of_the_source() {
    let broken = get(PODS, 200, json!({"kind": "PodMetricsList", "items": "none"}));
    let (usage, server) = usage(vec![
        only_memory("80Mi"),
        get(PODS, 503, json!("service unavailable")),
        broken,
        refusal(500, "InternalError"),
        refusal(429, "TooManyRequests"),
        refusal(503, "ServiceUnavailable"),
    ]);
    let index = index();
    for seconds in [0, 10, 39, 40, 70, 100, 130] {
        assert_eq!(read(&usage, &index, later(seconds)).await, memory(80, "api-aaa-1"), "at {seconds} s");
    }
    assert_eq!(read(&usage, &index, later(131)).await, []);
    assert_eq!(usage.read(&index, whose("nobody", false), later(131)).await, []);
    drop(usage);
    assert_eq!(server.await.unwrap().len(), 6);
}

#[tokio::test]
async fn a_source_that_hangs_costs_a_query_no_more_than_its_limit() {
    let (usage, _server) = usage(vec![hangs(only_memory("80Mi"))]);
    let index = index();
    let started = std::time::Instant::now();
    let looks = [read(&usage, &index, now()), read(&usage, &index, now()), read(&usage, &index, now())];
    assert!(futures::future::join_all(looks).await.iter().all(Vec::is_empty));
    assert_eq!(read(&usage, &index, later(29)).await, []);
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
}

#[tokio::test]
async fn cpu_counts_when_the_pod_is_warm_and_memory_at_once() {
    let since = |seconds: i64| {
        let pod = with(limited(pod("aaa", "1")), "/status/conditions/1/lastTransitionTime", ago(seconds).into());
        with(pod, "/status/startTime", ago(seconds + 5).into())
    };
    let unready = with(since(1000), "/status/conditions/1/status", "False".into());
    let others = |index: &ClusterIndex| {
        for id in ["2", "3"] {
            see(index, pod("aaa", id));
        }
    };
    // Of 15 s before the last 20.
    for (pod, expected) in [(since(150), 1), (since(157), 2), (unready, 1)] {
        let (usage, _server) = usage(vec![answer(&[measured("api-aaa-1", 20, "1", "70Mi")])]);
        let index = index();
        others(&index);
        see(&index, pod);
        assert_eq!(read(&usage, &index, now()).await.len(), expected);
    }
}

#[tokio::test]
async fn while_a_release_is_watched_only_its_own_pods_count() {
    let figures = [measured("api-aaa-1", 20, "1", "99Mi"), measured("api-bbb-9", 20, "0", "30Mi")];
    let (usage, _server) = usage(vec![answer(&figures), answer(&figures[..1])]);
    let index = releasing(limited(pod("bbb", "9")));
    see(&index, limited(pod("aaa", "1")));
    let new = usage.read(&index, whose(NS, true), now()).await;
    assert!(new.iter().all(|(_, reading)| reading.of_release));
    assert_eq!(shown(new)[1], memory(30, "api-bbb-9")[0]);
    assert_eq!(read(&usage, &index, now()).await[1], memory(99, "api-aaa-1")[0]);
    assert_eq!(usage.read(&index, whose(NS, true), later(10)).await, [], "it has no figures yet");
}

#[tokio::test]
async fn terminating_missing_and_foreign_pods_do_not_count() {
    let of_one = |pod: Value| {
        let index = synced();
        see(&index, deployment(1, "v1", 3));
        see(&index, replica_set(1, "v1", "aaa"));
        see(&index, limited(pod));
        index
    };
    let lost = with(pod("aaa", "1"), "/spec/nodeName", "n2".into());
    let leaving = with(pod("aaa", "1"), "/metadata/deletionTimestamp", ago(5).into());
    let over = with(pod("aaa", "1"), "/status/phase", "Failed".into());
    let (usage, _server) = usage(vec![answer(&[measured("api-aaa-1", 20, "1", "99Mi")])]);
    for pod in [lost, leaving, over] {
        assert_eq!(read(&usage, &of_one(pod), now()).await, []);
    }
    // The figures are of the pod that had this name before.
    let younger = with(pod("aaa", "1"), "/status/startTime", ago(10).into());
    assert_eq!(read(&usage, &of_one(younger), now()).await, []);
}

#[tokio::test]
async fn statefulsets_and_single_pods_are_measured() {
    use crate::targets::kubernetes::fixtures::{controller_revision, revisioned};
    let kind = WorkloadKind::StatefulSet;
    let index = synced();
    see(&index, revisioned(kind, 1, "v1", "aaa", 2));
    see(&index, controller_revision(kind, 1, "v1", "aaa"));
    for name in ["api-0", "api-1"] {
        see(&index, owned_by(kind, limited(pod("aaa", name)), name, "aaa"));
    }
    let (usage, _server) = usage(vec![answer(&[measured("api-1", 20, "1", "60Mi")]), answer(&[])]);
    let whose = Whose { kind, ..whose(NS, false) };
    assert_eq!(shown(usage.read(&index, whose, now()).await)[1], memory(60, "api-1")[0]);
    let names = ["api-0", "api-1", "api-2"].map(str::to_owned);
    let values = usage.of_pods(&index, whose, MEMORY_USAGE, &names, now()).await.unwrap();
    assert_eq!(values.iter().map(|value| value.known().copied()).collect::<Vec<_>>(), [None, Some(60.0), None]);
    assert_eq!(usage.of_pods(&index, whose, MEMORY_USAGE, &names, later(200)).await, None);
}

#[tokio::test]
async fn namespaces_that_are_not_queried_are_forgotten() {
    let (usage, _server) = usage(vec![only_memory("80Mi")]);
    assert_eq!(read(&usage, &index(), now()).await.len(), 1);
    usage.space("other", later(150)).try_lock().unwrap().queried = Some(later(150));
    assert_eq!(usage.spaces.lock().len(), 2);
    usage.space("third", later(151));
    let left: Vec<String> = usage.spaces.lock().keys().map(ToString::to_string).collect();
    assert!(!left.contains(&NS.to_owned()) && left.len() == 2, "{left:?}");
}
