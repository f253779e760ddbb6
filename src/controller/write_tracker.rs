//! The version of each Remediation that was written last, so that no step starts from an older one.
//!
//! A write comes back through the watch, later than its response. A step from the cache in between would repeat the
//! previous step: a webhook would be called again. Such a step starts from the API server's object instead.

use parking_lot::Mutex;
use std::collections::HashMap;

use kube::{Resource, ResourceExt as _};

/// By namespace and name: the resourceVersion. Ended Remediations are forgotten.
#[derive(Default)]
pub struct WriteTracker(Mutex<HashMap<(String, String), u64>>);

impl WriteTracker {
    /// Notes the API server's response to a write.
    pub fn note(&self, object: &impl Resource) {
        if let Some(version) = version(object) {
            self.0.lock().insert(key(object), version);
        }
    }

    /// Whether `object` is older than the last write. Versions of one kind can be compared as numbers
    /// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>); one that is no number counts
    /// as new, and is left to the API server's own check.
    pub fn is_ahead_of(&self, object: &impl Resource) -> bool {
        let written = self.0.lock().get(&key(object)).copied();
        written.zip(version(object)).is_some_and(|(written, seen)| seen < written)
    }

    pub fn forget(&self, object: &impl Resource) {
        self.0.lock().remove(&key(object));
    }
}

fn key(object: &impl Resource) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn version(object: &impl Resource) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn at(name: &str, version: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map.metadata.resource_version = Some(version.to_owned());
        map
    }

    #[test]
    fn an_object_older_than_the_last_write_is_outdated() {
        let written = WriteTracker::default();
        assert!(!written.is_ahead_of(&at("a", "9")), "nothing was written");
        written.note(&at("a", "10"));
        assert!(written.is_ahead_of(&at("a", "9")));
        assert!(!written.is_ahead_of(&at("a", "10")) && !written.is_ahead_of(&at("a", "11")));
        assert!(!written.is_ahead_of(&at("b", "9")));
        assert!(!written.is_ahead_of(&at("a", "opaque")));
        written.forget(&at("a", "10"));
        assert!(!written.is_ahead_of(&at("a", "9")));
    }
}
