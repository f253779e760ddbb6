//! A deploy by a provider: a rollback, or a new deploy with restored environment variables.
//!
//! Before a rollback auto-deploy is switched off, so that no new commit releases again what is rolled back; auto-deploy is
//! restored when nothing was rolled back. Environment variables are restored before the deploy. Both are stored before the
//! first change, and both are idempotent; the deploy itself is not.

use jiff::SignedDuration;

use super::{
    call::{
        CallSeen, Caller, Decided, Ending, OBSERVE_AFTER, ProviderWords, Sent, WithoutEffect, is_late, left_changed,
        left_off, left_restored, poll_after, retry_after,
    },
    common::{Before, DeployState, HostedError},
    env_vars::{EnvChanges, EnvError, listed},
};
use crate::{
    api::{ActionPlan, EventReason, ProviderProgress, RemediationReason, TemplateRef},
    targets::{
        executor::{End, Moment, Note, Procedure, Step},
        kubernetes::ActError,
    },
};

/// Variables that are restored in one reconciliation, at most.
const AT_ONCE: usize = 10;
/// From the call until a new deploy is live, which may be built again.
const REDEPLOY_LIMIT: SignedDuration = SignedDuration::from_mins(30);
/// From the start until all environment variables are restored.
const ENV_LIMIT: SignedDuration = SignedDuration::from_mins(15);

/// What a provider gives to the messages and limits of a rollback.
#[derive(Debug, Clone, Copy)]
pub struct DeployWords {
    pub provider: ProviderWords,
    /// From the call until a rollback is live.
    pub limit: SignedDuration,
    /// Names the deploy (first argument) that a rollback to the target (second argument) puts live.
    pub brings: fn(&str, &str) -> String,
    /// What was listed since the call, when the rollback was not.
    pub others: &'static str,
    /// What a successful rollback leaves to do, for a person: empty, or "; …".
    pub left_behind: &'static str,
}

/// The desired deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Desired {
    /// The state of this deploy.
    Rollback(TemplateRef),
    /// The state of this deploy, which runs, with the restored environment variables.
    Redeploy(TemplateRef),
}

impl Desired {
    pub fn state(&self) -> &TemplateRef {
        let (Self::Rollback(state) | Self::Redeploy(state)) = self;
        state
    }
}

#[derive(Debug, Clone)]
pub struct Deploy {
    caller: Caller,
    words: DeployWords,
    pub desired: Desired,
}

/// Before the call the environment variables that differ are observed too; none when none are to be restored.
pub type DeploySeen = CallSeen<(Before, Result<EnvChanges, EnvError>), DeployState>;

#[derive(Debug, Clone, PartialEq)]
pub enum DeployEffect {
    /// Sets or removes these environment variables.
    RestoreEnv(Vec<String>),
    /// Has no commit deployed automatically any more; `trigger` did that.
    SwitchAutoDeployOff { trigger: String },
    /// Has commits deployed on `trigger` again; then the action ends.
    RestoreAutoDeploy { trigger: String, then: Ending },
    /// Changes nothing: reports that auto-deploy is off, before the call.
    Report,
    /// The call.
    Send,
    /// Changes nothing: ends after its note.
    Finish(Ending),
}

#[derive(Debug, Clone)]
pub enum DeployAnswer {
    /// The deploy, where the response names it, and the status of the response.
    Sent(Result<(Option<String>, u16), HostedError>),
    Changed(Result<(), HostedError>),
}

type DeployStep = Step<ProviderProgress, DeployEffect>;

impl Deploy {
    pub fn new(plan: &ActionPlan, id: &str, words: DeployWords, desired: Desired) -> Self {
        Self { caller: Caller::new(plan, id, words.provider), words, desired }
    }

    fn brings(&self, id: &str) -> String {
        match &self.desired {
            Desired::Rollback(to) => (self.words.brings)(id, &to.to_string()),
            Desired::Redeploy(_) => format!("deploy {id}, with the restored environment variables,"),
        }
    }

