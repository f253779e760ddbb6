//! What is done to an environment, and what has come of it.

use serde_json::json;

use super::{
    Account, Github,
    state::{ROLLBACK_TASK, goes_to, of_deployment, of_run},
    wire::{Deployment, Dispatched, Run, Runs, Workflow},
};
use crate::{
    api::{GithubEnvironment, GithubWorkflow, TemplateRef},
    targets::{
        kubernetes::ActError,
        providers::client::{Answer, Failure},
        providers::common::{Before, DeployState, HostedError},
    },
};

/// Runs that are searched for ours: the newest.
const RUNS: &str = "50";

impl Github {
    /// Whether it can be rolled back to a deployment.
    ///
    /// # Errors
    /// BadRemedy or Forbidden, in words for a person; what may pass is no reason.
    pub async fn preflight_rollback(
        &self,
        namespace: &str,
        environment: &GithubEnvironment,
        to: Option<&TemplateRef>,
    ) -> Result<(), ActError> {
        let id = &environment.id;
        let asked = async {
            let account = self.account(namespace, environment).await?;
            if let Some(workflow) = &environment.workflow {
                let state = self.workflow(&account, workflow).await?.state;
                if state != "active" {
                    return Ok(Some(format!("the workflow {} of {id} is {state}; enable it", workflow.file)));
                }
            }
            let Some(to) = to else { return Ok(None) };
            let Ok(number) = to.hash.parse() else {
                return Ok(Some(format!("{} is no deployment of {id}", to.hash)));
            };
            let served = self.standing(&account, number).await?.served;
            Ok::<_, HostedError>((!served).then(|| format!("deployment {number} of {id} has never succeeded")))
        };
        match asked.await {
            Err(error) => error.forbids(),
            Ok(Some(why)) => Err(ActError::BadRemedy(why)),
            Ok(None) => Ok(()),
        }
    }

