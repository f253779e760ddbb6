//! The remediation controller: one reconciliation takes one Remediation one step further.
//!
//! Expected flow: approve → execute → verify → record (the phases are drawn at [`crate::api::RemediationSpec`]).
//! Guarantees: `Running`, with its time, is in etcd before the write that it announces; no step starts from a view that
//! is older than the outcome of the step before; a write of an operator that died afterwards is recognized, not
//! repeated; every end phase has its rows in the ledger before the object can be removed.
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
    api::{ListParams, ObjectMeta, Patch, PatchParams},
    core::DeserializeGuard,
    runtime::controller::Action,
};

use super::{
    Context, Error, GuardedRemediation,
    events::{EventReason, Fact},
    invalid_policy::mistake_in,
    limited,
    memory::{ComponentMemory, PolicyMemory},
    unless_outdated,
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
        executor::{Executor, Moment, NotStored, Order, Outcome, Ran},
        kubernetes::{ActError, Kubernetes, WorkloadRef, write},
    },
};
use journal::StatusJournal;

/// Between two attempts of a blocked action whose guard names no time.
const RETRY_BLOCKED: Duration = Duration::from_secs(5);
/// Between two reconciliations of an action that waits for checks (confirmation, verification).
const RECHECK: Duration = Duration::from_millis(500);

/// One step. It is repeated when the API server or the ledger cannot be written to.
pub(super) async fn reconcile(object: Arc<GuardedRemediation>, ctx: Arc<Context>) -> Result<Action, Error> {
    let action = next_step(&object, &ctx).await?;
    ctx.backoff.reset(object.meta());
    Ok(action)
}

async fn next_step(object: &GuardedRemediation, ctx: &Context) -> Result<Action, Error> {
    let Ok(remediation) = &object.0 else { return unreadable(ctx, object).await };
    // The watch is behind: for a moment, or for as long as it is interrupted.
    let newer;
    let remediation = if ctx.written.is_ahead_of(remediation) {
        let Some(found) = as_stored(ctx, remediation).await? else { return Ok(Action::await_change()) };
        newer = found;
        &newer
    } else {
        remediation
    };
    let step = Reconciliation {
        ctx,
        remediation,
        plan: &remediation.spec.plan,
        namespace: remediation.namespace().unwrap_or_default(),
        name: remediation.name_any(),
    };
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
                let message =
                    "status.phase is Running without status.startedAt, which no guard allowed; nothing was done";
                step.finish(status, Phase::Failed, RemediationReason::NotConfirmed, message).await
            }
        },
        Phase::Verifying => step.verify(status, policy.as_ref()).await,
        _ => Box::pin(step.approve(status, policy)).await,
    }
}

/// As the API server has it; none when it does not exist any more, or cannot be read.
async fn as_stored(ctx: &Context, cached: &Remediation) -> Result<Option<Remediation>, Error> {
    let api: Api<GuardedRemediation> = Api::namespaced(ctx.client.clone(), &cached.namespace().unwrap_or_default());
    let found = limited("read the remediation", api.get_opt(&cached.name_any())).await?;
    Ok(found.and_then(|found| found.0.ok()).filter(|found| found.metadata.uid == cached.metadata.uid))
}

/// Stored by another version: the object is left as it is and reported. When it is being deleted, its finalizer is
/// removed: the ledger has no rows for an object that cannot be read.
async fn unreadable(ctx: &Context, object: &GuardedRemediation) -> Result<Action, Error> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let Some((raw, mistake)) = mistake_in::<Remediation>(ctx.client.clone(), &namespace, &name).await? else {
        return Ok(Action::await_change());
    };
    if raw.metadata.deletion_timestamp.is_some() {
        remove_finalizer(ctx, &raw.metadata).await?;
        return Ok(Action::await_change());
    }
    let note = format!(
        "the stored object cannot be read: {mistake}; no action is taken on it. Finish it with the version that created it, or delete it: kubectl delete rem {name} -n {namespace}"
    );
    ctx.events.report(&object.object_ref(&()), Fact::new(EventReason::Unreadable, "", note)).await;
    Ok(Action::await_change())
}

async fn remove_finalizer(ctx: &Context, metadata: &ObjectMeta) -> Result<(), Error> {
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    let kept: Vec<&String> = metadata.finalizers.iter().flatten().filter(|one| *one != LEDGER_FINALIZER).collect();
    let patch = Patch::Merge(serde_json::json!({"metadata": {"uid": metadata.uid, "finalizers": kept}}));
    let api: Api<GuardedRemediation> = Api::namespaced(ctx.client.clone(), namespace.unwrap_or_default());
    let params = PatchParams { field_manager: Some(REMEDIATION_MANAGER.into()), ..PatchParams::default() };
    let request = api.patch(name.unwrap_or_default(), &params, &patch);
    unless_outdated(limited("remove the ledger finalizer", request).await).map(|_| ())
}

struct Reconciliation<'a> {
    ctx: &'a Context,
    remediation: &'a Remediation,
    plan: &'a ActionPlan,
    namespace: String,
    name: String,
}

