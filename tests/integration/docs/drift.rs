//! Names in the documentation that the code does not have are reported with page and line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use clap::CommandFactory as _;
use panacea::{
    api::{ActionKind, Cause, EventReason, HealthStatus, Outcome, Phase, RemediationReason},
    cli::Cli,
    knowledge::views::VIEWS,
    plan::guard::Guard,
};
use regex::Regex;
use serde_json::Value;
use strum::IntoEnumIterator as _;

use super::{
    CRDS, at, nothing_wrong,
    pages::{Page, pages, root},
    schema,
};

fn source(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

fn captures(pattern: &str, text: &str) -> BTreeSet<String> {
    Regex::new(pattern).unwrap().captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// Runs a check over all pages.
fn check(wrong: impl Fn(&Page) -> Vec<String>) {
    nothing_wrong(&pages().iter().flat_map(wrong).collect::<Vec<_>>());
}

/// The lines of an invented page that a check complains about, with its words.
fn wrong_in(text: &str, wrong: impl Fn(&Page) -> Vec<String>) -> Vec<String> {
    wrong(&Page { path: "page.md".to_owned(), text: text.to_owned() })
}

/// The metrics as Prometheus shows them.
fn metrics() -> BTreeSet<String> {
    let counters = source("src/controller/metrics.rs");
    let mut names: BTreeSet<String> = captures(r#"register\(\s*"([a-z_]+)""#, &counters)
        .into_iter()
        .map(|name| if name.ends_with("_seconds") { name } else { name + "_total" })
        .collect();
    // Its test holds the whole exposition.
    for found in
        Regex::new("# TYPE panacea_([a-z_]+) ([a-z]+)").unwrap().captures_iter(&source("src/server/collectors.rs"))
    {
        names.insert(if &found[2] == "counter" { format!("{}_total", &found[1]) } else { found[1].to_owned() });
    }
    assert!(names.len() > 15 && names.contains("checks_total"), "{names:?}");
    names
}

/// Names that an older version had are in the changelog's entry about metrics.
fn wrong_metrics(page: &Page) -> Vec<String> {
    let metrics = metrics();
    let name = Regex::new(r"\bpanacea_([a-z0-9_]+)").unwrap();
    let is_known =
        |name: &str| metrics.contains(name) || VIEWS.iter().any(|(view, _)| *view == format!("panacea_{name}"));
    let is_old = |name: &str| page.path == "CHANGELOG.md" && (name.contains("look") || name.contains("facts"));
    let lines = (1..).zip(page.text.lines());
    let found = lines.flat_map(|(line, text)| name.captures_iter(text).map(move |found| (line, found[1].to_owned())));
    found
        .filter(|(_, name)| !is_known(name) && !is_old(name))
        .map(|(line, name)| at(&page.path, line, format!("no metric panacea_{name}")))
        .collect()
}

#[test]
fn every_metric_exists_and_is_documented() {
    check(wrong_metrics);
    assert_eq!(wrong_in("a\n`panacea_looks_total`", wrong_metrics), ["page.md:2: no metric panacea_looks_total"]);
    let operations = source("docs/operations.md");
    let mut missing = metrics();
    missing.retain(|name| !operations.contains(&format!("`panacea_{name}`")));
    assert!(missing.is_empty(), "docs/operations.md does not name {missing:?}");
}

/// Flags by subcommand, `brain actions` for one of a subcommand; the empty name has all.
fn flags() -> BTreeMap<String, BTreeSet<String>> {
    fn walk(command: &clap::Command, path: &str, flags: &mut BTreeMap<String, BTreeSet<String>>) {
        let mine: BTreeSet<String> = command
            .get_arguments()
            .filter_map(|argument| argument.get_long())
            .map(|long| format!("--{long}"))
            .collect();
        flags.entry(String::new()).or_default().extend(mine.clone());
        flags.entry(path.to_owned()).or_default().extend(mine);
        for child in command.get_subcommands() {
            walk(child, format!("{path} {}", child.get_name()).trim(), flags);
        }
    }
    let mut flags = BTreeMap::new();
    walk(&Cli::command(), "", &mut flags);
    for own in flags.values_mut() {
        own.insert("--help".to_owned());
    }
    flags
}

/// What is wrong with the arguments of a command line of Panacea: all that follows the word `panacea`.
fn wrong_arguments(arguments: &str, flags: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let words: Vec<&str> = arguments.split_whitespace().take_while(|word| !matches!(*word, "|" | "#")).collect();
    let mut path = String::new();
    for word in words.iter().filter(|word| !word.starts_with('-')) {
        let longer = format!("{path} {word}").trim().to_owned();
        if !flags.contains_key(&longer) {
            break;
        }
        path = longer;
    }
    if path.is_empty() {
        return words.first().map(|word| format!("panacea has no subcommand {word}"));
    }
    let named = words.iter().filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap_or(word));
    let mut unknown = named.filter(|flag| !flags[&path].contains(*flag));
    unknown.next().map(|flag| format!("panacea {path} has no flag {flag}"))
}

/// Flags of other programs that the pages name alone.
const FOREIGN_FLAGS: [&str; 1] = ["--force-conflicts"];

fn wrong_flags(page: &Page) -> Vec<String> {
    let flags = flags();
    let mut wrong = Vec::new();
    for (line, span) in page.spans() {
        let flag = span.split([' ', '=']).next().unwrap_or_default();
        if flag.starts_with("--") && !flags[""].contains(flag) && !FOREIGN_FLAGS.contains(&flag) {
            wrong.push(at(&page.path, line, format!("panacea has no flag {flag}")));
        } else if let Some(why) = span.strip_prefix("panacea ").and_then(|rest| wrong_arguments(rest, &flags)) {
            wrong.push(at(&page.path, line, why));
        }
    }
    for block in page.blocks().iter().filter(|block| block.language != "text") {
        // A continued command is one line; the lines after it keep their place.
        let mut lines = (block.line..).zip(block.text.lines());
        while let Some((line, text)) = lines.next() {
            let Some(command) = text.strip_prefix("$ panacea ") else { continue };
            let mut command = command.to_owned();
            while let Some(open) = command.strip_suffix('\\') {
                command = format!("{open} {}", lines.next().map(|(_, text)| text).unwrap_or_default());
            }
            wrong.extend(wrong_arguments(&command, &flags).map(|why| at(&page.path, line, why)));
        }
    }
    wrong
}

#[test]
fn every_flag_and_subcommand_exists() {
    check(wrong_flags);
    let page =
        "`--raport`\n`panacea brian`\n```console\n$ panacea run\n$ panacea backtest \\\n    --raport x.html\n```";
    assert_eq!(
        wrong_in(page, wrong_flags),
        [
            "page.md:1: panacea has no flag --raport",
            "page.md:2: panacea has no subcommand brian",
            "page.md:5: panacea backtest has no flag --raport"
        ]
    );
}

fn wrong_make_targets(page: &Page) -> Vec<String> {
    let targets = captures(r"(?m)^([a-z][a-z-]*):", &source("Makefile"));
    let command = Regex::new(r"^(?:\$ )?make ([a-z][a-z-]*)").unwrap();
    let blocks = page.blocks();
    let commands = blocks.iter().flat_map(|block| (block.line..).zip(block.text.lines().map(str::to_owned)));
    let lines = page.spans().into_iter().chain(commands);
    let named = lines.filter_map(|(line, text)| Some((line, command.captures(&text)?[1].to_owned())));
    named
        .filter(|(_, target)| !targets.contains(target))
        .map(|(line, target)| at(&page.path, line, format!("the Makefile has no target {target}")))
        .collect()
}

#[test]
fn every_make_target_exists() {
    check(wrong_make_targets);
    let page = "`make test`\n```console\n$ make demmo\n```";
    assert_eq!(wrong_in(page, wrong_make_targets), ["page.md:3: the Makefile has no target demmo"]);
}

/// Names of other APIs, and of types in the code, that pages write as code.
const FOREIGN_NAMES: &[&str] = &[
    "ActionKind",
    "Capabilities",
    "Complete",
    "Deployment",
    "Enterprise",
    "ExternalSecret",
    "Host",
    "Http",
    "Idempotency-Key",
    "Intent",
    "Location",
    "Origin",
    "Ready",
    "Healing",
    "ApprovalRequired",
    "LedgerAvailable",
    "Remediation",
    "HealingPolicy",
    "Rejected",
    "Approved",
];

/// All values of enums in the schemas.
fn schema_values(schema: &Value, values: &mut BTreeSet<String>) {
    let own = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    values.extend(own.map(str::to_owned));
    match schema {
        Value::Object(fields) => fields.values().for_each(|field| schema_values(field, values)),
        Value::Array(items) => items.iter().for_each(|item| schema_values(item, values)),
        _ => {}
    }
}

fn wrong_names(page: &Page) -> Vec<String> {
    // The reference is generated from the schemas.
    if matches!(page.path.as_str(), "CHANGELOG.md" | "docs/reference.md") {
        return Vec::new();
    }
    let mut names: BTreeSet<String> = FOREIGN_NAMES.iter().map(|name| (*name).to_owned()).collect();
    names.extend(RemediationReason::iter().map(|name| name.to_string()));
    names.extend(EventReason::iter().map(|name| name.to_string()));
    names.extend(Guard::iter().map(|name| name.to_string()));
    names.extend(Phase::iter().map(|name| name.to_string()));
    names.extend(HealthStatus::iter().map(|name| name.to_string()));
    names.extend(ActionKind::iter().map(|name| name.to_string()));
    names.extend(Cause::iter().map(|name| name.to_string()));
    names.extend(Outcome::iter().map(|name| name.to_string()));
    CRDS.iter().for_each(|crd| schema_values(crd, &mut names));
    let name = Regex::new("^[A-Z][a-z]+(?:[A-Z][a-z]+)*$").unwrap();
    let spans = page.spans().into_iter().filter(|(_, span)| name.is_match(span) && !names.contains(span));
    let what = |span: &str| format!("`{span}` is neither a reason nor another name of the API");
    spans.map(|(line, span)| at(&page.path, line, what(&span))).collect()
}

#[test]
fn every_reason_exists() {
    check(wrong_names);
    let [wrong] = wrong_in("`OutcomeUnknown`\n`OutcomeUncertain`", wrong_names).try_into().unwrap();
    assert!(wrong.starts_with("page.md:2: `OutcomeUncertain` is neither"), "{wrong}");
}

/// Fields of other objects that pages name.
const FOREIGN_FIELDS: &[&str] = &[
    "spec.interval",
    "spec.rs",
    "spec.jobTemplate",
    "spec.paused",
    "spec.progressDeadlineAbort",
    "spec.replicas",
    "spec.restartAt",
    "spec.rollbackWindow",
    "spec.syncPolicy.automated",
    "spec.template",
    "spec.workloadRef",
    "status.abort",
    "status.currentPodHash",
    "status.inventory",
    "status.pauseConditions",
    "status.promoteFull",
    "status.resources",
    "status.sync.revision",
];

/// Whether a path such as `spec.components[].name` leads to a field of the schema.
fn leads_to_a_field(schema: &Value, path: &str) -> bool {
    let mut place = schema;
    for part in path.split('.') {
        place = &place["properties"][part.trim_end_matches("[]")];
        if !place["items"].is_null() {
            place = &place["items"];
        }
    }
    !place.is_null()
}

fn wrong_fields(page: &Page) -> Vec<String> {
    if page.path == "CHANGELOG.md" {
        return Vec::new();
    }
    let schemas = ["HealingPolicy", "Remediation"].map(|kind| schema(kind).unwrap());
    let policy_spec = schemas[0]["properties"]["spec"]["properties"].as_object().unwrap();
    let path = Regex::new(r"^\.?([a-z][A-Za-z]*(?:\[\])?(?:\.[a-z][A-Za-z]*(?:\[\])?)+)(?::.*)?$").unwrap();
    let is_wrong = |path: &str| {
        let top = path.split(['.', '[']).next().unwrap_or_default();
        let of_policy = policy_spec.contains_key(top);
        let full = if of_policy { format!("spec.{path}") } else { path.to_owned() };
        (of_policy || matches!(top, "spec" | "status"))
            && !FOREIGN_FIELDS.contains(&path)
            && !schemas.iter().any(|schema| leads_to_a_field(schema, &full))
    };
    let spans = page.spans().into_iter();
    spans
        .filter_map(|(line, span)| Some((line, path.captures(&span)?[1].to_owned())))
        .filter(|(_, path)| is_wrong(path))
        .map(|(line, path)| at(&page.path, line, format!("no field {path} in the CRDs")))
        .collect()
}

#[test]
fn every_field_exists() {
    check(wrong_fields);
    let page = "`safety.maxUnhealthy`, `spec.plan.foreseen`\n`safety.maxUnwell: 1`\n`status.components[].kept`";
    assert_eq!(
        wrong_in(page, wrong_fields),
        [
            "page.md:2: no field safety.maxUnwell in the CRDs",
            "page.md:3: no field status.components[].kept in the CRDs"
        ]
    );
}

/// The anchor that GitHub gives a heading.
fn slug(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &Page) -> BTreeSet<String> {
    let headings = page.prose().into_iter().filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| slug(line.trim_start_matches('#'))).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let code = Regex::new("`[^`]*`").unwrap();
    let all = pages();
    let anchors: BTreeMap<String, BTreeSet<String>> =
        all.iter().map(|page| (page.path.clone(), anchors(page))).collect();
    let wrong = all.iter().flat_map(|page| {
        let links = page.prose().into_iter().flat_map(|(line, text)| {
            link.captures_iter(&code.replace_all(text, "``"))
                .map(move |found| (line, found[1].to_owned()))
                .collect::<Vec<_>>()
        });
        let anchors = &anchors;
        links.filter_map(move |(line, link)| {
            if link.starts_with("http://") || link.starts_with("https://") {
                return None;
            }
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let mut path = if file.is_empty() {
                root().join(&page.path)
            } else {
                root().join(&page.path).parent().unwrap().join(file)
            };
            if path.exists() {
                path = path.canonicalize().unwrap();
            } else {
                return Some(at(&page.path, line, format!("{link} does not exist")));
            }
            let path = path.strip_prefix(root().canonicalize().unwrap()).unwrap().to_str().unwrap().to_owned();
            let anchor = anchor?;
            let known = anchors.get(&path).is_some_and(|anchors| anchors.contains(anchor));
            (!known).then(|| at(&page.path, line, format!("{path} has no heading for #{anchor}")))
        })
    });
    nothing_wrong(&wrong.collect::<Vec<_>>());
    assert_eq!(slug(" Job, Webhook and `Mcp`"), "job-webhook-and-mcp");
}

#[test]
fn every_page_is_in_the_index() {
    let readme = source("README.md");
    let pages = pages();
    let missing =
        pages.iter().filter(|page| page.path.starts_with("docs/") && !readme.contains(&format!("({})", page.path)));
    let missing: Vec<&str> = missing.map(|page| page.path.as_str()).collect();
    assert!(missing.is_empty(), "README.md has no link to {missing:?}");
}
