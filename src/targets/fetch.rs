//! Shared by the HTTP targets: clients, responses of bounded size, and errors in words that hold no secrets.

use std::error::Error;

use reqwest::{Client, ClientBuilder, Response, redirect};
use url::Url;

/// The longest response of one observation that is read, in bytes. A Prometheus response with one sample is under 1 kB.
pub(super) const MAX_BODY: usize = 1024 * 1024;
/// Sent with every request: the server's log names the operator.
pub(super) const USER_AGENT: &str = concat!("panacea/", env!("CARGO_PKG_VERSION"));

/// A client that follows no redirect: a redirect would take the request to a place that the policy does not name. The error
/// says why there is no client at all (for example no usable root certificates).
pub(super) fn client(with: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, String> {
    let builder = Client::builder().user_agent(USER_AGENT).redirect(redirect::Policy::none());
    with(builder).build().map_err(|error| cause(&error))
}

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

/// Scheme, host, port and path: the other parts of a URL hold credentials and tokens.
pub(super) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// The causes of an error, from the outermost on.
pub(super) fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&error| error.source())
}

/// The innermost cause, which is the specific one ("connection refused").
pub(super) fn cause(error: &reqwest::Error) -> String {
    match causes(error).last() {
        Some(innermost) => innermost.to_string(),
        // reqwest's message would repeat the URL with its query.
        None if error.is_timeout() => "timed out".to_owned(),
        None if error.is_redirect() => "too many redirects".to_owned(),
        None => "the request failed".to_owned(),
    }
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
