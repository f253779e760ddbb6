//! Progress of an action, stored in the Remediation's status before each effect.

use async_trait::async_trait;
use parking_lot::Mutex;

use super::Reconciliation;
use crate::{
    api::{Progress, RemediationStatus},
    controller::Error,
    targets::executor::{Journal, NotStored, Note},
};

/// The status of one Remediation while its action runs.
pub(super) struct StatusJournal<'a> {
    reconciliation: &'a Reconciliation<'a>,
    state: Mutex<State>,
}

struct State {
    status: RemediationStatus,
    /// Why the last write failed.
    error: Option<Error>,
}

impl<'a> StatusJournal<'a> {
    pub(super) fn new(reconciliation: &'a Reconciliation<'a>, status: RemediationStatus) -> Self {
        Self { reconciliation, state: Mutex::new(State { status, error: None }) }
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        self.state.lock().status.progress.clone()
    }

    pub(super) fn into_parts(self) -> (RemediationStatus, Option<Error>) {
        let State { status, error } = self.state.into_inner();
        (status, error)
    }
}

#[async_trait]
impl Journal for StatusJournal<'_> {
    async fn store(&self, progress: Option<Progress>, note: Option<Note>) -> Result<(), NotStored> {
        let status = {
            let mut state = self.state.lock();
            let same = state.status.progress == progress;
            let known = note.as_ref().is_some_and(|note| state.status.message == note.message);
            // A note that stands is neither written nor reported again.
            if same && (note.is_none() || known) {
                return Ok(());
            }
            state.status.progress = progress;
            if let Some(note) = &note {
                state.status.message.clone_from(&note.message);
            }
            state.status.clone()
        };
        if let Err(error) = self.reconciliation.write(&status, false).await {
            self.state.lock().error = Some(error);
            return Err(NotStored);
        }
        if let Some(Note { reason, subject, message }) = note {
            let events = &self.reconciliation.ctx.events;
            events.about_step(self.reconciliation.remediation, reason, &subject, &message).await;
        }
        Ok(())
    }
}
