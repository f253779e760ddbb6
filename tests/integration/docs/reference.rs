//! The reference: every field of a CRD with type, default, range and description.

use std::fmt::Write as _;

use serde_json::Value;

pub fn render(kind: &str) -> String {
    let schema = super::schema(kind).unwrap();
    let mut text = String::new();
    for part in ["spec", "status"] {
        object(&mut text, part, &schema["properties"][part]);
    }
    text
}

/// A section with the fields of an object, and then those of the objects in it.
fn object(text: &mut String, path: &str, schema: &Value) {
    let Some(fields) = schema["properties"].as_object() else { return };
    write!(text, "\n#### `{path}`\n\n{}\n\n", words(&schema["description"])).unwrap();
    rules(text, schema);
    text.push_str("| field | type | default | range | description |\n|---|---|---|---|---|\n");
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in fields {
        let default = match &field["default"] {
            Value::Null if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => String::new(),
            // The defaults of its fields are in its own section.
            Value::Object(_) if !field["properties"].is_null() => String::new(),
            default => format!("`{}`", default.as_str().map_or_else(|| default.to_string(), str::to_owned)),
        };
        let (kind, description) = (kind(field), words(&field["description"]));
        let range = range(field).replace(&format!("{name} must be "), "");
        writeln!(text, "| `{name}` | {kind} | {default} | {range} | {description} |").unwrap();
    }
    for (name, field) in fields {
        object(text, &format!("{path}.{name}"), field);
        object(text, &format!("{path}.{name}[]"), &field["items"]);
        object(text, &format!("{path}.{name}.NAME"), &field["additionalProperties"]);
    }
}

/// The rules of a whole object; those of a value are its range.
fn rules(text: &mut String, schema: &Value) {
    let messages: Vec<String> = messages(schema);
    if !messages.is_empty() {
        messages.iter().for_each(|message| writeln!(text, "- {message}").unwrap());
        text.push('\n');
    }
}

fn messages(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    rules.map(|rule| words(&rule["message"])).collect()
}

/// A text on one line, as a cell of a table takes it.
fn words(text: &Value) -> String {
    let text = text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace('|', "\\|").replace('<', "&lt;")
}

fn kind(schema: &Value) -> String {
    let kind = schema["type"].as_str().unwrap_or(if schema["x-kubernetes-int-or-string"] == true {
        "integer or string"
    } else {
        "any"
    });
    match kind {
        "array" => format!("list of {}", self::kind(&schema["items"])),
        "object" if !schema["additionalProperties"].is_null() => {
            format!("map of {}", self::kind(&schema["additionalProperties"]))
        }
        "string" if schema["format"] == "date-time" => "time".to_owned(),
        kind => kind.to_owned(),
    }
}

fn range(schema: &Value) -> String {
    let items = &schema["items"];
    let bounds = |least: &str, most: &str, unit: &str| match (&schema[least], &schema[most]) {
        (Value::Null, Value::Null) => None,
        (least, Value::Null) => Some(format!("at least {least}{unit}")),
        (Value::Null, most) => Some(format!("at most {most}{unit}")),
        (least, most) => Some(format!("{least} to {most}{unit}")),
    };
    let values = schema["enum"].as_array().or_else(|| items["enum"].as_array());
    let names = |values: &Vec<Value>| {
        values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
    };
    // A rule about a value says its whole range; its length and pattern only guard the parser.
    let mut parts = if schema["properties"].is_null() { messages(schema) } else { Vec::new() };
    if parts.is_empty() {
        parts.extend(values.map(names));
        parts.extend(bounds("minimum", "maximum", ""));
        parts.extend(bounds("minLength", "maxLength", " characters"));
        parts.extend(
            schema["pattern"]
                .as_str()
                .map(|pattern| format!("`{}`", pattern.replace('|', "\\|").replace('`', r"\x60"))),
        );
    }
    parts.extend(bounds("minItems", "maxItems", " entries"));
    parts.extend(bounds("minProperties", "maxProperties", " entries"));
    parts.join("; ")
}
