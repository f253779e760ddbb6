//! Sudden faults: a level leaves its usual range. They have no lead time; early detection shortens the delay.

use super::{
    stats::{mad, median},
    window::Window,
};

/// The newest checks, which are compared with the checks before.
const NEW: usize = 5;
/// The fewest checks before them, which define the usual level.
const MIN_USUAL: usize = 15;
/// Reference value and threshold of the CUSUM (Page 1954), in standard deviations: a jump of nine is detected at once, a jump
/// of three after four checks.
const SLACK: f64 = 1.0;
const THRESHOLD: f64 = 8.0;
/// The newest value must itself be this far out: a shift that has ended does not count.
const STILL: f64 = 3.0;

/// A level that left its usual range and is still there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// The usual level: median and robust standard deviation, in the metric's unit.
    pub usual: f64,
    pub spread: f64,
    /// The newest value.
    pub now: f64,
    /// The lowest of the newest two.
    pub lasting: f64,
}

/// The shift, when the newest values are above the usual level. `spread`: the smallest standard deviation that is assumed, in
/// the metric's unit. `ceiling`: the highest possible value, if there is one.
pub fn upward(window: &Window, spread: f64, ceiling: Option<f64>) -> Option<Shift> {
    let mut values = window.last(usize::MAX);
    if values.len() < MIN_USUAL + NEW {
        return None;
    }
    let new = values.split_off(values.len() - NEW);
    let usual = median(&values);
    // Below a ceiling the distance to the usual level is limited, however large the spread is.
    let room = ceiling.map_or(f64::INFINITY, |ceiling| (ceiling - usual) / (STILL + 1.0));
    let spread = mad(&values, usual).min(room).max(spread);
    let sum = new.iter().fold(0.0_f64, |sum, value| (sum + (value - usual) / spread - SLACK).max(0.0));
    let (now, before) = (new[NEW - 1], new[NEW - 2]);
    let out = sum > THRESHOLD && (now - usual) / spread > STILL;
    out.then_some(Shift { usual, spread, now, lasting: now.min(before) })
}
