//! The policy controller: one reconciliation is one round of looks at the components that are due.
//!
//! Expected flow: observe → analyze → update status → plan → propose → record.
//! Guarantees: nothing outside is changed but the policy's own status, events, and Remediations (which are intents);
//! an incident is in the status before a Remediation names it; nothing is written when nothing changed.

use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{controller::Action, reflector::Store},
};

use super::{
    Context, Error, GuardedRemediation, backfill,
    check::{Seen, analyze},
    events::{EventReason, Fact},
    hindsight, history_of, invalid_policy, limited,
    memory::PolicyMemory,
    propose::propose,
    readable, remediations_of, rows, snapshots,
    status::{StatusInput, next_status, phase},
    transitions,
};
use crate::{
    analyze::{forecast::Forecast, outlook::Outlook, tracker::Tracker},
    api::{ActionPlan, HealingPolicy, HealingPolicyStatus, POLICY_MANAGER, Remediation, ValidPolicy},
    plan::{self, Situation, Verdict},
};

/// Looks at one policy's components that run at the same time.
const CONCURRENT_CHECKS: usize = 16;
/// While an action is being verified, looks come at least this often.
const VERIFY_EVERY: Duration = Duration::from_secs(2);
/// A component that was looked at this little before its time counts as due: saves a second round.
const SLACK: SignedDuration = SignedDuration::from_millis(20);

/// What the policy controller of one scope needs.
pub struct PolicyContext {
    pub shared: Arc<Context>,
    pub remediations: Store<GuardedRemediation>,
}

/// One round.
///
/// # Errors
/// When the API server cannot be written to; the round is repeated.
pub async fn reconcile(
    object: Arc<DeserializeGuard<HealingPolicy>>,
    context: Arc<PolicyContext>,
) -> Result<Action, Error> {
    let ctx = &*context.shared;
    let metadata = object.meta();
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    if metadata.deletion_timestamp.is_some() {
        ctx.memory.forget(&namespace, &name);
        return Ok(Action::await_change());
    }
    let memory = ctx.memory.policy(&namespace, &name, metadata.uid.as_deref().unwrap_or_default());
    let policy = match &object.0 {
        Ok(policy) => policy,
        Err(_) => return invalid_policy::unreadable(ctx, metadata, &memory).await,
    };
    let valid = match ValidPolicy::new(policy, &ctx.thresholds) {
        Ok(valid) => Arc::new(valid),
        Err(mistakes) => return invalid_policy::invalid(ctx, policy, &memory, &mistakes).await,
    };
    match round(&context, policy, &valid, &memory).await {
        Ok(action) => {
            ctx.backoff.reset(metadata);
            memory.lock().told.remove(invalid_policy::OUTDATED);
            Ok(action)
        }
        Err(error @ Error::OutdatedCrd { .. }) => invalid_policy::outdated(ctx, policy, &memory, &error).await,
        Err(error) => Err(error),
    }
}

async fn round(
    context: &PolicyContext,
    policy: &HealingPolicy,
    valid: &Arc<ValidPolicy>,
    memory: &Arc<Mutex<PolicyMemory>>,
) -> Result<Action, Error> {
    let ctx = &*context.shared;
    restore(ctx, policy, valid, memory).await;
    if !valid.suspend {
        let observed = observe(ctx, valid, memory).await;
        analyze(ctx, valid, &mut memory.lock(), observed);
        hindsight::follow(context, valid, memory);
        backfill::start(&context.shared, valid, memory);
        snapshots::keep(ctx, policy, valid, memory).await;
    }
    // First the status: an incident must be known there before a Remediation names it.
    update_status(context, policy, valid, memory).await?;
    let proposals = plan(context, valid, memory);
    propose(ctx, policy, valid, &proposals).await?;
    if memory.lock().components.values().any(|component| component.refusal.is_some()) || !proposals.is_empty() {
        update_status(context, policy, valid, memory).await?;
    }
    record(ctx, valid, memory);
    hindsight::record(ctx, valid, memory).await;
    Ok(Action::requeue(next_round(valid, memory)))
}

/// A failed round is repeated soon, with jitter so that many policies do not come back as one.
pub fn on_error(object: Arc<DeserializeGuard<HealingPolicy>>, error: &Error, context: Arc<PolicyContext>) -> Action {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    context.shared.metrics.error(error.reason());
    if !error.is_outdated() {
        tracing::warn!(namespace, policy = name, %error, "the round could not be finished; it is repeated");
    }
    Action::requeue(context.shared.backoff.next(error.retry(), object.meta()))
}

