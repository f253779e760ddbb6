//! One history through the operator's analysis, and what is remembered of it.

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

/// So long without ends an episode, in seconds.
const QUIET: f64 = 30.0 * 60.0;
/// Episodes kept of a component; all are counted.
const MAX_EPISODES: usize = 200;

/// What the operator would be told by a policy.
pub(super) struct Settings {
    pub thresholds: BTreeMap<String, Threshold>,
    pub ceilings: Ceilings,
    /// Those of a policy that says nothing: when a forecast is acted on.
    pub limits: Limits,
}

/// Time in which something was said, with pauses of less than [`QUIET`].
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
    fn look(&mut self, t: f64, on: bool) {
        // Looks that are further apart than that have no pause between them.
        let goes_on = self.lasts || self.last.is_some_and(|last| t - last <= QUIET);
        self.lasts = on;
        if !on {
            return;
        }
        self.last = Some(t);
        if !goes_on {
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

/// What was foreseen at a time.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub t: f64,
    pub forecast: Forecast,
}

/// What a component's history came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Summary {
    pub set: String,
    pub component: String,
    pub rows: u64,
    /// Rows with a value.
    pub looks: u64,
    /// Times of the first and the last look.
    pub span: Option<(f64, f64)>,
    pub alarms: Episodes,
    pub acts: Episodes,
    pub leaks: Episodes,
    pub peak: f64,
    pub first_alarm: Option<Told>,
    pub last: Option<Told>,
}

/// What a picture needs.
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
    /// What was said could not be passed on.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Runs the rows through the analysis; `tell` gets what was said after each that holds a value.
pub(super) fn walk<F: Forecaster>(
    rows: &mut dyn Rows,
    forecaster: F,
    settings: &Settings,
    mut drawing: Option<&mut Drawing>,
    mut tell: impl FnMut(Moment, &Said) -> io::Result<()>,
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
        let said = replay.look(moment.at, measured());
        if let Some(drawing) = drawing.as_deref_mut() {
            for ((_, sample), value) in drawing.metrics.iter_mut().zip(&values) {
                if let Some(value) = value {
                    sample.push(moment.t, *value);
                }
            }
            drawing.probability.push(moment.t, said.forecast.probability());
            drawing.soon.push(moment.t, said.forecast.within(horizon));
        }
        tell(moment, &said)?;
        summary.add(moment.t, said.forecast, said.acts);
    }
    Ok(summary)
}

impl Summary {
    fn add(&mut self, t: f64, forecast: Forecast, acts: bool) {
        self.looks += 1;
        self.span = Some((self.span.map_or(t, |(first, _)| first), t));
        let alarm = forecast.level() >= Level::High;
        self.alarms.look(t, alarm);
        self.acts.look(t, acts);
        self.leaks.look(t, forecast.leak);
        self.peak = self.peak.max(forecast.probability());
        if alarm && self.first_alarm.is_none() {
            self.first_alarm = Some(Told { t, forecast: forecast.clone() });
        }
        self.last = Some(Told { t, forecast });
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
            episodes.look(f64::from(minute * 60), on);
        }
        assert_eq!(episodes.count, 2);
        let expected = [Episode { start: 0.0, end: 1200.0 }, Episode { start: 3600.0, end: 3660.0 }];
        assert_eq!(episodes.list, expected);
    }

    #[test]
    fn an_episode_lasts_when_the_looks_are_hours_apart() {
        let mut episodes = Episodes::default();
        (0..5).for_each(|hour| episodes.look(f64::from(hour * 7200), true));
        assert_eq!(episodes.count, 1);
    }

    /// Says the newest value as a probability.
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
    fn what_is_said_is_counted_and_empty_rows_are_no_looks() {
        let rows = vec![(0.0, Some(0.0)), (60.0, None), (120.0, Some(0.4)), (180.0, Some(1.0)), (240.0, Some(0.1))];
        let mut rows = Given(rows, ["value".to_owned()]);
        let settings =
            Settings { thresholds: default_thresholds(), ceilings: default_ceilings(), limits: Limits::default() };
        let mut told = Vec::new();
        let summary = walk(&mut rows, Echo, &settings, None, |moment, _| {
            told.push(moment.t);
            Ok(())
        })
        .unwrap();
        assert_eq!(told, [0.0, 120.0, 180.0, 240.0]);
        assert_eq!((summary.rows, summary.looks, summary.span), (5, 4, Some((0.0, 240.0))));
        assert_eq!(summary.alarms.list, [Episode { start: 120.0, end: 180.0 }]);
        assert_eq!(summary.acts.count, 0, "nothing runs out");
        assert_eq!(summary.leaks.first(), Some(180.0));
        assert_eq!(summary.first_alarm.unwrap().t, 120.0);
        assert_eq!(summary.last.unwrap().t, 240.0);
    }
}
