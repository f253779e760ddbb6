//! The file of the spool: its tables and what is done with them, each in one transaction.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Executor as _};

use crate::knowledge::backlog::{BATCH_BYTES, BATCH_ROWS};
use crate::knowledge::row::Row;

/// What an entry takes beside its payload, in bytes: its other columns, and its part of three indexes.
const ENTRY_BYTES: u64 = 100;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS entries (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        -- 0 of a Remediation, 1 of a look or a cycle, 2 of a Remediation and refused by the database.
        kind INTEGER NOT NULL,
        -- Table and id of a healing row, which is kept once however often it is recorded.
        key TEXT UNIQUE,
        bytes INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        payload BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS entries_kind ON entries (kind, seq, bytes);
    CREATE TABLE IF NOT EXISTS counters (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL);
    INSERT OR IGNORE INTO counters VALUES ('dropped', 0), ('corrupt', 0);
    -- What the database refused is tried again by each life of the operator: a person may have changed the database.
    UPDATE entries SET kind = 0 WHERE kind = 2;";

const INSERT: &str = "INSERT INTO entries (kind, key, bytes, checksum, payload) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (key) DO NOTHING";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::knowledge) enum Kind {
    /// Of a Remediation.
    Healing = 0,
    /// Of a look or a cycle.
    Health = 1,
}

/// The oldest entries, healing rows first.
#[derive(Debug, Default)]
pub(in crate::knowledge) struct Oldest {
    pub rows: Vec<Row>,
    /// How many of the rows, the first ones, are healing rows.
    pub healing: usize,
    /// What [`Open::remove`] removes, with what was skipped between: up to here, of each kind.
    healing_until: i64,
    health_until: i64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub healing: u64,
    pub health: u64,
    pub bytes: u64,
}

/// What all lives of the spool have counted.
pub(super) struct Counts {
    pub dropped: u64,
    pub corrupt: u64,
}

pub(super) struct Open {
    connection: SqliteConnection,
    pub totals: Totals,
}

#[derive(Default)]
pub(super) struct Added {
    /// Health rows that made room, or found none; they are in the counter.
    pub dropped: u64,
    /// For healing rows. Nothing was changed.
    pub no_room: bool,
}

impl Open {
    /// Makes what is missing, and tells what earlier lives counted.
    pub(super) async fn new(mut connection: SqliteConnection) -> Result<(Self, Counts), sqlx::Error> {
        connection.execute(TABLES).await?;
        let totals =
            "SELECT count(*) FILTER (WHERE kind = 0), count(*) FILTER (WHERE kind = 1), coalesce(sum(bytes), 0)
            FROM entries";
        let (healing, health, bytes): (i64, i64, i64) = sqlx::query_as(totals).fetch_one(&mut connection).await?;
        let totals =
            Totals { healing: healing.cast_unsigned(), health: health.cast_unsigned(), bytes: bytes.cast_unsigned() };
        let counts = "SELECT (SELECT value FROM counters WHERE name = 'dropped'),
            (SELECT value FROM counters WHERE name = 'corrupt')";
        let (dropped, corrupt): (i64, i64) = sqlx::query_as(counts).fetch_one(&mut connection).await?;
        let counts = Counts { dropped: dropped.cast_unsigned(), corrupt: corrupt.cast_unsigned() };
        Ok((Self { connection, totals }, counts))
    }

    pub(super) async fn append(
        &mut self,
        kind: Kind,
        rows: &[Row],
        max_bytes: u64,
        unsaved: u64,
    ) -> Result<Added, sqlx::Error> {
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
                return Ok(Added { no_room: true, ..Added::default() });
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
        Ok(Added { dropped, no_room: false })
    }

    /// What was found, and the corrupt entries before its end.
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
            let row = Some(payload).filter(|payload| checksum(kind, payload) == sum);
            match row.and_then(|payload| serde_json::from_slice::<Row>(&payload).ok()) {
                Some(row) => taken.rows.push(row),
                None => {
                    corrupt.push(seq);
                    continue;
                }
            }
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
                let gone = "DELETE FROM entries WHERE seq = ?1 RETURNING kind, bytes";
                let gone: (i64, i64) = sqlx::query_as(gone).bind(seq).fetch_one(&mut *transaction).await?;
                totals.forget(gone.0 == 0, 1, gone.1.cast_unsigned());
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
            let of = "SELECT count(*), coalesce(sum(bytes), 0) FROM entries WHERE kind = ?1 AND seq <= ?2";
            let (rows, bytes): (i64, i64) =
                sqlx::query_as(of).bind(kind as i64).bind(until).fetch_one(&mut *transaction).await?;
            let gone = sqlx::query("DELETE FROM entries WHERE kind = ?1 AND seq <= ?2").bind(kind as i64).bind(until);
            gone.execute(&mut *transaction).await?;
            totals.forget(kind == Kind::Healing, rows.cast_unsigned(), bytes.cast_unsigned());
        }
        transaction.commit().await?;
        self.totals = totals;
        if totals.healing + totals.health == 0 {
            // Gives the disk back what the outage took. Whether it works is no matter to what is in it.
            self.connection.execute("PRAGMA incremental_vacuum").await?;
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        }
        Ok(())
    }
}

/// Removes the oldest health rows after the head, of at least so many bytes if there are. Returns how many, and their bytes.
///
/// The head is what one batch takes: it may be on its way, or be in the database already with nobody having been told. A
/// row that is counted as dropped was not written.
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
    fn forget(&mut self, healing: bool, rows: u64, bytes: u64) {
        let of = if healing { &mut self.healing } else { &mut self.health };
        *of = of.saturating_sub(rows);
        self.bytes = self.bytes.saturating_sub(bytes);
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
