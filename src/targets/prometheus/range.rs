//! One series over a range of time, for the time before the first observation.
//!
//! The API: <https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries>. A server refuses more than
//! 11,000 points a series, so a long range is read in parts.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::{Prometheus, Series, bad_answer, labels, only, several, shown};
use crate::analyze::observation::{UnknownReason, Unmeasured};

/// Points of one request.
const PART: u32 = 10_000;
/// The longest response to it, in bytes: 60 a point are enough for one series, and the rest shows several series.
const MAX_PART: usize = 8 * 1024 * 1024;
/// Points of one call: more would not be a history but a database.
const MAX_POINTS: i128 = 5_000_000;

impl Prometheus {
    /// The values of the one series that a query yields from `start` to `end`, a `step` apart, oldest first. A point
    /// without a value, with NaN or with an infinity is left out: it was not measured.
    ///
    /// Never takes longer than `limit`, however many requests it needs.
    ///
    /// # Errors
    /// As of an instant query: also when there is no value at all (`NoData`), and when different series follow each other,
    /// as those of a pod and of its successor do (`SeveralSeries`).
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
        let seconds = |at: Timestamp| format!("{:.3}", at.as_millisecond() as f64 / 1000.0);
        let (step, timeout) = (format!("{:.3}", step.as_secs_f64()), format!("{}ms", limit.as_millis()));
        let asked = async {
            let mut history = History::default();
            for (from, to) in parts {
                let (from, to) = (seconds(from), seconds(to));
                let form =
                    [("query", query), ("start", &*from), ("end", &*to), ("step", &*step), ("timeout", &*timeout)];
                self.post(base, "query_range", &form, MAX_PART, |data| match data.result_type.as_str() {
                    "matrix" => history.add(only(data.read()?)?),
                    other => Err(bad_answer(format!("a {other} instead of a matrix"))),
                })
                .await?;
            }
            if history.values.is_empty() {
                let what = format!("{}: the query returned no value from {start} to {end}", shown(base));
                return Err(Unmeasured::new(UnknownReason::NoData, what));
            }
            Ok(history.values)
        };
        tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| {
            let what = format!("{}: not the whole history within {limit:?}", shown(base));
            Err(Unmeasured::new(UnknownReason::Timeout, what))
        })
    }
}

/// The ranges of the requests; the steps continue from one to the next.
fn parts(start: Timestamp, end: Timestamp, step: Duration) -> Result<Vec<(Timestamp, Timestamp)>, Unmeasured> {
    let refused = |what: String| Unmeasured::new(UnknownReason::InvalidSpec, what);
    // The API counts in milliseconds.
    let step_ms = i128::try_from(step.as_millis()).unwrap_or(i128::MAX);
    let span_ms = i128::from(end.as_millisecond()) - i128::from(start.as_millisecond());
    if step_ms == 0 || span_ms < 0 {
        return Err(refused(format!("there is no point from {start} to {end} in steps of {step:?}")));
    }
    let points = span_ms / step_ms + 1;
    if points > MAX_POINTS {
        return Err(refused(format!(
            "{points} points are more than {MAX_POINTS}; choose a shorter range or a longer step"
        )));
    }
    let point = |place: i128| {
        let after = i64::try_from(place * step_ms).unwrap_or(i64::MAX);
        start.saturating_add(SignedDuration::from_millis(after)).unwrap_or(end)
    };
    let part = i128::from(PART);
    let parts = (0..points).step_by(PART as usize).map(|first| (point(first), point((first + part).min(points) - 1)));
    Ok(parts.collect())
}

/// The values so far, and the labels of their series.
#[derive(Default)]
struct History {
    metric: Option<BTreeMap<String, String>>,
    values: Vec<(Timestamp, f64)>,
}

impl History {
    fn add(&mut self, part: Option<Series>) -> Result<(), Unmeasured> {
        let Some(Series { metric, values, .. }) = part else { return Ok(()) };
        let values = values.ok_or_else(|| bad_answer(format!("{} is a histogram, not a number", labels(&metric))))?;
        if let Some(before) = self.metric.as_ref().filter(|before| **before != metric) {
            return Err(several([before, &metric].into_iter()));
        }
        self.metric = Some(metric);
        for sample in values {
            let value = sample.value()?;
            let at = Timestamp::from_millisecond((sample.0 * 1000.0).round() as i64)
                .map_err(|_| bad_answer(format!("the time {} is not valid", sample.0)))?;
            if self.values.last().is_some_and(|(before, _)| *before >= at) {
                return Err(bad_answer(format!("the times do not grow at {at}")));
            }
            if value.is_finite() {
                self.values.push((at, value));
            }
        }
        Ok(())
    }
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
