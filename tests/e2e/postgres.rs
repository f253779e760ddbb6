//! PostgreSQL databases, on real servers: checked, reconnected, relieved.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::{ResourceExt as _, api::PostParams};
use panacea::{
    api::{ActionKind, Cause, HealthStatus, Phase, RESTARTED_AT, Remediation},
    plan::guard::Guard,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::support::{
    cluster::{Test, run},
    objects::{merge, policy},
    operator::{Operator, Options},
    pgbouncer::PgBouncer,
    postgres::{PASSWORD, PostgresServer, Setup},
    role::Role,
    wait,
};

/// What Panacea asks as: no superuser.
const WATCHER: &str = "watcher";
const WATCHERS_PASSWORD: &str = "w4tcher-secret";
const APP: &str = "app";
const APPS_PASSWORD: &str = "4pp-secret";

/// A server with the database and its roles.
async fn server() -> PostgresServer {
    let server = PostgresServer::start();
    roles(&server).await;
    server
}

/// A database with the roles of an application and of Panacea.
async fn roles(server: &PostgresServer) {
    let mut admin = server.admin().await;
    for sql in [
        format!("CREATE ROLE {WATCHER} LOGIN PASSWORD '{WATCHERS_PASSWORD}'"),
        format!("GRANT pg_monitor, pg_signal_backend TO {WATCHER}"),
        format!("CREATE ROLE {APP} LOGIN PASSWORD '{APPS_PASSWORD}'"),
        "CREATE DATABASE shop".to_owned(),
    ] {
        admin.execute(AssertSqlSafe(sql)).await.unwrap();
    }
}

fn url(server: &PostgresServer, role: &str, password: &str, more: &str) -> String {
    format!("postgres://{role}:{password}@127.0.0.1:{}/shop?sslmode=disable{more}", server.port())
}

fn watchers_url(server: &PostgresServer) -> String {
    url(server, WATCHER, WATCHERS_PASSWORD, "")
}

/// A session of the application's, or why it gets none.
async fn session(server: &PostgresServer, name: &str) -> sqlx::Result<PgConnection> {
    PgConnection::connect(&url(server, APP, APPS_PASSWORD, &format!("&options=-c%20application_name%3D{name}"))).await
}

/// One that has a transaction open, and its pid.
async fn open_transaction(server: &PostgresServer, name: &str) -> (PgConnection, i32) {
    let mut connection = session(server, name).await.unwrap();
    connection.execute("BEGIN").await.unwrap();
    let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
    (connection, pid)
}

/// A policy over one database, quick to act.
fn over(patch: &Value) -> Value {
    let mut component =
        json!({"name": "db", "target": {"postgres": {"connectionSecretRef": {"name": "db", "key": "url"}}}});
    merge(&mut component, patch);
    policies(&[component])
}

fn policies(components: &[Value]) -> Value {
    let mut wanted = policy("shop", &[], &json!({"spec": {"interval": "1s", "detection": {"confirmAfter": "500ms"}}}));
    wanted["spec"]["components"] = json!(components);
    wanted["spec"]["safety"]["maxUnhealthy"] = json!("100%");
    wanted
}

impl Test {
    async fn secret_url(&self, server: &PostgresServer) {
        self.make_secret("db", json!({"url": watchers_url(server)})).await;
    }

    /// The database, checked and healthy.
    async fn database_watched(&self, server: &PostgresServer, wanted: &Value) -> (Operator, Role) {
        self.secret_url(server).await;
        let begun = operator(self).await;
        self.apply_policy(wanted).await;
        self.healthy().await;
        begun
    }

    async fn healthy(&self) {
        self.wait_status("shop", "db", HealthStatus::Healthy).await;
    }
}

/// One that may read credentials.
async fn operator(test: &Test) -> (Operator, Role) {
    let role = Role::with(test, &["rbac.readCredentials=true"]).await;
    (Operator::start(test, Options::default().through(role.kubeconfig())).await, role)
}

fn progress(remediation: &Remediation) -> panacea::api::Progress {
    remediation.status.clone().unwrap().progress.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_unreachable_for_seven_seconds_is_recovered_at_the_try_that_the_schedule_says() {
    run("pg-recover", async |test| {
        let server = server().await;
        let (operator, _role) = test.database_watched(&server, &over(&json!({}))).await;

        server.kill();
        let name = test.wait_remediation(Phase::Running).await;
        let begun = name.status.as_ref().unwrap().started_at.unwrap();
        wait::until("seven seconds to be over", Duration::from_secs(10), async || {
            let left = begun.duration_since(Timestamp::now()) + SignedDuration::from_secs(7);
            if left.is_negative() { Ok(()) } else { Err(format!("{left:#}")) }
        })
        .await;
        server.start_again();
        let back = Timestamp::now();

        let ended = test.wait_ended(&name.name_any()).await;
        let status = ended.status.clone().unwrap();
        assert_eq!(
            (ended.spec.plan.action, ended.spec.plan.cause),
            (ActionKind::RecoverConnections, Cause::Unreachable)
        );
        assert_eq!((status.phase, status.reason.as_str()), (Phase::Succeeded, "Healthy"), "{status:?}");
        let done = progress(&ended).connections().cloned().unwrap();
        // 1, 3, 7 and 15 s after the beginning.
        assert!((3..=4).contains(&done.attempts), "{done:?}");
        assert_eq!(done.errors.len(), done.attempts as usize - 1);
        let place = format!("PostgreSQL 127.0.0.1:{}/shop as watcher: ", server.port());
        assert!(done.errors.iter().all(|error| error.starts_with(&place)), "{done:?}");
        let delay = SignedDuration::from_secs(1 << (done.attempts - 1));
        let last = done.last_at.unwrap();
        assert!(last >= back - SignedDuration::from_secs(1), "connected at {last}, it was back at {back}");
        assert!(last - delay <= back + SignedDuration::from_secs(1), "the first try after it was back");

        test.wait_recorded(&ended.name_any(), Duration::from_secs(30)).await;
        let rows = operator.action_rows().await;
        assert_eq!(rows, [("db_connection_recovered".to_owned(), true, ended.name_any())]);
        let row = &operator.action_outputs().await[0];
        assert_eq!(row["attempts"], json!(done.attempts));
        assert_eq!(row["errors"].as_array().unwrap().len(), done.errors.len());
        let seconds = row["duration_s"].as_f64().unwrap();
        assert!((7.0..25.0).contains(&seconds), "{row}");
        test.assert_stand_nowhere(&operator, &[WATCHERS_PASSWORD]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stays_away_for_longer_calls_a_person_opens_the_breaker_and_is_seen_when_it_returns() {
    run("pg-lost", async |test| {
        let server = server().await;
        let mut wanted = over(&json!({"remedies": [
            {"action": "RecoverConnections", "reconnect": {"delays": ["200ms", "3s", "500ms"]}},
            {"action": "RecoverConnections"},
        ]}));
        wanted["spec"]["safety"]["circuitBreaker"] = json!({"failureThreshold": 1, "recoveryTimeout": "1h"});
        let (mut operator, _role) = test.database_watched(&server, &wanted).await;

        server.kill();
        let running = test.wait_remediation(Phase::Running).await;
        wait::until("the first try", Duration::from_secs(20), async || {
            let all = test.remediations().await;
            let tried = all[0]
                .status
                .as_ref()
                .and_then(|status| status.progress.as_ref()?.connections())
                .map(|done| done.attempts);
            if tried == Some(1) { Ok(()) } else { Err(format!("{tried:?}")) }
        })
        .await;
        // An operator that dies in the middle continues with the schedule.
        operator.kill9();
        operator.spawn();
        operator.wait_ready().await;
        let ended = test.wait_ended(&running.name_any()).await;
        let status = ended.status.clone().unwrap();
        assert_eq!((status.phase, status.reason.as_str()), (Phase::Failed, "NotRecovered"), "{status:?}");
        let done = progress(&ended).connections().cloned().unwrap();
        assert_eq!((done.attempts, done.errors.len()), (3, 3), "{done:?}");
        test.wait_event("PersonNeeded", &ended.name_any(), "no connection in 3 tries").await;
        let (reason, _) = test.wait_condition("shop", "Healthy", "False", Duration::from_secs(20)).await;
        assert!(!reason.is_empty());
        test.wait_refusal("shop", "db", Guard::CircuitBreaker).await;
        test.wait_recorded(&ended.name_any(), Duration::from_secs(30)).await;
        assert_eq!(operator.action_rows().await, [("db_recovery_failed".to_owned(), false, ended.name_any())]);
        let row = &operator.action_outputs().await[0];
        assert_eq!((row["attempts"].as_u64(), row["errors"].as_array().map(Vec::len)), (Some(3), Some(3)), "{row}");

        server.start_again();
        test.healthy().await;
        assert_eq!(test.remediations().await.len(), 1, "it recovered without another action");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_the_operator_that_somebody_ends_are_no_outage() {
    run("pg-terminated", async |test| {
        let server = server().await;
        let (operator, _role) = test.database_watched(&server, &over(&json!({}))).await;
        let mut admin = server.admin().await;
        for _ in 0..3 {
            let ended: i64 = sqlx::query_scalar(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'watcher'",
            )
            .fetch_one(&mut admin)
            .await
            .unwrap();
            assert!(ended >= 1, "one is kept");
            operator.wait_checks(2).await;
            assert_eq!(test.component("shop", "db").await.unwrap().status, HealthStatus::Healthy);
        }
        assert!(test.remediations().await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_forgotten_transactions_is_ended_by_the_selector_and_nothing_else_is() {
    run("pg-storm", async |test| {
        let server =
            PostgresServer::start_as(Setup { settings: vec!["max_connections=24".into()], ..Setup::default() });
        roles(&server).await;
        let mut wanted = over(&json!({"remedies": [{
            "action": "ReleaseConnections",
            "sessions": {"idleInTransactionLongerThan": "2s", "applicationNames": ["leaky*"], "atMost": 8},
        }]}));
        wanted["spec"]["mode"] = json!("Observe");
        let (operator, _role) = test.database_watched(&server, &wanted).await;

        let mut admin = server.admin().await;
        let (mut other, _) = open_transaction(&server, "honest").await;
        let mut leaky = Vec::new();
        loop {
            match session(&server, "leaky-7").await {
                Ok(mut connection) => {
                    connection.execute("BEGIN").await.unwrap();
                    let pid: i32 =
                        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
                    leaky.push((connection, pid));
                }
                Err(error) => {
                    assert_eq!(error.as_database_error().and_then(|e| e.code()).as_deref(), Some("53300"), "{error}");
                    break;
                }
            }
            assert!(leaky.len() < 20);
        }
        assert!(leaky.len() >= 14, "{}", leaky.len());

        wait::until("all of them to be old enough", Duration::from_secs(20), async || {
            let old: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leaky-7' AND now() - state_change > '2s'",
            )
            .fetch_one(&mut admin)
            .await
            .unwrap();
            if old == leaky.len() as i64 { Ok(()) } else { Err(format!("{old} of {}", leaky.len())) }
        })
        .await;
        test.patch_policy("shop", json!({"spec": {"mode": "Auto"}})).await;
        let ended = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!((ended.spec.plan.action, ended.spec.plan.cause), (ActionKind::ReleaseConnections, Cause::Exhaustion));
        let done = progress(&ended).sessions().cloned().unwrap();
        let pids = done.ended.clone().unwrap();
        let oldest: Vec<i32> = leaky.iter().take(8).map(|(_, pid)| *pid).collect();
        assert_eq!(pids, oldest, "the oldest, and at most eight");
        assert!(done.sessions.iter().all(|one| one.application == "leaky-7" && one.user == APP));
        // The client that was turned away can work again, and who was not meant still does.
        let mut blocked = session(&server, "web").await.unwrap();
        blocked.execute("SELECT 1").await.unwrap();
        other.execute("SELECT 1").await.unwrap();
        for (index, (connection, _)) in leaky.iter_mut().enumerate() {
            assert_eq!(connection.execute("SELECT 1").await.is_ok(), index >= 8, "{index}");
        }
        test.wait_recorded(&ended.name_any(), Duration::from_secs(30)).await;
        let row = &operator.action_outputs().await[0];
        assert_eq!((row["ended"].as_u64(), &row["pids"]), (Some(8), &json!(oldest)), "{row}");
        assert_eq!(operator.action_rows().await[0].0, "db_connection_recovered");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_cancelled_only_as_they_were_shown_to_the_person_who_approved() {
    run("pg-cancel", async |test| {
        let server = server().await;
        let wanted = over(&json!({
            "thresholds": {"longest_transaction_s": {"warning": 0.5, "critical": 1}},
            "remedies": [{
                "action": "CancelQueries", "approval": "Required",
                "sessions": {"runningLongerThan": "1s", "users": [APP]},
            }],
        }));
        let (_operator, _role) = test.database_watched(&server, &wanted).await;
        let long = async |name: &str| {
            let mut connection = session(&server, name).await.unwrap();
            let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
            let query = tokio::spawn(async move { connection.execute("SELECT pg_sleep(600)").await.map(|_| ()) });
            (query, pid)
        };
        let (first, pid) = long("report").await;
        let waiting = test.wait_remediation(Phase::AwaitingApproval).await;
        let listed: Vec<i32> = progress(&waiting).sessions().unwrap().sessions.iter().map(|one| one.pid).collect();
        assert_eq!(listed, [pid]);
        let message = &waiting.status.as_ref().unwrap().message;
        assert!(message.contains(&format!("pid {pid} of app, \"report\", active since")), "{message}");
        // One that was not shown.
        let (second, later) = long("nightly").await;
        let mut admin = server.admin().await;
        wait::until("the second query to be long too", Duration::from_secs(20), async || {
            let long: bool = sqlx::query_scalar(
                "SELECT coalesce(bool_or(now() - query_start > '2s'), false) FROM pg_stat_activity WHERE pid = $1",
            )
            .bind(later)
            .fetch_one(&mut admin)
            .await
            .unwrap();
            if long { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        test.approve(&waiting.name_any()).await;
        let cancelled = tokio::time::timeout(Duration::from_secs(60), first).await.expect("the query to be cancelled");
        let error = cancelled.unwrap().unwrap_err();
        assert_eq!(error.as_database_error().and_then(|e| e.code()).as_deref(), Some("57014"), "{error}");
        wait::until("it to be said which", Duration::from_secs(20), async || {
            let done = progress(&test.remediations().await[0]).sessions().unwrap().ended.clone();
            if done == Some(vec![pid]) { Ok(()) } else { Err(format!("{done:?}")) }
        })
        .await;
        assert!(!second.is_finished(), "nobody approved that one");
        second.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_connection_is_said_in_words_of_its_own_and_nothing_is_done() {
    let certificate = |days: i64| {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let year = 2020 + i32::try_from(days).unwrap();
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let hba = "hostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256\n";
    run("pg-wrong", async |test| {
        let server = server().await;
        let (expired, key) = certificate(1);
        let tls = PostgresServer::start_as(Setup {
            tls: Some((expired.clone(), key)),
            hba: Some(hba),
            ..Setup::default()
        });
        // Takes connections and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, silent) = (server.port(), silent.local_addr().unwrap().port());
        let of = |role: &str, password: &str, place: &str| format!("postgres://{role}:{password}@{place}");
        let good = |place: &str| of(WATCHER, WATCHERS_PASSWORD, place);
        let cases = [
            ("password", of(WATCHER, "wr0ng-secret", &format!("127.0.0.1:{port}/shop")), "CredentialsRefused", "password authentication failed"),
            ("database", good(&format!("127.0.0.1:{port}/nowhere")), "TargetNotFound", "database \"nowhere\" does not exist"),
            ("wants-tls", good(&format!("127.0.0.1:{}/shop?sslmode=disable", tls.port())), "TlsFailed", "the server requires TLS"),
            ("expired", good(&format!("localhost:{}/shop", tls.port())), "TlsFailed", "expired"),
            ("no-tls", good(&format!("127.0.0.1:{port}/shop?sslmode=require")), "TlsFailed", "the server has no TLS"),
            ("dns", good("nobody.invalid:5432/shop"), "Unreachable", "its name does not resolve"),
            ("silent", good(&format!("127.0.0.1:{silent}/shop?sslmode=disable")), "", "no response within 3 s"),
            ("file", good(&format!("127.0.0.1:{port}/shop?sslrootcert=/etc/passwd")), "CredentialsMissing", "names a file"),
            ("garbage", "postgres://u:wr0ng-secret@@@".to_owned(), "CredentialsMissing", "percent-encode"),
        ];
        let mut components = vec![
            json!({"name": "parts", "target": {"postgres": {"connectionSecretRef": {"name": "parts"}}}}),
            json!({"name": "gone", "target": {"postgres": {"connectionSecretRef": {"name": "gone", "key": "url"}}}}),
        ];
        test.make_secret("parts", json!({
            "host": "127.0.0.1", "port": port.to_string(), "dbname": "shop", "user": WATCHER, "password": WATCHERS_PASSWORD,
        }))
        .await;
        test.make_secret("ca", json!({"ca.crt": expired})).await;
        for (name, url, ..) in &cases {
            test.make_secret(name, json!({"url": url})).await;
            let mut component = json!({"name": name, "target": {"postgres": {"connectionSecretRef": {"name": name, "key": "url"}}}});
            if *name == "expired" {
                component["target"]["postgres"]["caSecretRef"] = json!({"name": "ca", "key": "ca.crt"});
            }
            components.push(component);
        }
        let (operator, _role) = operator(test).await;
        let mut wanted = policies(&components);
        wanted["spec"]["mode"] = json!("Observe");
        test.apply_policy(&wanted).await;
        for (name, _, reason, words) in &cases {
            let silent = reason.is_empty();
            let status = test
                .wait_component("shop", name, &format!("to say {words:?}"), |status| status.message.contains(words))
                .await;
            if silent {
                assert_eq!(status.status, HealthStatus::Critical, "{status:?}");
            } else {
                assert_eq!(status.status, HealthStatus::Unknown, "{status:?}");
                assert!(status.message.contains(reason), "{name}: {}", status.message);
            }
        }
        let gone = test.wait_component("shop", "gone", "to be missed", |one| one.message.contains("Secret gone: does not exist")).await;
        assert!(gone.message.contains("CredentialsMissing"), "{gone:?}");
        test.wait_status("shop", "parts", HealthStatus::Healthy).await;
        let (reason, message) = test.wait_condition("shop", "Ready", "False", Duration::from_secs(20)).await;
        assert!(message.contains("does not exist"), "{reason}: {message}");
        test.assert_stand_nowhere(&operator, &["wr0ng-secret", WATCHERS_PASSWORD]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_between_reconnects_too() {
    run("pg-pooler", async |test| {
        let server = PostgresServer::start();
        let url = server.new_database().await;
        let name = url.split(['/', '?']).nth(3).unwrap().to_owned();
        let pooler = PgBouncer::start(&server, &name);
        let through = url.replace(&format!(":{}/", server.port()), &format!(":{}/", pooler.port()));
        test.make_secret("db", json!({"url": through, "admin": through.replace(&format!("/{name}?"), "/pgbouncer?")}))
            .await;
        let (operator, _role) = operator(test).await;
        let bouncer = json!({"adminSecretRef": {"name": "db", "key": "admin"}, "database": name, "then": "KillResume"});
        test.apply_policy(&over(&json!({
            "target": {"postgres": {"pgBouncer": bouncer}},
            "remedies": [{"action": "RecoverConnections", "reconnect": {"delays": ["1s", "1s", "2s", "4s", "8s"]}}],
        })))
        .await;
        test.healthy().await;
        server.kill();
        test.wait_remediation(Phase::Running).await;
        wait::until("PgBouncer to get its commands", Duration::from_secs(30), async || {
            let log = pooler.log();
            let told = log.contains(&format!("RECONNECT '{name}' command issued"))
                && log.contains(&format!("RESUME '{name}' command issued"));
            if told { Ok(()) } else { Err(log) }
        })
        .await;
        server.start_again();
        let ended = test.wait_remediation(Phase::Succeeded).await;
        assert!(
            progress(&ended)
                .connections()
                .unwrap()
                .errors
                .iter()
                .all(|error| !error.contains("did not execute the command")),
            "{ended:?}"
        );
        test.assert_stand_nowhere(&operator, &[PASSWORD]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workload_that_a_database_runs_in_is_restarted_when_the_policy_says_so() {
    run("pg-restart", async |test| {
        let server = server().await;
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "db"},
            "spec": {
                "serviceName": "db", "replicas": 1, "selector": {"matchLabels": {"app": "db"}},
                "template": {
                    "metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "postgres", "image": "shop/db:v1"}]},
                },
            },
        }))
        .unwrap();
        test.api::<StatefulSet>().create(&PostParams::default(), &set).await.unwrap();
        let wanted = over(&json!({
            "target": {"postgres": {"workloadRef": {"kind": "StatefulSet", "name": "db"}}},
            "remedies": [{"action": "Restart", "for": ["Unreachable"]}],
        }));
        let (operator, _role) = test.database_watched(&server, &wanted).await;
        server.kill();
        wait::until("the StatefulSet to be restarted", Duration::from_secs(30), async || {
            let set = test.api::<StatefulSet>().get("db").await.unwrap();
            let template = set.spec.unwrap().template.metadata.unwrap_or_default();
            let annotations = template.annotations.unwrap_or_default();
            if annotations.contains_key(RESTARTED_AT) { Ok(()) } else { Err(format!("{annotations:?}")) }
        })
        .await;
        server.start_again();
        let ended = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!((ended.spec.plan.target.kind.as_str(), ended.spec.plan.target.name.as_str()), ("StatefulSet", "db"));
        test.wait_recorded(&ended.name_any(), Duration::from_secs(30)).await;
        assert_eq!(operator.action_rows().await[0].0, "service_restart");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_role_may_not_see_is_unknown_and_what_it_may_not_do_is_said_with_the_grant() {
    run("pg-rights", async |test| {
        let server = server().await;
        let mut admin = server.admin().await;
        admin.execute("REVOKE pg_monitor, pg_signal_backend FROM watcher").await.unwrap();
        test.secret_url(&server).await;
        let (_operator, _role) = operator(test).await;
        let release = json!({"action": "ReleaseConnections", "sessions": {"idleInTransactionLongerThan": "1s"}});
        let mut wanted = over(&json!({
            "thresholds": {
                "lock_waits": {"warning": 5, "critical": 10}, "latency_ms": {"warning": 0.0001, "critical": 0.001},
            },
            "remedies": [release],
        }));
        test.apply_policy(&wanted).await;
        // It is bad by what is seen.
        let status = test
            .wait_component("shop", "db", "to say what is not seen", |one| one.message.contains("GRANT pg_monitor"))
            .await;
        assert_eq!(status.status, HealthStatus::Unhealthy, "{status:?}");
        let ended = test.wait_remediation(Phase::Expired).await;
        let status = ended.status.clone().unwrap();
        assert_eq!(status.reason, "NotAllowed", "{status:?}");
        assert!(status.message.contains("GRANT pg_monitor TO watcher"), "{status:?}");

        admin.execute("GRANT pg_monitor TO watcher").await.unwrap();
        let (mut open, _) = open_transaction(&server, "web").await;
        wanted["spec"]["components"][0]["name"] = json!("again");
        test.replace_policy(&wanted).await;
        let ended = test.wait_remediation(Phase::Failed).await;
        let status = ended.status.clone().unwrap();
        assert_eq!(status.reason, "NotAllowed", "{status:?}");
        assert!(status.message.contains("GRANT pg_signal_backend TO watcher"), "{status:?}");
        open.execute("SELECT 1").await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_may_not_read_the_secret_says_which_right_is_missing() {
    run("pg-forbidden", async |test| {
        test.make_secret("db", json!({"url": "postgres://u:hunter22@h/db"})).await;
        let _operator = Operator::start(test, Options::default()).await;
        test.apply_policy(&over(&json!({}))).await;
        let status = test
            .wait_component("shop", "db", "to say what is missing", |one| one.message.contains("rbac.readCredentials"))
            .await;
        assert_eq!(status.status, HealthStatus::Unknown, "{status:?}");
        let (reason, message) = test.wait_condition("shop", "Ready", "False", Duration::from_secs(20)).await;
        assert!(message.contains("Secret db cannot be read"), "{reason}: {message}");
    })
    .await;
}
