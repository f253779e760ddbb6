//! A simulated node of the test's own, to be lost.

use std::process::Command;

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::cluster::Test;

/// Removed when dropped.
pub struct OwnNode {
    nodes: Api<Node>,
    pub name: String,
}

impl OwnNode {
    /// A node that only pods with [`Self::pod_spec`] go to.
    pub async fn start(test: &Test) -> Self {
        let node = Self { nodes: Api::all(test.client.clone()), name: format!("node-{}", test.namespace) };
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": node.name,
                "annotations": {"kwok.x-k8s.io/node": "fake"},
                "labels": {
                    "type": "kwok", "kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                },
            },
            "spec": {"taints": [{"key": "test", "value": node.name, "effect": "NoSchedule"}]},
        });
        node.nodes.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        node
    }

    /// Part of a pod's spec: it goes to this node, or to any of `others` (names of nodes) as well.
    pub fn pod_spec(&self, others: &[&str]) -> Value {
        let names: Vec<&str> = others.iter().copied().chain([self.name.as_str()]).collect();
        json!({
            "tolerations": [{"key": "test", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": names}]},
            ]}}},
        })
    }

    /// Its heartbeat stops; after 12 to 15 s Kubernetes says that it is not ready.
    pub async fn lose(&self) {
        self.label(Value::Null).await;
    }

    pub async fn have_back(&self) {
        self.label(json!("kwok")).await;
    }

    async fn label(&self, value: Value) {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"type": value}}}));
        self.nodes.patch(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }
}

impl Drop for OwnNode {
    fn drop(&mut self) {
        let _ = Command::new("kubectl").args(["delete", "node", &self.name, "--wait=false"]).output();
    }
}
