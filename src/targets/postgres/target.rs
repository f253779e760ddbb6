//! A PostgreSQL database as a target.

use async_trait::async_trait;

use super::{Postgres, SessionEnd, end_sessions::SessionsExecutor, reconnect::ReconnectExecutor, time_of_day};
use crate::{
    analyze::observation::TargetState,
    api::{Intent, PostgresDatabase, SessionProgress, SessionRef},
    targets::{
        Observed, Target,
        executor::{Executor, Order},
    },
};

/// Sessions that a message names one by one.
const NAMED: usize = 5;

/// A PostgreSQL database.
pub struct DatabaseTarget<'a> {
    pub postgres: &'a Postgres,
    pub database: &'a PostgresDatabase,
}

#[async_trait]
impl<'a> Target<'a> for DatabaseTarget<'a> {
    async fn observe(&self, namespace: &str) -> Observed<TargetState> {
        self.postgres.observe(namespace, self.database).await.map(TargetState::Database)
    }

    fn executor(&self, order: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        let Self { postgres, database } = *self;
        let end = |selector, how| -> Option<Box<dyn Executor + 'a>> {
            Some(Box::new(SessionsExecutor { postgres, database, order, selector, how }))
        };
        match &order.plan.intent {
            Intent::RecoverConnections(reconnect) => {
                Some(Box::new(ReconnectExecutor { postgres, database, order, reconnect }))
            }
            Intent::ReleaseConnections(selector) => end(selector, SessionEnd::End),
            Intent::CancelQueries(selector) => end(selector, SessionEnd::Cancel),
            _ => None,
        }
    }
}

/// " would be performed on 7 sessions (pid 12 of app, psql, idle in transaction since 10:11:12Z; …), and".
pub fn sessions_in_words(sessions: &SessionProgress) -> String {
    let name = |one: &SessionRef| {
        let SessionRef { pid, user, application, state, since, .. } = one;
        format!("pid {pid} of {user}, {application:?}, {state} since {}", time_of_day(*since))
    };
    let named: Vec<String> = sessions.sessions.iter().take(NAMED).map(name).collect();
    let count = sessions.sessions.len();
    let more = if count > NAMED { format!("; and {} more", count - NAMED) } else { String::new() };
    let noun = if count == 1 { "session" } else { "sessions" };
    format!(" would be performed on {count} {noun} ({}{more}), and", named.join("; "))
}
