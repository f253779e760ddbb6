//! What is done to a Rollout of Argo Rollouts, by the fields that its own command line writes.
//!
//! - **Rollback while an update is under way, back to the stable template:** `status.abort` first (`kubectl argo rollouts
//!   abort`), which takes the traffic away at once, whatever becomes of the second write; then the template (`… undo`),
//!   without which the Rollout would stay Degraded and go on to the bad one again at the first chance. Its controller then
//!   skips all steps by itself and takes the abort back.
//!   <https://argo-rollouts.readthedocs.io/en/stable/features/rollback/>
//! - **Rollback to another template,** as after an update that was complete: its controller would take it through all
//!   canary steps and pauses, or wait for a person to promote it, while the bad one serves. So once it has seen the
//!   template, `status.promoteFull` (`… promote --full`): it was seen healthy before.
//! - **Restart:** `spec.restartAt` (`… restart`). Templates stay as they are, so no step is gone through. Its controller
//!   replaces no pod while as many as `maxUnavailable` are missing, not even the broken ones themselves: those are evicted,
//!   and it does the others.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    ActError, Kubernetes, WorkloadRef,
    live::{Live, digest_of},
    recycle::Evicted,
    stuck::{LOOK_AGAIN, WAY_LIMIT, is_ready},
};
use crate::{
    api::{REMEDIATION_MANAGER, TemplateRef},
    targets::kubernetes::template::ROLLOUT_HASH,
};

/// What only a Rollout has.
pub(super) struct RolloutState {
    /// What the pods of the newest template are labelled with, as far as its controller has seen it.
    pub current: String,
    stable: String,
    aborted: bool,
    promoted: bool,
    restart_at: Option<Timestamp>,
    /// The object that its template comes from: `Deployment web`.
    source: Option<String>,
    /// As text, where its own selector is that of another object.
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
    /// # Errors
    /// TemplateElsewhere, when another object has the template.
    pub(super) fn has_template(&self, workload: WorkloadRef<'_>) -> Result<(), ActError> {
        match self.rollout.as_ref().and_then(|rollout| rollout.source.as_ref()) {
            None => Ok(()),
            Some(source) => Err(ActError::TemplateElsewhere(format!(
                "{workload} has its template from {source} (spec.workloadRef), which is not written; put the good template back there"
            ))),
        }
    }
}

impl Kubernetes {
    /// With the digest of its template: that of the ReplicaSet which its controller has made of it, filled in by the API
    /// server's defaults. Before its controller has seen it, that of the template as it stands, which is the same when we
    /// have put it back.
    pub(super) async fn with_digest(&self, workload: WorkloadRef<'_>, mut live: Live) -> Result<Live, ActError> {
        if !live.observed {
            // One that cannot be read is none that we have written.
            live.digest = digest_of(&live.template).unwrap_or_default();
            return Ok(live);
        }
        let newest = self.history(workload, &live).await?.into_iter().find(|past| past.newest);
        let newest = newest.ok_or_else(|| {
            ActError::Unmeasured(format!("the ReplicaSet of the newest template of {workload} is not there yet"))
        })?;
        live.digest = digest_of(&newest.template)?;
        Ok(live)
    }

    /// What is to be written before the template: the abort of an update; none when there is none, it was aborted already,
    /// or what goes back is not the stable template.
    pub(super) async fn abort_patch(
        &self,
        workload: WorkloadRef<'_>,
        from: &TemplateRef,
        to: &TemplateRef,
    ) -> Result<Option<Value>, ActError> {
        // What forbids the one forbids the other.
        if self.rollback_patch(workload, from, to).await?.is_none() {
            return Ok(None);
        }
        let live = self.read(workload).await?;
        live.must_be(from)?;
        let Some(rollout) = &live.rollout else { return Ok(None) };
        if rollout.aborted || !rollout.is_updating() || rollout.stable != to.hash {
            return Ok(None);
        }
        Ok(Some(json!({
            "metadata": {"resourceVersion": live.metadata.resource_version},
            "status": {"abort": true},
        })))
    }

