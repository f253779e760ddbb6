use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::analyze::{
    metric::MEMORY_USAGE,
    scenario::{Story, at},
};

/// Foreseen at 3600 s: 70% of memory, which meets 100% at 5400 s, give or take 600 s.
fn foreseen() -> Foreseen {
    Foreseen {
        id: "f1".into(),
        at: at(3600.0),
        metric: MEMORY_USAGE.into(),
        value: 70.0,
        limit: 100.0,
        relieved_at: 50.0,
        probability: 0.8,
        failure_at: at(5400.0),
        not_before: at(4800.0),
        not_after: at(6000.0),
        reason: "memory_usage grows".into(),
    }
}

/// With a horizon of an hour, checked every minute: unseen after ten minutes, late until 9600 s.
fn patience() -> Patience {
    Patience::of(SignedDuration::from_hours(1), SignedDuration::from_mins(1))
}

/// A component whose memory was foreseen to run out at 3600 s.
struct Watched {
    story: Story,
    hindsight: Hindsight,
    actions: Vec<Action>,
    foreseen: Option<Foreseen>,
    ceilings: BTreeMap<String, f64>,
}

impl Watched {
    fn new() -> Self {
        let ceilings = BTreeMap::from([(MEMORY_USAGE.to_owned(), 100.0)]);
        let mut story = Story::settled();
        story.memory(70.0);
        let mut watched =
            Self { story, hindsight: Hindsight::default(), actions: Vec::new(), foreseen: Some(foreseen()), ceilings };
        watched.record(3600.0);
        watched
    }

    /// A check at this second.
    fn record(&mut self, second: f64) -> Option<Outcome> {
        self.story.now = second;
        self.story.record();
        let (observation, assessment) = self.story.last.as_ref().unwrap();
        let seen = Seen {
            observation,
            assessment,
            ceilings: &self.ceilings,
            episode: self.story.tracker.episode(),
            actions: &self.actions,
        };
        self.hindsight.record(self.foreseen.as_ref(), &seen, patience());
        self.outcome()
    }

    fn outcome(&self) -> Option<Outcome> {
        self.hindsight.settled().next().map(|(_, settled)| settled.outcome)
    }

    /// Looks every minute up to this second, as long as nothing is known.
    fn until(&mut self, second: f64) -> Option<Outcome> {
        let mut now = self.story.now;
        while self.outcome().is_none() && now + 60.0 <= second {
            now += 60.0;
            self.record(now);
        }
        self.outcome()
    }

    fn act(&mut self, second: f64, phase: Phase) {
        self.actions = vec![Action { name: "shop-api-1-0".into(), begun_at: at(second), phase }];
    }

    fn message(&self) -> String {
        self.hindsight.settled().next().map(|(_, settled)| settled.message.clone()).unwrap_or_default()
    }
}

#[test]
fn a_failure_is_true_within_its_band_and_else_early_or_late() {
    for (second, outcome) in [
        (4740.0, Outcome::CameEarly),
        (4800.0, Outcome::CameTrue),
        (6000.0, Outcome::CameTrue),
        (6060.0, Outcome::CameLate),
        (9600.0, Outcome::CameLate),
    ] {
        let mut watched = Watched::new();
        assert_eq!(watched.until(second - 60.0), None);
        watched.story.memory(97.9);
        assert_eq!(watched.record(second - 30.0), None, "processes end at 98%");
        watched.story.memory(98.0);
        assert_eq!(watched.record(second), Some(outcome), "{second}");
    }
}

#[test]
fn unhealthy_above_a_threshold_is_not_yet_what_was_foreseen_and_a_killed_container_is() {
    let mut watched = Watched::new();
    watched.story.memory(95.0);
    assert_eq!(watched.until(4900.0), None);
    assert!(watched.story.tracker.episode().is_some(), "unhealthy");
    watched.story.fault(FaultKind::OomKilled, 1);
    assert_eq!(watched.record(4930.0), Some(Outcome::CameTrue));
}

#[test]
fn a_failure_did_not_happen_when_the_metric_fell_without_action_or_the_time_is_over() {
    let mut watched = Watched::new();
    watched.until(4000.0);
    watched.story.memory(50.0);
    assert_eq!(watched.record(4060.0), Some(Outcome::DidNotHappen));
    assert!(watched.message().contains("fell to 50% without an action"), "{}", watched.message());

    let mut watched = Watched::new();
    assert_eq!(watched.until(9600.0), None);
    assert_eq!(watched.record(9601.0), Some(Outcome::DidNotHappen));
}

