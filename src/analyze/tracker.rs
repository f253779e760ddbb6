//! Consecutive checks: when a component is confirmed bad, when it is healthy again, which templates were healthy, and when the
//! next check is due. Pure: the controller keeps one [`Tracker`] per component and feeds it.
//!
//! The state that must survive a restart ([`Tracker::persist`]) is stored in the policy's status; the counters start again from
//! zero, which can only delay an action.

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

/// For this long after the rollout of a release during an incident, unspecific evidence does not count against the release:
/// metrics still show the pods before it. Two scrapes at the usual 30 s.
const SETTLE: SignedDuration = SignedDuration::from_secs(60);
/// How long a release is watched after it was first healthy, since metrics lag behind pods. Two scrapes at Prometheus' shortest
/// usual interval, 15 s.
const LATE_EVIDENCE: SignedDuration = SignedDuration::from_secs(30);
/// After a first bad metric of a release, this many checks follow per `releaseWatch.every`, to detect its next scrape early.
const CONFIRM_STEPS: u32 = 4;
/// A component in an incident that was bad within this time is still unhealthy, whatever the last check shows: a container in a
/// crash loop runs for moments.
const STILL_BAD: SignedDuration = SignedDuration::from_secs(60);
/// A metric that has fallen to this share of its earlier value is recovering.
const RECOVERING: f64 = 0.9;

/// The evidence of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    Good,
    Bad,
    /// Neither: a warning, or old evidence that a newer release has not caused.
    Neutral,
    Unknown,
}

/// The state of one component over its checks.
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
    /// Consecutive good checks with the rollout complete.
    settled_good: u32,
    healthy_since: Option<Timestamp>,
    /// When the release was first healthy, since the start of the operator.
    proven_at: Option<Timestamp>,
    /// When the rollout was complete, or its metrics were last compared, and the values of the metrics at that time.
    settled: Option<(Timestamp, BTreeMap<String, f64>)>,
    last_check: Option<Timestamp>,
    /// The metrics above their critical thresholds at the last check, with their values.
    bad_values: BTreeMap<String, f64>,
    /// When the critical metrics of the last counted check were measured, where the time is known.
    samples: BTreeMap<String, Timestamp>,
    last_bad: Option<Timestamp>,
    /// When a check was last counted as good or bad.
    counted_at: Option<Timestamp>,
    cause: Option<Cause>,
    /// The last state may become a fault soon.
    soon: bool,
}

impl Tracker {
    /// The state stored in the status.
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

    /// Stores the state that has to survive a restart.
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

    /// Takes one check into account.
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
        // While a rollout is stuck, the old pods may serve between two crashes of the new pods: the incident is not over.
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

    /// Confirmed: enough consecutive bad checks, without an unknown check between them.
    pub fn is_confirmed_bad(&self, limits: &Limits) -> bool {
        self.bad >= limits.unhealthy_after && self.episode.is_some()
    }

    /// Unhealthy at `now`: confirmed, or in an incident and bad within [`STILL_BAD`].
    pub fn is_unhealthy(&self, limits: &Limits, now: Timestamp) -> bool {
        let just_now = self.last_bad.is_some_and(|at| now.duration_since(at) < STILL_BAD);
        self.is_confirmed_bad(limits) || (self.episode.is_some() && just_now)
    }

    /// The last check was bad, and more bad checks are needed to confirm it.
    pub fn is_suspect(&self, limits: &Limits) -> bool {
        self.bad > 0 && self.bad < limits.unhealthy_after
    }

    /// The time from the last check to the next one.
    pub fn next_check(&self, limits: &Limits, interval: Duration) -> Duration {
        let mut wait = interval;
        if self.watches_release(limits) {
            wait = wait.min(limits.release_watch_every);
        }
        let unconfirmed = self.is_suspect(limits);
        let recovering = self.episode.is_some() && self.good > 0;
        if unconfirmed || recovering || self.soon {
            wait = wait.min(limits.confirm_after);
        }
        // A source that reports the time of a measurement needs no frequent checks to detect the next sample.
        let scraped = self.bad_values.keys().any(|name| !self.samples.contains_key(name));
        if unconfirmed && scraped && self.watches_release(limits) {
            wait = wait.min(limits.release_watch_every / CONFIRM_STEPS);
        }
        wait
    }

    /// A template change is recent, and its release has not been healthy for long enough.
    pub fn watches_release(&self, limits: &Limits) -> bool {
        let (Some(release), Some(now)) = (&self.release, self.last_check) else { return false };
        let young = now.duration_since(release.since) < limits.release_watch_for;
        let settled = release.seen_healthy && self.proven_at.is_none_or(|at| now.duration_since(at) >= LATE_EVIDENCE);
        (young && !settled) || self.config_unproven(now, limits)
    }

    /// The newest template has not been healthy yet: one faulty pod of it is enough to make it bad.
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

    /// Since when the component has its status.
    pub fn status_changed_at(&self) -> Option<Timestamp> {
        self.since
    }

    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Since when the component is healthy without interruption; none while it is not.
    pub fn healthy_since(&self) -> Option<Timestamp> {
        self.healthy_since
    }

    /// Since when the rollout is complete; none while it is not, or for a target without rollouts.
    pub fn settled_since(&self) -> Option<Timestamp> {
        self.settled.as_ref().map(|(since, _)| *since)
    }

    pub fn last_check(&self) -> Option<Timestamp> {
        self.last_check
    }

