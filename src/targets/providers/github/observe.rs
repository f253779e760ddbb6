//! The deployments of an environment, and which of them serves.

use super::{
    GithubTarget,
    state::{Progress, Read, commit_of},
    wire::{Deployment, Run, Status},
};
use crate::targets::providers::{account::Account, client::cache, common::HostedError};

/// Deployments that are searched for the one that serves: the newest.
const NEWEST: usize = 30;
/// Deployments whose commits are cached.
const MANY: usize = 4096;

impl GithubTarget<'_> {
    pub(super) async fn read(&self, account: &Account<'_>) -> Result<Read, HostedError> {
        let deployments = self.deployments(account).await?;
        let (all, full) = (deployments.len(), deployments.len() >= NEWEST);
        let mut newer = Vec::new();
        for deployment in deployments {
            if let Some(commit) = self.github.commits.lock().get(&self.key(&deployment)).cloned() {
                return Ok(Read { newer, live: Some((deployment, commit)) });
            }
            let progress = self.progress(account, deployment.id).await?;
            if progress.served {
                let commit = self.commit(account, &deployment, &progress).await?;
                return Ok(Read { newer, live: Some((deployment, commit)) });
            }
            newer.push((deployment, progress));
        }
        if full {
            let why = format!("none of the newest {all} deployments of {} has succeeded", account.id);
            return Err(HostedError::Unsettled(why));
        }
        Ok(Read { newer, live: None })
    }

    /// The newest first.
    pub(super) async fn deployments(&self, account: &Account<'_>) -> Result<Vec<Deployment>, HostedError> {
        let query = [("environment", self.environment.environment.clone()), ("per_page", NEWEST.to_string())];
        let what = format!("list deployments of {}", account.id);
        let mut all: Vec<Deployment> = self.get(account, &what, &["deployments"], &query).await?;
        all.sort_by_key(|deployment| std::cmp::Reverse(deployment.id));
        Ok(all)
    }

    pub(super) async fn progress(&self, account: &Account<'_>, id: u64) -> Result<Progress, HostedError> {
        let what = format!("list statuses of deployment {id} of {}", account.id);
        let (number, query) = (id.to_string(), [("per_page", "100".to_owned())]);
        let statuses: Vec<Status> = self.get(account, &what, &["deployments", &number, "statuses"], &query).await?;
        Ok(Progress::of(&statuses))
    }

    pub(super) async fn run(&self, account: &Account<'_>, id: &str) -> Result<Run, HostedError> {
        let what = format!("read run {id} of {}", account.id);
        self.get(account, &what, &["actions", "runs", id], &[]).await
    }

    /// The commit of a deployment that has succeeded. That does not change any more.
    async fn commit(
        &self,
        account: &Account<'_>,
        deployment: &Deployment,
        progress: &Progress,
    ) -> Result<String, HostedError> {
        let commit = match (&self.environment.workflow, progress.run) {
            // The token needs access to runs only where runs roll back.
            (Some(workflow), Some(run)) => {
                let run = self.run(account, &run.to_string()).await?;
                commit_of(deployment, Some(&run), &workflow.file).map_err(HostedError::Unsettled)?
            }
            _ => deployment.sha.clone(),
        };
        cache(&mut self.github.commits.lock(), MANY, self.key(deployment), commit.clone());
        Ok(commit)
    }

    /// Which runs count depends on the policy, so the workflow is a part of the key.
    fn key(&self, deployment: &Deployment) -> (String, u64) {
        let file = self.environment.workflow.as_ref().map(|workflow| workflow.file.as_str()).unwrap_or_default();
        (format!("{} {file}", self.environment.id), deployment.id)
    }
}
