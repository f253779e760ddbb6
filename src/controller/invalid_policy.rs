//! Policies that cannot be used: not valid, not readable, or stored by a CRD that is older than the operator.
//!
//! Guarantees: `Ready`, an event and the log say why and how to correct it; until then health checks and actions are
//! paused, and the components' status stays as it was.

use parking_lot::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams},
    runtime::controller::Action,
};
use serde::de::DeserializeOwned;

use super::{
    Context, Error,
    events::EventReason,
    limited,
    memory::PolicyMemory,
    policy::{report_once, write_status},
    status::{StatusInput, Unusable, unusable_status},
    unless_outdated,
};
use crate::api::{HealingPolicy, HealingPolicySpec, HealingPolicyStatus, Invalid, POLICY_MANAGER};

/// Between two attempts when no watch event may come: a status was corrected, or a CRD updated.
const RETRY: Duration = Duration::from_secs(15);
/// Key of [`PolicyMemory::reported`], forgotten when the status can be written again.
pub(super) const OUTDATED: &str = "outdated";

/// The spec holds mistakes that concern the whole policy.
pub(super) async fn invalid(
    ctx: &Context,
    policy: &HealingPolicy,
    memory: &Mutex<PolicyMemory>,
    mistakes: &[Invalid],
) -> Result<Action, Error> {
    let why = Unusable::invalid(mistakes);
    let old = policy.status.clone().unwrap_or_default();
    let status = status_of(ctx, policy, &old, &why);
    write_status(ctx, policy, &old, status, memory).await?;
    let note = format!("{}; health checks are paused until the spec is corrected", why.message);
    report_once(ctx, policy, memory, "invalid", EventReason::InvalidSpec, "", note).await;
    Ok(Action::await_change())
}

/// Stored under another version of the CRD, or in a way that bypassed its validation.
pub(super) async fn unreadable(
    ctx: &Context,
    metadata: &ObjectMeta,
    memory: &Mutex<PolicyMemory>,
) -> Result<Action, Error> {
    let (namespace, name) = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
    let Some((raw, mistake)) = mistake_in::<HealingPolicy>(ctx.client.clone(), &namespace, &name).await? else {
        // Corrected in the meantime: the watch brings it, or has brought it.
        return Ok(Action::requeue(Duration::from_secs(1)));
    };
    let place = if mistake.starts_with("status") { " --subresource=status" } else { "" };
    let message = format!(
        "the stored object cannot be read: {mistake}; correct it with: kubectl edit hp {name} -n {namespace}{place} (or apply it again)"
    );
    // Only the conditions are needed of the status; the rest may be unreadable.
    let conditions = raw.data.pointer("/status/conditions").cloned().unwrap_or_default();
    let old = HealingPolicyStatus {
        conditions: serde_json::from_value(conditions).unwrap_or_default(),
        ..HealingPolicyStatus::default()
    };
    // A spec that cannot be read is not needed: the object is only named.
    let policy = HealingPolicy { metadata: raw.metadata, spec: HealingPolicySpec::default(), status: None };
    let why = Unusable { reason: "InvalidSpec", message, doing: "Invalid" };
    write_conditions(ctx, &policy, &old, &why).await?;
    memory.lock().last_written = None;
    let note = format!("{}; health checks are paused until then", why.message);
    report_once(ctx, &policy, memory, "invalid", EventReason::InvalidSpec, "", note).await;
    Ok(Action::requeue(RETRY))
}

/// The installed CRD lacks a field, so the status cannot be stored; and no action may be based on facts that are not
/// stored, such as the last known good template.
pub(super) async fn outdated(
    ctx: &Context,
    policy: &HealingPolicy,
    memory: &Mutex<PolicyMemory>,
    error: &Error,
) -> Result<Action, Error> {
    let old = memory.lock().last_written.clone().or_else(|| policy.status.clone()).unwrap_or_default();
    let why = Unusable { reason: "OutdatedCrd", message: error.to_string(), doing: "OutdatedCrd" };
    let status = write_conditions(ctx, policy, &old, &why).await?;
    memory.lock().last_written = Some(status);
    let note = format!("{}; no action is taken until then", why.message);
    report_once(ctx, policy, memory, OUTDATED, EventReason::OutdatedCrd, "", note).await;
    Ok(Action::requeue(RETRY))
}

fn status_of(ctx: &Context, policy: &HealingPolicy, old: &HealingPolicyStatus, why: &Unusable) -> HealingPolicyStatus {
    let ledger = ctx.ledger.health().borrow().clone();
    let generation = policy.metadata.generation;
    unusable_status(&StatusInput { old, generation, now: Timestamp::now(), ledger: &ledger, open: &[] }, why)
}

/// Writes conditions and summary alone, by a merge patch, which does not depend on the rest of the CRD's schema:
/// server-side apply would be refused, and would remove the fields that it does not name.
async fn write_conditions(
    ctx: &Context,
    policy: &HealingPolicy,
    old: &HealingPolicyStatus,
    why: &Unusable,
) -> Result<HealingPolicyStatus, Error> {
    let status = status_of(ctx, policy, old, why);
    if old.conditions == status.conditions {
        return Ok(status);
    }
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    let kind = ApiResource::erase::<HealingPolicy>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &namespace, &kind);
    let patch = Patch::Merge(serde_json::json!({"metadata": {"uid": policy.metadata.uid}, "status": {
        "observedGeneration": status.observed_generation, "conditions": status.conditions, "summary": status.summary,
    }}));
    let params = PatchParams { field_manager: Some(POLICY_MANAGER.into()), ..PatchParams::default() };
    let written = limited("write the policy's conditions", api.patch_status(&name, &params, &patch)).await;
    if unless_outdated(written)?.is_some() {
        ctx.metrics.status_write();
    }
    Ok(status)
}

/// The object as it is stored, and which of its fields cannot be read and why; none when it can be, or does not exist.
pub(super) async fn mistake_in<K>(
    client: Client,
    namespace: &str,
    name: &str,
) -> Result<Option<(DynamicObject, String)>, Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &ApiResource::erase::<K>(&()));
    let Some(raw) = limited("read the object as it is stored", api.get_opt(name)).await? else { return Ok(None) };
    let value = serde_json::to_value(&raw).unwrap_or_default();
    Ok(serde_path_to_error::deserialize::<_, K>(value).err().map(|mistake| (raw, mistake.to_string())))
}
