//! Beside a rollback: the Flux or Argo CD object that would undo it is suspended before, and resumed after.
//!
//! Expected flow: what will be suspended is stored → suspended → stored that it is → the rollback. Once the Remediation has
//! ended, its source is looked at once an interval: another revision, or a person's word, resumes it.
//! Guarantees: nothing is suspended that is not in a status before; what somebody else suspended is never resumed; a
//! Remediation is not removed by Panacea while what it suspended is not resumed.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt as _;

use super::{Step, whole_state, workload};
use crate::{
    api::{ActionKind, GitOps, Phase, RESUME, RemediationStatus, Suspension, ValidPolicy, milliseconds},
    controller::{
        Error,
        events::{Fact, Reason},
    },
    targets::kubernetes::{ActError, Followed, Held, Kubernetes, WorkloadRef},
};

/// How often a source is looked at while the policy is not known.
const FOLLOW_EVERY: Duration = Duration::from_secs(60);
/// After a look that failed for reasons that may pass.
const FOLLOW_AGAIN: Duration = Duration::from_secs(5);

impl Step<'_> {
    /// With leave to write what belongs to what is suspended.
    pub(super) fn kubernetes(&self, status: &RemediationStatus) -> Kubernetes {
        let kubernetes = &self.ctx.targets.kubernetes;
        match &status.suspended {
            Some(suspension) if suspension.suspended_at.is_some() => kubernetes.beside(suspension),
            _ => kubernetes.clone(),
        }
    }

    /// With leave to write what could be suspended. Writes nothing.
    pub(super) async fn preflight_owner(
        &self,
        workload: WorkloadRef<'_>,
        policy: &ValidPolicy,
    ) -> Result<Kubernetes, ActError> {
        let kubernetes = &self.ctx.targets.kubernetes;
        match self.planned(kubernetes, workload, policy).await? {
            Some(planned) => Ok(kubernetes.beside(&planned)),
            None => Ok(kubernetes.clone()),
        }
    }

    async fn planned(
        &self,
        kubernetes: &Kubernetes,
        workload: WorkloadRef<'_>,
        policy: &ValidPolicy,
    ) -> Result<Option<Suspension>, ActError> {
        let spec = &self.remediation.spec;
        if policy.limits.git_ops != GitOps::Suspend {
            return Ok(None);
        }
        match kubernetes.owner_in_the_way(workload, spec.action, spec.config.as_ref()).await? {
            Some((owner, of)) => kubernetes.plan_suspension(&owner, &of).await.map(Some),
            None => Ok(None),
        }
    }

    /// Suspends what would undo the rollback, and gives leave to make it. Safe to repeat.
    pub(super) async fn make_room(
        &self,
        status: &mut RemediationStatus,
        policy: Option<&ValidPolicy>,
    ) -> Result<Result<Kubernetes, ActError>, Error> {
        if status.suspended.is_none() {
            let Some(policy) = policy else { return Ok(Ok(self.kubernetes(status))) };
            let namespace = self.remediation.namespace().unwrap_or_default();
            let planned = match workload(&namespace, &self.remediation.spec) {
                Ok(workload) => self.planned(&self.ctx.targets.kubernetes, workload, policy).await,
                Err(error) => Err(error),
            };
            match planned {
                Ok(None) => return Ok(Ok(self.kubernetes(status))),
                Ok(planned) => status.suspended = planned,
                Err(error) => return Ok(Err(error)),
            }
            self.write(status, false).await?;
        }
        let Some(suspension) = status.suspended.as_mut().filter(|one| one.suspended_at.is_none()) else {
            return Ok(Ok(self.kubernetes(status)));
        };
        let held = match self.ctx.targets.kubernetes.suspend(suspension, &self.mark()).await {
            Ok(held) => held,
            Err(error) => return Ok(Err(error)),
        };
        suspension.suspended_at = Some(milliseconds(Timestamp::now()));
        match held {
            Held::Ours { generation } => {
                suspension.generation = generation;
                suspension.message = waiting(suspension, None, &self.remediation.name_any());
            }
            Held::Already { by } => {
                suspension.already = true;
                let who = by.map_or_else(|| "somebody else".to_owned(), |by| format!("Remediation {by}"));
                suspension.message = format!("it was suspended by {who} before; it is not resumed by this Remediation");
            }
        }
        let suspension = suspension.clone();
        self.write(status, false).await?;
        let note = format!(
            "{} {}/{} is suspended for {} of {}/{}: {}",
            suspension.kind,
            suspension.namespace,
            suspension.name,
            self.remediation.spec.action,
            self.remediation.spec.target.kind,
            self.remediation.spec.target.name,
            suspension.message
        );
        self.report_all(&suspension, Reason::GitOpsSuspended, &note).await;
        Ok(Ok(self.kubernetes(status)))
    }

    /// Of one that has ended: resumes what it suspended when it is time to. None: nothing is left to wait for.
    pub(super) async fn follow(&self, status: &mut RemediationStatus) -> Result<Option<Duration>, Error> {
        let Some(suspension) = status.suspended.clone().filter(Suspension::is_open) else { return Ok(None) };
        let asked = self.remediation.annotations().get(RESUME).is_some_and(|value| value == "true");
        let at_once = asked || (self.wrote_nothing(status).await && !self.is_relied_on(&suspension).await?);
        let deleted = self.remediation.metadata.deletion_timestamp.is_some();
        if deleted && !at_once {
            self.leave(&suspension).await;
            return Ok(None);
        }
        let followed = self.ctx.targets.kubernetes.follow(&suspension, &self.mark(), at_once).await;
        let name = self.remediation.name_any();
        let (reason, message, wait) = match followed {
            Ok(Followed::Waits(why)) => (None, waiting(&suspension, why.as_deref(), &name), Some(self.interval())),
            Ok(Followed::Resumed(newer)) => {
                let why = match newer {
                    Some(revision) => format!("its source has a newer revision: {revision}"),
                    None if asked => "a person asked for it".to_owned(),
                    None => "the rollback was not made".to_owned(),
                };
                (Some(Reason::GitOpsResumed), format!("resumed: {why}"), None)
            }
            Ok(Followed::Over(_) | Followed::Left(_)) if suspension.suspended_at.is_none() => {
                (None, "it was not suspended".to_owned(), None)
            }
            Ok(Followed::Over(why)) => (Some(Reason::GitOpsResumed), format!("nothing is left to resume: {why}"), None),
            Ok(Followed::Left(why)) => (Some(Reason::GitOpsLeft), format!("not resumed by Panacea: {why}"), None),
            Err(error) if error.retryable() => {
                tracing::info!(owner = suspension.name, %error, "what is suspended could not be looked at or resumed; trying again");
                return Ok(Some(FOLLOW_AGAIN));
            }
            Err(_) if deleted => {
                self.leave(&suspension).await;
                return Ok(None);
            }
            Err(error) => {
                let message = format!("cannot be looked at or resumed: {error}; {}", by_hand(&suspension));
                (Some(Reason::GitOpsLeft), message, Some(self.interval()))
            }
        };
        if suspension.message == message && wait.is_some() {
            return Ok(wait);
        }
        let ended = wait.is_none().then(|| milliseconds(Timestamp::now()));
        let followed = Suspension { message, resumed_at: ended, ..suspension };
        status.suspended = Some(followed.clone());
        self.write(status, false).await?;
        if let Some(reason) = reason {
            let note = format!("{} {}/{}: {}", followed.kind, followed.namespace, followed.name, followed.message);
            self.report_all(&followed, reason, &note).await;
        }
        Ok(wait)
    }

    /// Its Remediation is being deleted, and with it goes who would resume it.
    async fn leave(&self, suspension: &Suspension) {
        let Suspension { kind, namespace, name, .. } = suspension;
        let note = format!(
            "the Remediation is deleted and {kind} {namespace}/{name} stays suspended; {}",
            by_hand(suspension)
        );
        self.report_all(suspension, Reason::GitOpsLeft, &note).await;
    }

    /// Another Remediation of the policy found it suspended, and has made, or makes, its own rollback.
    async fn is_relied_on(&self, suspension: &Suspension) -> Result<bool, Error> {
        let same = |other: &Suspension| {
            other.already
                && (&other.kind, &other.namespace, &other.name)
                    == (&suspension.kind, &suspension.namespace, &suspension.name)
        };
        Ok(self.of_policy().await?.iter().filter_map(|other| other.status.as_ref()).any(|status| {
            status.suspended.as_ref().is_some_and(same) && (status.executed_at.is_some() || !status.phase.is_final())
        }))
    }

    /// It ended before it changed anything, so that there is nothing to undo. Not when that cannot be told.
    async fn wrote_nothing(&self, status: &RemediationStatus) -> bool {
        if status.executed_at.is_some() || !matches!(status.phase, Phase::Failed | Phase::Expired) {
            return false;
        }
        if status.suspended.as_ref().is_some_and(|suspension| suspension.suspended_at.is_none()) {
            return true;
        }
        let spec = &self.remediation.spec;
        let namespace = self.remediation.namespace().unwrap_or_default();
        let kubernetes = self.kubernetes(status);
        let begun = async {
            let workload = workload(&namespace, spec)?;
            match (spec.action, &spec.from, &spec.to, &spec.config) {
                (ActionKind::RollbackDeployment, Some(from), Some(to), _) => {
                    kubernetes.is_rolled_back(workload, from, to).await
                }
                (ActionKind::RollbackPreviousState, ..) => {
                    let at = status.started_at.unwrap_or(spec.decided_at);
                    kubernetes.is_restoring(workload, whole_state(spec)?, at).await
                }
                (ActionKind::RollbackConfig, _, _, Some(to)) => {
                    Ok(kubernetes.config_left(workload, to).await? < to.objects.len())
                }
                _ => Ok(false),
            }
        };
        // Another template runs, or none: not ours.
        let not_ours = |error: &ActError| {
            matches!(error, ActError::Superseded { .. } | ActError::NotFound(_) | ActError::TargetGone(_))
        };
        match begun.await {
            Ok(begun) => !begun,
            Err(error) => not_ours(&error),
        }
    }

    /// What the annotation on the owner says.
    fn mark(&self) -> String {
        format!("{}/{}", self.remediation.namespace().unwrap_or_default(), self.remediation.name_any())
    }

    fn interval(&self) -> Duration {
        let namespace = self.remediation.namespace().unwrap_or_default();
        let memory = self.ctx.memory.find(&namespace, &self.remediation.spec.policy);
        memory.and_then(|memory| memory.lock().policy.as_ref().map(|policy| policy.interval)).unwrap_or(FOLLOW_EVERY)
    }

    /// On the Remediation, on the workload, and on the owner, where people of the GitOps controller look.
    async fn report_all(&self, suspension: &Suspension, reason: Reason, note: &str) {
        self.ctx.events.about_remediation(self.remediation, reason, note).await;
        let target = &self.remediation.spec.target;
        let reference =
            |api_version: &str, kind: &str, namespace: &str, name: &str, uid: Option<String>| ObjectReference {
                api_version: Some(api_version.to_owned()),
                kind: Some(kind.to_owned()),
                namespace: Some(namespace.to_owned()),
                name: Some(name.to_owned()),
                uid,
                ..ObjectReference::default()
            };
        let namespace = self.remediation.namespace().unwrap_or_default();
        // By its uid `kubectl describe` finds an event.
        let (uid, of_workload) = match workload(&namespace, &self.remediation.spec) {
            Ok(workload) => (self.ctx.targets.kubernetes.uid_of(workload).await, workload.kind.api_version()),
            Err(_) => (None, ""),
        };
        let Suspension { api_version, kind, namespace: place, name, uid: of_owner, .. } = suspension;
        let acted_on = reference(of_workload, &target.kind, &namespace, &target.name, uid);
        let owner = reference(api_version, kind, place, name, Some(of_owner.clone()));
        for object in [acted_on, owner] {
            let fact = Fact {
                reason,
                component: self.remediation.spec.component.clone(),
                subject: self.remediation.name_any(),
                note: format!("{note} (Remediation {})", self.mark()),
                secondary: None,
            };
            self.ctx.events.tell(&object, fact).await;
        }
    }
}

