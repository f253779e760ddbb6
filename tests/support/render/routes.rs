//! The calls, one function each.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    super::door::pass,
    Shared, error, postgres,
    world::{MEMORY_LIMIT, Service, World},
};

pub fn router(shared: Shared) -> Router {
    let api = Router::new()
        .route("/v1/services/{id}", get(service).patch(update))
        .route("/v1/services/{id}/restart", post(restart))
        .route("/v1/services/{id}/rollback", post(rollback))
        .route("/v1/services/{id}/deploys", get(deploys).post(deploy))
        .route("/v1/services/{id}/deploys/{deploy}", get(one_deploy))
        .route("/v1/services/{id}/deploys/{deploy}/cancel", post(cancel))
        .route("/v1/services/{id}/suspend", post(suspend))
        .route("/v1/services/{id}/resume", post(resume))
        .route("/v1/services/{id}/scale", post(scale))
        .route("/v1/services/{id}/instances", get(instances))
        .route("/v1/services/{id}/events", get(events))
        .route("/v1/services/{id}/env-vars", get(env_vars).put(replace_env_vars))
        .route("/v1/services/{id}/env-vars/{key}", get(env_var).put(set_env_var).delete(delete_env_var))
        .route("/v1/postgres/{id}", get(postgres::one))
        .route("/v1/postgres/{id}/restart", post(postgres::restart))
        .route("/v1/postgres/{id}/failover", post(postgres::failover))
        .route("/v1/postgres/{id}/suspend", post(postgres::suspend))
        .route("/v1/postgres/{id}/resume", post(postgres::resume))
        .route("/v1/metrics/{metric}", get(metric))
        .route_layer(from_fn_with_state(shared.door.clone(), pass));
    let control = Router::new()
        .route("/_fake/services/{id}", post(add_service))
        .route("/_fake/services/{id}/failing", post(set_failing))
        .route("/_fake/services/{id}/bad-env", post(set_bad_env))
        .route("/_fake/services/{id}/push", post(push))
        .route("/_fake/postgres/{id}", post(postgres::add))
        .route("/_fake/postgres/{id}/down", post(postgres::take_down));
    let faults = shared.door.control();
    let known = api.merge(control).fallback(async || error(StatusCode::NOT_FOUND, "not found"));
    known.with_state(shared).merge(faults)
}

pub(super) type Answer = Result<Response, Refused>;

pub(super) struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        error(self.0, &self.1)
    }
}

pub(super) fn not_found() -> Refused {
    Refused(StatusCode::NOT_FOUND, "not found".to_owned())
}

pub(super) fn bad(message: &str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, message.to_owned())
}

/// A body as it must be, with no unknown field.
pub(super) fn parsed<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|why| bad(&format!("invalid JSON: {why}")))
}

/// A query parameter; array ones are given several times.
fn all_of(query: &Option<String>, name: &str) -> Vec<String> {
    let pairs = url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes());
    pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
}

fn one_of(query: &Option<String>, name: &str) -> Option<String> {
    all_of(query, name).pop()
}

fn find<'a>(world: &'a mut World, id: &str) -> Result<&'a mut Service, Refused> {
    world.services.get_mut(id).ok_or_else(not_found)
}

/// One page of a list: `[{name: item, cursor}]`, `limit` from 1 to 100, 20 when it is left out.
fn page(query: &Option<String>, name: &str, items: Vec<(String, Value)>) -> Answer {
    let limit = match one_of(query, "limit").map(|limit| limit.parse::<usize>()) {
        None => 20,
        Some(Ok(limit @ 1..=100)) => limit,
        Some(_) => return Err(bad("limit must be from 1 to 100")),
    };
    let after = match one_of(query, "cursor") {
        None => 0,
        Some(cursor) => items.iter().position(|(id, _)| *id == cursor).ok_or_else(|| bad("invalid cursor"))? + 1,
    };
    let page = items.into_iter().skip(after).take(limit);
    let page: Vec<Value> = page.map(|(id, item)| json!({name: item, "cursor": id})).collect();
    Ok(Json(page).into_response())
}

