//! The queries of the ledger, as plain SQL for both databases: `psql` and `sqlite3` accept them unchanged, the views of
//! [`super::views`] contain them, and [`super::Reader`] runs them.
//!
//! - actions by type in the last 24 hours;
//! - components by interventions (actions carried out or attempted);
//! - success rate by action type, 0 to 1. "Executed" is not "fixed": `success` of an intervention means that verification
//!   confirmed recovery, `success` of a check that the component could be measured;
//! - prediction accuracy by day (UTC), from the rows `forecast_outcome`: one for each warning whose outcome is known.
//!   docs/ledger.md defines the outcomes.
//!
//! **Cost.** The index `unified_brain_questions` serves the first and the third query without reading a row of the table,
//! and finds the few rows of the others. It contains rows of Panacea's agents only, so each query names the agents.

use serde::Serialize;

use super::schema::Dialect;

/// One query in both dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    pub postgres: &'static str,
    pub sqlite: &'static str,
}

impl Query {
    pub(super) fn sql(self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Postgres => self.postgres,
            Dialect::Sqlite => self.sqlite,
        }
    }
}

/// The beginning of the last 24 hours, as in [`ACTIONS_LAST_DAY`].
pub(super) const A_DAY_AGO: Query =
    Query { postgres: "now() - interval '24 hours'", sqlite: "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-24 hours')" };

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

/// Components by interventions, most first, at most 100. Columns as [`ComponentInterventions`]. The operator ->> means the same
/// in both dialects for an object's key.
pub const INTERVENTIONS_BY_COMPONENT: Query = Query { postgres: INTERVENTIONS, sqlite: INTERVENTIONS };

const INTERVENTIONS: &str = "\
SELECT coalesce(metadata ->> 'namespace', '') AS namespace,
       coalesce(metadata ->> 'policy', '') AS policy,
       coalesce(metadata ->> 'component', '') AS component,
       count(*) AS interventions,
       count(*) FILTER (WHERE success) AS succeeded
FROM unified_brain
WHERE agent_name LIKE '%self_healing%'
  AND action_type IN ('service_restart', 'service_restart_failed', 'automatic_rollback', 'rollback_failed',
                      'db_connection_recovered', 'db_recovery_failed', 'memory_leak_cleanup',
                      'service_scaled', 'service_scale_failed', 'custom_remedy', 'custom_remedy_failed')
GROUP BY 1, 2, 3
ORDER BY interventions DESC, 1, 2, 3
LIMIT 100";

/// How often each remedy reached each final phase (`Succeeded`, `Ineffective` or `Failed`), by component and cause. Columns as
/// [`RemedyCount`]; [`super::summary`] computes the rates.
pub const REMEDIES_BY_CAUSE: Query = Query { postgres: REMEDIES, sqlite: REMEDIES };

const REMEDIES: &str = "\
SELECT coalesce(input_data ->> 'cause', '') AS cause,
       coalesce(input_data ->> 'action', '') AS action,
       coalesce(metadata ->> 'namespace', '') AS namespace,
       coalesce(metadata ->> 'policy', '') AS policy,
       coalesce(metadata ->> 'component', '') AS component,
       coalesce(output_data ->> 'phase', '') AS phase,
       count(*) AS actions
FROM unified_brain
WHERE agent_name LIKE '%self_healing%'
  AND action_type IN ('service_restart', 'service_restart_failed', 'automatic_rollback', 'rollback_failed',
                      'db_connection_recovered', 'db_recovery_failed', 'memory_leak_cleanup',
                      'service_scaled', 'service_scale_failed', 'custom_remedy', 'custom_remedy_failed')
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY 1, 2, 3, 4, 5, 6
LIMIT 10000";

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

