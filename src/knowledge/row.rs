//! The rows of the three tables, and their ids.
//!
//! Ids are derived (UUID version 5), never random: the same step of the same Remediation, or the same check of the same
//! component, gives the same id, so a row that is written twice is in the table once.

use std::collections::BTreeMap;

use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

/// The namespace of the UUIDs. Never change it: ids of existing rows depend on it.
const ID_NAMESPACE: Uuid = Uuid::from_u128(0x6d7b_8d4f_2a39_5c0e_9f41_70a6_e3b8_15c2);

/// Key in the column `ai_proactive_health.metrics` that identifies the row's component, as `namespace/policy/component`: the
/// column `component` alone is not unique. No metric name and no Kubernetes name contains a `/`, so the key cannot be mistaken
/// for a metric, and its value is not ambiguous.
pub const COMPONENT_KEY: &str = "panacea.dev/component";

/// The id of the row of one step of one Remediation: `metadata.uid` of the object, and the step (`approval`, `action`, …).
pub fn row_id(remediation_uid: &str, step: &str) -> Uuid {
    id(&["remediation", remediation_uid, step])
}

/// The id of the rows of one check of one component, in microseconds of `at`. A check has one row in `unified_brain` and one
/// in `ai_proactive_health`; both have this id.
pub fn check_id(namespace: &str, policy: &str, component: &str, at: Timestamp) -> Uuid {
    id(&["look", namespace, policy, component, &at.as_microsecond().to_string()])
}

/// The id of the row of one reconciliation cycle of one policy.
pub fn cycle_id(namespace: &str, policy: &str, at: Timestamp) -> Uuid {
    id(&["cycle", namespace, policy, &at.as_microsecond().to_string()])
}

/// The id of the row with the outcome of a warning. `warning` identifies it within its component.
pub fn outcome_id(namespace: &str, policy: &str, component: &str, warning: &str) -> Uuid {
    id(&["outcome", namespace, policy, component, warning])
}

fn id(parts: &[&str]) -> Uuid {
    // Joined by NUL, which no Kubernetes name contains: ("a", "bc") and ("ab", "c") differ.
    Uuid::new_v5(&ID_NAMESPACE, parts.join("\0").as_bytes())
}

/// The subject of a row of `unified_brain`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum ActionType {
    /// One check of one component.
    ProactiveHealthCheck,
    /// A restart; verification confirmed recovery.
    ServiceRestart,
    /// A restart that failed or was ineffective.
    ServiceRestartFailed,
    /// A rollback; verification confirmed recovery.
    AutomaticRollback,
    /// A rollback that failed or was ineffective.
    RollbackFailed,
    DbConnectionRecovered,
    DbRecoveryFailed,
    MemoryLeakCleanup,
    /// A change of the number of pods; verification confirmed recovery.
    ServiceScaled,
    /// A change of the number of pods that failed or was ineffective.
    ServiceScaleFailed,
    /// A custom remedy; verification confirmed recovery.
    CustomRemedy,
    /// A custom remedy that failed or was ineffective.
    CustomRemedyFailed,
    /// The outcome of a warning; `success`: the warning was right.
    ForecastOutcome,
    /// One evaluation of one policy.
    ReconciliationCycle,
    /// A person approved.
    RemediationApproval,
    /// A person rejected.
    RemediationRejected,
}

impl ActionType {
    /// The exact text in the column `action_type`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Who writes rows of this type. A test names the agent of each type.
    pub fn agent(self) -> Agent {
        match self {
            Self::ReconciliationCycle => Agent::SelfHealingReconciler,
            Self::RemediationApproval | Self::RemediationRejected => Agent::EnhancedSelfHealing,
            _ => Agent::SelfHealingSystem,
        }
    }

    /// An action on a component was carried out or attempted.
    pub fn is_intervention(self) -> bool {
        self.agent() == Agent::SelfHealingSystem && !matches!(self, Self::ProactiveHealthCheck | Self::ForecastOutcome)
    }
}

