//! A webhook: delivered, then followed to its end when it goes on by itself (202 with a Location).
//!
//! Guarantees: a delivery is announced in the status before it is started; a second delivery, after a crash, carries the
//! same `Idempotency-Key`. A delivery in flight, and what the endpoint has begun, is followed to its end also when the
//! policy does not want the action any more.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::json;

use super::{FIRST_POLL, GRACE, length, preflight_secret, wait_for_turn};
use crate::{
    api::{RemediationReason, Retry, WebhookProgress, WebhookRemedy, milliseconds},
    plan::guard::Permit,
    targets::{
        custom::{
            hook::{HookError, Hooks, longest},
            in_flight::{CallState, Start, poll_interval},
            webhook::{Delivery, Report},
        },
        executor::{Effects, Moment, Note, Order, Procedure, Step},
        kubernetes::{ActError, Kubernetes, write::after_error},
    },
};

/// After a request for the progress that failed for a reason that may pass.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Decides about one webhook.
#[derive(Debug)]
pub struct CallWebhook<'a> {
    pub webhook: &'a WebhookRemedy,
    /// The `Idempotency-Key`: the Remediation's uid.
    pub key: &'a str,
}

/// What is known about the delivery, or about the request for its progress once the webhook has named a place for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSeen {
    pub call: CallState<Result<Report, HookError>>,
    /// A call could be started now.
    pub has_turn: bool,
    /// Whether the Secret could be read that a delivery is signed with.
    pub secret: Result<(), ActError>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartRequest {
    /// `again`: a delivery with this key was announced before.
    Deliver { key: String, again: bool },
    /// Ask for the progress. Changes nothing.
    Ask { at: String },
}

type Next = Step<WebhookProgress, StartRequest>;

impl CallWebhook<'_> {
    fn is_over(&self, moment: &Moment) -> bool {
        moment.since_start() >= length(&self.webhook.deadline)
    }

    fn deadline_exceeded(&self, progress: WebhookProgress) -> Next {
        let message = format!("the webhook was not done within its deadline, {}", self.webhook.deadline);
        Step::failed(progress, RemediationReason::DeadlineExceeded, message)
    }

    fn failed(progress: WebhookProgress, error: &HookError) -> Next {
        Step::failed(progress, error.reason(), error.to_string())
    }

    fn reported(&self, progress: WebhookProgress, report: &Report, moment: &Moment) -> Next {
        match report {
            Report::Done => {
                let message = "the webhook has done it; watching whether it helps".to_owned();
                Step::Done { progress, reason: RemediationReason::Executed, message }
            }
            Report::Later { .. } if self.is_over(moment) => self.deadline_exceeded(progress),
            Report::Later { at, after } if progress.poll_url.as_deref() == Some(at.as_str()) => {
                Step::wait(progress, *after)
            }
            Report::Later { at, after } => {
                let message = format!("the webhook has begun, and has {} at most", self.webhook.deadline);
                let progress = WebhookProgress { poll_url: Some(at.to_string()), ..progress };
                Step::Wait { progress, after: *after, note: Some(Note::acting("webhook", message)) }
            }
        }
    }

    /// Before the webhook has named a place to ask.
    fn deliver(&self, progress: WebhookProgress, seen: &WebhookSeen, moment: &Moment) -> Next {
        let again = progress.called_at.is_some();
        let effect = effect_of(again);
        match &seen.call {
            CallState::NotStarted => match (moment.withdrawn, &seen.secret) {
                (Some(withdrawn), _) if again => {
                    Step::failed(progress, withdrawn.reason, format!("{}; {effect}", withdrawn.why))
                }
                (Some(withdrawn), _) => {
                    Step::expired(progress, withdrawn.reason, format!("{}; {effect}", withdrawn.why))
                }
                (None, Err(error)) => after_error(error, moment.since_start(), progress),
                (None, Ok(())) if !seen.has_turn => wait_for_turn(progress, moment, again, effect),
                (None, Ok(())) => {
                    let progress = WebhookProgress { called_at: Some(milliseconds(moment.now)), ..progress };
                    let effect = StartRequest::Deliver { key: self.key.to_owned(), again };
                    Step::Perform { progress, effect, note: None }
                }
            },
            CallState::Running => {
                let since = moment.now.duration_since(progress.called_at.unwrap_or(moment.started_at));
                if since < longest(&self.webhook.timeout) + GRACE {
                    return Step::wait(progress, poll_interval(since));
                }
                Self::failed(progress, &HookError::Lost(format!("it has not ended within {since:#}")))
            }
            CallState::Ended(Ok(report)) => self.reported(progress, report, moment),
            CallState::Ended(Err(error)) => Self::failed(progress, error),
            CallState::Lost => Self::failed(progress, &HookError::Lost("it panicked".to_owned())),
        }
    }

    /// The webhook has begun, and goes on by itself.
    fn ask(&self, progress: WebhookProgress, at: &str, seen: &WebhookSeen, moment: &Moment) -> Next {
        let is_over = self.is_over(moment);
        let since = moment.since_start();
        // The last request for the progress has ended by then.
        let last = length(&self.webhook.deadline) + longest(&self.webhook.timeout) + GRACE;
        match &seen.call {
            CallState::NotStarted | CallState::Running if since >= last => self.deadline_exceeded(progress),
            CallState::NotStarted if !seen.has_turn && is_over => self.deadline_exceeded(progress),
            CallState::NotStarted if !seen.has_turn => Step::wait(progress, ASK_AGAIN),
            CallState::NotStarted => {
                Step::Perform { progress, effect: StartRequest::Ask { at: at.to_owned() }, note: None }
            }
            CallState::Running => Step::wait(progress, poll_interval(since)),
            CallState::Ended(Ok(report)) => self.reported(progress, report, moment),
            CallState::Ended(Err(error)) if error.retry() == Retry::Backoff && !is_over => {
                Step::wait(progress, ASK_AGAIN)
            }
            CallState::Ended(Err(error)) => Self::failed(progress, error),
            CallState::Lost if !is_over => Step::wait(progress, ASK_AGAIN),
            CallState::Lost => self.deadline_exceeded(progress),
        }
    }
}

