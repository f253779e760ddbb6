//! A PostgreSQL database, and the remedies for it.

use super::{Checker, HOUR, MINUTE, Threshold};
use crate::api::{
    ActionKind, ConnectionRef, KeyRef, PgBouncer, PostgresTarget, Reconnect, Remedy, SessionSelector, Target,
    WorkloadKind, amount,
};

/// A PostgreSQL database whose every value is usable.
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

/// Warning and critical of what a database brings by itself, all in percent. Wraparound, which Render does not tell: 75% are the
/// 1.6 billion transactions at which vacuum drops everything else (`vacuum_failsafe_age`), twice as far as anybody should let it
/// come.
pub(super) fn default_thresholds(target: &Target) -> impl Iterator<Item = (&'static str, Threshold)> + use<> {
    let of_render = target.render.as_ref().is_some_and(|render| render.postgres_id.is_some());
    let brought = if target.postgres.is_some() { 3 } else { 2 * usize::from(of_render) };
    [("connections_usage", 80.0, 95.0), ("storage_usage", 80.0, 95.0), ("wraparound_usage", 40.0, 75.0)]
        .map(|(name, warning, critical)| (name, Threshold { warning, critical }))
        .into_iter()
        .take(brought)
}

impl Checker {
    pub(super) fn postgres(&mut self, target: &PostgresTarget) -> Option<PostgresDatabase> {
        let size_limit = match target.size_limit.as_deref().map(|limit| (limit, amount(limit))) {
            None => None,
            Some((_, Some(bytes))) if bytes > 0.0 => Some(bytes),
            Some((limit, _)) => {
                self.bad(
                    "target.postgres.sizeLimit",
                    format!("{limit:?} is no amount above 0; write for example 20Gi"),
                );
                return None;
            }
        };
        Some(PostgresDatabase {
            secret: target.connection_secret_ref.clone(),
            ca: target.ca_secret_ref.clone(),
            size_limit,
            host: target.workload_ref.as_ref().map(|host| (host.kind, host.name.clone())),
            pooler: target.pg_bouncer.clone(),
        })
    }

    /// When it is tried, the schedule of one that says nothing filled in.
    pub(super) fn reconnect(&mut self, field: &str, remedy: &Remedy) -> Option<Reconnect> {
        if remedy.action != ActionKind::RecoverConnections {
            if remedy.reconnect.is_some() {
                self.bad(&format!("{field}.reconnect"), "only RecoverConnections has it; take it out".to_owned());
            }
            return None;
        }
        let reconnect = remedy.reconnect.clone().unwrap_or_default();
        if !(1..=5).contains(&reconnect.delays.len()) {
            let tries = reconnect.delays.len();
            self.bad(&format!("{field}.reconnect.delays"), format!("has {tries} waits; it must be 1 to 5"));
        }
        for (index, delay) in reconnect.delays.iter().enumerate() {
            self.duration(&format!("{field}.reconnect.delays[{index}]"), delay, 100, 5 * MINUTE);
        }
        Some(reconnect)
    }

    /// Which sessions, the selector of one that says nothing filled in.
    pub(super) fn sessions(&mut self, field: &str, remedy: &Remedy) -> Option<SessionSelector> {
        let field = format!("{field}.sessions");
        if !remedy.action.ends_sessions() {
            if remedy.sessions.is_some() {
                let message = "only ReleaseConnections and CancelQueries have it; take it out";
                self.bad(&field, message.to_owned());
            }
            return None;
        }
        let cancels = remedy.action == ActionKind::CancelQueries;
        let Some(selector) = &remedy.sessions else {
            if cancels {
                self.bad(&field, "is missing; CancelQueries needs sessions.runningLongerThan".to_owned());
            }
            return Some(SessionSelector::forgotten());
        };
        let ages = [
            ("idleInTransactionLongerThan", &selector.idle_in_transaction_longer_than, !cancels),
            ("idleLongerThan", &selector.idle_longer_than, !cancels),
            ("runningLongerThan", &selector.running_longer_than, cancels),
        ];
        if !ages.iter().any(|(_, age, fits)| *fits && age.is_some()) {
            let fitting: Vec<&str> = ages.iter().filter(|(.., fits)| *fits).map(|(name, ..)| *name).collect();
            self.bad(&field, format!("says of no age; {} needs {}", remedy.action, fitting.join(" or ")));
        }
        for (name, age, fits) in ages {
            let Some(age) = age else { continue };
            let field = format!("{field}.{name}");
            if !fits {
                self.bad(&field, format!("{} does not look at it; take it out", remedy.action));
            }
            self.duration(&field, age, 100, 24 * HOUR);
        }
        self.range(&format!("{field}.atMost"), selector.at_most, 1, 100);
        Some(selector.clone())
    }
}
