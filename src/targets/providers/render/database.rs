//! A Postgres that Render hosts (<https://api-docs.render.com/reference/retrieve-postgres>): looked at, restarted, failed over to
//! its standby.
//!
//! Render lists no events of a Postgres, and does not tell which of its instances is the primary. What has come of a call is
//! told by its status alone, so only what was seen counts: a restart that nobody saw is not known to have been one.

use std::{collections::BTreeMap, time::Instant};

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;

use super::{
    Account, READ_LIMIT, Render,
    observe::{MANY, OLD, SAME_OBSERVATION, SAME_REST, place, young},
    usage,
    wire::Postgres,
};
use crate::{
    analyze::observation::{Database, DatabaseFault, Measured, Reading, Unmeasured},
    api::{ActionKind, RenderPostgres},
    targets::{
        Observed,
        kubernetes::ActError,
        providers::client::Repeat,
        providers::common::{Before, HostedError, Since, Stands},
    },
};

/// One that crashed is started anew by Render itself; so long it has for that.
const RECOVERS_WITHIN: SignedDuration = SignedDuration::from_secs(30);
/// Where a standby takes over by itself when the primary has been silent for 30 s: within a minute
/// (<https://render.com/blog/high-availability-postgresql>).
const FAILS_OVER_WITHIN: SignedDuration = SignedDuration::from_secs(60);
/// Looks that are further apart do not say what was between them.
const WITHOUT_A_BREAK: SignedDuration = SignedDuration::from_secs(20);
/// CrdReadiness of not serving that are remembered; Render knows about ten.
const MOST_KINDS: usize = 16;

