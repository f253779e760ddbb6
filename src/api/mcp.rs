//! A custom remedy: one tool of an external server of the Model Context Protocol, called once.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{KeyRef, Span};

/// A tool of an MCP server that heals the component. It is called once per Remediation, and not again when its effect is
/// unknown: then, as after a success, the health of the component shows the outcome. A response with `isError`, or one that
/// requests input, is a failure.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct McpRemedy {
    /// URL of the server's streamable HTTP endpoint, without credentials: https://, or http:// on the operator's own host
    /// (localhost). Redirects are not followed.
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(validation = ("['https://', 'http://localhost:', 'http://localhost/', 'http://127.0.0.1:', 'http://127.0.0.1/', 'http://[::1]:', 'http://[::1]/'].exists(begin, self.startsWith(begin))", "url must start with https://, or be http:// on localhost, 127.0.0.1 or [::1]: unencrypted requests could be read and changed in transit"))]
    #[x_kube(validation = ("!self.matches('^[^/]*//[^/?#]*@')", "url must not hold credentials: everyone who can read the policy would see them; use tokenSecretRef"))]
    pub url: String,
    /// Name of the tool. The policy must allow it: safety.allowedMcpTools.
    #[schemars(length(min = 1, max = 128))]
    pub tool: String,
    /// Arguments of the tool, validated against its schema before the call. In every text these are replaced: $(namespace),
    /// $(policy), $(component), $(kind) and $(name) of the target, $(cause), $(why), $(episode), $(remediation), $(uid) of the
    /// Remediation. At most 16 KiB of JSON. Default: none.
    #[serde(default, skip_serializing_if = "McpArguments::is_empty")]
    #[schemars(schema_with = "super::custom::object_as_written")]
    pub arguments: McpArguments,
    /// A Secret in the policy's namespace whose key holds the token for `Authorization: Bearer`. Default: no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<KeyRef>,
    /// Time limit for the call. From 1s to 10m. Default 60s.
    #[serde(default = "a_minute")]
    #[x_kube(validation = ("duration(self) >= duration('1s') && duration(self) <= duration('10m')", "timeout must be from 1s to 10m"))]
    pub timeout: Span,
}

fn a_minute() -> Span {
    "60s".into()
}

/// A tool that a policy may call, of one server.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct AllowedMcpTool {
    /// URL of the server, exactly as in the remedy.
    #[schemars(length(min = 8, max = 1024))]
    pub url: String,
    /// Name of the tool.
    #[schemars(length(min = 1, max = 128))]
    pub tool: String,
}

/// The longest arguments as JSON, in bytes.
pub const MOST_MCP_ARGUMENTS: usize = 16 * 1024;

/// Arguments of a tool, unchanged as written.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(transparent)]
pub struct McpArguments(pub Map<String, Value>);

/// The placeholders in a tool's arguments.
pub const MCP_FACTS: [&str; 10] =
    ["namespace", "policy", "component", "kind", "name", "cause", "why", "episode", "remediation", "uid"];

impl McpArguments {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The arguments with every `$(FACT)` replaced. A replacement is not expanded again, and stays part of its text. The error
    /// names the first `$(…)` that is no fact.
    pub fn filled(&self, fact: &dyn Fn(&str) -> Option<String>) -> Result<Map<String, Value>, String> {
        self.0.iter().map(|(key, value)| Ok((key.clone(), fill(value, fact)?))).collect()
    }

    /// Refuses arguments that are too long, or have a `$(…)` that is no fact.
    pub fn check(&self) -> Result<(), String> {
        let length = serde_json::to_string(&self.0).map_or(usize::MAX, |text| text.len());
        if length > MOST_MCP_ARGUMENTS {
            return Err(format!("has {length} bytes; at most {MOST_MCP_ARGUMENTS} are allowed"));
        }
        self.filled(&|name| MCP_FACTS.contains(&name).then(String::new)).map(drop)
    }
}

fn fill(value: &Value, fact: &dyn Fn(&str) -> Option<String>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(fill_text(text, fact)?),
        Value::Array(items) => Value::Array(items.iter().map(|item| fill(item, fact)).collect::<Result<_, _>>()?),
        Value::Object(fields) => {
            let filled = fields.iter().map(|(key, value)| Ok((key.clone(), fill(value, fact)?)));
            Value::Object(filled.collect::<Result<_, String>>()?)
        }
        other => other.clone(),
    })
}

fn fill_text(text: &str, fact: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("$(") {
        filled.push_str(before);
        let Some((name, after)) = after.split_once(')') else {
            return Err("has a $( without its )".to_owned());
        };
        let value = fact(name)
            .ok_or_else(|| format!("has $({name}), which does not exist; use one of {}", MCP_FACTS.join(", ")))?;
        filled.push_str(&value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arguments(value: Value) -> McpArguments {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn facts_are_put_into_texts_and_what_is_put_in_is_left_alone() {
        let fact = |name: &str| match name {
            "component" => Some("api".to_owned()),
            "why" => Some(r#"it said "$(uid)"}"#.to_owned()),
            _ => None,
        };
        let written =
            arguments(json!({"a": ["$(component)-1", 7], "b": {"c": "$(why) of $(component)"}, "$(uid)": true}));
        let filled = Value::Object(written.filled(&fact).unwrap());
        assert_eq!(filled, json!({"a": ["api-1", 7], "b": {"c": r#"it said "$(uid)"} of api"#}, "$(uid)": true}));
    }

    #[test]
    fn what_is_no_fact_or_too_long_is_named() {
        for name in MCP_FACTS {
            arguments(json!({"a": format!("$({name})")})).check().unwrap();
        }
        let why = arguments(json!({"a": [{"b": "$(pods)"}]})).check().unwrap_err();
        assert!(why.contains("$(pods)") && why.contains("component"), "{why}");
        assert!(arguments(json!({"a": "$(uid"})).check().unwrap_err().contains("without its )"));
        let why = arguments(json!({"a": "x".repeat(MOST_MCP_ARGUMENTS)})).check().unwrap_err();
        assert!(why.contains("at most 16384"), "{why}");
    }
}
