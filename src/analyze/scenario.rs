//! For tests: the history of a component as a script of checks.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    assess::{Assessment, assess},
    forecast::{Forecast, tests::exhausting},
    metric::{ERROR_RATE, MEMORY_USAGE},
    observation::{
        FaultKind, Measured, Observation, PodFault, Reading, ReleaseId, Sample, TargetState, UnknownReason, Unmeasured,
        Workload,
    },
    outlook::Outlook,
    tracker::{Evidence, Tracker},
    window::History,
};
use crate::api::{Cause, HealingPolicy, ValidPolicy, default_thresholds};

/// `at(90.5)`: 90.5 seconds after the story began.
pub fn at(seconds: f64) -> Timestamp {
    let start = Timestamp::from_second(1_700_000_000).unwrap();
    start.checked_add(SignedDuration::from_secs_f64(seconds)).unwrap()
}

/// A policy with one Deployment `api` and `spec` merged over the defaults.
pub fn policy(spec: serde_json::Value) -> ValidPolicy {
    let mut full = json!({"components": [{"name": "api", "target": {"deployment": {"name": "api"}}}]});
    let serde_json::Value::Object(fields) = spec else { panic!("a spec is an object") };
    full.as_object_mut().unwrap().extend(fields);
    let policy = HealingPolicy::new("shop", serde_json::from_value(full).unwrap());
    let mut valid = ValidPolicy::new(&policy, &default_thresholds()).unwrap();
    assert_eq!(valid.invalid, []);
    // As though it measured all that stories speak of.
    for component in &mut valid.components {
        let named = std::mem::replace(&mut component.thresholds, default_thresholds());
        component.thresholds.extend(named);
    }
    valid
}

/// A Deployment of four pods, its metrics, and its tracker. The world changes between checks.
#[derive(Clone)]
pub struct Story {
    pub policy: ValidPolicy,
    pub tracker: Tracker,
    pub workload: Workload,
    /// False: the target cannot be checked.
    pub visible: bool,
    pub metrics: BTreeMap<String, Reading>,
    pub now: f64,
    /// Probability with which its memory is foreseen to run out in half an hour.
    pub risk: f64,
    pub history: History,
    pub last: Option<(Observation, Assessment)>,
    pub forecast: Forecast,
    pub outlook: Outlook,
    pub evidence: Option<Evidence>,
}

impl Story {
    /// Four healthy pods of v1, not yet checked.
    pub fn new() -> Self {
        Self::with(policy(json!({})))
    }

    pub fn with(policy: ValidPolicy) -> Self {
        let workload = Workload {
            generation: 1,
            desired: 4,
            replicas: 4,
            updated: 4,
            available: 4,
            paused: false,
            progress_deadline_exceeded: false,
            progress_deadline_s: 600,
            release: ReleaseId { revision: 1, hash: "h-v1".into(), digest: "v1".into() },
            images: vec!["app=shop/api:v1".into()],
            faults: Vec::new(),
            faulty_pods: 0,
            faulty_release_pods: 0,
            unschedulable: 0,
            on_lost_nodes: 0,
            memory_limit: None,
            config: None,
            oldest_pod: None,
            irreversible: None,
            gitops_owner: None,
            template_in: None,
            stopped: None,
        };
        Self {
            policy,
            tracker: Tracker::default(),
            workload,
            visible: true,
            metrics: BTreeMap::new(),
            now: 0.0,
            risk: 0.0,
            history: History::default(),
            last: None,
            forecast: exhausting(MEMORY_USAGE, 0.0),
            outlook: Outlook::default(),
            evidence: None,
        }
    }

    /// v1 was seen healthy and nothing was done for an hour: the usual start, at 3600 s.
    pub fn settled() -> Self {
        Self::settled_with(policy(json!({})))
    }

    pub fn settled_with(policy: ValidPolicy) -> Self {
        let mut story = Self::with(policy);
        story.error_rate(0.001).until(3600.0);
        assert!(story.tracker.release().unwrap().seen_healthy);
        story.now = 3600.0;
        story
    }

    /// The template becomes `version`; one new pod is surging, the old ones serve.
    pub fn release(&mut self, version: &str) -> &mut Self {
        let revision = self.workload.release.revision + 1;
        self.workload.release = ReleaseId { revision, hash: format!("h-{version}"), digest: version.to_owned() };
        self.workload.images = vec![format!("app=shop/api:{version}")];
        self.no_faults().rolling()
    }

    /// `kubectl rollout restart`: another hash, the same digest.
    pub fn restart(&mut self) -> &mut Self {
        self.workload.release.revision += 1;
        self.workload.release.hash = format!("h-{}-{}", self.workload.release.digest, self.workload.release.revision);
        self.no_faults().rolling()
    }

    pub fn rolling(&mut self) -> &mut Self {
        (self.workload.replicas, self.workload.updated, self.workload.available) = (5, 1, 4);
        self
    }

