//! How long the ledger's questions take on a table of ten million rows: 898 components checked once a minute for a
//! week, in a real PostgreSQL as it is installed. Rows are made by the server itself.

use std::time::Instant;

use panacea::knowledge::{Dialect, Filter, LedgerConfig, Reader, views::ddl};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::{figures, support::postgres::PostgresServer};

/// Times that each question is asked.
const RUNS: usize = 5;

/// Of 1,000 rows 898 are checks, 100 cycles, one an intervention, and one the outcome of a warning. `$1` rows.
const ROWS: &str = "
INSERT INTO unified_brain
SELECT gen_random_uuid(),
       CASE WHEN k < 898 OR k > 997 THEN 'self_healing_system' ELSE 'self_healing_reconciler' END,
       CASE WHEN k < 898 THEN 'proactive_health_check'
            WHEN k < 998 THEN 'reconciliation_cycle'
            WHEN k = 998 THEN 'forecast_outcome'
            ELSE (ARRAY['service_restart', 'service_restart_failed', 'automatic_rollback',
                        'memory_leak_cleanup'])[1 + n / 1000 % 4] END,
       CASE WHEN k < 998 THEN '{\"target\": \"Deployment shop/api\"}'
            ELSE '{\"action\": \"Restart\", \"cause\": \"Crash\"}' END::jsonb,
       jsonb_build_object('status', 'Healthy', 'health_score', 100, 'warnings', '[]'::jsonb,
                          'failure_probability', 0.01, 'failure_probability_1h', 0.001,
                          'failure_probability_6h', 0.002, 'leak', false, 'time_to_failure', NULL,
                          'reasons', '[]'::jsonb)
           || CASE k WHEN 998 THEN '{\"outcome\": \"Prevented\"}' WHEN 999 THEN '{\"phase\": \"Succeeded\"}'
                     ELSE '{}' END::jsonb,
       n % 50 <> 0,
       jsonb_build_object('component', 'component-' || c, 'policy', 'policy-' || c % 10, 'namespace', 'shop',
                          'remediation', CASE WHEN k = 999 THEN 'policy-component-' || n END),
       now() - ($1 - n) * interval '7 days' / $1
FROM (SELECT n, n % 1000 AS k, CASE WHEN n % 1000 < 898 THEN n % 1000 ELSE n / 1000 % 898 END AS c
      FROM generate_series(1, $1) AS n) AS numbers";

pub async fn measure() {
    let rows: i64 = std::env::var("ROWS").map_or(10_000_000, |rows| rows.parse().expect("ROWS is a number"));
    let server = PostgresServer::start();
    let url = server.new_database().await;
    let mut database = PgConnection::connect(&url).await.expect("connect");
    // The index is made when the rows are there, which is quicker and no other index.
    let schema = ddl(Dialect::Postgres);
    let table = schema.split(";\n").next().expect("a statement");
    database.execute(AssertSqlSafe(table)).await.expect("make the table");
    eprintln!("making {rows} rows: some minutes");
    sqlx::query(ROWS).bind(rows).execute(&mut database).await.expect("make the rows");
    database.execute(AssertSqlSafe(schema.as_str())).await.expect("make the indexes");
    // As autovacuum does it by and by.
    database.execute("VACUUM ANALYZE unified_brain").await.expect("vacuum");
    let size = "SELECT pg_size_pretty(pg_table_size('unified_brain')) || ', indexes ' || \
                pg_size_pretty(pg_indexes_size('unified_brain')) || ', questions ' || \
                pg_size_pretty(pg_relation_size('unified_brain_questions'))";
    let size: String = sqlx::query_scalar(size).fetch_one(&mut database).await.expect("its size");
    println!("{rows} rows: {size}\n");
    println!("| question | s, median of {RUNS} (least–most) | rows of the answer |");
    println!("|---|---|---|");

    let reader = Reader::new(&LedgerConfig::Postgres(SecretString::from(url))).expect("a reader");
    let all = Filter::default();
    let (policy, hour) = (
        Filter { policy: Some("policy-7".into()), ..Filter::default() },
        Filter { since: Some(jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1)), ..Filter::default() },
    );
    line("actions", async || reader.actions(&all).await.expect("an answer").len()).await;
    line("components", async || reader.interventions_by_component(&all).await.expect("an answer").len()).await;
    line("success-rates", async || reader.success_by_action(&all).await.expect("an answer").len()).await;
    line("accuracy", async || reader.accuracy_by_day(&all).await.expect("an answer").len()).await;
    line("success-rates --by cause", async || reader.remedies_by_cause(&all).await.expect("an answer").len()).await;
    line("success-rates --since 1h", async || reader.success_by_action(&hour).await.expect("an answer").len()).await;
    line("accuracy --policy", async || reader.accuracy_by_day(&policy).await.expect("an answer").len()).await;
    line("show", async || reader.remediations(&all).await.expect("an answer").len()).await;
    let name = reader.remediations(&all).await.expect("an answer")[0].remediation.clone();
    line("show REMEDIATION", async || reader.incident(&name, None).await.expect("a timeline").events.len()).await;
}

/// The first time is not counted: it fills the caches.
async fn line(question: &str, ask: impl AsyncFn() -> usize) {
    let mut answer = ask().await;
    let mut seconds = Vec::new();
    for _ in 0..RUNS {
        let started = Instant::now();
        answer = ask().await;
        seconds.push(started.elapsed().as_secs_f64());
    }
    println!("| `{question}` | {} | {answer} |", figures::shown(&seconds, 3));
}
