//! The configuration that runs beside the template, and the known good configurations.
//!
//! A change of a ConfigMap or Secret is no release: environment variables reach a container only when it restarts, mounted files
//! after about a minute, and then the program has to read them. So new content counts as healthy only with pods that were all
//! started after the change, or, when all of it is mounted, after a whole release watch. The environment of a hosted service is
//! that of the running deploy: a later change takes effect with the next deploy.

use jiff::Timestamp;

use super::{
    super::{
        assess::Assessment,
        observation::{ObservedConfig, TargetState},
    },
    Tracker,
    known::{MAX_KNOWN_BAD, push_newest},
};
use crate::api::{ConfigChange, ConfigObject, ConfigRollback, ConfigStatus, KnownBadConfig, Limits, MISSING, Snapshot};

/// The most snapshots: the rollback target, and two more as a choice for a person.
pub const MAX_SNAPSHOTS: usize = 3;

/// A healthy pair of template and configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoodState {
    /// Digest of the template.
    pub template: String,
    pub objects: Vec<ConfigObject>,
}

impl Tracker {
    pub(super) fn follow_config(&mut self, target: &TargetState, now: Timestamp) {
        let Some(objects) = target.config() else { return };
        let objects: Vec<ConfigObject> = objects.into_iter().cloned().collect();
        let deploy = self.deploy(target).map(str::to_owned);
        let Some(config) = &mut self.config else {
            let (changed, came_during_incident, seen_healthy) = (Vec::new(), false, false);
            self.config =
                Some(ConfigStatus { objects, since: now, seen_healthy, changed, came_during_incident, deploy });
            return;
        };
        // A change that is not in effect yet does not count.
        if deploy.is_some() && config.deploy == deploy {
            return;
        }
        if config.objects == objects {
            config.deploy = deploy;
            return;
        }
        let before =
            |new: &ConfigObject| config.objects.iter().find(|old| (old.kind, &old.name) == (new.kind, &new.name));
        let differs = |new: &&ConfigObject| before(new).is_some_and(|old| old.digest != new.digest);
        let mut changed: Vec<String> = objects.iter().filter(differs).map(ConfigObject::to_string).collect();
        let new_content = !changed.is_empty();
        if !config.seen_healthy {
            // Earlier changes that are not proven yet are part of the change.
            let named: Vec<String> = objects.iter().map(ConfigObject::to_string).collect();
            changed.extend(config.changed.iter().filter(|object| named.contains(*object)).cloned());
            changed.sort_unstable();
            changed.dedup();
        }
        let (since, during) = (config.since, config.came_during_incident);
        let (since, came_during_incident) = if new_content { (now, self.in_trouble()) } else { (since, during) };
        self.config = Some(ConfigStatus { objects, since, seen_healthy: false, changed, came_during_incident, deploy });
        if new_content {
            (self.bad, self.good, self.settled_good) = (0, 0, 0);
        }
    }

    /// The component has been healthy for long enough with its rollout complete.
    pub(super) fn prove_config(&mut self, target: &TargetState, now: Timestamp, limits: &Limits) {
        if target.config().is_none() {
            return;
        }
        let Some(config) = &mut self.config else { return };
        let Some(release) = self.release.as_ref().filter(|release| release.seen_healthy) else { return };
        let lasted = now.duration_since(config.since) >= limits.release_watch_for;
        let in_effect = match target.workload() {
            Some(workload) => {
                let new_pods = workload.oldest_pod.is_some_and(|started| has_it(started, config));
                let mounted = |name: &String| {
                    let on_start = |one: &&ObservedConfig| one.on_start && one.object.to_string() == *name;
                    workload.config.iter().flatten().find(on_start).is_none()
                };
                new_pods || (lasted && config.changed.iter().all(mounted))
            }
            None => config.deploy.as_ref() == Some(&release.hash),
        };
        // Known bad content has to be healthy for as long as a release is watched.
        let settled =
            self.settled.as_ref().is_some_and(|(since, _)| now.duration_since(*since) >= limits.release_watch_for);
        let doubtful = self.known_bad_config.iter().any(|bad| config.holds(bad)) && !(lasted && settled);
        if config.changed.is_empty() || (in_effect && !doubtful) {
            config.seen_healthy = true;
            config.changed.clear();
            self.known_bad_config.retain(|bad| !config.holds(bad));
            // The snapshot of the newest healthy state is the last one.
            let same = |kept: &Snapshot| kept.template == release.digest && kept.objects == config.objects;
            if let Some(place) = self.snapshots.iter().position(same) {
                let kept = self.snapshots.remove(place);
                self.snapshots.push(kept);
            }
        }
    }