/// The column `agent_name`. `LIKE '%self_healing%'` finds all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::EnumIter, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Agent {
    /// Checks and actions.
    SelfHealingSystem,
    /// Approvals and rejections.
    EnhancedSelfHealing,
    /// Cycles.
    SelfHealingReconciler,
}

impl Agent {
    /// The exact text in the column `agent_name`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The column `unified_brain.metadata`. It always has all four keys; a key that does not apply is `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// `None` for a cycle, which concerns a whole policy.
    pub component: Option<String>,
    pub policy: String,
    pub namespace: String,
    /// Name of the Remediation, for its rows.
    pub remediation: Option<String>,
}

impl Metadata {
    /// For a component.
    pub fn component(namespace: impl Into<String>, policy: impl Into<String>, component: impl Into<String>) -> Self {
        Self { component: Some(component.into()), ..Self::policy(namespace, policy) }
    }

    /// For a cycle of a whole policy.
    pub fn policy(namespace: impl Into<String>, policy: impl Into<String>) -> Self {
        Self { component: None, policy: policy.into(), namespace: namespace.into(), remediation: None }
    }

    /// Adds the name of a Remediation.
    pub fn of_remediation(mut self, name: impl Into<String>) -> Self {
        self.remediation = Some(name.into());
        self
    }
}

/// A row of `unified_brain`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BrainRow {
    /// From [`row_id`], [`check_id`], [`cycle_id`] or [`outcome_id`].
    pub id: Uuid,
    pub action: ActionType,
    pub input: Value,
    /// Of a check, among others: `failure_probability` (0 to 1, absent without a forecast) and `status` (`Healthy`,
    /// `Degraded`, `Unhealthy`, `Critical`, `Unknown`).
    pub output: Value,
    /// Of a check: the component could be measured. Of an intervention: verification confirmed recovery. Of an outcome: the
    /// warning was right.
    pub success: bool,
    pub metadata: Metadata,
    /// Stored in microseconds.
    pub executed_at: Timestamp,
}

/// A row of `ai_proactive_health`: the result of one check of one component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthRow {
    /// From [`check_id`].
    pub id: Uuid,
    pub namespace: String,
    pub policy: String,
    pub component: String,
    /// 0 to 100; `None`, and NULL in the table, when it could not be measured. Values that are not finite become `None`.
    pub score: Option<f64>,
    /// `Improving`, `Stable` or `Declining`; `None` with too little history.
    pub trend: Option<String>,
    pub predicted_failure_time: Option<Timestamp>,
    /// 0 to 1; `None` without a forecast.
    pub failure_probability: Option<f64>,
    /// By metric name, in the metric's own unit, without metrics that could not be measured and values that are not finite.
    #[serde(serialize_with = "finite_only")]
    pub metrics: BTreeMap<String, f64>,
    pub warnings: Vec<String>,
    /// Time of the check; both `created_at` and `updated_at`. Stored in microseconds.
    pub at: Timestamp,
}

/// A row of `ai_rollback_history`, with the id of the action's row in `unified_brain`, so that the two join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollbackRow {
    /// From [`row_id`].
    pub id: Uuid,
    pub component: String,
    /// For example `deployment`.
    pub rollback_type: String,
    pub from_state: Value,
    pub to_state: Value,
    pub success: bool,
    pub error_message: Option<String>,
    /// Stored in microseconds.
    pub executed_at: Timestamp,
}

/// A row of one of the three tables. As JSON it is an entry of the spool, which a newer version may have to read: a new field
/// needs a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Row {
    Brain(BrainRow),
    Health(HealthRow),
    Rollback(RollbackRow),
}

impl Row {
    pub fn id(&self) -> Uuid {
        match self {
            Self::Brain(row) => row.id,
            Self::Health(row) => row.id,
            Self::Rollback(row) => row.id,
        }
    }

