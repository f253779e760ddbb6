//! A deploy that a provider is asked for: a rollback, or a new deploy with restored environment variables.
//!
//! Before a rollback auto-deploy is switched off, so that no new commit brings back what is rolled back; it is restored
//! when nothing was rolled back. Environment variables are restored before the deploy. Both are stored before the first
//! change, and both are idempotent; the deploy itself is not.

use jiff::{SignedDuration, Timestamp};

use super::{
    call::{
        CallState, Caller, Decided, Ending, OBSERVE_AFTER, ProviderWords, WithoutEffect, is_late, left_changed,
        left_off, left_restored, poll_after, retry_after,
    },
    common::{Before, DeployState, HostedError},
    env_vars::{EnvError, listed},
};
use crate::{
    api::{ActionKind, EventReason, ProviderProgress, RemediationReason, TemplateRef},
    targets::{
        executor::{End, Moment, Note, Procedure, Step},
        kubernetes::ActError,
    },
};

/// Variables that are restored in one reconciliation, at most.
pub(super) const AT_ONCE: usize = 10;
/// So long after the call a new deploy is live: it may be built again.
pub(super) const REDEPLOY_LIMIT: SignedDuration = SignedDuration::from_mins(30);
/// So long after the start all environment variables are restored.
const ENV_LIMIT: SignedDuration = SignedDuration::from_mins(15);

/// What a provider gives to the messages and limits of a rollback.
#[derive(Debug, Clone, Copy)]
pub struct DeployWords {
    pub provider: ProviderWords,
    /// So long after the call a rollback is live.
    pub limit: SignedDuration,
    /// What a rollback brings live: the deploy itself (first argument), or a new one of what the target was (second).
    pub brings: fn(&str, &str) -> String,
    /// What happened since a rollback was asked for, when it is not that.
    pub others: &'static str,
    /// What a rollback that succeeded leaves behind, for a person: empty, or "; …".
    pub left_behind: &'static str,
}

/// The deploy to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Of what this deploy was.
    Rollback(TemplateRef),
    /// Of what runs, with the restored environment variables.
    Redeploy,
}

/// Decides about one deploy.
#[derive(Debug, Clone)]
pub struct Deploy {
    pub caller: Caller,
    pub words: DeployWords,
    pub wanted: Wanted,
    /// The deploy that was judged.
    pub judged: Option<String>,
}

/// An environment variable that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvChange {
    pub name: String,
    /// It is to be removed.
    pub removed: bool,
}

