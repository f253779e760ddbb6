use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

/// The kinds of workload that can be checked and healed.
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
    Display,
    EnumString,
    EnumIter,
    IntoStaticStr,
)]
pub enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
    /// Of Argo Rollouts; known only where its CRD is installed.
    Rollout,
}

impl WorkloadKind {
    /// As in the API server's paths.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
            Self::Rollout => "rollouts",
        }
    }

    pub fn group(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => "apps",
            Self::Rollout => "argoproj.io",
        }
    }

    pub fn api_version(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => "apps/v1",
            Self::Rollout => "argoproj.io/v1alpha1",
        }
    }

    /// The command that resumes a paused workload.
    pub fn resume(self, name: &str) -> String {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => {
                format!("kubectl rollout resume {}/{name}", self.to_string().to_lowercase())
            }
            Self::Rollout => format!("kubectl argo rollouts resume {name}"),
        }
    }
}
