//! A tool of an MCP server, and whether the policy allows it.

use url::{Host, Url};

use super::{Checker, MINUTE, SECOND};
use crate::api::{AllowedMcpTool, McpRemedy};

impl Checker {
    pub(super) fn mcp(&mut self, mcp: &McpRemedy, allowed: &[AllowedMcpTool]) {
        let McpRemedy { url, tool, arguments, timeout, .. } = mcp;
        if self.url("url", url).is_some_and(|url| url.scheme() != "https" && !is_loopback(&url)) {
            self.bad(
                "url",
                format!("{url:?} must start with https://: an unencrypted request could be read and changed"),
            );
        }
        // Only tools that the policy names may be called.
        if !allowed.iter().any(|one| one.url == *url && one.tool == *tool) {
            let entry = format!("{{url: {url:?}, tool: {tool:?}}}");
            self.bad("tool", format!("{tool:?} of {url} is not allowed; add {entry} to spec.safety.allowedMcpTools"));
        }
        if let Err(why) = arguments.check() {
            self.bad("arguments", why);
        }
        self.duration("timeout", timeout, SECOND, 10 * MINUTE);
    }
}

/// Requests to this URL do not leave the machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
