//! Actions on services that a provider hosts: a restart, a rollback. They take a while, and are not done when they are answered.
//!
//! Guarantees: what is about to be sent is in etcd before it is, with what was there before it. A call whose outcome is not
//! known (no answer, an answer 500 or 503, an operator that died) is never just sent again: whether it was done is told by the
//! restarts, instances, deploys and rollbacks that have come since. Only when nothing has come for [`HostedService::settles_within`] is it sent once
//! more; when it cannot be told, a person is called. What the provider has begun is followed to its end.
//!
//! ```text
//! nothing sent ──► stored, sent ──► answered 200 ──────────────► begun ──► done: Verifying
//!      ▲   └──refused: Failed └──► outcome unknown ──it was done────┘  └──► failed, too late: Failed
//!      └───────nothing came of it──────┘  └──► cannot be told: Failed, a person is called
//! ```

mod config;
mod database;
mod restart;
mod scale;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt as _, runtime::controller::Action};

use super::{EXECUTE_LIMIT, Step};
use crate::{
    analyze::observation::Unmeasured,
    api::{
        ActionKind, HostedStatus, OUTCOME_UNKNOWN, Phase, RemediationStatus, TemplateRef, ValidPolicy, milliseconds,
    },
    controller::{Error, events::Reason, revalidate::withdrawn},
    targets::{
        kubernetes::ActError,
        providers::HostedService,
        providers::common::{Before, HostedError, RollbackState},
    },
};

/// So often a call may have no clear answer and no effect; then it is given up.
const MAX_WITHOUT_EFFECT: u32 = 2;
/// So long after the call a restart has new instances, or it has failed; and so long it is looked for what came of a call.
const RESTART_LIMIT: SignedDuration = SignedDuration::from_mins(5);

/// The deploy that a call is to bring live.
struct Meant<'a> {
    /// So long after the call it is live.
    limit: SignedDuration,
    /// In words, by its id.
    brought: &'a (dyn Fn(&str) -> String + Sync),
    /// In words what others that have come are not.
    others: &'a str,
}

/// An action that is under way.
struct Hosted<'a> {
    step: &'a Step<'a>,
    service: HostedService<'a>,
    namespace: String,
    policy: Option<&'a ValidPolicy>,
    now: Timestamp,
}

impl Step<'_> {
    /// What the provider would refuse, asked before it is begun.
    pub(super) async fn preflight_hosted(&self, policy: &ValidPolicy) -> Result<(), ActError> {
        let spec = &self.remediation.spec;
        let namespace = self.remediation.namespace().unwrap_or_default();
        match self.hosted(Some(policy)) {
            Ok(Some(service)) => {
                service.preflight(&namespace, spec.action, spec.to.as_ref()).await?;
                match (service, &spec.config) {
                    (HostedService::Render(render, service), Some(config)) => {
                        Box::pin(render.preflight_env(&namespace, service, config)).await
                    }
                    _ => Ok(()),
                }
            }
            // It is another target by now, which is found when it is done.
            Ok(None) => Ok(()),
            Err(why) => Err(ActError::BadRemedy(why.message)),
        }
    }

    /// The service that it is about; none when the policy does not name it any more.
    fn hosted<'a>(&'a self, policy: Option<&'a ValidPolicy>) -> Result<Option<HostedService<'a>>, Unmeasured> {
        let spec = &self.remediation.spec;
        let Some(component) = policy.and_then(|policy| policy.component(&spec.component)) else { return Ok(None) };
        let is_it = |service: &HostedService<'_>| {
            (service.provider(), service.id()) == (spec.target.kind.as_str(), spec.target.name.as_str())
        };
        Ok(self.ctx.targets.hosted(&component.target)?.filter(is_it))
    }

    pub(super) async fn run_hosted(
        &self,
        status: RemediationStatus,
        policy: Option<&ValidPolicy>,
    ) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        let service = match self.hosted(policy) {
            Ok(Some(service)) => service,
            Ok(None) => return self.end_without_target(status, policy).await,
            Err(why) => return self.finish(status, Phase::Failed, why.reason.into(), &why.message).await,
        };
        let namespace = self.remediation.namespace().unwrap_or_default();
        let hosted = Hosted { step: self, service, namespace, policy, now: Timestamp::now() };
        match (spec.action, service) {
            (ActionKind::Restart, HostedService::Render(..)) => Box::pin(hosted.restart(status)).await,
            (ActionKind::Restart | ActionKind::Failover, HostedService::RenderPostgres(render, postgres)) => {
                Box::pin(hosted.recover(status, render, postgres)).await
            }
            (ActionKind::RollbackDeployment, _) => Box::pin(hosted.roll_back(status)).await,
            (ActionKind::RollbackConfig, HostedService::Render(render, service)) => {
                Box::pin(hosted.roll_back_config(status, render, service)).await
            }
            (ActionKind::Scale, HostedService::Render(render, service)) => {
                Box::pin(hosted.scale(status, render, service)).await
            }
            (ActionKind::RollbackPreviousState, HostedService::Render(render, service)) => {
                Box::pin(hosted.roll_back_state(status, render, service)).await
            }
            (other, _) => {
                let message = format!("{other} cannot be done to what {} hosts; nothing was done", service.provider());
                self.finish(status, Phase::Failed, "NoTarget", &message).await
            }
        }
    }

    /// The policy does not name the service any more, and with it the key to ask with.
    async fn end_without_target(
        &self,
        status: RemediationStatus,
        policy: Option<&ValidPolicy>,
    ) -> Result<Action, Error> {
        let sent = status.hosted.as_ref().is_some_and(|hosted| hosted.sent_at.is_some());
        let (reason, why) = withdrawn(&self.remediation.spec, policy)
            .unwrap_or(("TargetChanged", "the component is something else now"));
        if sent {
            let message = format!("{why}; it was sent before, and what came of it is not looked at");
            return self.finish(status, Phase::Failed, OUTCOME_UNKNOWN, &message).await;
        }
        let left = status.hosted.as_ref().map(left_off).unwrap_or_default();
        let left = format!("{left}{}", put_back(&status));
        self.finish(status, Phase::Expired, reason, &format!("{why}; nothing was done{left}")).await
    }
}

