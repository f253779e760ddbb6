//! What the windows of the analysis are filled with after a restart.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::error::LedgerError;
use super::row::component_key;
use super::{HISTORY_LIMIT, Ledger, within};

/// What one look found.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPoint {
    pub at: Timestamp,
    /// 0 to 100.
    pub score: f64,
    /// By metric name, in the metric's own unit; what could not be measured is left out.
    pub metrics: BTreeMap<String, f64>,
}

impl Ledger {
    /// The most points that [`Ledger::history`] gives.
    pub const MAX_HISTORY: usize = 100;

    /// The last looks at a component that gave a score, oldest first, at most `limit` and never more than
    /// [`Ledger::MAX_HISTORY`]. Looks that could not be measured are left out.
    ///
    /// # Errors
    /// Within [`HISTORY_LIMIT`]; a caller goes on without history.
    pub async fn history(
        &self,
        namespace: &str,
        policy: &str,
        component: &str,
        limit: usize,
    ) -> Result<Vec<HistoryPoint>, LedgerError> {
        let key = component_key(namespace, policy, component);
        let limit = i64::try_from(limit.min(Self::MAX_HISTORY)).unwrap_or(0);
        let mut looks = within(HISTORY_LIMIT, "reading the history", self.shared.database.history(&key, limit)).await?;
        looks.reverse();
        Ok(looks
            .into_iter()
            .map(|(at, score, metrics)| HistoryPoint { at, score, metrics: readings(&metrics) })
            .collect())
    }
}

/// The numbers among the values: the component's key is a text.
fn readings(metrics: &serde_json::Value) -> BTreeMap<String, f64> {
    let entries = metrics.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect()
}
