//! Repositories, their deployments and runs, and how they move with time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// How long a deployment takes, or a run.
const TAKES: Duration = Duration::from_millis(1500);

/// A full SHA that begins so.
fn sha(begin: &str) -> String {
    format!("{begin:0<40}")
}

#[derive(Debug, Default)]
pub struct World {
    /// By `owner/name`.
    pub repositories: BTreeMap<String, Repository>,
    made: u64,
}

#[derive(Debug, Clone)]
pub struct Repository {
    /// The head of main.
    pub head: String,
    /// Commits that it knows.
    pub commits: BTreeSet<String>,
    /// The share of requests that fails when a commit serves, 0 to 1.
    pub failing: BTreeMap<String, f64>,
    /// The commit that serves.
    pub serves: String,
    /// The oldest first.
    pub deployments: Vec<Deployment>,
    /// Of rollback.yml; the oldest first.
    pub runs: Vec<Run>,
    /// What the workflow's run-name makes of the input.
    pub named: bool,
    /// `return_run_details` is known here.
    pub tells_run: bool,
    /// So the next runs and deployments for a rollback end.
    pub ends: &'static str,
    /// The environment has reviewers: runs and deployments wait for them.
    pub reviewed: bool,
    /// The workflow is switched off.
    pub disabled: bool,
    /// What keeps a commit that is not the head of main from being deployed, unless a call leaves it out.
    pub hurdle: Option<Hurdle>,
    /// Main is merged, and checks are asked for, also when a call leaves it out.
    pub insists: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Hurdle {
    /// Main cannot be merged into it.
    Conflict,
    /// Its checks have not passed.
    Checks,
}

#[derive(Debug, Clone)]
pub struct Deployment {
    pub id: u64,
    pub sha: String,
    pub task: String,
    pub environment: String,
    /// State and log_url; the oldest first.
    pub statuses: Vec<(u64, &'static str)>,
    pub run: Option<u64>,
    /// The commit that it brings, when it does.
    brings: String,
    created: Timestamp,
    steps: Vec<(Timestamp, &'static str)>,
}

#[derive(Debug, Clone)]
pub struct Run {
    pub id: u64,
    pub title: String,
    pub status: &'static str,
    pub conclusion: Option<&'static str>,
    head: String,
    /// The commit that it was asked for.
    commit: String,
    created: Timestamp,
    /// Its end, and how it ends.
    ends: (Timestamp, &'static str),
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at + SignedDuration::try_from(by).expect("a short time")
}

impl World {
    fn id(&mut self) -> u64 {
        self.made += 1;
        1000 + self.made
    }

    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.get_mut(name).expect("it is there")
    }

    /// A repository whose commit c0ffee0… serves in production.
    pub fn add(&mut self, name: &str) -> String {
        let first = sha("c0ffee0");
        let repository = Repository {
            head: first.clone(),
            commits: BTreeSet::from([first.clone()]),
            failing: BTreeMap::new(),
            serves: first.clone(),
            deployments: Vec::new(),
            runs: Vec::new(),
            named: true,
            tells_run: true,
            ends: "success",
            reviewed: false,
            disabled: false,
            hurdle: None,
            insists: false,
        };
        self.repositories.insert(name.to_owned(), repository);
        self.deploy(name, &first, "deploy", "success", Duration::ZERO);
        self.advance(Timestamp::now());
        first
    }

    /// A commit is pushed to main, and deployed.
    pub fn push(&mut self, name: &str, begin: &str, failing: f64, end: &'static str) -> String {
        let commit = sha(begin);
        let repository = self.repository(name);
        repository.head.clone_from(&commit);
        repository.commits.insert(commit.clone());
        repository.failing.insert(commit.clone(), failing);
        self.deploy(name, &commit, "deploy", end, TAKES);
        commit
    }

    /// A new deployment to production, carried out by somebody.
    pub fn deploy(&mut self, name: &str, commit: &str, task: &str, end: &'static str, takes: Duration) -> u64 {
        let (id, now) = (self.id(), Timestamp::now());
        let steps = vec![(later(now, takes / 2), "in_progress"), (later(now, takes), end)];
        self.repository(name).deployments.push(Deployment {
            id,
            sha: commit.to_owned(),
            task: task.to_owned(),
            environment: "production".to_owned(),
            statuses: Vec::new(),
            run: None,
            brings: commit.to_owned(),
            created: now,
            steps,
        });
        id
    }

    /// A run of rollback.yml.
    pub fn dispatch(&mut self, name: &str, commit: &str) -> u64 {
        let (id, now) = (self.id(), Timestamp::now());
        let repository = self.repository(name);
        let title = if repository.named { format!("Roll back to {commit}") } else { "Rollback".to_owned() };
        let (head, ends) = (repository.head.clone(), (later(now, TAKES), repository.ends));
        let (commit, status) = (commit.to_owned(), "queued");
        repository.runs.push(Run { id, title, status, conclusion: None, head, commit, created: now, ends });
        id
    }

    /// Everything that has become due.
    pub fn advance(&mut self, now: Timestamp) {
        let mut made = self.made;
        let mut id = || {
            made += 1;
            1000 + made
        };
        for repository in self.repositories.values_mut() {
            let reviewed = repository.reviewed;
            for run in &mut repository.runs {
                if run.conclusion.is_some() {
                    continue;
                }
                if reviewed {
                    run.status = "waiting";
                    run.ends.0 = later(now, TAKES);
                    continue;
                }
                if run.status != "in_progress" {
                    run.status = "in_progress";
                    // Its job begins, with environment: production.
                    repository.deployments.push(Deployment {
                        id: id(),
                        sha: run.head.clone(),
                        task: "deploy".to_owned(),
                        environment: "production".to_owned(),
                        statuses: vec![(id(), "in_progress")],
                        run: Some(run.id),
                        brings: run.commit.clone(),
                        created: now,
                        steps: vec![(run.ends.0, if run.ends.1 == "success" { "success" } else { "failure" })],
                    });
                }
                if run.ends.0 <= now {
                    (run.status, run.conclusion) = ("completed", Some(run.ends.1));
                }
            }
            for place in 0..repository.deployments.len() {
                while let Some((at, state)) = repository.deployments[place].steps.first().copied() {
                    if at > now {
                        break;
                    }
                    let deployment = &mut repository.deployments[place];
                    deployment.steps.remove(0);
                    deployment.statuses.push((id(), state));
                    if state != "success" {
                        continue;
                    }
                    repository.serves = deployment.brings.clone();
                    // auto_inactive: those before it.
                    for before in &mut repository.deployments[..place] {
                        if before.statuses.last().is_some_and(|(_, state)| *state == "success") {
                            before.statuses.push((id(), "inactive"));
                        }
                    }
                }
            }
        }
        self.made = made;
    }
}

impl Repository {
    pub fn share_failing(&self) -> f64 {
        self.failing.get(&self.serves).copied().unwrap_or_default()
    }
}

impl Deployment {
    pub fn to_json(&self) -> Value {
        json!({"id": self.id, "sha": self.sha, "ref": "main", "task": self.task, "payload": {},
            "original_environment": self.environment, "environment": self.environment, "description": null,
            "creator": {"login": "octocat"}, "created_at": self.created.to_string(), "updated_at": self.created.to_string(),
            "transient_environment": false, "production_environment": true})
    }

    /// The newest first.
    pub fn statuses_json(&self, name: &str) -> Value {
        let log_url = match self.run {
            Some(run) => format!("https://github.com/{name}/actions/runs/{run}/job/1"),
            None => String::new(),
        };
        let statuses = self.statuses.iter().rev().map(|(id, state)| {
            json!({"id": id, "state": state, "description": "", "environment": self.environment, "target_url": log_url,
                "log_url": log_url, "environment_url": ""})
        });
        statuses.collect()
    }
}

impl Run {
    pub fn to_json(&self, name: &str) -> Value {
        json!({"id": self.id, "name": "Rollback", "event": "workflow_dispatch", "status": self.status,
            "conclusion": self.conclusion, "display_title": self.title, "head_branch": "main", "head_sha": self.head,
            "path": ".github/workflows/rollback.yml@main", "run_attempt": 1, "created_at": self.created.to_string(),
            "html_url": format!("https://github.com/{name}/actions/runs/{}", self.id)})
    }
}