/// What is waited for, and how a person steps in. `why` the source cannot be told.
fn waiting(suspension: &Suspension, why: Option<&str>, remediation: &str) -> String {
    let by_itself = match (&suspension.revision, why) {
        (Some(revision), None) => format!("resumed when its source has a newer revision than {revision}"),
        (None, None) if !suspension.message.is_empty() => {
            format!("not resumed by itself, since the revision of its source cannot be told ({})", suspension.message)
        }
        (_, why) => format!(
            "not resumed by itself, since the revision of its source cannot be told ({})",
            why.unwrap_or("it names none")
        ),
    };
    format!("{by_itself}; to resume it now: kubectl annotate rem {remediation} {RESUME}=true")
}

/// How a person resumes it without Panacea.
fn by_hand(suspension: &Suspension) -> String {
    let Suspension { kind, namespace, name, .. } = suspension;
    match kind.as_str() {
        "Application" => format!(
            "to resume it, put what its annotation panacea.dev/suspended-previous holds back as spec.syncPolicy.automated of Application {namespace}/{name}"
        ),
        _ => format!("to resume it: flux resume {} {name} -n {namespace}", kind.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_and_how_to_step_in_is_said() {
        let known = Suspension { revision: Some("main@1".into()), ..Suspension::default() };
        let words = waiting(&known, None, "shop-api-1-0");
        assert!(words.contains("newer revision than main@1"), "{words}");
        assert!(words.ends_with("kubectl annotate rem shop-api-1-0 panacea.dev/resume=true"), "{words}");
        let words = waiting(&Suspension::default(), Some("not allowed to get buckets"), "x");
        assert!(words.starts_with("not resumed by itself") && words.contains("not allowed to get buckets"), "{words}");
        let flux = Suspension { kind: "HelmRelease".into(), namespace: "shop".into(), name: "api".into(), ..known };
        assert_eq!(by_hand(&flux), "to resume it: flux resume helmrelease api -n shop");
    }
}
