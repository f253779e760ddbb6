//! PostgreSQL databases: observation, reconnection, and the end of sessions that hold connections.
//!
//! The connection of the last successful observation stays open, one per database: it still observes and acts when the
//! server accepts no new connection. Address and credentials are read from the Secret at each use.

mod end_sessions;
mod error;
mod observe;
mod reconnect;
mod sessions;
pub mod spec;
mod target;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use secrecy::SecretString;
use sqlx::{Connection as _, postgres::PgConnection};
use tokio::time::timeout;

use super::kubernetes::{ActError, Kubernetes};
use crate::api::{KeyRef, PgBouncer, PoolerEscalation, PostgresDatabase, RemediationReason};
use crate::postgres_url::Address;
pub use error::PostgresError;
use error::within;
pub use sessions::SessionEnd;
pub use target::{DatabaseTarget, sessions_in_words};

/// For a new connection and its first answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// For one statement.
const READ_LIMIT: Duration = Duration::from_secs(3);
/// An open connection that was not used for this long is closed: its policy was deleted.
const IDLE_LIMIT: Duration = Duration::from_secs(2 * 3600);
/// Databases with an open connection, at most.
const MAX_DATABASES: usize = 1024;

/// Observes databases and acts on them. One for the whole operator.
pub struct Postgres {
    kubernetes: Kubernetes,
    connections: Mutex<HashMap<String, (Instant, SharedConnection)>>,
}

type SharedConnection = Arc<tokio::sync::Mutex<Connection>>;

/// The open connection to a database, between two observations.
#[derive(Default)]
struct Connection {
    /// With its address: the Secret may hold another one by now.
    open: Option<(String, PgConnection)>,
    deadlocks: Option<observe::Deadlocks>,
}

impl Connection {
    fn keep(&mut self, address: &Address, connection: PgConnection) {
        if let Some((_, old)) = self.open.replace((address.place.clone(), connection)) {
            close(old);
        }
    }

    /// A connection to another address is closed.
    fn take(&mut self, address: &Address) -> Option<PgConnection> {
        let (place, connection) = self.open.take()?;
        if place == address.place {
            return Some(connection);
        }
        close(connection);
        None
    }
}

impl Postgres {
    pub fn new(kubernetes: Kubernetes) -> Self {
        Self { kubernetes, connections: Mutex::default() }
    }

    /// Replaces the open connection by a new one that has answered a query, after the pooler, if there is one, reconnected
    /// to its server. `again`: an earlier attempt failed.
    pub async fn reconnect(
        &self,
        namespace: &str,
        database: &PostgresDatabase,
        again: bool,
    ) -> Result<(), PostgresError> {
        let address = self.address(namespace, database).await?;
        let pooler = match &database.pooler {
            Some(pooler) => self.refresh(namespace, pooler, again).await,
            None => Ok(()),
        };
        let connection = self.connection(namespace, database);
        let mut connection = connection.lock().await;
        if let Some(old) = connection.take(&address) {
            close(old);
        }
        match (observe::connect(&address).await, pooler) {
            (Ok(new), _) => {
                connection.keep(&address, new);
                Ok(())
            }
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(pooler)) => Err(PostgresError::new(error.reason, format!("{error}; {pooler}"))),
        }
    }

    /// Makes PgBouncer reconnect to its server.
    async fn refresh(&self, namespace: &str, pooler: &PgBouncer, again: bool) -> Result<(), PostgresError> {
        let url = self.key(namespace, &pooler.admin_secret_ref, "target.postgres.pgBouncer.adminSecretRef").await?;
        let unusable = |why| {
            let message = format!("Secret {}: the URL of the admin console {why}", pooler.admin_secret_ref.name);
            PostgresError::new(RemediationReason::CredentialsMissing, message)
        };
        let address = Address::for_others(&url).map_err(unusable)?.through_poolers();
        let database = pooler.database.replace('"', "\"\"");
        let mut commands = vec![format!("RECONNECT \"{database}\"")];
        if again && pooler.then == PoolerEscalation::KillResume {
            commands = vec![format!("KILL \"{database}\""), format!("RESUME \"{database}\"")];
        }
        let work = async {
            let mut connection = PgConnection::connect_with(&address.options).await?;
            for command in commands {
                sqlx::raw_sql(sqlx::AssertSqlSafe(command)).execute(&mut connection).await?;
            }
            connection.close().await
        };
        within(&address, CONNECT_LIMIT + READ_LIMIT, work).await.map_err(|error| {
            PostgresError::new(error.reason, format!("the pooler did not execute the command: {error}"))
        })
    }

    /// The address and credentials, read now.
    async fn address(&self, namespace: &str, database: &PostgresDatabase) -> Result<Address, PostgresError> {
        let secret = &database.secret;
        let field = "target.postgres.connectionSecretRef";
        let unusable = |why: String| {
            PostgresError::new(RemediationReason::CredentialsMissing, format!("Secret {} {why} ({field})", secret.name))
        };
        let address = match &secret.key {
            Some(key) => {
                let key = KeyRef { name: secret.name.clone(), key: key.clone() };
                let url = self.key(namespace, &key, field).await?;
                Address::for_others(&url).map_err(|why| unusable(format!("key {}: the URL {why}", key.key)))?
            }
            None => {
                let read = self.kubernetes.secret_keys(namespace, &secret.name).await;
                Address::from_keys(&read.map_err(|why| unread(&secret.name, field, why))?).map_err(unusable)?
            }
        };
        let address = address.through_poolers();
        match &database.ca {
            Some(ca) => {
                let pem = self.key(namespace, ca, "target.postgres.caSecretRef").await?;
                Ok(address.with_authority(&pem))
            }
            None => Ok(address),
        }
    }

    async fn key(&self, namespace: &str, key: &KeyRef, field: &str) -> Result<SecretString, PostgresError> {
        self.kubernetes.secret(namespace, key).await.map_err(|why| unread(&key.name, field, why))
    }

    fn connection(&self, namespace: &str, database: &PostgresDatabase) -> SharedConnection {
        let name =
            format!("{namespace}/{}/{}", database.secret.name, database.secret.key.as_deref().unwrap_or_default());
        let mut connections = self.connections.lock();
        let is_idle = |used: &Instant| used.elapsed() > IDLE_LIMIT;
        if connections.len() >= MAX_DATABASES || connections.values().any(|(used, _)| is_idle(used)) {
            let oldest = connections.iter().min_by_key(|(_, (used, _))| *used).map(|(name, _)| name.clone());
            connections.retain(|name, (used, _)| !is_idle(used) && Some(name) != oldest.as_ref());
        }
        let (used, connection) =
            connections.entry(name).or_insert_with(|| (Instant::now(), SharedConnection::default()));
        *used = Instant::now();
        Arc::clone(connection)
    }
}

fn unread(secret: &str, field: &str, why: ActError) -> PostgresError {
    let (reason, message) = match why {
        ActError::BadRemedy(why) => (RemediationReason::CredentialsMissing, why),
        ActError::Forbidden { .. } => (
            RemediationReason::Forbidden,
            format!("Secret {secret} cannot be read: {why}; set rbac.readCredentials in the chart"),
        ),
        why => (RemediationReason::Unread, format!("Secret {secret} could not be read: {why}")),
    };
    PostgresError::new(reason, format!("{message} ({field})"))
}

/// Closes the connection in the background.
fn close(connection: PgConnection) {
    tokio::spawn(async move {
        let _ = timeout(READ_LIMIT, connection.close()).await;
    });
}

fn time_of_day(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}