    pub fn complete(&mut self) -> &mut Self {
        let desired = self.workload.desired;
        (self.workload.replicas, self.workload.updated, self.workload.available) = (desired, desired, desired);
        self.workload.progress_deadline_exceeded = false;
        self.no_faults()
    }

    /// `count` pods of the newest template have this fault.
    pub fn fault(&mut self, kind: FaultKind, count: u32) -> &mut Self {
        let fault = |n: u32| PodFault {
            pod: format!("api-{n}"),
            container: "app".into(),
            kind,
            of_release: true,
            since: at(self.now),
            pod_started: None,
            detail: "exit code 1".into(),
        };
        self.workload.faults = (0..count).map(fault).collect();
        self.workload.faulty_pods = count;
        self.workload.faulty_release_pods = count;
        self
    }

    pub fn no_faults(&mut self) -> &mut Self {
        self.workload.faults.clear();
        (self.workload.faulty_pods, self.workload.faulty_release_pods) = (0, 0);
        self
    }

    pub fn workload(&mut self, change: impl FnOnce(&mut Workload)) -> &mut Self {
        change(&mut self.workload);
        self
    }

    /// Of all pods together.
    pub fn error_rate(&mut self, value: f64) -> &mut Self {
        self.metrics.insert(ERROR_RATE.into(), Reading::new(Measured::Known(value), false));
        self
    }

    /// Of the newest template's pods alone.
    pub fn release_error_rate(&mut self, value: f64) -> &mut Self {
        self.metrics.insert(ERROR_RATE.into(), Reading::new(Measured::Known(value), true));
        self
    }

    pub fn prometheus_down(&mut self) -> &mut Self {
        let why = Unmeasured::new(UnknownReason::Unreachable, "connection refused");
        self.metrics.insert(ERROR_RATE.into(), Reading::new(Measured::Unknown(why), false));
        self
    }

    /// Its memory rises: below every threshold still, and with this probability at its limit in half an hour.
    pub fn leaking(&mut self, risk: f64) -> &mut Self {
        self.risk = risk;
        self.memory(70.0)
    }

    /// It gave its memory back.
    pub fn relieved(&mut self) -> &mut Self {
        self.risk = 0.0;
        self.memory(30.0)
    }

    pub fn memory(&mut self, value: f64) -> &mut Self {
        self.metric(MEMORY_USAGE, value)
    }

    pub fn metric(&mut self, name: &str, value: f64) -> &mut Self {
        self.metrics.insert(name.into(), Reading::new(Measured::Known(value), false));
        self
    }

    /// The same from a source that reports the container, and measured the value at `second`.
    pub fn sampled_memory(&mut self, value: f64, second: f64) -> &mut Self {
        let sample = Sample { of: "container app of pod api-aaa-1".into(), at: at(second) };
        let reading = Reading { sample: Some(sample), ..Reading::new(Measured::Known(value), false) };
        self.metrics.insert(MEMORY_USAGE.into(), reading);
        self
    }

    /// One check now.
    pub fn record(&mut self) -> Evidence {
        let target = if self.visible {
            Measured::Known(TargetState::Workload(Box::new(self.workload.clone())))
        } else {
            Measured::Unknown(Unmeasured::new(UnknownReason::Forbidden, "deployments.apps is forbidden"))
        };
        let observation = Observation { at: at(self.now), target, metrics: self.metrics.clone() };
        let newest = self.visible.then_some(&self.workload.release);
        let thresholds = self.policy.components[0].thresholds.clone();
        let assessment = assess(&observation, &thresholds, &self.history, self.tracker.release_unproven(newest));
        let evidence = self.tracker.record(&observation, &assessment, &self.policy.limits);
        self.history.push(&observation, assessment.score);
        self.forecast = exhausting(MEMORY_USAGE, self.risk);
        self.outlook.follow(&self.tracker);
        self.outlook.record(&self.forecast, &observation, &self.policy.limits);
        self.last = Some((observation, assessment));
        self.evidence = Some(evidence);
        evidence
    }

    /// A check `seconds` from now.
    pub fn after(&mut self, seconds: f64) -> Evidence {
        self.now += seconds;
        self.record()
    }

    pub fn next_check(&self) -> Duration {
        self.tracker.next_check(&self.policy.limits, self.policy.interval)
    }

    /// Checks now (a change triggers a check) and then as often as the tracker requests, up to this time.
    pub fn until(&mut self, end: f64) -> &mut Self {
        self.record();
        while self.now + self.next_check().as_secs_f64() <= end {
            let wait = self.next_check().as_secs_f64();
            self.after(wait);
        }
        self.now = end;
        self
    }

    pub fn confirmed(&self) -> Option<Cause> {
        self.tracker.is_confirmed_bad(&self.policy.limits).then(|| self.tracker.cause().unwrap())
    }

    /// Digest of the template that a rollback would go to.
    pub fn target(&self) -> Option<&str> {
        self.tracker.rollback_target().map(|good| good.digest.as_str())
    }

    pub fn known_good(&self) -> Vec<&str> {
        self.tracker.known_good().iter().map(|good| good.digest.as_str()).collect()
    }
}
