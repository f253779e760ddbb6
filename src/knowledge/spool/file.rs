//! The file of the spool: its tables, and the operations on them, each in one transaction.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::knowledge::backlog::{BATCH_BYTES, BATCH_ROWS};
use crate::knowledge::row::Row;

/// Size of an entry beside its payload, in bytes: its other columns, and its part of three indexes.
const ENTRY_BYTES: u64 = 100;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS entries (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        -- 0 of a Remediation, 1 of a check or a cycle, 2 of a Remediation and refused by the database.
        kind INTEGER NOT NULL,
        -- Table and id of a healing row, which is stored once however often it is recorded.
        key TEXT UNIQUE,
        bytes INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        payload BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS entries_kind ON entries (kind, seq, bytes);
    CREATE TABLE IF NOT EXISTS counters (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL);
    INSERT OR IGNORE INTO counters VALUES ('dropped', 0), ('corrupt', 0);
    -- Each process of the operator tries refused rows again: a person may have changed the database.
    UPDATE entries SET kind = 0 WHERE kind = 2;";

const INSERT: &str = "INSERT INTO entries (kind, key, bytes, checksum, payload) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (key) DO NOTHING";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::knowledge) enum Kind {
    /// Of a Remediation.
    Healing = 0,
    /// Of a check or a cycle.
    Health = 1,
}

/// The oldest entries, healing rows first.
#[derive(Debug, Default)]
pub(in crate::knowledge) struct Oldest {
    pub rows: Vec<Row>,
    /// How many of the rows, the first ones, are healing rows.
    pub healing: usize,
    /// [`Open::remove`] removes up to here, of each kind, with the entries that were skipped between.
    healing_until: i64,
    health_until: i64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub healing: u64,
    pub health: u64,
    pub bytes: u64,
}

pub(super) struct Open {
    connection: SqliteConnection,
    pub totals: Totals,
}

impl Open {
    /// Creates missing tables. Returns also the counts of dropped and of corrupt entries, of all processes.
    pub(super) async fn new(mut connection: SqliteConnection) -> Result<(Self, u64, u64), sqlx::Error> {
        connection.execute(TABLES).await?;
        let numbers =
            "SELECT count(*) FILTER (WHERE kind = 0), count(*) FILTER (WHERE kind = 1), coalesce(sum(bytes), 0),
                (SELECT value FROM counters WHERE name = 'dropped'), (SELECT value FROM counters WHERE name = 'corrupt')
            FROM entries";
        let numbers: (i64, i64, i64, i64, i64) = sqlx::query_as(numbers).fetch_one(&mut connection).await?;
        let [healing, health, bytes, dropped, corrupt] = <[i64; 5]>::from(numbers).map(i64::cast_unsigned);
        Ok((Self { connection, totals: Totals { healing, health, bytes } }, dropped, corrupt))
    }

    /// Returns how many health rows were dropped; they are in the counter. `None`: no room for healing rows, nothing changed.
    pub(super) async fn append(
        &mut self,
        kind: Kind,
        rows: &[Row],
        max_bytes: u64,
        unsaved: u64,
    ) -> Result<Option<u64>, sqlx::Error> {
        let mut totals = self.totals;
        let mut dropped = 0;
        let mut first = 0;
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            let key = (kind == Kind::Healing).then(|| key(row));
            let known = "SELECT EXISTS (SELECT 1 FROM entries WHERE key = ?1)";
            if key.is_some() && sqlx::query_scalar(known).bind(&key).fetch_one(&mut *transaction).await? {
                continue;
            }
            let payload = serde_json::to_vec(row).map_err(|error| sqlx::Error::Encode(error.into()))?;
            entries.push((key, payload));
        }
        let needed: u64 = entries.iter().map(|(_, payload)| entry_bytes(payload)).sum();
        if totals.bytes + needed > max_bytes {
            let (thinned, freed) = thin(&mut transaction, (totals.bytes + needed) - max_bytes).await?;
            totals.health -= thinned;
            totals.bytes -= freed;
            dropped += thinned;
            let mut short = (totals.bytes + needed).saturating_sub(max_bytes);
            if short > 0 && kind == Kind::Healing {
                transaction.rollback().await?;
                return Ok(None);
            }
            while let Some((_, payload)) = entries.get(first).filter(|_| short > 0) {
                short = short.saturating_sub(entry_bytes(payload));
                first += 1;
            }
            dropped += first as u64;
        }
        for (key, payload) in entries.iter().skip(first) {
            let bytes = entry_bytes(payload);
            let done = sqlx::query(INSERT)
                .bind(kind as i64)
                .bind(key)
                .bind(bytes.cast_signed())
                .bind(checksum(kind, payload))
                .bind(payload.as_slice())
                .execute(&mut *transaction)
                .await?;
            let added = done.rows_affected();
            match kind {
                Kind::Health => totals.health += added,
                Kind::Healing => totals.healing += added,
            }
            totals.bytes += bytes * added;
        }
        if dropped + unsaved > 0 {
            raise(&mut transaction, "dropped", dropped + unsaved).await?;
        }
        transaction.commit().await?;
        self.totals = totals;
        Ok(Some(dropped))
    }

    /// The oldest entries, and the corrupt entries among them.
    pub(super) async fn oldest(&mut self) -> Result<(Oldest, Vec<i64>), sqlx::Error> {
        let oldest = "SELECT seq, kind, checksum, payload FROM entries WHERE kind < 2 ORDER BY kind, seq LIMIT ?1";
        let found: Vec<(i64, i64, i64, Vec<u8>)> =
            sqlx::query_as(oldest).bind(BATCH_ROWS as i64).fetch_all(&mut self.connection).await?;
        let (mut taken, mut corrupt, mut weight) = (Oldest::default(), Vec::new(), 0);
        for (seq, kind, sum, payload) in found {
            let kind = if kind == 0 { Kind::Healing } else { Kind::Health };
            weight += payload.len();
            if weight > BATCH_BYTES && !taken.rows.is_empty() {
                break;
            }
            let intact = checksum(kind, &payload) == sum;
            let Some(row) = serde_json::from_slice(&payload).ok().filter(|_| intact) else {
                corrupt.push(seq);
                continue;
            };
            taken.rows.push(row);
            match kind {
                Kind::Healing => {
                    taken.healing += 1;
                    taken.healing_until = seq;
                }
                Kind::Health => taken.health_until = seq,
            }
        }
        if !corrupt.is_empty() {
            let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
            let mut totals = self.totals;
            for seq in &corrupt {
                let delete = "DELETE FROM entries WHERE seq = ?1 RETURNING kind, bytes";
                let (kind, bytes): (i64, i64) = sqlx::query_as(delete).bind(seq).fetch_one(&mut *transaction).await?;
                totals.subtract(kind == 0, 1, bytes);
            }
            raise(&mut transaction, "corrupt", corrupt.len() as u64).await?;
            transaction.commit().await?;
            self.totals = totals;
        }
        Ok((taken, corrupt))
    }

    pub(super) async fn remove(&mut self, written: &Oldest, refused: &[Row]) -> Result<(), sqlx::Error> {
        let mut totals = self.totals;
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        for row in refused {
            let keep = sqlx::query("UPDATE entries SET kind = 2 WHERE key = ?1").bind(key(row));
            totals.healing -= keep.execute(&mut *transaction).await?.rows_affected();
        }
        for (kind, until) in [(Kind::Healing, written.healing_until), (Kind::Health, written.health_until)] {
            let entries = "FROM entries WHERE kind = ?1 AND seq <= ?2";
            let size = AssertSqlSafe(format!("SELECT count(*), coalesce(sum(bytes), 0) {entries}"));
            let (rows, bytes): (i64, i64) =
                sqlx::query_as(size).bind(kind as i64).bind(until).fetch_one(&mut *transaction).await?;
            let delete = sqlx::query(AssertSqlSafe(format!("DELETE {entries}"))).bind(kind as i64).bind(until);
            delete.execute(&mut *transaction).await?;
            totals.subtract(kind == Kind::Healing, rows, bytes);
        }
        transaction.commit().await?;
        self.totals = totals;
        if totals.healing + totals.health == 0 {
            // Frees the disk after an outage.
            self.connection.execute("PRAGMA incremental_vacuum").await?;
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        }
        Ok(())
    }
}

