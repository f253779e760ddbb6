//! PostgreSQL: one INSERT a table and batch, by arrays.

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use secrecy::SecretString;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::database::{Backend, Look};
use super::error::{LedgerError, LedgerReason};
use super::retention::Expiring;
use super::row::{BrainRow, HealthRow, RollbackRow, Row, clean_json, clean_text, finite, microseconds};
use super::schema::{self, Dialect, FoundColumn, FoundTable};
use super::views;
use crate::postgres_url::Address;

/// Held while tables are made: CREATE TABLE IF NOT EXISTS of two sessions at once can fail on the catalog's own unique
/// index. The number is "panacea\0" in ASCII, so that it is nobody else's by accident.
const CREATE_LOCK: i64 = 0x7061_6e61_6365_6100;

/// The tables' columns; `to_regclass` resolves the name as an INSERT would, by search_path.
const CHECK_COLUMNS: &str = "
    SELECT t.name AS table_name, a.attname::text AS column_name, format_type(a.atttypid, NULL) AS column_type,
           a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS demanding
    FROM unnest($1::text[]) AS t(name)
    JOIN pg_attribute a ON a.attrelid = to_regclass(t.name) AND a.attnum > 0 AND NOT a.attisdropped";

const CHECK_TABLES: &str = "
    SELECT t.name AS table_name,
           EXISTS (
               SELECT 1 FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
               WHERE i.indrelid = to_regclass(t.name) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                     AND i.indnkeyatts = 1 AND a.attname = 'id'
           ) AS id_is_unique,
           EXISTS (
               SELECT 1 FROM pg_index i
               WHERE i.indrelid = to_regclass(t.name) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                     AND i.indnkeyatts = 2 AND ARRAY[t.time, 'id'] = (
                         SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute a
                         WHERE a.attrelid = i.indrelid AND a.attnum IN (i.indkey[0], i.indkey[1]))
           ) AS id_and_time_are_unique,
           has_any_column_privilege(to_regclass(t.name)::oid, 'INSERT') AS may_insert,
           has_any_column_privilege(to_regclass(t.name)::oid, 'SELECT') AS may_select
    FROM unnest($1::text[], $2::text[]) AS t(name, time)
    WHERE to_regclass(t.name) IS NOT NULL";

/// Each INSERT is completed by [`Postgres::unless_there`].
const INSERT_BRAIN: &str = "
    INSERT INTO unified_brain
        (id, agent_name, action_type, input_data, output_data, success, metadata, executed_at)
    SELECT * FROM unnest
        ($1::uuid[], $2::text[], $3::text[], $4::jsonb[], $5::jsonb[], $6::bool[], $7::jsonb[], $8::timestamptz[])";

const INSERT_HEALTH: &str = "
    INSERT INTO ai_proactive_health
        (id, component, health_score, trend, predicted_failure_time, failure_probability, metrics, warnings,
         created_at, updated_at)
    SELECT id, component, score, trend, failure_time, probability, metrics, warnings, at, at FROM unnest
        ($1::uuid[], $2::text[], $3::float8[], $4::text[], $5::timestamptz[], $6::float8[], $7::jsonb[], $8::jsonb[],
         $9::timestamptz[])
        AS new (id, component, score, trend, failure_time, probability, metrics, warnings, at)";

const INSERT_ROLLBACK: &str = "
    INSERT INTO ai_rollback_history
        (id, component, rollback_type, from_state, to_state, success, error_message, executed_at)
    SELECT * FROM unnest
        ($1::uuid[], $2::text[], $3::text[], $4::jsonb[], $5::jsonb[], $6::bool[], $7::text[], $8::timestamptz[])";

/// `$1` is the oldest time that is kept, `$2` how many rows at most. The outer condition on the time leaves out the partitions
/// of a partitioned table that hold only newer rows.
fn delete_expired(what: Expiring) -> &'static str {
    match what {
        Expiring::Rollbacks => {
            "DELETE FROM ai_rollback_history WHERE id IN (
                SELECT rollback.id FROM unified_brain AS action JOIN ai_rollback_history AS rollback USING (id)
                WHERE action.agent_name IN ('self_healing_system', 'enhanced_self_healing', 'self_healing_reconciler')
                      AND action.executed_at < $1
                LIMIT $2)"
        }
        Expiring::Brain => {
            "DELETE FROM unified_brain WHERE executed_at < $1 AND id IN (
                SELECT id FROM unified_brain
                WHERE agent_name IN ('self_healing_system', 'enhanced_self_healing', 'self_healing_reconciler')
                      AND executed_at < $1
                LIMIT $2)"
        }
        Expiring::Health => {
            "DELETE FROM ai_proactive_health WHERE created_at < $1 AND id IN (
                SELECT id FROM ai_proactive_health
                WHERE metrics ->> 'panacea.dev/component' IS NOT NULL AND created_at < $1
                LIMIT $2)"
        }
    }
}

