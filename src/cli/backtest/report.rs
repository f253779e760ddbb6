//! The report: one HTML page without external files.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use plotters::style::RGBColor;

use super::{
    chart::{self, Picture},
    csv::Bad,
    table::{count, words},
    time::{length, show},
    walk::{Forecasted, Summary},
};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// For text and attributes. Names come from files, so control characters are replaced.
fn escape(text: &str) -> String {
    let text = text.replace(char::is_control, " ").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

/// A fragment identifier: other characters become their numbers.
fn anchor(summary: &Summary) -> String {
    let mut anchor = String::from("c-");
    for character in format!("{}/{}", summary.set, summary.component).chars() {
        if character.is_ascii_alphanumeric() || character == '-' {
            anchor.push(character);
        } else {
            let _ = write!(anchor, "_{:x}_", character as u32);
        }
    }
    anchor
}

/// The section of one component.
pub(super) fn section(picture: &Picture<'_>) -> String {
    let Picture { summary, labels, .. } = picture;
    let id = anchor(summary);
    let name = escape(&format!("{}/{}", summary.set, summary.component));
    let mut html = format!("<section id=\"{id}\">\n<h2>{name}</h2>\n");
    let _ = writeln!(html, "<p>{}</p>", escape(&sentence(summary)));
    match chart::draw(picture) {
        Ok((svg, width, height)) => {
            let _ = writeln!(
                html,
                "<figure><svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
                 <title id=\"{id}-t\">History and forecast of {name}</title><desc id=\"{id}-d\">{}</desc>\n{svg}\n</svg></figure>",
                escape(&sentence(summary))
            );
        }
        Err(error) => {
            let _ = writeln!(html, "<p class=\"none\">No chart: {}</p>", escape(&error.to_string()));
        }
    }
    html.push_str("<ul>\n");
    for (forecasted, color) in chart::bands(summary) {
        let what = if color == chart::FIRST { "First alarm" } else { "Last row" };
        let _ = writeln!(html, "<li>{}{}</li>", key(color), escape(&describe(what, forecasted)));
    }
    for label in labels.iter().take(KNOWN_SHOWN) {
        let when = if label.end > label.start {
            format!("{} to {}", show(label.start), show(label.end))
        } else {
            format!("at {}", show(label.start))
        };
        let text = format!("Known: {} {when} {}", label.kind.replace('_', " "), label.detail);
        let _ = writeln!(html, "<li>{}{}</li>", key(chart::KNOWN), escape(text.trim_end()));
    }
    if labels.len() > KNOWN_SHOWN {
        let _ = writeln!(html, "<li>and {} more</li>", labels.len() - KNOWN_SHOWN);
    }
    html.push_str("</ul>\n<p class=\"top\"><a href=\"#index\">to the table</a></p>\n</section>\n");
    html
}

/// Most lines of labels.csv in the list.
const KNOWN_SHOWN: usize = 6;

fn key(color: RGBColor) -> String {
    format!(
        "<svg class=\"key\" viewBox=\"0 0 10 10\" aria-hidden=\"true\"><rect width=\"10\" height=\"10\" fill=\"{}\"/></svg>",
        hex(color)
    )
}

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

fn describe(what: &str, Forecasted { t, forecast }: &Forecasted) -> String {
    let failure = forecast.time_to_failure.map_or_else(
        || "; no failure forecast within 7 days".to_owned(),
        |time| {
            let at = |seconds: f64| show(t + seconds);
            format!("; failure at {} ({} to {})", at(time.seconds), at(time.earliest), at(time.latest))
        },
    );
    let reasons = forecast.reasons.join("; ");
    let reasons = if reasons.is_empty() { reasons } else { format!(". {reasons}") };
    format!("{what}, {}: {}{failure}{reasons}", show(*t), words(forecast))
}

fn sentence(summary: &Summary) -> String {
    let Some((first, last)) = summary.span else {
        return format!("{}, none with a value.", count(summary.rows, "row"));
    };
    let alarms = match (summary.alarms.count, summary.alarms.first()) {
        (1, Some(at)) => format!("One alarm, at {}", show(at)),
        (count, Some(at)) => format!("{count} alarms, the first at {}", show(at)),
        _ => "No alarm".to_owned(),
    };
    let acts = summary.acts.first().map_or_else(|| "no action".into(), |at| format!("first action at {}", show(at)));
    let leak = summary.leaks.first().map_or_else(|| "no leak".into(), |at| format!("leak detected at {}", show(at)));
    format!("{} over {}. {alarms}; {acts}; {leak}.", count(summary.rows, "row"), length(last - first))
}

/// The most important first: components with actions, then with alarms, then with leaks.
fn order(summaries: &[Summary]) -> Vec<usize> {
    let class = |summary: &Summary| {
        [&summary.acts, &summary.alarms, &summary.leaks].iter().position(|episodes| episodes.count > 0).unwrap_or(3)
    };
    let mut order: Vec<usize> = (0..summaries.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&summaries[*a], &summaries[*b]);
        class(a).cmp(&class(b)).then(b.peak.total_cmp(&a.peak))
    });
    order
}

