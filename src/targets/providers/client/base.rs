//! The base URL of an API.

use std::str::FromStr;

use url::Url;

use crate::api::is_loopback;

/// The address that an API's paths are joined to: https, or http on this machine; without credentials or a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// The address of a path below it, each segment escaped.
    pub(super) fn join(&self, segments: &[&str]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|why| format!("it is not a URL ({why})"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it holds credentials; take them out".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("{url} has a query or a fragment; take it out"));
        }
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if is_loopback(&url) => Ok(Self(url)),
            "http" => Err(format!("{url} would carry an API key in the clear; write https://")),
            _ => Err(format!("{url} must start with https://")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_over_tls_or_stays_on_this_machine() {
        for fine in ["https://api.render.com/v1", "http://127.0.0.1:8080/v1", "http://[::1]:1/", "http://localhost:9/"]
        {
            assert!(fine.parse::<BaseUrl>().is_ok(), "{fine}");
        }
        for (wrong, words) in [
            ("http://api.render.com/v1", "write https://"),
            ("http://localhost.example.com/", "write https://"),
            ("http://127.0.0.1.example.com/", "write https://"),
            ("ftp://127.0.0.1/", "must start with https://"),
            ("https://api.render.com/v1?a=b", "query"),
            ("render", "not a URL"),
        ] {
            let why = wrong.parse::<BaseUrl>().unwrap_err();
            assert!(why.contains(words), "{wrong}: {why}");
        }
        let why = "https://me:secret@api.render.com/".parse::<BaseUrl>().unwrap_err();
        assert!(why.contains("credentials") && !why.contains("secret"), "{why}");
    }

    #[test]
    fn a_path_segment_is_escaped() {
        for base in ["https://api.render.com/v1", "https://api.render.com/v1/"] {
            let base: BaseUrl = base.parse().unwrap();
            let url = base.join(&["services", "srv-1/../2?x", "restart"]);
            assert_eq!(url.as_str(), "https://api.render.com/v1/services/srv-1%2F..%2F2%3Fx/restart");
        }
    }
}
