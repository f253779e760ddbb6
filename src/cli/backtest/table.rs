//! The summary: a row for each component, and the totals.

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    csv::Bad,
    time::{length, show},
    walk::{Forecasted, Summary},
};
use crate::analyze::forecast::Forecast;

/// Most times of alarms in a cell.
const SHOWN: usize = 3;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    components: usize,
    rows: u64,
    alarms: u64,
    components_with_alarms: usize,
    components_acted_on: usize,
    components_leaking: usize,
}

fn totals(summaries: &[Summary]) -> Totals {
    let count = |wanted: &dyn Fn(&Summary) -> bool| summaries.iter().filter(|summary| wanted(summary)).count();
    Totals {
        components: summaries.len(),
        rows: summaries.iter().map(|summary| summary.rows).sum(),
        alarms: summaries.iter().map(|summary| summary.alarms.count).sum(),
        components_with_alarms: count(&|summary| summary.alarms.count > 0),
        components_acted_on: count(&|summary| summary.acts.count > 0),
        components_leaking: count(&|summary| summary.leaks.count > 0),
    }
}

pub(super) fn table(summaries: &[Summary], bad: usize) -> String {
    let header = ["COMPONENT", "ROWS", "SPAN", "ALARMS", "AT", "FIRST ACTION", "LEAK", "LAST FORECAST"];
    let mut table = crate::cli::table(header);
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
            summary.last.as_ref().map_or_else(dash, |last| words(&last.forecast)),
        ]);
    }
    let totals = totals(summaries);
    let unread = if bad > 0 { format!("; {bad} could not be read") } else { String::new() };
    let table = if summaries.is_empty() { String::new() } else { format!("{table}\n\n") };
    format!(
        "{table}{}, {}: {} on {}, actions on {}, leaks in {}{unread}",
        count(totals.components as u64, "component"),
        count(totals.rows, "row"),
        count(totals.alarms, "alarm"),
        totals.components_with_alarms,
        totals.components_acted_on,
        totals.components_leaking
    )
}

/// `1 row`, `2 rows`
pub(super) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `87% critical, in 2h10m (1h50m to 3h00m), confidence high`
pub(super) fn words(forecast: &Forecast) -> String {
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
    serde_json::to_string_pretty(&json!({
        "components": summaries.iter().map(component).collect::<Vec<_>>(),
        "errors": bad.iter().map(Bad::to_string).collect::<Vec<_>>(),
        "totals": totals(summaries),
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

fn forecast(forecasted: &Forecasted) -> Value {
    let Forecasted { t, forecast } = forecasted;
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
