//! Before anything is wrong.

use super::*;

#[test]
fn a_foreseen_failure_is_prevented_with_a_reason() {
    let mut story = Story::settled();
    story.leaking(0.9).after(60.0);
    assert_eq!(check(&story, &[]), Verdict::Nothing, "twice in a row");
    story.after(60.0);
    let foreseen = story.outlook.foreseen().unwrap().clone();
    let proposal = proposal(&story, &[]);
    assert_eq!((proposal.action, proposal.cause, proposal.step), (ActionKind::CleanupMemory, Cause::Exhaustion, 3));
    assert_eq!((&proposal.episode, proposal.foreseen.as_ref()), (&foreseen.id, Some(&foreseen)));
    for word in
        ["failure forecast with 86% within 1h", "memory_usage grows", "reaches its limit of 100%", "before the failure"]
    {
        assert!(proposal.why.contains(word), "{word:?} is not in {:?}", proposal.why);
    }
    let tried = |phase| Past { episode: foreseen.id.clone(), step: 3, ahead: true, ..past("api", phase, 0.0) };
    assert_eq!(check(&story, &[tried(Phase::Verifying)]), Verdict::Nothing, "one at a time");
    let failed = tried(Phase::Ineffective);
    let Verdict::Propose(next) = check(&story, std::slice::from_ref(&failed)) else { panic!("a step is left") };
    assert_eq!((next.action, next.step), (ActionKind::Restart, 4));
    let all = [failed.clone(), Past { step: 4, ..failed }];
    let Verdict::Refuse(refusal) = check(&story, &all) else { panic!("tried already") };
    assert_eq!((refusal.guard, refusal.calls_person), (Guard::LadderExhausted, true));
    assert!(refusal.message.contains("still forecast to fail (memory_usage grows"), "{refusal:?}");
    // Another incident, and the one before held for longer than the horizon.
    let earlier = Past { episode: "earlier".into(), ..tried(Phase::Succeeded) };
    assert!(matches!(check(&story, &[earlier]), Verdict::Propose(_)));
}

#[test]
fn a_forecast_alone_is_not_acted_on_when_it_is_unlikely_far_off_or_switched_off() {
    let risky = |spec: Value, risk: f64| {
        let mut story = Story::settled_with(policy(spec));
        story.leaking(risk);
        (0..5).for_each(|_| _ = story.after(60.0));
        check(&story, &[])
    };
    assert!(matches!(risky(json!({}), 0.6), Verdict::Propose(_)));
    assert_eq!(risky(json!({}), 0.4), Verdict::Nothing, "below prediction.minProbability");
    assert_eq!(risky(json!({"prediction": {"minProbability": 0.9}}), 0.9), Verdict::Nothing);
    assert!(matches!(risky(json!({"prediction": {"minProbability": 0.2}}), 0.4), Verdict::Propose(_)));
    assert_eq!(risky(json!({"prediction": {"horizon": "10m"}}), 0.9), Verdict::Nothing, "in half an hour");
}

#[test]
fn a_foreseen_failure_is_checked_again_just_before_the_action() {
    let mut story = leak(json!({}));
    let foreseen = story.outlook.foreseen().unwrap().clone();
    let ground = Ground::Foreseen(&foreseen);
    let asked = |story: &Story| still_allowed(&situation(story, 0, &[]), ground, ActionKind::Restart);
    assert_eq!(asked(&story).map(drop), Ok(()));
    story.relieved().after(1.0);
    let refusal = asked(&story).unwrap_err();
    assert_eq!((refusal.guard, refusal.calls_person), (Guard::NotConfirmed, false));
    assert!(refusal.message.contains("no longer supports the forecast"), "{refusal:?}");
    // It came: that is healed as what it is.
    let mut story = leak(json!({}));
    let soon = story.now + 10.0;
    story.fault(FaultKind::OomKilled, 2).until(soon);
    assert_eq!(asked(&story).unwrap_err().guard, Guard::StaleData);
    let proposal = proposal(&story, &[]);
    assert_eq!((proposal.cause, proposal.foreseen), (Cause::Exhaustion, None));
}

#[test]
fn a_new_template_is_another_story() {
    let mut story = leak(json!({}));
    story.release("v2").complete().after(1.0);
    assert_eq!(story.outlook.foreseen(), None);
    let mut story = leak(json!({}));
    story.restart().complete().after(1.0);
    assert!(story.outlook.foreseen().is_some(), "a restart of the same has to be seen to help");
}
