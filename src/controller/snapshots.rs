//! Copies of states that were seen healthy: made when a state is new, removed when it is too old to go back to.

use parking_lot::Mutex;
use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use kube::Resource as _;
use uuid::Uuid;

use super::{Context, memory::PolicyMemory};
use crate::{
    analyze::tracker::{GoodState, MAX_SNAPSHOTS},
    api::{
        COMPONENT_LABEL, ConfigKind, ConfigObject, HealingPolicy, POLICY_LABEL, ValidComponent, ValidPolicy,
        ValidTarget, milliseconds,
    },
    targets::{
        kubernetes::{ActError, SnapshotOf, WorkloadRef},
        providers::HostedService,
    },
};

/// Between two tries to keep a copy of the same component; when it is not allowed, the longer one.
const RETRY: SignedDuration = SignedDuration::from_secs(5);
const RETRY_REFUSED: SignedDuration = SignedDuration::from_mins(10);
/// Fixed for ever: names of copies are kept in statuses.
const NAMESPACE: Uuid = Uuid::from_u128(0x52f6_1c04_8d37_4d0b_a6c1_93b5_70de_4e2f);

/// Copies of one policy that are made, or wait for their turn, at the same time.
const AT_ONCE: usize = 4;

/// Keeps what is good and not kept yet, for components whose ladder goes back to it.
pub(super) async fn keep(ctx: &Context, policy: &HealingPolicy, valid: &ValidPolicy, memory: &Mutex<PolicyMemory>) {
    let now = Timestamp::now();
    let due: Vec<(usize, GoodState)> = {
        let mut memory = memory.lock();
        let going_back = valid.components.iter().enumerate().filter(|(_, component)| goes_back(component));
        going_back
            .filter_map(|(index, component)| {
                let entry = memory.components.get_mut(&component.name)?;
                let due = entry.snapshot_due.is_none_or(|due| due <= now);
                let good = entry.tracker.without_snapshot().filter(|_| due)?;
                entry.snapshot_due = Some(now + RETRY_REFUSED);
                Some((index, good))
            })
            .collect()
    };
    stream::iter(due)
        .map(|(index, good)| async move { snapshot_one(ctx, policy, valid, memory, &valid.components[index], good).await })
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
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
    let copy = SnapshotOf { name: name.clone(), labels: labels.clone(), owner };
    let kubernetes = &ctx.targets.kubernetes;
    let namespace = &valid.namespace;
    let kept = match (&component.target, ctx.targets.hosted(&component.target)) {
        (ValidTarget::Workload { kind, name }, _) => {
            kubernetes.keep(WorkloadRef { kind: *kind, namespace, name }, copy, &good).await
        }
        (_, Ok(Some(HostedService::Render(render, service)))) => render.keep(namespace, service, copy, &good).await,
        _ => return,
    };
    let names: Vec<String> = {
        let mut memory = memory.lock();
        let Some(entry) = memory.components.get_mut(&component.name) else { return };
        match &kept {
            Ok(()) => {
                entry.snapshot_due = None;
                entry.tracker.note_snapshot(good, name, milliseconds(Timestamp::now()));
            }
            // What changed just now is judged anew first.
            Err(error) if error.retryable() || matches!(error, ActError::Superseded { .. }) => {
                entry.snapshot_due = Some(Timestamp::now() + RETRY);
            }
            Err(_) => {}
        }
        entry.tracker.snapshots().iter().map(|kept| kept.name.clone()).collect()
    };
    if let Err(error) = kept {
        tracing::warn!(
            namespace = valid.namespace, policy = valid.name, component = component.name, %error,
            "the good state is not kept yet, so it cannot be put back from a copy; tried again"
        );
    } else if names.len() == MAX_SNAPSHOTS
        && let Err(error) = kubernetes.delete_old_snapshots(&valid.namespace, &labels, &names).await
    {
        tracing::info!(namespace = valid.namespace, policy = valid.name, %error, "old copies were not removed");
    }
}

fn goes_back(component: &ValidComponent) -> bool {
    component.remedies.iter().any(|remedy| remedy.action.needs_config())
}

/// The same state of the same policy has the same name: a copy that was made before a crash is found again.
fn name_of(policy: &ValidPolicy, component: &ValidComponent, good: &GoodState) -> String {
    let mut parts = vec![policy.uid.as_str(), &component.name, &good.template];
    let secrets = |object: &&ConfigObject| object.kind == ConfigKind::Secret;
    // Set off from ConfigMaps, whose names of copies are older than this.
    let maps = good.objects.iter().filter(|object| !secrets(object));
    parts.extend(maps.flat_map(|object| [object.name.as_str(), &object.digest]));
    let secrets = good.objects.iter().filter(secrets);
    parts.extend(secrets.flat_map(|object| ["Secret", object.name.as_str(), &object.digest]));
    let id = Uuid::new_v5(&NAMESPACE, parts.join("\0").as_bytes()).simple().to_string();
    format!("panacea-{}-{}", component.name, &id[..10])
}
