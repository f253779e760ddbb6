//! Likely failures, and their times.
//!
//! [`Foresight`] combines the results of the single methods for each metric. docs/foresight.md has its quality figures;
//! `make foresight` measures them again.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp, Unit};

use super::{
    leak::{self, Rise},
    metric,
    signs::{self, Sign},
    window::{History, Window},
};
use crate::api::{ForecastStatus, MemoryGrowth};

/// When a failure is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Band {
    #[strum(to_string = "<1h")]
    WithinOneHour,
    #[strum(to_string = "1-6h")]
    OneToSixHours,
    #[strum(to_string = "6-24h")]
    SixToTwentyFourHours,
    #[strum(to_string = ">24h")]
    Later,
}

impl Band {
    /// The band of a time to failure in seconds.
    pub fn of(seconds: f64) -> Self {
        match seconds / 3600.0 {
            hours if hours < 1.0 => Self::WithinOneHour,
            hours if hours < 6.0 => Self::OneToSixHours,
            hours if hours < 24.0 => Self::SixToTwentyFourHours,
            _ => Self::Later,
        }
    }
}

/// A failure within 24 hours that is more likely than this is critical.
pub const CRITICAL: f64 = 0.5;

/// The level of a forecast (design: >50% critical, 30–50% high, 10–30% medium, below low).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Level {
    Low,
    Medium,
    High,
    Critical,
}

/// How well the history supports the forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Confidence {
    /// No claim: the process is too young, or has too few checks.
    #[strum(to_string = "insufficient history")]
    InsufficientHistory,
    Low,
    Medium,
    High,
}

/// Seconds from now until the failure: the median, and the 80% interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeToFailure {
    pub seconds: f64,
    pub earliest: f64,
    pub latest: f64,
}

/// The forecast for one component.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// Probability of a failure within 1, 6 and 24 hours, each 0 to 1 and none smaller than the value before.
    pub within: [f64; 3],
    /// None when no failure is foreseen within 7 days.
    pub time_to_failure: Option<TimeToFailure>,
    /// Memory leaks.
    pub leak: bool,
    pub confidence: Confidence,
    /// Texts with figures.
    pub reasons: Vec<String>,
    /// The metrics that are on their way to their ceilings.
    pub exhaustions: Vec<Exhaustion>,
    /// The memory metric that most likely leaks, if any grows.
    pub memory: Option<MemoryGrowth>,
}

/// A metric that is on its way to its ceiling.
#[derive(Debug, Clone, PartialEq)]
pub struct Exhaustion {
    pub metric: String,
    /// The ceiling, in the metric's unit.
    pub limit: f64,
    /// At or below this value half of the growth is reclaimed, and the failure is averted.
    pub relieved_at: f64,
    pub time: TimeToFailure,
    /// A text with figures.
    pub reason: String,
    sign: Sign,
}

impl Exhaustion {
    fn new(metric: &str, limit: Option<f64>, sign: &Sign) -> Option<Self> {
        let (limit, time, rise) = (limit?, sign.time?, sign.rise?);
        let relieved_at = rise.relieved_at();
        let (metric, reason) = (metric.to_owned(), sign.reason.clone());
        Some(Self { metric, limit, relieved_at, time, reason, sign: sign.clone() })
    }

    /// Probability that the metric reaches the ceiling within `horizon`, 0 to 1.
    pub fn within(&self, horizon: Duration) -> f64 {
        self.sign.within(horizon.as_secs_f64())
    }
}

/// The horizons of [`Forecast::within`].
pub const HORIZONS: [Duration; 3] =
    [Duration::from_secs(3600), Duration::from_secs(6 * 3600), Duration::from_secs(24 * 3600)];

impl Forecast {
    /// Probability of a failure within 24 hours, 0 to 1.
    pub fn probability(&self) -> f64 {
        self.within[2]
    }

    pub fn level(&self) -> Level {
        match self.probability() {
            p if p > CRITICAL => Level::Critical,
            p if p > 0.3 => Level::High,
            p if p > 0.1 => Level::Medium,
            _ => Level::Low,
        }
    }

    pub fn band(&self) -> Option<Band> {
        self.time_to_failure.map(|time| Band::of(time.seconds))
    }

