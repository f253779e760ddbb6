//! What is likely to fail, and when.
//!
//! [`Forecaster`] is the seam: the naive rules stand behind it now, a better forecaster takes their place.

use jiff::Timestamp;

use super::{
    metric::{CPU_USAGE, ERROR_RATE, MEMORY_USAGE},
    trend::mean,
    window::{History, Window},
};

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

/// How loud a forecast is (design: >50% critical, 30–50% high, 10–30% medium, below low).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Level {
    Low,
    Medium,
    High,
    Critical,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Confidence {
    #[strum(to_string = "insufficient history")]
    InsufficientHistory,
    /// The naive rules never claim more.
    #[strum(to_string = "low")]
    Low,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// 0 to 1.
    pub probability: f64,
    pub band: Option<Band>,
    /// In words that carry figures.
    pub reasons: Vec<String>,
    pub confidence: Confidence,
}

impl Forecast {
    pub fn level(&self) -> Level {
        match self.probability {
            p if p > 0.5 => Level::Critical,
            p if p > 0.3 => Level::High,
            p if p > 0.1 => Level::Medium,
            _ => Level::Low,
        }
    }
}

/// Looks at a component's history and says what is coming.
pub trait Forecaster: Send + Sync {
    fn forecast(&self, history: &History, now: Timestamp) -> Forecast;
}

/// The rules of the system that Panacea re-imagines (facts: "the naive rules to beat"). They miss most real leaks
/// and their probabilities are not calibrated, so their confidence is never more than low.
#[derive(Debug, Clone, Copy, Default)]
pub struct NaiveForecaster;

const MIN_POINTS: usize = 10;

impl Forecaster for NaiveForecaster {
    fn forecast(&self, history: &History, _now: Timestamp) -> Forecast {
        let window = |name| history.metrics.get(name).filter(|window| window.len() >= MIN_POINTS);
        let rules = [
            (0.4, window(MEMORY_USAGE).and_then(leak)),
            (0.3, window(ERROR_RATE).and_then(rising_errors)),
            (0.25, window(CPU_USAGE).and_then(saturation)),
        ];
        let enough = history.metrics.values().any(|window| window.len() >= MIN_POINTS);
        let mut probability = 0.0;
        let mut reasons = Vec::new();
        for (weight, reason) in rules {
            if let Some(reason) = reason {
                probability += weight;
                reasons.push(reason);
            }
        }
        let band = match probability {
            p if p > 0.5 => Some(Band::WithinOneHour),
            p if p > 0.3 => Some(Band::OneToSixHours),
            p if p > 0.1 => Some(Band::SixToTwentyFourHours),
            _ => None,
        };
        let confidence = if enough { Confidence::Low } else { Confidence::InsufficientHistory };
        Forecast { probability, band, reasons, confidence }
    }
}

fn leak(memory: &Window) -> Option<String> {
    let last = memory.last(20);
    let rising = last.windows(2).filter(|pair| pair[1] > pair[0]).count();
    let steps = last.len().saturating_sub(1);
    (steps > 0 && rising * 10 > steps * 7).then(|| format!("memory rose in {rising} of the last {steps} looks"))
}

fn rising_errors(errors: &Window) -> Option<String> {
    let last = errors.last(10);
    let (first, newest) = (*last.first()?, *last.last()?);
    (newest > 2.0 * first && newest > 0.001).then(|| {
        format!("error rate went from {:.1}% to {:.1}% in the last {} looks", first * 100.0, newest * 100.0, last.len())
    })
}

fn saturation(cpu: &Window) -> Option<String> {
    let last = cpu.last(3);
    let newest = *last.last()?;
    (newest > 85.0 && mean(&last) > 80.0)
        .then(|| format!("CPU at {newest:.0}%, {:.0}% over the last 3 looks", mean(&last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(metric: &str, values: impl IntoIterator<Item = f64>) -> Forecast {
        let mut history = History::default();
        for (minute, value) in values.into_iter().enumerate() {
            history.push_metric(metric, Timestamp::from_second(60 * minute as i64).unwrap(), value);
        }
        NaiveForecaster.forecast(&history, Timestamp::from_second(100_000).unwrap())
    }

    #[test]
    fn sums_what_fires_and_says_why() {
        let leak = forecast(MEMORY_USAGE, (0..30).map(f64::from));
        assert_eq!((leak.probability, leak.band, leak.level()), (0.4, Some(Band::OneToSixHours), Level::High));
        assert_eq!(leak.reasons, ["memory rose in 19 of the last 19 looks"]);
        assert_eq!(forecast(ERROR_RATE, (1..12).map(|n| 0.01 * f64::from(n))).probability, 0.3);
        assert_eq!(forecast(CPU_USAGE, [86.0; 12]).probability, 0.25);
    }

    #[test]
    fn says_so_when_there_is_too_little() {
        let short = forecast(MEMORY_USAGE, (0..9).map(f64::from));
        assert_eq!((short.probability, short.confidence), (0.0, Confidence::InsufficientHistory));
        assert_eq!(forecast(MEMORY_USAGE, [50.0; 100]).reasons, Vec::<String>::new());
    }
}
