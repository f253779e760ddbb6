//! Programs as a person calls them: kubectl, and command lines that Panacea tells people to type.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
};

use tokio::process::Command;

use super::cluster::{Test, control_plane_script};

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// Runs it to its end.
pub async fn output(command: &mut Command) -> Ended {
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let Output { status, stdout, stderr } = ended.unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

impl Test {
    /// kubectl as the administrator, in the test's namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Ended {
        output(Command::new("kubectl").arg("--namespace").arg(&self.namespace).args(arguments)).await
    }

    /// The same, and it has to succeed; what it prints.
    pub async fn kubectl_succeeds(&self, arguments: &[&str]) -> String {
        let ended = self.kubectl(arguments).await;
        assert!(ended.success(), "kubectl {}: {}", arguments.join(" "), ended.stderr);
        ended.stdout
    }
}

/// The directory that a script of the control plane prints, with what it fetches or builds.
pub async fn directory_of(script: &str, arguments: &[&str]) -> PathBuf {
    let ended = output(Command::new(control_plane_script(script)).args(arguments)).await;
    assert!(ended.success(), "{script} {arguments:?}: {ended:?}");
    ended.stdout.lines().last().unwrap_or_else(|| panic!("{script} prints a directory")).into()
}

/// A command line, typed by the administrator.
pub async fn typed(line: &str) -> Ended {
    output(Command::new("sh").arg("-c").arg(line)).await
}