/// How often each outcome occurred, by day: the same in both dialects.
macro_rules! outcomes_by_day {
    () => {
        "       count(*) FILTER (WHERE output_data ->> 'outcome' = 'CameTrue') AS came_true,
       count(*) FILTER (WHERE output_data ->> 'outcome' = 'CameEarly') AS came_early,
       count(*) FILTER (WHERE output_data ->> 'outcome' = 'CameLate') AS came_late,
       count(*) FILTER (WHERE output_data ->> 'outcome' = 'Prevented') AS prevented,
       count(*) FILTER (WHERE output_data ->> 'outcome' = 'DidNotHappen') AS did_not_happen,
       count(*) FILTER (WHERE output_data ->> 'outcome' = 'Missed') AS missed,
       count(*) FILTER (WHERE output_data ->> 'outcome' = 'Unknown') AS unknown
FROM unified_brain
WHERE agent_name LIKE '%self_healing%'
  AND action_type = 'forecast_outcome'
GROUP BY 1
ORDER BY 1 DESC
LIMIT 400"
    };
}

/// Prediction accuracy by the day on which the outcome became known, newest first, at most 400 days. Columns as
/// [`DayAccuracy`].
pub const ACCURACY_BY_DAY: Query = Query {
    postgres: concat!(
        "\
SELECT to_char(executed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day,
       count(*) FILTER (WHERE output_data ->> 'outcome' <> 'Unknown') AS predictions,
       count(*) FILTER (WHERE success) AS correct,
       (avg(success::int) FILTER (WHERE output_data ->> 'outcome' <> 'Unknown'))::float8 AS accuracy,
",
        outcomes_by_day!()
    ),
    sqlite: concat!(
        "\
SELECT substr(executed_at, 1, 10) AS day,
       count(*) FILTER (WHERE output_data ->> 'outcome' <> 'Unknown') AS predictions,
       count(*) FILTER (WHERE success) AS correct,
       avg(success) FILTER (WHERE output_data ->> 'outcome' <> 'Unknown') AS accuracy,
",
        outcomes_by_day!()
    ),
};

/// A row of [`ACTIONS_LAST_DAY`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct ActionCount {
    pub action_type: String,
    pub actions: i64,
    pub succeeded: i64,
}

/// A row of [`INTERVENTIONS_BY_COMPONENT`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct ComponentInterventions {
    pub namespace: String,
    pub policy: String,
    pub component: String,
    pub interventions: i64,
    pub succeeded: i64,
}

/// A row of [`REMEDIES_BY_CAUSE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct RemedyCount {
    pub cause: String,
    pub action: String,
    pub namespace: String,
    pub policy: String,
    pub component: String,
    pub phase: String,
    pub actions: i64,
}

/// A row of [`SUCCESS_BY_ACTION`].
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
pub struct ActionSuccess {
    pub action_type: String,
    pub actions: i64,
    /// 0 to 1.
    pub success_rate: f64,
}

/// A row of [`ACCURACY_BY_DAY`].
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
pub struct DayAccuracy {
    /// UTC, as `2026-11-22`.
    pub day: String,
    /// Known outcomes: all but `unknown`.
    pub predictions: i64,
    /// Warnings that were right: `came_true`, `came_early`, `came_late` and `prevented`.
    pub correct: i64,
    /// `correct` of `predictions`, 0 to 1; `None` when no outcome is known.
    pub accuracy: Option<f64>,
    pub came_true: i64,
    pub came_early: i64,
    pub came_late: i64,
    pub prevented: i64,
    pub did_not_happen: i64,
    /// Failures without a warning.
    pub missed: i64,
    pub unknown: i64,
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator as _;

    use super::*;
    use crate::knowledge::ActionType;

    #[test]
    fn the_interventions_in_the_sql_are_the_interventions_in_the_code() {
        for text in [INTERVENTIONS, REMEDIES] {
            for action in ActionType::iter() {
                assert_eq!(text.contains(&format!("'{action}'")), action.is_intervention(), "{action}");
            }
        }
    }

    #[test]
    fn the_parts_that_a_filter_replaces_occur_once() {
        for query in
            [ACTIONS_LAST_DAY, INTERVENTIONS_BY_COMPONENT, SUCCESS_BY_ACTION, REMEDIES_BY_CAUSE, ACCURACY_BY_DAY]
        {
            for text in [query.postgres, query.sqlite] {
                assert_eq!(text.matches("FROM unified_brain").count(), 1, "{text}");
            }
        }
        assert_eq!(ACTIONS_LAST_DAY.postgres.matches(A_DAY_AGO.postgres).count(), 1);
        assert_eq!(ACTIONS_LAST_DAY.sqlite.matches(A_DAY_AGO.sqlite).count(), 1);
    }
}
