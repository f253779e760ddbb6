//! The failure that one metric announces: a leak, an exhaustion, a present fault.

use super::{
    forecast::TimeToFailure,
    leak::{self, Rise},
    metric::{self, CPU_USAGE, ERROR_RATE, LATENCY_MS},
    shift::{self, Shift},
    stats::{normal_cdf, quantile},
    window::Window,
};

/// A sign of a coming failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Sign {
    /// Probability that the sign is real, 0 to 1.
    pub probability: f64,
    /// The time of the failure, if the sign is real. None: the fault is present now, or the time is unknown because the metric
    /// has no ceiling.
    pub time: Option<TimeToFailure>,
    now: bool,
    /// Standard deviation of that time, in seconds.
    uncertainty: f64,
    /// The rise that the sign is based on.
    pub rise: Option<Rise>,
    pub leak: bool,
    pub reason: String,
}

impl Sign {
    /// Probability of the failure within `horizon` seconds.
    pub fn within(&self, horizon: f64) -> f64 {
        let Some(time) = self.time else {
            return if self.now { self.probability } else { 0.0 };
        };
        let z = |seconds: f64| (seconds - time.seconds) / self.uncertainty;
        // The failure has not occurred yet: the probability before now is excluded.
        let before = normal_cdf(z(0.0));
        self.probability * ((normal_cdf(z(horizon)) - before) / (1.0 - before).max(1e-9)).clamp(0.0, 1.0)
    }
}

/// The strongest sign in one metric. `ceiling`: the highest possible value, if there is one.
pub fn read(name: &str, window: &Window, ceiling: Option<f64>) -> Option<Sign> {
    match name {
        CPU_USAGE => saturation(window, ceiling),
        ERROR_RATE => escalation(window),
        LATENCY_MS => drift(window),
        _ if ceiling.is_some() || name.starts_with(metric::MEMORY) => {
            let newest = window.newest()? as f64;
            leak::rise(window, ceiling).map(|rise| exhaustion(name, &rise, ceiling, newest))
        }
        _ => None,
    }
}

/// The share of the ceiling at which processes fail: heap limits and allocators fail before the container's limit. The best fit
/// of the line to the failures of the development set oom-runs, and its standard deviation.
pub(super) const ENDS_AT: f64 = 0.98;
const ENDS_AT_SPREAD: f64 = 0.04;
/// Standard error of an extrapolated slope, as a share of the time.
const SLOPE_ERROR: f64 = 0.2;
/// 10% and 90% of the normal distribution.
const EIGHTY_PERCENT: f64 = 1.2816;

pub(super) fn exhaustion(name: &str, rise: &Rise, ceiling: Option<f64>, newest: f64) -> Sign {
    let growing = format!(
        "{name} grows {} in {} ({} to {}, {:+.0}%)",
        amount(name, rise.growth),
        span(rise.span),
        metric::show(name, rise.base),
        metric::show(name, rise.level()),
        100.0 * rise.growth / rise.base.abs().max(f64::MIN_POSITIVE)
    );
    let of_rise =
        Sign { rise: Some(*rise), leak: rise.is_leak(), now: false, ..now(rise.probability(), String::new()) };
    let Some(ceiling) = ceiling else {
        return Sign { reason: growing, ..of_rise };
    };
    // The line ends in the middle of its last part, before the newest value.
    let passed = (newest - rise.since - rise.span).max(0.0);
    let seconds = (rise.reaches(ENDS_AT * ceiling) - passed).max(0.0);
    let of_level = (ENDS_AT_SPREAD * ceiling).hypot(rise.noise) / rise.slope();
    let uncertainty = (SLOPE_ERROR * seconds).hypot(of_level);
    let time = TimeToFailure {
        seconds,
        earliest: (seconds - EIGHTY_PERCENT * uncertainty).max(0.0),
        latest: seconds + EIGHTY_PERCENT * uncertainty,
    };
    let reason = format!(
        "{growing}, reaches its limit of {} in {} ({} – {})",
        metric::show(name, ceiling),
        span(seconds),
        span(time.earliest),
        span(time.latest)
    );
    Sign { time: Some(time), uncertainty, reason, ..of_rise }
}

