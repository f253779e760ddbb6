//! Stops the calls to a failing service for a while, then lets one probe through. Pure: time is an argument.
//!
//! ```text
//! closed ── threshold failures in a row ──► open ── recovery over ──► half-open: one call ──► closed, or open again
//! ```

use std::time::{Duration, Instant};

/// When it opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Failed calls in a row.
    pub threshold: u32,
    pub recovery: Duration,
}

/// How long other calls wait for the probe.
const PROBE_TAKES: Duration = Duration::from_secs(1);

/// How a call is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Usual,
    /// The call closes or opens the breaker; it is sent once.
    Probe,
}

/// The end of a call that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Healthy,
    /// Or unknown, when the caller was dropped.
    Failed,
    /// The call was not sent.
    NotMade,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    Closed,
    Open {
        until: Instant,
    },
    HalfOpen,
}

/// Of one service.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: State,
    failures: u32,
}

impl Breaker {
    /// # Errors
    /// The time until a call is let through.
    pub fn admit(&mut self, now: Instant) -> Result<Admission, Duration> {
        match self.state {
            State::Closed => Ok(Admission::Usual),
            State::Open { until } if now < until => Err(until - now),
            State::Open { .. } => {
                self.state = State::HalfOpen;
                Ok(Admission::Probe)
            }
            State::HalfOpen => Err(PROBE_TAKES),
        }
    }

    pub fn ended(&mut self, admission: Admission, end: End, limits: BreakerLimits, now: Instant) {
        let open = State::Open { until: now + limits.recovery };
        match (admission, self.state, end) {
            (Admission::Probe, _, End::Healthy) => *self = Self::default(),
            (Admission::Probe, _, End::Failed) => self.state = open,
            // The next call is the probe.
            (Admission::Probe, _, End::NotMade) => self.state = State::Open { until: now },
            (Admission::Usual, State::Closed, End::Healthy) => self.failures = 0,
            (Admission::Usual, State::Closed, End::Failed) => {
                self.failures += 1;
                if self.failures >= limits.threshold {
                    self.state = open;
                }
            }
            // The call was sent before the breaker opened.
            (Admission::Usual, _, _) => {}
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Restores the state of an earlier operator process: open for `left` more, though no longer than `limits` say, since a
    /// clock may be wrong. Failures that this process has counted stay.
    pub fn restore(&mut self, left: Duration, limits: BreakerLimits, now: Instant) {
        if self.is_new() {
            self.state = State::Open { until: now + left.min(limits.recovery) };
        }
    }

    /// Equal to a new one.
    pub fn is_new(&self) -> bool {
        self.failures == 0 && self.state == State::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_lets_exactly_one_through_and_closes() {
        let limits = BreakerLimits { threshold: 3, recovery: Duration::from_secs(60) };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::default();
        let fail = |breaker: &mut Breaker, second| {
            let admission = breaker.admit(at(second)).unwrap();
            breaker.ended(admission, End::Failed, limits, at(second));
        };
        fail(&mut breaker, 0);
        fail(&mut breaker, 1);
        breaker.ended(Admission::Usual, End::Healthy, limits, at(2));
        assert!(breaker.is_new(), "a success resets the count");
        (3..6).for_each(|second| fail(&mut breaker, second));
        assert_eq!(breaker.admit(at(6)), Err(Duration::from_secs(59)));
        // Late ends of calls from before it opened change nothing.
        breaker.ended(Admission::Usual, End::Healthy, limits, at(7));
        breaker.ended(Admission::Usual, End::Failed, limits, at(7));
        assert_eq!(breaker.admit(at(64)), Err(Duration::from_secs(1)));

        assert_eq!(breaker.admit(at(65)), Ok(Admission::Probe));
        assert_eq!(breaker.admit(at(65)), Err(PROBE_TAKES), "one, not two");
        breaker.ended(Admission::Probe, End::NotMade, limits, at(65));
        assert_eq!(breaker.admit(at(65)), Ok(Admission::Probe), "the one before was not sent");
        breaker.ended(Admission::Probe, End::Failed, limits, at(66));
        assert_eq!(breaker.admit(at(125)), Err(Duration::from_secs(1)), "open for as long again");
        assert_eq!(breaker.admit(at(126)), Ok(Admission::Probe));
        breaker.ended(Admission::Probe, End::Healthy, limits, at(127));
        assert!(breaker.is_new());
        assert_eq!(breaker.admit(at(127)), Ok(Admission::Usual));
    }

    #[test]
    fn a_breaker_that_an_earlier_process_opened_lets_one_probe_through_in_time() {
        let limits = BreakerLimits { threshold: 3, recovery: Duration::from_secs(60) };
        let now = Instant::now();
        let restored = |seconds| {
            let mut breaker = Breaker::default();
            breaker.restore(Duration::from_secs(seconds), limits, now);
            breaker
        };
        assert_eq!(restored(20).admit(now), Err(Duration::from_secs(20)));
        assert_eq!(restored(7200).admit(now), Err(limits.recovery), "a clock was wrong");
        let mut over = restored(0);
        assert_eq!(over.admit(now), Ok(Admission::Probe), "not a usual call, with its tries");
        assert_eq!(over.admit(now), Err(PROBE_TAKES));
        // Newer state is not overwritten.
        over.restore(Duration::from_secs(20), limits, now);
        assert_eq!(over.state(), State::HalfOpen);
        let mut failed = Breaker::default();
        failed.ended(Admission::Usual, End::Failed, limits, now);
        failed.restore(Duration::from_secs(20), limits, now);
        assert_eq!(failed.state(), State::Closed);
    }
}
