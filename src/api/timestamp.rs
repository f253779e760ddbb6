use jiff::{Timestamp, Unit};

/// Rounds to milliseconds, the precision of times in our objects: enough to order events, short enough to read.
pub fn milliseconds(at: Timestamp) -> Timestamp {
    at.round(Unit::Millisecond).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_milliseconds_and_keeps_the_last_moment() {
        for (at, rounded) in [
            ("2026-03-01T10:00:00.123456789Z", "2026-03-01T10:00:00.123Z"),
            ("2026-03-01T10:00:00.9996Z", "2026-03-01T10:00:01Z"),
            ("2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z"),
        ] {
            assert_eq!(milliseconds(at.parse().unwrap()), rounded.parse().unwrap(), "{at}");
        }
        // To round it up would leave the range of times.
        assert_eq!(milliseconds(Timestamp::MAX), Timestamp::MAX);
    }
}
