//! The fault of a pod: a pure function of its facts and the time.

use jiff::{SignedDuration, Timestamp};

use super::facts::{ContainerFacts, ContainerState, Phase, PodFacts, cut};
use crate::analyze::observation::{FaultKind, NOT_READY_GRACE_S};

/// A container that keeps failing leaves its back-off for a moment at each attempt, and the kubelet shows it as terminated
/// or waiting for another reason. Failures this recent, in seconds, bridge the gap.
const RECENT_FAILURE_S: i64 = 60;
/// From this number of restarts a container counts as looping.
const LOOPING_RESTARTS: i32 = 2;
/// A Ready condition that turned false within this time of the pod's start, in seconds, was never true: the kubelet writes
/// the condition with the first status.
const STARTING_S: i64 = 10;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault<'a> {
    pub container: &'a str,
    pub kind: FaultKind,
    pub since: Timestamp,
    source: Option<&'a ContainerFacts>,
}

/// The pod's first fault, init containers first; none for a pod that is terminating, over, or still starting. The caller
/// leaves out pods on lost nodes, whose status is stale.
pub(super) fn fault(pod: &PodFacts, now: Timestamp) -> Option<Fault<'_>> {
    if pod.terminating || pod.phase == Phase::Over {
        return None;
    }
    let of_container = pod.containers.iter().find_map(|container| {
        let kind = container_fault(container, now)?;
        let since = pod.trouble_since.unwrap_or(now);
        Some(Fault { container: &container.name, kind, since, source: Some(container) })
    });
    of_container.or_else(|| {
        let since = lost_readiness(pod)?;
        (now.duration_since(since) > SignedDuration::from_secs(NOT_READY_GRACE_S)).then_some(Fault {
            container: "",
            kind: FaultKind::NotReady,
            since,
            source: None,
        })
    })
}

fn container_fault(container: &ContainerFacts, now: Timestamp) -> Option<FaultKind> {
    let out_of_memory = container.last_failure.as_ref().is_some_and(|failure| failure.oom);
    let crash = if out_of_memory { FaultKind::OomKilled } else { FaultKind::CrashLoop };
    if let ContainerState::Waiting { reason, .. } = &container.state {
        match &**reason {
            "CrashLoopBackOff" => return Some(crash),
            reason if is_pull_failure(reason) => return Some(FaultKind::ImagePull),
            "CreateContainerConfigError"
            | "CreateContainerError"
            | "RunContainerError"
            | "PreCreateHookError"
            | "PreStartHookError"
            | "PostStartHookError" => return Some(FaultKind::Config),
            _ => {}
        }
    }
    let failing = !container.ready
        && container.restarts >= LOOPING_RESTARTS
        && container.state != ContainerState::Running
        && container
            .last_failure
            .as_ref()
            .and_then(|failure| failure.finished)
            .is_some_and(|finished| now.duration_since(finished) <= SignedDuration::from_secs(RECENT_FAILURE_S));
    failing.then_some(crash)
}

/// The reason of a waiting container means that its image cannot be pulled.
pub(super) fn is_pull_failure(reason: &str) -> bool {
    matches!(
        reason,
        "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed"
    )
}

/// Since when a pod that was ready is not; none while the pod is ready or was never ready: a starting pod has the
/// Deployment's progress deadline.
fn lost_readiness(pod: &PodFacts) -> Option<Timestamp> {
    if pod.ready || pod.phase != Phase::Running {
        return None;
    }
    let (changed, started) = (pod.ready_changed?, pod.started?);
    (changed.duration_since(started) > SignedDuration::from_secs(STARTING_S)).then_some(changed)
}

impl Fault<'_> {
    /// For a person; at most 200 characters.
    pub(super) fn detail(&self) -> String {
        let Some(container) = self.source else {
            return "was ready and is not ready any more".to_owned();
        };
        let mut parts = Vec::with_capacity(3);
        if let Some(failure) = &container.last_failure {
            let why = if failure.oom { " (OOMKilled)" } else { "" };
            parts.push(format!("exit code {}{why}", failure.exit_code));
        }
        if container.restarts > 0 {
            let plural = if container.restarts == 1 { "" } else { "s" };
            parts.push(format!("{} restart{plural}", container.restarts));
        }
        if let ContainerState::Waiting { reason, message } = &container.state {
            // The kubelet's message for a crash loop only repeats the pod.
            let brief = message.is_empty() || &**reason == "CrashLoopBackOff";
            parts.push(if brief { reason.to_string() } else { format!("{reason}: {message}") });
        }
        cut(&parts.join(", "), 200).to_owned()
    }
}
