//! A Postgres that Render hosts (<https://api-docs.render.com/reference/retrieve-postgres>): observed, restarted, failed over
//! to its standby.
//!
//! Render lists no events of a Postgres, and does not report which of its instances is the primary. Only its status shows the
//! effect of a call: a restart that no observation saw is not known to have happened.

use std::{collections::BTreeMap, time::Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;

use super::{
    Render, WORDS,
    memory::{SAME_REST, key, young},
    usage,
    wire::Postgres,
};
use crate::{
    analyze::{
        metric::{CPU_USAGE, MEMORY_USAGE, STORAGE_USAGE},
        observation::{Database, DatabaseFault, TargetState, Unmeasured},
    },
    api::{ActionKind, ActionPlan, Cause, CircuitStatus, Intent, ProviderProgress, RenderPostgres},
    targets::{
        Observed, Target,
        executor::{Executor, Order},
        kubernetes::ActError,
        providers::{
            account::Account,
            call::Caller,
            call_executor::{CallApi, CallExecutor},
            client::Repeat,
            common::{DatabaseState, HostedError, Metrics, Since},
            recover::{Recover, Standing},
        },
    },
};

/// Render restarts a crashed Postgres itself within this time.
const RECOVERS_WITHIN: SignedDuration = SignedDuration::from_secs(30);
/// A standby takes over automatically when the primary has been silent for 30 s: within a minute
/// (<https://render.com/blog/high-availability-postgresql>).
const FAILS_OVER_WITHIN: SignedDuration = SignedDuration::from_secs(60);
/// Between observations that are further apart anything may have happened.
const WITHOUT_A_BREAK: SignedDuration = SignedDuration::from_secs(20);
/// Statuses of not serving that are remembered; Render has about ten.
const MOST_KINDS: usize = 16;

/// What earlier observations of a Postgres found.
#[derive(Default)]
pub(super) struct Rest {
    metrics: Option<(Instant, Metrics)>,
    /// Since when, and until when, Render has reported the status unavailable, as far as it was observed.
    down: Option<(Timestamp, Timestamp)>,
    /// When the Postgres was last seen not to serve, by its status then. Of a time before which it was not read.
    away: BTreeMap<String, Timestamp>,
}

/// A Postgres that Render hosts.
#[derive(Clone, Copy)]
pub struct RenderPostgresTarget<'a> {
    pub render: &'a Render,
    pub postgres: &'a RenderPostgres,
}

#[async_trait]
impl<'a> Target<'a> for RenderPostgresTarget<'a> {
    async fn observe(&self, namespace: &str) -> Observed<TargetState> {
        let key = self.key(namespace);
        self.render.databases.observe(&key, self.database(namespace, &key)).await.map(TargetState::Database)
    }

    fn executor(&self, order: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        let plan = order.plan;
        if !matches!(plan.intent, Intent::Restart {} | Intent::Failover {}) {
            return None;
        }
        let caller = Caller::new(plan, &self.postgres.postgres_id, WORDS);
        let procedure = Recover { caller, unreachable: plan.cause == Cause::Unreachable };
        Some(Box::new(CallExecutor { api: *self, order, procedure }))
    }

    fn circuit(&self) -> Option<CircuitStatus> {
        self.render.api.client.circuit(&self.postgres.postgres_id)
    }

    fn restore_circuit(&self, shown: &CircuitStatus) {
        self.render.api.restore_circuit(&self.postgres.postgres_id, &self.postgres.access, shown);
    }
}

impl<'a> RenderPostgresTarget<'a> {
    fn key(&self, namespace: &str) -> String {
        key(namespace, &self.postgres.postgres_id, &self.postgres.access)
    }

