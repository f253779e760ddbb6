//! A ServiceAccount with less rights than the chart's defaults give, for one test.

use std::{path::PathBuf, process::Command};

use super::{
    cluster::{Test, env},
    shell::typed,
};

/// What the chart renders with these values, under the namespace's name. Removed when dropped.
pub struct Role {
    folder: tempfile::TempDir,
    name: String,
}

impl Role {
    /// `values`: `rbac.evictPods=false`, …
    pub async fn with(test: &Test, values: &[&str]) -> Self {
        let (chart, namespace) = (concat!(env!("CARGO_MANIFEST_DIR"), "/charts/panacea"), &test.namespace);
        let set: String = values.iter().map(|value| format!(" --set {value}")).collect();
        let render = format!(
            "helm template {namespace} '{chart}' --namespace {namespace} --show-only templates/rbac.yaml --show-only templates/serviceaccount.yaml{set}"
        );
        let name = format!("{namespace}-panacea");
        let role = Self { folder: tempfile::tempdir().unwrap(), name: name.clone() };
        let made = typed(&format!(
            "{render} | kubectl --namespace {namespace} apply -f - >&2 && kubectl --namespace {namespace} create token {name}"
        ))
        .await;
        assert!(made.success(), "{made:?}");
        let theirs = std::fs::read_to_string(env("PANACEA_KUBECONFIG")).unwrap();
        let (before, token) = theirs.split_once("token: \"").expect("the kubeconfig holds a token");
        let (_, after) = token.split_once('"').unwrap();
        let ours = format!("{before}token: \"{}\"{after}", made.stdout.trim());
        std::fs::write(role.kubeconfig(), ours).unwrap();
        role
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// As the API server's log names it.
    pub fn user(&self, test: &Test) -> String {
        format!("system:serviceaccount:{}:{}", test.namespace, self.name)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let kinds = ["clusterrole", "clusterrolebinding"];
        for kind in kinds {
            let _ = Command::new("kubectl")
                .args(["delete", kind, &self.name, "--ignore-not-found", "--wait=false"])
                .output();
        }
    }
}
