//! Snapshots of healthy states: stored when a state is new, deleted when it is too old for a rollback.

use parking_lot::Mutex;
use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use kube::Resource as _;
use uuid::Uuid;

use super::{Context, memory::PolicyMemory};
use crate::{
    analyze::tracker::{GoodState, MAX_SNAPSHOTS},
    api::{COMPONENT_LABEL, ConfigKind, HealingPolicy, POLICY_LABEL, ValidComponent, ValidPolicy},
    targets::kubernetes::{ActError, SnapshotOf},
};

/// Between two attempts at a snapshot of the same component; the longer one after a refusal.
const RETRY: SignedDuration = SignedDuration::from_secs(5);
const RETRY_REFUSED: SignedDuration = SignedDuration::from_mins(10);
/// Fixed for ever: statuses hold the names of snapshots.
const NAMESPACE: Uuid = Uuid::from_u128(0x52f6_1c04_8d37_4d0b_a6c1_93b5_70de_4e2f);

/// Snapshots of one policy that are stored at the same time.
const AT_ONCE: usize = 4;

/// Stores the good states that have no snapshot yet, for components whose remedies need snapshots.
pub(super) async fn keep(ctx: &Context, policy: &HealingPolicy, valid: &ValidPolicy, memory: &Mutex<PolicyMemory>) {
    let now = Timestamp::now();
    let due: Vec<(usize, GoodState)> = {
        let mut memory = memory.lock();
        let due = valid.components.iter().enumerate().filter_map(|(index, component)| {
            component.remedies.iter().find(|remedy| remedy.action.kind().needs_snapshots())?;
            let entry = memory.components.get_mut(&component.name)?;
            let due = entry.snapshot_due.is_none_or(|due| due <= now);
            let good = entry.tracker.without_snapshot().filter(|_| due)?;
            entry.snapshot_due = Some(now + RETRY_REFUSED);
            Some((index, good))
        });
        due.collect()
    };
    let stored = stream::iter(due)
        .map(|(index, good)| snapshot_one(ctx, policy, valid, memory, &valid.components[index], good))
        .buffer_unordered(AT_ONCE);
    stored.collect::<()>().await;
}

async fn snapshot_one(
    ctx: &Context,
    policy: &HealingPolicy,
    valid: &ValidPolicy,
    memory: &Mutex<PolicyMemory>,
    component: &ValidComponent,
    good: GoodState,
) {
    let Some(owner) = policy.controller_owner_ref(&()) else { return };
    let labels = [(POLICY_LABEL, &valid.name), (COMPONENT_LABEL, &component.name)];
    let labels: BTreeMap<String, String> = labels.map(|(key, value)| (key.to_owned(), value.clone())).into();
    let name = name_of(valid, component, &good);
    let snapshot = SnapshotOf { name: name.clone(), labels: labels.clone(), owner };
    let Ok(target) = ctx.targets.target(&component.target) else { return };
    let Some(stored) = target.snapshot(&valid.namespace, snapshot, &good).await else { return };
    let names: Vec<String> = {
        let mut memory = memory.lock();
        let Some(entry) = memory.components.get_mut(&component.name) else { return };
        match &stored {
            Ok(()) => {
                entry.snapshot_due = None;
                entry.tracker.note_snapshot(good, name, crate::api::milliseconds(Timestamp::now()));
            }
            // A state that changed just now is assessed again first.
            Err(error) if error.retryable() || matches!(error, ActError::Superseded { .. }) => {
                entry.snapshot_due = Some(Timestamp::now() + RETRY);
            }
            Err(_) => {}
        }
        entry.tracker.snapshots().iter().map(|kept| kept.name.clone()).collect()
    };
    if let Err(error) = stored {
        tracing::warn!(
            namespace = valid.namespace, policy = valid.name, component = component.name, %error,
            "the snapshot of the good state could not be stored, so the state cannot be restored yet; retrying"
        );
    } else if names.len() == MAX_SNAPSHOTS
        && let Err(error) = ctx.targets.kubernetes.delete_old_snapshots(&valid.namespace, &labels, &names).await
    {
        tracing::info!(namespace = valid.namespace, policy = valid.name, %error, "old snapshots could not be deleted");
    }
}

/// The same state of the same policy has the same name: a snapshot from before a crash is found again.
fn name_of(policy: &ValidPolicy, component: &ValidComponent, good: &GoodState) -> String {
    let mut parts = vec![policy.uid.as_str(), &component.name, &good.template];
    let (secrets, maps): (Vec<_>, Vec<_>) = good.objects.iter().partition(|object| object.kind == ConfigKind::Secret);
    parts.extend(maps.into_iter().flat_map(|object| [object.name.as_str(), &object.digest]));
    // With a prefix: the names of snapshots of ConfigMaps alone must not change.
    parts.extend(secrets.into_iter().flat_map(|object| ["Secret", object.name.as_str(), &object.digest]));
    let id = Uuid::new_v5(&NAMESPACE, parts.join("\0").as_bytes()).simple().to_string();
    format!("panacea-{}-{}", component.name, &id[..10])
}
