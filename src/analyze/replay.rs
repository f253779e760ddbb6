//! Replays a recorded history through the analysis of the operator, check by check: each result is based only on the history
//! before it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    assess::{Assessment, assess},
    forecast::{Ceilings, Forecast, Forecaster},
    observation::{HttpState, Measured, Observation, Reading, TargetState},
    outlook::Outlook,
    tracker::Tracker,
    trend::trend,
    window::History,
};
use crate::api::{Limits, Threshold, Trend};

/// The replayed part of one component's history.
pub struct Replay<F> {
    forecaster: F,
    thresholds: BTreeMap<String, Threshold>,
    ceilings: Ceilings,
    limits: Limits,
    history: History,
    tracker: Tracker,
    outlook: Outlook,
}

/// The analysis of the operator after one check.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    pub assessment: Assessment,
    pub trend: Option<Trend>,
    pub forecast: Forecast,
    /// A failure is foreseen: remedies would be applied, as far as the guards allow.
    pub acts: bool,
}

impl<F: Forecaster> Replay<F> {
    pub fn new(forecaster: F, thresholds: BTreeMap<String, Threshold>, ceilings: Ceilings, limits: Limits) -> Self {
        let (history, tracker, outlook) = (History::default(), Tracker::default(), Outlook::default());
        Self { forecaster, thresholds, ceilings, limits, history, tracker, outlook }
    }

    /// Replays one check with the metrics of that time. A check less than a second after the last one is assessed, but its
    /// metrics are not stored.
    pub fn look<'a>(&mut self, at: Timestamp, metrics: impl IntoIterator<Item = (&'a str, f64)>) -> Said {
        let reading = |value| Reading::new(Measured::Known(value), false);
        let metrics = metrics.into_iter().map(|(name, value)| (name.to_owned(), reading(value))).collect();
        // Recorded histories do not contain the state of the target, which is assumed to be up.
        let target = Measured::Known(TargetState::Http(HttpState { failure: None, latency_ms: None }));
        let observation = Observation { at, target, metrics };
        let assessment = assess(&observation, &self.thresholds, &self.history, false);
        self.history.push(&observation, assessment.score);
        let forecast = self.forecaster.forecast(&self.history, &self.ceilings);
        self.tracker.record(&observation, &assessment, &self.limits);
        self.outlook.follow(&self.tracker);
        self.outlook.record(&forecast, &observation, &self.limits);
        let acts = self.outlook.foreseen().is_some() && !assessment.is_bad();
        Said { assessment, trend: trend(&self.history.score), forecast, acts }
    }
}
