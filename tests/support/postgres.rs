//! A real PostgreSQL server in a temporary directory, for tests.
//!
//! It listens on 127.0.0.1 only, wants a password, and dies with the test process, however that ends: a small shell
//! holds the other end of a pipe, and when the pipe closes it kills the server and removes the directory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each test binary uses another part")]

use parking_lot::Mutex;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// The user that owns the server and all databases.
pub const USER: &str = "panacea";
/// Its password: must never be seen in a log, error or event. Has characters that a URL must encode.
pub const PASSWORD: &str = "s3cret/pass@word";
const PASSWORD_IN_URL: &str = "s3cret%2Fpass%40word";

/// How a server is, where it is not as all are.
#[derive(Default)]
pub struct Setup {
    /// `name=value` of postgresql.conf.
    pub settings: Vec<String>,
    /// Certificate and key, in PEM.
    pub tls: Option<(String, String)>,
    /// All of pg_hba.conf.
    pub hba: Option<&'static str>,
}

pub struct PostgresServer {
    settings: Vec<String>,
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    server: Mutex<Option<Child>>,
    watchdog: Child,
    databases: AtomicU32,
}

impl PostgresServer {
    /// The server that all tests of this process share. Do not stop it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<PostgresServer> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A server of one's own.
    pub fn start() -> Self {
        Self::start_as(Setup::default())
    }

    pub fn start_as(setup: Setup) -> Self {
        let programs = programs();
        let folder =
            tempfile::Builder::new().prefix("panacea-postgres-").tempdir().expect("a temporary directory").keep();
        let watchdog = watchdog(&folder);
        if let Some((user, group)) = other_user() {
            chown(&folder, Some(user), Some(group)).expect("give the directory to the server's user");
        }
        let password_file = folder.join("password");
        std::fs::write(&password_file, PASSWORD).expect("write the password file");
        if let Some((user, group)) = other_user() {
            chown(&password_file, Some(user), Some(group)).expect("give the file to the server's user");
        }
        let made = command(&programs, "initdb")
            .args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync"])
            .arg("--pwfile")
            .arg(&password_file)
            .arg("--pgdata")
            .arg(folder.join("data"))
            .current_dir(&folder)
            .output()
            .expect("run initdb");
        assert!(made.status.success(), "initdb failed:\n{}", String::from_utf8_lossy(&made.stderr));
        let Setup { mut settings, tls, hba } = setup;
        let data = folder.join("data");
        if let Some(hba) = hba {
            std::fs::write(data.join("pg_hba.conf"), hba).expect("write pg_hba.conf");
        }
        if let Some((certificate, key)) = tls {
            for (name, text) in [("server.crt", certificate), ("server.key", key)] {
                let file = data.join(name);
                std::fs::write(&file, text).expect("write a file of TLS");
                // The server refuses a key that others may read.
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("close the file");
                if let Some((user, group)) = other_user() {
                    chown(&file, Some(user), Some(group)).expect("give the file to the server's user");
                }
            }
            settings.push("ssl=on".to_owned());
        }
        let server = Self {
            settings,
            programs,
            port: free_port(),
            folder,
            server: Mutex::new(None),
            watchdog,
            databases: AtomicU32::new(0),
        };
        server.start_again();
        server
    }

