use jiff::Timestamp;

use super::*;
use crate::{
    api::ActionKind,
    targets::{
        executor::{End, Procedure},
        model::{World, walk},
        providers::{call::CallSeen, common::HostedError, fixtures::*},
    },
};

type Seen = CallSeen<Before, Restarted>;

/// A service, and the provider's list of its restarts.
#[derive(Debug, Clone, PartialEq, Default)]
struct Service {
    restarts: u32,
    restarted_at: Option<Timestamp>,
    listed: bool,
    /// Another deploy went live.
    released: bool,
    /// Somebody else replaced an instance.
    foreign: bool,
}

impl Service {
    fn live(&self) -> Option<String> {
        Some(if self.released { "dep-2" } else { "dep-1" }.to_owned())
    }

    fn newest(&self, listed: bool) -> Option<String> {
        (listed && self.restarts > 0).then(|| format!("evt-{}", self.restarts))
    }
}

macro_rules! world {
    ($procedure:ty) => {
        impl World<$procedure> for Service {
            fn at(&self, now: Timestamp) -> Self {
                Self { listed: is_listed(self.restarted_at, now), ..self.clone() }
            }

            fn observations(&self, progress: &ProviderProgress) -> Vec<Seen> {
                observations(self, progress)
            }

            fn results(&self, _: &SendCall, progress: &ProviderProgress) -> Vec<(Self, Result<u16, HostedError>)> {
                let restarts = self.restarts + 1;
                let done = Self { restarts, restarted_at: Some(at(progress.sent_at)), ..self.clone() };
                let without = without_effect().into_iter().map(|error| (self.clone(), Err(error)));
                [(done.clone(), Ok(202)), (done, Err(lost()))].into_iter().chain(without).collect()
            }

            fn later(&self) -> Vec<Self> {
                let released = (!self.released).then(|| Self { released: true, ..self.clone() });
                released.into_iter().collect()
            }

            fn violation(&self, step: &Step<ProviderProgress, SendCall>) -> Option<String> {
                violation(self, step)
            }
        }
    };
}

fn observations(service: &Service, progress: &ProviderProgress) -> Vec<Seen> {
    let live = service.live();
    if progress.sent_at.is_none() {
        let newest_restart = service.newest(service.listed);
        let before = Before { live, newest_restart, instances: vec!["a".into()], ..Before::default() };
        return vec![Seen::Before(Ok(before)), Seen::Before(Err(unread()))];
    }
    let seen = |replaced| Seen::After(Ok(Restarted { replaced, live: live.clone() }));
    let mut all = vec![Seen::After(Err(unread()))];
    let told = service.newest(true) != progress.newest_before;
    if told {
        all.extend([seen(Replaced::Begun), seen(Replaced::Done)]);
    }
    if !(told && service.listed) {
        all.push(seen(if service.foreign { Replaced::Unclear } else { Replaced::Nothing }));
    }
    all
}

fn violation(service: &Service, step: &Step<ProviderProgress, SendCall>) -> Option<String> {
    let done = service.restarts > 0;
    match step {
        Step::Perform { .. } if done => Some("the call is repeated, and the first one had its effect".to_owned()),
        Step::Done { .. } if !done => Some("nothing was restarted".to_owned()),
        Step::Ended { end: End::Expired, .. } if done => Some("the restart is not verified".to_owned()),
        Step::Ended { reason: RemediationReason::Superseded | RemediationReason::DeadlineExceeded, .. } => None,
        Step::Ended { .. } if done => Some("it was restarted, and the end says that it was not".to_owned()),
        Step::OutcomeUnknown { message, .. }
            if !service.foreign && !message.contains("the service cannot be checked") =>
        {
            Some("the outcome can be known".to_owned())
        }
        _ => None,
    }
}

faulty!(Restart, SendCall, Result<u16, HostedError>, denied);
world!(Restart);
world!(Forgets);
world!(Denies);

fn restart() -> Restart {
    Restart { caller: caller(ActionKind::Restart) }
}

#[test]
fn a_restart_is_made_once_in_every_order_of_answers_losses_and_crashes() {
    let report = walk(&restart(), Service::default(), ProviderProgress::default(), limits(30, 120));
    report.assert_holds();
    for end in [
        "Done Executed",
        "Failed DeadlineExceeded",
        "Failed NotDone",
        "Failed Superseded",
        "Failed CredentialsRefused",
        "Failed Unreachable",
        "Expired PolicyGone",
        "OutcomeUnknown",
    ] {
        assert!(report.reached(end), "{end} was not reached: {report:?}");
    }
    let foreign = Service { foreign: true, ..Service::default() };
    walk(&restart(), foreign, ProviderProgress::default(), limits(30, 120)).assert_holds();
}

#[test]
fn the_model_notices_a_forgotten_call_and_a_denied_one() {
    let (service, progress) = (Service::default, ProviderProgress::default);
    walk(&Forgets(restart()), service(), progress(), limits(30, 120)).assert_caught();
    walk(&Denies(restart()), service(), progress(), limits(30, 120)).assert_caught();
}
