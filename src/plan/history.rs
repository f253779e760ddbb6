//! What was done before, as the guards need it: one entry a Remediation.

use jiff::{SignedDuration, Timestamp};

use crate::api::{ActionKind, Phase};

#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    pub component: String,
    pub episode: String,
    pub step: u32,
    pub action: ActionKind,
    pub phase: Phase,
    /// It was sent, and nothing tells what came of it.
    pub outcome_unknown: bool,
    /// It was decided before anything was wrong.
    pub ahead: bool,
    /// When the write was begun; none when nothing was written.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

impl Past {
    /// The action was begun (the write may or may not have been made).
    fn started_after(&self, since: Timestamp) -> bool {
        self.started_at.is_some_and(|at| at > since)
    }
}

/// When the actions within `window` before `now` were begun, the oldest first.
pub fn started_within(history: &[Past], window: SignedDuration, now: Timestamp) -> Vec<Timestamp> {
    let since = now.saturating_sub(window).unwrap_or(Timestamp::MIN);
    let mut started: Vec<Timestamp> =
        history.iter().filter(|past| past.started_after(since)).filter_map(|past| past.started_at).collect();
    started.sort_unstable();
    started
}

/// When the newest action on the component was begun.
pub fn last_started(history: &[Past], component: &str) -> Option<Timestamp> {
    history.iter().filter(|past| past.component == component).filter_map(|past| past.started_at).max()
}

/// When the newest action on the component ahead of a foreseen failure was begun, in another incident than this one:
/// within one the ladder is climbed.
pub fn last_ahead(history: &[Past], component: &str, episode: &str) -> Option<Timestamp> {
    let ahead = history.iter().filter(|past| past.component == component && past.ahead && past.episode != episode);
    ahead.filter_map(|past| past.started_at).max()
}

/// Actions on the component in a row, newest first, that did not help, and when the newest of them ended.
///
/// An action that was never begun says nothing about whether actions help.
pub fn failures_in_a_row(history: &[Past], component: &str) -> (usize, Option<Timestamp>) {
    let mut ended: Vec<(Timestamp, Phase)> = history
        .iter()
        .filter(|past| past.component == component && past.started_at.is_some())
        .filter_map(|past| past.finished_at.map(|at| (at, past.phase)))
        .collect();
    ended.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let failed = ended.iter().take_while(|(_, phase)| matches!(phase, Phase::Failed | Phase::Ineffective)).count();
    (failed, ended.first().filter(|_| failed > 0).map(|(at, _)| *at))
}
