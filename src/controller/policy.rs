//! The policy controller: one reconciliation is one round of checks of the components that are due.
//!
//! Expected flow: observe → analyze → update status → plan → propose → record.
//! Guarantees: it writes only the policy's own status, events, and Remediations (which are intents); an incident is in
//! the status before a Remediation names it; without a change nothing is written.

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
    check::{Observed, analyze},
    events::{EventReason, Fact},
    hindsight, history_of, invalid_policy, limited,
    memory::PolicyMemory,
    propose::propose,
    readable, remediations_of, rows, snapshots,
    status::{StatusInput, next_status, phase},
    transitions, unless_outdated,
};
use crate::{
    analyze::{outlook::Outlook, tracker::Tracker},
    api::{ActionPlan, HealingPolicy, HealingPolicyStatus, POLICY_MANAGER, Remediation, ValidPolicy},
    plan::{self, Situation, Verdict},
};

/// Checks of one policy's components that run at the same time.
const CONCURRENT_CHECKS: usize = 16;
/// While an action is being verified, checks run at least this often.
const VERIFY_EVERY: Duration = Duration::from_secs(2);
/// A component this close to its due time counts as due: saves a second round.
const SLACK: SignedDuration = SignedDuration::from_millis(20);

/// What the policy controller of one scope needs.
pub struct PolicyContext {
    pub shared: Arc<Context>,
    pub remediations: Store<GuardedRemediation>,
}

/// One round. It is repeated when the API server cannot be written to.
pub(super) async fn reconcile(
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
    let Ok(policy) = &object.0 else { return invalid_policy::unreadable(ctx, metadata, &memory).await };
    let valid = match ValidPolicy::new(policy, &ctx.thresholds) {
        Ok(valid) => Arc::new(valid),
        Err(mistakes) => return invalid_policy::invalid(ctx, policy, &memory, &mistakes).await,
    };
    let round = Round { context: &context, ctx, policy, valid: &valid, memory: &memory };
    match round.run().await {
        Ok(action) => {
            ctx.backoff.reset(metadata);
            memory.lock().reported.remove(invalid_policy::OUTDATED);
            Ok(action)
        }
        Err(error @ Error::OutdatedCrd { .. }) => invalid_policy::outdated(ctx, policy, &memory, &error).await,
        Err(error) => Err(error),
    }
}

/// One reconciliation of a valid policy.
struct Round<'a> {
    context: &'a PolicyContext,
    ctx: &'a Context,
    policy: &'a HealingPolicy,
    valid: &'a Arc<ValidPolicy>,
    memory: &'a Arc<Mutex<PolicyMemory>>,
}