/// CPU: this share of its ceiling, in all checks of this many seconds, is saturation if it is not usual.
const SATURATED: f64 = 0.8;
const SATURATED_FOR: i64 = 90;
/// And this factor above nearly all five-minute means of the last hours; this many means are needed.
const UNUSUAL: f64 = 1.3;
const MIN_USUAL_BLOCKS: usize = 4;
/// The distance to the median of the checks before must be this multiple of the distance of nine in ten checks. A process with
/// bursts is often near its ceiling: there a little beyond the bursts is enough, but for this many seconds.
const BEYOND_BURSTS: f64 = 3.0;
const A_LITTLE_BEYOND: f64 = 1.25;
const LONGER_THAN_BURSTS: i64 = 210;
/// Smallest standard deviation of CPU that is assumed, as a share of the ceiling.
const CPU_SPREAD: f64 = 0.05;

fn saturation(window: &Window, ceiling: Option<f64>) -> Option<Sign> {
    let ceiling = ceiling?;
    let shift = shift::upward(window, CPU_SPREAD * ceiling, Some(ceiling))?;
    let newest = window.newest()?;
    let least = |seconds: i64| {
        let lasting = window.samples().filter(|(at, _)| newest - at <= seconds);
        lasting.map(|(_, value)| value).fold(shift.lasting, f64::min)
    };
    let lasting = least(SATURATED_FOR);
    let means: Vec<f64> =
        window.five_minutes().filter(|block| block.at < (newest - 450) as f64).map(|block| block.mean).collect();
    let known = means.len() >= MIN_USUAL_BLOCKS;
    if !(known && lasting >= SATURATED * ceiling && lasting > UNUSUAL * quantile(&means, 0.97)) {
        return None;
    }
    let before: Vec<f64> =
        window.samples().filter(|(at, _)| newest - at > SATURATED_FOR).map(|(_, value)| value).collect();
    let median = quantile(&before, 0.5);
    let bursts = (quantile(&before, 0.9) - median).max(CPU_SPREAD * ceiling);
    let beyond = (lasting - median) / bursts;
    let outlasts = beyond > A_LITTLE_BEYOND && least(LONGER_THAN_BURSTS) >= SATURATED * ceiling;
    (beyond > BEYOND_BURSTS || outlasts).then(|| {
        let reason = format!(
            "cpu_usage at {} for {SATURATED_FOR} s (usual: {} ± {})",
            metric::show(CPU_USAGE, lasting),
            metric::show(CPU_USAGE, shift.usual),
            metric::show(CPU_USAGE, shift.spread)
        );
        now(0.6, reason)
    })
}

/// Errors: at least this share in two checks, and outside the usual range.
const ESCALATED: f64 = 0.05;
const ERROR_SPREAD: f64 = 0.005;
/// When every second request fails, the outage is present: the probability is critical, else below.
const OUTAGE: f64 = 0.5;

fn escalation(window: &Window) -> Option<Sign> {
    let shift = shift::upward(window, ERROR_SPREAD, None)?;
    let probability = if shift.lasting >= OUTAGE { 0.6 } else { 0.4 };
    (shift.lasting >= ESCALATED).then(|| rose(ERROR_RATE, shift, probability))
}

/// Latency: this multiple of the usual value. Slow is not a failure: a warning, never an alarm.
const SLOWER: f64 = 3.0;

fn drift(window: &Window) -> Option<Sign> {
    let values = window.last(usize::MAX);
    let usual = quantile(&values, 0.5);
    let shift = shift::upward(window, 0.2 * usual, None)?;
    (shift.lasting > SLOWER * shift.usual).then(|| rose(LATENCY_MS, shift, 0.2))
}

fn rose(name: &str, shift: Shift, probability: f64) -> Sign {
    let (usual, newest) = (metric::show(name, shift.usual), metric::show(name, shift.now));
    now(probability, format!("{name} rose from {usual} to {newest}"))
}

fn now(probability: f64, reason: String) -> Sign {
    Sign { probability, time: None, now: true, uncertainty: 1.0, rise: None, leak: false, reason }
}

fn amount(name: &str, value: f64) -> String {
    let shown = metric::show(name, value);
    if shown.ends_with('%') { shown.replace('%', " points") } else { shown }
}

/// `45 s`, `12 min`, `4 h 10 min`, `2 d 3 h`.
fn span(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as i64;
    match minutes {
        _ if seconds < 90.0 => format!("{seconds:.0} s"),
        0..60 => format!("{minutes} min"),
        60..2880 => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => format!("{} d {} h", minutes / 1440, minutes % 1440 / 60),
    }
}
