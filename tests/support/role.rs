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
        std::fs::write(role.kubeconfig(), kubeconfig_with(made.stdout.trim())).unwrap();
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

/// The operator's kubeconfig with this token instead of its own.
fn kubeconfig_with(token: &str) -> String {
    let theirs = std::fs::read_to_string(env("PANACEA_KUBECONFIG")).unwrap();
    let (before, rest) = theirs.split_once("token: \"").expect("the kubeconfig holds a token");
    let (_, after) = rest.split_once('"').unwrap();
    format!("{before}token: \"{token}\"{after}")
}

/// Somebody who may read what Panacea says in the test's namespace, and may do with Remediations what `verbs` say.
pub struct Person {
    folder: tempfile::TempDir,
    pub token: String,
    /// As the API server names them.
    pub user: String,
}

impl Person {
    pub async fn with(test: &Test, name: &str, verbs: &str) -> Self {
        let namespace = &test.namespace;
        let made = typed(&format!(
            "exec 3>&1 >&2; k='kubectl --namespace {namespace}'; $k create serviceaccount {name} \
             && $k create role {name} --verb={verbs} --resource=remediations.panacea.dev,healingpolicies.panacea.dev \
             && $k create rolebinding {name} --role={name} --serviceaccount={namespace}:{name} && $k create token {name} >&3"
        ))
        .await;
        assert!(made.success(), "{made:?}");
        let token = made.stdout.trim().to_owned();
        let person = Self {
            folder: tempfile::tempdir().unwrap(),
            user: format!("system:serviceaccount:{namespace}:{name}"),
            token,
        };
        std::fs::write(person.kubeconfig(), kubeconfig_with(&person.token)).unwrap();
        person
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
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
