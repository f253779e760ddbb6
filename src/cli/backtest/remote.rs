//! A history that a Prometheus holds.

use std::{
    collections::{BTreeMap, btree_map::IntoIter},
    time::Duration,
};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::csv::{Bad, Moment, Rows};
use crate::targets::prometheus::Prometheus;

/// For one metric's whole history.
const LIMIT: Duration = Duration::from_secs(300);

pub(super) struct Asked {
    pub url: Url,
    /// By metric.
    pub queries: BTreeMap<String, String>,
    pub start: Timestamp,
    pub end: Timestamp,
    pub step: SignedDuration,
}

/// All metrics, joined by their times: the steps of all queries are the same.
pub(super) struct Fetched {
    metrics: Vec<String>,
    rows: IntoIter<Timestamp, Vec<Option<f64>>>,
}

pub(super) async fn fetch(asked: &Asked) -> anyhow::Result<Fetched> {
    let prometheus = Prometheus::new(None);
    let metrics: Vec<String> = asked.queries.keys().cloned().collect();
    let step = Duration::try_from(asked.step).context("--step must be positive")?;
    let mut rows: BTreeMap<Timestamp, Vec<Option<f64>>> = BTreeMap::new();
    for (place, (name, query)) in asked.queries.iter().enumerate() {
        let found = prometheus.range(query, Some(&asked.url), asked.start, asked.end, step, LIMIT).await;
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
