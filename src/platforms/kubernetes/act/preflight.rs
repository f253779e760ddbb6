//! Asked before an action is begun: would the API server let it be done?

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, api::PostParams};

use super::{ActError, Call, Kubernetes, WorkloadRef, config::Named, limited};
use crate::api::{ActionKind, ConfigRollback, TemplateRef};

impl Kubernetes {
    /// Whether the operator's role, the pods' disruption budgets and the owners of configuration let this action be done now.
    /// Writes nothing.
    ///
    /// # Errors
    /// Forbidden, Budget, Immutable, Shared, Overwritten or GitOpsOwned when they do not; else what else is in the way, see [`ActError`].
    pub async fn preflight(
        &self,
        workload: WorkloadRef<'_>,
        action: ActionKind,
        from: Option<&TemplateRef>,
        config: Option<(&ConfigRollback, &Named)>,
    ) -> Result<(), ActError> {
        match action {
            ActionKind::RollbackConfig | ActionKind::RollbackPreviousState => {
                self.may(Call::patch(workload.kind), workload.namespace).await?;
                if let Some((to, named)) = config.filter(|(to, _)| !to.objects.is_empty()) {
                    for kind in to.objects.iter().map(|change| change.kind).collect::<BTreeSet<_>>() {
                        self.may(Call::patch_config(kind), workload.namespace).await?;
                    }
                    self.config_writes(workload, to, named).await?;
                }
                Ok(())
            }
            // See `could_run` and `could_scale`.
            ActionKind::Job | ActionKind::Webhook | ActionKind::Scale => Ok(()),
            ActionKind::RollbackDeployment | ActionKind::Restart => {
                self.may(Call::patch(workload.kind), workload.namespace).await
            }
            ActionKind::CleanupMemory => {
                self.may(Call::EVICT_POD, workload.namespace).await?;
                self.could_recycle(workload, from).await
            }
        }
    }

    /// # Errors
    /// Forbidden, with the missing verb.
    pub(in crate::platforms::kubernetes) async fn may(&self, call: Call, namespace: &str) -> Result<(), ActError> {
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
                "the operator's role does not grant it in {}{}; see rbac in the chart's values",
                if namespace.is_empty() { "all namespaces".to_owned() } else { format!("namespace {namespace}") },
                status
                    .reason
                    .filter(|reason| !reason.is_empty())
                    .map(|reason| format!(" ({reason})"))
                    .unwrap_or_default()
            ))),
            _ => Ok(()),
        }
    }
}