#[test]
fn it_was_prevented_by_an_action_that_was_verified() {
    let mut watched = Watched::new();
    watched.until(4000.0);
    watched.act(4010.0, Phase::Verifying);
    watched.story.restart().memory(20.0);
    assert_eq!(watched.record(4060.0), None, "the outcome of the action is unknown");
    watched.act(4010.0, Phase::Succeeded);
    assert_eq!(watched.record(4120.0), Some(Outcome::Prevented));
    let (_, settled) = watched.hindsight.settled().next().unwrap();
    assert_eq!(settled.remediation.as_deref(), Some("shop-api-1-0"));

    // Of an action from before it was foreseen nothing is known.
    let mut watched = Watched::new();
    watched.act(3590.0, Phase::Succeeded);
    assert_eq!(watched.record(3660.0), None);
}

#[test]
fn after_an_action_without_success_the_outcome_is_unknown_unless_the_failure_occurred() {
    let mut watched = Watched::new();
    watched.act(4010.0, Phase::Ineffective);
    assert_eq!(watched.until(4500.0), None);
    watched.story.memory(40.0);
    assert_eq!(watched.record(4560.0), Some(Outcome::Unknown));

    let mut watched = Watched::new();
    watched.act(4010.0, Phase::Ineffective);
    watched.story.memory(99.0);
    assert_eq!(watched.record(5000.0), Some(Outcome::CameTrue));

    // Nothing was done at all.
    let mut watched = Watched::new();
    watched.act(4010.0, Phase::Failed);
    watched.until(4500.0);
    watched.story.memory(40.0);
    assert_eq!(watched.record(4560.0), Some(Outcome::DidNotHappen));
}

#[test]
fn pods_that_somebody_else_replaced_leave_it_unknown() {
    let mut watched = Watched::new();
    watched.until(4000.0);
    watched.story.release("v2").memory(20.0);
    assert_eq!(watched.record(4060.0), Some(Outcome::Unknown));
    assert!(watched.message().contains("not by Panacea"), "{}", watched.message());
}

#[test]
fn unmeasured_for_too_long_is_unknown_unless_the_failure_occurred() {
    let blind = |minutes: f64| {
        let mut watched = Watched::new();
        watched.story.metrics.remove(MEMORY_USAGE);
        assert_eq!(watched.record(3600.0 + 30.0), None);
        watched.story.memory(70.0);
        assert_eq!(watched.record(3600.0 + 60.0 * minutes), None);
        watched
    };
    let mut watched = blind(10.0);
    assert_eq!((watched.until(9600.0), watched.record(9601.0)), (None, Some(Outcome::DidNotHappen)), "short enough");
    let mut watched = blind(11.0);
    assert!(watched.hindsight.persist()[0].blind);
    assert_eq!((watched.until(9600.0), watched.record(9601.0)), (None, Some(Outcome::Unknown)));
    let mut watched = blind(11.0);
    watched.story.memory(99.0);
    assert_eq!(watched.record(5000.0), Some(Outcome::CameTrue));
}

#[test]
fn a_warning_survives_a_restart_and_time_away_counts_as_unmeasured() {
    let persisted = |watched: &Watched| {
        let warnings = watched.hindsight.persist();
        let json = serde_json::to_string(&warnings).unwrap();
        assert!(json.len() < 1500, "{json}");
        ComponentStatus { warnings: serde_json::from_str(&json).unwrap(), ..ComponentStatus::default() }
    };
    for (measured_before, outcome) in [(None, Outcome::Unknown), (Some(4600.0), Outcome::DidNotHappen)] {
        let mut watched = Watched::new();
        watched.until(4600.0);
        watched.hindsight = Hindsight::restore(&persisted(&watched));
        if let Some(second) = measured_before {
            watched.hindsight.was_measured(MEMORY_USAGE, at(second));
        }
        assert_eq!((watched.until(9600.0), watched.record(9601.0)), (None, Some(outcome)));
    }
    // What is known is not forgotten.
    let mut watched = Watched::new();
    watched.story.memory(99.0);
    watched.record(5000.0);
    watched.hindsight = Hindsight::restore(&persisted(&watched));
    watched.story.memory(20.0);
    assert_eq!(watched.record(5060.0), Some(Outcome::CameTrue));
}

#[test]
fn a_warning_is_reported_once() {
    let mut watched = Watched::new();
    watched.story.memory(99.0);
    assert_eq!(watched.record(5000.0), Some(Outcome::CameTrue));
    watched.hindsight.recorded("f1");
    for foreseen in [watched.foreseen.clone(), None, None] {
        watched.foreseen = foreseen;
        assert_eq!(watched.record(watched.story.now + 60.0), None);
        assert_eq!(watched.hindsight.persist(), []);
    }
    assert_eq!(watched.hindsight.missed(), None, "it was announced");
}

