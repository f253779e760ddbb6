//! docs/ledger.md documents everything that the ledger holds.

use std::collections::BTreeSet;

use panacea::{
    api::{ActionKind, Cause, Outcome, Phase},
    knowledge::{
        ActionType, Agent, Dialect,
        queries::{
            ACCURACY_BY_DAY, ACTIONS_LAST_DAY, INTERVENTIONS_BY_COMPONENT, REMEDIES_BY_CAUSE, SUCCESS_BY_ACTION,
        },
        views::{VIEWS, ddl},
    },
};
use serde_json::Value;
use strum::IntoEnumIterator as _;

const PAGE: &str = include_str!("../../docs/ledger.md");
/// What writes the JSON of rows, but for their metadata.
const ROWS: &str = include_str!("../../src/controller/rows.rs");
const API: &str = include_str!("../../src/api/policy_status.rs");

#[track_caller]
fn names(name: &str, what: &str) {
    assert!(PAGE.contains(&format!("`{name}`")), "docs/ledger.md does not name the {what} `{name}`");
}

/// The keys that a source writes into JSON: `"key":` in `json!`, and `output["key"] =`.
fn written_keys(source: &str) -> BTreeSet<&str> {
    let mut keys = BTreeSet::new();
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    for (place, _) in code.match_indices('"') {
        let rest = &code[place + 1..];
        let Some((key, after)) = rest.split_once('"') else { continue };
        let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let in_brackets = code[..place].ends_with('[') && after.starts_with("] =");
        if is_key && (after.starts_with(": ") || after.starts_with(":\n") || in_brackets) {
            keys.insert(key);
        }
    }
    keys
}

#[test]
fn every_kind_of_row_and_every_key_is_on_the_page() {
    ActionType::iter().for_each(|action| names(action.as_str(), "action type"));
    Agent::iter().for_each(|agent| names(agent.as_str(), "agent"));
    Outcome::iter().for_each(|outcome| names(&outcome.to_string(), "outcome"));
    ActionKind::iter().for_each(|action| names(&action.to_string(), "action"));
    Cause::iter().for_each(|cause| names(&cause.to_string(), "cause"));
    // Only these phases end a started action.
    [Phase::Succeeded, Phase::Ineffective, Phase::Failed].iter().for_each(|end| names(&end.to_string(), "end"));
    let keys = written_keys(ROWS);
    for known in ["status", "failure_probability", "leak", "cause", "foreseen", "freed_mb", "deploy", "outcome"] {
        assert!(keys.contains(known), "the reader of sources does not find {known}: {keys:?}");
    }
    assert!(keys.len() > 55, "{keys:?}");
    keys.into_iter().for_each(|key| names(key, "key"));
    // Of a warning, which a row holds in the form of the status.
    let foreseen = API.split("pub struct Foreseen {").nth(1).unwrap().split("\n}").next().unwrap();
    for field in foreseen.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':')) {
        let mut words = field.0.split('_');
        let first = words.next().unwrap().to_owned();
        let camel = words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..]);
        names(&camel, "key of a warning");
    }
}

#[test]
fn every_column_index_and_view_is_on_the_page() {
    let schema = ddl(Dialect::Postgres);
    let tables = schema.split(";\n").filter(|statement| statement.trim().starts_with("CREATE TABLE"));
    let columns =
        tables.flat_map(|table| table.trim().lines().skip(1)).filter_map(|line| line.split_whitespace().next());
    let columns: BTreeSet<&str> = columns.filter(|name| *name != ")").collect();
    assert!(columns.len() > 20, "{columns:?}");
    columns.into_iter().for_each(|column| names(column, "column"));
    for dialect in [Dialect::Postgres, Dialect::Sqlite] {
        for index in ddl(dialect).split("CREATE INDEX IF NOT EXISTS ").skip(1) {
            names(index.split_whitespace().next().unwrap(), "index");
        }
    }
    VIEWS.iter().for_each(|(view, _)| names(view, "view"));
}

/// The tests of the ledger run these queries on both databases.
#[test]
fn it_holds_the_queries_as_they_are() {
    for query in [ACTIONS_LAST_DAY, INTERVENTIONS_BY_COMPONENT, SUCCESS_BY_ACTION, REMEDIES_BY_CAUSE, ACCURACY_BY_DAY] {
        for text in [query.postgres, query.sqlite] {
            assert!(
                PAGE.contains(&format!("```sql\n{text};\n```")),
                "docs/ledger.md lacks, or has another version of:\n{text}"
            );
        }
    }
}

#[test]
fn it_has_an_example_of_every_kind() {
    let examples: Vec<Value> = PAGE
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| serde_json::from_str(rest.split("\n```").next()?).ok())
        .collect();
    for action in ActionType::iter() {
        let example = examples.iter().find(|example| example["action_type"] == action.as_str());
        let example = example.unwrap_or_else(|| panic!("docs/ledger.md has no example of {action}"));
        assert_eq!(example["agent_name"], action.agent().as_str(), "{example}");
        for column in ["id", "input_data", "output_data", "success", "metadata", "executed_at"] {
            assert!(example.get(column).is_some(), "{action} has no {column}");
        }
    }
    for (table, column) in [("ai_proactive_health", "health_score"), ("ai_rollback_history", "rollback_type")] {
        assert!(
            examples.iter().any(|example| example.get(column).is_some()),
            "docs/ledger.md has no example of {table}"
        );
    }
}
