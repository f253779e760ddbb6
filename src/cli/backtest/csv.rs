//! A recorded history as a CSV file, read row by row: a file may be larger than the memory.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use flate2::read::MultiGzDecoder;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use crate::analyze::window::MAX_METRICS;

/// Names of the column that holds the time.
const TIME: [&str; 3] = ["t", "time", "timestamp"];

/// A file with an error: observation and fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {what}", file.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub(super) struct Bad {
    pub file: PathBuf,
    pub line: Option<u64>,
    pub what: String,
}

impl Bad {
    pub(super) fn new(file: &Path, line: Option<u64>, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, what: what.into() }
    }
}

/// The time of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moment {
    /// Seconds, as in the file.
    pub t: f64,
    pub at: Timestamp,
}

impl Moment {
    /// `None` outside of the years -9999 to 9999.
    pub(super) fn new(t: f64) -> Option<Self> {
        // Above this limit nanoseconds do not fit either.
        let nanos = (t.is_finite() && t.abs() < 1e12).then_some((t * 1e9).round() as i128)?;
        Some(Self { t, at: Timestamp::from_nanosecond(nanos).ok()? })
    }
}

/// Rows of one component, in the order of time.
pub(super) trait Rows {
    /// The metrics' names, in the order of the values.
    fn metrics(&self) -> &[String];

    /// The next row's time; its values (`None`: not measured) replace those in `values`. `None` at the end.
    fn next(&mut self, values: &mut Vec<Option<f64>>) -> Result<Option<Moment>, Bad>;
}

pub(super) struct CsvRows {
    file: PathBuf,
    reader: Reader<Box<dyn Read>>,
    header: Vec<String>,
    time: usize,
    metrics: Vec<String>,
    record: ByteRecord,
    before: Option<f64>,
}

impl CsvRows {
    pub(super) fn open(file: &Path) -> Result<Self, Bad> {
        let bad = |line, what: String| Bad::new(file, line, what);
        let opened = File::open(file).map_err(|error| bad(None, format!("cannot be read: {error}")))?;
        if opened.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(bad(None, "is a folder, not a file".to_owned()));
        }
        let zipped = file.extension().is_some_and(|extension| extension == "gz");
        let input: Box<dyn Read> =
            if zipped { Box::new(MultiGzDecoder::new(BufReader::new(opened))) } else { Box::new(opened) };
        let mut reader = ReaderBuilder::new().buffer_capacity(64 * 1024).has_headers(false).from_reader(input);
        let mut record = ByteRecord::new();
        if !reader.read_byte_record(&mut record).map_err(|error| unreadable(file, &error))? {
            return Err(bad(None, "is empty; its first line must name the columns, one of them t".to_owned()));
        }
        let mut header = Vec::with_capacity(record.len());
        for (place, cell) in record.iter().enumerate() {
            // Spreadsheets put a byte order mark before the first name.
            let cell = cell.strip_prefix(b"\xef\xbb\xbf").unwrap_or(cell);
            let name = std::str::from_utf8(cell).map_err(|_| bad(Some(1), not_utf8(place)))?.trim().to_owned();
            if name.is_empty() {
                return Err(bad(Some(1), format!("column {} has no name", place + 1)));
            }
            if header.contains(&name) {
                return Err(bad(Some(1), format!("two columns are named {name:?}; rename or remove one")));
            }
            header.push(name);
        }
        let Some(time) = TIME.iter().find_map(|wanted| header.iter().position(|name| name == wanted)) else {
            let names = header.join(", ").chars().take(200).collect::<String>();
            return Err(bad(
                Some(1),
                format!("has no time column: name one t, time or timestamp (the first line is {names:?})"),
            ));
        };
        let mut metrics = header.clone();
        metrics.remove(time);
        match metrics.len() {
            0 => return Err(bad(Some(1), "has no column beside the time: nothing was measured".to_owned())),
            count if count > MAX_METRICS => {
                let what = format!("{count} metrics are more than the limit of {MAX_METRICS}; remove some");
                return Err(bad(Some(1), what));
            }
            _ => {}
        }
        Ok(Self { file: file.to_owned(), reader, header, time, metrics, record, before: None })
    }
}

impl Rows for CsvRows {
    fn metrics(&self) -> &[String] {
        &self.metrics
    }

