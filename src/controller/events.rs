//! One call reports one fact everywhere: event on the object, log line, counter.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter as KubeReporter},
};

use super::metrics::ControllerMetrics;
pub use crate::api::EventReason;
use crate::api::{HealingPolicy, REPORTER, Remediation};

/// A warning asks a person to know; an error in the log asks a person to act. A new reason is a warning until it is listed.
fn severity(reason: EventReason) -> (EventType, tracing::Level) {
    match reason {
        EventReason::PersonNeeded | EventReason::OutdatedCrd | EventReason::Unreadable => {
            (EventType::Warning, tracing::Level::ERROR)
        }
        EventReason::Recovered
        | EventReason::ReleaseSeen
        | EventReason::ConfigSeen
        | EventReason::KnownGood
        | EventReason::RemediationCreated
        | EventReason::Approved
        | EventReason::Rejected
        | EventReason::Acting
        | EventReason::Verifying
        | EventReason::Succeeded
        | EventReason::GitOpsSuspended
        | EventReason::AutoDeployRestored
        | EventReason::GitOpsResumed => (EventType::Normal, tracing::Level::INFO),
        _ => (EventType::Warning, tracing::Level::WARN),
    }
}

/// A fact for people.
#[derive(Debug, Clone)]
pub struct Fact {
    pub reason: EventReason,
    /// The component, or empty when it concerns the whole policy.
    pub component: String,
    /// The subject of the event: a release, an incident. Events with different subjects are never merged into one
    /// series, which would keep only the first note.
    pub subject: String,
    /// Observation against its limit → decision → next step → how to intervene. Cut at 1 kB.
    pub note: String,
    /// The object concerned beside the policy or Remediation: makes events of two components two events.
    pub secondary: Option<ObjectReference>,
}

impl Fact {
    pub fn new(reason: EventReason, component: impl Into<String>, note: impl Into<String>) -> Self {
        let (component, note) = (component.into(), note.into());
        Self { reason, component, subject: String::new(), note, secondary: None }
    }
}

/// The longest note that the API accepts, in bytes.
const MAX_NOTE: usize = 1024;
/// An event that cannot be written must not hold up healing.
const LIMIT: Duration = Duration::from_secs(2);

pub struct Events {
    recorder: Recorder,
    metrics: ControllerMetrics,
}

impl Events {
    pub fn new(client: Client, metrics: ControllerMetrics) -> Self {
        let reporter = KubeReporter { controller: REPORTER.into(), instance: std::env::var("HOSTNAME").ok() };
        Self { recorder: Recorder::new(client, reporter), metrics }
    }

    pub async fn about_policy(&self, policy: &HealingPolicy, facts: Vec<Fact>) {
        let reference = policy.object_ref(&());
        for fact in facts {
            self.report(&reference, fact).await;
        }
    }

    pub async fn about_remediation(&self, remediation: &Remediation, reason: EventReason, note: &str) {
        self.about_step(remediation, reason, "", note).await;
    }

    /// Of one of several steps: `subject` names it, so that each has its own event.
    pub async fn about_step(&self, remediation: &Remediation, reason: EventReason, subject: &str, note: &str) {
        let component = &remediation.spec.plan.component;
        let fact = Fact { subject: subject.to_owned(), ..Fact::new(reason, component, note) };
        self.report(&remediation.object_ref(&()), fact).await;
    }

    /// Log and counter at once; the event within [`LIMIT`], or it is only logged.
    pub async fn report(&self, regarding: &ObjectReference, fact: Fact) {
        let Fact { reason, component, subject, note, secondary } = fact;
        let (type_, level) = severity(reason);
        let kind = regarding.kind.as_deref().unwrap_or_default();
        let name = regarding.name.as_deref().unwrap_or_default();
        let namespace = regarding.namespace.as_deref().unwrap_or_default();
        let reason_text: &'static str = reason.into();
        macro_rules! say {
            ($level:ident) => {
                tracing::$level!(namespace, object = %format_args!("{kind}/{name}"), component, reason = reason_text, "{note}")
            };
        }
        match level {
            tracing::Level::ERROR => say!(error),
            tracing::Level::WARN => say!(warn),
            _ => say!(info),
        }
        self.metrics.fact(reason_text);
        let action = if subject.is_empty() { reason_text.to_owned() } else { format!("{reason_text}/{subject}") };
        let event = Event { type_, reason: reason_text.into(), note: Some(cut(note)), action, secondary };
        let error = match tokio::time::timeout(LIMIT, self.recorder.publish(&event, regarding)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        tracing::info!(namespace, name, reason = reason_text, error, "the event could not be written");
    }
}

/// At most [`MAX_NOTE`] bytes, on a character boundary.
fn cut(mut note: String) -> String {
    if note.len() > MAX_NOTE {
        note.truncate(note.floor_char_boundary(MAX_NOTE - 3));
        note.push_str("...");
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_between_characters() {
        let note = cut("ü".repeat(1000));
        assert!(note.len() <= MAX_NOTE && note.ends_with("ü..."), "{} bytes", note.len());
        assert_eq!(cut("short".into()), "short");
    }
}
