//! What the tools take. A name is checked before it gets into a path of the API server.

use schemars::JsonSchema;
use serde::Deserialize;

use super::cluster::Trouble;
use crate::api::{HealthStatus, Phase};

/// As many entries a list has at most.
pub(super) const MOST: u32 = 200;
/// As many it has when a call does not say.
const USUAL: u32 = 50;

/// A limit that was asked for, or the usual one.
///
/// # Errors
/// When it is out of range.
pub(super) fn limit(asked: Option<u32>) -> Result<usize, Trouble> {
    match asked.unwrap_or(USUAL) {
        limit @ 1..=MOST => Ok(limit as usize),
        other => Err(Trouble(format!("limit is {other}; it must be from 1 to {MOST}"))),
    }
}

/// # Errors
/// When it cannot be the name of an object (RFC 1123, as Kubernetes has it).
pub(super) fn name<'a>(field: &str, text: &'a str) -> Result<&'a str, Trouble> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if text.len() <= 253 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last()) {
        return Ok(text);
    }
    let shown: String = text.chars().take(60).collect();
    Err(Trouble(format!(
        "{field} {shown:?} cannot be a name in Kubernetes: lower case letters, digits, - and ., at most 253, not - or . at an end"
    )))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListComponents {
    /// The namespace of the policies. Left out: the one that the server was started with.
    pub namespace: Option<String>,
    /// Policies of all namespaces. Default false.
    #[serde(default)]
    pub all_namespaces: bool,
    /// Only this HealingPolicy's.
    pub policy: Option<String>,
    /// Only those with this status.
    pub status: Option<HealthStatus>,
    /// At most so many, from 1 to 200. Default 50.
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OfPolicy {
    /// The policy's namespace. Left out: the one that the server was started with.
    pub namespace: Option<String>,
    /// Name of the HealingPolicy.
    pub policy: String,
    /// Only this component. Left out: all of the policy.
    pub component: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListRemediations {
    /// The namespace of the Remediations. Left out: the one that the server was started with.
    pub namespace: Option<String>,
    /// Those of all namespaces. Default false.
    #[serde(default)]
    pub all_namespaces: bool,
    /// Only those of this HealingPolicy.
    pub policy: Option<String>,
    /// Only those of this component.
    pub component: Option<String>,
    /// Only those in this phase; AwaitingApproval is what waits for a person.
    pub phase: Option<Phase>,
    /// Only those that have not ended. Default false.
    #[serde(default)]
    pub open: bool,
    /// At most so many, the newest, from 1 to 200. Default 50.
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OfRemediation {
    /// The Remediation's namespace. Left out: the one that the server was started with.
    pub namespace: Option<String>,
    /// Name of the Remediation.
    pub remediation: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Decide {
    /// The Remediation's namespace. Left out: the one that the server was started with.
    pub namespace: Option<String>,
    /// Name of the Remediation.
    pub remediation: String,
    /// The plan that explain_remediation gave: the decision is only about what the person was shown.
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
    fn what_could_lead_elsewhere_is_no_name() {
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
