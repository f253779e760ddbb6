//! Which calls are repeated, and when. Pure.

use std::time::Duration;

use super::{call::Repeat, error::Failure};

/// A call is sent at most so many times.
pub(super) const TRIES: u32 = 3;
/// The longest wait before the second try; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// At a limit that does not say when it resets.
const LIMITED_WAIT: Duration = Duration::from_secs(1);

/// The wait before the next try; none: no retry. `random`: 0 to 1, so that calls that failed together are not repeated
/// together (full jitter).
pub(super) fn wait_before_next(kind: &Failure, repeat: Repeat, tries: u32, random: f64) -> Option<Duration> {
    if tries >= TRIES || !is_worth_it(kind, repeat) {
        return None;
    }
    let grown = |first: Duration| first * 2_u32.pow(tries.saturating_sub(1));
    match kind {
        Failure::Status { after: Some(after), .. } => Some(*after),
        limited if limited.is_limit() => Some(grown(LIMITED_WAIT).mul_f64(0.5 + 0.5 * random)),
        _ => Some(grown(FIRST_WAIT).mul_f64(random)),
    }
}

fn is_worth_it(kind: &Failure, repeat: Repeat) -> bool {
    match kind {
        // Nothing was done, and that may pass.
        Failure::Unreachable(_) => true,
        limited if limited.is_limit() => true,
        Failure::Broken(_) | Failure::Timeout(_) | Failure::Status { status: 500 | 502..=504, .. } => {
            repeat == Repeat::Always
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_may_have_had_an_effect_is_not_repeated() {
        let status = |status| Failure::Status { status, said: String::new(), after: None };
        let broken = || Failure::Broken("reset".into());
        let sent_again = |kind: &Failure, repeat| wait_before_next(kind, repeat, 1, 0.5).is_some();
        for kind in [Failure::Unreachable("refused".into()), status(429)] {
            assert!(sent_again(&kind, Repeat::Always) && sent_again(&kind, Repeat::IfNotDone), "{kind}");
        }
        for kind in
            [broken(), Failure::Timeout(Duration::from_secs(1)), status(500), status(502), status(503), status(504)]
        {
            assert!(sent_again(&kind, Repeat::Always) && !sent_again(&kind, Repeat::IfNotDone), "{kind}");
            assert!(!kind.not_done(), "{kind}");
        }
        for status in [301, 400, 401, 402, 403, 404, 409, 501].map(status) {
            assert!(!sent_again(&status, Repeat::Always), "{status}");
        }
        assert!(!sent_again(&Failure::BadAnswer { status: 200, why: "it is HTML".into() }, Repeat::Always));
    }

    #[test]
    fn waits_grow_are_spread_and_end() {
        let wait = |tries, random| wait_before_next(&Failure::Broken("reset".into()), Repeat::Always, tries, random);
        assert_eq!((wait(1, 0.0), wait(1, 1.0)), (Some(Duration::ZERO), Some(Duration::from_millis(200))));
        assert_eq!((wait(2, 1.0), wait(3, 1.0)), (Some(Duration::from_millis(400)), None));
        let limited = |after| Failure::Status { status: 429, said: String::new(), after };
        let reported = limited(Some(Duration::from_secs(9)));
        assert_eq!(wait_before_next(&reported, Repeat::IfNotDone, 1, 0.1), Some(Duration::from_secs(9)));
        let silent = wait_before_next(&limited(None), Repeat::IfNotDone, 2, 0.0);
        assert_eq!(silent, Some(Duration::from_secs(1)));
    }
}
