use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::analyze::{metric::MEMORY_USAGE, window::CAPACITY};

fn ceilings() -> Ceilings {
    BTreeMap::from([("cpu_usage".to_owned(), 100.0), (MEMORY_USAGE.to_owned(), 100.0)])
}

/// One metric checked every `seconds`, and what is foreseen at the end.
fn foreseen(metric: &str, seconds: i64, values: impl IntoIterator<Item = f64>) -> Forecast {
    let mut history = History::default();
    for (look, value) in values.into_iter().enumerate() {
        history.push_metric(metric, Timestamp::from_second(seconds * look as i64).unwrap(), value);
    }
    Foresight.forecast(&history, &ceilings())
}

/// A forecast that a metric runs out in half an hour, with this probability; at 50 it is out of danger.
pub(crate) fn exhausting(metric: &str, probability: f64) -> Forecast {
    let rise = Rise {
        span: 3600.0,
        since: 0.0,
        base: 30.0,
        growth: 40.0,
        noise: 0.0,
        teeth: 0.0,
        odds: 1.0,
        sure: (probability / (1.0 - probability)).ln() - leak::AT_CRITICAL,
    };
    let mut exhaustion =
        Exhaustion::new(metric, Some(100.0), &signs::exhaustion(metric, &rise, Some(100.0), 3600.0)).unwrap();
    exhaustion.time = TimeToFailure { seconds: 1800.0, earliest: 1200.0, latest: 2400.0 };
    let exhaustions = if probability > 0.0 { vec![exhaustion] } else { Vec::new() };
    Forecast {
        within: [probability; 3],
        time_to_failure: exhaustions.first().map(|exhaustion| exhaustion.time),
        leak: false,
        confidence: Confidence::High,
        reasons: exhaustions.iter().map(|exhaustion| exhaustion.reason.clone()).collect(),
        exhaustions,
        memory: (probability > 0.0 && metric.starts_with(metric::MEMORY)).then(|| MemoryGrowth {
            metric: metric.to_owned(),
            baseline: rise.base,
            value: rise.level(),
            relieved_at: rise.relieved_at(),
            leak: rise.is_leak(),
            bytes_per_unit: None,
        }),
    }
}

/// Pseudo-random values in 0..1, the same each time.
fn noise(look: usize) -> f64 {
    (look * 7919 % 997) as f64 / 997.0
}

/// A warm-up, then `slope` units a check.
fn leaking(looks: usize, slope: f64) -> Vec<f64> {
    (0..looks).map(|look| 40.0 - 30.0 * (-(look as f64) / 8.0).exp() + slope * look as f64 + noise(look)).collect()
}

/// Teeth between `low` and `high`, the lows rising by `slope` a check.
fn sawtooth(looks: usize, period: usize, low: f64, high: f64, slope: f64) -> Vec<f64> {
    let tooth = |look: usize| low + (high - low) * (look % period) as f64 / period as f64;
    (0..looks).map(|look| tooth(look) + slope * look as f64 + noise(look)).collect()
}

#[test]
fn a_leak_is_foreseen_with_its_time() {
    // 0.08 points a check of 30 s: 9.6 points an hour; at 83.2% after 540 checks, so 98% in 1 h 32 min.
    let forecast = foreseen(MEMORY_USAGE, 30, leaking(540, 0.08));
    assert!(forecast.leak, "{forecast:?}");
    assert_eq!((forecast.level(), forecast.band()), (Level::Critical, Some(Band::OneToSixHours)), "{forecast:?}");
    let time = forecast.time_to_failure.unwrap();
    assert!((1.0..1.6).contains(&(time.seconds / 3600.0)), "{time:?}");
    assert!(time.earliest < time.seconds && time.seconds < time.latest);
    assert!(forecast.reasons[0].starts_with("memory_usage grows"), "{:?}", forecast.reasons);
}

#[test]
fn what_is_healthy_is_let_alone() {
    let healthy = [
        ("constant", vec![60.0; 600]),
        ("near its limit", (0..600).map(|look| 96.0 + noise(look)).collect()),
        ("a warm-up", (0..600).map(|look| 80.0 - 60.0 * (-(look as f64) / 60.0).exp() + noise(look)).collect()),
        ("one step", (0..600).map(|look| if look < 400 { 30.0 } else { 60.0 } + noise(look)).collect()),
        ("a day", (0..2880).map(|look| 50.0 + 20.0 * (look as f64 / 458.0).sin() + noise(look)).collect()),
        ("a restart", (0..600).map(|look| [30.0, 70.0][usize::from(look % 300 > 20)] + noise(look)).collect()),
    ];
    for (name, values) in healthy {
        for end in (60..=values.len()).step_by(10) {
            let forecast = foreseen(MEMORY_USAGE, 30, values[..end].iter().copied());
            assert!(!forecast.leak && forecast.level() < Level::Critical, "{name} after {end} looks: {forecast:?}");
        }
    }
}

