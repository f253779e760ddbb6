//! Whether the operator's own two kinds are installed and could be listed: without them it can do nothing, and says so
//! in /readyz and, once, in the log.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use kube::runtime::watcher::{self, Event};

use crate::api::INSTALL_CRDS;

/// Kind and namespace (empty: all).
type Key = (&'static str, String);

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
pub struct Kinds(Mutex<BTreeMap<Key, Watch>>);

impl Kinds {
    /// This one will be watched; until it was listed the operator is not ready.
    pub fn expect(&self, kind: &'static str, scope: &str) {
        self.with(kind, scope, |_| {});
    }

    /// Takes note of what a watch says.
    pub fn note<K>(&self, kind: &'static str, scope: &str, event: &watcher::Result<Event<K>>) {
        match event {
            Ok(Event::InitDone) => {
                let was = self.with(kind, scope, |watch| {
                    watch.listed = true;
                    watch.trouble.take()
                });
                if was.is_some_and(|was| was.not_installed) {
                    tracing::info!(kind, "{kind} is installed now");
                }
            }
            Ok(_) => {}
            Err(error) => {
                let not_installed = is_not_installed(error);
                let words = if not_installed {
                    format!("{kind} is not installed in this cluster; install it with: {INSTALL_CRDS}")
                } else {
                    format!("{kind} could not be listed: {error}")
                };
                let trouble = Trouble { not_installed, words: words.clone() };
                let before = self.with(kind, scope, |watch| watch.trouble.replace(trouble));
                if not_installed && !before.is_some_and(|before| before.not_installed) {
                    tracing::error!(kind, "{words}; nothing is looked at until then");
                }
            }
        }
    }

    /// Both kinds were listed, wherever they are watched.
    ///
    /// # Errors
    /// When not: what is waited for, or in the way.
    pub fn ready(&self) -> Result<(), String> {
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(((kind, _), watch)) = watches.iter().find(|(_, watch)| !watch.listed) else {
            return if watches.is_empty() { Err("the watches were not started yet".to_owned()) } else { Ok(()) };
        };
        let waiting = || format!("the first listing of {kind} is not done yet");
        Err(watch.trouble.as_ref().map_or_else(waiting, |trouble| trouble.words.clone()))
    }

    fn with<T>(&self, kind: &'static str, scope: &str, change: impl FnOnce(&mut Watch) -> T) -> T {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(watches.entry((kind, scope.to_owned())).or_default())
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
