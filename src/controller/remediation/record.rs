//! The last step: the rows into the ledger, and the object let go.

use std::time::Duration;

use jiff::Timestamp;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
    runtime::controller::Action,
};

use super::Reconciliation;
use crate::{
    api::{LEDGER_FINALIZER, REMEDIATION_MANAGER, Remediation, RemediationStatus, Suspension, milliseconds},
    controller::{Error, limited, rows},
    knowledge::Recorded,
};

/// Between two attempts to record rows while the database is away.
const RETRY_SPOOLED: Duration = Duration::from_secs(2);
/// Recorded Remediations kept a policy, beyond those that the guards still need.
const KEEP_RECORDED: usize = 50;

impl Reconciliation<'_> {
    /// Puts the rows into the ledger, then lets the object go. Repeated until it worked: ids are derived, so a row
    /// that was written already is not written twice.
    pub(super) async fn record(&self, mut status: RemediationStatus) -> Result<Action, Error> {
        // Before the ledger, which may be away: a person may be waiting for it.
        let wait = self.follow(&mut status).await?;
        if status.recorded_at.is_none() {
            let mut ended = self.remediation.clone();
            ended.status = Some(status.clone());
            match self.ctx.ledger.record(rows::remediation_rows(&ended)).await? {
                Recorded::WriteTracker => {}
                // The spool may die with the pod, the object does not: it is kept until the rows are in the database.
                Recorded::Spooled => return Ok(Action::requeue(RETRY_SPOOLED)),
            }
            status.recorded_at = Some(milliseconds(Timestamp::now()));
            self.write(&status, false).await?;
        }
        // What holds a suspension stays until it is resumed.
        if let Some(wait) = wait {
            return Ok(Action::requeue(wait));
        }
        if self.remediation.finalizers().iter().any(|finalizer| finalizer == LEDGER_FINALIZER) {
            self.release().await?;
            // Once a Remediation, not at each sight of one that ended long ago.
            self.remove_oldest().await?;
        }
        // Nothing more is written to what was seen with its record, or is gone now.
        let seen = self.remediation.status.as_ref().is_some_and(|seen| seen.recorded_at.is_some());
        if seen || self.remediation.metadata.deletion_timestamp.is_some() {
            self.ctx.written.forget(self.remediation);
        }
        Ok(Action::await_change())
    }

    async fn release(&self) -> Result<(), Error> {
        let kept: Vec<&String> =
            self.remediation.finalizers().iter().filter(|finalizer| *finalizer != LEDGER_FINALIZER).collect();
        let patch = serde_json::json!({"metadata": {"uid": self.remediation.metadata.uid, "finalizers": kept}});
        let params = PatchParams { field_manager: Some(REMEDIATION_MANAGER.into()), ..PatchParams::default() };
        match limited(
            "remove the ledger finalizer",
            self.api().patch(&self.remediation.name_any(), &params, &Patch::Merge(&patch)),
        )
        .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_outdated() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Bounds the history of a policy: the guards look back a day at most.
    async fn remove_oldest(&self) -> Result<(), Error> {
        let day_ago = Timestamp::now() - jiff::SignedDuration::from_hours(24);
        let mut recorded: Vec<Remediation> = self
            .of_policy()
            .await?
            .into_iter()
            .filter(|other| {
                other.status.as_ref().is_some_and(|status| {
                    status.recorded_at.is_some() && !status.suspended.as_ref().is_some_and(Suspension::is_open)
                })
            })
            .collect();
        recorded.sort_by_key(|other| std::cmp::Reverse(other.spec.plan.decided_at));
        for old in recorded.into_iter().skip(KEEP_RECORDED).filter(|old| old.spec.plan.decided_at < day_ago) {
            match limited("remove an old remediation", self.api().delete(&old.name_any(), &DeleteParams::default()))
                .await
            {
                Ok(_) => {}
                Err(error) if error.is_outdated() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