    /// The healthy state, when it has no snapshot yet.
    pub fn without_snapshot(&self) -> Option<GoodState> {
        let release = self.release.as_ref().filter(|release| release.seen_healthy)?;
        // Where neither ConfigMaps nor Secrets are watched, the template is the whole state. The configuration of a hosted
        // service may be that of another deploy; then the configuration of the running deploy is unknown.
        let is_other = |config: &ConfigStatus| config.deploy.as_ref().is_some_and(|deploy| *deploy != release.hash);
        let unproven = self.config.as_ref().is_some_and(|config| !config.seen_healthy || is_other(config));
        let known = |kept: &Snapshot| kept.template == release.digest && kept.objects == self.objects();
        let good = GoodState { template: release.digest.clone(), objects: self.objects().to_vec() };
        (!unproven && !self.snapshots.iter().any(known)).then_some(good)
    }

    /// The running deploy of a hosted service.
    fn deploy(&self, target: &TargetState) -> Option<&str> {
        let release = self.release.as_ref().filter(|_| target.workload().is_none())?;
        Some(&release.hash)
    }

    fn objects(&self) -> &[ConfigObject] {
        self.config.as_ref().map_or(&[], |config| &config.objects)
    }

    /// Notes a stored snapshot; the oldest snapshots are dropped.
    pub fn note_snapshot(&mut self, good: GoodState, name: String, now: Timestamp) {
        self.snapshots.retain(|kept| kept.name != name);
        let state = Snapshot { name, template: good.template, objects: good.objects, seen_at: now };
        push_newest(&mut self.snapshots, state, MAX_SNAPSHOTS);
    }

    /// The snapshots that are still needed.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// The rollback target of the configuration: the newest snapshot of this template that differs from the current content.
    pub fn config_target(&self) -> Option<ConfigRollback> {
        let release = self.release.as_ref()?;
        let of_template = self.snapshots.iter().rev().filter(|kept| kept.template == release.digest);
        of_template.map(|kept| rollback_to(self.objects(), kept)).find(|way| !way.objects.is_empty())
    }

    /// The newest snapshot, when the running state differs from it, with the changes of configuration.
    pub fn state_target(&self) -> Option<(&Snapshot, ConfigRollback)> {
        let release = self.release.as_ref()?;
        let kept = self.snapshots.last()?;
        let way = rollback_to(self.objects(), kept);
        (kept.template != release.digest || !way.objects.is_empty()).then_some((kept, way))
    }

    /// Content changed, and pods may not use it yet, or only for a short time.
    pub(super) fn config_unproven(&self, now: Timestamp, limits: &Limits) -> bool {
        let Some(config) = self.config.as_ref() else { return false };
        let young = now.duration_since(config.since) < limits.release_watch_for;
        young && !config.seen_healthy && !config.changed.is_empty()
    }

    /// Whether the component became bad after a change of configuration without a change of the template.
    pub(super) fn is_config_regression(
        &self,
        assessment: &Assessment,
        target: Option<&TargetState>,
        limits: &Limits,
        now: Timestamp,
    ) -> bool {
        let (Some(release), Some(config)) = (&self.release, &self.config) else { return false };
        if config.seen_healthy || config.changed.is_empty() || config.came_during_incident {
            return false;
        }
        // The configuration belongs to another deploy; that of the running deploy is unknown.
        if config.deploy.as_ref().is_some_and(|deploy| *deploy != release.hash) || self.config_target().is_none() {
            return false;
        }
        // New pods bring earlier changes into effect.
        let in_effect = config.since.max(release.since);
        let young = now.duration_since(in_effect) <= limits.release_watch_for;
        let of_new_pods = target.and_then(TargetState::workload).is_some_and(|workload| {
            let mut faults = workload.faults.iter().peekable();
            faults.peek().is_some()
                && faults.all(|fault| fault.pod_started.is_some_and(|started| has_it(started, config)))
        });
        young || (of_new_pods && assessment.critical().any(|problem| problem.value.is_none()))
    }

