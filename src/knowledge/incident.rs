//! One incident as a timeline: the rows of a Remediation, and the checks of its component around them.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use strum::IntoEnumIterator as _;

use super::error::LedgerError;
use super::queries::Query;
use super::reader::{Conditions, Filter, Reader};
use super::row::ActionType;

/// How long before the proposal the timeline begins.
pub const BEFORE: SignedDuration = SignedDuration::from_mins(10);

/// Most checks in a timeline, the first ones.
pub const MAX_LOOKS: usize = 500;

/// Most Remediations in a list, the newest ones.
pub const MAX_LISTED: usize = 50;

/// The kind of event, in the order of events with the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Kind {
    /// A check of the component.
    Look,
    Proposed,
    Approved,
    Rejected,
    /// The remedy was carried out or attempted.
    Action,
    /// A rollback from one state to another.
    Rollback,
    /// The result of the verification.
    Verified,
    /// The outcome of the warning that caused the remedy.
    Forecast,
}

/// One line of a timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    pub at: Timestamp,
    pub event: Kind,
    /// For events that can succeed.
    pub success: Option<bool>,
    /// A sentence.
    pub detail: String,
    /// The content of the row.
    pub data: Value,
}

/// A Remediation from its proposal to its end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Incident {
    pub namespace: String,
    pub policy: String,
    pub component: String,
    pub remediation: String,
    /// There were more checks than [`MAX_LOOKS`].
    pub cut: bool,
    /// By time.
    pub events: Vec<Event>,
}

/// A Remediation with rows in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Time of its newest row.
    pub at: Timestamp,
    pub namespace: String,
    pub remediation: String,
    pub component: String,
    pub action_type: String,
    pub success: bool,
}

/// Why there is no timeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoIncident {
    /// A Remediation that ended without a decision and without an action leaves no row.
    #[error(
        "the ledger contains nothing of a remediation {0}: it has not ended, no action was performed, or its rows were removed"
    )]
    Unknown(String),
    #[error("there is a remediation {name} in several namespaces: {}; name one with --namespace", namespaces.join(", "))]
    Ambiguous { name: String, namespaces: Vec<String> },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A row of `unified_brain`.
#[derive(Debug, Clone, sqlx::FromRow)]
struct StoredRow {
    id: String,
    #[sqlx(rename = "action_type")]
    action: String,
    #[sqlx(try_from = "jiff_sqlx::Timestamp")]
    at: Timestamp,
    input: Value,
    output: Value,
    success: bool,
    metadata: Value,
}

/// A row of `ai_rollback_history`.
#[derive(Debug, Clone, sqlx::FromRow)]
struct StoredRollback {
    rollback_type: String,
    from_state: Value,
    to_state: Value,
    success: bool,
    error_message: Option<String>,
}

impl StoredRow {
    fn of(&self, key: &str) -> String {
        self.metadata[key].as_str().unwrap_or_default().to_owned()
    }

    fn is_intervention(&self) -> bool {
        self.action.parse().is_ok_and(ActionType::is_intervention)
    }
}

/// In both dialects.
const COLUMNS: &str = "\
SELECT CAST(id AS text) AS id, action_type, success, input_data AS input, output_data AS output, executed_at AS at, metadata
FROM unified_brain WHERE agent_name LIKE '%self_healing%'";

/// The types of a Remediation's rows.
fn of_remediations() -> Vec<ActionType> {
    use ActionType as A;
    let decisions = [A::RemediationApproval, A::RemediationRejected];
    ActionType::iter().filter(|action| action.is_intervention() || decisions.contains(action)).collect()
}

impl Reader {
    /// The Remediations with rows in the ledger, newest first, at most [`MAX_LISTED`].
    pub async fn remediations(&self, filter: &Filter) -> Result<Vec<Known>, LedgerError> {
        let mut conditions = Conditions::new(self.dialect(), filter);
        conditions.sql.push_str(" AND metadata ->> 'remediation' IS NOT NULL");
        // Most have two rows: the decision and the action.
        let rows = self.rows(&of_remediations(), &conditions, &format!("DESC LIMIT {}", 2 * MAX_LISTED)).await?;
        let mut listed: Vec<Known> = Vec::new();
        for row in rows {
            let is_action = row.is_intervention();
            let this = Known {
                at: row.at,
                component: row.of("component"),
                success: row.success,
                namespace: row.of("namespace"),
                remediation: row.of("remediation"),
                action_type: row.action,
            };
            let is_same = |one: &&mut Known| one.namespace == this.namespace && one.remediation == this.remediation;
            match listed.iter_mut().find(is_same) {
                // The action says more than the decision.
                Some(newer) if is_action => *newer = Known { at: newer.at, ..this },
                Some(_) => {}
                None => listed.push(this),
            }
        }
        listed.truncate(MAX_LISTED);
        Ok(listed)
    }