    async fn account(&self, namespace: &str) -> Result<Account<'a>, HostedError> {
        self.render.api.account(namespace, &self.postgres.postgres_id, &self.postgres.access).await
    }

    async fn database(&self, namespace: &str, key: &str) -> Result<(Database, Metrics), HostedError> {
        let account = self.account(namespace).await?;
        let postgres = self.read(namespace, &account).await?;
        let known = self.render.databases.rest(key, |seen| young(&seen.metrics, SAME_REST));
        let down = self.render.databases.rest(key, |seen| seen.down);
        let metrics = match known {
            // Earlier metrics say nothing of a Postgres that does not serve.
            _ if state(&postgres) != DatabaseState::Serves => Vec::new(),
            Some(known) => known,
            None => {
                let metrics = self.metrics(&account, &postgres).await;
                let new = Some((Instant::now(), metrics.clone()));
                self.render.databases.change(key, |seen| seen.rest.metrics = new);
                metrics
            }
        };
        Ok((database(&postgres, down.map(|(since, _)| since), Timestamp::now())?, metrics))
    }

    /// Reads the current state, which is remembered.
    async fn read(&self, namespace: &str, account: &Account<'_>) -> Result<Postgres, HostedError> {
        let (id, read_at) = (account.id, Timestamp::now());
        let postgres: Postgres =
            self.render.get(account, &format!("read Postgres {id}"), &["postgres", id], &[]).await?;
        self.render.databases.change(&self.key(namespace), |seen| seen.rest.note(&postgres, read_at));
        Ok(postgres)
    }

    async fn metrics(&self, account: &Account<'_>, postgres: &Postgres) -> Metrics {
        let read =
            async |metric| self.render.metric(account, metric, &[account.id], None).await.map_err(Unmeasured::from);
        let lag = async { if postgres.is_replica() { read("replication-lag").await } else { Ok(Vec::new()) } };
        let (cpu, memory, cpu_limit, memory_limit, disk, capacity, active, lag) = tokio::join!(
            read("cpu"),
            read("memory"),
            read("cpu-limit"),
            read("memory-limit"),
            read("disk-usage"),
            read("disk-capacity"),
            read("active-connections"),
            lag,
        );
        let now = Timestamp::now();
        let found = [
            usage::share(CPU_USAGE, &cpu, &cpu_limit, now),
            usage::share(MEMORY_USAGE, &memory, &memory_limit, now),
            usage::share(STORAGE_USAGE, &disk, &capacity, now),
            usage::connections(&active, postgres.max_connections(), &memory_limit, now),
            usage::lag(&lag, now),
        ];
        found.into_iter().flatten().collect()
    }
}

#[async_trait]
impl CallApi<Recover> for RenderPostgresTarget<'_> {
    async fn preflight(&self, namespace: &str, plan: &ActionPlan) -> Result<(), ActError> {
        let read = async { self.read(namespace, &self.account(namespace).await?).await };
        match read.await {
            Err(error) => error.forbids(),
            Ok(postgres) => may_recover(&self.postgres.postgres_id, &postgres, plan.action),
        }
    }

    async fn before(&self, namespace: &str) -> Result<Standing, HostedError> {
        let postgres = self.read(namespace, &self.account(namespace).await?).await?;
        if postgres.is_suspended() {
            return Err(HostedError::Unsupported("it is suspended; resume it in Render's dashboard"));
        }
        let state = by_status(&postgres.status);
        Ok((postgres.status, state))
    }

    async fn after(&self, namespace: &str, sent: &ProviderProgress) -> Result<Since, HostedError> {
        let postgres = self.read(namespace, &self.account(namespace).await?).await?;
        let before = sent.newest_before.as_deref();
        let came = |seen: &Rest| sent.sent_at.map(|sent_at| seen.came(sent_at, before));
        let came = self.render.databases.rest(&self.key(namespace), came).unwrap_or_default();
        let serves = state(&postgres) == DatabaseState::Serves;
        let served = before.is_some_and(|before| by_status(before) == DatabaseState::Serves);
        Ok(Since { status: postgres.status, serves, served, came })
    }

    async fn send(&self, namespace: &str, procedure: &Recover) -> Result<u16, HostedError> {
        let account = self.account(namespace).await?;
        let id = account.id;
        let (what, verb) = match procedure.caller.action {
            ActionKind::Failover => (format!("fail Postgres {id} over"), "failover"),
            _ => (format!("restart Postgres {id}"), "restart"),
        };
        let path = ["postgres", id, verb];
        let answer = self.render.change(&account, Method::POST, (&what, &path), None, Repeat::IfNotDone).await;
        // The next observation reads again.
        self.render.databases.change(&self.key(namespace), |seen| seen.observation = None);
        Ok(answer?.status)
    }
}

impl Rest {
    /// `read_at`: when the request was sent.
    fn note(&mut self, postgres: &Postgres, read_at: Timestamp) {
        let state = state(postgres);
        let continues = self.down.filter(|(_, last)| read_at.duration_since(*last) <= WITHOUT_A_BREAK);
        self.down = (state == DatabaseState::Down).then(|| (continues.map_or(read_at, |(since, _)| since), read_at));
        if matches!(state, DatabaseState::Down | DatabaseState::AtWork) {
            if self.away.len() >= MOST_KINDS {
                self.away.clear();
            }
            self.away.insert(postgres.status.clone(), read_at);
        }
    }