/// Takes up what an earlier life of the operator left in the status and in the ledger, once; notes a new spec.
async fn restore(ctx: &Context, policy: &HealingPolicy, valid: &Arc<ValidPolicy>, memory: &Mutex<PolicyMemory>) {
    let first = {
        let mut memory = memory.lock();
        let changed = memory.policy.as_ref().is_none_or(|old| old.generation != valid.generation);
        if changed {
            hindsight::replaced(ctx, valid, &mut memory);
            memory.retain_components(valid);
            ctx.memory.watch_targets_of(valid);
            for component in memory.components.values_mut() {
                component.dirty = true;
                component.refusal = None;
            }
            memory.told.retain(|key, _| key != "invalid" && !key.starts_with("spec/"));
        }
        memory.policy = Some(valid.clone());
        let first = !memory.restored;
        memory.restored = true;
        if first {
            for status in policy.status.iter().flat_map(|status| &status.components) {
                if let Some(entry) = memory.components.get_mut(&status.name) {
                    entry.tracker = Tracker::restore(status);
                    entry.outlook = Outlook::restore(status);
                    entry.circuit.clone_from(&status.circuit);
                }
                if let (Some(component), Some(circuit)) = (valid.component(&status.name), &status.circuit) {
                    ctx.targets.restore_circuit(&component.target, circuit);
                }
            }
            hindsight::restore(ctx, policy, valid, &mut memory);
        }
        first
    };
    for mistake in &valid.invalid {
        let component = mistake.component.as_deref().unwrap_or_default();
        let note = format!("{}; the other components are watched", mistake.message);
        report_once(ctx, policy, memory, &format!("spec/{}", mistake.field), EventReason::InvalidSpec, component, note)
            .await;
    }
    if !first {
        return;
    }
    // Without the ledger the windows start empty: forecasts come later, nothing else changes.
    for component in &valid.components {
        let read = ctx.ledger.history(&valid.namespace, &valid.name, &component.name, crate::analyze::window::CAPACITY);
        match tokio::time::timeout(Duration::from_secs(2), read).await {
            Ok(Ok(points)) => {
                let mut memory = memory.lock();
                let Some(entry) = memory.components.get_mut(&component.name) else { continue };
                for point in points {
                    entry.history.score.push(point.at, point.score);
                    for (name, value) in &point.metrics {
                        entry.history.push_metric(name, point.at, *value);
                        entry.hindsight.was_measured(name, point.at);
                    }
                }
            }
            Ok(Err(error)) => {
                tracing::info!(namespace = valid.namespace, policy = valid.name, %error, "the history was not read back");
                break;
            }
            Err(_) => break,
        }
    }
}

/// Looks at every component that is due or changed, several at a time.
async fn observe(ctx: &Context, valid: &ValidPolicy, memory: &Mutex<PolicyMemory>) -> Vec<Seen> {
    let now = Timestamp::now();
    let due: Vec<(usize, bool)> = {
        let mut memory = memory.lock();
        let limits = &valid.limits;
        valid
            .components
            .iter()
            .enumerate()
            .filter_map(|(index, component)| {
                let entry = memory.components.get_mut(&component.name)?;
                let is_due = entry.due.is_none_or(|due| due.duration_since(now) <= SLACK);
                let look = std::mem::take(&mut entry.dirty) || is_due;
                // Before the first look nothing is known of a release; a query narrowed to it would be wrong.
                look.then(|| (index, entry.tracker.watches_release(limits)))
            })
            .collect()
    };
    stream::iter(due)
        .map(|(component, release_watch)| async move {
            let started = Instant::now();
            let mut observation =
                ctx.targets.observe(&valid.namespace, &valid.components[component], release_watch).await;
            observation.at = crate::api::milliseconds(observation.at);
            Seen { component, observation, seconds: started.elapsed().as_secs_f64() }
        })
        .buffer_unordered(CONCURRENT_CHECKS)
        .collect()
        .await
}

/// At most one proposal a component; refusals are noted for status, event and metric.
fn plan(context: &PolicyContext, valid: &ValidPolicy, memory: &Mutex<PolicyMemory>) -> Vec<ActionPlan> {
    let history = history_of(readable(&remediations_of(&context.remediations, &valid.uid)));
    let now = Timestamp::now();
    let mut memory = memory.lock();
    let (unhealthy_components, suspected_components) = memory.unhealthy(now);
    let mut proposals = Vec::new();
    for component in &valid.components {
        let Some(entry) = memory.components.get_mut(&component.name) else { continue };
        let Some(look) = entry.last.as_ref() else { continue };
        let situation = Situation {
            policy: valid,
            component,
            tracker: &entry.tracker,
            observation: &look.observation,
            assessment: &look.assessment,
            forecast: entry.forecast.as_ref(),
            foreseen: entry.outlook.foreseen(),
            unhealthy_components,
            suspected_components,
            history: &history,
            now,
        };
        let refusal = match plan::decide(&situation) {
            // Between two crashes a bad component may look well: what held its action back stands until the incident
            // is over, or something is done about it.
            Verdict::Nothing => {
                let open = history.iter().any(|past| past.component == component.name && !past.phase.is_final());
                let incident = entry.tracker.episode().is_some() || entry.outlook.foreseen().is_some();
                entry.refusal.take().filter(|_| incident && !open)
            }
            Verdict::Refuse(refusal) => {
                context.shared.metrics.refusal(refusal.guard.into());
                Some(refusal)
            }
            Verdict::Propose(proposal) => {
                proposals.push(*proposal);
                None
            }
        };
        let acting = history.iter().any(|past| past.component == component.name && past.phase.is_acting());
        let soon = match &refusal {
            Some(refusal) => refusal.retry_at,
            None if acting => Some(now + VERIFY_EVERY),
            None => None,
        };
        let pause = SignedDuration::try_from(component.target.min_check_interval()).unwrap_or_default();
        let soon = soon.map(|soon| soon.max(look.observation.at + pause));
        if let (Some(soon), Some(due)) = (soon.filter(|soon| *soon > now), entry.due) {
            entry.due = Some(due.min(soon));
        }
        entry.refusal = refusal;
    }
    proposals
}

