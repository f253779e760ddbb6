//! The state of a service, from Render's responses: pure.

use jiff::{SignedDuration, Timestamp};

use super::wire::{Deploy, Event, Instance, Service};
use crate::{
    analyze::observation::{FaultKind, Hosted, HostedFault, ReleaseId},
    targets::providers::common::failed_deploy,
};

/// Render restarts a failed instance itself within this time.
const RECOVERS_WITHIN: SignedDuration = SignedDuration::from_secs(30);
/// An instance that fails so often within this time does not recover.
const AGAIN_AND_AGAIN: (usize, SignedDuration) = (3, SignedDuration::from_mins(10));
/// Unless it has been healthy for so long since.
const HEALTHY_AGAIN: SignedDuration = SignedDuration::from_mins(2);

/// What was read of a service.
#[derive(Debug, Clone)]
pub struct Read {
    pub service: Service,
    /// The newest first.
    pub deploys: Vec<Deploy>,
    /// None: a service of this kind has none.
    pub instances: Option<Vec<Instance>>,
    /// The newest first.
    pub events: Vec<Event>,
}

impl Read {
    pub fn live(&self) -> Option<&Deploy> {
        live(&self.deploys)
    }

    /// The newest restart that is listed.
    pub fn newest_restart(&self) -> Option<&Event> {
        self.events.iter().find(|event| event.kind == "server_restarted")
    }
}

/// The deploy that serves.
pub fn live(deploys: &[Deploy]) -> Option<&Deploy> {
    deploys.iter().find(|deploy| deploy.is_live())
}

/// `root`: the first deploy of the live one's state; of a rollback its target.
pub fn hosted(read: &Read, root: Option<&str>, now: Timestamp) -> Hosted {
    let live = read.live();
    let release = live.map(|deploy| ReleaseId {
        revision: 0,
        hash: deploy.id.clone(),
        digest: root.unwrap_or(&deploy.id).to_owned(),
    });
    let newer = read.deploys.iter().take_while(|deploy| !deploy.is_live());
    let failed = read.deploys.first().filter(|deploy| deploy.has_failed());
    let suspended = read.service.is_suspended().then(|| {
        let by = read.service.suspenders.join(", ");
        format!("it is suspended (by: {by}); resume it in Render's dashboard")
    });
    let run = read.instances.as_ref().map(|instances| u32::try_from(instances.len()).unwrap_or(u32::MAX));
    Hosted {
        release,
        label: live.map(Deploy::label).unwrap_or_default(),
        settled: newer.clone().all(|deploy| deploy.status != "update_in_progress"),
        suspended,
        instances: run.zip(read.service.desired()),
        fault: fault(&read.events, live.and_then(|deploy| deploy.finished_at), now),
        failed_deploy: failed.map(|deploy| {
            failed_deploy("deploy", (&deploy.id, &deploy.label()), &deploy.status, live.map(|live| &live.id))
        }),
        config: None,
    }
}

/// Failures since instances were last replaced by a restart or a deploy.
fn fault(events: &[Event], live_since: Option<Timestamp>, now: Timestamp) -> Option<HostedFault> {
    let since_new = events.iter().take_while(|event| {
        let replaced = event.kind == "server_restarted" || (event.kind == "deploy_ended" && is_success(event));
        !replaced
    });
    let listed = since_new.filter(|event| is_failure(event) || event.kind == "server_available");
    let listed: Vec<&Event> = listed.collect();
    let newest = listed.first()?;
    let (often, within) = AGAIN_AND_AGAIN;
    let recent = listed.iter().filter(|event| is_failure(event) && now.duration_since(event.timestamp) <= within);
    let count = recent.count();
    let failed = listed.iter().find(|event| is_failure(event))?;
    let again = count >= often && now.duration_since(failed.timestamp) < HEALTHY_AGAIN;
    let down = is_failure(newest);
    if !(down || again) {
        return None;
    }
    let lasts = down && now.duration_since(newest.timestamp) >= RECOVERS_WITHIN;
    let times = if count > 1 { format!(", {count} times in {} min", within.as_mins()) } else { String::new() };
    Some(HostedFault {
        kind: kind(failed),
        lasting: lasts || again,
        of_release: live_since.is_some_and(|since| failed.timestamp >= since),
        detail: format!("an instance {} at {}{times}", words(failed), failed.timestamp.strftime("%H:%M:%SZ")),
    })
}

fn is_failure(event: &Event) -> bool {
    matches!(event.kind.as_str(), "server_failed" | "server_unhealthy" | "image_pull_failed")
}

/// Of `deploy_ended`. The documentation gives numbers without names; the list of deploys shows failed ones as well.
fn is_success(event: &Event) -> bool {
    event.details["status"].as_i64() == Some(2)
}

fn kind(event: &Event) -> FaultKind {
    let reason = &event.details["reason"];
    match event.kind.as_str() {
        "image_pull_failed" => FaultKind::ImagePull,
        "server_unhealthy" => FaultKind::NotReady,
        _ if reason["oomKilled"].is_object() => FaultKind::OomKilled,
        _ if reason["unhealthy"].is_string() => FaultKind::NotReady,
        _ => FaultKind::CrashLoop,
    }
}

