//! Earlier actions, as the guards need them: one entry per Remediation.

use jiff::{SignedDuration, Timestamp};

use crate::api::{ActionKind, Phase};

#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    pub component: String,
    pub episode: String,
    pub step: u32,
    pub action: ActionKind,
    pub phase: Phase,
    /// The action was sent, and its outcome is unknown.
    pub outcome_unknown: bool,
    /// The action was decided ahead of a foreseen failure.
    pub ahead: bool,
    /// When the write was started; none when nothing was written.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// When the actions within `window` before `now` were started (whether or not the write was made), the oldest first.
pub fn started_within(history: &[Past], window: SignedDuration, now: Timestamp) -> Vec<Timestamp> {
    let since = now.saturating_sub(window).unwrap_or(Timestamp::MIN);
    let mut started: Vec<Timestamp> =
        history.iter().filter_map(|past| past.started_at.filter(|at| *at > since)).collect();
    started.sort_unstable();
    started
}

/// When the newest action on the component was started.
pub fn last_started(history: &[Past], component: &str) -> Option<Timestamp> {
    history.iter().filter(|past| past.component == component).filter_map(|past| past.started_at).max()
}

/// When the newest action on the component ahead of a foreseen failure was started, in another incident than this one:
/// within one incident the ladder limits the actions.
pub fn last_ahead(history: &[Past], component: &str, episode: &str) -> Option<Timestamp> {
    let ahead = history.iter().filter(|past| past.component == component && past.ahead && past.episode != episode);
    ahead.filter_map(|past| past.started_at).max()
}

/// The number of consecutive newest actions on the component that did not help, and when the newest of them ended. An action
/// that was never started does not count.
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