#[test]
fn only_the_newest_warnings_are_followed() {
    let mut watched = Watched::new();
    for number in 2..=6 {
        watched.foreseen = Some(Foreseen { id: format!("f{number}"), ..foreseen() });
        watched.record(3600.0 + f64::from(number));
    }
    let pushed_out = |watched: &mut Watched| {
        let warnings = watched.hindsight.take_pushed_out();
        let told = |warning: Warning| (warning.foreseen.id, warning.settled.unwrap().outcome);
        warnings.into_iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(pushed_out(&mut watched), [("f1".to_owned(), Outcome::Unknown), ("f2".to_owned(), Outcome::Unknown)]);
    assert_eq!(watched.hindsight.persist().len(), MAX_FOLLOWED);
    // While the ledger is unreachable, known outcomes are dropped first.
    watched.story.memory(99.0);
    watched.record(5000.0);
    watched.foreseen = Some(Foreseen { id: "f7".into(), ..foreseen() });
    watched.record(5060.0);
    assert_eq!(pushed_out(&mut watched), [("f3".to_owned(), Outcome::CameTrue)]);
    assert_eq!(watched.hindsight.persist().len(), MAX_FOLLOWED, "more than the status may hold");
}

#[test]
fn a_failure_that_nothing_announced_is_missed_once() {
    let mut watched = Watched::new();
    (watched.hindsight, watched.foreseen) = (Hindsight::default(), None);
    watched.story.fault(FaultKind::OomKilled, 2);
    for second in [3660.0, 3670.0, 3680.0, 3690.0] {
        watched.record(second);
    }
    let missed = watched.hindsight.missed().cloned().unwrap();
    assert_eq!(Some(&missed.episode), watched.story.tracker.episode());
    watched.hindsight.recorded_missed();
    watched.record(3700.0);
    assert_eq!(watched.hindsight.missed(), None);
    // Nor by the next life of the operator.
    let mut status = ComponentStatus::default();
    watched.story.tracker.persist(&mut status);
    watched.hindsight = Hindsight::restore(&status);
    watched.record(3710.0);
    assert_eq!(watched.hindsight.missed(), None);
}

#[test]
fn what_was_announced_is_not_missed() {
    let mut watched = Watched::new();
    watched.story.memory(99.0);
    assert_eq!(watched.record(5000.0), Some(Outcome::CameTrue));
    // Already in the ledger, and no longer foreseen, when the incident is confirmed.
    watched.hindsight.recorded("f1");
    watched.foreseen = None;
    for second in [5002.0, 5004.0, 5006.0] {
        watched.record(second);
    }
    assert!(watched.story.tracker.episode().is_some());
    assert_eq!(watched.hindsight.missed(), None);
}

proptest! {
    /// Whatever is seen, in whatever order: each warning is settled once and stays so, and in the end it is.
    #[test]
    fn a_warning_is_settled_once_and_for_good(
        looks in proptest::collection::vec((1.0..900.0_f64, proptest::option::of(0.0..110.0_f64), 0..12_u8), 1..40)
    ) {
        let mut watched = Watched::new();
        let mut settled: Option<Settled> = None;
        for (wait, value, event) in looks {
            match value {
                Some(value) => { watched.story.memory(value); }
                None => { watched.story.metrics.remove(MEMORY_USAGE); }
            }
            match event {
                0 => { watched.story.restart(); }
                1 => watched.act(watched.story.now, Phase::Running),
                2 => watched.act(watched.story.now, Phase::Succeeded),
                3 => watched.act(watched.story.now, Phase::Ineffective),
                4 => watched.hindsight = Hindsight::restore(&ComponentStatus {
                    warnings: watched.hindsight.persist(),
                    ..ComponentStatus::default()
                }),
                5 => watched.foreseen = None,
                _ => {}
            }
            watched.record(watched.story.now + wait);
            let now = watched.hindsight.settled().next().map(|(_, settled)| settled.clone());
            if settled.is_some() {
                prop_assert_eq!(&settled, &now);
            }
            settled = now;
            prop_assert!(watched.hindsight.persist().len() <= 1);
        }
        watched.foreseen = None;
        watched.actions.iter_mut().filter(|action| !action.phase.is_final()).for_each(|action| action.phase = Phase::Failed);
        watched.record(watched.story.now + 100_000.0);
        let last = watched.outcome();
        prop_assert!(last.is_some());
        prop_assert!(last != Some(Outcome::Missed));
    }
}