/// Targets: healthy sawtooths flagged at most 1%, leaking ones found at least 99%. The second is not reached, since a
/// verdict that came earlier would be wrong more often on real data (docs/foresight.md); it must not get worse.
#[test]
fn sawtooths_of_collectors_differ_from_leaks() {
    let (mut flagged, mut found, mut of) = (0, 0, 0);
    for case in 0..200_usize {
        let period = 5 + case * 13 % 60;
        let low = 20.0 + (case * 7 % 40) as f64;
        let high = low + 8.0 + (case * 11 % 25) as f64;
        let called = |slope: f64| {
            let values = sawtooth(1000, period, low, high, slope);
            let alive = values.iter().take_while(|value| **value < 100.0).count();
            (200..=alive).step_by(25).any(|end| foreseen(MEMORY_USAGE, 30, values[..end].iter().copied()).leak)
        };
        of += 1;
        flagged += usize::from(called(0.0));
        found += usize::from(called((100.0 - high) / 900.0));
    }
    assert!(
        flagged * 100 <= of && found * 100 >= 93 * of,
        "of {of}: {flagged} healthy ones flagged, {found} leaks found"
    );
}

#[test]
fn a_restart_starts_again() {
    let values: Vec<f64> = leaking(400, 0.12).into_iter().chain(leaking(40, 0.12)).collect();
    let forecast = foreseen(MEMORY_USAGE, 30, values);
    assert!(!forecast.leak && forecast.time_to_failure.is_none(), "{forecast:?}");
}

#[test]
fn unusual_saturation_and_errors_are_reported() {
    let calm = |look: usize| 30.0 + 5.0 * noise(look);
    let cpu = foreseen("cpu_usage", 60, (0..100).map(calm).chain([97.0; 3]));
    assert_eq!(cpu.level(), Level::Critical, "{cpu:?}");
    let busy = foreseen("cpu_usage", 60, (0..100).map(|look| 100.0 * noise(look)).chain([97.0; 3]));
    assert!(busy.level() < Level::High, "usual for it: {busy:?}");
    let few = |look: usize| 0.002 * noise(look);
    let errors = foreseen("error_rate", 60, (0..100).map(few).chain([0.3; 2]));
    assert_eq!((errors.level(), errors.reasons.len()), (Level::High, 1), "{errors:?}");
    let outage = foreseen("error_rate", 60, (0..100).map(few).chain([0.8; 2]));
    assert_eq!(outage.level(), Level::Critical, "{outage:?}");
}

#[test]
fn who_works_in_bursts_must_outlast_them() {
    let bursts = |look: usize| 10.0 + if look.is_multiple_of(5) { 55.0 } else { 10.0 * noise(look) };
    let after = |looks: usize| foreseen("cpu_usage", 60, (1..101).map(bursts).chain(vec![97.0; looks])).level();
    assert!(after(2) < Level::Critical && after(5) == Level::Critical);
    // So restless that its ceiling is within three of its deviations.
    let restless = |look: usize| 40.0 + 40.0 * noise(look);
    let full = foreseen("cpu_usage", 60, (0..100).map(restless).chain([101.0; 5]));
    assert_eq!(full.level(), Level::Critical, "{full:?}");
}

#[test]
fn without_a_ceiling_a_rise_is_no_failure() {
    let mut history = History::default();
    for (look, value) in leaking(540, 0.08).into_iter().enumerate() {
        history.push_metric("memory_mib", Timestamp::from_second(30 * look as i64).unwrap(), value);
    }
    let forecast = Foresight.forecast(&history, &ceilings());
    assert!(forecast.probability() <= 0.1 && forecast.time_to_failure.is_none(), "{forecast:?}");
}

#[test]
fn several_unsure_signs_do_not_make_a_sure_one() {
    let mut history = History::default();
    for look in 0..100_i64 {
        let late = look >= 97;
        for (metric, calm, bad) in [("error_rate", 0.0, 0.3), ("latency_ms", 20.0, 2000.0)] {
            let value = if late { bad } else { calm };
            history.push_metric(metric, Timestamp::from_second(60 * look).unwrap(), value);
        }
    }
    let forecast = Foresight.forecast(&history, &ceilings());
    assert_eq!((forecast.level(), forecast.reasons.len()), (Level::High, 2), "{forecast:?}");
}

