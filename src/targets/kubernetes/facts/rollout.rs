//! Rollouts of Argo Rollouts: the fields that health depends on, and the fields that their controller adds to templates.
//!
//! Unlike a Deployment's, a Rollout's template has no defaults of the API server, and its ReplicaSets' have: the two never
//! have the same digest. The controller names the ReplicaSet of the newest template in `status.currentPodHash`.

use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    controller, cut,
    release::{Newest, PROGRESS_DEADLINE_S, RevisionFacts, WorkloadFacts, count, revision},
    text,
};
use crate::targets::kubernetes::template::ROLLOUT_HASH;

/// Annotation on Rollouts' ReplicaSets: the number of the rollout.
pub const ROLLOUT_REVISION: &str = "rollout.argoproj.io/revision";
/// Annotation on a Rollout's ReplicaSet: the labels and annotations that its template has only in its role (canary, stable,
/// active, preview), as JSON.
const EPHEMERAL: &str = "rollout.argoproj.io/ephemeral-metadata";

/// Of argoproj.io/v1alpha1, with the fields that are read. The template is not parsed, so that one Rollout with an invalid
/// template cannot break the listing.
#[derive(CustomResource, Serialize, Deserialize, Debug, Clone, Default)]
#[kube(group = "argoproj.io", version = "v1alpha1", kind = "Rollout", namespaced, schema = "disabled")]
#[kube(status = "RolloutStatus")]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutSpec {
    pub replicas: Option<i32>,
    pub paused: bool,
    pub progress_deadline_seconds: Option<i32>,
    pub restart_at: Option<String>,
    pub workload_ref: Option<WorkloadSource>,
    pub template: Value,
}

/// The object with the template.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSource {
    pub kind: String,
    pub name: String,
}

#[derive(Serialize, Deserialize, Debug, Clone, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutStatus {
    pub abort: bool,
    /// A number, as text.
    pub observed_generation: String,
    pub current_pod_hash: String,
    #[serde(rename = "stableRS")]
    pub stable_rs: String,
    pub replicas: Option<i32>,
    pub updated_replicas: Option<i32>,
    pub available_replicas: Option<i32>,
    pub restarted_at: Option<String>,
    pub message: String,
    pub conditions: Vec<RolloutCondition>,
}

#[derive(Serialize, Deserialize, Debug, Clone, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutCondition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::targets::kubernetes) struct RolloutFacts {
    /// `spec.restartAt`, until the controller has replaced all pods that were started before.
    pub restart_at: Option<Timestamp>,
    /// The object with its template: `Deployment/web`.
    pub template_in: Option<Box<str>>,
    /// Why its update was aborted, or its spec is not valid.
    pub stopped: Option<Box<str>>,
}

impl WorkloadFacts {
    pub(in crate::targets::kubernetes) fn rollout(rollout: &Rollout) -> Self {
        let Rollout { metadata, spec, status } = rollout;
        let status = status.clone().unwrap_or_default();
        let condition = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
        let invalid = condition("InvalidSpec").filter(|condition| condition.status == "True");
        let generation = metadata.generation.unwrap_or_default();
        let (current, stable) = (&status.current_pod_hash, &status.stable_rs);
        let (updated, replicas) = (count(status.updated_replicas), count(status.replicas));
        let stopped = match (invalid, status.abort && current != stable) {
            (Some(invalid), _) => Some(format!("its spec is not valid: {}", invalid.message)),
            (None, true) if status.message.is_empty() => Some("its update was aborted".to_owned()),
            (None, true) => Some(status.message.clone()),
            (None, false) => None,
        };
        let facts = RolloutFacts {
            restart_at: spec
                .restart_at
                .as_ref()
                .filter(|at| status.restarted_at.as_ref() != Some(*at))
                .and_then(|at| at.parse().ok()),
            template_in: spec.workload_ref.as_ref().map(|source| format!("{}/{}", source.kind, source.name).into()),
            stopped: stopped.map(|why| cut(&why, 200).into()),
        };
        Self {
            // Versions before 1.0 write a hash.
            observed_generation: match status.observed_generation.parse() {
                Ok(observed) => observed,
                Err(_) if status.observed_generation.is_empty() => 0,
                Err(_) => generation,
            },
            desired: spec.replicas.map_or(1, count),
            // When the newest template is stable, all other pods only wait for the end of their scaleDownDelay.
            replicas: if current == stable { replicas.min(updated) } else { replicas },
            updated,
            available: count(status.available_replicas),
            paused: spec.paused,
            held: status.abort,
            progress_deadline_exceeded: condition("Progressing")
                .is_some_and(|condition| condition.status == "False" && condition.reason == "ProgressDeadlineExceeded"),
            progress_deadline_s: spec.progress_deadline_seconds.map_or(PROGRESS_DEADLINE_S, count),
            newest: if current.is_empty() {
                Newest::None
            } else {
                Newest::Hash { current: current.as_str().into(), stable: stable.as_str().into() }
            },
            rollout: Some(Box::new(facts)),
            ..Self::new(metadata, parsed(spec.template.clone()).as_ref())
        }
    }
}

