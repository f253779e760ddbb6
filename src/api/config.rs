//! The configuration of a workload or a hosted service, beside its template or its code.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::Display;

/// An object that a template names, or the environment variables of a hosted service, with a digest of its content.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigObject {
    pub kind: ConfigKind,
    #[schemars(length(max = 253))]
    pub name: String,
    /// Digest of the content; for Secrets and environment variables with a key that is stored elsewhere. `missing`: the object
    /// does not exist.
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

/// Kind of an object with configuration.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Display)]
pub enum ConfigKind {
    ConfigMap,
    Secret,
    /// The environment variables of a hosted service; the name is the id of the service.
    EnvVars,
}

impl ConfigKind {
    /// The name of the resource in the API.
    pub fn plural(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmaps",
            // Snapshots of environment variables are Secrets.
            Self::Secret | Self::EnvVars => "secrets",
        }
    }
}

/// The configuration of the running template.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// The objects that the template names, sorted by name.
    #[schemars(length(max = 50))]
    pub objects: Vec<ConfigObject>,
    /// When this content was first observed.
    pub since: Timestamp,
    /// Whether the component has been healthy with pods that use this content.
    pub seen_healthy: bool,
    /// The objects that changed since the last known good content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub changed: Vec<String>,
    /// Whether the component was already unhealthy when the content changed.
    #[serde(default)]
    pub came_during_incident: bool,
    /// Of a hosted service: the deploy that runs with this content. A later change takes effect with the next deploy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub deploy: Option<String>,
}

impl ConfigStatus {
    /// Whether all objects of the known bad content are present again.
    #[must_use]
    pub fn holds(&self, bad: &KnownBadConfig) -> bool {
        bad.objects.iter().all(|object| self.objects.contains(object))
    }
}

/// Content with which a healthy component became unhealthy. It becomes known good again after it has been healthy for
/// `releaseWatch.for`.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KnownBadConfig {
    /// The objects that differed from the known good content before.
    #[schemars(length(max = 50))]
    pub objects: Vec<ConfigObject>,
    /// When the component was confirmed as unhealthy.
    pub seen_at: Timestamp,
}

/// A known good state, template and configuration together, that Panacea has stored.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Name of the ControllerRevision in the same namespace that holds the snapshot; of a hosted service, of the Secret.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Digest of the template.
    #[schemars(length(max = 64))]
    pub template: String,
    #[schemars(length(max = 50))]
    pub objects: Vec<ConfigObject>,
    /// When the state was stored.
    pub seen_at: Timestamp,
}

/// The target of a rollback of configuration, or of a whole state.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct ConfigRollback {
    /// Name of the ControllerRevision that holds the state; of a hosted service, of the Secret.
    #[schemars(length(max = 253))]
    pub state: String,
    /// The objects that differ.
    #[schemars(length(max = 50))]
    pub objects: Vec<ConfigChange>,
}

/// A change of an object, or of the environment variables of a hosted service.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    pub kind: ConfigKind,
    #[schemars(length(max = 253))]
    pub name: String,
    /// Digest of the current content.
    #[schemars(length(max = 64))]
    pub from: String,
    /// Digest of the content to restore.
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
