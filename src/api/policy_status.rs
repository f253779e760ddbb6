use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cause, CircuitStatus, ConfigStatus, KnownBadConfig, Snapshot};

/// What Panacea knows and does about a policy. WriteTracker only when it differs; nothing in it ticks.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct HealingPolicyStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Healthy, Healing, ApprovalRequired, LedgerAvailable, Suspended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// For the columns of `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// One entry a component, in the order of the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<ComponentStatus>,
}

/// The policy in a few words.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// Healthy components of all: `3/4`.
    pub healthy: String,
    /// The worst status of any component.
    pub worst: String,
    /// What Panacea is doing: `Watching`, `Rollback api-gateway: Verifying`, `Waiting for approval`, …
    pub doing: String,
    /// The highest forecast failure probability: `30% api-gateway`.
    pub risk: String,
}

/// One component, as last seen.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ComponentStatus {
    /// The component's name in the spec.
    pub name: String,
    /// Healthy, Degraded, Unhealthy, Critical or Unknown.
    pub status: HealthStatus,
    /// 0 (dead) to 100 (fine); absent while Unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<u8>,
    /// Improving, Stable or Declining.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trend: Option<Trend>,
    /// Since when it has had this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What was seen against which limit; what could not be measured and why.
    pub message: String,
    /// The forecast, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forecast: Option<ForecastStatus>,
    /// Why nothing is done although something is wrong: the guard and its words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<RefusalStatus>,
    /// The template that runs, and since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseStatus>,
    /// Templates seen healthy, newest last: what a rollback may go back to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub known_good: Vec<KnownGood>,
    /// Templates with which it turned bad, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub known_bad: Vec<KnownBad>,
    /// Content of ConfigMaps and Secrets with which it turned bad, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub known_bad_config: Vec<KnownBadConfig>,
    /// The ConfigMaps and Secrets that the template names, and since when they have the content they have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigStatus>,
    /// States seen healthy, template and configuration, of which a copy is kept; newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Snapshot>,
    /// The circuit breaker of its provider's API, while it is not closed. Taken up again when the operator starts anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit: Option<CircuitStatus>,
    /// The incident that is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub episode: Option<Episode>,
    /// A failure that is foreseen within prediction.horizon: remedies for Exhaustion are tried before it comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreseen: Option<Foreseen>,
    /// Warnings of which it is not in the ledger yet what came of them, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub warnings: Vec<Warning>,
}

/// How a component is.
#[derive(
    Serialize,
    Deserialize,
    JsonSchema,
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
pub enum HealthStatus {
    Healthy,
    /// It could not be measured, or not enough of it.
    #[default]
    Unknown,
    /// Above a warning threshold; not a reason to act.
    Degraded,
    /// Above a critical threshold, or with a fault that needs healing.
    Unhealthy,
    /// It does not serve at all.
    Critical,
}

/// Where the score is going.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::EnumString)]
pub enum Trend {
    Improving,
    Stable,
    Declining,
}

/// What is foreseen for a component.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ForecastStatus {
    /// Of a failure within 24 hours, 0 to 1, when this was last written: it is written anew when the level, the time to
    /// failure or the confidence changes, not with every figure.
    pub probability: f64,
    /// critical (> 50%), high (30–50%), medium (10–30%), low.
    pub level: String,
    /// `<1h`, `1-6h`, `6-24h` or `>24h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_failure: Option<String>,
    /// When it is expected to fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_failure_time: Option<Timestamp>,
    /// With 80% probability, not before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// With 80% probability, not after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Memory rises for good.
    #[serde(default)]
    pub leak: bool,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// low, medium, high, or "insufficient history".
    pub confidence: String,
}

/// A guard that held an action back.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RefusalStatus {
    /// The guard: Mode, Cooldown, Budget, CircuitBreaker, MaxUnhealthy, …
    pub reason: String,
    pub message: String,
    /// When it is looked at again, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