    fn came(&self, sent_at: Timestamp, before: Option<&str>) -> bool {
        self.away.iter().any(|(status, at)| *at >= sent_at && Some(status.as_str()) != before)
    }
}

/// By a status in Render's word.
fn by_status(status: &str) -> DatabaseState {
    match status {
        "available" | "maintenance_scheduled" => DatabaseState::Serves,
        "unavailable" => DatabaseState::Down,
        "creating" | "config_restart" | "maintenance_in_progress" | "recovery_in_progress" | "updating_instance" => {
            DatabaseState::AtWork
        }
        "suspended" => DatabaseState::Suspended,
        "recovery_failed" => DatabaseState::Broken,
        _ => DatabaseState::Unknown,
    }
}

fn state(postgres: &Postgres) -> DatabaseState {
    if postgres.is_suspended() { DatabaseState::Suspended } else { by_status(&postgres.status) }
}

/// What makes an action impossible, to follow the id.
fn in_the_way(postgres: &Postgres, action: ActionKind) -> Option<&'static str> {
    match action {
        _ if postgres.is_suspended() => Some("is suspended; resume it in Render's dashboard"),
        ActionKind::Failover if postgres.is_replica() => {
            Some("is a read replica, which has no standby; name its primary, or remove Failover from its remedies")
        }
        ActionKind::Failover if !postgres.high_availability_enabled => Some(
            "has no standby that could take over; enable high availability in Render's dashboard, or remove Failover from its remedies",
        ),
        _ => None,
    }
}

fn may_recover(id: &str, postgres: &Postgres, action: ActionKind) -> Result<(), ActError> {
    match in_the_way(postgres, action) {
        Some(why) => Err(ActError::BadRemedy(format!("{id} {why}"))),
        None if state(postgres) == DatabaseState::AtWork => {
            Err(ActError::OwnerBusy(format!("{id}: {}", at_work(postgres))))
        }
        None => Ok(()),
    }
}

fn at_work(postgres: &Postgres) -> String {
    format!("Render reports status {:?}, and the database is left to Render", postgres.status)
}

