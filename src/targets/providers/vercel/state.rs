//! The state of a project, and how far a rollback is, from Vercel's responses: pure.

use super::wire::{Deployment, Production, Project, label};
use crate::{
    analyze::observation::{Hosted, ReleaseId},
    targets::providers::common::{DeployState, failed_deploy},
};

/// The deployment that production points at; none when it points at nothing.
pub fn live(project: &Project) -> Option<&Production> {
    project.targets.as_ref()?.production.as_ref()
}

/// `deployments`: those for production, the newest first.
///
/// # Errors
/// A message for a person, when the deployment that serves is not ready.
pub fn hosted(project: &Project, deployments: &[Deployment]) -> Result<Hosted, String> {
    let live = live(project);
    if let Some(live) = live.filter(|live| live.ready_state != "READY") {
        return Err(format!("production points at deployment {}, which is {}", live.id, live.ready_state));
    }
    let failed = deployments.first().filter(|deployment| deployment.state == "ERROR");
    Ok(Hosted {
        release: live.map(|live| ReleaseId { revision: 0, hash: live.id.clone(), digest: live.id.clone() }),
        label: live.map(|live| label(&live.meta)).unwrap_or_default(),
        settled: !project.last_alias_request.as_ref().is_some_and(|request| request.is_under_way()),
        suspended: project.paused.then(|| "it is paused; resume it in Vercel's dashboard".to_owned()),
        instances: None,
        fault: None,
        failed_deploy: failed.map(|failed| {
            failed_deploy("deployment", (&failed.uid, &label(&failed.meta)), "ERROR", live.map(|live| &live.id))
        }),
        config: None,
    })
}

/// When the last rollback or promotion was requested, for [`rolled_back`].
pub fn requested_at_last(project: &Project) -> Option<String> {
    project.last_alias_request.as_ref().map(|request| request.requested_at.to_string())
}

/// The state of a rollback to `to` that was requested after `requested_before`. All times are Vercel's own.
pub fn rolled_back(project: &Project, to: &str, requested_before: Option<&str>) -> DeployState {
    let before = requested_before.and_then(|before| before.parse::<f64>().ok());
    let since = |at: f64| before.is_none_or(|before| at > before);
    let Some(request) = project.last_alias_request.as_ref().filter(|request| since(request.requested_at)) else {
        return DeployState::Nothing;
    };
    if request.to_deployment_id != to || request.kind != "rollback" {
        return DeployState::Others;
    }
    DeployState::Deploy {
        id: to.to_owned(),
        status: request.job_status.clone(),
        live: request.job_status == "succeeded",
        over: matches!(request.job_status.as_str(), "failed" | "skipped"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn project(fields: Value) -> Project {
        let mut project = json!({
            "id": "prj_1", "targets": {"production": {"id": "dpl_2", "readyState": "READY", "meta": {
                "gitlabCommitSha": "4af0e84c", "gitlabCommitMessage": "fix\nmore"}}},
            "lastAliasRequest": null,
        });
        project.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(project).unwrap()
    }

    fn moved(to: &str, status: &str, at: u64, kind: &str) -> Project {
        project(json!({"lastAliasRequest": {"fromDeploymentId": "dpl_2", "toDeploymentId": to, "jobStatus": status,
            "requestedAt": at, "type": kind}}))
    }

    fn deployments(states: &[(&str, &str)]) -> Vec<Deployment> {
        let all = states.iter().map(|(uid, state)| json!({"uid": uid, "state": state}));
        all.map(|one| serde_json::from_value(one).unwrap()).collect()
    }

    #[test]
    fn the_deployment_that_production_points_at_is_the_release() {
        let ready = deployments(&[("dpl_2", "READY"), ("dpl_1", "READY")]);
        let seen = hosted(&project(json!({})), &ready).unwrap();
        let release = seen.release.clone().unwrap();
        assert_eq!((release.hash.as_str(), release.digest.as_str()), ("dpl_2", "dpl_2"));
        assert_eq!(seen.label, "commit 4af0e84: fix");
        assert!(seen.settled && seen.suspended.is_none() && seen.fault.is_none() && seen.failed_deploy.is_none());

        let failed = deployments(&[("dpl_3", "ERROR"), ("dpl_2", "READY")]);
        let with_failed = hosted(&project(json!({})), &failed).unwrap();
        assert_eq!(with_failed.release, seen.release, "the deployment before still serves");
        let words = with_failed.failed_deploy.unwrap();
        assert!(words.contains("dpl_3 (no commit) ended as ERROR; dpl_2 still serves"), "{words}");
        let older = deployments(&[("dpl_4", "BUILDING"), ("dpl_3", "ERROR")]);
        assert_eq!(hosted(&project(json!({})), &older).unwrap().failed_deploy, None, "a newer one is on its way");

        assert!(hosted(&project(json!({"paused": true})), &ready).unwrap().suspended.is_some());
        assert_eq!(hosted(&project(json!({"targets": {}})), &[]).unwrap().release, None);
        assert!(!hosted(&moved("dpl_1", "in-progress", 5, "rollback"), &ready).unwrap().settled);
        assert!(hosted(&moved("dpl_1", "failed", 5, "rollback"), &ready).unwrap().settled);
        let building = project(json!({"targets": {"production": {"id": "dpl_9", "readyState": "BUILDING"}}}));
        assert!(hosted(&building, &ready).unwrap_err().contains("dpl_9, which is BUILDING"));
    }

    #[test]
    fn a_rollback_is_recognized_by_a_newer_request_with_its_target() {
        let state =
            |to: &str, status: &str, at, kind: &str, before| rolled_back(&moved(to, status, at, kind), "dpl_1", before);
        let deploy =
            |status: &str, live, over| DeployState::Deploy { id: "dpl_1".into(), status: status.into(), live, over };
        assert_eq!(rolled_back(&project(json!({})), "dpl_1", None), DeployState::Nothing);
        assert_eq!(state("dpl_1", "succeeded", 5, "rollback", Some("5")), DeployState::Nothing, "it is the old one");
        let before = Some("1700000000004");
        let later = 1_700_000_000_005;
        assert_eq!(state("dpl_1", "pending", later, "rollback", before), deploy("pending", false, false));
        assert_eq!(state("dpl_1", "in-progress", later, "rollback", None), deploy("in-progress", false, false));
        assert_eq!(state("dpl_1", "succeeded", later, "rollback", before), deploy("succeeded", true, false));
        assert_eq!(state("dpl_1", "failed", later, "rollback", before), deploy("failed", false, true));
        assert_eq!(state("dpl_1", "skipped", later, "rollback", before), deploy("skipped", false, true));
        assert_eq!(state("dpl_0", "succeeded", later, "rollback", before), DeployState::Others);
        assert_eq!(state("dpl_1", "succeeded", later, "promote", before), DeployState::Others);
        let asked = requested_at_last(&moved("dpl_1", "succeeded", later, "rollback"));
        assert_eq!(state("dpl_1", "succeeded", later, "rollback", asked.as_deref()), DeployState::Nothing);
    }
}
