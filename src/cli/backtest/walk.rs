//! One history through the operator's analysis, and its summary.

use std::{collections::BTreeMap, io};

use super::{
    csv::{Bad, Moment, Rows},
    sample::Sample,
};
use crate::{
    analyze::{
        forecast::{Ceilings, Forecast, Forecaster, Level},
        replay::{Replay, Said},
    },
    api::{Limits, Threshold},
};

/// A longer pause ends an episode, in seconds.
const QUIET: f64 = 30.0 * 60.0;
/// Most episodes in the list of a component; all are counted.
const MAX_EPISODES: usize = 200;

/// The settings of a policy.
pub(super) struct Settings {
    pub thresholds: BTreeMap<String, Threshold>,
    pub ceilings: Ceilings,
    /// The defaults of a policy: when a forecast leads to an action.
    pub limits: Limits,
}

/// A time of alarms, with pauses of at most [`QUIET`].
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(super) struct Episode {
    pub start: f64,
    pub end: f64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Episodes {
    pub count: u64,
    /// The first of them.
    pub list: Vec<Episode>,
    last: Option<f64>,
    lasts: bool,
}

impl Episodes {
    fn add(&mut self, t: f64, on: bool) {
        // Rows with a greater distance than that have no pause between them.
        let continues = self.lasts || self.last.is_some_and(|last| t - last <= QUIET);
        self.lasts = on;
        if !on {
            return;
        }
        self.last = Some(t);
        if !continues {
            self.count += 1;
            if self.list.len() < MAX_EPISODES {
                self.list.push(Episode { start: t, end: t });
            }
        } else if self.count as usize == self.list.len()
            && let Some(episode) = self.list.last_mut()
        {
            episode.end = t;
        }
    }

    pub(super) fn first(&self) -> Option<f64> {
        self.list.first().map(|episode| episode.start)
    }
}

/// The forecast at a time.
#[derive(Debug, Clone)]
pub(super) struct Forecasted {
    pub t: f64,
    pub forecast: Forecast,
}

/// The summary of a component's history.
#[derive(Debug, Clone, Default)]
pub(super) struct Summary {
    pub set: String,
    pub component: String,
    pub rows: u64,
    /// Rows with a value.
    pub looks: u64,
    /// Times of the first and the last row with a value.
    pub span: Option<(f64, f64)>,
    pub alarms: Episodes,
    pub acts: Episodes,
    pub leaks: Episodes,
    pub peak: f64,
    pub first_alarm: Option<Forecasted>,
    pub last: Option<Forecasted>,
}

/// The data of a chart.
#[derive(Default)]
pub(super) struct Drawing {
    pub metrics: Vec<(String, Sample)>,
    /// Within 24 hours, and within the policy's horizon.
    pub probability: Sample,
    pub soon: Sample,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error(transparent)]
    Bad(#[from] Bad),
    /// The output could not be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Runs the rows through the analysis; `output` gets the result for each row with a value.
pub(super) fn walk<F: Forecaster>(
    rows: &mut dyn Rows,
    forecaster: F,
    settings: &Settings,
    mut drawing: Option<&mut Drawing>,
    mut output: impl FnMut(Moment, &Said) -> io::Result<()>,
) -> Result<Summary, Stopped> {
    let mut replay =
        Replay::new(forecaster, settings.thresholds.clone(), settings.ceilings.clone(), settings.limits.clone());
    let horizon = settings.limits.prediction_horizon.unsigned_abs();
    let names = rows.metrics().to_vec();
    if let Some(drawing) = drawing.as_deref_mut() {
        drawing.metrics = names.iter().map(|name| (name.clone(), Sample::default())).collect();
    }
    let mut summary = Summary::default();
    let mut values = Vec::with_capacity(names.len());
    while let Some(moment) = rows.next(&mut values)? {
        summary.rows += 1;
        let measured = || names.iter().zip(&values).filter_map(|(name, value)| Some((name.as_str(), (*value)?)));
        if measured().next().is_none() {
            continue;
        }
        let replayed = replay.look(moment.at, measured());
        if let Some(drawing) = drawing.as_deref_mut() {
            for ((_, sample), value) in drawing.metrics.iter_mut().zip(&values) {
                if let Some(value) = value {
                    sample.push(moment.t, *value);
                }
            }
            drawing.probability.push(moment.t, replayed.forecast.probability());
            drawing.soon.push(moment.t, replayed.forecast.within(horizon));
        }
        output(moment, &replayed)?;
        summary.add(moment.t, replayed.forecast, replayed.acts);
    }
    Ok(summary)
}

impl Summary {
    fn add(&mut self, t: f64, forecast: Forecast, acts: bool) {
        self.looks += 1;
        self.span = Some((self.span.map_or(t, |(first, _)| first), t));
        let alarm = forecast.level() >= Level::High;
        self.alarms.add(t, alarm);
        self.acts.add(t, acts);
        self.leaks.add(t, forecast.leak);
        self.peak = self.peak.max(forecast.probability());
        if alarm && self.first_alarm.is_none() {
            self.first_alarm = Some(Forecasted { t, forecast: forecast.clone() });
        }
        self.last = Some(Forecasted { t, forecast });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        analyze::{forecast::Confidence, window::History},
        api::{default_ceilings, default_thresholds},
    };

    #[test]
    fn an_episode_ends_after_half_an_hour_without() {
        let mut episodes = Episodes::default();
        for (minute, on) in [(0, true), (10, false), (20, true), (51, false), (60, true), (61, true)] {
            episodes.add(f64::from(minute * 60), on);
        }
        assert_eq!(episodes.count, 2);
        let expected = [Episode { start: 0.0, end: 1200.0 }, Episode { start: 3600.0, end: 3660.0 }];
        assert_eq!(episodes.list, expected);
    }

    #[test]
    fn an_episode_continues_when_the_rows_are_hours_apart() {
        let mut episodes = Episodes::default();
        (0..5).for_each(|hour| episodes.add(f64::from(hour * 7200), true));
        assert_eq!(episodes.count, 1);
    }

    /// Forecasts the newest value as the probability.
    struct Echo;

    impl Forecaster for Echo {
        fn forecast(&self, history: &History, _ceilings: &Ceilings) -> Forecast {
            let newest = history.metrics["value"].last(1)[0];
            Forecast {
                within: [newest / 2.0, newest, newest],
                time_to_failure: None,
                leak: newest > 0.9,
                confidence: Confidence::High,
                reasons: Vec::new(),
                exhaustions: Vec::new(),
                memory: None,
            }
        }
    }

    struct Given(Vec<(f64, Option<f64>)>, [String; 1]);

    impl Rows for Given {
        fn metrics(&self) -> &[String] {
            &self.1
        }

        fn next(&mut self, values: &mut Vec<Option<f64>>) -> Result<Option<Moment>, Bad> {
            if self.0.is_empty() {
                return Ok(None);
            }
            let (t, value) = self.0.remove(0);
            values.clear();
            values.push(value);
            Ok(Moment::new(t))
        }
    }

    #[test]
    fn alarms_are_counted_and_empty_rows_are_skipped() {
        let rows = vec![(0.0, Some(0.0)), (60.0, None), (120.0, Some(0.4)), (180.0, Some(1.0)), (240.0, Some(0.1))];
        let mut rows = Given(rows, ["value".to_owned()]);
        let settings =
            Settings { thresholds: default_thresholds(), ceilings: default_ceilings(), limits: Limits::default() };
        let mut times = Vec::new();
        let summary = walk(&mut rows, Echo, &settings, None, |moment, _| {
            times.push(moment.t);
            Ok(())
        })
        .unwrap();
        assert_eq!(times, [0.0, 120.0, 180.0, 240.0]);
        assert_eq!((summary.rows, summary.looks, summary.span), (5, 4, Some((0.0, 240.0))));
        assert_eq!(summary.alarms.list, [Episode { start: 120.0, end: 180.0 }]);
        assert_eq!(summary.acts.count, 0, "no resource runs out");
        assert_eq!(summary.leaks.first(), Some(180.0));
        assert_eq!(summary.first_alarm.unwrap().t, 120.0);
        assert_eq!(summary.last.unwrap().t, 240.0);
    }
}
