//! The remediation controller: one reconciliation takes one Remediation one step further.
//!
//! Expected flow: approve → execute → verify → record (the phases are drawn at [`crate::api::RemediationSpec`]).
//! Guarantees: `Running`, with the time, is in etcd before the write that it stands for; no step is made from a view that
//! is older than the last one's outcome; a write that was made by an
//! operator that then died is recognized, not repeated; every end phase has its rows in the ledger before the object
//! can be removed.
//! Assumptions: one operator at a time; the API server orders writes to one object.

mod approve;
mod gate;
mod journal;
mod record;
mod suspend;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::DeserializeGuard,
    runtime::controller::Action,
};

use super::{
    Context, Error, GuardedRemediation,
    events::{EventReason, Fact},
    invalid_policy::mistake_in,
    limited,
    memory::{ComponentMemory, PolicyMemory},
    verify::{self, Verification},
};
use crate::{
    api::{
        ActionPlan, HealingPolicy, Intent, LEDGER_FINALIZER, POLICY_LABEL, Phase, Progress, REMEDIATION_MANAGER,
        Remediation, RemediationReason, RemediationStatus, ValidPolicy, milliseconds,
    },
    plan::{
        guard::Permit,
        revalidate::{Withdrawn, withdrawn},
    },
    targets::{
        NoExecutor, Unfinished,
        executor::{Moment, NotStored, Order, Outcome, Ran},
        kubernetes::{ActError, WorkloadRef, write},
    },
};
use journal::StatusJournal;

/// How often a held back action is tried again when its guard does not say when.
const RETRY_BLOCKED: Duration = Duration::from_secs(5);
/// How often an action that waits for looks (confirmation, verification) is looked at: in memory, so it costs nothing.
const RECHECK: Duration = Duration::from_millis(500);

pub struct RemediationContext {
    pub shared: Arc<Context>,
}

/// One step.
///
/// # Errors
/// When the API server or the ledger cannot be written to; the step is repeated.
pub async fn reconcile(object: Arc<GuardedRemediation>, context: Arc<RemediationContext>) -> Result<Action, Error> {
    let action = next_step(&object, &context).await?;
    context.shared.backoff.reset(object.meta());
    Ok(action)
}

async fn next_step(object: &Arc<GuardedRemediation>, context: &RemediationContext) -> Result<Action, Error> {
    let remediation = match &object.0 {
        Ok(remediation) => remediation,
        Err(_) => return unreadable(&context.shared, object).await,
    };
    // The watch is behind: for a moment, or for as long as it is interrupted.
    let newer;
    let remediation = if context.shared.written.is_ahead_of(remediation) {
        match as_stored(&context.shared, remediation).await? {
            Some(found) => {
                newer = found;
                &newer
            }
            None => return Ok(Action::await_change()),
        }
    } else {
        remediation
    };
    let step = Reconciliation { ctx: &context.shared, remediation };
    let status = remediation.status.clone().unwrap_or_default();
    if status.phase.is_final() {
        return step.record(status).await;
    }
    if remediation.metadata.deletion_timestamp.is_some() {
        return step.end_deleted(status).await;
    }
    let policy = step.policy().await?;
    match status.phase {
        // On the heap: each is larger than a frame of the stack should be.
        Phase::Running => match Permit::begun(&status) {
            Some(permit) => Box::pin(step.execute(status, policy.as_ref(), &permit)).await,
            None => {
                let message = "the status is Running without a start, which no guard has allowed; nothing was done";
                step.finish(status, Phase::Failed, RemediationReason::NotConfirmed, message).await
            }
        },
        Phase::Verifying => step.verify(status, policy.as_ref()).await,
        _ => Box::pin(step.approve(status, policy)).await,
    }
}

/// As the API server has it; none when it is gone, or cannot be read.
async fn as_stored(ctx: &Context, seen: &Remediation) -> Result<Option<Remediation>, Error> {
    let api: Api<GuardedRemediation> = Api::namespaced(ctx.client.clone(), &seen.namespace().unwrap_or_default());
    let found = limited("read the remediation", api.get_opt(&seen.name_any())).await?;
    Ok(found.and_then(|found| found.0.ok()).filter(|found| found.metadata.uid == seen.metadata.uid))
}

pub fn on_error(object: Arc<GuardedRemediation>, error: &Error, context: Arc<RemediationContext>) -> Action {
    context.shared.metrics.error(error.reason());
    let name = object.name_any();
    if !error.is_outdated() {
        let namespace = object.namespace().unwrap_or_default();
        let component =
            object.0.as_ref().map(|remediation| remediation.spec.plan.component.as_str()).unwrap_or_default();
        tracing::warn!(namespace, remediation = name, component, %error, "the step could not be finished; it is repeated");
    }
    Action::requeue(context.shared.backoff.next(error.retry(), object.meta()))
}

