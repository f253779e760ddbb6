use std::collections::BTreeMap;

use kube::CustomResource;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AllowedMcpTool, GitOps, HealingPolicyStatus, IntOrPercent, Remedy, Span, TargetSpec};

mod defaults;

/// What to watch, how to measure it, and what may be done to it.
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
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "The policy is valid and every component can be looked at"),
    printcolumn(name = "Healthy", type_ = "string", json_path = ".status.summary.healthy", description = "Healthy components of all"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.summary.worst", description = "The worst status of any component"),
    printcolumn(name = "Doing", type_ = "string", json_path = ".status.summary.doing", description = "What Panacea is doing about it"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Risk", type_ = "string", json_path = ".status.summary.risk", description = "The highest forecast failure probability of any component, above 10%"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Healthy')].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct HealingPolicySpec {
    /// How often every component is looked at, even when nothing calls for it. Changes of a workload wake a look at
    /// once. From 1s to 1h. Default 60s.
    #[serde(default = "defaults::interval")]
    #[x_kube(validation = ("duration(self) >= duration('1s') && duration(self) <= duration('1h')", "interval must be from 1s to 1h"))]
    pub interval: Span,

    /// Observe: look and report, never act. Approve: every action waits for a person's approval. Auto: act within
    /// the safety limits; single remedies may still require approval. Default Auto.
    #[serde(default)]
    pub mode: Mode,

    /// True stops all looking and acting; what is running is still verified and recorded. Default false.
    #[serde(default)]
    pub suspend: bool,

    /// What is watched: 1 to 200 components with unique names.
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".to_string()]))]
    pub components: Vec<Component>,

    /// When a component counts as unhealthy, and as healthy again.
    #[serde(default)]
    pub detection: Detection,

    /// Closer looks after a template change, so that a bad release is caught while it is still rolling out.
    #[serde(default)]
    pub release_watch: ReleaseWatch,

    /// Forecasts of failures.
    #[serde(default)]
    pub prediction: Prediction,

    /// Limits that every action has to pass.
    #[serde(default)]
    pub safety: Safety,

    /// How long an action waits for a person, and what happens then.
    #[serde(default)]
    pub approval: ApprovalPolicy,

    /// When an action counts as a success.
    #[serde(default)]
    pub verification: Verification,
}

/// How much Panacea may do on its own.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, strum::Display)]
pub enum Mode {
    /// Look and report; never act.
    Observe,
    /// Act after a person approved.
    Approve,
    /// Act within the safety limits.
    #[default]
    Auto,
}

/// One thing that matters.
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

    /// What it is.
    pub target: TargetSpec,

    /// Metrics measured beside what the target tells by itself. At most 20, with unique names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".to_string()]))]
    pub metrics: Vec<Metric>,

    /// Thresholds by metric name. Those of cpu_usage and memory_usage count where metrics measures them; what comes from
    /// metrics.k8s.io unasked counts only with a threshold of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 24))]
    pub thresholds: BTreeMap<String, Threshold>,

    /// The ladder: remedies tried in order, each at most once an incident. An empty list: none. The environment variables
    /// of a render target are kept only where RollbackConfig or RollbackState is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    pub remedies: Option<Vec<Remedy>>,
}

/// A number measured at every look.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// cpu_usage (%), memory_usage (%), error_rate (0..1), latency_ms (ms), or a name of your own that has an entry
    /// in thresholds. More is worse.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub name: String,
    /// A PromQL query.
    pub prometheus: PrometheusQuery,
    /// The value at which it fails, in the metric's own unit: a disk's size, a pool's connections, a quota. When a
    /// forecast sees it reached, that is the failure that is foreseen. Above 0. Left out: 100 for cpu_usage and
    /// memory_usage, none for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1e300))]
    #[x_kube(validation = ("self > 0.0", "limit must be above 0"))]
    pub limit: Option<f64>,
}

/// A PromQL query with one sample as its answer.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusQuery {
    /// An instant query that yields one sample. `$(namespace)`, `$(name)` and `$(pods)` are replaced: `$(pods)` is a
    /// regular expression of the component's pods, narrowed to those of a Deployment's or Rollout's newest template while
    /// a release is watched, so that a bad release is told apart from the old pods beside it. The names of a
    /// StatefulSet's or DaemonSet's pods do not tell their template: there it always means all of them.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = (r"self.matches('\\S')", "query must not be blank"))]
    pub query: String,
    /// The Prometheus to ask. Left out: the operator's own (--prometheus-url).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512))]
    #[x_kube(validation = ("self.startsWith('http://') || self.startsWith('https://')", "url must start with http:// or https://"))]
    #[x_kube(validation = ("!self.matches('^[^/]*//[^/?#]*@')", "url must not hold credentials: everyone who can read the policy would see them"))]
    pub url: Option<String>,
}

/// From which value on a metric counts against its component.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq)]
#[x_kube(validation = ("self.warning < self.critical", "warning must be below critical"))]
pub struct Threshold {
    /// Above it the component is Degraded.
    pub warning: f64,
    /// Above it the component is Unhealthy.
    pub critical: f64,
}

/// When a component counts as unhealthy, and as healthy again.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Detection {
    /// Bad looks in a row before anything is done. From 1 to 20. Default 2.
    #[schemars(range(min = 1, max = 20))]
    pub unhealthy_after: u32,
    /// Good looks in a row before it counts as healthy again. From 1 to 20. Default 2.
    #[schemars(range(min = 1, max = 20))]
    pub healthy_after: u32,
    /// A first bad look brings the next one forward to this time. Should not be shorter than the scrape interval of
    /// the metrics. From 100ms to 10m. Default 2s.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('100ms') && duration(self) <= duration('10m')", "confirmAfter must be from 100ms to 10m")))]
    pub confirm_after: Span,
}

