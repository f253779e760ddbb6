//! Remedies of a team's own: a Job is run, or a webhook called, and followed to its end.
//!
//! Guarantees: the Job's name is derived from the Remediation, so that there is one, whatever dies; a webhook may be called
//! twice then, with the same `Idempotency-Key`. What has begun is followed to its end also when the policy does not want
//! it any more: it cannot be taken back.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{Resource as _, ResourceExt as _, runtime::controller::Action};
use serde_json::json;

use super::{RECHECK, Step};
use crate::{
    api::{
        COMPONENT_LABEL, JobRemedy, POLICY_LABEL, Phase, RemediationSpec, RemediationStatus, RunStatus, Span,
        ValidPolicy, WebhookRemedy,
    },
    controller::{Error, events::Reason, revalidate::withdrawn},
    targets::{
        custom::hook::HookError,
        custom::webhook::{Delivery, Progress},
        kubernetes::{ActError, JobRun, JobState},
    },
};

/// How often a Job is looked at.
const POLL_JOB: Duration = Duration::from_secs(1);
/// Kubernetes ends a Job at its deadline, and gets so long to say so.
const GRACE: SignedDuration = SignedDuration::from_secs(30);
/// Of a component's name, the dash and this much of the uid the name of a Job is made: 40 + 1 + 13 of 63 characters.
const UID_PART: usize = 13;