const HISTORY: &str = "
    SELECT created_at, health_score::float8, metrics FROM ai_proactive_health
    WHERE metrics ->> 'panacea.dev/component' = $1 AND health_score IS NOT NULL
    ORDER BY created_at DESC LIMIT $2";

pub(super) struct Postgres {
    address: Address,
    /// Which tables, in the order of [`schema::TABLES`], have a unique index on id and time instead of on id.
    keyed_by_time: [AtomicBool; 3],
}

impl Postgres {
    /// # Errors
    /// `InvalidConfiguration`, in words that quote nothing of the URL.
    pub(super) fn new(url: &SecretString) -> Result<Self, LedgerError> {
        let invalid = |what| LedgerError::new(LedgerReason::InvalidConfiguration, format!("the database URL {what}"));
        let address = Address::from_url(url).map_err(invalid)?;
        Ok(Self { address, keyed_by_time: Default::default() })
    }

    async fn look(&self, connection: &mut PgConnection) -> Result<(Vec<FoundColumn>, Vec<FoundTable>), sqlx::Error> {
        let names: Vec<String> = schema::TABLES.map(str::to_owned).into();
        let columns = sqlx::query_as(CHECK_COLUMNS).bind(&names).fetch_all(&mut *connection).await?;
        let times: Vec<&str> = schema::TABLES.map(schema::time_column).into();
        let tables = sqlx::query_as(CHECK_TABLES).bind(&names).bind(times).fetch_all(&mut *connection).await?;
        Ok((columns, tables))
    }

    async fn create(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let mut transaction = connection.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(CREATE_LOCK).execute(&mut *transaction).await?;
        // Another starter may have been here while we waited.
        let (columns, _) = self.look(&mut transaction).await?;
        for table in schema::missing(&columns) {
            for statement in schema::statements(Dialect::Postgres, table) {
                transaction.execute(*statement).await?;
            }
            tracing::info!(table, "ledger: table made in {}", self.address.place);
        }
        transaction.commit().await
    }
}

impl Backend for Postgres {
    type Connection = PgConnection;

    fn options(&self) -> &PgConnectOptions {
        &self.address.options
    }

    fn sort(&self, error: &sqlx::Error) -> LedgerError {
        let sorted = LedgerError::from_sqlx(error, &self.address.place);
        LedgerError::new(sorted.reason(), self.address.clean(sorted.message()))
    }

    async fn ready_place(&self) -> Result<u64, LedgerError> {
        // Always the same server, as far as a connection can tell.
        Ok(1)
    }

