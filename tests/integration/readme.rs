//! The README is short, and the complete policy of the reference shows the defaults.

use panacea::api::{HealingPolicy, ValidPolicy, default_thresholds};

const README: &str = include_str!("../../README.md");
const REFERENCE: &str = include_str!("../../docs/reference.md");
/// More is not read in a minute.
const MOST_LINES: usize = 130;

#[test]
fn it_is_read_in_a_minute_and_names_the_first_commands() {
    let lines = README.lines().count();
    assert!(lines <= MOST_LINES, "README.md has {lines} lines, more than {MOST_LINES}: move details to docs/");
    for command in ["helm install panacea", "make demo", "make test", "kubectl get hp,rem"] {
        assert!(README.contains(command), "README.md does not name {command}");
    }
}

#[test]
fn the_complete_policy_is_valid_and_shows_the_defaults() {
    let yaml = REFERENCE.split("```yaml\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
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
