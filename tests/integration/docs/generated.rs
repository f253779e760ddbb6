//! The generated parts of the pages, between `<!-- generated: NAME -->` and `<!-- end of generated: NAME -->`.
//! `UPDATE_DOCS=1 cargo test --test integration docs::` writes them; without it they are compared.

use std::{fmt::Write as _, fs};

use panacea::api::{ActionKind, CUSTOM, Capabilities, EventReason, RemediationReason, TARGETS};
use strum::IntoEnumIterator as _;

use super::{
    advice, at, nothing_wrong,
    pages::{pages, root},
    reference,
};

/// A generated part, and how it is rendered.
type Part = (&'static str, fn() -> String);

const PARTS: [Part; 6] = [
    ("targets", symbols),
    ("remedies", causes),
    ("remediation reasons", remediation_reasons),
    ("event reasons", event_reasons),
    ("HealingPolicy", || reference::render("HealingPolicy")),
    ("Remediation", || reference::render("Remediation")),
];

#[test]
fn the_generated_parts_are_what_the_code_renders() {
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    let (mut wrong, mut found) = (Vec::new(), 0);
    for page in pages() {
        let mut text = page.text.clone();
        for (name, render) in PARTS {
            let (begin, end) = (format!("<!-- generated: {name} -->\n"), format!("<!-- end of generated: {name} -->"));
            let Some((before, rest)) = text.split_once(&begin) else { continue };
            let (stored, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{} has no {end}", page.path));
            found += 1;
            let rendered = render();
            if stored != rendered {
                let same = stored.lines().zip(rendered.lines()).take_while(|(stored, now)| stored == now).count();
                let line = before.lines().count() + 2 + same;
                wrong.push(at(
                    &page.path,
                    line,
                    "is not what the code renders: UPDATE_DOCS=1 cargo test --test integration docs::",
                ));
            }
            text = format!("{before}{begin}{rendered}{end}{after}");
        }
        if update && text != page.text {
            fs::write(root().join(&page.path), text).unwrap();
        }
    }
    assert_eq!(found, PARTS.len(), "each generated part is in one page");
    if !update {
        nothing_wrong(&wrong);
    }
}

/// The actions that are not custom ones: those have the same cell for every target.
fn actions() -> Vec<ActionKind> {
    ActionKind::iter().filter(|action| !CUSTOM.iter().any(|custom| custom.action == *action)).collect()
}

/// The name of a target for readers who do not know the field.
fn title(target: &Capabilities) -> &str {
    match target.noun {
        "a render target" => "Render service",
        "a vercel target" => "Vercel project",
        "a github target" => "GitHub environment",
        "a postgres target" => "PostgreSQL database",
        "an http target" => "HTTP service",
        noun => noun.split_once(' ').map_or(noun, |(_, noun)| noun),
    }
}

/// A table with a row per target and a column per action.
fn table(cell: impl Fn(&Capabilities, ActionKind) -> String) -> String {
    let actions = actions();
    let mut table = String::from("| target |");
    actions.iter().for_each(|action| write!(table, " {action} |").unwrap());
    writeln!(table, "\n|{}", "---|".repeat(actions.len() + 1)).unwrap();
    for target in TARGETS {
        write!(table, "| {} |", title(target)).unwrap();
        actions.iter().for_each(|action| write!(table, " {} |", cell(target, *action)).unwrap());
        table.push('\n');
    }
    table
}

fn default_causes(target: &Capabilities, action: ActionKind) -> Option<String> {
    let (_, causes) = target.default_remedies.iter().find(|(other, _)| *other == action)?;
    Some(causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

fn symbols() -> String {
    table(|target, action| {
        let symbol = match target.find(action) {
            Some(_) if default_causes(target, action).is_some() => "●",
            Some(_) => "○",
            None => "",
        };
        symbol.to_owned()
    })
}

fn causes() -> String {
    table(|target, action| {
        let Some(supported) = target.find(action) else { return String::new() };
        let default = default_causes(target, action);
        let text = default.map_or_else(|| "yes".to_owned(), |causes| format!("default for {causes}"));
        text + &supported.needs.map(|needs| format!("; {}", needs.message)).unwrap_or_default()
    })
}

fn remediation_reasons() -> String {
    let mut table = String::from("| reason | meaning | next step |\n|---|---|---|\n");
    for reason in RemediationReason::iter() {
        let meaning = reason.meaning().replace('\n', " ");
        assert!(!meaning.is_empty(), "{reason} has no doc comment in src/api/reason.rs");
        writeln!(table, "| `{reason}` | {meaning} | {} |", advice::of_remediation(reason)).unwrap();
    }
    table
}

const EVENT_REASONS: &str = include_str!("../../../src/api/event_reason.rs");

/// The doc comment of a variant, if it has one.
fn event_meaning(reason: &str) -> Option<String> {
    let lines: Vec<&str> = EVENT_REASONS.lines().map(str::trim).collect();
    let variant = lines.iter().position(|line| line.strip_suffix(',') == Some(reason)).unwrap();
    let comment = lines[..variant].iter().rev().take_while(|line| line.starts_with("///")).collect::<Vec<_>>();
    let text = comment.into_iter().rev().map(|line| line.trim_start_matches('/').trim()).collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

fn event_reasons() -> String {
    let mut table = String::from("| reason | meaning | next step |\n|---|---|---|\n");
    for reason in EventReason::iter() {
        let (meaning, step) = advice::of_event(reason);
        let meaning = event_meaning(&reason.to_string()).unwrap_or_else(|| meaning.to_owned());
        writeln!(table, "| `{reason}` | {meaning} | {step} |").unwrap();
    }
    table
}
