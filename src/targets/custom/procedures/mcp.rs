//! A tool of an external MCP server.
//!
//! Expected flow: prepare (greeting, `tools/list`, check of the arguments: changes nothing) → announce the call in the
//! status → call → read the answer.
//! Guarantees: the tool is called at most once. When the answer is unknown after the call was announced, the tool is not
//! called again, and the component's health shows whether the call helped.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::{FIRST_POLL, GRACE, facts, length, preflight_secret, read_secret, wait_for_turn};
use crate::{
    api::{McpProgress, McpRemedy, RemediationReason, milliseconds},
    plan::guard::Permit,
    targets::{
        custom::{
            in_flight::{CallState, Start, poll_interval},
            mcp::{Mcp, McpError, PreparedCall},
        },
        executor::{EXECUTE_LIMIT, Effects, Moment, Note, Order, Procedure, Step},
        kubernetes::{ActError, Kubernetes, write::after_error},
    },
};

const NOUN: &str = "the tool";

/// Decides about the call of one tool.
#[derive(Debug)]
pub struct CallTool<'a> {
    pub mcp: &'a McpRemedy,
}

/// The preparation before the call was announced, or the call after that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum McpSeen {
    /// The token could not be read.
    NotRead(ActError),
    /// Too many calls run.
    NoTurn,
    Preparing,
    Prepared,
    NotPrepared(McpError),
    /// The action was withdrawn before the call was announced.
    NotWanted,
    Call(CallState<Result<String, McpError>>),
}

/// The one effect: start the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartCall;

type Next = Step<McpProgress, StartCall>;

impl CallTool<'_> {
    fn prepare(progress: McpProgress, moment: &Moment) -> Next {
        let since = moment.since_start();
        if since < EXECUTE_LIMIT {
            return Step::wait(progress, poll_interval(since));
        }
        let message = format!("the server was not ready for the call within {EXECUTE_LIMIT:#}; nothing was called");
        Step::failed(progress, RemediationReason::McpUnreachable, message)
    }

    /// The call was announced at `called_at`.
    fn follow(&self, progress: McpProgress, called_at: Timestamp, seen: &McpSeen, moment: &Moment) -> Next {
        let McpSeen::Call(call) = seen else { return Step::wait(progress, FIRST_POLL) };
        let since = moment.now.duration_since(called_at);
        let lost = match call {
            CallState::Running if since < length(&self.mcp.timeout) + GRACE => {
                return Step::wait(progress, poll_interval(since));
            }
            CallState::Ended(Ok(said)) => {
                let message = format!("the tool {} responded {said:?}; watching whether it helps", self.mcp.tool);
                return Step::Done { progress, reason: RemediationReason::Executed, message };
            }
            CallState::Ended(Err(error)) if !matches!(error, McpError::Lost(_)) => {
                return Step::failed(progress, error.reason(), error.to_string());
            }
            CallState::Ended(Err(lost)) => lost.clone(),
            CallState::NotStarted => McpError::Lost("the operator ended before the answer was stored".to_owned()),
            CallState::Running => McpError::Lost(format!("no response within {}", self.mcp.timeout)),
            CallState::Lost => McpError::Lost("the call ended without a response".to_owned()),
        };
        let message = format!("{lost}; it is not called again; watching whether the component becomes healthy");
        Step::Done { progress, reason: lost.reason(), message }
    }
}