/// A Postgres as it was last seen.
#[derive(Default)]
pub(super) struct Remembered {
    look: Option<(Instant, Observed<Database>)>,
    metrics: Option<(Instant, Vec<(&'static str, Reading)>)>,
    /// Since when, and until when, Render has said that it is unavailable, as far as it was seen.
    down: Option<(Timestamp, Timestamp)>,
    /// When it was last seen not to serve, by its status then. Of a time before which it was not asked.
    away: BTreeMap<String, Timestamp>,
}

impl Render {
    /// One look, or the one that was made just now. Takes at most 9 s.
    pub async fn observe_postgres(&self, namespace: &str, asked: &RenderPostgres) -> Observed<Database> {
        let key = place(namespace, &asked.postgres_id, &asked.access);
        let known = self.databases.lock().get(&key).and_then(|seen| young(&seen.look, SAME_OBSERVATION));
        if let Some(look) = known {
            return look;
        }
        let until = Instant::now() + READ_LIMIT;
        let (target, metrics) = match self.observe_postgres_anew(namespace, asked, &key, until).await {
            Ok((database, metrics)) => (Measured::Known(database), metrics),
            Err(error) => (Measured::Unknown(error.into()), Vec::new()),
        };
        let look = Observed { at: Timestamp::now(), target, metrics };
        self.remember_postgres(&key, |seen| seen.look = Some((Instant::now(), look.clone())));
        look
    }

    async fn observe_postgres_anew(
        &self,
        namespace: &str,
        asked: &RenderPostgres,
        key: &str,
        until: Instant,
    ) -> Result<(Database, Vec<(&'static str, Reading)>), HostedError> {
        let account = self.account_of(namespace, &asked.postgres_id, &asked.access).await?;
        let postgres = self.postgres(&account, key, until).await?;
        let (known, down_since) = {
            let all = self.databases.lock();
            let seen = all.get(key);
            (seen.and_then(|seen| young(&seen.metrics, SAME_REST)), seen.and_then(|seen| seen.down))
        };
        let metrics = match known {
            // What was measured before says nothing of one that does not serve.
            _ if stands(&postgres) != Stands::Serves => Vec::new(),
            Some(known) => known,
            None => {
                let metrics = self.metrics_of_postgres(&account, &postgres, until).await;
                self.remember_postgres(key, |seen| seen.metrics = Some((Instant::now(), metrics.clone())));
                metrics
            }
        };
        Ok((database(&postgres, down_since.map(|(since, _)| since), Timestamp::now())?, metrics))
    }

    /// What it is now, for an action.
    async fn postgres_now(&self, namespace: &str, asked: &RenderPostgres) -> Result<Postgres, HostedError> {
        let account = self.account_of(namespace, &asked.postgres_id, &asked.access).await?;
        let key = place(namespace, account.id, account.access);
        self.postgres(&account, &key, Instant::now() + READ_LIMIT).await
    }

    /// What it is now, which is remembered.
    async fn postgres(&self, account: &Account<'_>, key: &str, until: Instant) -> Result<Postgres, HostedError> {
        let (id, asked_at) = (account.id, Timestamp::now());
        let postgres: Postgres =
            self.get(account, &format!("read Postgres {id}"), &["postgres", id], &[], until).await?;
        self.remember_postgres(key, |seen| seen.note(&postgres, asked_at));
        Ok(postgres)
    }

    async fn metrics_of_postgres(
        &self,
        account: &Account<'_>,
        postgres: &Postgres,
        until: Instant,
    ) -> Vec<(&'static str, Reading)> {
        let (now, own) = (Timestamp::now(), &[account.id]);
        let alone =
            async |metric: &str| self.metric(account, metric, own, None, now, until).await.map_err(Unmeasured::from);
        let lag = async { if postgres.is_replica() { alone("replication-lag").await } else { Ok(Vec::new()) } };
        let (cpu, memory, cpu_limit, memory_limit, disk, capacity, active, lag) = tokio::join!(
            alone("cpu"),
            alone("memory"),
            alone("cpu-limit"),
            alone("memory-limit"),
            alone("disk-usage"),
            alone("disk-capacity"),
            alone("active-connections"),
            lag,
        );
        let found = [
            usage::cpu(&cpu, &cpu_limit, now),
            usage::memory(&memory, &memory_limit, now),
            usage::storage(&disk, &capacity, now),
            usage::connections(&active, postgres.max_connections(), &memory_limit, now),
            usage::lag(&lag, now),
        ];
        found.into_iter().flatten().collect()
    }

    fn remember_postgres(&self, key: &str, change: impl FnOnce(&mut Remembered)) {
        let mut all = self.databases.lock();
        if all.len() >= MANY {
            all.retain(|_, seen| young(&seen.look, OLD).is_some());
        }
        change(all.entry(key.to_owned()).or_default());
    }

    /// Whether it can be restarted, or failed over, at all.
    ///
    /// # Errors
    /// BadRemedy, Forbidden, or OwnerBusy while Render is at work on it, in words for a person; what may pass is no reason.
    pub async fn preflight_recovery(
        &self,
        namespace: &str,
        asked: &RenderPostgres,
        action: ActionKind,
    ) -> Result<(), ActError> {
        match self.postgres_now(namespace, asked).await {
            Err(error) => error.forbids(),
            Ok(postgres) => may_recover(&asked.postgres_id, &postgres, action),
        }
    }

    /// Its status before the call.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn before_recovery(&self, namespace: &str, asked: &RenderPostgres) -> Result<Before, HostedError> {
        let postgres = self.postgres_now(namespace, asked).await?;
        if postgres.is_suspended() {
            return Err(HostedError::Unsupported("it is suspended; resume it in Render's dashboard"));
        }
        Ok(Before { newest_restart: Some(postgres.status), ..Before::default() })
    }

    /// Has it restarted, or its standby take over. It is begun when this is answered, and not done yet.
    ///
    /// # Errors
    /// See [`HostedError`]; [`HostedError::not_done`] tells whether it had no effect for certain.
    pub async fn recover(
        &self,
        namespace: &str,
        asked: &RenderPostgres,
        action: ActionKind,
    ) -> Result<u16, HostedError> {
        let account = self.account_of(namespace, &asked.postgres_id, &asked.access).await?;
        let id = account.id;
        let (what, verb) = match action {
            ActionKind::Failover => (format!("fail Postgres {id} over"), "failover"),
            _ => (format!("restart Postgres {id}"), "restart"),
        };
        let path = ["postgres", id, verb];
        let answer = self.change(&account, Method::POST, (&what, &path), None, Repeat::IfNotDone).await;
        // What it is like now is another thing.
        let key = place(namespace, id, &asked.access);
        self.remember_postgres(&key, |seen| seen.look = None);
        Ok(answer?.status)
    }

    /// What has become of it since a call was sent, before which its status was `before`.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn since(
        &self,
        namespace: &str,
        asked: &RenderPostgres,
        sent_at: Timestamp,
        before: Option<&str>,
    ) -> Result<Since, HostedError> {
        let postgres = self.postgres_now(namespace, asked).await?;
        let key = place(namespace, &asked.postgres_id, &asked.access);
        let came = self.databases.lock().get(&key).is_some_and(|seen| seen.came(sent_at, before));
        let serves = stands(&postgres) == Stands::Serves;
        let served = before.is_some_and(|before| by_status(before) == Stands::Serves);
        Ok(Since { status: postgres.status, serves, served, came })
    }
}

impl Remembered {
    /// `asked_at`: when it was asked for.
    fn note(&mut self, postgres: &Postgres, asked_at: Timestamp) {
        let stands = stands(postgres);
        let goes_on = self.down.filter(|(_, last)| asked_at.duration_since(*last) <= WITHOUT_A_BREAK);
        self.down = (stands == Stands::Down).then(|| (goes_on.map_or(asked_at, |(since, _)| since), asked_at));
        if matches!(stands, Stands::Down | Stands::AtWork) {
            if self.away.len() >= MOST_KINDS {
                self.away.clear();
            }
            self.away.insert(postgres.status.clone(), asked_at);
        }
    }

