//! Services, deploys, instances and events, and how they move with time.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::postgres::Postgres;

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From the call to new instances, of a restart and of scaling.
    pub restart: Duration,
    pub build: Duration,
    /// From the built deploy to a live one.
    pub update: Duration,
    /// Between two points of a metric, as they are measured.
    pub metrics: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let [restart, build, update, metrics] = [1500, 500, 1500, 1000].map(Duration::from_millis);
        Self { restart, build, update, metrics }
    }
}

#[derive(Debug, Default)]
pub struct World {
    pub services: BTreeMap<String, Service>,
    pub databases: BTreeMap<String, Postgres>,
    pub pace: Pace,
    made: u64,
}

#[derive(Debug, Clone)]
pub struct Service {
    pub id: String,
    /// `web_service`, `private_service`, `background_worker`, `cron_job`, `static_site`.
    pub kind: String,
    pub suspended: bool,
    /// `commit`, `checksPass`, `off`; none: the service is of an image.
    pub auto_deploy_trigger: Option<String>,
    pub num_instances: u32,
    /// Render manages their number, and accepts none in that time.
    pub autoscaling: bool,
    /// With fewer instances half of its requests fail.
    pub needs_instances: u32,
    /// The oldest first.
    pub deploys: Vec<Deploy>,
    pub instances: Vec<Instance>,
    /// The oldest first.
    pub events: Vec<Event>,
    /// What the next deploy will run with.
    pub env: BTreeMap<String, String>,
    /// With this value of this variable most of its requests fail.
    pub bad_env: Option<(String, String)>,
    /// Deploys that are asked for by the API do not go live, and end so.
    pub deploys_end: Option<&'static str>,
    /// The share of requests that fails whatever deploy is live, 0 to 1.
    pub failing: f64,
    /// A restart ends `failing`.
    pub cured_by_restart: bool,
    /// Requests a minute; none: nobody asks it, and there is no data.
    pub requests: Option<f64>,
    pub latency_ms: f64,
    /// In shares of a CPU, and of the one it may use.
    pub cpu: f64,
    /// In bytes, of 512 MiB.
    pub memory: f64,
    /// Restarts that have started.
    pub restarts: u32,
    restarted_at: Option<Timestamp>,
    /// When the instances are as many as are wanted.
    scaled_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct Deploy {
    pub id: String,
    pub commit: String,
    pub status: String,
    pub trigger: String,
    /// Of a rollback: its target.
    pub of: Option<String>,
    /// The share of its requests that fails.
    pub failing: f64,
    /// What it runs with: as it was when it was made, of a rollback what the other deploy ran with.
    pub env: BTreeMap<String, String>,
    /// Statuses that it will have, and when.
    steps: Vec<(Timestamp, &'static str)>,
    created_at: Timestamp,
    updated_at: Timestamp,
    finished_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub struct Instance {
    pub id: String,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct Event {
    pub id: String,
    pub at: Timestamp,
    pub kind: String,
    pub details: Value,
}

pub const MEMORY_LIMIT: f64 = 512.0 * 1024.0 * 1024.0;

pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at + SignedDuration::try_from(by).expect("a short time")
}

impl World {
    pub fn id(&mut self, prefix: &str) -> String {
        self.made += 1;
        // As many characters as theirs have.
        format!("{prefix}-{:020x}", self.made)
    }

    pub fn add_service(&mut self, id: &str, kind: &str) {
        let now = Timestamp::now();
        let service = Service {
            id: id.to_owned(),
            kind: kind.to_owned(),
            suspended: false,
            auto_deploy_trigger: Some("commit".to_owned()),
            num_instances: 2,
            autoscaling: false,
            needs_instances: 0,
            deploys: Vec::new(),
            instances: Vec::new(),
            events: Vec::new(),
            env: BTreeMap::new(),
            bad_env: None,
            deploys_end: None,
            failing: 0.0,
            cured_by_restart: true,
            requests: Some(600.0),
            latency_ms: 40.0,
            cpu: 0.1,
            memory: 0.25 * MEMORY_LIMIT,
            restarts: 0,
            restarted_at: None,
            scaled_at: None,
            created_at: now,
            updated_at: now,
        };
        self.services.insert(id.to_owned(), service);
        let first = self.new_deploy(id, "c0ffee0", "other", None, 0.0, &[(Duration::ZERO, "live")]);
        self.advance(Timestamp::now());
        assert_eq!(self.services[id].live().map(|deploy| &deploy.id), Some(&first));
    }

    /// A commit is pushed.
    pub fn push(&mut self, service: &str, commit: &str, failing: f64) -> Option<String> {
        let on = self.services[service].auto_deploy_trigger.as_deref() == Some("commit");
        on.then(|| self.deploy(service, commit, "new_commit", failing))
    }

    /// A deploy that is built, updated to and goes live.
    pub fn deploy(&mut self, service: &str, commit: &str, trigger: &str, failing: f64) -> String {
        let Pace { build, update, .. } = self.pace;
        let steps = [(build / 5, "build_in_progress"), (build, "update_in_progress"), (build + update, "live")];
        self.new_deploy(service, commit, trigger, None, failing, &steps)
    }

    /// A deploy that never goes live.
    pub fn failing_deploy(&mut self, service: &str, commit: &str, trigger: &str, end: &'static str) -> String {
        let Pace { build, update, .. } = self.pace;
        let steps = [(build / 5, "build_in_progress"), (build + update, end)];
        self.new_deploy(service, commit, trigger, None, 0.0, &steps)
    }

    /// A new deploy of what another one was. It is not built again.
    pub fn rollback(&mut self, service: &str, to: &Deploy) -> String {
        let update = self.pace.update;
        let steps = [(update / 5, "update_in_progress"), (update, "live")];
        self.new_deploy(service, &to.commit, "rollback", Some(to.id.clone()), to.failing, &steps)
    }

    fn new_deploy(
        &mut self,
        service: &str,
        commit: &str,
        trigger: &str,
        of: Option<String>,
        failing: f64,
        steps: &[(Duration, &'static str)],
    ) -> String {
        let (now, id) = (Timestamp::now(), self.id("dep"));
        let details = json!({"deployId": id, "trigger": {
            "clearCache": false, "deployedByRender": false, "envUpdated": false, "firstBuild": false,
            "manual": trigger == "manual", "rollback": trigger == "rollback", "rollbackTargetDeployId": of,
            "newCommit": (trigger == "new_commit").then_some(commit),
        }});
        self.tell(service, "deploy_started", now, details);
        let deploys = &self.services[service].deploys;
        let target = of.as_ref().and_then(|of| deploys.iter().find(|deploy| deploy.id == *of));
        let env = target.map_or(&self.services[service].env, |target| &target.env).clone();
        let deploy = Deploy {
            id: id.clone(),
            commit: commit.to_owned(),
            status: "created".to_owned(),
            trigger: trigger.to_owned(),
            of,
            failing,
            env,
            steps: steps.iter().map(|(after, status)| (later(now, *after), *status)).collect(),
            created_at: now,
            updated_at: now,
            finished_at: None,
        };
        self.services.get_mut(service).expect("it is there").deploys.push(deploy);
        id
    }

    /// Something happened to a service.
    pub fn tell(&mut self, service: &str, kind: &str, at: Timestamp, details: Value) {
        let event = Event { id: self.id("evt"), at, kind: kind.to_owned(), details };
        self.services.get_mut(service).expect("it is there").events.push(event);
    }

    /// An instance has exited with a code, as Render tells it.
    pub fn crash(&mut self, service: &str) {
        let details = json!({"reason": {"evicted": false, "nonZeroExit": 1}});
        self.tell(service, "server_failed", Timestamp::now(), details);
    }

    /// A restart starts, and is reported at once (assumed); its new instances come later.
    pub fn restart(&mut self, service: &str) {
        let now = Timestamp::now();
        self.tell(service, "server_restarted", now, json!({"triggeredByUser": "usr-fake"}));
        let done = later(now, self.pace.restart);
        let service = self.services.get_mut(service).expect("it is there");
        service.restarts += 1;
        service.restarted_at = Some(done);
    }

    /// It is to have so many instances, which it has later.
    pub fn scale(&mut self, service: &str, to: u32) {
        let done = later(Timestamp::now(), self.pace.restart);
        let service = self.services.get_mut(service).expect("it is there");
        if !service.autoscaling {
            (service.num_instances, service.scaled_at) = (to, Some(done));
        }
    }

    fn have_as_many_as_wanted(&mut self, name: &str, now: Timestamp) {
        let (from, to) = (self.services[name].instances.len(), self.services[name].num_instances);
        let added = from..to as usize;
        let added: Vec<Instance> =
            added.map(|_| Instance { id: self.id(&format!("{name}-i")), created_at: now }).collect();
        let service = self.services.get_mut(name).expect("it is there");
        service.scaled_at = None;
        service.instances.truncate(to as usize);
        service.instances.extend(added);
        self.tell(name, "instance_count_changed", now, json!({"fromInstances": from, "toInstances": to}));
    }

    /// Everything that has become due.
    pub fn advance(&mut self, now: Timestamp) {
        self.databases.values_mut().for_each(|database| database.advance(now));
        let names: Vec<String> = self.services.keys().cloned().collect();
        for name in names {
            self.advance_deploys(&name, now);
            if self.services[&name].scaled_at.is_some_and(|at| at <= now) {
                self.have_as_many_as_wanted(&name, now);
            }
            let due = |service: &Service| service.restarted_at.is_some_and(|at| at <= now);
            if due(&self.services[&name]) {
                self.replace_instances(&name, now);
                self.tell(&name, "server_available", now, json!({}));
                let service = self.services.get_mut(&name).expect("it is there");
                service.restarted_at = None;
                if service.cured_by_restart {
                    service.failing = 0.0;
                }
            }
        }
    }

    fn advance_deploys(&mut self, name: &str, now: Timestamp) {
        let places = 0..self.services[name].deploys.len();
        for place in places {
            loop {
                let deploy = &mut self.services.get_mut(name).expect("it is there").deploys[place];
                if deploy.status == "canceled" || deploy.steps.first().is_none_or(|(at, _)| *at > now) {
                    break;
                }
                let (at, status) = deploy.steps.remove(0);
                (deploy.status, deploy.updated_at) = (status.to_owned(), at);
                let ended = deploy.steps.is_empty();
                deploy.finished_at = ended.then_some(at);
                let id = deploy.id.clone();
                if status == "live" {
                    for other in &mut self.services.get_mut(name).expect("it is there").deploys {
                        if other.id != id && other.status == "live" {
                            (other.status, other.updated_at) = ("deactivated".to_owned(), at);
                        }
                    }
                    self.replace_instances(name, at);
                }
                if ended {
                    // 2: succeeded, 3: failed.
                    let code = if status == "live" { 2 } else { 3 };
                    self.tell(name, "deploy_ended", at, json!({"deployId": id, "status": code, "reason": {}}));
                }
            }
        }
    }

    fn replace_instances(&mut self, name: &str, at: Timestamp) {
        let count = if self.services[name].suspended { 0 } else { self.services[name].num_instances };
        let instances = (0..count).map(|_| Instance { id: self.id(name), created_at: at }).collect();
        self.services.get_mut(name).expect("it is there").instances = instances;
    }
}

impl Service {
    pub fn live(&self) -> Option<&Deploy> {
        self.deploys.iter().find(|deploy| deploy.status == "live")
    }

    pub fn has_instances(&self) -> bool {
        !matches!(self.kind.as_str(), "cron_job" | "static_site")
    }

    /// The share of its requests that fails now.
    pub fn failing_now(&self) -> f64 {
        let bad = |deploy: &Deploy| {
            let bad = self.bad_env.as_ref();
            bad.is_some_and(|(name, value)| deploy.env.get(name) == Some(value))
        };
        let share = |deploy: &Deploy| if bad(deploy) { deploy.failing.max(0.6) } else { deploy.failing };
        let busy = self.instances.len() < self.needs_instances as usize;
        self.live().map_or(0.0, share).max(self.failing).max(if busy { 0.5 } else { 0.0 })
    }

    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "id": self.id, "name": self.id, "slug": self.id, "type": self.kind, "ownerId": "tea-fake", "branch": "main",
            "repo": "https://github.com/shop/api", "rootDir": "", "notifyOnFail": "default",
            "dashboardUrl": format!("https://dashboard.render.com/web/{}", self.id),
            "createdAt": self.created_at, "updatedAt": self.updated_at,
            "suspended": if self.suspended { "suspended" } else { "not_suspended" },
            "suspenders": if self.suspended { json!(["user"]) } else { json!([]) },
            "serviceDetails": {
                "plan": "standard", "region": "frankfurt", "numInstances": self.num_instances,
                "autoscaling": {"enabled": self.autoscaling, "min": 1, "max": 3}, "runtime": "docker",
                "healthCheckPath": "/healthz", "url": format!("https://{}.onrender.com", self.id),
            },
        });
        if let Some(trigger) = &self.auto_deploy_trigger {
            json["autoDeployTrigger"] = json!(trigger);
            json["autoDeploy"] = json!(if trigger == "off" { "no" } else { "yes" });
        }
        json
    }
}

impl Deploy {
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id, "status": self.status, "trigger": self.trigger, "createdAt": self.created_at,
            "updatedAt": self.updated_at, "startedAt": self.created_at, "finishedAt": self.finished_at,
            "commit": {"id": self.commit, "message": format!("commit {}", self.commit), "createdAt": self.created_at},
        })
    }
}
