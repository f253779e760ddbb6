//! Rows that wait on disk while the database is unavailable.

use std::path::Path;
use std::sync::Arc;

use jiff::SignedDuration;
use panacea::knowledge::{HealthRow, LedgerConfig, LedgerOptions, LedgerReason, Recorded, Row, SpoolOptions};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection};
use tempfile::TempDir;

use super::place::{Place, Running, brain, health, ids_of, on_both, rollback, time, until};
use crate::postgres::PostgresServer;

on_both!(
    rows_wait_on_disk_and_are_written_in_order_when_the_database_is_back,
    a_refused_row_of_a_remediation_stays_and_is_tried_by_the_next_life,
);

/// A database that does not respond, with a spool that fills in the meantime.
pub fn away() -> LedgerConfig {
    // Nobody listens on a port that was just released.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    LedgerConfig::Postgres(SecretString::from(format!("postgres://u:hunter2222@127.0.0.1:{port}/db")))
}

fn options(config: LedgerConfig, folder: &Path) -> LedgerOptions {
    LedgerOptions { spool: Some(SpoolOptions::new(folder)), ..config.into() }
}

fn small(config: LedgerConfig, folder: &Path, max_bytes: u64) -> LedgerOptions {
    LedgerOptions { spool: Some(SpoolOptions { folder: folder.to_owned(), max_bytes }), ..config.into() }
}

fn look(number: i64) -> HealthRow {
    health("web", "api", time("2026-11-22T10:00:00Z") + SignedDuration::from_secs(number), Some(number as f64))
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The spool's file, while no operator has it.
pub async fn open(folder: &Path) -> SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new().filename(folder.join("spool.sqlite")).connect().await.unwrap()
}

async fn execute(folder: &Path, sql: &str) -> u64 {
    let mut connection = open(folder).await;
    let done = sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap().rows_affected();
    connection.close().await.unwrap();
    done
}

async fn record(running: &Running, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        assert_eq!(running.ledger.record(vec![brain(number).into()]).await.unwrap(), Recorded::Spooled, "{number}");
    }
}

async fn rows_wait_on_disk_and_are_written_in_order_when_the_database_is_back(place: Place) {
    let folder = folder();
    let running = Running::start(options(away(), folder.path()));
    // An action and its rollback, twice, as a caller does after an error that permits a retry.
    for _ in 0..2 {
        let rows = vec![rollback(1).into(), brain(1).into()];
        assert_eq!(running.ledger.record(rows).await.unwrap(), Recorded::Spooled);
    }
    // Not in the order of their ids.
    record(&running, (2..=40).rev()).await;
    (0..1500).for_each(|number| running.ledger.offer(look(number)));
    until("offered rows are on disk", async || running.ledger.stats().health_spooled() == 1500).await;
    assert_eq!((running.ledger.stats().healing_spooled(), running.ledger.stats().rows_waiting()), (41, 0));
    let ledger = running.stop().await;
    assert_eq!((ledger.stats().rows_written(), ledger.stats().rows_dropped()), (0, 0));
    drop(ledger);

    // The next life, with a database.
    let running = Running::start(options(place.config(), folder.path()));
    running.ledger.offer(look(1500));
    until("all are written", async || running.ledger.stats().rows_written() == 1542).await;
    until("the spool is empty", async || running.ledger.stats().spool_bytes() == 0).await;
    assert_eq!(running.ledger.record(vec![brain(1).into(), brain(41).into()]).await.unwrap(), Recorded::Written);
    running.stop().await;
    let order = place
        .texts(&format!("SELECT input_data ->> 'number' || '' FROM unified_brain ORDER BY {}", place.order()))
        .await;
    let expected: Vec<String> = [1].into_iter().chain((2..=40).rev()).chain([41]).map(|n: u32| n.to_string()).collect();
    assert_eq!(order, expected, "in the order of recording");
    let looks: Vec<Row> = (0..=1500).map(|number| look(number).into()).collect();
    assert_eq!(place.ids("ai_proactive_health").await, ids_of(&looks, "ai_proactive_health"));
    assert_eq!(place.ids("ai_rollback_history").await.len(), 1);
    let size = std::fs::metadata(folder.path().join("spool.sqlite")).unwrap().len();
    assert!(size < 100_000, "{size} bytes are kept for nothing");
}

