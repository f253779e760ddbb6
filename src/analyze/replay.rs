//! A recorded history through the very analysis of the operator, look by look: what is said at a time has seen nothing
//! after it.

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

/// One component's history as far as it was replayed.
pub struct Replay<F> {
    forecaster: F,
    thresholds: BTreeMap<String, Threshold>,
    ceilings: Ceilings,
    limits: Limits,
    history: History,
    tracker: Tracker,
    outlook: Outlook,
}

/// What the operator would have said after one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    pub assessment: Assessment,
    pub trend: Option<Trend>,
    pub forecast: Forecast,
    /// A failure is foreseen: what remedies there are would be tried, as far as the guards let them.
    pub acts: bool,
}

impl<F: Forecaster> Replay<F> {
    pub fn new(forecaster: F, thresholds: BTreeMap<String, Threshold>, ceilings: Ceilings, limits: Limits) -> Self {
        let (history, tracker, outlook) = (History::default(), Tracker::default(), Outlook::default());
        Self { forecaster, thresholds, ceilings, limits, history, tracker, outlook }
    }

    /// One look: what was measured at that time. A look less than a second after the last one is judged, and its metrics
    /// are not remembered.
    pub fn look<'a>(&mut self, at: Timestamp, metrics: impl IntoIterator<Item = (&'a str, f64)>) -> Said {
        let reading = |value| Reading::new(Measured::Known(value), false);
        let metrics = metrics.into_iter().map(|(name, value)| (name.to_owned(), reading(value))).collect();
        // Recorded histories know nothing of the target: it is taken to be up.
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
