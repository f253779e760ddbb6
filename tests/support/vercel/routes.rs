//! The calls, one function each.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{super::door::pass, Shared, error, world::Project};

type Parameters = Query<BTreeMap<String, String>>;
type Answer = Result<Response, Refused>;

struct Refused(u16, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0).expect("a status");
        error(status, if self.0 == 404 { "not_found" } else { "bad_request" }, &self.1)
    }
}

pub fn router(shared: Shared) -> Router {
    let api = Router::new()
        .route("/v9/projects/{id}", get(project))
        .route("/v7/deployments", get(deployments))
        .route("/v1/projects/{id}/rollback/{deployment}", post(rollback))
        .route_layer(from_fn_with_state(shared.door.clone(), pass));
    let control = Router::new()
        .route("/_fake/projects/{id}", post(add_project))
        .route("/_fake/projects/{id}/push", post(push))
        .route("/_fake/prometheus/api/v1/query", get(measured).post(measured));
    let faults = shared.door.control();
    let known = api.merge(control).fallback(async || error(StatusCode::NOT_FOUND, "not_found", "not found"));
    known.with_state(shared).merge(faults)
}

fn only(query: &BTreeMap<String, String>, known: &[&str]) -> Result<(), Refused> {
    match query.keys().find(|name| !known.contains(&name.as_str())) {
        Some(other) => Err(Refused(400, format!("Invalid request: should NOT have additional property `{other}`."))),
        None => Ok(()),
    }
}

/// An object of another team, or named with the wrong one, does not exist.
fn find<'a>(project: Option<&'a Project>, query: &BTreeMap<String, String>) -> Result<&'a Project, Refused> {
    let not_found = || Refused(404, "Project not found.".to_owned());
    let project = project.ok_or_else(not_found)?;
    if project.team.as_ref() == query.get("teamId") { Ok(project) } else { Err(not_found()) }
}

async fn project(State(shared): State<Shared>, Path(id): Path<String>, Query(query): Parameters) -> Answer {
    only(&query, &["teamId", "slug", "rollbackInfo"])?;
    let world = shared.world();
    Ok(Json(find(world.projects.get(&id), &query)?.to_json(&id)).into_response())
}

async fn deployments(State(shared): State<Shared>, Query(query): Parameters) -> Answer {
    only(&query, &["teamId", "slug", "projectId", "target", "state", "rollbackCandidate", "limit", "until", "since"])?;
    let world = shared.world();
    let id = query.get("projectId").ok_or_else(|| Refused(400, "projectId is missing (assumed)".to_owned()))?;
    let project = find(world.projects.get(id), &query)?;
    let number = |name: &str, or: i64| match query.get(name).map(|value| value.parse::<i64>()) {
        None => Ok(or),
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => Err(Refused(400, format!("Invalid request: `{name}` should be number."))),
    };
    let (limit, until) = (number("limit", 20)?, number("until", i64::MAX)?);
    if !(1..=100).contains(&limit) {
        return Err(Refused(400, "Invalid request: `limit` should be <= 100.".to_owned()));
    }
    let states: Option<Vec<&str>> = query.get("state").map(|states| states.split(',').collect());
    let candidates = query.get("rollbackCandidate").is_some_and(|value| value == "true");
    let all = project.deployments.iter().rev().filter(|one| {
        one.created() < until
            && states.as_ref().is_none_or(|states| states.contains(&one.state))
            && (!candidates || project.refuses(&one.uid).is_none())
    });
    let mut page: Vec<_> = all.take(usize::try_from(limit).unwrap_or(100) + 1).collect();
    let more = page.len() > usize::try_from(limit).unwrap_or(100);
    if more {
        page.pop();
    }
    let next = page.last().filter(|_| more).map(|last| last.created());
    let listed: Vec<Value> = page.iter().map(|one| one.to_json()).collect();
    let pagination = json!({"count": listed.len(), "next": next, "prev": page.first().map(|first| first.created())});
    Ok(Json(json!({"deployments": listed, "pagination": pagination})).into_response())
}

async fn rollback(
    State(shared): State<Shared>,
    Path((id, to)): Path<(String, String)>,
    Query(query): Parameters,
    body: Bytes,
) -> Answer {
    only(&query, &["teamId", "slug", "description"])?;
    // Vercel's own client sends none.
    let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
    let json: Value = serde_json::from_slice(body).map_err(|_| Refused(400, "Invalid JSON".to_owned()))?;
    if json != json!({}) {
        return Err(Refused(400, "Invalid request: the body has no properties (assumed).".to_owned()));
    }
    let mut world = shared.world();
    let project = find(world.projects.get(&id), &query)?;
    if project.is_moving() {
        return Err(Refused(409, "Another rollback or promotion is under way".to_owned()));
    }
    if let Some((status, words)) = project.refuses(&to) {
        return Err(Refused(status, words.to_owned()));
    }
    world.roll_back(&id, &to);
    Ok(StatusCode::CREATED.into_response())
}

// The control, for those who run it as a program.

async fn add_project(State(shared): State<Shared>, Path(id): Path<String>, Query(query): Parameters) -> Answer {
    shared.world().add_project(&id, query.get("teamId").map(String::as_str));
    Ok(StatusCode::CREATED.into_response())
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
    if !world.projects.contains_key(&id) {
        return Err(Refused(404, "Project not found.".to_owned()));
    }
    let Push { commit, failing } = serde_json::from_slice(&body).map_err(|why| Refused(400, why.to_string()))?;
    Ok(Json(json!({"deployment": world.push(&id, &commit, failing)})).into_response())
}

/// The share of requests that fail, of the project whose id is asked for.
async fn measured(State(shared): State<Shared>, Query(query): Parameters, body: Bytes) -> Response {
    let form =
        url::form_urlencoded::parse(&body).find(|(name, _)| name == "query").map(|(_, value)| value.into_owned());
    let id = form.or_else(|| query.get("query").cloned()).unwrap_or_default();
    let world = shared.world();
    let live = world.projects.get(&id).and_then(|project| project.deployment(&project.production));
    let result: Vec<Value> = live
        .map(|live| json!({"metric": {}, "value": [Timestamp::now().as_second(), live.failing.to_string()]}))
        .into_iter()
        .collect();
    Json(json!({"status": "success", "data": {"resultType": "vector", "result": result}})).into_response()
}
