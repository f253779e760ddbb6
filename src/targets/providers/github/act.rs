//! Rollbacks of an environment.

use async_trait::async_trait;
use serde_json::json;

use super::{
    GithubTarget,
    state::{ROLLBACK_TASK, goes_to, of_deployment, of_run},
    wire::{Run, Runs, Workflow},
};
use crate::{
    api::{ActionPlan, GithubWorkflow, ProviderProgress, TemplateRef},
    targets::{
        kubernetes::ActError,
        providers::{
            account::Account,
            client::{Answer, Failure},
            common::{Before, DeployState, HostedError, refused},
            deploy::Desired,
            deploy_executor::DeployApi,
        },
    },
};

/// Runs that are searched for the operator's own: the newest.
const RUNS: &str = "50";

#[async_trait]
impl DeployApi for GithubTarget<'_> {
    async fn preflight(&self, namespace: &str, plan: &ActionPlan) -> Result<(), ActError> {
        let id = &self.environment.id;
        let read = async {
            let account = self.account(namespace).await?;
            if let Some(GithubWorkflow { file, .. }) = &self.environment.workflow {
                let what = format!("read workflow {file} of {id}");
                let Workflow { state } = self.get(&account, &what, &["actions", "workflows", file], &[]).await?;
                if state != "active" {
                    return Ok(Some(format!("the workflow {file} of {id} is {state}; enable it")));
                }
            }
            let Some(to) = plan.intent.template() else { return Ok(None) };
            let Ok(number) = to.hash.parse() else {
                return Ok(Some(format!("{} is no deployment of {id}", to.hash)));
            };
            let served = self.progress(&account, number).await?.served;
            Ok((!served).then(|| format!("deployment {number} of {id} has never succeeded")))
        };
        refused(read.await)
    }

    async fn before(&self, namespace: &str) -> Result<Before, HostedError> {
        let account = self.account(namespace).await?;
        let read = self.read(&account).await?;
        let newest = match &self.environment.workflow {
            Some(workflow) => self.runs(&account, workflow).await?.iter().map(|run| run.id).max(),
            None => read.newest(),
        };
        let live = read.live.map(|(deployment, _)| deployment.id.to_string());
        // Ids only grow: all are newer than 0.
        Ok(Before { live, newest_deploy: Some(newest.unwrap_or_default().to_string()), ..Before::default() })
    }

    /// Dispatches the workflow, or makes a deployment.
    async fn send(&self, namespace: &str, desired: &Desired) -> Result<(Option<String>, u16), HostedError> {
        let account = self.account(namespace).await?;
        match &self.environment.workflow {
            Some(workflow) => self.dispatch(&account, workflow, &desired.state().digest).await,
            None => self.deploy(&account, desired.state()).await,
        }
    }

    async fn deploy_state(
        &self,
        namespace: &str,
        desired: &Desired,
        sent: &ProviderProgress,
    ) -> Result<DeployState, HostedError> {
        let account = self.account(namespace).await?;
        let (commit, ours) = (&desired.state().digest, sent.deploy.as_deref());
        let before: u64 = sent.newest_before.as_ref().and_then(|before| before.parse().ok()).unwrap_or_default();
        match &self.environment.workflow {
            Some(workflow) => self.run_state(&account, workflow, commit, ours, before).await,
            None => self.deployment_state(&account, commit, ours, before).await,
        }
    }
}

impl GithubTarget<'_> {
    async fn dispatch(
        &self,
        account: &Account<'_>,
        workflow: &GithubWorkflow,
        commit: &str,
    ) -> Result<(Option<String>, u16), HostedError> {
        let GithubWorkflow { file, git_ref, sha_input, inputs } = workflow;
        let mut inputs = inputs.clone();
        inputs.insert(sha_input.clone(), commit.to_owned());
        let what = format!("dispatch {file} of {} to roll back to {commit}", account.id);
        let path = ["actions", "workflows", file, "dispatches"];
        let mut body = json!({"ref": git_ref, "inputs": inputs, "return_run_details": true});
        let answer = match self.post(account, &what, &path, &body).await {
            // An Enterprise Server from before 2026 refuses fields that it does not know.
            Err(error) if refuses(&error, "return_run_details") => {
                body.as_object_mut().map(|body| body.remove("return_run_details"));
                self.post(account, &what, &path, &body).await?
            }
            answer => answer?,
        };
        Ok((answer.json["workflow_run_id"].as_u64().map(|id| id.to_string()), answer.status))
    }

    async fn deploy(&self, account: &Account<'_>, to: &TemplateRef) -> Result<(Option<String>, u16), HostedError> {
        let commit = &to.digest;
        let body = json!({
            "ref": commit,
            "environment": self.environment.environment,
            "task": ROLLBACK_TASK,
            "auto_merge": false,
            // The commit's checks have passed when it was deployed first.
            "required_contexts": [],
            "description": format!("Panacea: back to what deployment {} was", to.hash),
        });
        let what = format!("deploy {commit} to {} again", account.id);
        let Answer { status, json, attempts } = self.post(account, &what, &["deployments"], &body).await?;
        // Not to be expected, since no merge is requested.
        if status == 202 {
            let why = "GitHub has merged the default branch into it in place of deploying it";
            return Err(HostedError::OtherEffect { call: what, attempts, status, why });
        }
        Ok((json["id"].as_u64().map(|id| id.to_string()), status))
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
                let mut newer = self.runs(account, workflow).await?;
                newer.retain(|run| run.id > before);
                let ours = newer.iter().filter(|run| goes_to(run, commit)).min_by_key(|run| run.id);
                let Some(ours) = ours else { return Ok(DeployState::without_ours(newer.is_empty())) };
                ours.clone()
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
                let mut newer = self.deployments(account).await?;
                newer.retain(|one| one.id > before);
                let ours = newer.iter().filter(|one| one.task == ROLLBACK_TASK && one.sha == commit);
                let ours = ours.map(|one| one.id).min();
                let Some(ours) = ours else { return Ok(DeployState::without_ours(newer.is_empty())) };
                ours
            }
        };
        Ok(of_deployment(id, &self.progress(account, id).await?))
    }

    /// Those that were dispatched, the newest ones.
    async fn runs(&self, account: &Account<'_>, workflow: &GithubWorkflow) -> Result<Vec<Run>, HostedError> {
        let what = format!("list runs of {} of {}", workflow.file, account.id);
        let query = [("event", "workflow_dispatch".to_owned()), ("per_page", RUNS.to_owned())];
        let path = ["actions", "workflows", &workflow.file, "runs"];
        Ok(self.get::<Runs>(account, &what, &path, &query).await?.workflow_runs)
    }
}

/// The call was refused for this field.
fn refuses(error: &HostedError, field: &str) -> bool {
    let HostedError::Call(error) = error else { return false };
    matches!(&error.kind, Failure::Status { status: 400 | 422, said, .. } if said.contains(field))
}
