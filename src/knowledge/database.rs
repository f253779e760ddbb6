//! What both databases have in common: five lines to each, the schema seen before the first use, one retry when a
//! kept connection had died.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::Value;
use sqlx::Connection;

use super::LedgerConfig;
use super::connection::{Lease, Line, NOTHING_YET};
use super::error::{LedgerError, LedgerReason};
use super::postgres::Postgres;
use super::retention::Expiring;
use super::row::Row;
use super::sqlite::Sqlite;

/// A look that is read back: time, score, the column `metrics`.
pub(super) type Look = (Timestamp, f64, Value);

/// A kind of database. The methods get an open connection and are bounded in time by their callers.
pub(super) trait Backend {
    type Connection: Connection;

    fn options(&self) -> &<Self::Connection as Connection>::Options;

    /// Sorts an error, and keeps secrets out of its text.
    fn sort(&self, error: &sqlx::Error) -> LedgerError;

    /// Makes ready what a connection needs, and names what a new connection would lead to: a connection that was made
    /// when the name was another one leads to something that is gone. [`NOTHING_YET`]: connecting makes it.
    async fn ready_place(&self) -> Result<u64, LedgerError>;

    /// Looks whether it can be written to, makes missing tables, judges the others.
    async fn check(&self, connection: &mut Self::Connection) -> Result<(), LedgerError>;

    /// Makes the views that are missing, if it may; tells in the log when not.
    async fn make_views(&self, connection: &mut Self::Connection);

    /// All rows in one transaction; a row whose id is there already is left as it is. Returns how many were new.
    async fn insert(&self, connection: &mut Self::Connection, rows: &[Row]) -> Result<u64, LedgerError>;

    /// The newest looks that gave a score, newest first.
    async fn history(
        &self,
        connection: &mut Self::Connection,
        component_key: &str,
        limit: i64,
    ) -> Result<Vec<Look>, LedgerError>;

    /// Deletes our rows of this kind from before a time, at most so many. Returns how many.
    async fn expire(
        &self,
        connection: &mut Self::Connection,
        what: Expiring,
        before: Timestamp,
        limit: i64,
    ) -> Result<u64, LedgerError>;
}

/// Who uses a connection. Each has a line of its own, so that a batch never delays a healing row or a probe.
#[derive(Debug, Clone, Copy)]
pub(super) enum User {
    Batches,
    Records,
    Reads,
    Retention,
    Probes,
}

pub(super) struct Lines<B: Backend> {
    backend: B,
    batches: Line<B::Connection>,
    records: Line<B::Connection>,
    reads: Line<B::Connection>,
    retention: Line<B::Connection>,
    probes: Line<B::Connection>,
    /// The place whose schema was seen to be good, and nothing has contradicted it since. Not a mere yes: a look at a
    /// place that was removed meanwhile must not speak for the next one.
    schema_seen_at: AtomicU64,
    /// The place whose views were seen to, as well as could be.
    views_made_at: AtomicU64,
}

impl<B: Backend> Lines<B> {
    pub(super) fn new(backend: B) -> Self {
        Self {
            backend,
            batches: Line::new(),
            records: Line::new(),
            reads: Line::new(),
            retention: Line::new(),
            probes: Line::new(),
            schema_seen_at: AtomicU64::new(NOTHING_YET),
            views_made_at: AtomicU64::new(NOTHING_YET),
        }
    }

    fn line(&self, user: User) -> &Line<B::Connection> {
        match user {
            User::Batches => &self.batches,
            User::Records => &self.records,
            User::Reads => &self.reads,
            User::Retention => &self.retention,
            User::Probes => &self.probes,
        }
    }

