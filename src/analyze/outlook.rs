//! Forecasts in a row: when a failure counts as foreseen, and when the danger is over. Pure: the controller keeps one
//! [`Outlook`] a component and feeds it beside the [`super::tracker::Tracker`].
//!
//! Only an exhaustion with a time is foreseen in this sense: a process that runs out of something is made new by a
//! remedy before it is too late. What is bad already is the tracker's.

use jiff::{SignedDuration, Unit};

use super::{
    forecast::{Confidence, Exhaustion, Forecast},
    observation::Observation,
    tracker::Tracker,
};
use crate::api::{ComponentStatus, Foreseen, Limits};

/// A forecast that has fallen to this share of `minProbability` is over: what goes to and fro around it is not.
const OVER: f64 = 0.5;

/// One component's outlook.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    foreseen: Option<Foreseen>,
    /// Digest of the template that it concerns; none for a target that has no templates.
    template: Option<String>,
    /// Forecasts in a row that speak for opening it, or for closing it.
    count: u32,
}

impl Outlook {
    /// As it stands in the status.
    pub fn restore(status: &ComponentStatus) -> Self {
        let template = status.release.as_ref().map(|release| release.digest.clone());
        Self { foreseen: status.foreseen.clone(), template, count: 0 }
    }

    /// The failure that is foreseen, until it came or the danger is over.
    pub fn foreseen(&self) -> Option<&Foreseen> {
        self.foreseen.as_ref()
    }

    /// Takes one look into account: what was foreseen came, or concerned another template.
    pub fn follow(&mut self, tracker: &Tracker) {
        let template = tracker.release().map(|release| &release.digest);
        if tracker.episode().is_some() || template != self.template.as_ref() {
            *self = Self { template: template.cloned(), ..Self::default() };
        }
    }

    /// Takes one forecast into account, made from `observation`.
    pub fn record(&mut self, forecast: &Forecast, observation: &Observation, limits: &Limits) {
        let (counts, enough, then) = match &self.foreseen {
            None => {
                let due = due(forecast, observation, limits);
                (due.is_some(), limits.unhealthy_after, due)
            }
            Some(foreseen) => (is_over(foreseen, forecast, observation, limits), limits.healthy_after, None),
        };
        self.count = if counts { self.count + 1 } else { 0 };
        if self.count >= enough {
            self.foreseen = then;
            self.count = 0;
        }
    }

    /// Nothing is to be foreseen.
    pub fn clear(&mut self) {
        self.foreseen = None;
        self.count = 0;
    }
}

/// What this forecast alone foresees, if its metric was measured.
fn due(forecast: &Forecast, observation: &Observation, limits: &Limits) -> Option<Foreseen> {
    let (probability, exhaustion) = forecast.exhaustion(limits.prediction_horizon.unsigned_abs())?;
    // As it is shown: 50% is as likely as not.
    let probability = (probability * 100.0).round() / 100.0;
    let value = observation.value(&exhaustion.metric).filter(|_| probability >= limits.min_probability)?;
    let at = observation.at;
    let moment = |seconds: f64| {
        let away = SignedDuration::try_from_secs_f64(seconds).ok()?;
        at.checked_add(away).ok()?.round(Unit::Second).ok()
    };
    let Exhaustion { metric, limit, relieved_at, time, reason, .. } = exhaustion;
    let mut reason = reason.clone();
    if let Some((cut, _)) = reason.char_indices().nth(512) {
        reason.truncate(cut);
    }
    Some(Foreseen {
        id: format!("{:x}", at.as_millisecond()),
        at,
        metric: metric.clone(),
        value: four_digits(value),
        limit: *limit,
        relieved_at: four_digits(*relieved_at),
        probability,
        failure_at: moment(time.seconds)?,
        not_before: moment(time.earliest)?,
        not_after: moment(time.latest)?,
        reason,
    })
}

/// What a person reads, and what was written is what counts.
fn four_digits(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// The metric gave back half of what had grown, or a forecast with a history to stand on says so. What could not be
/// measured is not over.
fn is_over(foreseen: &Foreseen, forecast: &Forecast, observation: &Observation, limits: &Limits) -> bool {
    let Some(value) = observation.value(&foreseen.metric) else { return false };
    let horizon = limits.prediction_horizon.unsigned_abs();
    let still = forecast.exhaustions.iter().filter(|exhaustion| exhaustion.metric == foreseen.metric);
    let probability = still.map(|exhaustion| exhaustion.within(horizon)).fold(0.0, f64::max);
    let calm = forecast.confidence > Confidence::InsufficientHistory && probability < OVER * limits.min_probability;
    value <= foreseen.relieved_at || calm
}

/// Whether what was foreseen still stands by a fresh forecast.
pub fn stands(foreseen: &Foreseen, forecast: &Forecast, observation: &Observation, limits: &Limits) -> bool {
    observation.value(&foreseen.metric).is_some() && !is_over(foreseen, forecast, observation, limits)
}

#[cfg(test)]
mod tests;
