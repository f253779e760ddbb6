//! Asked before an action is begun: would the API server let it be done?

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, api::PostParams};
use serde_json::Value;

use super::{ActError, Call, Kubernetes, WorkloadRef, config::Named, limited};
use crate::api::{ActionKind, ConfigRollback, TemplateRef, WorkloadKind};

impl Kubernetes {
    /// Whether the operator's role, the pods' disruption budgets and the owners of configuration let this action be done now,
    /// and the copy that it goes back to is there. Writes nothing.
    ///
    /// # Errors
    /// Forbidden, Budget, Immutable, Shared, Overwritten, GitOpsOwned or TargetGone when they do not; else what else is in the
    /// way, see [`ActError`].
    pub async fn preflight(
        &self,
        workload: WorkloadRef<'_>,
        action: ActionKind,
        (from, to): (Option<&TemplateRef>, Option<&TemplateRef>),
        config: Option<(&ConfigRollback, &Named)>,
    ) -> Result<(), ActError> {
        match action {
            ActionKind::RollbackConfig | ActionKind::RollbackState => {
                self.may(Call::patch(workload.kind), workload.namespace).await?;
                if let (ActionKind::RollbackState, Some(to), Some((config, _))) = (action, to, config) {
                    self.snapshot_state(workload.namespace, config, to).await?;
                }
                if let Some((config, named)) = config.filter(|(config, _)| !config.objects.is_empty()) {
                    for kind in config.objects.iter().map(|change| change.kind).collect::<BTreeSet<_>>() {
                        self.may(Call::patch_config(kind), workload.namespace).await?;
                    }
                    self.config_writes(workload, config, named).await?;
                }
                Ok(())
            }
            // See `preflight_job` and `preflight_scale`.
            ActionKind::Job | ActionKind::Webhook | ActionKind::Mcp | ActionKind::Scale => Ok(()),
            ActionKind::RecoverConnections
            | ActionKind::ReleaseConnections
            | ActionKind::CancelQueries
            | ActionKind::Failover => Ok(()),
            ActionKind::Rollback | ActionKind::Restart => {
                self.may(Call::patch(workload.kind), workload.namespace).await?;
                if (workload.kind, action) == (WorkloadKind::Rollout, ActionKind::Rollback) {
                    self.may(Call::PATCH_ROLLOUT_STATUS, workload.namespace).await?;
                }
                Ok(())
            }
            ActionKind::CleanupMemory => {
                self.may(Call::EVICT_POD, workload.namespace).await?;
                self.preflight_eviction(workload, from).await
            }
        }
    }

    /// Whether the images that its pods would have can be pulled, as far as the API tells: `unpulled` are those that pods
    /// wait for in vain. `to`: the template that is put back; none: the one that is there.
    ///
    /// # Errors
    /// ImageUnavailable when one of them is among those; else see [`ActError`].
    pub async fn preflight_images(
        &self,
        workload: WorkloadRef<'_>,
        to: Option<&TemplateRef>,
        unpulled: &BTreeMap<String, String>,
    ) -> Result<(), ActError> {
        if unpulled.is_empty() {
            return Ok(());
        }
        let live = self.read_any(workload).await?;
        let template = match to {
            None => live.template,
            Some(to) => {
                let history = self.history(workload, &live).await?;
                let Some(past) = history.into_iter().find(|past| past.hash == to.hash) else { return Ok(()) };
                past.template
            }
        };
        match images(&template).find_map(|image| unpulled.get_key_value(image)) {
            Some((image, pod)) => Err(ActError::ImageUnavailable(format!(
                "new pods would need the image {image}, which cannot be pulled now: pod {pod} waits for it; bring the registry, its credentials or the image back"
            ))),
            None => Ok(()),
        }
    }

    /// # Errors
    /// Forbidden, with the missing verb.
    pub(in crate::targets::kubernetes) async fn may(&self, call: Call, namespace: &str) -> Result<(), ActError> {
        const ASK: Call = Call::ASK_ACCESS;
        let (resource, subresource) = call.resource();
        let attributes = ResourceAttributes {
            group: Some(call.group().to_owned()),
            resource: Some(resource.to_owned()),
            subresource: subresource.map(str::to_owned),
            verb: Some(call.verb().to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = limited(ASK, api.create(&PostParams::default(), &review)).await?;
        match answer.status {
            Some(status) if !status.allowed => Err(call.forbidden(format!(
                "the operator's role does not grant it in {}{}; the chart's value {} does",
                if namespace.is_empty() { "all namespaces".to_owned() } else { format!("namespace {namespace}") },
                status
                    .reason
                    .filter(|reason| !reason.is_empty())
                    .map(|reason| format!(" ({reason})"))
                    .unwrap_or_default(),
                call.granted_by()
            ))),
            _ => Ok(()),
        }
    }
}

fn images(template: &Value) -> impl Iterator<Item = &str> {
    let containers = ["initContainers", "containers"].into_iter().filter_map(|list| template["spec"][list].as_array());
    containers.flatten().filter_map(|container| container["image"].as_str())
}
