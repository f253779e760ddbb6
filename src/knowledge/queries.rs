//! Four questions that the ledger answers, as plain SQL for both databases: `psql` and `sqlite3` take them as they are.
//!
//! - actions by type in the last 24 hours;
//! - components by interventions (something was done, or tried, to them);
//! - success rate by action type, 0 to 1. "Executed" is not "fixed": the rows of an intervention say `success` when
//!   verification saw it help, those of a check when it could be measured;
//! - prediction accuracy by day (UTC).
//!
//! **Accuracy.** Each `proactive_health_check` with `output_data.failure_probability` is a prediction about its
//! component (by namespace, policy and name) and the hour after it: "it will fail" at 0.5 or more, "it will not"
//! below. Trouble followed when, after the check and at most one hour later, there is an intervention on that component
//! or a check that found it `Unhealthy` or `Critical` (`output_data.status`). A prediction was right when what it said
//! is what followed; accuracy is the share that was right, 0 to 1. Checks younger than one hour are not judged yet. A
//! failure that was prevented shows as an intervention, so it counts as foreseen and not as a false alarm.

use serde::Serialize;

use super::database::Fetched;
use super::error::LedgerError;
use super::{Ledger, QUERY_LIMIT, patiently, within};

/// One question in both dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    pub postgres: &'static str,
    pub sqlite: &'static str,
}

/// Actions by type in the last 24 hours. Columns as [`ActionCount`].
pub const ACTIONS_LAST_DAY: Query = Query {
    postgres: "\
SELECT action_type,
       count(*) AS actions,
       count(*) FILTER (WHERE success) AS succeeded
FROM unified_brain
WHERE agent_name LIKE '%self_healing%'
  AND executed_at >= now() - interval '24 hours'
GROUP BY action_type
ORDER BY actions DESC, action_type",
    sqlite: "\
SELECT action_type,
       count(*) AS actions,
       count(*) FILTER (WHERE success) AS succeeded
FROM unified_brain
WHERE agent_name LIKE '%self_healing%'
  AND executed_at >= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-24 hours')
GROUP BY action_type
ORDER BY actions DESC, action_type",
};

/// Components by interventions, most first, at most 100. Columns as [`ComponentInterventions`].
pub const INTERVENTIONS_BY_COMPONENT: Query = Query {
    postgres: INTERVENTIONS,
    // The operator ->> means the same in both for an object's key.
    sqlite: INTERVENTIONS,
};

const INTERVENTIONS: &str = "\
SELECT coalesce(metadata ->> 'namespace', '') AS namespace,
       coalesce(metadata ->> 'policy', '') AS policy,
       coalesce(metadata ->> 'component', '') AS component,
       count(*) AS interventions,
       count(*) FILTER (WHERE success) AS succeeded
FROM unified_brain
WHERE action_type IN ('service_restart', 'service_restart_failed', 'automatic_rollback', 'rollback_failed',
                      'db_connection_recovered', 'db_recovery_failed', 'memory_leak_cleanup',
                      'service_scaled', 'service_scale_failed', 'custom_remedy', 'custom_remedy_failed')
GROUP BY 1, 2, 3
ORDER BY interventions DESC, 1, 2, 3
LIMIT 100";

/// Success rate by action type. Columns as [`ActionSuccess`].
pub const SUCCESS_BY_ACTION: Query = Query {
    postgres: "\
SELECT action_type,
       count(*) AS actions,
       avg(success::int)::float8 AS success_rate
FROM unified_brain
WHERE agent_name LIKE '%self_healing%'
GROUP BY action_type
ORDER BY action_type",
    sqlite: "\
SELECT action_type,
       count(*) AS actions,
       avg(success) AS success_rate
FROM unified_brain
WHERE agent_name LIKE '%self_healing%'
GROUP BY action_type
ORDER BY action_type",
};

