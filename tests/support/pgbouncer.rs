//! A real PgBouncer before a test server, as Debian has it.

use std::{
    os::unix::{fs::chown, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::postgres::{PASSWORD, PostgresServer, USER, free_port, other_user};

/// Ends with this value.
pub struct PgBouncer {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl PgBouncer {
    /// Before this database of the server, in transaction mode; [`USER`] may log in, and is its administrator.
    pub fn start(server: &PostgresServer, database: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("panacea-pgbouncer-").tempdir().unwrap();
        let (port, path) = (free_port(), folder.path());
        let settings = format!(
            "[databases]\n{database} = host=127.0.0.1 port={} dbname={database} user={USER} password='{PASSWORD}'\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = plain\n\
             auth_file = {}\nadmin_users = {USER}\npool_mode = transaction\nlogfile = {}\nserver_login_retry = 1\n",
            server.port(),
            path.join("users").display(),
            path.join("log").display(),
        );
        std::fs::write(path.join("ini"), settings).unwrap();
        std::fs::write(path.join("users"), format!("\"{USER}\" \"{PASSWORD}\"\n")).unwrap();
        let mut command = Command::new(program());
        // It refuses to be root.
        if let Some((user, group)) = other_user() {
            for file in [path.to_owned(), path.join("ini"), path.join("users")] {
                chown(file, Some(user), Some(group)).unwrap();
            }
            command.uid(user).gid(group);
        }
        command.arg(path.join("ini")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let bouncer = Self { child, folder, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer did not start within 20 s:\n{}", bouncer.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        bouncer
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// On PATH, or where Debian has it.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut found = folders.map(|folder| folder.join("pgbouncer")).filter(|file| file.is_file());
    found.next().expect("PgBouncer is needed for this test: apt-get install pgbouncer, or make servers")
}
