//! A Job of a custom remedy: created once, under a derived name, then observed.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, Container, EnvVar, Secret},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use secrecy::SecretString;

use super::{ActError, Call, Kubernetes, created, limited};
use crate::api::{JobRemedy, JobTemplate, KeyRef};

/// The default of `ttlSecondsAfterFinished`.
const KEEP_FOR: i32 = 24 * 60 * 60;
/// The least `ttlSecondsAfterFinished`: the operator must observe the end of the Job.
const KEEP_LEAST: i32 = 5 * 60;

/// A Job to run.
#[derive(Debug, Clone)]
pub struct JobRun<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub remedy: &'a JobRemedy,
    /// In whole seconds.
    pub deadline: i64,
    /// The Remediation; the Job is deleted with it.
    pub owner: OwnerReference,
    pub labels: Vec<(&'static str, String)>,
    /// For the environment of all containers.
    pub facts: Vec<(&'static str, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// A Job of another owner has the name.
    Foreign,
    Running,
    Complete,
    Failed {
        why: String,
    },
}

impl Kubernetes {
    /// Whether the operator's role and the API server allow this Job. Writes nothing. Forbidden or BadRemedy otherwise.
    pub async fn preflight_job(&self, run: &JobRun<'_>) -> Result<(), ActError> {
        self.may(Call::GET_JOB, run.namespace).await?;
        self.may(Call::CREATE_JOB, run.namespace).await?;
        if run.remedy.template_ref.is_some() {
            self.may(Call::get("configmaps"), run.namespace).await?;
        }
        match self.create_job(run, true).await {
            Err(ActError::Rejected(why)) => Err(ActError::BadRemedy(format!("the Job would be refused: {why}"))),
            other => other,
        }
    }

    /// Creates the Job, if there is none of its name. BadRemedy when its template cannot be used.
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
        created(Call::CREATE_JOB, &self.namespaced::<Job>(run.namespace), &job, dry_run).await
    }

    async fn job_template(&self, namespace: &str, key: &KeyRef) -> Result<JobTemplate, ActError> {
        let bad = |why: String| ActError::BadRemedy(format!("ConfigMap {}: {why}", key.name));
        let maps = self.namespaced::<ConfigMap>(namespace);
        let found = limited(Call::get("configmaps"), maps.get_opt(&key.name)).await?;
        let data = found.ok_or_else(|| bad("does not exist".to_owned()))?.data.unwrap_or_default();
        let text = data.get(&key.key).ok_or_else(|| bad(format!("has no key {}", key.key)))?;
        let value =
            serde_saphyr::from_str(text).map_err(|why| bad(format!("key {} is not valid YAML: {why}", key.key)))?;
        Ok(JobTemplate(value))
    }

    /// The state of the Job; none when it does not exist. `owner` is the uid of its Remediation.
    pub async fn job(&self, namespace: &str, name: &str, owner: &str) -> Result<Option<JobState>, ActError> {
        let found = limited(Call::GET_JOB, self.namespaced::<Job>(namespace).get_opt(name)).await?;
        Ok(found.map(|job| state_of(&job, owner)))
    }

    /// Whether Secrets may be read.
    pub async fn preflight_secret(&self, namespace: &str) -> Result<(), ActError> {
        self.may(Call::GET_SECRET, namespace).await
    }

    /// The value of a key of a Secret, read at the moment of use. BadRemedy when there is none, or it is not text.
    pub async fn secret(&self, namespace: &str, key: &KeyRef) -> Result<SecretString, ActError> {
        let bad = |why: &str| ActError::BadRemedy(format!("Secret {}: {why}", key.name));
        let mut data = self.secret_data(namespace, &key.name).await?;
        let value = data.remove(&key.key).ok_or_else(|| bad(&format!("has no key {}", key.key)))?;
        let text = String::from_utf8(value.0).map_err(|_| bad(&format!("key {} is not text", key.key)))?;
        Ok(SecretString::from(text))
    }

    /// All keys of a Secret with text, read now.
    pub async fn secret_keys(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, ActError> {
        let data = self.secret_data(namespace, name).await?;
        Ok(data.into_iter().filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?))).collect())
    }

    async fn secret_data(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, ByteString>, ActError> {
        let found = limited(Call::GET_SECRET, self.namespaced::<Secret>(namespace).get_opt(name)).await?;
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
            add_facts(container, &run.facts);
        }
    }
    Ok(Job { metadata, spec: Some(spec), status: None })
}

/// Variables of the template stay.
fn add_facts(container: &mut Container, facts: &[(&'static str, String)]) {
    let env = container.env.get_or_insert_default();
    for (name, value) in facts {
        if !env.iter().any(|own| own.name == *name) {
            // The kubelet would expand $(NAME).
            let value = value.replace("$(", "$$(");
            env.push(EnvVar { name: (*name).to_owned(), value: Some(value), ..EnvVar::default() });
        }
    }
}

fn state_of(job: &Job, owner: &str) -> JobState {
    if !job.metadata.owner_references.iter().flatten().any(|reference| reference.uid == owner) {
        return JobState::Foreign;
    }
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is = |kind: &str| conditions.iter().find(|one| one.type_ == kind && one.status == "True");
    match (is("Complete"), is("Failed")) {
        (Some(_), _) => JobState::Complete,
        (None, Some(failed)) => {
            let words = [failed.reason.as_deref(), failed.message.as_deref()];
            JobState::Failed { why: words.into_iter().flatten().collect::<Vec<_>>().join(": ") }
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
    fn a_job_is_named_owned_limited_and_given_the_facts() {
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
    fn conditions_give_the_state() {
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
