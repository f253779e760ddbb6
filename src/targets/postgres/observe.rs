//! One observation of a database: a new connection, and the report of the server.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use sqlx::{Row as _, postgres::PgConnection};

use super::{CONNECT_LIMIT, Postgres, PostgresError, READ_LIMIT, within};
use crate::postgres_url::Address;
use crate::{
    analyze::observation::{Database, DatabaseFault, Measured, Reading, UnknownReason, Unmeasured},
    api::{PostgresDatabase, RemediationReason},
    targets::Observed,
};

/// Transactions after the oldest unfrozen one at which the server accepts no further one: half of all transaction ids.
const TRANSACTION_IDS: f64 = 2_147_483_648.0;

/// The server's report as one JSON object, in one message each way, so that it works through a pooler too. `sees`: the role
/// may read what other roles' sessions do. `slots`: without those that are reserved for superusers.
const REPORT: &str = "
BEGIN READ ONLY;
SET LOCAL statement_timeout = '2s';
SET LOCAL lock_timeout = '1s';
SELECT json_build_object(
  'version', current_setting('server_version'),
  'standby', pg_is_in_recovery(),
  'sees', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
          OR pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
  'slots', current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0),
  'used', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
  'idle_in_transaction_s', (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - state_change)), 0)
                            FROM pg_stat_activity
                            WHERE datname = current_database() AND state LIKE 'idle in transaction%'),
  'longest_transaction_s', (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)
                            FROM pg_stat_activity
                            WHERE datname = current_database() AND pid <> pg_backend_pid()
                                  AND backend_type = 'client backend'),
  'lock_waits', (SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'),
  'replication_lag_s', CASE
      WHEN NOT pg_is_in_recovery()
          THEN (SELECT max(coalesce(extract(epoch FROM replay_lag), 0)) FROM pg_stat_replication)
      WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
      ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END,
  'oldest_transaction', (SELECT max(age(datfrozenxid)) FROM pg_database),
  'size', pg_database_size(current_database()),
  'deadlocks', (SELECT deadlocks FROM pg_stat_database WHERE datname = current_database())
)::text AS report;
ROLLBACK";

/// Why other roles' sessions are hidden; the role's name follows.
pub(super) const NOT_SEEN: &str = "the role may not read the activity of other roles; fix: GRANT pg_monitor TO";

#[derive(Debug, Deserialize)]
struct ServerReport {
    version: String,
    standby: bool,
    sees: bool,
    slots: i64,
    used: i64,
    idle_in_transaction_s: f64,
    longest_transaction_s: f64,
    lock_waits: f64,
    replication_lag_s: Option<f64>,
    oldest_transaction: Option<f64>,
    size: f64,
    deadlocks: Option<i64>,
}

/// The count of deadlocks at an observation.
pub(super) type Deadlocks = (Instant, i64);

