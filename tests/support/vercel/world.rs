//! Projects, deployments and rollbacks, and how they move with time.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub build: Duration,
    /// From the call of a rollback to production at another deployment.
    pub alias: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let [build, alias] = [500, 1500].map(Duration::from_millis);
        Self { build, alias }
    }
}

#[derive(Debug, Default)]
pub struct World {
    pub projects: BTreeMap<String, Project>,
    pub pace: Pace,
    made: u64,
    /// Of the newest deployment or request: no two are of the same millisecond.
    newest: i64,
}

#[derive(Debug, Clone)]
pub struct Project {
    /// The team that owns it; calls have to name it.
    pub team: Option<String>,
    pub paused: bool,
    /// The oldest first.
    pub deployments: Vec<Deployment>,
    /// The deployment that serves.
    pub production: String,
    pub last: Option<AliasRequest>,
    /// New deployments go live automatically: off after a rollback, until one is promoted.
    pub auto_assign: bool,
    /// The plan lets production return to the previous deployment alone.
    pub hobby: bool,
    /// So the next rollback ends, in place of `succeeded`.
    pub next_ends: Option<&'static str>,
    /// Rollbacks that have started.
    pub rollbacks: u32,
}

#[derive(Debug, Clone)]
pub struct Deployment {
    pub uid: String,
    pub commit: String,
    pub state: &'static str,
    /// It has served production.
    pub served: bool,
    /// The share of its requests that fails, 0 to 1.
    pub failing: f64,
    created: i64,
    /// When it is built, and how that ends.
    built: Option<(Timestamp, &'static str)>,
}

#[derive(Debug, Clone)]
pub struct AliasRequest {
    pub from: String,
    pub to: String,
    pub status: &'static str,
    pub kind: &'static str,
    requested: i64,
    /// Statuses that it will have, and when.
    steps: Vec<(Timestamp, &'static str)>,
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at + SignedDuration::try_from(by).expect("a short time")
}

impl World {
    fn millisecond(&mut self) -> i64 {
        self.newest = Timestamp::now().as_millisecond().max(self.newest + 1);
        self.newest
    }

    /// A project with one deployment that serves.
    pub fn add_project(&mut self, id: &str, team: Option<&str>) {
        let project = Project {
            team: team.map(str::to_owned),
            paused: false,
            deployments: Vec::new(),
            production: String::new(),
            last: None,
            auto_assign: true,
            hobby: false,
            next_ends: None,
            rollbacks: 0,
        };
        self.projects.insert(id.to_owned(), project);
        let first = self.new_deployment(id, "c0ffee0", 0.0, Duration::ZERO, "READY");
        self.advance(Timestamp::now());
        assert_eq!(self.projects[id].production, first);
    }

    /// A commit is pushed: built, and live where nothing is rolled back.
    pub fn push(&mut self, project: &str, commit: &str, failing: f64) -> String {
        self.new_deployment(project, commit, failing, self.pace.build, "READY")
    }

    /// A commit that cannot be built.
    pub fn push_broken(&mut self, project: &str, commit: &str) -> String {
        self.new_deployment(project, commit, 0.0, self.pace.build, "ERROR")
    }

    fn new_deployment(
        &mut self,
        project: &str,
        commit: &str,
        failing: f64,
        build: Duration,
        end: &'static str,
    ) -> String {
        self.made += 1;
        let (uid, created) = (format!("dpl_{:020x}", self.made), self.millisecond());
        let built = Some((later(Timestamp::now(), build), end));
        let (commit, state, served) = (commit.to_owned(), "BUILDING", false);
        let deployment = Deployment { uid: uid.clone(), commit, state, served, failing, created, built };
        self.project(project).deployments.push(deployment);
        uid
    }

    fn project(&mut self, id: &str) -> &mut Project {
        self.projects.get_mut(id).expect("it is there")
    }

    /// Production begins to move back.
    pub fn roll_back(&mut self, project: &str, to: &str) {
        let (now, requested, alias) = (Timestamp::now(), self.millisecond(), self.pace.alias);
        let project = self.project(project);
        let end = project.next_ends.take().unwrap_or("succeeded");
        project.rollbacks += 1;
        project.last = Some(AliasRequest {
            from: project.production.clone(),
            to: to.to_owned(),
            status: "pending",
            kind: "rollback",
            requested,
            steps: vec![(later(now, alias / 2), "in-progress"), (later(now, alias), end)],
        });
    }

