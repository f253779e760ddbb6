//! A cleanup of memory by the component's own hook.
//!
//! Guarantees: the call is announced in the status before it is started; a second call, after a crash, carries the same
//! `Idempotency-Key`. A call in flight is followed to its end also when the policy does not want the action any more.

use async_trait::async_trait;

use super::{FIRST_POLL, GRACE, wait_for_turn};
use crate::{
    api::{CleanupProgress, Hook, RemediationReason, milliseconds},
    plan::guard::Permit,
    targets::{
        custom::{
            hook::{HookAnswer, HookError, Hooks, longest},
            in_flight::{CallState, Start, poll_interval},
        },
        executor::{Effects, Moment, Order, Procedure, Step},
    },
};

/// Decides about the call of one hook.
#[derive(Debug)]
pub struct CallHook<'a> {
    pub hook: &'a Hook,
    /// The `Idempotency-Key`: the Remediation's uid.
    pub key: &'a str,
}

/// What is known about the call.
#[derive(Debug, Clone, PartialEq)]
pub struct HookSeen {
    pub call: CallState<Result<HookAnswer, HookError>>,
    /// A call could be started now.
    pub has_turn: bool,
}

/// The one effect: start the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartCall {
    pub key: String,
    /// A call with this key was announced before.
    pub again: bool,
}

impl Procedure for CallHook<'_> {
    type Progress = CleanupProgress;
    type Seen = HookSeen;
    type Effect = StartCall;
    type Answer = Start;

    fn next(&self, progress: &CleanupProgress, seen: &HookSeen, moment: &Moment) -> Step<CleanupProgress, StartCall> {
        let progress = progress.clone();
        let again = progress.called_at.is_some();
        let effect = effect_of(again);
        match &seen.call {
            CallState::NotStarted => match moment.withdrawn {
                Some(withdrawn) if again => {
                    Step::failed(progress, withdrawn.reason, format!("{}; {effect}", withdrawn.why))
                }
                Some(withdrawn) => Step::expired(progress, withdrawn.reason, format!("{}; {effect}", withdrawn.why)),
                None if !seen.has_turn => wait_for_turn(progress, moment, again, effect),
                None => {
                    let progress = CleanupProgress { called_at: Some(milliseconds(moment.now)), ..progress };
                    let effect = StartCall { key: self.key.to_owned(), again };
                    Step::Perform { progress, effect, note: None }
                }
            },
            CallState::Running => {
                let since = moment.now.duration_since(progress.called_at.unwrap_or(moment.started_at));
                if since < longest(&self.hook.timeout) + GRACE {
                    return Step::wait(progress, poll_interval(since));
                }
                let error = HookError::Lost(format!("it has not ended within {since:#}"));
                Step::failed(progress, error.reason(), error.to_string())
            }
            CallState::Ended(Ok(answer)) => {
                let progress = CleanupProgress {
                    objects_collected: answer.objects_collected,
                    memory_freed_mb: answer.memory_freed_mb,
                    ..progress
                };
                let message = "the hook did its cleanup; watching whether it helps".to_owned();
                Step::Done { progress, reason: RemediationReason::Executed, message }
            }
            CallState::Ended(Err(error)) => Step::failed(progress, error.reason(), error.to_string()),
            CallState::Lost => {
                let error = HookError::Lost("it panicked".to_owned());
                Step::failed(progress, error.reason(), error.to_string())
            }
        }
    }

    fn answered(
        &self,
        progress: &CleanupProgress,
        effect: &StartCall,
        answer: &Start,
        moment: &Moment,
    ) -> Step<CleanupProgress, StartCall> {
        let mut progress = progress.clone();
        if *answer != Start::NoTurn {
            return Step::wait(progress, FIRST_POLL);
        }
        if !effect.again {
            progress.called_at = None;
        }
        wait_for_turn(progress, moment, effect.again, effect_of(effect.again))
    }
}

fn effect_of(called_before: bool) -> &'static str {
    if called_before { "the hook may have been called before" } else { "nothing was called" }
}

/// Calls one hook.
pub struct HookExecutor<'a> {
    pub hooks: &'a Hooks,
    pub order: Order<'a>,
    pub hook: &'a Hook,
}

#[async_trait]
impl<'a> Effects for HookExecutor<'a> {
    type Procedure = CallHook<'a>;

