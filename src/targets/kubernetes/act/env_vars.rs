//! Snapshots of the environment variables of hosted services, stored as snapshots of Secrets are: in an immutable Secret
//! of the policy's namespace, deleted with the policy, compared by a keyed digest.

use k8s_openapi::ByteString;
use serde_json::json;

use super::{
    ActError, Call, Kubernetes, SnapshotOf, created,
    snapshots::{MAX_COPY, secret_copy},
};
use crate::{api::ConfigKind, targets::providers::env_vars::EnvVars};

/// The key of the Secret, with JSON: names of variables are not always valid names of keys.
const FIELD: &str = "envVars";

impl Kubernetes {
    /// Unreachable while the key of digests was not read.
    pub(in crate::targets) fn env_digest(&self, vars: &EnvVars) -> Result<String, ActError> {
        let digest = self.key.digest(ConfigKind::EnvVars, &json!({"data": vars.to_json()}))?;
        Ok(digest.to_string())
    }

    /// Whether snapshots may be stored in Secrets of this namespace.
    pub(in crate::targets) async fn may_keep_secrets(&self, namespace: &str) -> Result<(), ActError> {
        self.may(Call::CREATE_SECRET, namespace).await
    }

    /// Rejected when the snapshot would be too large.
    pub(in crate::targets) async fn store_env_snapshot(
        &self,
        namespace: &str,
        copy: SnapshotOf,
        vars: &EnvVars,
    ) -> Result<(), ActError> {
        let _turn = self.copying.acquire().await;
        let data = vars.to_json().to_string().into_bytes();
        if data.len() > MAX_COPY {
            let size = data.len();
            let message = format!("the environment variables are {size} bytes; a snapshot holds at most {MAX_COPY}");
            return Err(ActError::Rejected(message));
        }
        let secret = secret_copy(copy.metadata(), [(FIELD.to_owned(), ByteString(data))].into());
        created(Call::CREATE_SECRET, &self.namespaced(namespace), &secret, false).await
    }

    /// TargetGone when there is no such snapshot.
    pub(in crate::targets) async fn snapshot_env(&self, namespace: &str, name: &str) -> Result<EnvVars, ActError> {
        let data = self.secret_snapshot(namespace, name).await?.remove(FIELD);
        let vars = data.and_then(|data| EnvVars::from_json(&data.0));
        vars.ok_or_else(|| ActError::TargetGone(format!("Secret {name} has no environment variables")))
    }
}
