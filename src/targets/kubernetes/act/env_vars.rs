//! Copies of the environment variables of hosted services, as copies of Secrets are: in an immutable Secret of the policy's
//! namespace, gone with the policy, compared by a keyed digest.

use k8s_openapi::ByteString;
use serde_json::json;

use super::{
    ActError, Call, Kubernetes, SnapshotOf, limited,
    snapshots::{MAX_COPY, made, secret_copy, there},
};
use crate::{api::ConfigKind, targets::providers::env_vars::EnvVars};

/// The key of the Secret that holds them, as JSON: names of variables are not always names of keys.
const FIELD: &str = "envVars";

impl Kubernetes {
    /// # Errors
    /// Unreachable while the key of digests was not read.
    pub(in crate::targets) fn env_digest(&self, vars: &EnvVars) -> Result<String, ActError> {
        let digest = self.key.digest(ConfigKind::EnvVars, &json!({"data": vars.to_json()}))?;
        Ok(digest.to_string())
    }

    /// Whether copies may be kept in Secrets of this namespace.
    ///
    /// # Errors
    /// Forbidden, with the chart's value that grants it.
    pub(in crate::targets) async fn may_keep_secrets(&self, namespace: &str) -> Result<(), ActError> {
        self.may(Call::CREATE_SECRET, namespace).await
    }

    /// # Errors
    /// Rejected when the copy would be too large; else see [`ActError`].
    pub(in crate::targets) async fn store_env_snapshot(
        &self,
        namespace: &str,
        copy: SnapshotOf,
        vars: &EnvVars,
    ) -> Result<(), ActError> {
        let _turn = self.copying.acquire().await;
        let held = vars.to_json().to_string().into_bytes();
        if held.len() > MAX_COPY {
            let size = held.len();
            let message = format!("the environment variables are {size} bytes, more than the {MAX_COPY} that are kept");
            return Err(ActError::Rejected(message));
        }
        let secret = secret_copy(copy.metadata(), [(FIELD.to_owned(), ByteString(held))].into());
        made(Call::CREATE_SECRET, &self.of_secrets(namespace), &secret).await
    }

    /// # Errors
    /// TargetGone when there is no such copy; else see [`ActError`].
    pub(in crate::targets) async fn snapshot_env(&self, namespace: &str, name: &str) -> Result<EnvVars, ActError> {
        let read = limited(Call::GET_SECRET, self.of_secrets(namespace).get(name)).await;
        let held = there("Secret", name, read)?.data.unwrap_or_default().remove(FIELD);
        let vars = held.and_then(|held| EnvVars::from_json(&held.0));
        vars.ok_or_else(|| ActError::TargetGone(format!("Secret {name} holds no environment variables")))
    }
}
