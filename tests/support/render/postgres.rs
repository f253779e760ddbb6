//! A Postgres: its state, its actions, and their calls.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse as _,
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Shared,
    routes::{Answer, Refused, bad, not_found, parsed},
    world::{World, later},
};

#[derive(Debug, Clone)]
pub struct Postgres {
    pub id: String,
    pub suspended: bool,
    /// A standby can take over.
    pub standby: bool,
    pub replica: bool,
    /// The primary does not answer, until it is restarted or its standby takes over.
    pub down: bool,
    /// What Render is at, whatever else there is: `maintenance_in_progress`, `unknown`, …
    pub at: Option<String>,
    /// Neither a restart nor a failover helps.
    pub incurable: bool,
    /// Its status while it restarts or fails over; Render's documents do not say which (assumed).
    pub in_between: String,
    /// In shares of the CPU that it may use.
    pub cpu: f64,
    /// In bytes.
    pub memory_limit: f64,
    /// In shares of it.
    pub memory: f64,
    /// In shares of its capacity.
    pub disk: f64,
    pub connections: f64,
    /// In seconds, of a replica.
    pub lag: f64,
    /// Settings that somebody has changed.
    pub overrides: Value,
    /// That have started.
    pub restarts: u32,
    pub failovers: u32,
    busy_until: Option<Timestamp>,
    created_at: Timestamp,
}

impl World {
    pub fn add_postgres(&mut self, id: &str, standby: bool) {
        let postgres = Postgres {
            id: id.to_owned(),
            suspended: false,
            standby,
            replica: false,
            down: false,
            at: None,
            incurable: false,
            in_between: "unavailable".to_owned(),
            cpu: 0.1,
            memory_limit: 4e9,
            memory: 0.3,
            disk: 0.4,
            connections: 20.0,
            lag: 0.0,
            overrides: json!({}),
            restarts: 0,
            failovers: 0,
            busy_until: None,
            created_at: Timestamp::now(),
        };
        self.databases.insert(id.to_owned(), postgres);
    }

    fn begin(&mut self, id: &str) {
        let done = later(Timestamp::now(), self.pace.restart + Duration::from_millis(1500));
        if let Some(postgres) = self.databases.get_mut(id) {
            postgres.busy_until = Some(done);
        }
    }
}

impl Postgres {
    pub fn advance(&mut self, now: Timestamp) {
        if self.busy_until.is_some_and(|until| until <= now) {
            self.busy_until = None;
            if !self.incurable {
                (self.down, self.connections) = (false, self.connections.min(20.0));
            }
        }
    }

    pub fn status(&self) -> &str {
        match &self.at {
            _ if self.suspended => "suspended",
            Some(at) => at,
            None if self.down => "unavailable",
            None if self.busy_until.is_some() => &self.in_between,
            None => "available",
        }
    }

    /// Unit and value; none: there is no data.
    pub(super) fn metric(&self, metric: &str) -> Result<Option<(&'static str, f64)>, Refused> {
        const CAPACITY: f64 = 15e9;
        Ok(Some(match metric {
            "cpu" => ("cpu", self.cpu),
            "cpu-limit" => ("cpu", 1.0),
            "memory" => ("bytes", self.memory * self.memory_limit),
            "memory-limit" => ("bytes", self.memory_limit),
            "disk-usage" => ("bytes", self.disk * CAPACITY),
            "disk-capacity" => ("bytes", CAPACITY),
            "active-connections" => ("unitless", self.connections),
            "replication-lag" if self.replica => ("seconds", self.lag),
            "replication-lag" | "http-requests" | "http-latency" | "instance-count" => return Ok(None),
            _ => return Err(not_found()),
        }))
    }

    fn to_json(&self) -> Value {
        json!({
            "id": self.id, "name": self.id, "plan": "pro_4gb", "region": "frankfurt", "version": "16",
            "databaseName": "shop", "databaseUser": "shop", "ipAllowList": [], "readReplicas": [],
            "dashboardUrl": format!("https://dashboard.render.com/d/{}", self.id),
            "owner": {"id": "tea-fake", "name": "shop", "email": "shop@example.com", "type": "team"},
            "createdAt": self.created_at, "updatedAt": self.created_at, "diskSizeGB": 15, "diskAutoscalingEnabled": false,
            "highAvailabilityEnabled": self.standby, "parameterOverrides": self.overrides, "connectionPool": "none",
            "role": if self.replica { "replica" } else { "primary" },
            "status": self.status(),
            "suspended": if self.suspended { "suspended" } else { "not_suspended" },
            "suspenders": if self.suspended { json!(["user"]) } else { json!([]) },
        })
    }
}

fn find<'a>(world: &'a mut World, id: &str) -> Result<&'a mut Postgres, Refused> {
    world.databases.get_mut(id).ok_or_else(not_found)
}

pub async fn one(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    Ok(Json(find(&mut shared.world(), &id)?.to_json()).into_response())
}

/// The statuses of these refusals are assumed.
pub async fn restart(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    let mut world = shared.world();
    let postgres = find(&mut world, &id)?;
    if postgres.suspended {
        return Err(bad("postgres is suspended"));
    }
    postgres.restarts += 1;
    world.begin(&id);
    Ok(StatusCode::ACCEPTED.into_response())
}

pub async fn failover(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    let mut world = shared.world();
    let postgres = find(&mut world, &id)?;
    if postgres.suspended || postgres.replica || !postgres.standby {
        return Err(bad("postgres has no high availability, or is suspended"));
    }
    postgres.failovers += 1;
    world.begin(&id);
    Ok(StatusCode::ACCEPTED.into_response())
}

pub async fn suspend(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    find(&mut shared.world(), &id)?.suspended = true;
    Ok(StatusCode::ACCEPTED.into_response())
}

pub async fn resume(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    find(&mut shared.world(), &id)?.suspended = false;
    Ok(StatusCode::ACCEPTED.into_response())
}

// ---- What a test or a person turns, where it runs as a program.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    standby: bool,
}

pub async fn add(State(shared): State<Shared>, Path(id): Path<String>, body: Bytes) -> Answer {
    let New { standby } = parsed(&body)?;
    shared.world().add_postgres(&id, standby);
    Ok(StatusCode::CREATED.into_response())
}

pub async fn take_down(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    find(&mut shared.world(), &id)?.down = true;
    Ok(StatusCode::OK.into_response())
}