#[derive(Debug, Clone)]
pub enum DeploySeen {
    /// The action was withdrawn before its call.
    NotRead,
    /// What is there before the call, and the environment variables that differ; none when none are to be restored.
    Before(Result<Before, HostedError>, Result<Vec<EnvChange>, EnvError>),
    After(Result<DeployState, HostedError>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum DeployEffect {
    /// Sets or removes these environment variables.
    RestoreEnv(Vec<String>),
    /// Has no commit deployed by itself any more; what did was `trigger`.
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
    /// The deploy, where the answer names it, and the status of the answer.
    Sent(Result<(Option<String>, u16), HostedError>),
    Changed(Result<(), HostedError>),
}

type DeployStep = Step<ProviderProgress, DeployEffect>;

impl Deploy {
    fn brings(&self, id: &str) -> String {
        match &self.wanted {
            Wanted::Rollback(to) => (self.words.brings)(id, &to.to_string()),
            Wanted::Redeploy => format!("deploy {id}, with the environment variables that it had before,"),
        }
    }

    fn limit(&self) -> SignedDuration {
        if self.wanted == Wanted::Redeploy { REDEPLOY_LIMIT } else { self.words.limit }
    }

    fn others(&self) -> String {
        match &self.wanted {
            Wanted::Rollback(to) => format!("{} since, and none of them goes back to {to}", self.words.others),
            Wanted::Redeploy => {
                format!("{} since, and none of them is of the same commit and made by the API", self.words.others)
            }
        }
    }

    fn begin(&self, progress: &ProviderProgress, seen: &DeploySeen, moment: &Moment) -> Decided<DeployEffect> {
        self.caller.given_up(progress)?;
        self.caller.still_wanted(progress, moment)?;
        let (before, env) = match seen {
            DeploySeen::Before(Ok(before), env) => (before, env),
            DeploySeen::Before(Err(error), _) => {
                return self.caller.retry(progress.clone(), error, "nothing was done", moment);
            }
            DeploySeen::NotRead | DeploySeen::After(_) => return Ok(Step::wait(progress.clone(), OBSERVE_AFTER)),
        };
        self.caller.still_judged(progress, self.judged.as_deref(), before.live.as_deref())?;
        match env {
            Err(error) => return env_failed(progress, error, moment, &self.caller),
            Ok(changes) if !changes.is_empty() => return restore_env(progress, changes, moment),
            Ok(_) => {}
        }
        let progress = ProviderProgress { newest_before: before.newest_deploy.clone(), ..progress.clone() };
        match (&self.wanted, &before.deploys_on) {
            (Wanted::Rollback(_), Some(trigger)) => {
                let progress = ProviderProgress { auto_deploy_was: Some(trigger.clone()), ..progress };
                let effect = DeployEffect::SwitchAutoDeployOff { trigger: trigger.clone() };
                Ok(Step::Perform { progress, effect, note: None })
            }
            _ => Ok(self.caller.send(progress, DeployEffect::Send, None, moment)),
        }
    }

    /// Follows the deploy until it is live, or will not be any more.
    fn follow(
        &self,
        progress: &ProviderProgress,
        sent_at: Timestamp,
        state: &DeployState,
        moment: &Moment,
    ) -> Decided<DeployEffect> {
        let (limit, accepted) = (self.limit(), progress.begun);
        let (mut progress, left) = (progress.clone(), left_off(progress));
        let over = moment.now >= sent_at + limit;
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
                let (pages, left) = (self.words.provider.pages, left_changed(&progress));
                let message = format!("{} ended as {status}; see it in {pages}{left}", self.brings(id));
                Ok(Step::failed(progress, RemediationReason::DeployFailed, message))
            }
            DeployState::Deploy { id, status, .. } if over => {
                too_late(progress, format!("{} is not live after {limit:#}: {status}{left}", self.brings(id)))
            }
            DeployState::Deploy { id, .. } if progress.deploy.as_ref() != Some(id) => {
                progress.deploy = Some(id.clone());
                Ok(self.caller.seen_to_begin(progress, &format!("it has come since: {}", self.brings(id))))
            }
            DeployState::Deploy { .. } => wait(progress),
            DeployState::Waits { id, why } if over => {
                too_late(progress, format!("{} is not live after {limit:#}: {why}{left}", self.brings(id)))
            }
            DeployState::Waits { id, why } => {
                (progress.begun, progress.deploy) = (true, Some(id.clone()));
                let message =
                    format!("{} goes no further by itself: {why} (until {limit:#} after the call)", self.brings(id));
                Ok(Step::NeedsPerson { progress, after: poll_after(sent_at, moment), message })
            }
            DeployState::Nothing if accepted && over => {
                let provider = self.words.provider.provider;
                let message = format!("{provider} has taken the call, and nothing came of it in {limit:#}{left}");
                too_late(progress, message)
            }
            DeployState::Nothing if accepted => wait(progress),
            DeployState::Nothing => self.caller.no_effect(progress, sent_at, moment),
            DeployState::Others if over || moment.now >= sent_at + self.words.provider.settles_within => {
                Ok(self.caller.outcome_unknown(progress, &self.others()))
            }
            DeployState::Others => wait(progress),
        }
    }

