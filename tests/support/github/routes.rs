//! The calls, one function each.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Path, Query, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::door::pass,
    Shared, error,
    world::{Hurdle, Repository},
};

type Parameters = Query<BTreeMap<String, String>>;
type Answer = Result<Response, Refused>;

struct Refused(u16, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        error(StatusCode::from_u16(self.0).expect("a status"), &self.1)
    }
}

pub fn router(shared: Shared) -> Router {
    let api = Router::new()
        .route("/api/v3/repos/{owner}/{repo}/deployments", get(deployments).post(deploy))
        .route("/api/v3/repos/{owner}/{repo}/deployments/{id}/statuses", get(statuses))
        .route("/api/v3/repos/{owner}/{repo}/actions/workflows/{file}", get(workflow))
        .route("/api/v3/repos/{owner}/{repo}/actions/workflows/{file}/runs", get(runs))
        .route("/api/v3/repos/{owner}/{repo}/actions/workflows/{file}/dispatches", post(dispatch))
        .route("/api/v3/repos/{owner}/{repo}/actions/runs/{id}", get(run))
        .route_layer(from_fn(tagged))
        .route_layer(from_fn_with_state(shared.door.clone(), pass))
        .route_layer(from_fn(well_spoken));
    let control = Router::new()
        .route("/_fake/repos/{owner}/{repo}", post(add))
        .route("/_fake/repos/{owner}/{repo}/push", post(push))
        .route("/_fake/prometheus/api/v1/query", get(measured).post(measured));
    let faults = shared.door.control();
    api.merge(control).fallback(async || error(StatusCode::NOT_FOUND, "Not Found")).with_state(shared).merge(faults)
}

/// What GitHub wants of every call.
async fn well_spoken(request: Request, next: Next) -> Response {
    let headers = request.headers().clone();
    let of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if of("user-agent").is_empty() {
        return error(
            StatusCode::FORBIDDEN,
            "Request forbidden by administrative rules. Please make sure your request has a User-Agent header",
        );
    }
    // It takes others too, as GitHub's own client sends them; of ours this is asked, which is what the documents ask for.
    if of("user-agent").starts_with("panacea/") {
        assert_eq!((of("accept"), of("x-github-api-version")), ("application/vnd.github+json", "2022-11-28"));
    }
    next.run(request).await
}

/// Answers have an ETag; one that is known already is not sent again.
async fn tagged(request: Request, next: Next) -> Response {
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let is_read = request.method() == Method::GET;
    let (mut parts, body) = next.run(request).await.into_parts();
    if !is_read || !parts.status.is_success() {
        return Response::from_parts(parts, body);
    }
    let body = to_bytes(body, usize::MAX).await.expect("it is there");
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let tag = HeaderValue::from_str(&format!("W/\"{:x}\"", hasher.finish())).expect("a header");
    if known.as_ref() == Some(&tag) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    parts.headers.insert(header::ETAG, tag);
    Response::from_parts(parts, Body::from(body))
}

fn find<'a>(
    repositories: &'a BTreeMap<String, Repository>,
    owner: &str,
    repo: &str,
) -> Result<(String, &'a Repository), Refused> {
    let name = format!("{owner}/{repo}");
    let found = repositories.get(&name).ok_or_else(not_found)?;
    Ok((name, found))
}

fn not_found() -> Refused {
    Refused(404, "Not Found".to_owned())
}

async fn deployments(
    State(shared): State<Shared>,
    Path((owner, repo)): Path<(String, String)>,
    Query(query): Parameters,
) -> Answer {
    let world = shared.world();
    let (_, repository) = find(&world.repositories, &owner, &repo)?;
    let many = query.get("per_page").and_then(|many| many.parse().ok()).unwrap_or(30);
    let environment = query.get("environment");
    let all = repository.deployments.iter().rev();
    let fits = all.filter(|one| environment.is_none_or(|wanted| *wanted == one.environment));
    let listed: Vec<Value> = fits.take(many).map(|one| one.to_json()).collect();
    Ok(Json(listed).into_response())
}

async fn statuses(State(shared): State<Shared>, Path((owner, repo, id)): Path<(String, String, u64)>) -> Answer {
    let world = shared.world();
    let (name, repository) = find(&world.repositories, &owner, &repo)?;
    let deployment = repository.deployments.iter().find(|one| one.id == id).ok_or_else(not_found)?;
    Ok(Json(deployment.statuses_json(&name)).into_response())
}