fn words(event: &Event) -> String {
    let reason = &event.details["reason"];
    if let Some(limit) = reason["oomKilled"]["memoryLimit"].as_str() {
        return format!("ran out of memory (limit {limit})");
    }
    if let Some(code) = reason["nonZeroExit"].as_i64() {
        return format!("ended with exit code {code}");
    }
    if let Some(why) = reason["unhealthy"].as_str() {
        let why: String = why.chars().take(80).collect();
        return format!("failed its health check ({why})");
    }
    match event.kind.as_str() {
        "image_pull_failed" => "could not pull its image".to_owned(),
        "server_unhealthy" => "failed its health check".to_owned(),
        _ if reason["evicted"] == true => "was evicted".to_owned(),
        _ => "failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-11-25T10:00:00Z".parse().unwrap()
    }

    fn ago(seconds: i64) -> Timestamp {
        now() - SignedDuration::from_secs(seconds)
    }

    fn read(deploys: Value, events: &[(&str, i64, Value)]) -> Read {
        let events = events.iter().rev().enumerate().map(|(place, (kind, seconds, details))| Event {
            id: format!("evt-{place}"),
            timestamp: ago(*seconds),
            kind: (*kind).to_owned(),
            details: details.clone(),
        });
        Read {
            service: serde_json::from_value(json!({"id": "srv-1", "type": "web_service", "suspended": "not_suspended",
                "autoDeploy": "yes", "serviceDetails": {"numInstances": 2}}))
            .unwrap(),
            deploys: serde_json::from_value(deploys).unwrap(),
            instances: Some(serde_json::from_value(json!([{"id": "a", "createdAt": ago(9)}, {"id": "b"}])).unwrap()),
            events: events.collect(),
        }
    }

    fn live() -> Value {
        json!([{"id": "dep-1", "status": "live", "finishedAt": ago(300), "commit": {"id": "4af0e84c", "message": "fix\nmore"}}])
    }

    #[test]
    fn the_deploy_that_serves_is_the_release() {
        let seen = hosted(&read(live(), &[]), None, now());
        let release = seen.release.clone().unwrap();
        assert_eq!((release.hash.as_str(), release.digest.as_str(), release.revision), ("dep-1", "dep-1", 0));
        assert_eq!(seen.label, "commit 4af0e84: fix");
        assert!(seen.settled && seen.suspended.is_none() && seen.fault.is_none() && seen.failed_deploy.is_none());
        assert_eq!((seen.instances, release.to_string().as_str()), (Some((2, 2)), "deploy dep-1"));
        let back = hosted(&read(live(), &[]), Some("dep-0"), now()).release.unwrap();
        assert_eq!(
            (back.hash.as_str(), back.digest.as_str()),
            ("dep-1", "dep-0"),
            "a rollback is identified by its target"
        );

        let with = |status: &str| {
            let mut deploys = live();
            deploys.as_array_mut().unwrap().insert(0, json!({"id": "dep-2", "status": status}));
            hosted(&read(deploys, &[]), None, now())
        };
        assert!(with("build_in_progress").settled, "a build replaces nothing yet");
        assert!(!with("update_in_progress").settled);
        let failed = with("update_failed");
        assert_eq!(failed.release, seen.release, "the deploy before still serves");
        assert!(failed.failed_deploy.unwrap().contains("dep-2 (no commit) ended as update_failed; dep-1 still serves"));
        assert_eq!(hosted(&read(json!([]), &[]), None, now()).release, None);
    }

    #[test]
    fn a_failure_counts_when_it_lasts_or_comes_again() {
        let exit = || json!({"reason": {"evicted": false, "nonZeroExit": 1}});
        let oom = || json!({"reason": {"evicted": false, "oomKilled": {"memoryLimit": "512MB"}}});
        let up = || ("server_available", 5, json!({}));
        let seen = |events: &[(&str, i64, Value)]| hosted(&read(live(), events), None, now()).fault;
        assert_eq!(seen(&[("server_failed", 20, exit()), up()]), None, "Render restarted it");
        let fresh = seen(&[("server_failed", 20, exit())]).unwrap();
        assert!(!fresh.lasting, "Render is restarting it");
        let lasting = seen(&[("server_failed", 40, oom())]).unwrap();
        assert!(lasting.lasting && lasting.of_release && lasting.kind == FaultKind::OomKilled);
        assert!(lasting.detail.contains("ran out of memory (limit 512MB) at 09:59:20Z"), "{}", lasting.detail);
        let again = [("server_failed", 90, exit()), ("server_failed", 50, exit()), ("server_failed", 9, exit()), up()];
        let again = seen(&again).unwrap();
        assert!(again.lasting && again.kind == FaultKind::CrashLoop && again.detail.contains("3 times in 10 min"));
        let old = |ago| ("server_failed", ago, exit());
        assert_eq!(seen(&[old(300), old(200), old(150), up()]), None, "it has been healthy since");
        let older = seen(&[("server_failed", 400, exit())]).unwrap();
        assert!(!older.of_release, "it came before the deploy that serves");
        for replaced in [("server_restarted", 10, json!({})), ("deploy_ended", 10, json!({"status": 2}))] {
            assert_eq!(seen(&[("server_failed", 40, exit()), replaced]), None);
        }
        assert!(seen(&[("server_failed", 40, exit()), ("deploy_ended", 10, json!({"status": 3}))]).is_some());
    }

    #[test]
    fn suspension_and_auto_deploy_are_reported() {
        let mut read = read(live(), &[]);
        assert_eq!(read.service.deploys_on().as_deref(), Some("commit"), "by the older field");
        for (trigger, expected) in [("off", None), ("checksPass", Some("checksPass")), ("commit", Some("commit"))] {
            read.service.auto_deploy_trigger = Some(trigger.to_owned());
            assert_eq!(read.service.deploys_on().as_deref(), expected);
        }
        (read.service.suspended, read.service.suspenders) = ("suspended".into(), vec!["billing".into()]);
        let words = hosted(&read, None, now()).suspended.unwrap();
        assert!(words.contains("suspended (by: billing)"), "{words}");
    }
}
