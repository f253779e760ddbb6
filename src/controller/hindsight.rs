//! The outcomes of warnings: followed check by check, and recorded once.
//!
//! An outcome is in the status before it is recorded in the ledger, so that an operator that dies in between records the
//! same row again, under the same id.

use parking_lot::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::{Context, memory::PolicyMemory, policy::PolicyContext, readable, remediations_of, rows};
use crate::{
    analyze::hindsight::{Action, Hindsight, Patience, Seen},
    api::{HealingPolicy, Remediation, ValidPolicy},
};

/// How long a round may wait for the ledger. The next round records the rest.
const RECORD_LIMIT: Duration = Duration::from_secs(1);

/// Follows the warnings of each component by its last check.
pub(super) fn follow(context: &PolicyContext, valid: &ValidPolicy, memory: &Mutex<PolicyMemory>) {
    let all = remediations_of(&context.remediations, &valid.uid);
    let interval = SignedDuration::try_from(valid.interval).unwrap_or_default();
    let patience = Patience::of(valid.limits.prediction_horizon, interval);
    let mut memory = memory.lock();
    for component in &valid.components {
        let Some(entry) = memory.components.get_mut(&component.name) else { continue };
        let Some(check) = &entry.last else { continue };
        let actions: Vec<Action> =
            readable(&all).filter(|it| it.spec.plan.component == component.name).filter_map(started).collect();
        let seen = Seen {
            observation: &check.observation,
            assessment: &check.assessment,
            ceilings: &component.ceilings,
            // Without forecasts no warning is missed.
            episode: entry.tracker.episode().filter(|_| valid.limits.prediction),
            actions: &actions,
        };
        entry.hindsight.record(entry.outlook.foreseen(), &seen, patience);
        for warning in entry.hindsight.take_pushed_out() {
            if let Some(settled) = &warning.settled {
                context.shared.ledger.offer(rows::outcome_row(valid, &component.name, &warning, settled));
            }
        }
    }
}

fn started(remediation: &Remediation) -> Option<Action> {
    let status = remediation.status.as_ref()?;
    Some(Action { name: remediation.name_any(), begun_at: status.started_at?, phase: status.phase })
}

/// Restores the warnings that an earlier operator process followed.
pub(super) fn restore(ctx: &Context, policy: &HealingPolicy, valid: &ValidPolicy, memory: &mut PolicyMemory) {
    let Some(status) = &policy.status else { return };
    // The time of a change during an outage is unknown.
    let changed = status.observed_generation != Some(valid.generation);
    for component in &status.components {
        let mut hindsight = Hindsight::restore(component);
        if changed {
            hindsight.give_up("the policy was changed while the operator was not running", Timestamp::now());
        }
        match memory.components.get_mut(&component.name) {
            Some(entry) => entry.hindsight = hindsight,
            None => let_go(ctx, valid, &component.name, hindsight),
        }
    }
}

/// Before a new spec replaces the old one: settles the warnings of components that change.
pub(super) fn replaced(ctx: &Context, valid: &ValidPolicy, memory: &mut PolicyMemory) {
    let Some(before) = memory.policy.clone() else { return };
    let now = Timestamp::now();
    for component in &before.components {
        let Some(entry) = memory.components.get_mut(&component.name) else { continue };
        match valid.component(&component.name) {
            Some(after) if after.target.describe() == component.target.describe() => {
                if component.metrics != after.metrics || component.ceilings != after.ceilings {
                    entry.hindsight.give_up("the policy's metrics or thresholds of the component changed", now);
                }
            }
            _ => let_go(ctx, valid, &component.name, std::mem::take(&mut entry.hindsight)),
        }
    }
}

/// The policy no longer names the component, so its status cannot hold the warnings.
fn let_go(ctx: &Context, valid: &ValidPolicy, component: &str, mut hindsight: Hindsight) {
    hindsight.give_up("the policy no longer names the component, or names another target", Timestamp::now());
    for (warning, settled) in hindsight.settled() {
        ctx.ledger.offer(rows::outcome_row(valid, component, warning, settled));
    }
}

/// Records the known outcomes. The next round retries those that could not be recorded.
pub(super) async fn record(ctx: &Context, valid: &ValidPolicy, memory: &Mutex<PolicyMemory>) {
    let (mut known, mut rows) = (Vec::new(), Vec::new());
    for (name, entry) in &memory.lock().components {
        for (warning, settled) in entry.hindsight.settled() {
            known.push((name.clone(), Some(warning.foreseen.id.clone())));
            rows.push(rows::outcome_row(valid, name, warning, settled));
        }
        if let Some(missed) = entry.hindsight.missed() {
            known.push((name.clone(), None));
            rows.push(rows::missed_row(valid, name, missed));
        }
    }
    if known.is_empty() || !ctx.ledger.health().borrow().is_available() {
        return;
    }
    match tokio::time::timeout(RECORD_LIMIT, ctx.ledger.record(rows)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) if error.may_pass() => return,
        // The ledger will never accept the row: no retry.
        Ok(Err(error)) => tracing::warn!(policy = valid.name, %error, "the outcome of a warning could not be recorded"),
        Err(_) => return,
    }
    let mut memory = memory.lock();
    for (name, warning) in known {
        let Some(entry) = memory.components.get_mut(&name) else { continue };
        match warning {
            Some(id) => entry.hindsight.recorded(&id),
            None => entry.hindsight.recorded_missed(),
        }
    }
}