    /// An open connection to a place whose schema is good.
    async fn lease(&self, user: User) -> Result<Lease<'_, B::Connection>, LedgerError> {
        let line = self.line(user);
        let place = self.backend.ready_place().await?;
        if place == NOTHING_YET {
            self.forget_schema();
        }
        loop {
            let mut lease =
                line.lease(self.backend.options(), place).await.map_err(|error| self.backend.sort(&error))?;
            let seen = place != NOTHING_YET && self.schema_seen_at.load(Ordering::Relaxed) == place;
            if seen && !matches!(user, User::Probes) {
                return Ok(lease);
            }
            match self.backend.check(&mut lease.connection).await {
                Ok(()) => {
                    self.schema_seen_at.store(place, Ordering::Relaxed);
                    // By probes alone: no row waits for a view.
                    if matches!(user, User::Probes) && self.views_made_at.load(Ordering::Relaxed) != place {
                        self.backend.make_views(&mut lease.connection).await;
                        self.views_made_at.store(place, Ordering::Relaxed);
                    }
                    return Ok(lease);
                }
                // A kept connection that died; the next one is new, so this ends.
                Err(error) if lease.reused && error.reason() == LedgerReason::Unreachable => {}
                Err(error) => {
                    self.forget_schema();
                    return Err(error);
                }
            }
        }
    }

    fn forget_schema(&self) {
        self.schema_seen_at.store(NOTHING_YET, Ordering::Relaxed);
        self.views_made_at.store(NOTHING_YET, Ordering::Relaxed);
    }

    /// Keeps the connection if it is good. `None`: it had died before its use, try another one.
    fn settle<T>(
        &self,
        lease: Lease<'_, B::Connection>,
        done: Result<T, LedgerError>,
    ) -> Option<Result<T, LedgerError>> {
        match &done {
            // After a refused row the transaction was rolled back and the connection is as good as before.
            Ok(_) => lease.keep(),
            Err(error) if error.reason() == LedgerReason::RowRefused => lease.keep(),
            Err(error) if error.reason() == LedgerReason::Unreachable && lease.reused => return None,
            Err(error) if error.is_schema() => self.forget_schema(),
            Err(_) => {}
        }
        Some(done)
    }

    async fn check(&self) -> Result<(), LedgerError> {
        self.lease(User::Probes).await?.keep();
        Ok(())
    }

    async fn insert(&self, user: User, rows: &[Row]) -> Result<u64, LedgerError> {
        loop {
            let mut lease = self.lease(user).await?;
            let done = self.backend.insert(&mut lease.connection, rows).await;
            if let Some(done) = self.settle(lease, done) {
                return done;
            }
        }
    }

    async fn history(&self, component_key: &str, limit: i64) -> Result<Vec<Look>, LedgerError> {
        loop {
            let mut lease = self.lease(User::Reads).await?;
            let done = self.backend.history(&mut lease.connection, component_key, limit).await;
            if let Some(done) = self.settle(lease, done) {
                return done;
            }
        }
    }

    async fn expire(&self, what: Expiring, before: Timestamp, limit: i64) -> Result<u64, LedgerError> {
        loop {
            let mut lease = self.lease(User::Retention).await?;
            let done = self.backend.expire(&mut lease.connection, what, before, limit).await;
            if let Some(done) = self.settle(lease, done) {
                return done;
            }
        }
    }
}

/// The database that was configured.
pub(super) enum Database {
    Postgres(Lines<Postgres>),
    Sqlite(Lines<Sqlite>),
    /// The configuration can never work; this is what every use answers.
    Unusable(LedgerError),
}

impl Database {
    pub(super) fn new(config: LedgerConfig) -> Self {
        match config {
            LedgerConfig::Postgres(url) => match Postgres::new(&url) {
                Ok(backend) => Self::Postgres(Lines::new(backend)),
                Err(error) => Self::Unusable(error),
            },
            LedgerConfig::Sqlite(path) => Self::Sqlite(Lines::new(Sqlite::new(path))),
        }
    }

    /// Whether rows could be written now; makes missing tables.
    pub(super) async fn check(&self) -> Result<(), LedgerError> {
        match self {
            Self::Postgres(lines) => lines.check().await,
            Self::Sqlite(lines) => lines.check().await,
            Self::Unusable(error) => Err(error.clone()),
        }
    }

    /// All rows or none. Returns how many were new.
    pub(super) async fn insert(&self, user: User, rows: &[Row]) -> Result<u64, LedgerError> {
        match self {
            Self::Postgres(lines) => lines.insert(user, rows).await,
            Self::Sqlite(lines) => lines.insert(user, rows).await,
            Self::Unusable(error) => Err(error.clone()),
        }
    }

    /// The newest looks that gave a score, newest first.
    pub(super) async fn history(&self, component_key: &str, limit: i64) -> Result<Vec<Look>, LedgerError> {
        match self {
            Self::Postgres(lines) => lines.history(component_key, limit).await,
            Self::Sqlite(lines) => lines.history(component_key, limit).await,
            Self::Unusable(error) => Err(error.clone()),
        }
    }

    /// Deletes our rows of this kind from before a time, at most so many. Returns how many.
    pub(super) async fn expire(&self, what: Expiring, before: Timestamp, limit: i64) -> Result<u64, LedgerError> {
        match self {
            Self::Postgres(lines) => lines.expire(what, before, limit).await,
            Self::Sqlite(lines) => lines.expire(what, before, limit).await,
            Self::Unusable(error) => Err(error.clone()),
        }
    }
}