/// Closer looks after a template change.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ReleaseWatch {
    /// How often to look. From 1s to 1m. Default 1s.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('1s') && duration(self) <= duration('1m')", "every must be from 1s to 1m")))]
    pub every: Span,
    /// For how long after the change at most; a component that turns bad within this time is blamed on the release.
    /// From 10s to 1h. Default 5m.
    #[serde(rename = "for")]
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('10s') && duration(self) <= duration('1h')", "for must be from 10s to 1h")))]
    pub length: Span,
}

/// Forecasts of failures, and when one of them alone is a reason to act: a metric that will meet its limit within
/// `horizon`, with at least `minProbability`, in `detection.unhealthyAfter` forecasts in a row. Then remedies for Exhaustion
/// are tried before it comes, through every limit of `safety`.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Prediction {
    /// Whether forecasts are made, shown and acted on. Default true.
    pub enabled: bool,
    /// A foreseen failure within this time is a reason to act; after such an action the next one waits at least as long.
    /// From 10m to 24h. Default 1h.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('10m') && duration(self) <= duration('24h')", "horizon must be from 10m to 24h")))]
    pub horizon: Span,
    /// A foreseen failure is a reason to act from this probability on; 1 never acts on a forecast. From 0.05 to 1.
    /// Default 0.5.
    #[schemars(range(min = 0.05, max = 1.0))]
    pub min_probability: f64,
}

/// Limits that every action has to pass.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Safety {
    /// When more components than this are unhealthy at once, nothing is done and a person is called. A count, or a
    /// percentage of all components rounded up. Default 50%.
    #[schemars(extend("x-kubernetes-validations" = cel("type(self) == int ? (self >= 0 && self <= 200) : self.matches('^(100|[0-9]{1,2})%$')", "maxUnhealthy must be a count from 0 to 200 or a percentage such as 50%")))]
    pub max_unhealthy: IntOrPercent,
    /// Actions that may run at the same time in this policy. From 1 to 50. Default 1.
    #[schemars(range(min = 1, max = 50))]
    pub max_concurrent: u32,
    /// Actions that may be started within a window of time in this policy.
    pub budget: Budget,
    /// Time between the start of two actions on the same component. From 0s to 24h. Default 5m.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('0s') && duration(self) <= duration('24h')", "cooldown must be from 0s to 24h")))]
    pub cooldown: Span,
    /// Stops acting on a component whose actions keep failing.
    pub circuit_breaker: CircuitBreaker,
    /// A rollback goes to no template that has not run for longer than this. From 1h to 2160h (90 days). Default 168h.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('1h') && duration(self) <= duration('2160h')", "maxRollbackAge must be from 1h to 2160h")))]
    pub max_rollback_age: Span,
    /// When a rollback would be undone by the Flux or Argo CD object that owns the target. Refuse: a person is called.
    /// Suspend: that object is suspended before the rollback, and resumed when its source has a newer revision or a
    /// person asks. Default Refuse.
    pub git_ops: GitOps,
    /// The tools of MCP servers that remedies of this policy may call. Default none.
    #[schemars(length(max = 20))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_mcp_tools: Vec<AllowedMcpTool>,
}

/// Actions that may be started within a window of time.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Budget {
    /// From 1 to 1000. Default 3.
    #[schemars(range(min = 1, max = 1000))]
    pub actions: u32,
    /// From 1m to 24h. Default 1h.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('1m') && duration(self) <= duration('24h')", "window must be from 1m to 24h")))]
    pub window: Span,
}

/// Stops acting on a component whose actions keep failing.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct CircuitBreaker {
    /// Actions in a row that did not help before the breaker opens. From 1 to 100. Default 5.
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u32,
    /// How long it stays open; then one action is let through. From 1s to 24h. Default 60s.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('1s') && duration(self) <= duration('24h')", "recoveryTimeout must be from 1s to 24h")))]
    pub recovery_timeout: Span,
}

/// How long an action waits for a person, and what happens then.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ApprovalPolicy {
    /// From 1s to 7 days (168h). Default 30m.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('1s') && duration(self) <= duration('168h')", "timeout must be from 1s to 168h")))]
    pub timeout: Span,
    /// What happens at the end of it: Reject (nothing is done) or Approve. Default Reject.
    pub on_timeout: OnTimeout,
}

/// What happens when nobody decided in time.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnTimeout {
    /// Nothing is done; the Remediation ends as Expired.
    #[default]
    Reject,
    /// The action goes on as if it had been approved.
    Approve,
}

/// When an action counts as a success.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = cel("duration(self.timeout) > duration(self.stabilization)", "timeout must be longer than stabilization")))]
pub struct Verification {
    /// The component must have been healthy without a break for this long. From 0s to 1h. Default 2m.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('0s') && duration(self) <= duration('1h')", "stabilization must be from 0s to 1h")))]
    pub stabilization: Span,
    /// When it is not a success by this time after the action, it was Ineffective. From 2s to 6h. Default 10m.
    #[schemars(extend("x-kubernetes-validations" = cel("duration(self) >= duration('2s') && duration(self) <= duration('6h')", "timeout must be from 2s to 6h")))]
    pub timeout: Span,
}

/// One CEL rule, for structs whose defaults stand on the container (which `KubeSchema` cannot express).
fn cel(rule: &str, message: &str) -> serde_json::Value {
    serde_json::json!([{"rule": rule, "message": message}])
}
