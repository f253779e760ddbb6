//! A plain HTTP service.

use std::time::Duration;

use url::Url;

use super::{Checker, SECOND, unsigned};
use crate::api::{HttpTarget, JsonPath};

#[derive(Debug, Clone)]
pub struct HttpCheck {
    pub url: Url,
    pub timeout: Duration,
    /// Empty: 200 to 399.
    pub expected_statuses: Vec<u16>,
    /// Where a value is, and the text that it must be.
    pub json: Option<(JsonPath, String)>,
}

impl Checker {
    pub(super) fn http(&mut self, http: &HttpTarget) -> Option<HttpCheck> {
        let url = self.url("target.http.url", &http.url);
        let timeout = unsigned(self.duration("target.http.timeout", &http.timeout, 100, 10 * SECOND));
        let json = http.json.as_ref().and_then(|check| match check.path.parse::<JsonPath>() {
            Ok(path) => Some((path, check.equals.clone())),
            Err(why) => {
                self.bad("target.http.json.path", why);
                None
            }
        });
        Some(HttpCheck { url: url?, timeout, expected_statuses: http.expected_statuses.clone(), json })
    }
}
