//! The last looks at a component, bounded.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use super::observation::{Measured, Observation};

/// Points kept a component and metric (design: history of 100 points).
pub const CAPACITY: usize = 100;
/// Metrics kept a component: what a policy may declare, and those that a platform adds.
pub const MAX_METRICS: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub at: Timestamp,
    pub value: f64,
}

/// At most [`CAPACITY`] points in order of time, the oldest dropped first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Window {
    points: VecDeque<Point>,
}

impl Window {
    /// Adds a point. One that is not finite, or not newer than the last, is left out: a late answer must not turn
    /// time around.
    pub fn push(&mut self, at: Timestamp, value: f64) {
        if !value.is_finite() || self.points.back().is_some_and(|last| at <= last.at) {
            return;
        }
        if self.points.len() == CAPACITY {
            self.points.pop_front();
        }
        self.points.push_back(Point { at, value });
    }

    pub fn len(&self) -> usize {
        self.points.len()
    }

    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    pub fn points(&self) -> impl DoubleEndedIterator<Item = Point> + ExactSizeIterator + '_ {
        self.points.iter().copied()
    }

    /// The newest `count` values, oldest first.
    pub fn last(&self, count: usize) -> Vec<f64> {
        self.points.iter().skip(self.points.len().saturating_sub(count)).map(|point| point.value).collect()
    }
}

/// What is remembered of one component's looks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    pub score: Window,
    pub metrics: BTreeMap<String, Window>,
}

impl History {
    /// Adds what was measured; what was not leaves a gap.
    pub fn push(&mut self, observation: &Observation, score: Option<u8>) {
        if let Some(score) = score {
            self.score.push(observation.at, f64::from(score));
        }
        for (name, reading) in &observation.metrics {
            if let Measured::Known(value) = reading.value {
                self.push_metric(name, observation.at, value);
            }
        }
    }

    /// Adds one value of one metric, as when the history is read back from the ledger.
    pub fn push_metric(&mut self, name: &str, at: Timestamp, value: f64) {
        if let Some(window) = self.metrics.get_mut(name) {
            window.push(at, value);
        } else if self.metrics.len() < MAX_METRICS {
            self.metrics.entry(name.to_owned()).or_default().push(at, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_hundred_in_order() {
        let mut window = Window::default();
        for second in 0..250 {
            window.push(Timestamp::from_second(second).unwrap(), second as f64);
            window.push(Timestamp::from_second(second - 1).unwrap(), -1.0);
            window.push(Timestamp::from_second(second + 1).unwrap(), f64::NAN);
        }
        assert_eq!(window.len(), CAPACITY);
        assert_eq!(window.last(3), [247.0, 248.0, 249.0]);
    }
}