    /// Ends without effect: nothing was rolled back, so the next commit may be the cure, and is deployed again as before.
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
        let which = deploy.as_deref().unwrap_or("…");
        let provider = self.words.provider.provider;
        let message = match &self.wanted {
            Wanted::Rollback(_) => format!("{provider} puts {} live; waiting until it is", self.brings(which)),
            Wanted::Redeploy => format!(
                "{provider} deploys {} anew ({which}), with the environment variables that it had before; waiting until that is live",
                self.caller.id
            ),
        };
        Ok(self.caller.accepted(ProviderProgress { deploy, ..progress.clone() }, code, &message))
    }

    fn switched_off(
        &self,
        progress: &ProviderProgress,
        trigger: &str,
        answer: &Result<(), HostedError>,
        moment: &Moment,
    ) -> Decided<DeployEffect> {
        if let Err(error) = answer {
            let what = "auto-deploy could not be switched off, so nothing was rolled back";
            return self.caller.retry(progress.clone(), error, what, moment);
        }
        let message = format!(
            "auto-deploy of {} (on {trigger}) is switched off, since the next deploy would bring back what is rolled back{}",
            self.caller.id,
            left_off(progress)
        );
        let note = Note { reason: EventReason::AutoDeployOff, subject: String::new(), message };
        Ok(Step::Perform { progress: progress.clone(), effect: DeployEffect::Report, note: Some(note) })
    }

    fn restored(
        &self,
        progress: &ProviderProgress,
        (trigger, then): (&str, &Ending),
        answer: &Result<(), HostedError>,
    ) -> DeployStep {
        if let Err(error) = answer {
            let left = format!("; auto-deploy could not be switched on again ({error}){}", left_off(progress));
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
        let decided = match (CallState::of(progress), seen) {
            (CallState::NotSent, seen) => self.begin(progress, seen, moment),
            (CallState::Unclear { sent_at } | CallState::Accepted { sent_at }, DeploySeen::After(Ok(state))) => {
                self.follow(progress, sent_at, state, moment)
            }
            (CallState::Unclear { sent_at } | CallState::Accepted { sent_at }, DeploySeen::After(Err(error))) => {
                Ok(self.caller.not_observed(progress.clone(), (sent_at, self.limit()), error, moment))
            }
            (CallState::Unclear { sent_at } | CallState::Accepted { sent_at }, _) => {
                Ok(Step::wait(progress.clone(), poll_after(sent_at, moment)))
            }
        };
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
                let what = "not all of its environment variables are put back, and nothing was deployed";
                self.caller.retry(progress.clone(), error, what, moment)
            }
            (DeployEffect::SwitchAutoDeployOff { trigger }, DeployAnswer::Changed(answer)) => {
                self.switched_off(progress, trigger, answer, moment)
            }
            (DeployEffect::RestoreAutoDeploy { trigger, then }, DeployAnswer::Changed(answer)) => {
                Ok(self.restored(progress, (trigger, then), answer))
            }
            (DeployEffect::Report, _) => Ok(self.caller.send(progress.clone(), DeployEffect::Send, None, moment)),
            (DeployEffect::Finish(then), _) => Ok(ended(progress.clone(), then.clone(), "")),
            // What is left is observed anew.
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
fn restore_env(progress: &ProviderProgress, changes: &[EnvChange], moment: &Moment) -> Decided<DeployEffect> {
    if moment.since_start() >= ENV_LIMIT {
        let message =
            format!("not all of its environment variables are put back after {ENV_LIMIT:#}, and nothing was deployed");
        return Err(WithoutEffect::new(progress.clone(), End::Failed, RemediationReason::DeadlineExceeded, message));
    }
    let (mut progress, mut note) = (progress.clone(), None);
    if progress.env_vars.is_empty() {
        progress.env_vars = changes.iter().map(|change| change.name.clone()).collect();
        note = Some(Note::acting("env", in_words(changes)));
    }
    let names = changes.iter().take(AT_ONCE).map(|change| change.name.clone()).collect();
    Ok(Step::Perform { progress, effect: DeployEffect::RestoreEnv(names), note })
}

/// The variables that differ are not known, or are not to be restored.
fn env_failed(
    progress: &ProviderProgress,
    error: &EnvError,
    moment: &Moment,
    caller: &Caller,
) -> Decided<DeployEffect> {
    let reason = match error {
        EnvError::Hosted(error) => return caller.retry(progress.clone(), error, "nothing was deployed", moment),
        EnvError::Copy(why) if why.retryable() && !is_late(moment) => {
            return Ok(Step::wait(progress.clone(), retry_after(moment)));
        }
        EnvError::Copy(why) => why.reason(),
        EnvError::Changed(_) => RemediationReason::Superseded,
        EnvError::TooMany(_) | EnvError::LongName(_) => ActError::BadRemedy(String::new()).reason(),
    };
    Err(WithoutEffect::new(progress.clone(), End::Failed, reason, format!("{error}; nothing more was done")))
}

/// Names, never values.
fn in_words(changes: &[EnvChange]) -> String {
    let names = |removed: bool| {
        let these = changes.iter().filter(|change| change.removed == removed).map(|change| change.name.as_str());
        listed(&these.collect::<Vec<&str>>())
    };
    let parts = [("setting", names(false)), ("taking away", names(true))];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty()).map(|(verb, names)| format!("{verb} {names}"));
    format!("putting environment variables back: {}; then it is deployed anew", parts.collect::<Vec<_>>().join("; "))
}

/// The procedure of a rollback.
pub fn rollback(
    id: &str,
    action: ActionKind,
    words: DeployWords,
    judged: Option<&TemplateRef>,
    to: &TemplateRef,
) -> Deploy {
    deploy(id, action, words, judged, Wanted::Rollback(to.clone()))
}

/// The procedure of a new deploy of what was judged.
pub fn redeploy(id: &str, words: DeployWords, judged: &TemplateRef) -> Deploy {
    deploy(id, ActionKind::RollbackConfig, words, Some(judged), Wanted::Redeploy)
}

fn deploy(id: &str, action: ActionKind, words: DeployWords, judged: Option<&TemplateRef>, wanted: Wanted) -> Deploy {
    let caller = Caller { action, id: id.to_owned(), words: words.provider };
    Deploy { caller, words, wanted, judged: judged.map(|judged| judged.hash.clone()) }
}

#[cfg(test)]
mod tests;
