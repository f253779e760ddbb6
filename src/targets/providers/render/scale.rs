//! How many instances a service has. The number is absolute: setting it twice is as good as once.

use std::time::Instant;

use reqwest::Method;
use serde_json::json;

use super::{READ_LIMIT, Render};
use crate::{
    api::RenderService,
    targets::{
        providers::client::Repeat,
        providers::common::{HostedError, Size},
    },
};

/// Why what is autoscaled is not scaled, for a person.
pub fn autoscaled(id: &str) -> String {
    format!(
        "Render scales {id} by itself, and takes no number of instances meanwhile: raise the bounds of its autoscaling in Render's dashboard, or take Scale out"
    )
}

impl Render {
    /// # Errors
    /// See [`HostedError`].
    pub async fn size(&self, namespace: &str, service: &RenderService) -> Result<Size, HostedError> {
        let until = Instant::now() + READ_LIMIT;
        let account = self.account(namespace, service).await?;
        let (itself, instances) = tokio::try_join!(self.service(&account, until), self.instances(&account, until))?;
        let run = u32::try_from(instances.len()).unwrap_or(u32::MAX);
        Ok(Size { run, wanted: itself.wanted(), autoscaled: itself.is_autoscaled() })
    }

    /// Asks for so many instances; the answer's status.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn scale(&self, namespace: &str, service: &RenderService, to: u32) -> Result<u16, HostedError> {
        let account = self.account(namespace, service).await?;
        let id = service.service_id.as_str();
        let (what, json) = (format!("scale service {id} to {to} instances"), json!({"numInstances": to}));
        let path = ["services", id, "scale"];
        let answer = self.change(&account, Method::POST, (&what, &path), Some(&json), Repeat::Always).await;
        self.forget_observation(namespace, service);
        Ok(answer?.status)
    }
}
