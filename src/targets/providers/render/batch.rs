//! CPU and memory of all services that are observed with one key, read together: `/metrics/{metric}` takes many resources
//! (<https://api-docs.render.com/reference/get-cpu>), and a key has a limit of reads.
//!
//! The series' instance names the service: everything before its last hyphen is the service's id
//! (<https://render.com/docs/metrics-streams-reference>). Requests and latency have no such label, so they are read for each
//! service alone.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Mutex as TurnMutex;

use super::wire::Series;
use crate::targets::providers::client::Credential;

/// Services of one call: a URL of 2 KB.
pub(super) const TOGETHER: usize = 50;
/// A service that was not observed for so long is not read with others.
const STILL_OBSERVED: Duration = Duration::from_secs(150);
/// Keys that are remembered before those without services are removed.
const MANY: usize = 64;

/// A metric that is read for many services at once, by its name in the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum Shared {
    Cpu,
    Memory,
    CpuLimit,
    MemoryLimit,
}

impl Shared {
    pub fn metric(self) -> &'static str {
        self.into()
    }

    /// Read again after this time: points come each 30 s at best; limits change only with the plan.
    fn keeps(self) -> Duration {
        match self {
            Self::Cpu | Self::Memory => Duration::from_secs(10),
            Self::CpuLimit | Self::MemoryLimit => Duration::from_secs(600),
        }
    }
}

/// The last series of each service, and when they were read.
#[derive(Default)]
pub(super) struct Known(HashMap<String, (Instant, Vec<Series>)>);

impl Known {
    pub fn of(&self, service: &str, what: Shared, now: Instant) -> Option<Vec<Series>> {
        let (at, series) = self.0.get(service)?;
        (now.saturating_duration_since(*at) < what.keeps()).then(|| series.clone())
    }

    /// Divides a response by services. A service without a series stays unknown: it has no data, or an API that reads only one
    /// resource has left it out.
    pub fn take(&mut self, services: &[String], answer: Vec<Series>, now: Instant) {
        for series in answer {
            let Some(service) = services.iter().find(|service| series.is_of(service)) else { continue };
            let known = self.0.entry(service.clone()).or_insert_with(|| (now, Vec::new()));
            if known.0 < now {
                *known = (now, Vec::new());
            }
            known.1.push(series);
        }
    }
}

/// The services that are observed with one key.
#[derive(Default)]
pub(super) struct Fleet {
    /// When each was last observed.
    observed_at: Mutex<HashMap<String, Instant>>,
    /// One call at a time for each metric: others wait for its response.
    known: [TurnMutex<Known>; 4],
}

impl Fleet {
    pub fn known(&self, what: Shared) -> &TurnMutex<Known> {
        &self.known[what as usize]
    }

    pub fn observe(&self, service: &str, now: Instant) {
        let mut observed_at = self.observed_at.lock();
        observed_at.retain(|_, at| now.saturating_duration_since(*at) < STILL_OBSERVED);
        observed_at.insert(service.to_owned(), now);
    }

    /// This service, and others without young series.
    pub fn worth_reading(&self, service: &str, what: Shared, known: &Known, now: Instant) -> Vec<String> {
        let observed_at = self.observed_at.lock();
        let old = |other: &&String| other.as_str() != service && known.of(other, what, now).is_none();
        let others = observed_at.keys().filter(old).cloned();
        std::iter::once(service.to_owned()).chain(others).take(TOGETHER).collect()
    }

    fn is_over(&self, now: Instant) -> bool {
        self.observed_at.lock().values().all(|at| now.saturating_duration_since(*at) >= STILL_OBSERVED)
    }
}

/// By key.
#[derive(Default)]
pub(super) struct Fleets(Mutex<HashMap<Credential, Arc<Fleet>>>);

impl Fleets {
    pub fn of(&self, credential: Credential, now: Instant) -> Arc<Fleet> {
        let mut fleets = self.0.lock();
        if fleets.len() > MANY {
            fleets.retain(|_, fleet| !fleet.is_over(now));
        }
        fleets.entry(credential).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn series(instance: &str, value: f64) -> Series {
        serde_json::from_value(json!({"labels": [{"field": "instance", "value": instance}], "unit": "cpu",
            "values": [{"timestamp": "2026-11-25T10:00:00Z", "value": value}]}))
        .unwrap()
    }

    fn after(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[test]
    fn a_response_is_divided_by_instances_and_reused_for_a_while() {
        let (mut known, now) = (Known::default(), Instant::now());
        let services = ["srv-a".to_owned(), "srv-ab".to_owned(), "srv-none".to_owned()];
        let answer =
            vec![series("srv-ab-1", 1.0), series("srv-a-1", 2.0), series("srv-a-2", 3.0), series("srv-x-1", 4.0)];
        known.take(&services, answer, now);
        let values = |known: &Known, service: &str, what, now| {
            known.of(service, what, now).map(|all| all.iter().map(|one| one.values[0].value).collect::<Vec<f64>>())
        };
        assert_eq!(values(&known, "srv-a", Shared::Cpu, now), Some(vec![2.0, 3.0]));
        assert_eq!(values(&known, "srv-ab", Shared::Cpu, now), Some(vec![1.0]));
        assert_eq!(values(&known, "srv-none", Shared::Cpu, now), None, "no response says that it has no data");
        assert_eq!(values(&known, "srv-x", Shared::Cpu, now), None);
        assert_eq!(values(&known, "srv-a", Shared::Cpu, after(11)), None);
        assert_eq!(values(&known, "srv-a", Shared::CpuLimit, after(11)), Some(vec![2.0, 3.0]));
        // A newer response replaces the one before.
        known.take(&services, vec![series("srv-a-3", 5.0)], after(1));
        assert_eq!(values(&known, "srv-a", Shared::Cpu, after(1)), Some(vec![5.0]));
    }

    #[test]
    fn others_that_are_observed_are_read_in_the_same_call() {
        let (fleet, now) = (Fleet::default(), Instant::now());
        for place in 0..2 * TOGETHER {
            fleet.observe(&format!("srv-{place}"), now);
        }
        let mut known = Known::default();
        let first = fleet.worth_reading("srv-7", Shared::Cpu, &known, now);
        assert_eq!((first.len(), first[0].as_str()), (TOGETHER, "srv-7"));
        known.take(&first, first.iter().map(|service| series(&format!("{service}-1"), 1.0)).collect(), now);
        let unknown = (0..2 * TOGETHER).map(|place| format!("srv-{place}")).find(|service| !first.contains(service));
        let second = fleet.worth_reading(&unknown.unwrap(), Shared::Cpu, &known, now);
        assert_eq!(second.len(), TOGETHER);
        assert!(second.iter().all(|service| !first.contains(service)), "two calls are enough for all");
        // They are not observed any more.
        fleet.observe("srv-new", after(200));
        assert_eq!(fleet.worth_reading("srv-new", Shared::Cpu, &known, after(200)), ["srv-new"]);
    }
}
