//! The metrics of a service, from Render's answers: pure. An empty answer is no data: such a metric is left out.

use jiff::{SignedDuration, Timestamp};

use super::wire::{Point, Series};
use crate::analyze::{
    metric::{CONNECTIONS_USAGE, CPU_USAGE, ERROR_RATE, LATENCY_MS, MEMORY_USAGE, STORAGE_USAGE},
    observation::{Measured, Reading, Sample, UnknownReason, Unmeasured},
};

/// A figure older than this is none. Their resolution is 30 s at best, and they come late.
pub(super) const STALE: SignedDuration = SignedDuration::from_secs(150);
/// Requests of this last part of what is known make the error rate: two points.
const RATE_OVER: SignedDuration = SignedDuration::from_secs(60);

type Answer<'a> = &'a Result<Vec<Series>, Unmeasured>;

/// What was asked for: `used` of CPU or memory, and of how much.
pub fn share(
    name: &'static str,
    used: Answer<'_>,
    limit: Answer<'_>,
    now: Timestamp,
) -> Option<(&'static str, Reading)> {
    let (used, limit) = match (used, limit) {
        (Ok(used), Ok(limit)) => (used, limit),
        (Err(why), _) | (_, Err(why)) => return Some((name, unknown(why.clone()))),
    };
    let fullest = used.iter().filter_map(|series| {
        let point = fresh(series, now)?;
        let of = instance(series);
        let own = limit.iter().find(|series| instance(series) == of).or_else(|| limit.first())?;
        let limit = own.newest().map(|point| point.value).filter(|limit| *limit > 0.0)?;
        Some((100.0 * point.value / limit, point.timestamp, of, own.unit == series.unit))
    });
    let (percent, at, of, same_unit) = fullest.max_by(|one, other| one.0.total_cmp(&other.0))?;
    if !same_unit {
        let why = format!("{name}: what is used has another unit than its limit");
        return Some((name, unknown(Unmeasured::new(UnknownReason::BadAnswer, why))));
    }
    Some((name, measured(percent, of.map_or_else(|| "all of it".to_owned(), |of| format!("instance {of}")), at)))
}

pub fn cpu(used: Answer<'_>, limit: Answer<'_>, now: Timestamp) -> Option<(&'static str, Reading)> {
    share(CPU_USAGE, used, limit, now)
}

pub fn memory(used: Answer<'_>, limit: Answer<'_>, now: Timestamp) -> Option<(&'static str, Reading)> {
    share(MEMORY_USAGE, used, limit, now)
}

pub fn storage(used: Answer<'_>, capacity: Answer<'_>, now: Timestamp) -> Option<(&'static str, Reading)> {
    share(STORAGE_USAGE, used, capacity, now)
}

/// Connections of a Postgres in percent of those that it may have: `most` where that was set for it, else by its memory.
pub fn connections(
    active: Answer<'_>,
    most: Option<f64>,
    memory: Answer<'_>,
    now: Timestamp,
) -> Option<(&'static str, Reading)> {
    let active = match active {
        Ok(active) => newest(active, now)?,
        Err(why) => return Some((CONNECTIONS_USAGE, unknown(why.clone()))),
    };
    let most = match (most, memory) {
        (Some(most), _) => most,
        (None, Ok(memory)) if memory.iter().any(|series| series.unit != "bytes") => {
            let why = format!("{CONNECTIONS_USAGE}: the memory limit is not in bytes");
            return Some((CONNECTIONS_USAGE, unknown(Unmeasured::new(UnknownReason::BadAnswer, why))));
        }
        (None, Ok(memory)) => most_connections(newest(memory, now)?.value),
        (None, Err(why)) => return Some((CONNECTIONS_USAGE, unknown(why.clone()))),
    };
    let of = format!("its {} of {most} connections", active.value);
    Some((CONNECTIONS_USAGE, measured(100.0 * active.value / most, of, active.timestamp)))
}

/// By memory in bytes (<https://render.com/tutorials/postgres-on-render/connection-limits-and-pooling>; older plans have three
/// fewer).
fn most_connections(memory: f64) -> f64 {
    // A little of what a plan is named by may be kept for other things; half of it is the next smaller plan.
    const GB: f64 = 0.9e9;
    match memory / GB {
        ..8.0 => 100.0,
        ..16.0 => 200.0,
        ..32.0 => 400.0,
        _ => 500.0,
    }
}