    /// The most likely exhaustion within `horizon`, with its probability.
    pub fn exhaustion(&self, horizon: Duration) -> Option<(f64, &Exhaustion)> {
        let likely = self.exhaustions.iter().map(|exhaustion| (exhaustion.within(horizon), exhaustion));
        likely.max_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// Probability of a failure within `horizon`; the hazard between the three horizons is assumed constant.
    pub fn within(&self, horizon: Duration) -> f64 {
        let horizon = horizon.as_secs_f64();
        let (mut start, mut survives) = (0.0_f64, 1.0_f64);
        for (known, probability) in HORIZONS.iter().zip(self.within) {
            let (end, left) = (known.as_secs_f64(), 1.0 - probability);
            if horizon <= end {
                let share = (horizon - start) / (end - start);
                return 1.0 - survives * (left / survives.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0).powf(share);
            }
            (start, survives) = (end, left);
        }
        self.within[2]
    }

    /// The forecast as stored in the status, based on a check at `at`.
    pub fn status(&self, at: Timestamp) -> ForecastStatus {
        let time = self.time_to_failure;
        ForecastStatus {
            probability: (self.probability() * 100.0).round() / 100.0,
            level: self.level().to_string(),
            time_to_failure: self.band().map(|band| band.to_string()),
            predicted_failure_time: time.and_then(|time| moment(at, time.seconds)),
            not_before: time.and_then(|time| moment(at, time.earliest)),
            not_after: time.and_then(|time| moment(at, time.latest)),
            leak: self.leak,
            reasons: self.reasons.clone(),
            confidence: self.confidence.to_string(),
        }
    }
}

/// The time `seconds` after `at`, in whole seconds; none outside the range of times.
pub(super) fn moment(at: Timestamp, seconds: f64) -> Option<Timestamp> {
    let away = SignedDuration::try_from_secs_f64(seconds).ok()?;
    at.checked_add(away).ok()?.round(Unit::Second).ok()
}

/// The highest possible values: memory at 100% of its limit, a disk at its size. By metric name, in the metric's unit. Memory in
/// bytes without an entry ends at the memory limit of the pods ([`History::memory_limit`]).
pub type Ceilings = BTreeMap<String, f64>;

/// Forecasts failures from the history of a component.
pub trait Forecaster: Send + Sync {
    /// The forecast at the newest check of the history.
    fn forecast(&self, history: &History, ceilings: &Ceilings) -> Forecast;
}

/// The forecaster of the operator.
#[derive(Debug, Clone, Copy, Default)]
pub struct Foresight;

impl Forecaster for Foresight {
    fn forecast(&self, history: &History, ceilings: &Ceilings) -> Forecast {
        let mut exhaustions = Vec::new();
        let mut signs: Vec<Sign> = Vec::new();
        let mut memory: Option<(f64, MemoryGrowth)> = None;
        for (name, window) in &history.metrics {
            let of_pods = || history.memory_limit.and_then(|bytes| metric::of_bytes(name, bytes));
            let ceiling = ceilings.get(name).copied().or_else(of_pods);
            let Some(sign) = signs::read(name, window, ceiling) else { continue };
            exhaustions.extend(Exhaustion::new(name, ceiling, &sign));
            if let Some(rise) = sign.rise.filter(|_| name.starts_with(metric::MEMORY))
                && memory.as_ref().is_none_or(|(probability, _)| *probability < sign.probability)
            {
                memory = Some((sign.probability, growth(name, window, &rise, history.memory_limit)));
            }
            signs.push(sign);
        }
        let lives = history.metrics.values().filter_map(Window::life);
        let looks = lives.clone().map(|life| life.looks).max().unwrap_or(0);
        let newest = history.metrics.values().filter_map(Window::newest).max().unwrap_or(0);
        let age = lives.map(|life| newest - life.since).max().unwrap_or(0) as f64;
        let confidence = match looks {
            0..leak::MIN_LIFE => Confidence::InsufficientHistory,
            _ if age >= 86_400.0 => Confidence::High,
            leak::MIN_LIFE..240 => Confidence::Low,
            _ => Confidence::Medium,
        };
        // Signs of one component share their causes: several unsure signs are not a sure one.
        let sure = signs.iter().any(|sign| sign.within(HORIZONS[2].as_secs_f64()) > CRITICAL);
        let most = if sure { 1.0 } else { CRITICAL };
        let within = HORIZONS.map(|horizon| {
            let nothing_seen = 1.0 - unforeseen(horizon.as_secs_f64(), age);
            let survives =
                signs.iter().fold(nothing_seen, |survives, sign| survives * (1.0 - sign.within(horizon.as_secs_f64())));
            (1.0 - survives).min(most)
        });
        let first = signs.iter().filter(|sign| sign.probability > WORTH_A_TIME);
        let first = first.filter_map(|sign| sign.time).min_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let mut reasons: Vec<(f64, String)> =
            signs.iter().map(|sign| (sign.probability, sign.reason.clone())).filter(|(p, _)| *p > 0.1).collect();
        reasons.sort_by(|a, b| b.0.total_cmp(&a.0));
        Forecast {
            within,
            time_to_failure: first.filter(|time| time.seconds <= FORESEEABLE),
            leak: signs.iter().any(|sign| sign.leak),
            confidence,
            reasons: reasons.into_iter().map(|(_, reason)| reason).take(MAX_REASONS).collect(),
            exhaustions,
            memory: memory.map(|(_, growth)| growth),
        }
    }
}

fn growth(name: &str, window: &Window, rise: &Rise, limit: Option<u64>) -> MemoryGrowth {
    MemoryGrowth {
        metric: name.to_owned(),
        baseline: rise.base,
        value: window.last(1).first().copied().unwrap_or_else(|| rise.level()),
        relieved_at: rise.relieved_at(),
        leak: rise.is_leak(),
        bytes_per_unit: metric::bytes_per_unit(name, limit),
    }
}

/// A failure further away than this, in seconds, is not predicted.
const FORESEEABLE: f64 = 7.0 * 86_400.0;
/// A sign with a lower probability gives no time to failure.
const WORTH_A_TIME: f64 = 0.1;
const MAX_REASONS: usize = 5;

/// Probability of an unannounced failure within `horizon` seconds. It falls with the age of the process (a process that ran for a
/// day will likely run for another hour), and with the square of the horizon, since imminent failures mostly show signs. The
/// weight of one third for the age is from the development sets.
fn unforeseen(horizon: f64, age: f64) -> f64 {
    const AT_MOST: f64 = 0.1;
    let age = age.max(0.0) / 3.0;
    AT_MOST * horizon.powi(2) / (horizon.powi(2) + age.powi(2))
}

#[cfg(test)]
pub(in crate::analyze) mod tests;
