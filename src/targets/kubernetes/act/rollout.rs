//! The actions on a Rollout of Argo Rollouts, by the fields that its own command line writes.
//!
//! - **Rollback during an update, to the stable template:** `status.abort` first (`kubectl argo rollouts abort`), which
//!   takes the traffic away at once, whatever the outcome of the second write; then the template (`… undo`), without which
//!   the Rollout would stay Degraded and continue to the bad template at the first chance. Its controller then skips all
//!   steps and resets the abort. <https://argo-rollouts.readthedocs.io/en/stable/features/rollback/>
//! - **Rollback to another template,** as after a complete update: its controller would take it through all canary steps
//!   and pauses, or wait for a promotion by a person, while the bad template serves. So once the controller has observed
//!   the template, `status.promoteFull` (`… promote --full`): the template was healthy before.
//! - **Restart:** `spec.restartAt` (`… restart`). Templates do not change, so there are no steps. Its controller replaces
//!   no pod while as many as `maxUnavailable` are missing, not even the broken pods themselves: those are evicted, and the
//!   controller replaces the others.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    ActError, Call, OnWorkload, WorkloadRef,
    live::{Live, digest_of},
    recycle::Evicted,
    stuck::{RECHECK, WAY_LIMIT, is_ready},
};
use crate::{
    api::{REMEDIATION_MANAGER, TemplateRef},
    targets::kubernetes::template::ROLLOUT_HASH,
};

pub(super) struct RolloutState {
    /// The label of the pods of the newest template that its controller has observed.
    pub current: String,
    stable: String,
    aborted: bool,
    promoted: bool,
    restart_at: Option<Timestamp>,
    /// The object with its template: `Deployment web`.
    source: Option<String>,
    /// As text, where another object has the selector.
    pub selector: Option<String>,
}

