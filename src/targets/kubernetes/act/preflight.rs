//! Before an action starts: would the API server allow it?

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, api::PostParams};
use serde_json::Value;

use super::{ActError, Call, Kubernetes, OnWorkload, config::Named, limited};
use crate::api::{ActionKind, ConfigRollback, TemplateRef, WorkloadKind};

impl Kubernetes {
    /// Forbidden, with the missing verb.
    pub(in crate::targets::kubernetes) async fn may(&self, call: Call, namespace: &str) -> Result<(), ActError> {
        let (resource, subresource) =
            call.resource.split_once('/').map_or((call.resource, None), |(resource, sub)| (resource, Some(sub)));
        let attributes = ResourceAttributes {
            group: Some(call.group().to_owned()),
            resource: Some(resource.to_owned()),
            subresource: subresource.map(str::to_owned),
            verb: Some(call.verb.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let answer = limited(Call::create("selfsubjectaccessreviews"), api.create(&params, &review)).await?;
        let Some(status) = answer.status else { return Ok(()) };
        if status.allowed {
            return Ok(());
        }
        let place = if namespace.is_empty() { "all namespaces".to_owned() } else { format!("namespace {namespace}") };
        let reason = status.reason.filter(|reason| !reason.is_empty());
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let value = call.granted_by();
        Err(call.forbidden(format!(
            "the operator's role does not grant this in {place}{reason}; the chart's value {value} does"
        )))
    }
}

impl OnWorkload<'_> {
    /// Whether the operator's role, PodDisruptionBudgets and the owners of configuration allow this action now, and
    /// whether the snapshot to restore exists. Writes nothing.
    pub async fn preflight(
        &self,
        action: ActionKind,
        (from, to): (Option<&TemplateRef>, Option<&TemplateRef>),
        config: Option<(&ConfigRollback, &Named)>,
    ) -> Result<(), ActError> {
        let patch = Call::patch(self.workload.kind.plural());
        match action {
            ActionKind::RollbackConfig | ActionKind::RollbackState => {
                self.may(patch, self.workload.namespace).await?;
                if let (ActionKind::RollbackState, Some(to), Some((config, _))) = (action, to, config) {
                    self.snapshot_state(self.workload.namespace, config, to).await?;
                }
                if let Some((config, named)) = config.filter(|(config, _)| !config.objects.is_empty()) {
                    for kind in config.objects.iter().map(|change| change.kind).collect::<BTreeSet<_>>() {
                        self.may(Call::patch(kind.plural()), self.workload.namespace).await?;
                    }
                    self.config_writes(config, named).await?;
                }
                Ok(())
            }
            ActionKind::Rollback | ActionKind::Restart => {
                self.may(patch, self.workload.namespace).await?;
                if (self.workload.kind, action) == (WorkloadKind::Rollout, ActionKind::Rollback) {
                    self.may(Call::PATCH_ROLLOUT_STATUS, self.workload.namespace).await?;
                }
                Ok(())
            }
            ActionKind::CleanupMemory => {
                self.may(Call::EVICT_POD, self.workload.namespace).await?;
                self.preflight_eviction(from).await
            }
            // See `preflight_job` and `preflight_scale`.
            ActionKind::Job
            | ActionKind::Webhook
            | ActionKind::Mcp
            | ActionKind::Scale
            | ActionKind::RecoverConnections
            | ActionKind::ReleaseConnections
            | ActionKind::CancelQueries
            | ActionKind::Failover => Ok(()),
        }
    }

    /// Whether the images of the new pods can be pulled, as far as the API shows. `unpulled`: images that pods fail to
    /// pull, each with such a pod. `to`: the template to restore; none: the current one.
    pub async fn preflight_images(
        &self,
        to: Option<&TemplateRef>,
        unpulled: &BTreeMap<String, String>,
    ) -> Result<(), ActError> {
        if unpulled.is_empty() {
            return Ok(());
        }
        let live = self.read_any().await?;
        let template = match to {
            None => live.template,
            Some(to) => {
                let history = self.history(&live).await?;
                let Some(past) = history.into_iter().find(|past| past.hash == to.hash) else { return Ok(()) };
                past.template
            }
        };
        match images(&template).find_map(|image| unpulled.get_key_value(image)) {
            Some((image, pod)) => Err(ActError::ImageUnavailable(format!(
                "new pods would need the image {image}, which cannot be pulled now: pod {pod} waits for the image; restore the registry, its credentials or the image"
            ))),
            None => Ok(()),
        }
    }
}

fn images(template: &Value) -> impl Iterator<Item = &str> {
    let containers = ["initContainers", "containers"].into_iter().filter_map(|list| template["spec"][list].as_array());
    containers.flatten().filter_map(|container| container["image"].as_str())
}
