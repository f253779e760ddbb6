//! What the HTTP targets share: answers of bounded size, and errors in words that hold no secrets.

use std::error::Error as _;

use reqwest::Response;
use url::Url;

/// The longest answer of one look that is read, in bytes. A Prometheus answer with one sample is under 1 kB.
pub(super) const MAX_BODY: usize = 1024 * 1024;
/// Sent with every request, so that the other side's log tells who asked.
pub(super) const USER_AGENT: &str = concat!("panacea/", env!("CARGO_PKG_VERSION"));

pub(super) enum Body {
    Whole(Vec<u8>),
    /// Longer than the limit; the rest was not read.
    TooLong,
}

pub(super) async fn body(mut response: Response, max: usize) -> Result<Body, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max {
            return Ok(Body::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Body::Whole(body))
}

/// Scheme, host, port and path: credentials and tokens stand elsewhere in a URL.
pub(super) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// The innermost cause, which is the one that says something ("connection refused").
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if std::ptr::eq(innermost as *const _ as *const (), error as *const _ as *const ()) {
        // reqwest's own words, without the URL that they would repeat with its query.
        let kind = if error.is_timeout() {
            "timed out"
        } else if error.is_redirect() {
            "too many redirects"
        } else {
            "the request failed"
        };
        return kind.to_owned();
    }
    innermost.to_string()
}

/// Whether any error in the chain says one of these words. The libraries below give no types for these cases.
pub(super) fn chain_says(error: &reqwest::Error, words: &[&str]) -> bool {
    let mut next = error.source();
    while let Some(current) = next {
        let text = current.to_string().to_lowercase();
        if words.iter().any(|word| text.contains(word)) {
            return true;
        }
        next = current.source();
    }
    false
}

/// The first 80 characters, on one line, for a message.
pub(super) fn beginning(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(400)])
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(80)
        .collect()
}
