//! Parameters and facts of a cleanup of memory.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// An HTTP endpoint of the component that frees memory, for example by garbage collection or by clearing caches.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// http:// or https:// URL without credentials. A status from 200 to 299 is a success; redirects are not followed. The
    /// numbers `objects_collected` and `memory_freed_mb` of a JSON response are recorded. The call has the Remediation's uid as
    /// `Idempotency-Key`, and is repeated once when the operator ended before it stored the response.
    #[schemars(length(min = 8, max = 2048))]
    #[x_kube(validation = ("self.startsWith('http://') || self.startsWith('https://')", "url must start with http:// or https://"))]
    #[x_kube(validation = ("!self.matches('^[^/]*//[^/?#]*@')", "url must not hold credentials: everyone who can read the policy would see them"))]
    pub url: String,
    /// HTTP method: GET, POST or PUT. Default POST.
    #[serde(default)]
    pub method: HookMethod,
    /// Time limit for the whole response. From 100ms to 60s. Default 10s.
    #[serde(default = "default_timeout")]
    #[x_kube(validation = ("duration(self) >= duration('100ms') && duration(self) <= duration('60s')", "timeout must be from 100ms to 60s"))]
    pub timeout: Span,
}

fn default_timeout() -> Span {
    "10s".into()
}

/// HTTP method of a hook.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, strum::Display)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
pub enum HookMethod {
    Get,
    #[default]
    Post,
    Put,
}

/// Growth of memory at the time of the decision.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MemoryGrowth {
    /// Name of the metric.
    #[schemars(length(max = 63))]
    pub metric: String,
    /// The level before the growth, in the unit of the metric.
    pub baseline: f64,
    /// The newest value.
    pub value: f64,
    /// At or below this value half of the growth is reclaimed: the cleanup helped.
    pub relieved_at: f64,
    /// Whether the growth is assessed as a leak.
    pub leak: bool,
    /// Bytes per unit of the metric. Absent: its name does not show the unit, or there is no memory limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_unit: Option<f64>,
}

/// A pod to replace.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
pub struct LeakingPod {
    #[schemars(length(max = 253))]
    pub name: String,
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Value of the metric for this pod. Absent when the query does not use `$(pods)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
}