type Metrics = Vec<(&'static str, Reading)>;

impl Postgres {
    /// One observation. Takes at most 8 s. Its connection stays open: it still observes when the server accepts no other.
    pub async fn observe(&self, namespace: &str, database: &PostgresDatabase) -> Observed<Database> {
        let (target, metrics) = match self.report(namespace, database).await {
            Ok((database, metrics)) => (Measured::Known(database), metrics),
            Err(error) if error.is_outage() => {
                (Measured::Known(Database { fault: Some(outage(&error)), ..Database::default() }), Vec::new())
            }
            Err(error) => (Measured::Unknown(error.into()), Vec::new()),
        };
        Observed { at: Timestamp::now(), target, metrics }
    }

    async fn report(&self, namespace: &str, database: &PostgresDatabase) -> Result<(Database, Metrics), PostgresError> {
        let address = self.address(namespace, database).await?;
        let open = self.connection(namespace, database);
        let mut open = open.lock().await;
        let started = Instant::now();
        // A new connection replaces the open one, which is used only when the server accepts no new one.
        let (mut connection, fault) = match connect(&address).await {
            Ok(new) => (new, None),
            Err(error) if !error.is_outage() => return Err(error),
            Err(error) => (open.take(&address).ok_or_else(|| error.clone())?, Some(error)),
        };
        let latency_ms = started.elapsed().as_secs_f64() * 1000.0;
        // A connection that fails is closed.
        let report: ServerReport = match ask(&mut connection, &address, REPORT).await {
            Ok(report) => report,
            Err(error) => return Err(fault.unwrap_or(error)),
        };
        open.keep(&address, connection);
        let before = report.deadlocks.and_then(|count| open.deadlocks.replace((Instant::now(), count)));
        let metrics = metrics(&report, before, database.size_limit, fault.is_none().then_some(latency_ms));
        let label = format!("PostgreSQL {}{}", report.version, if report.standby { ", a standby" } else { "" });
        Ok((Database { label, fault: fault.as_ref().map(outage), ..Database::default() }, metrics))
    }
}

fn outage(error: &PostgresError) -> DatabaseFault {
    DatabaseFault { saturated: error.reason == RemediationReason::Saturated, detail: error.to_string() }
}

/// A new connection that has answered a query.
pub(super) async fn connect(address: &Address) -> Result<PgConnection, PostgresError> {
    let open = async {
        let mut connection = <PgConnection as sqlx::Connection>::connect_with(&address.options).await?;
        sqlx::raw_sql("SELECT 1").fetch_one(&mut connection).await?;
        Ok(connection)
    };
    within(address, CONNECT_LIMIT, open).await
}

/// Runs statements of which one returns the one column `report`, a JSON object.
pub(super) async fn ask<T: DeserializeOwned>(
    connection: &mut PgConnection,
    address: &Address,
    statements: &'static str,
) -> Result<T, PostgresError> {
    let read = async { sqlx::raw_sql(statements).fetch_one(connection).await?.try_get::<String, _>("report") };
    serde_json::from_str(&within(address, READ_LIMIT, read).await?)
        .map_err(|error| PostgresError::new(RemediationReason::BadAnswer, format!("{}: {error}", address.place)))
}

/// `before`: the deadlocks at the observation before this one. `latency_ms`: of the new connection and its first answer.
fn metrics(
    report: &ServerReport,
    before: Option<Deadlocks>,
    size_limit: Option<f64>,
    latency_ms: Option<f64>,
) -> Metrics {
    let known = |value: f64| Reading::new(Measured::Known(value), false);
    let seen = |value: f64| {
        let unseen = || Measured::Unknown(Unmeasured::new(UnknownReason::Refused, format!("{NOT_SEEN} the role")));
        Reading::new(if report.sees { Measured::Known(value) } else { unseen() }, false)
    };
    let mut metrics = vec![
        ("connections_usage", known(100.0 * report.used as f64 / report.slots.max(1) as f64)),
        ("idle_in_transaction_s", seen(report.idle_in_transaction_s)),
        ("longest_transaction_s", seen(report.longest_transaction_s)),
        ("lock_waits", seen(report.lock_waits)),
    ];
    metrics.extend(latency_ms.map(|value| ("latency_ms", known(value))));
    // None: the server has no standby.
    metrics.extend(report.replication_lag_s.map(|lag| ("replication_lag_s", seen(lag.max(0.0)))));
    metrics.extend(report.oldest_transaction.map(|age| ("wraparound_usage", known(100.0 * age / TRANSACTION_IDS))));
    metrics.extend(size_limit.map(|limit| ("storage_usage", known(100.0 * report.size / limit))));
    metrics.extend(report.deadlocks.zip(before).and_then(|(now, (at, count))| {
        let minutes = at.elapsed().max(Duration::from_millis(100)).as_secs_f64() / 60.0;
        // The counter restarts when the statistics are reset.
        (now >= count).then(|| ("deadlocks_per_minute", known((now - count) as f64 / minutes)))
    }));
    metrics
}
