//! A Prometheus of the test's own, to be stopped and started.

use std::{path::PathBuf, process::Command};

use super::cluster::control_plane_script;

/// Stopped and removed when dropped.
pub struct OwnPrometheus {
    dir: tempfile::TempDir,
    pub url: String,
}

impl OwnPrometheus {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self { dir, url: String::new() };
        server.url = server.script("start");
        server
    }

    /// The same port and data as before.
    pub fn start_again(&self) {
        assert_eq!(self.script("start"), self.url);
    }

    pub fn stop(&self) {
        self.script("stop");
    }

    pub fn targets(&self) -> PathBuf {
        self.dir.path().join("prometheus/targets")
    }

    fn script(&self, command: &str) -> String {
        let output =
            Command::new(control_plane_script("prometheus")).arg(command).arg(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "prometheus {command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for OwnPrometheus {
    fn drop(&mut self) {
        let _ = Command::new(control_plane_script("prometheus")).arg("stop").arg(self.dir.path()).output();
    }
}
