//! What is done to workloads: rollback, restart, new pods one at a time. All read live, write under a precondition, and
//! find out by themselves that they were done already: a crash between any two lines and a second call are harmless.

mod config;
mod env_vars;
mod history;
mod job;
mod live;
mod preflight;
mod recycle;
mod references;
mod rollout;
mod scale;
mod snapshots;
mod state;
mod stuck;
mod suspend;

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{
    act_error::{ActError, Call},
    digest_key::DigestKey,
};
use crate::api::{RESTARTED_AT, TemplateRef, WorkloadKind};
pub use config::Named;
pub use job::{JobRun, JobState};
use live::{digest_of, restarted_at};
pub use recycle::{Evicted, PodsSeen};
pub use snapshots::SnapshotOf;
pub use state::WholeState;
pub use suspend::{Followed, Held};

/// Tries when other writers come between our reading and our writing.
const TRIES: u32 = 5;
/// For one request.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// For a write with all its tries.
const ACTION_LIMIT: Duration = Duration::from_secs(15);
/// The wait before the second try; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// Where Argo CD is installed when nothing else is said.
pub const ARGOCD_NAMESPACE: &str = "argocd";
/// The actions on workloads. Cheap to clone.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    /// Turns for making copies of good states.
    copying: Arc<Semaphore>,
    /// Where Argo CD runs.
    argocd: Arc<str>,
    /// What is suspended for the action at hand.
    suspended: Option<Arc<suspend::Place>>,
    /// What digests of Secrets are made with.
    key: DigestKey,
}

/// Which workload is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkloadRef<'a> {
    pub kind: WorkloadKind,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl fmt::Display for WorkloadRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What came of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// WriteTracker; `generation` is the workload's after it.
    Done { generation: i64 },
    /// It was so already, most likely by an earlier try of ours; nothing was written.
    AlreadyDone,
}