async fn a_refused_row_of_a_remediation_stays_and_is_tried_by_the_next_life(place: Place) {
    let folder = folder();
    let running = Running::start(options(away(), folder.path()));
    record(&running, 1..=10).await;
    running.ledger.offer(look(42));
    running.ledger.offer(look(43));
    drop(running.stop().await);

    // Another owner's rules.
    Running::start(place.config()).stop_when_available().await;
    let (rule, other, gone) = match place {
        Place::Sqlite(_) => (
            "CREATE TRIGGER no_7 BEFORE INSERT ON unified_brain WHEN NEW.input_data = '{\"number\":7}'
             BEGIN SELECT RAISE(ABORT, 'no 7 here'); END",
            "CREATE TRIGGER no_42 BEFORE INSERT ON ai_proactive_health WHEN NEW.health_score = 42
             BEGIN SELECT RAISE(ABORT, 'no 42 here'); END",
            "DROP TRIGGER no_7",
        ),
        Place::Postgres(_) => (
            "ALTER TABLE unified_brain ADD CONSTRAINT no_7 CHECK (input_data ->> 'number' <> '7')",
            "ALTER TABLE ai_proactive_health ADD CONSTRAINT no_42 CHECK (health_score <> 42)",
            "ALTER TABLE unified_brain DROP CONSTRAINT no_7",
        ),
    };
    place.execute(rule).await;
    place.execute(other).await;
    let running = Running::start(options(place.config(), folder.path()));
    until("the others are written", async || running.ledger.stats().rows_written() == 10).await;
    until("the spool is read", async || running.ledger.stats().health_spooled() == 0).await;
    assert_eq!((running.ledger.stats().rows_refused(), running.ledger.stats().healing_spooled()), (2, 0));
    let error = running.ledger.record(vec![brain(7).into()]).await.unwrap_err();
    assert_eq!(error.reason(), LedgerReason::RowRefused, "the caller gets the reason");
    drop(running.stop().await);

    place.execute(gone).await;
    let running = Running::start(options(place.config(), folder.path()));
    until("it is written now", async || place.ids("unified_brain").await.len() == 10).await;
    running.stop().await;
}

/// Healing rows are recorded while the database dies and comes back: what was spooled comes before what is recorded later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_recording_survives_an_outage() {
    let server = Arc::new(tokio::task::spawn_blocking(PostgresServer::start).await.unwrap());
    let place = Place::Postgres(server.new_database().await);
    let folder = folder();
    let running = Running::start(options(place.config(), folder.path()));
    running.available().await;
    let mut answers = Vec::new();
    for number in 1..=300 {
        let kill_or_start: Option<fn(&PostgresServer)> = match number {
            100 => Some(PostgresServer::kill),
            200 => Some(PostgresServer::start_again),
            _ => None,
        };
        if let Some(act) = kill_or_start {
            let server = Arc::clone(&server);
            tokio::task::spawn_blocking(move || act(&server)).await.unwrap();
        }
        answers.push(running.ledger.record(vec![brain(number).into()]).await.unwrap());
    }
    assert_eq!(answers[..99], [Recorded::Written; 99]);
    assert_eq!(answers[99..199], [Recorded::Spooled; 100]);
    // A caller asks until it is there.
    until("the last one is written", async || {
        running.ledger.record(vec![brain(300).into()]).await.unwrap() == Recorded::Written
    })
    .await;
    running.stop().await;
    let order = place.texts("SELECT input_data ->> 'number' FROM unified_brain ORDER BY ctid").await;
    assert_eq!(order, (1..=300).map(|number: u32| number.to_string()).collect::<Vec<_>>());
}

