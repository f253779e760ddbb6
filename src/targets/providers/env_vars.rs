//! The environment variables of a hosted service: names, and values that appear in no message.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::{super::kubernetes::ActError, common::HostedError};

/// Variables that one action restores: each is a call, and a provider limits the calls in a minute.
pub const MAX_CHANGES: usize = 100;
/// Characters of a name that a status can hold.
pub(super) const MAX_NAME: usize = 256;

/// Variables that differ from the state to restore, with the value to set; none: to be removed.
pub type EnvChanges = Vec<(String, Option<SecretString>)>;

/// Why environment variables are not restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error(transparent)]
    Hosted(#[from] HostedError),
    /// The snapshot cannot be read, or differs from the one that was assessed.
    #[error("the snapshot of the environment variables: {0}")]
    Snapshot(ActError),
    /// The variables were changed since they were assessed.
    #[error("{0}")]
    Changed(String),
    #[error("{0} environment variables differ, more than the {MAX_CHANGES} that one action restores")]
    TooMany(usize),
    #[error("the name of the environment variable {0}… has more than {MAX_NAME} characters; restore it manually")]
    LongName(String),
}

/// For messages: the first 20, and the number of the others.
pub(super) fn listed<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 20;
    let mut text: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = format!("{} more", names.len().saturating_sub(SHOWN));
    text.extend((names.len() > SHOWN).then_some(more.as_str()));
    text.join(", ")
}

/// By name. No Debug and no Display: values would appear.
#[derive(Clone, Default)]
pub struct EnvVars(BTreeMap<String, SecretString>);

impl EnvVars {
    /// Names to values, as JSON: for a keyed digest or a Secret, and nothing else.
    pub(in crate::targets) fn to_json(&self) -> Value {
        self.0.iter().map(|(name, value)| (name.clone(), Value::from(value.expose_secret()))).collect()
    }

    /// From the output of [`Self::to_json`]; none of other input.
    pub(in crate::targets) fn from_json(json: &[u8]) -> Option<Self> {
        let map: BTreeMap<String, String> = serde_json::from_slice(json).ok()?;
        Some(map.into_iter().collect())
    }

    /// The changes that make these variables `good`.
    pub fn changes_to(&self, good: &Self) -> EnvChanges {
        let same = |name: &String, value: &SecretString| {
            self.0.get(name).is_some_and(|now| now.expose_secret() == value.expose_secret())
        };
        let set = good.0.iter().filter(|(name, value)| !same(name, value));
        let set = set.map(|(name, value)| (name.clone(), Some(value.clone())));
        let gone = self.0.keys().filter(|name| !good.0.contains_key(*name)).map(|name| (name.clone(), None));
        set.chain(gone).collect()
    }
}

impl FromIterator<(String, String)> for EnvVars {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(all: I) -> Self {
        Self(all.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &[(&str, &str)]) -> EnvVars {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_differences_are_set_and_new_variables_are_removed() {
        let now = of(&[("SAME", "1"), ("CHANGED", "bad"), ("NEW", "x")]);
        let good = of(&[("SAME", "1"), ("CHANGED", "good"), ("GONE", "y")]);
        let way = now.changes_to(&good);
        let shown: Vec<(&str, Option<&str>)> = way
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_ref().map(|value| value.expose_secret())))
            .collect();
        assert_eq!(shown, [("CHANGED", Some("good")), ("GONE", Some("y")), ("NEW", None)]);
        assert!(good.changes_to(&good).is_empty());
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_stored() {
        let all = of(&[("A", "ä\n\"b\""), ("EMPTY", "")]);
        let back = EnvVars::from_json(all.to_json().to_string().as_bytes()).unwrap();
        assert!(back.changes_to(&all).is_empty() && all.changes_to(&back).is_empty());
        assert!(EnvVars::from_json(b"[1]").is_none());
    }
}
