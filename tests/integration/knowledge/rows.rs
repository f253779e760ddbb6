//! What is written is there, once.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use panacea::knowledge::{HistoryPoint, LedgerConfig, LedgerReason, Row};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::place::{Place, Running, brain, health, ids_of, on_both, rollback, time, until};

on_both!(
    every_column_is_written,
    a_row_is_written_once,
    history_is_in_order_limited_and_survives_a_restart,
    eight_ledgers_start_at_once_on_an_empty_database,
    offered_rows_are_seen_soon_and_written_at_the_end,
    any_batches_give_exactly_the_distinct_rows,
    nul_in_a_text_is_no_reason_to_refuse_a_healing_row,
);

async fn every_column_is_written(place: Place) {
    let running = place.start();
    let at = time("2026-11-22T10:00:00.123456789Z");
    let look = health("web", "api", at, Some(71.5));
    running.ledger.record(vec![brain(1).into(), look.into(), rollback(2).into()]).await.unwrap();

    let postgres = matches!(place, Place::Postgres(_));
    let moment = |column: &str| match postgres {
        true => format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"),
        false => column.to_owned(),
    };
    let bool_text = |column: &str| format!("CASE WHEN {column} THEN 'yes' ELSE 'no' END");
    let joined = |parts: &[&str]| parts.join(" || '|' || ");

    let columns = joined(&[
        "agent_name",
        "action_type",
        "(input_data ->> 'number')",
        &bool_text("success"),
        "(metadata ->> 'namespace')",
        "(metadata ->> 'policy')",
        "(metadata ->> 'component')",
        "(metadata ->> 'remediation')",
        &moment("executed_at"),
    ]);
    assert_eq!(
        place.texts(&format!("SELECT {columns} FROM unified_brain")).await,
        ["self_healing_system|service_restart|1|yes|shop|web|api|web-api-1|2026-11-22T10:00:00.123456Z"]
    );
    let columns = joined(&[
        "component",
        "CAST(health_score AS TEXT)",
        "trend",
        "coalesce(CAST(predicted_failure_time AS TEXT), 'none')",
        "CAST(failure_probability AS TEXT)",
        "(metrics ->> 'error_rate')",
        "coalesce(metrics ->> 'latency_ms', 'none')",
        "(metrics ->> 'panacea.dev/component')",
        "(warnings ->> 0)",
        &moment("created_at"),
        &moment("updated_at"),
    ]);
    assert_eq!(
        place.texts(&format!("SELECT {columns} FROM ai_proactive_health")).await,
        [
            "api|71.5|Stable|none|0.25|0.015|none|shop/web/api|slow|2026-11-22T10:00:00.123456Z|2026-11-22T10:00:00.123456Z"
        ]
    );
    let columns = joined(&[
        "component",
        "rollback_type",
        "(from_state ->> 'revision')",
        "(to_state ->> 'revision')",
        &bool_text("success"),
        "error_message",
        &moment("executed_at"),
    ]);
    assert_eq!(
        place.texts(&format!("SELECT {columns} FROM ai_rollback_history")).await,
        ["api|deployment|3|2|no|refused|2026-11-22T10:00:00.000000Z"]
    );
    if !postgres {
        let read = "SELECT datetime(executed_at) FROM unified_brain";
        assert_eq!(place.texts(read).await, ["2026-11-22 10:00:00"]);
    }
    assert_eq!(running.stop().await.stats().rows_written(), 3);
}

async fn a_row_is_written_once(place: Place) {
    let running = place.start();
    let first = brain(1);
    let mut changed = first.clone();
    changed.input = json!({"number": 99});
    running.ledger.record(vec![first.clone().into(), first.clone().into()]).await.unwrap();
    running.ledger.record(vec![changed.clone().into(), brain(2).into()]).await.unwrap();
    running.ledger.offer(changed);
    let ledger = running.stop().await;

    let rows: [Row; 2] = [first.into(), brain(2).into()];
    assert_eq!(place.ids("unified_brain").await, ids_of(&rows, "unified_brain"));
    let numbers = "SELECT input_data ->> 'number' || '' FROM unified_brain ORDER BY 1";
    assert_eq!(place.texts(numbers).await, ["1", "2"], "the first one stays");
    assert_eq!(ledger.stats().rows_written(), 2);
}

