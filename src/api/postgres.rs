//! PostgreSQL databases: how one is reached, what may be done about its connections, and how far that is.

use jiff::Timestamp;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KeyRef, Span, WorkloadKind};

/// `spec.target.kind` of a Remediation that acts on a database itself.
pub const POSTGRES_KIND: &str = "Postgres";

/// `spec.plan.target.kind` of a Remediation for an http target.
pub const HTTP_KIND: &str = "Http";

/// A PostgreSQL database. Each look connects anew and asks, in one short read-only transaction, what pg_stat_activity and
/// its like tell; a role with pg_monitor sees all of it, what another one may not see is unknown.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PostgresTarget {
    /// Where it is and who asks. Read at each look and before each action; the operator's role needs the right
    /// (`rbac.readCredentials` of the chart).
    pub connection_secret_ref: ConnectionRef,
    /// The certificate, in PEM, of the authority that the server's certificate must be from. With it, and without an sslmode
    /// of its own, the connection is verified in full. Left out: the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<KeyRef>,
    /// How large the database may become, as `20Gi`: what storage_usage is measured against. Left out: it is not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[0-9.]+([EPTGMk]i?|Ki)?$"))]
    pub size_limit: Option<String>,
    /// The workload that it runs in: what Restart restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_ref: Option<HostRef>,
    /// The PgBouncer in front of it. RecoverConnections has it connect anew too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pg_bouncer: Option<PgBouncer>,
}

/// A Secret of the policy's namespace that says how to connect.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRef {
    /// metadata.name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key that holds a URL, `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`. Left out: the Secret has uri or url, or
    /// the parts host, port, dbname, user or username, password and sslmode, as CloudNativePG and Crunchy write them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// The workload of the policy's namespace that a database runs in.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct HostRef {
    pub kind: WorkloadKind,
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// A PgBouncer in front of the database.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PgBouncer {
    /// A key that holds the URL of its admin console, `postgres://ADMIN:PASSWORD@HOST:6432/pgbouncer`.
    pub admin_secret_ref: KeyRef,
    /// The database's name in its configuration.
    #[schemars(length(min = 1, max = 63))]
    pub database: String,
    /// What is done when RECONNECT was not enough. KillResume drops the clients of this database too: they have to connect
    /// again. Default Nothing.
    #[serde(default)]
    pub then: PoolerEscalation,
}

/// What is done to a pooler that still does not get through.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PoolerEscalation {
    #[default]
    Nothing,
    /// KILL of the database, then RESUME.
    KillResume,
}

/// Of RecoverConnections: when it is tried.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct Reconnect {
    /// The wait before each try, at most five, each from 100ms to 5m. Default 1s, 2s, 4s, 8s, 16s.
    #[serde(default = "default_delays")]
    #[schemars(length(min = 1, max = 5))]
    pub delays: Vec<Span>,
}

fn default_delays() -> Vec<Span> {
    ["1s", "2s", "4s", "8s", "16s"].map(Span::from).into()
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { delays: default_delays() }
    }
}

/// Which sessions of the database may be ended, or have their query cancelled. Never those of superusers, of replication, of
/// the server itself, or of Panacea.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.idleInTransactionLongerThan) || has(self.idleLongerThan) || has(self.runningLongerThan)", "sessions must say of which age: idleInTransactionLongerThan, idleLongerThan or runningLongerThan"))]
pub struct SessionSelector {
    /// Of ReleaseConnections: sessions that have a transaction open and have not said anything for longer than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_in_transaction_longer_than: Option<Span>,
    /// Of ReleaseConnections: sessions without a transaction that have not said anything for longer than this. A pool of the
    /// application's own may not expect that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_longer_than: Option<Span>,
    /// Of CancelQueries: sessions whose query has been running for longer than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_longer_than: Option<Span>,
    /// Only sessions of these roles; `*` stands for any characters. Left out: of any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 63)))]
    pub users: Vec<String>,
    /// Only sessions with one of these application names; `*` stands for any characters. Left out: with any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 63)))]
    pub application_names: Vec<String>,
    /// At most so many at once, the oldest first. From 1 to 100. Default 10.
    #[serde(default = "default_at_most")]
    #[schemars(range(min = 1, max = 100))]
    pub at_most: u32,
}

fn default_at_most() -> u32 {
    10
}

impl SessionSelector {
    /// The ages that it looks at.
    pub fn ages(&self) -> impl Iterator<Item = &Span> {
        [&self.idle_in_transaction_longer_than, &self.idle_longer_than, &self.running_longer_than].into_iter().flatten()
    }

    /// What the default ladder ends when connections run out: transactions that were left open for a minute.
    pub fn forgotten() -> Self {
        Self {
            idle_in_transaction_longer_than: Some("1m".into()),
            idle_longer_than: None,
            running_longer_than: None,
            users: Vec::new(),
            application_names: Vec::new(),
            at_most: default_at_most(),
        }
    }
}

/// One session of a database.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SessionRef {
    /// The server process.
    pub pid: i32,
    /// When it connected: another session may get the same pid later.
    pub connected_at: Timestamp,
    #[schemars(length(max = 63))]
    pub user: String,
    #[schemars(length(max = 63))]
    pub application: String,
    /// `idle in transaction`, `idle`, `active`.
    #[schemars(length(max = 63))]
    pub state: String,
    /// Since when it is in this state; an active one, since when its query runs.
    pub since: Timestamp,
}
