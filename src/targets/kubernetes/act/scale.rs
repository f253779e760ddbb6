//! More or fewer pods; where an autoscaler has their number, its minimum, if that is allowed.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{ActError, Call, Kubernetes, Outcome, WorkloadRef, limited, until_written};
use crate::api::{REMEDIATION_MANAGER, Scaling, TemplateRef};

/// Autoscalers read of one namespace.
const MAX_AUTOSCALERS: u32 = 500;

impl Kubernetes {
    /// Whether the operator's role and an autoscaler let it be scaled. Writes nothing.
    ///
    /// # Errors
    /// Forbidden, with the missing verb, or Autoscaled.
    pub async fn preflight_scale(&self, workload: WorkloadRef<'_>, scaling: Scaling) -> Result<(), ActError> {
        match self.autoscaler(workload).await? {
            Some(autoscaler) => {
                minimum(&autoscaler, scaling)?;
                self.may(Call::PATCH_AUTOSCALER, workload.namespace).await
            }
            None => self.may(Call::patch(workload.kind), workload.namespace).await,
        }
    }

    /// Has the number of pods be `scaling.to`, if it is `scaling.from` and the template `from` runs.
    ///
    /// # Errors
    /// See [`ActError`]; Rescaled when somebody else scaled it meanwhile.
    pub async fn scale(
        &self,
        workload: WorkloadRef<'_>,
        from: Option<&TemplateRef>,
        scaling: Scaling,
    ) -> Result<Outcome, ActError> {
        match self.autoscaler(workload).await? {
            Some(autoscaler) => self.raise(workload, autoscaler, scaling).await,
            None => self.tries(workload, || self.scale_patch(workload, from, scaling)).await,
        }
    }

    /// Whether [`Self::scale`] has done it already. Writes nothing.
    ///
    /// # Errors
    /// As for [`Self::scale`].
    pub async fn is_scaled(
        &self,
        workload: WorkloadRef<'_>,
        from: Option<&TemplateRef>,
        scaling: Scaling,
    ) -> Result<bool, ActError> {
        match self.autoscaler(workload).await? {
            Some(autoscaler) => Ok(minimum(&autoscaler, scaling)?.is_none()),
            None => Ok(self.scale_patch(workload, from, scaling).await?.is_none()),
        }
    }

    /// What is to be written; none when it was written already.
    async fn scale_patch(
        &self,
        workload: WorkloadRef<'_>,
        from: Option<&TemplateRef>,
        scaling: Scaling,
    ) -> Result<Option<Value>, ActError> {
        let live = self.read(workload).await?;
        self.not_owned(&live.metadata, None)?;
        // Left out, it is one.
        let pods = live.replicas.as_u64().unwrap_or(1);
        if pods == u64::from(scaling.to) {
            return Ok(None);
        }
        if let Some(from) = from {
            live.must_be(from)?;
        }
        if pods != u64::from(scaling.from) {
            return Err(ActError::Rescaled { expected: scaling.from, found: pods });
        }
        Ok(Some(json!({
            "metadata": {"resourceVersion": live.metadata.resource_version},
            "spec": {"replicas": scaling.to},
        })))
    }

    async fn raise(
        &self,
        workload: WorkloadRef<'_>,
        read: HorizontalPodAutoscaler,
        scaling: Scaling,
    ) -> Result<Outcome, ActError> {
        let mut read = Some(read);
        until_written(|| {
            let read = read.take();
            async move {
                let autoscaler = match read {
                    Some(read) => Some(read),
                    None => self.autoscaler(workload).await?,
                };
                let gone = || ActError::NotFound("the HorizontalPodAutoscaler".to_owned());
                self.raise_once(workload, autoscaler.ok_or_else(gone)?, scaling).await
            }
        })
        .await
    }

