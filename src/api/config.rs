//! The configuration that a workload or a hosted service stands on, beside its template or its code.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An object that a template names, or the environment variables of a hosted service, and what was in it.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigObject {
    pub kind: ConfigKind,
    #[schemars(length(max = 253))]
    pub name: String,
    /// Digest of its content, of a Secret and of environment variables with a key that is kept elsewhere; `missing` when there is no such object.
    #[schemars(length(max = 64))]
    pub digest: String,
}

impl fmt::Display for ConfigObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// [`ConfigObject::digest`] of an object that does not exist.
pub const MISSING: &str = "missing";

/// What holds configuration.
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
    Hash,
    strum::Display,
    strum::EnumIter,
)]
pub enum ConfigKind {
    ConfigMap,
    Secret,
    /// The environment variables of a service that a provider hosts; its name is the service's id.
    EnvVars,
}

impl ConfigKind {
    /// As the API names the resource.
    pub fn plural(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmaps",
            // Copies of environment variables are Secrets.
            Self::Secret | Self::EnvVars => "secrets",
        }
    }
}

/// The configuration of the template that runs.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// What the template names, by name.
    #[schemars(length(max = 50))]
    pub objects: Vec<ConfigObject>,
    /// When this content was first seen.
    pub since: Timestamp,
    /// It has been seen healthy, with pods that have it.
    pub seen_healthy: bool,
    /// The objects that changed since the content before, which was seen healthy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub changed: Vec<String>,
    /// The component was not healthy when it changed.
    #[serde(default)]
    pub came_during_incident: bool,
    /// Of a hosted service: the deploy that runs with it. What is changed after that is not in effect before the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub deploy: Option<String>,
}

impl ConfigStatus {
    /// Whether all that is known bad together is there again.
    #[must_use]
    pub fn holds(&self, bad: &KnownBadConfig) -> bool {
        bad.objects.iter().all(|object| self.objects.contains(object))
    }
}

/// Content with which a component that was healthy turned bad. It is not known good again before it has been healthy for
/// `releaseWatch.for`.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KnownBadConfig {
    /// What differed from the content that was seen healthy before.
    #[schemars(length(max = 50))]
    pub objects: Vec<ConfigObject>,
    /// When that was confirmed.
    pub seen_at: Timestamp,
}

/// A state that was seen healthy, template and configuration together, and of which Panacea keeps a copy.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Name of the ControllerRevision, in the same namespace, that holds it; of a hosted service of the Secret.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Digest of the template.
    #[schemars(length(max = 64))]
    pub template: String,
    #[schemars(length(max = 50))]
    pub objects: Vec<ConfigObject>,
    /// When it was last seen healthy for the first time.
    pub seen_at: Timestamp,
}

/// Where a rollback of configuration, or of a whole state, goes.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct ConfigRollback {
    /// Name of the ControllerRevision that holds the state; of a hosted service of the Secret.
    #[schemars(length(max = 253))]
    pub state: String,
    /// The objects that differ.
    #[schemars(length(max = 50))]
    pub objects: Vec<ConfigChange>,
}

/// An object, or the environment variables of a hosted service, and from which content to which.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    pub kind: ConfigKind,
    #[schemars(length(max = 253))]
    pub name: String,
    #[schemars(length(max = 64))]
    pub from: String,
    #[schemars(length(max = 64))]
    pub to: String,
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

impl ConfigRollback {
    /// The objects, for messages: `ConfigMap/app, ConfigMap/more`.
    pub fn names(&self) -> String {
        let names: Vec<String> = self.objects.iter().map(ConfigChange::to_string).collect();
        names.join(", ")
    }
}