/// How far a read replica is behind, in seconds.
pub fn lag(answer: Answer<'_>, now: Timestamp) -> Option<(&'static str, Reading)> {
    let name = "replication_lag_s";
    match answer {
        Ok(series) => newest(series, now).map(|lag| (name, measured(lag.value, "it".to_owned(), lag.timestamp))),
        Err(why) => Some((name, unknown(why.clone()))),
    }
}

/// The highest of the newest.
fn newest(all: &[Series], now: Timestamp) -> Option<&Point> {
    all.iter().filter_map(|series| fresh(series, now)).max_by(|one, other| one.value.total_cmp(&other.value))
}

/// The share of requests that were answered with 500 to 599.
pub fn error_rate(requests: Answer<'_>, now: Timestamp) -> Option<(&'static str, Reading)> {
    let requests = match requests {
        Ok(requests) => requests,
        Err(why) => return Some((ERROR_RATE, unknown(why.clone()))),
    };
    let newest = requests.iter().filter_map(|series| fresh(series, now)).map(|point| point.timestamp).max()?;
    let count = |series: &Series| -> f64 {
        let last = series.values.iter().filter(|point| newest.duration_since(point.timestamp) < RATE_OVER);
        last.map(|point| point.value).sum()
    };
    let all: f64 = requests.iter().map(count).sum();
    let failed = |series: &&Series| {
        series.label("statusCode").and_then(|code| code.parse::<u16>().ok()).is_some_and(|code| code >= 500)
    };
    let failed: f64 = requests.iter().filter(failed).map(count).sum();
    (all > 0.0).then(|| (ERROR_RATE, measured(failed / all, "the requests of the last minute".to_owned(), newest)))
}

/// The latency of a quantile, in milliseconds.
pub fn latency(answer: Answer<'_>, now: Timestamp) -> Option<(&'static str, Reading)> {
    let series = match answer {
        Ok(series) => series.first()?,
        Err(why) => return Some((LATENCY_MS, unknown(why.clone()))),
    };
    let point = fresh(series, now)?;
    let factor = match series.unit.as_str() {
        "ms" | "milliseconds" => 1.0,
        "s" | "seconds" => 1000.0,
        other => {
            let why = format!("latency has the unit {other:?}, which is not known");
            return Some((LATENCY_MS, unknown(Unmeasured::new(UnknownReason::BadAnswer, why))));
        }
    };
    let of = "95% of the requests".to_owned();
    Some((LATENCY_MS, measured(factor * point.value, of, point.timestamp)))
}

fn instance(series: &Series) -> Option<&str> {
    series.label("instance")
}

fn fresh(series: &Series, now: Timestamp) -> Option<&Point> {
    series.newest().filter(|point| now.duration_since(point.timestamp) <= STALE)
}

fn measured(value: f64, of: String, at: Timestamp) -> Reading {
    Reading { sample: Some(Sample { of, at }), ..Reading::new(Measured::Known(value), false) }
}