    fn limit(&self) -> SignedDuration {
        if matches!(self.desired, Desired::Redeploy(_)) { REDEPLOY_LIMIT } else { self.words.limit }
    }

    fn others(&self) -> String {
        let others = self.words.others;
        match &self.desired {
            Desired::Rollback(to) => format!("{others} since, and none of them rolls back to {to}"),
            Desired::Redeploy(_) => {
                format!("{others} since, and none of them is of the same commit and made by the API")
            }
        }
    }

    fn begin(
        &self,
        progress: &ProviderProgress,
        (before, env): &(Before, Result<EnvChanges, EnvError>),
        moment: &Moment,
    ) -> Decided<DeployEffect> {
        self.caller.still_assessed(progress, before.live.as_deref())?;
        match env {
            Err(error) => return env_failed(progress, error, moment, &self.caller),
            Ok(changes) if !changes.is_empty() => return restore_env(progress, changes, moment),
            Ok(_) => {}
        }
        let progress = ProviderProgress { newest_before: before.newest_deploy.clone(), ..progress.clone() };
        match (&self.desired, &before.deploys_on) {
            (Desired::Rollback(_), Some(trigger)) => {
                let progress = ProviderProgress { auto_deploy_was: Some(trigger.clone()), ..progress };
                let effect = DeployEffect::SwitchAutoDeployOff { trigger: trigger.clone() };
                Ok(Step::Perform { progress, effect, note: None })
            }
            _ => Ok(self.caller.send(progress, DeployEffect::Send, moment)),
        }
    }

    /// Follows the deploy until it is live, or will not be any more.
    fn follow(&self, (mut progress, sent_at): Sent, state: &DeployState, moment: &Moment) -> Decided<DeployEffect> {
        let (limit, words, left) = (self.limit(), &self.caller.words, left_off(&self.caller.words, &progress));
        let late = moment.now >= sent_at + limit;
        let wait = |progress| Ok(Step::wait(progress, poll_after(sent_at, moment)));
        let too_late = |progress, message| Ok(Step::failed(progress, RemediationReason::DeadlineExceeded, message));
        match state {
            DeployState::Deploy { id, live: true, .. } => {
                (progress.begun, progress.deploy) = (true, Some(id.clone()));
                let left = format!("{left}{}", self.words.left_behind);
                let message = format!("{} is live; watching whether it helps{left}", self.brings(id));
                Ok(Step::Done { progress, reason: RemediationReason::Executed, message })
            }
            DeployState::Deploy { id, status, over: true, .. } => {
                progress.deploy = Some(id.clone());
                let left = left_changed(words, &progress);
                let message = format!("{} ended as {status}; check {}{left}", self.brings(id), words.pages);
                Ok(Step::failed(progress, RemediationReason::DeployFailed, message))
            }
            DeployState::Deploy { id, status: why, .. } | DeployState::Waits { id, why } if late => {
                too_late(progress, format!("{} is not live after {limit:#}: {why}{left}", self.brings(id)))
            }
            DeployState::Deploy { id, .. } if progress.deploy.as_ref() != Some(id) => {
                progress.deploy = Some(id.clone());
                Ok(self.caller.seen_to_begin(progress, &format!("listed since the call: {}", self.brings(id))))
            }
            DeployState::Deploy { .. } => wait(progress),
            DeployState::Waits { id, why } => {
                (progress.begun, progress.deploy) = (true, Some(id.clone()));
                let message =
                    format!("{} waits for manual action: {why} (until {limit:#} after the call)", self.brings(id));
                Ok(Step::NeedsPerson { progress, after: poll_after(sent_at, moment), message })
            }
            DeployState::Nothing if progress.begun && late => {
                let provider = words.provider;
                let message = format!("{provider} has accepted the call, which had no effect in {limit:#}{left}");
                too_late(progress, message)
            }
            DeployState::Nothing if progress.begun => wait(progress),
            DeployState::Nothing => self.caller.no_effect(progress, sent_at, moment),
            DeployState::Others if late || moment.now >= sent_at + words.settles_within => {
                Ok(self.caller.outcome_unknown(progress, &self.others()))
            }
            DeployState::Others => wait(progress),
        }
    }