/// The oldest 4,000 may be on their way to the database; what comes after them makes room, oldest first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_makes_room_with_the_oldest_looks_and_never_with_rows_of_remediations() {
    const BOUND: u64 = 2_000_000;
    let folder = folder();
    let running = Running::start(small(away(), folder.path(), BOUND));
    for begin in (0..9000).step_by(3000) {
        (begin..begin + 3000).for_each(|number| running.ledger.offer(look(number)));
        until("all are on disk or counted", async || running.ledger.stats().rows_waiting() == 0).await;
    }
    let kept = running.ledger.stats().health_spooled();
    assert!((4500..7000).contains(&kept), "{kept}");
    assert_eq!(running.ledger.stats().rows_dropped(), 9000 - kept);
    assert!(running.ledger.stats().spool_bytes() <= BOUND);
    drop(running.stop().await);
    let numbers =
        "SELECT CAST(json_extract(CAST(payload AS TEXT), '$.health.score') AS INTEGER) FROM entries ORDER BY seq";
    let mut connection = open(folder.path()).await;
    let numbers: Vec<i64> = sqlx::query_scalar(numbers).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    // The batch that may be on its way, and the newest after it.
    assert!(numbers[..500].iter().copied().eq(0..500) && numbers.is_sorted());
    assert!(numbers[4000..].iter().copied().eq(9000 - (kept as i64 - 4000)..9000), "the newest, without a gap");

    // Each healing row gets in while there are such looks, and then none does.
    let running = Running::start(small(away(), folder.path(), BOUND));
    let mut recorded = 0;
    let error = loop {
        let rows = (1..=10).map(|number| brain(recorded + number).into()).collect();
        match running.ledger.record(rows).await {
            Ok(Recorded::Spooled) => recorded += 10,
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
        assert!(recorded < 10_000, "there is a bound");
    };
    assert_eq!(error.reason(), LedgerReason::Unreachable, "the reason is the database's: {error}");
    assert_eq!(running.ledger.stats().healing_spooled(), u64::from(recorded));
    let left = running.ledger.stats().health_spooled();
    assert!((4000..4050).contains(&left), "all but a batch made room, or too few for ten more: {left}");
    assert_eq!(running.ledger.stats().rows_dropped(), 9000 - left);
    // One that is there already is no matter of room.
    assert_eq!(running.ledger.record(vec![brain(1).into()]).await.unwrap(), Recorded::Spooled);
    (9000..9100).for_each(|number| running.ledger.offer(look(number)));
    until("those without room are counted", async || running.ledger.stats().rows_dropped() > 5050).await;
    let dropped = running.ledger.stats().rows_dropped();
    drop(running.stop().await);

    // The count is the spool's, not the process's.
    let place = Place::sqlite();
    let running = Running::start(small(place.config(), folder.path(), BOUND)).drained().await;
    assert_eq!(place.ids("unified_brain").await.len(), recorded as usize);
    let looks = place.ids("ai_proactive_health").await.len() as u64;
    assert_eq!((running.ledger.stats().rows_dropped(), looks), (dropped, 9100 - dropped));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_entry_is_skipped_and_counted() {
    let folder = folder();
    let running = Running::start(options(away(), folder.path()));
    record(&running, 1..=5).await;
    running.ledger.offer(look(1));
    drop(running.stop().await);
    // One bit of a text, one entry that is cut, and one that claims to be of the other kind.
    let flip = "UPDATE entries SET payload = CAST(replace(CAST(payload AS TEXT), 'web-api-2', 'web-api-3') AS BLOB) WHERE seq = 2";
    assert_eq!(execute(folder.path(), flip).await, 1);
    let cut = "UPDATE entries SET payload = substr(payload, 1, length(payload) / 2) WHERE seq = 3";
    assert_eq!(execute(folder.path(), cut).await, 1);
    assert_eq!(execute(folder.path(), "UPDATE entries SET kind = 1 WHERE seq = 4").await, 1);

    let place = Place::sqlite();
    let running = Running::start(options(place.config(), folder.path())).drained().await;
    assert_eq!(running.ledger.stats().entries_corrupt(), 3);
    drop(running.stop().await);
    let running = Running::start(options(place.config(), folder.path()));
    until("the count is kept", async || running.ledger.stats().entries_corrupt() == 3).await;
    running.stop().await;
    let rows: [Row; 2] = [brain(1).into(), brain(5).into()];
    assert_eq!(place.ids("unified_brain").await, ids_of(&rows, "unified_brain"));
    assert_eq!(place.ids("ai_proactive_health").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_is_no_database_is_kept_aside_and_replaced() {
    let folder = folder();
    let text = "this is a text, and long enough to be read as a header of some file ".repeat(20);
    std::fs::write(folder.path().join("spool.sqlite"), &text).unwrap();
    let running = Running::start(options(away(), folder.path()));
    record(&running, [1]).await;
    running.stop().await;
    assert_eq!(std::fs::read_to_string(folder.path().join("spool.sqlite.damaged")).unwrap(), text);
}

/// Without a disk for it, all is as without a spool: nothing stops, what is lost is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_cannot_be_used_stops_nothing() {
    let folder = folder();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let place = Place::sqlite();
    let running = Running::start(options(place.config(), &file));
    assert_eq!(running.ledger.record(vec![brain(1).into()]).await.unwrap(), Recorded::Written);
    running.ledger.offer(brain(2));
    until("it is written", async || place.ids("unified_brain").await.len() == 2).await;
    running.stop().await;

    let running = Running::start(options(away(), &file));
    let error = running.ledger.record(vec![brain(1).into()]).await.unwrap_err();
    assert_eq!(error.reason(), LedgerReason::Unreachable, "{error}");
    (0..100).for_each(|number| running.ledger.offer(look(number)));
    assert_eq!(running.stop().await.stats().rows_dropped(), 100);
}

/// Two operators with one folder would each take the other's rows for its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_is_one_operators_at_a_time() {
    let folder = folder();
    let first = Running::start(options(away(), folder.path()));
    record(&first, [1]).await;
    let second = Running::start(options(away(), folder.path()));
    second.ledger.record(vec![brain(2).into()]).await.unwrap_err();
    drop(first.stop().await);
    until("the lock is free", async || second.ledger.record(vec![brain(2).into()]).await.is_ok()).await;
    assert_eq!(second.ledger.stats().healing_spooled(), 2);
    second.stop().await;
}

impl Running {
    /// Waits until nothing is left in the spool that could be written.
    async fn drained(self) -> Self {
        until("the spool was read", async || {
            let stats = self.ledger.stats();
            stats.rows_written() > 0 && stats.healing_spooled() + stats.health_spooled() == 0
        })
        .await;
        self
    }
}

/// A spool whose lock another one still has at the start: what it holds is taken up later, although no row makes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_taken_up_although_the_spool_could_not_be_opened_at_first() {
    let folder = folder();
    let running = Running::start(options(away(), folder.path()));
    record(&running, [1]).await;
    let place = Place::sqlite();
    let next = Running::start(options(place.config(), folder.path()));
    next.available().await;
    // It has tried once when a row went another way.
    assert_eq!(next.ledger.record(vec![brain(2).into()]).await.unwrap(), Recorded::Written);
    drop(running.stop().await);
    until("the row of the other is written", async || place.ids("unified_brain").await.len() == 2).await;
    next.stop().await;
}