/// Stored by another version: the object is left as it is and reported, and the others go on. One that is being deleted is
/// let go: the ledger has no rows for what cannot be read.
async fn unreadable(ctx: &Context, object: &GuardedRemediation) -> Result<Action, Error> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let Some((raw, mistake)) = mistake_in::<Remediation>(ctx.client.clone(), &namespace, &name).await? else {
        return Ok(Action::await_change());
    };
    let kind = ApiResource::erase::<Remediation>(&());
    if raw.metadata.deletion_timestamp.is_some() {
        let finalizers: Vec<&String> = raw.finalizers().iter().filter(|one| *one != LEDGER_FINALIZER).collect();
        let patch = Patch::Merge(serde_json::json!({"metadata": {"uid": raw.metadata.uid, "finalizers": finalizers}}));
        let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &namespace, &kind);
        let params = PatchParams { field_manager: Some(REMEDIATION_MANAGER.into()), ..PatchParams::default() };
        return match limited("remove the ledger finalizer", api.patch(&name, &params, &patch)).await {
            Ok(_) => Ok(Action::await_change()),
            Err(error) if error.is_outdated() => Ok(Action::await_change()),
            Err(error) => Err(error),
        };
    }
    let note = format!(
        "the stored object cannot be read, so nothing is done about it: {mistake}; finish it with the version that made it, or delete it: kubectl delete rem {name} -n {namespace}"
    );
    let fact = Fact {
        reason: EventReason::Unreadable,
        component: String::new(),
        subject: String::new(),
        note,
        secondary: None,
    };
    ctx.events.report(&raw.object_ref(&kind), fact).await;
    Ok(Action::await_change())
}

/// The workload that a Remediation acts on; none when it acts on something else.
fn workload<'a>(namespace: &'a str, plan: &'a ActionPlan) -> Option<WorkloadRef<'a>> {
    let kind = plan.target.kind.parse().ok()?;
    Some(WorkloadRef { kind, namespace, name: &plan.target.name })
}

struct Reconciliation<'a> {
    ctx: &'a Context,
    remediation: &'a Remediation,
}

