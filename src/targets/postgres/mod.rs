//! PostgreSQL databases: looked at, connected to anew, relieved of sessions that hold connections.
//!
//! The connection of the last good look is kept, one a database: when all connections are taken, or none is given, it is what
//! still sees and acts. Where a database is and who asks is read by reference at the moment of use.

pub mod address;
mod error;
mod observe;
mod sessions;
pub mod spec;
mod target;

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::SecretString;
use sqlx::{Connection as _, postgres::PgConnection};
use tokio::time::timeout;

use super::kubernetes::{ActError, Kubernetes};
use crate::api::{KeyRef, PgBouncer, PostgresDatabase};
use address::Address;
pub use error::{Kind, PostgresError};
pub use observe::PostgresObservation;
pub use sessions::Means;
pub use target::{DatabaseTarget, sessions_in_words};

/// Until a new connection has answered.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// One question, or one order.
const READ_LIMIT: Duration = Duration::from_secs(3);
/// A kept connection that nobody has used for so long is closed: the policy is gone.
const KEPT_FOR: Duration = Duration::from_secs(2 * 3600);
/// Databases with a kept connection.
const MANY: usize = 1024;

/// Looks at databases and acts on them. One for the whole operator.
pub struct Postgres {
    kubernetes: Kubernetes,
    places: Mutex<HashMap<String, (Instant, Place)>>,
}

type Place = Arc<tokio::sync::Mutex<Kept>>;

/// What is kept of a database between two looks.
#[derive(Default)]
struct Kept {
    /// And where it leads to: the Secret may say something else by now.
    connection: Option<(String, PgConnection)>,
    deadlocks: Option<observe::Deadlocks>,
}

impl Kept {
    fn keep(&mut self, address: &Address, connection: PgConnection) {
        if let Some((_, old)) = self.connection.replace((address.place.clone(), connection)) {
            close(old);
        }
    }

    /// One that leads elsewhere is closed.
    fn take(&mut self, address: &Address) -> Option<PgConnection> {
        let (place, connection) = self.connection.take()?;
        if place == address.place {
            return Some(connection);
        }
        close(connection);
        None
    }
}

impl Postgres {
    pub fn new(kubernetes: Kubernetes) -> Self {
        Self { kubernetes, places: Mutex::default() }
    }

    /// A connection anew, the kept one given up; the pooler, if there is one, told to do so too. `again`: a try before this one
    /// failed. It is kept, and has answered a query.
    ///
    /// # Errors
    /// See [`PostgresError`].
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
        let place = self.place(namespace, database);
        let mut kept = place.lock().await;
        if let Some(old) = kept.take(&address) {
            close(old);
        }
        match (observe::connect(&address).await, pooler) {
            (Ok(new), _) => {
                kept.keep(&address, new);
                Ok(())
            }
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(pooler)) => Err(PostgresError::new(error.kind, format!("{error}; {pooler}"))),
        }
    }

    /// Has PgBouncer connect to its server anew.
    async fn refresh(&self, namespace: &str, pooler: &PgBouncer, again: bool) -> Result<(), PostgresError> {
        let url = self.key(namespace, &pooler.admin_secret_ref, "target.postgres.pgBouncer.adminSecretRef").await?;
        let address = Address::for_others(&url).map_err(|why| {
            let name = &pooler.admin_secret_ref.name;
            PostgresError::new(Kind::CredentialsMissing, format!("Secret {name}: the URL of the admin console {why}"))
        })?;
        let address = address.through_poolers();
        let database = pooler.database.replace('"', "\"\"");
        let mut orders = vec![format!("RECONNECT \"{database}\"")];
        if again && pooler.then == crate::api::PoolerEscalation::KillResume {
            orders = vec![format!("KILL \"{database}\""), format!("RESUME \"{database}\"")];
        }
        let work = async {
            let mut connection = PgConnection::connect_with(&address.options).await?;
            for order in orders {
                sqlx::raw_sql(sqlx::AssertSqlSafe(order)).execute(&mut connection).await?;
            }
            connection.close().await
        };
        match timeout(CONNECT_LIMIT + READ_LIMIT, work).await {
            Ok(done) => done.map_err(|error| {
                let error = PostgresError::sorted(&error, &address);
                PostgresError::new(error.kind, format!("the pooler did not do as it was told: {error}"))
            }),
            Err(_) => Err(PostgresError::silent(&address, CONNECT_LIMIT + READ_LIMIT)),
        }
    }

    /// Where it is, read now.
    async fn address(&self, namespace: &str, database: &PostgresDatabase) -> Result<Address, PostgresError> {
        let secret = &database.secret;
        let field = "target.postgres.connectionSecretRef";
        let unusable = |why: String| {
            PostgresError::new(Kind::CredentialsMissing, format!("Secret {} {why} ({field})", secret.name))
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

    fn place(&self, namespace: &str, database: &PostgresDatabase) -> Place {
        let name =
            format!("{namespace}/{}/{}", database.secret.name, database.secret.key.as_deref().unwrap_or_default());
        let mut places = self.places.lock();
        if places.len() >= MANY || places.values().any(|(used, _)| used.elapsed() > KEPT_FOR) {
            let idle = |used: &Instant| used.elapsed() > KEPT_FOR;
            let oldest = places.iter().min_by_key(|(_, (used, _))| *used).map(|(name, _)| name.clone());
            places.retain(|name, (used, _)| !idle(used) && Some(name) != oldest.as_ref());
        }
        let (used, place) = places.entry(name).or_insert_with(|| (Instant::now(), Place::default()));
        *used = Instant::now();
        Arc::clone(place)
    }
}

fn unread(secret: &str, field: &str, why: ActError) -> PostgresError {
    match why {
        ActError::BadRemedy(why) => PostgresError::new(Kind::CredentialsMissing, format!("{why} ({field})")),
        why @ ActError::Forbidden { .. } => PostgresError::new(
            Kind::Forbidden,
            format!("Secret {secret} cannot be read: {why}; set rbac.readCredentials in the chart ({field})"),
        ),
        why => PostgresError::new(Kind::Unread, format!("Secret {secret} could not be read: {why} ({field})")),
    }
}

/// Says goodbye, without anybody waiting for it.
fn close(connection: PgConnection) {
    tokio::spawn(async move {
        let _ = timeout(READ_LIMIT, connection.close()).await;
    });
}
