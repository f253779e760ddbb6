//! Answers that are kept, to ask next time only whether they have changed (`If-None-Match`).

use std::collections::HashMap;

use reqwest::header::HeaderValue;
use serde_json::Value;

use super::quota::Credential;

/// Answers that are kept before all are forgotten.
const MANY: usize = 2048;
/// The longest answer that is kept, in bytes.
pub(super) const LONGEST: usize = 128 * 1024;

/// By who asked, and where.
type Place = (Credential, String);

#[derive(Debug, Default)]
pub(super) struct EtagCache {
    answers: HashMap<Place, (HeaderValue, Value)>,
}

impl EtagCache {
    pub fn get(&self, place: &Place) -> Option<(HeaderValue, Value)> {
        self.answers.get(place).cloned()
    }

    pub fn keep(&mut self, place: Place, tag: HeaderValue, answer: Value) {
        if self.answers.len() >= MANY && !self.answers.contains_key(&place) {
            self.answers.clear();
        }
        self.answers.insert(place, (tag, answer));
    }
}
