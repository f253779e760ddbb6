//! The metrics of a component before the first observation: forecasts must not wait for a day of observations.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::{Targets, placeholders};
use crate::{
    analyze::{
        observation::{UnknownReason, Unmeasured},
        window::CAPACITY,
    },
    api::{MetricQuery, ValidComponent},
};

/// For one range of one metric.
const RANGE_LIMIT: Duration = Duration::from_secs(10);
/// Metrics whose past is queried at the same time, over all policies: Prometheus has other clients.
pub(super) const AT_ONCE: usize = 4;
/// How far each tier of a window reaches back, and the step of its query, from the coarsest on.
const TIERS: [(SignedDuration, Duration); 2] = [
    (SignedDuration::from_hours(50), Duration::from_secs(300)),
    (SignedDuration::from_mins(500), Duration::from_secs(60)),
];

/// Values of one metric, oldest first.
pub type Past = Result<Vec<(Timestamp, f64)>, Unmeasured>;

impl Targets {
    /// The past of each metric of a component up to `until`, by name: the latest values at the policy's `interval`, and
    /// sparser ones as far back as the windows of the analysis reach. Empty for a metric that Prometheus never had.
    ///
    /// Takes up to [`RANGE_LIMIT`] a range, and waits for its turn: no observation may wait for it.
    pub async fn past(
        &self,
        namespace: &str,
        component: &ValidComponent,
        interval: Duration,
        until: Timestamp,
    ) -> BTreeMap<String, Past> {
        let metrics = join_all(component.metrics.iter().map(async |metric| {
            let _turn = self.pasts.acquire().await;
            (metric.name.clone(), self.past_of(namespace, component, metric, interval, until).await)
        }));
        metrics.await.into_iter().collect()
    }

    async fn past_of(
        &self,
        namespace: &str,
        component: &ValidComponent,
        metric: &MetricQuery,
        interval: Duration,
        until: Timestamp,
    ) -> Past {
        // Of all pods: a new release has no past.
        let expanded = placeholders::expand(&metric.query, namespace, component, &self.index, false)?;
        let mut values = Vec::new();
        for (start, end, step) in ranges(interval, until) {
            let range = self.prometheus.range(&expanded.query, metric.url.as_ref(), start, end, step, RANGE_LIMIT);
            match range.await {
                Ok(found) => values.extend(found),
                Err(why) if why.reason == UnknownReason::NoData => {}
                Err(why) => return Err(why),
            }
        }
        Ok(values)
    }
}

/// Ranges that follow each other without meeting, oldest first.
fn ranges(interval: Duration, until: Timestamp) -> Vec<(Timestamp, Timestamp, Duration)> {
    let ago = |time: SignedDuration| until.saturating_sub(time).unwrap_or(Timestamp::MIN);
    let latest = SignedDuration::try_from(interval * CAPACITY as u32).unwrap_or(SignedDuration::MAX);
    let tiers = TIERS.map(|(reach, step)| (reach, step.max(interval)));
    let tiers: Vec<_> = tiers.into_iter().filter(|(reach, _)| *reach > latest).chain([(latest, interval)]).collect();
    let ends =
        tiers.iter().skip(1).map(|(reach, step)| ago(*reach + SignedDuration::try_from(*step).unwrap_or_default()));
    let ends: Vec<Timestamp> = ends.chain([until]).collect();
    let ranges = tiers.iter().zip(ends).map(|((reach, step), end)| (ago(*reach), end, *step));
    ranges.filter(|(start, end, _)| start < end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_denser_and_never_meet() {
        let until = Timestamp::from_second(1_000_000_000).unwrap();
        for (seconds, count) in [(1, 3), (30, 3), (60, 3), (200, 3), (299, 2), (300, 2), (1800, 1), (3600, 1)] {
            let ranges = ranges(Duration::from_secs(seconds), until);
            assert_eq!(ranges.len(), count, "{seconds} s: {ranges:?}");
            assert_eq!(ranges.last().unwrap().1, until);
            assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0 && pair[0].2 >= pair[1].2), "{ranges:?}");
            let points: i64 = ranges
                .iter()
                .map(|(start, end, step)| end.duration_since(*start).as_secs() / step.as_secs() as i64)
                .sum();
            assert!(points < 1200, "{seconds} s: {points} points");
        }
    }
}
