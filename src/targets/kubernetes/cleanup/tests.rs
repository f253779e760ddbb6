//! Pods are evicted one at a time, only those of the stored list, in every order of answers, losses and crashes.

use super::*;
use crate::targets::model::{Limits, Report, World, walk};

fn growth(baseline: f64, value: f64) -> MemoryGrowth {
    MemoryGrowth {
        metric: "memory_usage".into(),
        baseline,
        value,
        relieved_at: f64::midpoint(baseline, value),
        leak: true,
        bytes_per_unit: None,
    }
}

fn named(uid: u32) -> LeakingPod {
    LeakingPod { name: format!("p{uid}"), uid: uid.to_string(), value: None }
}

fn candidates(values: &[Option<f64>]) -> Candidates {
    let unknown = || {
        let reason = crate::analyze::observation::UnknownReason::NoData;
        Measured::Unknown(crate::analyze::observation::Unmeasured::new(reason, "no sample"))
    };
    let pods = (0..u32::try_from(values.len()).unwrap()).map(named).collect();
    Candidates { pods, values: Some(values.iter().map(|value| value.map_or_else(unknown, Measured::Known)).collect()) }
}

fn chosen(growth: &MemoryGrowth, values: &[Option<f64>]) -> Result<Vec<String>, ActError> {
    let pods = Cleanup { growth }.choose(&candidates(values))?;
    Ok(pods.into_iter().map(|pod| pod.name).collect())
}

#[test]
fn leaking_pods_are_replaced_the_fullest_first() {
    let of_fullest = growth(40.0, 90.0);
    assert_eq!(chosen(&of_fullest, &[Some(41.0), Some(70.0), Some(90.0)]).unwrap(), ["p2", "p1"]);
    assert_eq!(chosen(&of_fullest, &[Some(90.0), None, Some(90.0)]).unwrap(), ["p0", "p2"], "unmeasured pods stay");
    // The metric adds pods up, or takes their mean.
    assert_eq!(chosen(&growth(120.0, 270.0), &[Some(90.0), Some(90.0), Some(90.0)]).unwrap(), ["p0", "p1", "p2"]);
    assert_eq!(chosen(&growth(40.0, 60.0), &[Some(100.0), Some(40.0), Some(40.0)]).unwrap(), ["p0"]);
    let error = chosen(&of_fullest, &[None, None]).unwrap_err();
    assert!(matches!(&error, ActError::Unmeasured(why) if why.contains("no sample")), "{error}");
    let oldest_first = Candidates { pods: vec![named(1), named(0)], values: None };
    let all = Cleanup { growth: &of_fullest }.choose(&oldest_first).unwrap();
    assert_eq!(all, [named(1), named(0)], "the metric does not tell pods apart");
}

/// Three pods are desired. Pods 0 and 1 leak; pod 2 and every replacement do not.
#[derive(Debug, Clone, PartialEq)]
struct Workload {
    pods: Vec<Pod>,
    /// uid of the next replacement.
    next: u32,
    evicted: Vec<u32>,
    /// An eviction was made while another pod was missing.
    two_missing: bool,
    /// A pod of the list was lost without an eviction: happens once.
    lost: bool,
    superseded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Pod {
    uid: u32,
    ready: bool,
}

const DESIRED: usize = 3;

impl Workload {
    fn new() -> Self {
        let pods = (0..3).map(|uid| Pod { uid, ready: true }).collect();
        Self { pods, next: 3, evicted: Vec::new(), two_missing: false, lost: false, superseded: false }
    }

    fn ready(&self) -> usize {
        self.pods.iter().filter(|pod| pod.ready).count()
    }

    /// Without this pod; its replacement starts.
    fn without(&self, uid: u32) -> Self {
        let mut workload = self.clone();
        workload.pods.retain(|pod| pod.uid != uid);
        workload.pods.push(Pod { uid: self.next, ready: false });
        workload.next += 1;
        workload
    }

