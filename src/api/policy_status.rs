use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use super::{Cause, CircuitStatus, ConfigStatus, KnownBadConfig, Snapshot, TemplateRef};

/// State and activity of a policy. Written only when it changes; no field changes with time alone.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct HealingPolicyStatus {
    /// The generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Healthy, Healing, ApprovalRequired, LedgerAvailable, Suspended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// For the columns of `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// One entry per component, in the order of the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<ComponentStatus>,
}

/// Summary of the policy.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// Healthy components of all components: `3/4`.
    pub healthy: String,
    /// The worst status of any component.
    pub worst: String,
    /// The current activity: `Watching`, `Rollback api-gateway: Verifying`, `Waiting for approval`, …
    pub doing: String,
    /// The highest forecast probability of failure, with its component: `30% api-gateway`.
    pub risk: String,
}

/// State of one component at its last check.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ComponentStatus {
    /// The component's name in the spec.
    pub name: String,
    /// Healthy, Degraded, Unhealthy, Critical or Unknown.
    pub status: HealthStatus,
    /// Health score from 0 (does not serve) to 100 (healthy). Absent while the status is Unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<u8>,
    /// Trend of the score: Improving, Stable or Declining.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trend: Option<Trend>,
    /// Since when the component has this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The observations with their limits, and what could not be measured, with the reason.
    pub message: String,
    /// The forecast, when prediction is enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forecast: Option<ForecastStatus>,
    /// Why no action is performed: the guard that holds it back, and its message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<RefusalStatus>,
    /// The running template, and since when it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseStatus>,
    /// Known good templates, newest last: the rollback targets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub known_good: Vec<KnownGood>,
    /// Templates with which the component became unhealthy, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub known_bad: Vec<KnownBad>,
    /// Content of ConfigMaps and Secrets with which the component became unhealthy, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub known_bad_config: Vec<KnownBadConfig>,
    /// The ConfigMaps and Secrets that the template names, and since when their content is unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigStatus>,
    /// Known good states, template and configuration, that have a snapshot; newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Snapshot>,
    /// The circuit breaker of the provider's API, while it is not closed. It survives a restart of the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit: Option<CircuitStatus>,
    /// The open incident.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub episode: Option<Episode>,
    /// A failure that is forecast within prediction.horizon. Remedies for Exhaustion are applied before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreseen: Option<Foreseen>,
    /// Warnings whose outcome is not in the ledger yet, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub warnings: Vec<Warning>,
}

/// Health of a component.
#[derive(
    Serialize,
    Deserialize,
    JsonSchema,
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Default,
    Display,
    EnumIter,
    IntoStaticStr,
)]
pub enum HealthStatus {
    Healthy,
    /// Health could not be measured, or only in part.
    #[default]
    Unknown,
    /// Above a warning threshold; not a reason to act.
    Degraded,
    /// Above a critical threshold, or with a fault that needs a remedy.
    Unhealthy,
    /// The component does not serve at all.
    Critical,
}

/// Direction of the score.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Display, EnumString)]
pub enum Trend {
    Improving,
    Stable,
    Declining,
}

/// Forecast for a component.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ForecastStatus {
    /// Probability of a failure within 24 hours, 0 to 1, at the last write. It is written again when the level, the time to
    /// failure or the confidence changes.
    pub probability: f64,
    /// critical (> 50%), high (30–50%), medium (10–30%), low.
    pub level: String,
    /// Expected time to failure: `<1h`, `1-6h`, `6-24h` or `>24h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_failure: Option<String>,
    /// Expected time of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_failure_time: Option<Timestamp>,
    /// With 80% probability, not before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// With 80% probability, not after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Memory grows without returning to its level before: a leak.
    #[serde(default)]
    pub leak: bool,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// How well the history supports the forecast: low, medium, high, or "insufficient history".
    pub confidence: String,
}

/// A guard that held an action back.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RefusalStatus {
    /// The guard: ObserveMode, Cooldown, Budget, CircuitBreaker, MaxUnhealthy, …
    pub reason: String,
    /// The observation with its limit, the next attempt, and how to intervene.
    pub message: String,
    /// Time of the next attempt, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