impl Procedure for CallTool<'_> {
    type Progress = McpProgress;
    type Seen = McpSeen;
    type Effect = StartCall;
    type Answer = Start;

    fn next(&self, progress: &McpProgress, seen: &McpSeen, moment: &Moment) -> Next {
        let progress = progress.clone();
        if let Some(called_at) = progress.called_at {
            return self.follow(progress, called_at, seen, moment);
        }
        if let Some(withdrawn) = moment.withdrawn {
            return Step::expired(progress, withdrawn.reason, format!("{}; nothing was called", withdrawn.why));
        }
        match seen {
            McpSeen::NotRead(error) => after_error(error, moment.since_start(), progress),
            McpSeen::NoTurn => wait_for_turn(progress, moment, NOUN, false),
            McpSeen::Preparing | McpSeen::NotWanted | McpSeen::Call(_) => Self::prepare(progress, moment),
            McpSeen::NotPrepared(error) => Step::failed(progress, error.reason(), error.to_string()),
            McpSeen::Prepared => {
                let message = format!("calling the tool {}; its timeout is {}", self.mcp.tool, self.mcp.timeout);
                let progress = McpProgress { called_at: Some(milliseconds(moment.now)) };
                Step::Perform { progress, effect: StartCall, note: Some(Note::acting("mcp", message)) }
            }
        }
    }

    fn answered(&self, progress: &McpProgress, _: &StartCall, answer: &Start, moment: &Moment) -> Next {
        match answer {
            Start::Started | Start::AlreadyStarted => Step::wait(progress.clone(), FIRST_POLL),
            Start::NoTurn => wait_for_turn(McpProgress::default(), moment, NOUN, false),
        }
    }
}

/// Calls one tool.
pub struct McpExecutor<'a> {
    pub kubernetes: &'a Kubernetes,
    pub mcp: &'a Mcp,
    pub order: Order<'a>,
    pub remedy: &'a McpRemedy,
    /// The prepared call. When this reconciliation does not make the call, it is dropped, and prepared again.
    pub prepared: Mutex<Option<PreparedCall>>,
}

impl McpExecutor<'_> {
    /// Starts the preparation. Changes nothing outside.
    async fn start_preparation(&self) -> McpSeen {
        let token =
            match read_secret(self.kubernetes, self.order.namespace, self.remedy.token_secret_ref.as_ref()).await {
                Ok(token) => token,
                Err(error) => return McpSeen::NotRead(error),
            };
        let arguments = match self.arguments() {
            Ok(arguments) => arguments,
            Err(why) => return McpSeen::NotPrepared(McpError::Invalid(format!("mcp.arguments {why}"))),
        };
        let preparation = self.mcp.client.clone().prepare(self.remedy.clone(), token, arguments);
        match self.mcp.preparations.start(self.order.uid, preparation) {
            Start::Started | Start::AlreadyStarted => McpSeen::Preparing,
            Start::NoTurn => McpSeen::NoTurn,
        }
    }

    /// With the facts of the action in their places.
    fn arguments(&self) -> Result<Map<String, Value>, String> {
        let value = |name: &str| facts(&self.order).into_iter().find(|fact| fact.0 == name).map(|fact| fact.2);
        self.remedy.arguments.filled(&value)
    }
}

#[async_trait]
impl<'a> Effects for McpExecutor<'a> {
    type Procedure = CallTool<'a>;