    /// Ends without effect: nothing was rolled back, so the next commit may be the fix, and is deployed as before.
    fn end(&self, end: WithoutEffect) -> DeployStep {
        let WithoutEffect { progress, ending } = end;
        match progress.auto_deploy_was.clone() {
            Some(trigger) => {
                let effect = DeployEffect::RestoreAutoDeploy { trigger, then: ending };
                Step::Perform { progress, effect, note: None }
            }
            None => ended(progress, ending, ""),
        }
    }

    fn sent(
        &self,
        progress: &ProviderProgress,
        answer: &Result<(Option<String>, u16), HostedError>,
        moment: &Moment,
    ) -> Decided<DeployEffect> {
        let (deploy, code) = match answer {
            Ok((deploy, code)) => (deploy.clone(), *code),
            Err(error) => return self.caller.not_accepted(progress.clone(), error, moment),
        };
        let (provider, id, which) = (self.caller.words.provider, &self.caller.id, deploy.as_deref().unwrap_or("…"));
        let message = match &self.desired {
            Desired::Rollback(_) => format!("{provider} puts {} live; waiting until it is", self.brings(which)),
            Desired::Redeploy(_) => format!(
                "{provider} deploys {id} again ({which}), with the restored environment variables; waiting until that is live"
            ),
        };
        Ok(self.caller.accepted(ProviderProgress { deploy, ..progress.clone() }, code, &message))
    }

    fn switched_off(&self, progress: &ProviderProgress, trigger: &str) -> DeployStep {
        let (id, left) = (&self.caller.id, left_off(&self.caller.words, progress));
        let message = format!(
            "auto-deploy of {id} (on {trigger}) is switched off, since the next deploy would undo the rollback{left}"
        );
        let note = Note { reason: EventReason::AutoDeployOff, subject: String::new(), message };
        Step::Perform { progress: progress.clone(), effect: DeployEffect::Report, note: Some(note) }
    }

    fn restored(
        &self,
        progress: &ProviderProgress,
        (trigger, then): (&str, &Ending),
        answer: &Result<(), HostedError>,
    ) -> DeployStep {
        if let Err(error) = answer {
            let left = left_off(&self.caller.words, progress);
            let left = format!("; auto-deploy could not be switched on again ({error}){left}");
            return ended(progress.clone(), then.clone(), &left);
        }
        let progress = ProviderProgress { auto_deploy_was: None, ..progress.clone() };
        let message = format!("auto-deploy of {} is on again (on {trigger})", self.caller.id);
        let then = Ending { message: format!("{}; {message}", then.message), ..then.clone() };
        let note = Note { reason: EventReason::AutoDeployRestored, subject: String::new(), message };
        Step::Perform { progress, effect: DeployEffect::Finish(then), note: Some(note) }
    }
}

impl Procedure for Deploy {
    type Progress = ProviderProgress;
    type Seen = DeploySeen;
    type Effect = DeployEffect;
    type Answer = DeployAnswer;

    fn next(&self, progress: &ProviderProgress, seen: &DeploySeen, moment: &Moment) -> DeployStep {
        let decided = self.caller.given_up(progress).and_then(|()| {
            let begin = |before: &_| self.begin(progress, before, moment);
            let follow = |state: &_, sent_at| self.follow((progress.clone(), sent_at), state, moment);
            self.caller.next(progress, seen, (moment, self.limit()), begin, follow)
        });
        decided.unwrap_or_else(|end| self.end(*end))
    }

