//! Whether the operator's own two kinds are installed and could be listed: without them it can do nothing, and says so
//! in /readyz and, once, in the log.

use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;

use kube::runtime::watcher::{self, Event};

use crate::api::INSTALL_CRDS;

/// Kind and namespace (empty: all).
type Key = (&'static str, String);
type Watches = BTreeMap<Key, Watch>;

#[derive(Debug, Default)]
struct Watch {
    /// The first listing was completed. What comes later does not make the operator unready: others go on.
    listed: bool,
    /// What is in the way now.
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    not_installed: bool,
    words: String,
}

/// How the watches of HealingPolicy and Remediation go.
#[derive(Debug, Default)]
pub struct CrdReadiness(Mutex<Watches>);

impl CrdReadiness {
    /// This one will be watched; until it was listed the operator is not ready.
    pub fn expect(&self, kind: &'static str, scope: &str) {
        self.lock().entry((kind, scope.to_owned())).or_default();
    }

    /// Takes note of what a watch says.
    pub fn note<K>(&self, kind: &'static str, scope: &str, event: &watcher::Result<Event<K>>) {
        let trouble = match event {
            Ok(Event::InitDone) => None,
            Ok(_) => return,
            Err(error) => Some(Trouble::new(kind, error)),
        };
        let mut watches = self.lock();
        let missing = |watches: &Watches| {
            watches
                .iter()
                .any(|((one, _), watch)| *one == kind && watch.trouble.as_ref().is_some_and(|t| t.not_installed))
        };
        let before = missing(&watches);
        let watch = watches.entry((kind, scope.to_owned())).or_default();
        watch.listed |= trouble.is_none();
        watch.trouble = trouble;
        let words = watch.trouble.as_ref().map(|trouble| trouble.words.clone()).unwrap_or_default();
        let after = missing(&watches);
        drop(watches);
        // Once a kind, in however many namespaces it is watched.
        match (before, after) {
            (false, true) => tracing::error!(kind, "{words}; nothing is looked at until then"),
            (true, false) if words.is_empty() => tracing::info!(kind, "{kind} is installed now"),
            _ => {}
        }
    }

    /// Both kinds were listed, wherever they are watched.
    ///
    /// # Errors
    /// When not: what is waited for, or in the way.
    pub fn ready(&self) -> Result<(), String> {
        let watches = self.lock();
        let Some(((kind, _), watch)) = watches.iter().find(|(_, watch)| !watch.listed) else {
            return if watches.is_empty() { Err("the watches were not started yet".to_owned()) } else { Ok(()) };
        };
        let waiting = || format!("the first listing of {kind} is not done yet");
        Err(watch.trouble.as_ref().map_or_else(waiting, |trouble| trouble.words.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.0.lock()
    }
}

impl Trouble {
    fn new(kind: &str, error: &watcher::Error) -> Self {
        let not_installed = is_not_installed(error);
        let words = if not_installed {
            format!("{kind} is not installed in this cluster; install it with: {INSTALL_CRDS}")
        } else {
            format!("{kind} could not be listed: {error}")
        };
        Self { not_installed, words }
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
    fn ready_once_both_kinds_were_listed_everywhere_whatever_comes_later() {
        let kinds = CrdReadiness::default();
        assert!(kinds.ready().unwrap_err().contains("not started"));
        kinds.expect("HealingPolicy", "");
        kinds.expect("Remediation", "");
        assert_eq!(kinds.ready().unwrap_err(), "the first listing of HealingPolicy is not done yet");
        kinds.note("HealingPolicy", "", &refused(404));
        assert!(kinds.ready().unwrap_err().contains("HealingPolicy is not installed"));
        kinds.note("HealingPolicy", "", &refused(403));
        assert!(kinds.ready().unwrap_err().contains("could not be listed"));
        kinds.note::<()>("HealingPolicy", "", &Ok(Event::InitDone));
        assert_eq!(kinds.ready().unwrap_err(), "the first listing of Remediation is not done yet");
        kinds.note::<()>("Remediation", "", &Ok(Event::InitDone));
        kinds.note("Remediation", "", &refused(404));
        assert_eq!(kinds.ready(), Ok(()));
    }
}