    fn procedure(&self) -> CallTool<'a> {
        CallTool { mcp: self.remedy }
    }

    async fn preflight(&self) -> Result<(), ActError> {
        preflight_secret(self.kubernetes, self.order.namespace, self.remedy.token_secret_ref.as_ref()).await
    }

    async fn observe(&self, progress: &McpProgress, moment: &Moment) -> McpSeen {
        let uid = self.order.uid;
        if progress.called_at.is_some() {
            return McpSeen::Call(self.mcp.calls.peek(uid));
        }
        if moment.withdrawn.is_some() {
            self.mcp.preparations.abort(uid);
            return McpSeen::NotWanted;
        }
        if !self.mcp.calls.has_turn() {
            return McpSeen::NoTurn;
        }
        match self.mcp.preparations.poll(uid) {
            CallState::NotStarted => self.start_preparation().await,
            CallState::Running => McpSeen::Preparing,
            CallState::Ended(Ok(call)) => {
                *self.prepared.lock() = Some(call);
                McpSeen::Prepared
            }
            CallState::Ended(Err(error)) => McpSeen::NotPrepared(error),
            CallState::Lost => McpSeen::NotPrepared(McpError::Invalid("the preparation panicked".to_owned())),
        }
    }

    async fn perform(&self, _: &StartCall, _: &McpProgress, _: &Permit) -> Start {
        // Each prepared call is made once.
        let Some(call) = self.prepared.lock().take() else { return Start::NoTurn };
        let limit = Duration::try_from(length(&self.remedy.timeout)).unwrap_or_default();
        self.mcp.calls.start(self.order.uid, call.make(limit))
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        api::McpArguments,
        targets::{
            executor::End,
            model::{Limits, World, walk},
        },
    };

    /// The server, and the call in flight.
    #[derive(Debug, Clone, PartialEq)]
    struct Server {
        /// Calls that were started.
        calls: u32,
        /// The tool has had its effect.
        done: bool,
        call: CallState<Result<String, McpError>>,
        /// An operator process ended since the call was started, or about to be.
        crashed: bool,
    }

    const IDLE: Server = Server { calls: 0, done: false, call: CallState::NotStarted, crashed: false };

    impl Server {
        fn with(&self, done: bool, call: CallState<Result<String, McpError>>) -> Self {
            Self { done: self.done || done, call, ..self.clone() }
        }

        /// The answer is in memory, and reports the outcome.
        fn has_answer(&self) -> bool {
            match &self.call {
                CallState::Ended(Err(McpError::Lost(_))) => false,
                CallState::Ended(_) => true,
                _ => false,
            }
        }
    }

    macro_rules! world {
        ($procedure:ty) => {
            impl World<$procedure> for Server {
                fn observations(&self, progress: &McpProgress) -> Vec<McpSeen> {
                    if progress.called_at.is_some() {
                        return vec![McpSeen::Call(self.call.clone())];
                    }
                    let at = || "https://ops/mcp".to_owned();
                    vec![
                        McpSeen::NotRead(ActError::Unreachable("the API server is unreachable".into())),
                        McpSeen::NoTurn,
                        McpSeen::Preparing,
                        McpSeen::Prepared,
                        McpSeen::NotPrepared(McpError::Unreachable { at: at(), why: "refused".into() }),
                        McpSeen::NotPrepared(McpError::Refused { at: at(), why: "401".into() }),
                    ]
                }

                fn results(&self, _: &StartCall, _: &McpProgress) -> Vec<(Self, Start)> {
                    // What was prepared is lost with the process, so nothing but the status refuses a second call.
                    let started = Self { calls: self.calls + 1, ..self.with(false, CallState::Running) };
                    vec![(started, Start::Started), (self.clone(), Start::NoTurn)]
                }

                fn later(&self) -> Vec<Self> {
                    if self.call != CallState::Running {
                        return Vec::new();
                    }
                    let lost = || CallState::Ended(Err(McpError::Lost("the connection ended".into())));
                    let failed = CallState::Ended(Err(McpError::ToolFailed("no such service".into())));
                    let mut worlds = vec![
                        self.with(true, CallState::Running),
                        self.with(true, CallState::Ended(Ok("restarted".into()))),
                        self.with(true, lost()),
                        self.with(false, lost()),
                        self.with(true, CallState::Lost),
                    ];
                    // A tool that reports a failure is believed.
                    if !self.done {
                        worlds.push(self.with(false, failed));
                    }
                    worlds
                }

                fn crashed(&self) -> Self {
                    Self { crashed: true, ..self.with(false, CallState::NotStarted) }
                }

                fn violation(&self, step: &Next) -> Option<String> {
                    match step {
                        _ if self.calls > 1 => Some("the tool was called twice".to_owned()),
                        Step::OutcomeUnknown { .. } => Some("the component's health decides".to_owned()),
                        Step::Done { reason: RemediationReason::OutcomeUnknown, .. } if self.has_answer() => {
                            Some("the answer is known".to_owned())
                        }
                        Step::Done { reason: RemediationReason::OutcomeUnknown, .. }
                            if self.calls == 0 && !self.crashed =>
                        {
                            Some("nothing was called".to_owned())
                        }
                        Step::Done { reason: RemediationReason::Executed, .. } if !self.done => {
                            Some("the tool has not done it".to_owned())
                        }
                        Step::Ended { end: End::Expired, .. } if self.calls > 0 => {
                            Some("the tool was called".to_owned())
                        }
                        Step::Ended { message, .. } if self.calls > 0 && message.contains("nothing was called") => {
                            Some("the tool was called".to_owned())
                        }
                        Step::Ended { .. } if self.done => Some("the tool has done it, and is not verified".to_owned()),
                        _ => None,
                    }
                }
            }
        };
    }

    world!(CallTool<'_>);
    world!(IgnoresCalledAt<'_>);
    world!(BelievesLost<'_>);

    macro_rules! fault {
        ($name:ident, $next:expr) => {
            struct $name<'a>(CallTool<'a>);

            impl Procedure for $name<'_> {
                type Progress = McpProgress;
                type Seen = McpSeen;
                type Effect = StartCall;
                type Answer = Start;

                fn next(&self, progress: &McpProgress, seen: &McpSeen, moment: &Moment) -> Next {
                    let next: fn(&CallTool<'_>, &McpProgress, &McpSeen, &Moment) -> Next = $next;
                    next(&self.0, progress, seen, moment)
                }

                fn answered(&self, progress: &McpProgress, effect: &StartCall, answer: &Start, now: &Moment) -> Next {
                    self.0.answered(progress, effect, answer, now)
                }
            }
        };
    }

    // A call that was announced before a crash is repeated.
    fault!(IgnoresCalledAt, |procedure, progress, seen, moment| match seen {
        McpSeen::Call(CallState::NotStarted) => {
            procedure.next(&McpProgress::default(), &McpSeen::Prepared, moment)
        }
        _ => procedure.next(progress, seen, moment),
    });
    // A call whose answer was lost counts as a success.
    fault!(BelievesLost, |procedure, progress, seen, moment| match seen {
        McpSeen::Call(CallState::Ended(Err(McpError::Lost(_)))) => {
            procedure.next(progress, &McpSeen::Call(CallState::Ended(Ok("done".into()))), moment)
        }
        _ => procedure.next(progress, seen, moment),
    });

    const LIMITS: Limits = Limits {
        deadline: SignedDuration::from_mins(20),
        tick: Duration::from_secs(60),
        crashes: 2,
        withdrawals: true,
        states: 100_000,
    };

    fn remedy() -> McpRemedy {
        McpRemedy {
            url: "https://ops/mcp".into(),
            tool: "restart".into(),
            arguments: McpArguments::default(),
            token_secret_ref: None,
            timeout: "3m".into(),
        }
    }

    #[test]
    fn a_tool_is_called_at_most_once() {
        let mcp = remedy();
        let report = walk(&CallTool { mcp: &mcp }, IDLE, McpProgress::default(), LIMITS);
        report.assert_holds();
        for end in [
            "Done Executed",
            "Done OutcomeUnknown",
            "Failed McpToolFailed",
            "Failed McpUnreachable",
            "Failed McpRefused",
            "Failed Unreachable",
            "Expired HeldBackTooLong",
            "Expired PolicyGone",
        ] {
            assert!(report.reached(end), "{end} was not reached: {report:?}");
        }
    }

    #[test]
    fn the_model_notices_a_second_call_and_a_lost_answer_that_is_believed() {
        let mcp = remedy();
        let caught = |report: crate::targets::model::Report| report.assert_caught();
        caught(walk(&IgnoresCalledAt(CallTool { mcp: &mcp }), IDLE, McpProgress::default(), LIMITS));
        caught(walk(&BelievesLost(CallTool { mcp: &mcp }), IDLE, McpProgress::default(), LIMITS));
    }
}