impl Reconciliation<'_> {
    fn api(&self) -> Api<Remediation> {
        Api::namespaced(self.ctx.client.clone(), &self.remediation.namespace().unwrap_or_default())
    }

    /// The policy as it is now, if it is still the same one and usable.
    async fn policy(&self) -> Result<Option<ValidPolicy>, Error> {
        let api: Api<DeserializeGuard<HealingPolicy>> =
            Api::namespaced(self.ctx.client.clone(), &self.remediation.namespace().unwrap_or_default());
        let found = limited("read the policy", api.get_opt(&self.remediation.spec.plan.policy)).await?;
        Ok(found
            .and_then(|policy| policy.0.ok())
            .filter(|policy| policy.metadata.uid.as_deref() == Some(self.remediation.spec.plan.policy_uid.as_str()))
            .filter(|policy| policy.metadata.deletion_timestamp.is_none())
            .and_then(|policy| ValidPolicy::new(&policy, &self.ctx.thresholds).ok()))
    }

    /// All Remediations of its policy that can be read.
    async fn of_policy(&self) -> Result<Vec<Remediation>, Error> {
        let api: Api<GuardedRemediation> =
            Api::namespaced(self.ctx.client.clone(), &self.remediation.namespace().unwrap_or_default());
        let params = ListParams::default().labels(&format!("{POLICY_LABEL}={}", self.remediation.spec.plan.policy));
        let listed = limited("list the policy's remediations", api.list(&params)).await?;
        Ok(listed.items.into_iter().filter_map(|guarded| guarded.0.ok()).collect())
    }

    /// Carries the action out, as far as it goes without waiting. Safe to repeat.
    async fn execute(
        &self,
        mut status: RemediationStatus,
        policy: Option<&ValidPolicy>,
        permit: &Permit,
    ) -> Result<Action, Error> {
        let plan = &self.remediation.spec.plan;
        let started_at = status.started_at.unwrap_or(plan.decided_at);
        let withdrawn = withdrawn(plan, policy);
        let kubernetes = match self.suspend_owner(&mut status, policy, withdrawn.is_some()).await? {
            Ok(kubernetes) => kubernetes,
            Err(error) => return self.not_done(status, error, started_at).await,
        };
        let (namespace, name) = (self.remediation.namespace().unwrap_or_default(), self.remediation.name_any());
        let uid = self.remediation.uid().unwrap_or_default();
        let order = Order { namespace: &namespace, remediation: &name, uid: &uid, plan, started_at };
        let executor = match self.ctx.targets.executor(order, policy, kubernetes) {
            Ok(executor) => executor,
            Err(why) => return self.end_without_executor(status, why, withdrawn).await,
        };
        let moment = Moment { now: Timestamp::now(), started_at, withdrawn };
        let journal = StatusJournal::new(self, status);
        let ran = executor.run(journal.progress().as_ref(), moment, permit, &journal).await;
        let (mut status, error) = journal.into_parts();
        let Ran { progress, outcome } = match (ran, error) {
            (Ok(ran), _) => ran,
            (Err(_), Some(error)) => return Err(error),
            (Err(NotStored), None) => return Err(Error::Timeout { what: "store the progress" }),
        };
        status.progress = progress.or(status.progress);
        match outcome {
            Outcome::Wait(after) => Ok(Action::requeue(after)),
            Outcome::Done { reason, message } => self.executed(status, reason, message).await,
            Outcome::Ended { phase, reason, message } => {
                if reason.calls_person() {
                    self.ctx.events.about_remediation(self.remediation, EventReason::PersonNeeded, &message).await;
                }
                self.finish(status, phase, reason, &message).await
            }
            Outcome::OutcomeUnknown { message } => {
                self.ctx.events.about_remediation(self.remediation, EventReason::PersonNeeded, &message).await;
                self.finish(status, Phase::Failed, RemediationReason::OutcomeUnknown, &message).await
            }
        }
    }

    /// Nobody can carry the action out: the policy names another target now.
    async fn end_without_executor(
        &self,
        status: RemediationStatus,
        why: NoExecutor,
        withdrawn: Option<Withdrawn>,
    ) -> Result<Action, Error> {
        let open = status.progress.as_ref().map(Unfinished::of).unwrap_or_default();
        let (reason, why) = match withdrawn {
            Some(Withdrawn { reason, why }) => (reason, why.to_owned()),
            None => (why.reason, why.message),
        };
        if open.may_have_effect {
            let message = format!("{why}; a call was sent before, and its outcome is not checked{}", open.left);
            return self.finish(status, Phase::Failed, RemediationReason::OutcomeUnknown, &message).await;
        }
        let phase = if withdrawn.is_some() { Phase::Expired } else { Phase::Failed };
        self.finish(status, phase, reason, &format!("{why}; nothing was done{}", open.left)).await
    }

    /// The effect is made; checks tell whether it helped.
    async fn executed(
        &self,
        mut status: RemediationStatus,
        reason: RemediationReason,
        message: String,
    ) -> Result<Action, Error> {
        let plan = &self.remediation.spec.plan;
        if matches!(plan.intent, Intent::CleanupMemory { hook: None, .. })
            && let Some(memory) = self.ctx.memory.find(&self.remediation.namespace().unwrap_or_default(), &plan.policy)
        {
            // The next measurements are of other processes.
            with_component(&memory, &plan.component, |entry| entry.history.replaced());
        }
        status.phase = Phase::Verifying;
        status.executed_at = Some(milliseconds(Timestamp::now()));
        status.reason = reason.name().into();
        status.message = message;
        self.write(&status, false).await?;
        self.ctx.events.about_remediation(self.remediation, EventReason::Verifying, &status.message).await;
        Ok(Action::requeue(RECHECK))
    }

    /// An action that is not made: retried for a while where that may help.
    async fn not_done(&self, status: RemediationStatus, error: ActError, since: Timestamp) -> Result<Action, Error> {
        let now = Timestamp::now();
        match write::judge_error(&error, now.duration_since(since)) {
            write::Judged::Again(after) => {
                let (namespace, name) = (self.remediation.namespace(), self.remediation.name_any());
                let component = &self.remediation.spec.plan.component;
                tracing::warn!(namespace, remediation = name, component, %error, "the action is not complete yet; trying again");
                Ok(Action::requeue(after))
            }
            write::Judged::Ended { end, reason, message } => self.finish(status, end.into(), reason, &message).await,
        }
    }

    async fn verify(&self, mut status: RemediationStatus, policy: Option<&ValidPolicy>) -> Result<Action, Error> {
        let unseen = "before it could be told whether it helped";
        let Some(policy) = policy else {
            let message = format!("the policy was deleted or became invalid {unseen}");
            return self.finish(status, Phase::Ineffective, RemediationReason::PolicyGone, &message).await;
        };
        if policy.component(&self.remediation.spec.plan.component).is_none() {
            let message = format!("the component was taken out of the policy {unseen}");
            return self.finish(status, Phase::Ineffective, RemediationReason::ComponentGone, &message).await;
        }
        let now = Timestamp::now();
        let memory = self.ctx.memory.find(&policy.namespace, &policy.name);
        // Nothing is looked at while the policy is suspended: what was seen before says nothing about now.
        let verdict = memory
            .filter(|_| !policy.suspend)
            .and_then(|memory| {
                with_component(&memory, &self.remediation.spec.plan.component, |entry| {
                    note_memory(&self.remediation.spec.plan, &mut status, entry);
                    verify::judge(&self.remediation.spec.plan, &status, entry, &policy.limits, now)
                })
            })
            .unwrap_or_else(|| verify::unseen(&status, &policy.limits, now));
        match verdict {
            Verification::Wait { healthy_since } => {
                if status.healthy_since != healthy_since {
                    status.healthy_since = healthy_since;
                    self.write(&status, false).await?;
                }
                Ok(Action::requeue(RECHECK))
            }
            Verification::Done { phase, reason, message } => self.finish(status, phase, reason, &message).await,
        }
    }

    /// Deleted by a person, or with its policy or namespace, before its end.
    async fn end_deleted(&self, status: RemediationStatus) -> Result<Action, Error> {
        let (phase, message) = match status.phase {
            Phase::Verifying => (Phase::Ineffective, "deleted before it could be told whether it helped"),
            Phase::Running => {
                (Phase::Failed, "deleted while the write was being made; it may or may not have been made")
            }
            _ => (Phase::Expired, "deleted before anything was done"),
        };
        self.finish(status, phase, RemediationReason::Deleted, message).await
    }

    /// Stays in a waiting phase until `until` at most; writes only when the words change.
    async fn hold(
        &self,
        mut status: RemediationStatus,
        phase: Phase,
        reason: RemediationReason,
        message: &str,
        until: Timestamp,
    ) -> Result<Action, Error> {
        let changed = status.phase != phase || status.reason != reason.name();
        if changed {
            status.phase = phase;
            status.reason = reason.name().to_owned();
            status.message = message.to_owned();
        }
        if self.remediation.status.as_ref() != Some(&status) {
            self.write(&status, false).await?;
        }
        let told = match phase {
            Phase::AwaitingApproval => Some(EventReason::AwaitingApproval),
            Phase::Blocked => Some(EventReason::Blocked),
            _ => None,
        };
        if let Some(told) = told.filter(|_| changed) {
            self.ctx.events.about_remediation(self.remediation, told, message).await;
        }
        let wait = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
        Ok(Action::requeue(wait.clamp(Duration::from_millis(100), RETRY_BLOCKED)))
    }

    /// Reaches an end phase, then records it.
    async fn finish(
        &self,
        mut status: RemediationStatus,
        phase: Phase,
        reason: RemediationReason,
        message: &str,
    ) -> Result<Action, Error> {
        status.phase = phase;
        status.reason = reason.name().to_owned();
        status.message = message.to_owned();
        status.finished_at = Some(milliseconds(Timestamp::now()));
        self.write(&status, false).await?;
        let told = match phase {
            Phase::Succeeded => EventReason::Succeeded,
            Phase::Failed => EventReason::Failed,
            Phase::Ineffective => EventReason::Ineffective,
            Phase::Rejected => EventReason::Rejected,
            _ => EventReason::Expired,
        };
        self.ctx.metrics.finished(self.remediation.spec.plan.action.into(), phase.into());
        self.ctx.events.about_remediation(self.remediation, told, &format!("{reason}: {message}")).await;
        self.record(status).await
    }

    /// Writes the status. With `unchanged` only if nobody changed the object since it was read.
    async fn write(&self, status: &RemediationStatus, unchanged: bool) -> Result<(), Error> {
        let name = self.remediation.name_any();
        let mut metadata = serde_json::json!({"name": name, "uid": self.remediation.metadata.uid});
        if unchanged {
            metadata["resourceVersion"] = serde_json::json!(self.remediation.metadata.resource_version);
        }
        let body = serde_json::json!({
            "apiVersion": Remediation::api_version(&()),
            "kind": Remediation::kind(&()),
            "metadata": metadata,
            "status": status,
        });
        let params = PatchParams::apply(REMEDIATION_MANAGER).force();
        let (api, patch) = (self.api(), Patch::Apply(&body));
        let written =
            Box::pin(limited("write the remediation's status", api.patch_status(&name, &params, &patch))).await?;
        self.ctx.written.note(&written);
        self.ctx.metrics.status_write();
        Ok(())
    }
}

/// Of a cleanup: what the memory is now.
fn note_memory(plan: &ActionPlan, status: &mut RemediationStatus, entry: &ComponentMemory) {
    let value = plan.intent.memory().zip(entry.last.as_ref());
    let value = value.and_then(|(growth, check)| check.observation.value(&growth.metric));
    if let Some(Progress::Cleanup(cleanup)) = &mut status.progress {
        cleanup.after = value.or(cleanup.after);
    }
}

fn with_component<T>(
    memory: &parking_lot::Mutex<PolicyMemory>,
    component: &str,
    with: impl FnOnce(&mut ComponentMemory) -> T,
) -> Option<T> {
    memory.lock().components.get_mut(component).map(with)
}
