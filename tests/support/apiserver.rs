//! One more API server: of the same cluster, which a test may stop without disturbing anyone else; or of an empty
//! cluster, for what is there once a cluster, such as CustomResourceDefinitions.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};

use super::cluster::{Test, client_of, cluster_dir, control_plane_script};

pub struct SecondApiServer {
    name: String,
}

impl SecondApiServer {
    pub async fn start(name: &str) -> Self {
        let server = Self { name: name.to_owned() };
        server.call("start").await;
        server
    }

    /// Of a cluster that has the operator's rights in it, and neither its kinds nor any controllers and nodes.
    pub async fn start_empty(name: &str) -> Self {
        let server = Self { name: name.to_owned() };
        server.call("empty").await;
        server
    }

    /// SIGKILL: connections break off at once.
    pub async fn stop(&self) {
        self.call("stop").await;
    }

    /// On the same port.
    pub async fn start_again(&self) {
        self.call("start").await;
    }

    /// A test's room in this server's cluster: the namespace of the same name, which goes with the server.
    pub async fn namespace(&self, name: &str) -> Test {
        let client = client_of(self.home().join("admin.kubeconfig")).await;
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        Test { client, namespace: name.to_owned() }
    }

    /// The operator's, which talks to this server.
    pub fn operator_kubeconfig(&self) -> PathBuf {
        self.home().join("operator.kubeconfig")
    }

    pub fn audit_log(&self) -> PathBuf {
        self.home().join("audit.log")
    }

    fn home(&self) -> PathBuf {
        cluster_dir().join("apiservers").join(&self.name)
    }

    async fn call(&self, what: &str) {
        let script = control_plane_script("second-apiserver");
        let arguments = [what.into(), cluster_dir().into_os_string(), self.name.clone().into()];
        let done = tokio::process::Command::new(script).args(arguments).output().await.unwrap();
        assert!(done.status.success(), "second-apiserver {what}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for SecondApiServer {
    fn drop(&mut self) {
        let script = control_plane_script("second-apiserver");
        let arguments = ["stop".into(), cluster_dir().into_os_string(), self.name.clone().into()];
        let _ = std::process::Command::new(script).args(arguments).output();
        let _ = std::fs::remove_dir_all(self.home());
    }
}