    fn next(&mut self, values: &mut Vec<Option<f64>>) -> Result<Option<Moment>, Bad> {
        let Self { file, reader, header, time, record, before, .. } = self;
        let more = reader.read_byte_record(record).map_err(|error| unreadable(file, &error))?;
        if !more {
            if before.is_none() {
                return Err(Bad::new(file, None, "has a first line and no row"));
            }
            return Ok(None);
        }
        let line = record.position().map(csv::Position::line);
        let bad = |what: String| Bad::new(file, line, what);
        values.clear();
        let mut moment = None;
        for (place, cell) in record.iter().enumerate() {
            let text = std::str::from_utf8(cell).map_err(|_| bad(not_utf8(place)))?.trim();
            let name = &header[place];
            if place == *time {
                if text == name {
                    return Err(bad("repeats the names of the columns; remove this line".to_owned()));
                }
                moment = Some(read_time(text).map_err(|why| bad(format!("{name} {why}")))?);
            } else if text.is_empty() {
                values.push(None);
            } else {
                let Ok(value) = text.parse::<f64>() else {
                    let seen = text.chars().take(40).collect::<String>();
                    return Err(bad(format!(
                        "{name} is {seen:?}, not a number; write a number, or leave the cell empty if it was not measured"
                    )));
                };
                // The operator's NotANumber: unknown, never zero.
                values.push(value.is_finite().then_some(value));
            }
        }
        let Some(moment) = moment else { return Err(bad("has no time".to_owned())) };
        if let Some(before) = before.filter(|before| moment.t < *before) {
            let (name, t) = (&header[*time], moment.t);
            return Err(bad(format!("{name} decreases from {before} to {t}; sort the rows by {name}")));
        }
        *before = Some(moment.t);
        Ok(Some(moment))
    }
}

/// Seconds, or a date.
fn read_time(text: &str) -> Result<Moment, String> {
    let seen = || text.chars().take(40).collect::<String>();
    if text.is_empty() {
        return Err("is empty; every row needs its time".to_owned());
    }
    if let Ok(t) = text.parse::<f64>() {
        return Moment::new(t).ok_or_else(|| format!("is {}, not a time; write seconds, not milliseconds", seen()));
    }
    let at = text.parse::<Timestamp>().or_else(|_| {
        let date: DateTime = text.parse()?;
        TimeZone::UTC.to_timestamp(date)
    });
    let at =
        at.map_err(|_| format!("is {:?}, not a time; write seconds, or a date such as 2026-03-01T10:00:00Z", seen()))?;
    Ok(Moment { t: at.as_nanosecond() as f64 / 1e9, at })
}

fn not_utf8(place: usize) -> String {
    format!("column {} is not UTF-8; save the file as UTF-8", place + 1)
}

fn unreadable(file: &Path, error: &csv::Error) -> Bad {
    let line = error.position().map(csv::Position::line);
    match error.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            let what = format!("has {len} cells, the first line has {expected_len}; write empty cells as ,,");
            Bad::new(file, line, what)
        }
        ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Bad::new(file, None, "the gzip data ends too early: the file was cut short; copy it again")
        }
        ErrorKind::Io(error) if file.extension().is_some_and(|extension| extension == "gz") => {
            Bad::new(file, None, format!("cannot be unpacked: {error}; a file that is not gzip must not end in .gz"))
        }
        _ => Bad::new(file, line, format!("cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_dates() {
        let t = |text: &str| read_time(text).map(|moment| moment.t);
        assert_eq!(t("0"), Ok(0.0));
        assert_eq!(t("-1.5"), Ok(-1.5));
        assert_eq!(t("1e10"), Ok(1e10));
        assert_eq!(t("2026-03-01T10:00:00Z"), Ok(1_772_359_200.0));
        assert_eq!(t("2026-03-01T11:00:00.5+01:00"), Ok(1_772_359_200.5));
        assert_eq!(t("2026-03-01 10:00:00"), Ok(1_772_359_200.0));
        for absurd in ["1772359200000", "1e300", "inf", "NaN", "soon", ""] {
            assert!(t(absurd).is_err(), "{absurd}");
        }
        assert_eq!(read_time("-1.5").unwrap().at.as_millisecond(), -1500);
    }
}
