//! What the README shows is what the code has.

use panacea::api::{HealingPolicy, ValidPolicy, default_thresholds};

const README: &str = include_str!("../../README.md");

#[test]
fn its_complete_policy_is_valid_and_shows_the_defaults() {
    let yaml = README.split("```yaml\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
    let policy: HealingPolicy = serde_saphyr::from_str(yaml).unwrap();
    let valid = ValidPolicy::new(&policy, &default_thresholds()).unwrap();
    assert!(valid.invalid.is_empty(), "{:?}", valid.invalid);
    let spec = &policy.spec;
    assert_eq!(spec.detection, Default::default());
    assert_eq!(spec.release_watch, Default::default());
    assert_eq!(spec.prediction, Default::default());
    assert_eq!(spec.safety, Default::default());
    assert_eq!(spec.approval, Default::default());
    assert_eq!(spec.verification, Default::default());
}
