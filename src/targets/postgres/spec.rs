//! A PostgreSQL database as the target of a component, and its actions.

use std::time::Duration;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    ActionKind, Capabilities, Cause, Checker, Component, HealingPolicySpec, KeyRef, MetricFacts, RemediationTarget,
    Requirement, SupportedAction, TargetFacts, ValidTarget, ValidateTarget, WorkloadKind, amount,
};

/// `spec.target.kind` of a Remediation that acts on a database itself.
pub const POSTGRES_KIND: &str = "Postgres";

/// Neither the end of sessions nor a restart frees disk space, and a restart ends the vacuum that prevents wraparound.
const STORAGE: &str = "storage_usage";
const WRAPAROUND: &str = "wraparound_usage";

pub static DATABASE: Capabilities = Capabilities {
    field: "postgres",
    selector: "has(self.target.postgres)",
    selects: |target| target.postgres.is_some(),
    noun: "a postgres target",
    actions: &[
        SupportedAction::new(ActionKind::RecoverConnections),
        SupportedAction::new(ActionKind::ReleaseConnections).not_relieving(&[STORAGE]),
        SupportedAction::new(ActionKind::CancelQueries).not_relieving(&[STORAGE]),
        SupportedAction::new(ActionKind::Restart).not_relieving(&[STORAGE, WRAPAROUND]).needing(Requirement {
            cel: "has(self.target.postgres.workloadRef)",
            holds: |target| target.postgres.as_ref().is_some_and(|postgres| postgres.workload_ref.is_some()),
            message: "needs target.postgres.workloadRef, the workload that it runs in",
        }),
    ],
    why_not: None,
    // A restart is a person's decision.
    default_remedies: &[
        (ActionKind::RecoverConnections, &[Cause::Unreachable]),
        (ActionKind::ReleaseConnections, &[Cause::Exhaustion]),
    ],
    // 75% of wraparound is 1.6 billion transactions, at which vacuum skips all other work (`vacuum_failsafe_age`): twice the
    // highest acceptable value.
    metrics: &[
        MetricFacts::percent("connections_usage", 80.0, 95.0),
        MetricFacts::percent(STORAGE, 80.0, 95.0),
        MetricFacts::percent(WRAPAROUND, 40.0, 75.0),
        MetricFacts::without_threshold("idle_in_transaction_s"),
        MetricFacts::without_threshold("longest_transaction_s"),
        MetricFacts::without_threshold("lock_waits"),
        MetricFacts::without_threshold("replication_lag_s"),
        MetricFacts::without_threshold("deadlocks_per_minute"),
    ],
    min_check_interval: Duration::ZERO,
};

/// A PostgreSQL database. Each observation opens a new connection and reads pg_stat_activity and similar views in one short
/// read-only transaction. A role with pg_monitor reads all of them; a value that another role may not read is unknown.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PostgresTarget {
    /// Address and credentials. Read at each observation and before each action; the operator's role needs the right
    /// (`rbac.readCredentials` of the chart).
    pub connection_secret_ref: ConnectionRef,
    /// The certificate, in PEM, of the authority that must have issued the server's certificate. With it, and without an
    /// sslmode, the connection uses verify-full. Left out: the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<KeyRef>,
    /// The largest size of the database, as `20Gi`: 100% of storage_usage. Left out: storage_usage is not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[0-9.]+([EPTGMk]i?|Ki)?$"))]
    pub size_limit: Option<String>,
    /// The workload that the database runs in; Restart restarts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_ref: Option<HostRef>,
    /// The PgBouncer in front of the database; RecoverConnections reconnects it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pg_bouncer: Option<PgBouncer>,
}

/// A Secret of the policy's namespace with the address and credentials.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRef {
    /// metadata.name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key of a URL, `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`. Left out: the Secret has uri or url, or
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
    /// The key of the URL of its admin console, `postgres://ADMIN:PASSWORD@HOST:6432/pgbouncer`.
    pub admin_secret_ref: KeyRef,
    /// The database's name in its configuration.
    #[schemars(length(min = 1, max = 63))]
    pub database: String,
    /// The step after a RECONNECT without success. KillResume also drops the clients of this database: they have to
    /// reconnect. Default Nothing.
    #[serde(default)]
    pub then: PoolerEscalation,
}

/// The step after a RECONNECT without success.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PoolerEscalation {
    #[default]
    Nothing,
    /// KILL of the database, then RESUME.
    KillResume,
}

/// A validated postgres target.
#[derive(Debug, Clone, PartialEq)]
pub struct PostgresDatabase {
    pub secret: ConnectionRef,
    pub ca: Option<KeyRef>,
    /// In bytes, above 0.
    pub size_limit: Option<f64>,
    /// The workload that it runs in.
    pub host: Option<(WorkloadKind, String)>,
    pub pooler: Option<PgBouncer>,
}

impl ValidateTarget for PostgresTarget {
    fn validate(&self, check: &mut Checker, _: &Component, _: &HealingPolicySpec) -> Option<ValidTarget> {
        let size_limit = self.size_limit.as_deref().and_then(amount);
        if let Some(limit) = &self.size_limit
            && size_limit.is_none_or(|bytes| bytes <= 0.0)
        {
            check.bad("target.postgres.sizeLimit", format!("{limit:?} is no amount above 0; write for example 20Gi"));
            return None;
        }
        Some(ValidTarget::Postgres(Box::new(PostgresDatabase {
            secret: self.connection_secret_ref.clone(),
            ca: self.ca_secret_ref.clone(),
            size_limit,
            host: self.workload_ref.as_ref().map(|host| (host.kind, host.name.clone())),
            pooler: self.pg_bouncer.clone(),
        })))
    }
}

impl TargetFacts for PostgresDatabase {
    fn capabilities(&self) -> &'static Capabilities {
        &DATABASE
    }

    /// A restart is one of the workload that the database runs in.
    fn acted_on(&self, action: ActionKind, _: &str) -> RemediationTarget {
        let (kind, name) = match &self.host {
            Some((kind, name)) if action == ActionKind::Restart => (kind.to_string(), name),
            _ => (POSTGRES_KIND.to_owned(), &self.secret.name),
        };
        RemediationTarget { kind, name: name.clone() }
    }

    fn describe(&self) -> String {
        format!("{POSTGRES_KIND}/{}", self.secret.name)
    }
}
