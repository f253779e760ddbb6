//! Consecutive forecasts: when a failure counts as foreseen, and when it is averted. Pure: the controller keeps one
//! [`Outlook`] per component and feeds it beside the [`super::tracker::Tracker`].
//!
//! Only an exhaustion with a time counts as foreseen: a remedy renews the process before its resource is exhausted. The
//! tracker handles a component that is bad already.

use super::{
    forecast::{Confidence, Exhaustion, Forecast, moment},
    observation::Observation,
    tracker::Tracker,
};
use crate::api::{ComponentStatus, Foreseen, Limits, truncated};

/// A foreseen failure is averted when its probability falls to this share of `minProbability`: the hysteresis.
const OVER: f64 = 0.5;

/// One component's outlook.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    foreseen: Option<Foreseen>,
    /// Digest of the concerned template; none for a target without templates.
    template: Option<String>,
    /// Consecutive forecasts for opening it, or for closing it.
    count: u32,
}

impl Outlook {
    /// The state stored in the status.
    pub fn restore(status: &ComponentStatus) -> Self {
        let template = status.release.as_ref().map(|release| release.digest.clone());
        Self { foreseen: status.foreseen.clone(), template, count: 0 }
    }

    /// The foreseen failure, until it occurs or is averted.
    pub fn foreseen(&self) -> Option<&Foreseen> {
        self.foreseen.as_ref()
    }

    /// Takes one check into account: the foreseen failure ends when it occurs, or when another template runs.
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

    /// Removes the foreseen failure, when prediction is disabled.
    pub fn clear(&mut self) {
        self.foreseen = None;
        self.count = 0;
    }
}

/// The failure that this forecast alone predicts, if its metric was measured.
fn due(forecast: &Forecast, observation: &Observation, limits: &Limits) -> Option<Foreseen> {
    let (probability, exhaustion) = forecast.exhaustion(limits.prediction_horizon.unsigned_abs())?;
    // Rounded as shown: 50% meets a limit of 0.5.
    let probability = (probability * 100.0).round() / 100.0;
    let value = observation.value(&exhaustion.metric).filter(|_| probability >= limits.min_probability)?;
    let at = observation.at;
    let Exhaustion { metric, limit, relieved_at, time, reason, .. } = exhaustion;
    Some(Foreseen {
        id: format!("{:x}", at.as_millisecond()),
        at,
        metric: metric.clone(),
        value: four_digits(value),
        limit: *limit,
        relieved_at: four_digits(*relieved_at),
        probability,
        failure_at: moment(at, time.seconds)?,
        not_before: moment(at, time.earliest)?,
        not_after: moment(at, time.latest)?,
        reason: truncated(reason.clone(), 512),
    })
}

/// Rounds for the reader; the rounded value is also the one that is compared.
fn four_digits(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// Whether half of the growth is reclaimed, or a forecast with enough history no longer predicts the failure. Without a
/// measurement the failure stays foreseen.
fn is_over(foreseen: &Foreseen, forecast: &Forecast, observation: &Observation, limits: &Limits) -> bool {
    let Some(value) = observation.value(&foreseen.metric) else { return false };
    let horizon = limits.prediction_horizon.unsigned_abs();
    let still = forecast.exhaustions.iter().filter(|exhaustion| exhaustion.metric == foreseen.metric);
    let probability = still.map(|exhaustion| exhaustion.within(horizon)).fold(0.0, f64::max);
    let calm = forecast.confidence > Confidence::InsufficientHistory && probability < OVER * limits.min_probability;
    value <= foreseen.relieved_at || calm
}

/// Whether a fresh forecast still supports the foreseen failure.
pub fn stands(foreseen: &Foreseen, forecast: &Forecast, observation: &Observation, limits: &Limits) -> bool {
    observation.value(&foreseen.metric).is_some() && !is_over(foreseen, forecast, observation, limits)
}

#[cfg(test)]
mod tests;
