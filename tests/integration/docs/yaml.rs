//! Every YAML block is valid, and names only fields that exist.

use panacea::api::{HealingPolicy, Remediation, ValidPolicy, default_thresholds};
use serde_json::Value;

use super::{
    at, nothing_wrong,
    pages::{Block, Page, objects, pages, yaml_blocks},
    schema,
};

/// The paths of all fields in `value` that the schema does not have.
fn unknown_fields(value: &Value, schema: &Value, path: &str) -> Vec<String> {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return Vec::new();
    }
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| {
                let path = format!("{path}.{key}");
                match (schema["properties"].get(key), schema.get("additionalProperties")) {
                    (Some(schema), _) | (None, Some(schema)) => unknown_fields(value, schema, &path),
                    (None, None) => vec![path],
                }
            })
            .collect(),
        Value::Array(items) => {
            items.iter().flat_map(|item| unknown_fields(item, &schema["items"], &format!("{path}[]"))).collect()
        }
        _ => Vec::new(),
    }
}

/// What is wrong with one object.
fn mistakes(text: &str) -> Vec<String> {
    let value: Value = match serde_saphyr::from_str(text) {
        Ok(value) => value,
        Err(why) => return vec![why.to_string()],
    };
    let kind = value["kind"].as_str().unwrap_or_default();
    let Some(schema) = schema(kind) else { return Vec::new() };
    let Value::Object(mut fields) = value.clone() else { return vec!["not an object".to_owned()] };
    fields.retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
    let unknown = unknown_fields(&Value::Object(fields), schema, "");
    if !unknown.is_empty() {
        return unknown
            .into_iter()
            .map(|path| format!("{kind} has no field {}", path.trim_start_matches('.')))
            .collect();
    }
    if kind == "Remediation" {
        return serde_json::from_value::<Remediation>(value).err().map(|why| why.to_string()).into_iter().collect();
    }
    let policy: HealingPolicy = match serde_saphyr::from_str(text) {
        Ok(policy) => policy,
        Err(why) => return vec![why.to_string()],
    };
    let invalid = match ValidPolicy::new(&policy, &default_thresholds()) {
        Ok(valid) => valid.invalid,
        Err(invalid) => invalid,
    };
    invalid.into_iter().map(|invalid| invalid.message).collect()
}

/// The line of the block that names the field, or else its first one.
fn line(block: &Block<'_>, mistake: &str) -> usize {
    let field = mistake.rsplit(['.', ' ']).next().unwrap_or_default();
    let named = |line: &str| line.contains(&format!("{field}:"));
    block.line + block.text.lines().position(named).unwrap_or_default()
}

fn wrong(page: &Page) -> Vec<String> {
    let mut wrong = Vec::new();
    for block in yaml_blocks(page) {
        for object in objects(page, &block) {
            wrong.extend(mistakes(&object).into_iter().map(|mistake| at(&page.path, line(&block, &mistake), mistake)));
        }
    }
    wrong
}

#[test]
fn every_yaml_block_is_valid() {
    let pages = pages();
    let blocks: usize = pages.iter().map(|page| yaml_blocks(page).len()).sum();
    assert!(blocks >= 15, "only {blocks} blocks are found");
    nothing_wrong(&pages.iter().flat_map(wrong).collect::<Vec<_>>());
}

#[test]
fn an_unknown_field_and_a_wrong_value_are_reported_with_their_line() {
    let page = |text: &str| Page { path: "page.md".to_owned(), text: text.to_owned() };
    let renamed = page("text\n\n```yaml\nspec:\n  safety:\n    maxUnwell: 1\n```\n");
    assert_eq!(wrong(&renamed), ["page.md:6: HealingPolicy has no field spec.safety.maxUnwell"]);
    let value = page("```yaml\ncomponents:\n  - {name: a, target: {http: {url: \"ftp://a\"}}}\n```\n");
    let [one] = wrong(&value).try_into().unwrap();
    assert!(one.starts_with("page.md:") && one.contains("target.http.url"), "{one}");
}