    fn procedure(&self) -> CallHook<'a> {
        CallHook { hook: self.hook, key: self.order.uid }
    }

    async fn observe(&self, _: &CleanupProgress, _: &Moment) -> HookSeen {
        let calls = &self.hooks.calls;
        HookSeen { call: calls.peek(self.order.uid), has_turn: calls.has_turn() }
    }

    async fn perform(&self, effect: &StartCall, _: &CleanupProgress, _: &Permit) -> Start {
        let (http, hook, key) = (self.hooks.http.clone(), self.hook.clone(), effect.key.clone());
        self.hooks.calls.start(self.order.uid, async move { http.call(&hook, &key).await })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use jiff::SignedDuration;

    use super::*;
    use crate::{
        api::HookMethod,
        targets::{
            executor::End,
            model::{Limits, World, walk},
        },
    };

    /// The component's endpoint, and what is in flight to it.
    #[derive(Debug, Clone, PartialEq)]
    struct Endpoint {
        keys: BTreeSet<String>,
        called: bool,
        cleaned: bool,
        call: CallState<Result<HookAnswer, HookError>>,
    }

    fn idle() -> Endpoint {
        Endpoint { keys: BTreeSet::new(), called: false, cleaned: false, call: CallState::NotStarted }
    }

    impl Endpoint {
        fn with(&self, cleaned: bool, call: CallState<Result<HookAnswer, HookError>>) -> Self {
            Self { cleaned: self.cleaned || cleaned, call, ..self.clone() }
        }
    }

    macro_rules! world {
        ($procedure:ty) => {
            impl World<$procedure> for Endpoint {
                fn observations(&self, _: &CleanupProgress) -> Vec<HookSeen> {
                    let seen = |has_turn| HookSeen { call: self.call.clone(), has_turn };
                    vec![seen(true), seen(false)]
                }

                fn results(&self, effect: &StartCall, _: &CleanupProgress) -> Vec<(Self, Start)> {
                    if self.call != CallState::NotStarted {
                        return vec![(self.clone(), Start::AlreadyStarted)];
                    }
                    let mut started = Self { called: true, ..self.with(false, CallState::Running) };
                    started.keys.insert(effect.key.clone());
                    vec![(started, Start::Started), (self.clone(), Start::NoTurn)]
                }

                fn later(&self) -> Vec<Self> {
                    if self.call != CallState::Running {
                        return Vec::new();
                    }
                    let lost = HookError::Timeout { at: "api".into(), limit: Duration::from_secs(10) };
                    let refused = HookError::Refused { at: "api".into(), status: 500, said: String::new() };
                    vec![
                        self.with(true, CallState::Running),
                        self.with(true, CallState::Ended(Ok(HookAnswer::default()))),
                        self.with(true, CallState::Ended(Err(lost.clone()))),
                        self.with(false, CallState::Ended(Err(lost))),
                        self.with(false, CallState::Ended(Err(refused))),
                        self.with(true, CallState::Lost),
                    ]
                }

                fn crashed(&self) -> Self {
                    self.with(false, CallState::NotStarted)
                }

                fn violation(&self, step: &Step<CleanupProgress, StartCall>) -> Option<String> {
                    match step {
                        _ if self.keys.len() > 1 => Some("the hook was called with two keys".to_owned()),
                        Step::OutcomeUnknown { .. } => Some("a hook may be called again".to_owned()),
                        Step::Done { .. } if !self.cleaned => Some("nothing was cleaned up".to_owned()),
                        Step::Ended { end: End::Expired, message, .. }
                            if self.called && message.contains("nothing was called") =>
                        {
                            Some("the hook was called".to_owned())
                        }
                        _ => None,
                    }
                }
            }
        };
    }

    world!(CallHook<'_>);
    world!(BelievesLost<'_>);

    /// The fault: an answer that was lost counts as a success.
    struct BelievesLost<'a>(CallHook<'a>);

    impl Procedure for BelievesLost<'_> {
        type Progress = CleanupProgress;
        type Seen = HookSeen;
        type Effect = StartCall;
        type Answer = Start;

        fn next(
            &self,
            progress: &CleanupProgress,
            seen: &HookSeen,
            moment: &Moment,
        ) -> Step<CleanupProgress, StartCall> {
            match &seen.call {
                CallState::Ended(Err(HookError::Timeout { .. })) => {
                    let call = CallState::Ended(Ok(HookAnswer::default()));
                    self.0.next(progress, &HookSeen { call, ..*seen }, moment)
                }
                _ => self.0.next(progress, seen, moment),
            }
        }

        fn answered(
            &self,
            progress: &CleanupProgress,
            effect: &StartCall,
            answer: &Start,
            moment: &Moment,
        ) -> Step<CleanupProgress, StartCall> {
            self.0.answered(progress, effect, answer, moment)
        }
    }

    const LIMITS: Limits = Limits {
        deadline: SignedDuration::from_mins(20),
        tick: Duration::from_secs(60),
        crashes: 2,
        withdrawals: true,
        states: 100_000,
    };

    fn hook() -> Hook {
        Hook { url: "http://api/gc".into(), method: HookMethod::Post, timeout: "60s".into() }
    }

    #[test]
    fn a_hook_is_called_again_only_after_a_crash_and_with_the_same_key() {
        let hook = hook();
        let report = walk(&CallHook { hook: &hook, key: "u1" }, idle(), CleanupProgress::default(), LIMITS);
        report.assert_holds();
        for end in [
            "Done Executed",
            "Failed HookRefused",
            "Failed HookTimeout",
            "Failed PolicyGone",
            "Expired PolicyGone",
            "Expired HeldBackTooLong",
        ] {
            assert!(report.reached(end), "{end} was not reached: {report:?}");
        }
        eprintln!("hook: {} states, {:?}", report.states, report.ends);
    }

    #[test]
    fn the_model_notices_a_lost_answer_that_is_believed() {
        let hook = hook();
        let fault = BelievesLost(CallHook { hook: &hook, key: "u1" });
        walk(&fault, idle(), CleanupProgress::default(), LIMITS).assert_caught();
    }
}