    /// What is there before the call.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn before(&self, namespace: &str, environment: &GithubEnvironment) -> Result<Before, HostedError> {
        let account = self.account(namespace, environment).await?;
        let read = self.read(&account).await?;
        let newest = match &environment.workflow {
            Some(workflow) => self.runs(&account, workflow).await?.iter().map(|run| run.id).max(),
            None => read.newest(),
        };
        Ok(Before {
            live: read.live.map(|(deployment, _)| deployment.id.to_string()),
            instances: Vec::new(),
            newest_restart: None,
            // Ids only grow: all are newer than none.
            newest_deploy: Some(newest.unwrap_or_default().to_string()),
            deploys_on: None,
        })
    }

    /// Dispatches the workflow, or makes a deployment: the run's id or the deployment's, if it is told, and the answer's status.
    ///
    /// # Errors
    /// See [`HostedError`]; [`HostedError::not_done`] tells whether it had no effect for certain.
    pub async fn roll_back(
        &self,
        namespace: &str,
        environment: &GithubEnvironment,
        to: &TemplateRef,
    ) -> Result<(Option<String>, u16), HostedError> {
        let account = self.account(namespace, environment).await?;
        match &environment.workflow {
            Some(workflow) => self.dispatch(&account, workflow, &to.digest).await,
            None => self.deploy(&account, to).await,
        }
    }

    async fn dispatch(
        &self,
        account: &Account<'_>,
        workflow: &GithubWorkflow,
        commit: &str,
    ) -> Result<(Option<String>, u16), HostedError> {
        let GithubWorkflow { file, git_ref, sha_input, inputs } = workflow;
        let mut inputs = inputs.clone();
        inputs.insert(sha_input.clone(), commit.to_owned());
        let what = format!("dispatch {file} of {} to go back to {commit}", account.environment.id);
        let path = ["actions", "workflows", file, "dispatches"];
        let mut body = json!({"ref": git_ref, "inputs": inputs, "return_run_details": true});
        let answer = match self.post(account, &what, &path, &body).await {
            // An Enterprise Server from before 2026 refuses what it does not know.
            Err(error) if refuses(&error, "return_run_details") => {
                body.as_object_mut().map(|body| body.remove("return_run_details"));
                self.post(account, &what, &path, &body).await?
            }
            answer => answer?,
        };
        let run: Option<Dispatched> = serde_json::from_value(answer.json).ok();
        Ok((run.map(|run| run.workflow_run_id.to_string()), answer.status))
    }

    async fn deploy(&self, account: &Account<'_>, to: &TemplateRef) -> Result<(Option<String>, u16), HostedError> {
        let environment = account.environment;
        let commit = &to.digest;
        let body = json!({
            "ref": commit,
            "environment": environment.environment,
            "task": ROLLBACK_TASK,
            "auto_merge": false,
            // Its checks have passed when it was deployed first.
            "required_contexts": [],
            "description": format!("Panacea: back to what deployment {} was", to.hash),
        });
        let what = format!("deploy {commit} to {} again", environment.id);
        let Answer { status, json, attempts } = self.post(account, &what, &["deployments"], &body).await?;
        // Not to be expected, since it is not asked for.
        if status == 202 {
            let why = "GitHub has merged the default branch into it in place of deploying it";
            return Err(HostedError::Elsewise { call: what, attempts, status, why });
        }
        let made: Option<Deployment> = serde_json::from_value(json).ok();
        Ok((made.map(|made| made.id.to_string()), status))
    }

    /// What has become of a rollback to `to`. `ours`: the run or the deployment, where it is known; else it is looked for
    /// among those that are newer than `newest_before`, which is [`Before::newest_deploy`].
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn rolled_back(
        &self,
        namespace: &str,
        environment: &GithubEnvironment,
        to: &TemplateRef,
        ours: Option<&str>,
        newest_before: Option<&str>,
    ) -> Result<DeployState, HostedError> {
        let account = self.account(namespace, environment).await?;
        let before: u64 = newest_before.and_then(|before| before.parse().ok()).unwrap_or_default();
        match &environment.workflow {
            Some(workflow) => self.run_state(&account, workflow, &to.digest, ours, before).await,
            None => self.deployment_state(&account, &to.digest, ours, before).await,
        }
    }

    async fn run_state(
        &self,
        account: &Account<'_>,
        workflow: &GithubWorkflow,
        commit: &str,
        ours: Option<&str>,
        before: u64,
    ) -> Result<DeployState, HostedError> {
        let run = match ours {
            Some(id) => self.run(account, id).await?,
            None => {
                let runs = self.runs(account, workflow).await?;
                let newer: Vec<&Run> = runs.iter().filter(|run| run.id > before).collect();
                let back = newer.iter().filter(|run| goes_to(run, commit)).min_by_key(|run| run.id);
                match back {
                    Some(run) => (*run).clone(),
                    None if newer.is_empty() => return Ok(DeployState::Nothing),
                    None => return Ok(DeployState::Others),
                }
            }
        };
        if run.conclusion.as_deref() != Some("success") {
            return Ok(of_run(&run, false));
        }
        match self.read(account).await {
            Ok(read) => Ok(of_run(&run, read.is_of(commit))),
            Err(HostedError::Unsettled(why)) => {
                let (id, status) = (run.id.to_string(), format!("success, and {why}"));
                Ok(DeployState::Deploy { id, status, live: false, over: true })
            }
            Err(error) => Err(error),
        }
    }

    async fn deployment_state(
        &self,
        account: &Account<'_>,
        commit: &str,
        ours: Option<&str>,
        before: u64,
    ) -> Result<DeployState, HostedError> {
        let id = match ours.and_then(|id| id.parse().ok()) {
            Some(id) => id,
            None => {
                let deployments = self.deployments(account).await?;
                let newer: Vec<&Deployment> = deployments.iter().filter(|one| one.id > before).collect();
                let is_back = |one: &&&Deployment| one.task == ROLLBACK_TASK && one.sha == commit;
                match newer.iter().filter(is_back).min_by_key(|one| one.id) {
                    Some(deployment) => deployment.id,
                    None if newer.is_empty() => return Ok(DeployState::Nothing),
                    None => return Ok(DeployState::Others),
                }
            }
        };
        Ok(of_deployment(id, &self.standing(account, id).await?))
    }

    /// Those that were dispatched, the newest ones.
    async fn runs(&self, account: &Account<'_>, workflow: &GithubWorkflow) -> Result<Vec<Run>, HostedError> {
        let what = format!("list runs of {} of {}", workflow.file, account.environment.id);
        let query = [("event", "workflow_dispatch".to_owned()), ("per_page", RUNS.to_owned())];
        let path = ["actions", "workflows", &workflow.file, "runs"];
        Ok(self.get::<Runs>(account, &what, &path, &query).await?.workflow_runs)
    }

    async fn workflow(&self, account: &Account<'_>, workflow: &GithubWorkflow) -> Result<Workflow, HostedError> {
        let what = format!("read workflow {} of {}", workflow.file, account.environment.id);
        self.get(account, &what, &["actions", "workflows", &workflow.file], &[]).await
    }
}

/// It was refused for this field.
fn refuses(error: &HostedError, field: &str) -> bool {
    let HostedError::Call(error) = error else { return false };
    matches!(&error.kind, Failure::Status { status: 400 | 422, said, .. } if said.contains(field))
}
