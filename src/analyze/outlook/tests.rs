use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;
use crate::analyze::{
    forecast::{Ceilings, Forecaster as _, Foresight},
    metric::MEMORY_USAGE,
    observation::{HttpState, Measured, Reading, TargetState, UnknownReason, Unmeasured},
    window::History,
};

/// A component that is checked every minute.
struct Watched {
    history: History,
    outlook: Outlook,
    limits: Limits,
    second: i64,
    forecast: Option<Forecast>,
    observation: Option<Observation>,
}

impl Watched {
    fn new() -> Self {
        let limits = Limits { unhealthy_after: 3, healthy_after: 2, min_probability: 0.5, ..Limits::default() };
        let (history, outlook) = (History::default(), Outlook::default());
        Self { history, outlook, limits, second: 0, forecast: None, observation: None }
    }

    fn record(&mut self, value: Option<f64>) -> bool {
        self.second += 60;
        let value = match value {
            Some(value) => Measured::Known(value),
            None => Measured::Unknown(Unmeasured::new(UnknownReason::Timeout, "no answer")),
        };
        let metrics = BTreeMap::from([(MEMORY_USAGE.to_owned(), Reading::new(value, false))]);
        let target = Measured::Known(TargetState::Http(HttpState { failure: None, latency_ms: None }));
        let observation = Observation { at: Timestamp::from_second(self.second).unwrap(), target, metrics };
        self.history.push(&observation, Some(100));
        let forecast = Foresight.forecast(&self.history, &Ceilings::from([(MEMORY_USAGE.to_owned(), 100.0)]));
        self.outlook.record(&forecast, &observation, &self.limits);
        (self.forecast, self.observation) = (Some(forecast), Some(observation));
        self.outlook.foreseen().is_some()
    }

    /// From 30% by a quarter of a point a minute, until it is foreseen.
    fn leaks() -> Self {
        let mut watched = Self::new();
        let mut value = 30.0;
        while !watched.record(Some(value)) {
            value += 0.25;
            assert!(value < 95.0, "it is dead, and was not foreseen");
        }
        watched
    }

    fn last(&self) -> f64 {
        self.observation.as_ref().unwrap().value(MEMORY_USAGE).unwrap()
    }
}

#[test]
fn a_leak_is_foreseen_within_the_horizon_and_not_long_before() {
    let watched = Watched::leaks();
    let foreseen = watched.outlook.foreseen().unwrap();
    let (metric, ahead) = (foreseen.metric.as_str(), foreseen.failure_at.duration_since(foreseen.at));
    assert_eq!((metric, foreseen.limit), (MEMORY_USAGE, 100.0));
    assert!((0.5..=0.75).contains(&foreseen.probability), "{foreseen:?}");
    assert!((30..=60).contains(&ahead.as_mins()), "{foreseen:?}");
    assert!(foreseen.not_before < foreseen.failure_at && foreseen.failure_at < foreseen.not_after, "{foreseen:?}");

    assert!((foreseen.value - watched.last()).abs() < 0.01, "{foreseen:?}");
    assert!((foreseen.relieved_at - (30.0 + foreseen.value) / 2.0).abs() < 4.0, "{foreseen:?}");
    assert!(foreseen.reason.starts_with("memory_usage grows"), "{foreseen:?}");
}

#[test]
fn needs_as_many_consecutive_forecasts_as_checks_for_a_fault() {
    let mut watched = Watched::leaks();
    let first = watched.outlook.foreseen().unwrap().clone();
    watched.outlook.clear();
    let next = |watched: &mut Watched| watched.record(Some(watched.last() + 0.25));
    assert!(!next(&mut watched) && !next(&mut watched), "three are asked for");
    let value = watched.last();
    assert!(!watched.record(None), "an unknown check starts the count again");
    watched.record(Some(value + 0.5));
    assert!(!next(&mut watched) && next(&mut watched));
    assert_ne!(watched.outlook.foreseen().unwrap().id, first.id, "another incident has another name");
}

#[test]
fn averted_when_half_of_the_growth_is_reclaimed() {
    let mut watched = Watched::leaks();
    let foreseen = watched.outlook.foreseen().unwrap().clone();
    let (forecast, observation) = (watched.forecast.clone().unwrap(), watched.observation.clone().unwrap());
    assert!(stands(&foreseen, &forecast, &observation, &watched.limits));
    assert!(watched.record(Some(foreseen.relieved_at - 1.0)), "twice in a row");
    assert!(watched.record(Some(watched.last() + 10.0)), "once is a spike");
    assert!(watched.record(Some(35.0)));
    assert!(!watched.record(Some(35.0)));
    let (forecast, observation) = (watched.forecast.clone().unwrap(), watched.observation.clone().unwrap());
    assert!(!stands(&foreseen, &forecast, &observation, &watched.limits));
}

#[test]
fn it_is_over_when_the_rise_has_stopped() {
    let mut watched = Watched::leaks();
    let value = watched.last();
    let stays = (0..600).take_while(|_| watched.record(Some(value))).count();
    assert!((1..600).contains(&stays), "after {stays} checks of the same value");
}

#[test]
fn what_cannot_be_measured_is_not_over() {
    let mut watched = Watched::leaks();
    assert!((0..50).all(|_| watched.record(None)));
    let foreseen = watched.outlook.foreseen().unwrap();
    let (forecast, observation) = (watched.forecast.as_ref().unwrap(), watched.observation.as_ref().unwrap());
    assert!(!stands(foreseen, forecast, observation, &watched.limits), "and nothing is done about it");
}

#[test]
fn an_operator_that_was_restarted_without_a_history_does_not_call_it_over() {
    let before = Watched::leaks();
    let mut watched = Watched::new();
    watched.second = before.second;
    let foreseen = before.outlook.foreseen().cloned();
    watched.outlook = Outlook::restore(&ComponentStatus { foreseen, ..ComponentStatus::default() });
    assert!((0..30).all(|_| watched.record(Some(before.last()))));
    assert_eq!(watched.outlook.foreseen(), before.outlook.foreseen());
}
