//! What is done about the connections of a database: the parameters of these actions.

use super::{Checker, HOUR, MINUTE};
use crate::api::{ActionKind, Reconnect, Remedy, SessionSelector};

impl Checker {
    /// When it is tried, the schedule of one that says nothing filled in.
    pub(super) fn reconnect(&mut self, field: &str, remedy: &Remedy) -> Option<Reconnect> {
        if remedy.action != ActionKind::RecoverConnections {
            return None;
        }
        let reconnect = remedy.reconnect.clone().unwrap_or_default();
        if !(1..=5).contains(&reconnect.delays.len()) {
            let tries = reconnect.delays.len();
            self.bad(&format!("{field}.reconnect.delays"), format!("has {tries} waits; it must be 1 to 5"));
        }
        for (index, delay) in reconnect.delays.iter().enumerate() {
            self.duration(&format!("{field}.reconnect.delays[{index}]"), delay, 100, 5 * MINUTE);
        }
        Some(reconnect)
    }

    /// Which sessions, the selector of one that says nothing filled in.
    pub(super) fn sessions(&mut self, field: &str, remedy: &Remedy) -> Option<SessionSelector> {
        let field = format!("{field}.sessions");
        if !remedy.action.ends_sessions() {
            return None;
        }
        let cancels = remedy.action == ActionKind::CancelQueries;
        let Some(selector) = &remedy.sessions else {
            return Some(SessionSelector::forgotten());
        };
        let ages = [
            ("idleInTransactionLongerThan", &selector.idle_in_transaction_longer_than, !cancels),
            ("idleLongerThan", &selector.idle_longer_than, !cancels),
            ("runningLongerThan", &selector.running_longer_than, cancels),
        ];
        if !ages.iter().any(|(_, age, fits)| *fits && age.is_some()) {
            let fitting: Vec<&str> = ages.iter().filter(|(.., fits)| *fits).map(|(name, ..)| *name).collect();
            self.bad(&field, format!("says of no age; {} needs {}", remedy.action, fitting.join(" or ")));
        }
        for (name, age, fits) in ages {
            let Some(age) = age else { continue };
            let field = format!("{field}.{name}");
            if !fits {
                self.bad(&field, format!("{} does not look at it; take it out", remedy.action));
            }
            self.duration(&field, age, 100, 24 * HOUR);
        }
        self.range(&format!("{field}.atMost"), selector.at_most, 1, 100);
        Some(selector.clone())
    }
}
