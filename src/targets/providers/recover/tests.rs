use super::*;
use crate::targets::{
    executor::Procedure,
    model::{World, walk},
    providers::{call::CallSeen, common::HostedError, fixtures::*},
};

type Seen = CallSeen<Standing, Since>;

/// A database whose provider lists no calls.
#[derive(Debug, Clone, PartialEq)]
struct Hosted {
    state: DatabaseState,
    calls: u32,
    /// A call had no clear response.
    unclear: bool,
}

impl Hosted {
    fn status(&self) -> &'static str {
        match self.state {
            DatabaseState::Serves => "available",
            DatabaseState::Down => "unavailable",
            _ => "config_restart",
        }
    }
}

macro_rules! world {
    ($procedure:ty) => {
        impl World<$procedure> for Hosted {
            fn observations(&self, progress: &ProviderProgress) -> Vec<Seen> {
                observations(self, progress)
            }

            fn results(&self, _: &SendCall, _: &ProviderProgress) -> Vec<(Self, Result<u16, HostedError>)> {
                let done = Self { state: DatabaseState::AtWork, calls: self.calls + 1, unclear: false };
                let unanswered = Self { unclear: true, ..done.clone() };
                let without = without_effect().into_iter();
                let without = without.map(|error| (Self { unclear: !error.not_done(), ..self.clone() }, Err(error)));
                [(done, Ok(202)), (unanswered, Err(lost()))].into_iter().chain(without).collect()
            }

            fn later(&self) -> Vec<Self> {
                let then = match self.state {
                    DatabaseState::Down => vec![DatabaseState::Serves, DatabaseState::AtWork],
                    DatabaseState::AtWork => vec![DatabaseState::Serves, DatabaseState::Down],
                    _ => Vec::new(),
                };
                then.into_iter().map(|state| Self { state, ..self.clone() }).collect()
            }

            fn violation(&self, step: &Step<ProviderProgress, SendCall>) -> Option<String> {
                violation(self, step)
            }
        }
    };
}

fn observations(hosted: &Hosted, progress: &ProviderProgress) -> Vec<Seen> {
    let (status, state) = (hosted.status().to_owned(), hosted.state);
    if progress.sent_at.is_none() {
        return vec![Seen::Before(Ok((status, state))), Seen::Before(Err(unread()))];
    }
    let since = |came| {
        let served = progress.newest_before.as_deref() == Some("available");
        Seen::After(Ok(Since { status: status.clone(), serves: state == DatabaseState::Serves, served, came }))
    };
    let mut all = vec![since(false), Seen::After(Err(unread()))];
    all.extend((hosted.calls > 0).then(|| since(true)));
    all
}

fn violation(hosted: &Hosted, step: &Step<ProviderProgress, SendCall>) -> Option<String> {
    let done = hosted.calls > 0;
    match step {
        Step::Perform { .. } if done || hosted.unclear => {
            Some("the call is repeated without a clear response".to_owned())
        }
        Step::Perform { .. } if hosted.state == DatabaseState::AtWork => {
            Some("the provider is at work on it".to_owned())
        }
        Step::Done { .. } if !done => Some("nothing was done".to_owned()),
        Step::Ended { end: End::Expired, .. } if done => Some("the call is not verified".to_owned()),
        Step::Ended { reason: RemediationReason::DeadlineExceeded, .. } => None,
        Step::Ended { .. } if done => Some("it was done, and the end says that it was not".to_owned()),
        Step::OutcomeUnknown { progress, message }
            if progress.begun && !message.contains("the service cannot be checked") =>
        {
            Some("the outcome can be known".to_owned())
        }
        _ => None,
    }
}

faulty!(Recover, SendCall, Result<u16, HostedError>, denied);
world!(Recover);
world!(Forgets);
world!(Denies);

fn recover() -> Recover {
    Recover { caller: caller(ActionKind::Failover), unreachable: true }
}

fn down() -> Hosted {
    Hosted { state: DatabaseState::Down, calls: 0, unclear: false }
}

#[test]
fn a_recovery_is_never_sent_twice_without_a_clear_answer() {
    let report = walk(&recover(), down(), ProviderProgress::default(), limits(20, 60));
    report.assert_holds();
    for end in [
        "Done Executed",
        "Expired Recovered",
        "Expired OwnerBusy",
        "Expired PolicyGone",
        "Failed DeadlineExceeded",
        "Failed CredentialsRefused",
        "OutcomeUnknown",
    ] {
        assert!(report.reached(end), "{end} was not reached: {report:?}");
    }
}

#[test]
fn the_model_notices_a_forgotten_call_and_a_denied_one() {
    walk(&Forgets(recover()), down(), ProviderProgress::default(), limits(20, 60)).assert_caught();
    walk(&Denies(recover()), down(), ProviderProgress::default(), limits(20, 60)).assert_caught();
}
