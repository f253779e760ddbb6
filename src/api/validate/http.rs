//! A plain HTTP service.

use std::time::Duration;

use url::Url;

use super::{Checker, SECOND, unsigned};
use crate::api::HttpTarget;

#[derive(Debug, Clone)]
pub struct HttpCheck {
    pub url: Url,
    pub timeout: Duration,
    /// Empty: 200 to 399.
    pub expected_statuses: Vec<u16>,
    /// JSONPath and the text that its one value must be.
    pub json: Option<(serde_json_path::JsonPath, String)>,
}

impl Checker {
    pub(super) fn http(&mut self, http: &HttpTarget) -> Option<HttpCheck> {
        let url = self.url("target.http.url", &http.url);
        let timeout = unsigned(self.duration("target.http.timeout", &http.timeout, 100, 10 * SECOND));
        let json = http.json.as_ref().and_then(|check| match serde_json_path::JsonPath::parse(&check.path) {
            Ok(path) => Some((path, check.equals.clone())),
            Err(why) => {
                self.bad(
                    "target.http.json.path",
                    format!("{:?} is not a JSONPath ({why}); write for example $.status", check.path),
                );
                None
            }
        });
        Some(HttpCheck { url: url?, timeout, expected_statuses: http.expected_statuses.clone(), json })
    }
}
