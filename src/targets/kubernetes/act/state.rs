//! The whole of a good state is put back from its copy: configuration, template, strategy, and the number of pods where no
//! autoscaler has it. Works also when the workload's own history does not reach back so far any more.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    ActError, Kubernetes, Outcome, WorkloadRef,
    config::Named,
    live::{digest_of, restarted_at, strategy_field},
};
use crate::api::{ConfigRollback, RESTARTED_AT, TemplateRef};

/// What goes back, and from which template.
#[derive(Debug, Clone, Copy)]
pub struct WholeState<'a> {
    pub from: &'a TemplateRef,
    pub to: &'a TemplateRef,
    pub config: &'a ConfigRollback,
}

impl Kubernetes {
    /// Puts the state back. `at` names this action: a second call with the same value does nothing more.
    ///
    /// # Errors
    /// See [`ActError`], and [`Self::rollback_config`] for configuration.
    pub async fn restore(
        &self,
        workload: WorkloadRef<'_>,
        state: WholeState<'_>,
        named: &Named,
        at: Timestamp,
    ) -> Result<Outcome, ActError> {
        let writes = self.config_writes(workload, state.config, named).await?;
        // Looked at before anything is written: half a state is worse than none.
        self.state_patch(workload, state, at).await?;
        self.write_all(workload, writes).await?;
        let outcome = self.tries(workload, || self.state_patch(workload, state, at)).await?;
        self.make_way(workload, state.from, &state.to.digest).await?;
        Ok(outcome)
    }

    /// Whether [`Self::restore`] has begun to write.
    ///
    /// # Errors
    /// As for [`Self::restore`].
    pub async fn is_restoring(
        &self,
        workload: WorkloadRef<'_>,
        state: WholeState<'_>,
        at: Timestamp,
    ) -> Result<bool, ActError> {
        let objects = state.config.objects.len();
        Ok(self.config_left(workload, state.config).await? < objects
            || self.state_patch(workload, state, at).await?.is_none())
    }

    /// What is to be written; none when it was written already.
    async fn state_patch(
        &self,
        workload: WorkloadRef<'_>,
        WholeState { from, to, config }: WholeState<'_>,
        at: Timestamp,
    ) -> Result<Option<Value>, ActError> {
        let live = self.read(workload).await?;
        let at = at.to_string();
        if live.digest == to.digest && restarted_at(&live.template) == Some(&at) {
            return Ok(None);
        }
        self.not_owned(&live.metadata, None)?;
        live.must_be(from)?;
        let kept = self.snapshot_state(workload.namespace, config, to).await?;
        let mut template = kept["template"].clone();
        // So that pods are new ones also when only configuration differs, and that this is known to be done.
        match template.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            Some(annotations) => drop(annotations.insert(RESTARTED_AT.to_owned(), at.into())),
            None => template["metadata"]["annotations"] = json!({RESTARTED_AT: at}),
        }
        let field = format!("/spec/{}", strategy_field(workload.kind));
        let mut patch = vec![
            json!({"op": "replace", "path": "/metadata/resourceVersion", "value": live.metadata.resource_version}),
            json!({"op": "replace", "path": "/spec/template", "value": template}),
        ];
        if kept["strategy"].is_object() && kept["strategy"] != live.strategy {
            patch.push(json!({"op": "add", "path": field, "value": kept["strategy"]}));
        }
        let scaled = kept["replicas"].is_u64() && kept["replicas"] != live.replicas;
        if scaled && !self.is_autoscaled(workload).await? {
            patch.push(json!({"op": "add", "path": "/spec/replicas", "value": kept["replicas"]}));
        }
        Ok(Some(Value::Array(patch)))
    }

    /// What the copy holds, Secrets apart.
    ///
    /// # Errors
    /// TargetGone when it is not there, or is of another template; else see [`ActError`].
    pub(super) async fn snapshot_state(
        &self,
        namespace: &str,
        config: &ConfigRollback,
        to: &TemplateRef,
    ) -> Result<Value, ActError> {
        let kept = self.snapshot_of(namespace, &config.state).await?;
        if digest_of(&kept["template"])? != to.digest {
            return Err(ActError::TargetGone(format!("ControllerRevision {} holds another template", config.state)));
        }
        Ok(kept)
    }

    /// Whether a HorizontalPodAutoscaler has the number of pods; also when that cannot be seen.
    async fn is_autoscaled(&self, workload: WorkloadRef<'_>) -> Result<bool, ActError> {
        match self.autoscaler(workload).await {
            Ok(autoscaler) => Ok(autoscaler.is_some()),
            Err(ActError::Forbidden { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