/// The running template of a workload, or the live deploy of a hosted service.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// 0: deploys have no number.
    pub revision: i64,
    /// pod-template-hash, or of a StatefulSet or DaemonSet controller-revision-hash; of a deploy its id.
    pub hash: String,
    /// Digest of the template without the restart annotation. Of a deploy: the id of the deploy that was built, which a
    /// rollback shares with its target. Where environment variables are tracked as configuration: the commit, or a digest of
    /// the image.
    pub digest: String,
    /// When Panacea first observed it as the newest.
    pub since: Timestamp,
    /// Whether the component has been healthy since the rollout was complete.
    pub seen_healthy: bool,
    /// Whether the component was already unhealthy when this template was released. Unspecific evidence then does not count
    /// against the template.
    pub came_during_incident: bool,
    /// Digest of the template before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_digest: Option<String>,
}

/// A known good template.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KnownGood {
    pub revision: i64,
    pub hash: String,
    pub digest: String,
    /// When the component was first healthy with it.
    pub seen_at: Timestamp,
    /// When another template replaced it. Absent: it is running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_at: Option<Timestamp>,
}

impl KnownGood {
    pub fn template(&self) -> TemplateRef {
        TemplateRef { revision: self.revision, hash: self.hash.clone(), digest: self.digest.clone() }
    }
}

/// A template with which a healthy component became unhealthy. It becomes known good again after it has been healthy for
/// `releaseWatch.for`.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KnownBad {
    pub revision: i64,
    pub digest: String,
    /// When the component was confirmed as unhealthy.
    pub seen_at: Timestamp,
}

/// An incident of one component: from confirmed unhealthy to healthy again.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Episode {
    /// Id of the incident; part of the names of its Remediations.
    pub id: String,
    pub started_at: Timestamp,
    /// The cause when the incident was confirmed.
    pub cause: Cause,
}

/// A metric that is forecast to reach its limit within prediction.horizon, with at least prediction.minProbability.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Foreseen {
    /// Id of the incident; part of the names of its Remediations.
    #[schemars(length(max = 64))]
    pub id: String,
    /// When the failure was foreseen.
    pub at: Timestamp,
    #[schemars(length(max = 63))]
    pub metric: String,
    /// Value of the metric at that time, in its unit.
    pub value: f64,
    /// The limit of the metric, in its unit.
    pub limit: f64,
    /// At or below this value half of the growth is reclaimed: the failure is averted. In the unit of the metric.
    pub relieved_at: f64,
    /// Probability that the metric reaches its limit within prediction.horizon, 0 to 1.
    pub probability: f64,
    /// When the metric is expected to reach its limit.
    pub failure_at: Timestamp,
    /// With 80% probability, not before.
    pub not_before: Timestamp,
    /// With 80% probability, not after.
    pub not_after: Timestamp,
    /// Why, in words.
    #[schemars(length(max = 512))]
    pub reason: String,
}

/// A foreseen failure, tracked until its outcome is known.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Warning {
    pub foreseen: Foreseen,
    /// Hash of the template whose pods are concerned; of a deploy its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub release: Option<String>,
    /// The metric could not be measured for a while, so an averted failure can no longer be proven.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blind: bool,
    /// The outcome, until it is in the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
}

/// The outcome of a warning.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    pub outcome: Outcome,
    /// When the outcome was known.
    pub at: Timestamp,
    /// The observation.
    #[schemars(length(max = 512))]
    pub message: String,
    /// The Remediation that prevented the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub remediation: Option<String>,
}

/// The possible outcomes of a warning.
#[derive(
    Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, Display, EnumIter, IntoStaticStr,
)]
pub enum Outcome {
    /// The failure occurred between notBefore and notAfter.
    CameTrue,
    /// The failure occurred before notBefore.
    CameEarly,
    /// The failure occurred after notAfter, within one more prediction.horizon.
    CameLate,
    /// An action before the failure succeeded.
    Prevented,
    /// The failure did not occur, and no action was performed.
    DidNotHappen,
    /// A failure occurred without a warning.
    Missed,
    /// The outcome cannot be determined.
    Unknown,
}

impl Outcome {
    /// Whether the warning was right.
    pub fn is_right(self) -> bool {
        matches!(self, Self::CameTrue | Self::CameEarly | Self::CameLate | Self::Prevented)
    }
}