#[test]
fn says_so_when_there_is_too_little() {
    let short = foreseen(MEMORY_USAGE, 30, leaking(59, 0.5));
    assert_eq!((short.confidence, short.leak, short.time_to_failure), (Confidence::InsufficientHistory, false, None));
    assert!(short.probability() <= 0.1);
}

#[test]
fn horizons_between_the_known_ones_are_in_between() {
    let forecast = Forecast { within: [0.2, 0.5, 0.9], ..foreseen(MEMORY_USAGE, 30, [1.0]) };
    let within = |minutes: u64| forecast.within(Duration::from_secs(60 * minutes));
    assert!((within(60) - 0.2).abs() < 1e-9 && (within(360) - 0.5).abs() < 1e-9 && (within(1440) - 0.9).abs() < 1e-9);
    assert!(within(10) > 0.0 && within(10) < 0.2 && within(120) > 0.2 && within(120) < 0.5 && within(9000) == 0.9);
}

fn sane(forecast: &Forecast) -> bool {
    let [hour, six, day] = forecast.within;
    let time = forecast.time_to_failure.is_none_or(|time| {
        time.seconds.is_finite() && time.seconds >= 0.0 && time.earliest <= time.seconds && time.seconds <= time.latest
    });
    (0.0..=1.0).contains(&hour) && hour <= six + 1e-9 && six <= day + 1e-9 && day <= 1.0 && time
}

fn anything() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(1e300),
        Just(-1e300),
        Just(0.0),
        Just(f64::MIN_POSITIVE),
        -10.0..200.0,
        any::<f64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_in_what_comes_out_is_sane(
        values in proptest::collection::vec((-3_i64..5000, anything(), 0..4_usize), 0..400)
    ) {
        let mut history = History::default();
        let mut second = 0;
        for (step, value, metric) in values {
            second += step;
            let name = ["cpu_usage", "memory_usage", "error_rate", "latency_ms"][metric];
            history.push_metric(name, Timestamp::from_second(second).unwrap(), value);
        }
        let forecast = Foresight.forecast(&history, &ceilings());
        prop_assert!(sane(&forecast), "{forecast:?}");
        for window in history.metrics.values() {
            prop_assert!(window.len() <= CAPACITY && window.bytes() <= 2048, "{} bytes", window.bytes());
        }
    }

    #[test]
    fn a_trend_is_the_same_in_other_units_and_at_other_paces(
        looks in 80..300_usize, slope in 0.0..0.2_f64, unit in 0.01..1000.0_f64, pace in 20..300_i64
    ) {
        let values = leaking(looks, slope);
        let limit = |name: &str, value: f64| BTreeMap::from([(name.to_owned(), value)]);
        let of = |unit: f64, pace: i64| {
            let mut history = History::default();
            for (look, value) in values.iter().enumerate() {
                history.push_metric("memory_used", Timestamp::from_second(pace * look as i64).unwrap(), value * unit);
            }
            Foresight.forecast(&history, &limit("memory_used", 100.0 * unit))
        };
        prop_assert_eq!(of(1.0, 30).leak, of(unit, 30).leak);
        // The tiers have blocks of fixed length, so another pace shifts a verdict; what is plain stays plain.
        prop_assert!(of(1.0, 30).probability() < 0.9 || of(1.0, pace).probability() > 0.2);
    }

    #[test]
    fn a_constant_past_makes_no_leak(level in 1.0..90.0_f64, past in 60..400_usize, looks in 0..120_usize) {
        let flat = std::iter::repeat_n(level, past);
        let healthy = (0..looks).map(|look| level + 0.02 * level * noise(look));
        prop_assert!(!foreseen(MEMORY_USAGE, 30, flat.chain(healthy)).leak);
    }
}
/// Two points lie on the line of median slope at the same distance: rounding must not order them.
#[test]
fn odds_do_not_hang_on_rounding() {
    let odds = |unit: f64| {
        let mut history = History::default();
        for (look, value) in leaking(261, 0.140_596).into_iter().enumerate() {
            history.push_metric("memory_used", Timestamp::from_second(30 * look as i64).unwrap(), value * unit);
        }
        leak::rise(&history.metrics["memory_used"], Some(100.0 * unit)).unwrap().odds
    };
    for unit in [36.503_197, 7.3, 0.01, 1024.0 * 1024.0] {
        assert!((odds(unit) - odds(1.0)).abs() < 1e-3, "unit {unit}: {} instead of {}", odds(unit), odds(1.0));
    }
}