/// Writes the page; `sections` has one section for each summary, in the same order.
pub(super) fn write(
    page: &mut impl Write,
    summaries: &[Summary],
    mut sections: Vec<String>,
    bad: &[Bad],
) -> io::Result<()> {
    let order = order(summaries);
    let alarmed = summaries.iter().filter(|summary| summary.alarms.count > 0).count();
    writeln!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Panacea backtest</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Panacea backtest</h1>\n<p>The forecasts of the operator for {} recorded histories ({alarmed} with alarms), row by row, \
         without knowledge of later rows.</p>",
        summaries.len()
    )?;
    legend(page)?;
    if !bad.is_empty() {
        writeln!(page, "<p class=\"bad\">Not read:</p>\n<ul class=\"bad\">")?;
        bad.iter().try_for_each(|bad| writeln!(page, "<li>{}</li>", escape(&bad.to_string())))?;
        writeln!(page, "</ul>")?;
    }
    writeln!(page, "<nav id=\"index\" aria-label=\"Components\" tabindex=\"0\"><table>\n<thead><tr>")?;
    for name in [
        "Component",
        "Alarms",
        "First alarm",
        "First action",
        "Leak detected",
        "Peak",
        "At the end",
        "Failure in",
        "Confidence",
    ] {
        writeln!(page, "<th scope=\"col\"><button type=\"button\">{name}</button></th>")?;
    }
    writeln!(page, "</tr></thead>\n<tbody>")?;
    order.iter().try_for_each(|place| row(page, &summaries[*place]))?;
    writeln!(page, "</tbody></table></nav>\n<main>")?;
    for place in order {
        if let Some(section) = sections.get_mut(place) {
            page.write_all(std::mem::take(section).as_bytes())?;
        }
    }
    writeln!(page, "</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>")?;
    page.flush()
}

fn legend(page: &mut impl Write) -> io::Result<()> {
    writeln!(page, "<details open><summary>Legend</summary>\n<ul class=\"legend\">")?;
    for (color, words) in [
        (chart::LINE, "measured values; in the lowest panel the probability of a failure within 24 hours"),
        (chart::SOON, "probability within the next hour; dashed: the limit of a metric"),
        (chart::ALARM, "alarm: level high or critical (over 30% within 24 hours); a triangle marks its start"),
        (
            chart::ACT,
            "action: a resource is exhausted within the next hour with the default probability of a policy (horizon, minProbability), so that remedies would be tried, within the policy's limits; a dot marks its start",
        ),
        (chart::LEAK, "a memory leak is detected"),
        (
            chart::FIRST,
            "forecast at the first alarm (thin line): the failure is in the band with 80% probability, its median is dashed",
        ),
        (chart::LAST, "forecast at the last row: the same"),
        (chart::KNOWN, "known from labels.csv, which the analysis does not use"),
    ] {
        writeln!(page, "<li>{}{words}</li>", key(color))?;
    }
    writeln!(page, "</ul></details>")
}

fn row(page: &mut impl Write, summary: &Summary) -> io::Result<()> {
    // Sorted by number; missing values come last.
    let cell = |value: Option<f64>, text: Option<String>| {
        format!(
            "<td data-v=\"{}\">{}</td>",
            value.map_or_else(String::new, |value| value.to_string()),
            text.unwrap_or_else(|| "–".to_owned())
        )
    };
    let time = |t: Option<f64>| cell(t, t.map(show));
    let percent = |share: Option<f64>| cell(share, share.map(|share| format!("{:.0}%", share * 100.0)));
    let last = summary.last.as_ref().map(|last| &last.forecast);
    let left = last.and_then(|forecast| forecast.time_to_failure).map(|time| time.seconds);
    let level = last.map_or_else(String::new, |forecast| forecast.level().to_string());
    writeln!(
        page,
        "<tr class=\"{level}\"><th scope=\"row\"><a href=\"#{}\">{}</a></th>{}{}{}{}{}{}{}<td>{}</td></tr>",
        anchor(summary),
        escape(&format!("{}/{}", summary.set, summary.component)),
        cell(Some(summary.alarms.count as f64), Some(summary.alarms.count.to_string())),
        time(summary.alarms.first()),
        time(summary.acts.first()),
        time(summary.leaks.first()),
        percent(Some(summary.peak)),
        percent(last.map(|forecast| forecast.probability())),
        cell(left, left.map(length)),
        last.map_or_else(|| "–".to_owned(), |forecast| escape(&forecast.confidence.to_string())),
    )
}
