//! Sessions that hold connections: their selection and their end.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use sqlx::{AssertSqlSafe, Row as _, postgres::PgConnection};
use tokio::sync::OwnedMutexGuard;

use super::{
    Connection, Postgres, PostgresError, READ_LIMIT,
    observe::{NOT_SEEN, ask, connect},
    within,
};
use crate::api::{PostgresDatabase, RemediationReason, SessionRef, SessionSelector, Span};
use crate::postgres_url::{APPLICATION, Address};

/// All sessions of clients in this database except those that are never ended. Times in microseconds: exact in both directions.
const LIST: &str = "
BEGIN READ ONLY;
SET LOCAL statement_timeout = '2s';
SELECT json_build_object(
  'sees', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
          OR pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
  'now', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
  'sessions', coalesce((SELECT json_agg(s ORDER BY s.since) FROM (
      SELECT pid, a.usename::text AS user, left(coalesce(application_name, ''), 63) AS application, state,
             (extract(epoch FROM backend_start) * 1000000)::bigint AS connected_at,
             (extract(epoch FROM CASE WHEN state = 'active' THEN query_start ELSE state_change END) * 1000000)::bigint
                 AS since
      FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
      WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
            AND NOT r.rolsuper AND NOT r.rolreplication AND state IS NOT NULL AND state_change IS NOT NULL
      ORDER BY 6 LIMIT 5000) s), '[]')
)::text AS report;
ROLLBACK";

#[derive(Debug, Deserialize)]
struct Listed {
    sees: bool,
    now: i64,
    sessions: Vec<Session>,
}

#[derive(Debug, Clone, Deserialize)]
struct Session {
    pid: i32,
    user: String,
    application: String,
    state: String,
    connected_at: i64,
    since: Option<i64>,
}

/// How a session is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The server closes its connection.
    End,
    /// The server cancels its query; the connection stays.
    Cancel,
}

impl SessionEnd {
    fn function(self) -> &'static str {
        match self {
            Self::End => "pg_terminate_backend",
            Self::Cancel => "pg_cancel_backend",
        }
    }
}

impl Postgres {
    /// The sessions that match, the oldest first, at most as many as the selector allows. Changes nothing. The error is
    /// NotAllowed when the role may not read the activity of other sessions.
    pub async fn matching(
        &self,
        namespace: &str,
        database: &PostgresDatabase,
        selector: &SessionSelector,
    ) -> Result<Vec<SessionRef>, PostgresError> {
        let (address, mut open, mut connection) = self.usable(namespace, database).await?;
        let listed: Listed = ask(&mut connection, &address, LIST).await?;
        open.keep(&address, connection);
        if !listed.sees {
            let message = format!("{}: {NOT_SEEN} {}", address.place, address.options.get_username());
            return Err(PostgresError::new(RemediationReason::NotAllowed, message));
        }
        Ok(select(listed.sessions, listed.now, selector))
    }

    /// Ends those of the sessions that the server has in exactly this state, and returns the pids that it signalled. Does
    /// not touch a session that has started another query since, or that has the pid of an earlier session. The error is
    /// NotAllowed without pg_signal_backend.
    pub async fn end(
        &self,
        namespace: &str,
        database: &PostgresDatabase,
        sessions: &[SessionRef],
        how: SessionEnd,
    ) -> Result<Vec<i32>, PostgresError> {
        if sessions.is_empty() {
            return Ok(Vec::new());
        }
        let (address, mut open, mut connection) = self.usable(namespace, database).await?;
        let ended = signal(&mut connection, &address, sessions, how).await?;
        open.keep(&address, connection);
        Ok(ended)
    }

    /// The open connection if it still answers, since the server may accept no new one; else a new connection.
    async fn usable(
        &self,
        namespace: &str,
        database: &PostgresDatabase,
    ) -> Result<(Address, OwnedMutexGuard<Connection>, PgConnection), PostgresError> {
        let address = self.address(namespace, database).await?;
        let mut open = self.connection(namespace, database).lock_owned().await;
        if let Some(mut connection) = open.take(&address)
            && within(&address, READ_LIMIT, sqlx::raw_sql("SELECT 1").fetch_one(&mut connection)).await.is_ok()
        {
            return Ok((address, open, connection));
        }
        let connection = connect(&address).await?;
        Ok((address, open, connection))
    }
}

/// The oldest first. Pure.
fn select(mut sessions: Vec<Session>, now: i64, selector: &SessionSelector) -> Vec<SessionRef> {
    let older = |since: i64, age: &Option<Span>| {
        let age = age.as_ref().and_then(|age| age.parse().ok());
        age.is_some_and(|age: SignedDuration| i128::from(now - since) > age.as_micros())
    };
    sessions.sort_by_key(|session| session.since);
    let fitting = sessions.into_iter().filter_map(|session| {
        let since = session.since?;
        let age = match session.state.as_str() {
            "idle in transaction" | "idle in transaction (aborted)" => &selector.idle_in_transaction_longer_than,
            "idle" => &selector.idle_longer_than,
            "active" => &selector.running_longer_than,
            _ => return None,
        };
        let named =
            |patterns: &[String], text: &str| patterns.is_empty() || patterns.iter().any(|pattern| fits(pattern, text));
        // The operator's own sessions, and those of the ledger when it is in this database too.
        let own = session.application == APPLICATION || session.application.starts_with("panacea-");
        let meant = older(since, age)
            && !own
            && named(&selector.users, &session.user)
            && named(&selector.application_names, &session.application);
        meant.then_some(SessionRef {
            pid: session.pid,
            connected_at: Timestamp::from_microsecond(session.connected_at).ok()?,
            user: session.user,
            application: session.application,
            state: session.state,
            since: Timestamp::from_microsecond(since).ok()?,
        })
    });
    fitting.take(selector.at_most as usize).collect()
}

