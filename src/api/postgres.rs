//! Actions on the connections of a database.

use jiff::Timestamp;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// Of RecoverConnections: the schedule of the attempts.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct Reconnect {
    /// The wait before each attempt: one to five, each from 100ms to 5m. Default 1s, 2s, 4s, 8s, 16s.
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

/// The sessions to end, or whose queries to cancel. Sessions of superusers, of replication, of the server itself and of
/// Panacea are always excluded.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.idleInTransactionLongerThan) || has(self.idleLongerThan) || has(self.runningLongerThan)", "sessions must set an age: idleInTransactionLongerThan, idleLongerThan or runningLongerThan"))]
pub struct SessionSelector {
    /// Of ReleaseConnections: sessions with an open transaction that have been idle for longer than this. From 100ms to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_in_transaction_longer_than: Option<Span>,
    /// Of ReleaseConnections: sessions without a transaction that have been idle for longer than this. The connection pool of
    /// the application must be able to reconnect. From 100ms to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_longer_than: Option<Span>,
    /// Of CancelQueries: sessions whose query has been running for longer than this. From 100ms to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_longer_than: Option<Span>,
    /// Only sessions of these roles, at most 20; `*` matches any characters. Default: all roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 63)))]
    pub users: Vec<String>,
    /// Only sessions with these application names, at most 20; `*` matches any characters. Default: all names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 63)))]
    pub application_names: Vec<String>,
    /// The most sessions per action, the oldest first. From 1 to 100. Default 10.
    #[serde(default = "default_at_most")]
    #[schemars(range(min = 1, max = 100))]
    pub at_most: u32,
}

fn default_at_most() -> u32 {
    10
}

impl SessionSelector {
    /// The ages that are set.
    pub fn ages(&self) -> impl Iterator<Item = &Span> {
        [&self.idle_in_transaction_longer_than, &self.idle_longer_than, &self.running_longer_than].into_iter().flatten()
    }

    /// The selector of the default ladder: transactions that have been idle for a minute.
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
    /// When the session connected: another session may get the same pid later.
    pub connected_at: Timestamp,
    #[schemars(length(max = 63))]
    pub user: String,
    #[schemars(length(max = 63))]
    pub application: String,
    /// `idle in transaction`, `idle`, `active`.
    #[schemars(length(max = 63))]
    pub state: String,
    /// Since when the session is in this state; of an active session, since when its query runs.
    pub since: Timestamp,
}
