//! One look at an environment: its deployments, and which of them serves.

use jiff::Timestamp;

use super::{
    Account, Github,
    state::{Read, Standing, commit_of, hosted},
    wire::{Deployment, Run, Status},
};
use crate::{
    analyze::observation::Measured,
    api::GithubEnvironment,
    targets::providers::common::{HostedError, HostedObservation},
};

/// Deployments that are searched for the one that serves: the newest.
const NEWEST: usize = 30;
/// Deployments whose commits are remembered before all are forgotten.
const MANY: usize = 4096;

impl Github {
    /// One look: the deployment that serves, and what newer ones are doing. Takes at most 9 s.
    pub async fn observe(&self, namespace: &str, environment: &GithubEnvironment) -> HostedObservation {
        let read = async {
            let account = self.account(namespace, environment).await?;
            self.read(&account).await
        };
        let (read, at) = (read.await, Timestamp::now());
        let target = match read {
            Ok(read) => Measured::Known(hosted(&read, at)),
            Err(error) => Measured::Unknown(error.into()),
        };
        HostedObservation { at, target, metrics: Vec::new() }
    }

    pub(super) async fn read(&self, account: &Account<'_>) -> Result<Read, HostedError> {
        let deployments = self.deployments(account).await?;
        let (all, full) = (deployments.len(), deployments.len() >= NEWEST);
        let mut newer = Vec::new();
        for deployment in deployments {
            if let Some(commit) = self.remembered(account, &deployment) {
                return Ok(Read { newer, live: Some((deployment, commit)) });
            }
            let standing = self.standing(account, deployment.id).await?;
            if standing.served {
                let commit = self.commit(account, &deployment, &standing).await?;
                return Ok(Read { newer, live: Some((deployment, commit)) });
            }
            newer.push((deployment, standing));
        }
        if full {
            let why = format!("none of the newest {all} deployments of {} has succeeded", account.environment.id);
            return Err(HostedError::Unsettled(why));
        }
        Ok(Read { newer, live: None })
    }

    /// The newest first.
    pub(super) async fn deployments(&self, account: &Account<'_>) -> Result<Vec<Deployment>, HostedError> {
        let environment = account.environment;
        let query = [("environment", environment.environment.clone()), ("per_page", NEWEST.to_string())];
        let what = format!("list deployments of {}", environment.id);
        let mut all: Vec<Deployment> = self.get(account, &what, &["deployments"], &query).await?;
        all.sort_by_key(|deployment| std::cmp::Reverse(deployment.id));
        Ok(all)
    }

    pub(super) async fn standing(&self, account: &Account<'_>, id: u64) -> Result<Standing, HostedError> {
        let what = format!("list statuses of deployment {id} of {}", account.environment.id);
        let (number, query) = (id.to_string(), [("per_page", "100".to_owned())]);
        let statuses: Vec<Status> = self.get(account, &what, &["deployments", &number, "statuses"], &query).await?;
        Ok(Standing::of(&statuses))
    }

    pub(super) async fn run(&self, account: &Account<'_>, id: &str) -> Result<Run, HostedError> {
        let what = format!("read run {id} of {}", account.environment.id);
        self.get(account, &what, &["actions", "runs", id], &[]).await
    }

    /// The commit of a deployment that has succeeded. That does not change any more.
    async fn commit(
        &self,
        account: &Account<'_>,
        deployment: &Deployment,
        standing: &Standing,
    ) -> Result<String, HostedError> {
        let commit = match (&account.environment.workflow, standing.run) {
            // The token has to reach runs only where they roll back.
            (Some(workflow), Some(run)) => {
                let run = self.run(account, &run.to_string()).await?;
                commit_of(deployment, Some(&run), &workflow.file).map_err(HostedError::Unsettled)?
            }
            _ => deployment.sha.clone(),
        };
        let mut commits = self.commits.lock();
        if commits.len() >= MANY {
            commits.clear();
        }
        commits.insert(key(account, deployment), commit.clone());
        Ok(commit)
    }

    fn remembered(&self, account: &Account<'_>, deployment: &Deployment) -> Option<String> {
        self.commits.lock().get(&key(account, deployment)).cloned()
    }
}

/// What a deployment is of is told by who may list it; which runs count is a matter of the policy.
fn key(account: &Account<'_>, deployment: &Deployment) -> (String, u64) {
    let file = account.environment.workflow.as_ref().map(|workflow| workflow.file.as_str()).unwrap_or_default();
    (format!("{} {file}", account.environment.id), deployment.id)
}
