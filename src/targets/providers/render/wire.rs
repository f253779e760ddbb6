//! Render's answers, as far as they are read (<https://api-docs.render.com/reference>). What need not be there is optional.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::targets::providers::common::commit_label;

/// An id that a status can hold.
const MAX_SOURCE: usize = 64;

/// `GET /services/{id}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// `web_service`, `private_service`, `background_worker`, `cron_job`, `static_site`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// `suspended` or `not_suspended`.
    #[serde(default)]
    pub suspended: String,
    #[serde(default)]
    pub suspenders: Vec<String>,
    /// `commit`, `checksPass` or `off`.
    pub auto_deploy_trigger: Option<String>,
    /// The older field: `yes` or `no`.
    pub auto_deploy: Option<String>,
    pub service_details: Option<ServiceDetails>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDetails {
    pub num_instances: Option<u32>,
    pub autoscaling: Option<Autoscaling>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Autoscaling {
    #[serde(default)]
    pub enabled: bool,
}

impl Service {
    /// What can be restarted and scaled.
    pub fn has_instances(&self) -> bool {
        matches!(self.kind.as_str(), "web_service" | "private_service" | "background_worker")
    }

    /// Instances that are wanted.
    pub fn wanted(&self) -> Option<u32> {
        self.service_details.as_ref()?.num_instances
    }

    /// Render has their number.
    pub fn is_autoscaled(&self) -> bool {
        let autoscaling = self.service_details.as_ref().and_then(|details| details.autoscaling.as_ref());
        autoscaling.is_some_and(|autoscaling| autoscaling.enabled)
    }

    pub fn is_suspended(&self) -> bool {
        self.suspended == "suspended"
    }

    /// What has it deploy by itself; none when nothing does.
    pub fn deploys_on(&self) -> Option<String> {
        match (&self.auto_deploy_trigger, self.auto_deploy.as_deref()) {
            (Some(trigger), _) if trigger != "off" => Some(trigger.clone()),
            (None, Some("yes")) => Some("commit".to_owned()),
            _ => None,
        }
    }
}

/// An element of `GET /services/{id}/deploys`.
#[derive(Debug, Clone, Deserialize)]
pub struct DeployItem {
    pub deploy: Deploy,
    pub cursor: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deploy {
    pub id: String,
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub trigger: String,
    pub commit: Option<Commit>,
    pub image: Option<Image>,
    pub created_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Commit {
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub message: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Image {
    #[serde(rename = "ref", default)]
    pub reference: String,
    /// What that was when it was deployed.
    pub sha: Option<String>,
}

impl Deploy {
    pub fn is_live(&self) -> bool {
        self.status == "live"
    }

    /// It has ended without having served.
    pub fn has_failed(&self) -> bool {
        matches!(self.status.as_str(), "build_failed" | "update_failed" | "pre_deploy_failed")
    }

    /// It will not be live any more, or never was and will not be.
    pub fn is_over(&self) -> bool {
        self.has_failed() || matches!(self.status.as_str(), "canceled" | "deactivated")
    }

    pub fn is_rollback(&self) -> bool {
        self.trigger == "rollback"
    }

    /// Names what it was made of: its commit, or a digest of its image; none where Render does not tell.
    pub fn source(&self) -> Option<String> {
        if let Some(commit) = self.commit.as_ref().filter(|commit| !commit.id.is_empty()) {
            return Some(commit.id.chars().take(MAX_SOURCE).collect());
        }
        let image = self.image.as_ref().filter(|image| !image.reference.is_empty())?;
        let name = [image.reference.as_str(), image.sha.as_deref().unwrap_or_default()].join("@");
        Some(Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string())
    }

    /// "commit 4af0e84: fix the login".
    pub fn label(&self) -> String {
        if let Some(commit) = self.commit.as_ref().filter(|commit| !commit.id.is_empty()) {
            return commit_label(&commit.id, &commit.message);
        }
        match &self.image {
            Some(image) if !image.reference.is_empty() => format!("image {}", image.reference),
            _ => "no commit".to_owned(),
        }
    }
}

/// `GET /postgres/{id}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Postgres {
    /// `available`, `unavailable`, `config_restart`, `suspended`, …
    #[serde(default)]
    pub status: String,
    /// `suspended` or `not_suspended`.
    #[serde(default)]
    pub suspended: String,
    #[serde(default)]
    pub suspenders: Vec<String>,
    #[serde(default)]
    pub high_availability_enabled: bool,
    /// `primary` or `replica`.
    #[serde(default)]
    pub role: String,
    /// The major one.
    #[serde(default)]
    pub version: String,
    /// Settings of the server that somebody has changed.
    #[serde(default)]
    pub parameter_overrides: Value,
}

impl Postgres {
    pub fn is_suspended(&self) -> bool {
        self.suspended == "suspended" || self.status == "suspended"
    }

    pub fn is_replica(&self) -> bool {
        self.role == "replica"
    }

    /// Connections that it may have, where somebody has set that.
    pub fn max_connections(&self) -> Option<f64> {
        let set = &self.parameter_overrides["max_connections"];
        let number = set.as_f64().or_else(|| set.as_str()?.parse().ok());
        number.filter(|most| *most >= 1.0)
    }
}

/// An element of `GET /services/{id}/instances`.
#[derive(Debug, Clone, Deserialize)]
pub struct Instance {
    pub id: String,
}

/// An element of `GET /services/{id}/env-vars`. No Debug: it holds a value.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVarItem {
    pub env_var: EnvVar,
    pub cursor: Option<String>,
}

#[derive(Deserialize)]
pub struct EnvVar {
    pub key: String,
    #[serde(default)]
    pub value: String,
}

/// An element of `GET /services/{id}/events`.
#[derive(Debug, Clone, Deserialize)]
pub struct EventItem {
    pub event: Event,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    pub id: String,
    pub timestamp: Timestamp,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub details: Value,
}

impl Event {
    /// Of `deploy_started`: the deploy, and what it goes back to when it is a rollback.
    pub fn rollback(&self) -> Option<(&str, &str)> {
        let trigger = &self.details["trigger"];
        let target = trigger["rollbackTargetDeployId"].as_str().filter(|target| !target.is_empty())?;
        Some((self.details["deployId"].as_str()?, target))
    }
}

/// An element of `GET /metrics/{metric}`. An empty list means that there is no data, not zero.
#[derive(Debug, Clone, Deserialize)]
pub struct Series {
    #[serde(default)]
    pub labels: Vec<Label>,
    #[serde(default)]
    pub unit: String,
    #[serde(default)]
    pub values: Vec<Point>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Label {
    pub field: String,
    pub value: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Point {
    pub timestamp: Timestamp,
    pub value: f64,
}

impl Series {
    pub fn label(&self, field: &str) -> Option<&str> {
        self.labels.iter().find(|label| label.field == field).map(|label| label.value.as_str())
    }

    /// It is of an instance of this service.
    pub fn is_of(&self, service: &str) -> bool {
        self.label("instance").and_then(|instance| instance.rsplit_once('-')).is_some_and(|(of, _)| of == service)
    }

    pub fn newest(&self) -> Option<&Point> {
        self.values.iter().max_by_key(|point| point.timestamp)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn how_many_connections_a_postgres_may_have_is_told_where_it_was_set() {
        let most = |overrides: Value| {
            serde_json::from_value::<Postgres>(json!({"parameterOverrides": overrides})).unwrap().max_connections()
        };
        assert_eq!(most(json!({"max_connections": "250"})), Some(250.0));
        assert_eq!(most(json!({"max_connections": 250})), Some(250.0));
        for none in [json!({}), json!(null), json!({"max_connections": "many"}), json!({"max_connections": 0})] {
            assert_eq!(most(none), None);
        }
    }

    #[test]
    fn what_a_deploy_was_made_of_is_its_commit_or_what_its_image_was_then() {
        let source = |of: Value| {
            let mut deploy = json!({"id": "dep-1"});
            deploy.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
            serde_json::from_value::<Deploy>(deploy).unwrap().source()
        };
        assert_eq!(source(json!({"commit": {"id": "c0ffee0", "message": "m"}})).as_deref(), Some("c0ffee0"));
        let image = |sha: &str| source(json!({"commit": {"id": ""}, "image": {"ref": "shop/api:v1", "sha": sha}}));
        assert!(image("sha256:a") == image("sha256:a") && image("sha256:a") != image("sha256:b"), "a tag may move");
        assert!(image("sha256:a").is_some_and(|source| source.len() <= MAX_SOURCE));
        assert_eq!(source(json!({})), None);
    }
}
