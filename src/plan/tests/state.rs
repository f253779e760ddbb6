//! When the whole state is rolled back, and when a part of it.

use super::*;
use crate::{
    analyze::observation::ObservedConfig,
    api::{ConfigKind, ConfigObject},
};

fn config(digest: &str) -> Vec<ObservedConfig> {
    let object = ConfigObject { kind: ConfigKind::ConfigMap, name: "app".into(), digest: digest.into() };
    vec![ObservedConfig { object, on_start: false }]
}

/// v1 and its configuration are good, with a snapshot.
fn kept(spec: Value) -> Story {
    let mut story = Story::with(policy(spec));
    story.workload.config = Some(config("good"));
    story.error_rate(0.001).until(3600.0);
    let good = story.tracker.without_snapshot().unwrap();
    story.tracker.note_snapshot(good, "first".into(), at(3600.0));
    story
}

#[test]
fn when_template_and_configuration_changed_both_are_rolled_back_at_once() {
    let mut story = kept(json!({}));
    story.workload.config = Some(config("bad"));
    story.release("v2").fault(FaultKind::CrashLoop, 1).until(3602.0);
    let whole = proposal(&story, &[]);
    assert_eq!((whole.action, whole.step), (ActionKind::RollbackState, 2));
    assert_eq!(whole.intent.template().map(|to| (to.revision, to.digest.as_str())), Some((1, "v1")));
    let way = whole.intent.config().unwrap().clone();
    assert_eq!((way.state.as_str(), way.objects.len(), way.objects[0].to.as_str()), ("first", 1, "good"));
    assert!(
        whole.why.contains("changed ConfigMap or Secret: 1; rollback target: the state of revision 1"),
        "{}",
        whole.why
    );
    // When that was tried, the template alone is what is left.
    assert_eq!(proposal(&story, &[tried(&story, 2, Phase::Failed)]).action, ActionKind::Rollback);
    // A ladder without RollbackState continues in its order.
    let target = json!({"deployment": {"name": "api"}});
    let remedies = json!([{"action": "Rollback"}]);
    let mut other = kept(json!({"components": [{"name": "api", "target": target, "remedies": remedies}]}));
    other.workload.config = Some(config("bad"));
    other.release("v2").fault(FaultKind::CrashLoop, 1).until(3602.0);
    assert_eq!(proposal(&other, &[]).action, ActionKind::Rollback);
}

#[test]
fn a_part_is_rolled_back_before_the_whole_state() {
    let mut template = kept(json!({}));
    template.release("v2").fault(FaultKind::CrashLoop, 1).until(3602.0);
    assert_eq!(proposal(&template, &[]).action, ActionKind::Rollback);
    let next = proposal(&template, &[tried(&template, 0, Phase::Failed)]);
    assert_eq!((next.action, next.intent.config().map(|way| way.objects.len())), (ActionKind::RollbackState, Some(0)));
    let no = Past { action: ActionKind::Rollback, ..tried(&template, 0, Phase::Rejected) };
    let Verdict::Refuse(refusal) = check(&template, &[no]) else { panic!("a person rejected the rollback") };
    assert_eq!(refusal.guard, Guard::LadderExhausted);
    let mut content = kept(json!({}));
    content.workload.config = Some(config("bad"));
    content.error_rate(0.5).until(3605.0);
    let part = proposal(&content, &[]);
    assert_eq!((part.action, part.cause), (ActionKind::RollbackConfig, Cause::ConfigRegression));
    assert!(part.why.contains("after a change of ConfigMap/app"), "{}", part.why);
    let next = proposal(&content, &[tried(&content, 1, Phase::Ineffective)]);
    assert_eq!(next.action, ActionKind::RollbackState);
}

#[test]
fn a_rollback_of_a_whole_state_has_the_same_limits() {
    let bad = |spec: Value, change: &dyn Fn(&mut Story)| {
        let mut story = kept(spec);
        change(&mut story);
        story.workload.config = Some(config("bad"));
        story.release("v2").fault(FaultKind::CrashLoop, 1).until(3602.0);
        let Verdict::Refuse(refusal) = check(&story, &[]) else { panic!("not refused") };
        refusal.guard
    };
    let workload = |change: fn(&mut Workload)| move |story: &mut Story| _ = story.workload(change);
    assert_eq!(bad(json!({}), &workload(|w| w.irreversible = Some("schema".into()))), Guard::Irreversible);
    assert_eq!(bad(json!({}), &workload(|w| w.gitops_owner = gitops::flux(true))), Guard::GitOpsOwned);
    assert_eq!(bad(json!({"mode": "Observe"}), &|_| ()), Guard::ObserveMode);
}
