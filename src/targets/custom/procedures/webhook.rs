//! A webhook: delivered, then followed to its end when it continues after its response (202 with a Location).
//!
//! Guarantees: a delivery is announced in the status before it is started; a second delivery, after a crash, carries the
//! same `Idempotency-Key`. An accepted delivery is followed to its end also when the action is withdrawn.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::json;

use super::{CallSeen, Endpoint, FIRST_POLL, GRACE, failed, length, preflight_secret, read_secret, wait_for_turn};
use crate::{
    api::{RemediationReason, Retry, WebhookProgress, WebhookRemedy, milliseconds},
    plan::guard::Permit,
    targets::{
        custom::{
            hook::{Hooks, longest},
            in_flight::{CallState, Start, poll_interval},
            webhook::{Delivery, Report},
        },
        executor::{Effects, Moment, Note, Order, Procedure, Step},
        kubernetes::{ActError, Kubernetes},
    },
};

/// After a request for the progress that failed temporarily.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const NOUN: &str = "the webhook";

/// Decides about one webhook.
#[derive(Debug)]
pub struct CallWebhook<'a> {
    pub webhook: &'a WebhookRemedy,
    /// The `Idempotency-Key`: the Remediation's uid.
    pub key: &'a str,
}

/// The delivery, or the request for its progress after the webhook has named a URL for it.
type WebhookSeen = CallSeen<Report>;

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
        let message = format!("the webhook did not finish within its deadline, {}", self.webhook.deadline);
        Step::failed(progress, RemediationReason::DeadlineExceeded, message)
    }

    fn reported(&self, progress: WebhookProgress, report: &Report, moment: &Moment) -> Next {
        match report {
            Report::Done => {
                let message = "the webhook has finished; watching whether it helps".to_owned();
                Step::Done { progress, reason: RemediationReason::Executed, message }
            }
            Report::Later { .. } if self.is_over(moment) => self.deadline_exceeded(progress),
            Report::Later { at, after } if progress.poll_url.as_deref() == Some(at.as_str()) => {
                Step::wait(progress, *after)
            }
            Report::Later { at, after } => {
                let message = format!("the webhook has started; its deadline is {}", self.webhook.deadline);
                let progress = WebhookProgress { poll_url: Some(at.to_string()), ..progress };
                Step::Wait { progress, after: *after, note: Some(Note::acting("webhook", message)) }
            }
        }
    }

    /// Before the webhook has named a URL for its progress.
    fn deliver(&self, progress: WebhookProgress, seen: &WebhookSeen, moment: &Moment) -> Next {
        let called_at = progress.called_at;
        let endpoint = Endpoint { noun: NOUN, timeout: &self.webhook.timeout };
        let answer = endpoint.answer(progress, called_at, seen, moment, |progress| Step::Perform {
            progress: WebhookProgress { called_at: Some(milliseconds(moment.now)), ..progress },
            effect: StartRequest::Deliver { key: self.key.to_owned(), again: called_at.is_some() },
            note: None,
        });
        match answer {
            Err(step) => step,
            Ok((progress, report)) => self.reported(progress, report, moment),
        }
    }

    /// The webhook has accepted the delivery, and continues after its response.
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
            CallState::Ended(Err(error)) => failed(progress, error),
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
                wait_for_turn(progress, moment, NOUN, *again)
            }
            (Start::NoTurn, StartRequest::Ask { .. }) => Step::wait(progress, ASK_AGAIN),
            (Start::Started | Start::AlreadyStarted, _) => Step::wait(progress, FIRST_POLL),
        }
    }
}

/// Calls one webhook.
pub struct WebhookExecutor<'a> {
    pub kubernetes: &'a Kubernetes,
    pub hooks: &'a Hooks,
    pub order: Order<'a>,
    pub webhook: &'a WebhookRemedy,
    /// The key of the signature; read again in each reconciliation that starts a delivery.
    pub secret: Mutex<Option<SecretString>>,
}

impl WebhookExecutor<'_> {
    fn ask_key(&self) -> String {
        format!("{}/progress", self.order.uid)
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
        let mut secret = Ok(());
        if call == CallState::NotStarted && moment.withdrawn.is_none() {
            let key = self.webhook.secret_ref.as_ref();
            let read = read_secret(self.kubernetes, self.order.namespace, key).await;
            secret = read.map(|secret| *self.secret.lock() = secret);
        }
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

/// The body of a delivery. A second delivery has the same body.
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