    fn answered(
        &self,
        progress: &ProviderProgress,
        effect: &DeployEffect,
        answer: &DeployAnswer,
        moment: &Moment,
    ) -> DeployStep {
        let decided = match (effect, answer) {
            (DeployEffect::Send, DeployAnswer::Sent(answer)) => self.sent(progress, answer, moment),
            (DeployEffect::RestoreEnv(_), DeployAnswer::Changed(Err(error))) => {
                let what = "not all environment variables are restored, and nothing was deployed";
                self.caller.retry(progress.clone(), error, what, moment)
            }
            (DeployEffect::SwitchAutoDeployOff { .. }, DeployAnswer::Changed(Err(error))) => {
                let what = "auto-deploy could not be switched off, so nothing was rolled back";
                self.caller.retry(progress.clone(), error, what, moment)
            }
            (DeployEffect::SwitchAutoDeployOff { trigger }, _) => Ok(self.switched_off(progress, trigger)),
            (DeployEffect::RestoreAutoDeploy { trigger, then }, DeployAnswer::Changed(answer)) => {
                Ok(self.restored(progress, (trigger, then), answer))
            }
            (DeployEffect::Report, _) => Ok(self.caller.send(progress.clone(), DeployEffect::Send, moment)),
            (DeployEffect::Finish(then), _) => Ok(ended(progress.clone(), then.clone(), "")),
            // The rest is observed again.
            _ => Ok(Step::wait(progress.clone(), OBSERVE_AFTER)),
        };
        decided.unwrap_or_else(|end| self.end(*end))
    }
}

fn ended(progress: ProviderProgress, ending: Ending, left: &str) -> DeployStep {
    let Ending { end, reason, message } = ending;
    let message = format!("{message}{left}{}", left_restored(&progress));
    Step::Ended { progress, end, reason, message }
}

/// Restores some of the variables; their names are stored before the first.
fn restore_env(progress: &ProviderProgress, changes: &EnvChanges, moment: &Moment) -> Decided<DeployEffect> {
    if moment.since_start() >= ENV_LIMIT {
        let message =
            format!("not all environment variables are restored after {ENV_LIMIT:#}, and nothing was deployed");
        return Err(WithoutEffect::new(progress.clone(), End::Failed, RemediationReason::DeadlineExceeded, message));
    }
    let (mut progress, mut note) = (progress.clone(), None);
    if progress.env_vars.is_empty() {
        progress.env_vars = changes.iter().map(|(name, _)| name.clone()).collect();
        note = Some(Note::acting("env", in_words(changes)));
    }
    let names = changes.iter().take(AT_ONCE).map(|(name, _)| name.clone()).collect();
    Ok(Step::Perform { progress, effect: DeployEffect::RestoreEnv(names), note })
}

/// The variables that differ are unknown, or are not to be restored.
fn env_failed(
    progress: &ProviderProgress,
    error: &EnvError,
    moment: &Moment,
    caller: &Caller,
) -> Decided<DeployEffect> {
    let reason = match error {
        EnvError::Hosted(error) => return caller.retry(progress.clone(), error, "nothing was deployed", moment),
        EnvError::Snapshot(why) if why.retryable() && !is_late(moment) => {
            return Ok(Step::wait(progress.clone(), retry_after(moment)));
        }
        EnvError::Snapshot(why) => why.reason(),
        EnvError::Changed(_) => RemediationReason::Superseded,
        EnvError::TooMany(_) | EnvError::LongName(_) => ActError::BadRemedy(String::new()).reason(),
    };
    Err(WithoutEffect::new(progress.clone(), End::Failed, reason, format!("{error}; nothing more was done")))
}

/// Names, never values.
fn in_words(changes: &EnvChanges) -> String {
    let names = |removed: bool| {
        let these = changes.iter().filter(|(_, value)| value.is_none() == removed).map(|(name, _)| name);
        listed(&these.collect::<Vec<_>>())
    };
    let parts = [("setting", names(false)), ("removing", names(true))];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty()).map(|(verb, names)| format!("{verb} {names}"));
    format!("restoring environment variables: {}; a new deploy follows", parts.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests;
