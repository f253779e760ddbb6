use super::*;
use crate::{
    api::ActionKind,
    targets::{
        executor::Procedure,
        model::{World, walk},
        providers::{call::CallSeen, fixtures::*},
    },
};

type Seen = CallSeen<(Before, Size), Size>;

/// A service, and whether its number of instances was set by the call.
#[derive(Debug, Clone, PartialEq)]
struct Service {
    desired: u32,
    run: u32,
    set: bool,
}

macro_rules! world {
    ($procedure:ty) => {
        impl World<$procedure> for Service {
            fn observations(&self, progress: &ProviderProgress) -> Vec<Seen> {
                let size = Size { run: self.run, desired: Some(self.desired), autoscaled: false };
                if progress.sent_at.is_none() {
                    let before = Before { live: Some("dep-1".into()), ..Before::default() };
                    return vec![Seen::Before(Ok((before, size))), Seen::Before(Err(unread()))];
                }
                vec![Seen::After(Ok(size)), Seen::After(Err(unread()))]
            }

            fn results(&self, _: &SendCall, _: &ProviderProgress) -> Vec<(Self, Result<u16, HostedError>)> {
                let done = Self { desired: 4, set: true, ..self.clone() };
                let without = without_effect().into_iter().map(|error| (self.clone(), Err(error)));
                [(done.clone(), Ok(202)), (done, Err(lost()))].into_iter().chain(without).collect()
            }

            fn later(&self) -> Vec<Self> {
                vec![Self { run: self.desired, ..self.clone() }, Self { desired: 3, ..self.clone() }]
            }

            fn violation(&self, step: &Step<ProviderProgress, SendCall>) -> Option<String> {
                match step {
                    Step::Perform { .. } if self.desired == 3 => {
                        Some("somebody else has set another number".to_owned())
                    }
                    Step::Done { .. } if self.run != 4 => Some("other instances run".to_owned()),
                    Step::Ended { end: End::Expired, .. } if self.set => Some("the number is not verified".to_owned()),
                    Step::Ended { reason: RemediationReason::NotDone, .. } if self.desired == 4 => {
                        Some("the number was set".to_owned())
                    }
                    Step::OutcomeUnknown { message, .. } if !message.contains("the service cannot be checked") => {
                        Some("the outcome can be known".to_owned())
                    }
                    _ => None,
                }
            }
        }
    };
}

faulty!(Scale, SendCall, Result<u16, HostedError>, denied);
world!(Scale);
world!(Forgets);
world!(Denies);

fn scale() -> Scale {
    let scaling = Scaling { from: 2, to: 4, adjust_autoscaler: false };
    let autoscaled = "Acme scales it".to_owned();
    Scale { caller: caller(ActionKind::Scale), scaling, autoscaled }
}

fn service() -> Service {
    Service { desired: 2, run: 2, set: false }
}

#[test]
fn a_number_is_set_until_it_is_seen_and_never_over_another_one() {
    let report = walk(&scale(), service(), ProviderProgress::default(), limits(20, 120));
    report.assert_holds();
    for end in [
        "Done Executed",
        "Failed Rescaled",
        "Failed DeadlineExceeded",
        "Failed NotDone",
        "Failed CredentialsRefused",
        "Expired PolicyGone",
        "OutcomeUnknown",
    ] {
        assert!(report.reached(end), "{end} was not reached: {report:?}");
    }
}

#[test]
fn the_model_notices_a_forgotten_call_and_a_denied_one() {
    walk(&Forgets(scale()), service(), ProviderProgress::default(), limits(20, 120)).assert_caught();
    walk(&Denies(scale()), service(), ProviderProgress::default(), limits(20, 120)).assert_caught();
}

#[test]
fn what_somebody_else_has_set_is_left_to_them() {
    let reason = |desired, autoscaled| {
        let ours = scale().ours(&ProviderProgress::default(), Size { run: 2, desired, autoscaled });
        ours.err().map(|end| end.ending.reason)
    };
    assert_eq!([reason(Some(2), false), reason(Some(4), false), reason(None, false)], [None; 3]);
    assert_eq!(reason(Some(3), false), Some(RemediationReason::Rescaled));
    assert_eq!(reason(Some(2), true), Some(RemediationReason::Autoscaled));
}
