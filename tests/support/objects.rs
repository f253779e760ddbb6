//! Kubernetes objects as tests write and read them.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Event, Pod, Secret},
};
use kube::{
    Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use panacea::{
    api::{ActionKind, ComponentStatus, HealingPolicy, HealthStatus, Phase, RefusalStatus, Remediation},
    plan::guard::Guard,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{cluster::Test, operator::Operator, wait};

/// A Deployment that simulated nodes run; pods misbehave by the suffix of the image tag.
pub fn deployment(name: &str, image: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": image}]},
            },
        },
    })
}

/// A policy over Deployments of the same names as the components, quick enough for a test; `patch` is merged over it.
pub fn policy(name: &str, components: &[&str], patch: &Value) -> Value {
    let components: Vec<Value> =
        components.iter().map(|name| json!({"name": name, "target": {"deployment": {"name": name}}})).collect();
    let mut policy = json!({
        "apiVersion": "panacea.dev/v1alpha1", "kind": "HealingPolicy", "metadata": {"name": name},
        "spec": {
            "interval": "5s",
            "components": components,
            "safety": {"cooldown": "1s", "budget": {"actions": 100}},
            "verification": {"stabilization": "3s", "timeout": "60s"},
        },
    });
    merge(&mut policy, patch);
    policy
}

/// A policy over these components of any kind, quick to act, whatever the others do.
pub fn over(components: &[Value]) -> Value {
    let mut wanted = policy("shop", &[], &json!({"spec": {"interval": "2s", "detection": {"confirmAfter": "1s"}}}));
    wanted["spec"]["components"] = json!(components);
    wanted["spec"]["safety"] = json!({
        "maxUnhealthy": "100%", "maxConcurrent": 50, "budget": {"actions": 100}, "cooldown": "1s",
    });
    wanted
}

/// The same of many at once that share a provider's limits: looks are far apart, and each gets one action.
pub fn over_many(components: &[Value]) -> Value {
    let mut wanted = over(components);
    wanted["spec"]["interval"] = json!("20s");
    wanted["spec"]["releaseWatch"] = json!({"every": "10s"});
    wanted["spec"]["safety"]["cooldown"] = json!("1h");
    wanted["spec"]["verification"] = json!({"stabilization": "1s", "timeout": "120s"});
    wanted
}

