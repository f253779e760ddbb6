//! Actions on databases: connect anew, end sessions, cancel queries.
//!
//! Guarantees: a try to connect changes nothing at the server, so it may be made again by an operator that has died meanwhile;
//! its number is stored after it, so that there may be one try more than the schedule has, and never fewer. Which sessions
//! match is stored before anything is done to them, and only these are ended, if they match still: those that a person has
//! approved, when one was asked.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt as _, runtime::controller::Action};

use super::{EXECUTE_LIMIT, Step};
use crate::{
    api::{
        ActionKind, DatabaseStatus, Phase, PostgresDatabase, RemediationStatus, SessionSelector, ValidPolicy,
        ValidTarget, milliseconds,
    },
    controller::{Error, events::Reason, revalidate::withdrawn},
    targets::postgres::{Kind, Means, PostgresError},
};

/// Sessions that are named one by one in a message.
const NAMED: usize = 5;

impl Step<'_> {
    /// The sessions that an action would end. Nothing is done.
    pub(super) async fn choose_sessions(&self, policy: &ValidPolicy) -> Result<DatabaseStatus, PostgresError> {
        let spec = &self.remediation.spec;
        let (Some(database), Some(selector)) = (self.database(Some(policy)), &spec.sessions) else {
            return Ok(DatabaseStatus::default());
        };
        let sessions = self.ctx.targets.postgres.matching(&policy.namespace, database, selector).await?;
        Ok(DatabaseStatus { sessions, ..DatabaseStatus::default() })
    }

    /// How old a session must be to match.
    pub(super) fn youngest(&self) -> SignedDuration {
        let selector = self.remediation.spec.sessions.as_ref();
        let ages = selector.into_iter().flat_map(SessionSelector::ages);
        ages.filter_map(|age| age.parse().ok()).min().unwrap_or_default()
    }

    /// The database that it is about, if the policy still means the same.
    fn database<'p>(&self, policy: Option<&'p ValidPolicy>) -> Option<&'p PostgresDatabase> {
        match &policy?.component(&self.remediation.spec.component)?.target {
            ValidTarget::Postgres(database) if database.secret.name == self.remediation.spec.target.name => {
                Some(database)
            }
            _ => None,
        }
    }

    pub(super) async fn run_database(
        &self,
        status: RemediationStatus,
        policy: Option<&ValidPolicy>,
    ) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        if let Some((reason, why)) = withdrawn(spec, policy) {
            let tried = status.database.as_ref().is_some_and(|database| database.attempts > 0);
            let (phase, what) =
                if tried { (Phase::Failed, "it is not tried again") } else { (Phase::Expired, "nothing was done") };
            return self.finish(status, phase, reason, &format!("{why}; {what}")).await;
        }
        let Some(database) = self.database(policy) else {
            let message = "the component is something else now; nothing was done";
            return self.finish(status, Phase::Failed, "TargetChanged", message).await;
        };
        match spec.action {
            ActionKind::RecoverConnections => self.recover(status, database).await,
            ActionKind::ReleaseConnections => self.end_sessions(status, database, Means::End).await,
            ActionKind::CancelLongQueries => self.end_sessions(status, database, Means::Cancel).await,
            other => {
                let message = format!("{other} cannot be done to a database; nothing was done");
                self.finish(status, Phase::Failed, "NoTarget", &message).await
            }
        }
    }

    /// One try of the schedule, when its time has come.
    async fn recover(&self, mut status: RemediationStatus, database: &PostgresDatabase) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        let delays: Vec<SignedDuration> = spec
            .reconnect
            .iter()
            .flat_map(|reconnect| &reconnect.delays)
            .filter_map(|delay| delay.parse().ok())
            .collect();
        let mut done = status.database.clone().unwrap_or_default();
        let since = done.last_at.or(status.started_at).unwrap_or(spec.decided_at);
        let Some(delay) = delays.get(done.attempts as usize) else {
            let errors = done.errors.join("; ");
            let tries = done.attempts;
            let message = format!("no connection in {tries} tries, the last at {}: {errors}", moment(since));
            self.ctx.events.about_remediation(self.remediation, Reason::PersonNeeded, &message).await;
            return self.finish(status, Phase::Failed, "NotRecovered", &message).await;
        };
        let left = (since + *delay).duration_since(Timestamp::now());
        if left.is_positive() {
            return Ok(Action::requeue(Duration::try_from(left).unwrap_or_default()));
        }
        let namespace = self.remediation.namespace().unwrap_or_default();
        let tried = self.ctx.targets.postgres.reconnect(&namespace, database, done.attempts > 0).await;
        done.attempts += 1;
        done.last_at = Some(milliseconds(Timestamp::now()));
        let attempt = done.attempts;
        match tried {
            Ok(()) => {
                status.database = Some(done);
                let message = format!("connected at try {attempt}; watching whether it stays so");
                self.executed(status, "Executed", message).await
            }
            Err(error) => {
                done.errors.push(error.to_string());
                let next = delays.get(attempt as usize);
                status.message = match next {
                    Some(next) => format!("try {attempt} of {}: {error}; the next one in {next:#}", delays.len()),
                    None => format!("try {attempt} of {}: {error}", delays.len()),
                };
                status.database = Some(done);
                if !error.may_pass() {
                    let message = format!("{error}; trying again does not help");
                    return self.finish(status, Phase::Failed, error.reason(), &message).await;
                }
                self.write(&status, false).await?;
                let subject = format!("try-{attempt}");
                self.ctx.events.about_step(self.remediation, Reason::Acting, &subject, &status.message).await;
                let wait = next.and_then(|next| Duration::try_from(*next).ok()).unwrap_or_default();
                Ok(Action::requeue(wait.max(Duration::from_millis(10))))
            }
        }
    }

    async fn end_sessions(
        &self,
        mut status: RemediationStatus,
        database: &PostgresDatabase,
        means: Means,
    ) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        let (Some(selector), Some(chosen)) = (&spec.sessions, status.database.clone()) else {
            let message = "the remediation does not say which sessions; nothing was done";
            return self.finish(status, Phase::Failed, "NoTarget", message).await;
        };
        let namespace = self.remediation.namespace().unwrap_or_default();
        let postgres = &self.ctx.targets.postgres;
        match postgres.end(&namespace, database, selector, &chosen.sessions, means).await {
            Ok(ended) => {
                let what = match means {
                    Means::End => "sessions were ended",
                    Means::Cancel => "queries were cancelled",
                };
                let pids: Vec<String> = ended.iter().map(i32::to_string).collect();
                let gone = chosen.sessions.len().saturating_sub(ended.len());
                let others = if gone > 0 {
                    format!(", {gone} were over before or do something else now")
                } else {
                    String::new()
                };
                let message = format!(
                    "{} {what} (pids {}){others}; watching whether it helps",
                    ended.len(),
                    if pids.is_empty() { "none".to_owned() } else { pids.join(", ") }
                );
                status.database = Some(DatabaseStatus { ended: Some(ended), ..chosen });
                self.executed(status, "Executed", message).await
            }
            Err(error) => {
                let begun = status.started_at.unwrap_or(spec.decided_at);
                if error.may_pass() && error.kind != Kind::Failed && Timestamp::now() < begun + EXECUTE_LIMIT {
                    let words = format!("{error}; it is tried again");
                    if status.message != words {
                        status.message = words;
                        self.write(&status, false).await?;
                    }
                    return Ok(Action::requeue(Duration::from_secs(2)));
                }
                self.finish(status, Phase::Failed, error.reason(), &error.to_string()).await
            }
        }
    }
}

/// ": it would end 7 sessions (pid 12 of app, psql, idle in transaction since 10:11:12Z; …)".
pub(super) fn sessions_in_words(database: &DatabaseStatus) -> String {
    let named = database.sessions.iter().take(NAMED).map(|one| {
        format!("pid {} of {}, {:?}, {} since {}", one.pid, one.user, one.application, one.state, moment(one.since))
    });
    let named: Vec<String> = named.collect();
    let count = database.sessions.len();
    let more = if count > NAMED { format!("; and {} more", count - NAMED) } else { String::new() };
    let sessions = if count == 1 { "session" } else { "sessions" };
    format!(" would be done to {count} {sessions} ({}{more}), and", named.join("; "))
}

fn moment(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}
