//! Remedies that a team brings: an HTTP hook, a webhook, a tool of an MCP server. Jobs are Kubernetes objects, see
//! [`super::kubernetes`].

pub mod hook;
pub mod mcp;
pub mod webhook;
