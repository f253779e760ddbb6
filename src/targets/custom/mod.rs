//! Remedies that a team brings: an HTTP hook, a webhook, a tool of an MCP server. Jobs are Kubernetes objects, see
//! [`super::kubernetes`].

pub mod hook;
pub mod mcp;
pub mod webhook;

use super::{
    Targets,
    executor::{Executor, Order},
};

/// Who carries out a remedy that the team defines; none for other intents.
pub fn executor<'a>(_: &'a Targets, _: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
    None
}
