//! Rollouts of Argo Rollouts, with their real CRDs and controller.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{process::Command, sync::OnceCell};

use super::{
    audit::Write,
    cluster::{Test, cluster_dir, control_plane_script},
    objects::{merge, policy},
    operator::{Operator, Options},
    role::Role,
    shell::output,
    wait,
};

pub const V1: &str = "shop/web:v1";
pub const BAD: &str = "shop/web:v2-crash";

/// Starts the controller once for all tests.
pub async fn controller() {
    static STARTED: OnceCell<()> = OnceCell::const_new();
    STARTED
        .get_or_init(async || {
            let script = control_plane_script("argo-rollouts");
            let started = output(Command::new(script).arg("start").arg(cluster_dir())).await;
            assert!(started.success(), "{started:?}");
        })
        .await;
}

pub fn resource() -> ApiResource {
    ApiResource {
        group: "argoproj.io".into(),
        version: "v1alpha1".into(),
        api_version: "argoproj.io/v1alpha1".into(),
        kind: "Rollout".into(),
        plural: "rollouts".into(),
    }
}

/// The Rollout `web` of four pods; a release goes to one of them, and waits.
pub fn rollout(patch: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
        "spec": {
            "replicas": 4, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                // A number as people write it; a Deployment's would be made text.
                "spec": {"containers": [{"name": "app", "image": V1, "resources": {"limits": {"cpu": 1}}}]},
            },
            "strategy": {"canary": {"steps": [{"setWeight": 25}, {"pause": {}}]}},
        },
    });
    merge(&mut object, patch);
    object
}

/// A policy over it; `patch` is merged over it.
pub fn policy_of(patch: &Value) -> Value {
    let mut policy = policy("shop", &["web"], patch);
    policy["spec"]["components"][0]["target"] = json!({"rollout": {"name": "web"}});
    policy
}

/// What the chart gives with `rbac.argoRollouts`, the controller, and a test.
pub struct Scene<'a> {
    pub test: &'a Test,
    pub role: Role,
}

impl<'a> Scene<'a> {
    pub async fn new(test: &'a Test) -> Self {
        Self::with(test, &[]).await
    }

    /// With more values of the chart.
    pub async fn with(test: &'a Test, values: &[&str]) -> Self {
        controller().await;
        let values: Vec<&str> = ["rbac.argoRollouts=true"].iter().chain(values).copied().collect();
        Self { test, role: Role::with(test, &values).await }
    }

    pub async fn operator(&self) -> Operator {
        Operator::start(self.test, Options::default().through(self.role.kubeconfig())).await
    }

    /// The Rollout, an operator, and a policy that has seen it healthy.
    pub async fn good(&self, rollout: &Value, policy: &Value) -> Operator {
        let operator = self.operator().await;
        self.test.create_rollout(rollout).await;
        self.test.apply_policy(policy).await;
        self.test.wait_known_good("shop", "web").await;
        operator
    }

    /// What the operator wrote to Rollouts, oldest first; a conflict wrote nothing.
    pub fn wrote(&self) -> Vec<String> {
        let user = self.role.user(self.test);
        let of_it = |write: &Write| write.user == user && write.resource.starts_with("rollouts") && write.code != 409;
        let writes = self.test.writes().into_iter().filter(of_it);
        writes.map(|write| format!("{} {} {}", write.verb, write.resource, write.code)).collect()
    }
}

impl Test {
    pub fn rollouts(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource())
    }

    pub async fn create_rollout(&self, object: &Value) {
        let object = serde_json::from_value(object.clone()).unwrap();
        self.rollouts().create(&PostParams::default(), &object).await.unwrap();
    }

    pub async fn rollout(&self) -> DynamicObject {
        self.rollouts().get("web").await.unwrap()
    }

    pub async fn patch_rollout(&self, patch: Value) {
        self.rollouts().patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// As `kubectl argo rollouts set image` does.
    pub async fn release_rollout(&self, image: &str) {
        self.patch_rollout(json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}}))
            .await;
    }

    pub async fn rollout_image(&self) -> String {
        self.rollout().await.data["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
    }

    /// Waits until its controller says this.
    pub async fn wait_rollout(&self, what: &str, wanted: impl Fn(&DynamicObject) -> bool) -> DynamicObject {
        wait::until(&format!("the rollout {what}"), Duration::from_secs(60), async || {
            let rollout = self.rollout().await;
            let observed = rollout.data["status"]["observedGeneration"].as_str().and_then(|text| text.parse().ok());
            if observed == rollout.metadata.generation && wanted(&rollout) {
                Ok(rollout)
            } else {
                Err(rollout.data["status"].to_string())
            }
        })
        .await
    }

    pub async fn wait_phase(&self, phase: &str) -> DynamicObject {
        self.wait_rollout(&format!("to be {phase}"), |rollout| rollout.data["status"]["phase"] == phase).await
    }

    /// By name, with their images.
    pub async fn web_pods(&self) -> BTreeMap<String, String> {
        let pods = self.api::<Pod>().list(&ListParams::default().labels("app=web")).await.unwrap().items;
        let image = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone()).unwrap_or_default();
        pods.iter().map(|pod| (pod.name_any(), image(pod))).collect()
    }

    /// Waits until so many pods of this image are there, and none of another.
    pub async fn wait_web_pods(&self, image: &str, count: usize) {
        wait::until(&format!("{count} pods of {image}"), Duration::from_secs(60), async || {
            let pods = self.web_pods().await;
            if pods.len() == count && pods.values().all(|of| of == image) { Ok(()) } else { Err(format!("{pods:?}")) }
        })
        .await;
    }
}
