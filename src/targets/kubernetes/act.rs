//! The actions on workloads: rollback, restart, new pods one at a time. All read live objects, write under a
//! precondition, and detect that they were performed already: a crash between any two lines and a second call are harmless.

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

use std::{
    fmt::{self, Debug},
    ops::Deref,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{
    act_error::{ActError, Call},
    digest_key::DigestKey,
};
use crate::api::{REMEDIATION_MANAGER, RESTARTED_AT, TemplateRef, WorkloadKind};
pub use config::Named;
pub use job::{JobRun, JobState};
use live::{digest_of, restarted_at};
pub use recycle::{Evicted, PodsSeen};
pub use snapshots::SnapshotOf;
pub use state::WholeState;
pub use suspend::{Followed, Held};

/// Attempts when other writers come between our read and our write.
const TRIES: u32 = 5;
/// For one request.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// For a write with all its attempts.
const ACTION_LIMIT: Duration = Duration::from_secs(15);
/// The wait before the second attempt; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The default namespace of Argo CD.
pub const ARGOCD_NAMESPACE: &str = "argocd";

/// The actions on workloads. Cheap to clone.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    /// Limits the snapshots of good states that are taken at the same time.
    copying: Arc<Semaphore>,
    /// The namespace of Argo CD.
    argocd: Arc<str>,
    /// The GitOps object that is suspended for the current action.
    suspended: Option<Arc<suspend::Place>>,
    /// For digests of Secrets.
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

/// The actions on one workload.
#[derive(Clone, Copy)]
pub struct OnWorkload<'a> {
    kubernetes: &'a Kubernetes,
    workload: WorkloadRef<'a>,
}

impl Deref for OnWorkload<'_> {
    type Target = Kubernetes;

    fn deref(&self) -> &Kubernetes {
        self.kubernetes
    }
}

/// The outcome of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Written; `generation` is the workload's after the write.
    Done { generation: i64 },
    /// An earlier attempt wrote the same, most likely ours; nothing was written.
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

    pub fn on<'a>(&'a self, workload: WorkloadRef<'a>) -> OnWorkload<'a> {
        OnWorkload { kubernetes: self, workload }
    }

    fn namespaced<K: Namespaced>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