impl RevisionFacts {
    /// None when no Rollout controls the ReplicaSet.
    pub(in crate::targets::kubernetes) fn of_rollout(set: &ReplicaSet) -> Option<Self> {
        let owner = controller(&set.metadata, "Rollout")?;
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        let template = template.and_then(|template| serde_json::to_value(template).ok()).unwrap_or_default();
        let template = parsed(without_injected(template, &set.metadata)).unwrap_or_default();
        Some(Self {
            revision: revision(&set.metadata, ROLLOUT_REVISION).unwrap_or_default(),
            hash: text(set.metadata.labels.as_ref().and_then(|labels| labels.get(ROLLOUT_HASH))),
            restarted_at: None,
            ..Self::new(&set.metadata, owner, &template)
        })
    }
}

/// None when the template is not valid.
fn parsed(mut template: Value) -> Option<PodTemplateSpec> {
    // The API server converts numbers to text in quantities, but not in custom resources.
    for list in ["containers", "initContainers"] {
        let containers = template.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            for kind in ["limits", "requests"] {
                let quantities = container.pointer_mut(&format!("/resources/{kind}")).and_then(Value::as_object_mut);
                for quantity in quantities.into_iter().flat_map(|all| all.values_mut()).filter(|one| one.is_number()) {
                    *quantity = quantity.to_string().into();
                }
            }
        }
    }
    serde_json::from_value(template).ok()
}

/// The template of a Rollout's ReplicaSet as in the Rollout: without the label of its hash, without the labels and
/// annotations of its role, and without the anti-affinity to pods of other revisions.
pub(in crate::targets::kubernetes) fn without_injected(mut template: Value, of: &ObjectMeta) -> Value {
    let ephemeral = of.annotations.as_ref().and_then(|annotations| annotations.get(EPHEMERAL));
    let ephemeral: Value = ephemeral.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    for field in ["labels", "annotations"] {
        let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) else { break };
        let Some(entries) = metadata.get_mut(field).and_then(Value::as_object_mut) else { continue };
        entries.remove(ROLLOUT_HASH);
        for key in ephemeral[field].as_object().into_iter().flat_map(|added| added.keys()) {
            entries.remove(key);
        }
        if entries.is_empty() {
            metadata.remove(field);
        }
    }
    without_anti_affinity(&mut template);
    template
}

/// `strategy.*.antiAffinity`: terms by the label of the hash.
fn without_anti_affinity(template: &mut Value) {
    fn tidy(parent: &mut Value, field: &str) {
        if let Some(fields) = parent.as_object_mut()
            && fields.get(field).is_some_and(|value| *value == json!({}) || *value == json!([]))
        {
            fields.remove(field);
        }
    }
    let names_hash = |term: &Value| {
        let term = term.get("podAffinityTerm").unwrap_or(term);
        let rules = term.pointer("/labelSelector/matchExpressions").and_then(Value::as_array);
        rules.into_iter().flatten().any(|rule| rule["key"] == ROLLOUT_HASH)
    };
    let Some(anti) = template.pointer_mut("/spec/affinity/podAntiAffinity").filter(|anti| anti.is_object()) else {
        return;
    };
    let mut found = false;
    for field in ["requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"] {
        if let Some(terms) = anti.get_mut(field).and_then(Value::as_array_mut) {
            let before = terms.len();
            terms.retain(|term| !names_hash(term));
            found |= terms.len() < before;
        }
        if found {
            tidy(anti, field);
        }
    }
    if found {
        tidy(&mut template["spec"]["affinity"], "podAntiAffinity");
        tidy(&mut template["spec"], "affinity");
    }
}