    /// Whether an abort stands that we have written, by the API server's own record.
    pub(super) async fn has_aborted(&self, workload: WorkloadRef<'_>) -> Result<bool, ActError> {
        let live = self.read_any(workload).await?;
        let ours = live.metadata.managed_fields.iter().flatten().any(|entry| {
            let fields = entry.fields_v1.as_ref();
            entry.manager.as_deref() == Some(REMEDIATION_MANAGER)
                && fields.is_some_and(|fields| fields.0.pointer("/f:status/f:abort").is_some())
        });
        Ok(ours && live.rollout.is_some_and(|rollout| rollout.aborted))
    }

    /// Has the template with the digest `wanted`, which was written back, go past all steps and pauses.
    pub(super) async fn promote(&self, workload: WorkloadRef<'_>, wanted: &str) -> Result<(), ActError> {
        let all = async {
            loop {
                let live = self.read(workload).await?;
                let rollout = live.rollout.as_ref().filter(|_| live.observed);
                // Another template by now is somebody else's release.
                if let Some(rollout) = rollout {
                    if live.digest != wanted || !rollout.is_updating() || rollout.promoted {
                        return Ok(());
                    }
                    let patch = json!({
                        "metadata": {"resourceVersion": live.metadata.resource_version},
                        "status": {"promoteFull": true},
                    });
                    if self.write(workload, patch).await?.is_some() {
                        return Ok(());
                    }
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        let ended = timeout(WAY_LIMIT, all).await;
        ended.unwrap_or_else(|_| {
            Err(ActError::Blocked(format!("{workload} waits for its controller to see the template")))
        })
    }

    /// What is to be written for a restart; none when it was written already.
    pub(super) async fn restart_at_patch(
        &self,
        workload: WorkloadRef<'_>,
        from: Option<&TemplateRef>,
        at: Timestamp,
    ) -> Result<Option<Value>, ActError> {
        let at = next_second(at);
        let live = self.read(workload).await?;
        if live.rollout.as_ref().and_then(|rollout| rollout.restart_at) == Some(at) {
            return Ok(None);
        }
        if let Some(from) = from {
            live.must_be(from)?;
        }
        Ok(Some(json!({
            "metadata": {"resourceVersion": live.metadata.resource_version},
            "spec": {"restartAt": at.to_string()},
        })))
    }
}

impl Kubernetes {
    /// Evicts the pods that are not ready and are older than the restart.
    pub(super) async fn clear_broken(&self, workload: WorkloadRef<'_>, at: Timestamp) -> Result<(), ActError> {
        let at = next_second(at);
        // One that took its place before would be restarted as well.
        sleep(Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()).await;
        let live = self.read(workload).await?;
        if live.rollout.as_ref().and_then(|rollout| rollout.restart_at) != Some(at) {
            return Ok(());
        }
        let is_old = |pod: &Pod| pod.creation_timestamp().is_some_and(|made| made.0 < at);
        let going = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        let pods = self.pods_of(workload, &live).await?;
        for pod in pods.iter().filter(|pod| !is_ready(pod) && is_old(pod) && !going(pod)) {
            let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
            match self.evict(workload, &name, &uid, false).await {
                Ok(Evicted::Yes | Evicted::Gone) => {}
                Ok(Evicted::No(budget)) => return Err(ActError::Blocked(format!("pod {name} is broken: {budget}"))),
                Err(ActError::Forbidden { verb, resource, message }) => {
                    let message = format!(
                        "{message}; {workload} is to restart, and pod {name}, which is not ready, may keep it from that: delete that pod"
                    );
                    return Err(ActError::Forbidden { verb, resource, message });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The selector in a status, which may be that of the active ReplicaSet alone, for all of them.
fn of_all(selector: &str) -> String {
    let parts = selector.split(',').filter(|part| !part.starts_with(ROLLOUT_HASH));
    parts.collect::<Vec<_>>().join(",")
}

/// Its controller keeps whole seconds, as Kubernetes does of a pod's age: one that was made in this very second is to go too.
fn next_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second() + 1).unwrap_or(at)
}
