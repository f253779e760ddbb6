//! The providers that host services. Each provider's folder has its targets; the procedures here name no provider.

/// `TargetFacts` of a service: its provider's name, its id, and `$(name)` in queries. In scope of the modules below.
macro_rules! hosted_facts {
    ($target:ty, $capabilities:expr, $kind:expr, $id:ident, $query_name:ident) => {
        impl TargetFacts for $target {
            fn capabilities(&self) -> &'static Capabilities {
                $capabilities
            }

            fn acted_on(&self, _: ActionKind, _: &str) -> RemediationTarget {
                RemediationTarget { kind: $kind.to_owned(), name: self.$id.clone() }
            }

            fn describe(&self) -> String {
                format!("{}/{}", $kind, self.$id)
            }

            fn query_name(&self) -> Option<&str> {
                Some(&self.$query_name)
            }
        }
    };
}

mod account;
mod call;
mod call_executor;
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
    api::ProviderProgress,
};
use common::ProviderConfig;
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
        Self {
            render: Render::new(config.render, kubernetes),
            vercel: Vercel::new(config.vercel, kubernetes),
            github: Github::new(config.github, kubernetes),
        }
    }
}

fn hosted_state(hosted: Hosted) -> TargetState {
    TargetState::Hosted(Box::new(hosted))
}

/// What an action leaves open when nobody can follow it any more. Only Render has auto-deploy.
pub fn unfinished(progress: &ProviderProgress) -> Unfinished {
    Unfinished { may_have_effect: progress.sent_at.is_some(), left: call::left_changed(&render::WORDS, progress) }
}