/// Prediction accuracy by day, newest first, at most 400 days; defined in the head of this file. Columns as
/// [`DayAccuracy`].
///
/// The window runs from the newest row to the oldest, so that "the next trouble" is the smallest time seen so far and
/// costs one step a row.
pub const ACCURACY_BY_DAY: Query = Query {
    postgres: "\
WITH looks AS (
    SELECT id, executed_at, metadata ->> 'namespace' AS namespace, metadata ->> 'policy' AS policy,
           metadata ->> 'component' AS component,
           CASE WHEN action_type = 'proactive_health_check'
                     AND jsonb_typeof(output_data -> 'failure_probability') = 'number'
                THEN (output_data ->> 'failure_probability')::float8 END AS probability,
           CASE WHEN action_type <> 'proactive_health_check' OR output_data ->> 'status' IN ('Unhealthy', 'Critical')
                THEN executed_at END AS trouble_at
    FROM unified_brain
    WHERE action_type IN ('proactive_health_check',
                          'service_restart', 'service_restart_failed', 'automatic_rollback', 'rollback_failed',
                          'db_connection_recovered', 'db_recovery_failed', 'memory_leak_cleanup',
                      'service_scaled', 'service_scale_failed', 'custom_remedy', 'custom_remedy_failed')
), outcomes AS (
    SELECT executed_at, probability,
           min(trouble_at) OVER (PARTITION BY namespace, policy, component ORDER BY executed_at DESC, id
                                 ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS next_trouble_at
    FROM looks
), judged AS (
    SELECT to_char(executed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day,
           (probability >= 0.5) = coalesce(next_trouble_at <= executed_at + interval '1 hour', false) AS correct
    FROM outcomes
    WHERE probability IS NOT NULL AND executed_at <= now() - interval '1 hour'
)
SELECT day, count(*) AS predictions, count(*) FILTER (WHERE correct) AS correct,
       avg(correct::int)::float8 AS accuracy
FROM judged GROUP BY day ORDER BY day DESC LIMIT 400",
    sqlite: "\
WITH looks AS (
    SELECT id, executed_at, metadata ->> 'namespace' AS namespace, metadata ->> 'policy' AS policy,
           metadata ->> 'component' AS component,
           CASE WHEN action_type = 'proactive_health_check'
                     AND json_type(output_data, '$.failure_probability') IN ('integer', 'real')
                THEN output_data ->> 'failure_probability' END AS probability,
           CASE WHEN action_type <> 'proactive_health_check' OR output_data ->> 'status' IN ('Unhealthy', 'Critical')
                THEN executed_at END AS trouble_at
    FROM unified_brain
    WHERE action_type IN ('proactive_health_check',
                          'service_restart', 'service_restart_failed', 'automatic_rollback', 'rollback_failed',
                          'db_connection_recovered', 'db_recovery_failed', 'memory_leak_cleanup',
                      'service_scaled', 'service_scale_failed', 'custom_remedy', 'custom_remedy_failed')
), outcomes AS (
    SELECT executed_at, probability,
           min(trouble_at) OVER (PARTITION BY namespace, policy, component ORDER BY executed_at DESC, id
                                 ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS next_trouble_at
    FROM looks
), judged AS (
    SELECT substr(executed_at, 1, 10) AS day,
           (probability >= 0.5)
               = coalesce(next_trouble_at <= strftime('%Y-%m-%dT%H:%M:%fZ', executed_at, '+1 hour'), false) AS correct
    FROM outcomes
    WHERE probability IS NOT NULL AND executed_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 hour')
)
SELECT day, count(*) AS predictions, count(*) FILTER (WHERE correct) AS correct, avg(correct) AS accuracy
FROM judged GROUP BY day ORDER BY day DESC LIMIT 400",
};

/// An answer to [`ACTIONS_LAST_DAY`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct ActionCount {
    pub action_type: String,
    pub actions: i64,
    pub succeeded: i64,
}

/// An answer to [`INTERVENTIONS_BY_COMPONENT`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct ComponentInterventions {
    pub namespace: String,
    pub policy: String,
    pub component: String,
    pub interventions: i64,
    pub succeeded: i64,
}

/// An answer to [`SUCCESS_BY_ACTION`].
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
pub struct ActionSuccess {
    pub action_type: String,
    pub actions: i64,
    /// 0 to 1.
    pub success_rate: f64,
}

/// An answer to [`ACCURACY_BY_DAY`].
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
pub struct DayAccuracy {
    /// UTC, as `2026-11-22`.
    pub day: String,
    pub predictions: i64,
    pub correct: i64,
    /// 0 to 1.
    pub accuracy: f64,
}

/// Each answers within [`QUERY_LIMIT`] or fails with `Timeout`.
impl Ledger {
    pub async fn actions_last_day(&self) -> Result<Vec<ActionCount>, LedgerError> {
        self.ask(ACTIONS_LAST_DAY).await
    }

    pub async fn interventions_by_component(&self) -> Result<Vec<ComponentInterventions>, LedgerError> {
        self.ask(INTERVENTIONS_BY_COMPONENT).await
    }

    pub async fn success_by_action(&self) -> Result<Vec<ActionSuccess>, LedgerError> {
        self.ask(SUCCESS_BY_ACTION).await
    }

    pub async fn accuracy_by_day(&self) -> Result<Vec<DayAccuracy>, LedgerError> {
        self.ask(ACCURACY_BY_DAY).await
    }

    async fn ask<T: Fetched>(&self, query: Query) -> Result<Vec<T>, LedgerError> {
        within(QUERY_LIMIT, "the query", patiently(|| self.shared.database.fetch(query))).await
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator as _;

    use super::*;
    use crate::knowledge::ActionType;

    #[test]
    fn the_interventions_in_the_sql_are_the_interventions_in_the_code() {
        for sql in [INTERVENTIONS, ACCURACY_BY_DAY.postgres, ACCURACY_BY_DAY.sqlite] {
            for action in ActionType::iter().filter(|action| *action != ActionType::ProactiveHealthCheck) {
                assert_eq!(sql.contains(&format!("'{action}'")), action.is_intervention(), "{action} in {sql}");
            }
        }
    }
}
