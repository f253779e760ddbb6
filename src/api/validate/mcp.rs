//! A tool of an MCP server, and whether the policy allows it.

use url::{Host, Url};

use super::{Checker, MINUTE, SECOND};
use crate::api::{AllowedMcpTool, McpRemedy};

impl Checker {
    pub(super) fn mcp(&mut self, field: &str, mcp: &McpRemedy, allowed: &[AllowedMcpTool]) {
        if let Some(url) = self.url(&format!("{field}.url"), &mcp.url)
            && url.scheme() != "https"
            && !is_loopback(&url)
        {
            self.bad(
                &format!("{field}.url"),
                format!("{:?} must start with https://: what is sent could be read and changed on its way", mcp.url),
            );
        }
        // Nothing is allowed that the policy does not allow by name.
        if !allowed.iter().any(|one| one.url == mcp.url && one.tool == mcp.tool) {
            self.bad(
                &format!("{field}.tool"),
                format!(
                    "{:?} of {} is not allowed; add {{url: {:?}, tool: {:?}}} to spec.safety.allowedMcpTools",
                    mcp.tool, mcp.url, mcp.url, mcp.tool
                ),
            );
        }
        if let Err(why) = mcp.arguments.check() {
            self.bad(&format!("{field}.arguments"), why);
        }
        self.duration(&format!("{field}.timeout"), &mcp.timeout, SECOND, 10 * MINUTE);
    }
}

/// What is sent to it does not leave this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
