//! The remediation controller: one reconciliation takes one Remediation one step further.
//!
//! Expected flow: approve → execute → verify → record (the phases are drawn at [`crate::api::RemediationSpec`]).
//! Guarantees: `Running`, with the time, is in etcd before the write that it stands for; no step is made from a view that
//! is older than the last one's outcome; a write that was made by an
//! operator that then died is recognized, not repeated; every end phase has its rows in the ledger before the object
//! can be removed.
//! Assumptions: one operator at a time; the API server orders writes to one object.

mod approve;
mod cleanup;
mod database;
mod hosted;
mod mcp;
mod own;
mod record;
mod suspend;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    core::DeserializeGuard,
    runtime::controller::Action,
};

use super::{
    Context, Error, GuardedRemediation,
    events::Reason,
    invalid_policy::mistake_in,
    limited,
    memory::{ComponentMemory, PolicyMemory},
    policy::retry_delay,
    revalidate::withdrawn,
    verify::{self, Verification},
};
use crate::{
    api::{
        ActionKind, ConfigRollback, HOSTED_KINDS, HealingPolicy, POLICY_LABEL, POSTGRES_KIND, Phase,
        REMEDIATION_MANAGER, Remediation, RemediationSpec, RemediationStatus, ValidPolicy, ValidTarget, WorkloadKind,
        milliseconds,
    },
    targets::kubernetes::{ActError, Kubernetes, Named, Outcome, WholeState, WorkloadRef},
};

/// How often a held back action is tried again when its guard does not say when.
const RETRY_BLOCKED: Duration = Duration::from_secs(5);
/// How often an action that waits for looks (confirmation, verification) is looked at: in memory, so it costs nothing.
const RECHECK: Duration = Duration::from_millis(500);
/// A write that keeps failing for reasons that may pass is given up after this time.
const EXECUTE_LIMIT: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

pub struct RemediationContext {
    pub shared: Arc<Context>,
}

/// One step.
///
/// # Errors
/// When the API server or the ledger cannot be written to; the step is repeated.
pub async fn reconcile(object: Arc<GuardedRemediation>, context: Arc<RemediationContext>) -> Result<Action, Error> {
    let remediation = match &object.0 {
        Ok(remediation) => remediation,
        Err(_) => return unreadable(&context.shared, &object).await,
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
    let step = Step { ctx: &context.shared, remediation };
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
        Phase::Running => Box::pin(step.execute(status, policy.as_ref())).await,
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
        let component = object.0.as_ref().map(|remediation| remediation.spec.component.as_str()).unwrap_or_default();
        tracing::warn!(namespace, remediation = name, component, %error, "the step could not be finished; it is repeated");
    }
    Action::requeue(retry_delay(&name))
}

/// Stored by another version: it is left as it is, and the others go on.
async fn unreadable(ctx: &Context, object: &GuardedRemediation) -> Result<Action, Error> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    if let Some((_, mistake)) = mistake_in::<Remediation>(ctx.client.clone(), &namespace, &name).await? {
        tracing::error!(
            namespace,
            remediation = name,
            "the stored object cannot be read, so nothing is done about it: {mistake}; finish it with the version that made it, or delete it: kubectl delete rem {name} -n {namespace}"
        );
    }
    Ok(Action::await_change())
}

/// The workload that a Remediation acts on.
fn workload<'a>(namespace: &'a str, spec: &'a RemediationSpec) -> Result<WorkloadRef<'a>, ActError> {
    let kind = spec.target.kind.parse();
    let kind = kind.map_err(|_| ActError::Rejected(format!("{} is no kind that can be acted on", spec.target.kind)))?;
    Ok(WorkloadRef { kind, namespace, name: &spec.target.name })
}

/// The workloads that the policy is about.
fn named(policy: &ValidPolicy) -> Named {
    let workloads = policy.components.iter().filter_map(|component| component.target.workload());
    workloads.map(|(kind, name)| (kind, name.to_owned())).collect()
}

