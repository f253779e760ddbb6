//! What is foreseen of one recorded history of each kind (tests/fixtures/recorded). How well it does on many is measured
//! by `make foresight`, not tested.

#[path = "../foresight/judge.rs"]
#[allow(dead_code, reason = "the measurement uses the rest")]
mod judge;
#[path = "../foresight/recorded.rs"]
mod recorded;

use std::path::Path;

use judge::{Component, judge};
use panacea::analyze::forecast::Foresight;
use recorded::{History, labelled, read, said};

fn histories() -> Vec<History> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/recorded"));
    labelled(folder).into_iter().map(|(name, labels)| read(folder, &name, labels)).collect()
}

#[test]
fn every_kind_gets_its_verdict() {
    let components: Vec<Component> = histories().iter().map(|history| said(history, Foresight)).collect();
    assert_eq!(components.len(), 15);
    let figures = judge(&components);
    assert_eq!((figures.leak_recall.right, figures.leak_recall.of), (7, 7), "{:?}", figures.leak_recall);
    assert_eq!((figures.leak_precision.right, figures.leak_precision.of), (7, 7), "{:?}", figures.leak_precision);
    assert_eq!((figures.cpu_recall.right, figures.cpu_recall.of), (1, 1), "{:?}", figures.cpu_recall);
    // The one that warms up for hours is warned of (docs/foresight.md), and neither called leaking nor acted on.
    let alarmed = &figures.false_alarm_components;
    assert!(alarmed.iter().all(|component| component.starts_with("recorded/svc-030")), "{alarmed:?}");
    assert_eq!(figures.false_acts, 0);
    assert!(figures.median_lead() >= 4.0, "{:?}", figures.leads);
    // The others live too shortly to be known, or are at their 90% threshold first.
    assert!(figures.acted_ahead.right >= 4, "{:?}", figures.acted_ahead);
    // Better than the base rate; how much better is no figure for so few.
    assert!(figures.probabilities.iter().all(|calibration| calibration.skill > 0.05), "{:?}", figures.probabilities);
}

/// What is said at a time has seen nothing after it: a history that ends earlier says the same up to its end.
#[test]
fn nothing_that_comes_later_is_seen() {
    for history in histories() {
        let whole = said(&history, Foresight).said;
        for share in [3, 2] {
            let rows = history.rows[..history.rows.len() / share].to_vec();
            let part = said(&History { rows, ..history.clone() }, Foresight).said;
            assert!(!part.is_empty() && part[..] == whole[..part.len()], "{}", history.name);
        }
    }
}
