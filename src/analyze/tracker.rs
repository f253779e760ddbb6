//! Looks in a row: when a component is confirmed bad, when it is healthy again, which templates were seen healthy,
//! and when the next look is due. Pure: the controller keeps one [`Tracker`] a component and feeds it.
//!
//! What must survive a restart ([`Tracker::persisted`]) is kept in the policy's status; the counters start anew,
//! which only ever delays an action.

mod config;
mod known;

pub use config::{GoodState, MAX_SNAPSHOTS};

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    assess::{Assessment, ProblemKind},
    cause::cause,
    observation::{Observation, ReleaseId, Released, TargetState, Workload},
};
use crate::api::{
    Cause, ComponentStatus, ConfigStatus, Episode, HealthStatus, KnownBad, KnownBadConfig, KnownGood, Limits,
    ReleaseStatus, Snapshot,
};

/// How long unspecific evidence against a release that came during an incident is not counted after its rollout:
/// what the metrics still say of the pods before it. Two scrapes at the usual 30 s.
const SETTLE: SignedDuration = SignedDuration::from_secs(60);
/// How long a release is watched closely after it was first seen healthy: metrics lag behind pods. Two scrapes at
/// Prometheus' tightest usual interval, 15 s.
const LATE_EVIDENCE: SignedDuration = SignedDuration::from_secs(30);
/// A first bad metric of a release is asked again this many times a `releaseWatch.every`, to see its next scrape soon.
const CONFIRM_STEPS: u32 = 4;
/// A component in an incident that was seen bad this short ago is still unhealthy, whatever the last look says: a
/// container in a crash loop runs for moments.
const STILL_BAD: SignedDuration = SignedDuration::from_secs(60);
/// A metric that has fallen to this share of what it was is recovering.
const RECOVERING: f64 = 0.9;

/// What one look changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    Good,
    Bad,
    /// Neither: a warning, or old evidence that a newer release must not be blamed for.
    Neutral,
    Unknown,
}

/// One component's memory.
#[derive(Debug, Clone, Default)]
pub struct Tracker {
    release: Option<ReleaseStatus>,
    known_good: Vec<KnownGood>,
    known_bad: Vec<KnownBad>,
    known_bad_config: Vec<KnownBadConfig>,
    config: Option<ConfigStatus>,
    snapshots: Vec<Snapshot>,
    episode: Option<Episode>,
    status: HealthStatus,
    since: Option<Timestamp>,
    bad: u32,
    good: u32,
    /// Good looks in a row with the rollout complete.
    settled_good: u32,
    healthy_since: Option<Timestamp>,
    /// When the release was seen healthy, in this life of the operator.
    proven_at: Option<Timestamp>,
    /// When the rollout was complete, or this was last compared, and what the metrics said then.
    settled: Option<(Timestamp, BTreeMap<String, f64>)>,
    last_check: Option<Timestamp>,
    /// What the metrics above their critical thresholds were at the last look.
    bad_values: BTreeMap<String, f64>,
    /// When those were measured that the last counted look saw above their critical thresholds, where that is known.
    samples: BTreeMap<String, Timestamp>,
    last_bad: Option<Timestamp>,
    /// When a look was last counted as good or bad.
    counted_at: Option<Timestamp>,
    cause: Option<Cause>,
    /// What was seen last may be a fault soon.
    soon: bool,
}

impl Tracker {
    /// The memory as it stands in the status.
    pub fn restore(status: &ComponentStatus) -> Self {
        Self {
            release: status.release.clone(),
            known_good: status.known_good.clone(),
            known_bad: status.known_bad.clone(),
            known_bad_config: status.known_bad_config.clone(),
            config: status.config.clone(),
            snapshots: status.snapshots.clone(),
            episode: status.episode.clone(),
            status: status.status,
            since: status.since,
            ..Self::default()
        }
    }

    /// What has to survive a restart.
    pub fn persist(&self, status: &mut ComponentStatus) {
        status.release.clone_from(&self.release);
        status.known_good.clone_from(&self.known_good);
        status.known_bad.clone_from(&self.known_bad);
        status.known_bad_config.clone_from(&self.known_bad_config);
        status.config.clone_from(&self.config);
        status.snapshots.clone_from(&self.snapshots);
        status.episode.clone_from(&self.episode);
        status.status = self.status;
        status.since = self.since;
    }

