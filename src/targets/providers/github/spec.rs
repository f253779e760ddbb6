//! An environment of a GitHub repository: its fields in a policy, and its actions.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    Access, ActionKind, Capabilities, Cause, Checker, Component, HOSTED_PAUSE, HealingPolicySpec, KeyRef,
    RemediationTarget, SupportedAction, TargetFacts, ValidTarget, ValidateTarget,
};

/// `spec.target.kind` of a Remediation whose target is an environment of a GitHub repository.
pub const GITHUB_KIND: &str = "GitHub";

pub static ENVIRONMENT: Capabilities = Capabilities {
    field: "github",
    selector: "has(self.target.github)",
    selects: |target| target.github.is_some(),
    noun: "a github target",
    actions: &[SupportedAction::new(ActionKind::Rollback)],
    why_not: Some("it has nothing that could be restarted"),
    default_remedies: &[(ActionKind::Rollback, &[Cause::ReleaseRegression])],
    metrics: &[],
    min_check_interval: HOSTED_PAUSE,
};

/// An environment of a GitHub repository, and the deployments to it. GitHub reports no error rate and no latency: the
/// component's metrics decide whether a deployment is healthy.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GithubTarget {
    /// The repository, as in its URL: owner/name.
    #[schemars(length(min = 3, max = 140), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9._-]+$"))]
    pub repository: String,
    /// The name of the environment, as in the repository's settings (Environments): production.
    #[schemars(
        length(min = 1, max = 100),
        regex(pattern = "^[^\\s'\"`,;\\\\]([^\\t\\r\\n'\"`,;\\\\]*[^\\s'\"`,;\\\\])?$")
    )]
    pub environment: String,
    /// The workflow that rolls back: it is dispatched with the commit to roll back to. Default: a deployment of that commit is
    /// made (task deploy:rollback), for the tool that carries out the repository's deployments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<GithubWorkflow>,
    /// A Secret of the policy's namespace whose key holds a GitHub token: fine-grained with the repository's permissions
    /// Deployments and, where workflow is set, Actions (read and write). Read at each check and before each action; the
    /// operator's role needs the permission (`rbac.readCredentials` of the chart). Default: the operator's own token
    /// (GITHUB_TOKEN).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<KeyRef>,
}

/// A workflow that deploys the commit of its input. Its run-name must contain that commit, as in
/// `run-name: Roll back to ${{ inputs.sha }}`: the deployment of a dispatched run is recorded with the commit of the branch.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.inputs) || !(self.shaInput in self.inputs)", "inputs must not name the input of shaInput: it takes the commit to roll back to"))]
pub struct GithubWorkflow {
    /// Its file in .github/workflows of the repository: rollback.yml. The file must exist on the default branch, with
    /// `on: workflow_dispatch`.
    #[schemars(length(min = 5, max = 128), regex(pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*\\.ya?ml$"))]
    pub file: String,
    /// The branch or tag whose version of the workflow runs. Default main.
    #[serde(rename = "ref", default = "default_ref")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[^\\s~^:?*\\[\\\\]+$"))]
    pub git_ref: String,
    /// The input that takes the commit to roll back to, as its full SHA. Default sha.
    #[serde(default = "default_sha_input")]
    #[schemars(length(min = 1, max = 100), regex(pattern = "^[A-Za-z_][A-Za-z0-9_-]*$"))]
    pub sha_input: String,
    /// Further inputs and their values, at most 24. No secrets: everyone who may read the policy or the run sees them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 24))]
    pub inputs: BTreeMap<String, String>,
}

fn default_ref() -> String {
    "main".to_owned()
}

fn default_sha_input() -> String {
    "sha".to_owned()
}

/// An environment of a GitHub repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GithubEnvironment {
    /// `owner/name:environment`.
    pub id: String,
    pub owner: String,
    /// The repository's, without its owner.
    pub name: String,
    pub environment: String,
    /// The workflow that rolls back; none: a deployment does.
    pub workflow: Option<GithubWorkflow>,
    pub access: Access,
}

impl ValidateTarget for GithubTarget {
    fn validate(&self, check: &mut Checker, _: &Component, policy: &HealingPolicySpec) -> Option<ValidTarget> {
        let Self { repository, environment, workflow, token_secret_ref } = self;
        let fits = |text: &str, more: &str| {
            !text.is_empty()
                && text.chars().all(|character| character.is_ascii_alphanumeric() || more.contains(character))
        };
        let parts = repository.split_once('/').filter(|(owner, name)| {
            fits(owner, "-_") && fits(name, "-_.") && !matches!(*name, "." | "..") && repository.len() <= 140
        });
        if parts.is_none() {
            let message = format!("{repository:?} is no repository; it is like octo-org/shop, as in its URL");
            check.bad("target.github.repository", message);
        }
        let named = !environment.trim().is_empty()
            && environment.chars().count() <= 100
            && !environment.contains(|character: char| character.is_control() || "'\"`,;\\".contains(character));
        if !named {
            let message = format!("{environment:?} is no name of an environment; it is like production");
            check.bad("target.github.environment", message);
        }
        let workflow_fits = workflow.as_ref().is_none_or(|workflow| is_workflow(check, workflow));
        let (owner, name) = parts.filter(|_| named && workflow_fits)?;
        Some(ValidTarget::Github(Box::new(GithubEnvironment {
            id: format!("{repository}:{environment}"),
            owner: owner.to_owned(),
            name: name.to_owned(),
            environment: environment.clone(),
            workflow: workflow.clone(),
            access: Access::new(token_secret_ref, &policy.safety.circuit_breaker),
        })))
    }
}

fn is_workflow(check: &mut Checker, workflow: &GithubWorkflow) -> bool {
    let GithubWorkflow { file, git_ref, sha_input, inputs } = workflow;
    let before = check.mistakes();
    let mut bad = |field: &str, message| check.bad(&format!("target.github.workflow.{field}"), message);
    if file.contains('/') || !(file.ends_with(".yml") || file.ends_with(".yaml")) {
        bad("file", format!("{file:?} is no file of .github/workflows; it is like rollback.yml"));
    }
    let is_sha = git_ref.len() == 40 && git_ref.chars().all(|digit| digit.is_ascii_hexdigit());
    if git_ref.trim().is_empty() || is_sha {
        bad("ref", format!("{git_ref:?} is no branch or tag, which alone can be dispatched; it is like main"));
    }
    if sha_input.is_empty() || inputs.contains_key(sha_input) {
        bad("shaInput", format!("{sha_input:?} takes the commit to roll back to; remove it from inputs"));
    }
    if inputs.len() > 24 {
        bad("inputs", format!("has {} entries; a workflow takes 25 inputs, and shaInput is one of them", inputs.len()));
    }
    check.mistakes() == before
}

hosted_facts!(GithubEnvironment, &ENVIRONMENT, GITHUB_KIND, id, name);
