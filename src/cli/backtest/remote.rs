//! A history from Prometheus.

use std::{
    collections::{BTreeMap, btree_map::IntoIter},
    time::Duration,
};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::csv::{Bad, Moment, Rows};
use crate::targets::prometheus::Prometheus;

/// Time limit for the whole history of one metric.
const LIMIT: Duration = Duration::from_secs(300);

/// All metrics, joined by their times: the steps of all queries are the same.
pub(super) struct Fetched {
    metrics: Vec<String>,
    rows: IntoIter<Timestamp, Vec<Option<f64>>>,
}

/// The history of the metrics, by name, until now.
pub(super) async fn fetch(
    url: &Url,
    queries: &BTreeMap<String, String>,
    since: SignedDuration,
    step: SignedDuration,
) -> anyhow::Result<Fetched> {
    let prometheus = Prometheus::new(None);
    let end = Timestamp::now();
    let start = end.checked_sub(since).context("--since is too long ago")?;
    let metrics: Vec<String> = queries.keys().cloned().collect();
    let mut rows: BTreeMap<Timestamp, Vec<Option<f64>>> = BTreeMap::new();
    for (place, (name, query)) in queries.iter().enumerate() {
        let found = prometheus.range(query, Some(url), start, end, step.unsigned_abs(), LIMIT).await;
        let found = found.map_err(|why| anyhow::anyhow!("{name}: {}: {}", why.reason, why.message))?;
        for (at, value) in found {
            rows.entry(at).or_insert_with(|| vec![None; metrics.len()])[place] = Some(value);
        }
    }
    Ok(Fetched { metrics, rows: rows.into_iter() })
}

impl Rows for Fetched {
    fn metrics(&self) -> &[String] {
        &self.metrics
    }

    fn next(&mut self, values: &mut Vec<Option<f64>>) -> Result<Option<Moment>, Bad> {
        let Some((at, row)) = self.rows.next() else { return Ok(None) };
        *values = row;
        Ok(Some(Moment { t: at.as_nanosecond() as f64 / 1e9, at }))
    }
}