    /// Takes one look into account.
    pub fn record(&mut self, observation: &Observation, assessment: &Assessment, limits: &Limits) -> Evidence {
        let now = observation.at;
        let target = observation.target.known();
        self.soon = target.is_some_and(TargetState::may_be_fault);
        let workload = target.and_then(|target| target.workload());
        let released = target.and_then(|target| target.released());
        if let (Some(target), Some(released)) = (target, released) {
            self.follow_release(released.id, now);
            self.follow_config(target, now);
            self.follow_rollout(released, observation, now);
        }
        let evidence = self.weigh(assessment, released, workload, now);
        if evidence == Evidence::Neutral && assessment.is_bad() {
            self.settle_again(observation);
        }
        let values = metric_values(assessment);
        let new_sample =
            values.iter().any(|(name, value)| self.bad_values.get(name).is_some_and(|before| before != value));
        self.bad_values = values;
        let samples = samples(observation, &self.bad_values);
        self.count(evidence, now, limits, new_sample, self.repeats(assessment, &samples));
        if self.counted_at == Some(now) {
            self.samples = samples;
        }
        if self.status != assessment.status || self.since.is_none() {
            self.status = assessment.status;
            self.since = Some(now);
        }
        self.cause = assessment.is_bad().then(|| self.cause_of(assessment, target, limits, now));
        if self.bad >= limits.unhealthy_after && self.episode.is_none() {
            let id = format!("{:x}", now.as_millisecond());
            let cause = self.cause.unwrap_or(Cause::Unknown);
            self.episode = Some(Episode { id, started_at: now, cause });
        }
        match self.cause.filter(|_| self.is_confirmed_bad(limits)) {
            Some(Cause::ReleaseRegression) => self.remember_bad(now),
            Some(Cause::ConfigRegression) => self.remember_bad_config(now),
            _ => {}
        }
        // While a rollout is stuck the old pods may serve well between two crashes of the new ones: not over yet.
        if self.good >= limits.healthy_after && (released.is_none() || self.settled.is_some()) {
            self.episode = None;
        }
        let proven = self.settled_good >= limits.healthy_after && assessment.status == HealthStatus::Healthy;
        if let (Some(target), Some(released)) = (target, released.filter(|released| proven && released.runs)) {
            self.remember_good(released.id, now, limits);
            self.prove_config(target, now, limits);
        }
        self.last_check = Some(now);
        evidence
    }

    /// Confirmed: enough bad looks in a row, without an unknown between.
    pub fn is_confirmed_bad(&self, limits: &Limits) -> bool {
        self.bad >= limits.unhealthy_after && self.episode.is_some()
    }

    /// Bad at `now`: confirmed, or in an incident and seen bad only just now.
    pub fn is_unhealthy(&self, limits: &Limits, now: Timestamp) -> bool {
        let seen_bad = self.last_bad.is_some_and(|at| now.duration_since(at) < STILL_BAD);
        self.is_confirmed_bad(limits) || (self.episode.is_some() && seen_bad)
    }

    /// The last look was bad, and it takes more of them to be sure.
    pub fn is_suspect(&self, limits: &Limits) -> bool {
        self.bad > 0 && self.bad < limits.unhealthy_after
    }

    /// When the next look is due, counted from the last one.
    pub fn next_check(&self, limits: &Limits, interval: Duration) -> Duration {
        let mut wait = interval;
        if self.watches_release(limits) {
            wait = wait.min(limits.release_watch_every);
        }
        let unconfirmed = self.bad > 0 && self.bad < limits.unhealthy_after;
        let recovering = self.episode.is_some() && self.good > 0;
        if unconfirmed || recovering || self.soon {
            wait = wait.min(limits.confirm_after);
        }
        // Of a source that tells when it measured the next sample is known by that, and not by looking often.
        let scraped = self.bad_values.keys().any(|name| !self.samples.contains_key(name));
        if unconfirmed && scraped && self.watches_release(limits) {
            wait = wait.min(limits.release_watch_every / CONFIRM_STEPS);
        }
        wait
    }

    /// A template change is recent, and its release was not yet seen healthy for long enough.
    pub fn watches_release(&self, limits: &Limits) -> bool {
        let (Some(release), Some(now)) = (&self.release, self.last_check) else { return false };
        let young = now.duration_since(release.since) < limits.release_watch_for;
        let settled = release.seen_healthy && self.proven_at.is_none_or(|at| now.duration_since(at) >= LATE_EVIDENCE);
        (young && !settled) || self.config_unproven(now, limits)
    }

    /// The newest template was not yet seen healthy: one faulty pod of it is enough to call it bad.
    pub fn release_unproven(&self, newest: Option<&ReleaseId>) -> bool {
        match (&self.release, newest) {
            (Some(release), Some(newest)) => {
                let known_good = self.known_good.iter().any(|good| good.digest == newest.digest);
                !known_good && (release.hash != newest.hash || !release.seen_healthy)
            }
            _ => false,
        }
    }

    pub fn release(&self) -> Option<&ReleaseStatus> {
        self.release.as_ref()
    }

    pub fn episode(&self) -> Option<&Episode> {
        self.episode.as_ref()
    }

    pub fn status(&self) -> HealthStatus {
        self.status
    }

