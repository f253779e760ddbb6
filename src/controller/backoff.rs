//! How long a failed reconciliation waits before it is repeated, by the class of its error.

use std::{collections::HashMap, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use kube::api::ObjectMeta;
use parking_lot::Mutex;

use crate::api::Retry;

/// The wait after the first failure; it doubles from there.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);
/// Of an error that only a change can correct: the watch brings the change.
const ON_CHANGE: Duration = Duration::from_secs(300);
/// Objects whose failures are counted at most.
const MANY: usize = 10_000;

/// Failures in a row, by the uid of the object.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<String, usize>>);

impl Backoff {
    /// The wait after one more failure of this object.
    pub fn next(&self, retry: Retry, object: &ObjectMeta) -> Duration {
        match retry {
            Retry::Never | Retry::OnChange => ON_CHANGE,
            Retry::Backoff => {
                let mut failures = self.0.lock();
                if failures.len() >= MANY {
                    failures.clear();
                }
                let failed = failures.entry(key(object)).or_default();
                let waits = ExponentialBuilder::new().with_min_delay(FIRST).with_max_delay(LONGEST).with_jitter();
                let wait = waits.without_max_times().build().nth(*failed).unwrap_or(LONGEST);
                *failed = (*failed + 1).min(16);
                wait
            }
        }
    }

    /// Starts again with the first wait, after a success.
    pub fn reset(&self, object: &ObjectMeta) {
        self.0.lock().remove(&key(object));
    }
}

fn key(object: &ObjectMeta) -> String {
    object.uid.clone().or_else(|| object.name.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::HealingPolicy;

    #[test]
    fn waits_grow_with_each_failure_and_start_again_after_a_success() {
        let mut policy = HealingPolicy::new("shop", Default::default());
        policy.metadata.uid = Some("1".into());
        let backoff = Backoff::default();
        let waits: Vec<f64> = (0..10).map(|_| backoff.next(Retry::Backoff, &policy.metadata).as_secs_f64()).collect();
        for (n, wait) in waits.iter().enumerate() {
            let least = f64::from(1 << n.min(6)).min(15.0);
            assert!((least..=2.0 * least + 15.0).contains(wait), "{n}: {waits:?}");
        }
        backoff.reset(&policy.metadata);
        assert!(backoff.next(Retry::Backoff, &policy.metadata) < Duration::from_secs(3));
        assert_eq!(backoff.next(Retry::OnChange, &policy.metadata), ON_CHANGE);
    }
}