impl Kubernetes {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            copying: Arc::new(Semaphore::new(snapshots::COPIES_AT_ONCE)),
            argocd: ARGOCD_NAMESPACE.into(),
            suspended: None,
            key: DigestKey::default(),
        }
    }

    pub(in crate::targets) fn with_key(self, key: DigestKey) -> Self {
        Self { key, ..self }
    }

    /// Puts the template `to` back, if `from` is still the one that runs: what `kubectl rollout undo` does, with the
    /// template alone (replicas, labels and annotations of the workload stay). Of a StatefulSet, pods of `from` that are
    /// in the way are deleted after it (see `stuck`). Of a Rollout, an update that is under way is aborted before, and
    /// one that the rollback begins is promoted (see `rollout`).
    ///
    /// The write carries the resourceVersion that was read, so that a release made meanwhile is never overwritten.
    ///
    /// # Errors
    /// See [`ActError`]; nothing was written, except that after `Timeout` and `Unreachable` it is not known, and that
    /// after `Blocked`, or when a pod could not be deleted, the template is back. At most 30 s.
    pub async fn rollback(
        &self,
        workload: WorkloadRef<'_>,
        from: &TemplateRef,
        to: &TemplateRef,
    ) -> Result<Outcome, ActError> {
        let is_rollout = workload.kind == WorkloadKind::Rollout;
        if is_rollout {
            self.tries(workload, || self.abort_patch(workload, from, to)).await?;
        }
        let outcome = self.tries(workload, || self.rollback_patch(workload, from, to)).await?;
        if is_rollout {
            self.promote(workload, &to.digest).await?;
        } else {
            self.make_way(workload, from, &to.digest).await?;
        }
        Ok(outcome)
    }

    /// Whether [`Self::rollback`] has put the template back already, or, of a Rollout, has begun with it. Writes nothing.
    ///
    /// # Errors
    /// As for [`Self::rollback`].
    pub async fn is_rolled_back(
        &self,
        workload: WorkloadRef<'_>,
        from: &TemplateRef,
        to: &TemplateRef,
    ) -> Result<bool, ActError> {
        let back = self.rollback_patch(workload, from, to).await?.is_none();
        Ok(back || (workload.kind == WorkloadKind::Rollout && self.has_aborted(workload).await?))
    }

    /// What is to be written; none when it was written already.
    async fn rollback_patch(
        &self,
        workload: WorkloadRef<'_>,
        from: &TemplateRef,
        to: &TemplateRef,
    ) -> Result<Option<Value>, ActError> {
        let live = self.read(workload).await?;
        self.not_owned(&live.metadata, None)?;
        live.has_template(workload)?;
        let history = self.history(workload, &live).await?;
        let target = history.iter().find(|past| past.hash == to.hash).ok_or_else(|| {
            let (kind, label) = history::names(workload.kind);
            ActError::TargetGone(format!("no {kind} of {workload} has {label} {}", to.hash))
        })?;
        if digest_of(&target.template)? != to.digest {
            return Err(ActError::TargetGone(format!(
                "{} {} holds another template than the one that was seen healthy",
                history::names(workload.kind).0,
                target.name
            )));
        }
        let same = live.digest == to.digest;
        let is_newest = same && target.newest;
        // Our own write before the workload's controller has seen it.
        let is_fresh = same && restarted_at(&live.template) == restarted_at(&target.template);
        if is_newest || is_fresh {
            return Ok(None);
        }
        live.must_be(from)?;
        Ok(Some(json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": live.metadata.resource_version},
            {"op": "replace", "path": "/spec/template", "value": target.template},
        ])))
    }

    /// Rolls all pods anew, as `kubectl rollout restart`, or `kubectl argo rollouts restart`, does. `at` names this restart: a second call with the same
    /// value does nothing more. Of a StatefulSet, pods of `from` that are in the way are deleted (see `stuck`); of a Rollout,
    /// those that are not ready are evicted (see `rollout`).
    ///
    /// # Errors
    /// As for [`Self::rollback`]. With `from`, Superseded when another template runs by now.
    pub async fn restart(
        &self,
        workload: WorkloadRef<'_>,
        from: Option<&TemplateRef>,
        at: Timestamp,
    ) -> Result<Outcome, ActError> {
        let outcome = self.tries(workload, || self.restart_patch(workload, from, at)).await?;
        if let Some(from) = from {
            self.make_way(workload, from, &from.digest).await?;
        }
        if workload.kind == WorkloadKind::Rollout {
            self.clear_broken(workload, at).await?;
        }
        Ok(outcome)
    }

    /// Whether [`Self::restart`] has written its annotation already. Writes nothing.
    ///
    /// # Errors
    /// As for [`Self::restart`].
    pub async fn is_restarted(
        &self,
        workload: WorkloadRef<'_>,
        from: Option<&TemplateRef>,
        at: Timestamp,
    ) -> Result<bool, ActError> {
        Ok(self.restart_patch(workload, from, at).await?.is_none())
    }

    /// What is to be written; none when it was written already.
    async fn restart_patch(
        &self,
        workload: WorkloadRef<'_>,
        from: Option<&TemplateRef>,
        at: Timestamp,
    ) -> Result<Option<Value>, ActError> {
        if workload.kind == WorkloadKind::Rollout {
            return self.restart_at_patch(workload, from, at).await;
        }
        let at = at.to_string();
        let live = self.read(workload).await?;
        if restarted_at(&live.template) == Some(&at) {
            return Ok(None);
        }
        if let Some(from) = from {
            live.must_be(from)?;
        }
        Ok(Some(json!({
            "metadata": {"resourceVersion": live.metadata.resource_version},
            "spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: at}}}},
        })))
    }

    /// Writes the patch that `decide` reads and decides on, anew for as long as others come between. None: it was written
    /// already.
    async fn tries<F>(&self, workload: WorkloadRef<'_>, mut decide: impl FnMut() -> F) -> Result<Outcome, ActError>
    where
        F: Future<Output = Result<Option<Value>, ActError>>,
    {
        let all = until_written(|| {
            let decided = decide();
            async move {
                match decided.await? {
                    None => Ok(Some(Outcome::AlreadyDone)),
                    Some(patch) => self.write(workload, patch).await,
                }
            }
        });
        timeout(ACTION_LIMIT, all).await.unwrap_or_else(|_| Err(Call::patch(workload.kind).timeout(ACTION_LIMIT)))
    }
}

/// What came of `attempt`, made anew for as long as others' writes come between (none).
///
/// # Errors
/// Conflict after [`TRIES`] of them; else those of `attempt`, at once.
async fn until_written<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, ActError>
where
    F: Future<Output = Result<Option<T>, ActError>>,
{
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        if let Some(done) = attempt().await? {
            return Ok(done);
        }
        sleep(wait).await;
        wait *= 2;
    }
    attempt().await?.ok_or(ActError::Conflict { tries: TRIES })
}

pub(super) async fn limited<T>(call: Call, request: impl Future<Output = kube::Result<T>>) -> Result<T, ActError> {
    match timeout(CALL_LIMIT, request).await {
        Err(_) => Err(call.timeout(CALL_LIMIT)),
        Ok(answer) => answer.map_err(|error| call.failed(&error)),
    }
}

#[cfg(test)]
mod tests;
