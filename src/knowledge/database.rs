//! The common part of both databases: five connections, a schema check before the first use, one retry when a kept
//! connection had died.

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
use super::schema::{self, Dialect, FoundColumn, FoundTable};
use super::sqlite::Sqlite;

/// A stored health check: time, score, the column `metrics`.
pub(super) type StoredCheck = (jiff_sqlx::Timestamp, f64, Value);

/// A kind of database. The methods get an open connection; callers set the time limit. Errors name no place:
/// [`Backend::located`] adds the place.
pub(super) trait Backend {
    const DIALECT: Dialect;
    type Connection: Connection;

    fn options(&self) -> &<Self::Connection as Connection>::Options;

    /// Adds the place to an error, and removes secrets from its text.
    fn located(&self, error: LedgerError) -> LedgerError;

    /// Prepares the place for a connection, and identifies it: a connection that was opened under another identity leads to
    /// something that no longer exists. [`NOTHING_YET`]: connecting creates the place.
    async fn ready_place(&self) -> Result<u64, LedgerError>;

    /// Describes the existing tables; an error when nothing can be written at all.
    async fn inspect(
        &self,
        connection: &mut Self::Connection,
    ) -> Result<(Vec<FoundColumn>, Vec<FoundTable>), LedgerError>;

    /// Creates the missing tables.
    async fn create(&self, connection: &mut Self::Connection) -> Result<(), LedgerError>;

    /// Creates the missing views.
    async fn create_views(&self, connection: &mut Self::Connection) -> Result<(), LedgerError>;

    /// All rows in one transaction; a row whose id exists stays unchanged. Returns how many were new.
    async fn insert(&self, connection: &mut Self::Connection, rows: &[Row]) -> Result<u64, LedgerError>;

    /// The newest checks with a score, newest first.
    async fn history(
        &self,
        connection: &mut Self::Connection,
        component_key: &str,
        limit: i64,
    ) -> Result<Vec<StoredCheck>, LedgerError>;

    /// Deletes Panacea's rows of this kind from before a time, at most `limit`. Returns how many.
    async fn expire(
        &self,
        connection: &mut Self::Connection,
        what: Expiring,
        before: Timestamp,
        limit: i64,
    ) -> Result<u64, LedgerError>;
}

/// Who uses a connection. Each user has a separate connection, so that a batch never delays a healing row or a probe.
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
    /// By [`User`].
    lines: [Line<B::Connection>; 5],
    /// The place whose schema was found good, unless an error contradicted it since. Not a flag: the check of a place that
    /// was removed in the meantime says nothing about the next one.
    schema_seen_at: AtomicU64,
    /// The place whose views were created as far as possible.
    views_made_at: AtomicU64,
}

impl<B: Backend> Lines<B> {
    fn new(backend: B) -> Self {
        let (schema_seen_at, views_made_at) = (AtomicU64::new(NOTHING_YET), AtomicU64::new(NOTHING_YET));
        Self { backend, lines: std::array::from_fn(|_| Line::new()), schema_seen_at, views_made_at }
    }

    /// An open connection to a place whose schema is good.
    async fn lease(&self, user: User) -> Result<Lease<'_, B::Connection>, LedgerError> {
        let located = |error| self.backend.located(error);
        let place = self.backend.ready_place().await.map_err(located)?;
        if place == NOTHING_YET {
            self.forget_schema();
        }
        let is_probe = matches!(user, User::Probes);
        loop {
            let lease = self.lines[user as usize].lease(self.backend.options(), place).await;
            let mut lease = lease.map_err(|error| located(error.into()))?;
            let seen = place != NOTHING_YET && self.schema_seen_at.load(Ordering::Relaxed) == place;
            if seen && !is_probe {
                return Ok(lease);
            }
            match self.check_schema(&mut lease.connection).await {
                Ok(()) => {
                    self.schema_seen_at.store(place, Ordering::Relaxed);
                    // Only by probes: no row waits for a view.
                    if is_probe && self.views_made_at.load(Ordering::Relaxed) != place {
                        self.create_views(&mut lease.connection).await;
                        self.views_made_at.store(place, Ordering::Relaxed);
                    }
                    return Ok(lease);
                }
                // A kept connection that died; the next one is new, so this ends.
                Err(error) if lease.reused && error.reason() == LedgerReason::Unreachable => {}
                Err(error) => {
                    self.forget_schema();
                    return Err(located(error));
                }
            }
        }
    }

    /// Checks that rows can be written; creates missing tables.
    async fn check_schema(&self, connection: &mut B::Connection) -> Result<(), LedgerError> {
        let mut found = self.backend.inspect(connection).await?;
        if !schema::missing(&found.0).is_empty() {
            self.backend.create(connection).await?;
            found = self.backend.inspect(connection).await?;
        }
        schema::validate(B::DIALECT, &found.0, &found.1)
    }

    async fn create_views(&self, connection: &mut B::Connection) {
        if let Err(error) = self.backend.create_views(connection).await {
            let error = self.backend.located(error);
            tracing::info!(
                "ledger: the views were not created: {}; the operator does not need them; `panacea brain schema` prints \
                 their SQL",
                error.message()
            );
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
        match done.as_ref().map_err(LedgerError::reason) {
            // After a refused row the transaction was rolled back, and the connection is as good as before.
            Ok(_) | Err(LedgerReason::RowRefused) => lease.keep(),
            Err(LedgerReason::Unreachable) if lease.reused => return None,
            Err(LedgerReason::WrongSchema) => self.forget_schema(),
            Err(_) => {}
        }
        Some(done.map_err(|error| self.backend.located(error)))
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

    async fn history(&self, component_key: &str, limit: i64) -> Result<Vec<StoredCheck>, LedgerError> {
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
    /// The configuration can never work; every call returns this.
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

    /// Whether rows could be written now; creates missing tables.
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

    /// The newest checks with a score, newest first.
    pub(super) async fn history(&self, key: &str, limit: i64) -> Result<Vec<StoredCheck>, LedgerError> {
        match self {
            Self::Postgres(lines) => lines.history(key, limit).await,
            Self::Sqlite(lines) => lines.history(key, limit).await,
            Self::Unusable(error) => Err(error.clone()),
        }
    }

    /// Deletes Panacea's rows of this kind from before a time, at most `limit`. Returns how many.
    pub(super) async fn expire(&self, what: Expiring, before: Timestamp, limit: i64) -> Result<u64, LedgerError> {
        match self {
            Self::Postgres(lines) => lines.expire(what, before, limit).await,
            Self::Sqlite(lines) => lines.expire(what, before, limit).await,
            Self::Unusable(error) => Err(error.clone()),
        }
    }
}