/// The template that a workload runs, or the deploy that a hosted service runs.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// 0: deploys have no number.
    pub revision: i64,
    /// pod-template-hash, or of a StatefulSet or DaemonSet controller-revision-hash; of a deploy its id.
    pub hash: String,
    /// Digest of the template without the restart annotation; of a deploy the id of the one that was built, which of a
    /// rollback is the one it went back to. Where environment variables are configuration of their own: its commit, or a
    /// digest of its image.
    pub digest: String,
    /// When Panacea first saw it as the newest.
    pub since: Timestamp,
    /// It has been seen healthy after its rollout was complete.
    pub seen_healthy: bool,
    /// The component was not healthy when this template came: unspecific evidence is not held against it.
    pub came_during_incident: bool,
    /// Digest of the template before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_digest: Option<String>,
}

/// A template that was seen healthy.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KnownGood {
    pub revision: i64,
    pub hash: String,
    pub digest: String,
    /// When it was first seen healthy.
    pub seen_at: Timestamp,
    /// When another template took its place. Left out: it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_at: Option<Timestamp>,
}

/// A template with which a component that was healthy turned bad. It is not known good again before it has been healthy
/// for `releaseWatch.for`.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KnownBad {
    pub revision: i64,
    pub digest: String,
    /// When that was confirmed.
    pub seen_at: Timestamp,
}

/// An incident of one component: from confirmed bad to healthy again.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Episode {
    /// Names the incident in the names of its Remediations.
    pub id: String,
    pub started_at: Timestamp,
    /// What it looked like when it was confirmed.
    pub cause: Cause,
}

/// A metric that will meet its limit within prediction.horizon, with at least prediction.minProbability.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Foreseen {
    /// Names the incident in the names of its Remediations.
    #[schemars(length(max = 64))]
    pub id: String,
    /// When it was foreseen.
    pub at: Timestamp,
    #[schemars(length(max = 63))]
    pub metric: String,
    /// What it was then, in its own unit.
    pub value: f64,
    /// What it will meet.
    pub limit: f64,
    /// At or below this value half of what had grown is given back: the danger is over.
    pub relieved_at: f64,
    /// That it meets its limit within prediction.horizon, 0 to 1.
    pub probability: f64,
    /// When it is expected to meet it.
    pub failure_at: Timestamp,
    /// With 80% probability, not before.
    pub not_before: Timestamp,
    /// With 80% probability, not after.
    pub not_after: Timestamp,
    /// Why, in words.
    #[schemars(length(max = 512))]
    pub reason: String,
}

/// A failure that was foreseen, followed until it is known what came of it.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Warning {
    pub foreseen: Foreseen,
    /// Hash of the template whose pods it concerns; of a deploy its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub release: Option<String>,
    /// For a while its metric could not be measured: that it did not happen cannot be told any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blind: bool,
    /// What came of it, until that is in the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
}

/// What came of a warning.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    pub outcome: Outcome,
    /// When it was known.
    pub at: Timestamp,
    /// What was seen.
    #[schemars(length(max = 512))]
    pub message: String,
    /// The Remediation that prevented it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub remediation: Option<String>,
}

/// What can come of a warning.
#[derive(
    Serialize,
    Deserialize,
    JsonSchema,
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
pub enum Outcome {
    /// The failure came between notBefore and notAfter.
    CameTrue,
    /// It came before notBefore.
    CameEarly,
    /// It came after notAfter, within one more prediction.horizon.
    CameLate,
    /// An action was done before it came, and verified.
    Prevented,
    /// It did not come, and nothing was done.
    DidNotHappen,
    /// A failure came that no warning had announced.
    Missed,
    /// It cannot be told.
    Unknown,
}

impl Outcome {
    /// The warning was right: who acted on it acted on something.
    pub fn is_right(self) -> bool {
        matches!(self, Self::CameTrue | Self::CameEarly | Self::CameLate | Self::Prevented)
    }
}