    pub fn table(&self) -> &'static str {
        match self {
            Self::Brain(_) => "unified_brain",
            Self::Health(_) => "ai_proactive_health",
            Self::Rollback(_) => "ai_rollback_history",
        }
    }

    /// In the order of [`super::schema::columns`].
    pub(super) fn cells(&self) -> Vec<Cell> {
        let id = Cell::text(&self.id().to_string());
        match self {
            Self::Brain(row) => vec![
                id,
                Cell::text(row.action.agent().as_str()),
                Cell::text(row.action.as_str()),
                Cell::json(&row.input),
                Cell::json(&row.output),
                Cell::Bool(row.success),
                Cell::json(&serde_json::json!(row.metadata)),
                Cell::time(row.executed_at),
            ],
            Self::Health(row) => vec![
                id,
                Cell::text(&row.component),
                Cell::double(row.score),
                Cell::Text(row.trend.as_deref().map(clean_text)),
                Cell::Text(row.predicted_failure_time.map(sqlite_moment)),
                Cell::double(row.failure_probability),
                Cell::json(&row.metrics_json()),
                Cell::json(&serde_json::json!(row.warnings)),
                Cell::time(row.at),
                Cell::time(row.at),
            ],
            Self::Rollback(row) => vec![
                id,
                Cell::text(&row.component),
                Cell::text(&row.rollback_type),
                Cell::json(&row.from_state),
                Cell::json(&row.to_state),
                Cell::Bool(row.success),
                Cell::Text(row.error_message.as_deref().map(clean_text)),
                Cell::time(row.executed_at),
            ],
        }
    }

    /// Approximate memory, in bytes: exact enough to bound batches and the backlog.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Brain(row) => json_weight(&row.input) + json_weight(&row.output) + 128,
                Self::Health(row) => {
                    row.metrics.keys().map(|name| name.len() + 48).sum::<usize>()
                        + row.warnings.iter().map(|text| text.len() + 24).sum::<usize>()
                        + 128
                }
                Self::Rollback(row) => {
                    json_weight(&row.from_state)
                        + json_weight(&row.to_state)
                        + row.error_message.as_ref().map_or(0, String::len)
                        + 64
                }
            }
    }
}

impl From<BrainRow> for Row {
    fn from(row: BrainRow) -> Self {
        Self::Brain(row)
    }
}

impl From<HealthRow> for Row {
    fn from(row: HealthRow) -> Self {
        Self::Health(row)
    }
}

impl From<RollbackRow> for Row {
    fn from(row: RollbackRow) -> Self {
        Self::Rollback(row)
    }
}

impl HealthRow {
    /// The column `metrics`: the values, and the component key.
    fn metrics_json(&self) -> Value {
        let key = component_key(&self.namespace, &self.policy, &self.component);
        let finite = self.metrics.iter().filter(|(_, value)| value.is_finite());
        let metrics = finite.map(|(name, value)| (name.clone(), Value::from(*value)));
        Value::Object(metrics.chain([(COMPONENT_KEY.to_owned(), key.into())]).collect())
    }
}

/// The value of one column, without NUL and numbers that are not finite.
pub(super) enum Cell {
    Text(Option<String>),
    Bool(bool),
    Double(Option<f64>),
}

impl Cell {
    fn text(text: &str) -> Self {
        Self::Text(Some(clean_text(text)))
    }

    fn json(value: &Value) -> Self {
        Self::Text(Some(clean_json(value).to_string()))
    }

    fn time(at: Timestamp) -> Self {
        Self::Text(Some(sqlite_moment(at)))
    }

    fn double(value: Option<f64>) -> Self {
        Self::Double(value.filter(|value| value.is_finite()))
    }
}

pub(super) fn component_key(namespace: &str, policy: &str, component: &str) -> String {
    format!("{namespace}/{policy}/{component}")
}

/// Neither database can store NUL in a text (Postgres refuses `\u0000` in jsonb, SQLite's JSON functions stop there), and a
/// container's message may contain one. A healing row must not be refused for that reason.
fn clean_text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn clean_json(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean_text(text)),
        Value::Array(items) => Value::Array(items.iter().map(clean_json).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, item)| (clean_text(key), clean_json(item))).collect())
        }
        other => other.clone(),
    }
}

/// JSON cannot represent the other values.
fn finite_only<S: Serializer>(metrics: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(metrics.iter().filter(|(_, value)| value.is_finite()))
}

