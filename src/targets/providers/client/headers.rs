//! What a provider reports of its limits: `Ratelimit-Remaining`, `Ratelimit-Reset` (Vercel: `X-RateLimit-…`),
//! `Retry-After`. Pure.

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The longest wait that is accepted.
const LONGEST: Duration = Duration::from_secs(3600);
/// A reset above this is a time since 1970 and not a number of seconds from now (2001-09-09).
const EPOCH_FROM: u64 = 1_000_000_000;

/// How many calls are left, and for how long that is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reported {
    pub left: u32,
    pub resets_in: Duration,
}

/// The rate limit by the headers, if both are present.
pub(super) fn reported(headers: &HeaderMap, now: Timestamp) -> Option<Reported> {
    let left = number(headers, "ratelimit-remaining")?;
    let resets_in = from_now(number(headers, "ratelimit-reset")?, now);
    Some(Reported { left: u32::try_from(left).unwrap_or(u32::MAX), resets_in })
}

/// When a retry is allowed: `Retry-After` in seconds or as a date, else the reset of a limit that is used up.
pub(super) fn again_in(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::trim);
    let after = said.and_then(|text| match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        // An HTTP date is one of RFC 2822, in the zone GMT.
        Err(_) => DateTimeParser::new().parse_timestamp(text).ok().map(|at| until(at, now)),
    });
    let reset = || reported(headers, now).filter(|reported| reported.left == 0).map(|reported| reported.resets_in);
    after.or_else(reset).map(|wait| wait.min(LONGEST))
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    let value = headers.get(name).or_else(|| headers.get(format!("x-{name}")))?;
    value.to_str().ok()?.trim().parse().ok()
}

fn from_now(reset: u64, now: Timestamp) -> Duration {
    let wait = if reset < EPOCH_FROM {
        Duration::from_secs(reset)
    } else {
        let at = i64::try_from(reset).ok().and_then(|second| Timestamp::from_second(second).ok());
        at.map(|at| until(at, now)).unwrap_or_default()
    };
    wait.min(LONGEST)
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn limits_are_read_as_providers_write_them() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let limit = |left: &str, reset: &str| {
            let reported = reported(&headers(&[("ratelimit-remaining", left), ("ratelimit-reset", reset)]), now)?;
            Some((reported.left, reported.resets_in.as_secs()))
        };
        assert_eq!(limit("99", "45"), Some((99, 45)), "a number of seconds");
        assert_eq!(limit("0", "1800000030"), Some((0, 30)), "a time");
        assert_eq!(limit("0", "1799999990"), Some((0, 0)), "it is over");
        assert_eq!(limit("0", "1900000000"), Some((0, 3600)), "nobody waits for years");
        let older = headers(&[("x-ratelimit-remaining", "3"), ("x-ratelimit-reset", "1800000030")]);
        assert_eq!(reported(&older, now), Some(Reported { left: 3, resets_in: Duration::from_secs(30) }));
        assert_eq!((limit("many", "3"), limit("3", "soon"), limit("-1", "3")), (None, None, None));

        let again = |all: &[(&'static str, &str)]| again_in(&headers(all), now).map(|wait| wait.as_secs());
        assert_eq!(again(&[("retry-after", "7")]), Some(7));
        assert_eq!(again(&[("retry-after", "Fri, 15 Jan 2027 08:00:20 GMT")]), Some(20));
        assert_eq!(again(&[("retry-after", "Thu, 14 Jan 2027 08:00:20 GMT")]), Some(0));
        assert_eq!(again(&[("retry-after", "later")]), None);
        let used_up = [("ratelimit-remaining", "0"), ("ratelimit-reset", "12")];
        assert_eq!(again(&used_up), Some(12));
        assert_eq!(again(&[("ratelimit-remaining", "3"), ("ratelimit-reset", "12")]), None, "calls are left");
        assert_eq!(again(&[("retry-after", "2"), used_up[0], used_up[1]]), Some(2));
        assert_eq!(again(&[]), None);
    }
}
