//! An operator process of the test's own: the arguments, environment and ServiceAccount that the chart renders, its
//! own database, and only the test's namespace.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, Row as _};

use super::{
    cluster::{Test, cluster_dir, env},
    wait,
};

/// How to start it. Later entries of `env` win over what the chart renders.
#[derive(Default, Clone)]
pub struct Options {
    pub env: BTreeMap<String, String>,
}

impl Options {
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// It speaks to the API server with this kubeconfig: another user's, or through a gate.
    pub fn through(self, kubeconfig: impl AsRef<Path>) -> Self {
        self.with("KUBECONFIG", kubeconfig.as_ref().to_str().unwrap())
    }
}

pub struct Operator {
    child: Option<Child>,
    options: Options,
    namespace: String,
    dir: tempfile::TempDir,
    pub port: u16,
    pub database_url: String,
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn rendered(file: &str) -> Vec<String> {
    let path = cluster_dir().join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|why| {
        panic!("{}: {why}; the cluster was started without --install; run `make test`", path.display())
    });
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

impl Operator {
    /// Starts it and waits until it is ready.
    pub async fn start(test: &Test, options: Options) -> Self {
        let mut operator = Self::launch(test, options).await;
        operator.wait_ready().await;
        operator
    }

    /// Starts it, and does not wait.
    pub async fn launch(test: &Test, options: Options) -> Self {
        let database = test.namespace.replace('-', "_");
        let database_url = match options.env.get("DATABASE_URL") {
            Some(url) => url.clone(),
            None => create_database(&database).await,
        };
        let mut operator = Self {
            child: None,
            options: options.with("DATABASE_URL", database_url.clone()),
            namespace: test.namespace.clone(),
            dir: tempfile::tempdir().unwrap(),
            port: free_port(),
            database_url,
        };
        operator.spawn();
        operator
    }

    /// Starts the process (again), and does not wait.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it is running");
        let mut command = Command::new(binary());
        command.args(rendered("operator.args")).env_clear();
        for line in rendered("operator.env") {
            if let Some((name, value)) = line.split_once('=') {
                command.env(name, value);
            }
        }
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        command
            .env("PANACEA_WATCH_NAMESPACES", &self.namespace)
            .env("PANACEA_LISTEN_ADDRESS", format!("127.0.0.1:{}", self.port))
            .env("PANACEA_DATA_DIR", self.dir.path().join("data"))
            .env("PANACEA_LOG", "info,panacea=debug")
            .envs(&self.options.env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|why| panic!("{}: {why}", binary().display())));
    }

    pub async fn wait_ready(&mut self) {
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        wait::until("the operator to be ready", Duration::from_secs(30), async || match reqwest::get(&url).await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status(), answer.text().await.unwrap_or_default())),
            Err(why) => Err(format!("{why}; log: {}", self.log_tail())),
        })
        .await;
    }

    /// What /readyz says, and whether that is yes; nothing while the port is not open yet.
    pub async fn readiness(&self) -> Option<(bool, String)> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}/readyz", self.port)).await.ok()?;
        Some((answer.status().is_success(), answer.text().await.ok()?))
    }

    /// SIGKILL, as a node that loses power.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("it is not running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and how long it took to end.
    pub async fn stop(&mut self) -> (Duration, bool) {
        let mut child = self.child.take().expect("it is not running");
        let started = std::time::Instant::now();
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(status.success());
        let exit = wait::until("the operator to stop", Duration::from_secs(20), async || {
            child.try_wait().unwrap().ok_or_else(|| "it is still running".to_owned())
        })
        .await;
        (started.elapsed(), exit.success())
    }

    /// The process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it is not running").id()
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("operator.log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// The text of /metrics.
    pub async fn metrics(&self) -> String {
        reqwest::get(format!("http://127.0.0.1:{}/metrics", self.port)).await.unwrap().text().await.unwrap()
    }

    /// How many looks it has made at components so far.
    pub async fn looks(&self) -> u64 {
        self.counter("panacea_checks_total").await as u64
    }

    /// A counter of /metrics, over all its labels; 0 when it was never counted.
    pub async fn counter(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
        let ours = samples.filter(|(series, _)| series.split('{').next() == Some(name));
        ours.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }

    /// Waits until it has looked this often since now: proof that it is awake.
    pub async fn wait_checks(&self, more: u64) {
        let before = self.looks().await;
        wait::until(&format!("{more} more looks"), Duration::from_secs(60), async || {
            let now = self.looks().await;
            if now >= before + more { Ok(()) } else { Err(format!("{} more", now - before)) }
        })
        .await;
    }

    /// Where it keeps its files.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The ledger's rows for Remediations: (action_type, success, remediation), in order.
    pub async fn action_rows(&self) -> Vec<(String, bool, String)> {
        let mut connection = PgConnection::connect(&self.database_url).await.unwrap();
        let rows = sqlx::query(
            "SELECT action_type, success, metadata->>'remediation' AS remediation FROM unified_brain \
             WHERE metadata->>'remediation' IS NOT NULL ORDER BY executed_at, action_type",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        rows.iter().map(|row| (row.get("action_type"), row.get("success"), row.get("remediation"))).collect()
    }

    /// What the ledger's rows of actions were decided on (`input_data`), in order.
    pub async fn action_inputs(&self) -> Vec<serde_json::Value> {
        self.of_actions("SELECT input_data::text FROM unified_brain WHERE metadata->>'remediation' IS NOT NULL ORDER BY executed_at").await
    }

    /// Their outcomes (`output_data`), in order.
    pub async fn action_outputs(&self) -> Vec<serde_json::Value> {
        self.of_actions("SELECT output_data::text FROM unified_brain WHERE metadata->>'remediation' IS NOT NULL ORDER BY executed_at").await
    }

    /// The outcomes of warnings (`output_data`), in order.
    pub async fn outcomes(&self) -> Vec<serde_json::Value> {
        self.of_actions(
            "SELECT output_data::text FROM unified_brain WHERE action_type = 'forecast_outcome' ORDER BY executed_at",
        )
        .await
    }

    async fn of_actions(&self, query: &'static str) -> Vec<serde_json::Value> {
        let mut connection = PgConnection::connect(&self.database_url).await.unwrap();
        let texts: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut connection).await.unwrap();
        texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    /// One text from the ledger.
    pub async fn text(&self, query: &'static str) -> String {
        let mut connection = PgConnection::connect(&self.database_url).await.unwrap();
        sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
    }

    /// One number from the ledger.
    pub async fn count(&self, query: &'static str) -> i64 {
        let mut connection = PgConnection::connect(&self.database_url).await.unwrap();
        sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- the operator's last words\n{}", self.log_tail());
        }
    }
}

/// The operator that cargo built beside this test.
pub fn binary() -> PathBuf {
    if let Ok(path) = std::env::var("PANACEA_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().unwrap();
    let target = exe.parent().and_then(|deps| deps.parent()).unwrap();
    target.join("panacea")
}

/// A database of the test's own on the run's server.
pub async fn create_database(name: &str) -> String {
    let url = env("DATABASE_URL");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let statement = format!("CREATE DATABASE \"{name}\"");
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}
