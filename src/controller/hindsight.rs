//! What came of warnings: followed look by look, and written down once.
//!
//! What is known is in the status before it is written into the ledger, so that an operator that dies in between writes the
//! same row again, under the same id.

use parking_lot::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::{Context, memory::PolicyMemory, policy::PolicyContext, readable, remediations_of, rows};
use crate::{
    analyze::hindsight::{Action, Hindsight, Patience, Seen},
    api::{HealingPolicy, Remediation, ValidComponent, ValidPolicy},
};

/// How long a round of looks may wait for the ledger. What is not written by then is written after the next round.
const RECORD_LIMIT: Duration = Duration::from_secs(1);

/// Follows the warnings of each component by its last look.
pub(super) fn follow(context: &PolicyContext, valid: &ValidPolicy, memory: &Mutex<PolicyMemory>) {
    let all = remediations_of(&context.remediations, &valid.uid);
    let interval = SignedDuration::try_from(valid.interval).unwrap_or_default();
    let patience = Patience::of(valid.limits.prediction_horizon, interval);
    let mut memory = memory.lock();
    for component in &valid.components {
        let Some(entry) = memory.components.get_mut(&component.name) else { continue };
        let Some(look) = &entry.last else { continue };
        let actions: Vec<Action> =
            readable(&all).filter(|it| it.spec.plan.component == component.name).filter_map(begun).collect();
        let seen = Seen {
            observation: &look.observation,
            assessment: &look.assessment,
            ceilings: &component.ceilings,
            // Without forecasts nothing is missed.
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

fn begun(remediation: &Remediation) -> Option<Action> {
    let status = remediation.status.as_ref()?;
    Some(Action { name: remediation.name_any(), begun_at: status.started_at?, phase: status.phase })
}

/// Takes up what an earlier life followed.
pub(super) fn restore(ctx: &Context, policy: &HealingPolicy, valid: &ValidPolicy, memory: &mut PolicyMemory) {
    let Some(status) = &policy.status else { return };
    // What was changed while nobody looked is not known.
    let changed = status.observed_generation != Some(valid.generation);
    for component in &status.components {
        let mut hindsight = Hindsight::restore(component);
        if changed {
            hindsight.give_up("the policy was changed while the operator was away", Timestamp::now());
        }
        match memory.components.get_mut(&component.name) {
            Some(entry) => entry.hindsight = hindsight,
            None => let_go(ctx, valid, &component.name, hindsight),
        }
    }
}

/// Before a new spec takes the place of the one before: what concerns a component that is another one now is settled.
pub(super) fn replaced(ctx: &Context, valid: &ValidPolicy, memory: &mut PolicyMemory) {
    let Some(before) = memory.policy.clone() else { return };
    let now = Timestamp::now();
    for component in &before.components {
        let Some(entry) = memory.components.get_mut(&component.name) else { continue };
        match valid.component(&component.name) {
            Some(after) if after.target.describe() == component.target.describe() => {
                if !is_measured_alike(component, after) {
                    entry.hindsight.give_up("the policy measures otherwise now", now);
                }
            }
            _ => let_go(ctx, valid, &component.name, std::mem::take(&mut entry.hindsight)),
        }
    }
}

fn is_measured_alike(before: &ValidComponent, after: &ValidComponent) -> bool {
    before.metrics == after.metrics && before.ceilings == after.ceilings
}

/// The component is none of the policy's any more, so that nothing can be kept in its status.
fn let_go(ctx: &Context, valid: &ValidPolicy, component: &str, mut hindsight: Hindsight) {
    hindsight.give_up("the policy does not name the component any more, or another target", Timestamp::now());
    for (warning, settled) in hindsight.settled() {
        ctx.ledger.offer(rows::outcome_row(valid, component, warning, settled));
    }
}

/// Writes down what is known. What could not be written is tried again after the next round.
pub(super) async fn record(ctx: &Context, valid: &ValidPolicy, memory: &Mutex<PolicyMemory>) {
    let mut known = Vec::new();
    {
        let memory = memory.lock();
        for (name, entry) in &memory.components {
            let outcomes = entry.hindsight.settled().map(|(warning, settled)| {
                (Some(warning.foreseen.id.clone()), rows::outcome_row(valid, name, warning, settled))
            });
            let missed = entry.hindsight.missed().map(|missed| (None, rows::missed_row(valid, name, missed)));
            known.extend(outcomes.chain(missed).map(|(warning, row)| (name.clone(), warning, row)));
        }
    }
    if known.is_empty() || !ctx.ledger.health().borrow().is_available() {
        return;
    }
    let rows = known.iter().map(|(_, _, row)| row.clone()).collect();
    match tokio::time::timeout(RECORD_LIMIT, ctx.ledger.record(rows)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) if error.may_pass() => return,
        // It will never be taken, which the log says: it is not tried for ever.
        Ok(Err(error)) => tracing::warn!(policy = valid.name, %error, "what came of a warning was not written"),
        Err(_) => return,
    }
    let mut memory = memory.lock();
    for (name, warning, _) in known {
        let Some(entry) = memory.components.get_mut(&name) else { continue };
        match warning {
            Some(id) => entry.hindsight.recorded(&id),
            None => entry.hindsight.recorded_missed(),
        }
    }
}
