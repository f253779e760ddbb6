//! Caches of bounded size.

use std::{collections::HashMap, hash::Hash};

/// Inserts into a cache of at most `most` entries, which is emptied when it is full.
pub fn cache<K: Eq + Hash, V>(all: &mut HashMap<K, V>, most: usize, key: K, value: V) {
    if all.len() >= most && !all.contains_key(&key) {
        all.clear();
    }
    all.insert(key, value);
}
