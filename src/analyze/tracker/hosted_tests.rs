//! The environment of a hosted service, which is that of the deploy that runs.

use super::*;
use crate::{
    analyze::{
        assess::assess,
        observation::{Hosted, Measured, Reading},
        scenario::{at, policy},
        window::History,
    },
    api::{ConfigKind, ConfigObject, ValidPolicy},
};

/// A service, checked every two seconds.
struct Story {
    policy: ValidPolicy,
    tracker: Tracker,
    hosted: Hosted,
    error_rate: f64,
    now: f64,
}

fn vars(digest: &str) -> Option<Vec<ConfigObject>> {
    Some(vec![ConfigObject { kind: ConfigKind::EnvVars, name: "srv-1".into(), digest: digest.into() }])
}

impl Story {
    /// `dep-1` of commit `c1` with the variables `e1`, healthy, with a snapshot.
    fn settled() -> Self {
        let hosted = Hosted {
            release: Some(ReleaseId { revision: 0, hash: "dep-1".into(), digest: "c1".into() }),
            label: String::new(),
            settled: true,
            suspended: None,
            instances: None,
            fault: None,
            failed_deploy: None,
            config: vars("e1"),
        };
        let policy = policy(serde_json::json!({}));
        let story = Self { policy, tracker: Tracker::default(), hosted, error_rate: 0.0, now: 0.0 };
        let mut story = story.watch(60.0);
        let good = story.tracker.without_snapshot().expect("no state needs a snapshot");
        story.tracker.note_snapshot(good, "first".into(), at(story.now));
        story.watch(600.0)
    }

    fn watch(mut self, seconds: f64) -> Self {
        let end = self.now + seconds;
        while self.now < end {
            let target = Measured::Known(TargetState::Hosted(Box::new(self.hosted.clone())));
            let rate = Reading::new(Measured::Known(self.error_rate), false);
            let metrics = [("error_rate".to_owned(), rate)].into();
            let observation = Observation { at: at(self.now), target, metrics };
            let thresholds = &self.policy.components[0].thresholds;
            let assessment = assess(&observation, thresholds, &History::default(), false);
            self.tracker.record(&observation, &assessment, &self.policy.limits);
            self.now += 2.0;
        }
        self
    }

    fn deploy(mut self, hash: &str, commit: &str, config: Option<Vec<ConfigObject>>, error_rate: f64) -> Self {
        self.hosted.release = Some(ReleaseId { revision: 0, hash: hash.into(), digest: commit.into() });
        (self.hosted.config, self.error_rate) = (config, error_rate);
        self.watch(30.0)
    }

    fn confirmed(&self) -> Option<Cause> {
        self.tracker.cause().filter(|_| self.tracker.is_confirmed_bad(&self.policy.limits))
    }
}

#[test]
fn a_deploy_of_the_same_commit_with_other_variables_is_a_change_of_configuration() {
    let story = Story::settled().deploy("dep-2", "c1", vars("e2"), 0.5);
    assert_eq!(story.confirmed(), Some(Cause::ConfigRegression));
    let way = story.tracker.config_target().unwrap();
    assert_eq!((way.state.as_str(), way.objects[0].to.as_str()), ("first", "e1"));
    let back = story.deploy("dep-3", "c1", vars("e1"), 0.0).watch(60.0);
    assert!(back.tracker.episode().is_none() && back.tracker.config_target().is_none());
    assert_eq!(back.tracker.snapshots().len(), 1);
    // Another commit with them is a release that is rolled back as a whole.
    let both = Story::settled().deploy("dep-2", "c2", vars("e2"), 0.5);
    assert_eq!((both.confirmed(), both.tracker.config_target()), (Some(Cause::ReleaseRegression), None));
    assert_eq!(both.tracker.state_target().unwrap().1.objects.len(), 1);
}

#[test]
fn what_is_changed_and_not_deployed_does_not_run() {
    let mut story = Story::settled();
    story.hosted.config = vars("pending");
    let mut story = story.watch(3600.0);
    assert!(
        story.tracker.without_snapshot().is_none() && story.tracker.config_target().is_none(),
        "it is not known good"
    );
    story.error_rate = 0.5;
    let story = story.watch(30.0);
    assert_eq!(story.confirmed(), Some(Cause::Errors), "nor is it to blame");
    let mut status = ComponentStatus::default();
    story.tracker.persist(&mut status);
    let mut again = Story { tracker: Tracker::restore(&status), ..story };
    again.error_rate = 0.0;
    assert!(again.watch(3600.0).tracker.without_snapshot().is_none(), "also not in the operator's next life");
}

#[test]
fn unknown_configuration_of_a_rollback_is_not_reported() {
    let bad = Story::settled().deploy("dep-2", "c2", vars("e2"), 0.5);
    let back = bad.deploy("dep-3", "c1", None, 0.0).watch(120.0);
    assert!(back.tracker.release().unwrap().seen_healthy && back.tracker.without_snapshot().is_none());
    let worse = back.deploy("dep-4", "c1", None, 0.5);
    assert_eq!(worse.confirmed(), Some(Cause::Errors));
}

#[test]
fn a_release_that_is_known_by_another_name_is_the_same() {
    let mut story = Story::settled();
    story.hosted.release.as_mut().unwrap().digest = "dep-1".into();
    let story = story.watch(60.0);
    let release = story.tracker.release().unwrap();
    assert!(release.seen_healthy && release.digest == "dep-1");
    assert_eq!(story.tracker.known_good().iter().map(|good| good.digest.as_str()).collect::<Vec<_>>(), ["dep-1"]);
    assert!(story.tracker.rollback_target().is_none(), "it is not its own rollback target");
}