/// Removes the oldest health rows after the head, of at least so many bytes if possible. Returns how many, and their bytes.
///
/// The head is as large as a batch: it may be in progress, or in the database already without a report of that. A row that
/// is counted as dropped was not written.
async fn thin(connection: &mut SqliteConnection, bytes: u64) -> Result<(u64, u64), sqlx::Error> {
    let head = "SELECT coalesce(max(seq), 0) FROM (
            SELECT seq, row_number() OVER (ORDER BY seq) AS number, sum(bytes - ?1) OVER (ORDER BY seq) AS weight
            FROM (SELECT seq, bytes FROM entries WHERE kind = 1 ORDER BY seq LIMIT ?2)
        ) WHERE number = 1 OR weight <= ?3";
    let head: i64 = sqlx::query_scalar(head)
        .bind(ENTRY_BYTES.cast_signed())
        .bind(BATCH_ROWS as i64)
        .bind(BATCH_BYTES as i64)
        .fetch_one(&mut *connection)
        .await?;
    let oldest = "SELECT count(*), coalesce(sum(bytes), 0), coalesce(max(seq), 0) FROM (
            SELECT seq, bytes, sum(bytes) OVER (ORDER BY seq) - bytes AS before FROM (
                SELECT seq, bytes FROM entries WHERE kind = 1 AND seq > ?3 ORDER BY seq LIMIT 1 + ?1 / ?2
            )
        ) WHERE before < ?1";
    let (rows, freed, until): (i64, i64, i64) = sqlx::query_as(oldest)
        .bind(bytes.cast_signed())
        .bind(ENTRY_BYTES.cast_signed())
        .bind(head)
        .fetch_one(&mut *connection)
        .await?;
    let gone = sqlx::query("DELETE FROM entries WHERE kind = 1 AND seq > ?1 AND seq <= ?2").bind(head).bind(until);
    gone.execute(connection).await?;
    Ok((rows.cast_unsigned(), freed.cast_unsigned()))
}

async fn raise(connection: &mut SqliteConnection, counter: &str, by: u64) -> Result<(), sqlx::Error> {
    let raise = sqlx::query("UPDATE counters SET value = value + ?2 WHERE name = ?1");
    raise.bind(counter).bind(by.cast_signed()).execute(connection).await?;
    Ok(())
}

impl Totals {
    fn subtract(&mut self, healing: bool, rows: i64, bytes: i64) {
        let total = if healing { &mut self.healing } else { &mut self.health };
        *total = total.saturating_sub(rows.cast_unsigned());
        self.bytes = self.bytes.saturating_sub(bytes.cast_unsigned());
    }
}

fn key(row: &Row) -> String {
    format!("{} {}", row.table(), row.id())
}

fn entry_bytes(payload: &[u8]) -> u64 {
    payload.len() as u64 + ENTRY_BYTES
}

fn checksum(kind: Kind, payload: &[u8]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[u8::from(kind == Kind::Health)]);
    hasher.update(payload);
    i64::from(hasher.finalize())
}
