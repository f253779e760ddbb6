//! A database of one's own, by either name, and what tests ask of it behind the ledger's back.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use panacea::knowledge::{
    ActionType, BrainRow, HealthRow, Ledger, LedgerConfig, LedgerHealth, LedgerOptions, Metadata, RollbackRow, Row,
    check_id, row_id,
};
use secrecy::SecretString;
use serde_json::json;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::postgres::PostgresServer;

/// The longest that anything here may take that is promised within 10 s, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub enum Place {
    Sqlite(TempDir),
    Postgres(String),
}

impl Place {
    pub fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    pub async fn postgres() -> Self {
        let server = tokio::task::spawn_blocking(PostgresServer::shared).await.unwrap();
        Self::Postgres(server.new_database().await)
    }

    pub fn config(&self) -> LedgerConfig {
        match self {
            Self::Sqlite(_) => LedgerConfig::Sqlite(self.file()),
            Self::Postgres(url) => LedgerConfig::Postgres(SecretString::from(url.clone())),
        }
    }

    /// In a folder that does not exist yet.
    pub fn file(&self) -> PathBuf {
        match self {
            Self::Sqlite(folder) => folder.path().join("data").join("ledger.sqlite"),
            Self::Postgres(_) => panic!("not a file"),
        }
    }

    pub fn start(&self) -> Running {
        Running::start(self.config())
    }

    /// The URL of a new role that has these rights on all tables of now.
    pub async fn other_role(&self, name: &str, rights: &str) -> String {
        let Self::Postgres(url) = self else { panic!("no roles here") };
        let role = url.rsplit('/').next().unwrap().split('?').next().unwrap().replace("test_", &format!("{name}_"));
        self.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'hunter2222'")).await;
        if !rights.is_empty() {
            self.execute(&format!("GRANT {rights} ON ALL TABLES IN SCHEMA public TO {role}")).await;
        }
        url.replacen("panacea:s3cret%2Fpass%40word", &format!("{role}:hunter2222"), 1)
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        match self {
            Self::Sqlite(_) => {
                self.connect_sqlite().await.execute(AssertSqlSafe(sql)).await.unwrap();
            }
            Self::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                connection.execute(AssertSqlSafe(sql)).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// The texts in the only column of the answer.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        match self {
            Self::Sqlite(_) => {
                let mut connection = self.connect_sqlite().await;
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap()
            }
            Self::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                let texts = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
                connection.close().await.unwrap();
                texts
            }
        }
    }

    /// The ids in a table, sorted.
    pub async fn ids(&self, table: &str) -> Vec<String> {
        self.texts(&format!("SELECT CAST(id AS TEXT) FROM {table} ORDER BY 1")).await
    }

    /// By what a table that is only inserted into shows the order of insertion.
    pub fn order(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "rowid",
            Self::Postgres(_) => "ctid",
        }
    }

    async fn connect_sqlite(&self) -> sqlx::SqliteConnection {
        std::fs::create_dir_all(self.file().parent().unwrap()).unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.file()).create_if_missing(true);
        options.connect().await.unwrap()
    }
}

/// A ledger that runs, with what stops it.
pub struct Running {
    pub ledger: Ledger,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<()>,
}

impl Running {
    pub fn start(options: impl Into<LedgerOptions>) -> Self {
        let shutdown = CancellationToken::new();
        let (ledger, task) = Ledger::start(options, shutdown.clone());
        Self { ledger, shutdown, task }
    }

    /// Ends it as the operator does; what was offered is written then.
    pub async fn stop(self) -> Ledger {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("ends in time").expect("ends well");
        self.ledger
    }

    pub async fn stop_when_available(self) {
        self.available().await;
        self.stop().await;
    }

    pub async fn available(&self) {
        self.health("Available", LedgerHealth::is_available).await;
    }

    /// Waits until it is not available. Returns the reason and the message.
    pub async fn unavailable(&self) -> (String, String) {
        match self.health("Unavailable", |health| matches!(health, LedgerHealth::Unavailable { .. })).await {
            LedgerHealth::Unavailable { reason, message } => (reason.to_string(), message),
            other => panic!("{other:?}"),
        }
    }

    async fn health(&self, wanted: &str, fits: impl Fn(&LedgerHealth) -> bool) -> LedgerHealth {
        let mut health = self.ledger.health();
        match tokio::time::timeout(PATIENCE, health.wait_for(|health| fits(health))).await {
            Ok(seen) => seen.unwrap().clone(),
            Err(_) => panic!("not {wanted} after {PATIENCE:?}, but {:?}", self.ledger.health().borrow()),
        }
    }
}

/// Waits until it is true.
pub async fn until(what: &str, mut fits: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !fits().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A restart of Remediation number `number`.
pub fn brain(number: u32) -> BrainRow {
    BrainRow {
        id: row_id(&format!("uid-{number}"), "action"),
        action: ActionType::ServiceRestart,
        input: json!({"number": number}),
        output: json!({}),
        success: true,
        metadata: Metadata::component("shop", "web", "api").of_remediation(format!("web-api-{number}")),
        executed_at: time("2026-11-22T10:00:00.123456789Z"),
    }
}

/// A check of a component.
pub fn health(policy: &str, component: &str, at: Timestamp, score: Option<f64>) -> HealthRow {
    HealthRow {
        id: check_id("shop", policy, component, at),
        namespace: "shop".into(),
        policy: policy.into(),
        component: component.into(),
        score,
        trend: Some("Stable".into()),
        predicted_failure_time: None,
        failure_probability: Some(0.25),
        metrics: [("error_rate".to_owned(), 0.015), ("latency_ms".to_owned(), f64::NAN)].into(),
        warnings: vec!["slow".into()],
        at,
    }
}

pub fn rollback(number: u32) -> RollbackRow {
    RollbackRow {
        id: row_id(&format!("uid-{number}"), "action"),
        component: "api".into(),
        rollback_type: "deployment".into(),
        from_state: json!({"revision": 3}),
        to_state: json!({"revision": 2}),
        success: false,
        error_message: Some("refused".into()),
        executed_at: time("2026-11-22T10:00:00Z"),
    }
}

/// The ids of these rows that belong into a table, as [`Place::ids`] shows them.
pub fn ids_of<'a>(rows: impl IntoIterator<Item = &'a Row>, table: &str) -> Vec<String> {
    let ids = rows.into_iter().filter(|row| row.table() == table).map(|row| row.id().to_string());
    ids.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// Makes a test of a scenario on each database.
macro_rules! on_both {
    ($($scenario:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                super::$scenario($crate::knowledge::place::Place::sqlite()).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                super::$scenario($crate::knowledge::place::Place::postgres().await).await;
            })+
        }
    };
}
pub(super) use on_both;
