//! Old rows go, and only ours.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use panacea::knowledge::{LedgerOptions, Row};
use secrecy::SecretString;

use super::place::{Place, Running, brain, health, ids_of, on_both, rollback, time, until};
use panacea::knowledge::LedgerConfig;

on_both!(our_rows_that_are_too_old_are_deleted_in_batches_and_no_others, without_a_retention_nothing_is_deleted,);

const DAY: Duration = Duration::from_secs(24 * 3600);

fn keep_a_day(config: LedgerConfig) -> Running {
    Running::start(LedgerOptions { retention: Some(DAY), ..config.into() })
}

/// Old and new rows of all tables. Returns the new ones.
async fn fill(place: &Place) -> Vec<Row> {
    let running = place.start();
    running.available().await;
    let now = Timestamp::now();
    let (mut old, mut new): (Vec<Row>, Vec<Row>) = (Vec::new(), Vec::new());
    for number in 0..2500 {
        old.push(brain(number).into());
        old.push(rollback(number).into());
        old.push(health("web", "api", now - SignedDuration::from_hours(25 + i64::from(number)), None).into());
    }
    for number in 0..3 {
        let at = now - SignedDuration::from_hours(23 - i64::from(number));
        let mut action = brain(10_000 + number);
        action.executed_at = at;
        let mut back = rollback(10_000 + number);
        back.executed_at = at;
        new.extend([Row::from(action), back.into(), health("web", "api", at, None).into()]);
    }
    running.ledger.record(old).await.unwrap();
    running.ledger.record(new.clone()).await.unwrap();
    running.stop().await;
    new
}

async fn our_rows_that_are_too_old_are_deleted_in_batches_and_no_others(place: Place) {
    let new = fill(&place).await;
    // Others', as old: another agent's, a look without our mark, a rollback without an action of ours.
    let (uuid, json) = ("'00000000-0000-0000-0000-000000000001'", "'{}'");
    for insert in [
        format!(
            "INSERT INTO unified_brain VALUES ({uuid}, 'chat', 'greeting', {json}, {json}, true, {json}, '2020-01-01T00:00:00Z')"
        ),
        format!(
            "INSERT INTO ai_proactive_health VALUES ({uuid}, 'api', 1, NULL, NULL, NULL, {json}, '[]', '2020-01-01T00:00:00Z', '2020-01-01T00:00:00Z')"
        ),
        format!(
            "INSERT INTO ai_rollback_history VALUES ({uuid}, 'api', 'x', {json}, {json}, true, NULL, '2020-01-01T00:00:00Z')"
        ),
    ] {
        place.execute(&insert).await;
    }
    let running = keep_a_day(place.config());
    until("the old ones are gone", async || running.ledger.stats().rows_expired() == 7500).await;
    let ledger = running.stop().await;
    for table in ["unified_brain", "ai_rollback_history", "ai_proactive_health"] {
        let mut expected = ids_of(&new, table);
        expected.insert(0, uuid.trim_matches('\'').to_owned());
        expected.sort();
        assert_eq!(place.ids(table).await, expected, "{table}");
    }
    assert_eq!(ledger.stats().retentions_failed(), 0);
}

async fn without_a_retention_nothing_is_deleted(place: Place) {
    fill(&place).await;
    let running = place.start();
    running.available().await;
    running.ledger.record(vec![brain(20_000).into()]).await.unwrap();
    running.stop().await;
    assert_eq!(place.ids("unified_brain").await.len(), 2504);
}

/// The right to delete is missing: rows go on being written, and what is missing is said.
#[tokio::test]
async fn a_missing_right_to_delete_is_reported_and_stops_nothing() {
    let place = Place::postgres().await;
    fill(&place).await;
    let url = place.other_role("keeper", "SELECT, INSERT").await;
    let log = Log::default();
    let writer = log.clone();
    // Of this thread, on which the runtime of this test runs all of its tasks.
    let _guard = tracing::subscriber::set_default(
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish(),
    );
    let running = keep_a_day(LedgerConfig::Postgres(SecretString::from(url)));
    until("both were tried", async || running.ledger.stats().retentions_failed() == 2).await;
    running.available().await;
    running.ledger.record(vec![brain(20_000).into()]).await.unwrap();
    running.stop().await;
    assert_eq!(place.ids("unified_brain").await.len(), 2504);
    let said = log.text();
    for table in ["ai_rollback_history", "ai_proactive_health"] {
        assert!(said.contains(&format!("fix: GRANT DELETE ON {table} TO the user of Panacea")), "{said}");
    }
}

#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// As docs/ledger.md says how to: a month is dropped at once instead of deleted row by row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_partitioned_by_month_are_used() {
    let place = Place::postgres().await;
    let months = "PARTITION OF unified_brain FOR VALUES FROM ('2026-11-01') TO ('2026-12-01')";
    place
        .execute(&format!(
            "CREATE TABLE unified_brain (
                id uuid NOT NULL, agent_name text NOT NULL, action_type text NOT NULL, input_data jsonb NOT NULL,
                output_data jsonb NOT NULL, success boolean NOT NULL, metadata jsonb NOT NULL,
                executed_at timestamptz NOT NULL, PRIMARY KEY (id, executed_at)
             ) PARTITION BY RANGE (executed_at);
             CREATE TABLE unified_brain_2026_11 {months};
             CREATE TABLE unified_brain_rest PARTITION OF unified_brain DEFAULT;
             CREATE TABLE ai_proactive_health (
                id uuid NOT NULL, component text NOT NULL, health_score double precision, trend text,
                predicted_failure_time timestamptz, failure_probability double precision, metrics jsonb NOT NULL,
                warnings jsonb NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
                PRIMARY KEY (created_at, id)
             ) PARTITION BY RANGE (created_at);
             CREATE TABLE ai_proactive_health_rest PARTITION OF ai_proactive_health DEFAULT"
        ))
        .await;
    let running = place.start();
    running.available().await;
    let look = health("web", "api", time("2026-11-22T10:00:00Z"), Some(1.0));
    for _ in 0..2 {
        let rows = vec![brain(1).into(), brain(2).into(), rollback(1).into(), look.clone().into()];
        running.ledger.record(rows).await.unwrap();
    }
    let ledger = running.stop().await;
    assert_eq!(ledger.stats().rows_written(), 4);
    assert_eq!(place.ids("unified_brain_2026_11").await.len(), 2);
    assert_eq!(place.ids("ai_proactive_health").await.len(), 1);

    place.execute("ALTER TABLE unified_brain DETACH PARTITION unified_brain_2026_11").await;
    let running = keep_a_day(place.config());
    until("the old look is gone", async || {
        running.ledger.stats().rows_expired() > 0 || running.ledger.stats().retentions_failed() > 0
    })
    .await;
    let ledger = running.stop().await;
    assert_eq!(ledger.stats().retentions_failed(), 0);
}
