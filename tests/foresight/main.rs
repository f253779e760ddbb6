//! `make foresight DATA=DIR`: what the forecaster reaches on recorded histories, beside simple rules on the same looks.
//! Prints the tables of docs/foresight.md.
//!
//! DIR holds one folder a set; a set is `labels.csv` (component,kind,start,end,detail) and one `NAME.csv.gz` a component.
//! Whole components are judged, never windows of them. Components without a label are left out, and so are those whose
//! series is, cell for cell, that of another one with other labels: such labels contradict each other.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that cannot go on fails")]

mod baselines;
mod judge;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Read as _,
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use judge::{Component, Figures, Label, Said, Share, judge};
use panacea::{
    analyze::{
        forecast::{Confidence, Forecaster, Foresight, Level},
        replay::{self, Replay},
    },
    api::{Limits, default_ceilings, default_thresholds},
};

/// One recorded history: time in seconds, and the metrics that were measured then.
struct History {
    set: String,
    name: String,
    labels: Vec<Label>,
    columns: Vec<String>,
    rows: Vec<(f64, Vec<Option<f64>>)>,
}

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

fn labelled(folder: &Path) -> BTreeMap<String, Vec<Label>> {
    let mut labels: BTreeMap<String, Vec<Label>> = BTreeMap::new();
    let mut rows = csv::Reader::from_path(folder.join("labels.csv")).unwrap();
    for row in rows.deserialize() {
        let (component, kind, start, end, detail): (String, String, f64, f64, String) = row.unwrap();
        labels.entry(component).or_default().push(Label { kind, start, end, detail });
    }
    labels
}

fn read(folder: &Path, name: &str, labels: Vec<Label>) -> History {
    let file = folder.join(format!("{name}.csv.gz"));
    let mut text = String::new();
    let opened = std::fs::File::open(&file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
    MultiGzDecoder::new(opened).read_to_string(&mut text).unwrap();
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    let columns: Vec<String> = rows.headers().unwrap().iter().skip(1).map(str::to_owned).collect();
    let rows = rows.records().map(|row| {
        let row = row.unwrap();
        (row[0].parse().unwrap(), row.iter().skip(1).map(|cell| cell.parse().ok()).collect())
    });
    let set = folder.file_name().unwrap().to_string_lossy().into_owned();
    History { set, name: name.to_owned(), labels, rows: rows.collect(), columns }
}

fn figures<F: Forecaster>(histories: &[History], forecaster: impl Fn() -> F) -> Figures {
    let components: Vec<Component> = histories.iter().map(|history| said(history, forecaster())).collect();
    judge(&components)
}

/// Everything that is said of one component, look by look.
fn said(history: &History, forecaster: impl Forecaster) -> Component {
    let mut replay = Replay::new(forecaster, default_thresholds(), default_ceilings(), Limits::default());
    let mut said = Vec::new();
    for (t, values) in &history.rows {
        let metrics = history.columns.iter().zip(values).filter_map(|(name, value)| Some((name.as_str(), (*value)?)));
        if values.iter().all(Option::is_none) {
            continue;
        }
        let replay::Said { forecast, acts, .. } = replay.look(Timestamp::from_second(*t as i64).unwrap(), metrics);
        said.push(Said {
            t: *t,
            leak: forecast.leak,
            acts,
            alarm: forecast.level() >= Level::Critical,
            within_1h: forecast.within[0],
            within_6h: forecast.within[1],
            time_to_failure: forecast.time_to_failure.map(|time| time.seconds),
            confident: forecast.confidence != Confidence::InsufficientHistory,
        });
    }
    Component { set: history.set.clone(), name: history.name.clone(), labels: history.labels.clone(), said }
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
    row("acted ahead of, of the failures that a leak of four hours or more leads to", "", &|f| share(&f.acted_ahead));
    row("acted on, a healthy component-day", "", &|f| format!("{:.2}", f.false_acts as f64 / f.healthy_days));
    row("CPU faults, recall", "≥ 0.97", &|f| share(&f.cpu_recall));
    row("error faults, recall", "", &|f| share(&f.error_recall));
    row("latency faults, recall", "", &|f| share(&f.latency_recall));
}
