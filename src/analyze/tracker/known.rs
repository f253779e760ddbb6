//! Known good templates, and known bad templates, with which a healthy component became bad.

use jiff::{SignedDuration, Timestamp};

use super::{super::observation::ReleaseId, Tracker};
use crate::api::{KnownBad, KnownGood, Limits};

/// The most known good templates. The rollback target is the newest that does not run, so two would suffice; more give a person
/// a choice.
const MAX_KNOWN_GOOD: usize = 5;
/// The most known bad templates, and known bad contents of configuration.
pub(super) const MAX_KNOWN_BAD: usize = 5;

impl Tracker {
    /// The rollback target: the newest known good template that does not run.
    pub fn rollback_target(&self) -> Option<&KnownGood> {
        let release = self.release.as_ref()?;
        self.known_good.iter().rev().find(|good| good.digest != release.digest)
    }

    pub fn known_good(&self) -> &[KnownGood] {
        &self.known_good
    }

    /// How long this template has not run.
    pub fn idle_for(&self, good: &KnownGood, now: Timestamp) -> SignedDuration {
        let runs = self.release.as_ref().is_some_and(|release| release.digest == good.digest);
        if runs { SignedDuration::ZERO } else { now.duration_since(good.replaced_at.unwrap_or(good.seen_at)) }
    }

    /// A template that is rolled back is not known good, even if it was healthy at first.
    pub(super) fn remember_bad(&mut self, now: Timestamp) {
        let Some(release) = &self.release else { return };
        let (revision, digest) = (release.revision, release.digest.clone());
        self.known_good.retain(|good| good.digest != digest);
        self.snapshots.retain(|kept| kept.template != digest);
        if self.known_bad.iter().any(|bad| bad.digest == digest && bad.seen_at >= release.since) {
            return;
        }
        self.known_bad.retain(|bad| bad.digest != digest);
        push_newest(&mut self.known_bad, KnownBad { revision, digest, seen_at: now }, MAX_KNOWN_BAD);
    }

    /// The digest of a release changed without a release, since its policy tracks more configuration, or less.
    pub(super) fn rename(&mut self, before: &str, now: &str) {
        let release = self.release.iter_mut().map(|release| &mut release.digest);
        let good = self.known_good.iter_mut().map(|good| &mut good.digest);
        let bad = self.known_bad.iter_mut().map(|bad| &mut bad.digest);
        let kept = self.snapshots.iter_mut().map(|kept| &mut kept.template);
        let all = release.chain(good).chain(bad).chain(kept);
        all.filter(|digest| **digest == before).for_each(|digest| now.clone_into(digest));
    }

    pub(super) fn remember_good(&mut self, release: &ReleaseId, now: Timestamp, limits: &Limits) {
        let Some(current) = self.release.as_mut() else { return };
        if current.seen_healthy {
            return;
        }
        // A known bad template has to be healthy for as long as a release is watched.
        let since = self.settled.as_ref().map_or(now, |(since, _)| *since);
        let known_bad = self.known_bad.iter().any(|bad| bad.digest == release.digest);
        if known_bad && now.duration_since(since) < limits.release_watch_for {
            return;
        }
        self.known_bad.retain(|bad| bad.digest != release.digest);
        current.seen_healthy = true;
        self.proven_at = Some(now);
        let earlier =
            self.known_good.iter().position(|good| good.digest == release.digest).map(|at| self.known_good.remove(at));
        let seen_at = earlier.map_or(now, |good| good.seen_at);
        let ReleaseId { revision, hash, digest } = release.clone();
        let good = KnownGood { revision, hash, digest, seen_at, replaced_at: None };
        push_newest(&mut self.known_good, good, MAX_KNOWN_GOOD);
    }
}

/// Appends the newest; removes the oldest when there are more than `most`.
pub(super) fn push_newest<T>(list: &mut Vec<T>, newest: T, most: usize) {
    list.push(newest);
    if list.len() > most {
        list.remove(0);
    }
}