impl Procedure for CallWebhook<'_> {
    type Progress = WebhookProgress;
    type Seen = WebhookSeen;
    type Effect = StartRequest;
    type Answer = Start;

    fn next(&self, progress: &WebhookProgress, seen: &WebhookSeen, moment: &Moment) -> Next {
        match &progress.poll_url {
            None => self.deliver(progress.clone(), seen, moment),
            Some(at) => self.ask(progress.clone(), at, seen, moment),
        }
    }

    fn answered(&self, progress: &WebhookProgress, effect: &StartRequest, answer: &Start, moment: &Moment) -> Next {
        let mut progress = progress.clone();
        match (answer, effect) {
            (Start::NoTurn, StartRequest::Deliver { again, .. }) => {
                if !again {
                    progress.called_at = None;
                }
                wait_for_turn(progress, moment, *again, effect_of(*again))
            }
            (Start::NoTurn, StartRequest::Ask { .. }) => Step::wait(progress, ASK_AGAIN),
            (Start::Started | Start::AlreadyStarted, _) => Step::wait(progress, FIRST_POLL),
        }
    }
}

fn effect_of(called_before: bool) -> &'static str {
    if called_before { "the webhook may have been called before" } else { "nothing was called" }
}

/// Calls one webhook.
pub struct WebhookExecutor<'a> {
    kubernetes: &'a Kubernetes,
    hooks: &'a Hooks,
    order: Order<'a>,
    webhook: &'a WebhookRemedy,
    /// What a delivery is signed with; read anew in each reconciliation that starts one.
    secret: Mutex<Option<SecretString>>,
}

impl<'a> WebhookExecutor<'a> {
    pub fn new(kubernetes: &'a Kubernetes, hooks: &'a Hooks, order: Order<'a>, webhook: &'a WebhookRemedy) -> Self {
        Self { kubernetes, hooks, order, webhook, secret: Mutex::new(None) }
    }

    fn ask_key(&self) -> String {
        format!("{}/progress", self.order.uid)
    }

    async fn read_secret(&self) -> Result<(), ActError> {
        let Some(key) = &self.webhook.secret_ref else { return Ok(()) };
        let secret = self.kubernetes.secret(self.order.namespace, key).await?;
        *self.secret.lock() = Some(secret);
        Ok(())
    }
}

#[async_trait]
impl<'a> Effects for WebhookExecutor<'a> {
    type Procedure = CallWebhook<'a>;

    fn procedure(&self) -> CallWebhook<'a> {
        CallWebhook { webhook: self.webhook, key: self.order.uid }
    }

    async fn preflight(&self) -> Result<(), ActError> {
        preflight_secret(self.kubernetes, self.order.namespace, self.webhook.secret_ref.as_ref()).await
    }

    async fn observe(&self, progress: &WebhookProgress, moment: &Moment) -> WebhookSeen {
        let requests = &self.hooks.deliveries;
        if progress.poll_url.is_some() {
            let call = requests.poll(&self.ask_key());
            return WebhookSeen { call, has_turn: requests.has_turn(), secret: Ok(()) };
        }
        let call = requests.peek(self.order.uid);
        let starts = call == CallState::NotStarted && moment.withdrawn.is_none();
        let secret = if starts { self.read_secret().await } else { Ok(()) };
        WebhookSeen { call, has_turn: requests.has_turn(), secret }
    }

    async fn perform(&self, effect: &StartRequest, _: &WebhookProgress, _: &Permit) -> Start {
        let (http, webhook) = (self.hooks.http.clone(), self.webhook.clone());
        match effect {
            StartRequest::Deliver { key, .. } => {
                let delivery = Delivery {
                    uid: key.clone(),
                    sent_at: Timestamp::now().as_second(),
                    body: facts(&self.order),
                    secret: self.secret.lock().take(),
                };
                let call = async move { http.deliver(&webhook, &delivery).await };
                self.hooks.deliveries.start(self.order.uid, call)
            }
            StartRequest::Ask { at } => {
                let at = at.clone();
                self.hooks.deliveries.start(&self.ask_key(), async move { http.poll(&webhook, &at).await })
            }
        }
    }
}

/// The facts, as a webhook gets them. A second delivery has the same text.
fn facts(order: &Order<'_>) -> String {
    let Order { namespace, remediation, uid, plan, .. } = *order;
    let mut facts = json!({
        "type": "panacea.remediation", "timestamp": plan.decided_at,
        "data": {
            "remediation": remediation, "uid": uid, "namespace": namespace, "policy": plan.policy,
            "component": plan.component, "target": plan.target, "cause": plan.cause, "why": plan.why,
            "episode": plan.episode, "step": plan.step,
        },
    });
    if let Some(foreseen) = &plan.foreseen {
        facts["data"]["foreseen"] = json!(foreseen);
    }
    facts.to_string()
}

#[cfg(test)]
mod tests;