fn unknown(why: Unmeasured) -> Reading {
    Reading::new(Measured::Unknown(why), false)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-11-25T10:00:00Z".parse().unwrap()
    }

    /// Points by how many seconds ago they were.
    fn series(label: (&str, &str), unit: &str, points: &[(i64, f64)]) -> Value {
        let values: Vec<Value> = points
            .iter()
            .map(|(ago, value)| json!({"timestamp": now() - SignedDuration::from_secs(*ago), "value": value}))
            .collect();
        json!({"labels": [{"field": label.0, "value": label.1}], "unit": unit, "values": values})
    }

    fn answer(all: &[Value]) -> Result<Vec<Series>, Unmeasured> {
        Ok(serde_json::from_value(json!(all)).unwrap())
    }

    fn value(read: Option<(&'static str, Reading)>) -> Option<(f64, String)> {
        let reading = read?.1;
        Some((*reading.value.known()?, reading.sample?.of))
    }

    #[test]
    fn the_fullest_instance_decides() {
        let used = answer(&[
            series(("instance", "a"), "bytes", &[(60, 400.0), (30, 100.0)]),
            series(("instance", "b"), "bytes", &[(30, 300.0), (60, 100.0)]),
        ]);
        let limit = answer(&[
            series(("instance", "a"), "bytes", &[(30, 400.0)]),
            series(("instance", "b"), "bytes", &[(30, 400.0)]),
        ]);
        assert_eq!(value(memory(&used, &limit, now())), Some((75.0, "instance b".to_owned())));
        // A limit of the whole service holds for each.
        let whole = answer(&[series(("resource", "srv-1"), "bytes", &[(30, 600.0)])]);
        assert_eq!(value(memory(&used, &whole, now())).unwrap().0, 50.0);
        let other = answer(&[series(("instance", "a"), "GB", &[(30, 4.0)])]);
        let (_, reading) = cpu(&used, &other, now()).unwrap();
        assert!(matches!(reading.value, Measured::Unknown(why) if why.reason == UnknownReason::BadAnswer));
    }

    #[test]
    fn connections_are_of_those_that_it_may_have() {
        let active = answer(&[series(("resource", "dpg-1"), "unitless", &[(60, 99.0), (30, 50.0)])]);
        let memory = |bytes| answer(&[series(("instance", "dpg-1-a"), "bytes", &[(30, bytes)])]);
        for (bytes, percent) in [(256e6, 50.0), (4.3e9, 50.0), (7.9e9, 25.0), (8e9, 25.0), (16e9, 12.5), (33e9, 10.0)] {
            let read = value(connections(&active, None, &memory(bytes), now())).unwrap();
            assert_eq!(read.0, percent, "{bytes}");
        }
        let (percent, of) = value(connections(&active, Some(60.0), &memory(1e9), now())).unwrap();
        assert_eq!((percent.round(), of.as_str()), (83.0, "its 50 of 60 connections"));
        assert!(connections(&active, None, &answer(&[]), now()).is_none(), "of how many is not known");
        assert!(connections(&answer(&[]), Some(60.0), &memory(1e9), now()).is_none());
        let why = Unmeasured::new(UnknownReason::Timeout, "late");
        for (active, memory) in [(&Err(why.clone()), &memory(1e9)), (&active, &Err(why.clone()))] {
            let read = connections(active, None, memory, now()).unwrap();
            assert_eq!(read.1.value, Measured::Unknown(why.clone()));
        }
    }

    #[test]
    fn no_data_is_not_zero() {
        let (empty, limit) = (answer(&[]), answer(&[series(("instance", "a"), "cpu", &[(30, 1.0)])]));
        let old = answer(&[series(("instance", "a"), "cpu", &[(151, 0.5)])]);
        assert!(cpu(&empty, &limit, now()).is_none() && cpu(&old, &limit, now()).is_none());
        assert!(cpu(&limit, &empty, now()).is_none());
        assert!(error_rate(&empty, now()).is_none() && latency(&empty, now()).is_none());
        let nobody = answer(&[series(("statusCode", "200"), "unitless", &[(30, 0.0)])]);
        assert!(error_rate(&nobody, now()).is_none(), "no requests have no error rate");
        let why = Unmeasured::new(UnknownReason::Timeout, "late");
        for read in [
            error_rate(&Err(why.clone()), now()),
            latency(&Err(why.clone()), now()),
            cpu(&limit, &Err(why.clone()), now()),
        ] {
            assert_eq!(read.unwrap().1.value, Measured::Unknown(why.clone()));
        }
    }

    #[test]
    fn errors_are_those_of_the_last_minute() {
        let requests = answer(&[
            series(("statusCode", "200"), "unitless", &[(90, 1000.0), (60, 60.0), (30, 90.0)]),
            series(("statusCode", "503"), "unitless", &[(90, 1000.0), (60, 20.0), (30, 30.0)]),
            series(("statusCode", "404"), "unitless", &[(120, 100.0)]),
        ]);
        assert_eq!(value(error_rate(&requests, now())).unwrap().0, 0.25);
        let fine = answer(&[series(("statusCode", "200"), "unitless", &[(30, 10.0)])]);
        assert_eq!(value(error_rate(&fine, now())).unwrap().0, 0.0);
    }

    #[test]
    fn latency_is_told_in_milliseconds() {
        let of = |unit| answer(&[series(("quantile", "0.95"), unit, &[(60, 9.0), (30, 0.25)])]);
        assert_eq!(value(latency(&of("ms"), now())).unwrap().0, 0.25);
        assert_eq!(value(latency(&of("seconds"), now())).unwrap().0, 250.0);
        let (_, reading) = latency(&of("parsec"), now()).unwrap();
        assert!(matches!(reading.value, Measured::Unknown(_)));
    }
}
