use std::collections::BTreeMap;

use kube::CustomResource;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AllowedMcpTool, GitOps, HealingPolicyStatus, IntOrPercent, Remedy, Span, TargetSpec};

mod defaults;

/// The components to watch, how their health is measured, and which remedies may be applied.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "panacea.dev",
    version = "v1alpha1",
    kind = "HealingPolicy",
    plural = "healingpolicies",
    singular = "healingpolicy",
    shortname = "hp",
    category = "panacea",
    namespaced,
    status = "HealingPolicyStatus",
    derive = "PartialEq",
    doc = "A HealingPolicy declares components, how their health is measured, and which remedies may be applied to them.",
    validation = ("self.metadata.name.size() <= 63", "metadata.name must be at most 63 characters: it becomes a label of the policy's Remediations"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "The policy is valid and every component can be checked"),
    printcolumn(name = "Healthy", type_ = "string", json_path = ".status.summary.healthy", description = "Healthy components of all components"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.summary.worst", description = "The worst status of any component"),
    printcolumn(name = "Doing", type_ = "string", json_path = ".status.summary.doing", description = "The current activity of Panacea"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Risk", type_ = "string", json_path = ".status.summary.risk", description = "The highest forecast probability of failure of any component, if above 10%"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Healthy')].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct HealingPolicySpec {
    /// Time between two checks of a component. A change of a workload triggers a check at once. From 1s to 1h. Default
    /// 60s.
    #[serde(default = "defaults::interval")]
    #[x_kube(validation = ("duration(self) >= duration('1s') && duration(self) <= duration('1h')", "interval must be from 1s to 1h"))]
    pub interval: Span,

    /// Observe: check and report, never act. Approve: every action waits for a person's approval. Auto: act within the
    /// safety limits; a remedy may still require approval. Default Auto.
    #[serde(default)]
    pub mode: Mode,

    /// True: health checks are paused and no new action starts; running actions are still verified and recorded. Default
    /// false.
    #[serde(default)]
    pub suspend: bool,

    /// The components to watch: 1 to 200, with unique names.
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".to_string()]))]
    pub components: Vec<Component>,

    /// When a component is confirmed as unhealthy, and as healthy again.
    #[serde(default)]
    pub detection: Detection,

    /// More frequent checks after a template change, to detect a bad release while it is still rolling out.
    #[serde(default)]
    pub release_watch: ReleaseWatch,

    /// Forecasts of failures.
    #[serde(default)]
    pub prediction: Prediction,

    /// Limits for every action.
    #[serde(default)]
    pub safety: Safety,

    /// How long an action waits for approval, and what happens after that time.
    #[serde(default)]
    pub approval: ApprovalPolicy,

    /// When an action counts as a success.
    #[serde(default)]
    pub verification: Verification,
}

/// Which actions Panacea may perform.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, strum::Display)]
pub enum Mode {
    /// Check and report; never act.
    Observe,
    /// Act after a person's approval.
    Approve,
    /// Act within the safety limits.
    #[default]
    Auto,
}

/// One component to watch.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!has(self.thresholds) || self.thresholds.all(k, k != 'error_rate' || self.thresholds[k].critical <= 1.0)", "error_rate is a ratio from 0 to 1; for 5% write 0.05"),
    validation = ("!has(self.thresholds) || self.thresholds.all(k, !(k in ['cpu_usage', 'memory_usage']) || self.thresholds[k].critical <= 100.0)", "cpu_usage and memory_usage are percentages from 0 to 100"),
    validation = ("!has(self.thresholds) || self.thresholds.all(k, !(k in ['cpu_usage', 'memory_usage', 'error_rate', 'latency_ms']) || self.thresholds[k].warning >= 0.0)", "cpu_usage, memory_usage, error_rate and latency_ms are never negative, so a negative threshold would always be exceeded")
)]
pub struct Component {
    /// Unique in the policy. Lower-case letters, digits and dashes, at most 40 characters.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// The object or service to watch.
    pub target: TargetSpec,

    /// Metrics to measure in addition to those of the target. At most 20, with unique names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".to_string()]))]
    pub metrics: Vec<Metric>,

    /// Thresholds by metric name. The defaults of cpu_usage and memory_usage apply only where `metrics` declares them; values
    /// from metrics.k8s.io are assessed only with a threshold in this field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 24))]
    pub thresholds: BTreeMap<String, Threshold>,

