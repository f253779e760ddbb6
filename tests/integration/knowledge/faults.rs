//! The database is unavailable, hung, wrong, or not ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use panacea::knowledge::{LedgerConfig, LedgerReason, QUEUE_ROWS, Row};
use secrecy::SecretString;

use super::place::{PATIENCE, Place, Running, brain, health, ids_of, on_both, time, until};
use crate::postgres::{PASSWORD, PostgresServer};

on_both!(
    a_missing_column_is_named_and_its_fix_is_enough,
    an_unusable_type_is_named,
    extra_columns_are_no_matter,
    a_bad_row_does_not_take_others_with_it,
    a_table_that_is_dropped_is_made_again,
);

async fn a_missing_column_is_named_and_its_fix_is_enough(place: Place) {
    place.execute("CREATE TABLE ai_rollback_history (id INT PRIMARY KEY)").await;
    place.execute("DROP TABLE ai_rollback_history").await;
    let (uuid, json, at) = match place {
        Place::Sqlite(_) => ("TEXT", "TEXT", "TEXT"),
        Place::Postgres(_) => ("uuid", "jsonb", "timestamptz"),
    };
    place
        .execute(&format!(
            "CREATE TABLE unified_brain (id {uuid} PRIMARY KEY, agent_name text, action_type text, input_data {json},
             output_data {json}, success boolean, executed_at {at})"
        ))
        .await;
    let running = place.start();
    let (reason, message) = running.unavailable().await;
    assert_eq!(reason, "WrongSchema");
    let fix = format!("ALTER TABLE unified_brain ADD COLUMN metadata {json}");
    assert!(message.contains("table unified_brain exists without the column metadata"), "{message}");
    assert!(message.contains(&fix), "{message}");
    let error = running.ledger.record(vec![brain(1).into()]).await.unwrap_err();
    assert_eq!(error.reason(), LedgerReason::WrongSchema);
    running.ledger.offer(brain(2));

    place.execute(&fix).await;
    running.available().await;
    running.ledger.record(vec![brain(1).into()]).await.unwrap();
    until("the row that waited is written", async || place.ids("unified_brain").await.len() == 2).await;
    running.stop().await;
}

async fn an_unusable_type_is_named(place: Place) {
    place.execute("CREATE TABLE unified_brain (id integer PRIMARY KEY)").await;
    let running = place.start();
    let (reason, message) = running.unavailable().await;
    assert_eq!(reason, "WrongSchema");
    assert!(message.to_lowercase().contains("column id of table unified_brain is of type integer"), "{message}");
    running.stop().await;
}

async fn extra_columns_are_no_matter(place: Place) {
    // Ours, made by a first start, with another owner's columns added.
    place.start().stop_when_available().await;
    place.execute("ALTER TABLE unified_brain ADD COLUMN tenant text").await;
    place.execute("ALTER TABLE unified_brain ADD COLUMN priority integer NOT NULL DEFAULT 5").await;
    let running = place.start();
    running.available().await;
    running.ledger.record(vec![brain(1).into()]).await.unwrap();
    assert_eq!(place.ids("unified_brain").await.len(), 1);
    running.stop().await;
}

async fn a_bad_row_does_not_take_others_with_it(place: Place) {
    place.start().stop_when_available().await;
    // Another owner's rule, which one of our rows breaks.
    let table = match place {
        Place::Sqlite(_) => {
            "CREATE TRIGGER no_42 BEFORE INSERT ON ai_proactive_health WHEN NEW.health_score = 42
             BEGIN SELECT RAISE(ABORT, 'no 42 here'); END"
        }
        Place::Postgres(_) => "ALTER TABLE ai_proactive_health ADD CONSTRAINT no_42 CHECK (health_score <> 42)",
    };
    place.execute(table).await;
    let running = place.start();
    let looks: Vec<Row> = (0..100)
        .map(|number| {
            let at = time("2026-11-22T10:00:00Z") + jiff::SignedDuration::from_secs(number);
            health("web", "api", at, Some(number as f64)).into()
        })
        .collect();
    looks.iter().cloned().for_each(|row| running.ledger.offer(row));
    let bad = looks[42].clone();
    let error = running.ledger.record(vec![brain(1).into(), bad.clone()]).await.unwrap_err();
    assert_eq!((error.reason(), error.may_pass()), (LedgerReason::RowRefused, false), "{error}");
    assert_eq!(place.ids("unified_brain").await, Vec::<String>::new(), "all or none");
    running.ledger.record(vec![brain(1).into()]).await.unwrap();

    let ledger = running.stop().await;
    let good = looks.iter().filter(|row| row.id() != bad.id());
    assert_eq!(place.ids("ai_proactive_health").await, ids_of(good, "ai_proactive_health"));
    assert_eq!((ledger.stats().rows_refused(), ledger.stats().rows_dropped()), (1, 0));
}

