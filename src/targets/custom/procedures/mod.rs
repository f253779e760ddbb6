//! How custom remedies run: one procedure each.

pub mod hook;
pub mod job;
pub mod mcp;
pub mod webhook;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use super::{
    hook::{HookError, longest},
    in_flight::{CallState, poll_interval},
};
use crate::{
    api::{KeyRef, RemediationReason, Span},
    targets::{
        executor::{EXECUTE_LIMIT, End, Moment, Note, Order, Step},
        kubernetes::{ActError, Kubernetes, write::after_error},
    },
};

/// A call that ends by its own time limit has this time to report that.
const GRACE: SignedDuration = SignedDuration::from_secs(30);
/// Between a start and the first poll.
const FIRST_POLL: Duration = Duration::from_millis(250);

/// The length of a duration that was validated with the policy.
fn length(span: &Span) -> SignedDuration {
    span.parse().unwrap_or(SignedDuration::ZERO)
}

/// The state of a call that carries an idempotency key.
#[derive(Debug, Clone, PartialEq)]
pub struct CallSeen<T> {
    pub call: CallState<Result<T, HookError>>,
    /// A call could be started now.
    pub has_turn: bool,
    /// Whether the Secret could be read that the call needs.
    pub secret: Result<(), ActError>,
}

/// An endpoint whose calls carry an idempotency key, so that a second call is harmless. A call in flight is followed to its
/// end also when the action is withdrawn.
struct Endpoint<'a> {
    /// "the hook"
    noun: &'static str,
    /// Of one attempt.
    timeout: &'a Span,
}

impl Endpoint<'_> {
    /// The answer of the call, or the step until there is one. `called_at`: when an earlier call was announced; `start`: the
    /// step that starts a call.
    fn answer<'s, P, E, T>(
        &self,
        progress: P,
        called_at: Option<Timestamp>,
        seen: &'s CallSeen<T>,
        moment: &Moment,
        start: impl FnOnce(P) -> Step<P, E>,
    ) -> Result<(P, &'s T), Step<P, E>> {
        let again = called_at.is_some();
        let error = match &seen.call {
            CallState::NotStarted => {
                return Err(match (moment.withdrawn, &seen.secret) {
                    (Some(withdrawn), _) => {
                        let end = if again { End::Failed } else { End::Expired };
                        let message = format!("{}; {}", withdrawn.why, effect(self.noun, again));
                        Step::Ended { progress, end, reason: withdrawn.reason, message }
                    }
                    (None, Err(error)) => after_error(error, moment.since_start(), progress),
                    (None, Ok(())) if !seen.has_turn => wait_for_turn(progress, moment, self.noun, again),
                    (None, Ok(())) => start(progress),
                });
            }
            CallState::Running => {
                let since = moment.now.duration_since(called_at.unwrap_or(moment.started_at));
                if since < longest(self.timeout) + GRACE {
                    return Err(Step::wait(progress, poll_interval(since)));
                }
                HookError::Lost(format!("it has not ended within {since:#}"))
            }
            CallState::Ended(Ok(answer)) => return Ok((progress, answer)),
            CallState::Ended(Err(error)) => error.clone(),
            CallState::Lost => HookError::Lost("it panicked".to_owned()),
        };
        Err(failed(progress, &error))
    }
}

fn failed<P, E>(progress: P, error: &HookError) -> Step<P, E> {
    Step::failed(progress, error.reason(), error.to_string())
}

/// `again`: an earlier call, whose answer is unknown, was announced.
fn effect(noun: &str, again: bool) -> String {
    if again { format!("{noun} may have been called before") } else { "nothing was called".to_owned() }
}

/// The step of a call that cannot be started now. `again`: as of [`effect`].
fn wait_for_turn<P, E>(progress: P, moment: &Moment, noun: &str, again: bool) -> Step<P, E> {
    if moment.since_start() < EXECUTE_LIMIT {
        let message = "the call waits for a free slot: too many calls run, or the operator stops";
        let note = Some(Note::acting("turn", message));
        return Step::Wait { progress, after: poll_interval(moment.since_start()), note };
    }
    let end = if again { End::Failed } else { End::Expired };
    let message =
        format!("no free slot for the call within {EXECUTE_LIMIT:#}: too many calls run; {}", effect(noun, again));
    Step::Ended { progress, end, reason: RemediationReason::HeldBackTooLong, message }
}

/// The facts of an action: the name in `mcp.arguments`, the variable of a Job, the value.
fn facts(order: &Order<'_>) -> [(&'static str, &'static str, String); 10] {
    let Order { namespace, remediation, uid, plan, .. } = *order;
    [
        ("namespace", "PANACEA_NAMESPACE", namespace.to_owned()),
        ("policy", "PANACEA_POLICY", plan.policy.clone()),
        ("component", "PANACEA_COMPONENT", plan.component.clone()),
        ("kind", "PANACEA_TARGET_KIND", plan.target.kind.clone()),
        ("name", "PANACEA_TARGET_NAME", plan.target.name.clone()),
        ("cause", "PANACEA_CAUSE", plan.cause.to_string()),
        ("why", "PANACEA_WHY", plan.why.clone()),
        ("episode", "PANACEA_EPISODE", plan.episode.clone()),
        ("remediation", "PANACEA_REMEDIATION", remediation.to_owned()),
        ("uid", "PANACEA_REMEDIATION_UID", uid.to_owned()),
    ]
}

async fn read_secret(
    kubernetes: &Kubernetes,
    namespace: &str,
    key: Option<&KeyRef>,
) -> Result<Option<SecretString>, ActError> {
    let Some(key) = key else { return Ok(None) };
    kubernetes.secret(namespace, key).await.map(Some)
}

/// Whether a Secret may be read, exists and is text. The call reads it again.
async fn preflight_secret(kubernetes: &Kubernetes, namespace: &str, key: Option<&KeyRef>) -> Result<(), ActError> {
    if key.is_some() {
        kubernetes.preflight_secret(namespace).await?;
    }
    read_secret(kubernetes, namespace, key).await.map(drop)
}