    fn follow_release(&mut self, newest: &ReleaseId, now: Timestamp) {
        let released = |came_during_incident, previous_digest| ReleaseStatus {
            revision: newest.revision,
            hash: newest.hash.clone(),
            digest: newest.digest.clone(),
            since: now,
            seen_healthy: false,
            came_during_incident,
            previous_digest,
        };
        let Some(old) = &self.release else {
            self.release = Some(released(false, None));
            return;
        };
        if old.hash == newest.hash {
            if old.digest != newest.digest {
                let before = old.digest.clone();
                self.rename(&before, &newest.digest);
            }
            return;
        }
        let incident = self.in_trouble();
        let same_content = old.digest == newest.digest;
        for good in &mut self.known_good {
            // A template that was replaced before keeps its time.
            let runs = good.digest == newest.digest;
            good.replaced_at = if runs { None } else { good.replaced_at.or(Some(now)) };
        }
        let back_to_good = self.known_good.iter().any(|good| good.digest == newest.digest);
        // A restart during an incident that began with this same template is no evidence against the template before it.
        let previous = match same_content {
            true => old.previous_digest.clone().filter(|_| old.came_during_incident),
            false => Some(old.digest.clone()),
        };
        self.release = Some(released(incident, previous));
        (self.settled, self.proven_at) = (None, None);
        (self.bad, self.good, self.settled_good) = (0, 0, 0);
        // A new template ends the incident, which concerned the template before. A restart of the same template, or a
        // rollback to a good one, is part of the incident.
        if !same_content && !back_to_good {
            self.episode = None;
        }
    }

    /// An incident is open, or about to be.
    fn in_trouble(&self) -> bool {
        let unhealthy = matches!(self.status, HealthStatus::Unhealthy | HealthStatus::Critical);
        self.episode.is_some() || self.bad > 0 || unhealthy
    }

    fn follow_rollout(&mut self, released: Released<'_>, observation: &Observation, now: Timestamp) {
        if !released.complete {
            self.settled = None;
            self.settled_good = 0;
        } else if self.settled.is_none() {
            self.settled = Some((now, known_values(observation)));
        }
    }

    /// A metric that fell during one [`SETTLE`] has to keep falling during the next one: a release that is better than the one
    /// before, and still bad, counts as bad in the end.
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
            // Bad metrics of a target that cannot be checked (forbidden, not settled): their release is unknown.
            _ if released.is_none() && self.release.is_some() => Evidence::Unknown,
            // Kubernetes replaces the pods of a lost node automatically; bad metrics in the meantime do not count.
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

    /// A release during an incident is blamed only for faults of its own pods, or for a metric that is still bad and not falling
    /// when the rollout has been complete for [`SETTLE`].
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
        // Configuration is blamed only when the template was healthy before the change: then it is the newer change.
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
        // Healthy before this rollout: a known good template that was restored or restarted.
        let proven_before =
            self.known_good.iter().any(|good| good.digest == release.digest && good.seen_at < release.since);
        if proven_before {
            return false;
        }
        let young = now.duration_since(release.since) <= limits.release_watch_for;
        let specific = assessment.critical().any(|problem| problem.of_release && problem.value.is_none());
        // The good template was bad itself just before: a rollback to it would not help. Only a fault of the pods themselves (a
        // crash, not a metric) is caused by the new template.
        let good_was_bad_too =
            release.came_during_incident && release.previous_digest.as_deref() == Some(target.digest.as_str());
        (young || !release.seen_healthy) && (specific || !good_was_bad_too)
    }

    /// All critical problems are samples that were counted before: read twice, measured once.
    fn repeats(&self, assessment: &Assessment, samples: &BTreeMap<String, Timestamp>) -> bool {
        assessment.critical().all(|problem| match &problem.kind {
            ProblemKind::Metric(name) => samples.get(name).is_some_and(|at| self.samples.get(name) == Some(at)),
            _ => false,
        })
    }

    /// A change can trigger a check at any time. Checks that are closer than the intended interval count once, or a burst of
    /// events would confirm itself; so would a sample that `repeats`. During a release a bad metric with a new value was
    /// measured again, which counts as another check however soon it comes.
    fn count(&mut self, evidence: Evidence, now: Timestamp, limits: &Limits, new_sample: bool, repeats: bool) {
        let watching = self.watches_release(limits);
        let meant = if watching { limits.release_watch_every.min(limits.confirm_after) } else { limits.confirm_after };
        let spaced = self.counted_at.is_none_or(|at| now.duration_since(at).unsigned_abs() >= meant.mul_f64(0.9));
        let (good, bad) = (evidence == Evidence::Good, evidence == Evidence::Bad);
        let first = (good && self.good == 0) || (bad && self.bad == 0);
        let counts = (spaced && !(bad && repeats)) || (watching && new_sample && bad);
        if counts || first {
            self.counted_at = Some(now);
        }
        // The first one counts always.
        let next = |count: u32| count.saturating_add(u32::from(counts || count == 0));
        self.bad = if bad { next(self.bad) } else { 0 };
        self.last_bad = if bad { Some(now) } else { self.last_bad };
        if good {
            self.good = next(self.good);
            self.settled_good = if self.settled.is_some() { next(self.settled_good) } else { self.settled_good };
            self.healthy_since.get_or_insert(now);
        } else {
            (self.good, self.settled_good, self.healthy_since) = (0, 0, None);
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

/// When these metrics were measured, as far as their sources report it.
fn samples(observation: &Observation, of: &BTreeMap<String, f64>) -> BTreeMap<String, Timestamp> {
    let at = |name: &String| Some((name.clone(), observation.metrics.get(name)?.sample.as_ref()?.at));
    of.keys().filter_map(at).collect()
}

#[cfg(test)]
mod hosted_tests;
#[cfg(test)]
mod tests;