async fn a_table_that_is_dropped_is_made_again(place: Place) {
    let running = place.start();
    running.ledger.record(vec![brain(1).into()]).await.unwrap();
    let cascade = if matches!(place, Place::Postgres(_)) { " CASCADE" } else { "" };
    place.execute(&format!("DROP TABLE unified_brain{cascade}")).await;
    until("recorded again", async || running.ledger.record(vec![brain(2).into()]).await.is_ok()).await;
    assert_eq!(place.ids("unified_brain").await.len(), 1);
    running.stop().await;
}

/// What another owner's table may lack or demand, each named with its fix.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_another_owner_are_used_or_refused_with_the_column_named() {
    let columns = |id: &str, more: &str| {
        format!(
            "CREATE TABLE unified_brain ({id}, agent_name text, action_type text, input_data jsonb, output_data jsonb,
             success boolean, metadata jsonb, executed_at timestamptz{more})"
        )
    };
    for (table, said) in [
        (columns("id text PRIMARY KEY", ""), "column id of table unified_brain is of type text, but must be uuid"),
        (columns("id uuid", ""), "column id of table unified_brain has no primary key and no unique index"),
        (columns("id uuid PRIMARY KEY", ", tenant text NOT NULL"), "column tenant of table unified_brain is NOT NULL"),
        (columns("id uuid PRIMARY KEY", "").replace(", metadata jsonb", ""), "without the column metadata"),
    ] {
        let place = Place::postgres().await;
        place.execute(&table).await;
        let running = place.start();
        let (reason, message) = running.unavailable().await;
        assert_eq!(reason, "WrongSchema");
        assert!(message.contains(said) && message.contains("fix:"), "{message}");
        running.stop().await;
    }
    let place = Place::postgres().await;
    let more = ", tenant text NOT NULL DEFAULT 'us', seen timestamptz, UNIQUE (action_type, executed_at)";
    place.execute(&columns("id uuid PRIMARY KEY", more)).await;
    let running = place.start();
    running.ledger.record(vec![brain(1).into()]).await.unwrap();
    running.ledger.record(vec![brain(1).into()]).await.unwrap();
    // A rule of theirs that a row of ours breaks is reported, not taken for "is there already".
    let error = running.ledger.record(vec![brain(2).into()]).await.unwrap_err();
    assert_eq!(error.reason(), LedgerReason::RowRefused, "{error}");
    assert_eq!(place.texts("SELECT tenant FROM unified_brain").await, ["us"]);
    running.stop().await;
}

/// The server dies under load, stays down, and returns: each row of a Remediation is there once, whatever result the caller
/// got, and the health follows within its 10 s both ways although no row makes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_loses_and_doubles_no_row() {
    let server = Arc::new(tokio::task::spawn_blocking(PostgresServer::start).await.unwrap());
    let place = Place::Postgres(server.new_database().await);
    let running = place.start();
    running.available().await;

    // A caller as the remediation controller is: the next one only when this one is written.
    let ledger = running.ledger.clone();
    let (done, mut progress) = tokio::sync::watch::channel(0);
    let caller = tokio::spawn(async move {
        let mut failed = 0;
        for number in 1..=600 {
            while let Err(error) = ledger.record(vec![brain(number).into()]).await {
                assert!(!format!("{error} {error:?}").contains(PASSWORD));
                failed += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            done.send_replace(number);
        }
        failed
    });
    tokio::time::timeout(PATIENCE, progress.wait_for(|number| *number >= 100)).await.unwrap().unwrap();

    let (other, killed) = (Arc::clone(&server), Instant::now());
    tokio::task::spawn_blocking(move || other.kill()).await.unwrap();
    let (reason, message) = running.unavailable().await;
    assert_eq!(reason, "Unreachable", "{message}");
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    assert!(!message.contains(PASSWORD));
    let error = running.ledger.record(vec![brain(1).into()]).await.unwrap_err();
    assert_eq!(error.reason(), LedgerReason::Unreachable, "{error}");
    (1001..=1100).for_each(|number| running.ledger.offer(brain(number)));

    let other = Arc::clone(&server);
    tokio::task::spawn_blocking(move || other.start_again()).await.unwrap();
    let back = Instant::now();
    running.available().await;
    assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
    let failed = tokio::time::timeout(Duration::from_secs(60), caller).await.unwrap().unwrap();
    assert!(failed > 0, "the outage was felt");
    let ledger = running.stop().await;

    let all: Vec<Row> = (1..=600).chain(1001..=1100).map(|number| brain(number).into()).collect();
    assert_eq!(place.ids("unified_brain").await, ids_of(&all, "unified_brain"));
    assert_eq!(ledger.stats().rows_dropped(), 0);
}

