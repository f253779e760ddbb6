//! The two things that are done to a Deployment. Both read live, write once under a precondition, and find out by
//! themselves that they were done already: a crash between any two lines and a second call are harmless.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::PodTemplateSpec,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::{Request, Selector},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    act_error::{ActError, Call, GET_DEPLOYMENT, LIST_SETS, PATCH_DEPLOYMENT},
    facts::REVISION,
    gitops,
    template::{TEMPLATE_HASH, digest},
};
use crate::api::{REMEDIATION_MANAGER, RESTARTED_AT, TemplateRef};

/// Tries when other writers come between our reading and our writing.
const TRIES: u32 = 5;
/// For one request.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// For a whole action with all its tries.
const ACTION_LIMIT: Duration = Duration::from_secs(15);
/// The wait before the second try; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// ReplicaSets read of one Deployment; `revisionHistoryLimit` keeps 10 by default.
const MAX_SETS: u32 = 500;

/// The actions on a Deployment. Cheap to clone.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
}

/// What came of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Written; `generation` is the Deployment's after it.
    Done { generation: i64 },
    /// It was so already, most likely by an earlier try of ours; nothing was written.
    AlreadyDone,
}

/// A Deployment as it is now. The template stays JSON as it came: what this version of ours does not know must be
/// written back too.
struct Live {
    metadata: ObjectMeta,
    paused: bool,
    template: Value,
    digest: String,
    selector: Value,
}

impl Kubernetes {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Puts the template `to` back, if `from` is still the one that runs: what `kubectl rollout undo` does, with the
    /// template alone (replicas, labels and annotations of the Deployment stay).
    ///
    /// The write carries the resourceVersion that was read, so that a release made meanwhile is never overwritten.
    ///
    /// # Errors
    /// See [`ActError`]; nothing was written, except that after `Timeout` and `Unreachable` it is not known. At most
    /// 15 s.
    pub async fn rollback(
        &self,
        namespace: &str,
        name: &str,
        from: &TemplateRef,
        to: &TemplateRef,
    ) -> Result<Outcome, ActError> {
        self.tries(|| async {
            match self.rollback_patch(namespace, name, from, to).await? {
                None => Ok(Some(Outcome::AlreadyDone)),
                Some(patch) => self.write(namespace, name, patch, "application/json-patch+json").await,
            }
        })
        .await
    }

    /// Whether [`Self::rollback`] was made already. Writes nothing.
    ///
    /// # Errors
    /// As for [`Self::rollback`].
    pub async fn is_rolled_back(
        &self,
        namespace: &str,
        name: &str,
        from: &TemplateRef,
        to: &TemplateRef,
    ) -> Result<bool, ActError> {
        Ok(self.rollback_patch(namespace, name, from, to).await?.is_none())
    }

