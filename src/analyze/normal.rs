//! The usual range of a metric, learned from the component's own window; robust, so that an incident does not become usual.

use super::{
    stats::{mad, median, quantile},
    window::Window,
};

/// Five-minute blocks that are needed: two hours.
const MIN_BLOCKS: usize = 24;
/// Half-hour blocks of one day, with its busy hours.
const DAY_BLOCKS: usize = 48;
/// The range reaches this many standard deviations above the median, and at least up to nearly all values.
const DEVIATIONS: f64 = 4.0;
const NEARLY_ALL: f64 = 0.97;
/// A value that this many checks of a hundred reached is usual in any case: more than 3%.
const ALIKE: usize = 5;
/// And at least this share of the median: otherwise any change of a constant metric would be unusual.
const LEAST: f64 = 0.10;
/// A value is unusual when it is beyond the range by half of the range.
const BEYOND: f64 = 1.5;

/// The usual range of one metric, in its unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normal {
    pub median: f64,
    /// Up to this much above the median is usual.
    pub reach: f64,
}

impl Normal {
    /// None before two hours of checks. Means over half an hour when they cover a day, else over five minutes.
    fn learn(window: &Window) -> Option<Self> {
        let mut means: Vec<f64> = window.half_hours().map(|block| block.mean).collect();
        if means.len() < DAY_BLOCKS {
            means = window.five_minutes().map(|block| block.mean).collect();
        }
        if means.len() < MIN_BLOCKS {
            return None;
        }
        // Single values reach further than means.
        let values = window.last(usize::MAX);
        let median = median(&means);
        let highest = quantile(&means, NEARLY_ALL).max(quantile(&values, NEARLY_ALL)) - median;
        let reach = (DEVIATIONS * mad(&means, median)).max(highest).max(LEAST * median.abs());
        Some(Self { median, reach })
    }

    /// The position of an unusual value between the median (0) and `warning` (1); 0 for a usual value.
    fn exceeded(&self, value: f64, warning: f64) -> f64 {
        if value <= self.median + BEYOND * self.reach || warning <= self.median {
            return 0.0;
        }
        ((value - self.median) / (warning - self.median)).clamp(0.0, 1.0)
    }

    /// The position of an unusual value between the median (0) and `warning` (1), and the usual range; none when the value is
    /// usual, or the usual range is not known yet.
    pub fn left(window: &Window, value: f64, warning: f64) -> Option<(f64, Self)> {
        // The cheap test first, which settles nearly every check: recent values were as high.
        let alike = window.samples().filter(|(_, seen)| *seen >= value).take(ALIKE).count();
        let usual = if alike < ALIKE { Self::learn(window)? } else { return None };
        let share = usual.exceeded(value, warning);
        (share > 0.0).then_some((share, usual))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    /// A check every minute.
    fn learned(values: impl IntoIterator<Item = f64>) -> Option<Normal> {
        let mut window = Window::default();
        for (minute, value) in values.into_iter().enumerate() {
            window.push(Timestamp::from_second(60 * minute as i64).unwrap(), value);
        }
        Normal::learn(&window)
    }

    #[test]
    fn what_is_usual_is_not_exceeded_and_what_is_far_out_is() {
        let noise = |minute: usize| (minute * 7919 % 97) as f64 / 97.0;
        let quiet = learned((0..600).map(|minute| 100.0 + 10.0 * noise(minute))).unwrap();
        assert_eq!([100.0, 110.0, 115.0].map(|value| quiet.exceeded(value, 2000.0)), [0.0; 3]);
        let half = quiet.exceeded(1050.0, 2000.0);
        assert!((half - 0.5).abs() < 0.01, "{half}");
        assert_eq!(quiet.exceeded(9999.0, 2000.0), 1.0);
        assert_eq!(quiet.exceeded(1050.0, 90.0), 0.0, "usual is beyond its warning threshold: that speaks for itself");
        let never = learned(vec![0.0; 600]).unwrap();
        assert!(never.exceeded(0.02, 0.05) > 0.3, "the first errors of one that has none");
    }

    #[test]
    fn it_takes_two_hours_and_an_incident_does_not_teach() {
        assert_eq!(learned(vec![50.0; 119]), None);
        let incident = (0..600).map(|minute| if (300..310).contains(&minute) { 90.0 } else { 40.0 });
        assert!(learned(incident).unwrap().exceeded(60.0, 70.0) > 0.5);
    }

    #[test]
    fn busy_hours_are_usual() {
        let day = |minute: usize| 40.0 + 20.0 * (minute as f64 / 1440.0 * std::f64::consts::TAU).sin();
        let normal = learned((0..2880).map(day)).unwrap();
        assert_eq!(normal.exceeded(60.0, 70.0), 0.0);
    }
}
