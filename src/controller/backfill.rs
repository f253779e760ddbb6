//! Fills the windows of a component with the samples that Prometheus has from before the first check.
//!
//! In the background: checks and healing do not wait for it; without it only the forecasts come later.

use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Context, memory::PolicyMemory};
use crate::api::{ValidComponent, ValidPolicy};

/// Between two attempts to read a past.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// The time limit for a component, the wait for others included.
const LIMIT: Duration = Duration::from_secs(300);

/// Queries the past of every component that was measured and has none yet.
pub(super) fn start(context: &Arc<Context>, valid: &Arc<ValidPolicy>, memory: &Arc<Mutex<PolicyMemory>>) {
    if !valid.limits.prediction {
        return;
    }
    let now = Timestamp::now();
    for component in &valid.components {
        let mut locked = memory.lock();
        let Some(entry) = locked.components.get_mut(&component.name) else { continue };
        // A source that responds to a check has a past worth a query.
        let measured = entry.last.as_ref().is_some_and(|check| {
            component.metrics.iter().any(|metric| check.observation.value(&metric.name).is_some())
        });
        if measured && entry.backfill_due <= now {
            entry.backfill_due = Timestamp::MAX;
            tokio::spawn(fill(context.clone(), valid.clone(), component.clone(), memory.clone()));
        }
    }
}

async fn fill(
    context: Arc<Context>,
    valid: Arc<ValidPolicy>,
    component: ValidComponent,
    memory: Arc<Mutex<PolicyMemory>>,
) {
    let until = Timestamp::now();
    let past = context.targets.past(&valid.namespace, &component, valid.interval, until);
    let past = tokio::time::timeout(LIMIT, past).await.unwrap_or_default();
    let mut memory = memory.lock();
    // The queries may have changed since.
    let same = memory.policy.as_ref().is_some_and(|now| now.generation == valid.generation);
    let Some(entry) = memory.components.get_mut(&component.name).filter(|_| same) else { return };
    let (namespace, policy, name) = (&valid.namespace, &valid.name, &component.name);
    if past.is_empty() {
        entry.backfill_due = until + AGAIN;
    }
    for (metric, past) in past {
        match past {
            Ok(points) => {
                entry.history.fill(&metric, &points);
                let points = points.len();
                tracing::debug!(
                    namespace,
                    policy,
                    component = name,
                    metric,
                    points,
                    "the past of this metric was read"
                );
            }
            Err(why) => {
                tracing::info!(namespace, policy, component = name, metric, reason = %why.reason, "the past of this metric is unknown: {}", why.message);
                if !why.reason.needs_a_person() {
                    entry.backfill_due = until + AGAIN;
                }
            }
        }
    }
    entry.forecast = Some(context.forecaster.forecast(&entry.history, &component.ceilings));
}
