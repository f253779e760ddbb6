//! The summary: a row a component, and the totals.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::{
    csv::Bad,
    time::{length, show},
    walk::{Summary, Told},
};

/// Times of alarms that a cell shows.
const SHOWN: usize = 3;

struct Totals {
    rows: u64,
    alarmed: usize,
    alarms: u64,
    acted: usize,
    leaking: usize,
}

fn totals(summaries: &[Summary]) -> Totals {
    let count = |wanted: &dyn Fn(&Summary) -> bool| summaries.iter().filter(|summary| wanted(summary)).count();
    Totals {
        rows: summaries.iter().map(|summary| summary.rows).sum(),
        alarmed: count(&|summary| summary.alarms.count > 0),
        alarms: summaries.iter().map(|summary| summary.alarms.count).sum(),
        acted: count(&|summary| summary.acts.count > 0),
        leaking: count(&|summary| summary.leaks.count > 0),
    }
}

pub(super) fn table(summaries: &[Summary], bad: usize) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["COMPONENT", "ROWS", "SPAN", "ALARMS", "AT", "ACTED ON", "LEAK", "LAST FORECAST"]);
    let dash = || "-".to_owned();
    for summary in summaries {
        let times: Vec<String> = summary.alarms.list.iter().take(SHOWN).map(|episode| show(episode.start)).collect();
        let more = if summary.alarms.count > SHOWN as u64 { ", ..." } else { "" };
        table.add_row([
            format!("{}/{}", summary.set, summary.component),
            summary.rows.to_string(),
            summary.span.map_or_else(dash, |(first, last)| length(last - first)),
            summary.alarms.count.to_string(),
            if times.is_empty() { dash() } else { format!("{}{more}", times.join(", ")) },
            summary.acts.first().map_or_else(dash, show),
            summary.leaks.first().map_or_else(dash, show),
            summary.last.as_ref().map_or_else(dash, words),
        ]);
    }
    let Totals { rows, alarmed, alarms, acted, leaking } = totals(summaries);
    let unread = if bad > 0 { format!("; {bad} could not be read") } else { String::new() };
    let table = if summaries.is_empty() { String::new() } else { format!("{table}\n\n") };
    format!(
        "{table}{} components, {rows} rows: {alarms} alarms on {alarmed}, acted on {acted}, {leaking} leak{unread}",
        summaries.len()
    )
}

/// `87% critical, in 2h10m (1h50m to 3h00m), confidence high`
pub(super) fn words(told: &Told) -> String {
    let forecast = &told.forecast;
    let when = forecast.time_to_failure.map_or_else(String::new, |time| {
        format!(", in {} ({} to {})", length(time.seconds), length(time.earliest), length(time.latest))
    });
    let confidence = match forecast.confidence.to_string() {
        words if words.contains(' ') => words,
        word => format!("confidence {word}"),
    };
    format!("{:.0}% {}{when}, {confidence}", forecast.probability() * 100.0, forecast.level())
}

pub(super) fn json(summaries: &[Summary], bad: &[Bad]) -> serde_json::Result<String> {
    let components: Vec<Value> = summaries.iter().map(component).collect();
    let Totals { rows, alarmed, alarms, acted, leaking } = totals(summaries);
    serde_json::to_string_pretty(&json!({
        "components": components,
        "errors": bad.iter().map(Bad::to_string).collect::<Vec<_>>(),
        "totals": {
            "components": summaries.len(),
            "rows": rows,
            "alarms": alarms,
            "componentsWithAlarms": alarmed,
            "componentsActedOn": acted,
            "componentsLeaking": leaking,
        },
    }))
}

fn component(summary: &Summary) -> Value {
    json!({
        "set": summary.set,
        "component": summary.component,
        "rows": summary.rows,
        "looks": summary.looks,
        "first": summary.span.map(|(first, _)| first),
        "last": summary.span.map(|(_, last)| last),
        "alarmCount": summary.alarms.count,
        "alarms": summary.alarms.list,
        "actCount": summary.acts.count,
        "acts": summary.acts.list,
        "firstLeak": summary.leaks.first(),
        "peakProbability": summary.peak,
        "firstAlarm": summary.first_alarm.as_ref().map(forecast),
        "lastForecast": summary.last.as_ref().map(forecast),
    })
}

fn forecast(told: &Told) -> Value {
    let Told { t, forecast } = told;
    json!({
        "t": t,
        "probability": forecast.probability(),
        "probability1h": forecast.within[0],
        "probability6h": forecast.within[1],
        "timeToFailureSeconds": forecast.time_to_failure.map(|time| time.seconds),
        "earliestSeconds": forecast.time_to_failure.map(|time| time.earliest),
        "latestSeconds": forecast.time_to_failure.map(|time| time.latest),
        "leak": forecast.leak,
        "level": forecast.level().to_string(),
        "confidence": forecast.confidence.to_string(),
        "reasons": forecast.reasons,
    })
}