    /// What is to be written; none when it was written already.
    async fn rollback_patch(
        &self,
        namespace: &str,
        name: &str,
        from: &TemplateRef,
        to: &TemplateRef,
    ) -> Result<Option<Value>, ActError> {
        let live = self.read(namespace, name).await?;
        if let Some(owner) = gitops::owner(&live.metadata) {
            return Err(ActError::GitOpsOwned(owner));
        }
        let sets = self.replica_sets(namespace, &live).await?;
        let target = sets.iter().find(|set| hash(set) == to.hash).ok_or_else(|| {
            ActError::TargetGone(format!("no ReplicaSet of {} has pod-template-hash {}", live.describe(), to.hash))
        })?;
        let template = without_hash(target.data["spec"]["template"].clone());
        if digest_of(&template)? != to.digest {
            return Err(ActError::TargetGone(format!(
                "ReplicaSet {} holds another template than the one that was seen healthy",
                target.name_any()
            )));
        }
        let newest = sets.iter().find(|set| revision(&set.metadata) == revision(&live.metadata));
        let is_newest = live.digest == to.digest && newest.is_some_and(|set| hash(set) == to.hash);
        // The second is our own write before the deployment controller has seen it.
        if is_newest || live.template == template {
            return Ok(None);
        }
        live.must_be(from)?;
        Ok(Some(json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": live.metadata.resource_version},
            {"op": "replace", "path": "/spec/template", "value": template},
        ])))
    }

    /// Rolls all pods anew, as `kubectl rollout restart` does. `at` names this restart: a second call with the same
    /// value does nothing.
    ///
    /// # Errors
    /// As for [`Self::rollback`]. With `from`, Superseded when another template runs by now.
    pub async fn restart(
        &self,
        namespace: &str,
        name: &str,
        from: Option<&TemplateRef>,
        at: Timestamp,
    ) -> Result<Outcome, ActError> {
        self.tries(|| async {
            match self.restart_patch(namespace, name, from, at).await? {
                None => Ok(Some(Outcome::AlreadyDone)),
                Some(patch) => self.write(namespace, name, patch, "application/merge-patch+json").await,
            }
        })
        .await
    }

    /// Whether [`Self::restart`] was made already. Writes nothing.
    ///
    /// # Errors
    /// As for [`Self::restart`].
    pub async fn is_restarted(
        &self,
        namespace: &str,
        name: &str,
        from: Option<&TemplateRef>,
        at: Timestamp,
    ) -> Result<bool, ActError> {
        Ok(self.restart_patch(namespace, name, from, at).await?.is_none())
    }

    /// What is to be written; none when it was written already.
    async fn restart_patch(
        &self,
        namespace: &str,
        name: &str,
        from: Option<&TemplateRef>,
        at: Timestamp,
    ) -> Result<Option<Value>, ActError> {
        let at = at.to_string();
        let live = self.read(namespace, name).await?;
        if live.template["metadata"]["annotations"][RESTARTED_AT] == at {
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

    /// Reads and decides again for as long as others come between: `None` is such a conflict.
    async fn tries<F>(&self, mut attempt: impl FnMut() -> F) -> Result<Outcome, ActError>
    where
        F: Future<Output = Result<Option<Outcome>, ActError>>,
    {
        let all = async {
            let mut wait = FIRST_WAIT;
            for _ in 1..TRIES {
                if let Some(outcome) = attempt().await? {
                    return Ok(outcome);
                }
                sleep(wait).await;
                wait *= 2;
            }
            attempt().await?.ok_or(ActError::Conflict { tries: TRIES })
        };
        timeout(ACTION_LIMIT, all).await.unwrap_or_else(|_| Err(PATCH_DEPLOYMENT.timeout(ACTION_LIMIT)))
    }

    async fn read(&self, namespace: &str, name: &str) -> Result<Live, ActError> {
        let api = self.api(namespace, "Deployment", "deployments");
        let found = limited(GET_DEPLOYMENT, api.get(name)).await.map_err(|error| match error {
            ActError::NotFound(_) => ActError::NotFound(format!("Deployment {namespace}/{name}")),
            other => other,
        })?;
        let live = Live {
            paused: found.data["spec"]["paused"] == true,
            digest: digest_of(&found.data["spec"]["template"])?,
            template: found.data["spec"]["template"].clone(),
            selector: found.data["spec"]["selector"].clone(),
            metadata: found.metadata,
        };
        if live.metadata.deletion_timestamp.is_some() {
            return Err(ActError::NotFound(format!("{} is being deleted and", live.describe())));
        }
        if live.paused {
            return Err(ActError::Paused(live.describe()));
        }
        Ok(live)
    }

    /// Those that this very Deployment controls: one of the same name made earlier has another uid.
    async fn replica_sets(&self, namespace: &str, live: &Live) -> Result<Vec<DynamicObject>, ActError> {
        let selector: LabelSelector = serde_json::from_value(live.selector.clone()).unwrap_or_default();
        let selector = Selector::try_from(selector)
            .map_err(|why| ActError::Rejected(format!("the selector of {} is not valid: {why}", live.describe())))?;
        let params = ListParams::default().labels_from(&selector).limit(MAX_SETS);
        let sets = limited(LIST_SETS, self.api(namespace, "ReplicaSet", "replicasets").list(&params)).await?;
        let ours = |set: &DynamicObject| {
            set.metadata
                .owner_references
                .iter()
                .flatten()
                .any(|owner| owner.controller == Some(true) && Some(&owner.uid) == live.metadata.uid.as_ref())
        };
        Ok(sets.items.into_iter().filter(ours).collect())
    }

    /// None on a conflict. Both kinds of patch carry the resourceVersion, which the API server compares (409).
    async fn write(
        &self,
        namespace: &str,
        name: &str,
        patch: Value,
        content_type: &'static str,
    ) -> Result<Option<Outcome>, ActError> {
        let params = PatchParams { field_manager: Some(REMEDIATION_MANAGER.to_owned()), ..PatchParams::default() };
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
        let broken = |why: String| ActError::Rejected(format!("the request could not be built: {why}"));
        // kube offers JSON Patch only with a further dependency; a merge patch differs by its content type alone.
        let mut request =
            Request::new(path).patch(name, &params, &Patch::Merge(patch)).map_err(|why| broken(why.to_string()))?;
        let value = content_type.parse().map_err(|_| broken(format!("content type {content_type}")))?;
        request.headers_mut().insert("content-type", value);
        match timeout(CALL_LIMIT, self.client.request::<DynamicObject>(request)).await {
            Err(_) => Err(PATCH_DEPLOYMENT.timeout(CALL_LIMIT)),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(None),
            Ok(Err(error)) => Err(PATCH_DEPLOYMENT.failed(&error)),
            Ok(Ok(written)) => Ok(Some(Outcome::Done { generation: written.metadata.generation.unwrap_or_default() })),
        }
    }

    fn api(&self, namespace: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: "apps".into(),
            version: "v1".into(),
            api_version: "apps/v1".into(),
            kind: kind.into(),
            plural: plural.into(),
        };
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }
}

impl Live {
    fn describe(&self) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        format!("Deployment {}/{}", text(&self.metadata.namespace), text(&self.metadata.name))
    }

    /// The digest decides: a hash changes with `kubectl rollout restart`, which leaves the same template as bad as it
    /// was.
    fn must_be(&self, from: &TemplateRef) -> Result<(), ActError> {
        if self.digest == from.digest {
            return Ok(());
        }
        let revision = revision(&self.metadata).map_or_else(|| "unknown".into(), |revision| revision.to_string());
        Err(ActError::Superseded {
            expected: format!("revision {} ({})", from.revision, from.digest),
            found: format!("revision {revision} ({})", self.digest),
        })
    }
}

async fn limited<T>(call: Call, request: impl Future<Output = kube::Result<T>>) -> Result<T, ActError> {
    match timeout(CALL_LIMIT, request).await {
        Err(_) => Err(call.timeout(CALL_LIMIT)),
        Ok(answer) => answer.map_err(|error| call.failed(&error)),
    }
}

fn digest_of(template: &Value) -> Result<String, ActError> {
    let typed: PodTemplateSpec = serde_json::from_value(template.clone())
        .map_err(|why| ActError::Unreachable(format!("the API server's answer holds no pod template: {why}")))?;
    Ok(digest(&typed).to_string())
}

fn without_hash(mut template: Value) -> Value {
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    template
}

fn hash(set: &DynamicObject) -> &str {
    set.metadata.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH)).map_or("", String::as_str)
}

fn revision(metadata: &ObjectMeta) -> Option<i64> {
    metadata.annotations.as_ref()?.get(REVISION)?.parse().ok()
}

#[cfg(test)]
mod tests;