    /// Content that made the component bad is not known good, even if it was healthy at first.
    pub(super) fn remember_bad_config(&mut self, now: Timestamp) {
        let (Some(config), Some(way)) = (&self.config, self.config_target()) else { return };
        self.snapshots.retain(|kept| kept.objects != config.objects);
        let bad = |change: ConfigChange| ConfigObject { kind: change.kind, name: change.name, digest: change.from };
        let objects: Vec<ConfigObject> = way.objects.into_iter().map(bad).collect();
        if self.known_bad_config.iter().any(|known| known.objects == objects && known.seen_at >= config.since) {
            return;
        }
        self.known_bad_config.retain(|known| known.objects != objects);
        push_newest(&mut self.known_bad_config, KnownBadConfig { objects, seen_at: now }, MAX_KNOWN_BAD);
    }
}

/// Only objects that both states name are compared.
fn rollback_to(objects: &[ConfigObject], kept: &Snapshot) -> ConfigRollback {
    let change = |now: &ConfigObject| {
        let good = kept.objects.iter().find(|good| (good.kind, &good.name) == (now.kind, &now.name))?;
        // An object that did not exist in the snapshot is not deleted.
        (good.digest != now.digest && good.digest != MISSING).then(|| ConfigChange {
            kind: now.kind,
            name: now.name.clone(),
            from: now.digest.clone(),
            to: good.digest.clone(),
        })
    };
    ConfigRollback { state: kept.name.clone(), objects: objects.iter().filter_map(change).collect() }
}