    async fn check(&self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        let read_only: String = sqlx::query_scalar("SELECT current_setting('transaction_read_only')")
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| self.sort(&error))?;
        if read_only == "on" {
            let message = format!("{}: the server or session is read-only (a standby?)", self.address.place);
            return Err(LedgerError::new(LedgerReason::ReadOnly, message));
        }
        let (mut columns, mut tables) = self.look(connection).await.map_err(|error| self.sort(&error))?;
        if !schema::missing(&columns).is_empty() {
            self.create(connection).await.map_err(|error| self.sort(&error))?;
            (columns, tables) = self.look(connection).await.map_err(|error| self.sort(&error))?;
        }
        schema::judge(Dialect::Postgres, &columns, &tables)?;
        for (table, keyed) in schema::TABLES.iter().zip(&self.keyed_by_time) {
            let by_time = tables.iter().any(|facts| facts.table_name == *table && !facts.id_is_unique);
            keyed.store(by_time, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn make_views(&self, connection: &mut PgConnection) {
        if let Err(error) = views::make_postgres(connection, &self.address.place, CREATE_LOCK).await {
            tracing::info!(
                "ledger: the views were not made, nothing else needs them; `panacea brain schema` prints them: {}",
                self.sort(&error)
            );
        }
    }

    async fn insert(&self, connection: &mut PgConnection, rows: &[Row]) -> Result<u64, LedgerError> {
        self.insert_rows(connection, rows).await.map_err(|error| self.sort(&error))
    }

    async fn history(
        &self,
        connection: &mut PgConnection,
        component_key: &str,
        limit: i64,
    ) -> Result<Vec<Look>, LedgerError> {
        let looks: Vec<(jiff_sqlx::Timestamp, f64, Value)> = sqlx::query_as(HISTORY)
            .bind(component_key)
            .bind(limit)
            .fetch_all(connection)
            .await
            .map_err(|error| self.sort(&error))?;
        Ok(looks.into_iter().map(|(at, score, metrics)| (at.to_jiff(), score, metrics)).collect())
    }

    async fn expire(
        &self,
        connection: &mut PgConnection,
        what: Expiring,
        before: Timestamp,
        limit: i64,
    ) -> Result<u64, LedgerError> {
        let delete = sqlx::query(delete_expired(what)).bind(moment(before)).bind(limit);
        let done = delete.execute(connection).await.map_err(|error| self.sort(&error))?;
        Ok(done.rows_affected())
    }
}

impl Postgres {
    /// A conflict with any other unique index is an error, so that no row is lost in silence.
    fn unless_there(&self, insert: &str, table: usize) -> AssertSqlSafe<String> {
        let by_time = self.keyed_by_time.get(table).is_some_and(|keyed| keyed.load(Ordering::Relaxed));
        let time = if by_time { format!(", {}", schema::time_column(schema::TABLES[table])) } else { String::new() };
        AssertSqlSafe(format!("{insert} ON CONFLICT (id{time}) DO NOTHING"))
    }

    async fn insert_rows(&self, connection: &mut PgConnection, rows: &[Row]) -> Result<u64, sqlx::Error> {
        let (mut brain, mut health, mut rollbacks) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            match row {
                Row::Brain(row) => brain.push(row),
                Row::Health(row) => health.push(row),
                Row::Rollback(row) => rollbacks.push(row),
            }
        }
        let mut transaction = connection.begin().await?;
        let mut new = 0;
        if !brain.is_empty() {
            new += self.insert_brain(&mut transaction, &brain).await?;
        }
        if !health.is_empty() {
            new += self.insert_health(&mut transaction, &health).await?;
        }
        if !rollbacks.is_empty() {
            new += self.insert_rollbacks(&mut transaction, &rollbacks).await?;
        }
        transaction.commit().await?;
        Ok(new)
    }

    async fn insert_brain(&self, connection: &mut PgConnection, rows: &[&BrainRow]) -> Result<u64, sqlx::Error> {
        let done = sqlx::query(self.unless_there(INSERT_BRAIN, 0))
            .bind(each(rows, |row| row.id))
            .bind(each(rows, |row| row.action.agent().as_str()))
            .bind(each(rows, |row| row.action.as_str()))
            .bind(each(rows, |row| clean_json(&row.input)))
            .bind(each(rows, |row| clean_json(&row.output)))
            .bind(each(rows, |row| row.success))
            .bind(each(rows, |row| clean_json(&row.metadata.json())))
            .bind(each(rows, |row| moment(row.executed_at)))
            .execute(connection)
            .await?;
        Ok(done.rows_affected())
    }

    async fn insert_health(&self, connection: &mut PgConnection, rows: &[&HealthRow]) -> Result<u64, sqlx::Error> {
        let done = sqlx::query(self.unless_there(INSERT_HEALTH, 1))
            .bind(each(rows, |row| row.id))
            .bind(each(rows, |row| clean_text(&row.component)))
            .bind(each(rows, |row| finite(row.score)))
            .bind(each(rows, |row| row.trend.as_deref().map(clean_text)))
            .bind(each(rows, |row| row.predicted_failure_time.map(moment)))
            .bind(each(rows, |row| finite(row.failure_probability)))
            .bind(each(rows, |row| row.metrics_json()))
            .bind(each(rows, |row| row.warnings_json()))
            .bind(each(rows, |row| moment(row.at)))
            .execute(connection)
            .await?;
        Ok(done.rows_affected())
    }

    async fn insert_rollbacks(&self, connection: &mut PgConnection, rows: &[&RollbackRow]) -> Result<u64, sqlx::Error> {
        let done = sqlx::query(self.unless_there(INSERT_ROLLBACK, 2))
            .bind(each(rows, |row| row.id))
            .bind(each(rows, |row| clean_text(&row.component)))
            .bind(each(rows, |row| clean_text(&row.rollback_type)))
            .bind(each(rows, |row| clean_json(&row.from_state)))
            .bind(each(rows, |row| clean_json(&row.to_state)))
            .bind(each(rows, |row| row.success))
            .bind(each(rows, |row| row.error_message.as_deref().map(clean_text)))
            .bind(each(rows, |row| moment(row.executed_at)))
            .execute(connection)
            .await?;
        Ok(done.rows_affected())
    }
}

/// One column of all rows.
fn each<R, T>(rows: &[&R], column: impl Fn(&R) -> T) -> Vec<T> {
    rows.iter().map(|row| column(row)).collect()
}

fn moment(at: Timestamp) -> jiff_sqlx::Timestamp {
    microseconds(at).to_sqlx()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_and_the_texts_hold_no_password() {
        let backend =
            Postgres::new(&SecretString::from("postgres://u:p%40ss+word@h:5433/db?channel_binding=require")).unwrap();
        assert_eq!(backend.address.place, "PostgreSQL h:5433/db as u");
        for secret in ["p@ss+word", "p%40ss+word"] {
            let error = backend.sort(&sqlx::Error::Protocol(format!("tried {secret} in vain")));
            assert!(error.message().contains("tried *** in vain"), "{error}");
        }
    }
}
