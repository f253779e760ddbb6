//! How the remedies that a team defines run: one procedure each.

pub mod hook;
pub mod job;
pub mod mcp;
pub mod webhook;

use std::time::Duration;

use jiff::SignedDuration;

use super::in_flight::poll_interval;
use crate::{
    api::{KeyRef, RemediationReason, Span},
    targets::{
        executor::{EXECUTE_LIMIT, End, Moment, Note, Step},
        kubernetes::{ActError, Kubernetes},
    },
};

/// A call that ends by its own time limit gets so long to report that.
const GRACE: SignedDuration = SignedDuration::from_secs(30);
/// Between a start and the first poll.
const FIRST_POLL: Duration = Duration::from_millis(250);

/// The length of a duration that was checked with the policy.
fn length(span: &Span) -> SignedDuration {
    span.parse().unwrap_or(SignedDuration::ZERO)
}

/// The step of a call that cannot be started now. `called_before`: an earlier call, whose answer is not known, was
/// announced; `effect` says the same in words.
fn wait_for_turn<P, E>(progress: P, moment: &Moment, called_before: bool, effect: &str) -> Step<P, E> {
    if moment.since_start() < EXECUTE_LIMIT {
        let message = "the call waits for its turn: too many others run, or the operator stops";
        let note = Some(Note::acting("turn", message));
        return Step::Wait { progress, after: poll_interval(moment.since_start()), note };
    }
    let end = if called_before { End::Failed } else { End::Expired };
    let message = format!("the call waited for its turn for {EXECUTE_LIMIT:#}, since too many others run; {effect}");
    Step::Ended { progress, end, reason: RemediationReason::HeldBackTooLong, message }
}

/// Whether a Secret may be read, exists and is text. It is read anew when it is used.
///
/// # Errors
/// See [`ActError`].
async fn preflight_secret(kubernetes: &Kubernetes, namespace: &str, key: Option<&KeyRef>) -> Result<(), ActError> {
    if let Some(key) = key {
        kubernetes.preflight_secret(namespace).await?;
        kubernetes.secret(namespace, key).await?;
    }
    Ok(())
}
