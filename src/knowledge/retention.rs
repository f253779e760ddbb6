//! Deletes our old rows, in small steps that let others through.
//!
//! Ours are: in `unified_brain` those of our agents; in `ai_proactive_health` those that name a component as we do; in
//! `ai_rollback_history` those of such an action, of which they have the id. Rows of others in the same tables stay.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::error::{LedgerError, LedgerReason};
use super::{Shared, within};

/// Between two passes: what is kept longer than it should is at most this part of a day.
const PASS_EVERY: Duration = Duration::from_secs(3600);

/// Rows a statement, so that it locks and writes for some 50 ms and not for minutes.
const BATCH: i64 = 1000;

/// Between two statements; 4 of 5 parts of the time are left to others.
const PAUSE: Duration = Duration::from_millis(200);

/// How long one statement may take: the last one of a pass may read the whole table.
const LIMIT: Duration = Duration::from_secs(60);

/// What is deleted, in this order: a rollback is known to be ours by its action.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expiring {
    Rollbacks,
    Brain,
    Health,
}

impl Expiring {
    const ALL: [Self; 3] = [Self::Rollbacks, Self::Brain, Self::Health];

    fn table(self) -> &'static str {
        match self {
            Self::Rollbacks => "ai_rollback_history",
            Self::Brain => "unified_brain",
            Self::Health => "ai_proactive_health",
        }
    }
}

/// A pass whenever the database is there, until `shutdown`.
pub(super) async fn run(shared: &Shared, keep: Option<Duration>, shutdown: &CancellationToken) {
    let Some(keep) = keep else { return };
    let passes = async {
        loop {
            // Fails when the probe has ended, and so has all else.
            let Ok(_) = shared.health.clone().wait_for(|health| health.is_available()).await else { return };
            let mut rollbacks_failed = false;
            for what in Expiring::ALL {
                // Without its action a rollback would be nobody's, and stay.
                if matches!(what, Expiring::Brain) && rollbacks_failed {
                    continue;
                }
                if let Err(error) = expire(shared, what, keep).await {
                    rollbacks_failed |= matches!(what, Expiring::Rollbacks);
                    shared.stats.retention_failed();
                    tracing::warn!("{}; rows go on being written, the next try is in an hour", explained(what, &error));
                }
            }
            tokio::time::sleep(PASS_EVERY).await;
        }
    };
    shutdown.run_until_cancelled(passes).await;
}

async fn expire(shared: &Shared, what: Expiring, keep: Duration) -> Result<(), LedgerError> {
    let before = Timestamp::now() - keep;
    let mut all = 0;
    loop {
        let delete = shared.database.expire(what, before, BATCH);
        let deleted = within(LIMIT, "deleting old rows", delete).await?;
        shared.stats.expired(deleted);
        all += deleted;
        if deleted < BATCH.cast_unsigned() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if all > 0 {
        tracing::info!(table = what.table(), rows = all, %before, "ledger: rows older than the retention deleted");
    }
    Ok(())
}

fn explained(what: Expiring, error: &LedgerError) -> String {
    let table = what.table();
    let fix = match error.reason() {
        LedgerReason::Forbidden => {
            format!("; fix: GRANT DELETE ON {table} TO the user of Panacea, or leave --ledger-retention out")
        }
        _ => String::new(),
    };
    format!("ledger: old rows of {table} are not deleted: {}{fix}", error.message())
}