/// JSON merge patch (RFC 7396).
pub fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(key);
                } else {
                    merge(target.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

impl Test {
    pub async fn deploy(&self, name: &str, image: &str, replicas: u32) {
        let object = serde_json::from_value(deployment(name, image, replicas)).unwrap();
        self.api::<Deployment>().create(&PostParams::default(), &object).await.unwrap();
    }

    pub async fn apply_policy(&self, policy: &Value) -> HealingPolicy {
        let policy: HealingPolicy = serde_json::from_value(policy.clone()).unwrap();
        self.api().create(&PostParams::default(), &policy).await.unwrap()
    }

    pub async fn make_secret(&self, name: &str, keys: Value) {
        let secret: Secret = serde_json::from_value(json!({"metadata": {"name": name}, "stringData": keys})).unwrap();
        self.api().create(&PostParams::default(), &secret).await.unwrap();
    }

    /// Deletes this object; what it was, ready to be made again.
    pub async fn take_away<K>(&self, name: &str) -> K
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let api = self.api::<K>();
        let mut object = api.get(name).await.unwrap();
        api.delete(name, &DeleteParams::default()).await.unwrap();
        let metadata = object.meta_mut();
        (metadata.uid, metadata.resource_version, metadata.managed_fields) = (None, None, None);
        object
    }

    /// A person's yes to this Remediation.
    pub async fn approve(&self, name: &str) {
        let patch = Patch::Merge(json!({"spec": {"approval": {"decision": "Approved"}}}));
        self.api::<Remediation>().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// None of these texts stands in anything that the operator says: log, metrics, events, rows, the statuses of the policy
    /// `shop` and of its Remediations.
    pub async fn assert_stand_nowhere(&self, operator: &Operator, secrets: &[&str]) {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap();
        let rows = wait::until("rows of checks", Duration::from_secs(20), async || {
            let rows = operator
                .text("SELECT coalesce((SELECT string_agg(u::text, ' ') FROM unified_brain u), '') || coalesce((SELECT string_agg(h::text, ' ') FROM ai_proactive_health h), '')")
                .await;
            if rows.contains("proactive_health_check") { Ok(rows) } else { Err("none".to_owned()) }
        })
        .await;
        for (place, text) in [
            ("log", operator.log()),
            ("metrics", operator.metrics().await),
            ("events", format!("{events:?}")),
            ("statuses", format!("{:?} {:?}", self.policy_status("shop").await, self.remediations().await)),
            ("rows", rows),
        ] {
            for secret in secrets {
                assert!(!text.contains(secret), "{secret} stands in the {place}");
            }
        }
    }

    /// Texts of the events with this reason about this object; most tests ask for one of their policy.
    pub async fn events(&self, reason: &str, about: &str) -> Vec<String> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let wanted = |event: &Event| {
            event.reason.as_deref() == Some(reason) && event.involved_object.name.as_deref() == Some(about)
        };
        events.into_iter().filter(wanted).filter_map(|event| event.message).collect()
    }

    /// Waits for an event with this reason and this text about this object.
    pub async fn wait_event(&self, reason: &str, about: &str, text: &str) {
        let what = format!("an event {reason} about {about} with {text:?}");
        wait::until(&what, Duration::from_secs(30), async || {
            let events = self.events(reason, about).await;
            if events.iter().any(|message| message.contains(text)) { Ok(()) } else { Err(format!("{events:?}")) }
        })
        .await;
    }

    /// Makes the policy be this one, whatever was there.
    pub async fn replace_policy(&self, policy: &Value) {
        let name = policy["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("test").force();
        self.api::<HealingPolicy>().patch(name, &params, &Patch::Apply(policy)).await.unwrap();
    }

    pub async fn patch_policy(&self, name: &str, patch: Value) {
        self.api::<HealingPolicy>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn patch_deployment(&self, name: &str, patch: Value) -> Deployment {
        self.api::<Deployment>().patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap()
    }

    /// A release, as `kubectl set image` makes it.
    pub async fn release(&self, name: &str, image: &str) -> Deployment {
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}});
        self.patch_deployment(name, patch).await
    }

    pub async fn deployment(&self, name: &str) -> Deployment {
        self.api::<Deployment>().get(name).await.unwrap()
    }

    pub async fn image(&self, name: &str) -> String {
        image_of(&self.deployment(name).await)
    }

    pub async fn generation(&self, name: &str) -> i64 {
        self.deployment(name).await.metadata.generation.unwrap()
    }

    pub async fn policy_status(&self, name: &str) -> panacea::api::HealingPolicyStatus {
        self.api::<HealingPolicy>().get(name).await.unwrap().status.unwrap_or_default()
    }

    pub async fn component(&self, policy: &str, component: &str) -> Option<ComponentStatus> {
        self.policy_status(policy).await.components.into_iter().find(|status| status.name == component)
    }

    /// All Remediations, oldest first.
    pub async fn remediations(&self) -> Vec<Remediation> {
        let mut all = self.api::<Remediation>().list(&ListParams::default()).await.unwrap().items;
        all.sort_by_key(|remediation| remediation.spec.plan.decided_at);
        all
    }

    /// The pod crashes from now on, whatever its image is; not when it is gone.
    pub async fn crash(&self, pod: &str) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"panacea.dev/fault": "crash"}}}));
        let _ = self.api::<Pod>().patch(pod, &PatchParams::default(), &patch).await;
    }

    /// How the Remediations stand: (action, phase, reason), the oldest first.
    /// Waits until so many actions are verified.
    pub async fn wait_rolled_back(&self, times: usize, limit: Duration) {
        wait::until(&format!("{times} rollbacks to be verified"), limit, async || {
            let outcomes = self.outcomes().await;
            let done = outcomes.iter().filter(|(_, phase, _)| *phase == Phase::Succeeded).count();
            if done == times { Ok(()) } else { Err(format!("{outcomes:?}")) }
        })
        .await;
    }

    pub async fn outcomes(&self) -> Vec<(ActionKind, Phase, String)> {
        let all = self.remediations().await.into_iter();
        let seen = all.map(|one| (one.spec.plan.action, one.status.unwrap_or_default()));
        seen.map(|(action, status)| (action, status.phase, status.reason)).collect()
    }

    /// Waits until every replica is updated and available.
    pub async fn wait_rolled_out(&self, name: &str) {
        wait::until(&format!("{name} to be rolled out"), Duration::from_secs(60), async || {
            let deployment = self.deployment(name).await;
            let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let status = deployment.status.clone().unwrap_or_default();
            let done = status.observed_generation >= deployment.metadata.generation
                && status.updated_replicas.unwrap_or(0) == wanted
                && status.replicas.unwrap_or(0) == wanted
                && status.available_replicas.unwrap_or(0) == wanted;
            if done { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }

    /// Waits until the policy says this of the component.
    pub async fn wait_status(&self, policy: &str, component: &str, wanted: HealthStatus) -> ComponentStatus {
        self.wait_component(policy, component, &format!("to be {wanted}"), |status| status.status == wanted).await
    }

    /// Waits until the template that runs is the last known good one.
    pub async fn wait_known_good(&self, policy: &str, component: &str) -> ComponentStatus {
        let what = "to be seen healthy and pinned as known good";
        self.wait_component(policy, component, what, |status| {
            status.release.as_ref().is_some_and(|release| release.seen_healthy)
                && status.known_good.last().map(|good| &good.digest)
                    == status.release.as_ref().map(|release| &release.digest)
        })
        .await
    }

    pub async fn wait_component(
        &self,
        policy: &str,
        component: &str,
        what: &str,
        wanted: impl Fn(&ComponentStatus) -> bool,
    ) -> ComponentStatus {
        wait::until(&format!("{component} of {policy} {what}"), Duration::from_secs(60), async || {
            match self.component(policy, component).await {
                Some(status) if wanted(&status) => Ok(status),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Waits until the policy's condition has this status (`True`, `False`, `Unknown`) and returns (reason, message).
    pub async fn wait_condition(&self, policy: &str, kind: &str, status: &str, limit: Duration) -> (String, String) {
        wait::until(&format!("condition {kind}={status} of {policy}"), limit, async || {
            let conditions = self.policy_status(policy).await.conditions;
            let found = conditions.iter().find(|condition| condition.type_ == kind);
            match found {
                Some(condition) if condition.status == status => {
                    Ok((condition.reason.clone(), condition.message.clone()))
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Waits until exactly one Remediation is in this phase and returns it.
    pub async fn wait_remediation(&self, phase: Phase) -> Remediation {
        self.wait_remediation_within(phase, Duration::from_secs(90)).await
    }

    pub async fn wait_remediation_within(&self, phase: Phase, limit: Duration) -> Remediation {
        wait::until(&format!("a remediation in phase {phase}"), limit, async || {
            let all = self.remediations().await;
            let seen: Vec<String> = all
                .iter()
                .map(|remediation| {
                    format!(
                        "{} {:?}",
                        remediation.name_any(),
                        remediation.status.as_ref().map(|s| (s.phase, &s.reason))
                    )
                })
                .collect();
            let found = all
                .into_iter()
                .find(|remediation| remediation.status.as_ref().is_some_and(|status| status.phase == phase));
            found.ok_or_else(|| format!("{seen:?}"))
        })
        .await
    }

    /// Waits until the Remediation has reached an end phase.
    pub async fn wait_ended(&self, name: &str) -> Remediation {
        wait::until(&format!("remediation {name} to end"), Duration::from_secs(90), async || {
            let remediation = self.api::<Remediation>().get(name).await.map_err(|why| why.to_string())?;
            let ended = remediation.status.as_ref().is_some_and(|status| status.phase.is_final());
            if ended { Ok(remediation) } else { Err(format!("{:?}", remediation.status)) }
        })
        .await
    }

    pub async fn of_component(&self, component: &str) -> Option<Remediation> {
        self.remediations().await.into_iter().find(|one| one.spec.plan.component == component)
    }

    /// Waits until the first Remediation of this component has reached an end phase.
    pub async fn wait_component_ended(&self, component: &str) -> Remediation {
        wait::until(&format!("the remediation of {component} to end"), Duration::from_secs(150), async || {
            let found = self.of_component(component).await;
            let ended = |one: &Remediation| one.status.as_ref().is_some_and(|status| status.phase.is_final());
            found.clone().filter(ended).ok_or_else(|| format!("{:?}", found.and_then(|one| one.status)))
        })
        .await
    }

    /// Waits until the policy says that this guard holds an action on the component back.
    pub async fn wait_refusal(&self, policy: &str, component: &str, guard: Guard) -> RefusalStatus {
        let held = self
            .wait_component(policy, component, &format!("to be held back by {guard}"), |status| {
                status.refusal.as_ref().is_some_and(|refusal| refusal.reason == guard.to_string())
            })
            .await;
        held.refusal.unwrap()
    }

    /// Waits until the Remediation's rows are in the ledger and it may be removed.
    pub async fn wait_recorded(&self, name: &str, limit: Duration) -> Remediation {
        wait::until(&format!("remediation {name} to be recorded and let go"), limit, async || {
            let remediation = self.api::<Remediation>().get(name).await.map_err(|why| why.to_string())?;
            let recorded = remediation.status.as_ref().is_some_and(|status| status.recorded_at.is_some());
            let seen = format!("{:?}, finalizers {:?}", remediation.status, remediation.finalizers());
            if recorded && remediation.finalizers().is_empty() { Ok(remediation) } else { Err(seen) }
        })
        .await
    }
}

pub fn image_of(deployment: &Deployment) -> String {
    let template = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).unwrap();
    template.containers[0].image.clone().unwrap_or_default()
}
