//! The last observation of each service, for a short time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::MANY;
use crate::{
    api::Access,
    targets::{
        Observed,
        providers::common::{HostedError, Metrics, observed},
    },
};

/// An observation this young is reused: an action asks more often than a service changes. Shorter than the pause between two
/// observations by a policy.
const SAME_OBSERVATION: Duration = Duration::from_secs(3);
/// Metrics have a point each 30 s at best, and the service itself changes seldom: read again after this time.
pub(super) const SAME_REST: Duration = Duration::from_secs(15);
/// After this time without an observation a service may be forgotten.
const OLD: Duration = Duration::from_secs(600);

/// Observations by [`key`], with parts that not every observation reads.
pub(super) struct Memory<T, R>(Mutex<HashMap<String, Remembered<T, R>>>);

pub(super) struct Remembered<T, R> {
    pub observation: Option<(Instant, Observed<T>)>,
    pub rest: R,
}

impl<T, R> Default for Memory<T, R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone, R: Default> Memory<T, R> {
    /// Awaits `read`, unless there is a young observation.
    pub async fn observe(
        &self,
        key: &str,
        read: impl Future<Output = Result<(T, Metrics), HostedError>>,
    ) -> Observed<T> {
        let known = self.0.lock().get(key).and_then(|seen| young(&seen.observation, SAME_OBSERVATION));
        if let Some(known) = known {
            return known;
        }
        let read = observed(read.await);
        self.change(key, |seen| seen.observation = Some((Instant::now(), read.clone())));
        read
    }

    pub fn rest<U>(&self, key: &str, read: impl FnOnce(&R) -> Option<U>) -> Option<U> {
        self.0.lock().get(key).and_then(|seen| read(&seen.rest))
    }

    pub fn change(&self, key: &str, change: impl FnOnce(&mut Remembered<T, R>)) {
        let mut all = self.0.lock();
        if all.len() >= MANY {
            all.retain(|_, seen| young(&seen.observation, OLD).is_some());
        }
        let new = || Remembered { observation: None, rest: R::default() };
        change(all.entry(key.to_owned()).or_insert_with(new));
    }
}

pub(super) fn young<T: Clone>(remembered: &Option<(Instant, T)>, age: Duration) -> Option<T> {
    remembered.as_ref().filter(|(at, _)| at.elapsed() < age).map(|(_, what)| what.clone())
}

/// Policies with the same key share observations; others may have no access to the service.
pub(super) fn key(namespace: &str, id: &str, access: &Access) -> String {
    match &access.key {
        Some(key) => format!("{namespace}/{}/{}/{id}", key.name, key.key),
        None => id.to_owned(),
    }
}