/// Writes the status when it differs, and tells what changed.
async fn update_status(
    context: &PolicyContext,
    policy: &HealingPolicy,
    valid: &ValidPolicy,
    memory: &Mutex<PolicyMemory>,
) -> Result<(), Error> {
    let ctx = &*context.shared;
    let all = remediations_of(&context.remediations, &valid.uid);
    let open: Vec<&Remediation> = readable(&all).filter(|remediation| !phase(remediation).is_final()).collect();
    let ledger = ctx.ledger.health().borrow().clone();
    let (old, status, facts) = {
        let mut memory = memory.lock();
        // What we wrote last is newer than the cache that brought `policy`.
        let old = memory.last_written.clone().or_else(|| policy.status.clone()).unwrap_or_default();
        let input = StatusInput {
            old: &old,
            generation: policy.metadata.generation,
            now: Timestamp::now(),
            ledger: &ledger,
            open: &open,
        };
        let status = next_status(&input, valid, &mut memory);
        let facts = transitions::facts(&old, &status, valid, &mut memory, Timestamp::now());
        (old, status, facts)
    };
    write_status(ctx, policy, &old, status, memory).await?;
    ctx.events.about_policy(policy, facts).await;
    Ok(())
}

pub(super) async fn write_status(
    ctx: &Context,
    policy: &HealingPolicy,
    old: &HealingPolicyStatus,
    status: HealingPolicyStatus,
    memory: &Mutex<PolicyMemory>,
) -> Result<(), Error> {
    if *old == status {
        return Ok(());
    }
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    let api: Api<HealingPolicy> = Api::namespaced(ctx.client.clone(), &namespace);
    let body = serde_json::json!({
        "apiVersion": HealingPolicy::api_version(&()),
        "kind": HealingPolicy::kind(&()),
        // The uid keeps a status from being written to another policy of the same name.
        "metadata": {"name": name, "uid": policy.metadata.uid},
        "status": status,
    });
    let params = PatchParams::apply(POLICY_MANAGER).force();
    let written = limited("write the policy's status", api.patch_status(&name, &params, &Patch::Apply(&body))).await;
    match written {
        Ok(_) => {
            ctx.metrics.status_write();
            memory.lock().last_written = Some(status);
            Ok(())
        }
        // Deleted while we looked.
        Err(error) if error.is_outdated() => Ok(()),
        Err(error) => Err(error),
    }
}

/// A fact that stands is told once, and again only when its words change.
pub(super) async fn report_once(
    ctx: &Context,
    policy: &HealingPolicy,
    memory: &Mutex<PolicyMemory>,
    key: &str,
    reason: EventReason,
    component: &str,
    note: String,
) {
    let new = memory.lock().told.insert(key.to_owned(), note.clone()).as_ref() != Some(&note);
    if new {
        let fact = Fact { reason, component: component.to_owned(), subject: String::new(), note, secondary: None };
        ctx.events.about_policy(policy, vec![fact]).await;
    }
}

/// Rows of checks and cycles: one an interval, and one when a status changes.
fn record(ctx: &Context, valid: &ValidPolicy, memory: &Mutex<PolicyMemory>) {
    let mut memory = memory.lock();
    let now = Timestamp::now();
    let spacing = valid.interval.max(Duration::from_secs(10));
    let mut looks = 0;
    for component in &valid.components {
        let Some(entry) = memory.components.get_mut(&component.name) else { continue };
        let Some(look) = entry.last.as_ref() else { continue };
        let changed = entry.tracker.status_changed_at() == Some(look.observation.at);
        if !changed && entry.row_due.is_some_and(|due| now < due) {
            continue;
        }
        entry.row_due = Some(now + spacing);
        looks += 1;
        let forecast: Option<&Forecast> = entry.forecast.as_ref();
        for row in rows::check_rows(valid, component, look, entry.trend, forecast) {
            ctx.ledger.offer(row);
        }
    }
    if looks > 0 && memory.cycle_due.is_none_or(|due| now >= due) {
        memory.cycle_due = Some(now + spacing);
        ctx.ledger.offer(rows::cycle_row(valid, looks, memory.unhealthy(now).0, now));
    }
}

fn next_round(valid: &ValidPolicy, memory: &Mutex<PolicyMemory>) -> Duration {
    if valid.suspend {
        return valid.interval;
    }
    let now = Timestamp::now();
    let memory = memory.lock();
    let due = memory.components.values().filter_map(|component| component.due).min();
    let wait = due.map_or(valid.interval, |due| Duration::try_from(due.duration_since(now)).unwrap_or_default());
    wait.clamp(Duration::from_millis(20), valid.interval)
}