/// `down_since`: since when the status is unavailable, as far as it was observed.
fn database(postgres: &Postgres, down_since: Option<Timestamp>, now: Timestamp) -> Result<Database, HostedError> {
    let more = match postgres {
        _ if postgres.is_replica() => ", a read replica",
        _ if postgres.high_availability_enabled => ", with a standby",
        _ => "",
    };
    let label = format!("PostgreSQL {}{more}", postgres.version);
    let (mut fault, mut shown, mut may_be_fault) = (None, None, false);
    match state(postgres) {
        DatabaseState::Serves => {}
        DatabaseState::Suspended => {
            let by = postgres.suspenders.join(", ");
            shown = Some(format!("it is suspended (by: {by}); resume it in Render's dashboard"));
        }
        DatabaseState::AtWork => shown = Some(at_work(postgres)),
        DatabaseState::Broken => {
            shown = Some(format!("Render reports status {:?}; check Render's dashboard", postgres.status));
        }
        DatabaseState::Down => {
            let since = down_since.unwrap_or(now);
            let recovers = if postgres.high_availability_enabled { FAILS_OVER_WITHIN } else { RECOVERS_WITHIN };
            let detail =
                format!("Render reports status \"unavailable\", observed since {}", since.strftime("%H:%M:%SZ"));
            if now.duration_since(since) < recovers {
                shown = Some(format!("{detail}; it has {recovers:#} to recover without action"));
                may_be_fault = true;
            } else {
                fault = Some(DatabaseFault { saturated: false, detail });
            }
        }
        DatabaseState::Unknown => {
            let message =
                format!("Render does not report the state of the database: its status is {:?}", postgres.status);
            return Err(HostedError::Unsettled(message));
        }
    }
    Ok(Database { label, fault, shown, may_be_fault })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-28T10:00:00Z".parse().unwrap()
    }

    fn ago(seconds: i64) -> Timestamp {
        now() - SignedDuration::from_secs(seconds)
    }

    fn postgres(status: &str, available: bool, role: &str) -> Postgres {
        serde_json::from_value(json!({"id": "dpg-1", "status": status, "suspended": "not_suspended",
            "highAvailabilityEnabled": available, "role": role, "version": "16"}))
        .unwrap()
    }

    #[test]
    fn a_long_outage_is_a_fault_and_work_of_render_is_shown() {
        let seen = |status: &str, available, since| {
            database(&postgres(status, available, "primary"), since, now()).map(|seen| (seen.fault, seen.shown))
        };
        for serves in ["available", "maintenance_scheduled"] {
            assert_eq!(seen(serves, false, None), Ok((None, None)), "{serves}");
        }
        for (available, since, down) in
            [(false, 29, false), (false, 30, true), (true, 30, false), (true, 59, false), (true, 60, true)]
        {
            let (fault, shown) = seen("unavailable", available, Some(ago(since))).unwrap();
            assert_eq!((fault.is_some(), shown.is_some()), (down, !down), "{available} {since}");
            let seen = database(&postgres("unavailable", available, "primary"), Some(ago(since)), now()).unwrap();
            assert_eq!(seen.may_be_fault, !down, "it is checked again soon");
        }
        assert_eq!(seen("unavailable", false, None).unwrap().0, None, "it was seen just now");
        for at_work in
            ["creating", "config_restart", "maintenance_in_progress", "recovery_in_progress", "updating_instance"]
        {
            let (fault, shown) = seen(at_work, false, Some(ago(3600))).unwrap();
            assert!(fault.is_none() && shown.unwrap().contains(at_work));
        }
        assert!(seen("recovery_failed", false, None).unwrap().1.unwrap().contains("dashboard"));
        for unreported in ["unknown", "", "something_new"] {
            assert!(matches!(seen(unreported, false, None), Err(HostedError::Unsettled(_))), "{unreported}");
        }
        let mut suspended = postgres("available", false, "primary");
        (suspended.suspended, suspended.suspenders) = ("suspended".into(), vec!["billing".into()]);
        assert!(database(&suspended, None, now()).unwrap().shown.unwrap().contains("suspended (by: billing)"));
    }

    #[test]
    fn an_outage_begins_with_the_first_of_unbroken_observations() {
        let mut seen = Rest::default();
        let mut note = |status: &str, at| {
            seen.note(&postgres(status, false, "primary"), at);
            seen.down.map(|(since, _)| since)
        };
        assert_eq!(note("unavailable", ago(90)), Some(ago(90)));
        assert_eq!(note("unavailable", ago(50)), Some(ago(50)), "the time between is unknown");
        assert_eq!(note("unavailable", ago(40)), Some(ago(50)));
        assert_eq!(note("config_restart", ago(30)), None);
        assert_eq!(note("unavailable", ago(20)), Some(ago(20)));
        assert_eq!(note("available", ago(10)), None);
    }

    #[test]
    fn a_call_had_an_effect_when_another_outage_was_seen_since() {
        let mut seen = Rest::default();
        seen.note(&postgres("config_restart", false, "primary"), ago(31));
        assert!(!seen.came(ago(30), Some("available")), "that was before the call");
        seen.note(&postgres("unavailable", false, "primary"), ago(20));
        assert!(seen.came(ago(30), Some("available")));
        assert!(!seen.came(ago(30), Some("unavailable")), "as it was before");
        seen.note(&postgres("available", false, "primary"), ago(10));
        assert!(seen.came(ago(30), Some("available")), "it is not forgotten");
        seen.note(&postgres("config_restart", false, "primary"), ago(5));
        assert!(seen.came(ago(30), Some("unavailable")));
        for place in 0..100 {
            let mut other = postgres("config_restart", false, "primary");
            other.status = format!("config_restart{place}");
            seen.note(&other, ago(1));
        }
        assert!(seen.away.len() <= MOST_KINDS);
    }

    #[test]
    fn a_postgres_without_standby_cannot_fail_over() {
        let why = |available, role: &str, action| in_the_way(&postgres("available", available, role), action);
        assert_eq!(why(true, "primary", ActionKind::Failover), None);
        assert!(why(false, "primary", ActionKind::Failover).unwrap().contains("enable high availability"));
        assert!(why(true, "replica", ActionKind::Failover).unwrap().contains("read replica"));
        assert_eq!(why(false, "replica", ActionKind::Restart), None);
        let while_at = |status: &str| may_recover("dpg-1", &postgres(status, true, "primary"), ActionKind::Restart);
        assert!(while_at("available").is_ok() && while_at("unavailable").is_ok());
        let busy = while_at("maintenance_in_progress");
        assert!(matches!(busy, Err(ActError::OwnerBusy(words)) if words.contains("maintenance_in_progress")));
        let suspended = postgres("suspended", true, "primary");
        assert!(in_the_way(&suspended, ActionKind::Restart).unwrap().contains("is suspended"));
    }
}
