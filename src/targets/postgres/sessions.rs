//! Sessions that hold connections: which match a selector, and how they are ended.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use sqlx::{AssertSqlSafe, Row as _, postgres::PgConnection};
use tokio::time::timeout;

use super::{
    Connection, Postgres, PostgresError, PostgresFailure, READ_LIMIT,
    observe::{NOT_SEEN, ask, connect},
};
use crate::api::{PostgresDatabase, SessionRef, SessionSelector};
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
    /// The sessions that match, the oldest first, at most as many as the selector says. Changes nothing.
    ///
    /// # Errors
    /// See [`PostgresError`]; NotAllowed when the role may not read what other sessions do.
    pub async fn matching(
        &self,
        namespace: &str,
        database: &PostgresDatabase,
        selector: &SessionSelector,
    ) -> Result<Vec<SessionRef>, PostgresError> {
        let address = self.address(namespace, database).await?;
        let open = self.connection(namespace, database);
        let mut open = open.lock().await;
        let mut connection = usable(&mut open, &address).await?;
        let listed = list(&mut connection, &address, selector).await;
        if listed.is_ok() {
            open.keep(&address, connection);
        }
        listed
    }

    /// Ends these sessions, as far as the server has them in exactly this state, and returns the pids that it signalled.
    /// Leaves alone a session that began another query since, and a session that got the pid of another one.
    ///
    /// # Errors
    /// See [`PostgresError`]; NotAllowed without pg_signal_backend.
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
        let address = self.address(namespace, database).await?;
        let open = self.connection(namespace, database);
        let mut open = open.lock().await;
        let mut connection = usable(&mut open, &address).await?;
        let ended = signal(&mut connection, &address, sessions, how).await;
        if ended.is_ok() {
            open.keep(&address, connection);
        }
        ended
    }
}

/// The open connection if it still answers, since the server may take no new one; else a new connection.
async fn usable(open: &mut Connection, address: &Address) -> Result<PgConnection, PostgresError> {
    if let Some(mut connection) = open.take(address) {
        let answers = timeout(READ_LIMIT, sqlx::raw_sql("SELECT 1").fetch_one(&mut connection)).await;
        if matches!(answers, Ok(Ok(_))) {
            return Ok(connection);
        }
    }
    connect(address).await
}

async fn list(
    connection: &mut PgConnection,
    address: &Address,
    selector: &SessionSelector,
) -> Result<Vec<SessionRef>, PostgresError> {
    let listed: Listed = ask(connection, address, LIST).await?;
    if !listed.sees {
        let message = format!("{}: {NOT_SEEN} {}", address.place, address.options.get_username());
        return Err(PostgresError::new(PostgresFailure::NotAllowed, message));
    }
    Ok(select(listed.sessions, listed.now, selector))
}

/// The oldest first. Pure.
fn select(mut sessions: Vec<Session>, now: i64, selector: &SessionSelector) -> Vec<SessionRef> {
    let older = |since: i64, age: &Option<crate::api::Span>| {
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

/// Whether a text is of this pattern, in which `*` stands for any characters.
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
    let done = timeout(READ_LIMIT, sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection)).await;
    let rows = match done {
        Ok(Ok(rows)) => rows,
        Ok(Err(error)) => {
            let error = PostgresError::sorted(&error, address);
            if error.failure != PostgresFailure::NotAllowed {
                return Err(error);
            }
            let message = format!("{error}; fix: GRANT pg_signal_backend TO {}", address.options.get_username());
            return Err(PostgresError::new(PostgresFailure::NotAllowed, message));
        }
        Err(_) => return Err(PostgresError::silent(address, READ_LIMIT)),
    };
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
    fn a_star_stands_for_any_characters() {
        for (pattern, text) in [("a*c", "abc"), ("*", ""), ("*c*", "abcd"), ("a*b*c", "a-b-b-c"), ("é*", "éa")] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*c", "abd"), ("*x", "xy"), ("", "a")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }
}
