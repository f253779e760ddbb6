//! A Job of the team's own: made once, under a name that is derived, then looked at.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, Container, EnvVar, Secret},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, api::PostParams};
use secrecy::SecretString;

use super::{ActError, Call, Kubernetes, limited};
use crate::api::{ConfigKind, JobRemedy, JobTemplate, KeyRef, REMEDIATION_MANAGER};

/// An ended Job is kept for so long when its template does not say, in seconds.
const KEEP_FOR: i32 = 24 * 60 * 60;
/// And at least so long, or its end might not be seen.
const KEEP_LEAST: i32 = 5 * 60;

/// A Job to be run, and what it is told.
#[derive(Debug, Clone)]
pub struct JobRun<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub remedy: &'a JobRemedy,
    /// In whole seconds.
    pub deadline: i64,
    /// The Remediation: with it the Job goes.
    pub owner: OwnerReference,
    pub labels: Vec<(&'static str, String)>,
    /// For the environment of all containers.
    pub facts: Vec<(&'static str, String)>,
}

/// How a Job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Somebody else's Job has the name.
    Foreign,
    Running,
    Complete,
    Failed {
        why: String,
    },
}

impl Kubernetes {
    /// Whether the operator's role and the API server's own checks let this Job be made. Writes nothing.
    ///
    /// # Errors
    /// Forbidden, with the missing verb, or BadRemedy.
    pub async fn preflight_job(&self, run: &JobRun<'_>) -> Result<(), ActError> {
        self.may(Call::GET_JOB, run.namespace).await?;
        self.may(Call::CREATE_JOB, run.namespace).await?;
        if run.remedy.template_ref.is_some() {
            self.may(Call::get_config(ConfigKind::ConfigMap), run.namespace).await?;
        }
        match self.create_job(run, true).await {
            Err(ActError::Rejected(why)) => Err(ActError::BadRemedy(format!("the Job would be refused: {why}"))),
            other => other,
        }
    }

    /// Makes the Job. One that is there already stays as it is.
    ///
    /// # Errors
    /// See [`ActError`]; BadRemedy when its template cannot be used.
    pub async fn run_job(&self, run: &JobRun<'_>) -> Result<(), ActError> {
        self.create_job(run, false).await
    }

    async fn create_job(&self, run: &JobRun<'_>, dry_run: bool) -> Result<(), ActError> {
        let template = match (&run.remedy.template, &run.remedy.template_ref) {
            (Some(template), _) => template.clone(),
            (None, Some(key)) => self.job_template(run.namespace, key).await?,
            (None, None) => return Err(ActError::BadRemedy("job has neither template nor templateRef".to_owned())),
        };
        let job = job_of(run, &template)?;
        let api: Api<Job> = Api::namespaced(self.client.clone(), run.namespace);
        let params = PostParams { dry_run, field_manager: Some(REMEDIATION_MANAGER.to_owned()) };
        match limited(Call::CREATE_JOB, api.create(&params, &job)).await {
            Ok(_) | Err(ActError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn job_template(&self, namespace: &str, key: &KeyRef) -> Result<JobTemplate, ActError> {
        let bad = |why: String| ActError::BadRemedy(format!("ConfigMap {}: {why}", key.name));
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let found = limited(Call::get_config(ConfigKind::ConfigMap), api.get_opt(&key.name)).await?;
        let data = found.ok_or_else(|| bad("does not exist".to_owned()))?.data.unwrap_or_default();
        let text = data.get(&key.key).ok_or_else(|| bad(format!("has no key {}", key.key)))?;
        let value = serde_saphyr::from_str(text).map_err(|why| bad(format!("key {} is no YAML: {why}", key.key)))?;
        Ok(JobTemplate(value))
    }

    /// How the Job is; none when there is none. `owner` is the uid of its Remediation.
    ///
    /// # Errors
    /// See [`ActError`].
    pub async fn job(&self, namespace: &str, name: &str, owner: &str) -> Result<Option<JobState>, ActError> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let found = limited(Call::GET_JOB, api.get_opt(name)).await?;
        Ok(found.map(|job| state_of(&job, owner)))
    }

    /// Whether the Secret of a key may be read.
    ///
    /// # Errors
    /// Forbidden, with the missing verb.
    pub async fn preflight_secret(&self, namespace: &str) -> Result<(), ActError> {
        self.may(Call::GET_SECRET, namespace).await
    }

    /// What the key of a Secret holds, at the moment of use.
    ///
    /// # Errors
    /// See [`ActError`]; BadRemedy when there is none, or it is no text.
    pub async fn secret(&self, namespace: &str, key: &KeyRef) -> Result<SecretString, ActError> {
        let bad = |why: &str| ActError::BadRemedy(format!("Secret {}: {why}", key.name));
        let mut data = self.secret_data(namespace, &key.name).await?;
        let value = data.remove(&key.key).ok_or_else(|| bad(&format!("has no key {}", key.key)))?;
        let text = String::from_utf8(value.0).map_err(|_| bad(&format!("key {} is no text", key.key)))?;
        Ok(SecretString::from(text))
    }

    /// All keys of a Secret that hold text, read now.
    ///
    /// # Errors
    /// As [`Self::secret`].
    pub async fn secret_keys(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, ActError> {
        let data = self.secret_data(namespace, name).await?;
        Ok(data.into_iter().filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?))).collect())
    }