async fn history_is_in_order_limited_and_survives_a_restart(place: Place) {
    let start = time("2026-11-22T10:00:00Z");
    let minute = |number: i64| start + SignedDuration::from_mins(number);
    let running = place.start();
    for number in (0..150).rev() {
        running.ledger.offer(health("web", "api", minute(number), Some(number as f64 / 2.0)));
    }
    // The same name elsewhere, and a look that could not be measured.
    running.ledger.offer(health("other", "api", minute(500), Some(1.0)));
    running.ledger.offer(health("web", "db", minute(500), Some(2.0)));
    running.ledger.offer(health("web", "api", minute(500), None));
    running.stop().await;

    let again = place.start();
    let expected = |numbers: std::ops::Range<i64>| -> Vec<HistoryPoint> {
        let metrics = || [("error_rate".to_owned(), 0.015)].into();
        numbers
            .map(|number| HistoryPoint { at: minute(number), score: number as f64 / 2.0, metrics: metrics() })
            .collect()
    };
    assert_eq!(again.ledger.history("shop", "web", "api", 100).await.unwrap(), expected(50..150));
    assert_eq!(again.ledger.history("shop", "web", "api", 3).await.unwrap(), expected(147..150));
    assert_eq!(again.ledger.history("shop", "web", "api", 100_000).await.unwrap().len(), 100, "never more");
    assert_eq!(again.ledger.history("shop", "other", "api", 100).await.unwrap().len(), 1);
    assert_eq!(again.ledger.history("elsewhere", "web", "api", 100).await.unwrap(), []);
    again.stop().await;
}

