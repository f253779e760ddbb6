//! The stored health checks that fill the windows of the analysis after a restart.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::error::LedgerError;
use super::row::component_key;
use super::{HISTORY_LIMIT, Ledger, within};

/// `$1` is the component key, `$2` the highest number of rows. `component` is the expression of the component key.
pub(super) fn select(component: &str) -> String {
    format!(
        "SELECT created_at, CAST(health_score AS double precision), metrics FROM ai_proactive_health
         WHERE {component} = $1 AND health_score IS NOT NULL
         ORDER BY created_at DESC LIMIT $2"
    )
}

/// The values of one health check.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPoint {
    pub at: Timestamp,
    /// 0 to 100.
    pub score: f64,
    /// By metric name, in the metric's own unit, without metrics that could not be measured.
    pub metrics: BTreeMap<String, f64>,
}

impl Ledger {
    /// The most points that [`Ledger::history`] returns.
    pub const MAX_HISTORY: usize = 100;

    /// The last health checks of a component that gave a score, oldest first, at most `limit` and never more than
    /// [`Ledger::MAX_HISTORY`].
    ///
    /// # Errors
    /// Within [`HISTORY_LIMIT`]; a caller continues without history.
    pub async fn history(
        &self,
        namespace: &str,
        policy: &str,
        component: &str,
        limit: usize,
    ) -> Result<Vec<HistoryPoint>, LedgerError> {
        let key = component_key(namespace, policy, component);
        let limit = i64::try_from(limit.min(Self::MAX_HISTORY)).unwrap_or(0);
        let read = self.shared.database.history(&key, limit);
        let checks = within(HISTORY_LIMIT, "reading the history", read).await?;
        let point = |(at, score, metrics): (jiff_sqlx::Timestamp, f64, serde_json::Value)| {
            // Only the numbers: the component key is a text.
            let entries = metrics.as_object().into_iter().flatten();
            let metrics = entries.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
            HistoryPoint { at: at.to_jiff(), score, metrics }
        };
        Ok(checks.into_iter().rev().map(point).collect())
    }
}
