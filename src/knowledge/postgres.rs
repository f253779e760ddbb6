//! PostgreSQL: one INSERT for each table and batch, with an array for each column.

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::database::{Backend, StoredCheck};
use super::error::{LedgerError, LedgerReason};
use super::retention::Expiring;
use super::row::{Cell, Row, microseconds};
use super::schema::{self, Dialect, FoundColumn, FoundTable};
use super::views;
use crate::postgres_url::Address;

/// Held while tables are created: CREATE TABLE IF NOT EXISTS of two sessions at once can fail on the catalog's own unique
/// index. The number is "panacea\0" in ASCII, so that another program hardly uses it.
pub(super) const CREATE_LOCK: i64 = 0x7061_6e61_6365_6100;

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

/// The expression of the index.
const COMPONENT: &str = "metrics ->> 'panacea.dev/component'";

pub(super) struct Postgres {
    address: Address,
    /// Which tables, in the order of [`schema::TABLES`], have a unique index on id and time instead of on id.
    keyed_by_time: [AtomicBool; 3],
}

impl Postgres {
    /// # Errors
    /// `InvalidConfiguration`; the text quotes nothing of the URL.
    pub(super) fn new(url: &SecretString) -> Result<Self, LedgerError> {
        let invalid = |what| LedgerError::new(LedgerReason::InvalidConfiguration, format!("the database URL {what}"));
        let address = Address::from_url(url).map_err(invalid)?;
        Ok(Self { address, keyed_by_time: Default::default() })
    }

    /// The INSERT into a table, by its place in [`schema::TABLES`]: an array of texts for each column. A conflict with any other
    /// unique index is an error, so that no row is lost silently.
    fn insert_into(&self, table: usize) -> String {
        let by_time = self.keyed_by_time[table].load(Ordering::Relaxed);
        let table = schema::TABLES[table];
        let arrays = schema::columns(table).iter().zip(1..);
        let arrays: Vec<String> =
            arrays.map(|((_, kind), place)| format!("${place}::text[]::{}[]", kind.own(Dialect::Postgres))).collect();
        let time = if by_time { format!(", {}", schema::time_column(table)) } else { String::new() };
        format!(
            "INSERT INTO {table} ({}) SELECT * FROM unnest({}) ON CONFLICT (id{time}) DO NOTHING",
            schema::column_names(table),
            arrays.join(", ")
        )
    }
}

impl Backend for Postgres {
    const DIALECT: Dialect = Dialect::Postgres;
    type Connection = PgConnection;

    fn options(&self) -> &PgConnectOptions {
        &self.address.options
    }

    fn located(&self, error: LedgerError) -> LedgerError {
        let error = error.at(&self.address.place);
        LedgerError::new(error.reason(), self.address.clean(error.message()))
    }

    async fn ready_place(&self) -> Result<u64, LedgerError> {
        // Always the same server, as far as a connection can tell.
        Ok(1)
    }

    async fn inspect(&self, connection: &mut PgConnection) -> Result<(Vec<FoundColumn>, Vec<FoundTable>), LedgerError> {
        let read_only = sqlx::query_scalar("SELECT current_setting('transaction_read_only')");
        let read_only: String = read_only.fetch_one(&mut *connection).await?;
        if read_only == "on" {
            let message = "the server or session is read-only (a standby?)";
            return Err(LedgerError::new(LedgerReason::ReadOnly, message));
        }
        let names = &schema::TABLES[..];
        let times = schema::TABLES.map(schema::time_column);
        let columns = sqlx::query_as(CHECK_COLUMNS).bind(names).fetch_all(&mut *connection).await?;
        let query = sqlx::query_as::<_, FoundTable>(CHECK_TABLES).bind(names).bind(&times[..]);
        let tables = query.fetch_all(connection).await?;
        for (table, keyed) in schema::TABLES.iter().zip(&self.keyed_by_time) {
            let by_time = tables.iter().any(|facts| facts.table_name == *table && !facts.id_is_unique);
            keyed.store(by_time, Ordering::Relaxed);
        }
        Ok((columns, tables))
    }

    async fn create(&self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        let mut transaction = connection.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(CREATE_LOCK).execute(&mut *transaction).await?;
        // Another operator may have created them while this one waited.
        let (columns, _) = self.inspect(&mut transaction).await?;
        for table in schema::missing(&columns) {
            for statement in schema::statements(Dialect::Postgres, table) {
                transaction.execute(AssertSqlSafe(statement)).await?;
            }
            tracing::info!(table, "ledger: created the table in {}", self.address.place);
        }
        Ok(transaction.commit().await?)
    }

    async fn create_views(&self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        Ok(views::create_in_postgres(connection, &self.address.place).await?)
    }

    async fn insert(&self, connection: &mut PgConnection, rows: &[Row]) -> Result<u64, LedgerError> {
        let mut transaction = connection.begin().await?;
        let mut new = 0;
        for (place, table) in schema::TABLES.into_iter().enumerate() {
            let rows = rows.iter().filter(|row| row.table() == table);
            let mut rows: Vec<_> = rows.map(|row| row.cells().into_iter()).collect();
            if rows.is_empty() {
                continue;
            }
            let mut insert = sqlx::query(AssertSqlSafe(self.insert_into(place)));
            for _ in schema::columns(table) {
                let column: Vec<Option<String>> = rows.iter_mut().filter_map(Iterator::next).map(text).collect();
                insert = insert.bind(column);
            }
            new += insert.execute(&mut *transaction).await?.rows_affected();
        }
        transaction.commit().await?;
        Ok(new)
    }

    async fn history(
        &self,
        connection: &mut PgConnection,
        component_key: &str,
        limit: i64,
    ) -> Result<Vec<StoredCheck>, LedgerError> {
        let history = sqlx::query_as(AssertSqlSafe(super::history::select(COMPONENT))).bind(component_key).bind(limit);
        Ok(history.fetch_all(connection).await?)
    }

    async fn expire(
        &self,
        connection: &mut PgConnection,
        what: Expiring,
        before: Timestamp,
        limit: i64,
    ) -> Result<u64, LedgerError> {
        let delete = sqlx::query(AssertSqlSafe(what.delete(COMPONENT))).bind(moment(before)).bind(limit);
        Ok(delete.execute(connection).await?.rows_affected())
    }
}

fn text(cell: Cell) -> Option<String> {
    match cell {
        Cell::Text(text) => text,
        Cell::Bool(value) => Some(value.to_string()),
        Cell::Double(value) => value.map(|value| value.to_string()),
    }
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
            let error = backend.located(sqlx::Error::Protocol(format!("tried {secret} twice")).into());
            assert!(error.message().contains("tried *** twice"), "{error}");
        }
    }
}
