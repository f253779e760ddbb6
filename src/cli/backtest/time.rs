//! Times and durations for people.

use jiff::{Timestamp, tz::TimeZone};

/// From this number of seconds on, a time is a date (1980) and not the age of a recording.
const DATES: f64 = 3.2e8;

/// Whether a recording that begins at `first` counts from 1970.
pub(super) fn is_date(first: f64) -> bool {
    first >= DATES
}

/// `2026-03-01 10:00`, or `6h34m` since the recording began.
pub(super) fn show(t: f64) -> String {
    if !is_date(t) {
        return length(t);
    }
    format(t, "%Y-%m-%d %H:%M")
}

pub(super) fn format(t: f64, format: &str) -> String {
    Timestamp::from_second(t.round() as i64)
        .map_or_else(|_| t.to_string(), |at| at.to_zoned(TimeZone::UTC).strftime(format).to_string())
}

/// `45s`, `34m`, `6h34m`, `3d4h`.
pub(super) fn length(seconds: f64) -> String {
    let sign = if seconds <= -0.5 { "-" } else { "" };
    let seconds = seconds.abs().round() as u64;
    let (minutes, hours) = ((seconds + 30) / 60, (seconds + 1800) / 3600);
    let text = match seconds {
        0..=119 => format!("{seconds}s"),
        120..=5399 => format!("{minutes}m"),
        5400..=172_799 => format!("{}h{:02}m", minutes / 60, minutes % 60),
        _ => format!("{}d{:02}h", hours / 24, hours % 24),
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, text) in [
            (0.0, "0s"),
            (119.0, "119s"),
            (120.0, "2m"),
            (23_670.0, "6h35m"),
            (172_800.0, "2d00h"),
            (-3600.0, "-60m"),
            (604_800.0, "7d00h"),
        ] {
            assert_eq!(length(seconds), text);
        }
    }

    #[test]
    fn times_since_1970_are_dates() {
        assert_eq!(show(23_670.0), "6h35m");
        assert_eq!(show(1_772_359_200.0), "2026-03-01 10:00");
    }
}
