//! Results as a table for people, and as CSV for programs. JSON is the serialized form of the rows.

use serde::Serialize;
use serde_json::Value;

use crate::knowledge::{
    incident::{Event, Incident, Known, MAX_LOOKS},
    queries::{ActionCount, ActionSuccess, ComponentInterventions, DayAccuracy},
    summary::RemedyOutcomes,
};

/// A row of which some fields are shown.
pub(super) trait Shown: Serialize {
    /// With commas between them.
    const COLUMNS: &str;
}

impl Shown for ActionCount {
    const COLUMNS: &str = "action_type,actions,succeeded";
}

impl Shown for ComponentInterventions {
    const COLUMNS: &str = "namespace,policy,component,interventions,succeeded";
}

impl Shown for ActionSuccess {
    const COLUMNS: &str = "action_type,actions,success_rate";
}

impl Shown for RemedyOutcomes {
    const COLUMNS: &str = "cause,action,namespace,policy,component,succeeded,ineffective,failed,success_rate,at_least";
}

impl Shown for DayAccuracy {
    const COLUMNS: &str =
        "day,predictions,correct,accuracy,came_true,came_early,came_late,prevented,did_not_happen,missed,unknown";
}

impl Shown for Known {
    const COLUMNS: &str = "at,namespace,remediation,component,action_type,success";
}

impl Shown for Event {
    const COLUMNS: &str = "at,event,success,detail";
}

/// As many as there are columns; an unknown value is empty, a share has three digits.
fn cells<T: Shown>(row: &T) -> anyhow::Result<Vec<String>> {
    let row = serde_json::to_value(row)?;
    let cell = |name: &str| match &row[name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => format!("{:.3}", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    };
    Ok(T::COLUMNS.split(',').map(cell).collect())
}

pub(super) fn table<T: Shown>(rows: &[T]) -> anyhow::Result<String> {
    let header: Vec<String> = T::COLUMNS.split(',').map(|name| name.replace('_', " ").to_uppercase()).collect();
    let mut table = crate::cli::table(header);
    for row in rows {
        let shown = |cell: &String| if cell.is_empty() { "-".to_owned() } else { printable(cell) };
        table.add_row(cells(row)?.iter().map(shown));
    }
    Ok(table.to_string())
}

pub(super) fn timeline(incident: &Incident) -> anyhow::Result<String> {
    let Incident { namespace, policy, component, remediation, cut, events } = incident;
    let head = format!("{remediation} in {namespace}: {component} of policy {policy}");
    let cut = if *cut { format!("\nThe first {MAX_LOOKS} checks; there are more.") } else { String::new() };
    Ok(format!("{head}\n\n{}{cut}", table(events)?))
}

/// Texts of containers and servers may contain control sequences for terminals.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

pub(super) fn csv<T: Shown>(rows: &[T]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(T::COLUMNS.split(','))?;
    for row in rows {
        writer.write_record(cells(row)?)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
