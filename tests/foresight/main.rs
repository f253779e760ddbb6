//! `make foresight DATA=DIR`: what the forecaster reaches on recorded histories, beside simple rules on the same looks.
//! Prints the tables of docs/foresight.md.
//!
//! DIR holds one folder a set; a set is `labels.csv` (component,kind,start,end,detail) and one `NAME.csv.gz` a component.
//! The unit of assessment is a whole component, never one of its windows. Components without a label are left out, and so are those whose
//! series is, cell for cell, that of another one with other labels: such labels contradict each other.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that cannot go on fails")]

mod baselines;
mod judge;
mod recorded;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use judge::{Component, Figures, Share, judge};
use panacea::analyze::forecast::{Forecaster, Foresight};
use recorded::{History, labelled, read, said};

fn main() {
    let data = PathBuf::from(std::env::args().nth(1).expect("usage: foresight DIR"));
    let mut histories: Vec<History> = Vec::new();
    let mut twins = Vec::new();
    let mut seen: BTreeMap<u64, String> = BTreeMap::new();
    for folder in folders(&data) {
        for (file, labels) in labelled(&folder) {
            let history = read(&folder, &file, labels);
            let mut hasher = DefaultHasher::new();
            for (t, values) in &history.rows {
                t.to_bits().hash(&mut hasher);
                values.iter().map(|value| value.map(f64::to_bits)).for_each(|bits| bits.hash(&mut hasher));
            }
            let name = format!("{}/{}", history.set, history.name);
            match seen.insert(hasher.finish(), name.clone()) {
                None => histories.push(history),
                Some(twin) => {
                    // The one with faults stays: a fault was injected, whatever the other label says.
                    let kept = histories.iter_mut().find(|kept| format!("{}/{}", kept.set, kept.name) == twin);
                    if let Some(kept) = kept.filter(|_| history.labels.iter().all(|label| label.kind != "healthy")) {
                        *kept = history;
                    }
                    twins.push(format!("{name} = {twin}"));
                }
            }
        }
    }
    println!("{} components, {} rows\n", histories.len(), histories.iter().map(|h| h.rows.len()).sum::<usize>());
    if !twins.is_empty() {
        println!("left out, since the series stands there twice with other labels: {}\n", twins.len());
    }
    let figures = [
        ("foresight", figures(&histories, || Foresight)),
        ("naive rules", figures(&histories, || baselines::Naive)),
        ("predict_linear", figures(&histories, || baselines::PredictLinear)),
        ("90% threshold", figures(&histories, || baselines::Threshold)),
    ];
    table(&figures);
    let foresight = &figures[0].1;
    println!("\nWhere foresight was wrong:\n");
    let share = |what: &str, share: &Share| println!("- {what}: {}", share.wrong.join(", "));
    share("called leaking, and healthy", &foresight.leak_precision);
    share("leaking, and not called so", &foresight.leak_recall);
    share("CPU faults not seen", &foresight.cpu_recall);
    println!("- healthy, and alarmed (times): {}", foresight.false_alarm_components.join(", "));
}

fn folders(data: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(data)
        .unwrap_or_else(|why| panic!("{}: {why}", data.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("labels.csv").is_file())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "{} holds no folder with a labels.csv", data.display());
    folders
}

fn figures<F: Forecaster>(histories: &[History], forecaster: impl Fn() -> F) -> Figures {
    let components: Vec<Component> = histories.iter().map(|history| said(history, forecaster())).collect();
    judge(&components)
}

fn table(figures: &[(&str, Figures)]) {
    let row = |what: &str, target: &str, of: &dyn Fn(&Figures) -> String| {
        let cells: Vec<String> = figures.iter().map(|(_, figures)| of(figures)).collect();
        println!("| {what} | {target} | {} |", cells.join(" | "));
    };
    let names: Vec<&str> = figures.iter().map(|(name, _)| *name).collect();
    println!("| what | target | {} |", names.join(" | "));
    println!("|---|---|{}", "---|".repeat(names.len()));
    let share = |share: &Share| format!("{:.2} ({} of {})", share.value(), share.right, share.of);
    row("leak, precision", "≥ 0.92", &|f| share(&f.leak_precision));
    row("leak, recall", "≥ 0.91", &|f| share(&f.leak_recall));
    row("alarms (level critical) a healthy component-day", "≤ 0.05", &|f| {
        format!("{:.2} ({} in {:.0} d)", f.false_alarms_a_day(), f.false_alarms, f.healthy_days)
    });
    row("leak verdicts a healthy component-day", "≤ 0.05", &|f| {
        format!("{:.2}", f.leak_precision.wrong.len() as f64 / f.healthy_days)
    });
    row("band of the time to failure, macro accuracy", "≥ 0.90", &|f| format!("{:.2}", f.macro_accuracy()));
    for (place, band) in ["<1h", "1-6h", "6-24h", ">24h"].into_iter().enumerate() {
        row(&format!("… of samples in {band}"), "", &|f| format!("{:.2}", f.bands[place].value()));
    }
    row("median lead before exhaustion, h", "≥ 4", &|f| format!("{:.1} (n={})", f.median_lead(), f.leads.len()));
    for (place, hours) in ["1 h", "6 h"].into_iter().enumerate() {
        row(&format!("Brier skill within {hours}"), "≥ 0.15", &|f| format!("{:+.2}", f.probabilities[place].skill));
        row(&format!("calibration error within {hours}"), "≤ 0.03", &|f| {
            format!("{:.3}", f.probabilities[place].error)
        });
    }
    row("deaths acted ahead of, before the 90% threshold is met", "", &|f| share(&f.acted_ahead));
    row("acted on, a healthy component-day", "", &|f| format!("{:.2}", f.false_acts as f64 / f.healthy_days));
    row("CPU faults, recall", "≥ 0.97", &|f| share(&f.cpu_recall));
    row("error faults, recall", "", &|f| share(&f.error_recall));
    row("latency faults, recall", "", &|f| share(&f.latency_recall));
}