async fn deploy(State(shared): State<Shared>, Path((owner, repo)): Path<(String, String)>, body: Bytes) -> Answer {
    #[derive(Deserialize)]
    struct New {
        #[serde(rename = "ref")]
        git_ref: String,
        #[serde(default)]
        task: Option<String>,
        #[serde(default)]
        auto_merge: Option<bool>,
        #[serde(default)]
        required_contexts: Option<Vec<String>>,
    }
    let new: New = serde_json::from_slice(&body)
        .map_err(|_| Refused(422, "Invalid request.\n\n\"ref\" wasn't supplied.".to_owned()))?;
    let mut world = shared.world();
    let (name, repository) = find(&world.repositories, &owner, &repo)?;
    if !repository.commits.contains(&new.git_ref) && new.git_ref != "main" {
        return Err(Refused(422, format!("No ref found for: {}", new.git_ref)));
    }
    let git_ref = &new.git_ref;
    let merges = new.auto_merge.unwrap_or(true) && *git_ref != repository.head;
    let checks = new.required_contexts.is_none_or(|contexts| !contexts.is_empty());
    let Repository { hurdle, insists, .. } = *repository;
    match hurdle {
        Some(Hurdle::Checks) if checks || insists => {
            return Err(Refused(409, format!("Conflict: Commit status checks failed for {git_ref}.")));
        }
        Some(Hurdle::Conflict) if merges || insists => {
            return Err(Refused(409, format!("Conflict merging main into {git_ref}.")));
        }
        _ if merges || insists => {
            let words = format!("Auto-merged main into {git_ref} on deployment.");
            return Ok((StatusCode::ACCEPTED, Json(json!({"message": words}))).into_response());
        }
        _ => {}
    }
    let (end, task) = (repository.ends, new.task.unwrap_or_else(|| "deploy".to_owned()));
    let id = world.deploy(&name, &new.git_ref, &task, end, Duration::from_millis(1500));
    let made = world.repositories[&name].deployments.iter().find(|one| one.id == id).expect("just made").to_json();
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

async fn workflow(State(shared): State<Shared>, Path((owner, repo, file)): Path<(String, String, String)>) -> Answer {
    let world = shared.world();
    let (_, repository) = find(&world.repositories, &owner, &repo)?;
    known(&file)?;
    let state = if repository.disabled { "disabled_manually" } else { "active" };
    Ok(Json(json!({"id": 1, "name": "Rollback", "path": format!(".github/workflows/{file}"), "state": state}))
        .into_response())
}

/// rollback.yml is dispatched with a commit; ci.yml is for pushes.
fn known(file: &str) -> Result<(), Refused> {
    if matches!(file, "rollback.yml" | "ci.yml") { Ok(()) } else { Err(not_found()) }
}

async fn runs(State(shared): State<Shared>, Path((owner, repo, file)): Path<(String, String, String)>) -> Answer {
    let world = shared.world();
    let (name, repository) = find(&world.repositories, &owner, &repo)?;
    known(&file)?;
    let listed: Vec<Value> = repository.runs.iter().rev().map(|run| run.to_json(&name)).collect();
    Ok(Json(json!({"total_count": listed.len(), "workflow_runs": listed})).into_response())
}

async fn run(State(shared): State<Shared>, Path((owner, repo, id)): Path<(String, String, u64)>) -> Answer {
    let world = shared.world();
    let (name, repository) = find(&world.repositories, &owner, &repo)?;
    let run = repository.runs.iter().find(|run| run.id == id).ok_or_else(not_found)?;
    Ok(Json(run.to_json(&name)).into_response())
}

async fn dispatch(
    State(shared): State<Shared>,
    Path((owner, repo, file)): Path<(String, String, String)>,
    body: Bytes,
) -> Answer {
    let body: Value = serde_json::from_slice(&body).map_err(|_| Refused(400, "Problems parsing JSON".to_owned()))?;
    let mut world = shared.world();
    let (name, repository) = find(&world.repositories, &owner, &repo)?;
    known(&file)?;
    let tells_run = repository.tells_run;
    if !tells_run && body.get("return_run_details").is_some() {
        return Err(Refused(422, "Invalid request.\n\n\"return_run_details\" is not a permitted key.".to_owned()));
    }
    if repository.disabled {
        return Err(Refused(422, "Cannot trigger a 'workflow_dispatch' on a disabled workflow".to_owned()));
    }
    if body["ref"] != "main" {
        return Err(Refused(422, format!("No ref found for: {}", body["ref"].as_str().unwrap_or_default())));
    }
    if file != "rollback.yml" {
        return Err(Refused(422, "Workflow does not have 'workflow_dispatch' trigger".to_owned()));
    }
    let inputs = body["inputs"].as_object().cloned().unwrap_or_default();
    if let Some(other) = inputs.keys().find(|name| !matches!(name.as_str(), "sha" | "reason")) {
        return Err(Refused(422, format!("Unexpected inputs provided: [\"{other}\"]")));
    }
    let Some(commit) = inputs.get("sha").and_then(Value::as_str) else {
        return Err(Refused(422, "Required input 'sha' not provided".to_owned()));
    };
    let id = world.dispatch(&name, commit);
    if body["return_run_details"] == true {
        let url = format!("https://github.com/{name}/actions/runs/{id}");
        return Ok(Json(json!({"workflow_run_id": id, "run_url": url, "html_url": url})).into_response());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

// The control, for those who run it as a program.

async fn add(State(shared): State<Shared>, Path((owner, repo)): Path<(String, String)>) -> Answer {
    shared.world().add(&format!("{owner}/{repo}"));
    Ok(StatusCode::CREATED.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Push {
    commit: String,
    #[serde(default)]
    failing: f64,
}

async fn push(State(shared): State<Shared>, Path((owner, repo)): Path<(String, String)>, body: Bytes) -> Answer {
    let mut world = shared.world();
    let (name, _) = find(&world.repositories, &owner, &repo)?;
    let Push { commit, failing } = serde_json::from_slice(&body).map_err(|why| Refused(400, why.to_string()))?;
    Ok(Json(json!({"commit": world.push(&name, &commit, failing, "success")})).into_response())
}

/// The share of requests that fail, of the repository whose name is asked for.
async fn measured(State(shared): State<Shared>, Query(query): Parameters, body: Bytes) -> Response {
    let form =
        url::form_urlencoded::parse(&body).find(|(name, _)| name == "query").map(|(_, value)| value.into_owned());
    let name = form.or_else(|| query.get("query").cloned()).unwrap_or_default();
    let world = shared.world();
    let share = world.repositories.get(&name).map(Repository::share_failing);
    let sample = |share: f64| json!({"metric": {}, "value": [Timestamp::now().as_second(), share.to_string()]});
    let result: Vec<Value> = share.map(sample).into_iter().collect();
    Json(json!({"status": "success", "data": {"resultType": "vector", "result": result}})).into_response()
}