    /// Starts it on the same port and data, and waits until it takes connections.
    pub fn start_again(&self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).expect("the log");
        let mut running = self.server.lock();
        assert!(running.is_none(), "it runs already");
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut child: Option<Child> = None;
        loop {
            // It may refuse at first: children of a killed one hold its shared memory for a moment.
            if child.as_mut().is_none_or(|child| child.try_wait().expect("wait for postgres").is_some()) {
                child = Some(
                    command(&self.programs, "postgres")
                        .arg("-D")
                        .arg(self.folder.join("data"))
                        .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
                        .args(["-c", "fsync=off", "-c", "max_connections=200", "-c", &format!("port={}", self.port)])
                        .args(self.settings.iter().flat_map(|setting| ["-c", setting]))
                        .current_dir(&self.folder)
                        .stdin(Stdio::null())
                        .stdout(log.try_clone().expect("the log"))
                        .stderr(log.try_clone().expect("the log"))
                        .spawn()
                        .expect("run postgres"),
                );
            }
            // The server's own word: its pid in the first line, its state in the last. Unlike `pg_isready`, which may be
            // installed elsewhere, it is always there.
            let state = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
            let is_ours = state.lines().next() == child.as_ref().map(|child| child.id().to_string()).as_deref();
            if is_ours && state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                break;
            }
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL did not start within 60 s:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        *running = child;
    }

    /// SIGKILL to the server and all its processes: as if the machine had lost power.
    pub fn kill(&self) {
        let mut running = self.server.lock();
        let Some(mut server) = running.take() else { return };
        let children = children_of(server.id());
        server.kill().expect("kill postgres");
        let _ = server.wait();
        for child in children {
            let _ = Command::new("kill").args(["-9", &child.to_string()]).stderr(Stdio::null()).status();
        }
    }

    /// Stops all its processes where they are: connections stay open and nobody answers.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let running = self.server.lock();
        let server = running.as_ref().expect("it runs").id();
        for process in [vec![server], children_of(server)].concat() {
            let _ = Command::new("kill").args([signal, &process.to_string()]).stderr(Stdio::null()).status();
        }
    }

    /// A connection of the owner's, who is a superuser.
    pub async fn admin(&self) -> PgConnection {
        PgConnection::connect(&self.url("postgres")).await.expect("connect to the test server")
    }

    /// Gives a folder to the server's user.
    pub fn own(folder: &Path) {
        if let Some((user, group)) = other_user() {
            chown(folder, Some(user), Some(group)).expect("give the directory to the server's user");
        }
    }

    /// What the server said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database, password included.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD_IN_URL}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Makes an empty database and returns its URL.
    pub async fn new_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut admin = self.admin().await;
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.expect("make a database");
        admin.close().await.expect("close");
        self.url(&name)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// Where `initdb` and `postgres` are: on PATH, or where Debian and Red Hat put them.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    versions.sort();
    folders.extend(versions.into_iter().rev());
    folders.push("/usr/pgsql/bin".into());
    folders.into_iter().find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file()).expect(
        "PostgreSQL is needed for this test and neither on PATH nor in /usr/lib/postgresql: apt-get install postgresql",
    )
}

/// Whom the server runs as when we are root, which it refuses to be: `postgres` or `nobody`.
pub fn other_user() -> Option<(u32, u32)> {
    static OTHER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *OTHER.get_or_init(|| {
        use std::os::unix::fs::MetadataExt as _;
        if std::fs::metadata("/proc/self").expect("/proc").uid() != 0 {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let find = |name: &str| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        Some(
            find("postgres")
                .or_else(|| find("nobody"))
                .expect("a user `postgres` or `nobody`: PostgreSQL refuses root"),
        )
    })
}

fn command(programs: &Path, program: &str) -> Command {
    let mut command = Command::new(programs.join(program));
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
    // Ctrl-C is for the test process; the watchdog ends the server after it.
    command.process_group(0).env("LC_ALL", "C");
    command
}

fn watchdog(folder: &Path) -> Child {
    Command::new("sh")
        .args(["-c", r#"cat >/dev/null; pid=$(head -n1 "$0/data/postmaster.pid" 2>/dev/null); [ -z "$pid" ] || { [ "$(readlink "/proc/$pid/cwd")" = "$0/data" ] && kill -9 "$pid"; }; rm -rf "$0""#])
        .arg(folder)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run sh")
}

fn children_of(parent: u32) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // `pid (name) state ppid …`; a name may hold spaces and brackets.
    let parent_of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}