    /// Since when it has the status it has.
    pub fn status_changed_at(&self) -> Option<Timestamp> {
        self.since
    }

    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Healthy without a break since; none while it is not.
    pub fn healthy_since(&self) -> Option<Timestamp> {
        self.healthy_since
    }

    /// The rollout has been complete since; none while it is not, or for a target that has none.
    pub fn settled_since(&self) -> Option<Timestamp> {
        self.settled.as_ref().map(|(since, _)| *since)
    }

    pub fn last_check(&self) -> Option<Timestamp> {
        self.last_check
    }

    fn follow_release(&mut self, newest: &ReleaseId, now: Timestamp) {
        let Some(old) = &self.release else {
            self.release = Some(ReleaseStatus {
                revision: newest.revision,
                hash: newest.hash.clone(),
                digest: newest.digest.clone(),
                since: now,
                seen_healthy: false,
                came_during_incident: false,
                previous_digest: None,
            });
            return;
        };
        if old.hash == newest.hash {
            if old.digest != newest.digest {
                let before = old.digest.clone();
                self.rename(&before, &newest.digest);
            }
            return;
        }
        let incident = self.episode.is_some()
            || self.bad > 0
            || matches!(self.status, HealthStatus::Unhealthy | HealthStatus::Critical);
        let same_content = old.digest == newest.digest;
        for good in &mut self.known_good {
            // One that was replaced before keeps its time.
            let runs = good.digest == newest.digest;
            good.replaced_at = if runs { None } else { good.replaced_at.or(Some(now)) };
        }
        let back_to_good = self.known_good.iter().any(|good| good.digest == newest.digest);
        self.release = Some(ReleaseStatus {
            revision: newest.revision,
            hash: newest.hash.clone(),
            digest: newest.digest.clone(),
            since: now,
            seen_healthy: false,
            came_during_incident: incident,
            // A restart during an incident that began with this very template says nothing against the one before it.
            previous_digest: if same_content {
                old.previous_digest.clone().filter(|_| old.came_during_incident)
            } else {
                Some(old.digest.clone())
            },
        });
        self.settled = None;
        self.settled_good = 0;
        self.proven_at = None;
        self.bad = 0;
        self.good = 0;
        // A template never seen before is a new story: what was open concerned the one before it. A restart of the
        // same template, or the way back to a good one, is part of the story.
        if !same_content && !back_to_good {
            self.episode = None;
        }
    }

    fn follow_rollout(&mut self, released: Released<'_>, observation: &Observation, now: Timestamp) {
        if !released.complete {
            self.settled = None;
            self.settled_good = 0;
        } else if self.settled.is_none() {
            self.settled = Some((now, known_values(observation)));
        }
    }

    /// What fell during one [`SETTLE`] has to fall on during the next: a release that is better than the one before
    /// it, and still bad, is not excused for ever.
    fn settle_again(&mut self, observation: &Observation) {
        if self.settled.as_ref().is_some_and(|(at, _)| observation.at.duration_since(*at) >= SETTLE) {
            self.settled = Some((observation.at, known_values(observation)));
        }
    }

    fn weigh(
        &self,
        assessment: &Assessment,
        released: Option<Released<'_>>,
        workload: Option<&Workload>,
        now: Timestamp,
    ) -> Evidence {
        match assessment.status {
            HealthStatus::Unknown => Evidence::Unknown,
            HealthStatus::Healthy => Evidence::Good,
            HealthStatus::Degraded => Evidence::Neutral,
            // Bad metrics of what cannot be looked at (forbidden, not settled): of which release they are is unknown.
            _ if released.is_none() && self.release.is_some() => Evidence::Unknown,
            // Kubernetes moves the pods of a lost node by itself; bad metrics meanwhile say nothing about the workload.
            _ if workload.is_some_and(|workload| workload.on_lost_nodes > 0)
                && assessment.critical().all(|problem| problem.value.is_some()) =>
            {
                Evidence::Neutral
            }
            HealthStatus::Unhealthy | HealthStatus::Critical => {
                if released.is_some() && !self.may_blame(assessment, now) { Evidence::Neutral } else { Evidence::Bad }
            }
        }
    }

    /// A release that came while the component was bad is only blamed for what its own pods show, or for what is
    /// still there when its rollout has been complete for [`SETTLE`] and is not falling.
    fn may_blame(&self, assessment: &Assessment, now: Timestamp) -> bool {
        let Some(release) = &self.release else { return true };
        if !release.came_during_incident
            || release.seen_healthy
            || assessment.critical().any(|problem| problem.of_release)
        {
            return true;
        }
        let Some((settled_at, then)) = &self.settled else { return false };
        if now.duration_since(*settled_at) < SETTLE {
            return false;
        }
        assessment.critical().any(|problem| match (&problem.kind, problem.value) {
            (ProblemKind::Metric(name), Some(value)) => {
                then.get(name).is_none_or(|before| value >= before * RECOVERING)
            }
            _ => true,
        })
    }

