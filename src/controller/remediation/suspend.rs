//! Beside a rollback: the Flux or Argo CD object that would undo it is suspended before, and resumed after.
//!
//! Expected flow: store the object that will be suspended → suspend it → store that it is suspended → roll back. Once the
//! Remediation has ended, the source is checked once an interval: another revision, or a person's request, resumes it.
//! Guarantees: nothing is suspended that is not in a status before; an object that somebody else suspended is never
//! resumed; Panacea does not remove a Remediation while the object that it suspended is not resumed.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt as _;

use super::Reconciliation;
use crate::{
    api::{GitOps, Phase, RESUME, RemediationStatus, Suspension, ValidPolicy, milliseconds},
    controller::{
        Error,
        events::{EventReason, Fact},
    },
    targets::kubernetes::{ActError, Followed, Held, Kubernetes, write},
};

/// Between two checks of a source while the policy is not known.
const FOLLOW_EVERY: Duration = Duration::from_secs(60);
/// After a check that failed for reasons that may pass.
const FOLLOW_AGAIN: Duration = Duration::from_secs(5);

impl Reconciliation<'_> {
    /// With leave to write what belongs to the suspended object.
    fn kubernetes(&self, status: &RemediationStatus) -> Kubernetes {
        let kubernetes = &self.ctx.targets.kubernetes;
        let suspended = status.suspended.as_ref().filter(|suspension| suspension.suspended_at.is_some());
        suspended.map_or_else(|| kubernetes.clone(), |suspension| kubernetes.beside(suspension))
    }

    /// With leave to write what belongs to the object that would be suspended. Writes nothing.
    pub(super) async fn preflight_owner(&self, policy: &ValidPolicy) -> Result<Kubernetes, ActError> {
        let kubernetes = &self.ctx.targets.kubernetes;
        let planned = self.planned(policy).await?;
        Ok(planned.map_or_else(|| kubernetes.clone(), |planned| kubernetes.beside(&planned)))
    }

    async fn planned(&self, policy: &ValidPolicy) -> Result<Option<Suspension>, ActError> {
        let (kubernetes, plan) = (&self.ctx.targets.kubernetes, self.plan);
        let Some(workload) = self.workload() else { return Ok(None) };
        if policy.limits.git_ops != GitOps::Suspend || !plan.action.is_undone_by_owner() {
            return Ok(None);
        }
        match kubernetes.blocking_owner(workload, plan.action, plan.intent.config()).await? {
            Some((owner, of)) => kubernetes.plan_suspension(&owner, &of).await.map(Some),
            None => Ok(None),
        }
    }

    /// Suspends the object that would undo the action, and gives leave to carry the action out. Safe to repeat. With
    /// `withdrawn` nothing new is suspended.
    pub(super) async fn suspend_owner(
        &self,
        status: &mut RemediationStatus,
        policy: Option<&ValidPolicy>,
        withdrawn: bool,
    ) -> Result<Result<Kubernetes, ActError>, Error> {
        let Some(policy) = policy.filter(|_| !withdrawn) else { return Ok(Ok(self.kubernetes(status))) };
        if status.suspended.is_none() {
            match self.planned(policy).await {
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
                suspension.message = waiting(suspension, None, &self.name);
            }
            Held::Already { by } => {
                suspension.already = true;
                let who = by.map_or_else(|| "somebody else".to_owned(), |by| format!("Remediation {by}"));
                suspension.message = format!("{who} suspended it before; this Remediation does not resume it");
            }
        }
        let suspension = suspension.clone();
        self.write(status, false).await?;
        let Suspension { kind, namespace, name, message, .. } = &suspension;
        let (action, target) = (self.plan.action, &self.plan.target);
        let note = format!(
            "{kind} {namespace}/{name} is suspended for {action} of {}/{}: {message}",
            target.kind, target.name
        );
        self.report_all(&suspension, EventReason::GitOpsSuspended, &note).await;
        Ok(Ok(self.kubernetes(status)))
    }

    /// Of an ended Remediation: resumes the suspended object when it is time to. None: nothing is left to wait for.
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
        let (event, message) = match &followed {
            Ok(Followed::Waits(why)) => (None, waiting(&suspension, why.as_deref(), &self.name)),
            Ok(Followed::Resumed(newer)) => {
                let why = match newer {
                    Some(revision) => format!("its source has a newer revision: {revision}"),
                    None if asked => "a person requested it".to_owned(),
                    None => "the rollback was not carried out".to_owned(),
                };
                (Some(EventReason::GitOpsResumed), format!("resumed: {why}"))
            }
            Ok(Followed::Over(_) | Followed::Left(_)) if suspension.suspended_at.is_none() => {
                (None, "not suspended".to_owned())
            }
            Ok(Followed::Over(why)) => (Some(EventReason::GitOpsResumed), format!("nothing is left to resume: {why}")),
            Ok(Followed::Left(why)) => (Some(EventReason::GitOpsLeft), format!("not resumed by Panacea: {why}")),
            Err(error) if error.retryable() => {
                tracing::info!(owner = suspension.name, %error, "the suspended object cannot be checked or resumed; retrying");
                return Ok(Some(FOLLOW_AGAIN));
            }
            Err(_) if deleted => {
                self.leave(&suspension).await;
                return Ok(None);
            }
            Err(error) => {
                let message = format!("cannot be checked or resumed: {error}; {}", manually(&suspension));
                (Some(EventReason::GitOpsLeft), message)
            }
        };
        let wait = matches!(followed, Ok(Followed::Waits(_)) | Err(_)).then(|| self.interval());
        if suspension.message == message && wait.is_some() {
            return Ok(wait);
        }
        let ended = wait.is_none().then(|| milliseconds(Timestamp::now()));
        let followed = Suspension { message, resumed_at: ended, ..suspension };
        status.suspended = Some(followed.clone());
        self.write(status, false).await?;
        if let Some(event) = event {
            let note = format!("{} {}/{}: {}", followed.kind, followed.namespace, followed.name, followed.message);
            self.report_all(&followed, event, &note).await;
        }
        Ok(wait)
    }

    /// The Remediation, which would resume the object, is being deleted.
    async fn leave(&self, suspension: &Suspension) {
        let Suspension { kind, namespace, name, .. } = suspension;
        let how = manually(suspension);
        let note = format!("the Remediation is deleted and {kind} {namespace}/{name} stays suspended; {how}");
        self.report_all(suspension, EventReason::GitOpsLeft, &note).await;
    }

    /// Another Remediation of the policy found the object suspended, and has carried out, or runs, its own rollback.
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

    /// The Remediation ended before it changed anything, so there is nothing to undo. False when that is unknown.
    async fn wrote_nothing(&self, status: &RemediationStatus) -> bool {
        if status.executed_at.is_some() || !matches!(status.phase, Phase::Failed | Phase::Expired) {
            return false;
        }
        let never_suspended = status.suspended.as_ref().is_some_and(|suspension| suspension.suspended_at.is_none());
        let Some(workload) = self.workload().filter(|_| !never_suspended) else { return true };
        let started_at = status.started_at.unwrap_or(self.plan.decided_at);
        match write::has_started(&self.kubernetes(status), workload, self.plan, started_at).await {
            Ok(begun) => !begun,
            // Another template runs, or none: not ours.
            Err(error) => {
                matches!(error, ActError::Superseded { .. } | ActError::NotFound(_) | ActError::TargetGone(_))
            }
        }
    }

    /// The value of the annotation on the owner.
    fn mark(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn interval(&self) -> Duration {
        let memory = self.ctx.memory.find(&self.namespace, &self.plan.policy);
        memory.and_then(|memory| memory.lock().policy.as_ref().map(|policy| policy.interval)).unwrap_or(FOLLOW_EVERY)
    }

    /// On the Remediation, on the workload, and on the owner, where users of the GitOps controller find it.
    async fn report_all(&self, suspension: &Suspension, reason: EventReason, note: &str) {
        self.ctx.events.about_remediation(self.remediation, reason, note).await;
        let reference = |api_version: &str, kind: &str, namespace: &str, name: &str, uid| ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some(kind.to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid,
            ..ObjectReference::default()
        };
        // `kubectl describe` finds an event by the uid.
        let (uid, of_workload) = match self.workload() {
            Some(workload) => (self.ctx.targets.kubernetes.uid_of(workload).await, workload.kind.api_version()),
            None => (None, ""),
        };
        let target = &self.plan.target;
        let Suspension { api_version, kind, namespace, name, uid: of_owner, .. } = suspension;
        let acted_on = reference(of_workload, &target.kind, &self.namespace, &target.name, uid);
        let owner = reference(api_version, kind, namespace, name, Some(of_owner.clone()));
        let note = format!("{note} (Remediation {})", self.mark());
        let fact = Fact { subject: self.name.clone(), ..Fact::new(reason, &self.plan.component, note) };
        for object in [acted_on, owner] {
            self.ctx.events.report(&object, fact.clone()).await;
        }
    }
}

