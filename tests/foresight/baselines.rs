//! What the forecaster has to beat, on the same looks.

use panacea::analyze::{
    forecast::{Ceilings, Confidence, Forecast, Forecaster, TimeToFailure},
    metric::{CPU_USAGE, ERROR_RATE, MEMORY_USAGE},
    window::{History, Window},
};

fn saying(within: [f64; 3], seconds: Option<f64>, leak: bool) -> Forecast {
    Forecast {
        within,
        time_to_failure: seconds.map(|seconds| TimeToFailure { seconds, earliest: seconds, latest: seconds }),
        leak,
        confidence: Confidence::Low,
        reasons: Vec::new(),
        exhaustions: Vec::new(),
        memory: None,
    }
}

fn window<'a>(history: &'a History, name: &str, least: usize) -> Option<&'a Window> {
    history.metrics.get(name).filter(|window| window.len() >= least)
}

/// The rules of the system that Panacea re-imagines: more than 70% of the last 20 differences of memory positive, the
/// last error rate more than twice the first of ten, CPU above 85; 0.4, 0.3 and 0.25 summed.
pub struct Naive;

impl Forecaster for Naive {
    fn forecast(&self, history: &History, _: &Ceilings) -> Forecast {
        let leak = window(history, MEMORY_USAGE, 10).is_some_and(|memory| {
            let last = memory.last(20);
            let rising = last.windows(2).filter(|pair| pair[1] > pair[0]).count();
            rising * 10 > (last.len() - 1) * 7
        });
        let errors = window(history, ERROR_RATE, 10).is_some_and(|errors| {
            let last = errors.last(10);
            last[last.len() - 1] > 2.0 * last[0] && last[last.len() - 1] > 0.001
        });
        let cpu = window(history, CPU_USAGE, 3).is_some_and(|cpu| {
            let last = cpu.last(3);
            last[2] > 85.0 && last.iter().sum::<f64>() / 3.0 > 80.0
        });
        let signs = [(leak, 0.4), (errors, 0.3), (cpu, 0.25)];
        let p: f64 = signs.iter().filter(|(on, _)| *on).map(|(_, weight)| weight).sum();
        // Its bands, by their middles: "<1h", "1-6h", "6-24h".
        let seconds = match p {
            p if p > 0.5 => Some(1800.0),
            p if p > 0.3 => Some(3.5 * 3600.0),
            p if p > 0.1 => Some(15.0 * 3600.0),
            _ => None,
        };
        saying([p; 3], seconds, leak)
    }
}

/// Least squares over what the window remembers, as Prometheus' `predict_linear` over some hours: memory above its
/// limit within so much time is a leak.
pub struct PredictLinear;

impl Forecaster for PredictLinear {
    fn forecast(&self, history: &History, ceilings: &Ceilings) -> Forecast {
        let Some(memory) = window(history, MEMORY_USAGE, 10) else { return saying([0.0; 3], None, false) };
        let ceiling = ceilings.get(MEMORY_USAGE).copied().unwrap_or(100.0);
        // Six hours, as node_exporter's rule.
        let from = memory.newest().unwrap_or(0) - 6 * 3600;
        let blocks = memory.since(from);
        let n = blocks.len() as f64;
        let (at, value) = (
            blocks.iter().map(|block| block.at).sum::<f64>() / n,
            blocks.iter().map(|block| block.mean).sum::<f64>() / n,
        );
        let spread: f64 = blocks.iter().map(|block| (block.at - at).powi(2)).sum();
        let slope = blocks.iter().map(|block| (block.at - at) * (block.mean - value)).sum::<f64>() / spread;
        let now = memory.newest().unwrap_or(0) as f64;
        let level = value + slope * (now - at);
        let seconds = (slope > 0.0).then(|| ((ceiling - level) / slope).max(0.0)).filter(|s| *s < 7.0 * 86_400.0);
        let by = |hours: f64| f64::from(u8::from(seconds.is_some_and(|seconds| seconds <= hours * 3600.0)));
        saying([by(1.0), by(6.0), by(24.0)], seconds, by(24.0) > 0.5)
    }
}

/// Memory or CPU above 90% now.
pub struct Threshold;

impl Forecaster for Threshold {
    fn forecast(&self, history: &History, _: &Ceilings) -> Forecast {
        let above = |name: &str| window(history, name, 1).is_some_and(|window| window.last(1)[0] > 90.0);
        let memory = above(MEMORY_USAGE);
        let p = f64::from(u8::from(memory || above(CPU_USAGE)));
        saying([p; 3], (p > 0.5).then_some(1800.0), memory)
    }
}