/// Whether a pod that was started at that time uses this content. The API reports whole seconds, and the environment is read
/// shortly after the start, so the second of the change counts.
fn has_it(started: Timestamp, config: &ConfigStatus) -> bool {
    started.as_second() >= config.since.as_second()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        analyze::{
            observation::FaultKind,
            scenario::{Story, at},
        },
        api::{Cause, ComponentStatus, ConfigKind},
    };

    fn map(name: &str, digest: &str, on_start: bool) -> ObservedConfig {
        let object = ConfigObject { kind: ConfigKind::ConfigMap, name: name.into(), digest: digest.into() };
        ObservedConfig { object, on_start }
    }

    impl Story {
        fn config(&mut self, maps: &[ObservedConfig]) -> &mut Self {
            self.workload.config = Some(maps.to_vec());
            self
        }

        /// All its pods are new ones.
        fn new_pods(&mut self) -> &mut Self {
            self.workload.oldest_pod = Some(at(self.now));
            self
        }

        fn then(&mut self, seconds: f64) -> &mut Self {
            let end = self.now + seconds;
            self.until(end)
        }

        fn keep(&mut self, name: &str) -> &mut Self {
            let good = self.tracker.without_snapshot().expect("no state needs a snapshot");
            self.tracker.note_snapshot(good, name.to_owned(), at(self.now));
            self
        }

        /// (object, from, to) of the rollback.
        fn rollback_to(&self) -> Vec<(String, String, String)> {
            let objects = self.tracker.config_target().map(|way| way.objects).unwrap_or_default();
            objects.into_iter().map(|change| (change.name, change.from, change.to)).collect()
        }

        fn seen_healthy(&self) -> bool {
            self.tracker.config.as_ref().unwrap().seen_healthy
        }
    }

    /// v1 with two ConfigMaps, the one mounted and the other in the environment; good, with the snapshot `first`.
    fn settled() -> Story {
        let mut story = Story::new();
        story.config(&[map("env", "e1", true), map("live", "l1", false)]).new_pods().error_rate(0.001).until(3600.0);
        story.keep("first");
        assert!(story.seen_healthy() && story.tracker.without_snapshot().is_none());
        story
    }

    #[test]
    fn bad_configuration_is_rolled_back_to_the_good_content() {
        let mut story = settled();
        story.config(&[map("env", "e1", true), map("live", "l2", false)]).until(3605.0);
        assert!(story.tracker.watches_release(&story.policy.limits), "checked as often as during a release");
        story.error_rate(0.5).until(3610.0);
        assert_eq!(story.confirmed(), Some(Cause::ConfigRegression));
        assert_eq!(story.rollback_to(), [("live".into(), "l2".into(), "l1".into())]);
        // Restored: the incident continues until the component is healthy.
        story.config(&[map("env", "e1", true), map("live", "l1", false)]).error_rate(0.0).new_pods().until(3660.0);
        assert_eq!((story.confirmed(), story.tracker.episode(), story.rollback_to()), (None, None, vec![]));
    }

    #[test]
    fn what_no_pod_has_read_is_neither_good_nor_forgotten() {
        let mut story = settled();
        story.config(&[map("env", "e2", true), map("live", "l1", false)]).until(3.0 * 3600.0);
        assert!(
            !story.seen_healthy() && story.tracker.without_snapshot().is_none(),
            "the pods have the environment of before"
        );
        // An hour later they are restarted, and crash.
        story.now = 3.0 * 3600.0;
        story.restart().new_pods().fault(FaultKind::CrashLoop, 1).until(3.0 * 3600.0 + 5.0);
        assert_eq!(story.confirmed(), Some(Cause::ConfigRegression));
        let mut moved = settled();
        moved.config(&[map("env", "e2", true), map("live", "l1", false)]).until(3.0 * 3600.0);
        // Also without a restart, when the pods that crash are those that are new.
        let new = |story: &Story, seconds: f64| Some(at(story.now + seconds));
        let (young, old) = (new(&moved, -10.0), new(&moved, -9.0 * 3600.0));
        moved.fault(FaultKind::CrashLoop, 2);
        moved.workload.faults.iter_mut().for_each(|fault| fault.pod_started = young);
        let mut other = moved.clone();
        moved.until(3.0 * 3600.0 + 5.0);
        assert_eq!(moved.confirmed(), Some(Cause::ConfigRegression));
        other.workload.faults[0].pod_started = old;
        other.until(3.0 * 3600.0 + 5.0);
        assert_eq!(other.confirmed(), Some(Cause::Crash), "an old pod crashes as well");
    }

    #[test]
    fn a_good_change_is_the_last_known_good_one() {
        let mut story = settled();
        story.config(&[map("env", "e1", true), map("live", "l2", false)]).until(3600.0 + 290.0);
        assert!(!story.seen_healthy(), "mounted: after a whole release watch");
        story.until(3600.0 + 420.0);
        assert!(story.seen_healthy());
        story.keep("second");
        story.config(&[map("env", "e2", true), map("live", "l2", false)]).after(1.0);
        story.restart().new_pods().complete().then(60.0);
        assert!(story.seen_healthy(), "in the environment: with new pods");
        story.keep("third");
        story.config(&[map("env", "e3", true), map("live", "l1", false)]).error_rate(0.5).then(10.0);
        let back = [("env".into(), "e3".into(), "e2".into()), ("live".into(), "l1".into(), "l2".into())];
        assert_eq!(story.rollback_to(), back, "not to the first one");
        let mut status = ComponentStatus::default();
        story.tracker.persist(&mut status);
        assert_eq!(Tracker::restore(&status).config_target(), story.tracker.config_target(), "it survives a restart");
        assert_eq!(
            status.snapshots.iter().map(|kept| kept.name.as_str()).collect::<Vec<_>>(),
            ["first", "second", "third"]
        );
    }

    #[test]
    fn what_turned_bad_before_is_known_when_it_comes_again_and_has_to_hold_for_longer() {
        let good = [map("env", "e1", true), map("live", "l1", false)];
        let bad = [map("env", "e2", true), map("live", "l1", false)];
        let is_known_bad = |story: &Story| {
            let config = story.tracker.config.as_ref().unwrap();
            story.tracker.known_bad_config.iter().any(|bad| config.holds(bad))
        };
        let mut story = settled();
        story.config(&bad).restart().new_pods().error_rate(0.5).until(3610.0);
        assert_eq!(story.confirmed(), Some(Cause::ConfigRegression));
        assert!(is_known_bad(&story));
        story.config(&good).restart().new_pods().error_rate(0.0).complete().then(60.0);
        assert!(!is_known_bad(&story) && story.seen_healthy());
        assert_eq!(story.tracker.known_bad_config.len(), 1, "stored once");

        // Again, with another changed object; this time it is healthy.
        story.config(&[bad[0].clone(), map("live", "l2", false)]).after(1.0);
        assert!(is_known_bad(&story));
        let mut status = ComponentStatus::default();
        story.tracker.persist(&mut status);
        assert_eq!(Tracker::restore(&status).known_bad_config, story.tracker.known_bad_config, "it survives a restart");
        story.restart().new_pods().complete().then(60.0);
        assert!(!story.seen_healthy(), "new pods were enough for what is not known bad");
        story.then(400.0);
        assert!(story.seen_healthy() && story.tracker.known_bad_config.is_empty());
    }

    #[test]
    fn what_is_not_its_fault_is_not_blamed_on_configuration() {
        // A new template was released as well: it is rolled back first.
        let mut both = settled();
        both.config(&[map("env", "e2", true), map("live", "l1", false)]).release("v2");
        both.fault(FaultKind::CrashLoop, 1).until(3605.0);
        assert_eq!(both.confirmed(), Some(Cause::ReleaseRegression));
        // It was bad before.
        let mut during = settled();
        during.error_rate(0.5).until(3610.0);
        during.config(&[map("env", "e1", true), map("live", "l2", false)]).until(3620.0);
        assert_eq!(during.confirmed(), Some(Cause::Errors));
        // There is no snapshot to roll back to.
        let mut without_snapshot = settled();
        without_snapshot.tracker.snapshots.clear();
        without_snapshot.config(&[map("env", "e1", true), map("live", "l2", false)]).error_rate(0.5).until(3610.0);
        assert_eq!(without_snapshot.confirmed(), Some(Cause::Errors));
        // ConfigMaps can no longer be read: no change.
        let mut blind = settled();
        blind.workload.config = None;
        blind.error_rate(0.5).until(3610.0);
        assert_eq!(blind.confirmed(), Some(Cause::Errors));
        // The template names another one; those that both name are as they were.
        let mut renamed = settled();
        renamed
            .release("v2")
            .config(&[map("env", "e1", true), map("new", "n1", true)])
            .complete()
            .new_pods()
            .until(3700.0);
        assert!(renamed.seen_healthy());
        renamed.keep("other").config(&[map("env", "e1", true), map("new", "n2", true)]).error_rate(0.5);
        renamed.until(3710.0);
        assert_eq!(renamed.rollback_to(), [("new".into(), "n2".into(), "n1".into())]);
    }

    #[test]
    fn a_deleted_object_is_restored_and_a_new_object_is_not_deleted() {
        let mut story = settled();
        story
            .config(&[map("env", MISSING, true), map("live", "l1", false)])
            .fault(FaultKind::CrashLoop, 1)
            .until(3605.0);
        assert_eq!(story.rollback_to(), [("env".into(), MISSING.into(), "e1".into())]);
        let mut optional = Story::new();
        optional.config(&[map("env", MISSING, true)]).new_pods().until(3600.0);
        optional.keep("first").config(&[map("env", "e1", true)]).fault(FaultKind::CrashLoop, 1).until(3605.0);
        assert_eq!(optional.confirmed(), Some(Cause::Crash));
    }

    #[test]
    fn few_snapshots_are_stored() {
        let mut story = settled();
        for version in 2..9 {
            let digest = format!("e{version}");
            story.config(&[map("env", &digest, true), map("live", "l1", false)]).after(1.0);
            story.restart().new_pods().complete().then(60.0);
            story.keep(&digest);
        }
        let names: Vec<&str> = story.tracker.snapshots().iter().map(|kept| kept.name.as_str()).collect();
        assert_eq!(names, ["e6", "e7", "e8"]);
    }
}
