//! One series over a range of time, for what happened before somebody looked.
//!
//! The API: <https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries>. A server refuses more than
//! 11,000 points a series, so that a long range is asked for in parts.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use serde::Deserialize;
use url::Url;

use super::{Answer, Prometheus, Sample, at, data, labels, several, shown};
use crate::analyze::observation::{UnknownReason, Unmeasured};

/// Points of one request.
const PART: u32 = 10_000;
/// The longest answer to it, in bytes: 60 a point are enough for one series, and some more tell several series apart.
const MAX_PART: usize = 8 * 1024 * 1024;
/// Points of one call: more would not be a history but a database.
const MAX_POINTS: i128 = 5_000_000;

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    /// Absent for native histograms.
    values: Option<Vec<Sample>>,
}

impl Prometheus {
    /// The values of the one series that a query yields from `start` to `end`, a `step` apart, oldest first. Where it
    /// yields nothing, NaN or an infinity there is no value: that was not measured.
    ///
    /// Never takes longer than `limit`, however many requests it needs.
    ///
    /// # Errors
    /// Those of an instant query: also when there is no value at all (`NoData`), and when different series come one
    /// after the other, as a pod's and its successor's do (`SeveralSeries`).
    pub async fn range(
        &self,
        query: &str,
        url: Option<&Url>,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
        limit: Duration,
    ) -> Result<Vec<(Timestamp, f64)>, Unmeasured> {
        let base = self.base(url)?;
        let parts = parts(start, end, step)?;
        let asked = async {
            let mut history = History::default();
            for (from, to) in parts {
                let part = self.part(query, base, (from, to), step, limit).await?;
                history.add(part).map_err(|why| at(base, &why))?;
            }
            if history.values.is_empty() {
                let what = format!("{}: the query returned no value from {start} to {end}", shown(base));
                return Err(Unmeasured::new(UnknownReason::NoData, what));
            }
            Ok(history.values)
        };
        tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| {
            let what = format!("{} did not give the whole history within {limit:?}", shown(base));
            Err(Unmeasured::new(UnknownReason::Timeout, what))
        })
    }

    async fn part(
        &self,
        query: &str,
        base: &Url,
        (from, to): (Timestamp, Timestamp),
        step: Duration,
        limit: Duration,
    ) -> Result<Vec<Series>, Unmeasured> {
        let seconds = |at: Timestamp| format!("{:.3}", at.as_millisecond() as f64 / 1000.0);
        let form = [
            ("query", query),
            ("start", &seconds(from)),
            ("end", &seconds(to)),
            ("step", &format!("{:.3}", step.as_secs_f64())),
            ("timeout", &format!("{}ms", limit.as_millis())),
        ];
        let (answer, status) = self.post(base, "query_range", &form, MAX_PART).await?;
        read(answer, status).map_err(|why| at(base, &why))
    }
}

/// The ranges of the requests; the steps go on from one to the next.
fn parts(start: Timestamp, end: Timestamp, step: Duration) -> Result<Vec<(Timestamp, Timestamp)>, Unmeasured> {
    let refused = |what: String| Unmeasured::new(UnknownReason::InvalidSpec, what);
    // The API counts in milliseconds.
    let step_ms = i128::try_from(step.as_millis()).unwrap_or(i128::MAX);
    let span_ms = i128::from(end.as_millisecond()) - i128::from(start.as_millisecond());
    if step_ms == 0 || span_ms < 0 {
        return Err(refused(format!("nothing lies from {start} to {end} in steps of {step:?}")));
    }
    let points = span_ms / step_ms + 1;
    if points > MAX_POINTS {
        return Err(refused(format!("{points} points are more than {MAX_POINTS}; ask for less time or a longer step")));
    }
    let point = |place: i128| {
        let after = i64::try_from(place * step_ms).unwrap_or(i64::MAX);
        start.saturating_add(SignedDuration::from_millis(after)).unwrap_or(end)
    };
    let part = i128::from(PART);
    let parts = (0..points).step_by(PART as usize).map(|first| (point(first), point((first + part).min(points) - 1)));
    Ok(parts.collect())
}

/// What was found so far, and of which series.
#[derive(Default)]
struct History {
    metric: Option<BTreeMap<String, String>>,
    values: Vec<(Timestamp, f64)>,
}

impl History {
    fn add(&mut self, part: Vec<Series>) -> Result<(), Unmeasured> {
        if part.len() > 1 {
            return Err(several(part.iter().map(|series| &series.metric)));
        }
        let Some(Series { metric, values }) = part.into_iter().next() else { return Ok(()) };
        let bad = |what: String| Unmeasured::new(UnknownReason::BadAnswer, what);
        let values = values.ok_or_else(|| bad(format!("{} is a histogram, not a number", labels(&metric))))?;
        if let Some(before) = self.metric.as_ref().filter(|before| **before != metric) {
            return Err(several([before, &metric].into_iter()));
        }
        self.metric = Some(metric);
        for Sample(seconds, text) in values {
            let value: f64 = text.parse().map_err(|_| bad(format!("the value {text:?} is no number")))?;
            let at = Timestamp::from_millisecond((seconds * 1000.0).round() as i64)
                .map_err(|_| bad(format!("the time {seconds} is none")))?;
            if self.values.last().is_some_and(|(before, _)| *before >= at) {
                return Err(bad(format!("the times do not grow at {at}")));
            }
            if value.is_finite() {
                self.values.push((at, value));
            }
        }
        Ok(())
    }
}

/// The series of an answer; pure.
fn read(answer: Answer, status: StatusCode) -> Result<Vec<Series>, Unmeasured> {
    let data = data(answer, status)?;
    let bad = |what: String| Unmeasured::new(UnknownReason::BadAnswer, what);
    if data.result_type != "matrix" {
        return Err(bad(format!("a {} instead of a matrix", data.result_type)));
    }
    serde_json::from_value(data.result).map_err(|why| bad(format!("the matrix could not be read: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_by_one_step_and_end_at_the_end() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let minute = Duration::from_secs(60);
        assert_eq!(parts(at(0), at(0), minute).unwrap(), [(at(0), at(0))]);
        assert_eq!(parts(at(0), at(150), minute).unwrap(), [(at(0), at(120))]);
        let fortnight = parts(at(0), at(14 * 86_400), minute).unwrap();
        assert_eq!(fortnight, [(at(0), at(599_940)), (at(600_000), at(1_199_940)), (at(1_200_000), at(1_209_600))]);
        assert!(parts(at(1), at(0), minute).is_err());
        assert!(parts(at(0), at(1), Duration::ZERO).is_err());
        assert!(parts(at(0), at(1_000_000_000), Duration::from_millis(1)).is_err());
    }
}
