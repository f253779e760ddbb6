//! How fast rows get into the ledger, beside the plain way of the database: COPY into PostgreSQL, one prepared INSERT in
//! one transaction (executemany) into SQLite. The same rows, into the same tables with the same indexes, in the same run;
//! PostgreSQL and SQLite with fsync as in production. Prints Markdown rows for docs/benchmarks.md.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use panacea::knowledge::{
    ActionType, BrainRow, COMPONENT_KEY, HealthRow, Ledger, LedgerConfig, LedgerOptions, Metadata, Row, SpoolOptions,
    check_id,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, SqliteConnection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::figures;
use crate::support::postgres::{PostgresServer, Setup};

/// Rows a run: as many looks as checks, as the operator writes them.
const ROWS: usize = 200_000;

/// Offered rows that wait at most, so that none is dropped.
const WAITING: u64 = 3000;

/// As long as it takes at 1,000 rows a second.
const LIMIT: Duration = Duration::from_secs(200);

pub async fn measure() {
    let runs: usize = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3);
    let server = PostgresServer::start_as(Setup { settings: vec!["fsync=on".to_owned()], ..Setup::default() });
    let rows = rows(ROWS);
    let mut figures: Vec<(&str, Vec<f64>)> = [
        "PostgreSQL: COPY",
        "PostgreSQL: the ledger",
        "SQLite: executemany",
        "SQLite: the ledger",
        "the spool: filled",
        "the spool: drained into PostgreSQL",
        "the spool: drained into SQLite",
    ]
    .map(|what| (what, Vec::new()))
    .into();
    for run in 1..=runs {
        let took = [
            copy(&server, &rows).await,
            offer(LedgerConfig::Postgres(new_database(&server).await), &rows).await,
            execute_many(&rows).await,
            offer(LedgerConfig::Sqlite(folder().path().join("ledger.sqlite")), &rows).await,
        ];
        let (fill, drain_postgres) = spool(LedgerConfig::Postgres(new_database(&server).await), &rows).await;
        let file = folder();
        let (_, drain_sqlite) = spool(LedgerConfig::Sqlite(file.path().join("ledger.sqlite")), &rows).await;
        let took = took.into_iter().chain([fill, drain_postgres, drain_sqlite]);
        for ((what, rates), took) in figures.iter_mut().zip(took) {
            let rate = rows.len() as f64 / took.as_secs_f64();
            eprintln!("run {run}: {what}: {rate:.0} rows/s");
            rates.push(rate);
        }
    }
    println!("\n| {ROWS} rows | rows a second, median of {runs} (least–most) |");
    println!("|---|---|");
    for (what, rates) in figures {
        println!("| {what} | {} |", figures::shown(&rates, 0));
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

async fn new_database(server: &PostgresServer) -> SecretString {
    SecretString::from(server.new_database().await)
}

/// The rows of checks of 1,000 components, two for each check.
fn rows(count: usize) -> Vec<Row> {
    let begin: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
    let random = &mut fastrand::Rng::with_seed(1);
    let looks = (0..count / 2).flat_map(|number| {
        let at = begin + SignedDuration::from_micros(number as i64 * 60_000);
        let component = format!("component-{}", number % 1000);
        let score = (random.f64() * 1000.0).round() / 10.0;
        let metrics = [("cpu_usage", 100.0), ("error_rate", 1.0), ("latency_ms", 5000.0), ("memory_usage", 100.0)]
            .map(|(name, most)| (name.to_owned(), random.f64() * most));
        let id = check_id("shop", "storefront", &component, at);
        let check = BrainRow {
            id,
            action: ActionType::ProactiveHealthCheck,
            input: json!({"metrics": metrics.iter().cloned().collect::<BTreeMap<_, _>>()}),
            output: json!({"status": "Healthy", "score": score, "failure_probability": random.f64()}),
            success: true,
            metadata: Metadata::component("shop", "storefront", &component),
            executed_at: at,
        };
        let look = HealthRow {
            id,
            namespace: "shop".into(),
            policy: "storefront".into(),
            component,
            score: Some(score),
            trend: Some("Stable".into()),
            predicted_failure_time: None,
            failure_probability: Some(random.f64()),
            metrics: metrics.into(),
            warnings: vec!["latency_ms is above 800".into()],
            at,
        };
        [Row::from(check), look.into()]
    });
    looks.collect()
}

fn start(options: impl Into<LedgerOptions>) -> (Ledger, JoinHandle<()>, CancellationToken) {
    let shutdown = CancellationToken::new();
    let (ledger, task) = Ledger::start(options, shutdown.clone());
    (ledger, task, shutdown)
}

async fn wait_for(what: &str, begun: Instant, mut reached: impl FnMut() -> bool) {
    while !reached() {
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Makes the tables.
async fn prepare(config: LedgerConfig) {
    let (ledger, task, shutdown) = start(config);
    let mut health = ledger.health();
    health.wait_for(|health| health.is_available()).await.unwrap();
    shutdown.cancel();
    task.await.unwrap();
}

async fn offer_all(ledger: &Ledger, rows: &[Row]) {
    let begun = Instant::now();
    for chunk in rows.chunks(100) {
        wait_for("room in the queue", begun, || ledger.stats().rows_waiting() < WAITING).await;
        chunk.iter().cloned().for_each(|row| ledger.offer(row));
    }
}

/// From the first offer to the last row in the database.
async fn offer(config: LedgerConfig, rows: &[Row]) -> Duration {
    prepare(config.clone()).await;
    let (ledger, task, shutdown) = start(config);
    let begun = Instant::now();
    offer_all(&ledger, rows).await;
    wait_for("all rows written", begun, || ledger.stats().rows_written() == rows.len() as u64).await;
    let took = begun.elapsed();
    shutdown.cancel();
    task.await.unwrap();
    took
}

/// How long the rows take into the spool, with the database away, and then from there into the database.
async fn spool(config: LedgerConfig, rows: &[Row]) -> (Duration, Duration) {
    prepare(config.clone()).await;
    let folder = folder();
    let spooled =
        |config: LedgerConfig| LedgerOptions { spool: Some(SpoolOptions::new(folder.path())), ..config.into() };
    let away = LedgerConfig::Postgres(SecretString::from("postgres://nobody@127.0.0.1:1/none".to_owned()));
    let (ledger, task, shutdown) = start(spooled(away));
    let begun = Instant::now();
    offer_all(&ledger, rows).await;
    wait_for("all rows spooled", begun, || ledger.stats().health_spooled() == rows.len() as u64).await;
    let fill = begun.elapsed();
    shutdown.cancel();
    task.await.unwrap();
    drop(ledger);

    let begun = Instant::now();
    let (ledger, task, shutdown) = start(spooled(config));
    wait_for("all rows drained", begun, || {
        ledger.stats().rows_written() == rows.len() as u64 && ledger.stats().health_spooled() == 0
    })
    .await;
    let drain = begun.elapsed();
    shutdown.cancel();
    task.await.unwrap();
    (fill, drain)
}

/// The columns of a row as text, as COPY takes them.
fn check_columns(row: &BrainRow) -> [String; 8] {
    [
        row.id.to_string(),
        row.action.agent().as_str().to_owned(),
        row.action.as_str().to_owned(),
        row.input.to_string(),
        row.output.to_string(),
        row.success.to_string(),
        serde_json::to_string(&row.metadata).unwrap(),
        row.executed_at.to_string(),
    ]
}

fn health_columns(row: &HealthRow) -> [String; 10] {
    let mut metrics: serde_json::Map<String, Value> =
        row.metrics.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let key = format!("{}/{}/{}", row.namespace, row.policy, row.component);
    metrics.insert(COMPONENT_KEY.to_owned(), key.into());
    [
        row.id.to_string(),
        row.component.clone(),
        row.score.unwrap().to_string(),
        row.trend.clone().unwrap(),
        String::new(),
        row.failure_probability.unwrap().to_string(),
        Value::Object(metrics).to_string(),
        json!(row.warnings).to_string(),
        row.at.to_string(),
        row.at.to_string(),
    ]
}

fn csv<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.for_each(|row| writer.write_record(&row).unwrap());
    writer.into_inner().unwrap()
}

fn checks(rows: &[Row]) -> impl Iterator<Item = &BrainRow> {
    rows.iter().filter_map(|row| if let Row::Brain(row) = row { Some(row) } else { None })
}

fn looks(rows: &[Row]) -> impl Iterator<Item = &HealthRow> {
    rows.iter().filter_map(|row| if let Row::Health(row) = row { Some(row) } else { None })
}

/// The text is made before the time begins.
async fn copy(server: &PostgresServer, rows: &[Row]) -> Duration {
    let url = server.new_database().await;
    prepare(LedgerConfig::Postgres(SecretString::from(url.clone()))).await;
    let texts = [
        ("COPY unified_brain FROM STDIN (FORMAT csv)", csv(checks(rows).map(check_columns))),
        ("COPY ai_proactive_health FROM STDIN (FORMAT csv)", csv(looks(rows).map(health_columns))),
    ];
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let begun = Instant::now();
    let mut copied = 0;
    for (statement, text) in &texts {
        let mut copy = connection.copy_in_raw(statement).await.unwrap();
        for part in text.chunks(64 * 1024) {
            copy.send(part).await.unwrap();
        }
        copied += copy.finish().await.unwrap();
    }
    let took = begun.elapsed();
    assert_eq!(copied, rows.len() as u64);
    took
}

async fn open(file: &Path) -> SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Full)
        .connect()
        .await
        .unwrap()
}

async fn execute_many(rows: &[Row]) -> Duration {
    let folder = folder();
    let file = folder.path().join("ledger.sqlite");
    prepare(LedgerConfig::Sqlite(file.clone())).await;
    let (checks, looks): (Vec<_>, Vec<_>) =
        (checks(rows).map(check_columns).collect(), looks(rows).map(health_columns).collect());
    let mut connection = open(&file).await;
    let begun = Instant::now();
    let mut transaction = connection.begin().await.unwrap();
    for columns in checks {
        let mut query = sqlx::query("INSERT INTO unified_brain VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
        for column in columns {
            query = query.bind(column);
        }
        query.execute(&mut *transaction).await.unwrap();
    }
    for columns in looks {
        let mut query = sqlx::query("INSERT INTO ai_proactive_health VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
        for column in columns {
            query = query.bind(column);
        }
        query.execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    begun.elapsed()
}