fn whole_state(spec: &RemediationSpec) -> Result<WholeState<'_>, ActError> {
    match (&spec.from, &spec.to, &spec.config) {
        (Some(from), Some(to), Some(config)) => Ok(WholeState { from, to, config }),
        _ => Err(ActError::TargetGone("it is not named".to_owned())),
    }
}

struct Step<'a> {
    ctx: &'a Context,
    remediation: &'a Remediation,
}

impl Step<'_> {
    fn api(&self) -> Api<Remediation> {
        Api::namespaced(self.ctx.client.clone(), &self.remediation.namespace().unwrap_or_default())
    }

    /// The policy as it is now, if it is still the same one and usable.
    async fn policy(&self) -> Result<Option<ValidPolicy>, Error> {
        let api: Api<DeserializeGuard<HealingPolicy>> =
            Api::namespaced(self.ctx.client.clone(), &self.remediation.namespace().unwrap_or_default());
        let found = limited("read the policy", api.get_opt(&self.remediation.spec.policy)).await?;
        Ok(found
            .and_then(|policy| policy.0.ok())
            .filter(|policy| policy.metadata.uid.as_deref() == Some(self.remediation.spec.policy_uid.as_str()))
            .filter(|policy| policy.metadata.deletion_timestamp.is_none())
            .and_then(|policy| ValidPolicy::new(&policy, &self.ctx.thresholds).ok()))
    }

    /// All Remediations of its policy that can be read.
    async fn of_policy(&self) -> Result<Vec<Remediation>, Error> {
        let api: Api<GuardedRemediation> =
            Api::namespaced(self.ctx.client.clone(), &self.remediation.namespace().unwrap_or_default());
        let params = ListParams::default().labels(&format!("{POLICY_LABEL}={}", self.remediation.spec.policy));
        let listed = limited("list the policy's remediations", api.list(&params)).await?;
        Ok(listed.items.into_iter().filter_map(|guarded| guarded.0.ok()).collect())
    }

    /// Makes the write. Safe to repeat: it finds out by itself whether it was made before a crash.
    async fn execute(&self, mut status: RemediationStatus, policy: Option<&ValidPolicy>) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        if spec.action.is_own() {
            return self.run_own(status, policy).await;
        }
        if HOSTED_KINDS.contains(&spec.target.kind.as_str()) {
            return Box::pin(self.run_hosted(status, policy)).await;
        }
        if spec.target.kind == POSTGRES_KIND {
            return self.run_database(status, policy).await;
        }
        let target = policy.and_then(|policy| policy.component(&spec.component)).map(|component| &component.target);
        if let Some(ValidTarget::Http(_)) = target {
            return self
                .finish(status, Phase::Failed, "TargetChanged", "the component is an http target now; nothing was done")
                .await;
        }
        let started_at = status.started_at.unwrap_or(spec.decided_at);
        if spec.action == ActionKind::RollbackDeployment && (spec.from.is_none() || spec.to.is_none()) {
            return self
                .finish(status, Phase::Failed, "NoTarget", "the remediation names no template to go back to")
                .await;
        }
        if spec.action == ActionKind::CleanupMemory {
            return self.clean(status, policy).await;
        }
        let result = match withdrawn(spec, policy) {
            None => match self.make_room(&mut status, policy).await? {
                Ok(kubernetes) => self.act(&kubernetes, started_at, policy).await,
                Err(error) => Err(error),
            },
            // A write that is not wanted any more is not made; one that was made before is still verified.
            Some((reason, why)) => match self.was_done(&self.kubernetes(&status), started_at, policy).await {
                Ok(true) => Ok(Outcome::AlreadyDone),
                Ok(false) => {
                    return self.finish(status, Phase::Expired, reason, &format!("{why}; nothing was done")).await;
                }
                Err(error) => Err(error),
            },
        };
        match result {
            Ok(outcome) => {
                let message = match (spec.action, &spec.to) {
                    (ActionKind::RollbackDeployment, Some(to)) => {
                        format!("the template of {to} is back; watching whether it helps")
                    }
                    (ActionKind::RollbackPreviousState, Some(to)) => {
                        format!("the state of {to} is back; watching whether it helps")
                    }
                    (ActionKind::RollbackConfig, _) => {
                        let names = spec.config.as_ref().map(ConfigRollback::names).unwrap_or_default();
                        format!("{names} is as it was, and pods are being replaced; watching whether it helps")
                    }
                    (ActionKind::Scale, _) => {
                        let pods = spec.scale.map(|scaling| scaling.to).unwrap_or_default();
                        format!("{pods} pods are wanted now; watching whether it helps")
                    }
                    _ => "pods are being replaced; watching whether it helps".to_owned(),
                };
                let reason = match outcome {
                    Outcome::Done { .. } => "Executed",
                    Outcome::AlreadyDone => "AlreadyDone",
                };
                self.executed(status, reason, message).await
            }
            Err(error) => self.not_done(status, error, started_at).await,
        }
    }

    /// It was done; whether it helped is told by looking on.
    async fn executed(
        &self,
        mut status: RemediationStatus,
        reason: &'static str,
        message: String,
    ) -> Result<Action, Error> {
        status.phase = Phase::Verifying;
        status.executed_at = Some(milliseconds(Timestamp::now()));
        status.reason = reason.into();
        status.message = message;
        self.write(&status, false).await?;
        self.ctx.events.about_remediation(self.remediation, Reason::Verifying, &status.message).await;
        Ok(Action::requeue(RECHECK))
    }

    async fn act(
        &self,
        kubernetes: &Kubernetes,
        started_at: Timestamp,
        policy: Option<&ValidPolicy>,
    ) -> Result<Outcome, ActError> {
        let spec = &self.remediation.spec;
        let namespace = self.remediation.namespace().unwrap_or_default();
        let workload = workload(&namespace, spec)?;
        match (spec.action, &spec.from, &spec.to) {
            (ActionKind::RollbackDeployment, Some(from), Some(to)) => kubernetes.rollback(workload, from, to).await,
            (ActionKind::RollbackDeployment, ..) => Err(ActError::TargetGone("it is not named".to_owned())),
            (ActionKind::Restart, from, _) => kubernetes.restart(workload, from.as_ref(), started_at).await,
            (ActionKind::Scale, from, _) => {
                let scaling = spec.scale.ok_or_else(|| ActError::TargetGone("it is not named".to_owned()))?;
                kubernetes.scale(workload, from.as_ref(), scaling).await
            }
            (ActionKind::RollbackPreviousState, ..) => {
                let named = policy.map(named).unwrap_or_default();
                kubernetes.restore(workload, whole_state(spec)?, &named, started_at).await
            }
            (ActionKind::RollbackConfig, from, _) => {
                let named = policy.map(named).unwrap_or_default();
                let to = spec.config.as_ref().ok_or_else(|| ActError::TargetGone("it is not named".to_owned()))?;
                kubernetes.rollback_config(workload, from.as_ref(), to, &named, started_at).await
            }
            _ => Err(ActError::Rejected("it is no single write to a workload".to_owned())),
        }
    }

    /// Whether the write was made, by a life of the operator that could not say so.
    async fn was_done(
        &self,
        kubernetes: &Kubernetes,
        started_at: Timestamp,
        policy: Option<&ValidPolicy>,
    ) -> Result<bool, ActError> {
        let spec = &self.remediation.spec;
        let namespace = self.remediation.namespace().unwrap_or_default();
        let workload = workload(&namespace, spec)?;
        match (spec.action, &spec.from, &spec.to) {
            (ActionKind::RollbackDeployment, Some(from), Some(to)) => {
                let begun = kubernetes.is_rolled_back(workload, from, to).await?;
                // Of a Rollout it is two writes, and half of it is worse than all of it.
                if begun && workload.kind == WorkloadKind::Rollout {
                    self.act(kubernetes, started_at, policy).await?;
                }
                Ok(begun)
            }
            (
                ActionKind::RollbackDeployment
                | ActionKind::CleanupMemory
                | ActionKind::Job
                | ActionKind::Webhook
                | ActionKind::Mcp
                | ActionKind::RecoverConnections
                | ActionKind::ReleaseConnections
                | ActionKind::CancelLongQueries
                | ActionKind::Failover,
                ..,
            ) => Ok(false),
            // Half of it is worse than all of it: what was begun is finished.
            (ActionKind::RollbackPreviousState, ..) => {
                let begun = kubernetes.is_restoring(workload, whole_state(spec)?, started_at).await?;
                if begun {
                    self.act(kubernetes, started_at, policy).await?;
                }
                Ok(begun)
            }
            (ActionKind::RollbackConfig, ..) => {
                let Some(to) = &spec.config else { return Ok(false) };
                let begun = kubernetes.config_left(workload, to).await? < to.objects.len();
                if begun {
                    self.act(kubernetes, started_at, policy).await?;
                }
                Ok(begun)
            }
            (ActionKind::Scale, from, _) => match spec.scale {
                Some(scaling) => kubernetes.is_scaled(workload, from.as_ref(), scaling).await,
                None => Ok(false),
            },
            (ActionKind::Restart, from, _) => kubernetes.is_restarted(workload, from.as_ref(), started_at).await,
        }
    }

    async fn verify(&self, mut status: RemediationStatus, policy: Option<&ValidPolicy>) -> Result<Action, Error> {
        let unseen = "before it could be told whether it helped";
        let Some(policy) = policy else {
            let message = format!("the policy was deleted or became invalid {unseen}");
            return self.finish(status, Phase::Ineffective, "PolicyGone", &message).await;
        };
        if policy.component(&self.remediation.spec.component).is_none() {
            let message = format!("the component was taken out of the policy {unseen}");
            return self.finish(status, Phase::Ineffective, "ComponentGone", &message).await;
        }
        let now = Timestamp::now();
        let memory = self.ctx.memory.find(&policy.namespace, &policy.name);
        // Nothing is looked at while the policy is suspended: what was seen before says nothing about now.
        let verdict = memory
            .filter(|_| !policy.suspend)
            .and_then(|memory| {
                with_component(&memory, &self.remediation.spec.component, |entry| {
                    note_memory(&self.remediation.spec, &mut status, entry);
                    verify::judge(&self.remediation.spec, &status, entry, &policy.limits, now)
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
        self.finish(status, phase, "Deleted", message).await
    }

    /// Stays in a waiting phase until `until` at most; writes only when the words change.
    async fn hold(
        &self,
        mut status: RemediationStatus,
        phase: Phase,
        reason: &'static str,
        message: &str,
        until: Timestamp,
    ) -> Result<Action, Error> {
        let changed = status.phase != phase || status.reason != reason;
        if changed {
            status.phase = phase;
            status.reason = reason.to_owned();
            status.message = message.to_owned();
        }
        if self.remediation.status.as_ref() != Some(&status) {
            self.write(&status, false).await?;
        }
        let told = match phase {
            Phase::AwaitingApproval => Some(Reason::AwaitingApproval),
            Phase::Blocked => Some(Reason::Blocked),
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
        reason: &str,
        message: &str,
    ) -> Result<Action, Error> {
        status.phase = phase;
        status.reason = reason.to_owned();
        status.message = message.to_owned();
        status.finished_at = Some(milliseconds(Timestamp::now()));
        self.write(&status, false).await?;
        let told = match phase {
            Phase::Succeeded => Reason::Succeeded,
            Phase::Failed => Reason::Failed,
            Phase::Ineffective => Reason::Ineffective,
            Phase::Rejected => Reason::Rejected,
            _ => Reason::Expired,
        };
        self.ctx.metrics.finished(self.remediation.spec.action.into(), phase.into());
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
fn note_memory(spec: &RemediationSpec, status: &mut RemediationStatus, entry: &ComponentMemory) {
    let value = spec.memory.as_ref().zip(entry.last.as_ref());
    let value = value.and_then(|(growth, look)| look.observation.value(&growth.metric));
    if let Some(cleanup) = &mut status.cleanup {
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