    async fn secret_data(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, ByteString>, ActError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let found = limited(Call::GET_SECRET, api.get_opt(name)).await?;
        let found = found.ok_or_else(|| ActError::BadRemedy(format!("Secret {name}: does not exist")))?;
        Ok(found.data.unwrap_or_default())
    }
}

fn job_of(run: &JobRun<'_>, template: &JobTemplate) -> Result<Job, ActError> {
    let parsed = template.parse().map_err(|why| ActError::BadRemedy(format!("the Job's template: {why}")))?;
    let mut metadata = parsed.metadata.unwrap_or_default();
    metadata.name = Some(run.name.to_owned());
    metadata.generate_name = None;
    metadata.namespace = Some(run.namespace.to_owned());
    metadata.owner_references = Some(vec![run.owner.clone()]);
    let labels = metadata.labels.get_or_insert_default();
    labels.extend(run.labels.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let mut spec = parsed.spec.unwrap_or_default();
    let deadline = spec.active_deadline_seconds.map_or(run.deadline, |own| own.min(run.deadline));
    spec.active_deadline_seconds = Some(deadline.max(1));
    let keep = spec.ttl_seconds_after_finished.unwrap_or(KEEP_FOR);
    spec.ttl_seconds_after_finished = Some(keep.max(KEEP_LEAST));
    if let Some(pod) = &mut spec.template.spec {
        let first = pod.init_containers.iter_mut().flatten();
        for container in first.chain(&mut pod.containers) {
            tell(container, &run.facts);
        }
    }
    Ok(Job { metadata, spec: Some(spec), status: None })
}

/// What the template sets itself stays.
fn tell(container: &mut Container, facts: &[(&'static str, String)]) {
    let env = container.env.get_or_insert_default();
    for (name, value) in facts {
        if !env.iter().any(|own| own.name == *name) {
            // The kubelet would take $(NAME) in it for a reference.
            let value = value.replace("$(", "$$(");
            env.push(EnvVar { name: (*name).to_owned(), value: Some(value), ..EnvVar::default() });
        }
    }
}

fn state_of(job: &Job, owner: &str) -> JobState {
    if !job.metadata.owner_references.iter().flatten().any(|reference| reference.uid == owner) {
        return JobState::Foreign;
    }
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    let is = |kind: &str| conditions.into_iter().flatten().find(move |one| one.type_ == kind && one.status == "True");
    match (is("Complete"), is("Failed")) {
        (Some(_), _) => JobState::Complete,
        (None, Some(failed)) => {
            let words: Vec<&str> =
                [&failed.reason, &failed.message].into_iter().flatten().map(String::as_str).collect();
            JobState::Failed { why: words.join(": ") }
        }
        (None, None) => JobState::Running,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(template: serde_json::Value) -> Result<serde_json::Value, ActError> {
        let remedy = JobRemedy { template: None, template_ref: None, deadline: "60s".into() };
        let run = JobRun {
            namespace: "shop",
            name: "api-1",
            remedy: &remedy,
            deadline: 60,
            owner: OwnerReference { uid: "u1".into(), ..OwnerReference::default() },
            labels: vec![("panacea.dev/component", "api".into())],
            facts: vec![("PANACEA_CAUSE", "Errors".into()), ("PANACEA_WHY", "100% of $(all)".into())],
        };
        job_of(&run, &JobTemplate(template)).map(|job| serde_json::to_value(job).unwrap())
    }

    #[test]
    fn a_job_is_named_owned_limited_and_told_what_is_known() {
        let container = json!({"name": "fix", "env": [{"name": "PANACEA_CAUSE", "value": "mine"}]});
        let job = made(json!({
            "metadata": {"name": "other", "generateName": "x-", "labels": {"team": "shop"}},
            "spec": {"activeDeadlineSeconds": 600, "ttlSecondsAfterFinished": 0, "backoffLimit": 1,
                     "template": {"spec": {"containers": [container], "initContainers": [{"name": "first"}]}}},
        }))
        .unwrap();
        assert_eq!((&job["metadata"]["name"], &job["metadata"]["generateName"]), (&json!("api-1"), &json!(null)));
        assert_eq!(job["metadata"]["labels"], json!({"team": "shop", "panacea.dev/component": "api"}));
        assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], "u1");
        let spec = &job["spec"];
        assert_eq!([&spec["activeDeadlineSeconds"], &spec["ttlSecondsAfterFinished"]], [&json!(60), &json!(300)]);
        assert_eq!(spec["backoffLimit"], 1);
        let pod = &spec["template"]["spec"];
        let why = json!({"name": "PANACEA_WHY", "value": "100% of $$(all)"});
        assert_eq!(pod["containers"][0]["env"], json!([{"name": "PANACEA_CAUSE", "value": "mine"}, why]));
        assert_eq!(pod["initContainers"][0]["env"][1], why);

        let job = made(json!({"spec": {"activeDeadlineSeconds": 5, "template": {}}})).unwrap();
        assert_eq!([&job["spec"]["activeDeadlineSeconds"], &job["spec"]["ttlSecondsAfterFinished"]], [5, 86400]);
        let error = made(json!({"spec": {"templat": {"spec": 1}}})).unwrap_err();
        assert!(error.reason().name() == "BadRemedy" && error.to_string().contains("templat"), "{error}");
    }

    #[test]
    fn its_conditions_say_how_it_is() {
        let state = |conditions: serde_json::Value| {
            let job = json!({"metadata": {"ownerReferences": [{"apiVersion": "", "kind": "", "name": "", "uid": "u1"}]},
                             "status": {"conditions": conditions}});
            state_of(&serde_json::from_value(job).unwrap(), "u1")
        };
        let condition =
            |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "R", "message": "m"});
        assert_eq!(state(json!([])), JobState::Running);
        assert_eq!(
            state(json!([condition("Complete", "False"), condition("SuccessCriteriaMet", "True")])),
            JobState::Running
        );
        assert_eq!(state(json!([condition("Complete", "True")])), JobState::Complete);
        assert_eq!(state(json!([condition("Failed", "True")])), JobState::Failed { why: "R: m".into() });
        assert_eq!(state_of(&Job::default(), "u1"), JobState::Foreign);
    }
}