impl Reconciliation<'_> {
    fn api(&self) -> Api<Remediation> {
        Api::namespaced(self.ctx.client.clone(), &self.namespace)
    }

    /// The workload that the Remediation acts on; none when it acts on something else.
    fn workload(&self) -> Option<WorkloadRef<'_>> {
        let kind = self.plan.target.kind.parse().ok()?;
        Some(WorkloadRef { kind, namespace: &self.namespace, name: &self.plan.target.name })
    }

    fn executor<'b>(
        &'b self,
        started_at: Timestamp,
        policy: Option<&'b ValidPolicy>,
        kubernetes: Kubernetes,
    ) -> Result<Box<dyn Executor + 'b>, NoExecutor> {
        let uid = self.remediation.metadata.uid.as_deref().unwrap_or_default();
        let (namespace, remediation) = (self.namespace.as_str(), self.name.as_str());
        let order = Order { namespace, remediation, uid, plan: self.plan, started_at };
        self.ctx.targets.executor(order, policy, kubernetes)
    }

    /// The policy as it is now, if it is still the same one and usable.
    async fn policy(&self) -> Result<Option<ValidPolicy>, Error> {
        let api: Api<DeserializeGuard<HealingPolicy>> = Api::namespaced(self.ctx.client.clone(), &self.namespace);
        let found = limited("read the policy", api.get_opt(&self.plan.policy)).await?;
        Ok(found
            .and_then(|policy| policy.0.ok())
            .filter(|policy| policy.metadata.uid.as_ref() == Some(&self.plan.policy_uid))
            .filter(|policy| policy.metadata.deletion_timestamp.is_none())
            .and_then(|policy| ValidPolicy::new(&policy, &self.ctx.thresholds).ok()))
    }

    /// All Remediations of its policy that can be read.
    async fn of_policy(&self) -> Result<Vec<Remediation>, Error> {
        let api: Api<GuardedRemediation> = Api::namespaced(self.ctx.client.clone(), &self.namespace);
        let params = ListParams::default().labels(&format!("{POLICY_LABEL}={}", self.plan.policy));
        let listed = limited("list the policy's remediations", api.list(&params)).await?;
        Ok(listed.items.into_iter().filter_map(|guarded| guarded.0.ok()).collect())
    }

    /// Carries the action out, as far as possible without waiting. Safe to repeat.
    async fn execute(
        &self,
        mut status: RemediationStatus,
        policy: Option<&ValidPolicy>,
        permit: &Permit,
    ) -> Result<Action, Error> {
        let started_at = status.started_at.unwrap_or(self.plan.decided_at);
        let withdrawn = withdrawn(self.plan, policy);
        let kubernetes = match self.suspend_owner(&mut status, policy, withdrawn.is_some()).await? {
            Ok(kubernetes) => kubernetes,
            Err(error) => return self.not_done(status, error, started_at).await,
        };
        let executor = match self.executor(started_at, policy, kubernetes) {
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
        let (calls_person, phase, reason, message) = match outcome {
            Outcome::Wait(after) => return Ok(Action::requeue(after)),
            Outcome::Done { reason, message } => return self.executed(status, reason, &message).await,
            Outcome::Ended { phase, reason, message } => (reason.calls_person(), phase, reason, message),
            Outcome::OutcomeUnknown { message } => (true, Phase::Failed, RemediationReason::OutcomeUnknown, message),
        };
        if calls_person {
            self.ctx.events.about_remediation(self.remediation, EventReason::PersonNeeded, &message).await;
        }
        self.finish(status, phase, reason, &message).await
    }

    /// No executor is left for the action: the policy names another target now.
    async fn end_without_executor(
        &self,
        status: RemediationStatus,
        why: NoExecutor,
        withdrawn: Option<Withdrawn>,
    ) -> Result<Action, Error> {
        let open = status.progress.as_ref().map(Unfinished::of).unwrap_or_default();
        let (phase, reason, why) = match withdrawn {
            Some(Withdrawn { reason, why }) => (Phase::Expired, reason, why.to_owned()),
            None => (Phase::Failed, why.reason, why.message),
        };
        if open.may_have_effect {
            let message = format!("{why}; a call was sent before, and its outcome is not checked{}", open.left);
            return self.finish(status, Phase::Failed, RemediationReason::OutcomeUnknown, &message).await;
        }
        self.finish(status, phase, reason, &format!("{why}; nothing was done{}", open.left)).await
    }

    /// The action was carried out; checks show whether it helped.
    async fn executed(
        &self,
        mut status: RemediationStatus,
        reason: RemediationReason,
        message: &str,
    ) -> Result<Action, Error> {
        if matches!(self.plan.intent, Intent::CleanupMemory { hook: None, .. })
            && let Some(memory) = self.ctx.memory.find(&self.namespace, &self.plan.policy)
        {
            // The next measurements are of other processes.
            with_component(&memory, &self.plan.component, |entry| entry.history.replaced());
        }
        status.executed_at = Some(milliseconds(Timestamp::now()));
        enter(&mut status, Phase::Verifying, reason, message);
        self.write(&status, false).await?;
        self.ctx.events.about_remediation(self.remediation, EventReason::Verifying, message).await;
        Ok(Action::requeue(RECHECK))
    }

    /// The action could not be carried out: retried for a while where that may help.
    async fn not_done(&self, status: RemediationStatus, error: ActError, since: Timestamp) -> Result<Action, Error> {
        match write::assess_error(&error, Timestamp::now().duration_since(since)) {
            write::Assessed::Again(after) => {
                let (namespace, remediation, component) = (&self.namespace, &self.name, &self.plan.component);
                tracing::warn!(namespace, remediation, component, %error, "the action is not complete yet; retrying");
                Ok(Action::requeue(after))
            }
            write::Assessed::Ended { end, reason, message } => self.finish(status, end.into(), reason, &message).await,
        }
    }

    async fn verify(&self, mut status: RemediationStatus, policy: Option<&ValidPolicy>) -> Result<Action, Error> {
        let too_early = "before it was known whether the action helped";
        let Some(policy) = policy else {
            let message = format!("the policy was deleted or became invalid {too_early}");
            return self.finish(status, Phase::Ineffective, RemediationReason::PolicyGone, &message).await;
        };
        if policy.component(&self.plan.component).is_none() {
            let message = format!("the component was removed from the policy {too_early}");
            return self.finish(status, Phase::Ineffective, RemediationReason::ComponentGone, &message).await;
        }
        let now = Timestamp::now();
        // While the policy is suspended, health checks are paused: the last one says nothing about now.
        let memory = self.ctx.memory.find(&policy.namespace, &policy.name).filter(|_| !policy.suspend);
        let verdict = memory
            .and_then(|memory| {
                with_component(&memory, &self.plan.component, |entry| {
                    note_memory(self.plan, &mut status, entry);
                    verify::assess(self.plan, &status, entry, &policy.limits, now)
                })
            })
            .unwrap_or_else(|| verify::unchecked(&status, &policy.limits, now));
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
            Phase::Verifying => (Phase::Ineffective, "deleted before it was known whether the action helped"),
            Phase::Running => (Phase::Failed, "deleted during the write; whether the write was made is unknown"),
            _ => (Phase::Expired, "deleted before anything was done"),
        };
        self.finish(status, phase, RemediationReason::Deleted, message).await
    }

    /// Stays in a waiting phase until `until` at most; writes only when the status changes.
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
            enter(&mut status, phase, reason, message);
        }
        if self.remediation.status.as_ref() != Some(&status) {
            self.write(&status, false).await?;
        }
        if let Some(event) = event_of(phase).filter(|_| changed) {
            self.ctx.events.about_remediation(self.remediation, event, message).await;
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
        enter(&mut status, phase, reason, message);
        status.finished_at = Some(milliseconds(Timestamp::now()));
        self.write(&status, false).await?;
        self.ctx.metrics.finished(self.plan.action.into(), phase.into());
        if let Some(event) = event_of(phase) {
            self.ctx.events.about_remediation(self.remediation, event, &format!("{reason}: {message}")).await;
        }
        self.record(status).await
    }

    /// Writes the status. With `unchanged` only if the object is as it was read.
    async fn write(&self, status: &RemediationStatus, unchanged: bool) -> Result<(), Error> {
        let mut metadata = serde_json::json!({"name": self.name, "uid": self.remediation.metadata.uid});
        if unchanged {
            metadata["resourceVersion"] = serde_json::json!(self.remediation.metadata.resource_version);
        }
        let patch = Patch::Apply(serde_json::json!({
            "apiVersion": Remediation::api_version(&()),
            "kind": Remediation::kind(&()),
            "metadata": metadata,
            "status": status,
        }));
        let params = PatchParams::apply(REMEDIATION_MANAGER).force();
        let api = self.api();
        let request = api.patch_status(&self.name, &params, &patch);
        let written = Box::pin(limited("write the remediation's status", request)).await?;
        self.ctx.written.note(&written);
        self.ctx.metrics.status_write();
        Ok(())
    }
}

fn enter(status: &mut RemediationStatus, phase: Phase, reason: RemediationReason, message: &str) {
    status.phase = phase;
    status.reason = reason.name().to_owned();
    status.message = message.to_owned();
}

/// The event of a phase that an action waits or ends in.
fn event_of(phase: Phase) -> Option<EventReason> {
    match phase {
        Phase::Pending | Phase::Running | Phase::Verifying => None,
        Phase::AwaitingApproval => Some(EventReason::AwaitingApproval),
        Phase::Blocked => Some(EventReason::Blocked),
        Phase::Succeeded => Some(EventReason::Succeeded),
        Phase::Failed => Some(EventReason::Failed),
        Phase::Ineffective => Some(EventReason::Ineffective),
        Phase::Rejected => Some(EventReason::Rejected),
        Phase::Expired => Some(EventReason::Expired),
    }
}

/// Of a cleanup: the memory after the action.
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
