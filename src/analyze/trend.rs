//! The trend of the score.

use super::{stats::mean, window::Window};
use crate::api::Trend;

/// Checks that are compared: the later half with the earlier half.
const LOOKS: usize = 10;
/// Fewer points than this have no trend.
const MIN_LOOKS: usize = 5;
/// Difference of the means, in points of the score, from which on it is a trend.
const DIFFERENCE: f64 = 5.0;
/// And in its standard errors (Welch 1947): one bad check of ten is no trend.
const ERRORS: f64 = 2.0;

/// Compares the later half of the last ten scores with the earlier half. None with fewer than five.
pub fn trend(score: &Window) -> Option<Trend> {
    let last = score.last(LOOKS);
    if last.len() < MIN_LOOKS {
        return None;
    }
    let (earlier, later) = last.split_at(last.len() / 2);
    let difference = mean(later) - mean(earlier);
    let error = (squared_error(earlier) + squared_error(later)).sqrt();
    Some(match difference {
        _ if difference.abs() <= DIFFERENCE.max(ERRORS * error) => Trend::Stable,
        ..0.0 => Trend::Declining,
        _ => Trend::Improving,
    })
}

/// Squared standard error of the mean.
fn squared_error(values: &[f64]) -> f64 {
    let (mean, n) = (mean(values), values.len() as f64);
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0) / n
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn check(scores: &[f64], expected: Option<Trend>) {
        let mut window = Window::default();
        for (second, score) in scores.iter().enumerate() {
            window.push(Timestamp::from_second(second as i64).unwrap(), *score);
        }
        assert_eq!(trend(&window), expected, "{scores:?}");
    }

    #[test]
    fn follows_the_means_of_the_halves() {
        check(&[100.0; 4], None);
        check(&[100.0; 5], Some(Trend::Stable));
        check(&[100.0, 100.0, 100.0, 60.0, 60.0, 60.0], Some(Trend::Declining));
        check(&[60.0, 60.0, 100.0, 100.0, 100.0], Some(Trend::Improving));
        check(&[100.0, 100.0, 95.0, 95.0, 95.0], Some(Trend::Stable));
    }

    #[test]
    fn what_may_be_chance_is_no_trend() {
        check(&[100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 60.0, 100.0], Some(Trend::Stable));
        check(&[60.0, 100.0, 100.0, 60.0, 100.0, 60.0, 60.0, 100.0, 60.0, 60.0], Some(Trend::Stable));
        check(&[100.0, 90.0, 100.0, 90.0, 100.0, 75.0, 70.0, 75.0, 60.0, 70.0], Some(Trend::Declining));
    }
}
