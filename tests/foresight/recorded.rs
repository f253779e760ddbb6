//! Recorded histories with labels, and what the operator would have said of them.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use panacea::{
    analyze::{
        forecast::{Confidence, Forecaster, Level},
        metric::MEMORY_USAGE,
        replay::{self, Replay},
    },
    api::{Limits, default_ceilings, default_thresholds},
};

use super::judge::{Component, Label, Said};

/// One recorded history: time in seconds, and the metrics that were measured then.
#[derive(Debug, Clone)]
pub struct History {
    pub set: String,
    pub name: String,
    pub labels: Vec<Label>,
    pub columns: Vec<String>,
    pub rows: Vec<(f64, Vec<Option<f64>>)>,
}

/// The labels of a folder's components, by name.
pub fn labelled(folder: &Path) -> BTreeMap<String, Vec<Label>> {
    let mut labels: BTreeMap<String, Vec<Label>> = BTreeMap::new();
    let mut rows = csv::Reader::from_path(folder.join("labels.csv")).unwrap();
    for row in rows.deserialize() {
        let (component, kind, start, end, detail): (String, String, f64, f64, String) = row.unwrap();
        labels.entry(component).or_default().push(Label { kind, start, end, detail });
    }
    labels
}

pub fn read(folder: &Path, name: &str, labels: Vec<Label>) -> History {
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

/// Everything that is said of one component, look by look.
pub fn said(history: &History, forecaster: impl Forecaster) -> Component {
    // Whether it acts ahead is asked of memory alone: a CPU that is busy is another matter.
    let mut thresholds = default_thresholds();
    thresholds.retain(|name, _| name == MEMORY_USAGE);
    let mut replay = Replay::new(forecaster, thresholds, default_ceilings(), Limits::default());
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
