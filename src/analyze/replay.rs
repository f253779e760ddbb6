//! A recorded history through the very analysis of the operator, look by look: what is said at a time has seen nothing
//! after it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    assess::{Assessment, assess},
    forecast::{Ceilings, Forecast, Forecaster},
    observation::{HttpState, Measured, Observation, Reading, TargetState},
    trend::trend,
    window::History,
};
use crate::api::{Threshold, Trend};

/// One component's history as far as it was replayed.
pub struct Replay<F> {
    forecaster: F,
    thresholds: BTreeMap<String, Threshold>,
    ceilings: Ceilings,
    history: History,
}

/// What the operator would have said after one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    pub assessment: Assessment,
    pub trend: Option<Trend>,
    pub forecast: Forecast,
}

impl<F: Forecaster> Replay<F> {
    pub fn new(forecaster: F, thresholds: BTreeMap<String, Threshold>, ceilings: Ceilings) -> Self {
        Self { forecaster, thresholds, ceilings, history: History::default() }
    }

    /// One look: what was measured at that time. A look less than a second after the last one is judged, and its metrics
    /// are not remembered.
    pub fn look<'a>(&mut self, at: Timestamp, metrics: impl IntoIterator<Item = (&'a str, f64)>) -> Said {
        let reading = |value| Reading { value: Measured::Known(value), of_release: false };
        let metrics = metrics.into_iter().map(|(name, value)| (name.to_owned(), reading(value))).collect();
        // Recorded histories know nothing of the target: it is taken to be up.
        let target = Measured::Known(TargetState::Http(HttpState { failure: None, latency_ms: None }));
        let observation = Observation { at, target, metrics };
        let assessment = assess(&observation, &self.thresholds, false);
        self.history.push(&observation, assessment.score);
        Said {
            assessment,
            trend: trend(&self.history.score),
            forecast: self.forecaster.forecast(&self.history, &self.ceilings),
        }
    }
}
