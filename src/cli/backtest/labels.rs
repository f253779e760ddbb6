//! Known events of histories: a labels.csv beside them, which only the report shows.

use std::{collections::BTreeMap, path::Path};

use super::csv::Bad;

/// Most labels of a component: more cannot be distinguished in a chart.
const MAX: usize = 200;

/// From `start` to `end`, in the seconds of the history.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Label {
    pub kind: String,
    pub start: f64,
    pub end: f64,
    pub detail: String,
}

/// By component.
pub(super) type Labels = BTreeMap<String, Vec<Label>>;

pub(super) fn read(file: &Path) -> Result<Labels, Bad> {
    let bad = |line, what: String| Bad::new(file, line, what);
    let unreadable = |line| move |error: csv::Error| Bad::new(file, line, format!("cannot be read: {error}"));
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_path(file).map_err(unreadable(None))?;
    let header = reader.headers().map_err(unreadable(Some(1)))?.clone();
    let place = |wanted: &str| {
        let found = header.iter().position(|name| name.trim_start_matches('\u{feff}').trim() == wanted);
        found.ok_or_else(|| bad(Some(1), format!("has no column {wanted}; it needs component,kind,start,end,detail")))
    };
    let (component, kind, start, end) = (place("component")?, place("kind")?, place("start")?, place("end")?);
    let detail = place("detail").ok();
    let mut labels = Labels::new();
    for record in reader.records() {
        let record = record.map_err(unreadable(None))?;
        let line = record.position().map(csv::Position::line);
        let cell = |place: usize| record.get(place).unwrap_or_default().trim();
        let time = |place: usize| {
            let found = cell(place).parse::<f64>().ok().filter(|time| time.is_finite());
            found.ok_or_else(|| bad(line, format!("{:?} is not a time in seconds", cell(place))))
        };
        let label = Label {
            kind: cell(kind).to_owned(),
            start: time(start)?,
            end: time(end)?,
            detail: detail.map(cell).unwrap_or_default().to_owned(),
        };
        let of = labels.entry(cell(component).to_owned()).or_default();
        if of.len() < MAX {
            of.push(label);
        }
    }
    Ok(labels)
}