/// Looking works and writing does not: the health follows the writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_reported_although_reading_works() {
    let place = Place::postgres().await;
    let running = place.start();
    running.available().await;
    // The server's own error for a full disk, raised at each insert.
    place
        .execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$;
             CREATE TRIGGER full_disk BEFORE INSERT ON unified_brain EXECUTE FUNCTION full_disk()",
        )
        .await;
    running.ledger.offer(brain(1));
    let (reason, message) = running.unavailable().await;
    assert_eq!(reason, "Full", "{message}");
    place.execute("DROP TRIGGER full_disk ON unified_brain").await;
    running.available().await;
    until("the row that waited is written", async || place.ids("unified_brain").await.len() == 1).await;
    running.stop().await;
}

/// A server that holds its connections and says nothing, as behind a broken network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_server_is_given_up_in_time() {
    let server = Arc::new(tokio::task::spawn_blocking(PostgresServer::start).await.unwrap());
    let place = Place::Postgres(server.new_database().await);
    let running = place.start();
    running.available().await;
    running.ledger.record(vec![brain(1).into()]).await.unwrap();

    server.freeze();
    let frozen = Instant::now();
    let error = running.ledger.record(vec![brain(2).into()]).await.unwrap_err();
    assert_eq!(error.reason(), LedgerReason::Timeout, "{error}");
    assert!(frozen.elapsed() < Duration::from_secs(7), "{:?}", frozen.elapsed());
    assert_eq!(running.unavailable().await.0, "Timeout");
    assert!(frozen.elapsed() < Duration::from_secs(10), "{:?}", frozen.elapsed());

    server.thaw();
    let thawed = Instant::now();
    running.available().await;
    assert!(thawed.elapsed() < Duration::from_secs(10), "{:?}", thawed.elapsed());
    running.ledger.record(vec![brain(2).into()]).await.unwrap();
    running.stop().await;
    assert_eq!(place.ids("unified_brain").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_database_offers_never_wait_and_each_lost_row_is_counted() {
    // Nobody listens on a port that was just released.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://u:hunter2222@127.0.0.1:{port}/db");
    let running = Running::start(LedgerConfig::Postgres(SecretString::from(url)));
    let offered = 30_000;
    let begun = Instant::now();
    (1..=offered).for_each(|number| running.ledger.offer(brain(number)));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let (reason, message) = running.unavailable().await;
    assert_eq!(reason, "Unreachable");
    assert!(message.contains("PostgreSQL 127.0.0.1:") && !message.contains("hunter2222"), "{message}");
    assert!(offered as usize > QUEUE_ROWS);
    let ledger = running.stop().await;
    assert_eq!((ledger.stats().rows_written(), ledger.stats().rows_dropped()), (0, u64::from(offered)));
    assert!(ledger.stats().batches_failed() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_and_address_are_distinguished_without_a_secret() {
    let place = Place::postgres().await;
    let Place::Postgres(url) = &place else { unreachable!() };
    for (from, to, wanted) in [
        ("s3cret%2Fpass%40word", "wr0ng%2Fpass%40word", "AuthenticationFailed"),
        ("panacea:", "nobody-here:", "AuthenticationFailed"),
        ("/test_", "/no_such_", "DatabaseMissing"),
        ("sslmode=disable", "sslmode=require", "TlsFailed"),
        ("sslmode=disable", "sslmode=s3cret", "InvalidConfiguration"),
    ] {
        let running = Running::start(LedgerConfig::Postgres(SecretString::from(url.replacen(from, to, 1))));
        let (reason, message) = running.unavailable().await;
        assert_eq!(reason, wanted, "{message}");
        let error = running.ledger.record(vec![brain(1).into()]).await.unwrap_err();
        assert_eq!(error.reason().to_string(), wanted, "{error}");
        let said = format!("{message} {error} {error:?} {:?}", running.ledger.health().borrow());
        for secret in [PASSWORD, "s3cret", "pass%40word", "pass@word", "wr0ng"] {
            assert!(!said.contains(secret), "{said}");
        }
        running.stop().await;
    }
}

/// The schema made by an administrator; the operator may only insert and select.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn least_privileges_are_enough_and_missing_ones_are_named() {
    let place = Place::postgres().await;
    let url = place.other_role("writer", "").await;
    let role = url.split("://").nth(1).unwrap().split(':').next().unwrap();
    let start = || Running::start(LedgerConfig::Postgres(SecretString::from(url.clone())));

    let running = start();
    let (reason, message) = running.unavailable().await;
    assert_eq!(reason, "Forbidden", "may not make tables: {message}");
    place.start().stop_when_available().await;
    // The tables are there now, and still not ours to use.
    let mut health = running.ledger.health();
    let named = health.wait_for(|health| format!("{health:?}").contains("GRANT SELECT, INSERT ON unified_brain"));
    tokio::time::timeout(PATIENCE, named).await.expect("the missing GRANT is named").unwrap();
    place.execute(&format!("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {role}")).await;
    running.available().await;
    running.ledger.record(vec![brain(1).into()]).await.unwrap();
    running.stop().await;

    place.execute(&format!("ALTER ROLE {role} SET default_transaction_read_only = on")).await;
    let running = start();
    assert_eq!(running.unavailable().await.0, "ReadOnly");
    running.stop().await;
}