    /// The ladder: remedies tried in order, each at most once per incident. An empty list: no remedy. Snapshots of the
    /// environment variables of a render target are stored only where RollbackConfig or RollbackState is listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    pub remedies: Option<Vec<Remedy>>,
}

/// A value measured at every check.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// cpu_usage (%), memory_usage (%), error_rate (0..1), latency_ms (ms), or a custom name that has an entry in
    /// thresholds. A higher value is worse.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub name: String,
    /// A PromQL query.
    pub prometheus: PrometheusQuery,
    /// The value at which the component fails, in the unit of the metric: the size of a disk, the connections of a pool, a
    /// quota. Forecasts predict when the metric reaches it. Above 0. Default: 100 for cpu_usage and memory_usage, none for
    /// others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1e300))]
    #[x_kube(validation = ("self > 0.0", "limit must be above 0"))]
    pub limit: Option<f64>,
}

/// A PromQL query that returns one sample.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusQuery {
    /// An instant query that returns one sample. `$(namespace)`, `$(name)` and `$(pods)` are replaced. `$(pods)` is a
    /// regular expression for the component's pods. While a release of a Deployment or Rollout is watched, it matches only
    /// the pods of the newest template, which separates a bad release from the old pods. The pod names of a StatefulSet or
    /// DaemonSet do not show the template, so there it always matches all pods.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = (r"self.matches('\\S')", "query must not be blank"))]
    pub query: String,
    /// URL of the Prometheus server. Default: the operator's --prometheus-url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512))]
    #[x_kube(validation = ("self.startsWith('http://') || self.startsWith('https://')", "url must start with http:// or https://"))]
    #[x_kube(validation = ("!self.matches('^[^/]*//[^/?#]*@')", "url must not hold credentials: everyone who can read the policy would see them"))]
    pub url: Option<String>,
}

/// Limits of a metric.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq)]
#[x_kube(validation = ("self.warning < self.critical", "warning must be below critical"))]
pub struct Threshold {
    /// Above this value the component is Degraded. In the unit of the metric.
    pub warning: f64,
    /// Above this value the component is Unhealthy. In the unit of the metric.
    pub critical: f64,
}

/// When a component is confirmed as unhealthy, and as healthy again.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Detection {
    /// Consecutive bad checks before Panacea acts. From 1 to 20. Default 2.
    #[schemars(range(min = 1, max = 20))]
    pub unhealthy_after: u32,
    /// Consecutive good checks before the component is healthy again. From 1 to 20. Default 2.
    #[schemars(range(min = 1, max = 20))]
    pub healthy_after: u32,
    /// Time from a first bad check to the next check. Should not be shorter than the scrape interval of the metrics. From
    /// 100ms to 10m. Default 2s.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('100ms') && duration(self) <= duration('10m')", "confirmAfter must be from 100ms to 10m")))]
    pub confirm_after: Span,
}

/// More frequent checks after a template change.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ReleaseWatch {
    /// Time between two checks. From 1s to 1m. Default 1s.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('1s') && duration(self) <= duration('1m')", "every must be from 1s to 1m")))]
    pub every: Span,
    /// The longest time after the change. When a component becomes unhealthy within this time, its release is the cause.
    /// From 10s to 1h. Default 5m.
    #[serde(rename = "for")]
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('10s') && duration(self) <= duration('1h')", "for must be from 10s to 1h")))]
    pub length: Span,
}

/// Forecasts of failures. Panacea acts on a forecast alone when a metric will reach its limit within `horizon` with at least
/// `minProbability`, in `detection.unhealthyAfter` consecutive forecasts. It then applies remedies for Exhaustion before the
/// failure, within every limit of `safety`.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Prediction {
    /// Whether failures are forecast, shown and prevented. Default true.
    pub enabled: bool,
    /// Panacea acts on a failure that is forecast within this time. It is also the shortest time between two such actions.
    /// From 10m to 24h. Default 1h.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('10m') && duration(self) <= duration('24h')", "horizon must be from 10m to 24h")))]
    pub horizon: Span,
    /// The lowest probability of a failure at which Panacea acts. 1: it never acts on a forecast. From 0.05 to 1. Default
    /// 0.5.
    #[schemars(range(min = 0.05, max = 1.0))]
    pub min_probability: f64,
}

