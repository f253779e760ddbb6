//! The arguments of the tools. A name is validated before it becomes part of a path of the API server.

use schemars::JsonSchema;
use serde::Deserialize;

use super::cluster::Trouble;
use crate::api::{HealthStatus, Phase};

/// The longest list.
pub(super) const MOST: u32 = 200;
/// The limit of a call that names none.
const USUAL: u32 = 50;

pub(super) fn limit(asked: Option<u32>) -> Result<usize, Trouble> {
    match asked.unwrap_or(USUAL) {
        limit @ 1..=MOST => Ok(limit as usize),
        other => Err(Trouble(format!("limit is {other}; it must be from 1 to {MOST}"))),
    }
}

/// The text, if it can be the name of an object (an RFC 1123 subdomain, as in Kubernetes).
pub(super) fn name<'a>(field: &str, text: &'a str) -> Result<&'a str, Trouble> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if text.len() <= 253 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last()) {
        return Ok(text);
    }
    let shown: String = text.chars().take(60).collect();
    Err(Trouble(format!(
        "{field} {shown:?} cannot be a name in Kubernetes: lower case letters, digits, - and ., at most 253 characters, not - or . at an end"
    )))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListComponents {
    /// The namespace of the policies. Left out: the server's default namespace.
    pub namespace: Option<String>,
    /// Policies of all namespaces. Default false.
    #[serde(default)]
    pub all_namespaces: bool,
    /// Only this HealingPolicy's.
    pub policy: Option<String>,
    /// Only components with this status.
    pub status: Option<HealthStatus>,
    /// The longest list, from 1 to 200 entries. Default 50.
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OfPolicy {
    /// The policy's namespace. Left out: the server's default namespace.
    pub namespace: Option<String>,
    /// Name of the HealingPolicy.
    pub policy: String,
    /// Only this component. Left out: all of the policy.
    pub component: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListRemediations {
    /// The namespace of the Remediations. Left out: the server's default namespace.
    pub namespace: Option<String>,
    /// Remediations of all namespaces. Default false.
    #[serde(default)]
    pub all_namespaces: bool,
    /// Only Remediations of this HealingPolicy.
    pub policy: Option<String>,
    /// Only Remediations of this component.
    pub component: Option<String>,
    /// Only Remediations in this phase; AwaitingApproval waits for a person.
    pub phase: Option<Phase>,
    /// Only Remediations that have not ended. Default false.
    #[serde(default)]
    pub open: bool,
    /// The longest list, of the newest, from 1 to 200 entries. Default 50.
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OfRemediation {
    /// The Remediation's namespace. Left out: the server's default namespace.
    pub namespace: Option<String>,
    /// Name of the Remediation.
    pub remediation: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Decide {
    /// The Remediation's namespace. Left out: the server's default namespace.
    pub namespace: Option<String>,
    /// Name of the Remediation.
    pub remediation: String,
    /// The plan in the result of explain_remediation: the decision is only about the shown action.
    pub plan: String,
    /// The person's reason, for the record; at most 1024 characters.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_could_change_the_path_is_no_name() {
        for good in ["shop", "shop-api-1a2b-0", "a.b"] {
            assert_eq!(name("policy", good).unwrap(), good);
        }
        for bad in ["", "../secrets/key", "a/b", "Shop", "-a", "a.", "a?x=1", "a%2fb", &"a".repeat(254)] {
            let Trouble(why) = name("policy", bad).unwrap_err();
            assert!(why.starts_with("policy ") && why.contains("cannot be a name"), "{why}");
        }
    }

    #[test]
    fn a_limit_is_in_its_range() {
        assert_eq!((limit(None).unwrap(), limit(Some(1)).unwrap(), limit(Some(200)).unwrap()), (50, 1, 200));
        for bad in [0, 201] {
            assert!(limit(Some(bad)).unwrap_err().0.contains("from 1 to 200"));
        }
    }
}
