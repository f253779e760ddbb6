//! One JSON object for each row: the forecast after it.

use serde::{Serialize, Serializer};

use super::csv::Moment;
use crate::analyze::replay::Said;

#[derive(Serialize)]
struct Line<'a> {
    set: &'a str,
    component: &'a str,
    /// Time of the row, in the history's seconds.
    #[serde(serialize_with = "whole")]
    t: f64,
    leak: bool,
    /// Of a failure within 24 hours.
    probability: f64,
    probability_1h: f64,
    probability_6h: f64,
    /// The median; `None` when no failure is forecast within 7 days.
    time_to_failure_s: Option<f64>,
    health_score: Option<u8>,
    level: String,
    confidence: String,
}

/// Whole seconds without a fraction, as in the file.
fn whole<S: Serializer>(t: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if t.fract() == 0.0 { serializer.serialize_i64(*t as i64) } else { serializer.serialize_f64(*t) }
}

pub(super) fn write(
    into: &mut Vec<u8>,
    set: &str,
    component: &str,
    moment: Moment,
    replayed: &Said,
) -> serde_json::Result<()> {
    let forecast = &replayed.forecast;
    let line = Line {
        set,
        component,
        t: moment.t,
        leak: forecast.leak,
        probability: forecast.probability(),
        probability_1h: forecast.within[0],
        probability_6h: forecast.within[1],
        time_to_failure_s: forecast.time_to_failure.map(|time| time.seconds),
        health_score: replayed.assessment.score,
        level: forecast.level().to_string(),
        confidence: forecast.confidence.to_string(),
    };
    serde_json::to_writer(&mut *into, &line)?;
    into.push(b'\n');
    Ok(())
}