/// Limits for every action.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Safety {
    /// When more components than this are unhealthy at once, Panacea does not act and calls a person. A count from 0 to 200,
    /// or a percentage of all components, rounded up. Default 50%.
    #[schemars(schema_with = "super::percent::int_or_percent")]
    #[schemars(extend("x-kubernetes-validations" = cel("type(self) == int ? (self >= 0 && self <= 200) : self.matches('^(100|[0-9]{1,2})%$')", "maxUnhealthy must be a count from 0 to 200 or a percentage such as 50%")))]
    pub max_unhealthy: IntOrPercent,
    /// The most actions of this policy that run at the same time. From 1 to 50. Default 1.
    #[schemars(range(min = 1, max = 50))]
    pub max_concurrent: u32,
    /// The most actions of this policy that start within a window of time.
    pub budget: Budget,
    /// Shortest time between the starts of two actions on the same component. From 0s to 24h. Default 5m.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('0s') && duration(self) <= duration('24h')", "cooldown must be from 0s to 24h")))]
    pub cooldown: Span,
    /// Pauses actions on a component whose actions keep failing.
    pub circuit_breaker: CircuitBreaker,
    /// A template that has not run for longer than this is no rollback target. From 1h to 2160h (90 days). Default 168h.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('1h') && duration(self) <= duration('2160h')", "maxRollbackAge must be from 1h to 2160h")))]
    pub max_rollback_age: Span,
    /// What happens when a Flux or Argo CD object would revert a rollback. Refuse: no rollback; a person is called. Suspend:
    /// that object is suspended before the rollback, and resumed when its source has a newer revision or a person resumes it.
    /// Default Refuse.
    pub git_ops: GitOps,
    /// The tools of MCP servers that remedies of this policy may call. At most 20. Default: none.
    #[schemars(length(max = 20))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_mcp_tools: Vec<AllowedMcpTool>,
}

/// The most actions that start within a window of time.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Budget {
    /// Number of actions. From 1 to 1000. Default 3.
    #[schemars(range(min = 1, max = 1000))]
    pub actions: u32,
    /// Length of the window. From 1m to 24h. Default 1h.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('1m') && duration(self) <= duration('24h')", "window must be from 1m to 24h")))]
    pub window: Span,
}

/// Pauses actions on a component whose actions keep failing.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct CircuitBreaker {
    /// Consecutive actions without success that open the breaker. From 1 to 100. Default 5.
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u32,
    /// How long the breaker stays open; then one action is allowed. From 1s to 24h. Default 60s.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('1s') && duration(self) <= duration('24h')", "recoveryTimeout must be from 1s to 24h")))]
    pub recovery_timeout: Span,
}

/// How long an action waits for approval, and what happens after that time.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ApprovalPolicy {
    /// How long an action waits for a decision. From 1s to 168h (7 days). Default 30m.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('1s') && duration(self) <= duration('168h')", "timeout must be from 1s to 168h")))]
    pub timeout: Span,
    /// What happens after that time. Reject: the action expires. Approve: the action continues. Default Reject.
    pub on_timeout: OnTimeout,
}

/// What happens without a decision within the time limit.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnTimeout {
    /// The Remediation ends as Expired; no action is performed.
    #[default]
    Reject,
    /// The action continues as if it had been approved.
    Approve,
}

/// When an action counts as a success.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = cel("duration(self.timeout) > duration(self.stabilization)", "timeout must be longer than stabilization")))]
pub struct Verification {
    /// How long the component must be healthy without interruption. From 0s to 1h. Default 2m.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('0s') && duration(self) <= duration('1h')", "stabilization must be from 0s to 1h")))]
    pub stabilization: Span,
    /// Time limit for success, counted from the action; after it the action is Ineffective. Must be longer than
    /// stabilization. From 2s to 6h. Default 10m.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('2s') && duration(self) <= duration('6h')", "timeout must be from 2s to 6h")))]
    pub timeout: Span,
}

/// One CEL rule, for structs with a default on the container, which `KubeSchema` cannot express.
fn cel(rule: &str, message: &str) -> serde_json::Value {
    serde_json::json!([{"rule": rule, "message": message}])
}