    /// The timeline of a Remediation: proposal, decision, action, rollback, verification, the outcome of the warning that
    /// caused it, and the checks of its component from [`BEFORE`] the first of these to the last.
    pub async fn incident(&self, name: &str, namespace: Option<&str>) -> Result<Incident, NoIncident> {
        let filter = Filter { namespace: namespace.map(str::to_owned), ..Filter::default() };
        let mut conditions = Conditions::new(self.dialect(), &filter);
        // The outcome of a warning is not a row of the Remediation, but names the one that prevented the failure.
        conditions.and("? IN (metadata ->> 'remediation', output_data ->> 'remediation')", name);
        let types = [of_remediations(), vec![ActionType::ForecastOutcome]].concat();
        let rows = self.rows(&types, &conditions, &format!(", id LIMIT {MAX_LISTED}")).await?;
        let mut namespaces: Vec<String> = rows.iter().map(|row| row.of("namespace")).collect();
        namespaces.sort();
        namespaces.dedup();
        if namespaces.len() > 1 {
            return Err(NoIncident::Ambiguous { name: name.to_owned(), namespaces });
        }
        let Some(first) = rows.first() else { return Err(NoIncident::Unknown(name.to_owned())) };
        let (namespace, policy, component) = (first.of("namespace"), first.of("policy"), first.of("component"));
        let mut events: Vec<Event> = rows.iter().flat_map(events_of).collect();
        for row in rows.iter().filter(|row| row.is_intervention()) {
            events.extend(self.rollbacks(row).await?);
        }
        let first = events.iter().map(|event| event.at).min().unwrap_or_default();
        let last = events.iter().map(|event| event.at).max().unwrap_or_default();
        let filter = Filter {
            since: Some(first.saturating_sub(BEFORE).unwrap_or(first)),
            namespace: Some(namespace.clone()),
            policy: Some(policy.clone()),
        };
        let mut conditions = Conditions::new(self.dialect(), &filter);
        conditions.time("<=", last);
        conditions.and("metadata ->> 'component' = ?", &component);
        let limit = format!(", id LIMIT {}", MAX_LOOKS + 1);
        let checks = self.rows(&[ActionType::ProactiveHealthCheck], &conditions, &limit).await?;
        let cut = checks.len() > MAX_LOOKS;
        events.extend(checks.iter().take(MAX_LOOKS).map(check));
        events.sort_by_key(|event| (event.at, event.event));
        Ok(Incident { namespace, policy, component, remediation: name.to_owned(), cut, events })
    }

    /// Rows of these types that meet the conditions.
    async fn rows(
        &self,
        types: &[ActionType],
        conditions: &Conditions,
        order: &str,
    ) -> Result<Vec<StoredRow>, LedgerError> {
        let types: Vec<String> = types.iter().map(|action| format!("'{action}'")).collect();
        let (types, condition) = (types.join(", "), &conditions.sql);
        let sql = format!("{COLUMNS} AND action_type IN ({types}) AND {condition} ORDER BY executed_at {order}");
        self.fetch(sql, &conditions.values).await
    }

    /// The row of `ai_rollback_history` with the id of an action.
    async fn rollbacks(&self, action: &StoredRow) -> Result<Vec<Event>, LedgerError> {
        let id = Query { postgres: "($1::text)::uuid", sqlite: "$1" }.sql(self.dialect());
        let sql = format!(
            "SELECT rollback_type, from_state, to_state, success, error_message FROM ai_rollback_history WHERE id = {id}"
        );
        let found: Vec<StoredRollback> = self.fetch(sql, std::slice::from_ref(&action.id)).await?;
        let event = |StoredRollback { rollback_type, from_state, to_state, success, error_message }| {
            let error = error_message.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            Event {
                at: action.at,
                event: Kind::Rollback,
                success: Some(success),
                detail: format!("{rollback_type} from {from_state} to {to_state}{error}"),
                data: json!({
                    "rollback_type": rollback_type, "from_state": from_state, "to_state": to_state,
                    "error_message": error_message,
                }),
            }
        };
        Ok(found.into_iter().map(event).collect())
    }
}

/// The events of one row of a Remediation. The row of an action also contains its proposal and its verification.
fn events_of(row: &StoredRow) -> Vec<Event> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    let (input, output) = (&row.input, &row.output);
    let data = json!({"action_type": row.action, "input": input, "output": output});
    let event = |at, event, success, detail, data| Event { at, event, success, detail, data };
    let by = || format!("by {}: {}", text(&output["decided_by"]), text(&output["reason"]));
    match row.action.parse() {
        Ok(ActionType::RemediationApproval) => vec![event(row.at, Kind::Approved, None, by(), data)],
        Ok(ActionType::RemediationRejected) => vec![event(row.at, Kind::Rejected, None, by(), data)],
        Ok(ActionType::ForecastOutcome) => {
            let detail = format!("{}: {}", text(&output["outcome"]), text(&output["message"]));
            vec![event(row.at, Kind::Forecast, Some(row.success), detail, data)]
        }
        _ => {
            let proposed = time(&input["decided_at"]).map(|at| {
                let detail =
                    format!("{} for {}: {}", text(&input["action"]), text(&input["cause"]), text(&input["why"]));
                event(at, Kind::Proposed, None, detail, Value::Null)
            });
            let detail = format!("{} of {}", row.action, text(&input["target"]));
            let action = event(row.at, Kind::Action, Some(row.success), detail, data);
            let verified = time(&output["finished_at"]).map(|at| {
                let (phase, reason) = (text(&output["phase"]), text(&output["reason"]));
                let detail = format!("{phase} ({reason}): {}", text(&output["message"]));
                event(at, Kind::Verified, Some(row.success), detail, Value::Null)
            });
            proposed.into_iter().chain([action]).chain(verified).collect()
        }
    }
}

fn check(row: &StoredRow) -> Event {
    let output = &row.output;
    let mut detail = output["status"].as_str().unwrap_or("-").to_owned();
    if let Some(score) = output["health_score"].as_f64() {
        detail.push_str(&format!(", score {score}"));
    }
    if let Some(probability) = output["failure_probability"].as_f64() {
        detail.push_str(&format!(", {:.0}% probability of a failure within 24 h", probability * 100.0));
    }
    let warnings: Vec<&str> = output["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !warnings.is_empty() {
        detail.push_str(&format!(": {}", warnings.join("; ")));
    }
    let data = json!({"input": row.input, "output": output});
    Event { at: row.at, event: Kind::Look, success: None, detail, data }
}