    fn cause_of(
        &self,
        assessment: &Assessment,
        target: Option<&TargetState>,
        limits: &Limits,
        now: Timestamp,
    ) -> Cause {
        // Configuration is blamed only beside a template that was healthy before it changed: that is the newer change.
        if self.is_config_regression(assessment, target, limits, now) {
            Cause::ConfigRegression
        } else if self.is_regression(assessment, limits, now) {
            Cause::ReleaseRegression
        } else {
            cause(assessment)
        }
    }

    fn is_regression(&self, assessment: &Assessment, limits: &Limits, now: Timestamp) -> bool {
        let (Some(release), Some(target)) = (&self.release, self.rollback_target()) else { return false };
        // Seen healthy before this rollout of it: it is a known good template, brought back or restarted.
        let proven_before =
            self.known_good.iter().any(|good| good.digest == release.digest && good.seen_at < release.since);
        if proven_before {
            return false;
        }
        let young = now.duration_since(release.since) <= limits.release_watch_for;
        let specific = assessment.critical().any(|problem| problem.of_release && problem.value.is_none());
        // The good template was bad itself right before: going back to it would heal nothing. Only what its pods
        // themselves show (a crash, not a metric) is the new template's own.
        let good_was_bad_too =
            release.came_during_incident && release.previous_digest.as_deref() == Some(target.digest.as_str());
        (young || !release.seen_healthy) && (specific || !good_was_bad_too)
    }

    /// All that is critical are samples that were counted before: seen twice, measured once.
    fn repeats(&self, assessment: &Assessment, samples: &BTreeMap<String, Timestamp>) -> bool {
        assessment.critical().all(|problem| match &problem.kind {
            ProblemKind::Metric(name) => samples.get(name).is_some_and(|at| self.samples.get(name) == Some(at)),
            _ => false,
        })
    }

    /// A change wakes a look at any moment; looks that follow each other faster than they are meant to are one
    /// look, or a burst of events would confirm itself, and so would a sample that `repeats`. During a release a bad
    /// metric that has another value than before was measured anew, and that is a second look however soon it comes.
    fn count(&mut self, evidence: Evidence, now: Timestamp, limits: &Limits, new_sample: bool, repeats: bool) {
        let watching = self.watches_release(limits);
        let meant = if watching { limits.release_watch_every.min(limits.confirm_after) } else { limits.confirm_after };
        let spaced = self.counted_at.is_none_or(|at| now.duration_since(at).unsigned_abs() >= meant.mul_f64(0.9));
        let bad = evidence == Evidence::Bad;
        let counts = (spaced && !(bad && repeats)) || (watching && new_sample && bad);
        let step = u32::from(counts);
        if counts {
            self.counted_at = Some(now);
        }
        match evidence {
            Evidence::Good => {
                if self.good == 0 {
                    self.counted_at = Some(now);
                }
                self.good = self.good.saturating_add(if self.good == 0 { 1 } else { step });
                self.bad = 0;
                self.healthy_since.get_or_insert(now);
                if self.settled.is_some() {
                    self.settled_good = self.settled_good.saturating_add(if self.settled_good == 0 { 1 } else { step });
                }
            }
            Evidence::Bad => {
                if self.bad == 0 {
                    self.counted_at = Some(now);
                }
                self.bad = self.bad.saturating_add(if self.bad == 0 { 1 } else { step });
                self.good = 0;
                self.settled_good = 0;
                self.healthy_since = None;
                self.last_bad = Some(now);
            }
            Evidence::Neutral | Evidence::Unknown => {
                self.bad = 0;
                self.good = 0;
                self.settled_good = 0;
                self.healthy_since = None;
            }
        }
    }
}

fn known_values(observation: &Observation) -> BTreeMap<String, f64> {
    let values = observation.metrics.iter();
    values.filter_map(|(name, reading)| reading.value.known().map(|value| (name.clone(), *value))).collect()
}

/// The metrics above their critical thresholds.
fn metric_values(assessment: &Assessment) -> BTreeMap<String, f64> {
    let values = assessment.critical().filter_map(|problem| match (&problem.kind, problem.value) {
        (ProblemKind::Metric(name), Some(value)) => Some((name.clone(), value)),
        _ => None,
    });
    values.collect()
}

/// When these metrics were measured, as far as their sources tell.
fn samples(observation: &Observation, of: &BTreeMap<String, f64>) -> BTreeMap<String, Timestamp> {
    let at = |name: &String| Some((name.clone(), observation.metrics.get(name)?.sample.as_ref()?.at));
    of.keys().filter_map(at).collect()
}

#[cfg(test)]
mod hosted_tests;
#[cfg(test)]
mod tests;
