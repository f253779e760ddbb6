//! Projects that Vercel hosts (<https://vercel.com/docs/rest-api>): observed, rolled back.
//!
//! A project's production deployments are its releases. A rollback creates no deployment: it points production at an older
//! one again, which takes a while after the response.

pub mod spec;
mod state;
mod target;
mod wire;

pub use target::VercelTarget;

use super::{
    super::kubernetes::Kubernetes,
    account::{KeyWords, ProviderApi},
    client::Manner,
    common::ProviderConfig,
};

/// Where Vercel's API is.
pub const VERCEL_API: &str = "https://api.vercel.com";

const KEY: KeyWords =
    KeyWords { name: "Vercel access token", field: "target.vercel.tokenSecretRef", variable: "VERCEL_TOKEN" };

/// Observes projects and rolls them back. One for the whole operator.
pub struct Vercel(ProviderApi);

impl Vercel {
    pub fn new(config: ProviderConfig, kubernetes: &Kubernetes) -> Self {
        Self(ProviderApi::new(config, Manner::default(), KEY, kubernetes))
    }
}
