//! From a proposal to a Remediation: the intent, stored before anything is done.

use kube::{
    Api, Resource as _,
    api::{ObjectMeta, PostParams},
};

use super::{Context, Error, events::EventReason, limited};
use crate::api::{
    ActionPlan, COMPONENT_LABEL, HealingPolicy, LEDGER_FINALIZER, POLICY_LABEL, POLICY_MANAGER, Remediation,
    RemediationSpec, ValidPolicy,
};

/// Stores each intent as a Remediation. One that exists already is the same intent, stored before a crash.
pub(super) async fn propose(
    ctx: &Context,
    policy: &HealingPolicy,
    valid: &ValidPolicy,
    plans: &[ActionPlan],
) -> Result<(), Error> {
    let api: Api<Remediation> = Api::namespaced(ctx.client.clone(), &valid.namespace);
    let params = PostParams { field_manager: Some(POLICY_MANAGER.into()), ..PostParams::default() };
    for plan in plans {
        let remediation = remediation_for(policy, valid, plan);
        match limited("create the remediation", api.create(&params, &remediation)).await {
            Ok(created) => {
                let note = format!("{}: {}", plan.action, plan.why);
                ctx.events.about_remediation(&created, EventReason::RemediationCreated, &note).await;
            }
            Err(Error::Api { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.is_already_exists()) =>
                {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn remediation_for(policy: &HealingPolicy, valid: &ValidPolicy, plan: &ActionPlan) -> Remediation {
    let labels = [(POLICY_LABEL, &valid.name), (COMPONENT_LABEL, &plan.component)];
    let metadata = ObjectMeta {
        name: Some(plan.name()),
        namespace: Some(valid.namespace.clone()),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect()),
        owner_references: policy.controller_owner_ref(&()).map(|owner| vec![owner]),
        finalizers: Some(vec![LEDGER_FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    };
    Remediation { metadata, spec: RemediationSpec { plan: plan.clone(), approval: None }, status: None }
}
