//! Deletes Panacea's old rows, in small steps that let other sessions through.
//!
//! Panacea's rows are: in `unified_brain` the rows of its agents; in `ai_proactive_health` the rows with its component key; in
//! `ai_rollback_history` the rows with the id of such an action. Other rows in the same tables stay.

use std::time::Duration;

use jiff::Timestamp;
use strum::IntoEnumIterator as _;
use tokio_util::sync::CancellationToken;

use super::error::{LedgerError, LedgerReason};
use super::{Shared, within};

/// Between two passes: rows stay at most this long after they expired.
const PASS_EVERY: Duration = Duration::from_secs(3600);

/// Rows in a statement, so that it locks and writes for some 50 ms and not for minutes.
const BATCH: i64 = 1000;

/// Between two statements; 4/5 of the time is left to other sessions.
const PAUSE: Duration = Duration::from_millis(200);

/// Time limit of a statement: the last one of a pass may read the whole table.
const LIMIT: Duration = Duration::from_secs(60);

/// The table that is cleaned, in this order: the action shows that a rollback is Panacea's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumIter, strum::IntoStaticStr)]
pub(super) enum Expiring {
    #[strum(serialize = "ai_rollback_history")]
    Rollbacks,
    #[strum(serialize = "unified_brain")]
    Brain,
    #[strum(serialize = "ai_proactive_health")]
    Health,
}

impl Expiring {
    fn table(self) -> &'static str {
        self.into()
    }

    /// `$1` is the oldest time that is kept, `$2` the highest number of rows. `component` is the expression of the component
    /// key. The outer condition on the time excludes the partitions of a partitioned table that hold only newer rows.
    pub(super) fn delete(self, component: &str) -> String {
        let agents = "agent_name IN ('self_healing_system', 'enhanced_self_healing', 'self_healing_reconciler')";
        match self {
            Self::Rollbacks => format!(
                "DELETE FROM ai_rollback_history WHERE id IN (
                     SELECT rollback.id FROM unified_brain AS action JOIN ai_rollback_history AS rollback USING (id)
                     WHERE action.{agents} AND action.executed_at < $1 LIMIT $2)"
            ),
            Self::Brain => format!(
                "DELETE FROM unified_brain WHERE executed_at < $1 AND id IN (
                     SELECT id FROM unified_brain WHERE {agents} AND executed_at < $1 LIMIT $2)"
            ),
            Self::Health => format!(
                "DELETE FROM ai_proactive_health WHERE created_at < $1 AND id IN (
                     SELECT id FROM ai_proactive_health WHERE {component} IS NOT NULL AND created_at < $1 LIMIT $2)"
            ),
        }
    }
}

/// A pass every [`PASS_EVERY`] while the database is available, until `shutdown`.
pub(super) async fn run(shared: &Shared, keep: Option<Duration>, shutdown: &CancellationToken) {
    let Some(keep) = keep else { return };
    let passes = async {
        loop {
            // Fails when the probe has ended, as everything else has then.
            let Ok(_) = shared.health.clone().wait_for(|health| health.is_available()).await else { return };
            let mut rollbacks_failed = false;
            for what in Expiring::iter() {
                // Without its action a rollback could not be recognized as Panacea's, and would stay.
                if what == Expiring::Brain && rollbacks_failed {
                    continue;
                }
                if let Err(error) = expire(shared, what, keep).await {
                    rollbacks_failed |= what == Expiring::Rollbacks;
                    shared.stats.retentions_failed.inc();
                    report(what, &error);
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
        shared.stats.rows_expired.inc_by(deleted);
        all += deleted;
        if deleted < BATCH.cast_unsigned() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if all > 0 {
        tracing::info!(table = what.table(), rows = all, %before, "ledger: deleted rows older than the retention");
    }
    Ok(())
}

fn report(what: Expiring, error: &LedgerError) {
    let table = what.table();
    let fix = match error.reason() {
        LedgerReason::Forbidden => {
            format!("; fix: GRANT DELETE ON {table} TO the user of Panacea, or omit --ledger-retention")
        }
        _ => String::new(),
    };
    let message = error.message();
    tracing::warn!(
        "ledger: old rows of {table} are not deleted: {message}; writing continues; next attempt in 1 h{fix}"
    );
}
