//! A tool of an external MCP server.
//!
//! Guarantees: it is called at most once. That it is called is stored before; when no answer is known after that, for
//! whatever reason, it is not called again, and the component's health tells whether it helped.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt as _, runtime::controller::Action};
use serde_json::{Map, Value};

use super::Step;
use crate::{
    api::{McpRemedy, Phase, RemediationStatus, RunStatus, ValidPolicy, milliseconds},
    controller::{Error, events::Reason, revalidate::withdrawn},
    targets::custom::mcp::McpError,
};

impl Step<'_> {
    pub(super) async fn call_tool(
        &self,
        mut status: RemediationStatus,
        mcp: &McpRemedy,
        policy: Option<&ValidPolicy>,
    ) -> Result<Action, Error> {
        let spec = &self.remediation.spec;
        if status.run.as_ref().is_some_and(|run| run.called_at.is_some()) {
            return self.unknown(status, "the operator ended before the answer was noted").await;
        }
        if let Some((reason, why)) = withdrawn(spec, policy) {
            return self.finish(status, Phase::Expired, reason, &format!("{why}; nothing was called")).await;
        }
        let namespace = self.remediation.namespace().unwrap_or_default();
        let token = match &mcp.token_secret_ref {
            None => None,
            Some(key) => match self.ctx.targets.kubernetes.secret(&namespace, key).await {
                Ok(token) => Some(token),
                Err(error) => {
                    let begun = status.started_at.unwrap_or(spec.decided_at);
                    return self.not_done(status, error, begun).await;
                }
            },
        };
        let arguments = match self.arguments(mcp) {
            Ok(arguments) => arguments,
            Err(why) => return self.tool_failed(status, &McpError::Invalid(format!("mcp.arguments {why}"))).await,
        };
        let call = match self.ctx.targets.mcp.prepare(&mcp.url, token, &mcp.tool, arguments).await {
            Ok(call) => call,
            Err(error) => return self.tool_failed(status, &error).await,
        };
        status.run = Some(RunStatus { called_at: Some(milliseconds(Timestamp::now())), ..RunStatus::default() });
        status.message = format!("the tool {} is called, and has {} at most", mcp.tool, mcp.timeout);
        self.write(&status, false).await?;
        self.ctx.events.about_step(self.remediation, Reason::Acting, "mcp", &status.message).await;
        // Checked when the policy was.
        let limit = mcp.timeout.parse().unwrap_or(SignedDuration::ZERO);
        match call.make(Duration::try_from(limit).unwrap_or_default()).await {
            Ok(said) => {
                let message = format!("the tool {} has answered {said:?}; watching whether it helps", mcp.tool);
                self.executed(status, "Executed", message).await
            }
            Err(McpError::Lost(why)) => self.unknown(status, &why).await,
            Err(error) => self.tool_failed(status, &error).await,
        }
    }

    async fn unknown(&self, status: RemediationStatus, why: &str) -> Result<Action, Error> {
        let lost = McpError::Lost(why.to_owned());
        let message = format!("{lost}; it is not called again; watching whether the component gets well");
        self.executed(status, lost.reason(), message).await
    }

    async fn tool_failed(&self, status: RemediationStatus, error: &McpError) -> Result<Action, Error> {
        self.finish(status, Phase::Failed, error.reason(), &error.to_string()).await
    }

    /// With the facts put in.
    fn arguments(&self, mcp: &McpRemedy) -> Result<Map<String, Value>, String> {
        let spec = &self.remediation.spec;
        mcp.arguments.filled(&|fact| {
            Some(match fact {
                "namespace" => self.remediation.namespace().unwrap_or_default(),
                "policy" => spec.policy.clone(),
                "component" => spec.component.clone(),
                "kind" => spec.target.kind.clone(),
                "name" => spec.target.name.clone(),
                "cause" => spec.cause.to_string(),
                "why" => spec.why.clone(),
                "episode" => spec.episode.clone(),
                "remediation" => self.remediation.name_any(),
                "uid" => self.remediation.uid().unwrap_or_default(),
                _ => return None,
            })
        })
    }
}