async fn service(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    Ok(Json(find(&mut shared.world(), &id)?.to_json()).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Update {
    auto_deploy_trigger: Option<String>,
    auto_deploy: Option<String>,
    name: Option<String>,
    branch: Option<String>,
}

async fn update(State(shared): State<Shared>, Path(id): Path<String>, body: Bytes) -> Answer {
    let mut world = shared.world();
    let service = find(&mut world, &id)?;
    let update: Update = parsed(&body)?;
    let Update { name: _, branch: _, .. } = update;
    let trigger = match (update.auto_deploy_trigger, update.auto_deploy.as_deref()) {
        (Some(_), Some(_)) => return Err(bad("autoDeploy and autoDeployTrigger cannot be set together")),
        (Some(trigger), None) if ["off", "commit", "checksPass"].contains(&trigger.as_str()) => Some(trigger),
        (None, Some("yes")) => Some("commit".to_owned()),
        (None, Some("no")) => Some("off".to_owned()),
        (None, None) => None,
        _ => return Err(bad("invalid autoDeployTrigger")),
    };
    if trigger.is_some() {
        service.auto_deploy_trigger = trigger;
    }
    Ok(Json(service.to_json()).into_response())
}

async fn restart(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    let mut world = shared.world();
    let service = find(&mut world, &id)?;
    if !service.has_instances() {
        return Err(bad(&format!("a {} cannot be restarted", service.kind)));
    }
    if service.suspended {
        return Err(bad("service is suspended"));
    }
    world.restart(&id);
    Ok(StatusCode::OK.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rollback {
    deploy_id: String,
}

async fn rollback(State(shared): State<Shared>, Path(id): Path<String>, body: Bytes) -> Answer {
    let mut world = shared.world();
    let service = find(&mut world, &id)?;
    let Rollback { deploy_id } = parsed(&body)?;
    let target = service.deploys.iter().find(|deploy| deploy.id == deploy_id).ok_or_else(not_found)?.clone();
    if target.status != "deactivated" {
        return Err(bad("the deploy was never live"));
    }
    let made = world.rollback(&id, &target);
    created(&world.services[&id], &made)
}

fn created(service: &Service, id: &str) -> Answer {
    let deploy = service.deploys.iter().find(|deploy| deploy.id == id).ok_or_else(not_found)?;
    Ok((StatusCode::CREATED, Json(deploy.to_json())).into_response())
}

async fn deploys(State(shared): State<Shared>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let mut world = shared.world();
    let wanted = all_of(&query, "status");
    let deploys = find(&mut world, &id)?.deploys.iter().rev();
    let deploys = deploys.filter(|deploy| wanted.is_empty() || wanted.contains(&deploy.status));
    page(&query, "deploy", deploys.map(|deploy| (deploy.id.clone(), deploy.to_json())).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NewDeploy {
    clear_cache: Option<String>,
    commit_id: Option<String>,
    image_url: Option<String>,
    deploy_mode: Option<String>,
}

async fn deploy(State(shared): State<Shared>, Path(id): Path<String>, body: Bytes) -> Answer {
    let mut world = shared.world();
    let service = find(&mut world, &id)?;
    let NewDeploy { clear_cache, commit_id, image_url, deploy_mode } =
        if body.is_empty() { parsed(&Bytes::from_static(b"{}"))? } else { parsed(&body)? };
    if clear_cache.as_deref().is_some_and(|clear| !["clear", "do_not_clear"].contains(&clear)) {
        return Err(bad("invalid clearCache"));
    }
    let alone = deploy_mode.as_deref() == Some("deploy_only");
    if alone && (clear_cache.is_some() || commit_id.is_some() || image_url.is_some()) {
        return Err(bad("deploy_only takes no other field"));
    }
    if service.suspended {
        return Err(bad("service is suspended"));
    }
    // Without a commit it is the newest of the branch.
    let newest = || service.deploys.last().map_or_else(|| "c0ffee0".to_owned(), |deploy| deploy.commit.clone());
    let commit = commit_id.unwrap_or_else(newest);
    let failing = service.deploys.iter().find(|deploy| deploy.commit == commit).map_or(0.0, |deploy| deploy.failing);
    let made = match service.deploys_end {
        Some(end) => world.failing_deploy(&id, &commit, "api", end),
        None => world.deploy(&id, &commit, "api", failing),
    };
    created(&world.services[&id], &made)
}

async fn one_deploy(State(shared): State<Shared>, Path((id, deploy)): Path<(String, String)>) -> Answer {
    let mut world = shared.world();
    let found = find(&mut world, &id)?.deploys.iter().find(|one| one.id == deploy).ok_or_else(not_found)?;
    Ok(Json(found.to_json()).into_response())
}

async fn cancel(State(shared): State<Shared>, Path((id, deploy)): Path<(String, String)>) -> Answer {
    let mut world = shared.world();
    let found = find(&mut world, &id)?.deploys.iter_mut().find(|one| one.id == deploy).ok_or_else(not_found)?;
    if !matches!(found.status.as_str(), "created" | "queued" | "build_in_progress" | "update_in_progress") {
        return Err(bad("the deploy has ended"));
    }
    found.status = "canceled".to_owned();
    Ok(Json(found.to_json()).into_response())
}

async fn suspend(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    let mut world = shared.world();
    let service = find(&mut world, &id)?;
    service.suspended = true;
    service.instances.clear();
    world.tell(&id, "service_suspended", Timestamp::now(), json!({}));
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn resume(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    let mut world = shared.world();
    find(&mut world, &id)?.suspended = false;
    world.tell(&id, "service_resumed", Timestamp::now(), json!({}));
    let live = world.services[&id].live().cloned();
    if let Some(live) = live {
        world.deploy(&id, &live.commit, "service_resumed", live.failing);
    }
    Ok(StatusCode::ACCEPTED.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Scale {
    num_instances: u32,
}

async fn scale(State(shared): State<Shared>, Path(id): Path<String>, body: Bytes) -> Answer {
    let mut world = shared.world();
    let Scale { num_instances } = parsed(&body)?;
    let service = find(&mut world, &id)?;
    if !service.has_instances() || !(1..=100).contains(&num_instances) {
        return Err(bad("it cannot be scaled to that"));
    }
    if service.suspended {
        return Err(bad("service is suspended"));
    }
    world.scale(&id, num_instances);
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn instances(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    let mut world = shared.world();
    let service = find(&mut world, &id)?;
    let all: Vec<Value> =
        service.instances.iter().map(|one| json!({"id": one.id, "createdAt": one.created_at})).collect();
    Ok(Json(all).into_response())
}

async fn events(State(shared): State<Shared>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let mut world = shared.world();
    let time = |name| match one_of(&query, name).map(|text| text.parse::<Timestamp>()) {
        None => Ok(None),
        Some(Ok(at)) => Ok(Some(at)),
        Some(Err(_)) => Err(bad("a time must be RFC 3339")),
    };
    let (from, to, kinds) = (time("startTime")?, time("endTime")?, all_of(&query, "type"));
    let events = find(&mut world, &id)?.events.iter().rev();
    let events = events
        .filter(|event| from.is_none_or(|from| event.at >= from) && to.is_none_or(|to| event.at <= to))
        .filter(|event| kinds.is_empty() || kinds.contains(&event.kind));
    let json = |event: &super::world::Event| json!({"id": event.id, "timestamp": event.at, "serviceId": id, "type": event.kind, "details": event.details});
    page(&query, "event", events.map(|event| (event.id.clone(), json(event))).collect())
}

async fn env_vars(State(shared): State<Shared>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let mut world = shared.world();
    let all = find(&mut world, &id)?.env.iter();
    page(&query, "envVar", all.map(|(key, value)| (key.clone(), json!({"key": key, "value": value}))).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvVar {
    key: String,
    value: String,
}

/// It replaces all of them.
async fn replace_env_vars(State(shared): State<Shared>, Path(id): Path<String>, body: Bytes) -> Answer {
    let vars: Vec<EnvVar> = parsed(&body)?;
    find(&mut shared.world(), &id)?.env = vars.into_iter().map(|var| (var.key, var.value)).collect();
    env_vars(State(shared), Path(id), RawQuery(Some("limit=100".to_owned()))).await
}

async fn env_var(State(shared): State<Shared>, Path((id, key)): Path<(String, String)>) -> Answer {
    let mut world = shared.world();
    let value = find(&mut world, &id)?.env.get(&key).ok_or_else(not_found)?;
    Ok(Json(json!({"key": key, "value": value})).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvValue {
    value: String,
}

async fn set_env_var(State(shared): State<Shared>, Path((id, key)): Path<(String, String)>, body: Bytes) -> Answer {
    let EnvValue { value } = parsed(&body)?;
    let fits = |character: char| character.is_ascii_alphanumeric() || "_-.".contains(character);
    if key.starts_with(|first: char| first.is_ascii_digit()) || !key.chars().all(fits) {
        return Err(bad("invalid key"));
    }
    find(&mut shared.world(), &id)?.env.insert(key.clone(), value.clone());
    Ok(Json(json!({"key": key, "value": value})).into_response())
}

async fn delete_env_var(State(shared): State<Shared>, Path((id, key)): Path<(String, String)>) -> Answer {
    find(&mut shared.world(), &id)?.env.remove(&key).ok_or_else(not_found)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What is true now, as though it had been so for the whole range: a test does not wait for minutes to pass.
async fn metric(State(shared): State<Shared>, Path(metric): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let now = Timestamp::now();
    let time = |name, default| match one_of(&query, name).map(|text| text.parse::<Timestamp>()) {
        None => Ok(default),
        Some(Ok(at)) => Ok(at),
        Some(Err(_)) => Err(bad("a time must be RFC 3339")),
    };
    let (from, to) = (time("startTime", now - SignedDuration::from_hours(1))?, time("endTime", now)?);
    let resolution = one_of(&query, "resolutionSeconds").map_or(Ok(60), |text| text.parse::<i64>());
    let resolution =
        resolution.ok().filter(|seconds| *seconds >= 30).ok_or_else(|| bad("invalid resolutionSeconds"))?;
    if to.duration_since(from).as_secs() / resolution > 10_000 {
        return Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, "too many points".to_owned()));
    }
    let world = shared.world();
    let step = i64::try_from(world.pace.metrics.as_secs()).unwrap_or(1).max(1);
    let newest = Timestamp::from_second(to.as_second() / step * step).unwrap_or(to);
    let times: Vec<Timestamp> = (0..)
        .map(|place| newest - SignedDuration::from_secs(place * resolution))
        .take_while(|at| *at >= from)
        .collect();
    let points =
        |value: f64| -> Vec<Value> { times.iter().rev().map(|at| json!({"timestamp": at, "value": value})).collect() };
    let mut series = Vec::new();
    for resource in all_of(&query, "resource") {
        let mut add = |labels: &[(&str, &str)], unit: &str, value: f64| {
            let of = [("resource", resource.as_str())];
            let labels: Vec<Value> =
                of.iter().chain(labels).map(|(field, value)| json!({"field": field, "value": value})).collect();
            series.push(json!({"labels": labels, "unit": unit, "values": points(value)}));
        };
        if let Some(database) = world.databases.get(&resource) {
            let (instance, found) = (format!("{resource}-0"), database.metric(&metric)?);
            if let Some((unit, value)) = found.filter(|_| !database.suspended) {
                add(&[("instance", &instance)], unit, value);
            }
            continue;
        }
        let Some(service) = world.services.get(&resource).filter(|service| !service.suspended) else { continue };
        match metric.as_str() {
            "cpu" | "cpu-limit" | "memory" | "memory-limit" => {
                let (unit, value) = match metric.as_str() {
                    "cpu" => ("cpu", service.cpu),
                    "cpu-limit" => ("cpu", 1.0),
                    "memory" => ("bytes", service.memory),
                    _ => ("bytes", MEMORY_LIMIT),
                };
                for instance in &service.instances {
                    add(&[("instance", &instance.id)], unit, value);
                }
            }
            "http-requests" => {
                let Some(requests) = service.requests else { continue };
                if one_of(&query, "aggregateBy").as_deref() != Some("statusCode") {
                    add(&[], "unitless", requests);
                    continue;
                }
                let failing = service.failing_now();
                for (status, share) in [("200", 1.0 - failing), ("500", failing)] {
                    if share > 0.0 {
                        add(&[("statusCode", status)], "unitless", requests * share);
                    }
                }
            }
            "http-latency" => {
                if service.requests.is_some() {
                    let quantile = one_of(&query, "quantile").unwrap_or_else(|| "0.95".to_owned());
                    add(&[("quantile", &quantile)], "ms", service.latency_ms);
                }
            }
            "instance-count" => add(&[], "unitless", service.instances.len() as f64),
            _ => return Err(not_found()),
        }
    }
    Ok(Json(series).into_response())
}

// ---- What a test or a person turns, where it runs as a program.

async fn add_service(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    shared.world().add_service(&id, "web_service");
    Ok(StatusCode::CREATED.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failing {
    share: f64,
}

async fn set_failing(State(shared): State<Shared>, Path(id): Path<String>, body: Bytes) -> Answer {
    let Failing { share } = parsed(&body)?;
    find(&mut shared.world(), &id)?.failing = share;
    Ok(StatusCode::OK.into_response())
}

async fn set_bad_env(State(shared): State<Shared>, Path(id): Path<String>, body: Bytes) -> Answer {
    let EnvVar { key, value } = parsed(&body)?;
    find(&mut shared.world(), &id)?.bad_env = Some((key, value));
    Ok(StatusCode::OK.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Push {
    commit: String,
    #[serde(default)]
    failing: f64,
}

async fn push(State(shared): State<Shared>, Path(id): Path<String>, body: Bytes) -> Answer {
    let mut world = shared.world();
    find(&mut world, &id)?;
    let Push { commit, failing } = parsed(&body)?;
    Ok(Json(json!({"deploy": world.push(&id, &commit, failing)})).into_response())
}
