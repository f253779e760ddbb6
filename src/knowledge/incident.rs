//! One incident as a timeline: what the ledger holds of a Remediation, and the looks at its component around it.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use strum::IntoEnumIterator as _;

use super::error::{LedgerError, LedgerReason};
use super::reader::{Conditions, Filter, Question, Reader};
use super::row::{ActionType, sqlite_moment};

/// How long before the proposal the timeline begins.
pub const BEFORE: SignedDuration = SignedDuration::from_mins(10);

/// Looks in a timeline, the first ones.
pub const MAX_LOOKS: usize = 500;

/// Remediations in a list, the newest ones.
pub const MAX_LISTED: usize = 50;

/// What happened, in the order in which it comes when two things have one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Kind {
    /// A look at the component.
    Look,
    Proposed,
    Approved,
    Rejected,
    /// The remedy was done, or tried.
    Action,
    /// What was put back, from what to what.
    Rollback,
    /// Whether it helped.
    Verified,
    /// What came of the warning that it was done for.
    Forecast,
}

/// One line of a timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    pub at: Timestamp,
    pub event: Kind,
    /// Of what can succeed.
    pub success: Option<bool>,
    /// In words.
    pub detail: String,
    /// All that the row holds of it.
    pub data: Value,
}

/// A Remediation from its proposal to its end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Incident {
    pub namespace: String,
    pub policy: String,
    pub component: String,
    pub remediation: String,
    /// There were more looks than [`MAX_LOOKS`].
    pub cut: bool,
    /// By time.
    pub events: Vec<Event>,
}

/// A Remediation that the ledger knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Of its newest row.
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
    /// One that expired, or was dropped, before anybody decided and before anything was done leaves no row.
    #[error(
        "the ledger holds nothing of a remediation {0}: it is not over yet, nothing was done, or its rows were removed"
    )]
    Unknown(String),
    #[error("there is a remediation {name} in several namespaces: {}; name one with --namespace", namespaces.join(", "))]
    Ambiguous { name: String, namespaces: Vec<String> },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A row of `unified_brain` as a text of each column, which both databases give.
#[derive(Debug, Clone, sqlx::FromRow)]
struct BrainText {
    id: String,
    action_type: String,
    at: String,
    input: String,
    output: String,
    success: bool,
    metadata: String,
}

/// A row of `ai_rollback_history`.
#[derive(Debug, Clone, sqlx::FromRow)]
struct RollbackText {
    rollback_type: String,
    from_state: String,
    to_state: String,
    success: bool,
    error_message: Option<String>,
}

/// A row that was read.
struct Read {
    id: String,
    action: String,
    at: Timestamp,
    input: Value,
    output: Value,
    success: bool,
    metadata: Value,
}

impl BrainText {
    /// # Errors
    /// When another writer put something else there.
    fn read(self) -> Result<Read, LedgerError> {
        let unreadable = |column: &str| {
            LedgerError::new(
                LedgerReason::Failed,
                format!("row {} of unified_brain has an unreadable {column}", self.id),
            )
        };
        let json = |text: &str, column: &str| serde_json::from_str(text).map_err(|_| unreadable(column));
        Ok(Read {
            at: self.at.parse().map_err(|_| unreadable("executed_at"))?,
            input: json(&self.input, "input_data")?,
            output: json(&self.output, "output_data")?,
            metadata: json(&self.metadata, "metadata")?,
            id: self.id,
            action: self.action_type,
            success: self.success,
        })
    }
}

impl Read {
    fn of(&self, key: &str) -> String {
        self.metadata[key].as_str().unwrap_or_default().to_owned()
    }

    fn time(value: &Value) -> Option<Timestamp> {
        value.as_str()?.parse().ok()
    }
}

