//! The providers that host services. Each provider's folder has its client and its targets; the procedures here name none.

mod call;
pub mod client;
pub mod common;
mod deploy;
mod deploy_executor;
pub mod env_vars;
#[cfg(test)]
mod fixtures;
pub mod github;
mod recover;
pub mod render;
mod restart;
mod scale;
pub mod vercel;

use super::{Observed, Unfinished, kubernetes::Kubernetes};
use crate::{
    analyze::observation::{Hosted, TargetState},
    api::{ActionPlan, ProviderProgress, TemplateRef},
};
use common::{HostedError, ProviderConfig};
use github::Github;
use render::Render;
use vercel::Vercel;

/// How the providers' APIs are reached.
#[derive(Debug, Clone)]
pub struct HostingConfig {
    pub render: ProviderConfig,
    pub vercel: ProviderConfig,
    pub github: ProviderConfig,
}

/// The providers. One for the whole operator.
pub struct Hosting {
    pub render: Render,
    pub vercel: Vercel,
    pub github: Github,
}

impl Hosting {
    pub fn new(config: HostingConfig, kubernetes: &Kubernetes) -> Self {
        let HostingConfig { render, vercel, github } = config;
        Self {
            render: Render::new(render, kubernetes.clone()),
            vercel: Vercel::new(vercel, kubernetes.clone()),
            github: Github::new(github, kubernetes.clone()),
        }
    }
}

fn hosted_state(hosted: Hosted) -> TargetState {
    TargetState::Hosted(Box::new(hosted))
}

/// What the plan rolls back to.
fn rolls_back_to(plan: &ActionPlan) -> Result<&TemplateRef, HostedError> {
    let none = HostedError::Unsupported("the remediation names no deploy to go back to");
    plan.intent.template().ok_or(none)
}

/// What an action leaves open when nobody can follow it any more.
pub fn unfinished(progress: &ProviderProgress) -> Unfinished {
    let may_have_effect = call::CallState::of(progress) != call::CallState::NotSent;
    Unfinished { may_have_effect, left: call::left_changed(progress) }
}