impl Hosted<'_> {
    async fn roll_back(&self, status: RemediationStatus) -> Result<Action, Error> {
        let spec = &self.step.remediation.spec;
        let Some(to) = &spec.to else {
            let message = "the remediation names no deploy to go back to";
            return self.step.finish(status, Phase::Failed, "NoTarget", message).await;
        };
        let Some((sent_at, hosted)) = sent(&status) else {
            return Box::pin(self.send_rollback(status, to)).await;
        };
        let state = self.service.rolled_back(&self.namespace, &hosted, to).await;
        let brought = |id: &str| self.service.brought(id, &to.to_string());
        let others = format!("none of them goes back to {to}");
        let meant = Meant { limit: self.service.rollback_limit(), brought: &brought, others: &others };
        self.follow(status, (sent_at, hosted), state, meant).await
    }

    /// Follows a deploy that was asked for until it is live, or is not any more to be.
    async fn follow(
        &self,
        mut status: RemediationStatus,
        (sent_at, hosted): (Timestamp, HostedStatus),
        state: Result<RollbackState, HostedError>,
        Meant { limit, brought, others }: Meant<'_>,
    ) -> Result<Action, Error> {
        let provider = self.service.provider();
        let over = self.now >= sent_at + limit;
        let left = left_off(&hosted);
        match state {
            Err(error) => self.cannot_see(status, sent_at, limit, &error).await,
            Ok(RollbackState::Deploy { id, live: true, .. }) => {
                note(&mut status, |hosted| (hosted.begun, hosted.deploy) = (true, Some(id.clone())));
                let left = format!("{left}{}", self.service.left_behind());
                let message = format!("{} is live; watching whether it helps{left}", brought(&id));
                self.step.executed(status, "Executed", message).await
            }
            Ok(RollbackState::Deploy { id, status: ended, over: true, .. }) => {
                note(&mut status, |hosted| hosted.deploy = Some(id.clone()));
                let left = format!("{left}{}", put_back(&status));
                let message = format!("{} ended as {ended}; see it in {}{left}", brought(&id), self.service.pages());
                self.step.finish(status, Phase::Failed, "DeployFailed", &message).await
            }
            Ok(RollbackState::Deploy { id, status: stands, .. }) if over => {
                let message = format!("{} is not live after {limit:#}: {stands}{left}", brought(&id));
                self.step.finish(status, Phase::Failed, "DeadlineExceeded", &message).await
            }
            Ok(RollbackState::Deploy { id, .. }) if hosted.deploy.as_ref() != Some(&id) => {
                note(&mut status, |hosted| hosted.deploy = Some(id.clone()));
                self.it_was_done(status, &format!("it has come since: {}", brought(&id))).await
            }
            Ok(RollbackState::Deploy { .. }) => Ok(self.poll_again(sent_at)),
            Ok(RollbackState::Waits { id, why }) if over => {
                let message = format!("{} is not live after {limit:#}: {why}{left}", brought(&id));
                self.step.finish(status, Phase::Failed, "DeadlineExceeded", &message).await
            }
            Ok(RollbackState::Waits { id, why }) => {
                let words = format!(
                    "{} goes no further by itself: {why} (until {} after the call)",
                    brought(&id),
                    format_args!("{limit:#}")
                );
                self.person_waited_for(status, id, words, sent_at).await
            }
            Ok(RollbackState::Nothing) if hosted.begun && over => {
                let message = format!("{provider} has taken the call, and nothing came of it in {limit:#}{left}");
                self.step.finish(status, Phase::Failed, "DeadlineExceeded", &message).await
            }
            Ok(RollbackState::Nothing) if hosted.begun => Ok(self.poll_again(sent_at)),
            Ok(RollbackState::Nothing) => self.nothing_came(status, sent_at).await,
            Ok(RollbackState::Others) if over || self.now >= sent_at + self.service.settles_within() => {
                let why = format!("{} since, and {others}", self.service.others());
                self.outcome_unknown(status, &why).await
            }
            Ok(RollbackState::Others) => Ok(self.poll_again(sent_at)),
        }
    }

    async fn send_rollback(&self, mut status: RemediationStatus, to: &TemplateRef) -> Result<Action, Error> {
        let before = match self.before(&mut status).await? {
            Ok(before) => before,
            Err(ended) => return Ok(ended),
        };
        if let Some(trigger) = &before.deploys_on {
            // Stored before it is off, so that it is known whatever dies.
            note(&mut status, |hosted| hosted.auto_deploy_was = Some(trigger.clone()));
            self.step.write(&status, false).await?;
            if let Err(error) = self.service.set_auto_deploy(&self.namespace, "off").await {
                return self
                    .try_later(status, error, "auto-deploy could not be switched off, so nothing was rolled back")
                    .await;
            }
            let note = format!(
                "auto-deploy of {} (on {trigger}) is switched off, since the next deploy would bring back what is rolled back{}",
                self.service.id(),
                status.hosted.as_ref().map(left_off).unwrap_or_default()
            );
            self.step.ctx.events.about_remediation(self.step.remediation, Reason::AutoDeployOff, &note).await;
        }
        let mut hosted = status.hosted.clone().unwrap_or_default();
        hosted.newest_before = before.newest_deploy;
        self.about_to_send(&mut status, hosted).await?;
        match self.service.roll_back(&self.namespace, to).await {
            Ok((deploy, code)) => {
                let brought = self.service.brought(deploy.as_deref().unwrap_or("…"), &to.to_string());
                let words = format!("{} puts {brought} live; waiting until it is", self.service.provider());
                note(&mut status, |hosted| {
                    (hosted.begun, hosted.status_code, hosted.deploy) = (true, Some(code), deploy);
                });
                self.tell(status, "begun", &words).await
            }
            Err(error) => Box::pin(self.not_answered_well(status, error)).await,
        }
    }

    /// What is there before the call; or the action has ended, or waits.
    async fn before(&self, status: &mut RemediationStatus) -> Result<Result<Before, Action>, Error> {
        let spec = &self.step.remediation.spec;
        // Half of it is worse than all: what was begun is finished.
        let begun = status.hosted.as_ref().is_some_and(|hosted| !hosted.env_vars.is_empty());
        if let Some((reason, why)) = withdrawn(spec, self.policy).filter(|_| !begun) {
            let left = self.restore_auto_deploy(status).await;
            let message = format!("{why}; nothing was done{left}");
            return Ok(Err(self.step.finish(status.clone(), Phase::Expired, reason, &message).await?));
        }
        let before = match self.service.before(&self.namespace).await {
            Ok(before) => before,
            Err(error) => return Ok(Err(self.try_later(status.clone(), error, "nothing was done").await?)),
        };
        if let Some(other) = self.other_deploy(before.live.as_deref()) {
            let left = self.restore_auto_deploy(status).await;
            let message = format!("{other} is live now; nothing was done to it{left}{}", put_back(status));
            return Ok(Err(self.step.finish(status.clone(), Phase::Failed, "Superseded", &message).await?));
        }
        Ok(Ok(before))
    }

    /// What is live, when it is not what was judged.
    fn other_deploy(&self, live: Option<&str>) -> Option<String> {
        let judged = &self.step.remediation.spec.from.as_ref()?.hash;
        (live != Some(judged)).then(|| live.map_or_else(|| "no deploy".to_owned(), |live| format!("deploy {live}")))
    }

    async fn about_to_send(&self, status: &mut RemediationStatus, hosted: HostedStatus) -> Result<(), Error> {
        status.hosted = Some(HostedStatus {
            sent_at: Some(milliseconds(Timestamp::now())),
            attempts: hosted.attempts + 1,
            begun: false,
            status_code: None,
            ..hosted
        });
        self.step.write(status, false).await
    }

    /// The call was refused, or it is not known what came of it.
    async fn not_answered_well(&self, mut status: RemediationStatus, error: HostedError) -> Result<Action, Error> {
        note(&mut status, |hosted| hosted.status_code = error.status());
        if error.not_done() {
            // It may be sent again without a look.
            note(&mut status, |hosted| {
                hosted.sent_at = None;
                hosted.attempts -= u32::from(error.attempts() == 0).min(hosted.attempts);
            });
            // So that it is stored whatever the words are: what is stored says that it was sent.
            status.message.clear();
            let elsewise = matches!(error, HostedError::Elsewise { .. });
            let what = if elsewise { "what was asked for was not done" } else { "nothing was done" };
            return self.try_later(status, error, what).await;
        }
        let words = format!("{error}; whether it was done is not known, and is looked at before anything else is");
        self.tell(status, "unclear", &words).await
    }

    /// For certain nothing was done by the call: tried again when that may help, else this is the end.
    async fn try_later(&self, mut status: RemediationStatus, error: HostedError, what: &str) -> Result<Action, Error> {
        if error.may_pass() && !self.is_late(&status) {
            let words = format!("{error}; {what} yet, it is tried again");
            if status.message != words {
                status.message = words;
                self.step.write(&status, false).await?;
            }
            return Ok(soon());
        }
        let left = format!("{}{}", self.restore_auto_deploy(&mut status).await, put_back(&status));
        self.step.finish(status, Phase::Failed, error.reason(), &format!("{error}; {what}{left}")).await
    }

    fn is_late(&self, status: &RemediationStatus) -> bool {
        self.now >= status.started_at.unwrap_or(self.now) + EXECUTE_LIMIT
    }

    /// What came of the call cannot be seen now.
    async fn cannot_see(
        &self,
        status: RemediationStatus,
        sent_at: Timestamp,
        limit: SignedDuration,
        error: &HostedError,
    ) -> Result<Action, Error> {
        if error.may_pass() && self.now < sent_at + limit {
            return Ok(self.poll_again(sent_at));
        }
        self.outcome_unknown(status, &format!("it cannot be looked at: {error}")).await
    }

    /// Tells people once that it is theirs, and waits for them.
    async fn person_waited_for(
        &self,
        mut status: RemediationStatus,
        id: String,
        words: String,
        sent_at: Timestamp,
    ) -> Result<Action, Error> {
        if status.message != words {
            note(&mut status, |hosted| (hosted.begun, hosted.deploy) = (true, Some(id)));
            status.message = words;
            self.step.write(&status, false).await?;
            let events = &self.step.ctx.events;
            events.about_remediation(self.step.remediation, Reason::PersonNeeded, &status.message).await;
        }
        Ok(self.poll_again(sent_at))
    }

    async fn it_was_done(&self, mut status: RemediationStatus, why: &str) -> Result<Action, Error> {
        note(&mut status, |hosted| hosted.begun = true);
        self.tell(status, "done", &format!("{why}, so the call was done, and is not made again")).await
    }

    /// Nothing has come of the call so far. After a while that means that nothing will.
    async fn nothing_came(&self, mut status: RemediationStatus, sent_at: Timestamp) -> Result<Action, Error> {
        let within = self.service.settles_within();
        if self.now < sent_at + within {
            return Ok(self.poll_again(sent_at));
        }
        note(&mut status, |hosted| {
            hosted.sent_at = None;
            hosted.without_effect += 1;
        });
        let times = status.hosted.as_ref().map_or(0, |hosted| hosted.without_effect);
        if times >= MAX_WITHOUT_EFFECT {
            let left = format!("{}{}", self.restore_auto_deploy(&mut status).await, put_back(&status));
            let message = format!(
                "it was asked for {times} times without a clear answer, and nothing came of it within {within:#}{left}"
            );
            return self.step.finish(status, Phase::Failed, "NotDone", &message).await;
        }
        let words = format!("nothing has come of the call within {within:#}, so it was not done: it is made once more");
        self.tell(status, "again", &words).await
    }

    async fn outcome_unknown(&self, status: RemediationStatus, why: &str) -> Result<Action, Error> {
        let left = status.hosted.as_ref().map(left_off).unwrap_or_default();
        let left = format!("{left}{}", put_back(&status));
        let message = format!(
            "{} of {} was sent, and what came of it cannot be told: {why}. A person has to look in {}; it is not sent again{left}",
            self.step.remediation.spec.action,
            self.service.id(),
            self.service.pages()
        );
        let events = &self.step.ctx.events;
        events.about_remediation(self.step.remediation, Reason::PersonNeeded, &message).await;
        self.step.finish(status, Phase::Failed, OUTCOME_UNKNOWN, &message).await
    }

    /// Stores how far it is, says so, and looks again soon.
    async fn tell(&self, mut status: RemediationStatus, step: &str, words: &str) -> Result<Action, Error> {
        status.message = words.to_owned();
        self.step.write(&status, false).await?;
        let attempts = status.hosted.as_ref().map_or(0, |hosted| hosted.attempts);
        let subject = format!("{step}-{attempts}");
        self.step.ctx.events.about_step(self.step.remediation, Reason::Acting, &subject, words).await;
        Ok(Action::requeue(Duration::from_secs(1)))
    }

    /// Every second at first, and ever less often.
    fn poll_again(&self, sent_at: Timestamp) -> Action {
        let waited = Duration::try_from(self.now.duration_since(sent_at)).unwrap_or_default();
        Action::requeue((waited / 5).clamp(Duration::from_secs(1), Duration::from_secs(10)))
    }

    /// Nothing was rolled back, so the next commit may be the cure: it is deployed again as before. In words what became of it.
    async fn restore_auto_deploy(&self, status: &mut RemediationStatus) -> String {
        let Some(was) = status.hosted.as_ref().and_then(|hosted| hosted.auto_deploy_was.clone()) else {
            return String::new();
        };
        match self.service.set_auto_deploy(&self.namespace, &was).await {
            Ok(()) => {
                note(status, |hosted| hosted.auto_deploy_was = None);
                let words = format!("auto-deploy of {} is on again (on {was})", self.service.id());
                let events = &self.step.ctx.events;
                events.about_remediation(self.step.remediation, Reason::AutoDeployRestored, &words).await;
                format!("; {words}")
            }
            Err(error) => {
                let left = status.hosted.as_ref().map(left_off).unwrap_or_default();
                format!("; auto-deploy could not be switched on again ({error}){left}")
            }
        }
    }
}

