//! The Flux or Argo CD object that would undo a rollback is suspended before it, and resumed later.
//!
//! Its previous state is stored on that object, in the write that changes it, under the resourceVersion that was read: a
//! crash between any two lines and a second call are harmless, and a change by a person is never overwritten.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::Value;

use super::{ActError, Call, Kubernetes, WorkloadRef, limited, unless_conflict, until_written};
use crate::{
    api::{ActionKind, ConfigRollback, REMEDIATION_MANAGER, Suspension},
    targets::kubernetes::gitops::{
        self, Owner, OwnerKind,
        object::{self, Item},
    },
};

/// Kind, namespace and name.
pub(super) type Place = (OwnerKind, String, String);

/// The outcome of a suspension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// For this Remediation, now or before.
    Ours { generation: Option<i64> },
    /// By another Remediation, or by a person (none).
    Already { by: Option<String> },
}

/// The state of a suspension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The source has the same revision, or why its revision is unknown.
    Waits(Option<String>),
    /// Resumed now, because of this newer revision; none: on request.
    Resumed(Option<String>),
    /// Not suspended any more; in words.
    Over(&'static str),
    /// Suspended, and not ours to resume; in words.
    Left(&'static str),
}

impl Kubernetes {
    #[must_use]
    pub fn with_argocd_namespace(mut self, namespace: &str) -> Self {
        self.argocd = namespace.into();
        self
    }

    /// Allows writes to objects that belong to the suspended object.
    #[must_use]
    pub fn beside(&self, suspended: &Suspension) -> Self {
        Self { suspended: place(suspended).ok().map(Arc::new), ..self.clone() }
    }

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

    /// None when the workload cannot be read.
    pub async fn uid_of(&self, workload: WorkloadRef<'_>) -> Option<String> {
        self.on(workload).read_any().await.ok()?.metadata.uid
    }

    /// The GitOps object that would undo this action, and the item that it applies. The owner of the workload comes first.
    pub async fn blocking_owner(
        &self,
        workload: WorkloadRef<'_>,
        action: ActionKind,
        config: Option<&ConfigRollback>,
    ) -> Result<Option<(Owner, Item)>, ActError> {
        let WorkloadRef { kind, namespace, name } = workload;
        let item =
            |group, kind: String, name: &str| Item { group, kind, namespace: namespace.into(), name: name.into() };
        if matches!(action, ActionKind::Rollback | ActionKind::RollbackState) {
            let live = self.on(workload).read_any().await?;
            if let Some(owner) = gitops::owner(&live.metadata) {
                return Ok(Some((owner, item(kind.group(), kind.to_string(), name))));
            }
        }
        for change in config.iter().flat_map(|config| &config.objects) {
            let live = self.config(namespace, change.kind, &change.name).await?;
            if let Some(owner) = live.and_then(|live| gitops::owner(&live.metadata)) {
                return Ok(Some((owner, item("", change.kind.to_string(), &change.name))));
            }
        }
        Ok(None)
    }

    /// The suspension of the owner. Writes nothing.
    ///
    /// # Errors
    /// GitOpsOwned when the owner cannot be suspended or would not stay suspended, Forbidden with the missing verb,
    /// OwnerBusy during a sync.
    pub async fn plan_suspension(&self, owner: &Owner, of: &Item) -> Result<Suspension, ActError> {
        let refused = |why: String| ActError::GitOpsOwned(format!("{why}, so it is not suspended; it"));
        let place = owner.place(&self.argocd);
        let place = place.ok_or_else(|| refused(format!("the name or namespace of {owner} is unknown")))?;
        let (kind, namespace, name) = &place;
        let Some(live) = self.owning(&place).await? else {
            let hint = if *kind == OwnerKind::Application { " (see --argocd-namespace)" } else { "" };
            return Err(refused(format!("{owner} was not found in namespace {namespace}{hint}")));
        };
        if !object::applies(*kind, &live, of) {
            return Err(refused(format!("{owner} does not report that it applies {of}")));
        }
        let off = object::is_off(*kind, &live);
        if let Some(parent) = object::parent(*kind, &live).filter(|_| !off) {
            return Err(refused(format!("{owner} would not stay suspended, because {parent} applies it too")));
        }
        if object::is_busy(&live) {
            return Err(ActError::OwnerBusy(format!("{owner} is syncing; waiting for the end of the sync")));
        }
        if !off {
            self.may(Call::patch(kind.plural()), namespace).await?;
        }
        let (revision, message) = match self.revision(*kind, &live, true).await {
            Ok(revision) => (Some(revision), String::new()),
            Err(why) => (None, why),
        };
        Ok(Suspension {
            api_version: kind.resource().api_version,
            kind: kind.to_string(),
            namespace: namespace.clone(),
            name: name.clone(),
            uid: live.metadata.uid.unwrap_or_default(),
            revision,
            message,
            ..Suspension::default()
        })
    }

    /// Suspends the owner for the Remediation `by`, unless it is suspended already.
    pub async fn suspend(&self, suspension: &Suspension, by: &str) -> Result<Held, ActError> {
        let place = place(suspension)?;
        until_written(Call::patch(place.0.plural()), || self.suspend_once(&place, suspension, by)).await
    }

    /// None on a conflict.
    async fn suspend_once(&self, place: &Place, suspension: &Suspension, by: &str) -> Result<Option<Held>, ActError> {
        let kind = place.0;
        let words = format!("{kind} {}/{}", place.1, place.2);
        let live = self.owning(place).await?.ok_or_else(|| ActError::NotFound(words.clone()))?;
        if object::is_off(kind, &live) {
            return Ok(Some(match object::by(&live) {
                Some(other) if other == by => Held::Ours { generation: live.metadata.generation },
                other => Held::Already { by: other.map(str::to_owned) },
            }));
        }
        if object::is_busy(&live) {
            return Err(ActError::OwnerBusy(format!("{words} is syncing")));
        }
        let patch = object::off(kind, &live, by, suspension.revision.as_deref());
        let written = self.write_owner(place, patch).await?;
        Ok(written.map(|written| Held::Ours { generation: written.metadata.generation }))
    }

    /// Resumes the owner that the Remediation `by` suspended, if its source has another revision or `at_once` is true.
    /// After an error the owner is still suspended.
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
                "the annotation panacea.dev/suspended-by was removed, so a person has to resume it",
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
                (Ok(_), None) => {
                    return Ok(Followed::Waits(Some("its revision at the suspension is unknown".to_owned())));
                }
                (Err(why), _) => return Ok(Followed::Waits(Some(why))),
            }
        };
        let Some(patch) = object::on(kind, &live) else {
            return Ok(Followed::Left(
                "its previous state is unknown: the annotation panacea.dev/suspended-previous is gone",
            ));
        };
        match self.write_owner(&place, patch).await? {
            Some(_) => Ok(Followed::Resumed(newer)),
            None => Err(ActError::Conflict { tries: 1 }),
        }
    }

    /// The revision of its source, or why the revision is unknown. `applied`: the applied revision, where the object has it.
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
            source.resource().zip(source.plural()).ok_or_else(|| format!("{words} is of an unknown kind"))?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &source.namespace, &resource);
        let found = limited(Call::get(plural), api.get(&source.name)).await.map_err(|why| why.to_string())?;
        let revision = found.data["status"]["artifact"]["revision"].as_str().map(str::to_owned);
        revision.ok_or_else(|| format!("{words} has no artifact"))
    }

    fn owners(&self, kind: OwnerKind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }

    /// None also when the kind is not installed.
    async fn owning(&self, (kind, namespace, name): &Place) -> Result<Option<DynamicObject>, ActError> {
        match limited(Call::get(kind.plural()), self.owners(*kind, namespace).get(name)).await {
            Err(ActError::NotFound(_)) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// None on a conflict.
    async fn write_owner(
        &self,
        (kind, namespace, name): &Place,
        patch: Value,
    ) -> Result<Option<DynamicObject>, ActError> {
        let (api, params) = (self.owners(*kind, namespace), PatchParams::apply(REMEDIATION_MANAGER));
        unless_conflict(limited(Call::patch(kind.plural()), api.patch(name, &params, &Patch::Merge(patch))).await)
    }
}

fn place(suspension: &Suspension) -> Result<Place, ActError> {
    let kind = suspension.kind.parse();
    let kind =
        kind.map_err(|_| ActError::Rejected(format!("{} is not a kind that can be suspended", suspension.kind)))?;
    Ok((kind, suspension.namespace.clone(), suspension.name.clone()))
}
