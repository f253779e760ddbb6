//! Whether the operator's own two kinds are installed and were listed. Without them the operator can do nothing, and says
//! so in /readyz and, once, in the log.

use parking_lot::Mutex;
use std::collections::BTreeMap;

use kube::runtime::watcher::{self, Event};

use crate::api::INSTALL_CRDS;

#[derive(Debug, Default)]
struct Watch {
    /// The first list was completed. Later trouble does not make the operator unready: the other watches continue.
    listed: bool,
    not_installed: bool,
    /// The current trouble; empty: none.
    trouble: String,
}

/// The state of the watches of HealingPolicy and Remediation, by kind and namespace (empty: all).
#[derive(Debug, Default)]
pub struct CrdReadiness(Mutex<BTreeMap<(&'static str, String), Watch>>);

impl CrdReadiness {
    /// Announces a watch; the operator is not ready until its first list is complete.
    pub fn expect(&self, kind: &'static str, scope: &str) {
        self.0.lock().entry((kind, scope.to_owned())).or_default();
    }

    /// Notes the result of a watch.
    pub fn note<K>(&self, kind: &'static str, scope: &str, event: &watcher::Result<Event<K>>) {
        let (not_installed, trouble) = match event {
            Ok(Event::InitDone) => (false, String::new()),
            Ok(_) => return,
            Err(error) if is_not_installed(error) => {
                (true, format!("{kind} is not installed in this cluster; install it with: {INSTALL_CRDS}"))
            }
            Err(error) => (false, format!("{kind} could not be listed: {error}")),
        };
        let mut watches = self.0.lock();
        let before = watches.iter().any(|((one, _), watch)| *one == kind && watch.not_installed);
        let watch = watches.entry((kind, scope.to_owned())).or_default();
        watch.listed |= trouble.is_empty();
        (watch.not_installed, watch.trouble) = (not_installed, trouble.clone());
        let after = watches.iter().any(|((one, _), watch)| *one == kind && watch.not_installed);
        drop(watches);
        // Once a kind, however many namespaces are watched.
        match (before, after) {
            (false, true) => tracing::error!(kind, "{trouble}; health checks are paused until then"),
            (true, false) if trouble.is_empty() => tracing::info!(kind, "{kind} is installed now"),
            _ => {}
        }
    }

    /// Whether every announced watch has completed its first list; if not, why.
    pub fn ready(&self) -> Result<(), String> {
        let watches = self.0.lock();
        match watches.iter().find(|(_, watch)| !watch.listed) {
            None if watches.is_empty() => Err("the watches have not started yet".to_owned()),
            None => Ok(()),
            Some(((kind, _), watch)) if watch.trouble.is_empty() => {
                Err(format!("the first list of {kind} is not complete yet"))
            }
            Some((_, watch)) => Err(watch.trouble.clone()),
        }
    }
}

/// The API server does not know the kind.
pub fn is_not_installed(error: &watcher::Error) -> bool {
    let source = match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => source,
        _ => return false,
    };
    matches!(source, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16) -> watcher::Result<Event<()>> {
        let status = kube::core::Status::failure("no", "No").with_code(code);
        Err(watcher::Error::InitialListFailed(kube::Error::Api(status.boxed())))
    }

    #[test]
    fn ready_once_both_kinds_were_listed_everywhere_whatever_fails_later() {
        let kinds = CrdReadiness::default();
        assert!(kinds.ready().unwrap_err().contains("not started yet"));
        kinds.expect("HealingPolicy", "");
        kinds.expect("Remediation", "");
        assert_eq!(kinds.ready().unwrap_err(), "the first list of HealingPolicy is not complete yet");
        kinds.note("HealingPolicy", "", &refused(404));
        assert!(kinds.ready().unwrap_err().contains("HealingPolicy is not installed"));
        kinds.note("HealingPolicy", "", &refused(403));
        assert!(kinds.ready().unwrap_err().contains("could not be listed"));
        kinds.note::<()>("HealingPolicy", "", &Ok(Event::InitDone));
        assert_eq!(kinds.ready().unwrap_err(), "the first list of Remediation is not complete yet");
        kinds.note::<()>("Remediation", "", &Ok(Event::InitDone));
        kinds.note("Remediation", "", &refused(404));
        assert_eq!(kinds.ready(), Ok(()));
    }
}