/// What may pass is tried again then.
fn soon() -> Action {
    Action::requeue(Duration::from_secs(2))
}

/// When it was sent, if it is not certain that it had no effect.
fn sent(status: &RemediationStatus) -> Option<(Timestamp, HostedStatus)> {
    let hosted = status.hosted.as_ref()?;
    Some((hosted.sent_at?, hosted.clone()))
}

fn note(status: &mut RemediationStatus, change: impl FnOnce(&mut HostedStatus)) {
    change(status.hosted.get_or_insert_default());
}

/// Which environment variables are back, or may be, without a deploy that has them.
fn put_back(status: &RemediationStatus) -> String {
    let Some(hosted) = status.hosted.as_ref().filter(|hosted| !hosted.env_vars.is_empty()) else {
        return String::new();
    };
    let names = config::listed(&hosted.env_vars);
    format!(
        "; the environment variables {names} are put back, or some of them, which takes effect with the next deploy"
    )
}

/// How to switch auto-deploy on again, if it is off.
fn left_off(hosted: &HostedStatus) -> String {
    let how = |was: &String| {
        format!(
            "; auto-deploy stays off until you switch it on again: Settings → Auto-Deploy in Render's dashboard, or PATCH of the service with {{\"autoDeployTrigger\": {was:?}}}"
        )
    };
    hosted.auto_deploy_was.as_ref().map(how).unwrap_or_default()
}
