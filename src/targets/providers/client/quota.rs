//! How many calls may be sent under one credential. Pure: time is an argument.
//!
//! Every call that was sent is remembered until it has left the window, so that no window of that length holds more than the
//! quota. A token bucket (as of the crate `governor`) would let nearly twice as many through in a window, and has no input for
//! a header that reports the calls of others with the credential.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::headers::Reported;

/// So many calls in any window of this length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Calls of the same name share the quota: "GET", "deploy srv-1".
    pub name: String,
    pub calls: u32,
    pub per: Duration,
    /// Responses 304 (unchanged) do not count.
    pub spares_unchanged: bool,
}

impl Quota {
    pub fn new(name: impl Into<String>, calls: u32, per: Duration) -> Self {
        Self { name: name.into(), calls, per, spares_unchanged: false }
    }
}

/// Requests do not arrive evenly: two that were sent a window apart may arrive within one.
const MARGIN: Duration = Duration::from_secs(1);
/// Windows that are remembered before those without content are removed.
const MANY: usize = 256;

/// Identifies a credential and does not reveal it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credential([u8; 32]);

impl Credential {
    pub fn of(token: &SecretString) -> Self {
        Self(Sha256::digest(token.expose_secret().as_bytes()).into())
    }
}

#[derive(Debug, Default)]
struct Window {
    sent: VecDeque<Instant>,
    /// Calls without a response yet.
    in_flight: u32,
    /// The provider's report: calls that are left, until that time.
    reported: Option<(u32, Instant)>,
}

impl Window {
    fn forget(&mut self, quota: &Quota, now: Instant) {
        let length = quota.per + MARGIN;
        while self.sent.front().is_some_and(|at| now.saturating_duration_since(*at) >= length) {
            self.sent.pop_front();
        }
        self.reported = self.reported.filter(|(_, until)| now < *until);
    }

    /// How long until one more may be sent.
    fn wait(&self, quota: &Quota, now: Instant) -> Duration {
        let length = quota.per + MARGIN;
        let by_count = match self.sent.front() {
            _ if self.sent.len() < quota.calls as usize => Duration::ZERO,
            Some(oldest) => length.saturating_sub(now.saturating_duration_since(*oldest)),
            None => quota.per,
        };
        let by_report = match self.reported {
            Some((0, until)) => until.saturating_duration_since(now),
            _ => Duration::ZERO,
        };
        by_count.max(by_report)
    }

    fn take(&mut self, now: Instant) {
        self.sent.push_back(now);
        self.in_flight += 1;
        if let Some((left, _)) = &mut self.reported {
            *left = left.saturating_sub(1);
        }
    }

    /// A response was 304: the provider has not counted the call, nor does the quota where it says so. The call that was sent
    /// last is forgotten: an error about which call it was is less than [`MARGIN`].
    fn unchanged(&mut self, quota: &Quota) {
        if quota.spares_unchanged {
            self.sent.pop_back();
        }
        if let Some((left, _)) = &mut self.reported {
            *left = left.saturating_add(1);
        }
    }

    fn report(&mut self, reported: Reported, now: Instant) {
        // Calls under way may not be in the provider's count yet.
        let left = reported.left.saturating_sub(self.in_flight);
        let until = now + reported.resets_in;
        self.reported = match self.reported {
            // Responses overtake each other: of one window the least counts.
            Some((before, old)) if until <= old + MARGIN && old <= until + MARGIN => {
                Some((left.min(before), until.max(old)))
            }
            _ => Some((left, until)),
        };
    }

    fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.in_flight == 0 && self.reported.is_none()
    }
}

/// Of all credentials.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    windows: HashMap<(Credential, String), (Quota, Window)>,
}

impl Quotas {
    /// Counts a call, if it may be sent now under all its quotas.
    ///
    /// # Errors
    /// The time until a retry.
    pub fn take(&mut self, credential: Credential, quotas: &[Quota], now: Instant) -> Result<(), Duration> {
        if self.windows.len() > MANY {
            self.windows.values_mut().for_each(|(quota, window)| window.forget(quota, now));
            self.windows.retain(|_, (_, window)| !window.is_empty());
        }
        let mut wait = Duration::ZERO;
        for quota in quotas {
            let window = self.window(credential, quota);
            window.forget(quota, now);
            wait = wait.max(window.wait(quota, now));
        }
        if wait > Duration::ZERO {
            return Err(wait);
        }
        quotas.iter().for_each(|quota| self.window(credential, quota).take(now));
        Ok(())
    }

    /// The call has ended; `reported`: the limit by its response; `unchanged`: the response was 304.
    pub fn ended(
        &mut self,
        credential: Credential,
        quotas: &[Quota],
        (reported, unchanged): (Option<Reported>, bool),
        now: Instant,
    ) {
        for quota in quotas {
            let window = self.window(credential, quota);
            window.in_flight = window.in_flight.saturating_sub(1);
            if unchanged {
                window.unchanged(quota);
            }
            if let Some(reported) = reported {
                window.report(reported, now);
            }
        }
    }

