//! The report: one HTML page that needs nothing else, not even a network.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use plotters::style::RGBColor;

use super::{
    chart::{self, Picture},
    csv::Bad,
    table::words,
    time::{length, show},
    walk::{Summary, Told},
};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// Of text and of attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // A history's names come from files: no control character is to end up in the page.
            other if other.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A name that an address can end in: other characters are written as their numbers.
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

/// One component's part of the page.
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
            let _ = writeln!(html, "<p class=\"none\">No picture: {}</p>", escape(&error.to_string()));
        }
    }
    html.push_str("<ul>\n");
    for (told, color) in chart::tellings(summary) {
        let what = if color == chart::FIRST { "First alarm" } else { "Last look" };
        let _ = writeln!(html, "<li>{}{}</li>", key(color), escape(&telling(what, told)));
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

/// Lines of labels.csv that are told in words.
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

fn telling(what: &str, told: &Told) -> String {
    let failure = told.forecast.time_to_failure.map_or_else(
        || "; no failure foreseen within 7 days".to_owned(),
        |time| {
            let at = |seconds: f64| show(told.t + seconds);
            format!("; failure at {} ({} to {})", at(time.seconds), at(time.earliest), at(time.latest))
        },
    );
    let reasons = told.forecast.reasons.join("; ");
    let reasons = if reasons.is_empty() { reasons } else { format!(". {reasons}") };
    format!("{what}, {}: {}{failure}{reasons}", show(told.t), words(told))
}

fn sentence(summary: &Summary) -> String {
    let Some((first, last)) = summary.span else {
        return format!("{} rows, none of which holds a value.", summary.rows);
    };
    let alarms = match (summary.alarms.count, summary.alarms.first()) {
        (1, Some(at)) => format!("One alarm, at {}", show(at)),
        (count, Some(at)) => format!("{count} alarms, the first at {}", show(at)),
        _ => "No alarm".to_owned(),
    };
    let acts = summary.acts.first().map_or_else(|| "never acted on".into(), |at| format!("acted on from {}", show(at)));
    let leak = summary.leaks.first().map_or_else(|| "no leak".into(), |at| format!("leak seen at {}", show(at)));
    format!("{} rows over {}. {alarms}; {acts}; {leak}.", summary.rows, length(last - first))
}

/// The most important first: what was acted on, then alarms, then leaks.
fn order(summaries: &[Summary]) -> Vec<usize> {
    let class = |summary: &Summary| match summary {
        summary if summary.acts.count > 0 => 0,
        summary if summary.alarms.count > 0 => 1,
        summary if summary.leaks.count > 0 => 2,
        _ => 3,
    };
    let mut order: Vec<usize> = (0..summaries.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&summaries[*a], &summaries[*b]);
        class(a).cmp(&class(b)).then(b.peak.total_cmp(&a.peak))
    });
    order
}

/// Writes the page; `sections` are those of the summaries, in their order.
pub(super) fn write(
    page: &mut impl Write,
    summaries: &[Summary],
    sections: Vec<String>,
    bad: &[Bad],
) -> io::Result<()> {
    let order = order(summaries);
    let alarmed = summaries.iter().filter(|summary| summary.alarms.count > 0).count();
    writeln!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Panacea backtest</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Panacea backtest</h1>\n<p>What the operator would have foreseen in {} recorded histories ({alarmed} with alarms), \
         look by look, without a view of what came later.</p>",
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
        "Acted on",
        "Leak seen",
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
    let mut sections: Vec<String> = sections;
    for place in order {
        if let Some(section) = sections.get_mut(place) {
            page.write_all(std::mem::take(section).as_bytes())?;
        }
    }
    writeln!(page, "</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>")?;
    page.flush()
}

fn legend(page: &mut impl Write) -> io::Result<()> {
    writeln!(page, "<details open><summary>How to read it</summary>\n<ul class=\"legend\">")?;
    for (color, words) in [
        (chart::LINE, "measured values; in the lowest panel the probability of a failure within 24 hours"),
        (chart::SOON, "probability within the next hour; dashed: the limit of a metric"),
        (chart::ALARM, "alarm: level high or critical (over 30% within 24 hours); a triangle marks where it began"),
        (
            chart::ACT,
            "acted on: something runs out within the next hour as probably as a policy asks for by default (horizon, minProbability), so that remedies would be tried, as far as its limits let them; a dot marks it",
        ),
        (chart::LEAK, "memory is said to rise for good"),
        (
            chart::FIRST,
            "said at the first alarm (thin line): the band holds the failure with 80%, its median is dashed",
        ),
        (chart::LAST, "said at the last look: the same"),
        (chart::KNOWN, "known from labels.csv; the analysis has not seen it"),
    ] {
        writeln!(page, "<li>{}{words}</li>", key(color))?;
    }
    writeln!(page, "</ul></details>")
}

fn row(page: &mut impl Write, summary: &Summary) -> io::Result<()> {
    // Sorted by number; what is missing comes last.
    let cell = |value: Option<f64>, text: Option<String>| {
        format!(
            "<td data-v=\"{}\">{}</td>",
            value.map_or_else(String::new, |value| value.to_string()),
            text.unwrap_or_else(|| "–".to_owned())
        )
    };
    let time = |t: Option<f64>| cell(t, t.map(show));
    let percent = |share: Option<f64>| cell(share, share.map(|share| format!("{:.0}%", share * 100.0)));
    let last = summary.last.as_ref().map(|told| &told.forecast);
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
