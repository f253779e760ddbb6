//! What is deployed to an environment, and how far a rollback is, from GitHub's responses: pure.

use jiff::{SignedDuration, Timestamp};

use super::wire::{Deployment, Run, Status};
use crate::{
    analyze::observation::{Hosted, ReleaseId},
    targets::providers::common::{DeployState, commit_label, failed_deploy},
};

/// The task of deployments that roll back.
pub const ROLLBACK_TASK: &str = "deploy:rollback";
/// A deployment without a result for so long is not under way any more.
const UNDER_WAY_FOR: SignedDuration = SignedDuration::from_hours(1);

/// How far a deployment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Its newest status; `pending` when it has none.
    pub state: String,
    /// The deployment has succeeded once; the next deployment turns it `inactive`.
    pub served: bool,
    /// The run that made the deployment.
    pub run: Option<u64>,
    /// The log.
    pub url: String,
}

impl Progress {
    pub fn of(statuses: &[Status]) -> Self {
        let newest = statuses.iter().max_by_key(|status| status.id);
        let url = newest.and_then(|status| status.log_url.clone()).unwrap_or_default();
        Self {
            state: newest.map_or("pending", |status| &status.state).to_owned(),
            served: statuses.iter().any(|status| status.state == "success"),
            run: statuses.iter().find_map(|status| run_in(status.log_url.as_deref()?)),
            url,
        }
    }

    fn has_failed(&self) -> bool {
        !self.served && matches!(self.state.as_str(), "failure" | "error")
    }

    fn is_under_way(&self) -> bool {
        !self.served && matches!(self.state.as_str(), "pending" | "queued" | "in_progress")
    }
}

/// The run in `https://github.com/o/r/actions/runs/12/job/34`.
fn run_in(url: &str) -> Option<u64> {
    let (_, rest) = url.split_once("/actions/runs/")?;
    rest.split(['/', '?', '#']).next()?.parse().ok()
}