impl RolloutState {
    pub(super) fn new(data: &Value) -> Self {
        let (spec, status) = (&data["spec"], &data["status"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let source = &spec["workloadRef"];
        Self {
            current: text(&status["currentPodHash"]),
            stable: text(&status["stableRS"]),
            aborted: status["abort"] == true,
            promoted: status["promoteFull"] == true,
            restart_at: spec["restartAt"].as_str().and_then(|at| at.parse().ok()),
            source: source.is_object().then(|| format!("{} {}", text(&source["kind"]), text(&source["name"]))),
            selector: status["selector"].as_str().filter(|_| !spec["selector"].is_object()).map(of_all),
        }
    }

    /// The newest template is not the stable one yet.
    fn is_updating(&self) -> bool {
        self.current != self.stable
    }
}

impl Live {
    /// TemplateElsewhere, when another object has the template.
    pub(super) fn has_template(&self, workload: WorkloadRef<'_>) -> Result<(), ActError> {
        let Some(source) = self.rollout.as_ref().and_then(|rollout| rollout.source.as_ref()) else { return Ok(()) };
        Err(ActError::TemplateElsewhere(format!(
            "{workload} has its template from {source} (spec.workloadRef), which is not written; restore the good template there"
        )))
    }
}

impl OnWorkload<'_> {
    /// With the digest of its template: that of the ReplicaSet which its controller created, with the API server's
    /// defaults. Before its controller has observed the template, that of the template itself, which is the same after a
    /// rollback of ours.
    pub(super) async fn with_digest(&self, mut live: Live) -> Result<Live, ActError> {
        let workload = self.workload;
        if !live.observed {
            // A template that cannot be parsed was not written by us.
            live.digest = digest_of(&live.template).unwrap_or_default();
            return Ok(live);
        }
        let newest = self.history(&live).await?.into_iter().find(|past| past.newest);
        let newest = newest.ok_or_else(|| {
            ActError::Unmeasured(format!("the ReplicaSet of the newest template of {workload} does not exist yet"))
        })?;
        live.digest = digest_of(&newest.template)?;
        Ok(live)
    }

    /// The abort of a running update, to write before the template; none without a running update, after an abort, or when
    /// `to` is not the stable template.
    pub(super) async fn abort_patch(&self, from: &TemplateRef, to: &TemplateRef) -> Result<Option<Value>, ActError> {
        // Whatever forbids the rollback forbids the abort.
        if self.rollback_patch(from, to).await?.is_none() {
            return Ok(None);
        }
        let live = self.read().await?;
        live.must_be(from)?;
        let Some(rollout) = &live.rollout else { return Ok(None) };
        if rollout.aborted || !rollout.is_updating() || rollout.stable != to.hash {
            return Ok(None);
        }
        Ok(Some(live.merge(json!({"status": {"abort": true}}))))
    }

    /// Whether the Rollout is aborted by us, according to the API server's managed fields.
    pub(super) async fn has_aborted(&self) -> Result<bool, ActError> {
        let live = self.read_any().await?;
        let ours = live.metadata.managed_fields.iter().flatten().any(|entry| {
            let fields = entry.fields_v1.as_ref();
            entry.manager.as_deref() == Some(REMEDIATION_MANAGER)
                && fields.is_some_and(|fields| fields.0.pointer("/f:status/f:abort").is_some())
        });
        Ok(ours && live.rollout.is_some_and(|rollout| rollout.aborted))
    }

    /// Skips all steps and pauses of the template with the digest `wanted`, which was restored.
    pub(super) async fn promote(&self, wanted: &str) -> Result<(), ActError> {
        let workload = self.workload;
        let all = async {
            loop {
                let live = self.read().await?;
                let rollout = live.rollout.as_ref().filter(|_| live.observed);
                // Another template is a newer release.
                if let Some(rollout) = rollout {
                    if live.digest != wanted || !rollout.is_updating() || rollout.promoted {
                        return Ok(());
                    }
                    let patch = live.merge(json!({"status": {"promoteFull": true}}));
                    if self.write(patch).await?.is_some() {
                        return Ok(());
                    }
                }
                sleep(RECHECK).await;
            }
        };
        let ended = timeout(WAY_LIMIT, all).await;
        let blocked = || ActError::Blocked(format!("{workload} waits for its controller to observe the template"));
        ended.unwrap_or_else(|_| Err(blocked()))
    }

    /// None when the restart was written already.
    pub(super) async fn restart_at_patch(
        &self,
        from: Option<&TemplateRef>,
        at: Timestamp,
    ) -> Result<Option<Value>, ActError> {
        let at = next_second(at);
        let live = self.read().await?;
        if live.rollout.as_ref().and_then(|rollout| rollout.restart_at) == Some(at) {
            return Ok(None);
        }
        live.must_be(from)?;
        Ok(Some(live.merge(json!({"spec": {"restartAt": at.to_string()}}))))
    }

    /// Evicts the pods that are not ready and are older than the restart.
    pub(super) async fn clear_broken(&self, at: Timestamp) -> Result<(), ActError> {
        let workload = self.workload;
        let at = next_second(at);
        // A replacement that starts before `at` would be restarted as well.
        sleep(Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()).await;
        let live = self.read().await?;
        if live.rollout.as_ref().and_then(|rollout| rollout.restart_at) != Some(at) {
            return Ok(());
        }
        let is_old = |pod: &Pod| pod.creation_timestamp().is_some_and(|made| made.0 < at);
        let going = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        let pods = self.pods_of(&live).await?;
        for pod in pods.iter().filter(|pod| !is_ready(pod) && is_old(pod) && !going(pod)) {
            let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
            match self.evict(&name, &uid, false).await {
                Ok(Evicted::Yes | Evicted::Gone) => {}
                Ok(Evicted::No(budget)) => return Err(ActError::Blocked(format!("pod {name} is broken: {budget}"))),
                Err(ActError::Forbidden { message, .. }) => {
                    return Err(Call::EVICT_POD.forbidden(format!(
                        "{message}; pod {name}, which is not ready, may block the restart of {workload}: delete that pod"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The selector of a status, which may select the active ReplicaSet alone, for all ReplicaSets.
fn of_all(selector: &str) -> String {
    let parts = selector.split(',').filter(|part| !part.starts_with(ROLLOUT_HASH));
    parts.collect::<Vec<_>>().join(",")
}

/// Its controller and the age of a pod have whole seconds: a pod created in this very second must be replaced too.
fn next_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second() + 1).unwrap_or(at)
}