    fn window(&mut self, credential: Credential, quota: &Quota) -> &mut Window {
        let key = (credential, quota.name.clone());
        &mut self.windows.entry(key).or_insert_with(|| (quota.clone(), Window::default())).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(name: &str, calls: u32) -> Quota {
        Quota { name: name.into(), calls, per: Duration::from_secs(60), spares_unchanged: false }
    }

    fn credential(token: &str) -> Credential {
        Credential::of(&SecretString::from(token.to_owned()))
    }

    /// Asks every 100 ms for ten minutes; when calls were sent, in tenths of a second.
    fn sent(quotas: &mut Quotas, limits: &[Quota], start: Instant) -> Vec<u64> {
        let mut sent = Vec::new();
        for tenth in 0..6000 {
            let now = start + Duration::from_millis(100 * tenth);
            if quotas.take(credential("a"), limits, now).is_ok() {
                quotas.ended(credential("a"), limits, (None, false), now);
                sent.push(tenth);
            }
        }
        sent
    }

    #[test]
    fn no_window_holds_more_than_the_quota() {
        let start = Instant::now();
        for calls in [1, 10, 30, 400] {
            let sent = sent(&mut Quotas::default(), &[quota("GET", calls)], start);
            let fullest = sent.iter().map(|from| sent.iter().filter(|at| (*from..from + 600).contains(at)).count());
            assert_eq!(fullest.max(), Some(calls as usize));
            assert!(sent.len() >= 9 * calls as usize, "{calls}: {} were sent in ten minutes", sent.len());
        }
        // Of two quotas the tighter one holds.
        let sent = sent(&mut Quotas::default(), &[quota("write", 30), quota("deploy srv-1", 2)], start);
        assert_eq!(sent.iter().filter(|at| **at < 600).count(), 2);
    }

    #[test]
    fn credentials_and_services_have_separate_quotas() {
        let (mut quotas, now) = (Quotas::default(), Instant::now());
        let one = [quota("deploy srv-1", 1)];
        assert_eq!(quotas.take(credential("a"), &one, now), Ok(()));
        assert_eq!(quotas.take(credential("a"), &one, now), Err(Duration::from_secs(61)));
        assert_eq!(quotas.take(credential("a"), &[quota("deploy srv-2", 1)], now), Ok(()));
        assert_eq!(quotas.take(credential("b"), &one, now), Ok(()));
        // What one of two refuses is not counted by the other.
        let both = [quota("write", 1), quota("deploy srv-1", 1)];
        assert!(quotas.take(credential("a"), &both, now).is_err());
        assert_eq!(quotas.take(credential("a"), &[quota("write", 1)], now), Ok(()));
    }

    #[test]
    fn the_report_of_the_provider_counts_when_it_is_less() {
        let (mut quotas, start) = (Quotas::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (key, get) = (credential("a"), [quota("GET", 400)]);
        let reported = |left, seconds| Some(Reported { left, resets_in: Duration::from_secs(seconds) });
        assert_eq!(quotas.take(key, &get, at(0)), Ok(()));
        assert_eq!(quotas.take(key, &get, at(0)), Ok(()));
        // Others use the key: three are left, and one of them is on its way.
        quotas.ended(key, &get, (reported(3, 30), false), at(1));
        assert_eq!(quotas.take(key, &get, at(1)), Ok(()));
        // A late response does not add calls.
        quotas.ended(key, &get, (reported(9, 30), false), at(1));
        assert_eq!(quotas.take(key, &get, at(1)), Ok(()));
        assert_eq!(quotas.take(key, &get, at(2)), Err(Duration::from_secs(29)));
        assert_eq!(quotas.take(key, &get, at(31)), Ok(()), "a new window has begun");
        // Used up, by a response 429; and free again sooner than reported before.
        quotas.ended(key, &get, (reported(20, 60), false), at(31));
        quotas.ended(key, &get, (reported(0, 5), false), at(31));
        assert_eq!(quotas.take(key, &get, at(32)), Err(Duration::from_secs(4)));
    }

    #[test]
    fn unchanged_responses_count_only_where_the_quota_says_so() {
        let (mut quotas, now) = (Quotas::default(), Instant::now());
        let [hour, minute] = [("core", true), ("points", false)].map(|(name, spares_unchanged)| {
            let calls = if spares_unchanged { 2 } else { 5 };
            Quota { spares_unchanged, ..quota(name, calls) }
        });
        let (both, key) = ([hour.clone(), minute], credential("a"));
        let reported = Some(Reported { left: 1, resets_in: Duration::from_secs(60) });
        for _ in 0..4 {
            assert_eq!(quotas.take(key, &both, now), Ok(()));
            quotas.ended(key, &both, (reported, true), now);
        }
        assert_eq!(quotas.take(key, &[hour], now), Ok(()), "none of them counted");
        assert!(quotas.take(key, &both, now).is_err(), "the fifth is the last here, and the first there");
    }

    #[test]
    fn past_windows_are_forgotten() {
        let (mut quotas, start) = (Quotas::default(), Instant::now());
        for service in 0..1000 {
            let now = start + Duration::from_secs(service);
            let limits = [quota(&format!("deploy srv-{service}"), 10)];
            quotas.take(credential("a"), &limits, now).unwrap();
            quotas.ended(credential("a"), &limits, (None, false), now);
            assert!(quotas.windows.len() <= MANY + 1);
        }
    }
}
