//! More or fewer pods; where an autoscaler controls their number, its minimum, if that is allowed.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{
    ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{ActError, Call, OnWorkload, Outcome, limited, unless_conflict, until_written};
use crate::api::{REMEDIATION_MANAGER, Scaling, TemplateRef};

/// Autoscalers read of one namespace.
const MAX_AUTOSCALERS: u32 = 500;

impl OnWorkload<'_> {
    /// Whether the operator's role and an autoscaler allow the scaling. Writes nothing.
    pub async fn preflight_scale(&self, scaling: Scaling) -> Result<(), ActError> {
        match self.autoscaler().await? {
            Some(autoscaler) => {
                minimum(&autoscaler, scaling)?;
                self.may(Call::PATCH_AUTOSCALER, self.workload.namespace).await
            }
            None => self.may(Call::patch(self.workload.kind.plural()), self.workload.namespace).await,
        }
    }

    /// Sets the number of pods to `scaling.to`, if it is `scaling.from` and the template `from` runs.
    ///
    /// # Errors
    /// Rescaled when another writer scaled the workload in the meantime.
    pub async fn scale(&self, from: Option<&TemplateRef>, scaling: Scaling) -> Result<Outcome, ActError> {
        until_written(Call::patch(self.workload.kind.plural()), || async {
            match self.autoscaler().await? {
                Some(autoscaler) => self.raise(autoscaler, scaling).await,
                None => self.write_once(self.scale_patch(from, scaling).await?).await,
            }
        })
        .await
    }

    /// Whether [`Self::scale`] has written already. Writes nothing.
    pub async fn is_scaled(&self, from: Option<&TemplateRef>, scaling: Scaling) -> Result<bool, ActError> {
        match self.autoscaler().await? {
            Some(autoscaler) => Ok(minimum(&autoscaler, scaling)?.is_none()),
            None => Ok(self.scale_patch(from, scaling).await?.is_none()),
        }
    }

    /// None when the number was written already.
    async fn scale_patch(&self, from: Option<&TemplateRef>, scaling: Scaling) -> Result<Option<Value>, ActError> {
        let live = self.read().await?;
        self.not_owned(&live.metadata, None)?;
        // The default is 1.
        let pods = live.replicas.as_u64().unwrap_or(1);
        if pods == u64::from(scaling.to) {
            return Ok(None);
        }
        live.must_be(from)?;
        if pods != u64::from(scaling.from) {
            return Err(ActError::Rescaled { expected: scaling.from, found: pods });
        }
        Ok(Some(live.merge(json!({"spec": {"replicas": scaling.to}}))))
    }

    /// Raises the minimum of the autoscaler. None on a conflict.
    async fn raise(&self, autoscaler: HorizontalPodAutoscaler, scaling: Scaling) -> Result<Option<Outcome>, ActError> {
        let name = autoscaler.name_any();
        self.not_owned(&autoscaler.metadata, Some(&format!("HorizontalPodAutoscaler {name}")))?;
        let Some(minimum) = minimum(&autoscaler, scaling)? else { return Ok(Some(Outcome::AlreadyDone)) };
        let api = self.namespaced::<HorizontalPodAutoscaler>(self.workload.namespace);
        let params = PatchParams::apply(REMEDIATION_MANAGER);
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": autoscaler.metadata.resource_version},
            "spec": {"minReplicas": minimum},
        }));
        let written = unless_conflict(limited(Call::PATCH_AUTOSCALER, api.patch(&name, &params, &patch)).await)?;
        Ok(written.map(|written| Outcome::Done { generation: written.metadata.generation.unwrap_or(0) }))
    }

    /// The autoscaler that controls the number of pods.
    pub(super) async fn autoscaler(&self) -> Result<Option<HorizontalPodAutoscaler>, ActError> {
        let api = self.namespaced::<HorizontalPodAutoscaler>(self.workload.namespace);
        let params = ListParams::default().limit(MAX_AUTOSCALERS);
        let kind: &'static str = self.workload.kind.into();
        let all = limited(Call::list("horizontalpodautoscalers"), api.list(&params)).await?;
        let its = |one: &HorizontalPodAutoscaler| {
            let target = one.spec.as_ref().map(|spec| &spec.scale_target_ref);
            target.is_some_and(|target| target.kind == kind && target.name == self.workload.name)
        };
        Ok(all.items.into_iter().find(its))
    }
}

/// The minReplicas to write; none when the autoscaler has at least as many already. Autoscaled when the autoscaler must not
/// be changed, or a change has no effect.
fn minimum(autoscaler: &HorizontalPodAutoscaler, scaling: Scaling) -> Result<Option<u32>, ActError> {
    let spec = autoscaler.spec.clone().unwrap_or_default();
    let name = autoscaler.name_any();
    if !scaling.adjust_autoscaler {
        return Err(ActError::Autoscaled(format!(
            "HorizontalPodAutoscaler {name} controls the number of pods; raise its limits, or set scale.adjustAutoscaler to allow raising its minReplicas"
        )));
    }
    if scaling.to < scaling.from {
        let why = format!("HorizontalPodAutoscaler {name} controls the number of pods and scales down automatically");
        return Err(ActError::Autoscaled(why));
    }
    let has = u32::try_from(spec.min_replicas.unwrap_or(1)).unwrap_or(0);
    let desired = scaling.to.min(u32::try_from(spec.max_replicas).unwrap_or(0));
    if desired <= scaling.from && has < scaling.from {
        return Err(ActError::Autoscaled(format!(
            "HorizontalPodAutoscaler {name} is at its maxReplicas, {}, already; raise maxReplicas",
            spec.max_replicas
        )));
    }
    Ok((has < desired).then_some(desired))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_autoscalers_minimum_is_raised_only_when_allowed_and_useful() {
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
            (of(Some(2), 3, 2, true), "scales down automatically"),
            (of(Some(2), 6, 8, true), "at its maxReplicas, 6, already"),
        ] {
            assert!(answer.clone().is_err_and(|why| why.contains(words)), "{answer:?}");
        }
    }
}
