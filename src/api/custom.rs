//! Remedies of a team's own: a Job that is run, a webhook that is called.

use k8s_openapi::api::batch::v1::JobTemplateSpec;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Span;

/// A Job that heals: run in the policy's namespace, once a Remediation. It has succeeded when Kubernetes says that it is
/// Complete, and whether that has helped is told by the component's health.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.template) != has(self.templateRef)", "a job needs exactly one of template and templateRef"))]
pub struct JobRemedy {
    /// The Job, as `spec.jobTemplate` of a CronJob: `{metadata: {labels, annotations}, spec: {…}}`. Every container gets what
    /// is known as environment variables, unless it sets them itself: PANACEA_NAMESPACE, PANACEA_POLICY,
    /// PANACEA_COMPONENT, PANACEA_TARGET_KIND, PANACEA_TARGET_NAME, PANACEA_CAUSE, PANACEA_WHY, PANACEA_EPISODE,
    /// PANACEA_REMEDIATION, PANACEA_REMEDIATION_UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<JobTemplate>,
    /// A ConfigMap of the policy's namespace that holds the Job, as YAML; read when the Job is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<KeyRef>,
    /// How long it may take, from its start; then Kubernetes stops its pods (`activeDeadlineSeconds`, if the template has no
    /// shorter one). From 1s to 6h. Default 10m.
    #[serde(default = "ten_minutes")]
    #[x_kube(validation = ("duration(self) >= duration('1s') && duration(self) <= duration('6h')", "deadline must be from 1s to 6h"))]
    pub deadline: Span,
}

/// A Job's metadata and spec, kept as they were written.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(transparent)]
pub struct JobTemplate(pub Value);

impl JsonSchema for JobTemplate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "JobTemplate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    }
}

impl JobTemplate {
    /// The Job that it stands for.
    ///
    /// # Errors
    /// What is wrong, and where, when it is no Job template, or has a field that Kubernetes does not know.
    pub fn parse(&self) -> Result<JobTemplateSpec, String> {
        let typed: JobTemplateSpec = serde_path_to_error::deserialize(&self.0)
            .map_err(|error| format!("{}: {}", error.path(), error.inner()))?;
        let Some(spec) = &typed.spec else { return Err("spec is missing".to_owned()) };
        if spec.suspend == Some(true) {
            return Err("spec.suspend is true: it would never start; take it out".to_owned());
        }
        let known = serde_json::to_value(&typed).map_err(|error| error.to_string())?;
        match unknown_field(&self.0, &known) {
            None => Ok(typed),
            Some(field) => Err(format!("{field} is no field of a Job; check the spelling")),
        }
    }
}

/// The first field of `written` that was lost when it was read as what it should be.
fn unknown_field(written: &Value, known: &Value) -> Option<String> {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            written.iter().find_map(|(key, value)| match known.get(key) {
                Some(known) => unknown_field(value, known).map(|rest| format!("{key}.{rest}")),
                // What is empty need not come back.
                None => (!is_empty(value) && !matches!(key.as_str(), "apiVersion" | "kind")).then(|| key.clone()),
            })
        }
        (Value::Array(written), Value::Array(known)) => {
            let pairs = written.iter().zip(known).enumerate();
            pairs
                .into_iter()
                .find_map(|(at, (one, known))| unknown_field(one, known).map(|rest| format!("{at}.{rest}")))
        }
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// A key of an object in the policy's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct KeyRef {
    /// metadata.name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// An HTTP endpoint that heals, or has somebody heal. It gets a POST with the facts as JSON. 200 to 299 but 202: it is done.
/// 202: it has begun; the answer's `Location`, on the same host, is asked by GET until it says 200 (done) or an error;
/// `Retry-After` in seconds is respected, from 1 to 30.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WebhookRemedy {
    /// http:// or https:// URL without credentials. Redirects are not followed. Every delivery carries the Remediation's uid
    /// as `Idempotency-Key`, and is made once more when the operator died before it could note the answer.
    #[schemars(length(min = 8, max = 2048))]
    #[x_kube(validation = ("self.startsWith('http://') || self.startsWith('https://')", "url must start with http:// or https://"))]
    #[x_kube(validation = ("!self.matches('^[^/]*//[^/?#]*@')", "url must not hold credentials: everyone who can read the policy would see them"))]
    pub url: String,
    /// A Secret of the policy's namespace whose key holds the secret that deliveries are signed with, as Standard Webhooks
    /// has it: `webhook-id`, `webhook-timestamp`, and `webhook-signature: v1,` with the HMAC-SHA256 of
    /// `ID.TIMESTAMP.BODY` in base64. A secret that begins with `whsec_` is base64 after that. Left out: not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyRef>,
    /// Time limit for one whole answer, from 100ms to 60s. Default 10s.
    #[serde(default = "ten_seconds")]
    #[x_kube(validation = ("duration(self) >= duration('100ms') && duration(self) <= duration('60s')", "timeout must be from 100ms to 60s"))]
    pub timeout: Span,
    /// How long it may take when it answers 202. From 1s to 6h. Default 10m.
    #[serde(default = "ten_minutes")]
    #[x_kube(validation = ("duration(self) >= duration('1s') && duration(self) <= duration('6h')", "deadline must be from 1s to 6h"))]
    pub deadline: Span,
}

fn ten_seconds() -> Span {
    "10s".into()
}

fn ten_minutes() -> Span {
    "10m".into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(patch: &Value) -> JobTemplate {
        let mut container = json!({"name": "fix", "image": "shop/fix:1", "resources": {}});
        container.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
        JobTemplate(json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}}))
    }

    #[test]
    fn a_template_is_read_strictly() {
        assert!(template(&json!({"env": [{"name": "A", "value": "b"}], "ports": []})).parse().is_ok());
        let why = template(&json!({"comand": ["sh"]})).parse().unwrap_err();
        assert_eq!(why, "spec.template.spec.containers.0.comand is no field of a Job; check the spelling");
        let why = template(&json!({"command": "sh"})).parse().unwrap_err();
        assert!(why.starts_with("spec.template.spec.containers[0].command: invalid type"), "{why}");
        assert_eq!(JobTemplate(json!({})).parse().unwrap_err(), "spec is missing");
        assert!(
            JobTemplate(json!({"spec": {"suspend": true, "template": {}}})).parse().unwrap_err().contains("suspend")
        );
        let whole =
            json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {"containers": []}}}});
        assert!(JobTemplate(whole).parse().is_ok(), "a whole Job will do");
    }
}
