//! The metrics of a service, from Render's responses: pure. An empty response is no data: such a metric is left out.

use jiff::{SignedDuration, Timestamp};

use super::wire::{Point, Series};
use crate::analyze::{
    metric::{CONNECTIONS_USAGE, ERROR_RATE, LATENCY_MS},
    observation::{Measured, Reading, Sample, UnknownReason, Unmeasured},
};

/// A figure older than this is no figure. Their resolution is 30 s at best, and they come late.
pub(super) const STALE: SignedDuration = SignedDuration::from_secs(150);
/// The error rate is of the requests in the last part of the data: two points.
const RATE_OVER: SignedDuration = SignedDuration::from_secs(60);

type Answer<'a> = &'a Result<Vec<Series>, Unmeasured>;

/// A metric by its name; none without data.
type Metric = Option<(&'static str, Reading)>;

/// `used` in percent of `limit`, of the fullest instance.
pub fn share(name: &'static str, used: Answer<'_>, limit: Answer<'_>, now: Timestamp) -> Metric {
    named(name, || {
        let (used, limit) = (known(used)?, known(limit)?);
        let fullest = used.iter().filter_map(|series| {
            let point = fresh(series, now)?;
            let of = series.label("instance");
            let own = limit.iter().find(|series| series.label("instance") == of).or_else(|| limit.first())?;
            let limit = own.newest().map(|point| point.value).filter(|limit| *limit > 0.0)?;
            Some((100.0 * point.value / limit, point.timestamp, of, own.unit == series.unit))
        });
        let Some((percent, at, of, same_unit)) = fullest.max_by(|one, other| one.0.total_cmp(&other.0)) else {
            return Ok(None);
        };
        if !same_unit {
            return Err(bad(format!("{name}: usage and limit have different units")));
        }
        let of = of.map_or_else(|| "all of it".to_owned(), |of| format!("instance {of}"));
        Ok(Some((percent, of, at)))
    })
}

/// Connections of a Postgres in percent of the limit: `most` where that was set, else by its memory.
pub fn connections(active: Answer<'_>, most: Option<f64>, memory: Answer<'_>, now: Timestamp) -> Metric {
    named(CONNECTIONS_USAGE, || {
        let Some(active) = newest(known(active)?, now) else { return Ok(None) };
        let most = match most {
            Some(most) => most,
            None => {
                let memory = known(memory)?;
                if memory.iter().any(|series| series.unit != "bytes") {
                    return Err(bad(format!("{CONNECTIONS_USAGE}: the memory limit is not in bytes")));
                }
                let Some(memory) = newest(memory, now) else { return Ok(None) };
                most_connections(memory.value)
            }
        };
        let of = format!("its {} of {most} connections", active.value);
        Ok(Some((100.0 * active.value / most, of, active.timestamp)))
    })
}

/// By memory in bytes (<https://render.com/tutorials/postgres-on-render/connection-limits-and-pooling>; older plans have three
/// fewer).
fn most_connections(memory: f64) -> f64 {
    // A small part of a plan's memory may be reserved; half of it is the next smaller plan.
    const GB: f64 = 0.9e9;
    match memory / GB {
        ..8.0 => 100.0,
        ..16.0 => 200.0,
        ..32.0 => 400.0,
        _ => 500.0,
    }
}

/// How far a read replica is behind, in seconds.
pub fn lag(answer: Answer<'_>, now: Timestamp) -> Metric {
    named(
        "replication_lag_s",
        || Ok(newest(known(answer)?, now).map(|lag| (lag.value, "it".to_owned(), lag.timestamp))),
    )
}

/// The highest of the newest.
fn newest(all: &[Series], now: Timestamp) -> Option<&Point> {
    all.iter().filter_map(|series| fresh(series, now)).max_by(|one, other| one.value.total_cmp(&other.value))
}

/// The share of requests with a status from 500 to 599.
pub fn error_rate(requests: Answer<'_>, now: Timestamp) -> Metric {
    named(ERROR_RATE, || {
        let requests = known(requests)?;
        let points = requests.iter().filter_map(|series| fresh(series, now));
        let Some(newest) = points.map(|point| point.timestamp).max() else { return Ok(None) };
        let count = |series: &Series| -> f64 {
            let last = series.values.iter().filter(|point| newest.duration_since(point.timestamp) < RATE_OVER);
            last.map(|point| point.value).sum()
        };
        let all: f64 = requests.iter().map(count).sum();
        let failed = |series: &&Series| {
            series.label("statusCode").and_then(|code| code.parse::<u16>().ok()).is_some_and(|code| code >= 500)
        };
        let failed: f64 = requests.iter().filter(failed).map(count).sum();
        Ok((all > 0.0).then(|| (failed / all, "the requests of the last minute".to_owned(), newest)))
    })
}

/// The latency of a quantile, in milliseconds.
pub fn latency(answer: Answer<'_>, now: Timestamp) -> Metric {
    named(LATENCY_MS, || {
        let Some(series) = known(answer)?.first() else { return Ok(None) };
        let Some(point) = fresh(series, now) else { return Ok(None) };
        let factor = match series.unit.as_str() {
            "ms" | "milliseconds" => 1.0,
            "s" | "seconds" => 1000.0,
            other => return Err(bad(format!("latency has the unknown unit {other:?}"))),
        };
        Ok(Some((factor * point.value, "95% of the requests".to_owned(), point.timestamp)))
    })
}

fn known(answer: Answer<'_>) -> Result<&[Series], Unmeasured> {
    answer.as_deref().map_err(Unmeasured::clone)
}

fn fresh(series: &Series, now: Timestamp) -> Option<&Point> {
    series.newest().filter(|point| now.duration_since(point.timestamp) <= STALE)
}

fn bad(why: String) -> Unmeasured {
    Unmeasured::new(UnknownReason::BadAnswer, why)
}

/// The value, whose it is, and when it was measured.
type Sampled = (f64, String, Timestamp);

fn named(name: &'static str, read: impl FnOnce() -> Result<Option<Sampled>, Unmeasured>) -> Metric {
    let reading = match read() {
        Ok(sampled) => {
            let (value, of, at) = sampled?;
            Reading { sample: Some(Sample { of, at }), ..Reading::new(Measured::Known(value), false) }
        }
        Err(why) => Reading::new(Measured::Unknown(why), false),
    };
    Some((name, reading))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::analyze::metric::{CPU_USAGE, MEMORY_USAGE};

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
        assert_eq!(value(share(MEMORY_USAGE, &used, &limit, now())), Some((75.0, "instance b".to_owned())));
        // A limit of the whole service holds for each.
        let whole = answer(&[series(("resource", "srv-1"), "bytes", &[(30, 600.0)])]);
        assert_eq!(value(share(MEMORY_USAGE, &used, &whole, now())).unwrap().0, 50.0);
        let other = answer(&[series(("instance", "a"), "GB", &[(30, 4.0)])]);
        let (_, reading) = share(CPU_USAGE, &used, &other, now()).unwrap();
        assert!(matches!(reading.value, Measured::Unknown(why) if why.reason == UnknownReason::BadAnswer));
    }

    #[test]
    fn connections_are_in_percent_of_their_limit() {
        let active = answer(&[series(("resource", "dpg-1"), "unitless", &[(60, 99.0), (30, 50.0)])]);
        let memory = |bytes| answer(&[series(("instance", "dpg-1-a"), "bytes", &[(30, bytes)])]);
        for (bytes, percent) in [(256e6, 50.0), (4.3e9, 50.0), (7.9e9, 25.0), (8e9, 25.0), (16e9, 12.5), (33e9, 10.0)] {
            let read = value(connections(&active, None, &memory(bytes), now())).unwrap();
            assert_eq!(read.0, percent, "{bytes}");
        }
        let (percent, of) = value(connections(&active, Some(60.0), &memory(1e9), now())).unwrap();
        assert_eq!((percent.round(), of.as_str()), (83.0, "its 50 of 60 connections"));
        assert!(connections(&active, None, &answer(&[]), now()).is_none(), "the limit is unknown");
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
        assert!(share(CPU_USAGE, &empty, &limit, now()).is_none() && share(CPU_USAGE, &old, &limit, now()).is_none());
        assert!(share(CPU_USAGE, &limit, &empty, now()).is_none());
        assert!(error_rate(&empty, now()).is_none() && latency(&empty, now()).is_none());
        let nobody = answer(&[series(("statusCode", "200"), "unitless", &[(30, 0.0)])]);
        assert!(error_rate(&nobody, now()).is_none(), "no requests have no error rate");
        let why = Unmeasured::new(UnknownReason::Timeout, "late");
        for read in [
            error_rate(&Err(why.clone()), now()),
            latency(&Err(why.clone()), now()),
            share(CPU_USAGE, &limit, &Err(why.clone()), now()),
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
    fn latency_is_in_milliseconds() {
        let of = |unit| answer(&[series(("quantile", "0.95"), unit, &[(60, 9.0), (30, 0.25)])]);
        assert_eq!(value(latency(&of("ms"), now())).unwrap().0, 0.25);
        assert_eq!(value(latency(&of("seconds"), now())).unwrap().0, 250.0);
        let (_, reading) = latency(&of("parsec"), now()).unwrap();
        assert!(matches!(reading.value, Measured::Unknown(_)));
    }
}
