//! What one metric announces: a leak, an exhaustion, a fault that is there already.

use super::{
    forecast::TimeToFailure,
    leak::{self, Rise},
    metric::{self, CPU_USAGE, ERROR_RATE, LATENCY_MS},
    shift,
    stats::{normal_cdf, quantile},
    window::Window,
};

/// A sign of a coming failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Sign {
    /// That it means what it looks like, 0 to 1.
    pub probability: f64,
    /// If it does: when. None: it is there now, or nobody knows, since the metric has no ceiling.
    pub time: Option<TimeToFailure>,
    now: bool,
    /// Standard deviation of that time, in seconds.
    uncertainty: f64,
    /// The rise that it was read from.
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
        // It has not happened yet: what lies before now is left out.
        let before = normal_cdf(z(0.0));
        self.probability * ((normal_cdf(z(horizon)) - before) / (1.0 - before).max(1e-9)).clamp(0.0, 1.0)
    }
}

/// The strongest sign in one metric. `ceiling`: where the metric ends, if it does.
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

/// Where processes really end, as a share of the ceiling: heap caps and allocators fail before the container's limit
/// does. Where the line and the deaths of the development set oom-runs met best, and its standard deviation.
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
    // The line ends in the middle of its last part, which is a while ago.
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
        "{growing}, is at its limit of {} in {} ({} – {})",
        metric::show(name, ceiling),
        span(seconds),
        span(time.earliest),
        span(time.latest)
    );
    Sign { time: Some(time), uncertainty, reason, ..of_rise }
}

/// CPU: this share of its ceiling, for all looks of this many seconds, is saturation if it is not usual.
const SATURATED: f64 = 0.8;
const SATURATED_FOR: i64 = 90;
/// And this much above nearly all five-minute means of the last hours; so many of them are needed.
const UNUSUAL: f64 = 1.3;
const MIN_USUAL_BLOCKS: usize = 4;
/// It must be so many times as far above the median of the looks before as nine in ten of them are. Who works in bursts
/// comes near its ceiling often: there it is enough to be a little beyond them, but for this many seconds.
const BEYOND_BURSTS: f64 = 3.0;
const A_LITTLE_BEYOND: f64 = 1.25;
const LONGER_THAN_BURSTS: i64 = 210;
/// Least standard deviation of CPU that is taken for real, in its own unit: 5% of the ceiling.
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
            "cpu_usage at {} for {SATURATED_FOR} s, usual are {} ± {}",
            metric::show(CPU_USAGE, lasting),
            metric::show(CPU_USAGE, shift.usual),
            metric::show(CPU_USAGE, shift.spread)
        );
        now(0.6, reason)
    })
}

/// Errors: at least this share for two looks, and out of what is usual.
const ESCALATED: f64 = 0.05;
const ERROR_SPREAD: f64 = 0.005;
/// Where every second request fails, nothing is left to foresee: above what is critical, else below it.
const OUTAGE: f64 = 0.5;

fn escalation(window: &Window) -> Option<Sign> {
    let shift = shift::upward(window, ERROR_SPREAD, None)?;
    (shift.lasting >= ESCALATED).then(|| {
        let reason = format!(
            "error_rate went from {} to {}",
            metric::show(ERROR_RATE, shift.usual),
            metric::show(ERROR_RATE, shift.now)
        );
        now(if shift.lasting >= OUTAGE { 0.6 } else { 0.4 }, reason)
    })
}

/// Latency: this many times what is usual. Slow is not failing: a warning, never an alarm of itself.
const SLOWER: f64 = 3.0;

fn drift(window: &Window) -> Option<Sign> {
    let values = window.last(usize::MAX);
    let usual = quantile(&values, 0.5);
    let shift = shift::upward(window, 0.2 * usual, None)?;
    (shift.lasting > SLOWER * shift.usual).then(|| {
        let reason = format!(
            "latency_ms went from {} to {}",
            metric::show(LATENCY_MS, shift.usual),
            metric::show(LATENCY_MS, shift.now)
        );
        now(0.2, reason)
    })
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
