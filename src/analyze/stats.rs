//! Robust statistics for short series. Pure functions of slices; every value must be finite.

/// An integer with the order of `f64::total_cmp`: comparing integers takes a third of the time.
fn key(value: f64) -> i64 {
    let bits = value.to_bits().cast_signed();
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

fn of_key(key: i64) -> f64 {
    f64::from_bits((key ^ ((key >> 63).cast_unsigned() >> 1).cast_signed()).cast_unsigned())
}

/// The median; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    median_of(values.iter().copied().map(key).collect())
}

fn median_of(mut keys: Vec<i64>) -> f64 {
    if keys.is_empty() {
        return 0.0;
    }
    let (middle, odd) = (keys.len() / 2, keys.len() % 2 == 1);
    let (below, upper, _) = keys.select_nth_unstable(middle);
    let upper = *upper;
    if odd {
        return of_key(upper);
    }
    let (lower, upper) = (of_key(below.iter().copied().max().unwrap_or(upper)), of_key(upper));
    lower + (upper - lower) / 2.0
}

/// The value below which this share (0 to 1) of the values lies; 0 of none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut keys: Vec<i64> = values.iter().copied().map(key).collect();
    if keys.is_empty() {
        return 0.0;
    }
    let place = (share.clamp(0.0, 1.0) * (keys.len() - 1) as f64).round() as usize;
    of_key(*keys.select_nth_unstable(place).1)
}

/// Median absolute deviation from `centre`, times 1.4826: the standard deviation, if the values are normal.
pub fn mad(values: &[f64], centre: f64) -> f64 {
    1.4826 * median_of(values.iter().map(|value| key((value - centre).abs())).collect())
}

pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The median of the slopes of all pairs (Sen 1968), and the sum of their signs (Mann 1945, Kendall).
pub fn sen(points: &[(f64, f64)]) -> Option<(f64, i32)> {
    let mut slopes = Vec::with_capacity(points.len() * points.len().saturating_sub(1) / 2);
    let mut signs = 0;
    for (place, (at, value)) in points.iter().enumerate() {
        for (earlier, before) in &points[..place] {
            if at > earlier {
                let rise = value - before;
                slopes.push(key(rise / (at - earlier)));
                signs += i32::from(rise > 0.0) - i32::from(rise < 0.0);
            }
        }
    }
    (!slopes.is_empty()).then(|| (median_of(slopes), signs))
}

/// The Mann-Kendall test's z for a monotonic trend, its variance corrected for autocorrelation of the ranks (Hamed and
/// Rao 1998, <https://doi.org/10.1016/S0022-1694(97)00125-X>). `signs` and `slope` as returned by [`sen`].
pub fn mann_kendall(points: &[(f64, f64)], slope: f64, signs: i32) -> f64 {
    let n = points.len() as f64;
    if points.len() < 4 || signs == 0 {
        return 0.0;
    }
    let variance = n * (n - 1.0) * (2.0 * n + 5.0) / 18.0;
    let origin = points[0].0;
    let ranks = ranks(points.iter().map(|(at, value)| value - slope * (at - origin)));
    let centre = (n - 1.0) / 2.0;
    let spread: f64 = ranks.iter().map(|rank| (rank - centre).powi(2)).sum();
    let mut correction = 0.0;
    if spread > 0.0 {
        // Lags beyond a quarter of the series have too few pairs.
        for lag in 1..=points.len() / 4 {
            let pairs = ranks.iter().zip(&ranks[lag..]);
            let shared: f64 = pairs.map(|(a, b)| (a - centre) * (b - centre)).sum();
            let correlation = shared / spread;
            if correlation.abs() > 1.96 / n.sqrt() {
                let left = n - lag as f64;
                correction += left * (left - 1.0) * (left - 2.0) * correlation;
            }
        }
    }
    let factor = (1.0 + 2.0 / (n * (n - 1.0) * (n - 2.0)) * correction).max(1.0);
    let s = f64::from(signs);
    (s - s.signum()) / (variance * factor).sqrt()
}

/// Values closer than this share of the largest value are equal: windows store 24 bits of a value, and the two points whose
/// slope is the median have the same distance from its line, whatever the rounding.
const SAME: f64 = 1e-6;

/// Places in order of size, ties by their mean place.
fn ranks(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut order: Vec<(f64, usize)> = values.enumerate().map(|(place, value)| (value, place)).collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let largest = order.iter().map(|(value, _)| value.abs()).fold(0.0, f64::max);
    let mut ranks = vec![0.0; order.len()];
    let mut start = 0;
    while start < order.len() {
        let same = order[start..].partition_point(|(value, _)| value - order[start].0 <= SAME * largest);
        let end = start + same.max(1);
        for (_, place) in &order[start..end] {
            ranks[*place] = (start + end - 1) as f64 / 2.0;
        }
        start = end;
    }
    ranks
}

/// The standard normal distribution function, to 1.5e-7 (Abramowitz and Stegun 7.1.26).
pub fn normal_cdf(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly =
        t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let upper = 0.5 * poly * (-x * x).exp();
    if z > 0.0 { 1.0 - upper } else { upper }
}
