//! The Flux or Argo CD object that would undo a rollback is suspended before it, and resumed later.
//!
//! What it was is kept on that object, in the write that changes it, under the resourceVersion that was read: a crash
//! between any two lines and a second call are harmless, and what a person changes meanwhile is never overwritten.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::Value;

use super::{ActError, Call, Kubernetes, WorkloadRef, limited, until_written};
use crate::{
    api::{ActionKind, ConfigRollback, REMEDIATION_MANAGER, Suspension},
    targets::kubernetes::gitops::{
        self, Owner, OwnerKind,
        object::{self, Item},
    },
};

/// Kind, namespace and name.
pub(super) type Place = (OwnerKind, String, String);

/// What came of suspending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// For this Remediation, now or before.
    Ours { generation: Option<i64> },
    /// By somebody else; the Remediation, when it was one.
    Already { by: Option<String> },
}

/// What became of what was suspended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// Its source is where it was, or, in words, cannot be told.
    Waits(Option<String>),
    /// Resumed now, because of this newer revision; none: since it was asked for.
    Resumed(Option<String>),
    /// Nothing is suspended any more; in words.
    Over(&'static str),
    /// It is suspended, and not ours to resume; in words.
    Left(&'static str),
}

impl Kubernetes {
    /// `namespace` is where Argo CD runs.
    #[must_use]
    pub fn with_argocd_namespace(mut self, namespace: &str) -> Self {
        self.argocd = namespace.into();
        self
    }

    /// The same, for objects that belong to what is suspended: they may be written.
    #[must_use]
    pub fn beside(&self, suspended: &Suspension) -> Self {
        Self { suspended: place(suspended).ok().map(Arc::new), ..self.clone() }
    }

    /// # Errors
    /// GitOpsOwned, when a GitOps controller that is not suspended would undo a write.
    pub(super) fn not_owned(&self, metadata: &ObjectMeta, what: Option<&str>) -> Result<(), ActError> {
        let Some(owner) = gitops::owner(metadata) else { return Ok(()) };
        if self.suspended.is_some() && owner.place(&self.argocd).as_ref() == self.suspended.as_deref() {
            return Ok(());
        }
        Err(ActError::GitOpsOwned(match what {
            Some(what) => format!("{what} belongs to {owner}, which"),
            None => owner.to_string(),
        }))
    }

    /// None: it cannot be read.
    pub async fn uid_of(&self, workload: WorkloadRef<'_>) -> Option<String> {
        self.read_any(workload).await.ok()?.metadata.uid
    }

    /// Who would undo this action. Of several, the one that owns the workload.
    ///
    /// # Errors
    /// See [`ActError`].
    pub async fn owner_in_the_way(
        &self,
        workload: WorkloadRef<'_>,
        action: ActionKind,
        config: Option<&ConfigRollback>,
    ) -> Result<Option<(Owner, Item)>, ActError> {
        let item = |group: &'static str, kind: String, name: &str| Item {
            group,
            kind,
            namespace: workload.namespace.to_owned(),
            name: name.to_owned(),
        };
        if matches!(action, ActionKind::Rollback | ActionKind::RollbackState) {
            let live = self.read_any(workload).await?;
            if let Some(owner) = gitops::owner(&live.metadata) {
                return Ok(Some((owner, item(workload.kind.group(), workload.kind.to_string(), workload.name))));
            }
        }
        for change in config.iter().flat_map(|config| &config.objects) {
            let live = self.config(workload.namespace, change.kind, &change.name).await?;
            if let Some(owner) = live.and_then(|live| gitops::owner(&live.metadata)) {
                return Ok(Some((owner, item("", change.kind.to_string(), &change.name))));
            }
        }
        Ok(None)
    }

    /// What is to be suspended, if it can be and would stay so. Writes nothing.
    ///
    /// # Errors
    /// GitOpsOwned when it cannot be, Forbidden with the missing verb, OwnerBusy when it applies something right now.
    pub async fn plan_suspension(&self, owner: &Owner, of: &Item) -> Result<Suspension, ActError> {
        let Some(place) = owner.place(&self.argocd) else {
            let words = format!("it cannot be told which object that is, so it is not suspended; {owner}");
            return Err(ActError::GitOpsOwned(words));
        };
        let (kind, namespace, name) = &place;
        let Some(live) = self.owning(&place).await? else {
            let hint = if *kind == OwnerKind::Application { " (see --argocd-namespace)" } else { "" };
            let words = format!("{owner} was not found in namespace {namespace}{hint}, so it is not suspended; it");
            return Err(ActError::GitOpsOwned(words));
        };
        if !object::applies(*kind, &live, of) {
            let words = format!("{owner} does not say itself that it applies {of}, so it is not suspended; it");
            return Err(ActError::GitOpsOwned(words));
        }
        let off = object::is_off(*kind, &live);
        if let Some(parent) = object::parent(*kind, &live).filter(|_| !off) {
            let words = format!("{owner} would not stay suspended: {parent} applies it too; it");
            return Err(ActError::GitOpsOwned(words));
        }
        if object::is_busy(&live) {
            return Err(ActError::OwnerBusy(format!("{owner} is being synced right now; waiting for it to end")));
        }
        if !off {
            self.may(Call::patch_owner(*kind), namespace).await?;
        }
        let (revision, message) = match self.revision(*kind, &live, true).await {
            Ok(revision) => (Some(revision), String::new()),
            Err(why) => (None, why),
        };
        Ok(Suspension {
            api_version: kind.api_version(),
            kind: kind.to_string(),
            namespace: namespace.clone(),
            name: name.clone(),
            uid: live.metadata.uid.unwrap_or_default(),
            revision,
            message,
            ..Suspension::default()
        })
    }

    /// Suspends it for the Remediation `by`; what is suspended already is left as it is.
    ///
    /// # Errors
    /// See [`ActError`].
    pub async fn suspend(&self, suspension: &Suspension, by: &str) -> Result<Held, ActError> {
        let place = place(suspension)?;
        until_written(|| self.suspend_once(&place, suspension, by)).await
    }

    /// None on a conflict.
    async fn suspend_once(&self, place: &Place, suspension: &Suspension, by: &str) -> Result<Option<Held>, ActError> {
        let kind = place.0;
        let live = self.owning(place).await?.ok_or_else(|| gone(place))?;
        if object::is_off(kind, &live) {
            return Ok(Some(match object::by(&live) {
                Some(other) if other == by => Held::Ours { generation: live.metadata.generation },
                other => Held::Already { by: other.map(str::to_owned) },
            }));
        }
        if object::is_busy(&live) {
            return Err(ActError::OwnerBusy(format!("{kind} {}/{} is being synced right now", place.1, place.2)));
        }
        let patch = object::off(kind, &live, by, suspension.revision.as_deref());
        let written = self.write_owner(place, patch).await?;
        Ok(written.map(|written| Held::Ours { generation: written.metadata.generation }))
    }

    /// Resumes what the Remediation `by` has suspended, if its source has another revision by now or `at_once`.
    ///
    /// # Errors
    /// See [`ActError`]; it is as suspended as before.
    pub async fn follow(&self, suspension: &Suspension, by: &str, at_once: bool) -> Result<Followed, ActError> {
        let place = place(suspension)?;
        let kind = place.0;
        let Some(live) = self.owning(&place).await? else {
            return Ok(Followed::Over("it does not exist any more"));
        };
        let ours = object::by(&live) == Some(by);
        if !object::is_off(kind, &live) {
            if ours {
                self.write_owner(&place, object::unmark(&live)).await?;
            }
            return Ok(Followed::Over("it is not suspended any more"));
        }
        if !ours {
            return Ok(Followed::Left(
                "the annotation panacea.dev/suspended-by was taken away, so it is left to people",
            ));
        }
        let newer = if at_once {
            None
        } else if object::is_changed(kind, &live, suspension.generation) {
            Some("changed values".to_owned())
        } else {
            match (self.revision(kind, &live, false).await, &suspension.revision) {
                (Ok(now), Some(then)) if now != *then => Some(now),
                (Ok(_), Some(_)) => return Ok(Followed::Waits(None)),
                (Ok(_), None) => return Ok(Followed::Waits(Some("it was not known when it was suspended".to_owned()))),
                (Err(why), _) => return Ok(Followed::Waits(Some(why))),
            }
        };
        let Some(patch) = object::on(kind, &live) else {
            return Ok(Followed::Left(
                "what to put back is not known: the annotation panacea.dev/suspended-previous is gone",
            ));
        };
        match self.write_owner(&place, patch).await? {
            Some(_) => Ok(Followed::Resumed(newer)),
            None => Err(ActError::Conflict { tries: 1 }),
        }
    }

    /// The revision of what it applies, or why it cannot be told. `applied`: the one that it has applied, when it says so.
    async fn revision(&self, kind: OwnerKind, live: &DynamicObject, applied: bool) -> Result<String, String> {
        if kind == OwnerKind::Application {
            return object::compared(live).ok_or_else(|| "status.sync names no revision".to_owned());
        }
        if let Some(revision) = object::attempted(kind, live).filter(|_| applied) {
            return Ok(revision.to_owned());
        }
        let source = object::source(kind, live).ok_or("it names no source")?;
        let words = format!("{} {}/{}", source.kind, source.namespace, source.name);
        let (resource, plural) =
            source.resource().zip(source.plural()).ok_or_else(|| format!("{words} is not known"))?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &source.namespace, &resource);
        let found = limited(Call::get_source(plural), api.get(&source.name)).await.map_err(|why| why.to_string())?;
        let revision = found.data["status"]["artifact"]["revision"].as_str().map(str::to_owned);
        revision.ok_or_else(|| format!("{words} has no artifact"))
    }

    async fn owning(&self, (kind, namespace, name): &Place) -> Result<Option<DynamicObject>, ActError> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind.resource());
        match limited(Call::get_owner(*kind), api.get(name)).await {
            Ok(found) => Ok(Some(found)),
            // Or its kind is not installed.
            Err(ActError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// None on a conflict.
    async fn write_owner(
        &self,
        (kind, namespace, name): &Place,
        patch: Value,
    ) -> Result<Option<DynamicObject>, ActError> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind.resource());
        let params = PatchParams { field_manager: Some(REMEDIATION_MANAGER.to_owned()), ..PatchParams::default() };
        match limited(Call::patch_owner(*kind), api.patch(name, &params, &Patch::Merge(patch))).await {
            Ok(written) => Ok(Some(written)),
            Err(ActError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn place(suspension: &Suspension) -> Result<Place, ActError> {
    let kind = suspension.kind.parse();
    let kind = kind.map_err(|_| ActError::Rejected(format!("{} is no kind that can be suspended", suspension.kind)))?;
    Ok((kind, suspension.namespace.clone(), suspension.name.clone()))
}

fn gone((kind, namespace, name): &Place) -> ActError {
    ActError::NotFound(format!("{kind} {namespace}/{name}"))
}
