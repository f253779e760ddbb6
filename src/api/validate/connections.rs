//! The parameters of actions on the connections of a database.

use super::{Checker, HOUR, MINUTE};
use crate::api::{ActionKind, Reconnect, Remedy, SessionSelector};

impl Checker {
    /// The schedule of the attempts; the default schedule when the remedy names none.
    pub(super) fn reconnect(&mut self, remedy: &Remedy) -> Option<Reconnect> {
        if remedy.action != ActionKind::RecoverConnections {
            return None;
        }
        let reconnect = remedy.reconnect.clone().unwrap_or_default();
        let delays = reconnect.delays.len();
        if !(1..=5).contains(&delays) {
            self.bad("reconnect.delays", format!("has {delays} entries; it must have 1 to 5"));
        }
        for (index, delay) in reconnect.delays.iter().enumerate() {
            self.duration(&format!("reconnect.delays[{index}]"), delay, 100, 5 * MINUTE);
        }
        Some(reconnect)
    }

    /// The selector of the sessions; the default selector when the remedy names none.
    pub(super) fn sessions(&mut self, remedy: &Remedy) -> Option<SessionSelector> {
        let action = remedy.action;
        if !action.ends_sessions() {
            return None;
        }
        let Some(selector) = &remedy.sessions else {
            return Some(SessionSelector::forgotten());
        };
        let cancels = action == ActionKind::CancelQueries;
        let ages = [
            ("idleInTransactionLongerThan", &selector.idle_in_transaction_longer_than, !cancels),
            ("idleLongerThan", &selector.idle_longer_than, !cancels),
            ("runningLongerThan", &selector.running_longer_than, cancels),
        ];
        if !ages.iter().any(|(_, age, fits)| *fits && age.is_some()) {
            let fitting: Vec<&str> = ages.iter().filter(|(.., fits)| *fits).map(|(name, ..)| *name).collect();
            self.bad("sessions", format!("sets no age; {action} needs {}", fitting.join(" or ")));
        }
        for (name, age, fits) in ages {
            let Some(age) = age else { continue };
            let field = format!("sessions.{name}");
            if !fits {
                self.bad(&field, format!("{action} does not use it; remove it"));
            }
            self.duration(&field, age, 100, 24 * HOUR);
        }
        self.range("sessions.atMost", selector.at_most, 1, 100);
        Some(selector.clone())
    }
}
