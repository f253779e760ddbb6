//! The real kubectl, as a person uses it.

use std::process::Output;

use tokio::process::Command;

use super::cluster::Test;

impl Test {
    /// Runs kubectl as administrator in the test's namespace.
    pub async fn try_kubectl(&self, arguments: &[&str]) -> Output {
        Command::new("kubectl")
            .arg("--namespace")
            .arg(&self.namespace)
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .expect("run kubectl; tests/control-plane/with puts it on PATH")
    }

    /// The same, and it has to succeed.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {errors}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