/// Postgres stores microseconds; cut here so that both databases and the ids agree.
pub(super) fn microseconds(at: Timestamp) -> Timestamp {
    at.round(jiff::TimestampRound::new().smallest(Unit::Microsecond).mode(jiff::RoundMode::Floor)).unwrap_or(at)
}

/// RFC 3339 in UTC with always six digits, so that texts sort as times do; SQLite's `datetime()` and `strftime()` read it.
pub(super) fn sqlite_moment(at: Timestamp) -> String {
    microseconds(at).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn json_weight(value: &Value) -> usize {
    // 32 is the size of a `Value`; a node of a map takes about as much again.
    32 + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(json_weight).sum(),
        Value::Object(map) => map.iter().map(|(key, item)| key.len() + 48 + json_weight(item)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use strum::IntoEnumIterator as _;

    use super::*;

    #[test]
    fn the_action_types_and_their_agents() {
        let all: Vec<_> = ActionType::iter().map(|action| (action.as_str(), action.agent().as_str())).collect();
        assert_eq!(
            all,
            [
                ("proactive_health_check", "self_healing_system"),
                ("service_restart", "self_healing_system"),
                ("service_restart_failed", "self_healing_system"),
                ("automatic_rollback", "self_healing_system"),
                ("rollback_failed", "self_healing_system"),
                ("db_connection_recovered", "self_healing_system"),
                ("db_recovery_failed", "self_healing_system"),
                ("memory_leak_cleanup", "self_healing_system"),
                ("service_scaled", "self_healing_system"),
                ("service_scale_failed", "self_healing_system"),
                ("custom_remedy", "self_healing_system"),
                ("custom_remedy_failed", "self_healing_system"),
                ("forecast_outcome", "self_healing_system"),
                ("reconciliation_cycle", "self_healing_reconciler"),
                ("remediation_approval", "enhanced_self_healing"),
                ("remediation_rejected", "enhanced_self_healing"),
            ]
        );
        assert!(Agent::iter().all(|agent| agent.as_str().contains("self_healing")));
    }

    #[test]
    fn ids_are_stable_and_distinct() {
        let at: Timestamp = "2026-11-22T10:00:00.000001Z".parse().unwrap();
        // Pinned: rows written by an older version must keep their ids.
        assert_eq!(row_id("u1", "action").to_string(), "baa694fb-084c-53b4-bbf5-e7bad84649f5");
        assert_eq!(check_id("shop", "web", "api", at).to_string(), "bad965d1-d9ec-5a26-b05d-b6a49ce2ab94");
        let ids = [
            row_id("u1", "action"),
            row_id("u1", "approval"),
            row_id("u2", "action"),
            check_id("shop", "web", "api", at),
            check_id("shop", "we", "bapi", at),
            check_id("shop", "web", "api", at + jiff::SignedDuration::from_micros(1)),
            cycle_id("shop", "web", at),
        ];
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        // The databases do not store nanoseconds, so these do not make another check.
        assert_eq!(
            check_id("shop", "web", "api", at),
            check_id("shop", "web", "api", at + jiff::SignedDuration::from_nanos(999))
        );
    }

    #[test]
    fn nul_is_replaced_everywhere_in_json() {
        assert_eq!(
            clean_json(&json!({"a\0": ["b\0", {"c": "\0"}], "n": 1})),
            json!({"a\u{fffd}": ["b\u{fffd}", {"c": "\u{fffd}"}], "n": 1})
        );
    }

    #[test]
    fn times_sort_as_text() {
        let texts: Vec<String> = ["2026-11-22T10:00:00Z", "2026-11-22T10:00:00.000001999Z", "2026-11-22T10:00:00.5Z"]
            .map(|at| sqlite_moment(at.parse().unwrap()))
            .into();
        assert_eq!(
            texts,
            ["2026-11-22T10:00:00.000000Z", "2026-11-22T10:00:00.000001Z", "2026-11-22T10:00:00.500000Z"]
        );
        assert!(texts.is_sorted());
    }
}