    fn came(&self, sent_at: Timestamp, before: Option<&str>) -> bool {
        self.away.iter().any(|(status, at)| *at >= sent_at && Some(status.as_str()) != before)
    }
}

/// By a status in Render's word.
pub(super) fn by_status(status: &str) -> Stands {
    match status {
        "available" | "maintenance_scheduled" => Stands::Serves,
        "unavailable" => Stands::Down,
        "creating" | "config_restart" | "maintenance_in_progress" | "recovery_in_progress" | "updating_instance" => {
            Stands::AtWork
        }
        "suspended" => Stands::Suspended,
        "recovery_failed" => Stands::Broken,
        _ => Stands::Unknown,
    }
}

fn stands(postgres: &Postgres) -> Stands {
    if postgres.is_suspended() { Stands::Suspended } else { by_status(&postgres.status) }
}

/// What makes an action impossible, in words after its id.
fn in_the_way(postgres: &Postgres, action: ActionKind) -> Option<&'static str> {
    match action {
        _ if postgres.is_suspended() => Some("is suspended; resume it in Render's dashboard"),
        ActionKind::Failover if postgres.is_replica() => {
            Some("is a read replica, which has no standby; name its primary, or take Failover out")
        }
        ActionKind::Failover if !postgres.high_availability_enabled => Some(
            "has no standby that could take over; enable high availability in Render's dashboard, or take Failover out",
        ),
        _ => None,
    }
}

fn may_recover(id: &str, postgres: &Postgres, action: ActionKind) -> Result<(), ActError> {
    match in_the_way(postgres, action) {
        Some(why) => Err(ActError::BadRemedy(format!("{id} {why}"))),
        None if stands(postgres) == Stands::AtWork => Err(ActError::OwnerBusy(format!("{id}: {}", at_work(postgres)))),
        None => Ok(()),
    }
}

fn at_work(postgres: &Postgres) -> String {
    format!("Render says {:?} of it, which it is left to", postgres.status)
}

/// `down_since`: since when it is unavailable, as far as it was seen.
fn database(postgres: &Postgres, down_since: Option<Timestamp>, now: Timestamp) -> Result<Database, HostedError> {
    let more = match postgres {
        _ if postgres.is_replica() => ", a read replica",
        _ if postgres.high_availability_enabled => ", with a standby",
        _ => "",
    };
    let label = format!("PostgreSQL {}{more}", postgres.version);
    let (mut fault, mut shown, mut may_be_fault) = (None, None, false);
    match stands(postgres) {
        Stands::Serves => {}
        Stands::Suspended => {
            let by = postgres.suspenders.join(", ");
            shown = Some(format!("it is suspended (by: {by}); resume it in Render's dashboard"));
        }
        Stands::AtWork => shown = Some(at_work(postgres)),
        Stands::Broken => {
            shown = Some(format!("Render says {:?} of it; see it in Render's dashboard", postgres.status));
        }
        Stands::Down => {
            let since = down_since.unwrap_or(now);
            let recovers = if postgres.high_availability_enabled { FAILS_OVER_WITHIN } else { RECOVERS_WITHIN };
            let detail = format!("Render says that it is unavailable, seen since {}", since.strftime("%H:%M:%SZ"));
            if now.duration_since(since) < recovers {
                shown = Some(format!("{detail}; it has {recovers:#} to get over it by itself"));
                may_be_fault = true;
            } else {
                fault = Some(DatabaseFault { saturated: false, detail });
            }
        }
        Stands::Unknown => {
            let message = format!("Render does not tell how it is: its status is {:?}", postgres.status);
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
    fn what_is_down_for_long_is_a_fault_and_what_render_is_at_is_shown() {
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
            assert_eq!(seen.may_be_fault, !down, "it is looked at again soon");
        }
        assert_eq!(seen("unavailable", false, None).unwrap().0, None, "it was seen just now");
        for at_work in
            ["creating", "config_restart", "maintenance_in_progress", "recovery_in_progress", "updating_instance"]
        {
            let (fault, shown) = seen(at_work, false, Some(ago(3600))).unwrap();
            assert!(fault.is_none() && shown.unwrap().contains(at_work));
        }
        assert!(seen("recovery_failed", false, None).unwrap().1.unwrap().contains("dashboard"));
        for untold in ["unknown", "", "something_new"] {
            assert!(matches!(seen(untold, false, None), Err(HostedError::Unsettled(_))), "{untold}");
        }
        let mut suspended = postgres("available", false, "primary");
        (suspended.suspended, suspended.suspenders) = ("suspended".into(), vec!["billing".into()]);
        assert!(database(&suspended, None, now()).unwrap().shown.unwrap().contains("suspended (by: billing)"));
    }

    #[test]
    fn it_is_down_since_it_was_seen_so_without_a_break() {
        let mut seen = Remembered::default();
        let mut note = |status: &str, at| {
            seen.note(&postgres(status, false, "primary"), at);
            seen.down.map(|(since, _)| since)
        };
        assert_eq!(note("unavailable", ago(90)), Some(ago(90)));
        assert_eq!(note("unavailable", ago(50)), Some(ago(50)), "what was between is not known");
        assert_eq!(note("unavailable", ago(40)), Some(ago(50)));
        assert_eq!(note("config_restart", ago(30)), None);
        assert_eq!(note("unavailable", ago(20)), Some(ago(20)));
        assert_eq!(note("available", ago(10)), None);
    }

    #[test]
    fn something_came_of_a_call_when_it_was_seen_away_in_another_way_since() {
        let mut seen = Remembered::default();
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
    fn what_has_no_standby_cannot_be_failed_over() {
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