impl OnWorkload<'_> {
    /// Restores the template `to`, if the workload still runs `from`: as `kubectl rollout undo`, with the template alone
    /// (replicas, labels and annotations of the workload stay). Of a StatefulSet, pods of `from` that block the rollout
    /// are deleted afterwards (see `stuck`). Of a Rollout, a running update is aborted before, and the update that the
    /// rollback starts is promoted (see `rollout`).
    ///
    /// The write carries the resourceVersion that was read, so that a newer release is never overwritten.
    ///
    /// # Errors
    /// Nothing was written, except that the outcome is unknown after `Timeout` and `Unreachable`, and that the template
    /// was written after `Blocked`, or when a pod could not be deleted. At most 30 s.
    pub async fn rollback(&self, from: &TemplateRef, to: &TemplateRef) -> Result<Outcome, ActError> {
        let is_rollout = self.workload.kind == WorkloadKind::Rollout;
        if is_rollout {
            self.tries(|| self.abort_patch(from, to)).await?;
        }
        let outcome = self.tries(|| self.rollback_patch(from, to)).await?;
        if is_rollout {
            self.promote(&to.digest).await?;
        } else {
            self.make_way(from, &to.digest).await?;
        }
        Ok(outcome)
    }

    /// Whether [`Self::rollback`] has restored the template already, or, of a Rollout, was started. Writes nothing.
    pub async fn is_rolled_back(&self, from: &TemplateRef, to: &TemplateRef) -> Result<bool, ActError> {
        let back = self.rollback_patch(from, to).await?.is_none();
        Ok(back || (self.workload.kind == WorkloadKind::Rollout && self.has_aborted().await?))
    }

    /// None when the template is restored already.
    async fn rollback_patch(&self, from: &TemplateRef, to: &TemplateRef) -> Result<Option<Value>, ActError> {
        let workload = self.workload;
        let live = self.read().await?;
        self.not_owned(&live.metadata, None)?;
        live.has_template(workload)?;
        let history = self.history(&live).await?;
        let (kind, label) = history::names(workload.kind);
        let target = history.iter().find(|past| past.hash == to.hash);
        let target =
            target.ok_or_else(|| ActError::TargetGone(format!("no {kind} of {workload} has {label} {}", to.hash)))?;
        if digest_of(&target.template)? != to.digest {
            let message = format!("{kind} {} has another template than the one that was healthy", target.name);
            return Err(ActError::TargetGone(message));
        }
        let same = live.digest == to.digest;
        // Our own write, before the controller of the workload has observed the new template.
        let is_fresh = same && restarted_at(&live.template) == restarted_at(&target.template);
        if (same && target.newest) || is_fresh {
            return Ok(None);
        }
        live.must_be(from)?;
        Ok(Some(live.with_template(&target.template).into()))
    }

    /// Replaces all pods, as `kubectl rollout restart` or `kubectl argo rollouts restart`. `at` identifies this restart: a
    /// second call with the same value does nothing more. Of a StatefulSet, pods of `from` that block the rollout are
    /// deleted (see `stuck`); of a Rollout, pods that are not ready are evicted (see `rollout`).
    ///
    /// # Errors
    /// As [`Self::rollback`]. With `from`, Superseded when the workload runs another template.
    pub async fn restart(&self, from: Option<&TemplateRef>, at: Timestamp) -> Result<Outcome, ActError> {
        let outcome = self.tries(|| self.restart_patch(from, at)).await?;
        if let Some(from) = from {
            self.make_way(from, &from.digest).await?;
        }
        if self.workload.kind == WorkloadKind::Rollout {
            self.clear_broken(at).await?;
        }
        Ok(outcome)
    }

    /// Whether [`Self::restart`] has written already. Writes nothing.
    pub async fn is_restarted(&self, from: Option<&TemplateRef>, at: Timestamp) -> Result<bool, ActError> {
        Ok(self.restart_patch(from, at).await?.is_none())
    }

    /// None when the restart was written already.
    async fn restart_patch(&self, from: Option<&TemplateRef>, at: Timestamp) -> Result<Option<Value>, ActError> {
        if self.workload.kind == WorkloadKind::Rollout {
            return self.restart_at_patch(from, at).await;
        }
        let at = at.to_string();
        let live = self.read().await?;
        if restarted_at(&live.template) == Some(&at) {
            return Ok(None);
        }
        live.must_be(from)?;
        Ok(Some(live.merge(json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: at}}}}}))))
    }

    /// Writes the patch that `decide` returns; decides again after a conflict. None: the patch was written already.
    async fn tries<F>(&self, mut decide: impl FnMut() -> F) -> Result<Outcome, ActError>
    where
        F: Future<Output = Result<Option<Value>, ActError>>,
    {
        let attempt = || {
            let decided = decide();
            async move { self.write_once(decided.await?).await }
        };
        until_written(Call::patch(self.workload.kind.plural()), attempt).await
    }

    /// None on a conflict. `patch`: none when the patch was written already.
    async fn write_once(&self, patch: Option<Value>) -> Result<Option<Outcome>, ActError> {
        match patch {
            None => Ok(Some(Outcome::AlreadyDone)),
            Some(patch) => self.write(patch).await,
        }
    }
}

/// The result of `attempt`, which is repeated after each conflict (none), [`TRIES`] times, for [`ACTION_LIMIT`] at most.
async fn until_written<T, F>(call: Call, mut attempt: impl FnMut() -> F) -> Result<T, ActError>
where
    F: Future<Output = Result<Option<T>, ActError>>,
{
    let all = async {
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            if let Some(done) = attempt().await? {
                return Ok(done);
            }
            sleep(wait).await;
            wait *= 2;
        }
        attempt().await?.ok_or(ActError::Conflict { tries: TRIES })
    };
    timeout(ACTION_LIMIT, all).await.unwrap_or_else(|_| Err(call.timeout(ACTION_LIMIT)))
}

/// A kind of namespaced object with its own type.
trait Namespaced:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize
{
}

impl<K> Namespaced for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize
{
}

/// Creates the object. An object of the same name counts as created: its name is derived from its content.
async fn created<K: Namespaced>(call: Call, api: &Api<K>, object: &K, dry_run: bool) -> Result<(), ActError> {
    let params = PostParams { dry_run, field_manager: Some(REMEDIATION_MANAGER.to_owned()) };
    unless_conflict(limited(call, api.create(&params, object)).await).map(drop)
}

/// None on a conflict.
fn unless_conflict<T>(answer: Result<T, ActError>) -> Result<Option<T>, ActError> {
    match answer {
        Err(ActError::Conflict { .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

pub(super) async fn limited<T>(call: Call, request: impl Future<Output = kube::Result<T>>) -> Result<T, ActError> {
    let answer = timeout(CALL_LIMIT, request).await.map_err(|_| call.timeout(CALL_LIMIT))?;
    answer.map_err(|error| call.failed(&error))
}

#[cfg(test)]
mod tests;
