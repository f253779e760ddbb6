//! How answers are printed: as a table for people, as CSV for programs. JSON is what the answers serialize to.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::knowledge::{
    incident::{Event, Incident, Known, MAX_LOOKS},
    queries::{ActionCount, ActionSuccess, ComponentInterventions, DayAccuracy},
    summary::RemedyOutcomes,
};

/// A row with named cells.
pub(super) trait Shown: Serialize {
    const COLUMNS: &[&str];

    /// As many as there are columns; what is not known is empty.
    fn cells(&self) -> Vec<String>;
}

impl Shown for ActionCount {
    const COLUMNS: &[&str] = &["action_type", "actions", "succeeded"];

    fn cells(&self) -> Vec<String> {
        vec![self.action_type.clone(), self.actions.to_string(), self.succeeded.to_string()]
    }
}

impl Shown for ComponentInterventions {
    const COLUMNS: &[&str] = &["namespace", "policy", "component", "interventions", "succeeded"];

    fn cells(&self) -> Vec<String> {
        let Self { namespace, policy, component, interventions, succeeded } = self;
        vec![namespace.clone(), policy.clone(), component.clone(), interventions.to_string(), succeeded.to_string()]
    }
}

impl Shown for ActionSuccess {
    const COLUMNS: &[&str] = &["action_type", "actions", "success_rate"];

    fn cells(&self) -> Vec<String> {
        vec![self.action_type.clone(), self.actions.to_string(), share(Some(self.success_rate))]
    }
}

impl Shown for RemedyOutcomes {
    const COLUMNS: &[&str] = &[
        "cause",
        "action",
        "namespace",
        "policy",
        "component",
        "succeeded",
        "ineffective",
        "failed",
        "success_rate",
        "at_least",
    ];

    fn cells(&self) -> Vec<String> {
        let names = [&self.cause, &self.action, &self.namespace, &self.policy, &self.component];
        let counts = [self.succeeded, self.ineffective, self.failed].map(|count| count.to_string());
        let shares = [self.success_rate, self.at_least].map(|of_all| share(Some(of_all)));
        names.into_iter().cloned().chain(counts).chain(shares).collect()
    }
}

impl Shown for DayAccuracy {
    const COLUMNS: &[&str] = &[
        "day",
        "predictions",
        "correct",
        "accuracy",
        "came_true",
        "came_early",
        "came_late",
        "prevented",
        "did_not_happen",
        "missed",
        "unknown",
    ];

    fn cells(&self) -> Vec<String> {
        let counts = [
            self.came_true,
            self.came_early,
            self.came_late,
            self.prevented,
            self.did_not_happen,
            self.missed,
            self.unknown,
        ];
        let first = [self.day.clone(), self.predictions.to_string(), self.correct.to_string(), share(self.accuracy)];
        first.into_iter().chain(counts.map(|count| count.to_string())).collect()
    }
}

impl Shown for Known {
    const COLUMNS: &[&str] = &["at", "namespace", "remediation", "component", "action_type", "success"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.at.to_string(),
            self.namespace.clone(),
            self.remediation.clone(),
            self.component.clone(),
            self.action_type.clone(),
            self.success.to_string(),
        ]
    }
}

impl Shown for Event {
    const COLUMNS: &[&str] = &["at", "event", "success", "detail"];

    fn cells(&self) -> Vec<String> {
        let success = self.success.map(|success| success.to_string()).unwrap_or_default();
        vec![self.at.to_string(), self.event.to_string(), success, self.detail.clone()]
    }
}

/// 0 to 1, with three digits.
fn share(share: Option<f64>) -> String {
    share.map(|share| format!("{share:.3}")).unwrap_or_default()
}

pub(super) fn table<T: Shown>(rows: &[T]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(T::COLUMNS.iter().map(|name| name.replace('_', " ").to_uppercase()));
    for row in rows {
        table.add_row(row.cells().iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { printable(cell) }));
    }
    table.to_string()
}

pub(super) fn timeline(incident: &Incident) -> String {
    let Incident { namespace, policy, component, remediation, cut, events } = incident;
    let head = format!("{remediation} in {namespace}: {component} of policy {policy}");
    let cut = if *cut { format!("\nThe first {MAX_LOOKS} looks; there are more.") } else { String::new() };
    format!("{head}\n\n{}{cut}", table(events))
}

/// Texts of containers and servers may hold what a terminal obeys.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

pub(super) fn csv<T: Shown>(rows: &[T]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(T::COLUMNS)?;
    for row in rows {
        writer.write_record(row.cells())?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