    fn evict(&self, uid: u32) -> Self {
        let mut workload = self.without(uid);
        workload.two_missing |= self.ready() < DESIRED;
        workload.evicted.push(uid);
        workload
    }
}

impl<P> World<P> for Workload
where
    P: Procedure<Progress = CleanupProgress, Seen = CleanupSeen, Effect = Evict, Answer = Result<Evicted, ActError>>,
{
    fn observations(&self, progress: &CleanupProgress) -> Vec<CleanupSeen> {
        let unreachable = || ActError::Unreachable("away".into());
        if progress.pods.is_empty() {
            let values = [Some(90.0), Some(80.0), Some(41.0)];
            let unmeasured = candidates(&[None, None, None]);
            let none_ready = Candidates { pods: Vec::new(), values: None };
            let seen = [candidates(&values), unmeasured, none_ready].map(Ok).into_iter().chain([Err(unreachable())]);
            return seen.map(CleanupSeen::Candidates).collect();
        }
        let superseded = self.superseded.then(|| ActError::Superseded { expected: "v1".into(), found: "v2".into() });
        let missing = (self.ready() < DESIRED).then(|| "3 pods to be ready".to_owned());
        let exists = |pod: &&LeakingPod| self.pods.iter().any(|one| one.uid.to_string() == pod.uid);
        let left = progress.pods.iter().filter(exists).map(|pod| pod.uid.clone()).collect();
        let seen = PodsSeen { superseded, missing, left };
        vec![CleanupSeen::Pods(Ok(seen)), CleanupSeen::Pods(Err(unreachable()))]
    }

    fn results(&self, Evict(pod): &Evict, _: &CleanupProgress) -> Vec<(Self, P::Answer)> {
        let uid = pod.uid.parse().unwrap();
        let lost = || Err(ActError::Timeout { verb: "create", resource: "pods/eviction", seconds: 5 });
        if !self.pods.iter().any(|pod| pod.uid == uid) {
            return vec![(self.clone(), Ok(Evicted::Gone)), (self.clone(), lost())];
        }
        let forbidden = ActError::Forbidden { verb: "create", resource: "pods/eviction", message: "no".into() };
        let mut results = vec![
            (self.evict(uid), Ok(Evicted::Yes)),
            (self.evict(uid), lost()),
            (self.clone(), lost()),
            (self.clone(), Ok(Evicted::No("no disruption allowed".into()))),
            (self.clone(), Err(forbidden)),
        ];
        if !self.lost {
            // The pod ends before the eviction arrives.
            results.push((Self { lost: true, ..self.without(uid) }, Ok(Evicted::Gone)));
        }
        results
    }

    fn later(&self) -> Vec<Self> {
        let mut later = vec![Self { superseded: true, ..self.clone() }];
        let mut ready = self.clone();
        ready.pods.iter_mut().for_each(|pod| pod.ready = true);
        later.push(ready);
        for uid in [0, 1] {
            if !self.lost && self.pods.iter().any(|pod| pod.uid == uid) {
                later.push(Self { lost: true, ..self.without(uid) });
            }
        }
        later
    }

    fn violation(&self, step: &Step<CleanupProgress, Evict>) -> Option<String> {
        if let Some(uid) = self.evicted.iter().find(|uid| **uid > 1) {
            return Some(format!("pod {uid} was evicted and is not in the list"));
        }
        if self.two_missing {
            return Some("a pod was evicted while another one was missing".to_owned());
        }
        match step {
            Step::OutcomeUnknown { .. } => Some("the pods tell the outcome".to_owned()),
            Step::Ended { end: End::Expired, .. } if !self.evicted.is_empty() => {
                Some("pods were evicted, and the message says that nothing was done".to_owned())
            }
            Step::Done { .. } if self.pods.iter().any(|pod| pod.uid < 2) => Some("a pod is left".to_owned()),
            Step::Done { .. } if self.ready() < DESIRED => Some("a replacement is not ready".to_owned()),
            _ => None,
        }
    }
}

fn walked<P>(procedure: &P) -> Report
where
    P: Procedure<Progress = CleanupProgress, Seen = CleanupSeen, Effect = Evict, Answer = Result<Evicted, ActError>>,
{
    // PATIENCE, and one tick more, for the list, the first eviction and each of the two replacements.
    let (tick, deadline) = (Duration::from_secs(100), SignedDuration::from_mins(28));
    let limits = Limits { tick, deadline, ..Limits::default() };
    walk(procedure, Workload::new(), CleanupProgress::default(), limits)
}

#[test]
fn only_listed_pods_are_evicted_one_at_a_time() {
    let growth = growth(40.0, 90.0);
    let report = walked(&Cleanup { growth: &growth });
    report.assert_holds();
    let ends = [
        "Done Executed",
        "Expired PolicyGone",
        "Ineffective PolicyGone",
        "Expired Superseded",
        "Ineffective Superseded",
        "Failed PodsNotReady",
        "Failed DisruptionBudget",
        "Failed NoPods",
        "Failed CouldNotMeasure",
        "Failed Unreachable",
        "Failed Timeout",
        "Failed Forbidden",
    ];
    for end in ends {
        assert!(report.reached(end), "{end} was not reached: {report:?}");
    }
}

/// What a mutation changes of what is seen.
struct Mutant<'a> {
    cleanup: Cleanup<'a>,
    seen: fn(&CleanupProgress, PodsSeen) -> PodsSeen,
    list: fn(CleanupProgress) -> CleanupProgress,
}

impl Procedure for Mutant<'_> {
    type Progress = CleanupProgress;
    type Seen = CleanupSeen;
    type Effect = Evict;
    type Answer = Result<Evicted, ActError>;

    fn next(&self, progress: &CleanupProgress, seen: &CleanupSeen, moment: &Moment) -> Next {
        let progress = (self.list)(progress.clone());
        let seen = match seen {
            CleanupSeen::Pods(Ok(pods)) => CleanupSeen::Pods(Ok((self.seen)(&progress, pods.clone()))),
            other => other.clone(),
        };
        self.cleanup.next(&progress, &seen, moment)
    }

    fn answered(
        &self,
        progress: &CleanupProgress,
        effect: &Evict,
        answer: &Result<Evicted, ActError>,
        moment: &Moment,
    ) -> Next {
        self.cleanup.answered(progress, effect, answer, moment)
    }
}

#[test]
fn the_model_catches_an_eviction_that_does_not_wait() {
    let growth = growth(40.0, 90.0);
    let seen = |_: &CleanupProgress, pods| PodsSeen { missing: None, ..pods };
    let report = walked(&Mutant { cleanup: Cleanup { growth: &growth }, seen, list: |progress| progress });
    report.assert_caught();
    assert!(report.violation.unwrap().contains("while another one was missing"));
}

#[test]
fn the_model_catches_an_eviction_outside_the_list() {
    let growth = growth(40.0, 90.0);
    // Every pod of the workload is taken for one of the list.
    let list = |mut progress: CleanupProgress| {
        if progress.pods.len() == 2 {
            progress.pods.push(named(2));
        }
        progress
    };
    let seen = |progress: &CleanupProgress, mut pods: PodsSeen| {
        if progress.pods.len() == 3 && !pods.left.contains(&"2".to_owned()) {
            pods.left.push("2".to_owned());
        }
        pods
    };
    let report = walked(&Mutant { cleanup: Cleanup { growth: &growth }, seen, list });
    report.assert_caught();
    assert!(report.violation.unwrap().contains("is not in the list"));
}