/// The commit that a run deploys: the full SHA in its name.
fn commit_in(title: &str) -> Option<&str> {
    let mut words = title.split(|character: char| !character.is_ascii_alphanumeric());
    words.find(|word| word.len() == 40 && word.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
}

/// The run rolls back to this commit.
pub fn goes_to(run: &Run, commit: &str) -> bool {
    run.display_title.as_deref().and_then(commit_in) == Some(commit)
}

/// The commit that a deployment has deployed. `run`: the run that made the deployment; `file`: the workflow that rolls back.
///
/// A job with an `environment` records the commit of the branch that its run was dispatched for, also when the job checks out
/// another one: only the run's name holds that commit.
///
/// # Errors
/// A message for a person, when the commit is unknown.
pub fn commit_of(deployment: &Deployment, run: Option<&Run>, file: &str) -> Result<String, String> {
    let dispatched = run.filter(|run| run.event == "workflow_dispatch" && run.head_sha == deployment.sha);
    let Some(run) = dispatched else { return Ok(deployment.sha.clone()) };
    if let Some(commit) = run.display_title.as_deref().and_then(commit_in) {
        return Ok(commit.to_owned());
    }
    let path = run.path.split('@').next().unwrap_or_default();
    if path.rsplit('/').next() != Some(file) {
        return Ok(deployment.sha.clone());
    }
    Err(format!(
        "the commit of deployment {} is unknown: the name of the run of {file} that made it does not hold the commit ({}); write run-name: Roll back to ${{{{ inputs.<shaInput> }}}}",
        deployment.id, run.html_url
    ))
}

/// What was read of an environment.
#[derive(Debug, Clone)]
pub struct Read {
    /// Deployments that have not succeeded, newer than the one that serves; the newest first.
    pub newer: Vec<(Deployment, Progress)>,
    /// The deployment that serves, and its commit.
    pub live: Option<(Deployment, String)>,
}

impl Read {
    pub fn newest(&self) -> Option<u64> {
        let live = self.live.as_ref().map(|(deployment, _)| deployment.id);
        self.newer.first().map(|(deployment, _)| deployment.id).or(live)
    }

    pub fn is_of(&self, commit: &str) -> bool {
        self.live.as_ref().is_some_and(|(_, live)| live == commit)
    }
}

pub fn hosted(read: &Read, now: Timestamp) -> Hosted {
    let live = read.live.as_ref();
    let label = |deployment: &Deployment, commit: &str| {
        commit_label(commit, deployment.description.as_deref().unwrap_or_default().trim())
    };
    let begun = |deployment: &Deployment| now.duration_since(deployment.created_at) < UNDER_WAY_FOR;
    let failed = read.newer.first().filter(|(_, progress)| progress.has_failed());
    Hosted {
        release: live.map(|(deployment, commit)| ReleaseId {
            revision: 0,
            hash: deployment.id.to_string(),
            digest: commit.clone(),
        }),
        label: live.map(|(deployment, commit)| label(deployment, commit)).unwrap_or_default(),
        settled: !read.newer.iter().any(|(deployment, progress)| progress.is_under_way() && begun(deployment)),
        suspended: None,
        instances: None,
        fault: None,
        config: None,
        failed_deploy: failed.map(|(deployment, progress)| {
            let (label, live) = (label(deployment, &deployment.sha), live.map(|(live, _)| live.id));
            failed_deploy("deployment", (deployment.id, &label), &progress.state, live)
        }),
    }
}

/// The state of a run. `deployed`: the commit that it deploys serves.
pub fn of_run(run: &Run, deployed: bool) -> DeployState {
    let (id, url) = (run.id.to_string(), &run.html_url);
    let status = run.status.as_deref().unwrap_or("queued");
    let state = |status, live, over| DeployState::Deploy { id: id.clone(), status, live, over };
    match (status, run.conclusion.as_deref()) {
        ("completed", Some("success")) if deployed => state("success".to_owned(), true, false),
        ("completed", Some("success")) => state(
            format!("success ({url}), and no deployment of the commit in the environment has succeeded"),
            false,
            false,
        ),
        ("waiting" | "action_required", _) | ("completed", Some("action_required")) => {
            DeployState::Waits { why: format!("an approval is pending: {url}"), id }
        }
        ("completed", ended) => state(format!("{} ({url})", ended.unwrap_or("completed")), false, true),
        (status, _) => state(format!("{status} ({url})"), false, false),
    }
}

/// The state of a deployment.
pub fn of_deployment(id: u64, progress: &Progress) -> DeployState {
    let Progress { state, served, url, .. } = progress;
    let (id, at) = (id.to_string(), if url.is_empty() { String::new() } else { format!(" ({url})") });
    match state.as_str() {
        _ if *served => DeployState::Deploy { id, status: "success".to_owned(), live: true, over: false },
        "waiting" => DeployState::Waits { id, why: format!("an approval is pending{at}") },
        state => {
            let over = matches!(state, "failure" | "error" | "inactive");
            DeployState::Deploy { id, status: format!("{state}{at}"), live: false, over }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const GOOD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const BAD: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn deployment(id: u64, sha: &str) -> Deployment {
        let fields =
            json!({"id": id, "sha": sha, "task": "deploy", "description": null, "created_at": "2026-11-28T10:00:00Z"});
        serde_json::from_value(fields).unwrap()
    }

    fn progress(states: &[&str]) -> Progress {
        let statuses = states.iter().enumerate().map(|(id, state)| {
            let log_url = "https://github.com/octo-org/shop/actions/runs/77/job/8";
            serde_json::from_value(json!({"id": id, "state": state, "log_url": log_url})).unwrap()
        });
        Progress::of(&statuses.collect::<Vec<Status>>())
    }

    fn run(fields: Value) -> Run {
        let mut run = json!({"id": 77, "event": "workflow_dispatch", "head_sha": BAD, "html_url": "https://github.com/runs/77",
            "path": ".github/workflows/rollback.yml", "display_title": "Rollback", "status": "completed"});
        run.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(run).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_past_success_serves_also_when_later_statuses_differ() {
        let seen = progress(&["queued", "in_progress", "success", "inactive"]);
        assert_eq!((seen.served, seen.state.as_str(), seen.run), (true, "inactive", Some(77)));
        assert!(!progress(&["in_progress", "inactive"]).served, "superseded before it was live");
        let none = Progress::of(&[]);
        assert_eq!((none.served, none.state.as_str(), none.run, none.is_under_way()), (false, "pending", None, true));
        assert!(progress(&["in_progress", "failure"]).has_failed());
        assert!(!progress(&["success", "failure"]).has_failed(), "it succeeded first");
        assert!(!progress(&["waiting"]).is_under_way(), "nothing happens before it is approved");
    }

    #[test]
    fn the_deployment_that_serves_is_the_release_and_known_by_its_commit() {
        let live = Some((deployment(5, GOOD), GOOD.to_owned()));
        let read = |newer: &[&str]| {
            let newer = newer.iter().map(|state| (deployment(6, BAD), progress(&[state]))).collect();
            Read { newer, live: live.clone() }
        };
        let (soon, later) = (at("2026-11-28T10:05:00Z"), at("2026-11-28T12:00:00Z"));
        let seen = hosted(&read(&[]), soon);
        let release = seen.release.unwrap();
        assert_eq!((release.hash.as_str(), release.digest.as_str()), ("5", GOOD));
        assert_eq!((seen.label.as_str(), seen.settled, seen.failed_deploy), ("commit aaaaaaa", true, None));
        for state in ["pending", "queued", "in_progress"] {
            assert!(!hosted(&read(&[state]), soon).settled, "{state}");
            assert!(hosted(&read(&[state]), later).settled, "{state}: it reports nothing any more");
        }
        let failed = hosted(&read(&["failure"]), soon);
        let words = failed.failed_deploy.unwrap();
        assert_eq!(words, "the newest deployment 6 (commit bbbbbbb) ended as failure; 5 still serves");
        assert_eq!(hosted(&read(&["in_progress", "error"]), soon).failed_deploy, None, "a newer one is on its way");
        assert_eq!(hosted(&Read { newer: Vec::new(), live: None }, soon).release, None);
    }

    #[test]
    fn the_deployment_of_a_dispatched_run_is_of_the_commit_in_its_name() {
        let of_main = deployment(6, BAD);
        let file = "rollback.yml";
        let commit = |run: Option<&Run>| commit_of(&of_main, run, file);
        assert_eq!(commit(None), Ok(BAD.to_owned()));
        let named = run(json!({"display_title": format!("Roll back to {GOOD}")}));
        assert_eq!(commit(Some(&named)), Ok(GOOD.to_owned()));
        assert!(goes_to(&named, GOOD) && !goes_to(&named, BAD));
        assert_eq!(commit(Some(&run(json!({"event": "push"})))), Ok(BAD.to_owned()), "it deploys what it is of");
        let other = run(json!({"path": ".github/workflows/deploy.yml@refs/heads/main"}));
        assert_eq!(commit(Some(&other)), Ok(BAD.to_owned()));
        // A deployment that the workflow has recorded itself.
        assert_eq!(commit_of(&deployment(6, GOOD), Some(&run(json!({}))), file), Ok(GOOD.to_owned()));
        for title in ["Rollback", "Roll back to aaaaaaa", &format!("x{GOOD}"), &GOOD.to_uppercase()] {
            let why =
                commit(Some(&run(json!({"display_title": title, "path": ".github/workflows/rollback.yml@main"}))));
            assert!(why.unwrap_err().contains("write run-name: Roll back to ${{ inputs.<shaInput> }}"), "{title}");
        }
    }

    #[test]
    fn a_run_is_followed_to_its_conclusion_and_to_the_deployment_of_its_commit() {
        let state = |status: &str, conclusion: Value, deployed| match of_run(
            &run(json!({"status": status, "conclusion": conclusion})),
            deployed,
        ) {
            DeployState::Deploy { status, live, over, .. } => (status, live, over),
            DeployState::Waits { why, .. } => (why, false, false),
            other => panic!("{other:?}"),
        };
        assert_eq!(state("completed", json!("success"), true), ("success".into(), true, false));
        let (words, live, over) = state("completed", json!("success"), false);
        assert!(words.contains("no deployment of the commit") && !live && !over, "{words}");
        for ended in ["failure", "cancelled", "timed_out", "startup_failure"] {
            let expected = (format!("{ended} (https://github.com/runs/77)"), false, true);
            assert_eq!(state("completed", json!(ended), true), expected);
        }
        for status in ["queued", "in_progress", "requested", "pending"] {
            assert_eq!(
                state(status, json!(null), true),
                (format!("{status} (https://github.com/runs/77)"), false, false)
            );
        }
        for (status, conclusion) in [("waiting", json!(null)), ("completed", json!("action_required"))] {
            assert_eq!(state(status, conclusion, true).0, "an approval is pending: https://github.com/runs/77");
        }
    }

    #[test]
    fn a_deployment_is_followed_by_its_statuses() {
        let state = |states: &[&str]| match of_deployment(9, &progress(states)) {
            DeployState::Deploy { live, over, .. } => (live, over),
            DeployState::Waits { .. } => (false, false),
            other => panic!("{other:?}"),
        };
        assert_eq!(state(&["pending"]), (false, false));
        assert_eq!(state(&["in_progress", "success", "inactive"]), (true, false));
        for ended in ["failure", "error", "inactive"] {
            assert_eq!(state(&["in_progress", ended]), (false, true), "{ended}");
        }
        assert!(matches!(of_deployment(9, &progress(&["waiting"])), DeployState::Waits { .. }));
        let none = of_deployment(9, &Progress::of(&[]));
        let expected = DeployState::Deploy { id: "9".into(), status: "pending".into(), live: false, over: false };
        assert_eq!(none, expected);
    }
}
