//! The whole of a good state is restored from its snapshot: configuration, template, strategy, and the number of pods
//! unless an autoscaler controls it. Does not need the workload's own history.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    ActError, Kubernetes, OnWorkload, Outcome,
    config::Named,
    live::{digest_of, restarted_at, strategy_field},
};
use crate::api::{ConfigRollback, RESTARTED_AT, TemplateRef};

/// The state to restore, and the template that it replaces.
#[derive(Debug, Clone, Copy)]
pub struct WholeState<'a> {
    pub from: &'a TemplateRef,
    pub to: &'a TemplateRef,
    pub config: &'a ConfigRollback,
}

impl Kubernetes {
    /// The snapshot without its Secrets. TargetGone when it does not exist, or has another template.
    pub(super) async fn snapshot_state(
        &self,
        namespace: &str,
        config: &ConfigRollback,
        to: &TemplateRef,
    ) -> Result<Value, ActError> {
        let snapshot = self.snapshot_of(namespace, &config.state).await?;
        if digest_of(&snapshot["template"])? != to.digest {
            return Err(ActError::TargetGone(format!("ControllerRevision {} has another template", config.state)));
        }
        Ok(snapshot)
    }
}

impl OnWorkload<'_> {
    /// Restores the state. `at` identifies this action: a second call with the same value does nothing more.
    pub async fn restore(&self, state: WholeState<'_>, named: &Named, at: Timestamp) -> Result<Outcome, ActError> {
        let writes = self.config_writes(state.config, named).await?;
        // Checked before the first write: half a state is worse than none.
        self.state_patch(state, at).await?;
        self.write_all(writes).await?;
        let outcome = self.tries(|| self.state_patch(state, at)).await?;
        self.make_way(state.from, &state.to.digest).await?;
        Ok(outcome)
    }

    /// Whether [`Self::restore`] has started to write.
    pub async fn is_restoring(&self, state: WholeState<'_>, at: Timestamp) -> Result<bool, ActError> {
        Ok(self.is_restoring_config(state.config).await? || self.state_patch(state, at).await?.is_none())
    }

    /// None when the state was written already.
    async fn state_patch(
        &self,
        WholeState { from, to, config }: WholeState<'_>,
        at: Timestamp,
    ) -> Result<Option<Value>, ActError> {
        let live = self.read().await?;
        let at = at.to_string();
        if live.digest == to.digest && restarted_at(&live.template) == Some(&at) {
            return Ok(None);
        }
        self.not_owned(&live.metadata, None)?;
        live.must_be(from)?;
        let snapshot = self.snapshot_state(self.workload.namespace, config, to).await?;
        let mut template = snapshot["template"].clone();
        // So that pods are replaced also when only configuration differs, and a second call detects the write.
        match template.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            Some(annotations) => drop(annotations.insert(RESTARTED_AT.to_owned(), at.into())),
            None => template["metadata"]["annotations"] = json!({RESTARTED_AT: at}),
        }
        let field = format!("/spec/{}", strategy_field(self.workload.kind));
        let mut patch = live.with_template(&template);
        if snapshot["strategy"].is_object() && snapshot["strategy"] != live.strategy {
            patch.push(json!({"op": "add", "path": field, "value": snapshot["strategy"]}));
        }
        let scaled = snapshot["replicas"].is_u64() && snapshot["replicas"] != live.replicas;
        if scaled && !self.is_autoscaled().await? {
            patch.push(json!({"op": "add", "path": "/spec/replicas", "value": snapshot["replicas"]}));
        }
        Ok(Some(Value::Array(patch)))
    }

    /// Whether a HorizontalPodAutoscaler controls the number of pods; true also when that is forbidden to read.
    async fn is_autoscaled(&self) -> Result<bool, ActError> {
        match self.autoscaler().await {
            Ok(autoscaler) => Ok(autoscaler.is_some()),
            Err(ActError::Forbidden { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
