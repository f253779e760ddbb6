//! Faults that come at once: a level leaves the range that this component is used to. They have no lead time; what can
//! be won is the delay.

use super::{
    stats::{mad, median},
    window::Window,
};

/// Looks that are compared with those before them.
const NEW: usize = 5;
/// Looks before them that tell what is usual.
const MIN_USUAL: usize = 15;
/// Reference value and threshold of the CUSUM (Page 1954), in standard deviations: a jump of nine is seen at once, one
/// of three after four looks.
const SLACK: f64 = 1.0;
const THRESHOLD: f64 = 8.0;
/// The newest look must itself be this far out: what is over is over.
const STILL: f64 = 3.0;

/// A level that left its usual range and is still there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// What was usual: median and robust standard deviation, in the metric's unit.
    pub usual: f64,
    pub spread: f64,
    /// The newest value.
    pub now: f64,
    /// The lowest of the newest two.
    pub lasting: f64,
}

/// Whether the newest looks are above what is usual. `spread`: the least standard deviation that is taken for real, in
/// the metric's unit. `ceiling`: where the metric ends, if it does.
pub fn upward(window: &Window, spread: f64, ceiling: Option<f64>) -> Option<Shift> {
    let mut values = window.last(usize::MAX);
    if values.len() < MIN_USUAL + NEW {
        return None;
    }
    let new = values.split_off(values.len() - NEW);
    let usual = median(&values);
    // Below a ceiling nothing can be further out than that, however restless it is.
    let room = ceiling.map_or(f64::INFINITY, |ceiling| (ceiling - usual) / (STILL + 1.0));
    let spread = mad(&values, usual).min(room).max(spread);
    let sum = new.iter().fold(0.0_f64, |sum, value| (sum + (value - usual) / spread - SLACK).max(0.0));
    let (now, before) = (new[NEW - 1], new[NEW - 2]);
    let out = sum > THRESHOLD && (now - usual) / spread > STILL;
    out.then_some(Shift { usual, spread, now, lasting: now.min(before) })
}
