//! The last step: the rows into the ledger, then the finalizer off the object.

use std::time::Duration;

use jiff::Timestamp;
use kube::{ResourceExt as _, api::DeleteParams, runtime::controller::Action};

use super::{Reconciliation, remove_finalizer};
use crate::{
    api::{LEDGER_FINALIZER, Remediation, RemediationStatus, Suspension, milliseconds},
    controller::{Error, limited, rows, unless_outdated},
    knowledge::Recorded,
};

/// Between two attempts to record rows while the database is unreachable.
const RETRY_SPOOLED: Duration = Duration::from_secs(2);
/// Recorded Remediations kept per policy, beyond those that the guards still need.
const KEEP_RECORDED: usize = 50;

impl Reconciliation<'_> {
    /// Puts the rows into the ledger, then removes the finalizer. Repeated until it succeeds: ids are derived, so no row
    /// is written twice.
    pub(super) async fn record(&self, mut status: RemediationStatus) -> Result<Action, Error> {
        // Before the ledger, which may be unreachable: a person may be waiting for the resume.
        let wait = self.follow(&mut status).await?;
        if status.recorded_at.is_none() {
            let mut ended = self.remediation.clone();
            ended.status = Some(status.clone());
            match self.ctx.ledger.record(rows::remediation_rows(&ended)).await? {
                Recorded::Written => {}
                // The spool may die with the pod, the object does not: it is kept until the rows are in the database.
                Recorded::Spooled => return Ok(Action::requeue(RETRY_SPOOLED)),
            }
            status.recorded_at = Some(milliseconds(Timestamp::now()));
            self.write(&status, false).await?;
        }
        // A Remediation that holds a suspension stays until the suspension is resumed.
        if let Some(wait) = wait {
            return Ok(Action::requeue(wait));
        }
        if self.remediation.finalizers().iter().any(|finalizer| finalizer == LEDGER_FINALIZER) {
            remove_finalizer(self.ctx, &self.remediation.metadata).await?;
            // Once a Remediation, not at each reconciliation of one that ended long ago.
            self.remove_oldest().await?;
        }
        // No write follows to an object that was read with its record, or does not exist any more.
        let recorded = self.remediation.status.as_ref().is_some_and(|read| read.recorded_at.is_some());
        if recorded || self.remediation.metadata.deletion_timestamp.is_some() {
            self.ctx.written.forget(self.remediation);
        }
        Ok(Action::await_change())
    }

    /// Bounds the history of a policy: no guard needs more than the last day.
    async fn remove_oldest(&self) -> Result<(), Error> {
        let day_ago = Timestamp::now() - jiff::SignedDuration::from_hours(24);
        let mut recorded: Vec<Remediation> = self.of_policy().await?;
        recorded.retain(|other| {
            other.status.as_ref().is_some_and(|status| {
                status.recorded_at.is_some() && !status.suspended.as_ref().is_some_and(Suspension::is_open)
            })
        });
        recorded.sort_by_key(|other| std::cmp::Reverse(other.spec.plan.decided_at));
        let (api, params) = (self.api(), DeleteParams::default());
        for old in recorded.into_iter().skip(KEEP_RECORDED).filter(|old| old.spec.plan.decided_at < day_ago) {
            let name = old.name_any();
            unless_outdated(limited("remove an old remediation", api.delete(&name, &params)).await)?;
        }
        Ok(())
    }
}
