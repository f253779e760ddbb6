use std::collections::BTreeSet;

use jiff::SignedDuration;
use url::Url;

use super::*;
use crate::targets::{
    custom::hook::HookError,
    executor::End,
    model::{Limits, World, walk},
};

type Call = CallState<Result<Report, HookError>>;

/// The endpoint, and the call in flight.
#[derive(Debug, Clone, PartialEq)]
struct Endpoint {
    keys: BTreeSet<String>,
    accepted: bool,
    done: bool,
    call: Call,
    /// The call in flight asks for the progress.
    asks: bool,
}

fn idle() -> Endpoint {
    Endpoint { keys: BTreeSet::new(), accepted: false, done: false, call: CallState::NotStarted, asks: false }
}

fn later() -> Report {
    Report::Later { at: Url::parse("https://ops/runs/7").unwrap(), after: Duration::from_secs(2) }
}

impl Endpoint {
    fn with(&self, accepted: bool, done: bool, call: Call) -> Self {
        Self { accepted: self.accepted || accepted, done: self.done || done, call, ..self.clone() }
    }

    /// Every end of the call that runs.
    fn ends(&self) -> Vec<Self> {
        let lost = CallState::Ended(Err(HookError::Timeout { at: "ops".into(), limit: Duration::from_secs(10) }));
        let refused = HookError::Refused { at: "ops".into(), status: 500, said: String::new() };
        let refused = CallState::Ended(Err(refused));
        let mut ends = vec![
            self.with(true, true, CallState::Ended(Ok(Report::Done))),
            self.with(true, false, CallState::Ended(Ok(later()))),
            self.with(false, false, lost.clone()),
            self.with(false, false, refused),
            self.with(false, false, CallState::Lost),
        ];
        if !self.asks {
            ends.extend([self.with(true, true, lost.clone()), self.with(true, false, lost)]);
        }
        ends
    }
}

macro_rules! world {
    ($procedure:ty) => {
        impl World<$procedure> for Endpoint {
            fn observations(&self, progress: &WebhookProgress) -> Vec<WebhookSeen> {
                let unread = Err(ActError::Unreachable("the API server is unreachable".into()));
                let seen = |call: Call, has_turn, secret| WebhookSeen { call, has_turn, secret };
                // With a URL for the progress, the answer to the delivery is no longer read.
                if progress.poll_url.is_some() && !self.asks {
                    return vec![seen(CallState::NotStarted, true, Ok(())), seen(CallState::NotStarted, false, Ok(()))];
                }
                let mut all = vec![seen(self.call.clone(), true, Ok(()))];
                if self.call == CallState::NotStarted {
                    all.extend([seen(CallState::NotStarted, false, Ok(())), seen(CallState::NotStarted, true, unread)]);
                } else if self.asks && self.call != CallState::Running {
                    // An answer to a request for progress is taken once.
                    all.push(seen(CallState::NotStarted, true, Ok(())));
                }
                all
            }

            fn results(&self, effect: &StartRequest, _: &WebhookProgress) -> Vec<(Self, Start)> {
                if self.call == CallState::Running {
                    return vec![(self.clone(), Start::AlreadyStarted)];
                }
                let mut started = self.with(false, false, CallState::Running);
                started.asks = matches!(effect, StartRequest::Ask { .. });
                if let StartRequest::Deliver { key, .. } = effect {
                    started.keys.insert(key.clone());
                }
                vec![(started, Start::Started), (self.clone(), Start::NoTurn)]
            }

            fn later(&self) -> Vec<Self> {
                if self.call == CallState::Running { self.ends() } else { Vec::new() }
            }

            fn crashed(&self) -> Self {
                Self { asks: false, ..self.with(false, false, CallState::NotStarted) }
            }

            fn violation(&self, step: &Next) -> Option<String> {
                match step {
                    _ if self.keys.len() > 1 => Some("the webhook was called with two keys".to_owned()),
                    Step::OutcomeUnknown { .. } => Some("a webhook may be called again".to_owned()),
                    Step::Done { .. } if !self.done => Some("the webhook has not done it".to_owned()),
                    Step::Ended { end: End::Expired, .. } if !self.keys.is_empty() => {
                        Some("the webhook was called".to_owned())
                    }
                    _ => None,
                }
            }
        }
    };
}

world!(CallWebhook<'_>);
world!(NewKey<'_>);
world!(BelievesLost<'_>);

/// The fault: a second delivery has another key.
struct NewKey<'a>(CallWebhook<'a>);

impl Procedure for NewKey<'_> {
    type Progress = WebhookProgress;
    type Seen = WebhookSeen;
    type Effect = StartRequest;
    type Answer = Start;

    fn next(&self, progress: &WebhookProgress, seen: &WebhookSeen, moment: &Moment) -> Next {
        let mut step = self.0.next(progress, seen, moment);
        if let Step::Perform { effect: StartRequest::Deliver { key, again: true }, .. } = &mut step {
            key.push_str("-again");
        }
        step
    }

    fn answered(&self, progress: &WebhookProgress, effect: &StartRequest, answer: &Start, moment: &Moment) -> Next {
        self.0.answered(progress, effect, answer, moment)
    }
}

/// The fault: an answer that was lost counts as a success.
struct BelievesLost<'a>(CallWebhook<'a>);

impl Procedure for BelievesLost<'_> {
    type Progress = WebhookProgress;
    type Seen = WebhookSeen;
    type Effect = StartRequest;
    type Answer = Start;

    fn next(&self, progress: &WebhookProgress, seen: &WebhookSeen, moment: &Moment) -> Next {
        let mut seen = seen.clone();
        if seen.call == CallState::Lost {
            seen.call = CallState::Ended(Ok(Report::Done));
        }
        self.0.next(progress, &seen, moment)
    }

    fn answered(&self, progress: &WebhookProgress, effect: &StartRequest, answer: &Start, moment: &Moment) -> Next {
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

fn webhook() -> WebhookRemedy {
    WebhookRemedy { url: "https://ops/heal".into(), secret_ref: None, timeout: "60s".into(), deadline: "3m".into() }
}

#[test]
fn a_webhook_is_delivered_again_only_after_a_crash_and_with_the_same_key() {
    let webhook = webhook();
    let procedure = CallWebhook { webhook: &webhook, key: "u1" };
    let report = walk(&procedure, idle(), WebhookProgress::default(), LIMITS);
    report.assert_holds();
    for end in [
        "Done Executed",
        "Failed HookRefused",
        "Failed HookTimeout",
        "Failed DeadlineExceeded",
        "Failed PolicyGone",
        "Expired PolicyGone",
        "Expired HeldBackTooLong",
        "Failed Unreachable",
    ] {
        assert!(report.reached(end), "{end} was not reached: {report:?}");
    }
}

#[test]
fn the_model_notices_another_key_and_a_lost_answer_that_is_believed() {
    let webhook = webhook();
    let procedure = || CallWebhook { webhook: &webhook, key: "u1" };
    walk(&NewKey(procedure()), idle(), WebhookProgress::default(), LIMITS).assert_caught();
    walk(&BelievesLost(procedure()), idle(), WebhookProgress::default(), LIMITS).assert_caught();
}
