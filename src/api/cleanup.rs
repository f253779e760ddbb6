//! What a cleanup of memory is told, and what comes of it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// An HTTP endpoint of the component that frees memory: runs its garbage collector, drops its caches.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// http:// or https:// URL without credentials. Any answer from 200 to 299 is a success; redirects are not followed.
    /// Of a JSON answer, the numbers `objects_collected` and `memory_freed_mb` are recorded. The call carries the
    /// Remediation's uid as `Idempotency-Key` and is made once more when the operator died before it could note the answer.
    #[schemars(length(min = 8, max = 2048))]
    #[x_kube(validation = ("self.startsWith('http://') || self.startsWith('https://')", "url must start with http:// or https://"))]
    #[x_kube(validation = ("!self.matches('^[^/]*//[^/?#]*@')", "url must not hold credentials: everyone who can read the policy would see them"))]
    pub url: String,
    /// Default POST.
    #[serde(default)]
    pub method: HookMethod,
    /// Time limit for the whole answer, from 100ms to 60s. Default 10s.
    #[serde(default = "default_timeout")]
    #[x_kube(validation = ("duration(self) >= duration('100ms') && duration(self) <= duration('60s')", "timeout must be from 100ms to 60s"))]
    pub timeout: Span,
}

fn default_timeout() -> Span {
    "10s".into()
}

/// How a hook is called.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, strum::Display)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
pub enum HookMethod {
    Get,
    #[default]
    Post,
    Put,
}

/// Memory that grows, as it was when a cleanup was decided.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MemoryGrowth {
    /// Name of the metric.
    #[schemars(length(max = 63))]
    pub metric: String,
    /// What it grew from, in the metric's unit.
    pub baseline: f64,
    /// The newest value.
    pub value: f64,
    /// At or below this value half of what had grown is given back: it has helped.
    pub relieved_at: f64,
    /// It is judged to rise for good.
    pub leak: bool,
    /// Bytes that one unit of the metric stands for. Left out: its name does not tell, or there is no memory limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_unit: Option<f64>,
}

/// A pod to be recycled.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
pub struct LeakingPod {
    #[schemars(length(max = 253))]
    pub name: String,
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The metric's value of this pod alone; left out when its query does not name `$(pods)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
}
