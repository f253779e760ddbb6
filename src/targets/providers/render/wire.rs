//! Render's responses, as far as they are read (<https://api-docs.render.com/reference>). Fields that may be absent are
//! optional.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::targets::providers::common::commit_label;

/// An id that a status can hold.
const MAX_SOURCE: usize = 64;

/// `GET /services/{id}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// `web_service`, `private_service`, `background_worker`, `cron_job`, `static_site`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `suspended` or `not_suspended`.
    pub suspended: String,
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

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Autoscaling {
    pub enabled: bool,
}

impl Service {
    /// The service can be restarted and scaled.
    pub fn has_instances(&self) -> bool {
        matches!(self.kind.as_str(), "web_service" | "private_service" | "background_worker")
    }

    /// Desired instances.
    pub fn desired(&self) -> Option<u32> {
        self.service_details.as_ref()?.num_instances
    }

    /// Render sets the number of instances.
    pub fn is_autoscaled(&self) -> bool {
        let autoscaling = self.service_details.as_ref().and_then(|details| details.autoscaling.as_ref());
        autoscaling.is_some_and(|autoscaling| autoscaling.enabled)
    }

    pub fn is_suspended(&self) -> bool {
        self.suspended == "suspended"
    }

    /// What triggers auto-deploy; none when auto-deploy is off.
    pub fn deploys_on(&self) -> Option<String> {
        match (&self.auto_deploy_trigger, self.auto_deploy.as_deref()) {
            (Some(trigger), _) if trigger != "off" => Some(trigger.clone()),
            (None, Some("yes")) => Some("commit".to_owned()),
            _ => None,
        }
    }
}

/// An element of a list. No Debug: it may hold an environment variable.
#[derive(Deserialize)]
pub struct Item<T> {
    #[serde(alias = "deploy", alias = "envVar", alias = "event")]
    pub item: T,
    pub cursor: Option<String>,
}

/// An element of `GET /services/{id}/deploys`.
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

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Commit {
    pub id: String,
    pub message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Image {
    #[serde(rename = "ref")]
    pub reference: String,
    /// The digest when it was deployed.
    pub sha: Option<String>,
}

impl Deploy {
    pub fn is_live(&self) -> bool {
        self.status == "live"
    }

    /// The deploy has ended and never served.
    pub fn has_failed(&self) -> bool {
        matches!(self.status.as_str(), "build_failed" | "update_failed" | "pre_deploy_failed")
    }

    /// The deploy will not be live, or not any more.
    pub fn is_over(&self) -> bool {
        self.has_failed() || matches!(self.status.as_str(), "canceled" | "deactivated")
    }

    pub fn is_rollback(&self) -> bool {
        self.trigger == "rollback"
    }

    /// Identifies the code: the commit, or a digest of the image; none where Render reports neither.
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
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Postgres {
    /// `available`, `unavailable`, `config_restart`, `suspended`, …
    pub status: String,
    /// `suspended` or `not_suspended`.
    pub suspended: String,
    pub suspenders: Vec<String>,
    pub high_availability_enabled: bool,
    /// `primary` or `replica`.
    pub role: String,
    /// The major one.
    pub version: String,
    /// Settings of the server that differ from the defaults.
    pub parameter_overrides: Value,
}

impl Postgres {
    pub fn is_suspended(&self) -> bool {
        self.suspended == "suspended" || self.status == "suspended"
    }

    pub fn is_replica(&self) -> bool {
        self.role == "replica"
    }

    /// The limit of connections, where it was set.
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
pub struct EnvVar {
    pub key: String,
    #[serde(default)]
    pub value: String,
}

/// An element of `GET /services/{id}/events`.
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
    /// Of `deploy_started`: the deploy, and its rollback target when it is a rollback.
    pub fn rollback(&self) -> Option<(&str, &str)> {
        let trigger = &self.details["trigger"];
        let target = trigger["rollbackTargetDeployId"].as_str().filter(|target| !target.is_empty())?;
        Some((self.details["deployId"].as_str()?, target))
    }
}

/// An element of `GET /metrics/{metric}`. An empty list is no data, not zero.
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

    /// Of an instance of this service.
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
    fn the_connection_limit_of_a_postgres_is_read_where_it_was_set() {
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
    fn the_source_of_a_deploy_is_its_commit_or_the_digest_of_its_image() {
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
