//! Fills the windows of a component with what Prometheus remembers from before the first look at it.
//!
//! In the background: looks and healing do not wait for it, and without it forecasts come later, nothing else.

use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Context, memory::PolicyMemory};
use crate::api::{ValidComponent, ValidPolicy};

/// A past that could not be had is asked for again after this time.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// A whole component takes no longer, turns of others included.
const LIMIT: Duration = Duration::from_secs(300);

/// How far it is for one component.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backfill {
    #[default]
    Due,
    DueAt(Timestamp),
    Asked,
}

impl Backfill {
    fn is_due(self, now: Timestamp) -> bool {
        match self {
            Self::Due => true,
            Self::DueAt(at) => at <= now,
            Self::Asked => false,
        }
    }
}

/// Asks for the past of every component that was measured and has none yet.
pub(super) fn start(context: &Arc<Context>, valid: &Arc<ValidPolicy>, memory: &Arc<Mutex<PolicyMemory>>) {
    if !valid.limits.prediction {
        return;
    }
    let now = Timestamp::now();
    for component in &valid.components {
        let asks = memory.lock().components.get_mut(&component.name).is_some_and(|entry| {
            // A source that answers a look, so that its past is worth asking for.
            let measured = entry.last.as_ref().is_some_and(|look| {
                component.metrics.iter().any(|metric| look.observation.value(&metric.name).is_some())
            });
            let asks = measured && entry.backfill.is_due(now);
            if asks {
                entry.backfill = Backfill::Asked;
            }
            asks
        });
        if asks {
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
    // The queries may be other ones by now.
    let same = memory.policy.as_ref().is_some_and(|now| now.generation == valid.generation);
    let Some(entry) = memory.components.get_mut(&component.name).filter(|_| same) else { return };
    let (namespace, policy, name) = (&valid.namespace, &valid.name, &component.name);
    if past.is_empty() {
        entry.backfill = Backfill::DueAt(until + AGAIN);
    }
    for (metric, past) in past {
        match past {
            Ok(points) => {
                entry.history.fill(&metric, &points);
                let points = points.len();
                tracing::debug!(namespace, policy, component = name, metric, points, "the past was read");
            }
            Err(why) => {
                tracing::info!(namespace, policy, component = name, metric, reason = %why.reason, "the past of this metric is not known: {}", why.message);
                if !why.reason.needs_a_person() {
                    entry.backfill = Backfill::DueAt(until + AGAIN);
                }
            }
        }
    }
    entry.forecast = Some(context.forecaster.forecast(&entry.history, &component.ceilings));
}
