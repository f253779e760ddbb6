//! What the model tests of the procedures share.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    call::{Caller, ProviderWords},
    client::{CallError, Failure},
    common::HostedError,
};
use crate::{
    api::ActionKind,
    targets::model::{Limits, start},
};

pub const WORDS: ProviderWords = ProviderWords {
    provider: "Acme",
    pages: "Acme's dashboard",
    settles_within: SignedDuration::from_secs(30),
    auto_deploy_off: |trigger| format!("; switch auto-deploy on again (on {trigger})"),
};
/// An effect is listed after this time: sooner than `settles_within`.
const LAG: SignedDuration = SignedDuration::from_secs(20);

pub fn caller(action: ActionKind) -> Caller {
    Caller { action, id: "srv-1".into(), words: WORDS, assessed: Some("dep-1".into()) }
}

/// A run may follow two calls, the second after proof that the first had no effect, each for its whole limit.
pub fn limits(minutes: i64, tick: u64) -> Limits {
    Limits {
        deadline: SignedDuration::from_mins(minutes),
        tick: Duration::from_secs(tick),
        crashes: 1,
        ..Limits::default()
    }
}

fn error(attempts: u32, kind: Failure) -> HostedError {
    HostedError::Call(CallError { call: "act".into(), attempts, kind })
}

/// No answer came: the call may have had its effect.
pub fn lost() -> HostedError {
    error(1, Failure::Timeout(Duration::from_secs(10)))
}

fn status(status: u16) -> HostedError {
    error(1, Failure::Status { status, said: String::new(), after: None })
}

/// Every answer of a call that had no effect.
pub fn without_effect() -> Vec<HostedError> {
    vec![lost(), status(500), status(403), status(429), not_sent()]
}

/// No connection was made.
pub fn not_sent() -> HostedError {
    error(0, Failure::Unreachable("refused".into()))
}

/// An observation that failed.
pub fn unread() -> HostedError {
    status(503)
}

/// Whether an effect of this time is listed.
pub fn is_listed(effect_at: Option<Timestamp>, now: Timestamp) -> bool {
    effect_at.is_some_and(|at| now.duration_since(at) >= LAG)
}

pub fn at(sent_at: Option<Timestamp>) -> Timestamp {
    sent_at.unwrap_or_else(start)
}

/// A procedure that forgets that its call was sent, and one that takes a lost answer for a refusal.
macro_rules! faulty {
    ($procedure:ty, $effect:ty, $answer:ty, $deny:expr) => {
        struct Forgets($procedure);
        struct Denies($procedure);

        impl Procedure for Forgets {
            type Progress = ProviderProgress;
            type Seen = <$procedure as Procedure>::Seen;
            type Effect = $effect;
            type Answer = $answer;

            fn next(
                &self,
                progress: &ProviderProgress,
                seen: &Self::Seen,
                moment: &Moment,
            ) -> Step<ProviderProgress, $effect> {
                let forgot = ProviderProgress { sent_at: None, ..progress.clone() };
                self.0.next(&forgot, seen, moment)
            }

            fn answered(
                &self,
                progress: &ProviderProgress,
                effect: &$effect,
                answer: &$answer,
                moment: &Moment,
            ) -> Step<ProviderProgress, $effect> {
                self.0.answered(progress, effect, answer, moment)
            }
        }

        impl Procedure for Denies {
            type Progress = ProviderProgress;
            type Seen = <$procedure as Procedure>::Seen;
            type Effect = $effect;
            type Answer = $answer;

            fn next(
                &self,
                progress: &ProviderProgress,
                seen: &Self::Seen,
                moment: &Moment,
            ) -> Step<ProviderProgress, $effect> {
                self.0.next(progress, seen, moment)
            }

            fn answered(
                &self,
                progress: &ProviderProgress,
                effect: &$effect,
                answer: &$answer,
                moment: &Moment,
            ) -> Step<ProviderProgress, $effect> {
                let deny: fn(&$answer) -> $answer = $deny;
                self.0.answered(progress, effect, &deny(answer), moment)
            }
        }
    };
}
pub(super) use faulty;

pub fn denied(answer: &Result<u16, HostedError>) -> Result<u16, HostedError> {
    answer.clone().map_err(|error| if error.not_done() { error } else { not_sent() })
}