/// Whether a text matches this pattern, in which `*` matches any characters.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            let mut starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            starts.any(|at| fits(rest, &text[at..]))
        }),
    }
}

/// The statement that signals checks each session once more: the same pid, connection time and state.
async fn signal(
    connection: &mut PgConnection,
    address: &Address,
    sessions: &[SessionRef],
    how: SessionEnd,
) -> Result<Vec<i32>, PostgresError> {
    let meant: Vec<String> = sessions
        .iter()
        .map(|one| format!("({}, {}, {})", one.pid, one.connected_at.as_microsecond(), one.since.as_microsecond()))
        .collect();
    // Materialized before the signal: PostgreSQL may call a function of a condition for any row, before other conditions.
    let sql = format!(
        "WITH chosen AS MATERIALIZED (
             SELECT pid FROM pg_stat_activity a JOIN (VALUES {}) AS meant(id, connected_at, since) ON meant.id = a.pid
             WHERE (extract(epoch FROM backend_start) * 1000000)::bigint = connected_at
               AND (extract(epoch FROM CASE WHEN state = 'active' THEN query_start ELSE state_change END)
                    * 1000000)::bigint = meant.since)
         SELECT pid, {}(pid) FROM chosen",
        meant.join(", "),
        how.function(),
    );
    let read = within(address, READ_LIMIT, sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection));
    let rows = read.await.map_err(|error| match error.reason {
        RemediationReason::NotAllowed => {
            let fix = format!("GRANT pg_signal_backend TO {}", address.options.get_username());
            PostgresError::new(error.reason, format!("{error}; fix: {fix}"))
        }
        _ => error,
    })?;
    let mut done = Vec::with_capacity(rows.len());
    for row in rows {
        let read = row.try_get::<i32, _>(0).and_then(|pid| Ok((pid, row.try_get::<bool, _>(1)?)));
        let (pid, signalled) = read.map_err(|error| PostgresError::sorted(&error, address))?;
        done.extend(signalled.then_some(pid));
    }
    // In the order of the list.
    done.sort_by_key(|pid| sessions.iter().position(|one| one.pid == *pid));
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn session(pid: i32, state: &str, age_s: i64, user: &str, application: &str) -> Session {
        Session {
            pid,
            user: user.into(),
            application: application.into(),
            state: state.into(),
            connected_at: 0,
            since: Some(1000 * SECOND - age_s * SECOND),
        }
    }

    fn selected(sessions: Vec<Session>, selector: &SessionSelector) -> Vec<i32> {
        select(sessions, 1000 * SECOND, selector).iter().map(|session| session.pid).collect()
    }

    #[test]
    fn the_oldest_that_match_are_chosen_and_no_others() {
        let sessions = || {
            vec![
                session(1, "idle in transaction", 61, "app", "web"),
                session(2, "idle in transaction", 60, "app", "web"),
                session(3, "idle in transaction (aborted)", 300, "app", "web"),
                session(4, "idle", 900, "app", "web"),
                session(5, "active", 900, "app", "web"),
                session(6, "fastpath function call", 900, "app", "web"),
                session(7, "idle in transaction", 900, "panacea", APPLICATION),
                session(8, "idle in transaction", 500, "report", "cron-7"),
            ]
        };
        let all = SessionSelector::forgotten();
        assert_eq!(selected(sessions(), &all), [8, 3, 1]);
        assert_eq!(selected(sessions(), &SessionSelector { at_most: 2, ..all.clone() }), [8, 3]);
        let of = |users: &[&str], names: &[&str]| SessionSelector {
            users: users.iter().map(|user| (*user).to_owned()).collect(),
            application_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..all.clone()
        };
        assert_eq!(selected(sessions(), &of(&["rep*"], &[])), [8]);
        assert_eq!(selected(sessions(), &of(&[], &["web", "x"])), [3, 1]);
        assert_eq!(selected(sessions(), &of(&["app"], &["cron-*"])), [0; 0]);
        let cancel = SessionSelector {
            idle_in_transaction_longer_than: None,
            running_longer_than: Some("10m".into()),
            ..all.clone()
        };
        assert_eq!(selected(sessions(), &cancel), [5]);
        let idle = SessionSelector { idle_longer_than: Some("900s".into()), ..cancel };
        assert_eq!(selected(sessions(), &idle), [5], "not longer than that");
    }

    #[test]
    fn a_star_matches_any_characters() {
        for (pattern, text) in [("a*c", "abc"), ("*", ""), ("*c*", "abcd"), ("a*b*c", "a-b-b-c"), ("é*", "éa")] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*c", "abd"), ("*x", "xy"), ("", "a")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }
}
