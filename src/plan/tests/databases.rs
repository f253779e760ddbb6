//! Resources of a database that run out, and the remedies that free them.

use super::*;

fn full(target: &Value, remedies: Value, metric: &str) -> Story {
    let components = json!([{"name": "api", "target": target, "remedies": remedies}]);
    let mut story = Story::settled_with(policy(json!({"components": components})));
    story.metric(metric, 97.0).until(3602.0);
    story
}

/// The action that is proposed, or the words of the refusal.
fn proposed(story: &Story) -> Result<ActionKind, String> {
    match check(story, &[]) {
        Verdict::Propose(proposal) => Ok(proposal.action),
        Verdict::Refuse(refusal) => Err(refusal.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn actions_that_reclaim_no_storage_are_skipped_when_storage_runs_out() {
    let render = json!({"render": {"postgresId": "dpg-1"}});
    let own = json!({"postgres": {"connectionSecretRef": {"name": "db", "key": "url"},
        "workloadRef": {"kind": "StatefulSet", "name": "db"}}});
    let restart = || json!([{"action": "Restart"}]);
    let release = || json!([{"action": "ReleaseConnections"}]);
    let cancel = || json!([{"action": "CancelQueries", "sessions": {"runningLongerThan": "5m"}}]);
    for (target, remedies, metric, expected) in [
        (&render, restart(), "connections_usage", Some(ActionKind::Restart)),
        (&render, restart(), "storage_usage", None),
        (&own, restart(), "storage_usage", None),
        (&own, restart(), "wraparound_usage", None),
        (&own, release(), "connections_usage", Some(ActionKind::ReleaseConnections)),
        (&own, release(), "wraparound_usage", Some(ActionKind::ReleaseConnections)),
        (&own, release(), "storage_usage", None),
        (&own, cancel(), "storage_usage", None),
    ] {
        match (proposed(&full(target, remedies, metric)), expected) {
            (Ok(action), Some(expected)) => assert_eq!(action, expected, "{metric}"),
            (Err(words), None) => {
                assert!(words.contains("can be applied for Exhaustion; investigate manually"), "{words}")
            }
            (other, _) => panic!("{metric} of {target}: {other:?}"),
        }
    }
    let mut both = full(&render, restart(), "storage_usage");
    both.metric("connections_usage", 97.0).until(3604.0);
    assert_eq!(proposed(&both), Ok(ActionKind::Restart), "connections come back");
    // What was decided for connections is not done for storage alone.
    let asked = |story: &Story| {
        let episode = story.tracker.episode().unwrap().id.clone();
        still_allowed(&situation(story, 1, &[]), Ground::Unhealthy(&episode), ActionKind::Restart)
    };
    assert_eq!(asked(&both).map(drop), Ok(()));
    let refusal = asked(&full(&render, restart(), "storage_usage")).unwrap_err();
    assert!(refusal.guard == Guard::NoRemedy && refusal.message.contains("cannot relieve"), "{refusal:?}");
    // A custom remedy may do anything.
    let own_job =
        json!([{"action": "Restart"}, {"action": "Webhook", "webhook": {"url": "https://ops.example.com/grow"}}]);
    assert_eq!(proposed(&full(&render, own_job, "storage_usage")), Ok(ActionKind::Webhook));
}

#[test]
fn no_action_after_an_unknown_outcome_of_the_incident_just_before() {
    let render = json!({"render": {"postgresId": "dpg-1"}});
    let story = full(&render, json!([{"action": "Restart"}]), "connections_usage");
    let unknown = |ended: f64| Past {
        outcome_unknown: true,
        finished_at: Some(at(story.now - ended)),
        ..past("api", Phase::Failed, 0.0)
    };
    let refused = |ended: f64| match check(&story, &[unknown(ended)]) {
        Verdict::Refuse(refusal) => refusal.guard == Guard::OutcomeUnknown,
        _ => false,
    };
    assert!(refused(60.0) && refused(899.0) && !refused(901.0));
}
