//! Progress of an action, stored in the Remediation's status before each effect.

use async_trait::async_trait;
use parking_lot::Mutex;

use super::Reconciliation;
use crate::{
    api::{Progress, RemediationStatus},
    controller::Error,
    targets::executor::{Journal, NotStored, Note},
};

/// The status of one Remediation while its action runs, and why the last write of it failed.
pub(super) struct StatusJournal<'a> {
    reconciliation: &'a Reconciliation<'a>,
    state: Mutex<(RemediationStatus, Option<Error>)>,
}

impl<'a> StatusJournal<'a> {
    pub(super) fn new(reconciliation: &'a Reconciliation<'a>, status: RemediationStatus) -> Self {
        Self { reconciliation, state: Mutex::new((status, None)) }
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        self.state.lock().0.progress.clone()
    }

    pub(super) fn into_parts(self) -> (RemediationStatus, Option<Error>) {
        self.state.into_inner()
    }
}

#[async_trait]
impl Journal for StatusJournal<'_> {
    async fn store(&self, progress: Option<Progress>, note: Option<Note>) -> Result<(), NotStored> {
        let status = {
            let (status, _) = &mut *self.state.lock();
            // An unchanged note is neither written nor reported again.
            let known = note.as_ref().is_none_or(|note| status.message == note.message);
            if status.progress == progress && known {
                return Ok(());
            }
            status.progress = progress;
            if let Some(note) = &note {
                status.message.clone_from(&note.message);
            }
            status.clone()
        };
        if let Err(error) = self.reconciliation.write(&status, false).await {
            self.state.lock().1 = Some(error);
            return Err(NotStored);
        }
        if let Some(Note { reason, subject, message }) = note {
            let events = &self.reconciliation.ctx.events;
            events.about_step(self.reconciliation.remediation, reason, &subject, &message).await;
        }
        Ok(())
    }
}