impl Round<'_> {
    async fn run(&self) -> Result<Action, Error> {
        let Self { context, ctx, policy, valid, memory } = *self;
        self.restore().await;
        if !valid.suspend {
            let observed = self.observe().await;
            analyze(ctx, valid, &mut memory.lock(), observed);
            hindsight::follow(context, valid, memory);
            backfill::start(&context.shared, valid, memory);
            snapshots::keep(ctx, policy, valid, memory).await;
        }
        // First the status: it must hold an incident before a Remediation names it.
        self.update_status().await?;
        let proposals = self.plan();
        propose(ctx, policy, valid, &proposals).await?;
        if memory.lock().components.values().any(|component| component.refusal.is_some()) || !proposals.is_empty() {
            self.update_status().await?;
        }
        self.record();
        hindsight::record(ctx, valid, memory).await;
        Ok(Action::requeue(next_round(valid, memory)))
    }

    /// Restores the memory from the status and the ledger, once per operator process; notes a new spec.
    async fn restore(&self) {
        let Self { ctx, policy, valid, memory, .. } = *self;
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
                memory.reported.retain(|key, _| key != "invalid" && !key.starts_with("spec/"));
            }
            memory.policy = Some(valid.clone());
            let first = !std::mem::replace(&mut memory.restored, true);
            if first {
                for status in policy.status.iter().flat_map(|status| &status.components) {
                    let Some(component) = valid.component(&status.name) else { continue };
                    let Some(entry) = memory.components.get_mut(&status.name) else { continue };
                    entry.tracker = Tracker::restore(status);
                    entry.outlook = Outlook::restore(status);
                    entry.circuit.clone_from(&status.circuit);
                    if let Some(circuit) = &status.circuit {
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
            let key = format!("spec/{}", mistake.field);
            report_once(ctx, policy, memory, &key, EventReason::InvalidSpec, component, note).await;
        }
        if !first {
            return;
        }
        // Without the ledger the windows start empty, which only delays forecasts.
        for component in &valid.components {
            let read =
                ctx.ledger.history(&valid.namespace, &valid.name, &component.name, crate::analyze::window::CAPACITY);
            let points = match tokio::time::timeout(Duration::from_secs(2), read).await {
                Ok(Ok(points)) => points,
                Ok(Err(error)) => {
                    tracing::info!(namespace = valid.namespace, policy = valid.name, %error, "the history could not be read from the ledger; forecasts start without it");
                    break;
                }
                Err(_) => break,
            };
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
    }

    /// Checks every component that is due or changed, several at a time.
    async fn observe(&self) -> Vec<Observed> {
        let Self { ctx, valid, memory, .. } = *self;
        let now = Timestamp::now();
        let due: Vec<(usize, bool)> = {
            let mut memory = memory.lock();
            let due = valid.components.iter().enumerate().filter_map(|(index, component)| {
                let entry = memory.components.get_mut(&component.name)?;
                let is_due = entry.due.is_none_or(|due| due.duration_since(now) <= SLACK);
                // Before the first check no release is known; a query narrowed to one would be wrong.
                (std::mem::take(&mut entry.dirty) || is_due)
                    .then(|| (index, entry.tracker.watches_release(&valid.limits)))
            });
            due.collect()
        };
        stream::iter(due)
            .map(|(component, release_watch)| async move {
                let started = Instant::now();
                let mut observation =
                    ctx.targets.observe(&valid.namespace, &valid.components[component], release_watch).await;
                observation.at = crate::api::milliseconds(observation.at);
                Observed { component, observation, seconds: started.elapsed().as_secs_f64() }
            })
            .buffer_unordered(CONCURRENT_CHECKS)
            .collect()
            .await
    }

    /// At most one proposal a component; refusals are noted for status, event and metric.
    fn plan(&self) -> Vec<ActionPlan> {
        let valid = self.valid;
        let history = history_of(readable(&remediations_of(&self.context.remediations, &valid.uid)));
        let now = Timestamp::now();
        let mut memory = self.memory.lock();
        let (unhealthy_components, suspected_components) = memory.unhealthy(now);
        let mut proposals = Vec::new();
        for component in &valid.components {
            let Some(entry) = memory.components.get_mut(&component.name) else { continue };
            let Some(check) = entry.last.as_ref() else { continue };
            let situation = Situation {
                policy: valid,
                component,
                tracker: &entry.tracker,
                observation: &check.observation,
                assessment: &check.assessment,
                forecast: entry.forecast.as_ref(),
                foreseen: entry.outlook.foreseen(),
                unhealthy_components,
                suspected_components,
                history: &history,
                now,
            };
            let own = || history.iter().filter(|past| past.component == component.name);
            let refusal = match plan::decide(&situation) {
                // Between two crashes a bad component may look healthy: the refusal holds until the incident is over, or an
                // action is open.
                Verdict::Nothing => {
                    let open = own().any(|past| !past.phase.is_final());
                    let incident = entry.tracker.episode().is_some() || entry.outlook.foreseen().is_some();
                    entry.refusal.take().filter(|_| incident && !open)
                }
                Verdict::Refuse(refusal) => {
                    self.ctx.metrics.refusal(refusal.guard.into());
                    Some(refusal)
                }
                Verdict::Propose(proposal) => {
                    proposals.push(*proposal);
                    None
                }
            };
            let acting = own().any(|past| past.phase.is_acting());
            let soon = match &refusal {
                Some(refusal) => refusal.retry_at,
                None => acting.then_some(now + VERIFY_EVERY),
            };
            let soon = soon.map(|soon| soon.max(check.observation.at + component.target.min_check_interval()));
            if let (Some(soon), Some(due)) = (soon.filter(|soon| *soon > now), entry.due) {
                entry.due = Some(due.min(soon));
            }
            entry.refusal = refusal;
        }
        proposals
    }

    /// Writes the status when it differs, and reports the changes.
    async fn update_status(&self) -> Result<(), Error> {
        let Self { context, ctx, policy, valid, memory } = *self;
        let all = remediations_of(&context.remediations, &valid.uid);
        let open: Vec<&Remediation> = readable(&all).filter(|remediation| !phase(remediation).is_final()).collect();
        let ledger = ctx.ledger.health().borrow().clone();
        let (old, status, facts) = {
            let mut memory = memory.lock();
            // The last write is newer than the cache that brought `policy`.
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

    /// Rows of checks and cycles: one an interval, and one when a status changes.
    fn record(&self) {
        let (ctx, valid) = (self.ctx, self.valid);
        let mut memory = self.memory.lock();
        let now = Timestamp::now();
        let spacing = valid.interval.max(Duration::from_secs(10));
        let mut checks = 0;
        for component in &valid.components {
            let Some(entry) = memory.components.get_mut(&component.name) else { continue };
            let Some(check) = entry.last.as_ref() else { continue };
            let changed = entry.tracker.status_changed_at() == Some(check.observation.at);
            if !changed && entry.row_due.is_some_and(|due| now < due) {
                continue;
            }
            entry.row_due = Some(now + spacing);
            checks += 1;
            for row in rows::check_rows(valid, component, check, entry.trend, entry.forecast.as_ref()) {
                ctx.ledger.offer(row);
            }
        }
        if checks > 0 && memory.cycle_due.is_none_or(|due| now >= due) {
            memory.cycle_due = Some(now + spacing);
            ctx.ledger.offer(rows::cycle_row(valid, checks, memory.unhealthy(now).0, now));
        }
    }
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
    let patch = Patch::Apply(serde_json::json!({
        "apiVersion": HealingPolicy::api_version(&()),
        "kind": HealingPolicy::kind(&()),
        // The uid keeps a status from being written to another policy of the same name.
        "metadata": {"name": name, "uid": policy.metadata.uid},
        "status": status,
    }));
    let params = PatchParams::apply(POLICY_MANAGER).force();
    let written = limited("write the policy's status", api.patch_status(&name, &params, &patch)).await;
    // None: deleted during the round.
    if unless_outdated(written)?.is_some() {
        ctx.metrics.status_write();
        memory.lock().last_written = Some(status);
    }
    Ok(())
}

/// A fact that lasts is reported once, and again only when its message changes.
pub(super) async fn report_once(
    ctx: &Context,
    policy: &HealingPolicy,
    memory: &Mutex<PolicyMemory>,
    key: &str,
    reason: EventReason,
    component: &str,
    note: String,
) {
    let new = memory.lock().reported.insert(key.to_owned(), note.clone()).as_ref() != Some(&note);
    if new {
        ctx.events.about_policy(policy, vec![Fact::new(reason, component, note)]).await;
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