impl Step<'_> {
    /// What the API server would refuse, asked before it is begun; Ok for actions that are not a team's own.
    pub(super) async fn preflight_custom(&self) -> Result<(), ActError> {
        let spec = &self.remediation.spec;
        let namespace = self.remediation.namespace().unwrap_or_default();
        let kubernetes = &self.ctx.targets.kubernetes;
        if let Some(job) = &spec.job {
            let name = self.job_name();
            return kubernetes.preflight_job(&self.job_run(&namespace, &name, job)).await;
        }
        let signs = spec.webhook.as_ref().and_then(|webhook| webhook.secret_ref.as_ref());
        if let Some(key) = signs.or(spec.mcp.as_ref().and_then(|mcp| mcp.token_secret_ref.as_ref())) {
            kubernetes.preflight_secret(&namespace).await?;
            // That it is there and is text; it is read anew when it is used.
            kubernetes.secret(&namespace, key).await?;
        }
        Ok(())
    }

    pub(super) async fn run_own(
        &self,
        status: RemediationStatus,
        policy: Option<&ValidPolicy>,
    ) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        match (&spec.job, &spec.webhook, &spec.mcp) {
            (Some(job), ..) => self.run_job(status, job, policy).await,
            (_, Some(webhook), _) => self.call_webhook(status, webhook, policy).await,
            (.., Some(mcp)) => Box::pin(self.call_tool(status, mcp, policy)).await,
            (None, None, None) => {
                let message = "the remediation does not say what is to be run; nothing was done";
                self.finish(status, Phase::Failed, "NoTarget", message).await
            }
        }
    }

    fn job_name(&self) -> String {
        let uid = self.remediation.uid().unwrap_or_default();
        format!("{}-{}", self.remediation.spec.component, uid.get(..UID_PART).unwrap_or(&uid))
    }

    fn job_run<'a>(&'a self, namespace: &'a str, name: &'a str, remedy: &'a JobRemedy) -> JobRun<'a> {
        let spec = &self.remediation.spec;
        JobRun {
            namespace,
            name,
            remedy,
            deadline: length(&remedy.deadline).as_secs(),
            owner: self.remediation.controller_owner_ref(&()).unwrap_or_default(),
            labels: vec![(POLICY_LABEL, spec.policy.clone()), (COMPONENT_LABEL, spec.component.clone())],
            facts: vec![
                ("PANACEA_NAMESPACE", namespace.to_owned()),
                ("PANACEA_POLICY", spec.policy.clone()),
                ("PANACEA_COMPONENT", spec.component.clone()),
                ("PANACEA_TARGET_KIND", spec.target.kind.clone()),
                ("PANACEA_TARGET_NAME", spec.target.name.clone()),
                ("PANACEA_CAUSE", spec.cause.to_string()),
                ("PANACEA_WHY", spec.why.clone()),
                ("PANACEA_EPISODE", spec.episode.clone()),
                ("PANACEA_REMEDIATION", self.remediation.name_any()),
                ("PANACEA_REMEDIATION_UID", self.remediation.uid().unwrap_or_default()),
            ],
        }
    }

    async fn run_job(
        &self,
        mut status: RemediationStatus,
        remedy: &JobRemedy,
        policy: Option<&ValidPolicy>,
    ) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        let namespace = self.remediation.namespace().unwrap_or_default();
        let (name, owner) = (self.job_name(), self.remediation.uid().unwrap_or_default());
        let begun = status.started_at.unwrap_or(spec.decided_at);
        let over = Timestamp::now() >= begun + length(&remedy.deadline) + GRACE;
        let kubernetes = &self.ctx.targets.kubernetes;
        let made = status.run.is_some();
        let state = kubernetes.job(&namespace, &name, &owner).await;
        if let Ok(Some(JobState::Complete | JobState::Failed { .. } | JobState::Running)) = state {
            status.run = Some(RunStatus { job: Some(name.clone()), ..RunStatus::default() });
        }
        match state {
            Ok(None) if made => {
                let message = format!("Job {name} was deleted before it ended; what it did is not known");
                self.finish(status, Phase::Failed, "JobGone", &message).await
            }
            Ok(None) => {
                if let Some((reason, why)) = withdrawn(spec, policy) {
                    return self.finish(status, Phase::Expired, reason, &format!("{why}; nothing was done")).await;
                }
                match kubernetes.run_job(&self.job_run(&namespace, &name, remedy)).await {
                    Ok(()) => Ok(Action::requeue(RECHECK)),
                    Err(error) => self.not_done(status, error, begun).await,
                }
            }
            Ok(Some(JobState::Foreign)) => {
                let message =
                    format!("there is a Job {name} already, which is not of this remediation; nothing was done");
                self.finish(status, Phase::Failed, "NameTaken", &message).await
            }
            Ok(Some(JobState::Complete)) => {
                self.executed(status, "Executed", format!("Job {name} is complete; watching whether it helps")).await
            }
            Ok(Some(JobState::Failed { why })) => {
                let message = format!("Job {name} failed ({why}); see kubectl logs job/{name} -n {namespace}");
                self.finish(status, Phase::Failed, "JobFailed", &message).await
            }
            Ok(Some(JobState::Running)) if over => {
                let message = format!(
                    "Job {name} has not ended within its deadline, {}; see kubectl describe job {name}",
                    remedy.deadline
                );
                self.finish(status, Phase::Failed, "DeadlineExceeded", &message).await
            }
            Ok(Some(JobState::Running)) if !made => {
                status.message = format!("Job {name} runs, for {} at most", remedy.deadline);
                self.write(&status, false).await?;
                self.ctx.events.about_step(self.remediation, Reason::Acting, "job", &status.message).await;
                Ok(Action::requeue(POLL_JOB))
            }
            Ok(Some(JobState::Running)) => Ok(Action::requeue(POLL_JOB)),
            Err(error) if error.retryable() && !over => Ok(Action::requeue(POLL_JOB)),
            Err(error) => self.not_done(status, error, begun).await,
        }
    }

    async fn call_webhook(
        &self,
        mut status: RemediationStatus,
        webhook: &WebhookRemedy,
        policy: Option<&ValidPolicy>,
    ) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        let begun = status.started_at.unwrap_or(spec.decided_at);
        let place = status.run.as_ref().and_then(|run| run.poll_url.clone());
        let over = Timestamp::now() >= begun + length(&webhook.deadline);
        let progress = match &place {
            Some(place) => self.ctx.targets.hooks.poll(webhook, place).await,
            None => {
                if let Some((reason, why)) = withdrawn(spec, policy) {
                    let message = format!("{why}; the webhook may have been called before");
                    return self.finish(status, Phase::Failed, reason, &message).await;
                }
                match self.delivery(webhook).await {
                    Ok(delivery) => self.ctx.targets.hooks.deliver(webhook, &delivery).await,
                    Err(error) => return self.not_done(status, error, begun).await,
                }
            }
        };
        match progress {
            Ok(Progress::Done) => {
                self.executed(status, "Executed", "the webhook has done it; watching whether it helps".to_owned()).await
            }
            Ok(Progress::Later { .. }) if over => {
                let message = format!("the webhook was not done within its deadline, {}", webhook.deadline);
                self.finish(status, Phase::Failed, "DeadlineExceeded", &message).await
            }
            Ok(Progress::Later { at, after }) => {
                if place.as_deref() != Some(at.as_str()) {
                    status.message = format!("the webhook has begun, and has {} at most", webhook.deadline);
                    status.run = Some(RunStatus { poll_url: Some(at.into()), ..RunStatus::default() });
                    self.write(&status, false).await?;
                    self.ctx.events.about_step(self.remediation, Reason::Acting, "webhook", &status.message).await;
                }
                Ok(Action::requeue(after))
            }
            // It has begun and goes on without us.
            Err(error)
                if place.is_some() && !over && (error.may_pass() || matches!(error, HookError::Timeout { .. })) =>
            {
                Ok(Action::requeue(POLL_JOB))
            }
            Err(error) => self.finish(status, Phase::Failed, error.reason(), &error.to_string()).await,
        }
    }

    async fn delivery(&self, webhook: &WebhookRemedy) -> Result<Delivery<'_>, ActError> {
        let namespace = self.remediation.namespace().unwrap_or_default();
        let secret = match &webhook.secret_ref {
            Some(key) => Some(self.ctx.targets.kubernetes.secret(&namespace, key).await?),
            None => None,
        };
        let uid = self.remediation.metadata.uid.as_deref().unwrap_or_default();
        Ok(Delivery {
            uid,
            sent_at: Timestamp::now().as_second(),
            body: told(&self.remediation.spec, &namespace, &self.remediation.name_any(), uid),
            secret,
        })
    }
}

/// The facts, as a webhook gets them. Another try says the same words.
fn told(spec: &RemediationSpec, namespace: &str, name: &str, uid: &str) -> String {
    let mut facts = json!({
        "type": "panacea.remediation", "timestamp": spec.decided_at,
        "data": {
            "remediation": name, "uid": uid, "namespace": namespace, "policy": spec.policy, "component": spec.component,
            "target": spec.target, "cause": spec.cause, "why": spec.why, "episode": spec.episode, "rung": spec.rung,
        },
    });
    if let Some(foreseen) = &spec.foreseen {
        facts["data"]["foreseen"] = json!(foreseen);
    }
    facts.to_string()
}

/// Checked when the policy was.
fn length(deadline: &Span) -> SignedDuration {
    deadline.parse().unwrap_or(SignedDuration::ZERO)
}
