//! A plain HTTP service as the target of a component.

use std::time::Duration;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::api::{
    ActionKind, Capabilities, Checker, Component, HealingPolicySpec, JsonPath, RemediationTarget, Span, TargetFacts,
    ValidTarget, ValidateTarget,
};

/// `spec.plan.target.kind` of a Remediation for an http target.
pub const HTTP_KIND: &str = "Http";

pub static SERVICE: Capabilities = Capabilities {
    field: "http",
    selector: "has(self.target.http)",
    selects: |target| target.http.is_some(),
    noun: "an http target",
    actions: &[],
    why_not: Some("the others need a target that can be acted on"),
    default_remedies: &[],
    metrics: &[],
    min_check_interval: Duration::ZERO,
};

/// A plain HTTP service, observed by one GET.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpTarget {
    /// http:// or https:// URL without credentials.
    #[schemars(length(min = 8, max = 2048))]
    #[x_kube(validation = ("self.startsWith('http://') || self.startsWith('https://')", "url must start with http:// or https://"))]
    #[x_kube(validation = ("!self.matches('^[^/]*//[^/?#]*@')", "url must not hold credentials: everyone who can read the policy would see them"))]
    pub url: String,

    /// Time limit for the whole response, from 100ms to 10s. Default 3s.
    #[serde(default = "default_timeout")]
    #[x_kube(validation = ("duration(self) >= duration('100ms') && duration(self) <= duration('10s')", "timeout must be from 100ms to 10s"))]
    pub timeout: Span,

    /// Status codes that count as healthy. Left out: 200 to 399.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(range(min = 100, max = 599)))]
    pub expected_statuses: Vec<u16>,

    /// A value that the JSON response must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<JsonCheck>,
}

fn default_timeout() -> Span {
    "3s".into()
}

/// A value that a JSON response must hold.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct JsonCheck {
    /// JSONPath (RFC 9535) of names and indexes, at most 32 of them: `$.status`, `$.parts[0]['last-seen']`, `$.parts[-1]`.
    #[schemars(length(min = 1, max = 256))]
    pub path: String,
    /// The expected value, as text: `ok`, `true`, `3`.
    #[schemars(length(max = 256))]
    pub equals: String,
}

/// A validated http target.
#[derive(Debug, Clone)]
pub struct HttpCheck {
    pub url: Url,
    pub timeout: Duration,
    /// Empty: 200 to 399.
    pub expected_statuses: Vec<u16>,
    /// JSONPath and the expected text of its one value.
    pub json: Option<(JsonPath, String)>,
}

impl ValidateTarget for HttpTarget {
    fn validate(&self, check: &mut Checker, _: &Component, _: &HealingPolicySpec) -> Option<ValidTarget> {
        let url = check.url("target.http.url", &self.url);
        let timeout = check.duration("target.http.timeout", &self.timeout, 100, 10_000);
        let json = self.json.as_ref().and_then(|json| match json.path.parse::<JsonPath>() {
            Ok(path) => Some((path, json.equals.clone())),
            Err(why) => {
                check.bad("target.http.json.path", why);
                None
            }
        });
        Some(ValidTarget::Http(Box::new(HttpCheck {
            url: url?,
            timeout: Duration::try_from(timeout).unwrap_or_default(),
            expected_statuses: self.expected_statuses.clone(),
            json,
        })))
    }
}

impl TargetFacts for HttpCheck {
    fn capabilities(&self) -> &'static Capabilities {
        &SERVICE
    }

    fn acted_on(&self, _: ActionKind, component: &str) -> RemediationTarget {
        RemediationTarget { kind: HTTP_KIND.to_owned(), name: component.to_owned() }
    }

    fn describe(&self) -> String {
        self.url.to_string()
    }
}
