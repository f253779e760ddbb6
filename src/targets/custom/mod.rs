//! Custom remedies: a Job, an HTTP hook, a webhook, a tool of an MCP server.
//!
//! `hook`, `webhook` and `mcp` make the calls; `in_flight` runs them as tasks; `procedures` decides.

pub mod hook;
mod in_flight;
pub mod mcp;
mod procedures;
pub mod webhook;

use parking_lot::Mutex;

use self::procedures::{hook::HookExecutor, job::JobExecutor, mcp::McpExecutor, webhook::WebhookExecutor};
use super::{
    Targets,
    executor::{Executor, Order},
};
use crate::api::Intent;

/// The executor of a custom remedy; none for other intents.
pub fn executor<'a>(targets: &'a Targets, order: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
    let kubernetes = &targets.kubernetes;
    Some(match &order.plan.intent {
        Intent::Job(remedy) => Box::new(JobExecutor { kubernetes, order, remedy }),
        Intent::Webhook(webhook) => {
            Box::new(WebhookExecutor { kubernetes, hooks: &targets.hooks, order, webhook, secret: Mutex::default() })
        }
        Intent::Mcp(remedy) => {
            Box::new(McpExecutor { kubernetes, mcp: &targets.mcp, order, remedy, prepared: Mutex::default() })
        }
        Intent::CleanupMemory { hook: Some(hook), .. } => Box::new(HookExecutor { hooks: &targets.hooks, order, hook }),
        _ => return None,
    })
}
