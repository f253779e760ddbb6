//! Custom remedies: a Job to run, a webhook to call.

use k8s_openapi::api::batch::v1::JobTemplateSpec;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Span;

/// A Job that heals the component. It runs in the policy's namespace, once per Remediation, and succeeds when Kubernetes reports
/// it as Complete. The health of the component shows whether the Job helped.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.template) != has(self.templateRef)", "a job needs exactly one of template and templateRef"))]
pub struct JobRemedy {
    /// The Job, as `spec.jobTemplate` of a CronJob: `{metadata: {labels, annotations}, spec: {…}}`. Every container gets these
    /// environment variables, unless it sets them itself: PANACEA_NAMESPACE, PANACEA_POLICY,
    /// PANACEA_COMPONENT, PANACEA_TARGET_KIND, PANACEA_TARGET_NAME, PANACEA_CAUSE, PANACEA_WHY, PANACEA_EPISODE,
    /// PANACEA_REMEDIATION, PANACEA_REMEDIATION_UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "object_as_written", extend("nullable" = true))]
    pub template: Option<JobTemplate>,
    /// A ConfigMap in the policy's namespace that holds the Job as YAML. It is read when the Job is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<KeyRef>,
    /// Time limit of the Job, from its start. After it Kubernetes stops the pods (`activeDeadlineSeconds`, unless the template
    /// has a shorter one). From 1s to 6h. Default 10m.
    #[serde(default = "ten_minutes")]
    #[x_kube(validation = ("duration(self) >= duration('1s') && duration(self) <= duration('6h')", "deadline must be from 1s to 6h"))]
    pub deadline: Span,
}

/// Metadata and spec of a Job, unchanged as written.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(transparent)]
pub struct JobTemplate(pub Value);

/// Schema of an object that is stored unchanged.
pub(super) fn object_as_written(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

impl JobTemplate {
    /// The typed template. The error names the faulty field, also when Kubernetes does not know the field.
    pub fn parse(&self) -> Result<JobTemplateSpec, String> {
        let typed: JobTemplateSpec = serde_path_to_error::deserialize(&self.0)
            .map_err(|error| format!("{}: {}", error.path(), error.inner()))?;
        let Some(spec) = &typed.spec else { return Err("spec is missing".to_owned()) };
        if spec.suspend == Some(true) {
            return Err("spec.suspend is true, so the Job would never start; remove it".to_owned());
        }
        let known = serde_json::to_value(&typed).map_err(|error| error.to_string())?;
        match unknown_field(&self.0, &known) {
            None => Ok(typed),
            Some(field) => Err(format!("{field} is no field of a Job; check the spelling")),
        }
    }
}

/// The first field of `written` that is missing in `known`, the same value after a round trip through its type.
fn unknown_field(written: &Value, known: &Value) -> Option<String> {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            written.iter().find_map(|(key, value)| match known.get(key) {
                Some(known) => unknown_field(value, known).map(|rest| format!("{key}.{rest}")),
                // Empty values may be dropped.
                None => (!is_empty(value) && !matches!(key.as_str(), "apiVersion" | "kind")).then(|| key.clone()),
            })
        }
        (Value::Array(written), Value::Array(known)) => {
            let mut pairs = written.iter().zip(known).enumerate();
            pairs.find_map(|(at, (one, known))| unknown_field(one, known).map(|rest| format!("{at}.{rest}")))
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

/// A key of a ConfigMap or Secret in the policy's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct KeyRef {
    /// metadata.name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in `data`.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// An HTTP endpoint that heals the component. It receives a POST with the facts as JSON. A status from 200 to 299, except 202,
/// means success. 202 means started: the `Location` of the response, on the same host, is polled by GET until it returns 200
/// (success) or an error. `Retry-After` in seconds is respected, from 1 to 30.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WebhookRemedy {
    /// http:// or https:// URL without credentials. Redirects are not followed. Every delivery has the Remediation's uid as
    /// `Idempotency-Key`, and is repeated once when the operator ended before it stored the response.
    #[schemars(length(min = 8, max = 2048))]
    #[x_kube(validation = ("self.startsWith('http://') || self.startsWith('https://')", "url must start with http:// or https://"))]
    #[x_kube(validation = ("!self.matches('^[^/]*//[^/?#]*@')", "url must not hold credentials: everyone who can read the policy would see them"))]
    pub url: String,
    /// A Secret in the policy's namespace whose key holds the signing secret, as in Standard Webhooks: headers `webhook-id`,
    /// `webhook-timestamp`, and `webhook-signature: v1,` with the HMAC-SHA256 of `ID.TIMESTAMP.BODY` in base64. A secret with
    /// the prefix `whsec_` is base64 after the prefix. Default: deliveries are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyRef>,
    /// Time limit for one whole response. From 100ms to 60s. Default 10s.
    #[serde(default = "ten_seconds")]
    #[x_kube(validation = ("duration(self) >= duration('100ms') && duration(self) <= duration('60s')", "timeout must be from 100ms to 60s"))]
    pub timeout: Span,
    /// Time limit of the remedy after a 202. From 1s to 6h. Default 10m.
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