/// When the object is resumed, and how a person resumes it now. `why`: the source's revision cannot be read.
fn waiting(suspension: &Suspension, why: Option<&str>, remediation: &str) -> String {
    let automatically = match (&suspension.revision, why) {
        (Some(revision), None) => format!("resumed when its source has a newer revision than {revision}"),
        (_, why) => {
            let planned = Some(suspension.message.as_str()).filter(|message| !message.is_empty());
            let why = why.or(planned).unwrap_or("the source names none");
            format!("not resumed automatically, since the revision of its source is unknown ({why})")
        }
    };
    format!("{automatically}; to resume it now: kubectl annotate rem {remediation} {RESUME}=true")
}

/// How a person resumes the object without Panacea.
fn manually(suspension: &Suspension) -> String {
    let Suspension { kind, namespace, name, .. } = suspension;
    match kind.as_str() {
        "Application" => format!(
            "to resume it, copy its annotation panacea.dev/suspended-previous to spec.syncPolicy.automated of Application {namespace}/{name}"
        ),
        _ => format!("to resume it: flux resume {} {name} -n {namespace}", kind.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspension_names_its_end_and_the_command_that_ends_it_now() {
        let known = Suspension { revision: Some("main@1".into()), ..Suspension::default() };
        let words = waiting(&known, None, "shop-api-1-0");
        assert!(words.contains("newer revision than main@1"), "{words}");
        assert!(words.ends_with("kubectl annotate rem shop-api-1-0 panacea.dev/resume=true"), "{words}");
        let words = waiting(&Suspension::default(), Some("not allowed to get buckets"), "x");
        assert!(words.starts_with("not resumed automatically"), "{words}");
        assert!(words.contains("not allowed to get buckets"), "{words}");
        let flux = Suspension { kind: "HelmRelease".into(), namespace: "shop".into(), name: "api".into(), ..known };
        assert_eq!(manually(&flux), "to resume it: flux resume helmrelease api -n shop");
    }
}