    /// None on a conflict.
    async fn raise_once(
        &self,
        workload: WorkloadRef<'_>,
        autoscaler: HorizontalPodAutoscaler,
        scaling: Scaling,
    ) -> Result<Option<Outcome>, ActError> {
        let name = autoscaler.name_any();
        self.not_owned(&autoscaler.metadata, Some(&format!("HorizontalPodAutoscaler {name}")))?;
        let Some(minimum) = minimum(&autoscaler, scaling)? else { return Ok(Some(Outcome::AlreadyDone)) };
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), workload.namespace);
        let params = PatchParams { field_manager: Some(REMEDIATION_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": autoscaler.metadata.resource_version},
            "spec": {"minReplicas": minimum},
        }));
        match limited(Call::PATCH_AUTOSCALER, api.patch(&name, &params, &patch)).await {
            Ok(written) => Ok(Some(Outcome::Done { generation: written.metadata.generation.unwrap_or(0) })),
            Err(ActError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The one that has the number of pods.
    ///
    /// # Errors
    /// See [`ActError`]; Forbidden when that cannot be seen.
    pub(super) async fn autoscaler(
        &self,
        workload: WorkloadRef<'_>,
    ) -> Result<Option<HorizontalPodAutoscaler>, ActError> {
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), workload.namespace);
        let params = ListParams::default().limit(MAX_AUTOSCALERS);
        let kind: &'static str = workload.kind.into();
        let all = limited(Call::list("horizontalpodautoscalers"), api.list(&params)).await?;
        let its = |one: &HorizontalPodAutoscaler| {
            let target = one.spec.as_ref().map(|spec| &spec.scale_target_ref);
            target.is_some_and(|target| target.kind == kind && target.name == workload.name)
        };
        Ok(all.items.into_iter().find(its))
    }
}

/// The minReplicas to be written; none when it is that high already.
///
/// # Errors
/// Autoscaled, when the number of pods is the autoscaler's alone.
fn minimum(autoscaler: &HorizontalPodAutoscaler, scaling: Scaling) -> Result<Option<u32>, ActError> {
    let spec = autoscaler.spec.clone().unwrap_or_default();
    let name = autoscaler.name_any();
    if !scaling.adjust_autoscaler {
        return Err(ActError::Autoscaled(format!(
            "HorizontalPodAutoscaler {name} has the number of pods; raise its limits, or set scale.adjustAutoscaler to let its minReplicas be raised"
        )));
    }
    if scaling.to < scaling.from {
        let why = format!("HorizontalPodAutoscaler {name} has the number of pods, and scales down by itself");
        return Err(ActError::Autoscaled(why));
    }
    let has = u32::try_from(spec.min_replicas.unwrap_or(1)).unwrap_or(0);
    let wanted = scaling.to.min(u32::try_from(spec.max_replicas).unwrap_or(0));
    if wanted <= scaling.from && has < scaling.from {
        return Err(ActError::Autoscaled(format!(
            "HorizontalPodAutoscaler {name} is at its maxReplicas, {}, already; raise that",
            spec.max_replicas
        )));
    }
    Ok((has < wanted).then_some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_autoscalers_minimum_is_raised_only_when_that_is_allowed_and_helps() {
        let of = |min: Option<i32>, from: u32, to: u32, adjust_autoscaler: bool| {
            let spec =
                json!({"minReplicas": min, "maxReplicas": 6, "scaleTargetRef": {"kind": "Deployment", "name": "api"}});
            let autoscaler = serde_json::from_value(json!({"metadata": {"name": "api"}, "spec": spec})).unwrap();
            minimum(&autoscaler, Scaling { from, to, adjust_autoscaler }).map_err(|error| error.to_string())
        };
        assert_eq!([of(Some(2), 3, 5, true), of(None, 3, 9, true)], [Ok(Some(5)), Ok(Some(6))]);
        assert_eq!(of(Some(5), 3, 5, true), Ok(None), "written already");
        for (answer, words) in [
            (of(Some(2), 3, 5, false), "set scale.adjustAutoscaler"),
            (of(Some(2), 3, 2, true), "scales down by itself"),
            (of(Some(2), 6, 8, true), "at its maxReplicas, 6, already"),
        ] {
            assert!(answer.clone().is_err_and(|why| why.contains(words)), "{answer:?}");
        }
    }
}
