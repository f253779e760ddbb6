//! A cleanup of memory by the component's own hook.
//!
//! Guarantees: the call is announced in the status before it is started; a second call, after a crash, carries the same
//! `Idempotency-Key`.

use async_trait::async_trait;

use super::{CallSeen, Endpoint, FIRST_POLL, wait_for_turn};
use crate::{
    api::{CleanupProgress, Hook, RemediationReason, milliseconds},
    plan::guard::Permit,
    targets::{
        custom::{
            hook::{HookAnswer, Hooks},
            in_flight::Start,
        },
        executor::{Effects, Moment, Order, Procedure, Step},
    },
};

const NOUN: &str = "the hook";

/// Decides about the call of one hook.
#[derive(Debug)]
pub struct CallHook<'a> {
    pub hook: &'a Hook,
    /// The `Idempotency-Key`: the Remediation's uid.
    pub key: &'a str,
}

/// The one effect: start the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartCall {
    pub key: String,
    /// A call with this key was announced before.
    pub again: bool,
}

type Next = Step<CleanupProgress, StartCall>;

impl Procedure for CallHook<'_> {
    type Progress = CleanupProgress;
    type Seen = CallSeen<HookAnswer>;
    type Effect = StartCall;
    type Answer = Start;

    fn next(&self, progress: &CleanupProgress, seen: &Self::Seen, moment: &Moment) -> Next {
        let called_at = progress.called_at;
        let endpoint = Endpoint { noun: NOUN, timeout: &self.hook.timeout };
        let answer = endpoint.answer(progress.clone(), called_at, seen, moment, |progress| Step::Perform {
            progress: CleanupProgress { called_at: Some(milliseconds(moment.now)), ..progress },
            effect: StartCall { key: self.key.to_owned(), again: called_at.is_some() },
            note: None,
        });
        match answer {
            Err(step) => step,
            Ok((progress, &HookAnswer { objects_collected, memory_freed_mb })) => Step::Done {
                progress: CleanupProgress { objects_collected, memory_freed_mb, ..progress },
                reason: RemediationReason::Executed,
                message: "the hook completed its cleanup; watching whether it helps".to_owned(),
            },
        }
    }

    fn answered(&self, progress: &CleanupProgress, effect: &StartCall, answer: &Start, moment: &Moment) -> Next {
        let mut progress = progress.clone();
        if *answer != Start::NoTurn {
            return Step::wait(progress, FIRST_POLL);
        }
        if !effect.again {
            progress.called_at = None;
        }
        wait_for_turn(progress, moment, NOUN, effect.again)
    }
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

    async fn observe(&self, _: &CleanupProgress, _: &Moment) -> CallSeen<HookAnswer> {
        let calls = &self.hooks.calls;
        CallSeen { call: calls.peek(self.order.uid), has_turn: calls.has_turn(), secret: Ok(()) }
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
            custom::{hook::HookError, in_flight::CallState},
            executor::End,
            model::{Limits, World, walk},
        },
    };

    type HookSeen = CallSeen<HookAnswer>;

    /// The component's endpoint, and the call in flight.
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
                    let seen = |has_turn| HookSeen { call: self.call.clone(), has_turn, secret: Ok(()) };
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

                fn violation(&self, step: &Next) -> Option<String> {
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

        fn next(&self, progress: &CleanupProgress, seen: &HookSeen, moment: &Moment) -> Next {
            match &seen.call {
                CallState::Ended(Err(HookError::Timeout { .. })) => {
                    let call = CallState::Ended(Ok(HookAnswer::default()));
                    self.0.next(progress, &HookSeen { call, ..seen.clone() }, moment)
                }
                _ => self.0.next(progress, seen, moment),
            }
        }

        fn answered(&self, progress: &CleanupProgress, effect: &StartCall, answer: &Start, moment: &Moment) -> Next {
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
    }

    #[test]
    fn the_model_notices_a_lost_answer_that_is_believed() {
        let hook = hook();
        let fault = BelievesLost(CallHook { hook: &hook, key: "u1" });
        walk(&fault, idle(), CleanupProgress::default(), LIMITS).assert_caught();
    }
}