async fn eight_ledgers_start_at_once_on_an_empty_database(place: Place) {
    let running: Vec<Running> = (0..8).map(|_| place.start()).collect();
    let writes = running.iter().enumerate().map(|(number, running)| {
        let ledger = running.ledger.clone();
        tokio::spawn(async move { ledger.record(vec![brain(number as u32).into(), rollback(7).into()]).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    for running in running {
        running.available().await;
        running.stop().await;
    }
    assert_eq!(place.ids("unified_brain").await.len(), 8);
    assert_eq!(place.ids("ai_rollback_history").await.len(), 1);
}

async fn offered_rows_are_seen_soon_and_written_at_the_end(place: Place) {
    let running = place.start();
    running.available().await;
    running.ledger.offer(brain(1));
    until("the row is written while it runs", async || place.ids("unified_brain").await.len() == 1).await;
    // More than a batch, and the end before its age is reached.
    (2..=1200).for_each(|number| running.ledger.offer(brain(number)));
    let ledger = running.stop().await;
    assert_eq!(place.ids("unified_brain").await.len(), 1200);
    assert_eq!((ledger.stats().rows_written(), ledger.stats().rows_dropped()), (1200, 0));
    ledger.offer(brain(1201));
    assert_eq!(ledger.stats().rows_dropped(), 1, "an offer after the end is counted");
}

async fn any_batches_give_exactly_the_distinct_rows(place: Place) {
    /// What is done with a batch.
    #[derive(Debug, Clone)]
    enum Step {
        Record(Vec<(u8, u32)>),
        Offer(Vec<(u8, u32)>),
        Restart,
    }
    let rows = || vec((0..3u8, 0..40u32), 0..30);
    let step =
        prop_oneof![4 => rows().prop_map(Step::Record), 4 => rows().prop_map(Step::Offer), 1 => Just(Step::Restart)];
    let row = |case: u32, (kind, number): (u8, u32)| -> Row {
        let number = case * 1000 + number;
        match kind {
            0 => brain(number).into(),
            1 => health("web", "api", Timestamp::from_second(i64::from(number)).unwrap(), None).into(),
            _ => rollback(number).into(),
        }
    };

    let runtime = tokio::runtime::Handle::current();
    let done = tokio::task::spawn_blocking(move || {
        let mut all: BTreeSet<(&str, String)> = BTreeSet::new();
        let (mut case, mut written) = (0, 0);
        let all = std::cell::RefCell::new((&mut all, &mut case, &mut written));
        let model = |steps: Vec<Step>| {
            let (all, case, written) = &mut *all.borrow_mut();
            **case += 1;
            runtime.block_on(async {
                let mut running = place.start();
                for step in steps {
                    match step {
                        Step::Record(rows) => {
                            let rows: Vec<Row> = rows.into_iter().map(|what| row(**case, what)).collect();
                            all.extend(rows.iter().map(|row| (row.table(), row.id().to_string())));
                            running.ledger.record(rows).await.unwrap();
                        }
                        Step::Offer(rows) => {
                            for row in rows.into_iter().map(|what| row(**case, what)) {
                                all.insert((row.table(), row.id().to_string()));
                                running.ledger.offer(row);
                            }
                        }
                        Step::Restart => {
                            **written += running.stop().await.stats().rows_written();
                            running = place.start();
                        }
                    }
                }
                **written += running.stop().await.stats().rows_written();
                for table in ["unified_brain", "ai_proactive_health", "ai_rollback_history"] {
                    let expected: Vec<String> =
                        all.iter().filter(|(of, _)| *of == table).map(|(_, id)| id.clone()).collect();
                    assert_eq!(place.ids(table).await, expected, "{table}");
                }
                assert_eq!(**written, all.len() as u64, "each distinct row is counted once");
            });
            Ok(())
        };
        let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
        TestRunner::new(config).run(&vec(step, 1..8), model).unwrap();
    });
    done.await.unwrap();
}

async fn nul_in_a_text_is_no_reason_to_refuse_a_healing_row(place: Place) {
    let running = place.start();
    let mut row = brain(1);
    row.output = json!({"log": "a\0b"});
    let mut other = rollback(1);
    other.error_message = Some("a\0b".into());
    running.ledger.record(vec![row.into(), other.into()]).await.unwrap();
    assert_eq!(place.texts("SELECT output_data ->> 'log' FROM unified_brain").await, ["a\u{fffd}b"]);
    assert_eq!(place.texts("SELECT error_message FROM ai_rollback_history").await, ["a\u{fffd}b"]);
    running.stop().await;
}

#[tokio::test]
async fn a_path_that_cannot_be_written_is_said_so_and_kills_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    for path in [file.join("ledger.db"), folder.path().to_owned()] {
        let running = Running::start(LedgerConfig::Sqlite(path.clone()));
        let (reason, message) = running.unavailable().await;
        assert_eq!(reason, "Unreachable", "{message}");
        assert!(message.contains(&path.display().to_string()), "{message}");
        let error = running.ledger.record(vec![brain(1).into()]).await.unwrap_err();
        assert_eq!(error.reason(), LedgerReason::Unreachable);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_said_so() {
    let place = Place::sqlite();
    std::fs::create_dir_all(place.file().parent().unwrap()).unwrap();
    std::fs::write(place.file(), "this is a text, and long enough to be read as a header of some file ".repeat(20))
        .unwrap();
    let running = place.start();
    let (reason, message) = running.unavailable().await;
    assert!(reason == "Failed" && message.contains("not a database"), "{reason}: {message}");
    running.stop().await;
}

#[tokio::test]
async fn a_removed_file_is_made_again() {
    let place = Place::sqlite();
    let running = place.start();
    running.ledger.record(vec![brain(1).into()]).await.unwrap();
    std::fs::remove_dir_all(place.file().parent().unwrap()).unwrap();
    running.ledger.record(vec![brain(2).into()]).await.unwrap();
    running.ledger.offer(brain(3));
    running.stop().await;
    let rows: [Row; 2] = [brain(2).into(), brain(3).into()];
    assert_eq!(place.ids("unified_brain").await, ids_of(&rows, "unified_brain"));
}