    /// Somebody points production at a deployment, at once.
    pub fn promote(&mut self, project: &str, to: &str) {
        let requested = self.millisecond();
        let project = self.project(project);
        let from = std::mem::replace(&mut project.production, to.to_owned());
        let (to, status, kind) = (to.to_owned(), "succeeded", "promote");
        project.last = Some(AliasRequest { from, to, status, kind, requested, steps: Vec::new() });
        project.auto_assign = true;
        project.serves();
    }

    /// Everything that has become due.
    pub fn advance(&mut self, now: Timestamp) {
        for project in self.projects.values_mut() {
            for place in 0..project.deployments.len() {
                let deployment = &mut project.deployments[place];
                if let Some((_, end)) = deployment.built.filter(|(at, _)| *at <= now) {
                    (deployment.state, deployment.built) = (end, None);
                    if end == "READY" && project.auto_assign {
                        project.production = project.deployments[place].uid.clone();
                        project.serves();
                    }
                }
            }
            let Some(last) = &mut project.last else { continue };
            while last.steps.first().is_some_and(|(at, _)| *at <= now) {
                last.status = last.steps.remove(0).1;
                if last.status == "succeeded" {
                    (project.production, project.auto_assign) = (last.to.clone(), false);
                }
            }
        }
    }
}

impl Project {
    fn serves(&mut self) {
        let production = &self.production;
        self.deployments.iter_mut().filter(|one| one.uid == *production).for_each(|one| one.served = true);
    }

    pub fn deployment(&self, uid: &str) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.uid == uid)
    }

    pub fn is_moving(&self) -> bool {
        self.last.as_ref().is_some_and(|last| !last.steps.is_empty())
    }

    /// Whether a rollback may go to it; with the status and the words of the refusal. The meaning of the statuses is (assumed).
    pub fn refuses(&self, to: &str) -> Option<(u16, &'static str)> {
        let Some(target) = self.deployment(to) else { return Some((404, "The deployment was not found")) };
        let before = self.deployments.iter().rev().filter(|one| one.served && one.uid != self.production);
        let before = before.map(|one| one.uid.as_str()).next();
        if self.production == to {
            Some((409, "The deployment is the current production deployment already"))
        } else if target.state != "READY" || !target.served {
            Some((422, "The deployment cannot be rolled back to"))
        } else if self.hobby && before != Some(to) {
            Some((402, "To roll back further than the previous production deployment, upgrade to pro"))
        } else {
            None
        }
    }

    pub fn to_json(&self, id: &str) -> Value {
        let production = self.deployment(&self.production);
        let production = production.map(|one| {
            json!({"id": one.uid, "name": id, "type": "LAMBDAS", "plan": "pro", "private": false, "userId": "user_fake",
                "creator": creator(), "deploymentHostname": one.host(), "url": one.host(), "createdIn": "iad1",
                "readyState": one.state, "readySubstate": "PROMOTED", "target": "production",
                "createdAt": one.created, "meta": one.meta()})
        });
        let last = self.last.as_ref().map(|last| {
            json!({"fromDeploymentId": last.from, "toDeploymentId": last.to, "jobStatus": last.status,
                "requestedAt": last.requested, "type": last.kind})
        });
        json!({"id": id, "name": id, "accountId": self.team.as_deref().unwrap_or("user_fake"), "paused": self.paused,
            "live": true, "targets": {"production": production}, "lastAliasRequest": last,
            // Nobody here reads these; Vercel's own client refuses a project without them.
            "alias": [], "nodeVersion": "24.x", "directoryListing": false, "deploymentExpiration": {},
            "resourceConfig": {"functionDefaultRegions": ["iad1"]},
            "defaultResourceConfig": {"functionDefaultRegions": ["iad1"]}})
    }
}

fn creator() -> Value {
    json!({"uid": "user_fake", "username": "fake", "email": "fake@example.com"})
}

impl Deployment {
    fn host(&self) -> String {
        format!("{}.vercel.app", self.uid)
    }

    pub fn created(&self) -> i64 {
        self.created
    }

    fn meta(&self) -> Value {
        json!({"githubCommitSha": self.commit, "githubCommitMessage": format!("commit {}", self.commit)})
    }

    pub fn to_json(&self) -> Value {
        let substate = (self.state == "READY").then_some(if self.served { "PROMOTED" } else { "STAGED" });
        json!({"uid": self.uid, "state": self.state, "readyState": self.state, "readySubstate": substate,
            "name": self.uid, "url": self.host(), "type": "LAMBDAS", "creator": creator(), "inspectorUrl": null,
            "target": "production", "created": self.created, "createdAt": self.created, "meta": self.meta()})
    }
}