const COLUMNS_POSTGRES: &str = "\
SELECT id::text AS id, action_type, success, input_data::text AS input, output_data::text AS output,
       to_char(executed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS at, metadata::text AS metadata
FROM unified_brain WHERE agent_name LIKE '%self_healing%'";

const COLUMNS_SQLITE: &str = "\
SELECT CAST(id AS TEXT) AS id, action_type, success, input_data AS input, output_data AS output,
       executed_at AS at, metadata
FROM unified_brain WHERE agent_name LIKE '%self_healing%'";

/// Rows of these types that meet the conditions.
fn rows(types: &[ActionType], mut question: Question, conditions: &Conditions, order: &str) -> Question {
    let types: Vec<String> = types.iter().map(|action| format!("'{action}'")).collect();
    let types = types.join(", ");
    let text = |columns: &str, conditions: &str| {
        format!("{columns} AND action_type IN ({types}) AND {conditions} ORDER BY executed_at{order}")
    };
    question.postgres = text(COLUMNS_POSTGRES, &conditions.postgres);
    question.sqlite = text(COLUMNS_SQLITE, &conditions.sqlite);
    question
}

fn empty() -> Question {
    Question { postgres: String::new(), sqlite: String::new(), values: Vec::new() }
}

/// The types of rows that a Remediation has.
fn of_remediations() -> Vec<ActionType> {
    use ActionType as A;
    let decisions = [A::RemediationApproval, A::RemediationRejected];
    ActionType::iter().filter(|action| action.is_intervention() || decisions.contains(action)).collect()
}

impl Reader {
    /// The Remediations of which the ledger holds something, newest first, at most [`MAX_LISTED`].
    pub async fn remediations(&self, filter: &Filter) -> Result<Vec<Known>, LedgerError> {
        let mut question = empty();
        let mut conditions = question.conditions(filter);
        conditions.and("metadata ->> 'remediation' IS NOT NULL");
        // An action may have a decision beside it.
        let order = format!(" DESC LIMIT {}", 2 * MAX_LISTED);
        let found: Vec<BrainText> = self.ask(rows(&of_remediations(), question, &conditions, &order)).await?;
        let mut known: Vec<Known> = Vec::new();
        for row in found {
            let row = row.read()?;
            let (namespace, remediation) = (row.of("namespace"), row.of("remediation"));
            let is_action = row.action.parse().is_ok_and(ActionType::is_intervention);
            let before = known.iter_mut().find(|one| one.namespace == namespace && one.remediation == remediation);
            let this = Known {
                at: row.at,
                component: row.of("component"),
                success: row.success,
                namespace,
                remediation,
                action_type: row.action,
            };
            match before {
                // What was done says more than who decided it.
                Some(before) if is_action => *before = Known { at: before.at, ..this },
                Some(_) => {}
                None => known.push(this),
            }
        }
        known.truncate(MAX_LISTED);
        Ok(known)
    }

    /// The timeline of a Remediation: its proposal, decision, action, rollback and verification, what came of the warning
    /// it was done for, and the looks at its component from [`BEFORE`] the first of these to the last.
    pub async fn incident(&self, name: &str, namespace: Option<&str>) -> Result<Incident, NoIncident> {
        let mut question = empty();
        let filter = Filter { namespace: namespace.map(str::to_owned), ..Filter::default() };
        let mut conditions = question.conditions(&filter);
        let named = question.value(name.to_owned());
        // What came of a warning is no row of the Remediation: it only names the one that prevented it.
        conditions.and(&format!("${named} IN (metadata ->> 'remediation', output_data ->> 'remediation')"));
        let types = [of_remediations(), vec![ActionType::ForecastOutcome]].concat();
        let found: Vec<BrainText> =
            self.ask(rows(&types, question, &conditions, &format!(", id LIMIT {MAX_LISTED}"))).await?;
        let found = found.into_iter().map(BrainText::read).collect::<Result<Vec<_>, _>>()?;
        let mut namespaces: Vec<String> = found.iter().map(|row| row.of("namespace")).collect();
        namespaces.sort();
        namespaces.dedup();
        if namespaces.len() > 1 {
            return Err(NoIncident::Ambiguous { name: name.to_owned(), namespaces });
        }
        let Some(first) = found.first() else { return Err(NoIncident::Unknown(name.to_owned())) };
        let (namespace, policy, component) = (first.of("namespace"), first.of("policy"), first.of("component"));
        let mut events: Vec<Event> = found.iter().flat_map(events_of).collect();
        for row in found.iter().filter(|row| row.action.parse().is_ok_and(ActionType::is_intervention)) {
            events.extend(self.rollbacks(row).await?);
        }
        let first = events.iter().map(|event| event.at).min().unwrap_or_default();
        let last = events.iter().map(|event| event.at).max().unwrap_or_default();
        let filter = Filter {
            since: Some(first.saturating_sub(BEFORE).unwrap_or(first)),
            namespace: Some(namespace.clone()),
            policy: Some(policy.clone()),
        };
        let looks = self.looks(&filter, last, &component).await?;
        let cut = looks.len() > MAX_LOOKS;
        events.extend(looks.iter().take(MAX_LOOKS).map(look));
        events.sort_by_key(|event| (event.at, event.event));
        Ok(Incident { namespace, policy, component, remediation: name.to_owned(), cut, events })
    }

    async fn looks(&self, filter: &Filter, until: Timestamp, component: &str) -> Result<Vec<Read>, LedgerError> {
        let mut question = empty();
        let mut conditions = question.conditions(filter);
        conditions.until(question.value(sqlite_moment(until)));
        conditions.metadata("component", question.value(component.to_owned()));
        let order = format!(", id LIMIT {}", MAX_LOOKS + 1);
        let looks: Vec<BrainText> =
            self.ask(rows(&[ActionType::ProactiveHealthCheck], question, &conditions, &order)).await?;
        looks.into_iter().map(BrainText::read).collect()
    }

    /// The row of `ai_rollback_history` with the id of an action.
    async fn rollbacks(&self, action: &Read) -> Result<Vec<Event>, LedgerError> {
        let text = |id: &str, cast: &str| {
            format!(
                "SELECT rollback_type, from_state{cast} AS from_state, to_state{cast} AS to_state, success, error_message
                 FROM ai_rollback_history WHERE id = {id}"
            )
        };
        let found: Vec<RollbackText> = self
            .ask(Question {
                postgres: text("($1::text)::uuid", "::text"),
                sqlite: text("$1", ""),
                values: vec![action.id.clone()],
            })
            .await?;
        let event = |row: RollbackText| {
            let state = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
            let RollbackText { rollback_type, from_state, to_state, success, error_message } = row;
            let words = error_message.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            Event {
                at: action.at,
                event: Kind::Rollback,
                success: Some(success),
                detail: format!("{rollback_type} from {from_state} to {to_state}{words}"),
                data: json!({
                    "rollback_type": rollback_type, "from_state": state(&from_state), "to_state": state(&to_state),
                    "error_message": error_message,
                }),
            }
        };
        Ok(found.into_iter().map(event).collect())
    }
}

/// What one row of a Remediation tells. An action's row tells of its proposal and its verification too.
fn events_of(row: &Read) -> Vec<Event> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
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
            let mut events = Vec::new();
            if let Some(at) = Read::time(&input["decided_at"]) {
                let detail =
                    format!("{} for {}: {}", text(&input["action"]), text(&input["cause"]), text(&input["why"]));
                events.push(event(at, Kind::Proposed, None, detail, Value::Null));
            }
            let detail = format!("{} of {}", row.action, text(&input["target"]));
            events.push(event(row.at, Kind::Action, Some(row.success), detail, data));
            if let Some(at) = Read::time(&output["finished_at"]) {
                let (phase, reason) = (text(&output["phase"]), text(&output["reason"]));
                let detail = format!("{phase} ({reason}): {}", text(&output["message"]));
                events.push(event(at, Kind::Verified, Some(row.success), detail, Value::Null));
            }
            events
        }
    }
}

fn look(row: &Read) -> Event {
    let output = &row.output;
    let mut detail = output["status"].as_str().unwrap_or("-").to_owned();
    if let Some(score) = output["health_score"].as_f64() {
        detail.push_str(&format!(", score {score}"));
    }
    if let Some(probability) = output["failure_probability"].as_f64() {
        detail.push_str(&format!(", fails within a day with {:.0}%", probability * 100.0));
    }
    let warnings: Vec<&str> = output["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !warnings.is_empty() {
        detail.push_str(&format!(": {}", warnings.join("; ")));
    }
    let data = json!({"input": row.input, "output": output});
    Event { at: row.at, event: Kind::Look, success: None, detail, data }
}
